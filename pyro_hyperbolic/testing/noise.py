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
    rows, features = 2 * len(chosen), ranks.size(0) // (2 * len(chosen))
    flat = ranks.reshape(rows, features, number)[:, :-1].square().sum(-1) == 0
    if bool(flat.any()):
        member = _index(chosen[int(flat.nonzero()[0, 0]) % len(chosen)], distribution)
        formula, cause = (
            f"draws of {prefix}{name}(sample_shape) differ",
            "one draw of noise is expanded over sample_shape",
        )
        at = f"{distribution}, batch member {member}"
        raise LawViolation(law, formula, at, f"{number} different draws", "the same number in all of them", cause)
    pairs = _between_rows(ranks, rows, features)
    lags = _between_draws(ranks)
    worst = max(pairs, lags, key=lambda found: found.errors)
    limit = normal_quantile(FAILURE_RATE / (pairs.tried + lags.tried))
    if worst.errors <= limit:
        return
    if worst is pairs:
        (one, feature), (other, feature_of_other) = (divmod(int(i), features) for i in worst.where)
        draws, places = (one // len(chosen), other // len(chosen)), (one % len(chosen), other % len(chosen))
        formula = f"batch members of {prefix}{name}() are independent"
        at = ", ".join(_index(chosen[place], distribution) for place in places)
        if draws[0] != draws[1]:
            formula = f"draws of {prefix}{name}(sample_shape) are independent"
        at = f"batch members {at} of {distribution}"
        what = f"{_name(feature, features)} of one and {_name(feature_of_other, features)} of the other"
    else:
        row, feature = divmod(int(worst.where[0]), features)
        formula = f"draws of {prefix}{name}(sample_shape) are independent"
        at = f"draws {int(worst.where[1])} apart, batch member {_index(chosen[row % len(chosen)], distribution)}"
        at, what = f"{at} of {distribution}", _name(feature, features)
    raise LawViolation(
        law,
        formula,
        at,
        f"a rank correlation of size below {limit / (number - 1) ** 0.5:.2g}",
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
    """Returns normalised ranks over the draws, and the members that were chosen.

    There is one row for each sample dimension (of two), member and feature: coordinates and distance from the centre.
    """
    space, members = Space(distribution.support), torch.Size(distribution.batch_shape).numel()
    centre = space.centre(x.flatten(0, 1))
    v = space.log_at(centre, x).double()
    v = torch.cat([v, v.norm(dim=-1, keepdim=True)], dim=-1).reshape(2, x.size(1), members, -1)
    half = max(2, _MAX_COLUMNS // (4 * v.size(-1)))
    chosen = sorted({*range(members)[:half], *torch.linspace(0, members - 1, half).long().tolist()})
    columns = v[:, :, chosen].permute(0, 2, 3, 1).reshape(-1, x.size(1)).contiguous()
    ordered = columns.sort(-1).values
    # Equal numbers, which occur in float32, get their mean rank.
    ranks = torch.searchsorted(ordered, columns) + torch.searchsorted(ordered, columns, right=True)
    centred = ranks.double() - ranks.double().mean(-1, keepdim=True)
    return torch.nan_to_num(centred / centred.norm(dim=-1, keepdim=True)), chosen


def _between_rows(ranks: Tensor, rows: int, features: int) -> _Largest:
    """Returns the largest correlation between different members or between the two sample dimensions."""
    correlations = (ranks @ ranks.mT).reshape(rows, features, rows, features)
    pairs = torch.ones(rows, rows, dtype=torch.bool, device=ranks.device).triu(1)
    correlations = torch.where(pairs[:, None, :, None], correlations, 0.0).reshape(rows * features, -1)
    at = int(correlations.abs().argmax())
    where = divmod(at, rows * features)
    value = float(correlations.reshape(-1)[at])
    return _Largest(abs(value) * (ranks.size(-1) - 1) ** 0.5, value, where, correlations.numel())


def _between_draws(ranks: Tensor) -> _Largest:
    """Returns the largest circular autocorrelation of a row over the draws."""
    number = ranks.size(-1)
    correlations = torch.fft.irfft(torch.fft.rfft(ranks).abs().square(), n=number)[:, 1 : number // 2 + 1]
    errors = correlations * (number - 1) ** 0.5
    errors[:, -1] /= 2**0.5  # at half the length, every pair counts twice
    at = divmod(int(errors.abs().argmax()), errors.size(-1))
    return _Largest(float(errors[at].abs()), float(correlations[at]), (at[0], at[1] + 1), errors.numel())


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
