"""Results of experiments, one JSON file for each finished job, so that a second run resumes; and their processes."""

import json
import math
import multiprocessing
import os
import reprlib
import time
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, ThreadPoolExecutor, wait
from contextlib import contextmanager

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


def missing(folder, jobs):
    """Returns the jobs of ``{name: fields}`` without a record.

    Raises ValueError for a file of that name that has other fields or is not a record.
    """
    return {name: fields for name, fields in jobs.items() if not _is_done(path_of(folder, name), fields)}


def _is_done(path, fields):
    if not path.exists():
        return False
    record = _load(path, fields)
    for field, value in fields.items():
        if record[field] != value:
            raise ValueError(
                f"{path} is the record of a run with {field} = {record[field]}, not {value}; delete it, or write to "
                f"another folder with --out."
            )
    return True


def write(folder, name, record):
    """Writes a record atomically."""
    text = json.dumps(record, indent=1)
    folder.mkdir(parents=True, exist_ok=True)
    part = path_of(folder, name).with_suffix(f".{os.getpid()}")
    try:
        with part.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())  # otherwise a power cut may leave an empty file
        part.replace(path_of(folder, name))
    finally:
        part.unlink(missing_ok=True)


def read(folder, fields=()):
    """Returns the records in a folder, by name; raises ValueError for one that is incomplete or lacks a field."""
    return {path.stem: _load(path, fields) for path in sorted(folder.glob("*.json"))}


def _load(path, fields):
    try:
        record = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(
            f"{path} is empty, truncated or not JSON ({error}), but must be a record; delete it and run again."
        ) from error
    lacking = [field for field in fields if field not in record] if isinstance(record, dict) else ["all fields"]
    if lacking:
        raise ValueError(
            f"{path} holds {reprlib.repr(record)}, but a record of this experiment has {', '.join(lacking)}; delete it "
            f"or move it away."
        )
    return record


def path_of(folder, name):
    """Returns the path of a record."""
    return folder / f"{name.replace(', ', '-').replace(' ', '-')}.json"


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


def perform_all(function, jobs, label, total, processes, records=lambda job: 1):
    """Calls ``function(*job, state)`` for each job, in processes, with a progress bar of ``total`` records.

    ``state`` is a dict of what runs now, ``{name: share done}``; ``records(job)`` is the number of records of a job.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with (
        workers(min(processes, len(jobs) or 1)) as (pool, state),
        Progress(*columns, TimeRemainingColumn(), TextColumn("{task.fields[now]}")) as progress,
    ):
        left = sum(map(records, jobs))
        bar = progress.add_task(label, total=total, completed=total - left, now="")
        waiting = {pool.submit(function, *job, state): records(job) for job in jobs}
        while waiting:
            done, _ = wait(waiting, timeout=1.0, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
                progress.advance(bar, waiting.pop(future))
            progress.update(bar, now=", ".join(f"{name} {share:.0%}" for name, share in dict(state).items()))


class Report:
    """Reports the progress of a job to another process, twice a second."""

    def __init__(self, state, name, total):
        self.state, self.name, self.total, self.last = state, name, total, 0.0

    def __call__(self, epoch, elbo):
        if epoch == self.total or time.perf_counter() > self.last + 0.5:
            self.state[self.name], self.last = (epoch, elbo), time.perf_counter()


def run_all(function, jobs, epochs, processes=2):
    """Returns ``function(*arguments, report)`` for each of ``{name: arguments}``, in processes, with progress bars."""
    columns = (TextColumn("{task.description:>10}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with (
        workers(min(processes, len(jobs) or 1)) as (pool, state),
        Progress(*columns, TextColumn("ELBO {task.fields[elbo]:.2f}")) as progress,
    ):
        tasks = {name: progress.add_task(name, total=epochs, elbo=math.nan) for name in jobs}
        results = [pool.submit(function, *jobs[name], Report(state, name, epochs)) for name in jobs]
        done = False
        while not done:
            done = all(result.done() for result in results)  # before the update, to show the last state
            for name, (epoch, elbo) in dict(state).items():
                progress.update(tasks[name], completed=epoch, elbo=elbo)
            time.sleep(0.2)
        return [result.result() for result in results]
