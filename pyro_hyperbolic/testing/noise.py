r"""The law that batch members and draws have independent noise."""

import copy
from typing import Any, NamedTuple

import pyro.distributions as dist
import torch
from torch import Tensor

from .density_laws import FAILURE_RATE, normal_quantile, seeded
from .diagnosis import LawViolation, fails_in_a_library
from .oracles import Space

__all__ = ["batch_members_have_own_noise"]

#: Limits on the columns of ranks to compare and on the numbers to draw.
_MAX_COLUMNS, _MAX_NUMBERS = 2048, 4_000_000


def batch_members_have_own_noise(
    distribution: dist.TorchDistribution, *, num_samples: int = 500, seed: int = 0
) -> None:
    r"""Checks that samples of different batch members are independent, and that different draws are.

    Rank correlations :math:`\rho` are taken of normal coordinates at the centre of each member, and of distances from
    it, between all pairs of members and between draws at all lags. For independent samples
    :math:`\rho \sqrt{N - 1}` is standard normal, for any density. This finds noise that members share, even if it is
    shifted, scaled or mirrored.

    The law holds for ``sample`` and ``rsample``, and after ``expand`` to three copies of the batch, as ``pyro.plate``
    does. Of a large batch it compares the first members and as many that are evenly spread over all.
    """
    _check(distribution, "", num_samples, seed)
    shape = (3, *distribution.batch_shape)
    try:
        expanded = _copy_of(distribution).expand(torch.Size(shape))
    except NotImplementedError:
        return  # expand is optional in torch
    except Exception as error:
        if fails_in_a_library(error):
            return
        raise
    _check(expanded, f"expand({shape}).", num_samples, seed)


def _copy_of(distribution: Any) -> Any:
    """Returns a copy down to the base distributions: Pyro's ExpandedDistribution expands in place."""
    new = copy.copy(distribution)
    for name, value in vars(distribution).items():
        if isinstance(value, torch.distributions.Distribution):
            new.__dict__[name] = _copy_of(value)
    return new


def _check(distribution: dist.TorchDistribution, prefix: str, num_samples: int, seed: int) -> None:
    for name in ("sample", "rsample") if distribution.has_rsample else ("sample",):
        _check_draws(distribution, name, prefix, num_samples, seed)


def _check_draws(distribution: dist.TorchDistribution, name: str, prefix: str, num_samples: int, seed: int) -> None:
    law, members = "batch_members_have_own_noise", torch.Size(distribution.batch_shape).numel()
    size = members * torch.Size(distribution.event_shape).numel()
    number = max(64, min(num_samples, _MAX_NUMBERS // size)) // 2 * 2
    shape = torch.Size((2, number))
    with seeded(seed), torch.no_grad():
        x = getattr(distribution, name)(shape)
    expected_shape = shape + distribution.batch_shape + distribution.event_shape
    if x.shape != expected_shape:
        formula = f"{prefix}{name}({tuple(shape)}).shape"
        raise LawViolation(
            "shapes_broadcast", formula, str(distribution), str(tuple(expected_shape)), str(tuple(x.shape))
        )
    ranks, chosen = _ranks(distribution, x)
    flat = ranks[:, :, :-1].square().sum(-1) == 0
    if bool(flat.any()):
        _, place, _ = flat.nonzero()[0].tolist()
        member = _index(chosen[place], distribution)
        formula, cause = (
            f"draws of {prefix}{name}(sample_shape) differ",
            "one draw of noise is expanded over sample_shape",
        )
        at = f"{distribution}, batch member {member}"
        raise LawViolation(law, formula, at, f"{number} different draws", "the same number in all of them", cause)
    pairs, lags, features = _between_rows(ranks), _between_draws(ranks), ranks.size(2)
    worst = max(pairs, lags, key=lambda found: found.errors)
    limit = normal_quantile(FAILURE_RATE / (pairs.tried + lags.tried))
    if worst.errors <= limit:
        return
    if worst is pairs:
        draw, place, feature, other_draw, other_place, other_feature = worst.where
        formula = f"batch members of {prefix}{name}() are independent"
        if draw != other_draw:
            formula = f"draws of {prefix}{name}(sample_shape) are independent"
        both = ", ".join(_index(chosen[each], distribution) for each in (place, other_place))
        at = f"batch members {both} of {distribution}"
        what = f"{_name(feature, features)} of one and {_name(other_feature, features)} of the other"
    else:
        _, place, feature, lag = worst.where
        formula = f"draws of {prefix}{name}(sample_shape) are independent"
        at = f"draws {lag} apart, batch member {_index(chosen[place], distribution)} of {distribution}"
        what = _name(feature, features)
    raise LawViolation(
        law,
        formula,
        at,
        f"a rank correlation of size below {limit * abs(worst.correlation) / worst.errors:.2g}",
        f"{worst.correlation:.3f}, of {what}",
        _mistake(worst.correlation),
    )


class _Largest(NamedTuple):
    """The largest of many correlations."""

    errors: float  # its absolute value in standard deviations under independence
    correlation: float
    where: tuple[int, ...]
    tried: int


def _ranks(distribution: dist.TorchDistribution, x: Tensor) -> tuple[Tensor, list[int]]:
    """Returns normalised ranks over the draws, ``(2, members, features, draws)``, and the members that were chosen.

    The first dimension is the first sample dimension. Features are the coordinates and the distance from the centre.
    """
    space, members = Space(distribution.support), torch.Size(distribution.batch_shape).numel()
    centre = space.centre(x.flatten(0, 1))
    v = space.log_at(centre, x).double()
    v = torch.cat([v, v.norm(dim=-1, keepdim=True)], dim=-1).reshape(2, x.size(1), members, -1)
    half = max(2, _MAX_COLUMNS // (4 * v.size(-1)))
    chosen = sorted({*range(members)[:half], *torch.linspace(0, members - 1, half).long().tolist()})
    columns = v[:, :, chosen].permute(0, 2, 3, 1).contiguous()
    ordered = columns.sort(-1).values
    # Equal numbers, which occur in float32, get their mean rank.
    ranks = torch.searchsorted(ordered, columns) + torch.searchsorted(ordered, columns, right=True)
    centred = ranks.double() - ranks.double().mean(-1, keepdim=True)
    return torch.nan_to_num(centred / centred.norm(dim=-1, keepdim=True)), chosen


def _between_rows(ranks: Tensor) -> _Largest:
    """Returns the largest correlation between different members or between the two sample dimensions."""
    draws, members, *_ = ranks.shape
    columns = ranks.flatten(0, 2)
    correlations = (columns @ columns.mT).reshape(*ranks.shape[:-1], *ranks.shape[:-1])
    pairs = torch.ones(draws * members, draws * members, dtype=torch.bool, device=ranks.device).triu(1)
    correlations = correlations.where(pairs.reshape(draws, members, 1, draws, members, 1), 0.0)
    return _largest(correlations, correlations * (ranks.size(-1) - 1) ** 0.5)


def _between_draws(ranks: Tensor) -> _Largest:
    """Returns the largest circular autocorrelation of a row over the draws."""
    number = ranks.size(-1)
    correlations = torch.fft.irfft(torch.fft.rfft(ranks).abs().square(), n=number)[..., 1 : number // 2 + 1]
    errors = correlations * (number - 1) ** 0.5
    errors[..., -1] /= 2**0.5  # at half the length, every pair counts twice
    found = _largest(correlations, errors)
    *row, lag = found.where
    return found._replace(where=(*row, lag + 1))


def _largest(correlations: Tensor, errors: Tensor) -> _Largest:
    where = tuple(int(i) for i in torch.unravel_index(errors.abs().argmax(), errors.shape))
    return _Largest(float(errors[where].abs()), float(correlations[where]), where, errors.numel())


def _index(member: int, distribution: dist.TorchDistribution) -> str:
    return str(tuple(int(i) for i in torch.unravel_index(torch.tensor(member), distribution.batch_shape)))


def _name(feature: int, features: int) -> str:
    return "the distance from the centre" if feature == features - 1 else f"normal coordinate {feature}"


def _mistake(correlation: float) -> str:
    if correlation > 0.999:
        return "one draw of noise is expanded, or has too small a shape: use self._extended_shape(sample_shape)"
    if correlation < -0.999:
        return "antithetic noise: one is the mirror image of the other"
    return "unclear: they share some of their noise"
