"""A classifier is a network whose outputs have names: which class is which output, at which size, with which head."""

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.datasets import ImageFolder

from course_utils import shrunken
from course_utils.folders import labelled
from course_utils.measure import evaluating

HEADS = (nn.Linear, nn.Conv2d)
LEARN = ", or let it learn them first: python course.py finetune --new-head"


def set_size(model: nn.Module, size: int) -> None:
    """Make a transformer accept images of size × size: its positions are interpolated. Others take any size."""
    own = getattr(getattr(model, "patch_embed", None), "img_size", None)
    if own is None or tuple(own) == (size, size) or not hasattr(model, "set_input_size"):
        return
    try:
        model.set_input_size(img_size=(size, size))  # ty: ignore[not-callable]
    except (AssertionError, ValueError, RuntimeError) as error:
        raise ValueError(f"this network cannot see images of {size} × {size}: {error}") from error


def outputs_of(model: nn.Module, example: Tensor) -> int:
    """How many classes a network distinguishes; a network that takes no such image, or says else, is refused."""
    side = example.shape[-1]
    try:
        with evaluating(model):
            scores = model(example)
    except (AssertionError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"this network does not take images of {side} × {side} ({reason}): try another --size"
        ) from error
    if not isinstance(scores, Tensor) or scores.ndim != 2:
        raise ValueError("this network is no classifier: its output is not one row of scores for each image")
    return scores.shape[1]


def heads_of(model: nn.Module, example: Tensor) -> list[str]:
    """The layers that give the scores: timm's word for it, or else the last layer that ran and has as many outputs."""
    outputs, ran = outputs_of(model, example), []
    handles = [m.register_forward_hook(lambda *_, n=n: ran.append(n)) for n, m in layers(model).items()]
    try:
        outputs_of(model, example)
    finally:
        for handle in handles:
            handle.remove()
    fitting = [name for name in ran if layers(model)[name].weight.shape[0] == outputs]
    named = getattr(model, "get_classifier", tuple)()
    own = named if isinstance(named, tuple) else (named,)
    return [n for n in fitting if any(layers(model)[n] is part for m in own for part in m.modules())] or fitting[-1:]


def layers(model: nn.Module) -> dict[str, nn.Linear | nn.Conv2d]:
    """The layers that could be a head, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, HEADS)}


def new_head(model: nn.Module, example: Tensor, classes: int, seed: int = 0) -> None:
    """Replace the head by one for so many classes, with random weights from `seed`; all else stays as it is."""
    names, random = heads_of(model, example), torch.Generator().manual_seed(seed)
    if not names:
        raise ValueError("this network has no layer that gives its scores: nothing could be replaced by a new head")
    for name in names:
        old = layers(model)[name]
        weight = torch.empty(classes, *old.weight.shape[1:])
        nn.init.trunc_normal_(weight, std=0.02, generator=random)
        old.weight = nn.Parameter(weight.to(old.weight))
        if old.bias is not None:
            old.bias = nn.Parameter(torch.zeros(classes).to(old.weight))
        setattr(old, "out_features" if isinstance(old, nn.Linear) else "out_channels", classes)
    if hasattr(model, "num_classes"):
        setattr(model, "num_classes", classes)  # noqa: B010


def about(word: str) -> dict:
    """What the file of a network says about it, such as the names of its classes; nothing for a name."""
    return shrunken.read(Path(word))["about"] if word.endswith(".safetensors") else {}


def names_in(file: str) -> list[str]:
    """The names of classes from a text file: the first word of each line, in the order of a network's outputs."""
    path = Path(file).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path} with the names of the classes")
    names = [line.split()[0] for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    twice = [name for name in names if names.count(name) > 1]
    if twice or not names:
        raise ValueError(f"{path} names {'the class ' + twice[0] + ' twice' if twice else 'no class'}: one per line")
    return names


def matched(place: Path, outputs: int, names: Sequence[str] = (), way_out: str = LEARN) -> ImageFolder:
    """The images in a split's folders, labelled by a network's outputs; classes that do not match are refused."""
    if names and len(names) != outputs:
        raise ValueError(f"{len(names)} classes are named and the network distinguishes {outputs}{way_out}")
    found = labelled(place, names or imagenet(place, outputs))
    if len(found.classes) != outputs:
        raise ValueError(
            f"the network distinguishes {outputs} classes and {place} has {len(found.classes)} folders: name its"
            f" classes in their order by --classes FILE, one per line{way_out}"
        )
    return found


def imagenet(place: Path, outputs: int) -> list[str]:
    """ImageNet's classes in their order, if the folders are some of them."""
    from timm.data import ImageNetInfo

    folders = [p.name for p in place.iterdir() if p.is_dir() and re.fullmatch(r"n\d{8}", p.name)]
    return list(ImageNetInfo().label_names()) if folders and outputs == 1000 else []
