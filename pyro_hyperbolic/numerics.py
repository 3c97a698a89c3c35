r"""Scalar functions without overflow or cancellation, twice differentiable even at the origin. Torch only.

The radial functions take the *squared* radius :math:`z = |v|^2/k`. It is smooth in ``v`` and ``k``, and
:math:`\sinh(r)/r` is entire in :math:`z = r^2`, whereas :math:`r = |v|` has no derivative at the origin, where freshly
initialised flows start.

Each function is a Taylor polynomial near zero and a closed form elsewhere. Both arguments of ``where`` are guarded,
because ``where`` differentiates the branch it discards, and ``0 * inf`` is NaN.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = [
    "asinc",
    "asinh",
    "asinhc",
    "householder",
    "inverse_sinhc",
    "log_sinhc",
    "near_log_sinhc",
    "norm",
    "reflect",
    "sinc",
    "sinhc",
]

# Taylor polynomials are used below this z. The number of terms passed to `_terms` is chosen for it: the value and both
# derivatives are accurate to the unit roundoff of the dtype.
_SWITCH = 1e-2

_SINHC = [1 / math.factorial(2 * j + 1) for j in range(11)]
_ASINHC = [(-1) ** j * math.factorial(2 * j) / (4**j * math.factorial(j) ** 2 * (2 * j + 1)) for j in range(11)]

_SINC = [(-1) ** j * value for j, value in enumerate(_SINHC)]
_ASINC = [abs(value) for value in _ASINHC]


def sinhc(z: Tensor) -> Tensor:
    r"""Returns :math:`\sinh(\sqrt z)/\sqrt z`, accurate and twice differentiable for every :math:`z \ge 0`.

    At ``z = |v|^2 / k`` it is the spatial norm of the point :math:`\exp_o(v)` divided by :math:`|v|`.

    Args:
        z: Squared scaled radius, shape ``(*)``, nonnegative.

    Returns:
        Tensor of shape ``(*)``.

    Example:
        >>> sinhc(torch.tensor([0.0, 1.0, 100.0]))
        tensor([1.0000e+00, 1.1752e+00, 1.1013e+03])
    """
    small = z < _SWITCH
    r = z.masked_fill(small, 1.0).sqrt()
    return torch.where(small, _polynomial(_SINHC[: _terms(z, 4, 7)], z.masked_fill(~small, 0.0)), r.sinh() / r)


def sinc(z: Tensor) -> Tensor:
    r"""Returns :math:`\sin(\sqrt z)/\sqrt z`, accurate and twice differentiable for every :math:`z \ge 0`.

    Args:
        z: Squared angle, shape ``(*)``, nonnegative.

    Returns:
        Tensor of shape ``(*)``.

    Example:
        >>> sinc(torch.tensor([0.0, (torch.pi / 2) ** 2]))  # 1, and 2 / pi
        tensor([1.0000, 0.6366])
    """
    small = z < _SWITCH
    r = z.masked_fill(small, 1.0).sqrt()
    return torch.where(small, _polynomial(_SINC[: _terms(z, 4, 7)], z.masked_fill(~small, 0.0)), r.sin() / r)


def asinc(w: Tensor) -> Tensor:
    r"""Returns :math:`\arcsin(\sqrt w)/\sqrt w`, accurate and twice differentiable for :math:`0 \le w < 1`.

    Args:
        w: Squared sine, shape ``(*)``, in [0, 1].

    Returns:
        Tensor of shape ``(*)``.

    Example:
        >>> asinc(torch.tensor([0.0, 0.5]))  # 1, and pi / 4 * sqrt(2)
        tensor([1.0000, 1.1107])
    """
    small = w < _SWITCH
    x = w.masked_fill(small, 0.5).sqrt()
    return torch.where(small, _polynomial(_ASINC[: _terms(w, 6, 10)], w.masked_fill(~small, 0.0)), x.asin() / x)


def asinh(x: Tensor) -> Tensor:
    r"""Returns :math:`\operatorname{asinh} x`, with derivatives that do not overflow.

    ``torch.asinh`` squares ``x`` in its first derivative and cubes it in its second, so its gradient is zero above
    1.8e19 in single precision and 1.3e154 in double.

    Args:
        x: Shape ``(*)``.

    Returns:
        Tensor of shape ``(*)``.

    Example:
        >>> x = torch.tensor([0.75, 1e30], requires_grad=True)
        >>> asinh(x)  # log 2, and log(2e30)
        tensor([ 0.6931, 69.7707], grad_fn=<WhereBackward0>)
        >>> torch.autograd.grad(asinh(x).sum(), x)[0] * torch.tensor([1.25, 1e30])
        tensor([1., 1.])
    """
    near = x.abs() < 1
    large = x.abs().masked_fill(near, 1.0)
    far = large.log() + torch.log1p(torch.hypot(large.reciprocal(), x.new_ones(())))
    return torch.where(near, x.masked_fill(~near, 0.0).asinh(), x.sign() * far)


def asinhc(w: Tensor) -> Tensor:
    r"""Returns :math:`\operatorname{asinh}(\sqrt w)/\sqrt w`, accurate and twice differentiable for :math:`w \ge 0`.

    Args:
        w: Squared argument, shape ``(*)``, nonnegative.

    Returns:
        Tensor of shape ``(*)``.

    Example:
        It inverts :func:`sinhc`: with :math:`w = \sinh^2 r`, ``asinhc(w) * sinhc(r ** 2) == 1``.

        >>> r = torch.tensor([0.0, 1.0, 10.0])
        >>> (asinhc(r.sinh() ** 2) * sinhc(r**2)).round(decimals=6)
        tensor([1., 1., 1.])
    """
    small = w < _SWITCH
    x = w.masked_fill(small, 1.0).sqrt()
    return torch.where(small, _polynomial(_ASINHC[: _terms(w, 6, 10)], w.masked_fill(~small, 0.0)), asinh(x) / x)


def norm(v: Tensor) -> Tensor:
    r"""Returns :math:`|v|` without overflow or underflow; its derivatives at zero are zero.

    Args:
        v: Vectors, shape ``(*, n)``.

    Returns:
        Tensor of shape ``(*, 1)``.

    Example:
        >>> norm(torch.tensor([[3e30, 4e30], [0.0, 0.0]]))
        tensor([[5.0000e+30],
                [0.0000e+00]])
    """
    scale = v.detach().abs().amax(-1, keepdim=True)
    zero = scale == 0
    scale = scale.masked_fill(zero, 1.0)
    length = scale * torch.linalg.vector_norm(v.masked_fill(zero, 1.0) / scale, dim=-1, keepdim=True)
    return length.masked_fill(zero, 0.0)


def householder(f: Tensor) -> Tensor:
    r"""Returns the unit normal of the mirror that carries :math:`e_1` to f, :math:`(e_1 - f) / |e_1 - f|` for unit f.

    With :math:`f_1 = \cos\theta` it is :math:`(\sin\frac\theta2, -\cos\frac\theta2\, e)`, where ``e`` is the direction
    of the other coordinates. Written so, no difference of nearby numbers is taken, and the normal has unit length for
    every ``f``. At :math:`f = e_1` there is no mirror, and the result is zero, so that :func:`reflect` is the identity;
    its derivatives are zero there. The limits :math:`f \to e_1` from different sides are different mirrors, and
    derivatives grow like :math:`1/\theta`.

    Args:
        f: Vectors of any length but zero, shape ``(*, n)``.

    Returns:
        Tensor of shape ``(*, n)``.

    References:
        Alston S. Householder, *Unitary Triangularization of a Nonsymmetric Matrix*, Journal of the ACM 5, 1958.

    Example:
        >>> householder(torch.tensor([[0.0, 2.0], [-1.0, 0.0], [3.0, 0.0]]))
        tensor([[ 0.7071, -0.7071],
                [ 1.0000,  0.0000],
                [ 0.0000,  0.0000]])
    """
    f = f / f.detach().abs().amax(-1, keepdim=True)  # only the direction matters
    first, others = f.split([1, f.size(-1) - 1], dim=-1)
    back = first <= 0
    length, rest = norm(f), norm(torch.cat([torch.zeros_like(first), others], dim=-1))
    # The larger of sin and cos of the half angle; the smaller follows from sin(theta) = 2 sin cos.
    larger = ((length + torch.where(back, -first, first)) / (2 * length)).sqrt()
    half = 2 * length * larger
    apart = torch.where(back, others / half, larger * (others / rest.masked_fill(rest == 0, 1.0)))
    return torch.cat([torch.where(back, larger, rest / half), 0.0 - apart], dim=-1)


def reflect(u: Tensor, v: Tensor) -> Tensor:
    r"""Returns :math:`v - 2 (u \cdot v) u`, the mirror image of v.

    Args:
        u: Unit normal of the mirror, shape ``(*, n)``; zero for the identity.
        v: Vectors, shape ``(*, n)``.

    Returns:
        Tensor of shape ``(*, n)``.

    Example:
        >>> reflect(torch.tensor([0.0, 1.0]), torch.tensor([3.0, 4.0]))
        tensor([ 3., -4.])
    """
    return v - 2 * (u * v).sum(-1, keepdim=True) * u


def log_sinhc(z: Tensor) -> Tensor:
    r"""Returns :math:`\log\frac{\sinh\sqrt z}{\sqrt z}`, accurate and twice differentiable for every :math:`z \ge 0`.

    With :math:`z = |v|^2 / k` this is the per-dimension volume stretch of the exponential map:
    ``(n - 1) * log_sinhc(z)`` is its log-determinant at tangent vector ``v``.

    The naive ``r.sinh().log() - r.log()`` is NaN at the origin and overflows past ``r = 89`` in single precision.
    The *relative* error is of the order of the unit roundoff, even where the value is tiny.

    Args:
        z: Squared scaled radius, shape ``(*)``, nonnegative.

    Returns:
        Tensor of shape ``(*)``.

    Example:
        >>> log_sinhc(torch.tensor([0.0, 1.0, 10_000.0]))
        tensor([ 0.0000,  0.1614, 94.7017])
    """
    # The switch is at 1 because the closed form cancels below it; log1p of the series does not, all terms are positive.
    small = z < 1.0
    near = z.masked_fill(~small, 0.0)
    r = z.masked_fill(small, 1.0).sqrt()
    return torch.where(small, near_log_sinhc(near), r + torch.log1p(-torch.exp(-2 * r)) - torch.log(2 * r))


def inverse_sinhc(z: Tensor) -> tuple[Tensor, Tensor]:
    r"""Returns :math:`c = \sqrt z/\sinh\sqrt z` and :math:`(1 - c)/z`, twice differentiable for :math:`z \ge 0`.

    The matrix :math:`c\,(I - uu^\top) + uu^\top` with :math:`u = v/|v|` is :math:`c\,I + (1 - c)/z\ vv^\top` at
    :math:`z = |v|^2`, which is smooth at the origin.

    Args:
        z: Squared scaled radius, shape ``(*)``, nonnegative.

    Returns:
        Two tensors of shape ``(*)``.

    Example:
        >>> inverse_sinhc(torch.tensor([0.0, 1.0]))  # the second is 1/6 at zero
        (tensor([1.0000, 0.8509]), tensor([0.1667, 0.1491]))
    """
    small = z < 1.0
    near, far = z.masked_fill(~small, 0.0), z.masked_fill(small, 1.0)
    excess = _polynomial(_SINHC[1 : _terms(z, 6, 11)], near)  # (sinhc - 1) / z
    ratio = 1 / (1 + near * excess)
    r = far.sqrt()
    decay = 2 * r * torch.exp(-r) / -torch.expm1(-2 * r)
    return torch.where(small, ratio, decay), torch.where(small, excess * ratio, (1 - decay) / far)


def near_log_sinhc(z: Tensor) -> Tensor:
    """Returns :func:`log_sinhc` for ``z <= 2``, from its series alone."""
    return torch.log1p(z * _polynomial(_SINHC[1 : _terms(z, 6, 11)], z))


def _terms(z: Tensor, single: int, double: int) -> int:
    return double if z.dtype == torch.float64 else single


def _polynomial(coefficients: Sequence[float], z: Tensor) -> Tensor:
    """Returns ``sum_j coefficients[j] * z**j``."""
    *rest, before_last, last = coefficients
    result = z * last + before_last
    for coefficient in reversed(rest):
        result = result * z + coefficient
    return result
