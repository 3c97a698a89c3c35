r"""Scores of binary predictions, with exact treatment of ties: area under the ROC curve, and average precision.

Pure functions of tensors, over the last dimension, without gradients. Only the order of scores matters, so logits,
probabilities and minus distances score alike.
"""

import torch
from torch import Tensor

from pyro_hyperbolic.geometry import checks

__all__ = ["average_precision", "roc_auc"]


def roc_auc(scores: Tensor, labels: Tensor) -> Tensor:
    r"""Returns :math:`P(s_+ > s_-) + P(s_+ = s_-) / 2` of a random pair, the area under the ROC curve.

    The pair is a positive and a negative. Computed from mid-ranks, in ``O(N log N)``.

    Args:
        scores: Scores, larger for positives, shape ``(*, N)``, numbers or infinite.
        labels: 1 for positives and 0 for negatives, shape ``(*, N)``, booleans, integers or floats. Batch shapes
            broadcast.

    Returns:
        Tensor of shape ``(*)``, in [0, 1], of the dtype of ``scores``, or the default dtype if these are integers.

    Raises:
        TypeError: If an argument is not a tensor of real numbers.
        ValueError: If the numbers of scores and labels differ, a score is NaN, a label is neither 0 nor 1, or all
            labels of a row are equal.

    References:
        J. A. Hanley, B. J. McNeil, *The Meaning and Use of the Area under a Receiver Operating Characteristic (ROC)
        Curve*, Radiology 143, 1982.

    Example:
        Of the four pairs two are in order, and one is tied:

        >>> roc_auc(torch.tensor([0.9, 0.5, 0.5, 0.7]), torch.tensor([1, 1, 0, 0]))
        tensor(0.6250)
    """
    positive, below, up_to, dtype = _ranked(scores, labels)
    number = positive.sum(-1)
    ranks = (positive * (below + up_to + 1)).sum(-1) / 2  # of positives, from 1; tied scores share their mean rank
    auc = (ranks - number * (number + 1) / 2) / (number * (positive.size(-1) - number))
    return auc.to(dtype)


def average_precision(scores: Tensor, labels: Tensor) -> Tensor:
    r"""Returns :math:`\sum_t (R_t - R_{t-1}) P_t`, the mean precision at the scores of the positives.

    Here t runs over the distinct scores from the largest, and :math:`P_t`, :math:`R_t` are precision and recall if
    everything with at least this score is called positive. This is scikit-learn's definition, without interpolation.
    Scores that are all equal have the fraction of positives.

    Args:
        scores: Scores, larger for positives, shape ``(*, N)``, numbers or infinite.
        labels: 1 for positives and 0 for negatives, shape ``(*, N)``, booleans, integers or floats. Batch shapes
            broadcast.

    Returns:
        Tensor of shape ``(*)``, in (0, 1], of the dtype of ``scores``, or the default dtype if these are integers.

    Raises:
        TypeError: If an argument is not a tensor of real numbers.
        ValueError: If the numbers of scores and labels differ, a score is NaN, a label is neither 0 nor 1, or all
            labels of a row are equal.

    Example:
        The first positive has precision 1, the second 2/3:

        >>> average_precision(torch.tensor([0.9, 0.8, 0.7]), torch.tensor([1, 0, 1]))
        tensor(0.8333)
    """
    positive, below, _, dtype = _ranked(scores, labels)
    order = below.argsort(-1)
    before = torch.nn.functional.pad(positive.gather(-1, order).cumsum(-1), (1, 0))  # positives among the first
    number = positive.sum(-1, keepdim=True)
    precision = (number - before.gather(-1, below)) / (positive.size(-1) - below)
    return ((positive * precision).sum(-1) / number.squeeze(-1)).to(dtype)


def _ranked(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor, torch.dtype]:
    """Returns labels in float64, the numbers of scores below each score and up to it, and the dtype of results."""
    scores = checks.as_real("scores", scores, "pass a tensor (*, N)").detach()
    if not isinstance(labels, Tensor) or labels.dtype != torch.bool:
        labels = checks.as_real("labels", labels, "pass a tensor (*, N) of zeros and ones")
    if scores.dim() == 0 or labels.dim() == 0 or scores.size(-1) != labels.size(-1):
        raise ValueError(
            f"scores has shape {tuple(scores.shape)} and labels {tuple(labels.shape)}, but both must be (*, N)."
        )
    batch = checks.check_batches(scores=scores.shape[:-1], labels=labels.shape[:-1])
    scores, labels = (x.expand(*batch, x.size(-1)) for x in (scores, labels))
    if bool(scores.isnan().any()):
        raise ValueError("scores holds NaN, but must be ordered; look for the operation that made it.")
    strange = (labels != 0) & (labels != 1)
    if bool(strange.any()):
        raise ValueError(f"labels holds {labels[strange][0].item()}, but must be 0 or 1; threshold or recode it.")
    positive = labels.double()
    number = positive.sum(-1)
    single = (number == 0) | (number == positive.size(-1))
    if bool(single.any()):
        raise ValueError(
            f"labels has {int(number[single][0])} positives among {positive.size(-1)}, but both classes are needed; "
            f"score more pairs at once."
        )
    ordered = scores.sort(-1)[0].contiguous()
    below, up_to = (torch.searchsorted(ordered, scores.contiguous(), right=right) for right in (False, True))
    return positive, below, up_to, scores.dtype if scores.is_floating_point() else torch.get_default_dtype()
