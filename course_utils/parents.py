"""The trained networks that pruning starts from. Small ones are shipped; others are trained once and kept.

A kind of network is a function (number of classes, profile) -> the network with random weights.
"""

import json
import shutil
import sys
import time
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import FunctionType
from typing import Any

import torch
from torch import nn

from course_utils.checkpoints import best, latest, load_state
from course_utils.data import Data, solids
from course_utils.files import ROOT, cache_root, load_tensors, locked, save_tensors
from course_utils.keys import key_of
from course_utils.measure import accuracy
from course_utils.models import channels, deit_tiny, resnet50, resnet_cifar, vgg16_bn
from course_utils.profiles import Profile, start
from course_utils.train import Recipe, adamw, train
from course_utils.trials import where

SHIPPED = ROOT / "course_utils" / "networks"
FEW = ((1, 24), (2, 32), (2, 64))  # how many inverted residuals of how many channels a small MobileNetV2 has
VERSION = "1"  # raised by hand when the shipped networks are trained anew


def baseline(classes: int, sizes: Profile) -> nn.Module:
    """The course's first network: a ResNet with bottleneck blocks, ResNet-50 in profile `full`."""
    return resnet50(classes, sizes.width, sizes.blocks)


def vgg(classes: int, sizes: Profile) -> nn.Module:
    """VGG-16 with BatchNorm, as much narrower as the baseline is."""
    return vgg16_bn(classes, sizes.width)


def resnet20(classes: int, sizes: Profile) -> nn.Module:
    """ResNet-20; it begins with 16 channels and not with 64, so four times the baseline's width is enough for it."""
    return resnet_cifar(20, classes, min(1.0, 4 * sizes.width))


def deit(classes: int, sizes: Profile) -> nn.Module:
    """DeiT-Tiny with patches of 4 × 4 pixels; three heads, as many blocks as the baseline, twelve at most."""
    return deit_tiny(classes, 32, 4, min(1.0, 3 * sizes.width), min(12, sum(sizes.blocks)))


def convnext(classes: int, sizes: Profile) -> nn.Module:
    """ConvNeXt with patches of 2 × 2 pixels; four stages, from 96 channels on at full width."""
    from timm.models.convnext import ConvNeXt

    first = max(16, channels(96, sizes.width))
    dims = tuple(first * 2**stage for stage in range(len(sizes.blocks)))
    return ConvNeXt(num_classes=classes, depths=sizes.blocks, dims=dims, patch_size=2, kernel_sizes=5)


def mobilenet(classes: int, sizes: Profile) -> nn.Module:
    """timm's MobileNetV2, below full width with five inverted residuals; its first layer keeps small images' size."""
    from timm import create_model
    from timm.models import EfficientNet
    from timm.models._efficientnet_builder import decode_arch_def

    if sizes.width == 1:
        network: Any = create_model("mobilenetv2_100", num_classes=classes)
    else:
        stages = decode_arch_def([["ds_r1_k3_s1_c16"], *([f"ir_r{n}_k3_s2_e6_c{c}"] for n, c in FEW)])
        network = EfficientNet(stages, classes, num_features=160, stem_size=16, act_layer=nn.ReLU6)
    network.conv_stem.stride = (1, 1)
    return network


def recipe_of(network: FunctionType, sizes: Profile) -> Recipe:
    """How this kind of network is trained: with LayerNorm by AdamW and for longer, with BatchNorm like the baseline."""
    if network not in (deit, convnext):
        return baseline_recipe(sizes)
    small = sizes.dataset == "solids"
    return Recipe(
        6 * sizes.epochs if small else 2 * sizes.epochs, sizes.batch_size, 2e-3, weight_decay=0.05, optimizer=adamw,
        shift=2 if small else 4, bf16=sizes.bf16, compiled=sizes.compiled, label_smoothing=0.0 if small else 0.1,
    )  # fmt: skip


def baseline_recipe(sizes: Profile) -> Recipe:
    """How the baseline of this profile is trained."""
    small = sizes.dataset == "solids"
    return Recipe(
        sizes.epochs, sizes.batch_size, sizes.lr, shift=2 if small else 4, bf16=sizes.bf16, compiled=sizes.compiled,
        label_smoothing=0.0 if small else 0.1,
    )  # fmt: skip


def untrained(sizes: Profile, data: Data, seed: int, network: FunctionType = baseline) -> nn.Module:
    """A network with the random weights that `seed` draws."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = network(len(data.classes), sizes)
    return model.to(data.train.images.device)


def parent(sizes: Profile, data: Data, seed: int, network: FunctionType = baseline) -> nn.Module:
    """A trained network, in evaluation mode: shipped, or else from the cache, or else trained now."""
    model = untrained(sizes, data, seed, network)
    place = shipped(sizes, data, seed, network) or trained(model, sizes, data, seed, network)
    tensors, _ = load_tensors(place)
    load_state(model, tensors, place)
    return model.eval()


def shipped(sizes: Profile, data: Data, seed: int, network: FunctionType = baseline) -> Path | None:
    """The file that came with the course, if it fits this profile, these data and this seed."""
    place = SHIPPED / f"{network.__name__}-{data.name}-{seed}.safetensors"
    if sizes.fresh or not place.is_file():
        return None
    _, about = load_tensors(place)
    fits = {"version": VERSION, "width": str(sizes.width), "blocks": str(sizes.blocks)}
    return place if all(about.get(name) == value for name, value in fits.items()) else None


def trained(model: nn.Module, sizes: Profile, data: Data, seed: int, network: FunctionType = baseline) -> Path:
    """Train `model`, unless this very network was trained before; returns its file."""
    recipe = recipe_of(network, sizes)
    shape = {"width": sizes.width, "blocks": sizes.blocks}
    inputs = shape | {"recipe": recipe.words(), "seed": seed, "data": data.checksum, "network": key_of(network, {})}
    key = key_of(train, inputs)
    place = cache_root() / "networks" / f"{network.__name__}-{data.name}-{seed}-{key}.safetensors"
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


def main(names: list[str]) -> None:
    """Train shipped networks anew, all kinds or those named, with the record of their training (for the authors)."""
    sizes = replace(start("smoke"), fresh=time.time())
    data, file = solids(), SHIPPED / "record.json"
    record: dict = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"networks": []}
    record |= {"version": VERSION, "data": data.checksum}
    for network, seed in product((k for k in KINDS if k.__name__ in (names or [k.__name__])), sizes.parents):
        model = parent(sizes, data, seed, network)
        place = trained(model, sizes, data, seed, network)
        shutil.copyfile(place, SHIPPED / f"{network.__name__}-{data.name}-{seed}.safetensors")
        about: dict = {"network": network.__name__, "seed": seed, "test_accuracy": accuracy(model, data.test)}
        about |= {"recipe": recipe_of(network, sizes).words(), "where": where()}
        others = [r for r in record["networks"] if (r["network"], r["seed"]) != (network.__name__, seed)]
        record["networks"] = [*others, about | {"log": json.loads(load_tensors(place)[1]["log"])}]
        file.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


KINDS = (baseline, vgg, resnet20, deit, convnext, mobilenet)

if __name__ == "__main__":
    main(sys.argv[1:])
