"""Runs scripts as a user does, each in its own process: a fork of one that has imported the libraries before."""

import multiprocessing
import os
import resource
import runpy
import sys
import warnings
from pathlib import Path
from typing import NamedTuple

#: Imports that take ten seconds, Dynamo's in the first optimiser; a fork has them at once.
LIBRARIES = ("pyro_hyperbolic.testing", "pyro_hyperbolic.viz", "torch._dynamo", "matplotlib.backends.backend_agg")
LIBRARIES += ("torch.distributed.tensor", "networkx", "rich.progress", "rich.table", "scipy.sparse", "scipy.stats")


class Finished(NamedTuple):
    output: str
    seconds: float  # of a processor, of the script and its own processes


def _main(script: Path, arguments: tuple[str, ...], log: Path, seconds) -> None:
    with log.open("w") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    os.environ.update(SMOKE_TEST="1", OMP_NUM_THREADS="1")
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    sys.argv, sys.path[0:0] = [str(script), *arguments], [str(script.parent)]
    try:
        runpy.run_path(str(script), run_name="__main__")
    finally:
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        seconds.value = sum(each.ru_utime + each.ru_stime for each in used)


def run(script: Path, *arguments: object, log: Path) -> Finished:
    """Runs a script briefly, under SMOKE_TEST; it must end well within five minutes."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(LIBRARIES))  # before the first start
    seconds = context.Value("d", 0.0)
    process = context.Process(target=_main, args=(script, tuple(map(str, arguments)), log, seconds))
    process.start()
    process.join(300)
    try:
        assert process.exitcode == 0, log.read_text()[-3000:]
    finally:
        process.kill()
    return Finished(log.read_text(), seconds.value)
