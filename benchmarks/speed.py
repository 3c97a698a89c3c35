"""Speed as ratios to a Euclidean floor: interleaved rounds in one process and one thread, medians of per-round ratios.

Absolute times drift with the machine; the ratio of two calls a millisecond apart does not. The floor is a hand-written
affine coupling flow with the same networks. Everything is forward and backward, in float32, validation off.
"""

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import geoopt
import pyro
import pyro.distributions as dist
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch.utils._python_dispatch import TorchDispatchMode

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
import pyro_hyperbolic.distributions.transforms as HT


class Floor(torch.nn.Module):
    """RealNVP by hand: no transform, no cache, no manifold."""

    def __init__(self, dim, layers, hidden_dims):
        super().__init__()
        sizes = [(dim // 2, dim - dim // 2), (dim - dim // 2, dim // 2)]
        self.split = dim // 2
        self.nets = torch.nn.ModuleList([torch.nn.Sequential(*_mlp(*sizes[i % 2], hidden_dims)) for i in range(layers)])

    def forward(self, x):
        halves, total = [x[..., : self.split], x[..., self.split :]], 0.0
        for i, net in enumerate(self.nets):
            moving = 1 - i % 2
            shift, log_scale = net(halves[1 - moving]).chunk(2, -1)
            log_scale = 3 * torch.tanh(log_scale / 3)
            halves[moving] = halves[moving] * log_scale.exp() + shift
            total = total + log_scale.sum(-1)
        return torch.cat(halves, -1), total


def _mlp(inputs, outputs, hidden_dims):
    sizes = [inputs, *hidden_dims]
    for a, b in zip(sizes, hidden_dims, strict=False):
        yield torch.nn.Linear(a, b)
        yield torch.nn.ReLU()
    yield torch.nn.Linear(sizes[-1], 2 * outputs)


class Counter(TorchDispatchMode):
    """Counts aten operations: unlike times they do not vary."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


def flows(dim, layers, batch, device):
    """Returns callables that push a batch forward, add up value and log-determinant, and differentiate."""
    M, flat, hidden = ph.manifolds.Lorentz(), geoopt.Euclidean(1), [128, 128]
    v = torch.randn(batch, dim, device=device)
    x = ph.geometry.exp0(M, v)
    affine = dist.transforms.ComposeTransformModule(
        [
            part
            for i in range(layers)
            for part in (
                dist.transforms.affine_coupling(dim, hidden, split_dim=dim // 2 if i % 2 == 0 else dim - dim // 2),
                dist.transforms.permute(dim, torch.arange(dim).roll(dim // 2)),
            )
        ]
    )
    transforms = {
        "Pyro affine_coupling": (affine, v),
        "ours, Euclidean": (ph.flows.coupling_flow(dim, layers, HT.tangent_coupling, hidden, flat), v),
        "ours, TC": (ph.flows.coupling_flow(dim, layers, HT.tangent_coupling, hidden, M), x),
        "ours, WHC": (ph.flows.coupling_flow(dim, layers, HT.wrapped_hyperboloid_coupling, hidden, M), x),
    }
    floor = Floor(dim, layers, hidden).to(device)

    # Each round sees a new tensor object, as data is in training: Pyro's cache would otherwise give back a freed graph.
    def by_hand():
        y, log_det = floor(v.detach())
        (y.sum() + log_det.sum()).backward()

    def through_pyro(transform, points):
        transform = transform.to(device)

        def run():
            x = points.detach()
            y = transform(x)
            (y.sum() + transform.log_abs_det_jacobian(x, y).sum()).backward()

        return run

    return {"floor": by_hand, **{name: through_pyro(*pair) for name, pair in transforms.items()}}


def distributions(dim, batch, device):
    """Returns callables that draw a reparameterised sample, score it, and differentiate both."""
    M = ph.manifolds.Lorentz()
    base = torch.randn(batch, dim, device=device)

    def draw(make, stored):
        def run():
            loc, scale = base.clone().requires_grad_(), torch.ones_like(base).requires_grad_()
            d = make(loc, scale)
            x = d.rsample()
            d.log_prob(x.clone() if stored else x).sum().backward()

        return run

    def normal(loc, scale):
        return dist.Normal(loc, scale).to_event(1)

    def wrapped(loc, scale):
        return hdist.WrappedNormal(ph.geometry.exp0(M, loc), scale, M)

    return {
        "floor": draw(normal, False),
        "WrappedNormal, own sample": draw(wrapped, False),
        "WrappedNormal, stored point": draw(wrapped, True),
    }


def measure(name, functions, rounds, device):
    """Returns the median over rounds of each function's time over the floor's in that round, and its operations."""
    times = {key: [] for key in functions}
    for i in track(range(rounds + 3), description=f"{name:<28}"):
        for key, function in functions.items():
            start = time.perf_counter()
            function()
            if device != "cpu":
                torch.cuda.synchronize()
            if i >= 3:
                times[key].append(time.perf_counter() - start)
    rows = []
    for key, function in functions.items():
        with Counter() as counter:
            function()
        ratios = [a / b for a, b in zip(times[key], times["floor"], strict=True)]
        rows.append({"what": name, "name": key, "ratio": statistics.median(ratios), "operations": counter.count})
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--out", type=Path, default=Path("results/bench"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    pyro.enable_validation(False)
    rows = []
    for dim in (2, 6, 64):
        for batch in (128, 2048):
            functions = flows(dim, 4, batch, args.device)
            rows += measure(f"flow, n = {dim}, B = {batch}", functions, args.rounds, args.device)
    for dim in (2, 6):
        functions = distributions(dim, 128, args.device)
        rows += measure(f"sample, n = {dim}, B = 128", functions, args.rounds, args.device)
    table = Table("what", "name", "time over floor", "aten operations", title="forward and backward")
    for row in rows:
        table.add_row(row["what"], row["name"], f"{row['ratio']:.2f}", str(row["operations"]))
    Console().print(table)
    args.out.mkdir(parents=True, exist_ok=True)
    machine = {
        "processor": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "device": args.device,
    }
    (args.out / "speed.json").write_text(json.dumps({"machine": machine, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
