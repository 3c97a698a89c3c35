"""One-shot generation of whole trees: a flow of sets draws pointers, and the tree that they say is laid out in H^5.

    w = T(noise)                 pointers: the parent of a node is the nearest of those nearer to the origin
    z_i ~ WN(place_i(w), s)      places: that tree by the rule of growth.py, with edges longer than the closing length
    A_ij ~ Bernoulli(sigmoid((r - d(z_i, z_j)) / t))

Jointly (w, z) is a flow of sets on a product: a coupling of z whose network reads the whole set w. Attention does not
find such a map: given the first blocks of all points, a coupling makes the second blocks independent, but those of
neighbours must agree to a fraction of an edge. The edges are free, so a misplaced node costs a cycle or a component.
But noise without a trained flow gives as many whole trees (``steps=0``): print that row beside it.
"""

import growth
import pyro
import pyro.distributions as dist
import torch
from pyro.distributions.constraints import positive
from set_flows import SetModel, mask_of, nearest
from torch.nn.functional import logsigmoid

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
import pyro_hyperbolic.distributions.transforms as HT

LAYOUT = growth.space(True, 5)


class PointerModel(SetModel):
    """The model of pointers, places and edges."""

    def __init__(self, *args):
        super().__init__(*args)
        self.threshold = 1.3 * LAYOUT.length, 0.03 * LAYOUT.length

    def forward(self, mask, codes=None):
        """The model: codes of pointers, places, edges."""
        codes = self.prior(mask, codes)
        law = hdist.WrappedNormal(layout(self.manifold, codes, mask), LAYOUT.noise, LAYOUT.manifold)
        with pyro.plate("graphs", len(mask)):
            places = pyro.sample("places", law.mask(mask).to_event(1))
            law = hdist.SoftGeometricGraph(places, *self.threshold, LAYOUT.manifold, mask)
            return codes, pyro.sample("edges", law)

    def start(self, graphs):
        """Returns Laplacian eigenvectors, with the root at the origin."""
        start = super().start([tree(parents) for parents in self.rooted(graphs)])
        return (start - start[:, :1]) * mask_of([nodes for nodes, _ in graphs])[..., None]

    def data(self, graphs):
        """Returns the parents, -1 for the root and for padding, and the mask."""
        mask = mask_of([nodes for nodes, _ in graphs])
        parents = torch.full(mask.shape, -1)
        for row, found in zip(parents, self.rooted(graphs), strict=True):
            row[: len(found)] = found
        return parents, mask

    def rooted(self, graphs):
        """Returns the parents of each tree, its nodes in the order of growth from the middle of a longest path."""
        generator = torch.Generator().manual_seed(0)
        return [torch.tensor(growth.order_of(graph, generator).parents) for graph in graphs]

    def observe(self, name, codes, mask, parents):
        """Parents are near and nearer to the origin; a standard normal keeps codes from spreading."""
        M = self.manifold
        width = pyro.param("width", torch.tensor(1.0, dtype=torch.float64), constraint=positive)
        origin = ph.geometry.origin(M, self.dim, dtype=torch.float64)
        prior = hdist.WrappedNormal(origin, torch.ones_like(width), M).expand(mask.shape).mask(mask).to_event(1)
        pyro.sample(f"{name}_codes", prior, obs=codes)
        radii = ph.geometry.distance(M, codes, origin)
        inner = logsigmoid((radii[:, :, None] - radii[:, None, :]) / width)
        scores = inner - ph.geometry.distance_matrix(M, codes) / width
        impossible = ~mask[:, None, :] | torch.eye(mask.size(1), dtype=torch.bool)
        law = dist.Categorical(logits=scores.masked_fill(impossible, -1e9)).mask(parents >= 0).to_event(1)
        pyro.sample(name, law, obs=parents.clamp(min=0))


def tree(parents):
    """Returns the graph of parents, -1 for the root at 0."""
    nodes = torch.arange(1, len(parents))
    return len(parents), torch.stack([parents[1:], nodes], 1)


def layout(manifold, codes, mask):
    """Returns places in the space of the layout: each node in the next free slot of the one that it points to."""
    M, space = LAYOUT.manifold, LAYOUT
    size, rows = mask.size(1), torch.arange(len(mask))
    radii = ph.geometry.log0(manifold, codes).norm(dim=-1).masked_fill(~mask, torch.inf)
    order = radii.argsort(1)  # parents come before their children
    inner = radii[:, None, :] < radii[:, :, None]
    parents = (nearest(manifold, codes, mask) * inner).argmax(-1)
    places = ph.geometry.exp0(M, codes.new_zeros(*mask.shape, space.dim))
    ahead = codes.new_zeros(*mask.shape, space.dim)
    ahead[..., 0] = 1.0
    children = torch.zeros(mask.shape, dtype=torch.long)
    for step in range(1, size):
        node = order[:, step]
        parent = parents[rows, node]
        slot = children[rows, parent].clamp(max=len(space.slots) - 1)  # with more children, two collide
        children[rows, parent] += 1
        child = ph.geometry.exp0(M, space.length * space.slots[slot])
        above = places[rows, parent]
        place = ph.geometry.translate(M, above, HT.Reflection(M, ahead[rows, parent])(child))
        back = ph.geometry.log0(M, ph.geometry.translate(M, place, above, inverse=True))
        real = mask[rows, node]
        places[rows[real], node[real]] = place[real]
        ahead[rows[real], node[real]] = -(back / back.norm(dim=-1, keepdim=True))[real]
    return places
