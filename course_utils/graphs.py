"""Groups of any network's channels, out of Torch-Pruning's dependency graph; attention's come from its own layout.

We walk from each layer's outputs through the graph and collect the tensors in which its channels arrive. Channels that
arrive at the same place are one: those of a convolution in groups, for example, go together as a whole group.
"""

from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor, nn
from torch_pruning import DependencyGraph

from course_utils.attentions import Reasons, attentions
from course_utils.channels import Group, Groups, Slots, tensor_of
from course_utils.naming import labelled
from course_utils.proof import noise, scrambled, unfit
from course_utils.walks import TABLES, Reached, apart, steps, traced, walks, writes

Place = tuple[str, int]  # a tensor, and the axis along which it is cut
VECTORS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.LayerNorm, nn.PReLU)
LEAVES = ("weight", "bias", "running_mean", "running_var")


def groups_of(model: nn.Module, example: Tensor) -> Groups:
    """The groups of channels that can be cut exactly, by the name of the layer that writes them."""
    groups, reasons = survey(model, example)
    if not groups:
        first = next((f"{name}: {why}" for name, why in reasons.items()), "it has no inner channels")
        raise ValueError(f"nothing of {type(model).__name__} can be cut exactly; {first}")
    return groups


def left_out(model: nn.Module, example: Tensor) -> Reasons:
    """Why the other channels cannot be cut, by the name of the layer that writes them."""
    return survey(model, example)[1]


def survey(model: nn.Module, example: Tensor) -> tuple[Groups, Reasons]:
    """The groups that can be cut, proven by numbers, and why the others cannot."""
    groups, reasons = suggested(model, example)
    for name in unfit(scrambled(model, seed=0), groups, noise(example, seed=0), seed=0):
        reasons[name] = "erasing its channels is not removing them, so they reach something that cannot be followed"
        del groups[name]
    return groups, reasons


def suggested(model: nn.Module, example: Tensor) -> tuple[Groups, Reasons]:
    """The groups that Torch-Pruning's graph suggests, not yet proven, and why some channels are in none."""
    graph = traced(model, example)
    groups, reasons = attentions(graph.model)
    order = {name: i for i, name in enumerate(graph.model.state_dict())}
    found: list[Group] = []
    for name, reached in walks(graph):
        try:
            found += assembled(graph, reached, order)
        except ValueError as error:
            reasons[name] = str(error)
    groups |= labelled(graph.model, found)
    reasons |= shared(graph.model, groups)
    return {name: group for name, group in groups.items() if name not in reasons}, reasons


def shared(model: nn.Module, groups: Groups) -> Reasons:
    """The groups that reach a tensor which two layers share: cut for one of them, it would be cut for the other."""
    owners: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owners.setdefault(id(parameter), []).append(name)
    twins = {name: names for names in owners.values() if len(names) > 1 for name in names}
    found = {name: twins[tensor] for name, group in groups.items() for tensor in group if tensor in twins}
    return {name: f"{' and '.join(tensors[:2])} are one tensor" for name, tensors in found.items()}


def assembled(graph: DependencyGraph, reached: Reached, order: dict[str, int]) -> list[Group]:
    """The group of these channels; several if some channels reach other tensors than the rest."""
    unit = united(reached)
    merged = len(unit) > unit.max() + 1
    found: dict[Place, np.ndarray] = {}
    for (node, cutter), there in reached.items():
        entries, channels = apart(there)
        for place in places(graph, node, writes(graph, node, cutter)):
            new = steps(unit[channels], entries)
            found[place] = np.union1d(found.get(place, new), new) if place in found or merged else np.sort(new)
    found = dict(sorted(found.items(), key=lambda item: order[item[0][0]]))
    counts = np.stack([np.bincount(there >> 32, minlength=unit.max() + 1) for there in found.values()], 1)
    kinds, kind = np.unique(counts, axis=0, return_inverse=True)
    groups = {
        int(np.argmax(kind == k)): collected(graph.model, found, row, kind == k)
        for k, row in enumerate(kinds)
        if row.any()
    }
    return [group for _, group in sorted(groups.items(), key=lambda pair: pair[0])]


def united(reached: Reached) -> np.ndarray:
    """unit[channel]: the same number for channels that share a place with each other."""
    channels = count = max(int(apart(there)[1].max()) for there in reached.values()) + 1
    if all(np.bincount(there >> 32).max() == 1 for there in reached.values()):  # no place is shared
        return np.arange(channels)
    edges = []
    for there in reached.values():
        entries, channel = apart(there)
        edges.append((channel, entries + count))
        count += int(entries.max()) + 1
    ends = tuple(np.concatenate(each) for each in zip(*edges, strict=True))
    labels = connected_components(coo_array((np.ones(len(ends[0])), ends), (count, count)), directed=False)[1]
    return np.unique(labels[:channels], return_inverse=True)[1]


def places(graph: DependencyGraph, node: Any, out: bool) -> list[tuple[str, int]]:
    """The tensors that are cut here, and their axes; a layer that we cannot cut is refused."""
    layer, name = node.module, graph._module2name.get(node.module, "")
    if isinstance(layer, nn.Parameter):
        return [(graph._param_to_name[layer], node.pruning_dim % layer.ndim)]
    if not name:
        return []  # an operation without tensors
    if not isinstance(layer, TABLES + VECTORS):
        raise ValueError(f"{name} is a {type(layer).__name__}, which is not cut here")
    if isinstance(layer, nn.LayerNorm) and (layer.weight is None or layer.weight.ndim > 1):
        raise ValueError(f"{name} is a LayerNorm without one γ for each channel, which is not cut here")
    if isinstance(layer, TABLES) and not out:
        return [(f"{name}.weight", 1)] if getattr(layer, "groups", 1) == 1 else []
    return [(f"{name}.{leaf}", 0) for leaf in LEAVES if isinstance(getattr(layer, leaf, None), Tensor)]


def collected(model: nn.Module, found: dict[Place, np.ndarray], counts: np.ndarray, units: np.ndarray) -> Group:
    """One group: for every tensor its axis, and the entries of each channel unless channel c is entry c."""
    group: Group = {}
    for ((name, axis), there), count in zip(found.items(), counts, strict=True):
        if count:
            if name in group:
                raise ValueError(f"{name} reads and writes the same channels, which a group cannot say")
            unit, entry = apart(there)
            entries = torch.from_numpy(entry[units[unit]].reshape(-1, count))
            size = tensor_of(model, name).shape[axis]
            if entries.max() >= size:
                raise ValueError(
                    f"its channels cannot be followed to {name}, which has {size} entries along axis {axis}"
                )
            group[name] = axis if torch.equal(entries, torch.arange(size)[:, None]) else Slots(axis, entries)
    return group
