"""Importance weights of each datum, for likelihoods of autoencoders."""

from collections.abc import Callable
from functools import reduce
from typing import Any

import torch
from pyro.infer.importance import vectorized_importance_weights
from torch import Tensor

from pyro_hyperbolic.geometry import checks

__all__ = ["log_weights"]


@torch.no_grad()
def log_weights(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    *args: Any,
    num_samples: int,
    max_plate_nesting: int = 1,
    **kwargs: Any,
) -> Tensor:
    r"""Returns :math:`\log w_{si} = \log p(x_i, z_{si}) - \log q(z_{si} \mid x_i)` of each datum.

    Samples are from the guide, :math:`z_{si} \sim q`. Two bounds on the log-likelihood of datum i follow, in nats: the
    mean over samples is the ELBO, and ``log_weights(...).logsumexp(0) - math.log(num_samples)`` the tighter,
    importance-weighted one. Pyro's ``vectorized_importance_weights``, which this calls, returns sums over the data.

    Densities of points are with respect to Riemannian volume. A latent outside of the plate of the data counts in full
    for each datum, so that sums over data are a likelihood only if there is none.

    Args:
        model: Pyro model, with the data in plates.
        guide: Its guide.
        *args: Arguments of both. Memory is for all data and samples at once: give batches.
        num_samples: Number of samples of each latent.
        max_plate_nesting: Number of nested plates of the model.
        **kwargs: Keyword arguments of both.

    Returns:
        Tensor of shape ``(num_samples, *)``, where ``*`` is that of the plates.

    Raises:
        TypeError: If a number is not an integer, or the model or the guide not a function.
        ValueError: If ``num_samples < 1``, the model and the guide have different latents, or a site is scaled, as in a
            plate that takes a subsample.

    References:
        Yuri Burda, Roger Grosse, Ruslan Salakhutdinov, *Importance Weighted Autoencoders*, 2016, arXiv:1509.00519.

    Example:
        With the exact posterior as guide every weight is the likelihood, here the density of N(0, 2):

        >>> x = torch.tensor([0.0, 2.0])
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        >>> def guide(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", dist.Normal(x / 2, 0.5**0.5))
        >>> log_weights(model, guide, x, num_samples=2)
        tensor([[-1.2655, -2.2655],
                [-1.2655, -2.2655]])
        >>> dist.Normal(0.0, 2**0.5).log_prob(x)
        tensor([-1.2655, -2.2655])
    """
    for name, function in (("model", model), ("guide", guide)):
        checks.check_callable(name, function, "give a Pyro model and its guide")
    checks.check_count("num_samples", num_samples, 1, "it is the number of samples of each latent")
    checks.check_count("max_plate_nesting", max_plate_nesting, 0, "it is the number of nested plates of the model")
    _, p, q = vectorized_importance_weights(
        model, guide, *args, num_samples=num_samples, max_plate_nesting=max_plate_nesting, **kwargs
    )
    latents = [
        {name for name, site in trace.nodes.items() if site["type"] == "sample" and not _is_no_latent(site)}
        for trace in (p, q)
    ]
    if latents[0] != latents[1]:
        raise ValueError(
            f"the latents of the model are {sorted(latents[0])} and those of the guide {sorted(latents[1])}, but a "
            f"weight is of the same ones; sample each in both."
        )
    terms = []
    for sign, trace in ((1, p), (-1, q)):
        for name, site in trace.nodes.items():
            if site["type"] == "sample":
                if not isinstance(site["scale"], float | int) or site["scale"] != 1:
                    raise ValueError(
                        f"site {name!r} is scaled by {site['scale']}, but weights are of single data; give a batch of "
                        f"the data as argument, to plates of its size, and leave poutine.scale to training."
                    )
                terms.append(sign * site["log_prob"])
    total: Tensor = reduce(torch.add, terms) if terms else torch.zeros(())
    return total.expand(torch.broadcast_shapes(total.shape, (num_samples, *max_plate_nesting * [1])))


def _is_no_latent(site: Any) -> bool:
    """Returns whether a site is observed, or one from which a guide computes others."""
    return bool(site["is_observed"] or site["infer"].get("is_auxiliary"))
