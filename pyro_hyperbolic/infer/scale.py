"""Weights of chosen sites, in the model and in the guide at once."""

from collections.abc import Mapping
from typing import Any

from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_hyperbolic.geometry import checks

__all__ = ["scale_sites"]


class scale_sites(Messenger):
    r"""Handler that counts some sites :math:`w` times, :math:`w \log p(z) - w \log q(z)`, and leaves others alone.

    Run the ELBO inside it. ``poutine.scale`` inside a model scales the prior of a latent but not its guide, and around
    both it scales everything. The scale multiplies that of plates and of ``poutine.scale``.

    Weights of a subsample whose members are not uniform: in ``pyro.plate("nodes", N, subsample=nodes)`` each of ``n``
    members counts ``N / n`` times. With :math:`w_i = \frac{n}{N P_i}` it counts :math:`1 / P_i` times, so that the
    ELBO is unbiased if :math:`P_i` is the probability that member i is in a subsample::

        batch = sampler.sample()  # a ph.datasets.DyadSampler
        with ph.infer.scale_sites({"z": batch.node_weights * len(batch.nodes) / N}):
            loss = Trace_ELBO().differentiable_loss(model, guide, batch)

    Args:
        scales: Positive weights by name of site: numbers, or tensors that broadcast to the batch of the site.

    Raises:
        TypeError: If ``scales`` is not a dictionary of numbers and tensors.
        ValueError: If a weight is not positive and finite.

    Example:
        A latent that counts twice has twice the divergence, here :math:`2 \cdot \frac12`:

        >>> def model():
        ...     pyro.sample("z", dist.Normal(0.0, 1.0))
        >>> def guide():
        ...     pyro.sample("z", dist.Normal(1.0, 1.0))
        >>> with scale_sites({"z": 2.0}):
        ...     pyro.infer.TraceMeanField_ELBO().loss(model, guide)
        1.0
    """

    def __init__(self, scales: Mapping[str, Tensor | float]) -> None:
        super().__init__()
        if not isinstance(scales, Mapping):
            raise TypeError(f"scales = {checks.shown(scales)}, but must be a dictionary, such as {{'z': 2.0}}.")
        for name, scale in scales.items():
            if not isinstance(scale, Tensor):
                checks.check_number(f"the scale of {name!r}", scale, "give a number or a tensor", above=0.0)
            elif not bool((inside := checks.is_positive(scale)).all()):
                raise ValueError(
                    f"the scale of {name!r} holds {scale[~inside][0].item():.6g}, but must be > 0 and finite; use "
                    f"poutine.mask to hide."
                )
        self.scales = scales

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self.scales:
            msg["scale"] = self.scales[msg["name"]] * msg["scale"]
