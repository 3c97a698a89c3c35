r"""The three primitives on which everything stands: ``exp0/log0``, its volume stretch, and the isometry ``T_p``.

On a Hadamard symmetric space (hyperbolic space, Euclidean space, their products) the exponential map at the origin is
a global chart, and for every point ``p`` one isometry ``T_p`` carries the origin to ``p`` with
:math:`\exp_p \circ \mathrm{PT}_{o \to p} = T_p \circ \exp_o`. Distributions and flows are compositions of these.

Each function takes a geoopt manifold first and dispatches on its type. A further manifold is one module with the
functions of :class:`Kernels`, made known by :func:`register`.

Shapes: ``n`` is the intrinsic dimension; tangent coordinates ``v`` at the origin are ``(*, n)``; points are
``(*, n + 1)`` on ``geoopt.Lorentz`` and ``(*, n)`` on ``geoopt.Euclidean(1)``. Batch shapes broadcast.
"""

import torch
from geoopt.manifolds.base import Manifold
from torch import Tensor

from .checks import (
    check_count,
    check_finite_result,
    check_manifold,
    check_pair,
    check_points,
    check_same_dtype,
    check_same_size,
    check_shape,
    check_vectors,
)
from .origins import is_known_origin, known_tangent, remember_origin, remember_tangent
from .registry import Kernels, kernels, register, same

__all__ = [
    "Kernels",
    "contains",
    "distance",
    "exp0",
    "is_known_origin",
    "kernels",
    "known_tangent",
    "log0",
    "log_volume",
    "origin",
    "register",
    "remember_tangent",
    "same",
    "squared_distance",
    "translate",
    "translate_tangent",
]


def contains(manifold: Manifold, x: Tensor) -> Tensor:
    r"""Returns whether each event lies on the manifold: :math:`x_0 > 0,\ |(\sqrt k, x_s)/x_0| = 1` up to 64 eps.

    The tolerance is relative to the time coordinate, so correctly rounded points pass at every radius and a 0.1%
    error fails at every radius. NaN, infinities and the lower sheet fail. On Euclidean space: finite.

    Args:
        manifold: A geoopt manifold.
        x: Candidates, shape ``(*, n + 1)``.

    Returns:
        Boolean tensor of shape ``(*)``.

    Raises:
        TypeError: If ``x`` is not a floating point tensor.
        ValueError: If its last dimension is too small for a point.

    Example:
        >>> M = geoopt.Lorentz()
        >>> contains(M, torch.tensor([[1.25, 0.75], [1.25, 0.751], [-1.25, 0.75]]))
        tensor([ True, False, False])
    """
    check_shape(manifold, x)
    return kernels(manifold).contains(manifold, x)


def origin(
    manifold: Manifold, n: int, *, dtype: torch.dtype | None = None, device: torch.device | None = None
) -> Tensor:
    r"""Returns the origin :math:`o = (\sqrt k, 0, \ldots, 0)`, with a gradient to ``k``.

    The tensor that is returned is known to be the origin (:func:`is_known_origin`), so that a distribution placed there
    needs no isometry, which is half of its cost.

    Args:
        manifold: A geoopt manifold.
        n: Intrinsic dimension.
        dtype: Of the result; that of ``k`` by default.
        device: Of the result; that of ``k`` by default.

    Returns:
        Tensor of shape ``(n + 1,)``, with the batch shape of ``k`` before it if ``k`` has one.

    Raises:
        ValueError: If ``n < 1`` or ``k <= 0``.

    Example:
        >>> origin(geoopt.Lorentz(k=4.0), 2)
        tensor([2., 0., 0.])
    """
    check_count("n", n, 1, "it is the intrinsic dimension, one less than the length of a point of the hyperboloid")
    check_manifold(manifold)
    return remember_origin(kernels(manifold).origin(manifold, n, dtype, device))


def exp0(manifold: Manifold, v: Tensor) -> Tensor:
    r"""Maps tangent coordinates at the origin to the manifold, :math:`x = \exp_o(v)`.

    Args:
        manifold: A geoopt manifold.
        v: Tangent coordinates at the origin, shape ``(*, n)``, in units of distance.

    Returns:
        Points, shape ``(*, n + 1)``.

    Raises:
        TypeError: If ``v`` is not a floating point tensor.
        ValueError: While validating, if ``v`` is not finite, ``k <= 0``, or the result overflows (in float32 beyond
            ``|v| = 88 sqrt(k)``).

    Example:
        >>> exp0(geoopt.Lorentz(), torch.tensor([1.0, 0.0]))
        tensor([1.5431, 1.1752, 0.0000])
    """
    check_vectors(manifold, v, "v")
    x = kernels(manifold).exp0(manifold, v)[0]
    check_finite_result("v", v, x)
    return x


def log0(manifold: Manifold, x: Tensor) -> Tensor:
    r"""Maps points to tangent coordinates at the origin, :math:`v = \log_o(x)`, the inverse of :func:`exp0`.

    Args:
        manifold: A geoopt manifold.
        x: Points, shape ``(*, n + 1)``.

    Returns:
        Tangent coordinates, shape ``(*, n)``, in units of distance: ``|v|`` is the distance from the origin.

    Raises:
        TypeError: If ``x`` is not a floating point tensor.
        ValueError: While validating, if a point is off the manifold.

    Example:
        >>> log0(geoopt.Lorentz(), torch.tensor([1.25, 0.75]))  # acosh(1.25) = log 2
        tensor([0.6931])
    """
    check_manifold(manifold)
    check_points(manifold, x)
    return kernels(manifold).log0(manifold, x)[0]


def log_volume(manifold: Manifold, v: Tensor) -> Tensor:
    r"""Returns :math:`\log |\det d \exp_o|_v = (n - 1) \log \frac{\sinh r}{r}`, :math:`r = |v| / \sqrt k`.

    The log-determinant of :func:`exp0` from Lebesgue measure of the tangent coordinates to Riemannian volume; its
    relative error is of the order of the unit roundoff at every radius.

    Args:
        manifold: A geoopt manifold.
        v: Tangent coordinates at the origin, shape ``(*, n)``.

    Returns:
        Tensor of shape ``(*)``.

    Raises:
        TypeError: If ``v`` is not a floating point tensor.
        ValueError: While validating, if ``v`` is not finite or ``k <= 0``.

    Example:
        Zero on a line, log sinh(1) in the hyperbolic plane at distance one:

        >>> M = geoopt.Lorentz()
        >>> log_volume(M, torch.tensor([1.0])), log_volume(M, torch.tensor([1.0, 0.0]))
        (tensor(0.), tensor(0.1614))
    """
    check_vectors(manifold, v, "v")
    check_finite_result("v", v, v)
    return kernels(manifold).log_volume(manifold, v)


def translate(manifold: Manifold, p: Tensor, x: Tensor, *, inverse: bool = False) -> Tensor:
    r"""Returns :math:`T_p\, x`, the isometry that carries the origin to ``p`` along the geodesic (a boost).

    :math:`T_p \circ \exp_o = \exp_p \circ \mathrm{PT}_{o \to p}`; on Euclidean space ``x + p``. Its log-determinant
    with respect to Riemannian volume is zero.

    Args:
        manifold: A geoopt manifold.
        p: Where the origin goes, shape ``(*, n + 1)``.
        x: Points to move, shape ``(*, n + 1)``.
        inverse: Apply :math:`T_p^{-1} = T_{-p}` instead, which carries ``p`` to the origin.

    Returns:
        Points, shape ``(*, n + 1)``.

    Raises:
        TypeError: If an argument is not a floating point tensor, or the dtypes differ.
        ValueError: If the last dimensions differ or, while validating, a point is off the manifold or the result
            overflows.

    References:
        Abraham A. Ungar, *Analytic Hyperbolic Geometry and Albert Einstein's Special Theory of Relativity*, 2008
        (proper velocity addition).

    Example:
        >>> M = geoopt.Lorentz()
        >>> p = exp0(M, torch.tensor([1.0, 0.0]))
        >>> log0(M, translate(M, p, p)).round(decimals=4)  # twice as far on the same geodesic
        tensor([2., 0.])
        >>> translate(M, p, p, inverse=True)
        tensor([1., 0., 0.])
    """
    check_pair(manifold, p=p, x=x)
    y = kernels(manifold).translate(manifold, p, x, inverse)
    check_finite_result("p", p, y)
    return y


def distance(manifold: Manifold, x: Tensor, y: Tensor) -> Tensor:
    r"""Returns the geodesic distance, :math:`2 \sqrt k \operatorname{asinh} \frac{|\rho x_s - y_s / \rho|}{2 \sqrt k}`.

    With :math:`\rho^2 = (1 + y_0/\sqrt k) / (1 + x_0/\sqrt k)`; equal to :math:`\sqrt k \operatorname{arcosh}(-\langle
    x, y \rangle / k)` without its cancellation: exactly zero at ``x = y``, where the gradient is taken to be zero
    (:func:`squared_distance` is smooth there), and exact along a ray, however far. Points far from the origin and near
    each other are as far apart as their rounded coordinates say, which is uncertain by the unit roundoff times
    :math:`\sqrt k \sinh r`; the triangle inequality with the origin holds nevertheless.

    Args:
        manifold: A geoopt manifold.
        x: Points, shape ``(*, n + 1)``.
        y: Points, shape ``(*, n + 1)``.

    Returns:
        Tensor of shape ``(*)``.

    Raises:
        TypeError: If an argument is not a floating point tensor, or the dtypes differ.
        ValueError: If the last dimensions differ or, while validating, a point is off the manifold.

    Example:
        >>> M = geoopt.Lorentz()
        >>> x = exp0(M, torch.tensor([20.0, 0.0]))
        >>> distance(M, x, x), distance(M, x, exp0(M, torch.tensor([-20.0, 0.0])))
        (tensor(0.), tensor(40.))
    """
    check_pair(manifold, x=x, y=y)
    return kernels(manifold).distance(manifold, x, y)


def squared_distance(manifold: Manifold, x: Tensor, y: Tensor) -> Tensor:
    r"""Returns :math:`d(x, y)^2`, smooth everywhere: at ``x = y`` its Hessian is twice the metric.

    The square of :func:`distance` has the same value, but no second derivative at ``x = y``, where the distance itself
    is not differentiable. Energies, Gaussian kernels and Fréchet means want this one.

    Args:
        manifold: A geoopt manifold.
        x: Points, shape ``(*, n + 1)``.
        y: Points, shape ``(*, n + 1)``.

    Returns:
        Tensor of shape ``(*)``, in units of squared distance.

    Raises:
        TypeError: If an argument is not a floating point tensor, or the dtypes differ.
        ValueError: If the last dimensions differ or, while validating, a point is off the manifold.

    Example:
        >>> M = geoopt.Lorentz()
        >>> energy = lambda v: squared_distance(M, exp0(M, v), origin(M, 2)) / 2
        >>> torch.autograd.functional.hessian(energy, torch.zeros(2))
        tensor([[1., 0.],
                [0., 1.]])
    """
    check_pair(manifold, x=x, y=y)
    return kernels(manifold).squared_distance(manifold, x, y)


def translate_tangent(manifold: Manifold, t: Tensor, v: Tensor, *, inverse: bool = False) -> tuple[Tensor, Tensor]:
    r"""Returns :math:`w = \log_o(T_t \exp_o(v))` and :math:`\log|\det dw/dv|`, the translation seen in the chart.

    The determinant is with respect to Lebesgue measure of the tangent coordinates on both sides,
    :math:`(n - 1)[\log \operatorname{sinhc}|v| - \log \operatorname{sinhc}|w|]` at ``k = 1``.

    Args:
        manifold: A geoopt manifold.
        t: *Spatial* coordinates of the point to which the origin goes, shape ``(*, n)``: any vector is one, and the
            point is never off the manifold.
        v: Tangent coordinates at the origin, shape ``(*, n)``.
        inverse: Apply the inverse, the translation by ``-t``.

    Returns:
        ``w`` of shape ``(*, n)`` and the log-determinant of shape ``(*)``.

    Raises:
        TypeError: If an argument is not a floating point tensor, or the dtypes differ.
        ValueError: If the last dimensions differ or, while validating, an argument is not finite or ``k <= 0``.

    Example:
        On a line it is a shift by ``asinh(t)``:

        >>> translate_tangent(geoopt.Lorentz(), torch.tensor([0.75]), torch.tensor([1.0]))
        (tensor([1.6931]), tensor(0.))
    """
    check_manifold(manifold)
    for name, value in {"t": t, "v": v}.items():
        check_vectors(manifold, value, name)
        check_finite_result(name, value, value)
    check_same_dtype(t=t, v=v)
    check_same_size(t=t, v=v)
    w, stretch = kernels(manifold).translate_tangent(manifold, t, v, inverse)
    if stretch is None:
        return w, w.new_zeros(()).expand(w.shape[:-1])
    return w, kernels(manifold).log_stretch(w.size(-1), [stretch]).to(w.dtype)
