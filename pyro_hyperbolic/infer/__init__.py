r"""What Pyro's inference needs beyond the registered bijection: autoguides that know locations, KL rules."""

from . import kl, reparam
from .autoguide import AutoWrappedMultivariateNormal, AutoWrappedNormal, GeodesicBall

__all__ = ["AutoWrappedMultivariateNormal", "AutoWrappedNormal", "GeodesicBall", "kl", "reparam"]
