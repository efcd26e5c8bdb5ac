"""A `Source` is a published data set: the files it comes as, what is known about them, and how they are read.

Reading means: checksum first, then bytes to tensors. Nothing is unpacked to the disk, and no pickle is opened.
"""

import gzip
import hashlib
import math
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from course_utils.files import cache_root, data_root


@dataclass(frozen=True)
class Source:
    """A published data set, and everything by which a true copy of it is known."""

    name: str
    classes: tuple[str, ...]
    sizes: tuple[int, int, int]  # images to train with, to validate with, to test with
    shape: tuple[int, int, int]  # of one image: height, width, channels
    files: dict[str, str]  # its published files as they lie under $COURSE_DATA, and their md5
    urls: tuple[str, ...]  # where they are published
    megabytes: int  # of the published files and of the tensors made from them
    notebooks: str = "-"  # that take it
    pickles: tuple[str, ...] = ()  # other forms of it, which the course does not read


SOURCES = {
    "cifar10": Source(
        "cifar10",
        ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        (45_000, 5_000, 10_000), (32, 32, 3),
        {"cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530"},
        ("https://www.cs.toronto.edu/~kriz/",), 355, "01, 02", ("cifar-10-python.tar.gz", "cifar-10-batches-py"),
    ),
    "cifar100": Source(
        "cifar100", tuple(map(str, range(100))), (45_000, 5_000, 10_000), (32, 32, 3),
        {"cifar-100-binary.tar.gz": "03b5dce01913d631647c71ecec9e9cb8"},
        ("https://www.cs.toronto.edu/~kriz/",), 354, "-", ("cifar-100-python.tar.gz", "cifar-100-python"),
    ),
    "mnist": Source(
        "mnist", tuple("0123456789"), (55_000, 5_000, 10_000), (28, 28, 1),
        {
            "MNIST/raw/train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "MNIST/raw/train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
            "MNIST/raw/t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
            "MNIST/raw/t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
        },
        ("https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/"), 67,
    ),
}  # fmt: skip


def homes(source: Source) -> tuple[Path, Path]:
    """Where the tensors of a data set may lie: the user's file, then the one that the course makes."""
    name = f"{source.name}.safetensors"
    return data_root() / name, cache_root() / "data" / name


def published(source: Source) -> list[Path]:
    """Those of its published files that are here, in the table's order; MNIST's may lie there without .gz, too."""
    either = [[data_root() / name, data_root() / name.replace("ubyte.gz", "ubyte")] for name in source.files]
    return [next(path for path in pair if path.is_file()) for pair in either if any(p.is_file() for p in pair)]


def way_out(source: Source) -> str:
    """What to do about a file that is not as published."""
    return f"replace it, or delete it and run `python course.py data get {source.name}`"


def intact(path: Path, md5: str) -> bool:
    """Is this file there, with this md5?"""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest() == md5


def check_file(source: Source, path: Path) -> None:
    """Refuse a published file that is not, byte by byte, what was published."""
    md5 = {Path(name).name: md5 for name, md5 in source.files.items()}[path.name]
    if not intact(path, md5):
        raise ValueError(f"{path} is truncated, corrupt or another file (its md5 is not {md5}): {way_out(source)}")


def fault(source: Source, tensors: dict[str, Tensor]) -> str:
    """What is wrong with these tensors, in a few words; no words if nothing is."""
    train, val, test = source.sizes
    for part, count in {"train": train + val, "test": test}.items():
        expected = {"images": ((count, *source.shape), torch.uint8), "labels": ((count,), torch.int64)}
        for name, (shape, dtype) in {f"{part}_{kind}": form for kind, form in expected.items()}.items():
            if name not in tensors:
                return f"it has no {name}"
            if tensors[name].dtype != dtype:
                return f"{name} is {tensors[name].dtype}, not {dtype}"
            if tensors[name].shape != shape:
                return f"{name} has the shape {tuple(tensors[name].shape)}, not {shape}"
        labels = tensors[f"{part}_labels"]
        if labels.min() < 0 or labels.max() >= len(source.classes):
            return f"{part}_labels go from {labels.min()} to {labels.max()}, not from 0 to {len(source.classes) - 1}"
    return ""


def check_tensors(source: Source, tensors: dict[str, Tensor], path: Path) -> None:
    """Refuse tensors, read from `path`, that cannot be this data set."""
    if wrong := fault(source, tensors):
        raise ValueError(f"{path} is not {source.name} as published ({wrong}): {way_out(source)}")


def is_pickle(source: Source) -> str:
    """Why the python form of a data set is not read."""
    name = next(iter(source.files))
    return f"is a pickle, which could run any program, and is not read: get the binary form, {name}, instead"


def read_cifar(path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """Images, labels and class names of a binary CIFAR archive, read without unpacking it to the disk."""
    with tarfile.open(path, "r:gz") as tar:
        blobs = {Path(m.name).name: file.read() for m in tar if (file := tar.extractfile(m))}
    names = blobs.get("fine_label_names.txt", b"").decode().split()
    train = b"".join(blobs[name] for name in sorted(blobs) if name == "train.bin" or name.startswith("data_batch"))
    test = blobs.get("test.bin") or blobs.get("test_batch.bin", b"")
    label_bytes = 2 if "train.bin" in blobs else 1
    return records(train, "train", label_bytes) | records(test, "test", label_bytes), names


def records(blob: bytes, part: str, label_bytes: int) -> dict[str, Tensor]:
    """CIFAR's records: (CIFAR-100: coarse label,) label, 1,024 bytes of red, of green, of blue, row by row."""
    rows = np.frombuffer(blob, np.uint8).reshape(-1, label_bytes + 3 * 32 * 32)
    images = rows[:, label_bytes:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    labels = rows[:, label_bytes - 1].astype(np.int64)
    return {f"{part}_images": torch.from_numpy(images.copy()), f"{part}_labels": torch.from_numpy(labels)}


def read_mnist(files: list[Path]) -> tuple[dict[str, Tensor], list[str]]:
    """MNIST's four files: training images and labels, test images and labels."""
    keys = ("train_images", "train_labels", "test_images", "test_labels")
    tensors = {key: read_idx(path) for key, path in zip(keys, files, strict=True)}
    return {key: t[..., None] if "images" in key else t.long() for key, t in tensors.items()}, []


def read_idx(path: Path) -> Tensor:
    """An IDX file: two zeros, 8 for bytes, the number of axes, the length of each (4 bytes, big-endian), the bytes."""
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    axes = raw[3] if raw[:3] == b"\0\0\x08" and len(raw) > 3 else 0
    shape = [int.from_bytes(raw[4 * i : 4 * i + 4], "big") for i in range(1, axes + 1)]
    if not axes or len(raw) != 4 + 4 * axes + math.prod(shape):
        raise ValueError(f"{path.name} is not a whole IDX file of bytes")
    return torch.from_numpy(np.frombuffer(raw, np.uint8, offset=4 + 4 * axes).reshape(shape).copy())
