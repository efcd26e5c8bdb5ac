"""A group names every tensor that is cut when one channel goes: {"conv1.weight": 0, "bn1.bias": 0, "conv2.weight": 1}.

The number is the axis along which the tensor is cut. Printing a group is the explanation. Where channel c is not simply
entry c of that axis (after a flatten, inside a concatenation, in packed heads), `Slots` lists its entries.
"""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from course_utils.heads import left_over, refit


@dataclass(frozen=True, eq=False)
class Slots:
    """An axis, and in `entries[c]` the places of channel c along it."""

    axis: int
    entries: Tensor

    def __repr__(self) -> str:
        """axis 0, channel 0 at 0, 64, 128"""
        first = self.entries[0].tolist()
        return f"axis {self.axis}, channel 0 at {', '.join(map(str, first[:4]))}{', …' * (len(first) > 4)}"


Group = dict[str, int | Slots]
Groups = dict[str, Group]
Stays = dict[tuple[str, int], Tensor]  # (tensor, axis) -> True for the entries that stay


def tensor_of(model: nn.Module, name: str) -> Tensor:
    """The parameter or buffer called `name`."""
    path, _, leaf = name.rpartition(".")
    try:
        return getattr(model.get_submodule(path), leaf)
    except AttributeError as error:
        raise ValueError(f"there is no tensor called {name!r} in {type(model).__name__}") from error


def axis_of(place: int | Slots) -> int:
    """The axis along which a tensor is cut."""
    return place.axis if isinstance(place, Slots) else place


def entries_of(tensor: Tensor, place: int | Slots) -> Tensor:
    """entries[c]: where channel c lies along its axis."""
    return place.entries if isinstance(place, Slots) else torch.arange(tensor.shape[place])[:, None]


def channels_in(model: nn.Module, group: Group) -> int:
    """How many channels the group has; every tensor in it must agree."""
    sizes = {name: len(entries_of(tensor_of(model, name), place)) for name, place in group.items()}
    if len(set(sizes.values())) != 1:
        raise ValueError(f"the tensors of a group must have equally many channels, not {sizes}")
    return next(iter(sizes.values()))


def indices(channels: Tensor, count: int) -> Tensor:
    """`channels` as sorted indices, each from 0 to count - 1 and none of them twice."""
    channels = torch.as_tensor(channels, dtype=torch.long).flatten()
    if len(channels.unique()) < len(channels) or not ((channels >= 0) & (channels < count)).all():
        raise ValueError(f"channels are different numbers from 0 to {count - 1}, not {channels.tolist()}")
    return channels.sort().values


def staying(model: nn.Module, groups: Groups, masks: dict[str, Tensor]) -> Stays:
    """What stays of every tensor when of each group only the channels stay that its mask keeps."""
    stays: Stays = {}
    for name, mask in masks.items():
        for tensor, place in groups[name].items():
            old, axis = tensor_of(model, tensor), axis_of(place)
            kept = stays.setdefault((tensor, axis), torch.ones(old.shape[axis], dtype=torch.bool))
            kept[entries_of(old, place)[~mask.cpu()].flatten()] = False
    return stays


@torch.no_grad()
def silence(model: nn.Module, stays: Stays) -> nn.Module:
    """A copy of `model`, as large as before, in which all that writes a channel that goes is zero."""
    silent = copy.deepcopy(model)
    for (name, axis), kept in stays.items():
        if axis != 1 or not name.endswith(".weight"):  # γ, β, the rows of a weight; who reads the channel reads zeros
            tensor = tensor_of(silent, name)
            tensor.index_fill_(axis, (~kept).nonzero().flatten().to(tensor.device), 0)
    for (name, _), kept in stays.items():
        path = name.rpartition(".")[0]
        norm = silent.get_submodule(path)
        if isinstance(norm, nn.LayerNorm) and not kept.all():
            silent.set_submodule(path, NormOfSome(norm, kept))
    return silent


@torch.no_grad()
def cut(model: nn.Module, stays: Stays) -> nn.Module:
    """A smaller copy of `model` with only the entries that stay."""
    small = copy.deepcopy(model)
    for (name, axis), kept in stays.items():
        if not kept.any():
            raise ValueError(f"nothing would be left of {name}: keep at least one channel, give it a floor")
        path, _, leaf = name.rpartition(".")
        module, old = small.get_submodule(path), tensor_of(small, name)
        new = old.index_select(axis, kept.nonzero().flatten().to(old.device))
        setattr(module, leaf, nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new)
        update_sizes(module)
    for (name, axis), kept in stays.items():
        if axis == 0 and name.endswith(".qkv.weight"):
            path = name.removesuffix(".qkv.weight")
            refit(small.get_submodule(path), *left_over(model.get_submodule(path), kept))
    restate(model, small)
    return small


def erase(model: nn.Module, group: Group, gone: Tensor) -> nn.Module:
    """A copy of `model`, as large as before, in which the channels `gone` are silent: all that writes them is zero."""
    mask = torch.ones(channels_in(model, group), dtype=torch.bool)
    mask[indices(gone, len(mask))] = False
    return silence(model, staying(model, {"": group}, {"": mask}))


def shrink(model: nn.Module, group: Group, keep: Tensor) -> nn.Module:
    """A smaller copy of `model` in which only the channels `keep` of the group are left."""
    mask = torch.zeros(channels_in(model, group), dtype=torch.bool)
    mask[indices(keep, len(mask))] = True
    if not mask.any():
        raise ValueError("keep at least one channel: a layer without channels passes nothing on")
    return cut(model, staying(model, {"": group}, {"": mask}))


def update_sizes(module: nn.Module) -> None:
    """Let a layer's own numbers (in_channels, out_features, …) say what its tensors say."""
    if isinstance(module, nn.Conv2d):
        if module.groups > 1:  # whole groups go, so each still writes as many channels as before
            module.groups = module.weight.shape[0] // (module.out_channels // module.groups)
        module.out_channels, module.in_channels = module.weight.shape[0], module.weight.shape[1] * module.groups
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.BatchNorm2d):
        module.num_features = len(module.weight)
    elif isinstance(module, nn.LayerNorm):
        module.normalized_shape = tuple(module.weight.shape)


def restate(model: Any, small: Any) -> None:
    """A timm network also notes the width that its classifier reads; let the smaller one note its own."""
    before, after = (main_classifier(getattr(m, "get_classifier", lambda: None)()) for m in (model, small))
    if isinstance(before, nn.Linear):
        for name in ("num_features", "head_hidden_size", "embed_dim"):
            if getattr(model, name, None) == before.in_features:
                setattr(small, name, after.in_features)


def main_classifier(classifier: Any) -> Any:
    """The first classifier, if there are several: a distilled network has two."""
    return classifier[0] if isinstance(classifier, tuple) else classifier


class NormOfSome(nn.Module):
    """LayerNorm over the channels that stay; the others remain zero.

    LayerNorm divides by the spread of all channels, zeros among them: erasing a channel would change all the others.
    """

    kept: Tensor

    def __init__(self, norm: nn.LayerNorm, kept: Tensor):
        super().__init__()
        self.axis = 1 if type(norm).__name__.endswith("2d") else -1  # timm's LayerNorm2d: channels come second
        self.norm = cut(norm, {(name, 0): kept for name, _ in norm.named_parameters()})
        self.register_buffer("kept", kept.nonzero().flatten().to(norm.weight.device), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        some = self.norm(x.index_select(self.axis, self.kept))
        return torch.zeros_like(x).index_copy(self.axis, self.kept, some)
