# %% [markdown]
# # The same VAE on several processes
#
# Each of $R$ processes has its own mini-batch $B_r$ and its own noise. The processes share the mean of the gradients,
#
# $$\frac 1 R \sum_r \nabla \frac N {|B_r|} \sum_{i \in B_r} \mathrm{ELBO}(x_i)
#   \;=\; \nabla \frac N {|B|} \sum_{i \in B} \mathrm{ELBO}(x_i), \qquad B = \bigcup\nolimits_r B_r,$$
#
# so $R$ processes take the same steps as one process with batches $R$ times as large. Run it:
#
#     python tutorials/scale_out.py                                          # one process
#     torchrun --nproc-per-node 2 tutorials/scale_out.py                     # two; gloo
#     torchrun --nproc-per-node 2 tutorials/scale_out.py --device cuda       # one process for each GPU; nccl
#
# `scale_out_lightning.py` does the same with Lightning's Trainer.

# %%
import argparse
import os
import time
from pathlib import Path

import pyro
import torch
import torch.distributed
from hyperbolic_vae import VAE  # the tutorial in this folder
from pyro.infer import Trace_ELBO
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler

import pyro_hyperbolic as ph

# Parameters live in modules, where DDP and torch's optimisers look for them, not in Pyro's global store. Pyro's SVI
# does not work with this setting, so the ELBO becomes a module and torch does the rest.
pyro.settings.set(module_local_params=True)

# %% [markdown]
# ## The ELBO as a module
#
# With several processes, do not use a plate that subsamples (`pyro.plate("data", N, subsample_size=...)` with the data
# indexed inside): processes with the same seed would draw the same data. The sampler below distributes the data, and
# of the plate only its scale remains, $N / |B_r|$.


# %%
class Scaled(torch.nn.Module):
    """The model or the guide of a VAE, scaled from a mini-batch to the whole data."""

    def __init__(self, vae, method, size):
        super().__init__()
        self.vae, self.method, self.size = vae, method, size

    def forward(self, x):
        with pyro.poutine.scale(scale=self.size / len(x)):
            getattr(self.vae, self.method)(x)


def make_elbo(data, seed):
    pyro.set_rng_seed(seed)  # the same initial weights in all processes, as DDP would ensure anyway
    vae = VAE(data.size(-1), 2, ph.manifolds.Lorentz(learnable=True))
    elbo = Trace_ELBO()(Scaled(vae, "model", len(data)), Scaled(vae, "guide", len(data)))
    # An autoguide creates its parameters in the first run. DDP averages only parameters that exist when it wraps the
    # module, and does not warn about later ones: the processes would silently diverge.
    elbo(data[:2])
    return vae, elbo


# %% [markdown]
# ## The steps
#
# The sampler distributes one permutation of the data over the processes. It repeats a few data points if the number is
# not divisible, so that batches have the same length in all processes.


# %%
def share_of(data, batch_size, seed, rank, world):
    sampler = DistributedSampler(data, num_replicas=world, rank=rank, seed=seed)
    # A loader draws a seed for its workers; with its own generator it does not disturb the model's.
    return DataLoader(data, batch_size, sampler=sampler, generator=torch.Generator())


def train(elbo, data, args, rank=0, world=1):
    """Trains, and after each step yields the epoch and this process's estimate of the ELBO per data point."""
    device = next(elbo.parameters()).device
    net = DistributedDataParallel(elbo) if world > 1 else elbo
    pyro.set_rng_seed(args.seed + rank)  # from here on each process has its own noise
    batches, optimizer = share_of(data, args.batch_size, args.seed, rank, world), torch.optim.Adam(net.parameters())
    for epoch in range(args.epochs):
        batches.sampler.set_epoch(epoch)  # otherwise every epoch repeats the order of the first
        for x in batches:
            optimizer.zero_grad()
            loss = net(x.to(device))  # through DDP's own forward: elbo(x) would skip the averaging
            loss.backward()
            optimizer.step()
            yield epoch + 1, -loss.detach() / len(data)


def run(data, args):
    """Trains in this process and those that torchrun started with it; only the first shows progress."""
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if args.device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    if world > 1:
        torch.distributed.init_process_group("nccl" if args.device == "cuda" else "gloo")
    vae, elbo = make_elbo(data, args.seed)
    columns = (TextColumn("epoch"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("ELBO {task.fields[elbo]:.2f}"), disable=rank > 0) as progress:
        task = progress.add_task("", total=args.epochs, elbo=float("nan"))
        for epoch, value in train(elbo.to(args.device), data, args, rank, world):
            if world > 1:
                torch.distributed.all_reduce(value)  # a sum; all processes must call it
            progress.update(task, completed=epoch, elbo=value.item() / world)
    if world > 1:
        torch.distributed.destroy_process_group()
    return vae, rank, world


# %%
def main(run=run, parser=None):
    parser = parser or argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--batch-size", type=int, default=100, help="of each process")
    parser.add_argument("--epochs", type=int, default=2 if "SMOKE_TEST" in os.environ else 50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("results/scale_out"), help="where the VAE is saved")
    args = parser.parse_args()
    tree = ph.datasets.branching_diffusion(args.seed, depth=8)
    start = time.perf_counter()
    vae, rank, world = run(tree.x[tree.train], args)
    if rank == 0:
        args.out.mkdir(parents=True, exist_ok=True)
        torch.save(vae.state_dict(), args.out / "vae.pt")
        seconds, curvature = time.perf_counter() - start, vae.manifold.curvature.item()
        print(f"{world} process(es), {seconds:.1f} s: curvature {curvature:.4f}, saved as {args.out / 'vae.pt'}")


if __name__ == "__main__":
    main()
