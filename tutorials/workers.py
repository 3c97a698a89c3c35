"""Processes that run jobs side by side, for the tutorials and the experiments."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager

import torch


@contextmanager
def workers(processes):
    """Yields an executor, and a dict that its jobs can write.

    Each process has one thread, because the tensors are small. A single job at a time runs in a thread of this process,
    which need not import everything again.
    """
    if processes == 1:
        with ThreadPoolExecutor(1) as pool:
            yield pool, {}
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, context, initializer=torch.set_num_threads, initargs=(1,))
    with context.Manager() as manager, pool:
        yield pool, manager.dict()
