r"""Pictures on the Poincaré disk, of radius :math:`R = \sqrt k` in data coordinates, and in the Euclidean plane.

Every function draws on the given ``ax`` and returns the artists. None shows a figure or changes global settings. The
same script draws hyperbolic and Euclidean models: any two-dimensional manifold of constant curvature with a registered
geometry, such as ``geoopt.Lorentz``, ``geoopt.PoincareBall`` and ``geoopt.Euclidean(1)``. Points and vectors are
tensors, NumPy arrays or nested lists; numbers in lists have the default dtype. Drawing is on the CPU in float64,
without gradients.

Needs matplotlib: ``pip install "pyro-hyperbolic[viz]"``.
"""

try:
    import matplotlib as _  # noqa: F401
except ImportError as error:
    raise ImportError('pyro_hyperbolic.viz needs matplotlib: pip install "pyro-hyperbolic[viz]"') from error

from .arrows import vector_field, vectors
from .fields import density, regions
from .frames import frame, plane, poincare_disk
from .marks import geodesics, points, tree

__all__ = [
    "density",
    "frame",
    "geodesics",
    "plane",
    "poincare_disk",
    "points",
    "regions",
    "tree",
    "vector_field",
    "vectors",
]
