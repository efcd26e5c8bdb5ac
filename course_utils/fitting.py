"""Does it fit? A cut network beside a freshly built one: which tensors differ, and which sizes the layers note.

A tensor may have another shape, and a layer may note other numbers; names, kinds and dimensions are the architecture's.
"""

from typing import Any

import torch
from torch import Tensor, nn

IDLE = {"Identity", "Dropout", "Dropout1d", "Dropout2d", "DropPath", "StochasticDepth"}  # do nothing in evaluation
Sizes = dict[str, dict[str, Any]]


# --- what a layer notes for itself ----------------------------------------------------------------------------------


def is_plain(value: object) -> bool:
    """Is it a number, a truth, or a row of whole numbers?"""
    whole = isinstance(value, tuple | list) and all(type(entry) in (int, bool) for entry in value)
    return whole or type(value) in (bool, int, float)


def notes(layer: object) -> dict[str, Any]:
    """The plain attributes of a layer: {"num_heads": 3, "scale": 0.125, …}."""
    return {
        name: value
        for name, value in vars(layer).items()
        if name != "training" and not name.startswith("_") and is_plain(value)
    }


def equal(one: object, other: object) -> bool:
    """Are two values the same? A tuple and a list of the same numbers are."""
    rows = isinstance(one, tuple | list) and isinstance(other, tuple | list)
    return [*one] == [*other] if rows else one == other


def alike(one: object, other: object) -> bool:
    """May one value take the other's place? Numbers of the same type may, and words only if they are the same."""
    rows = isinstance(one, tuple | list) and isinstance(other, tuple | list)
    return (is_plain(one) and is_plain(other) and (rows or type(one) is type(other))) or equal(one, other)


def kind_of(layer: object) -> str:
    """The name of a layer's class; those that do nothing in evaluation are all the same."""
    name = type(layer).__name__
    return "Identity" if name in IDLE else name.replace("SyncBatchNorm", "BatchNorm2d")


def pairs(model: nn.Module, fresh: nn.Module) -> dict[str, tuple[nn.Module, nn.Module]]:
    """Every layer that both have, with its name."""
    layers = dict(model.named_modules())
    return {name: (layers[name], own) for name, own in fresh.named_modules() if name in layers}


def unlike(model: nn.Module, fresh: nn.Module) -> str:
    """What a file cannot tell about a network that is built otherwise than the architecture; nothing if all is well."""
    for name, (layer, own) in pairs(model, fresh).items():
        if kind_of(layer) != kind_of(own):
            return f"{name or 'the network'} is {kind_of(layer)}, and {kind_of(own)} in the architecture"
        for key, value in vars(own).items():
            other = vars(layer).get(key, value)
            if (is_plain(value) or type(value) is str) and not alike(value, other):
                return f"{name}.{key} is {other!r}, and {value!r} in the architecture"
    return ""


def sizes_of(model: nn.Module, fresh: nn.Module) -> Sizes:
    """What every layer notes otherwise than in the freshly built architecture."""
    found: Sizes = {}
    for name, (layer, own) in pairs(model, fresh).items():
        noted = {key: value for key, value in notes(layer).items() if key in notes(own)}
        found[name] = {key: value for key, value in noted.items() if not equal(value, notes(own)[key])}
    return {name: noted for name, noted in found.items() if noted}


def set_sizes(model: nn.Module, sizes: Sizes) -> None:
    """Let the layers note these sizes; only what they note already, and only of the same type."""
    layers = dict(model.named_modules())
    for name, noted in sizes.items():
        if name not in layers or not isinstance(noted, dict):
            raise ValueError(f"there is no layer {name!r}")
        for key, value in noted.items():
            own = notes(layers[name]).get(key)
            if own is None or not is_plain(value) or not alike(own, value):
                raise ValueError(f"{name}.{key} is {own!r} and cannot become {value!r}")
            setattr(layers[name], key, type(own)(value))


# --- tensors --------------------------------------------------------------------------------------------------------


def tables(model: nn.Module) -> dict[str, Tensor]:
    """Buffers that a state dict leaves out, such as tables of indices."""
    stored = model.state_dict()
    return {name: buffer for name, buffer in model.named_buffers() if name not in stored}


def tensors_of(model: nn.Module, fresh: nn.Module) -> dict[str, Tensor]:
    """All that a network's file must hold: its state, and those tables that differ from the fresh ones."""
    before = tables(fresh)
    changed = {n: t for n, t in tables(model).items() if n not in before or not torch.equal(t.cpu(), before[n])}
    return model.state_dict() | changed


def misfit(tensors: dict[str, Tensor], fresh: nn.Module) -> str:
    """What says that these tensors belong to another architecture; nothing if they fit it."""
    wanted, possible = fresh.state_dict(), tables(fresh)
    for name in [*wanted, *tensors]:
        if name not in tensors:
            return f"it lacks {name}"
        own = wanted.get(name, possible.get(name))
        if own is None:
            return f"it has {name}, which the architecture lacks"
        if own.ndim != tensors[name].ndim or own.is_floating_point() != tensors[name].is_floating_point():
            return f"{name} is {tuple(tensors[name].shape)}, and {tuple(own.shape)} in the architecture"
        if 0 in tensors[name].shape:
            return f"{name} is empty"
    return ""


def fill(fresh: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Give every tensor of a freshly built network the values, and the shape, of the one of its name."""
    shared: dict[int, nn.Parameter] = {}
    for name, tensor in tensors.items():
        path, _, leaf = name.rpartition(".")
        layer = fresh.get_submodule(path)
        old, new = getattr(layer, leaf), tensor.clone()  # matrix products may round otherwise where memory is askew
        if isinstance(old, nn.Parameter):
            setattr(layer, leaf, shared.setdefault(id(old), nn.Parameter(new, old.requires_grad)))
        else:
            setattr(layer, leaf, new)
