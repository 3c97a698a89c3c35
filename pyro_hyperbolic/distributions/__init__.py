r"""Distributions on manifolds, constraints and transforms; densities are with respect to Riemannian volume."""

from . import constraints, transforms
from .soft_geometric_graph import SoftGeometricGraph
from .wrapped_normal import WrappedDistribution, WrappedMultivariateNormal, WrappedNormal

__all__ = [
    "SoftGeometricGraph",
    "WrappedDistribution",
    "WrappedMultivariateNormal",
    "WrappedNormal",
    "constraints",
    "transforms",
]
