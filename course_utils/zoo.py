"""The zoo: any network by its name. {"name": "resnet50", "library": "timm", "arguments": {"num_classes": 81}} is one.

A word finds it in timm, else in torchvision, else in the course; `torchvision/resnet50` says which of them is meant.
"""

import difflib
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from course_utils import models
from course_utils.files import data_root, load_tensors

Like = dict[str, Any]
COURSE: dict[str, Callable[..., nn.Module]] = {
    f.__name__: f
    for f in (models.resnet50, models.resnet_cifar, models.vgg16_bn, models.mlp, models.deit_tiny, models.deit_small)
}
FETCHES = re.compile(r"pretrained|^weights|checkpoint|cache|^(scriptable|exportable|no_jit)$")  # arguments that load


def in_torchvision(name: str) -> bool:
    """Does torchvision have a classifier of this name?"""
    return name in torchvision.models.list_models(module=torchvision.models)


KNOWN = {"timm": timm.is_model, "torchvision": in_torchvision, "course": COURSE.__contains__}
MAKE = {
    "timm": lambda name, more: timm.create_model(name, pretrained=False, **more),
    "torchvision": lambda name, more: torchvision.models.get_model(name, weights=None, **more),
    "course": lambda name, more: COURSE[name](**more),
}


def like_of(word: str, classes: int | None = None) -> Like:
    """What `word` names, as a description that `build` understands."""
    library, _, name = word.rpartition("/")
    for each in [library] if library else KNOWN:
        if each in KNOWN and KNOWN[each](name):
            key = "classes" if each == "course" else "num_classes"
            return {"name": name, "library": each, "arguments": {key: classes} if classes else {}}
    raise unknown(word)


def unknown(word: str) -> ValueError:
    """One sentence about a name that no library has, with the nearest one that some has."""
    every = [*timm.list_models(), *torchvision.models.list_models(module=torchvision.models), *COURSE]
    near = difflib.get_close_matches(word.rpartition("/")[2], every, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return ValueError(f"there is no network {word!r} in timm, torchvision or the course{hint}")


def title(like: Like) -> str:
    """'deit_tiny_patch16_224(num_classes=81)'"""
    words = ", ".join(f"{key}={value}" for key, value in like["arguments"].items())
    return like["name"] + (f"({words})" if words else "")


def checked(like: Like) -> Like:
    """A description that was read from a file, if it is one."""
    kinds = {"name": str, "library": str, "arguments": dict}
    if like.keys() != kinds.keys() or not all(isinstance(like[key], kind) for key, kind in kinds.items()):
        raise ValueError(f"an architecture is described by {', '.join(kinds)}, not by {like}")
    return like


def build(like: Like, seed: int = 0) -> nn.Module:
    """The network with random weights, which `seed` draws; nothing is fetched, and no file is read."""
    name, library, more = like["name"], like["library"], like["arguments"]
    if library not in KNOWN or not KNOWN[library](name):
        raise unknown(f"{library}/{name}")
    if loading := [key for key in more if FETCHES.search(key)]:
        raise ValueError(f"an architecture is described without {loading[0]}, which would load a file")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            return MAKE[library](name, {k: tuple(v) if isinstance(v, list) else v for k, v in more.items()}).eval()
        except (TypeError, ValueError, RuntimeError, AssertionError) as error:
            raise ValueError(f"{library} cannot build {title(like)} ({first_line(error)})") from error


class Undrawn(TorchFunctionMode):
    """Inside it no initial values are drawn, which is most of the time that it takes to build a network."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        draws = getattr(func, "__name__", "") in ("uniform_", "normal_", "erfinv_")
        if draws or getattr(func, "__module__", "") == "torch.nn.init":
            return args[0] if args else next(iter(kwargs.values()))
        return func(*args, **(kwargs or {}))


def outline(like: Like) -> nn.Module:
    """The network for its form alone: what its weights hold is of no account."""
    with Undrawn():
        return build(like)


def first_line(error: Exception) -> str:
    """The first line of what an error says; libraries write many."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".:; ")


def classes_of(model: nn.Module) -> int:
    """How many classes a classifier tells apart: the rows of its last parameter."""
    return list(model.parameters())[-1].shape[0]


def example(model: nn.Module, like: Like) -> Tensor:
    """One black image, as large as the architecture expects."""
    if like["library"] == "course":
        options = inspect.signature(COURSE[like["name"]]).bind(**like["arguments"])
        options.apply_defaults()
        pixels, more = options.arguments.get("size", 32), options.arguments
        return torch.zeros(1, more["sizes"][0]) if "sizes" in more else torch.zeros(1, 3, pixels, pixels)
    channels, height, width = getattr(model, "pretrained_cfg", {}).get("input_size", (3, 224, 224))
    size = like["arguments"].get("img_size", (height, width))
    return torch.zeros(1, like["arguments"].get("in_chans", channels), *([size] * 2 if isinstance(size, int) else size))


def weights_file(like: Like) -> Path | None:
    """The file of trained weights under $COURSE_DATA/weights, if it is there, in full or in half precision."""
    bare = like["name"].partition(".")[0]
    names = [f"{name}{ending}.safetensors" for name in (like["name"], bare) for ending in ("", "_fp16")]
    return next((path for name in names if (path := data_root() / "weights" / name).is_file()), None)


def trained(like: Like) -> nn.Module:
    """The network with its published weights: from $COURSE_DATA/weights, or else timm's by name."""
    model, place = build(like), weights_file(like)
    if place:
        return filled(model, place, like)
    if like["library"] == "timm":
        try:
            return timm.create_model(like["name"], pretrained=True, **like["arguments"]).eval()
        except Exception as error:
            raise missing(like, first_line(error)) from error
    raise missing(like, "only timm's are fetched by name")


def missing(like: Like, reason: str) -> FileNotFoundError:
    """One sentence about weights that are neither here nor to be had."""
    place = data_root() / "weights" / f"{like['name']}.safetensors"
    return FileNotFoundError(f"there are no trained weights for {like['name']}: {place} is not here, and {reason}")


@torch.no_grad()
def filled(model: nn.Module, place: Path, like: Like) -> nn.Module:
    """The model with the tensors of a file; a classifier stays random where other classes are asked for."""
    tensors, _ = load_tensors(place)
    own, asked = model.state_dict(), like["arguments"].keys() & {"num_classes", "classes"}
    for name in own | tensors:
        shapes = [tuple(state[name].shape) if name in state else () for state in (own, tensors)]
        head = asked and shapes[0][:1] == (classes_of(model),) and shapes[0][1:] == shapes[1][1:]
        if shapes[0] != shapes[1] and not head and not name.endswith("num_batches_tracked"):
            raise ValueError(
                f"{place} holds another network than {title(like)}: {name} is {shapes[1]}, not {shapes[0]}"
            )
        if name in own and name in tensors and shapes[0] == shapes[1]:
            own[name].copy_(tensors[name])
    return model
