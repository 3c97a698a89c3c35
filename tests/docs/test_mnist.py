"""The reader of MNIST's files in the tutorials."""

import gzip
import struct
import sys
import tracemalloc
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[2] / "tutorials"))
import mnist as reader


def idx(code, sizes, values):
    return bytes([0, 0, code, len(sizes)]) + struct.pack(f">{len(sizes)}I", *sizes) + values


CASES = {  # what is in the file, what should be read
    "uint8": (idx(8, (2, 3), bytes(range(6))), torch.arange(6, dtype=torch.uint8).view(2, 3)),
    "int8": (idx(9, (2,), struct.pack(">2b", -1, 7)), torch.tensor([-1, 7], dtype=torch.int8)),
    "int16": (idx(11, (2,), struct.pack(">2h", -2, 513)), torch.tensor([-2, 513], dtype=torch.int16)),
    "int32": (idx(12, (1, 2), struct.pack(">2i", -3, 65537)), torch.tensor([[-3, 65537]], dtype=torch.int32)),
    "float32": (idx(13, (2,), struct.pack(">2f", 0.5, -1e20)), torch.tensor([0.5, -1e20])),
    "float64": (idx(14, (2,), struct.pack(">2d", 0.1, -1e200)), torch.tensor([0.1, -1e200], dtype=torch.float64)),
    "scalar": (idx(8, (), b"\x07"), torch.tensor(7, dtype=torch.uint8)),
    "empty": (idx(8, (0, 28, 28), b""), torch.empty(0, 28, 28, dtype=torch.uint8)),
}


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_load_idx(tmp_path, case, compressed):
    data, expected = CASES[case]
    file = tmp_path / "any name"
    file.write_bytes(gzip.compress(data) if compressed else data)
    array = reader.load_idx(str(file))
    torch.testing.assert_close(array, expected, rtol=0, atol=0)
    array += 1  # its memory is its own, and writable


GOOD = idx(8, (4, 5), bytes(20))
LARGEST = 2**32 - 1


DAMAGED = {  # what is in the file, and what of it the message shows
    "a web page": (b"<!DOCTYPE html>", r"\[3c 21 44 4f\]"),
    "no such type": (idx(7, (1,), b"\0"), r"\[00 00 07 01\]"),
    "no zeros": (b"\1" + GOOD[1:], r"\[01 00 08 02\]"),
    "nothing": (b"", r"\[\]"),
    "half a header": (GOOD[:9], "9 bytes.*12"),
    "a byte short": (GOOD[:-1], r"31 bytes.*32.*\(4, 5\).*uint8"),
    "a byte long": (GOOD + b"\0", "33 bytes"),
    "half a gzip": (gzip.compress(GOOD)[:-9], "gzipped"),
    "gzip of another sum": (gzip.compress(GOOD)[:-1] + b"\1", "gzipped"),
    "gzip of a byte short": (gzip.compress(GOOD[:-1]), "31 bytes"),
    "gzip of a byte long": (gzip.compress(GOOD + b"\0"), "33 bytes"),
    "gzip and more": (gzip.compress(GOOD) + b"more", "gzipped"),
    "nothing in 2^64": (idx(8, (0, LARGEST, LARGEST), b""), rf"\(0, {LARGEST}, {LARGEST}\)"),
    "gigabytes in a gzip": (gzip.compress(idx(8, (LARGEST, 5), bytes(20))), rf"\({LARGEST}, 5\)"),
    "gigabytes": (idx(8, (LARGEST, 5), bytes(20)), rf"32 bytes.*\({LARGEST}, 5\)"),
    "65 dimensions": (idx(8, (1,) * 65, b"\0"), "65 dimensions"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_files(tmp_path, case):
    data, message = DAMAGED[case]
    file = tmp_path / "images"
    file.write_bytes(data)
    with pytest.raises(ValueError, match=rf"images.*{message}.*fetch"):
        reader.load_idx(file)


@pytest.mark.parametrize("stated", [(4, 5), (LARGEST, 5), (0,)], ids=str)
@pytest.mark.parametrize("load", [reader.load_idx, lambda file: reader.load_mnist(file.parent)])
def test_no_more_is_inflated_than_the_header_states(tmp_path, load, stated):
    """Of sixteen megabytes in as many kilobytes."""
    file = tmp_path / "train-images-idx3-ubyte.gz"
    file.write_bytes(gzip.compress(idx(8, stated, bytes(2**24))))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=file.name):
            load(file)
        assert tracemalloc.get_traced_memory()[1] < 2**21
    finally:
        tracemalloc.stop()


def test_no_such_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing.*path"):
        reader.load_idx(tmp_path / "nothing")
    with pytest.raises(IsADirectoryError, match=f"{tmp_path.name}.*directory.*path"):
        reader.load_idx(tmp_path)


# ---- MNIST ----


@pytest.fixture
def mnist(tmp_path):
    """A directory with three digits for training, gzipped, and two for testing, plain."""
    for prefix, n, pack, suffix in (("train", 3, gzip.compress, ".gz"), ("t10k", 2, bytes, "")):
        pixels = bytes((7 * i) % 256 for i in range(n * 784))
        (tmp_path / f"{prefix}-images-idx3-ubyte{suffix}").write_bytes(pack(idx(8, (n, 28, 28), pixels)))
        (tmp_path / f"{prefix}-labels-idx1-ubyte{suffix}").write_bytes(pack(idx(8, (n,), bytes(range(n)))))
    return tmp_path


def test_load_mnist(mnist):
    data = reader.load_mnist(mnist)
    for images, labels, n in ((data.train_images, data.train_labels, 3), (data.test_images, data.test_labels, 2)):
        assert torch.equal(labels, torch.arange(n))
        torch.testing.assert_close(images, ((7 * torch.arange(n * 784)) % 256 / 255).view(n, 784), rtol=0, atol=0)


def test_mnist_that_is_not(mnist):
    file, labels = mnist / "t10k-images-idx3-ubyte", mnist / "t10k-labels-idx1-ubyte"
    good = file.read_bytes()
    for images, words in (
        (labels.read_bytes(), r"\(2,\).*\(N, 28, 28\).*swapped"),
        (idx(8, (1, 28, 28), bytes(784)), r"1 images.*t10k-labels\S* has 2 labels"),
        (good[:-1], "truncated"),
    ):
        file.write_bytes(images)
        with pytest.raises(ValueError, match=rf"t10k-images.*{words}"):
            reader.load_mnist(mnist)
    file.write_bytes(idx(8, (0, 28, 28), b""))
    labels.write_bytes(idx(8, (0,), b""))
    with pytest.raises(ValueError, match=r"t10k-images.* no images.*fetch"):
        reader.load_mnist(mnist)
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"t10k-images-idx3-ubyte .*\.gz.*t10k-labels"):
        reader.load_mnist(mnist)
    file.mkdir()
    (file / file.name).write_bytes(good)  # so unpack some archives
    with pytest.raises(IsADirectoryError, match="t10k-images-idx3-ubyte"):
        reader.load_mnist(mnist)


@pytest.mark.parametrize(("folder", "words"), [("", "train-images.*nothing"), ("mnist", "not a directory")])
def test_mnist_nowhere(tmp_path, folder, words):
    with pytest.raises(FileNotFoundError, match=words):
        reader.load_mnist(tmp_path / folder)
