"""Whole data sets as tensors: `Data` has the splits train, val and test, and `batches` cuts one into pieces.

Choices are made on `val`. The `test` split is for the final table, once.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from course_utils.files import cache_root, load_tensors, locked, save_tensors
from course_utils.scenes import HOME, Domain
from course_utils.solids import VERSION, render

SOLIDS_SPLIT = (4000, 1000, 1000)  # training, validation, test images


@dataclass(frozen=True)
class Split:
    """Images (uint8, n × channels × height × width), their labels, and the numbers that normalise them."""

    images: Tensor
    labels: Tensor
    mean: Tensor
    std: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> "Split":
        """The same split on `device`."""
        return Split(*(t.to(device) for t in (self.images, self.labels, self.mean, self.std)))

    def first(self, count: int) -> "Split":
        """The first `count` images only."""
        return replace(self, images=self.images[:count], labels=self.labels[:count])


@dataclass(frozen=True)
class Data:
    """A data set; `checksum` tells it from every other one."""

    name: str
    classes: tuple[str, ...]
    train: Split
    val: Split
    test: Split
    checksum: str

    def to(self, device: torch.device) -> "Data":
        """The same data on `device`."""
        return replace(self, train=self.train.to(device), val=self.val.to(device), test=self.test.to(device))


def make_data(name: str, classes: tuple[str, ...], parts: dict[str, tuple[Tensor, Tensor]]) -> Data:
    """`Data` from the images and labels of its three parts, normalised by what the training images say."""
    pixels = parts["train"][0].transpose(0, 1).flatten(1).float() / 255
    mean, std = pixels.mean(1), pixels.std(1).clamp_min(1e-3)
    digest = hashlib.sha256()
    for images, labels in parts.values():
        digest.update(images.numpy().tobytes() + labels.numpy().tobytes())
    splits = {part: Split(images, labels, mean, std) for part, (images, labels) in parts.items()}
    return Data(name, classes, **splits, checksum=digest.hexdigest()[:16])


def hold_out(images: Tensor, labels: Tensor, count: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Set the last `count` training images aside for validation."""
    return {"train": (images[:-count], labels[:-count]), "val": (images[-count:], labels[-count:])}


def batches(split: Split, size: int, seed: int | None = None, flip: bool = False, shift: int = 0) -> Iterator:
    """Pairs (x, y) of normalised images and labels; with a `seed` shuffled, and flipped and shifted at random."""
    if len(split) == 0:
        raise ValueError("this split is empty: there is nothing to make batches of")
    device = split.images.device
    random = None if seed is None else torch.Generator(device).manual_seed(seed)
    order = torch.arange(len(split), device=device)
    if random is not None:
        order = torch.randperm(len(split), generator=random, device=device)
    scale = (255 * split.std).view(-1, 1, 1)
    centre = (255 * split.mean).view(-1, 1, 1)
    for chosen in order.split(size):
        images = split.images[chosen]
        if random is not None and (flip or shift):
            images = jiggle(images, flip, shift, random)
        yield pixels_last((images.float() - centre) / scale), split.labels[chosen]


def pixels_last(images: Tensor) -> Tensor:
    """The same images, with the channels of a pixel side by side in memory: convolutions are faster on them."""
    return images.contiguous(memory_format=torch.channels_last)


def jiggle(images: Tensor, flip: bool, shift: int, random: torch.Generator) -> Tensor:
    """Each image moved by up to `shift` pixels (black comes in at the border) and, every second one, mirrored."""
    n, channels, height, width = images.shape
    device = images.device
    padded = torch.nn.functional.pad(images, [shift] * 4)
    rows = torch.arange(height, device=device) + torch.randint(2 * shift + 1, (n, 1), generator=random, device=device)
    columns = torch.arange(width, device=device).expand(n, -1)
    if flip:
        mirrored = torch.rand(n, 1, generator=random, device=device) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    columns = columns + torch.randint(2 * shift + 1, (n, 1), generator=random, device=device)
    places = rows[:, :, None] * padded.shape[3] + columns[:, None, :]
    return padded.flatten(2).gather(2, places.view(n, 1, -1).expand(-1, channels, -1)).view_as(images)


def solids(domain: Domain = HOME) -> Data:
    """Rendered bodies in rooms, 32 × 32: 4,000 training, 1,000 validation, 1,000 test images, drawn once and cached."""
    place = cache_root() / "data" / f"solids-{domain.name}-v{VERSION}.safetensors"
    with locked(place):
        if not place.is_file():
            images, labels, depth = render(sum(SOLIDS_SPLIT), seed=0, domain=domain)
            save_tensors({"images": images, "labels": labels, "depth": depth}, place)
    tensors, _ = load_tensors(place)
    if sorted(tensors) != ["depth", "images", "labels"] or len(tensors["labels"]) != sum(SOLIDS_SPLIT):
        raise ValueError(f"{place} is not what the course has drawn: delete it")
    pieces = zip(tensors["images"].split(SOLIDS_SPLIT), tensors["labels"].split(SOLIDS_SPLIT), strict=True)
    parts = dict(zip(("train", "val", "test"), pieces, strict=True))
    return make_data(f"solids-{domain.name}", domain.classes, parts)


def digits() -> Data:
    """1,797 real handwritten digits of 8 × 8 pixels, from scikit-learn: 1,197 training, 300 validation, 300 test."""
    from sklearn.datasets import load_digits

    table = load_digits()
    images = torch.tensor(table.images).mul(255 / 16).round().to(torch.uint8)[:, None]
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    images, labels = images[order], torch.tensor(table.target)[order].long()
    parts = hold_out(images[:-300], labels[:-300], 300) | {"test": (images[-300:], labels[-300:])}
    return make_data("digits", tuple("0123456789"), parts)
