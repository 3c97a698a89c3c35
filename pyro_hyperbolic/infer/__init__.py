r"""Inference on manifolds: autoguides with wrapped posteriors, latents lifted to R^n, KL rules, summaries, weights."""

from . import kl, reparam
from .autoguide import AutoWrappedMultivariateNormal, AutoWrappedNormal, GeodesicBall
from .importance import log_weights
from .lift import LiftReparam
from .posterior import Diagnostics, SiteSummary, Summary, summary, to_arviz
from .scale import scale_sites

__all__ = [
    "AutoWrappedMultivariateNormal",
    "AutoWrappedNormal",
    "Diagnostics",
    "GeodesicBall",
    "LiftReparam",
    "SiteSummary",
    "Summary",
    "kl",
    "log_weights",
    "reparam",
    "scale_sites",
    "summary",
    "to_arviz",
]
