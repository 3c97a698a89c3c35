"""Random graphs whose nodes are points of a manifold, and whose edges join near points."""

from typing import Any

import pyro.distributions as dist
import torch
from geoopt.manifolds.base import Manifold
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.constraints import Constraint
from torch.nn.functional import logsigmoid

from pyro_hyperbolic import geometry
from pyro_hyperbolic.distributions.manifold_distribution import checked_number, initialise
from pyro_hyperbolic.geometry import checks
from pyro_hyperbolic.manifolds import or_standard, with_sampled_parameters

__all__ = ["SimpleGraphs", "SoftGeometricGraph"]

_REMEDIES = {
    "radius": "it is the distance at which an edge has probability 1/2",
    "temperature": "it is the width of the threshold, in units of distance",
}
_FROM_A_NETWORK = "pass a network's output through softplus or exp."


class SimpleGraphs(Constraint):
    r"""Adjacency matrices of simple graphs, :math:`A_{ij} = A_{ji} \in \{0, 1\}`, :math:`A_{ii} = 0`.

    Args:
        mask: The nodes that may have edges, a boolean tensor ``(*, N)``; all by default.
    """

    is_discrete = True
    event_dim = 2

    def __init__(self, mask: Tensor | None = None) -> None:
        self.mask = mask

    def check(self, value: Tensor) -> Tensor:
        """Returns whether each matrix is one of a simple graph, shape ``(*)``."""
        return torch.stack(list(self._conditions(value).values())).all(0)

    def explain(self, value: Tensor) -> str:
        """Returns what is wrong with a value, or ``""``."""
        return "; ".join(what for what, holds in self._conditions(value).items() if not bool(holds.all()))

    def _conditions(self, value: Tensor) -> dict[str, Tensor]:
        conditions = {
            "entries other than 0 and 1": (value == 0) | (value == 1),
            "not symmetric; store each edge in both directions, A + A.mT": value == value.mT,
            "ones on the diagonal; remove loops, A.fill_diagonal_(0)": (value.diagonal(0, -2, -1) == 0).unsqueeze(-1),
        }
        if self.mask is not None:
            away = ~_pairs_of(self.mask)
            conditions["edges at padded nodes; set their rows and columns to 0"] = (value == 0) | ~away
        batch = torch.broadcast_shapes(*(each.shape[:-2] for each in conditions.values()))
        return {what: holds.all(-1).all(-1).expand(batch) for what, holds in conditions.items()}

    def __repr__(self) -> str:
        return "SimpleGraphs()" if self.mask is None else f"SimpleGraphs(mask: {tuple(self.mask.shape)})"


class SoftGeometricGraph(dist.TorchDistribution):
    r"""Graph of independent edges between near points, :math:`p_{ij} = \sigma\big((r - d(x_i, x_j)) / t\big)`.

    .. math:: \log p(A) = \sum_{i < j} A_{ij} \log p_{ij} + (1 - A_{ij}) \log (1 - p_{ij})

    with respect to counting measure on simple graphs of ``N`` nodes. This Fermi-Dirac law has probability 1/2 at the
    threshold ``r``, and becomes the graph of all pairs nearer than ``r`` as the temperature goes to 0. It needs only
    distances, so the manifold can be any :class:`~pyro_hyperbolic.geometry.Geometry`.

    Shapes: ``radius``, ``temperature`` and the batches of ``x`` and ``mask`` broadcast to ``batch_shape``; events are
    symmetric 0/1 matrices ``(N, N)`` with zero diagonal.

    Args:
        x: The nodes, points of the manifold, shape ``(*, N, n + 1)``.
        radius: Distance ``r > 0`` at which an edge has probability 1/2, a number or shape ``(*)``.
        temperature: Width ``t > 0`` of the threshold, in units of distance, a number or shape ``(*)``.
        manifold: A geoopt manifold; the hyperboloid of curvature -1 by default. A batch of ``k`` ends in 1, as for
            :func:`~pyro_hyperbolic.geometry.distance_matrix`.
        mask: Which nodes exist, a boolean tensor ``(*, N)``; all by default. Padded nodes can be any points: they have
            no edges, and change neither ``log_prob`` nor its gradient.
        validate_args: Whether to check arguments and values; Pyro's global setting by default.

    Raises:
        TypeError: If ``x``, ``radius`` and ``temperature`` are not floating point of one dtype, or ``mask`` is not
            boolean.
        ValueError: If shapes do not fit or, while validating, a point is off the manifold, or ``radius``,
            ``temperature`` or ``k`` is not positive.

    References:
        *Hyperbolic geometry of complex networks*, D. Krioukov, F. Papadopoulos, M. Kitsak, A. Vahdat, M. Boguñá, 2010,
        arXiv:1006.5169.

    Example:
        Nodes at distances 1, 3 and 4: the first pair is at the threshold.

        >>> M = geoopt.Lorentz()
        >>> x = geometry.exp0(M, torch.tensor([[-1.0, 0.0], [0.0, 0.0], [3.0, 0.0]]))
        >>> d = SoftGeometricGraph(x, radius=1.0, temperature=0.5, manifold=M)
        >>> d, d.probs
        (SoftGeometricGraph(x: (3, 3), radius: (), temperature: (), Lorentz(k=1)), tensor([[0.0000, 0.5000, 0.0025],
                [0.5000, 0.0000, 0.0180],
                [0.0025, 0.0180, 0.0000]]))
        >>> d.log_prob(torch.zeros(3, 3)).exp()  # no edge: (1 - 0.5) (1 - 0.0025) (1 - 0.0180)
        tensor(0.4898)
    """

    arg_constraints = {  # noqa: RUF012
        "x": constraints.dependent(is_discrete=False, event_dim=2),
        "radius": constraints.positive,
        "temperature": constraints.positive,
    }
    has_rsample = False
    _validate_args: Any

    def __init__(
        self,
        x: Tensor,
        radius: Tensor | float,
        temperature: Tensor | float,
        manifold: Manifold | None = None,
        mask: Tensor | None = None,
        *,
        validate_args: bool | None = None,
    ) -> None:
        self.manifold: Manifold = with_sampled_parameters(or_standard(manifold))
        space = checks.check_manifold(self.manifold, validate=validate_args)
        checks.check_set(space, x, "x", validate=validate_args)
        self.x, self._event = x, 1 + space.event_dim
        self.radius, self.temperature = (
            checked_number(name, value, x, f"{_REMEDIES[name]}; {_FROM_A_NETWORK}", validate_args)
            for name, value in (("radius", radius), ("temperature", temperature))
        )
        checks.check_same_dtype(x=x, radius=self.radius, temperature=self.temperature)
        nodes = x.size(-self._event)
        #: Which nodes exist, shape ``(*, N)``, or None. (``mask`` is a method of Pyro's distributions.)
        self.node_mask = mask
        batches = {"x": space.batch_of(x.shape)[:-1]}
        batches |= {"radius": self.radius.shape, "temperature": self.temperature.shape}
        if mask is not None:
            _check_mask(mask, nodes)
            batches["mask"] = mask.shape[:-1]
        batches |= {f"{name} of the manifold": value.shape[:-1] for name, value in space.parameters().items()}
        initialise(self, checks.check_batches(**batches), torch.Size((nodes, nodes)), validate_args)

    @property
    def logits(self) -> Tensor:
        """The log-odds :math:`(r - d(x_i, x_j)) / t` of all pairs, ``(*, N, N)``, also where no edge is possible."""
        return self._logits().expand(self.batch_shape + self.event_shape)

    @property
    def probs(self) -> Tensor:
        """The probabilities of edges, shape ``(*, N, N)``; zero on the diagonal and at padded nodes."""
        return torch.where(self._pairs(), self._logits().sigmoid(), 0.0).expand(self.batch_shape + self.event_shape)

    @property
    def mean(self) -> Tensor:
        """The mean of the adjacency matrix, equal to :attr:`probs`."""
        return self.probs

    @property
    def variance(self) -> Tensor:
        """The variance of each entry, :math:`p (1 - p)`, shape ``(*, N, N)``."""
        logits = self._logits()
        variance = torch.where(self._pairs(), logits.sigmoid() * (-logits).sigmoid(), 0.0)
        return variance.expand(self.batch_shape + self.event_shape)

    def edge_logits(self, pairs: Tensor) -> Tensor:
        r"""Returns the log-odds :math:`(r - d(x_i, x_j)) / t` of some pairs, without those of all.

        Args:
            pairs: Numbers of nodes, int64, shape ``(E, 2)``.

        Returns:
            Tensor of shape ``(*, E)``.

        Raises:
            TypeError: If ``pairs`` is not an int64 tensor.
            ValueError: If its shape is not ``(E, 2)`` or, while validating, a number is not in ``[0, N)``.

        Example:
            >>> x = torch.tensor([[1.0, 0.0], [1.25, 0.75]])  # log 2 apart
            >>> SoftGeometricGraph(x, 1.0, 1.0).edge_logits(torch.tensor([[0, 1]]))
            tensor([0.3069])
        """
        self._check_pairs(pairs)
        ends = (self.x.index_select(self.x.dim() - self._event, each) for each in pairs.unbind(-1))
        apart = geometry.bind(self.manifold).distance(*ends)
        logits = (self.radius.unsqueeze(-1) - apart) / self.temperature.unsqueeze(-1)
        return logits.expand((*self.batch_shape, len(pairs)))

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns the log-probability of graphs, shape ``(*)``."""
        if self._validate_args:
            self._validate_sample(value)
        # The log of a rounded probability would lose far pairs, and certain ones.
        logits = self._logits()
        terms = logsigmoid((2 * value.to(logits.dtype) - 1) * logits)
        total = torch.where(self._pairs().triu(), terms, 0.0).sum((-2, -1))
        return total.expand(torch.broadcast_shapes(total.shape, self.batch_shape))

    def entropy(self) -> Tensor:
        """Returns the entropy, the sum over pairs, shape ``(*)``."""
        logits = self._logits()
        terms = -logits.sigmoid() * logsigmoid(logits) - (-logits).sigmoid() * logsigmoid(-logits)
        return torch.where(self._pairs().triu(), terms, 0.0).sum((-2, -1)).expand(self.batch_shape)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Returns graphs, shape ``sample_shape + batch_shape + (N, N)``."""
        with torch.no_grad():
            upper = torch.bernoulli(self.probs.expand(self._extended_shape(torch.Size(sample_shape)))).triu()
            return upper + upper.mT

    @constraints.dependent_property(is_discrete=True, event_dim=2)
    def support(self) -> Constraint:
        """The simple graphs, without edges at padded nodes."""
        return SimpleGraphs(self.node_mask)

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> "SoftGeometricGraph":
        """Returns a distribution of the same class, expanded to ``batch_shape``."""
        new = self._get_checked_instance(type(self), _instance)
        for name in ("manifold", "x", "_event", "radius", "temperature", "node_mask"):
            setattr(new, name, getattr(self, name))  # as they are, so that distances are computed once
        initialise(new, torch.Size(batch_shape), self.event_shape, self.__dict__.get("_validate_args"))
        return new

    @classmethod
    def infer_shapes(cls, **arg_shapes: Any) -> tuple[torch.Size, torch.Size]:
        """Returns ``batch_shape`` and ``event_shape`` for arguments of those shapes, with points that are vectors."""
        events = {name: constraint.event_dim for name, constraint in cls.arg_constraints.items()} | {"mask": 1}
        shapes = {name: torch.Size(arg_shapes[name]) for name in events if name in arg_shapes}
        batches = [shape[: len(shape) - events[name]] for name, shape in shapes.items()]
        nodes = arg_shapes["x"][-2]
        return torch.broadcast_shapes(*batches), torch.Size((nodes, nodes))

    def __repr__(self) -> str:
        names = ("x", "radius", "temperature", *(["node_mask"] if self.node_mask is not None else []))
        shapes = ", ".join(f"{name}: {tuple(getattr(self, name).shape)}" for name in names)
        return f"{type(self).__name__}({shapes}, {checks.describe(self.manifold)})"

    def _logits(self) -> Tensor:
        apart = geometry.bind(self.manifold).distance_matrix(self.x, self.x)
        radius, temperature = self.radius[..., None, None], self.temperature[..., None, None]
        return (radius - apart) / temperature

    def _pairs(self) -> Tensor:
        """Returns between which nodes edges are possible, shape ``(*, N, N)``."""
        pairs = ~torch.eye(*self.event_shape, dtype=torch.bool, device=self.x.device)
        return pairs if self.node_mask is None else pairs & _pairs_of(self.node_mask)

    def _check_pairs(self, pairs: Tensor) -> None:
        remedy = "give numbers of nodes, such as torch.tensor([[0, 1], [0, 2]])"
        if not isinstance(pairs, Tensor) or pairs.dtype != torch.int64:
            raise TypeError(f"pairs is {checks.shown(pairs)}, but must be an int64 tensor; {remedy}.")
        if pairs.shape[1:] != (2,):
            raise ValueError(f"pairs has shape {tuple(pairs.shape)}, but must be (E, 2); {remedy}.")
        if self._validate_args and checks.validating(True) and pairs.numel():
            least, most, (nodes, _) = int(pairs.min()), int(pairs.max()), self.event_shape
            if least < 0 or most >= nodes:
                raise ValueError(
                    f"pairs holds {least if least < 0 else most}, but x has {nodes} nodes, numbered from 0 to "
                    f"{nodes - 1}; renumber them, as torch.unique(edges, return_inverse=True) does."
                )

    def _validate_sample(self, value: Tensor) -> None:
        if not isinstance(value, Tensor) or value.is_complex():
            raise TypeError(
                f"value is {checks.shown(value)}, but must be a real tensor, the adjacency matrix of a graph; use "
                f"{'.real' if isinstance(value, Tensor) else 'torch.as_tensor(...)'}."
            )
        if value.shape[-2:] != self.event_shape:
            raise ValueError(
                f"value has shape {tuple(value.shape)}, but must end in the shape of an adjacency matrix, "
                f"{tuple(self.event_shape)}; pad it and give a mask, or give x of the same nodes."
            )
        checks.check_batches(value=value.shape[:-2], distribution=self.batch_shape)
        if checks.validating(True) and (what := SimpleGraphs(self.node_mask).explain(value)):
            raise ValueError(f"value is not the adjacency matrix of a simple graph: {what}.")


def _pairs_of(mask: Tensor) -> Tensor:
    return mask.unsqueeze(-1) & mask.unsqueeze(-2)


def _check_mask(mask: Any, nodes: int) -> None:
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        raise TypeError(f"mask is {checks.shown(mask)}, but must be a boolean tensor, True for nodes; use mask.bool().")
    if mask.shape[-1:] != (nodes,):
        raise ValueError(
            f"mask has shape {tuple(mask.shape)}, but x has {nodes} nodes; give one value for each, (*, {nodes})."
        )
