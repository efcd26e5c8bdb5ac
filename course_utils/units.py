"""A unit is a channel or a neuron, and goes as a whole: criterion(model, groups, batches) -> one score for each unit.

`groups` says what belongs to a unit ({"layer1.0.conv1": {"layer1.0.conv1.weight": 0, …}}); scores and masks have the
groups' names as keys, and the scopes are the same as for weights: small scores go first, True keeps.
"""

from collections.abc import Iterable

import torch
from torch import nn

from course_utils.channels import Group, Groups, axis_of, channels_in, cut, silence, staying, tensor_of
from course_utils.masks import Masks
from course_utils.scores import Scores


def inner(model: nn.Module) -> Groups:
    """The groups that one layer alone writes: all but the residual streams, which many layers write together."""
    groups = getattr(model, "groups", None)
    if not callable(groups):
        raise ValueError(f"{type(model).__name__} has no groups(): write down which tensors belong to a channel")
    written = {name: [n for n, place in group.items() if axis_of(place) == 0] for name, group in groups().items()}
    tables = {name: [n for n in names if tensor_of(model, n).ndim > 1] for name, names in written.items()}
    return {name: group for name, group in groups().items() if len(tables[name]) == 1}


def writers(model: nn.Module, group: Group) -> list[str]:
    """The weights that write the group's units, one row for each unit."""
    return [
        n
        for n, place in group.items()
        if axis_of(place) == 0 and n.endswith(".weight") and tensor_of(model, n).ndim > 1
    ]


def readers(group: Group) -> list[str]:
    """The weights that read the group's units, one column for each unit."""
    return [n for n, place in group.items() if axis_of(place) == 1 and n.endswith(".weight")]


def scales(model: nn.Module, group: Group) -> list[str]:
    """The BatchNorm scales γ of the group's units."""
    return [
        n
        for n, place in group.items()
        if axis_of(place) == 0 and n.endswith(".weight") and tensor_of(model, n).ndim == 1
    ]


def unit_norm(model: nn.Module, groups: Groups, batches: Iterable = ()) -> Scores:
    """‖w‖₂ of the weights that write a unit: magnitude, for units."""
    found = {}
    for name, group in groups.items():
        rows = [tensor_of(model, writer).detach().flatten(1) for writer in writers(model, group)]
        found[name] = torch.cat(rows, 1).norm(dim=1)
    return found


def bn_scale(model: nn.Module, groups: Groups, batches: Iterable = ()) -> Scores:
    """|γ|: how loudly BatchNorm lets a unit speak; summed if several BatchNorms write the same stream."""
    found = {}
    for name, group in groups.items():
        gammas = [tensor_of(model, scale).detach().abs() for scale in scales(model, group)]
        if not gammas:
            raise ValueError(f"no BatchNorm writes the units of {name}: there is no γ to look at; take unit_norm")
        found[name] = torch.stack(gammas).sum(0)
    return found


def unit_chance(model: nn.Module, groups: Groups, batches: Iterable = (), seed: int = 0) -> Scores:
    """A random number for each unit: the control."""
    random = torch.Generator().manual_seed(seed)
    counts = {name: channels_in(model, group) for name, group in groups.items()}
    device = next(model.parameters()).device
    return {name: torch.rand(count, generator=random).to(device) for name, count in counts.items()}


def mute(model: nn.Module, groups: Groups, masks: Masks) -> nn.Module:
    """A copy of `model`, as large as before, in which the removed units are silent (γ = β = 0)."""
    return silence(model, staying(model, groups, matching(model, groups, masks)))


def remove(model: nn.Module, groups: Groups, masks: Masks) -> nn.Module:
    """A smaller copy of `model` without the removed units; all groups are cut at once."""
    for name, mask in matching(model, groups, masks).items():
        if not mask.any():
            raise ValueError(f"{name} would lose all its units: give it a floor, at_least(scores, 1)")
    return cut(model, staying(model, groups, masks))


def matching(model: nn.Module, groups: Groups, masks: Masks) -> Masks:
    """The masks, if they fit the groups of this network."""
    for name, mask in masks.items():
        if mask.dtype != torch.bool:
            raise ValueError(f"a mask is made of True and False; that of {name} holds {mask.dtype}")
        if name not in groups or mask.shape != (channels_in(model, groups[name]),):
            raise ValueError(f"these masks belong to other units: {name} with {tuple(mask.shape)} does not fit")
    return masks
