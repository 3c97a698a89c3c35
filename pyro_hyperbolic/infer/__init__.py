r"""Inference on manifolds: autoguides with wrapped posteriors, latents lifted to R^n, KL rules, a guard."""

from . import kl, reparam
from .autoguide import AutoWrappedMultivariateNormal, AutoWrappedNormal, GeodesicBall
from .lift import LiftReparam

__all__ = ["AutoWrappedMultivariateNormal", "AutoWrappedNormal", "GeodesicBall", "LiftReparam", "kl", "reparam"]
