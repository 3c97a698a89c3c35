"""The tutorials scale_out.py and scale_out_lightning.py: two processes take the steps of one with doubled batches.

Row i of a batch in process r of two is row 2 i + r of the batch of one process, for the sampler deals a permutation
out. The one process draws its noise from two generators, seeded as the two processes are, in the same order.
"""

import multiprocessing
import os
import socket
import sys
import warnings
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from torch.overrides import TorchFunctionMode

from tests.docs.scripts import run

TUTORIALS = Path(__file__).parents[2] / "tutorials"
EPOCHS, BATCH_SIZE = 2, 200
# The same filters as in setup.cfg, and what Lightning does.
WARNINGS = [
    ("`torch.jit", DeprecationWarning),
    (r"`isinstance\(treespec, LeafSpec\)", FutureWarning),
    ("The 'train_dataloader' does not have many workers", Warning),
    ("Precision bf16-mixed is not supported by the model summary", Warning),
]
DOUBLED, MIXED = "one with the noise of two", "lightning in mixed precision"
OPTIONS = {
    "torchrun": [],
    "lightning ddp": ["--processes", "2"],
    DOUBLED: ["--batch-size", str(2 * BATCH_SIZE)],
    MIXED: ["--batch-size", str(2 * BATCH_SIZE), "--processes", "1", "--precision", "bf16-mixed"],
}


class NoiseOfTwo(TorchFunctionMode):
    """Draws row 2 i + r of the noise of a batch as process r of two draws row i of its own."""

    def __init__(self, seed):
        super().__init__()
        self.generators = [torch.Generator().manual_seed(seed + rank) for rank in range(2)]

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is not torch.Tensor.normal_:
            return func(*args, **(kwargs or {}))
        (noise,) = args
        for rank, generator in enumerate(self.generators):
            noise[rank::2] = torch.empty_like(noise[rank::2]).normal_(generator=generator)
        return noise


def worker(name, out, environ):
    """Runs the tutorial, and saves the losses and the parameters of this process."""
    import scale_out  # here only: it changes a setting of Pyro for the whole process
    import scale_out_lightning

    os.environ.update({key: str(value) for key, value in environ.items()})
    torch.set_default_dtype(torch.float32 if name == MIXED else torch.float64)
    warnings.simplefilter("error")
    for message, category in WARNINGS:
        warnings.filterwarnings("ignore", message, category)
    make_elbo, losses, vaes, noise = scale_out.make_elbo, [], [], ExitStack()

    def recorded(data, seed):
        vae, elbo = make_elbo(data, seed)
        vaes.append(vae)
        elbo.register_forward_hook(lambda _, inputs, loss: losses.append(loss.detach() / len(data)))
        if name == DOUBLED:
            noise.enter_context(NoiseOfTwo(seed))
        return vae, elbo

    sys.argv[1:] = ["--epochs", str(EPOCHS), "--batch-size", str(BATCH_SIZE), "--out", str(out), *OPTIONS[name]]
    with noise, pytest.MonkeyPatch.context() as patch:
        patch.setattr(scale_out, "make_elbo", recorded)
        if "lightning" in name:
            scale_out.main(scale_out_lightning.run, scale_out_lightning.parser())
        else:
            scale_out.main()
    rank = os.environ.get("RANK", "0")
    assert rank != "0" or (out / "vae.pt").exists()
    out.mkdir(exist_ok=True)
    torch.save({"losses": torch.stack(losses), "state": vaes[0].state_dict()}, out / f"rank{rank}.pt")


def all_runs(out):
    """Forks the processes of all runs, those of a group with the variables that torchrun gives them."""
    context, started = multiprocessing.get_context("fork"), []
    import scale_out_lightning  # noqa: F401  once for all

    for name in OPTIONS:
        world = 1 if name in (DOUBLED, MIXED) else 2
        with socket.socket() as free:
            free.bind(("localhost", 0))
            group = {"WORLD_SIZE": world, "MASTER_ADDR": "localhost", "MASTER_PORT": free.getsockname()[1]}
        for rank in range(world):
            environ = {**group, "RANK": rank, "LOCAL_RANK": rank} if world > 1 else {}
            started.append(context.Process(target=worker, args=(name, out / name, environ), daemon=True))
            started[-1].start()
    for process in started:
        process.join(50)  # what still runs then is waiting for one that failed
    assert all(process.exitcode == 0 for process in started)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The records of all processes of each run, which go side by side."""
    out = tmp_path_factory.mktemp("scale_out")
    run(Path(__file__), out, log=out / "log")
    return {name: [torch.load(file) for file in sorted((out / name).glob("rank*.pt"))] for name in OPTIONS}


def means(runs, name):
    """The losses of a run, the mean of its processes."""
    return torch.stack([record["losses"] for record in runs[name]]).mean(0)


@pytest.mark.parametrize("way", ["torchrun", "lightning ddp"])
def test_parameters_are_bit_identical_in_all_processes(runs, way):
    first, second = runs[way]
    for name, value in first["state"].items():
        assert value.equal(second["state"][name]), name
    # Not because they did the same work, or none.
    assert not first["losses"].isclose(second["losses"], rtol=1e-6).any()
    assert first["state"]["manifold.k_unconstrained"] != 0


# Gradients differ by rounding, 1e-14 of the largest; Adam divides small ones by their size, but adds 1e-8 first.
@pytest.mark.parametrize(("way", "tolerance"), [(DOUBLED, 1e-9), ("lightning ddp", 1e-12)])
def test_the_same_steps_are_taken(runs, way, tolerance):
    """By one process with doubled batches and the noise of two, and by Lightning."""
    torch.testing.assert_close(means(runs, way), means(runs, "torchrun"), rtol=tolerance, atol=tolerance)
    for name, value in runs["torchrun"][0]["state"].items():
        torch.testing.assert_close(runs[way][0]["state"][name], value, rtol=tolerance, atol=tolerance)


def test_mixed_precision_trains_as_well(runs):
    """Networks in bfloat16, the space and its densities not: the losses are those of other noise."""
    mixed, plain = means(runs, MIXED), means(runs, "torchrun")
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed[-5:].mean().double(), plain[-5:].mean(), rtol=0.05, atol=0)


if __name__ == "__main__":
    sys.path.insert(0, str(TUTORIALS))
    all_runs(Path(sys.argv[1]))
