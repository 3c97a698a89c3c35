"""Time and memory of a step of a latent-space network model, as the graph grows and the minibatch does not.

    python benchmarks/networks.py                # 1000 to 100 000 nodes; networks.json and networks.png
    python benchmarks/networks.py --rounds 50

The transitive closure of a random tree is embedded into H^5 and E^5, from minibatches of edges and as many non-edges
(`ph.datasets.DyadSampler`), in float32. Subjects:

- *whole*: `AutoWrappedNormal` of all nodes;
- *subsample*: the same with a subsampled plate, and `ph.infer.scale_sites` for endpoints, which are not uniform;
- *sparse*: a guide by hand on a `torch.nn.Embedding` with sparse gradients, and `torch.optim.SparseAdam`.

Each subject has a process of its own. Seconds are of a processor, the median over rounds, drawing the minibatch
included; memory is the peak of the process over what it had before the model, the graph not counted.
"""

import argparse
import ctypes.util
import json
import multiprocessing
import os
import resource
import statistics
import time
from pathlib import Path

import geoopt
import measure
import pyro
import pyro.distributions as dist
import torch
from matplotlib.figure import Figure
from pyro import poutine
from pyro.infer import Trace_ELBO
from rich.console import Console
from rich.table import Table

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist

SMOKE_TEST = os.environ.get("SMOKE_TEST") == "1"
SIZES = (100, 200) if SMOKE_TEST else (1_000, 10_000, 100_000)
DYADS = 64 if SMOKE_TEST else 16_384
DIM = 5
MANIFOLDS = {"H": geoopt.Lorentz(), "E": geoopt.Euclidean(1)}
WAYS = ("whole", "subsample", "sparse")


def closure(nodes, seed=0):
    """Returns all pairs of a node and one above it, in a tree in which each node hangs on a random earlier one."""
    generator = torch.Generator().manual_seed(seed)
    above = (torch.rand(nodes - 1, generator=generator) * torch.arange(1, nodes)).long()
    parent, node, pairs = torch.cat([torch.zeros(1, dtype=torch.long), above]), torch.arange(1, nodes), []
    ancestor = node
    while len(node):
        ancestor = parent[ancestor]
        pairs.append(torch.stack([ancestor, node], -1))
        node, ancestor = node[ancestor > 0], ancestor[ancestor > 0]
    return torch.cat(pairs)


class Network:
    """A model with a threshold and a temperature that are parameters, and points of the nodes of a minibatch."""

    def __init__(self, nodes, manifold, way):
        self.nodes, self.M, self.way = nodes, manifold, way
        self.threshold = torch.nn.Parameter(torch.tensor([3.0, 0.0]))
        if way == "sparse":
            self.table = torch.nn.Embedding(nodes, 2 * DIM, sparse=True)
            with torch.no_grad():
                self.table.weight[:, DIM:] = -2.0  # the logarithm of a scale
        else:
            self.auto = ph.infer.AutoWrappedNormal(self.latents, init_loc_fn=lambda site: site["fn"].sample())

    def latents(self, batch):
        with pyro.plate("nodes", self.nodes, subsample=None if self.way == "whole" else batch.nodes):
            return pyro.sample("z", hdist.WrappedNormal(ph.geometry.origin(self.M, DIM), torch.tensor(3.0), self.M))

    def model(self, batch):
        z, (R, log_T) = self.latents(batch), self.threshold
        i, j = (batch.pairs if self.way == "whole" else batch.rows).unbind(-1)
        logits = (R - ph.geometry.distance(self.M, z[i], z[j])) * log_T.neg().exp()
        with pyro.plate("dyads", len(logits)), poutine.scale(scale=batch.weights):
            pyro.sample("edges", dist.Bernoulli(logits=logits), obs=batch.labels)

    def guide(self, batch):
        if self.way != "sparse":
            return self.auto(batch)
        v, log_scale = self.table(batch.nodes).split(DIM, -1)
        with pyro.plate("nodes", self.nodes, subsample=batch.nodes):
            return pyro.sample("z", hdist.WrappedNormal(ph.geometry.exp0(self.M, v), log_scale.exp(), self.M))

    def optimizers(self):
        if self.way == "sparse":
            return [torch.optim.SparseAdam([self.table.weight], 0.01), torch.optim.Adam([self.threshold], 0.01)]
        learned = [each for each in self.auto.parameters() if each.requires_grad]
        return [torch.optim.Adam([self.threshold, *learned], 0.01)]

    def step(self, sampler, optimizers):
        batch = sampler.sample()
        weights = {} if self.way == "whole" else {"z": batch.node_weights * len(batch.nodes) / self.nodes}
        with ph.infer.scale_sites(weights):
            loss = Trace_ELBO().differentiable_loss(self.model, self.guide, batch)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()


def memory(reset=False):
    """Returns the peak memory of this process in bytes, with Linux since the last reset."""
    if reset and os.path.exists("/proc/self/clear_refs"):
        if libc := ctypes.util.find_library("c"):
            # What the graph has freed goes back to the system; else the model takes it without a trace.
            getattr(ctypes.CDLL(libc), "malloc_trim", lambda _: 0)(0)
        Path("/proc/self/clear_refs").write_text("5")
    if os.path.exists("/proc/self/status"):
        (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def run(nodes, name, way, rounds):
    """Returns the seconds of each round, and the bytes."""
    torch.manual_seed(0)
    sampler = ph.datasets.DyadSampler(closure(nodes), nodes, DYADS // 2, DYADS // 2)
    before = memory(reset=True)
    network = Network(nodes, MANIFOLDS[name], way)
    network.guide(sampler.sample())
    optimizers, seconds = network.optimizers(), []
    for _ in range(2 + rounds):
        start = time.process_time()
        network.step(sampler, optimizers)
        seconds.append(time.process_time() - start)
    return seconds[2:], memory() - before


def subject(results, *arguments):
    """Puts what `run` returns on a queue."""
    results.put(run(*arguments))


def rows(rounds, report):
    """Yields the row of each subject."""
    torch.set_num_threads(1)
    pyro.enable_validation(False)
    pyro.settings.set(module_local_params=True)
    for way in WAYS:
        run(100, "H", way, 1)  # so that no subject counts what torch imports late
    context = multiprocessing.get_context("fork")
    for nodes in SIZES:
        for way in WAYS:
            for name in MANIFOLDS:
                results = context.SimpleQueue()
                process = context.Process(target=subject, args=(results, nodes, name, way, rounds))
                process.start()
                process.join()
                if process.exitcode:
                    raise RuntimeError(f"{way}, {name}, {nodes} nodes failed with {process.exitcode}.")
                seconds, peak = results.get()
                state = 4 * 4 * 2 * DIM * nodes  # parameters, gradients and Adam's two moments
                row = {"nodes": nodes, "way": way, "manifold": name, "seconds": statistics.median(seconds)}
                report(f"{nodes} nodes, {way}, {name}")
                yield {**row, "memory": peak, "state": state}


def table(found):
    shown = Table("nodes", "way", "H, ms", "E, ms", "H / E", "H, MB", "parameters, gradients, Adam's state, MB")
    by = {(row["nodes"], row["way"], row["manifold"]): row for row in found}
    for nodes in SIZES:
        for way in WAYS:
            h, e = by[nodes, way, "H"], by[nodes, way, "E"]
            times = [f"{1e3 * row['seconds']:.1f}" for row in (h, e)]
            ratio = f"{h['seconds'] / e['seconds']:.2f}"
            shown.add_row(f"{nodes}", way, *times, ratio, f"{h['memory'] / 1e6:.0f}", f"{h['state'] / 1e6:.1f}")
    return shown


def picture(found, path):
    figure = Figure(figsize=(9.0, 3.8), layout="constrained")
    axes = figure.subplots(1, 2)
    colours = dict(zip(WAYS, ("#D55E00", "#0072B2", "#009E73"), strict=True))
    for ax, (key, unit) in zip(axes, (("seconds", 1e3), ("memory", 1e-6)), strict=True):
        for way in WAYS:
            for name, dashes in (("H", "-"), ("E", "--")):
                points = [(r["nodes"], unit * r[key]) for r in found if (r["way"], r["manifold"]) == (way, name)]
                ax.plot(
                    *zip(*points, strict=True), dashes, color=colours[way], marker="o", label=f"{way}, ${name}^{DIM}$"
                )
        ax.set(xscale="log", xlabel="nodes", ylim=(0, None))
    axes[0].set(ylabel="ms a step", title=f"{DYADS} dyads a step, one thread")
    axes[1].set(ylabel="MB", title="peak of the process over the graph")
    axes[0].legend(frameon=False)
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2 if SMOKE_TEST else 15)
    parser.add_argument("--out", type=Path, default=Path("results/bench"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    found = list(rows(args.rounds, lambda text: print(text, flush=True)))
    Console().print(table(found))
    facts = {"machine": measure.machine("cpu"), "dyads": DYADS, "rounds": args.rounds, "rows": found}
    (args.out / "networks.json").write_text(json.dumps(facts, indent=2))
    picture(found, args.out / "networks.png")


if __name__ == "__main__":
    main()
