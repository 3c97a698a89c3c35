r"""Scores of predictions, of embeddings and of intervals, with exact treatment of ties.

Pure functions of tensors, arrays or nested lists, without gradients; lists and sums are of float64. :func:`roc_auc`,
:func:`average_precision`, :func:`calibration_error`, :func:`coverage` and :func:`distortion` reduce the last dimension.
To :func:`roc_auc` and :func:`average_precision` only the order of scores matters, so logits, probabilities and minus
distances score alike. :func:`mean_average_precision`, :func:`mean_rank` and :func:`gromov_delta` reduce a matrix of
distances, such as ``geometry.distance_matrix(M, x)``, the last two dimensions. Leading dimensions are a batch, such as
posterior draws.
"""

import torch
from torch import Tensor

from pyro_hyperbolic.geometry import checks
from pyro_hyperbolic.geometry.checks import Array

__all__ = [
    "average_precision",
    "calibration_error",
    "coverage",
    "distortion",
    "gromov_delta",
    "mean_average_precision",
    "mean_rank",
    "roc_auc",
]


def roc_auc(scores: Array, labels: Array) -> Tensor:
    r"""Returns :math:`P(s_+ > s_-) + P(s_+ = s_-) / 2` of a random pair, the area under the ROC curve.

    The pair is a positive and a negative. Computed from mid-ranks, in ``O(N log N)``.

    Args:
        scores: Scores, larger for positives, shape ``(*, N)``, numbers or infinite.
        labels: 1 for positives and 0 for negatives, shape ``(*, N)``, booleans, integers or floats. Batch shapes
            broadcast.

    Returns:
        Tensor of shape ``(*)``, in [0, 1], of the dtype of ``scores``, or the default dtype if these are integers.

    Raises:
        TypeError: If an argument is not real numbers.
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


def average_precision(scores: Array, labels: Array) -> Tensor:
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
        TypeError: If an argument is not real numbers.
        ValueError: If the numbers of scores and labels differ, a score is NaN, a label is neither 0 nor 1, or all
            labels of a row are equal.

    Example:
        The first positive has precision 1, the second 2/3:

        >>> average_precision(torch.tensor([0.9, 0.8, 0.7]), torch.tensor([1, 0, 1]))
        tensor(0.8333)
    """
    positive, below, _, dtype = _ranked(scores, labels)
    ordered = positive.gather(-1, below.argsort(-1))
    before = (ordered.cumsum(-1) - ordered).gather(-1, below)  # positives below each score
    number = positive.sum(-1, keepdim=True)
    precision = (number - before) / (positive.size(-1) - below)
    return ((positive * precision).sum(-1) / number.squeeze(-1)).to(dtype)


def mean_average_precision(distances: Array, adjacent: Array, nodes: Array | None = None) -> Tensor:
    r"""Returns :math:`\frac1{|V|} \sum_{u \in V} \frac1{|N_u|} \sum_{v \in N_u} P_u(v)`, MAP of reconstruction.

    Here :math:`P_u(v)` is the share of neighbours of u among the nodes other than u that are at most as far from u as
    its neighbour v, so tied nodes count together, as in :func:`average_precision`. Nodes without neighbours are left
    out. All distances tied: the mean density of rows.

    Args:
        distances: Distance of the node of each row to each node, shape ``(*, N, N)``, or a block of rows ``(*, R, N)``.
            Minus scores also do. The distance of a node to itself is not read.
        adjacent: Whether the node of the column is a neighbour of the node of the row, booleans of shape ``(*, N, N)``
            or ``(*, R, N)``. A symmetric matrix is an undirected graph. In a directed one rows are sources, as in the
            published scores of WordNet, where the neighbours of a word are its hypernyms.
        nodes: The nodes of the rows of a block, integers of shape ``(R,)``; all nodes in order by default. Means of
            blocks combine weighted by the number of rows that have neighbours.

    Returns:
        Tensor of shape ``(*)``, in (0, 1], of the dtype of ``distances``, or the default dtype if these are integers.

    Raises:
        TypeError: If an argument is of a wrong type.
        ValueError: If shapes do not fit, a distance is NaN, a node is its own neighbour, or none has neighbours.

    References:
        Maximilian Nickel, Douwe Kiela, *Poincaré Embeddings for Learning Hierarchical Representations*, 2017,
        arXiv:1705.08039 (section 4.1, reconstruction).

    Example:
        The path 0 - 1 - 2 on a line at 0, 1 and 3: node 2 has its neighbour first, node 1 both of its neighbours.

        >>> x = torch.tensor([0.0, 1.0, 3.0])
        >>> path = torch.tensor([[0, 1, 0], [1, 0, 1], [0, 1, 0]]).bool()
        >>> mean_average_precision((x - x[:, None]).abs(), path)
        tensor(1.)
        >>> mean_average_precision((x - x[:, None]).abs(), ~path & ~torch.eye(3).bool())  # 0 - 2, with 1 between
        tensor(0.5000)
    """
    distances, adjacent, others, dtype = _neighbourhoods(distances, adjacent, nodes)
    closer = _up_to(distances, adjacent)
    precision = closer / (closer + _up_to(distances, others)).masked_fill(~adjacent, 1.0)  # only neighbours are read
    degree = adjacent.sum(-1)
    mean = (precision * adjacent).sum(-1) / degree.clamp(min=1)  # 0 where there are no neighbours, and left out
    return (mean.sum(-1) / (degree > 0).sum(-1)).to(dtype)


def mean_rank(distances: Array, adjacent: Array, nodes: Array | None = None) -> Tensor:
    r"""Returns :math:`1 + \frac1{|E|} \sum_{(u, v) \in E} |\{w \notin N_u \cup \{u\} : d(u, w) < d(u, v)\}|`.

    The mean rank of an edge among the non-neighbours of its source. A tied non-neighbour counts one half, the mean over
    orders of the ties. The mean is over edges, not over nodes.

    Args:
        distances: As for :func:`mean_average_precision`.
        adjacent: As for :func:`mean_average_precision`. An undirected edge is two entries, and two ranks.
        nodes: As for :func:`mean_average_precision`. Means of blocks combine weighted by their numbers of edges.

    Returns:
        Tensor of shape ``(*)``, at least 1, of the dtype of ``distances``, or the default dtype if these are integers.

    Raises:
        TypeError: If an argument is of a wrong type.
        ValueError: If shapes do not fit, a distance is NaN, a node is its own neighbour, or none has neighbours.

    References:
        Maximilian Nickel, Douwe Kiela, *Poincaré Embeddings for Learning Hierarchical Representations*, 2017,
        arXiv:1705.08039 (section 4.1, reconstruction).

    Example:
        The edge 0 - 2, with node 1 between them: rank 2 from both ends.

        >>> x = torch.tensor([0.0, 1.0, 3.0])
        >>> mean_rank((x - x[:, None]).abs(), torch.tensor([[0, 0, 1], [0, 0, 0], [1, 0, 0]]).bool())
        tensor(2.)
    """
    distances, adjacent, others, dtype = _neighbourhoods(distances, adjacent, nodes)
    nearer = (_up_to(distances, others) + _up_to(distances, others, strictly=True)) / 2
    return (1 + (nearer * adjacent).sum((-2, -1)) / adjacent.sum((-2, -1))).to(dtype)


def distortion(distances: Array, targets: Array, *, rescale: bool = False) -> Tensor:
    r"""Returns :math:`\frac1P \sum_p |d_p - t_p| / t_p`, the mean relative error of distances: average distortion.

    Args:
        distances: Distances of an embedding, shape ``(*, P)``, one number for each pair: of a matrix ``D`` those are
            ``D[..., i, j]`` with ``i, j = torch.triu_indices(N, N, 1)``.
        targets: Distances to match, positive, shape ``(*, P)``. Batch shapes broadcast.
        rescale: Whether to multiply ``distances`` by the number :math:`c \ge 0` that minimises the result, one for each
            element of the batch: the distortion of an embedding that is free to choose its unit of length. It is a
            weighted median of :math:`t_p / d_p`, and exact.

    Returns:
        Tensor of shape ``(*)``, nonnegative, of the dtype of ``distances``, or the default dtype if these are integers.

    Raises:
        TypeError: If an argument is not real numbers, or ``rescale`` is not a boolean.
        ValueError: If the numbers of pairs differ or are zero, a distance is negative, infinite or NaN, or a target is
            not positive.

    References:
        Frederic Sala, Christopher De Sa, Albert Gu, Christopher Ré, *Representation Tradeoffs for Hyperbolic
        Embeddings*, 2018, arXiv:1804.03329 (section 2).

    Example:
        >>> distortion(torch.tensor([2.0, 4.0, 9.0]), torch.tensor([1.0, 2.0, 3.0]))  # (1 + 1 + 2) / 3
        tensor(1.3333)
        >>> distortion(torch.tensor([2.0, 4.0, 9.0]), torch.tensor([1.0, 2.0, 3.0]), rescale=True)  # (0 + 0 + .5) / 3
        tensor(0.1667)
    """
    if not isinstance(rescale, bool):
        raise TypeError(f"rescale = {checks.shown(rescale)}, but must be True or False.")
    dtype, pairs = _rows("pass a tensor (*, P) of distances", distances=distances, targets=targets)
    d, t = pairs["distances"], pairs["targets"]
    _check_domain("distances", d, (d >= 0) & d.isfinite(), ">= 0 and finite")
    _check_domain("targets", t, (t > 0) & t.isfinite(), "> 0 and finite; leave out pairs of coincident points")
    ratio = d / t
    if rescale:
        # sum |c r - 1| is convex and piecewise linear in c, with kinks at 1 / r: a median of 1 / r with weights r.
        ratio = ratio.sort(-1)[0]
        weight = ratio.cumsum(-1)
        middle = torch.searchsorted(weight, weight[..., -1:] / 2)
        r = ratio.gather(-1, middle)
        ratio = ratio / torch.where(r > 0, r, 1.0)  # all are 0 if r is
    return (ratio - 1).abs().mean(-1).to(dtype)


def coverage(lower: Array, upper: Array, values: Array) -> Tensor:
    r"""Returns :math:`\frac1N |\{i : l_i \le y_i \le u_i\}|`, the share of values in their intervals.

    Ends belong to intervals. For intervals that are meant to hold a value with probability p, the standard deviation of
    the result about p is :math:`\sqrt{p (1 - p) / N}` if the errors of the values are independent, and larger if not.

    Args:
        lower: Lower ends, shape ``(*, N)``, numbers or infinite.
        upper: Upper ends, shape ``(*, N)``, numbers or infinite.
        values: True values, shape ``(*, N)``. Batch shapes broadcast.

    Returns:
        Tensor of shape ``(*)``, in [0, 1], of the dtype of ``lower``, or the default dtype if it has integers.

    Raises:
        TypeError: If an argument is not real numbers.
        ValueError: If the numbers of intervals and values differ or are zero, one is NaN, or a lower end is above the
            upper one.

    Example:
        >>> coverage(torch.tensor([0.0, 1.0, 2.0]), torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 0.5, 2.5]))
        tensor(0.6667)
    """
    dtype, rows = _rows("pass a tensor (*, N)", lower=lower, upper=upper, values=values)
    low, high, y = rows.values()
    _check_domain("lower", low, low <= high, "at most upper; swap the two")
    return ((low <= y) & (y <= high)).double().mean(-1).to(dtype)


def calibration_error(probabilities: Array, labels: Array, bins: int = 15, strategy: str = "uniform") -> Tensor:
    r"""Returns :math:`\frac1N \sum_b \left| \sum_{i \in b} (y_i - p_i) \right|`, the expected calibration error (ECE).

    In bins where on average 30% is predicted, 30% should be true. Bins are cut by ``strategy``; item i is in bin
    :math:`\min(\lfloor B\, q_i \rfloor, B - 1)`:

    ================  ========================================================================  =======================
    ``strategy``      :math:`q_i`                                                               bins of equal
    ================  ========================================================================  =======================
    ``"uniform"``     :math:`p_i`                                                               width
    ``"quantile"``    share of items below, tied ones counted half                              number of items
    ``"expected"``    share of :math:`\sum p` below, tied ones counted half                     number of expected ones
    ================  ========================================================================  =======================

    So equal probabilities are always in one bin. Where few labels are 1, as for the edges of a graph, equal widths put
    almost everything into one bin; use ``"expected"``, and divide by ``labels.mean()`` to get errors as a share of the
    edges. The result is biased upwards by about :math:`\sqrt{B p (1 - p) / N}`, so compare it with that of labels drawn
    from the probabilities.

    Args:
        probabilities: Probabilities of label 1, shape ``(*, N)``.
        labels: 1 or 0, shape ``(*, N)``, booleans, integers or floats. Batch shapes broadcast.
        bins: Number of bins, B.
        strategy: Which bins: ``"uniform"``, ``"quantile"`` or ``"expected"``.

    Returns:
        Tensor of shape ``(*)``, in [0, 1], of the dtype of ``probabilities``, or the default dtype if these are
        integers.

    Raises:
        TypeError: If an argument is of a wrong type.
        ValueError: If the numbers of probabilities and labels differ or are zero, a probability is outside [0, 1], a
            label is neither 0 nor 1, ``bins < 1``, or the strategy is unknown.

    References:
        Chuan Guo, Geoff Pleiss, Yu Sun, Kilian Q. Weinberger, *On Calibration of Modern Neural Networks*, 2017,
        arXiv:1706.04599 (equation 3; there bins are closed on the right).

    Example:
        Of ten at 0.3, three should be true. If five are, the error is 0.2:

        >>> calibration_error(torch.full((10,), 0.3), torch.arange(10) < 3).round(decimals=4)
        tensor(0.)
        >>> calibration_error(torch.full((10,), 0.3), torch.arange(10) < 5)
        tensor(0.2000)
    """
    checks.check_count("bins", bins, 1, "it is the number of bins, for example 15")
    if not isinstance(strategy, str) or strategy not in ("uniform", "quantile", "expected"):
        raise ValueError(f"strategy = {checks.shown(strategy)}, but must be 'uniform', 'quantile' or 'expected'.")
    dtype, rows = _rows("pass a tensor (*, N)", probabilities=probabilities, labels=_numbers(labels))
    p, y = rows.values()
    _check_domain("probabilities", p, (p >= 0) & (p <= 1), "in [0, 1]; apply sigmoid to logits")
    _check_domain("labels", y, (y == 0) | (y == 1), "0 or 1; threshold or recode it")
    place = p * bins
    if strategy != "uniform":
        ordered = p.sort(-1)[0]
        mass = torch.ones_like(p) if strategy == "quantile" else ordered
        mass = torch.nn.functional.pad(mass.cumsum(-1), (1, 0))
        ends = (mass.gather(-1, torch.searchsorted(ordered, p, right=right)) for right in (False, True))
        total = mass[..., -1:]
        place = sum(ends) * bins / (2 * torch.where(total > 0, total, 1.0))
    index = place.long().clamp(max=bins - 1)
    excess = p.new_zeros(*p.shape[:-1], bins).scatter_add(-1, index, y - p)
    return (excess.abs().sum(-1) / p.size(-1)).to(dtype)


def gromov_delta(distances: Array, base: int | None = None) -> Tensor:
    r"""Returns :math:`\max_{w, x, y, z} \min\{(x|z)_w, (z|y)_w\} - (x|y)_w`: how far a metric is from that of a tree.

    Here :math:`2 (x|y)_w = d(x, w) + d(y, w) - d(x, y)` is Gromov's product. Equivalently, of the three sums
    :math:`d(x, y) + d(z, w)` of four points, half the largest difference between the largest sum and the second. It is
    zero for exactly the metrics of trees (of path lengths between some nodes). Where measured distances break the
    triangle inequality, it is at least half of the defect. It has the unit of distances, so compare it with the
    diameter. On the hyperboloid and in the Poincaré ball of curvature :math:`-1/k`, in two or more dimensions, the
    least upper bound over all points is :math:`\sqrt k \log 2`. In flat space there is none.

    The maximum over all ``w`` takes :math:`N^4 / 8` comparisons, about five seconds for N = 400. With a fixed ``w``
    it takes :math:`N^3 / 2`, and is between half of the maximum and the maximum.

    Args:
        distances: Symmetric matrices with zero diagonals, shape ``(*, N, N)``.
        base: The point w, an integer below N; the maximum over all w by default.

    Returns:
        Tensor of shape ``(*)``, nonnegative, in units of distance, of the dtype of ``distances``, or the default dtype
        if these are integers.

    Raises:
        TypeError: If ``distances`` is not real numbers, or ``base`` not an integer.
        ValueError: If the matrices are empty, not square, not symmetric, not zero on the diagonal, negative or not
            finite, or ``base`` is not one of the points.

    References:
        Mikhael Gromov, *Hyperbolic Groups*, in Essays in Group Theory, 1987 (section 1.1: delta, and the factor 2).
        Hervé Fournier, Anas Ismail, Antoine Vigneron, *Computing the Gromov Hyperbolicity of a Discrete Metric Space*,
        2015, arXiv:1210.3323 (the (max, min) product).
        Bogdan Nica, Ján Špakula, *Strong Hyperbolicity*, 2016, arXiv:1408.0250 (corollary 5.4: log 2).

    Example:
        In a cycle of four nodes the sums are 4, 2 and 2:

        >>> gromov_delta(torch.tensor([[0, 1, 2, 1], [1, 0, 1, 2], [2, 1, 0, 1], [1, 2, 1, 0]]))
        tensor(1.)
        >>> corners = geometry.exp0(geoopt.Lorentz(), torch.tensor([[9.0, 0], [0, 9], [-9, 0], [0, -9]]))
        >>> gromov_delta(geometry.distance_matrix(geoopt.Lorentz(), corners))  # log 2, but for 3e-8
        tensor(0.6931)
    """
    matrix = checks.as_real("distances", distances, "pass a tensor (*, N, N) of distances").detach()
    dtype = _result_dtype(matrix)
    matrix = matrix.double()
    if matrix.dim() < 2 or not matrix.size(-2) == matrix.size(-1) > 0:
        raise ValueError(f"distances has shape {tuple(matrix.shape)}, but must be (*, N, N) with N >= 1.")
    size = matrix.size(-1)
    _check_domain("distances", matrix, matrix.isfinite(), "finite; fill holes first, for example by shortest paths")
    _check_domain("distances", matrix, matrix >= 0, ">= 0; use minus scores")
    diagonal = matrix.diagonal(dim1=-2, dim2=-1)
    _check_domain("the diagonal of distances", diagonal, diagonal == 0, "0; use D.fill_diagonal_(0)")
    uneven = (matrix - matrix.mT).abs()
    eps = torch.finfo(dtype).eps
    _check_domain("D - D.mT", uneven, uneven <= 64 * eps * matrix.abs(), "0; use (D + D.mT) / 2, or both directions")
    if base is not None:
        checks.check_count("base", base, 0, "it is the index of a point")
        if base >= size:
            raise ValueError(f"base = {base}, but must be below {size}, the number of points; choose one of them.")
    found = [_gromov_delta(each, base).item() for each in ((matrix + matrix.mT) / 2).reshape(-1, size, size)]
    return matrix.new_tensor(found).reshape(matrix.shape[:-2]).to(dtype)


def _gromov_delta(distances: Tensor, base: int | None) -> Tensor:
    """Returns delta of one matrix, at a base point or for all."""
    if base is not None:
        from_base = distances[base]
        return _excess((from_base + from_base.unsqueeze(-1) - distances) / 2)
    delta = distances.new_zeros(())
    for w, from_w in enumerate(distances):
        product = (from_w + from_w.unsqueeze(-1) - distances) / 2
        delta = torch.maximum(delta, (-product).amax())  # z = w: by how much a triangle inequality is broken
        if w < len(distances) - 3:  # four points have the same three sums from each of them: take the first
            delta = torch.maximum(delta, _excess(product[w + 1 :, w + 1 :]))
    return delta


def _excess(product: Tensor) -> Tensor:
    """Returns the largest entry of the (max, min) square of a symmetric matrix, minus the matrix."""
    lower, found = torch.empty_like(product), []
    for x, row in enumerate(product):
        torch.minimum(row, product[x:], out=lower[x:])
        found.append((lower[x:].amax(-1) - row[x:]).amax())
    return torch.stack(found).amax()


def _neighbourhoods(
    distances: Array, adjacent: Array, nodes: Array | None
) -> tuple[Tensor, Tensor, Tensor, torch.dtype]:
    """Returns distances in float64, who is a neighbour, who is another node, and the dtype of results."""
    real = checks.as_real("distances", distances, "pass a tensor (*, N, N) of distances").detach()
    dtype, real = _result_dtype(real), real.double()
    near = checks.as_tensor(adjacent)
    if near is None or near.dtype != torch.bool:
        raise TypeError(
            f"adjacent = {checks.shown(adjacent)}, but must be booleans (*, N, N); compare it with 0, or for edges "
            f"(E, 2) set adjacent[edges[:, 0], edges[:, 1]] = True."
        )
    if real.dim() < 2 or real.shape[-2:] != near.shape[-2:]:
        raise ValueError(
            f"distances has shape {tuple(real.shape)} and adjacent {tuple(near.shape)}, but both must be "
            f"(*, N, N), or (*, R, N) with the nodes of the rows as nodes."
        )
    rows, size = real.shape[-2:]
    if nodes is None and rows != size:
        raise ValueError(f"distances has {rows} rows of {size} nodes; pass the nodes of the rows as nodes, ({rows},).")
    own = torch.arange(rows, device=real.device) if nodes is None else checks.as_tensor(nodes)
    if own is None or own.dtype != torch.int64:
        raise TypeError(f"nodes = {checks.shown(nodes)}, but must be 64-bit integers ({rows},); use nodes.long().")
    if own.shape != (rows,) or bool(((own < 0) | (own >= size)).any()):
        raise ValueError(
            f"nodes = {checks.describe_values(own)}, but must be {rows} numbers of nodes, one for each row, from 0 to "
            f"{size - 1}."
        )
    batch = checks.check_batches(distances=real.shape[:-2], adjacent=near.shape[:-2])
    itself = own.unsqueeze(-1) == torch.arange(size, device=real.device)
    if bool((near & itself).any()):
        raise ValueError("adjacent has a node that is its own neighbour; use adjacent.fill_diagonal_(False).")
    _check_domain("distances", real, ~real.isnan() | itself, "ordered; look for the operation that made it")
    if bool((~near.flatten(-2).any(-1)).any()):
        raise ValueError("adjacent has no neighbours at all, but needs an edge; score more rows at once.")
    real = real.masked_fill(itself, 0.0).expand(*batch, rows, size)
    near = near.expand(*batch, rows, size)
    return real, near, ~near & ~itself, dtype


def _up_to(distances: Tensor, among: Tensor, *, strictly: bool = False) -> Tensor:
    """Returns how many of ``among`` in each row are at most as far as each node, or nearer, in float64."""
    ordered = distances.masked_fill(~among, torch.inf).sort(-1)[0].contiguous()
    count = torch.searchsorted(ordered, distances.contiguous(), right=not strictly)
    return torch.minimum(count, among.sum(-1, keepdim=True)).double()  # some may themselves be infinitely far


def _rows(remedy: str, **arrays: Array) -> tuple[torch.dtype, dict[str, Tensor]]:
    """Returns the dtype of results, and tensors ``(*, N)`` of real numbers in float64, broadcast and not empty."""
    real = {name: checks.as_real(name, value, remedy).detach() for name, value in arrays.items()}
    if any(value.dim() == 0 for value in real.values()) or len({value.shape[-1:] for value in real.values()}) > 1:
        found = " and ".join(f"{name} {tuple(value.shape)}" for name, value in real.items())
        raise ValueError(f"the shapes of {found} differ, but all must be (*, N) with one N; {remedy}.")
    batch = checks.check_batches(**{name: value.shape[:-1] for name, value in real.items()})
    for name, value in real.items():
        _check_domain(name, value, ~value.isnan(), "ordered; look for the operation that made it")
        if value.size(-1) == 0:
            raise ValueError(f"{name} has shape {tuple(value.shape)}, but the mean of nothing is undefined; {remedy}.")
    dtype = _result_dtype(next(iter(real.values())))
    return dtype, {name: value.double().expand(*batch, value.size(-1)).contiguous() for name, value in real.items()}


def _numbers(labels: Array) -> Array:
    """Returns booleans as numbers, and anything else as it is."""
    tensor = checks.as_tensor(labels)
    return tensor.to(torch.uint8) if tensor is not None and tensor.dtype == torch.bool else labels


def _check_domain(name: str, value: Tensor, inside: Tensor, domain: str) -> None:
    if not bool(inside.all()):
        raise ValueError(f"{name} holds {value[~inside][0].item():.6g}, but must be {domain}.")


def _result_dtype(value: Tensor) -> torch.dtype:
    return value.dtype if value.is_floating_point() else torch.get_default_dtype()


def _ranked(scores: Array, labels: Array) -> tuple[Tensor, Tensor, Tensor, torch.dtype]:
    """Returns labels in float64, the numbers of scores below each score and up to it, and the dtype of results."""
    scores = checks.as_real("scores", scores, "pass a tensor (*, N)").detach()
    labels = checks.as_real("labels", _numbers(labels), "pass zeros and ones (*, N)")
    if scores.dim() == 0 or labels.dim() == 0 or scores.size(-1) != labels.size(-1):
        raise ValueError(
            f"scores has shape {tuple(scores.shape)} and labels {tuple(labels.shape)}, but both must be (*, N)."
        )
    batch = checks.check_batches(scores=scores.shape[:-1], labels=labels.shape[:-1])
    scores, labels = (x.expand(*batch, x.size(-1)) for x in (scores, labels))
    _check_domain("scores", scores, ~scores.isnan(), "ordered; look for the operation that made it")
    _check_domain("labels", labels, (labels == 0) | (labels == 1), "0 or 1; threshold or recode it")
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
    return positive, below, up_to, _result_dtype(scores)
