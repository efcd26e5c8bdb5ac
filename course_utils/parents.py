"""The trained networks that pruning starts from. Three small ones are shipped; others are trained once and cached."""

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from course_utils.checkpoints import best, latest, load_state
from course_utils.data import Data, solids
from course_utils.files import ROOT, cache_root, load_tensors, locked, save_tensors
from course_utils.keys import key_of
from course_utils.measure import accuracy
from course_utils.models import resnet50
from course_utils.profiles import Profile, start
from course_utils.train import Recipe, train
from course_utils.trials import where

SHIPPED = ROOT / "course_utils" / "networks"
VERSION = "1"  # raised by hand when the shipped networks are trained anew


def baseline_recipe(sizes: Profile) -> Recipe:
    """How the baseline of this profile is trained."""
    small = sizes.dataset == "solids"
    return Recipe(
        sizes.epochs, sizes.batch_size, sizes.lr, shift=2 if small else 4, bf16=sizes.bf16, compiled=sizes.compiled,
        label_smoothing=0.0 if small else 0.1,
    )  # fmt: skip


def untrained(sizes: Profile, data: Data, seed: int) -> nn.Module:
    """The baseline network with the random weights that `seed` draws."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = resnet50(len(data.classes), sizes.width, sizes.blocks)
    return model.to(data.train.images.device)


def parent(sizes: Profile, data: Data, seed: int) -> nn.Module:
    """A trained baseline network, in evaluation mode: shipped, or else from the cache, or else trained now."""
    model = untrained(sizes, data, seed)
    place = shipped(sizes, data, seed) or trained(model, sizes, data, seed)
    tensors, _ = load_tensors(place)
    load_state(model, tensors, place)
    return model.eval()


def shipped(sizes: Profile, data: Data, seed: int) -> Path | None:
    """The file that came with the course, if it fits this profile, these data and this seed."""
    place = SHIPPED / f"{data.name}-{seed}.safetensors"
    if sizes.fresh or not place.is_file():
        return None
    _, about = load_tensors(place)
    fits = {"version": VERSION, "width": str(sizes.width), "blocks": str(sizes.blocks)}
    return place if all(about.get(name) == value for name, value in fits.items()) else None


def trained(model: nn.Module, sizes: Profile, data: Data, seed: int) -> Path:
    """Train `model`, unless this very network was trained before; returns its file."""
    recipe = baseline_recipe(sizes)
    shape = {"width": sizes.width, "blocks": sizes.blocks}
    inputs = shape | {"recipe": recipe.words(), "seed": seed, "data": data.checksum, "network": key_of(resnet50, {})}
    key = key_of(train, inputs)
    place = cache_root() / "networks" / f"{data.name}-{seed}-{key}.safetensors"
    with locked(place):
        checkpoint = place.with_suffix("")
        if not place.is_file() or place.stat().st_mtime < sizes.fresh:
            forget(checkpoint, before=sizes.fresh)
            log = train(model, data.train, recipe, seed, val=data.val, checkpoint=checkpoint)
            about = {"version": VERSION, "width": str(sizes.width), "blocks": str(sizes.blocks)}
            about |= {"data": data.checksum, "recipe": recipe.words(), "log": json.dumps(log)}
            save_tensors(model.state_dict(), place, **about)
            forget(checkpoint)
    return place


def forget(checkpoint: Path, before: float = float("inf")) -> None:
    """Remove a run's checkpoints, if they were made `before` a moment."""
    for file in (latest(checkpoint), best(checkpoint)):
        if file.is_file() and file.stat().st_mtime < before:
            file.unlink()


def training_log(sizes: Profile, data: Data, seed: int) -> list[dict]:
    """The record of the run that made a shipped network: loss and accuracy after each epoch."""
    place = shipped(sizes, data, seed)
    if place is None:
        raise FileNotFoundError(f"no network for {data.name}, seed {seed}, is shipped with profile {sizes.name}")
    return json.loads(load_tensors(place)[1]["log"])


def main() -> None:
    """Train the shipped networks anew and write them with the record of their training (for the course's authors)."""
    sizes = replace(start("smoke"), fresh=time.time())
    data, records = solids(), []
    SHIPPED.mkdir(exist_ok=True)
    for seed in sizes.parents:
        model = parent(sizes, data, seed)
        place = trained(model, sizes, data, seed)
        shutil.copyfile(place, SHIPPED / f"{data.name}-{seed}.safetensors")
        about = {"seed": seed, "test_accuracy": accuracy(model, data.test), "where": where()}
        records.append(about | {"log": json.loads(load_tensors(place)[1]["log"])})
    record = {"version": VERSION, "data": data.checksum, "recipe": baseline_recipe(sizes).words(), "networks": records}
    (SHIPPED / "record.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
