r"""Loaders of files that users have: MNIST, and the idx format it comes in."""

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

__all__ = ["MNIST", "load_idx", "load_mnist"]


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
