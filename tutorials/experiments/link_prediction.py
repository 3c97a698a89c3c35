"""Table 3 of Bose et al., 2020: link prediction by graph VAEs, on 20 splits, beside rules that are not trained.

    python tutorials/experiments/link_prediction.py --graph FOLDER          # the table; resumes where it stopped
    python tutorials/experiments/link_prediction.py --graph FOLDER --dataset dis1 --model WHC --split-seed 101 --out DIR
    python tutorials/experiments/report.py                                  # writes README.md from the records

The second command writes `DIR/scores.json`: the test pairs of one split, their labels and predicted probabilities.
FOLDER holds `diseases.csv` ("dis1"), and `disease_lp.edges.csv` with `disease_lp.feats.npz` ("dis2"), there or in
a folder `disease_lp`. A single csv of edges `u,v` will do too, with `--dataset`.

All five models are one class, whose manifold and coupling are arguments. They share encoder, decoder, weights of the
loss, budget, splits and seeds. A split hides 5% of the edges for validation and 10% for testing; messages pass over
training edges only. Scores are posterior predictive: probabilities averaged over 32 samples of the codes.
"""

import argparse
import copy
import json
import os
import time
from pathlib import Path
from typing import NamedTuple

import geoopt
import pyro
import pyro.distributions as dist
import scipy.sparse
import torch
from matplotlib.figure import Figure
from pyro import poutine
from pyro.infer import Trace_ELBO
from pyro.nn import DenseNN, PyroModule, PyroParam, pyro_method
from records import perform_all, read, write
from rich.progress import Progress
from torch import Tensor
from torch.nn.functional import softplus
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
import pyro_hyperbolic.distributions.transforms as HT

pyro.settings.set(module_local_params=True)
SMOKE = "SMOKE_TEST" in os.environ
HERE = Path(__file__).resolve().parent
SEEDS = range(101, 103 if SMOKE else 121)  # declared before any run; settings were chosen on seeds 0 to 4
SAMPLES = 32
MODELS = {  # name: (hyperbolic, coupling)
    "N-VAE": (False, None),
    "H-VAE": (True, None),
    "RealNVP": (False, HT.tangent_coupling),
    "TC": (True, HT.tangent_coupling),
    "WHC": (True, HT.wrapped_hyperboloid_coupling),
}


class Setting(NamedTuple):
    """What a data set fixes for all models.

    ``beta`` multiplies the mean KL per node, ``masking`` is the share of training edges that an epoch hides from the
    encoder, and ``depth`` the number of layers without messages between its two layers with messages.
    """

    dim: int
    beta: float
    masking: float
    epochs: int = 360
    decoder: str = "gromov"
    depth: int = 0


SETTINGS = {
    "dis1": Setting(6, 0.01, 0.0),
    "dis2": Setting(2, 0.001, 0.4),
}

# ---- Data ----


class Graph(NamedTuple):
    """A graph with ``num_nodes`` nodes, edges ``(E, 2)``, u < v, and features ``(num_nodes, d)``."""

    num_nodes: int
    edges: Tensor
    features: Tensor


def load(path, dataset):
    """Returns the graph of a data set in a folder, or of a csv of edges; without features they are the identity."""
    file = {"dis1": "diseases.csv", "dis2": "disease_lp.edges.csv"}[dataset]
    places = [path] if path.is_file() else [path / file, path / "disease_lp" / file]
    place = next((place for place in places if place.is_file()), None)
    if place is None:
        raise FileNotFoundError(f"--graph {path} holds no {file}; give the folder that does, or the csv itself.")
    edges = ph.datasets.edge_list(place)
    features = place.with_name(place.name.removesuffix(".edges.csv") + ".feats.npz")
    if features.is_file():
        x = torch.as_tensor(scipy.sparse.load_npz(features).toarray(), dtype=torch.float32)
    else:
        x = torch.eye(int(edges.max()) + 1)
    return Graph(len(x), edges, x)


class Split(NamedTuple):
    """A split of edges; ``matched`` replaces an end of each test edge by a node of the same training degree."""

    train: Tensor
    val: Tensor
    test: Tensor
    val_negatives: Tensor
    test_negatives: Tensor
    matched: Tensor

    @classmethod
    def of(cls, graph, seed):
        uniform = ph.datasets.split_edges(graph.edges, graph.num_nodes, seed)
        matched = ph.datasets.split_edges(graph.edges, graph.num_nodes, seed, matched=True)
        return cls(*uniform, matched.test_negatives)

    @property
    def pairs(self):
        """Returns the pairs to score: those of validation, the test edges, and both kinds of test negatives."""
        return torch.cat([self.val, self.val_negatives, self.test, self.test_negatives, self.matched])

    def scores(self, values):
        """Returns areas under the curve and average precisions of values for ``pairs``, and the points of the ROC."""
        sizes = [len(self.val), len(self.val_negatives), len(self.test), len(self.test_negatives), len(self.matched)]
        _, _, test, uniform, matched = values.split(sizes)
        found = {}
        found["auc"], found["ap"] = both(test, uniform)
        found["matched_auc"], found["matched_ap"] = both(test, matched)
        for name, negatives in (("roc", uniform), ("matched_roc", matched)):
            found[name] = " ".join(f"{value:.3f}" for value in roc(test, negatives))
        return found


def both(positives, negatives):
    """Returns the area under the ROC curve and the average precision."""
    scores, labels = torch.cat([positives, negatives]), labels_of(positives, negatives)
    return float(ph.metrics.roc_auc(scores, labels)), float(ph.metrics.average_precision(scores, labels))


def labels_of(positives, negatives):
    return torch.cat([torch.ones(len(positives)), torch.zeros(len(negatives))])


#: False positive rates of the stored ROC curves, denser at the left.
RATES = torch.linspace(0, 1, 41).square()


def roc(positives, negatives):
    """Returns the true positive rates at ``RATES``; ties are broken at random, on average."""
    rates, ordered = [], torch.cat([negatives.sort(descending=True).values, torch.tensor([-torch.inf])])
    for allowed in (RATES * len(negatives) + 1e-6).long():  # false positives; the rates are rounded multiples of 1/1600
        threshold = ordered[allowed]
        tied = (allowed - (negatives > threshold).sum()) / (negatives == threshold).sum().clamp(min=1)
        rates.append(float((positives > threshold).float().mean() + tied * (positives == threshold).float().mean()))
    return rates


# ---- The model and the guide ----


class GCN(torch.nn.Module):
    """Averages of neighbours' features, A W x, with A = D^-1/2 (edges + I) D^-1/2 (Kipf and Welling, 2017)."""

    def __init__(self, in_dim, out_dim):
        super().__init__()
        self.linear = torch.nn.Linear(in_dim, out_dim)

    def forward(self, x, messages):
        return messages @ self.linear(x)


def messages_over(edges, num_nodes, both_ways=True):
    """Returns the matrix A of :class:`GCN` for edges ``(E, 2)``, with messages both ways or from first to second."""
    loops = torch.arange(num_nodes).unsqueeze(-1).expand(-1, 2)
    rows, columns = torch.cat([edges.flip(1), *([edges] if both_ways else []), loops]).T
    scale = rows.bincount(minlength=num_nodes).float().rsqrt()
    where, size = torch.stack([rows, columns]), (num_nodes, num_nodes)
    return torch.sparse_coo_tensor(where, scale[rows] * scale[columns], size, check_invariants=False).to_sparse_csr()


class GraphVAE(PyroModule):
    r"""Codes on a manifold, :math:`p(A_{ij} = 1 \mid z) = \sigma(\text{logit}(z_i, z_j))`.

    The decoders, with d the distance, rho the distance from the origin, and r, s, t learned:
    "fermi-dirac" (r - d) / t; "gromov" (r + s (rho_i + rho_j) - d) / t, for s = 1 an affine function of the Gromov
    product, the curved counterpart of an inner product; "inner", the inner product of log0.
    """

    def __init__(self, graph, setting, manifold, coupling=None):
        super().__init__()
        self.setting, self.manifold, self.num_nodes = setting, manifold, graph.num_nodes
        self.hidden, self.heads = GCN(graph.features.size(-1), 64), GCN(64, 2 * setting.dim)
        between = [layer for _ in range(setting.depth) for layer in (torch.nn.Linear(64, 64), torch.nn.ReLU())]
        self.between = torch.nn.Sequential(*between)
        with torch.no_grad():
            self.heads.linear.bias[setting.dim :] = -2.0  # from a wider start the first hundred epochs are noise
        self.flow = ph.flows.coupling_flow(setting.dim, 2, coupling, [128], manifold) if coupling else None
        self.radius, self.temperature = (
            PyroParam(torch.tensor(value), constraint=dist.constraints.positive) for value in (2.0, 1.0)
        )
        self.slope = torch.nn.Parameter(torch.tensor(0.5))

    @pyro_method
    def model(self, x, messages, pairs, labels):
        prior = hdist.WrappedNormal(ph.geometry.origin(self.manifold, self.setting.dim), 1.0, self.manifold)
        with pyro.plate("nodes", self.num_nodes), poutine.scale(scale=self.setting.beta / self.num_nodes):
            z = pyro.sample("z", prior)
        with pyro.plate("pairs", len(pairs)), poutine.scale(scale=2 / len(pairs)):
            pyro.sample("edges", dist.Bernoulli(logits=self.logits(z, pairs)), obs=labels)

    @pyro_method
    def guide(self, x, messages, pairs, labels):
        with pyro.plate("nodes", self.num_nodes), poutine.scale(scale=self.setting.beta / self.num_nodes):
            pyro.sample("z", self.posterior(x, messages))

    def posterior(self, x, messages, nodes=slice(None)):
        loc, scale = self.heads(self.between(self.hidden(x, messages).relu()), messages)[nodes].chunk(2, -1)
        posterior = hdist.WrappedNormal(ph.geometry.exp0(self.manifold, loc), softplus(scale), self.manifold)
        return dist.TransformedDistribution(posterior, [self.flow]) if self.flow else posterior

    def logits(self, z, pairs):
        """Returns the logits ``(*, E)`` of pairs ``(E, 2)``, for codes ``(*, num_nodes, n + 1)``."""
        u, v = pairs.T
        if self.setting.decoder == "inner":
            w = ph.geometry.log0(self.manifold, z)
            return (w[..., u, :] * w[..., v, :]).sum(-1)
        logits = hdist.SoftGeometricGraph(z, self.radius, self.temperature, self.manifold).edge_logits(pairs)
        if self.setting.decoder == "fermi-dirac":
            return logits
        rho = ph.geometry.log0(self.manifold, z).norm(dim=-1)
        return logits + self.slope * (rho[..., u] + rho[..., v]) / self.temperature

    @torch.no_grad()
    def predict(self, x, messages, pairs, samples=SAMPLES):
        """Returns posterior predictive probabilities of pairs."""
        nodes, ends = pairs.unique(return_inverse=True)  # the flow moves only the nodes that it must
        posterior = self.posterior(x, messages, nodes)
        return self.logits(posterior.sample((samples,)), ends).sigmoid().mean(0)


# ---- Training, with early stopping on validation edges ----


def negatives_for(edges, num_nodes):
    """Returns as many random pairs of distinct nodes as edges, none of them among the edges."""
    pairs = torch.randint(num_nodes, (2 * len(edges), 2))
    known = torch.cat([edges, edges.flip(1)]) @ torch.tensor([num_nodes, 1])
    allowed = (pairs[:, 0] != pairs[:, 1]) & ~torch.isin(pairs @ torch.tensor([num_nodes, 1]), known)
    return pairs[allowed][: len(edges)]


def trained(graph, split, setting, name, seed, report=lambda share: None):
    """Returns the predicted probabilities of ``split.pairs`` at the epoch of the best validation score, and the epoch.

    Predictions are those of the average of the weights over the last epochs.
    """
    torch.set_num_threads(1)
    pyro.set_rng_seed(seed)
    hyperbolic, coupling = MODELS[name]
    vae = GraphVAE(graph, setting, geoopt.Lorentz() if hyperbolic else geoopt.Euclidean(1), coupling)
    average = AveragedModel(vae, multi_avg_fn=get_ema_multi_avg_fn(0.98))
    elbo, optimizer = Trace_ELBO()(vae.model, vae.guide), torch.optim.Adam(vae.parameters(), lr=0.01, fused=True)
    whole = messages_over(split.train, graph.num_nodes)
    best, epochs = (-1.0, {}, 0), 4 if SMOKE else setting.epochs
    validation = torch.cat([split.val, split.val_negatives])
    for epoch in range(1, epochs + 1):
        # The encoder sees some of the edges and the likelihood all: any guide gives a bound.
        seen = split.train[torch.rand(len(split.train)) >= setting.masking]
        messages = messages_over(seen, graph.num_nodes) if setting.masking else whole
        with pyro.validation_enabled(epoch == 1):
            negatives = negatives_for(split.train, graph.num_nodes)
            pairs, labels = torch.cat([split.train, negatives]), labels_of(split.train, negatives)
            loss = elbo(graph.features, messages, pairs, labels)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(vae.parameters(), 10.0)
            optimizer.step()
            if epoch > 10:
                average.update_parameters(vae)
            if epoch % 20 == 0 or epoch == epochs:
                found = average.module.predict(graph.features, whole, validation, samples=8)
                score = sum(both(*found.split([len(split.val), len(split.val_negatives)])))
                if score > best[0]:
                    best = (score, copy.deepcopy(average.module.state_dict()), epoch)
                report(epoch / epochs)
    average.module.load_state_dict(best[1])
    return average.module.predict(graph.features, whole, split.pairs), best[2]


# ---- Rules that are not trained, on the training graph ----


def degree_rule(graph, split):
    """Returns the rate of training edges among pairs of nodes with those degrees, less the edge itself."""
    degree = split.train.flatten().bincount(minlength=graph.num_nodes)
    level = (degree + 1).float().log2().floor().long()
    before = degree.float().log2().floor().long().clamp(min=0)  # of degree - 1, for the ends of an edge
    size = int(level.max()) + 1
    counts = torch.zeros(size, size).index_put_(tuple(before[split.train].T), torch.tensor(1.0), accumulate=True)
    nodes = level.bincount(minlength=size).float()
    rates = (counts + counts.T + 0.5) / (nodes.outer(nodes) + 1)  # half an edge where there is none
    u, v = split.pairs.T
    return rates[level[u], level[v]]


def preferential_attachment(graph, split):
    degree = split.train.flatten().bincount(minlength=graph.num_nodes)
    return degree[split.pairs].prod(-1).float()


def adamic_adar(graph, split):
    """Returns the sum over common neighbours of one over the log of their degree."""
    A = adjacency(graph, split)
    degree = A.sum(0).clamp(min=2)  # a node of degree 1 is nobody's common neighbour
    u, v = split.pairs.T
    return (A.to_sparse_csr() @ (A / degree.log().unsqueeze(-1)))[u, v]


def katz(graph, split, decay=0.01, length=5):
    """Returns the sum over paths up to a length, each weighed by a power of ``decay``."""
    A = adjacency(graph, split)
    paths = power = decay * A
    for _ in range(length - 1):
        power = decay * (A.to_sparse_csr() @ power)
        paths = paths + power
    u, v = split.pairs.T
    return paths[u, v]


def adjacency(graph, split):
    """Returns the matrix of training edges."""
    A = torch.zeros(graph.num_nodes, graph.num_nodes)
    A[split.train[:, 0], split.train[:, 1]] = 1.0
    return A + A.T


def last_feature(graph, split):
    """Returns minus the difference of the last feature."""
    u, v = split.pairs.T
    return -(graph.features[u, -1] - graph.features[v, -1]).abs()


RULES = {
    "degrees": degree_rule,
    "preferential attachment": preferential_attachment,
    "Adamic-Adar": adamic_adar,
    "Katz": katz,
    "last feature": last_feature,
}

# ---- The published decoder, which passes messages over the pairs that it scores ----


class PublishedDecoder(torch.nn.Module):
    """The graph autoencoder of the paper's code: (-d - r_ij) / t_ij, r and t from messages over given pairs.

    As there, without noise, and one network of messages serves r and t. We keep t positive.
    """

    def __init__(self, graph, dim):
        super().__init__()
        self.graph = graph
        self.hidden, self.heads = GCN(graph.features.size(-1), 64), GCN(64, dim)
        self.first, self.second = GCN(dim, 64), GCN(64, 32)
        self.networks = torch.nn.ModuleList(DenseNN(64, [64], [1], torch.nn.LeakyReLU(0.2)) for _ in "rt")

    def forward(self, messages, decoded, pairs):
        z = self.heads(self.hidden(self.graph.features, messages).relu(), messages)
        ends = self.second(self.first(z, decoded).relu(), decoded)[pairs].flatten(-2)
        r, t = (network(ends).squeeze(-1) for network in self.networks)
        distances = (z[pairs[:, 0]] - z[pairs[:, 1]]).norm(dim=-1)
        return (-distances - r) / softplus(t)


def leak(graph, split, setting, seed):
    """Returns the scores of one trained decoder whose messages pass over three sets of pairs."""
    torch.set_num_threads(1)
    pyro.set_rng_seed(seed)
    net = PublishedDecoder(graph, setting.dim)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01, fused=True)
    whole = messages_over(split.train, graph.num_nodes)

    def logits(pairs, messages=None):  # as published, edges pass messages both ways in training and one way in tests
        return net(whole, messages_over(pairs, graph.num_nodes, False) if messages is None else messages, pairs)

    for _ in range(4 if SMOKE else 300):
        others = negatives_for(split.train, graph.num_nodes)
        loss = softplus(-logits(split.train, whole)).mean() + softplus(logits(others)).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 10.0)
        optimizer.step()
    edges, others = split.test, split.test_negatives
    with torch.no_grad():
        return {
            "separate": both(logits(edges), logits(others)),
            "mixed": both(*logits(torch.cat([edges, others])).split([len(edges), len(others)])),
            "training": both(logits(edges, whole), logits(others, whole)),
        }


# ---- All rows of the table ----

VARIANTS = {  # dataset: name: (model, changes of the setting, whether to drop the last feature)
    "dis1": {"WHC, Fermi-Dirac": ("WHC", {"decoder": "fermi-dirac"}, False)},
    "dis2": {
        "N-VAE, one more layer": ("N-VAE", {"depth": 1}, False),
        "N-VAE, inner product": ("N-VAE", {"decoder": "inner"}, False),
        "WHC, inner product": ("WHC", {"decoder": "inner"}, False),
        "WHC, ten features": ("WHC", {}, True),
    },
}


def rows_of(dataset):
    """Returns the names of the rows of a data set."""
    rules = [name for name in RULES if dataset == "dis2" or name != "last feature"]
    return [*MODELS, *VARIANTS[dataset], *rules, "published decoder"]


def row(name, graph, dataset, seed, report):
    """Returns the scores of a row on one split."""
    split, setting = Split.of(graph, seed), SETTINGS[dataset]
    if name == "published decoder":
        return leak(graph, split, setting, seed)
    if name in RULES:
        return split.scores(RULES[name](graph, split))
    model, changes, shortened = VARIANTS[dataset].get(name, (name, {}, False))
    if shortened:
        graph = graph._replace(features=graph.features[:, :-1])
    start = time.process_time()
    probabilities, epoch = trained(graph, split, setting._replace(**changes), model, seed, report)
    return {**split.scores(probabilities), "epoch": epoch, "seconds": round(time.process_time() - start, 1)}


FIELDS = ("dataset", "seed", "setting", "rows")


def unfinished(folder, datasets, names, splits=None):
    """Returns the jobs ``(dataset, seed, rows)`` that are left: for each split the names of rows not in its record."""
    records = read(folder, FIELDS)
    for name, record in records.items():
        if record["setting"] != (setting := SETTINGS[record["dataset"]]._asdict()):
            raise ValueError(
                f"{folder / name}.json is the record of a run with {record['setting']}, not {setting}; delete it, or "
                f"write to another folder with --out."
            )
    found = {(record["dataset"], record["seed"]): record["rows"] for record in records.values()}
    jobs = []
    for seed in SEEDS[:splits]:
        for dataset in datasets:
            rows = [name for name in rows_of(dataset) if name in names and name not in found.get((dataset, seed), {})]
            jobs += [(dataset, seed, rows)] if rows else []
    return jobs


def perform(path, dataset, seed, rows, folder, state):
    """Adds rows to the record of one split."""
    graph, name = load(path, dataset), f"{dataset}-{seed}"
    record = {"dataset": dataset, "seed": seed, "setting": SETTINGS[dataset]._asdict(), "torch": torch.__version__}
    record = read(folder, FIELDS).get(name, {**record, "rows": {}})
    for label in rows:

        def report(share, label=label):
            state[f"{name} {label}"] = share

        report(0)
        record["rows"][label] = row(label, graph, dataset, seed, report)
        write(folder, name, record)
        state.pop(f"{name} {label}", None)


def perform_missing(path, datasets, names, folder, processes, splits=None):
    jobs = [(path, *job, folder) for job in unfinished(folder, datasets, names, splits)]
    perform_all(perform, jobs, "splits", len(SEEDS[:splits]) * len(datasets), processes)


def one(path, dataset, model, seed, folder):
    """Trains one model on one split and writes the pairs, labels and probabilities of its test set."""
    graph = load(path, dataset)
    split = Split.of(graph, seed)
    with Progress() as progress:
        bar = progress.add_task(f"{model} on {dataset}, split {seed}", total=1.0)
        found, _ = trained(
            graph, split, SETTINGS[dataset], model, seed, lambda share: progress.update(bar, completed=share)
        )
    count, skip = len(split.test), len(split.val) + len(split.val_negatives)
    test, uniform, matched = found[skip:].split([count, len(split.test_negatives), len(split.matched)])
    content = {"dataset": dataset, "model": model, "split_seed": seed}
    for prefix, negatives, p in (("", split.test_negatives, uniform), ("matched_", split.matched, matched)):
        content[f"{prefix}pairs"] = torch.cat([split.test, negatives]).tolist()
        content[f"{prefix}labels"] = labels_of(split.test, negatives).int().tolist()
        content[f"{prefix}probabilities"] = torch.cat([test, p]).tolist()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scores.json").write_text(json.dumps(content))
    print(
        "AUC {:.4f}, AP {:.4f}".format(*both(test, uniform)),
        "degree-matched {:.4f}, {:.4f}".format(*both(test, matched)),
    )


# ---- The picture ----

STYLES = {  # the colours of Okabe and Ito, and dashes for those who do not see them
    "N-VAE": ("#0072B2", "-"),
    "H-VAE": ("#D55E00", "--"),
    "RealNVP": ("#009E73", "-."),
    "TC": ("#CC79A7", ":"),
    "WHC": ("#000000", (0, (6, 1, 1, 1, 1, 1))),
    "degrees": ("#999999", (0, (1, 3))),
}
TITLES = {"dis1": "Dis-I", "dis2": "Dis-II"}


def picture(folder, file):
    """Draws the mean ROC curve over splits of each model, with 95% intervals of the mean."""
    records = read(folder, FIELDS).values()
    datasets = [name for name in TITLES if any(record["dataset"] == name for record in records)]
    figure = Figure(figsize=(7.6, 3.7 * len(datasets)), layout="constrained")
    axes = figure.subplots(len(datasets), 2, squeeze=False, sharex=True, sharey=True)
    for line, dataset in zip(axes, datasets, strict=True):
        rows = [record["rows"] for record in records if record["dataset"] == dataset]
        for ax, kind, title in zip(line, ("roc", "matched_roc"), ("uniform", "degree-matched"), strict=True):
            for name, (colour, dashes) in STYLES.items():
                curves = [[float(value) for value in row[name][kind].split()] for row in rows if name in row]
                mean, half = torch.tensor(curves).mean(0), 1.96 * torch.tensor(curves).std(0) / len(curves) ** 0.5
                ax.fill_between(RATES, mean - half, (mean + half).clamp(max=1), color=colour, alpha=0.15, linewidth=0)
                ax.plot(RATES, mean, color=colour, linestyle=dashes, linewidth=1.5, label=name)
            ax.set(title=f"{TITLES[dataset]}, {title} negatives", xscale="log", xlim=(0.004, 1), ylim=(0, 1.01))
        line[0].set_ylabel("true positive rate")
    for ax in axes[-1]:
        ax.set_xlabel("false positive rate")
    axes[0, 0].legend(loc="lower right", fontsize=8, frameon=False, handlelength=3.5)
    figure.savefig(file, dpi=130)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graph", type=Path, required=True, help="folder of the graphs, or a csv of edges")
    parser.add_argument("--dataset", choices=list(SETTINGS), help="one of them, instead of both")
    parser.add_argument("--model", choices=list(MODELS), help="one model on one split, instead of the table")
    parser.add_argument("--split-seed", type=int, default=SEEDS[0], help="the seed of that split")
    every = list(dict.fromkeys(name for dataset in SETTINGS for name in rows_of(dataset)))
    parser.add_argument("--rows", nargs="+", choices=every, default=every, metavar="ROW", help=", ".join(every))
    parser.add_argument("--splits", type=int, help="the first so many splits, instead of 20")
    parser.add_argument("--processes", type=int, default=1, help="one split in each")
    parser.add_argument("--out", type=Path, default=HERE / "runs" / "link_prediction", help="folder of results")
    parser.add_argument("--picture", type=Path, help="where to draw the ROC curves")
    args = parser.parse_args()
    if args.dataset is None and (args.model or args.graph.is_file()):
        parser.error("one model, or one file, needs --dataset dis1 or dis2")
    if args.model:
        one(args.graph, args.dataset, args.model, args.split_seed, args.out)
        return
    datasets = [args.dataset] if args.dataset else list(SETTINGS)
    perform_missing(args.graph, datasets, args.rows, args.out, args.processes, args.splits)
    if args.picture:
        picture(args.out, args.picture)


if __name__ == "__main__":
    main()
