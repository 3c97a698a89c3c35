r"""Pictures in the Poincaré disk, and in the plane for ``geoopt.Euclidean(1)``.

Every function draws on the ``ax`` it is given and returns the artists; none shows a figure or touches global settings,
and all dispatch on the manifold, so that one script draws hyperbolic and Euclidean models alike. Points and vectors are
tensors, NumPy arrays or nested lists; numbers in lists have the default dtype. The disk has radius :math:`\sqrt k` in
data coordinates. Drawing is on the CPU in float64, and nothing keeps a gradient.

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
