r"""Loaders of local files: MNIST, and the idx format it comes in."""

import gzip
import math
import os
import struct
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

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
    r"""Reads MNIST, or data in its format, from the four standard idx files in a directory, as grey level / 255.

    The files are ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``, ``t10k-images-idx3-ubyte`` and
    ``t10k-labels-idx1-ubyte``, or these with ``.gz``. Nothing is downloaded.

    Args:
        path: The directory.

    Returns:
        An :class:`MNIST`.

    Raises:
        FileNotFoundError: If the directory or one of the files is missing.
        IsADirectoryError: If one of the files is a directory.
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


_IDX_DTYPES = {  # by the type code in the magic number
    0x08: torch.uint8,
    0x09: torch.int8,
    0x0B: torch.int16,
    0x0C: torch.int32,
    0x0D: torch.float32,
    0x0E: torch.float64,
}


def load_idx(file: str | os.PathLike[str]) -> Tensor:
    r"""Reads one array in the idx format, gzipped or not: magic number ``00 00 type ndim``, sizes, values, big-endian.

    Reads and inflates no more than the header states, and no values if the file is too short for them.

    Args:
        file: The file. Gzip is detected from its first bytes, not from its name.

    Returns:
        Tensor of the shape and dtype that the file states, on the CPU, with its own memory.

    Raises:
        FileNotFoundError: If there is no such file.
        IsADirectoryError: If it is a directory.
        ValueError: If it has no idx magic number, or a length that differs from its header.

    Example:
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     file = pathlib.Path(directory, "labels-idx1-ubyte")
        ...     _ = file.write_bytes(bytes([0, 0, 8, 1]) + bytes([0, 0, 0, 3]) + bytes([5, 0, 4]))
        ...     load_idx(file)
        tensor([5, 0, 4], dtype=torch.uint8)
    """
    return _load(Path(file))


def _load(file: Path, item: tuple[int, ...] | None = None) -> Tensor:
    """Returns the array in a file; with ``item``, it must hold bytes of shape ``(N, *item)``."""
    if file.is_dir():
        raise IsADirectoryError(f"{file} is a directory; give the path of an idx file, such as one in it.")
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not a file; give the path of an idx file, gzipped or not.")
    size = file.stat().st_size
    with file.open("rb") as stored:
        gzipped = stored.read(2) == b"\x1f\x8b"  # the magic number of gzip
        stored.seek(0)
        if not gzipped:
            return _array(file, stored, size, item)
        try:
            # Deflate compresses at most 1032 to 1.
            return _array(file, gzip.GzipFile(fileobj=stored), 1032 * size, item)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(
                f"{file} is gzipped, but truncated or damaged, {size} bytes on disk ({error}): fetch the file again."
            ) from error


def _array(file: Path, stream: BinaryIO | gzip.GzipFile, most: int, item: tuple[int, ...] | None) -> Tensor:
    """Returns the array in a stream of at most ``most`` bytes, after checking the header."""
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _IDX_DTYPES:
        raise ValueError(
            f"{file} starts with the bytes [{magic.hex(' ')}], but an idx file starts with 00 00, its type (08 for "
            f"bytes) and its number of dimensions; it may be a web page or another format: fetch the file again."
        )
    dtype, ndim = _IDX_DTYPES[magic[2]], magic[3]
    header = 4 + 4 * ndim
    stated = stream.read(4 * ndim)
    if len(stated) < 4 * ndim:
        raise ValueError(
            f"{file} is truncated: {4 + len(stated)} bytes, but its header needs {header}; fetch the file again."
        )
    sizes = struct.unpack(f">{ndim}I", stated)
    if ndim > 64 or math.prod(max(size, 1) for size in sizes) >= 2**63:
        found = f"{ndim} dimensions" if ndim > 64 else f"shape {sizes}"
        raise ValueError(f"{file} states {found} in its header, more than a tensor can have; fetch the file again.")
    if item is not None and (dtype != torch.uint8 or not sizes or sizes[1:] != item):
        wanted = ", ".join(["N", *map(str, item)])
        raise ValueError(
            f"{file} holds {dtype} of shape {sizes}, but must hold bytes ({wanted}); the files of images and of labels "
            f"may be swapped."
        )
    expected = dtype.itemsize * math.prod(sizes)
    stated_size = f"its header states {header + expected} for shape {sizes} of {dtype}; fetch the file again."
    if header + expected > most:
        limit = "at most " if isinstance(stream, gzip.GzipFile) else ""
        raise ValueError(f"{file} is truncated: {limit}{most} bytes, but {stated_size}")
    data = bytearray()
    # In parts, so that memory grows with the file; one byte more than expected, to detect a longer file.
    while part := stream.read(min(2**20, expected + 1 - len(data))):
        data += part
    if len(data) != expected:
        fault, more = ("truncated", "") if len(data) < expected else ("longer than one array", " or more")
        raise ValueError(f"{file} is {fault}: {header + len(data)} bytes{more}, but {stated_size}")
    if not expected:
        return torch.empty(sizes, dtype=dtype)
    values = torch.frombuffer(data, dtype=torch.uint8)
    if sys.byteorder == "little" and dtype.itemsize > 1:
        values = values.view(-1, dtype.itemsize).flip(-1)
    return values.flatten().view(dtype).reshape(sizes)


def _read(directory: Path, name: str, item: tuple[int, ...]) -> tuple[Path, Tensor]:
    """Returns the path of ``name`` or ``name.gz`` and its array of bytes, shape ``(N, *item)``."""
    file = next((file for file in (directory / name, directory / f"{name}.gz") if file.exists()), None)
    if file is None:
        found = sorted(entry.name for entry in directory.iterdir())
        listed = ", ".join(found[:8]) + (", ..." if len(found) > 8 else "") if found else "nothing"
        raise FileNotFoundError(
            f"{directory} has neither {name} nor {name}.gz, but {listed}; put the standard MNIST file there."
        )
    array = _load(file, item)
    if not len(array):
        raise ValueError(f"{file} holds no {'images' if item else 'labels'}; fetch the file again.")
    return file, array
