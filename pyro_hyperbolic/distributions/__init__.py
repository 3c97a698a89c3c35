r"""Distributions on manifolds, with densities with respect to Riemannian volume, and their transforms."""

from . import constraints, transforms
from .wrapped_normal import WrappedDistribution, WrappedMultivariateNormal, WrappedNormal

__all__ = ["WrappedDistribution", "WrappedMultivariateNormal", "WrappedNormal", "constraints", "transforms"]
