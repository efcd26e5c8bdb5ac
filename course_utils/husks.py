"""A husk stands for a layer of a pickled network: what its attributes were, and no code at all.

torch's restricted unpickler reads the file. Every name in it that is on the list below becomes an empty class with
nothing to call; a name that is not on the list is refused before anything is read. No class or function that the file
names is ever imported, made or called; all that is real afterwards are tensors, numbers, words, lists and dicts.
"""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import timm.layers
import torch
import torchvision.ops
from torch import Tensor, nn
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

LIBRARIES = re.compile(r"(torch\.nn\.modules|timm\.layers|timm\.models|torchvision\.models|torchvision\.ops)(\.\w+)+")
BESIDES = {  # what whole networks and training checkpoints hold beside layers; husks as well
    "argparse.Namespace",
    "builtins.getattr",  # a forward that was put in by hand is pickled as getattr(layer, "forward")
    "functools.partial",
    "timm.layers.format.Format",
    "torch._C._nn.gelu",
    "torch.nn.functional.gelu",
    "torch.nn.functional.relu",
    "torch.nn.functional.silu",
}


class Husk:
    """Takes whatever it is made with, and does nothing."""

    def __new__(cls, *args: object, **more: object) -> "Husk":
        return object.__new__(cls)

    def __init__(self, *args: object, **more: object) -> None: ...


def layers_in(*modules: ModuleType | None) -> set[str]:
    """The names of the layers that these modules define or offer."""
    members = [member for module in modules if module for member in vars(module).values()]
    return {member.__name__ for member in members if inspect.isclass(member) and issubclass(member, nn.Module)}


def allowed(name: str, layers: set[str]) -> bool:
    """Is it the name of one of these layers in torch, timm or torchvision, or on the list of what is found besides?"""
    return name in BESIDES or (bool(LIBRARIES.fullmatch(name)) and name.rpartition(".")[2] in layers)


def husks_in(file: Path, network: nn.Module) -> Any:
    """What is in a file that torch.save wrote, with husks for the layers."""
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file}")
    try:
        names = get_unsafe_globals_in_checkpoint(file)
    except Exception as error:
        raise ValueError(f"{file} is damaged, or nothing that torch.save writes today ({told(error)})") from error
    own = {inspect.getmodule(type(layer)) for layer in network.modules()}
    layers = layers_in(torch.nn, timm.layers, torchvision.ops, torchvision.ops.misc, *own)
    for name in sorted(names):
        if not allowed(name, layers):
            what = f"part of a {type(network).__name__}" if LIBRARIES.fullmatch(name) else "layer of a network"
            raise ValueError(f"{file} is refused, and nothing of it was run: it holds {name!r}, which is no {what}")
    husks: list[Any] = [(type(name.rpartition(".")[2], (Husk,), {}), name) for name in names]
    try:
        with safe_globals(husks):
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"{file} is refused, and nothing of it was run ({told(error)})") from error


def told(error: Exception) -> str:
    """The first sentence of what an error says; torch says many."""
    return re.split(r"\.\s|\n", f"{error} ")[0][:160].strip(" .:;") or type(error).__name__


def network_in(content: Any) -> Any:
    """The network among what is in a file: the content itself, or what a training run calls its model."""
    inner = [content.get(key) for key in ("model", "net", "state_dict")] if isinstance(content, dict) else []
    for found in (content, *inner):
        if isinstance(found, Husk) or (isinstance(found, dict) and found and all(map(is_tensor, found.values()))):
            return found
    raise ValueError("it holds no network, neither by itself nor under the name 'model'")


def is_tensor(value: Any) -> bool:
    """Is it a plain tensor, no larger than the numbers that lie behind it?"""
    if type(value) not in (Tensor, nn.Parameter) or value.layout is not torch.strided or value.device.type != "cpu":
        return False
    return not value.is_quantized and value.numel() * value.element_size() <= value.untyped_storage().nbytes()


def parts(husk: object, kind: str) -> dict[str, Any]:
    """The parameters, buffers or layers of a husk."""
    found = vars(husk).get(kind) if isinstance(husk, Husk) else None
    return {name: part for name, part in found.items() if part is not None} if isinstance(found, dict) else {}


def paired(husk: object, network: nn.Module, name: str = "") -> Iterator[tuple[str, object, nn.Module]]:
    """Every layer of the architecture that has a husk, with its name."""
    yield name, husk, network
    children = parts(husk, "_modules")
    for leaf, child in network.named_children():
        if leaf in children:
            yield from paired(children[leaf], child, f"{name}.{leaf}" if name else leaf)
