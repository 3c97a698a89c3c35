"""Measures callables: relative time, number of operations, and memory kept for the backward pass."""

import platform
import statistics
import time
from importlib import metadata

import torch
from torch.utils._python_dispatch import TorchDispatchMode

VIEWS = {
    *("alias", "detach", "expand", "permute", "select", "slice", "split", "split_with_sizes", "squeeze", "t"),
    *("transpose", "unbind", "unsqueeze", "view", "_reshape_alias", "_unsafe_view", "lift_fresh", "add_", "is_set_to"),
}
SYNCS = {"_local_scalar_dense", "item", "nonzero", "equal", "is_nonzero"}


def ratio(times, name, over):
    """Returns the median of per-round ratios and their quartiles, over the rounds that both ran in."""
    ratios = [times[name][i] / times[over][i] for i in times[name] if i in times[over]]
    low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    return middle, low, high


def interleaved(functions, rounds, device, report=lambda _: None):
    """Returns ``{name: {round: seconds}}``; each round runs every function once, in rotating order."""
    for function in functions.values():
        for _ in range(3):
            function()
    first = {name: _seconds(function, device) for name, function in functions.items()}
    # Slow subjects (a spline takes 20 times as long as the floor) run only in every fifth round.
    fastest = min(first.values())
    every = {name: 5 if seconds > 8 * fastest and rounds >= 20 else 1 for name, seconds in first.items()}
    times = {name: {} for name in functions}
    names = list(functions)
    for i in range(rounds):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            if i % every[name] == 0:
                times[name][i] = _seconds(functions[name], device)
        report(i)
    return times


def _seconds(function, device):
    _synchronize(device)
    start = time.perf_counter()
    function()
    _synchronize(device)
    return time.perf_counter() - start


def _synchronize(device):
    if device != "cpu":
        torch.cuda.synchronize()


class Operations(TorchDispatchMode):
    """The names of aten operations that run, without views, comparisons of addresses and sums of gradients."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name not in VIEWS:
            self.names.append(name)
        return function(*args, **(kwargs or {}))


def operations(function):
    """Returns the numbers of operations and of host-device syncs, forward and backward."""
    function()
    with Operations() as found:
        function()
    return len(found.names), sum(name in SYNCS for name in found.names)


def saved_bytes(function, parameters):
    """Returns the bytes that the forward pass keeps for the backward pass, without parameters."""
    known = {value.untyped_storage().data_ptr() for value in parameters}
    storages = {}

    def pack(value):
        storage = value.untyped_storage()
        if storage.data_ptr() not in known:
            storages[storage.data_ptr()] = storage  # held, so that its address is not reused
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        function()
    return sum(storage.nbytes() for storage in storages.values())


def machine(device):
    """Returns the hardware and versions that the figures depend on."""
    processor = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as file:
            processor = next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return {
        "processor": processor,
        "device": torch.cuda.get_device_name() if device != "cpu" else "cpu",
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in ("torch", "pyro-ppl", "geoopt", "pyro-hyperbolic")},
    }
