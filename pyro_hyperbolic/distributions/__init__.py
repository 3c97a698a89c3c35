r"""Distributions on manifolds, constraints and transforms; densities are with respect to Riemannian volume."""

from . import constraints, transforms
from .power_spherical import PowerSpherical
from .product_distribution import ProductDistribution
from .riemannian_normal import RiemannianNormal
from .rotation_fisher import RotationFisher
from .soft_geometric_graph import SoftGeometricGraph
from .uniform import Uniform
from .uniform_ball import UniformBall
from .von_mises_fisher import VonMisesFisher
from .wrapped_normal import WrappedDistribution, WrappedMultivariateNormal, WrappedNormal

__all__ = [
    "PowerSpherical",
    "ProductDistribution",
    "RiemannianNormal",
    "RotationFisher",
    "SoftGeometricGraph",
    "Uniform",
    "UniformBall",
    "VonMisesFisher",
    "WrappedDistribution",
    "WrappedMultivariateNormal",
    "WrappedNormal",
    "constraints",
    "transforms",
]
