"""One-shot generation of graphs: a flow of sets draws all nodes at once, and near nodes are joined.

    z = T(w),  w_i ~ WN(o, s),  T a coupling flow with attention over the set
    A_ij ~ Bernoulli(sigmoid((r - d(z_i, z_j)) / t))

Bose et al., 2020, train both with a graph encoder. Here the codes of each training graph are free: they maximise the
likelihood of its edges, an upper bound for any encoder. A flow is then trained on the codes by maximum likelihood.
GNF (Liu et al., 2019, arXiv:1905.13177) is the same on Euclidean space, with affine couplings.
"""

from functools import partial

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, Trace_ELBO
from torch.distributions.constraints import independent, positive

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
import pyro_hyperbolic.distributions.transforms as HT
from pyro_hyperbolic.distributions.constraints import on_manifold

LAYERS, BATCH = 4, 12


def padded(graphs):
    """Returns adjacency matrices ``(B, N, N)`` and the mask ``(B, N)`` of graphs ``(nodes, edges)``."""
    most = max(nodes for nodes, _ in graphs)
    adjacency = torch.zeros(len(graphs), most, most, dtype=torch.float64)
    for matrix, (_, edges) in zip(adjacency, graphs, strict=True):
        matrix[edges[:, 0], edges[:, 1]] = matrix[edges[:, 1], edges[:, 0]] = 1.0
    return adjacency, mask_of([nodes for nodes, _ in graphs])


def mask_of(sizes):
    """Returns the mask ``(B, N)`` of sets of those sizes."""
    sizes = torch.as_tensor(sizes)
    return torch.arange(int(sizes.max())) < sizes[:, None]


def eigenvectors(graphs, dim):
    """Returns ``dim`` Laplacian eigenvectors of each graph, the slowest first and of variance 1, zero where padded."""
    most = max(nodes for nodes, _ in graphs)
    start = torch.zeros(len(graphs), most, dim, dtype=torch.float64)
    for rows, (nodes, edges) in zip(start, graphs, strict=True):
        adjacency = padded([(nodes, edges)])[0][0]
        vectors = torch.linalg.eigh(adjacency.sum(1).diag() - adjacency).eigenvectors[:, 1 : dim + 1]
        rows[:nodes, : vectors.size(1)] = nodes**0.5 * vectors
    return start


class SetModel(torch.nn.Module):
    """The generative model of graphs, with its prior over codes and its decoder.

    Args:
        manifold: Where codes live.
        dim: Its dimension.
        coupling: ``HT.tangent_coupling`` or ``HT.wrapped_hyperboloid_coupling``.
        sizes: The numbers of nodes of the training graphs, from which those of samples are drawn.
    """

    def __init__(self, manifold, dim, coupling, sizes):
        super().__init__()
        coupling = partial(coupling, hypernet=HT.AttentionNN)
        self.flow = HT.SetTransform(ph.flows.coupling_flow(dim, LAYERS, coupling, manifold=manifold).double())
        self.manifold, self.dim, self.sizes = manifold, dim, torch.as_tensor(sizes)
        self.scale = self.radius = self.temperature = torch.tensor(1.0, dtype=torch.float64)

    def prior(self, mask, codes=None):
        """The model of codes of padded sets, with their masks ``(B, N)``."""
        pyro.module("flow", self.flow)
        origin = ph.geometry.origin(self.manifold, self.dim, dtype=torch.float64)
        noise = hdist.WrappedNormal(origin, self.scale, self.manifold).expand(mask.shape).mask(mask).to_event(1)
        with pyro.plate("graphs", len(mask)):
            return pyro.sample("codes", dist.TransformedDistribution(noise, [self.flow.condition(mask)]), obs=codes)

    def forward(self, mask, codes=None, edges=None):
        """The model of codes and edges."""
        codes = self.prior(mask, codes)
        with pyro.plate("graphs", len(mask)):
            return codes, pyro.sample("edges", self.decoder(codes, self.radius, self.temperature, mask), obs=edges)

    def decoder(self, codes, radius, temperature, mask):
        """Returns the law of edges given codes."""
        return hdist.SoftGeometricGraph(codes, radius, temperature, self.manifold, mask)

    def start(self, graphs):
        """Returns tangent coordinates from which codes are fitted."""
        return eigenvectors(graphs, self.dim)

    def data(self, graphs):
        """Returns what is observed of graphs given their codes, and the mask."""
        return padded(graphs)

    def observe(self, name, codes, mask, edges):
        """The model of that, within a plate of graphs."""
        pyro.sample(name, self.decoder(codes, *threshold(), mask), obs=edges)

    def sample(self, wanted, seed=None, decoder="edges"):
        """Draws graphs ``(nodes, edges)``.

        Args:
            wanted: Their number, or their numbers of nodes.
            seed: A seed, or None to go on with the global generator.
            decoder: "edges" draws each edge; "nearest" joins each node to the nearest of those nearer to the origin,
                which is a tree by construction.
        """
        with torch.random.fork_rng(enabled=seed is not None), torch.no_grad():
            if seed is not None:
                torch.manual_seed(seed)
            if isinstance(wanted, int):
                wanted = self.sizes[torch.randint(len(self.sizes), (wanted,))]
            graphs = []
            for part in torch.as_tensor(wanted).split(100):
                mask = mask_of(part)
                codes, adjacency = self(mask)
                if decoder == "nearest":
                    adjacency = nearest(self.manifold, codes, mask)
                graphs += [(n, a[:n, :n].triu(1).nonzero()) for n, a in zip(part.tolist(), adjacency, strict=True)]
            return graphs


def nearest(manifold, codes, mask):
    """Joins each node to the nearest of those that are nearer to the origin."""
    radii = ph.geometry.log0(manifold, codes).norm(dim=-1).masked_fill(~mask, torch.inf)
    apart = ph.geometry.distance_matrix(manifold, codes)
    inner = radii[:, None, :] < radii[:, :, None]
    parents = apart.masked_fill(~inner, torch.inf).argmin(-1, keepdim=True)
    adjacency = torch.zeros_like(apart).scatter_(-1, parents, 1.0) * (inner & mask[:, :, None])
    return adjacency + adjacency.mT


def fit_codes(model, graphs, steps, progress=lambda: None):
    """Returns codes and mask: the codes that maximise the likelihood of ``model.observe``, with its parameters."""
    M, real = model.manifold, independent(on_manifold(model.manifold), 1)
    by_size = torch.tensor([nodes for nodes, _ in graphs]).argsort().split(16)  # less padding: half the time
    parts = [[graphs[i] for i in part] for part in by_size]
    data = [(ph.geometry.exp0(M, model.start(part)), *model.data(part)) for part in parts]

    def likelihood():
        for i, (start, seen, mask) in enumerate(data):
            codes = pyro.param(f"codes_{i}", start, constraint=real)
            with pyro.plate(f"graphs_{i}", len(mask)):
                model.observe(f"seen_{i}", codes, mask, seen)

    pyro.clear_param_store()
    schedule = pyro.optim.CosineAnnealingLR({"optimizer": torch.optim.Adam, "optim_args": {"lr": 0.05}, "T_max": steps})
    svi = SVI(likelihood, lambda: None, schedule, Trace_ELBO())
    for _ in range(steps):
        svi.step()
        schedule.step()
        progress()
    with torch.no_grad():
        model.radius, model.temperature = (value.clone() for value in threshold())
        mask = mask_of([nodes for nodes, _ in graphs])
        codes = ph.geometry.exp0(M, torch.zeros(*mask.shape, model.dim, dtype=torch.float64))
        for i, part in enumerate(by_size):
            found = pyro.param(f"codes_{i}")
            codes[part, : found.size(1)] = found
    pyro.clear_param_store()
    return codes, mask


def threshold():
    """Returns the learned radius and temperature of an edge."""
    one = torch.tensor(1.0, dtype=torch.float64)
    return tuple(pyro.param(name, one, constraint=positive) for name in ("radius", "temperature"))


def rotated(manifold, codes):
    """Rotates each set about the origin, by a random orthogonal map of tangent coordinates."""
    v = ph.geometry.log0(manifold, codes)
    turns = torch.linalg.qr(torch.randn(len(v), v.size(-1), v.size(-1), dtype=v.dtype))
    signs = turns.R.diagonal(dim1=-2, dim2=-1).sign()
    return ph.geometry.exp0(manifold, v @ (turns.Q * signs[:, None, :]))


def fit_flow(model, codes, mask, steps, progress=lambda: None):
    """Trains the flow on codes by maximum likelihood, each set rotated at random at every step."""
    model.scale = ph.geometry.log0(model.manifold, codes)[mask].std()
    optimizer = pyro.optim.CosineAnnealingLR(
        {"optimizer": torch.optim.Adam, "optim_args": {"lr": 2e-3}, "T_max": steps}, clip_args={"clip_norm": 5.0}
    )
    svi = SVI(model.prior, lambda *_: None, optimizer, Trace_ELBO())
    losses = []
    for _ in range(steps):
        # A random batch of similar sizes, to pad less.
        batches = (mask.sum(1) + 20 * torch.rand(len(mask))).argsort().split(BATCH)
        some = batches[torch.randint(len(batches), ())]
        most = int(mask[some].sum(1).max())
        losses.append(svi.step(mask[some, :most], rotated(model.manifold, codes[some, :most])) / int(mask[some].sum()))
        optimizer.step()
        progress()
    return losses


def fit(graphs, manifold, dim, coupling, seed, steps, report=None, code_steps=200, kind=SetModel):
    """Fits codes to graphs ``(nodes, edges)`` and a flow of sets to the codes; returns a model with ``sample``.

    Args:
        graphs: Training graphs, edges long ``(E, 2)``.
        manifold: A geoopt manifold with float64 parameters.
        dim: Dimension of the codes.
        coupling: A builder of couplings.
        seed: Seed of everything.
        steps: Number of steps of the flow.
        report: If given, called with the share of the work that is done.
        code_steps: Number of steps of the codes.
        kind: The class of the model.
    """
    pyro.set_rng_seed(seed)
    model = kind(manifold, dim, coupling, [nodes for nodes, _ in graphs])
    done = 0

    def progress():
        nonlocal done
        done += 1
        if report is not None:
            report(done / (code_steps + steps))

    codes, mask = fit_codes(model, graphs, code_steps, progress)
    fit_flow(model, codes, mask, steps, progress)
    return model
