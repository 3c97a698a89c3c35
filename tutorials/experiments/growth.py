r"""Growth: a graph whose nodes appear one by one as points of a hyperbolic space, with edges that depend on distance.

A node is placed relative to its parent: in the frame where the parent is the origin and the way back is behind, child
number ``j`` is a draw from one conditional flow. Isometries carry the draw into place, so its density needs no
Jacobian:

.. math:: z_i = T_{z_p} \exp_o(H_{f_p} \log_o y), \quad y = \mathrm{flow}(\epsilon; j), \quad
    \log p(z_i \mid z_p) = \log p(y \mid j).

Edges are independent given the points, with probability ``sigmoid((r - d(z_i, z_j)) / t)`` for *all* pairs. No edge is
forced: a misplaced node costs a cycle or a component. A network decides whether a node gets another child; it reads
numbers off the graph that the points have decoded to so far.

**Why that can work.** If edges are longer than :func:`closing_length` of the angles, the perpendicular bisectors of
successive edges do not meet. A path then never comes back, and a rule for the angles at each node, which is local,
makes the whole set of points a tree.

**Precision.** Float64 coordinates resolve nothing beyond a radius of about 33, and deep trees reach 60. So points have
coordinates in an atlas: each level that is a multiple of :data:`CHART` starts a chart, with the ancestor there at its
origin. A pair is measured in the last chart that both nodes have.
"""

import math
from collections import deque
from functools import cache
from typing import NamedTuple

import geoopt
import pyro.distributions as dist
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
import pyro_hyperbolic.distributions.transforms as HT

CHART = 6  # levels from the origin of a chart to that of the next
KINDS = 25  # of nodes: 4 offsets and 6 degrees, and the growing path
BASE = 0.3  # standard deviation of the flow's noise
DOUBLE = {"dtype": torch.float64}


def closing_length(angle, k=1.0):
    r"""Returns :math:`\tau^* = 2 \sqrt k\, \mathrm{arcosh}(1 / \sin(\theta / 2))`: longer edges never close up.

    A broken geodesic of curvature -1/k with edges longer than this and angles of at least ``angle`` (radians) never
    returns: :math:`\tau^* / 2` is the distance whose angle of parallelism is half the angle, so the perpendicular
    bisectors of two successive edges have no point in common, and the half-spaces beyond them are nested. Non-adjacent
    nodes are then farther apart than an edge. In Euclidean space no length suffices.
    """
    return 2 * math.sqrt(k) * math.acosh(1 / math.sin(angle / 2))


@cache
def spread(count, dim, steps=600):
    """Returns ``count`` unit vectors of ``R^dim`` that repel each other, ``(count, dim)``; the same on every call."""
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(count, dim, generator=generator, **DOUBLE).requires_grad_()
    optimizer, itself = torch.optim.Adam([w], 0.05), torch.eye(count, dtype=torch.bool)
    for step in range(steps):
        u = w / w.norm(dim=-1, keepdim=True)
        sharpness = 5 * 40 ** (step / steps)
        loss = (sharpness * (u @ u.T)).masked_fill(itself, -torch.inf).logsumexp((0, 1)) / sharpness
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return (w / w.norm(dim=-1, keepdim=True)).detach()


class Space(NamedTuple):
    """Where codes live, and where in the frame of its parent child number ``j`` is: at ``length * slots[j]``."""

    manifold: geoopt.Manifold
    slots: torch.Tensor  # (children, n), orthogonal to the way back
    length: float
    noise: float  # standard deviation of the placement, in tangent coordinates
    random: bool = False  # draw a direction for each child, orthogonal to those at its parent

    @property
    def dim(self):
        """The dimension of the space."""
        return self.slots.size(-1)


def space(curved, dim, children=8, noise=0.02, stretch=1.25, random=False):
    """Returns the space of codes: edges are ``stretch`` times the closing length of the angles, or 1 on flat space."""
    if random:
        slots = torch.eye(dim, **DOUBLE)[:1].expand(children, dim)
    else:
        slots = torch.nn.functional.pad(spread(children, dim - 1), (1, 0))
    if not curved:
        return Space(geoopt.Euclidean(1), slots, 1.0, noise, random)
    cosines = (slots @ slots.T).masked_fill(torch.eye(children, dtype=torch.bool), -1.0)
    length = stretch * closing_length(math.acos(max(cosines.max().item(), 0.0)))  # the way back is at 90 degrees
    return Space(geoopt.Lorentz(torch.ones((), **DOUBLE)), slots, length, noise * length)


# ---- The order in which the nodes of a graph appear ----


class Order(NamedTuple):
    """A tree in the order of growth: ``parents[i] < i``, with -1 for the root; the first ``path`` nodes are a path."""

    parents: list
    path: int


def order_of(graph, generator):
    """Returns a random order of a tree: a longest path from its middle outwards, then breadth first."""
    nodes, edges = graph
    near = [[] for _ in range(nodes)]
    for u, v in edges.tolist():
        near[u].append(v)
        near[v].append(u)

    def farthest(start):
        queue, back = deque([start]), {start: None}
        while queue:
            here = queue.popleft()
            for i in torch.randperm(len(near[here]), generator=generator).tolist():
                if near[here][i] not in back:
                    back[near[here][i]] = here
                    queue.append(near[here][i])
        return here, back

    end, _ = farthest(int(torch.randint(nodes, (), generator=generator)))
    here, back = farthest(end)
    path = []
    while here is not None:
        path.append(here)
        here = back[here]
    middle = len(path) // 2
    placed = [path[middle]]
    for step in range(1, middle + 1):
        placed += [path[middle - step]] + ([path[middle + step]] if middle + step < len(path) else [])
    index = {node: i for i, node in enumerate(placed)}
    parents = [-1] + [max(i - 2, 0) for i in range(1, len(placed))]
    for here in placed:  # grows
        for i in torch.randperm(len(near[here]), generator=generator).tolist():
            if near[here][i] not in index:
                index[near[here][i]] = len(placed)
                placed.append(near[here][i])
                parents.append(index[here])
    return Order(parents, len(path))


# ---- Growing many graphs at once ----


class Batch:
    """Graphs that grow together. A pointer walks over the nodes in the order in which they appeared.

    In phase 0 a path grows at its two ends in turn; in phase 1 the node at the pointer gets children until the answer
    is no. Levels, degrees and offsets from the path are read off the edges, not off the pointer.
    """

    def __init__(self, wanted):
        self.wanted, self.rows = wanted, torch.arange(len(wanted))
        size = (len(wanted), int(wanted.max()))
        zeros = lambda *shape: torch.zeros(shape or size, dtype=torch.long)  # noqa: E731
        self.phase, self.pointer, self.path = zeros(size[0]), zeros(size[0]), zeros(size[0])
        self.count = zeros(size[0]) + 1
        self.children = zeros()  # that the pointer has placed: the number of the next slot
        self.level, self.offset, self.degree, self.above = zeros(), zeros(), zeros(), zeros()
        self.edges = torch.zeros(*size, size[1], dtype=torch.bool)

    def active(self):
        """Returns the rows that still grow."""
        return self.rows[self.phase < 2]

    def parent(self, rows):
        """Returns the parent of the next node, and its slot."""
        parent = torch.where(self.phase[rows] == 0, (self.count[rows] - 2).clamp(min=0), self.pointer[rows])
        return parent, self.children[rows, parent]

    def add(self, rows, parent, near):
        """Adds a node with edges ``near``, ``(rows, nodes)``."""
        new = self.count[rows]
        levels = self.level[rows].masked_fill(~near, near.size(1))
        above = levels.argmin(1)
        alone = ~near.any(1)
        self.level[rows, new] = (self.level[rows, above] + 1).masked_fill(alone, 0)
        self.offset[rows, new] = ((self.offset[rows, above] + 1) * self.phase[rows]).masked_fill(alone, 0)
        self.above[rows, new] = above
        self.edges[rows, new] = near
        self.edges[rows, :, new] = near
        self.degree[rows] += near
        self.degree[rows, new] = near.sum(1)
        self.children[rows, parent] += 1
        self.count[rows] += 1
        self.phase[rows[self.count[rows] == self.wanted[rows]]] = 2

    def refuse(self, rows):
        """Ends the path, or moves the pointer on."""
        ends, stays = rows[self.phase[rows] == 0], rows[self.phase[rows] == 1]
        self.path[ends] = self.count[ends]
        self.phase[ends] = 1
        self.pointer[stays] += 1
        self.phase[stays[self.pointer[stays] == self.count[stays]]] = 2

    def kind(self, rows):
        """Returns the kind of the node that waits for an answer: its offset and degree; 0 while the path grows."""
        at = self.pointer[rows]
        kind = 1 + 6 * self.offset[rows, at].clamp(max=3) + self.degree[rows, at].clamp(max=5)
        return kind * self.phase[rows]

    def features(self, rows):
        """Returns what the policy reads, ``(rows, features)``."""
        at, count, wanted = self.pointer[rows], self.count[rows], self.wanted[rows]
        left, grows = wanted - count, self.phase[rows] == 1
        nodes = torch.arange(self.level.size(1))
        waiting = (nodes > at[:, None]) & (nodes < count[:, None])
        offset = self.offset[rows].clamp(max=2)
        queue = torch.stack([(waiting & (offset == i)).sum(1) for i in range(3)], -1)
        every, able, room = queue.sum(1), queue[:, :2].sum(1), 2 * queue[:, 0] + queue[:, 1]  # what lobsters may use
        depth, level = self.path[rows] // 2, self.level[rows, at]
        inner = (waiting & (self.level[rows] < depth[:, None])).sum(1)  # their children end no longer path
        degree, above = self.degree[rows, at], self.degree[rows, self.above[rows, at]]
        size = [grows, count / 50, wanted / 50, left / 50, count / wanted, count / wanted.sqrt() / 5]
        place = [
            left.log1p(),
            *queue.log1p().unbind(-1),
            *(queue == 0).unbind(-1),
            *(q == 0 for q in (every, able, inner)),
            *(left > q for q in (every, able, room)),
            *((left / (1 + q)).log1p() for q in (every, able, inner, queue[:, 0], room)),
            inner.log1p(),
            level / 20,
            depth / 20,
            (depth - level) / 20,
            depth <= level,  # a child here would end a longer path
            depth == level + 1,
            degree / 10,
            above / 10,
            *one_hot(self.offset[rows, at].clamp(max=3), 4).unbind(-1),
            *one_hot(degree.clamp(max=5), 6).unbind(-1),
        ]
        return torch.stack([*size, *(grows * value for value in place)], -1).to(torch.float64)


class Atlas:
    """The codes of growing graphs, each in the charts of its ancestors; see the module."""

    def __init__(self, space, rows, nodes):
        charts = nodes // CHART + 2
        self.space, self.frames = space, space.manifold
        point = ph.geometry.origin(space.manifold, space.dim, **DOUBLE)
        self.points = point.repeat(rows, nodes, charts, 1)  # coordinates of a node in a chart
        self.anchors = torch.full((rows, nodes, charts), -1)  # the ancestor at the origin of a chart
        self.anchors[:, 0, 0] = 0
        self.level = torch.zeros(rows, nodes, dtype=torch.long)
        self.ahead = torch.zeros(rows, nodes, space.dim, **DOUBLE)
        self.ahead[..., 0] = 1.0
        if space.random:
            self.taken = torch.zeros(rows, nodes, len(space.slots) + 1, space.dim, **DOUBLE)

    def frame(self, rows, parent, slot):
        """Returns the direction that becomes the first axis and the parent, for a child number ``slot``."""
        chart = self.level[rows, parent] // CHART
        ahead = self.ahead[rows, parent]
        if self.space.random:
            taken = self.taken[rows, parent]
            ahead = torch.randn_like(ahead)
            ahead = ahead - ((taken @ ahead[..., None]) * taken).sum(1)
            ahead = ahead / ahead.norm(dim=-1, keepdim=True)
            self.taken[rows, parent, slot + 1] = ahead
        return ahead, self.points[rows, parent, chart]

    def place(self, rows, new, parent, z):
        """Adds nodes at ``z``, in the chart of their parents."""
        M, chart = self.space.manifold, self.level[rows, parent] // CHART
        back = ph.geometry.log0(M, ph.geometry.translate(M, z, self.points[rows, parent, chart], inverse=True))
        self.ahead[rows, new] = -back / back.norm(dim=-1, keepdim=True)
        if self.space.random:
            self.taken[rows, new, 0] = self.ahead[rows, new]
        self.points[rows, new, chart] = z
        self.anchors[rows, new] = self.anchors[rows, parent]
        for m in range(int(chart.max()), 0, -1):  # from a chart into the one before
            deep = chart >= m
            r, i = rows[deep], new[deep]
            self.points[r, i, m - 1] = ph.geometry.translate(
                M, self.points[r, self.anchors[r, i, m], m - 1], self.points[r, i, m]
            )
        self.level[rows, new] = self.level[rows, parent] + 1
        starts = self.level[rows, new] % CHART == 0
        self.anchors[rows[starts], new[starts], chart[starts] + 1] = new[starts]

    def pairs(self, rows, new, others):
        """Returns nodes and ``others`` as pairs of points of one chart, ``(rows, others, 2, n + 1)``."""
        ours, theirs = self.anchors[rows, new].unsqueeze(1), self.anchors[rows][:, :others]
        chart = ((ours == theirs) & (ours >= 0)).sum(-1).clamp(min=1) - 1
        z = self.points[rows[:, None], new[:, None], chart]
        return torch.stack([z, self.points[rows[:, None], torch.arange(others), chart]], -2)


# ---- The model ----


class Growth(torch.nn.Module):
    """The generative model: a policy, a conditional flow for the place of a child, and the law of edges.

    Without a space the policy alone makes trees: valid by construction.
    """

    def __init__(self, space=None, coupling=None, layers=4, hidden=64):
        super().__init__()
        self.space = space
        features = Batch(torch.tensor([2])).features(torch.tensor([0])).size(1)
        self.policy = torch.nn.Sequential(
            torch.nn.Linear(features, hidden),
            torch.nn.SiLU(),
            torch.nn.Linear(hidden, hidden),
            torch.nn.SiLU(),
            torch.nn.Linear(hidden, 1),
        ).double()
        self.register_buffer("fertile", torch.zeros(KINDS, dtype=torch.bool))  # kinds of nodes that had a child
        if space is None:
            return
        self.flow = ph.flows.coupling_flow(
            space.dim, layers, coupling, [hidden], space.manifold, context_dim=space.dim
        ).double()
        self.log_radius = torch.nn.Parameter(torch.tensor(math.log(1.3 * space.length), **DOUBLE))
        self.log_temperature = torch.nn.Parameter(torch.tensor(math.log(0.03 * space.length), **DOUBLE))

    def code(self, slot, ahead=None, parent=None):
        """Returns the law of a code: of child number ``slot`` of a node at ``parent``, whose way back is -``ahead``."""
        M = self.space.manifold
        origin = ph.geometry.origin(M, self.space.dim, **DOUBLE).expand(*slot.shape, -1)
        parts = [self.flow.condition(self.space.slots[slot]).with_cache(0)]  # each sample is read once
        if ahead is not None:
            parts += [HT.Reflection(M, ahead, cache_size=0), HT.Translation(M, parent, cache_size=0)]
        noise = hdist.WrappedNormal(origin, origin.new_tensor(BASE), M)
        return dist.TransformedDistribution(noise, parts)

    def edges(self, pairs):
        """Returns the law of the edge of each of ``pairs``, points ``(*, 2, n + 1)``: graphs of two nodes."""
        return hdist.SoftGeometricGraph(
            pairs, self.log_radius.exp(), self.log_temperature.exp(), self.space.manifold, validate_args=False
        )

    @torch.no_grad()
    def sample(self, wanted, watch=None):
        """Returns grown graphs with about ``wanted`` nodes; ``watch(batch, atlas)`` is called on each step."""
        batch = Batch(wanted)
        atlas = None if self.space is None else Atlas(self.space, *batch.level.shape)
        while len(rows := batch.active()):
            rate = self.policy(batch.features(rows)).squeeze(-1).sigmoid() * self.fertile[batch.kind(rows)]
            yes = torch.rand(len(rows)) < rate
            self._grow(batch, atlas, rows, yes)
            if watch is not None:
                watch(batch, atlas)
        return graphs_of(batch)

    def _grow(self, batch, atlas, rows, yes):
        parent, slot = batch.parent(rows)
        if self.space is not None:
            yes = yes & (slot < len(self.space.slots))
        batch.refuse(rows[~yes])
        rows, parent, slot = rows[yes], parent[yes], slot[yes]
        if not len(rows):
            return
        new, nodes = batch.count[rows], batch.level.size(1)
        if self.space is None:
            batch.add(rows, parent, one_hot(parent, nodes).bool())
            return
        ahead, z = atlas.frame(rows, parent, slot)
        atlas.place(rows, new, parent, self.code(slot, ahead, z).sample())
        earlier = int(new.max())
        logits = self.edges(atlas.pairs(rows, new, earlier)).edge_logits(torch.tensor([[0, 1]])).squeeze(-1)
        near = (torch.rand_like(logits) < logits.sigmoid()) & (torch.arange(earlier) < new[:, None])
        batch.add(rows, parent, torch.nn.functional.pad(near, (0, nodes - earlier)))


def graphs_of(batch):
    """Returns the graphs of a batch as pairs (nodes, edges)."""
    graphs = []
    for row, count in enumerate(batch.count.tolist()):
        graphs.append((count, batch.edges[row, :count, :count].triu().nonzero()))
    return graphs


def decisions(orders):
    """Returns what the policy reads while given trees grow, the kinds of nodes, and whether each time a child came."""
    batch = Batch(torch.tensor([len(order.parents) for order in orders]))
    nodes = batch.level.size(1)
    parents = torch.tensor([order.parents + [-1] * (nodes - len(order.parents)) for order in orders])
    path = torch.tensor([order.path for order in orders])
    seen, kinds, answers = [], [], []
    while len(rows := batch.active()):
        seen.append(batch.features(rows))
        kinds.append(batch.kind(rows))
        count = batch.count[rows]
        yes = torch.where(batch.phase[rows] == 0, count < path[rows], parents[rows, count] == batch.pointer[rows])
        answers.append(yes)
        batch.refuse(rows[~yes])
        rows = rows[yes]
        parent, _ = batch.parent(rows)
        batch.add(rows, parent, one_hot(parent, nodes).bool())
    return torch.cat(seen), torch.cat(kinds), torch.cat(answers).to(torch.float64)


# ---- Training ----


def fit_policy(model, orders, steps, batch=512, rate=5e-3, decay=1e-4):
    """Maximises the likelihood of the decisions; a kind of node that never had a child will have none."""
    policy = model.policy
    seen, kinds, answers = decisions(orders)
    model.fertile[kinds[answers == 1]] = True
    optimizer = torch.optim.AdamW(policy.parameters(), rate, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps)
    for _ in range(steps):
        index = torch.randint(len(seen), (batch,))
        loss = binary_cross_entropy_with_logits(policy(seen[index]).squeeze(-1), answers[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return loss.item()


def codes(space, slot):
    """Draws places of children in the frame of their parent, ``(*, n + 1)``."""
    v = space.length * space.slots[slot]
    return ph.geometry.exp0(space.manifold, v + space.noise * torch.randn_like(v))


def fit_flow(model, steps, batch=128, rate=5e-3):
    """Maximises the likelihood of codes, drawn without limit, every slot equally often."""
    optimizer = torch.optim.Adam(model.flow.parameters(), rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps)
    for _ in range(steps):
        slot = torch.randint(len(model.space.slots), (batch,))
        loss = -model.code(slot).log_prob(codes(model.space, slot)).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.flow.parameters(), 10.0)
        optimizer.step()
        schedule.step()
    return loss.item()


def embed(space, orders):
    """Returns an atlas with codes drawn for given trees."""
    nodes = max(len(order.parents) for order in orders)
    atlas = Atlas(space, len(orders), nodes)
    children = torch.zeros(len(orders), nodes, dtype=torch.long)
    for i in range(1, nodes):
        rows = torch.tensor([row for row, order in enumerate(orders) if i < len(order.parents)])
        parent = torch.tensor([orders[row].parents[i] for row in rows.tolist()])
        slot = children[rows, parent].clamp(max=len(space.slots) - 1)
        children[rows, parent] += 1
        ahead, z = atlas.frame(rows, parent, slot)
        moved = HT.Translation(space.manifold, z)(HT.Reflection(space.manifold, ahead)(codes(space, slot)))
        atlas.place(rows, torch.full_like(rows, i), parent, moved)
    return atlas


def all_pairs(atlas, orders):
    """Returns all pairs of nodes of embedded trees, as points of one chart, and which pairs are edges."""
    points, edges = [], []
    for i in range(1, atlas.level.size(1)):
        rows = torch.tensor([row for row, order in enumerate(orders) if i < len(order.parents)])
        parent = torch.tensor([orders[row].parents[i] for row in rows.tolist()])
        points.append(atlas.pairs(rows, torch.full_like(rows, i), i).flatten(0, 1))
        edges.append(one_hot(parent, i).flatten())
    return torch.cat(points), torch.cat(edges).to(torch.float64)


def fit_edges(model, orders, steps=200, rate=0.03):
    """Maximises the likelihood of the edges in the radius and the temperature.

    Where codes separate edges from other pairs, the temperature falls as long as this runs.
    """
    pairs, edges = all_pairs(embed(model.space, orders), orders)
    graphs = edges[:, None, None] * (1 - torch.eye(2, **DOUBLE))
    optimizer = torch.optim.Adam([model.log_radius, model.log_temperature], rate)
    for _ in range(steps):
        loss = -model.edges(pairs).log_prob(graphs).sum() / edges.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()
