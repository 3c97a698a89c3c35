r"""Hyperbolic distributions and normalizing flows for Pyro; every density is with respect to Riemannian volume."""

from . import distributions, flows, geometry, infer, manifolds, numerics

__all__ = ["distributions", "flows", "geometry", "infer", "manifolds", "numerics"]
__version__ = "0.1.0"
