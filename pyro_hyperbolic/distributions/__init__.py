r"""Distributions on manifolds, constraints and transforms; densities are with respect to Riemannian volume."""

from . import constraints, transforms
from .wrapped_normal import WrappedDistribution, WrappedMultivariateNormal, WrappedNormal

__all__ = ["WrappedDistribution", "WrappedMultivariateNormal", "WrappedNormal", "constraints", "transforms"]
