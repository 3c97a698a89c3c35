r"""Pictures of surfaces: the Poincaré disk, of radius :math:`R = \sqrt k`, the plane, the globe, the square of a torus.

Every function draws on the given ``ax``, or on pyplot's current axes if it is ``None``, and returns the artists. None
shows a figure or changes global settings. The same script draws on any surface: two-dimensional manifolds of constant
curvature with a global chart, such as ``geoopt.Lorentz``, ``geoopt.PoincareBall`` and ``geoopt.Euclidean(1)``,
``geoopt.Sphere`` and ``ph.manifolds.Torus``. Points and vectors are tensors, NumPy arrays or nested lists; numbers in
lists have the default dtype. Drawing is on the CPU in float64, without gradients.

Needs matplotlib: ``pip install "pyro-hyperbolic[viz]"``.
"""

try:
    import matplotlib as _  # noqa: F401
except ImportError as error:
    raise ImportError('pyro_hyperbolic.viz needs matplotlib: pip install "pyro-hyperbolic[viz]"') from error

from .arrows import vector_field, vectors
from .fields import density, regions
from .frames import frame, globe, native_disk, plane, poincare_disk, torus_square
from .marks import geodesics, points, tree
from .rulers import rim_ticks, scale_bar

__all__ = [
    "density",
    "frame",
    "geodesics",
    "globe",
    "native_disk",
    "plane",
    "poincare_disk",
    "points",
    "regions",
    "rim_ticks",
    "scale_bar",
    "torus_square",
    "tree",
    "vector_field",
    "vectors",
]
