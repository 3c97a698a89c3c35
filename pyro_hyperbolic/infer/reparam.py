r"""Refuses LocScaleReparam for wrapped distributions, on import: a point of a manifold has no multiples."""

import functools
from typing import Any

from pyro.distributions.util import is_identically_one
from pyro.infer.reparam import LocScaleReparam

from pyro_hyperbolic.distributions import WrappedDistribution
from pyro_hyperbolic.geometry import checks

__all__: list[str] = []

_apply = LocScaleReparam.apply


# In place of Pyro's method, which has no registry to refuse by. It makes a wrapped normal at ``centered * loc`` of the
# default manifold, and where nothing is validated, in MCMC, samples from it without a word.
@functools.wraps(_apply)
def _apply_or_refuse(self: LocScaleReparam, msg: Any) -> Any:
    fn, _ = self._unwrap(msg["fn"])
    if isinstance(fn, WrappedDistribution) and not is_identically_one(self.centered):
        raise NotImplementedError(
            f"LocScaleReparam wants multiples of loc, which a point of a manifold does not have ({type(fn).__name__} "
            f"on {checks.describe(fn.manifold)}); reparametrise the site {msg['name']!r} with TransformReparam."
        )
    return _apply(self, msg)


LocScaleReparam.apply = _apply_or_refuse
