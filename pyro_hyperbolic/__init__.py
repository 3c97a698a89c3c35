r"""Hyperbolic distributions and normalizing flows for Pyro; every density is with respect to Riemannian volume."""

from . import charts, datasets, distributions, flows, geometry, infer, manifolds, numerics, testing

__all__ = ["charts", "datasets", "distributions", "flows", "geometry", "infer", "manifolds", "numerics", "testing"]
__version__ = "0.1.0"
