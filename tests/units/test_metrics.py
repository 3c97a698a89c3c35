"""Scores of binary predictions: values by hand, and by counting pairs and thresholds one by one."""

import math
from fractions import Fraction

import pytest
import torch

from pyro_hyperbolic.metrics import average_precision, roc_auc


def by_pairs(scores, labels):
    """Each pair of a positive and a negative counts one if it is in order, and half if it is tied."""
    up, down = ([s for s, y in zip(scores, labels, strict=True) if y == label] for label in (1, 0))
    return float(Fraction(sum((a > b) * 2 + (a == b) for a in up for b in down), 2 * len(up) * len(down)))


def by_thresholds(scores, labels):
    """The sum over distinct thresholds, from the largest, of the rise of recall times precision."""
    total = found = Fraction(0)
    for threshold in sorted(set(scores), reverse=True):
        called = [y for s, y in zip(scores, labels, strict=True) if s >= threshold]
        total += (sum(called) - found) * Fraction(sum(called), len(called))
        found = sum(called)
    return float(total / sum(labels))


ORACLES = {roc_auc: by_pairs, average_precision: by_thresholds}
each_metric = pytest.mark.parametrize("metric", ORACLES, ids=lambda metric: metric.__name__)

INF = math.inf
#: Scores, labels, area under the ROC curve, average precision.
BY_HAND = {
    "in order": ([0.1, 0.4, 0.8], [0, 0, 1], 1.0, 1.0),
    "in reverse": ([3, 2, 1], [0, 0, 1], 0.0, 1 / 3),
    "scikit-learn's example": ([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1], 0.75, (1 + 2 / 3) / 2),
    "all tied": ([7, 7, 7, 7, 7], [1, 0, 0, 1, 0], 0.5, 2 / 5),
    "a tied pair": ([2, 1, 1, 0], [1, 1, 0, 0], (2 + 1.5) / 4, (1 + 2 / 3) / 2),
    "infinite": ([-INF, INF, INF, 0.0], [0, 1, 0, 1], (1.5 + 1) / 4, (1 / 2 + 2 / 3) / 2),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_by_hand(name):
    scores, labels, auc, precision = BY_HAND[name]
    assert roc_auc(torch.tensor(scores), torch.tensor(labels)).item() == pytest.approx(auc, rel=1e-7)
    assert average_precision(torch.tensor(scores), torch.tensor(labels)).item() == pytest.approx(precision, rel=1e-7)


@each_metric
def test_batches_with_many_ties(metric):
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 8, (4, 3, 40), generator=generator).double() - 4
    labels = torch.rand(3, 40, generator=generator) < 0.3
    labels[:, 0], labels[:, 1] = True, False
    found = metric(scores, labels)
    assert found.shape == (4, 3)
    for row, values in zip(scores, found, strict=True):
        expected = [ORACLES[metric](s, y) for s, y in zip(row.tolist(), labels.int().tolist(), strict=True)]
        assert values.tolist() == pytest.approx(expected, rel=1e-14)
    # Only the order of scores matters, and not the order of pairs or the type of labels.
    shuffled = torch.randperm(40, generator=generator)
    again = metric(scores[..., shuffled].exp(), labels[..., shuffled].float())
    torch.testing.assert_close(again, found, rtol=1e-14, atol=0)
    assert metric(scores[:0], labels).shape == (0, 3)


@each_metric
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.int32])
def test_dtypes(metric, dtype):
    scores = torch.arange(6).to(dtype).requires_grad_(dtype.is_floating_point)
    found = metric(scores, torch.tensor([0, 1] * 3))
    assert found.dtype == (dtype if dtype.is_floating_point else torch.get_default_dtype())
    assert not found.requires_grad


@each_metric
def test_large_samples_are_counted_exactly(metric):
    """Ranks of 200,000 scores, whose sum float32 cannot hold."""
    n = 200_000
    scores, labels = torch.arange(n, dtype=torch.float32), torch.arange(n) % 2
    half = n // 2
    exact = {roc_auc: (half + 1) / n, average_precision: sum((i + 1) / (2 * i + 1) for i in range(half)) / half}
    assert metric(scores, labels).item() == pytest.approx(exact[metric], rel=1e-7)
