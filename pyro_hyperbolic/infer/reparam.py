r"""Makes LocScaleReparam raise for wrapped distributions, on import: a point of a manifold cannot be scaled."""

import functools
from typing import Any

from pyro.distributions.util import is_identically_one
from pyro.infer.reparam import LocScaleReparam

from pyro_hyperbolic.distributions import WrappedDistribution
from pyro_hyperbolic.geometry import checks

__all__: list[str] = []

_apply = LocScaleReparam.apply


# Patches Pyro's method, since Pyro has no hook for this. Unpatched, it builds a wrapped normal at ``centered * loc`` on
# the default manifold. MCMC does not validate, and would sample from it silently.
@functools.wraps(_apply)
def _apply_or_raise(self: LocScaleReparam, msg: Any) -> Any:
    fn, _ = self._unwrap(msg["fn"])
    if isinstance(fn, WrappedDistribution) and not is_identically_one(self.centered):
        raise NotImplementedError(
            f"LocScaleReparam scales loc, but a point of a manifold cannot be scaled ({type(fn).__name__} on "
            f"{checks.describe(fn.manifold)}); reparametrise the site {msg['name']!r} with TransformReparam."
        )
    return _apply(self, msg)


LocScaleReparam.apply = _apply_or_raise
