"""A group names every tensor that is cut when one channel goes: {"conv1.weight": 0, "bn1.bias": 0, "conv2.weight": 1}.

The number is the axis along which the tensor is cut. Printing a group is the explanation.
"""

import copy

import torch
from torch import Tensor, nn

Group = dict[str, int]


def tensor_of(model: nn.Module, name: str) -> Tensor:
    """The parameter or buffer called `name`."""
    path, _, leaf = name.rpartition(".")
    try:
        return getattr(model.get_submodule(path), leaf)
    except AttributeError as error:
        raise ValueError(f"there is no tensor called {name!r} in {type(model).__name__}") from error


def channels_in(model: nn.Module, group: Group) -> int:
    """How many channels the group has; every tensor in it must agree."""
    sizes = {name: tensor_of(model, name).shape[axis] for name, axis in group.items()}
    if len(set(sizes.values())) != 1:
        raise ValueError(f"the tensors of a group must have equally many channels, not {sizes}")
    return next(iter(sizes.values()))


def indices(channels: Tensor, count: int) -> Tensor:
    """`channels` as sorted indices, each from 0 to count - 1 and none of them twice."""
    channels = torch.as_tensor(channels, dtype=torch.long).flatten()
    if len(channels.unique()) < len(channels) or not ((channels >= 0) & (channels < count)).all():
        raise ValueError(f"channels are different numbers from 0 to {count - 1}, not {channels.tolist()}")
    return channels.sort().values


@torch.no_grad()
def erase(model: nn.Module, group: Group, gone: Tensor) -> nn.Module:
    """A copy of `model`, as large as before, in which the channels `gone` are silent: all that writes them is zero."""
    silent = copy.deepcopy(model)
    gone = indices(gone, channels_in(model, group))
    for name, axis in group.items():
        tensor = tensor_of(silent, name)
        if axis == 0:  # γ, β, the rows of a weight; whoever reads the channel now reads zeros
            tensor.index_fill_(0, gone.to(tensor.device), 0)
    return silent


@torch.no_grad()
def shrink(model: nn.Module, group: Group, keep: Tensor) -> nn.Module:
    """A smaller copy of `model` in which only the channels `keep` of the group are left."""
    small = copy.deepcopy(model)
    keep = indices(keep, channels_in(model, group))
    if len(keep) == 0:
        raise ValueError("keep at least one channel: a layer without channels passes nothing on")
    for name, axis in group.items():
        path, _, leaf = name.rpartition(".")
        module, old = small.get_submodule(path), tensor_of(small, name)
        new = old.index_select(axis, keep.to(old.device))
        setattr(module, leaf, nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new)
        update_sizes(module)
    return small


def update_sizes(module: nn.Module) -> None:
    """Let a layer's own numbers (in_channels, out_features, …) say what its tensors say."""
    if isinstance(module, nn.Conv2d):
        module.out_channels, module.in_channels = module.weight.shape[0], module.weight.shape[1] * module.groups
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.BatchNorm2d):
        module.num_features = len(module.weight)
