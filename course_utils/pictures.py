"""Pictures are images of your own in class folders, as for ImageNet: train/CLASS/*.jpg and val/CLASS/*.jpg."""

import hashlib
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from course_utils.data import Data, make_data
from course_utils.files import cache_root, load_tensors, locked, save_tensors
from course_utils.progress import counted

UNREADABLE = (OSError, EOFError, ValueError, IndexError, SyntaxError, TypeError, struct.error, zlib.error)
Pictures = list[tuple[Path, str]]  # files and their classes


def folder(path: str | Path, size: int = 64) -> Data:
    """A folder of your own images, train/CLASS/*.jpg and val/CLASS/*.jpg (or png, webp, bmp), as size × size pixels.

    The short side is resized to `size`, then the middle is kept. Without a folder test/CLASS, every second image of
    val (counted class by class, in the order of the names) becomes the test split, and val keeps the others.
    """
    if not isinstance(size, int) or size < 1:
        raise ValueError(f"size is the side of the images in pixels, a whole number from 1 on, not {size!r}")
    root = Path(path).expanduser().resolve()
    found = {part: pictures(root / part) for part in parts_of(root)}
    classes = tuple(sorted({name for _, name in found["train"]}))
    refuse_strangers(root, found, classes)
    place = cache_root() / "data" / f"folder-{folder_key(root, found, size)}.safetensors"
    with locked(place):
        if not place.is_file():
            save_tensors(read_pictures(found, classes, size), place)
    tensors, _ = load_tensors(place)
    parts = {part: (tensors[f"{part}_images"], tensors[f"{part}_labels"]) for part in found}
    if "test" not in parts:
        images, labels = parts["val"]
        parts |= {"val": (images[::2], labels[::2]), "test": (images[1::2], labels[1::2])}
    return make_data(f"{root.name}-{size}", classes, parts)


def parts_of(root: Path) -> list[str]:
    """['train', 'val', 'test'], or without 'test'; refuses a folder that has no train or no val."""
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {root}")
    parts = [part for part in ("train", "val", "test") if (root / part).is_dir()]
    absent = {"train", "val"} - set(parts)
    if absent:
        inside = ", ".join(sorted(p.name for p in root.iterdir() if p.is_dir())[:3]) or "no folders"
        wish = "images belong into train/CLASS and val/CLASS"
        raise ValueError(f"{root} has no folder {' and no folder '.join(sorted(absent))}, it has {inside}: {wish}")
    return parts


def pictures(place: Path) -> Pictures:
    """The image files in the class folders of one part, sorted."""
    from torchvision.datasets import ImageFolder

    if not any(p.is_dir() for p in place.iterdir()):
        raise ValueError(f"{place} has no class folders: images belong into {place / 'CLASS'}")
    listed = ImageFolder(place, allow_empty=True)
    names = [name for name in listed.classes if not name.startswith(".")]
    found = [(Path(path), listed.classes[label]) for path, label in listed.samples]
    empty = set(names) - {name for _, name in found}
    if (place.name == "train" and empty) or not found:
        raise ValueError(f"{place / min(empty, default='CLASS')} holds no images (jpg, png, webp or bmp)")
    return [(path, name) for path, name in found if name in names]


def refuse_strangers(root: Path, found: dict[str, Pictures], classes: tuple[str, ...]) -> None:
    """Every class of val and test must be one that can be learned from train; they need not have all of them."""
    for part, files in found.items():
        strangers = sorted({name for _, name in files} - set(classes))
        if strangers:
            names = ", ".join(strangers[:5])
            raise ValueError(f"{root / part} has classes that {root / 'train'} has not: {names}; rename or remove them")


def folder_key(root: Path, found: dict[str, Pictures], size: int) -> str:
    """Sixteen letters that change when an image is added, removed or written anew."""
    stamps = [
        (part, str(path), path.stat().st_size, path.stat().st_mtime_ns) for part in found for path, _ in found[part]
    ]
    return hashlib.sha256(repr((str(root), size, stamps)).encode()).hexdigest()[:16]


def read_pictures(found: dict[str, Pictures], classes: tuple[str, ...], size: int) -> dict[str, Tensor]:
    """All images of all parts, and their labels."""
    tensors = {}
    for part, files in found.items():
        images = torch.empty(len(files), 3, size, size, dtype=torch.uint8)
        for image, (path, _) in zip(images, counted(files, len(files), f"reading {part}"), strict=True):
            image.copy_(read_picture(path, size))
        labels = torch.tensor([classes.index(name) for _, name in files])
        tensors |= {f"{part}_images": images, f"{part}_labels": labels}
    return tensors


def read_picture(path: Path, size: int) -> Tensor:
    """One image, upright, in colour, its middle as 3 × size × size bytes."""
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB")
    except (*UNREADABLE, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read as an image ({error}): repair it or delete it") from error
    return torch.from_numpy(np.array(middle(upright, size))).permute(2, 0, 1)


def middle(image: Image.Image, size: int) -> Image.Image:
    """The image with its short side resized to `size`, and of that the middle size × size pixels."""
    short = min(image.size)
    small = image.resize([int(size * side / short) for side in image.size], Image.Resampling.BILINEAR)
    left, top = (round((side - size) / 2) for side in small.size)
    return small.crop((left, top, left + size, top + size))
