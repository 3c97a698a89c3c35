r"""Inference on manifolds: autoguides with wrapped posteriors, KL rules, a guard for LocScaleReparam."""

from . import kl, reparam
from .autoguide import AutoWrappedMultivariateNormal, AutoWrappedNormal, GeodesicBall

__all__ = ["AutoWrappedMultivariateNormal", "AutoWrappedNormal", "GeodesicBall", "kl", "reparam"]
