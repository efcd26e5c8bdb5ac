"""Image folders as ImageNet has them, DATA/train/CLASS/*.jpg and DATA/val/CLASS/*.jpg: read batch by batch.

A `View` is how a network wants to see images: size, interpolation, crop, mean and standard deviation, as timm says.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Subset
from torchvision.datasets import ImageFolder

from course_utils import dist
from course_utils.pictures import UNREADABLE

SPLITS = {"train": ("train", "training"), "val": ("val", "valid", "validation", "eval", "test")}


@dataclass(frozen=True)
class View:
    """How a network wants to see images."""

    size: int = 224
    interpolation: str = "bicubic"
    crop_pct: float = 0.875
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)


def view_of(model: nn.Module, known: dict | None = None, **wishes: object) -> View:
    """The view that timm has for a network, unless something else is known; wishes that are not empty come first."""
    from timm.data import resolve_data_config

    found = resolve_data_config(pretrained_cfg=getattr(model, "pretrained_cfg", None) or {}, model=model)
    found |= {"size": found["input_size"][-1]} | (known or {}) | {name: wish for name, wish in wishes.items() if wish}
    mean, std = tuple(found["mean"]), tuple(found["std"])
    return View(int(found["size"]), str(found["interpolation"]), float(found["crop_pct"]), mean, std)


def place_of(root: Path, split: str) -> Path:
    """The folder of a split, under one of the names that it may have."""
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {root}")
    names = SPLITS.get(split, (split,))
    for name in names:
        if (root / name).is_dir():
            return root / name
    inside = ", ".join(sorted(p.name for p in root.iterdir() if p.is_dir())[:3]) or "no folders"
    raise ValueError(f"{root} has no folder {split}, it has {inside}: images belong into {root / split / 'CLASS'}")


def read(path: str) -> Image.Image:
    """One image, in colour; one that cannot be read is named."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (*UNREADABLE, Image.DecompressionBombError) as error:
        raise ValueError(
            f"{path} cannot be read as an image ({type(error).__name__}): repair it or delete it"
        ) from None


def labelled(place: Path, classes: Sequence[str] = ()) -> ImageFolder:
    """The images of one split, labelled in the order of `classes`, or else of their folders; none may be empty."""
    folders = sorted(p.name for p in place.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not folders:
        raise ValueError(f"{place} has no class folders: images belong into {place / 'CLASS'}")
    strangers = [name for name in folders if classes and name not in classes]
    if strangers:
        raise ValueError(f"{place / strangers[0]} is none of the {len(classes)} classes ({', '.join(classes[:3])}, …)")
    found = ImageFolder(str(place), loader=read, allow_empty=True)
    images = [(path, found.classes[label]) for path, label in found.samples]
    empty = sorted(set(folders) - {name for _, name in images})
    if empty:
        raise ValueError(f"{place / empty[0]} holds no images (jpg, png, webp, …): fill it or remove it")
    found.classes = list(classes or folders)
    found.class_to_idx = {name: number for number, name in enumerate(found.classes)}
    found.samples = [(path, found.class_to_idx[name]) for path, name in images if name in folders]
    found.targets = [label for _, label in found.samples]
    return found


def seen(found: ImageFolder, view: View, train: bool = False, randaugment: str = "") -> ImageFolder:
    """Sets how images become bytes of a network's size: the middle of each, or for training a random piece, altered."""
    from timm.data import create_transform
    from timm.data.transforms import str_to_interp_mode

    try:
        str_to_interp_mode(view.interpolation)
    except KeyError:
        raise ValueError(f"--interpolation is bicubic, bilinear or nearest, not {view.interpolation!r}") from None
    try:
        found.transform = create_transform(
            view.size,
            train,
            interpolation=view.interpolation,
            crop_pct=view.crop_pct,
            auto_augment=randaugment or None,
            use_prefetcher=True,
        )
    except (AssertionError, ValueError, KeyError, NotImplementedError) as error:
        raise ValueError(f"--randaugment {randaugment!r} is not like rand-m9-mstd0.5-inc1 ({error})") from error
    return found


def size_of(images: Dataset) -> int:
    """How many images there are."""
    return len(images)  # ty: ignore[invalid-argument-type]


def limited(images: Dataset, limit: int) -> Dataset:
    """At most `limit` of the images, spread evenly over all of them; 0 means all."""
    count = size_of(images)
    return Subset(images, [i * count // limit for i in range(limit)]) if 0 < limit < count else images


def in_order(images: Dataset, view: View, batch_size: int, workers: int):
    """Batches of this process's share: over all processes, each image comes once."""
    share = Subset(images, range(dist.rank(), size_of(images), dist.world()))
    return batched(share, view, batch_size, workers)


def shuffled(images: Dataset, view: View, batch_size: int, workers: int, seed: int, erasing: float = 0.0):
    """Full batches for training; `.sampler.set_epoch` shuffles anew. All processes' together are those of one alone."""
    order = DistributedSampler(images, dist.world(), dist.rank(), shuffle=True, seed=10007 * seed)
    return batched(images, view, batch_size, workers, erasing, sampler=order, drop_last=True)


def batched(images: Dataset, view: View, batch_size: int, workers: int, erasing: float = 0.0, **how: Any):
    """timm's loader: bytes from the workers become normalised numbers on the device, with pieces erased at random."""
    from timm.data.loader import PrefetchLoader, fast_collate

    pin = dist.device().type == "cuda"
    loader = DataLoader(images, batch_size, num_workers=workers, collate_fn=fast_collate, pin_memory=pin, **how)
    return PrefetchLoader(loader, view.mean, view.std, device=dist.device(), re_prob=erasing, re_mode="pixel")


def example(view: View, device: torch.device) -> torch.Tensor:
    """One black image, for counting."""
    return torch.zeros(1, 3, view.size, view.size, device=device)
