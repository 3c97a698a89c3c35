r"""Distributions on manifolds, constraints and transforms; densities are with respect to Riemannian volume."""

from . import constraints, transforms
from .product_distribution import ProductDistribution
from .soft_geometric_graph import SoftGeometricGraph
from .uniform import Uniform
from .wrapped_normal import WrappedDistribution, WrappedMultivariateNormal, WrappedNormal

__all__ = [
    "ProductDistribution",
    "SoftGeometricGraph",
    "Uniform",
    "WrappedDistribution",
    "WrappedMultivariateNormal",
    "WrappedNormal",
    "constraints",
    "transforms",
]
