"""Two processes take the steps of one with batches twice as large: real processes on the CPU, gloo, float64.

What runs is ``tutorials/scale_out.py`` itself, and ``scale_out_lightning.py``. The comparison with one process is of
the same sums in another order, because both their ingredients can be matched. Data: the sampler deals a permutation
out, so row i of a batch in process r of two is row 2 i + r of the batch of one process. Noise: the one process draws it
from two generators, seeded as the two processes are, and interleaves it in the same way.
"""

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from torch.overrides import TorchFunctionMode

TUTORIALS = Path(__file__).parent.parent / "tutorials"
EPOCHS, BATCH_SIZE = 2, 200
# The same filters as in setup.cfg, and what Lightning does.
WARNINGS = [
    "error",
    "ignore:`torch.jit:DeprecationWarning",
    "ignore:`isinstance(treespec, LeafSpec):FutureWarning",
    "ignore:The 'train_dataloader' does not have many workers",
    "ignore:Precision bf16-mixed is not supported by the model summary",
]
DOUBLED, MIXED = "one with the noise of two", "lightning in mixed precision"
OPTIONS = {
    "torchrun": [],
    "lightning ddp": ["--processes", "2"],
    "one": [],
    "lightning one": ["--processes", "1"],
    DOUBLED: ["--batch-size", str(2 * BATCH_SIZE)],
    MIXED: ["--processes", "1", "--precision", "bf16-mixed"],
}
PYTHON = [sys.executable, __file__]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", __file__]
# Each command makes the runs that are named beside it; most of the time goes into imports.
COMMANDS = [(TORCHRUN, ["torchrun"]), (PYTHON, ["lightning ddp"]), (PYTHON, ["one", "lightning one", DOUBLED, MIXED])]


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


def worker(name, out):
    """Runs the tutorial, and saves the losses and the parameters of this process."""
    sys.path.insert(0, str(TUTORIALS))
    import scale_out  # here only: it changes a setting of Pyro for the whole process

    if "lightning" in name:
        import scale_out_lightning

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
    rank = os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))
    out.mkdir(exist_ok=True)
    torch.save({"losses": torch.stack(losses), "state": vaes[0].state_dict()}, out / f"rank{rank}.pt")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The records of all processes of each run; the commands run side by side."""
    out = tmp_path_factory.mktemp("scale_out")
    environ = {**os.environ, "PYTHONWARNINGS": ",".join(WARNINGS), "OMP_NUM_THREADS": "1", "OUT": str(out)}
    with ExitStack() as stack:
        started = []
        for command, names in COMMANDS:
            log = stack.enter_context((out / f"{names[0]}.log").open("w+"))
            process = subprocess.Popen(command, stdout=log, stderr=log, env={**environ, "RUNS": ",".join(names)})
            stack.callback(process.wait)
            stack.callback(process.terminate)  # has no effect on one that has ended
            started.append((process, log))
        for process, log in started:
            status = process.wait(timeout=300)
            log.seek(0)
            output = log.read()
            assert status == 0, output[-3000:]
    return {name: [torch.load(file) for file in sorted((out / name).glob("rank*.pt"))] for name in OPTIONS}


def assert_same(record, other, **tolerance):
    assert record["state"].keys() == other["state"].keys()
    for name, value in record["state"].items():
        torch.testing.assert_close(value, other["state"][name], **tolerance)
    torch.testing.assert_close(record["losses"], other["losses"], **tolerance)


@pytest.mark.parametrize("way", ["torchrun", "lightning ddp"])
def test_parameters_are_bit_identical_in_all_processes(runs, way):
    first, second = runs[way]
    for name, value in first["state"].items():
        assert value.equal(second["state"][name]), name
    # Not because they did the same work, or none.
    assert not first["losses"].isclose(second["losses"], rtol=1e-6).any()
    assert first["state"]["manifold.k_unconstrained"] != 0


def test_two_processes_take_the_steps_of_one_with_doubled_batches(runs):
    (first, second), (one,) = runs["torchrun"], runs[DOUBLED]
    mean = {"state": first["state"], "losses": (first["losses"] + second["losses"]) / 2}
    # Gradients differ by rounding, 1e-14 of the largest; Adam divides small ones by their size, but adds 1e-8 first.
    assert_same(mean, one, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("way", "plain"), [("lightning ddp", "torchrun"), ("lightning one", "one")])
def test_lightning_takes_the_same_steps(runs, way, plain):
    for record, other in zip(runs[way], runs[plain], strict=True):
        assert_same(record, other, rtol=1e-12, atol=1e-12)


def test_mixed_precision_trains_as_well(runs):
    """Networks in bfloat16, the space and its densities not: the losses are those of other noise."""
    (mixed,), (plain,) = runs[MIXED], runs["lightning one"]
    assert mixed["losses"].dtype == torch.float32
    torch.testing.assert_close(mixed["losses"][-5:].mean().double(), plain["losses"][-5:].mean(), rtol=0.05, atol=0)


if __name__ == "__main__":
    for run in os.environ["RUNS"].split(","):
        torch.set_default_dtype(torch.float32 if run == MIXED else torch.float64)
        worker(run, Path(os.environ["OUT"]) / run)
