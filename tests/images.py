"""Tiny folders of images, as ImageNet lays them out, for tests of what reads them."""

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("blue", "green", "red")


def write(root: Path, train: int = 8, val: int = 4, classes: tuple[str, ...] = CLASSES, seed: int = 0) -> Path:
    """Noise with a tint for each class, 40 × 48, in root/train/CLASS and root/val/CLASS."""
    random = np.random.default_rng(seed)
    for split, count in {"train": train, "val": val}.items():
        for number, name in enumerate(classes):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = random.integers(0, 156, (40, 48, 3)).astype(np.uint8)
                pixels[..., number % 3] += 99
                Image.fromarray(pixels).save(folder / f"{index}.png")
    return root
