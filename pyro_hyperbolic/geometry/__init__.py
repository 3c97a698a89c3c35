r"""Maps of a manifold: :math:`\exp_o` and its inverse, its log-volume, and the isometries :math:`T_p`.

On a Hadamard symmetric space (hyperbolic space, Euclidean space, SPD matrices, their products) the exponential map at
the origin is a global chart, and for every point ``p`` one isometry ``T_p`` carries the origin to ``p`` with
:math:`\exp_p \circ \mathrm{PT}_{o \to p} = T_p \circ \exp_o`. Distributions and flows are compositions of these maps.

Each function takes a geoopt manifold first, checks its arguments, and calls the geometry registered for that type of
manifold. To add a manifold, subclass :class:`Hadamard` in a file of its own and call :func:`register`.

Shapes: ``n`` is the intrinsic dimension. Tangent coordinates ``v`` at the origin are ``(*, n)``. Points are
``(*, n + 1)`` on ``geoopt.Lorentz``, and the docstrings below say so; they are ``(*, n)`` on ``geoopt.Euclidean(1)``
and ``geoopt.PoincareBall``. Batch shapes broadcast.

The sphere, the torus and rotations (``geoopt.Sphere``, ``manifolds.Torus``, ``manifolds.Rotations``), and products with
them, have no origin and no global chart. There :func:`exp_at`, :func:`log_at`, :func:`geodesic`, :func:`distance`,
:func:`squared_distance`, :func:`distance_matrix`, :func:`project` and :func:`contains` are defined.
"""

import torch
from geoopt.manifolds.base import Manifold
from torch import Tensor

from .base import Complete, Embedded, Geometry, Hadamard, Nested
from .checks import (
    as_real,
    check_batches,
    check_chart,
    check_complete,
    check_count,
    check_finite_result,
    check_manifold,
    check_nearest,
    check_pair,
    check_points,
    check_same_dtype,
    check_same_size,
    check_set,
    check_shape,
    check_tangent,
    check_vectors,
    describe,
    floating_dtype,
    validating,
)
from .means import along, mean
from .origins import is_known_origin, known_tangent, remember_origin, remember_tangent
from .registry import bind, chart, complete, register, same

__all__ = [
    "Complete",
    "Embedded",
    "Geometry",
    "Hadamard",
    "Nested",
    "bind",
    "chart",
    "complete",
    "contains",
    "distance",
    "distance_matrix",
    "exp0",
    "exp_at",
    "frechet_mean",
    "geodesic",
    "is_known_origin",
    "known_tangent",
    "log0",
    "log_at",
    "log_volume",
    "midpoint",
    "origin",
    "project",
    "register",
    "remember_tangent",
    "same",
    "squared_distance",
    "translate",
    "translate_tangent",
]


def contains(manifold: Manifold, x: Tensor) -> Tensor:
    r"""Returns whether each event lies on the manifold: :math:`x_0 > 0,\ |(\sqrt k, x_s)/x_0| = 1` up to 64 eps.

    The formula is for the hyperboloid. Its tolerance is relative to the time coordinate: at every radius correctly
    rounded points pass and a 0.1% error fails. NaN, infinities and the lower sheet fail.

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
    geometry = bind(manifold)
    check_shape(geometry, x)
    return geometry.contains(x)


def origin(
    manifold: Manifold, n: int, *, dtype: torch.dtype | None = None, device: torch.device | None = None
) -> Tensor:
    r"""Returns the origin :math:`o = (\sqrt k, 0, \ldots, 0)`, with a gradient to ``k``.

    The returned tensor is marked as the origin (:func:`is_known_origin`). A distribution centred there skips the
    isometry, which is half of its cost.

    Args:
        manifold: A geoopt manifold.
        n: Intrinsic dimension.
        dtype: Dtype of the result; the dtype of ``k`` by default.
        device: Device of the result; the device of ``k`` by default.

    Returns:
        Tensor of shape ``(n + 1,)``, with the batch shape of ``k`` before it if ``k`` has one.

    Raises:
        TypeError: If ``n`` is not an integer, or ``dtype`` not a floating point dtype.
        ValueError: If ``n < 1`` or ``k <= 0``.

    Example:
        >>> origin(geoopt.Lorentz(k=4.0), 2)
        tensor([2., 0., 0.])
    """
    check_count("n", n, 1, "it is the intrinsic dimension, the number of tangent coordinates")
    dtype = dtype if dtype is None else floating_dtype(dtype)
    space = check_chart(manifold)
    return remember_origin(space.origin(n, dtype, device), space.name)


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
    x, _ = check_vectors(manifold, v, "v").exp0(v)
    check_finite_result("v", v, x)
    return x


def log0(manifold: Manifold, x: Tensor) -> Tensor:
    r"""Maps points to tangent coordinates at the origin, :math:`v = \log_o(x)`, the inverse of :func:`exp0`.

    Args:
        manifold: A geoopt manifold.
        x: Points, shape ``(*, n + 1)``.

    Returns:
        Tangent coordinates, shape ``(*, n)``; ``|v|`` is the distance from the origin.

    Raises:
        TypeError: If ``x`` is not a floating point tensor.
        ValueError: While validating, if a point is off the manifold.

    Example:
        >>> log0(geoopt.Lorentz(), torch.tensor([1.25, 0.75]))  # acosh(1.25) = log 2
        tensor([0.6931])
    """
    geometry = check_chart(manifold)
    check_points(geometry, x)
    return geometry.log0(x)[0]


def log_volume(manifold: Manifold, v: Tensor) -> Tensor:
    r"""Returns :math:`\log |\det d \exp_o|_v = (n - 1) \log \frac{\sinh r}{r}`, :math:`r = |v| / \sqrt k`.

    The log-determinant of :func:`exp0`, from Lebesgue measure of the tangent coordinates to Riemannian volume. Its
    relative error is of the order of the unit roundoff at every radius.

    Args:
        manifold: A geoopt manifold.
        v: Tangent coordinates at the origin, shape ``(*, n)``, in units of distance.

    Returns:
        Tensor of shape ``(*)``.

    Raises:
        TypeError: If ``v`` is not a floating point tensor.
        ValueError: While validating, if ``v`` is not finite or ``k <= 0``.

    Example:
        Zero on a line, and log sinh(1) in the hyperbolic plane at distance one:

        >>> M = geoopt.Lorentz()
        >>> log_volume(M, torch.tensor([1.0])), log_volume(M, torch.tensor([1.0, 0.0]))
        (tensor(0.), tensor(0.1614))
    """
    geometry = check_vectors(manifold, v, "v")
    check_finite_result("v", v, v)
    return geometry.log_volume(v)


def translate(manifold: Manifold, p: Tensor, x: Tensor, *, inverse: bool = False) -> Tensor:
    r"""Returns :math:`T_p\, x`; the isometry :math:`T_p` (a boost) carries the origin to ``p`` along the geodesic.

    :math:`T_p \circ \exp_o = \exp_p \circ \mathrm{PT}_{o \to p}`; in Euclidean space ``x + p``. Its log-determinant
    with respect to Riemannian volume is zero.

    Args:
        manifold: A geoopt manifold.
        p: Image of the origin, shape ``(*, n + 1)``.
        x: Points to move, shape ``(*, n + 1)``.
        inverse: Whether to apply :math:`T_p^{-1}`, which carries ``p`` to the origin.

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
        >>> log0(M, translate(M, p, p)).round(decimals=4)  # twice as far along the same geodesic
        tensor([2., 0.])
        >>> translate(M, p, p, inverse=True)
        tensor([1., 0., 0.])
    """
    geometry = chart(manifold)
    check_pair(geometry, p=p, x=x)
    y = geometry.translate(p, x, inverse)
    check_finite_result("p", p, y)
    return y


def distance(manifold: Manifold, x: Tensor, y: Tensor) -> Tensor:
    r"""Returns the geodesic distance, :math:`2 \sqrt k \operatorname{asinh} \frac{|\rho x_s - y_s / \rho|}{2 \sqrt k}`.

    Here :math:`\rho^2 = (1 + y_0/\sqrt k) / (1 + x_0/\sqrt k)`. This equals :math:`\sqrt k
    \operatorname{arcosh}(-\langle x, y \rangle / k)` without its cancellation. It is exact along a ray at any distance,
    and exactly zero at ``x = y``, where the gradient is defined as zero (:func:`squared_distance` is smooth there).
    Nearby points at scaled radius ``r`` have an uncertain distance, by the unit roundoff times :math:`\sqrt k \sinh r`,
    because their coordinates are rounded. The triangle inequality with the origin still holds.

    Args:
        manifold: A geoopt manifold.
        x: Points, shape ``(*, n + 1)``.
        y: Points, shape ``(*, n + 1)``.

    Returns:
        Tensor of shape ``(*)``, in units of distance.

    Raises:
        TypeError: If an argument is not a floating point tensor, or the dtypes differ.
        ValueError: If the last dimensions differ or, while validating, a point is off the manifold.

    Example:
        >>> M = geoopt.Lorentz()
        >>> x = exp0(M, torch.tensor([20.0, 0.0]))
        >>> distance(M, x, x), distance(M, x, exp0(M, torch.tensor([-20.0, 0.0])))
        (tensor(0.), tensor(40.))
    """
    return check_pair(manifold, x=x, y=y).distance(x, y)


def distance_matrix(manifold: Manifold, x: Tensor, y: Tensor | None = None) -> Tensor:
    r"""Returns the distances of all pairs, :math:`d(x_i, y_j)`, to the accuracy of :func:`distance`.

    On the hyperboloid what belongs to one point is computed once per point, and

    .. math:: \sinh^2 \tfrac{d(x, y)}{2} = \tfrac{x_0 y_0}{4 k} \left| \tfrac{x_s}{x_0} - \tfrac{y_s}{y_0} \right|^2
        + \tfrac{(x_0 - y_0)^2}{4\, x_0 y_0}

    is a sum of squares, where nothing cancels. The result is exactly zero where points coincide, with zero gradients,
    and symmetric if ``y`` is None. Squares of distances must be in range: below 1e-154 in float64 they round to zero,
    and so do distances in a Euclidean set that are 1e-154 times smaller than its largest coordinate.

    Args:
        manifold: A geoopt manifold. A batch of parameters, such as ``k``, broadcasts with the batch of points: all
            points of one matrix are on one manifold, so its last dimension is 1.
        x: Sets of points, shape ``(*, N, n + 1)``.
        y: Sets of points, shape ``(*, m, n + 1)``; ``x`` by default.

    Returns:
        Tensor of shape ``(*, N, m)``, in units of distance.

    Raises:
        TypeError: If an argument is not a floating point tensor, or the dtypes differ.
        ValueError: If ``x`` or ``y`` is one point, the last dimensions differ, a parameter varies within a set or,
            while validating, a point is off the manifold.

    Example:
        >>> M = geoopt.Lorentz()
        >>> distance_matrix(M, exp0(M, torch.tensor([[-1.0, 0.0], [0.0, 0.0], [3.0, 0.0]])))
        tensor([[0., 1., 4.],
                [1., 0., 3.],
                [4., 3., 0.]])
    """
    geometry = check_manifold(manifold)
    sets = {"x": x} if y is None else {"x": x, "y": y}
    for name, value in sets.items():
        check_set(geometry, value, name)
    check_same_dtype(**sets)
    check_same_size(**sets)
    check_batches(**{name: geometry.batch_of(value.shape)[:-1] for name, value in sets.items()})
    return geometry.distance_matrix(x, x if y is None else y)


def squared_distance(manifold: Manifold, x: Tensor, y: Tensor) -> Tensor:
    r"""Returns :math:`d(x, y)^2`, smooth everywhere: at ``x = y`` its Hessian is twice the metric.

    The square of :func:`distance` has the same value but no second derivative at ``x = y``. Prefer this function for
    energies, Gaussian kernels and Fréchet means.

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
    return check_pair(manifold, x=x, y=y).squared_distance(x, y)


def exp_at(manifold: Manifold, p: Tensor, v: Tensor) -> Tensor:
    r"""Maps tangent vectors at ``p`` to the manifold, :math:`x = \exp_p(v)`.

    On a manifold with a global chart ``v`` are normal coordinates at ``p``: components in the frame transported from
    the origin along the geodesic, :math:`x = T_p \exp_o(v)`. Otherwise they are ``(*, m)``: a vector of R^{n + 1}
    orthogonal to ``p`` on ``geoopt.Sphere``, velocities of angles on ``Torus``, the angular velocity in the body frame,
    with :math:`x = p\, e^{\hat v}`, on ``Rotations``.

    Args:
        manifold: A geoopt manifold.
        p: Points, shape ``(*, n + 1)``.
        v: Tangent vectors, shape ``(*, n)`` or ``(*, m)``; ``|v|`` is the length of the geodesic.

    Returns:
        Points, shape ``(*, n + 1)``.

    Raises:
        TypeError: If an argument is not a floating point tensor, or the dtypes differ.
        ValueError: If the dimensions differ or, while validating, ``p`` is off the manifold, ``v`` is not finite or not
            tangent, or the result overflows.

    Example:
        >>> M = geoopt.Lorentz()
        >>> exp_at(M, torch.tensor([1.25, 0.75]), torch.tensor([0.6931]))  # cosh and sinh of log 4
        tensor([2.1249, 1.8749])
        >>> exp_at(geoopt.Sphere(), torch.tensor([1.0, 0.0]), torch.tensor([0.0, torch.pi / 6]))
        tensor([0.8660, 0.5000])
    """
    geometry = check_complete(manifold)
    check_points(geometry, p, "p")
    check_tangent(geometry, p, v, "v")
    x = geometry.exp(p, v)
    check_finite_result("v", v, x)
    return x


def log_at(manifold: Manifold, p: Tensor, x: Tensor) -> Tensor:
    r"""Returns the tangent vector at ``p`` that reaches ``x``, :math:`v = \log_p(x)`, the inverse of :func:`exp_at`.

    On a manifold with a global chart these are normal coordinates, :math:`v = \log_o(T_p^{-1} x)`. Elsewhere ``v`` is
    the shortest such vector. It jumps as ``x`` crosses the cut locus of ``p``: on ``geoopt.Sphere`` the antipode, on
    ``Torus`` an angle of :math:`\pi`, on ``Rotations`` half a turn. There it is one of the shortest.

    Args:
        manifold: A geoopt manifold.
        p: Points, shape ``(*, n + 1)``.
        x: Points, shape ``(*, n + 1)``.

    Returns:
        Tangent vectors, shape ``(*, n)`` or ``(*, m)`` as in :func:`exp_at`; ``|v|`` is the distance from ``p`` to
        ``x``.

    Raises:
        TypeError: If an argument is not a floating point tensor, or the dtypes differ.
        ValueError: If the dimensions differ or, while validating, a point is off the manifold.

    Example:
        >>> log_at(geoopt.Lorentz(), torch.tensor([1.25, 0.75]), torch.tensor([1.0, 0.0]))  # minus log 2
        tensor([-0.6931])
        >>> log_at(geoopt.Sphere(), torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]))  # a quarter turn
        tensor([0.0000, 1.5708])
    """
    geometry = check_complete(manifold)
    check_pair(geometry, p=p, x=x)
    return geometry.log(p, x)


def geodesic(manifold: Manifold, x: Tensor, y: Tensor, t: Tensor | float) -> Tensor:
    r"""Returns the point at fraction ``t`` of the way from ``x`` to ``y``, :math:`\exp_x(t \log_x y)`.

    Args:
        manifold: A geoopt manifold.
        x: Points, shape ``(*, n + 1)``.
        y: Points, shape ``(*, n + 1)``.
        t: A number, or a tensor ``(*)`` that broadcasts with the batch; 0 gives ``x``, 1 gives ``y``.

    Returns:
        Points, shape ``(*, n + 1)``. At the cut locus the way is one of the shortest.

    Raises:
        TypeError: If a point is not a floating point tensor, ``t`` not real numbers, or the dtypes differ.
        ValueError: If the dimensions or batch shapes differ or, while validating, a point is off the manifold.

    Example:
        >>> M = geoopt.Lorentz()
        >>> x, y = exp0(M, torch.tensor([[-1.0, 0.0], [3.0, 0.0]]))
        >>> log0(M, geodesic(M, x, y, 0.5)).round(decimals=4)
        tensor([1., 0.])
    """
    geometry = check_complete(manifold)
    check_pair(geometry, x=x, y=y)
    v = geometry.log(x, y)
    check_batches(points=v.shape[:-1], t=as_real("t", t, "it is a fraction of the way, 0.5 for the middle").shape)
    way = torch.as_tensor(t, dtype=v.dtype, device=v.device).unsqueeze(-1) * v
    z = geometry.exp(x, way)
    check_finite_result("t", way, z)
    return z


def project(manifold: Manifold, x: Tensor) -> Tensor:
    r"""Returns the points nearest to ``x`` in the space of coordinates, for example :math:`x / |x|` on a sphere.

    It repairs points that rounding or an optimiser has moved. On ``Rotations`` the result is the nearest rotation in
    Frobenius norm, of any matrix that has one; on ``Torus`` angles are wrapped. On ``geoopt.Lorentz`` the spatial
    coordinates are kept and determine the point; SPD matrices are symmetrised. Points of Euclidean space and of the
    Poincaré ball are returned as they are.

    Args:
        manifold: A geoopt manifold.
        x: Coordinates, shape ``(*, n + 1)``.

    Returns:
        Points, a new tensor, shape ``(*, n + 1)``.

    Raises:
        TypeError: If ``x`` is not a floating point tensor.
        ValueError: If its shape is not that of points or, while validating, there is no nearest point.

    Example:
        >>> project(geoopt.Sphere(), torch.tensor([3.0, 0.0, -4.0]))
        tensor([ 0.6000,  0.0000, -0.8000])
        >>> project(ph.manifolds.Torus(1), torch.tensor([4.0])) + 2 * torch.pi
        tensor([4.])
    """
    geometry = check_complete(manifold)
    check_shape(geometry, x)
    y = geometry.project(x)
    check_nearest(geometry, x, y, geometry.projectable)
    return y


def frechet_mean(manifold: Manifold, x: Tensor, weights: Tensor | None = None, dim: int = 0) -> Tensor:
    r"""Returns the point of least mean squared distance, :math:`\arg\min_m \sum_i w_i\, d(m, x_i)^2`.

    The minimiser is unique on a Hadamard manifold. It is computed in float64 by Newton's method in normal coordinates
    at the current point. Gradients with respect to points, weights and curvature come from the implicit function
    theorem and are exact to 1e-8.

    Args:
        manifold: A geoopt manifold.
        x: Points, shape ``(*, N, *, n + 1)``.
        weights: Nonnegative weights, shape ``(N,)`` or the batch shape of ``x``; they need not sum to one. Equal by
            default.
        dim: The batch dimension to average over.

    Returns:
        Points, shape of ``x`` without dimension ``dim``.

    Raises:
        TypeError: If an argument is not a floating point tensor, or the manifold has no global chart.
        ValueError: If ``x`` has no batch dimension ``dim`` or no points along it or, while validating, a point is off
            the manifold or weights are negative or sum to zero.

    Example:
        >>> M = geoopt.Lorentz()
        >>> x = exp0(M, torch.tensor([[-1.0, 0.0], [3.0, 0.0]]))
        >>> log0(M, frechet_mean(M, x, torch.tensor([1.0, 3.0]))).round(decimals=4)  # three quarters of the way
        tensor([2., 0.])
    """
    if not isinstance(space := check_manifold(manifold), Hadamard):
        raise TypeError(
            f"{space.name} has points with more than one mean, such as antipodes, so frechet_mean is not defined; "
            f"minimise the mean squared_distance from one of the points with geoopt's RiemannianAdam, or use a "
            f"manifold with a global chart."
        )
    geometry = check_chart(space)
    check_points(geometry, x)
    return mean(geometry, *along(geometry, x, weights, dim))


def midpoint(manifold: Manifold, x: Tensor, weights: Tensor | None = None, dim: int = 0) -> Tensor:
    r"""Returns the normalised weighted sum :math:`s / \sqrt{-\langle s, s \rangle / k}`, :math:`s = \sum_i w_i x_i`.

    On the hyperboloid this Lorentzian centroid minimises :math:`\sum_i w_i \cosh(d(m, x_i) / \sqrt k)`. It is the
    geodesic midpoint of two points of equal weight, and moves with the points under isometries, as :func:`frechet_mean`
    does, at a fraction of the cost. Far points pull more strongly than in a Fréchet mean. Computed in float64, in a
    frame near the result, where the norm of the sum does not cancel.

    Euclidean space has the weighted mean, the Poincaré ball the point of the hyperboloid, the sphere and rotations the
    point nearest to the weighted mean, the torus the angles of :math:`\sum_j w_j e^{i x_j}`. On a product each factor
    has its own.

    Args:
        manifold: A geoopt manifold.
        x: Points, shape ``(*, N, *, n + 1)``.
        weights: Nonnegative weights, shape ``(N,)`` or the batch shape of ``x``; they need not sum to one. Equal by
            default.
        dim: The batch dimension to average over.

    Returns:
        Points, shape of ``x`` without dimension ``dim``.

    Raises:
        TypeError: If an argument is not a floating point tensor, or the manifold has no midpoint in closed form.
        ValueError: If ``x`` has no batch dimension ``dim`` or no points along it or, while validating, a point is off
            the manifold, weights are negative or sum to zero, or the sum has no nearest point, as for antipodes.

    References:
        Marc T. Law, Renjie Liao, Jake Snell, Richard S. Zemel, *Lorentzian Distance Learning for Hyperbolic
        Representations*, 2019.

    Example:
        >>> M = geoopt.Lorentz()
        >>> x = exp0(M, torch.tensor([[-1.0, 0.0], [3.0, 0.0]]))
        >>> log0(M, midpoint(M, x)).round(decimals=4)
        tensor([1., 0.])
    """
    geometry = check_manifold(manifold)
    check_points(geometry, x)
    y = geometry.midpoint(*along(geometry, x, weights, dim))
    if validating() and not bool(geometry.contains(y).all()):
        raise ValueError(
            f"x has no midpoint on {describe(geometry)}: the weighted sum is zero, as of antipodes, or distances "
            f"overflow; change a weight or remove the farthest points."
        )
    return y


def translate_tangent(manifold: Manifold, t: Tensor, v: Tensor, *, inverse: bool = False) -> tuple[Tensor, Tensor]:
    r"""Returns :math:`w = \log_o(T_t \exp_o(v))` and :math:`\log|\det dw/dv|`: the translation in tangent coordinates.

    The determinant is with respect to Lebesgue measure of the tangent coordinates on both sides,
    :math:`(n - 1)[\log \operatorname{sinhc}|v| - \log \operatorname{sinhc}|w|]` at ``k = 1``.

    Args:
        manifold: A geoopt manifold.
        t: *Spatial* coordinates of the image of the origin, any vector of shape ``(*, n)``.
        v: Tangent coordinates at the origin, shape ``(*, n)``, in units of distance.
        inverse: Whether to apply the inverse, the translation by ``-t``.

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
    geometry = chart(manifold)
    if not isinstance(geometry, Nested):
        raise TypeError(
            f"translate_tangent needs a geometry.Nested manifold, but {geometry.name} is not one; use "
            f"log0(M, translate(M, p, exp0(M, v)))."
        )
    for name, value in {"t": t, "v": v}.items():
        check_vectors(geometry, value, name)
        check_finite_result(name, value, value)
    check_same_dtype(t=t, v=v)
    check_same_size(t=t, v=v)
    return geometry.translate_tangent(t, v, inverse)
