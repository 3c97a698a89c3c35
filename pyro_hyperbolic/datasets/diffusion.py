r"""Data for experiments: seeded processes that are pure functions of their seed, and loaders of files that users have.

Random data come from a ``torch.Generator`` of their own, never from the global one. They are drawn in float64 on the
CPU, so they are the same numbers in every default dtype.
"""

import gzip
import math
import os
import struct
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

__all__ = ["MNIST", "BranchingDiffusion", "branching_diffusion", "load_idx", "load_mnist"]


@dataclass(frozen=True, eq=False)
class BranchingDiffusion:
    r"""Noisy observations of a random walk on a tree, with the tree; made by :func:`branching_diffusion`.

    Nodes are numbered level by level from the root, 0. With ``N`` nodes and ``B`` observations:

    Attributes:
        x: Observations, standardised, shape ``(B, dim)``.
        node: The node that each observes, shape ``(B,)``.
        train: Indices of the training observations, a random subset in random order.
        test: Indices of the others.
        nodes: Coordinates of the nodes without noise, in the same standardisation, shape ``(N, dim)``.
        node_depth: Distance of each node from the root, in edges, shape ``(N,)``.
        parent: The parent of each node, -1 at the root, shape ``(N,)``.
        mean: What the standardisation subtracted, shape ``(dim,)``.
        scale: What it divided by: ``scale * x + mean`` are the observations as drawn.
    """

    x: Tensor
    node: Tensor
    train: Tensor
    test: Tensor
    nodes: Tensor
    node_depth: Tensor
    parent: Tensor
    mean: Tensor
    scale: Tensor

    @property
    def depth(self) -> Tensor:
        """The depth of the node that each observation observes, shape ``(B,)``."""
        return self.node_depth[self.node]

    @property
    def edges(self) -> Tensor:
        """Pairs (parent, child), shape ``(N - 1, 2)``, as :func:`pyro_hyperbolic.viz.tree` takes them."""
        child = torch.arange(1, len(self.parent))
        return torch.stack([self.parent[1:], child], dim=-1)


def branching_diffusion(
    seed: int = 0,
    *,
    dim: int = 50,
    depth: int = 5,
    branching: int = 2,
    observations: int = 5,
    noise_variance: float = 0.1,
    test_fraction: float = 0.3,
) -> BranchingDiffusion:
    r"""Draws the branching diffusion process, :math:`\mathrm{child} = \mathrm{parent} + \mathcal N(0, I)`, root at 0.

    Each node is observed several times with Gaussian noise; the nodes themselves are not data. The defaults are those
    of the paper: 63 nodes, 315 observations, 220 of them for training and 95 for testing.

    *Standardised* means: from each coordinate its mean over all observations is subtracted, and the result divided by
    its standard deviation (that of the sample itself, not the unbiased one). As in the paper the statistics are those
    of the whole data, test observations included.

    Args:
        seed: Of the generator from which everything is drawn: first the nodes, then the noise, then the split.
        dim: Dimension of the observations.
        depth: Edges from the root to each leaf; the root has depth 0.
        branching: Children of each inner node.
        observations: Noisy observations of each node.
        noise_variance: Variance of the noise in each coordinate.
        test_fraction: Share of test observations, rounded up to whole ones.

    Returns:
        A :class:`BranchingDiffusion`, floats in the default dtype.

    Raises:
        ValueError: If an argument is out of its range, or a coordinate has no variance.

    References:
        Emile Mathieu, Charline Le Lan, Chris J. Maddison, Ryota Tomioka, Yee Whye Teh, *Continuous Hierarchical
        Representations with Poincaré Variational Auto-Encoders*, 2019, arXiv:1901.06033.
        Avishek Joey Bose, Ariella Smofsky, Renjie Liao, Prakash Panangaden, William L. Hamilton, *Latent Variable
        Modelling with Hyperbolic Normalizing Flows*, 2020, arXiv:2002.06336.

    Example:
        >>> data = branching_diffusion(seed=0)
        >>> data.x.shape, len(data.nodes), len(data.train), len(data.test)
        (torch.Size([315, 50]), 63, 220, 95)
        >>> data.parent[:7]
        tensor([-1,  0,  0,  1,  1,  2,  2])
    """
    for name, value, least in (
        ("dim", dim, 1),
        ("depth", depth, 0),
        ("branching", branching, 1),
        ("observations", observations, 1),
        ("noise_variance", noise_variance, 0),
    ):
        if not value >= least:
            raise ValueError(f"{name} = {value}, but must be at least {least}.")
    if not 0 <= test_fraction <= 1:
        raise ValueError(f"test_fraction = {test_fraction}, but is a share of all observations, from 0 to 1.")
    generator = torch.Generator().manual_seed(seed)

    def normal(rows: int) -> Tensor:
        return torch.randn(rows, dim, generator=generator, dtype=torch.float64)

    levels, parents = [torch.zeros(1, dim, dtype=torch.float64)], [torch.tensor([-1])]
    for _ in range(depth):
        first = sum(len(level) for level in levels[:-1])  # the number of the first node of the last level
        above = torch.arange(len(levels[-1])).repeat_interleave(branching)
        levels.append(levels[-1][above] + normal(len(above)))
        parents.append(first + above)
    nodes, node = torch.cat(levels), torch.arange(sum(map(len, levels))).repeat_interleave(observations)
    x = nodes[node] + math.sqrt(noise_variance) * normal(len(node))
    mean, scale = x.mean(0), x.std(0, correction=0)
    if not bool((scale > 0).all()):
        raise ValueError("a coordinate has no variance to standardise by; ask for more nodes, observations or noise.")

    order = torch.randperm(len(x), generator=generator)
    # Rounded before up: 0.07 * 100 is 7.000000000000001.
    held_out = math.ceil(round(test_fraction * len(x), 6))
    dtype = torch.get_default_dtype()
    return BranchingDiffusion(
        x=((x - mean) / scale).to(dtype),
        node=node,
        train=order[held_out:],
        test=order[:held_out],
        nodes=((nodes - mean) / scale).to(dtype),
        node_depth=torch.arange(depth + 1).repeat_interleave(torch.tensor([len(level) for level in levels])),
        parent=torch.cat(parents),
        mean=mean.to(dtype),
        scale=scale.to(dtype),
    )


@dataclass(frozen=True, eq=False)
class MNIST:
    """Handwritten digits, read by :func:`load_mnist`.

    Attributes:
        train_images: Grey levels from 0 to 1, shape ``(N, 784)``, in the default dtype.
        train_labels: Digits, shape ``(N,)``, int64.
        test_images: As ``train_images``.
        test_labels: As ``train_labels``.
    """

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor


def load_mnist(path: str | os.PathLike[str]) -> MNIST:
    r"""Reads MNIST, or a set in its format, from the four standard idx files in a directory, grey level / 255.

    The files are ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``, ``t10k-images-idx3-ubyte`` and
    ``t10k-labels-idx1-ubyte``, each as it is or with ``.gz``. Nothing is downloaded.

    Args:
        path: The directory.

    Returns:
        An :class:`MNIST`.

    Raises:
        FileNotFoundError: If the directory or one of the files is missing.
        ValueError: If a file is not idx, is truncated, or does not hold images of 28 by 28 bytes or their labels.

    References:
        Yann LeCun, Léon Bottou, Yoshua Bengio, Patrick Haffner, *Gradient-Based Learning Applied to Document
        Recognition*, 1998.

    Example:
        >>> load_mnist("no/such/directory")
        Traceback (most recent call last):
            ...
        FileNotFoundError: no/such/directory is not a directory; give the one that holds the four files of MNIST.
    """
    directory = Path(path)
    if not directory.is_dir():
        raise FileNotFoundError(f"{directory} is not a directory; give the one that holds the four files of MNIST.")
    parts = []
    for prefix in ("train", "t10k"):
        image_file, images = _read(directory, f"{prefix}-images-idx3-ubyte", (28, 28))
        label_file, labels = _read(directory, f"{prefix}-labels-idx1-ubyte", ())
        if len(images) != len(labels):
            raise ValueError(
                f"{image_file} has {len(images)} images, but {label_file} has {len(labels)} labels; take both files "
                f"from one source."
            )
        parts += [images.flatten(1).to(torch.get_default_dtype()).div_(255), labels.long()]
    return MNIST(*parts)


_IDX_DTYPES = {  # code in the magic number: dtype
    0x08: torch.uint8,
    0x09: torch.int8,
    0x0B: torch.int16,
    0x0C: torch.int32,
    0x0D: torch.float32,
    0x0E: torch.float64,
}


def load_idx(file: str | os.PathLike[str]) -> Tensor:
    r"""Reads one array in the idx format, gzipped or not: magic number ``00 00 type ndim``, sizes, values, big-endian.

    Args:
        file: The file; that it is gzipped is seen from its first bytes, not from its name.

    Returns:
        Tensor of the shape and dtype that the file states, on the CPU, with memory of its own.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If its magic number is not that of an idx file, or its length is not what its header states.

    Example:
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     file = pathlib.Path(directory, "labels-idx1-ubyte")
        ...     _ = file.write_bytes(bytes([0, 0, 8, 1]) + bytes([0, 0, 0, 3]) + bytes([5, 0, 4]))
        ...     load_idx(file)
        tensor([5, 0, 4], dtype=torch.uint8)
    """
    file = Path(file)
    data = _bytes(file)
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in _IDX_DTYPES:
        raise ValueError(
            f"{file} starts with the bytes [{data[:4].hex(' ')}], but an idx file starts with 00 00, its type (08 for "
            f"bytes) and its number of dimensions; it may be a web page or another format: fetch the file again."
        )
    dtype, ndim = _IDX_DTYPES[data[2]], data[3]
    header = 4 + 4 * ndim
    if len(data) < header:
        raise ValueError(f"{file} is truncated: {len(data)} bytes, of a header of {header}; fetch the file again.")
    sizes = struct.unpack(f">{ndim}I", data[4:header])
    expected = header + dtype.itemsize * math.prod(sizes)
    if len(data) != expected:
        raise ValueError(
            f"{file} is {'truncated' if len(data) < expected else 'longer than one array'}: {len(data)} bytes, but its "
            f"header asks for {expected} for shape {sizes} of {dtype}; fetch the file again."
        )
    if expected == header:
        return torch.empty(sizes, dtype=dtype)
    values = torch.frombuffer(bytearray(data), dtype=torch.uint8, offset=header)
    if sys.byteorder == "little" and dtype.itemsize > 1:
        values = values.view(-1, dtype.itemsize).flip(-1)
    return values.clone().flatten().view(dtype).reshape(sizes)


def _bytes(file: Path) -> bytes:
    """Returns what is in the file, decompressed."""
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not a file; give the path of an idx file, gzipped or not.")
    data = file.read_bytes()
    if data[:2] != b"\x1f\x8b":  # the magic number of gzip
        return data
    try:
        return gzip.decompress(data)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(
            f"{file} is gzipped, but truncated or damaged after {len(data)} bytes ({error}): fetch the file again."
        ) from error


def _read(directory: Path, name: str, shape: tuple[int, ...]) -> tuple[Path, Tensor]:
    """Returns the path of ``name`` or ``name.gz`` and its array, a number of items of ``shape``."""
    file = next((file for file in (directory / name, directory / f"{name}.gz") if file.is_file()), None)
    if file is None:
        found = sorted(entry.name for entry in directory.iterdir())
        listed = ", ".join(found[:8]) + (", ..." if len(found) > 8 else "") if found else "nothing"
        raise FileNotFoundError(
            f"{directory} has neither {name} nor {name}.gz, but {listed}; put the standard file of MNIST there."
        )
    array = load_idx(file)
    if array.dtype != torch.uint8 or array.dim() == 0 or array.shape[1:] != shape:
        stated = ", ".join(["N", *map(str, shape)])
        raise ValueError(
            f"{file} holds {array.dtype} of shape {tuple(array.shape)}, but must hold bytes ({stated}); the files of "
            f"images and of labels may be swapped."
        )
    return file, array
