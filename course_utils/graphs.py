"""Groups of any network's channels, out of Torch-Pruning's dependency graph; attention's come from its own layout.

Torch-Pruning runs the network once and notes which layer hands its channels on to which. From each layer's outputs we
walk through this graph and write down where in which layers a channel arrives. What arrives at the same place is one
channel: those of a convolution in groups, for example, go together as a whole group.
"""

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor, nn
from torch_pruning import DependencyGraph
from torch_pruning._helpers import _HybridIndex as Step  # idx: a place here, root_idx: the channel that arrives there

from course_utils.channels import Group, Groups, Slots, axis_of, tensor_of
from course_utils.proof import noise, scrambled, unfit
from course_utils.vits import packed

Reached = dict[tuple[Any, Callable], set[Step]]  # (node, what would cut its inputs or outputs) -> what arrives there
Reasons = dict[str, str]
TABLES = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
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
    graph = traced(model, example)
    groups, reasons = attentions(graph.model)
    found: list[Group] = []
    for name, reached in walks(graph):
        try:
            found += assembled(graph, reached)
        except ValueError as error:
            reasons[name] = str(error)
    groups |= labelled(graph.model, found)
    for name in unfit(scrambled(model, seed=0), groups, noise(example, seed=0), seed=0):
        reasons[name] = "erasing its channels is not removing them, so they reach something that cannot be followed"
        del groups[name]
    return groups, reasons


# --- the graph and the walk through it ------------------------------------------------------------------------------


def traced(model: nn.Module, example: Tensor) -> DependencyGraph:
    """Torch-Pruning's graph of a copy of the network, in evaluation mode and with gradients."""
    probe = copy.deepcopy(model).eval().requires_grad_(True)
    for module in probe.modules():
        if hasattr(module, "fused_attn"):
            setattr(module, "fused_attn", False)  # noqa: B010
    with torch.enable_grad():
        if not isinstance(probe(example), Tensor):
            raise ValueError(f"{type(model).__name__} does not return one tensor: wrap it so that it does")
        graph = DependencyGraph().build_dependency(probe, (example,), verbose=False)
    for name, module in probe.named_modules():
        if type(module).__name__ == "PatchMerging":
            tile(graph, probe.get_submodule(f"{name}.norm"), int(getattr(module, "dim", 0)))
    return graph


def tile(graph: DependencyGraph, norm: nn.Module, width: int) -> None:
    """Swin merges 2 × 2 patches: channel c of one patch lies at c, c + width, c + 2 width and c + 3 width."""
    node = graph.module2node.get(norm)
    if node is None or tuple(getattr(norm, "normalized_shape", ())) != (4 * width,):
        return
    for source in node.inputs:
        for dep in source.dependencies:
            if dep.target is node:
                dep.index_mapping[0] = lambda steps: [
                    Step(s.idx + k * width, s.root_idx) for s in steps for k in range(4)
                ]
        for dep in node.dependencies:
            if dep.target is source:
                dep.index_mapping[0] = lambda steps: [Step(s.idx % width, s.root_idx) for s in steps]


def walks(graph: DependencyGraph) -> Iterator[tuple[str, Reached]]:
    """Every layer that writes channels of its own, and where these arrive; not the class scores."""
    done: Reached = {}
    for name, layer in graph.model.named_modules():
        if layer in graph.module2node and isinstance(layer, TABLES) and not name.endswith(".qkv"):
            side = (graph.module2node[layer], graph.get_pruner_of_module(layer).prune_out_channels)
            seen = {step.idx for step in done.get(side, ())}
            reached = walk(graph, side, [Step(c, c) for c in range(layer.weight.shape[0]) if c not in seen])
            for each, steps in reached.items():
                done.setdefault(each, set()).update(steps)
            if reached and all(node.outputs or not writes(graph, node, cutter) for node, cutter in reached):
                yield name, reached


def walk(graph: DependencyGraph, side: tuple[Any, Callable], steps: list[Step]) -> Reached:
    """Where the channels arrive that begin at `steps` of this side."""
    reached: Reached = {}
    stack = [(side, steps)] if steps else []
    while stack:
        side, steps = stack.pop()
        fresh = set(steps) - reached.setdefault(side, set())
        reached[side] |= fresh
        stack += [(onward, moved) for onward, moved in neighbours(graph, *side, fresh) if moved]
    return reached


def neighbours(graph: DependencyGraph, node: Any, cutter: Callable, steps: set[Step]) -> Iterator:
    """The sides next to this one, with what arrives there."""
    for dep in node.dependencies if steps else ():
        if dep.is_triggered_by(cutter):
            moved = list(steps)
            for mapping in filter(None, dep.index_mapping):
                moved = mapping(moved)
            yield (dep.target, dep.handler), moved
    layer, pruner = node.module, graph.get_pruner_of_module(node.module)
    if getattr(layer, "groups", 1) > 1 and steps:  # a convolution in groups: one goes as a whole, inputs and outputs
        sizes = {pruner.prune_in_channels: layer.in_channels, pruner.prune_out_channels: layer.out_channels}
        own = sizes[cutter] // layer.groups
        some = {s.idx // own: s.root_idx for s in steps}
        for other, size in sizes.items():
            wide = size // layer.groups
            moved = [Step(s.idx // own * wide, s.root_idx) for s in steps]  # all meet at the first place
            yield (node, other), moved + [Step(g * wide + k, c) for g, c in some.items() for k in range(1, wide)]


def writes(graph: DependencyGraph, node: Any, cutter: Callable) -> bool:
    """Is this the side of the node's outputs? Norms have the same channels on both."""
    return cutter == graph.get_pruner_of_module(node.module).prune_out_channels


# --- from places in layers to tensors and axes ----------------------------------------------------------------------


def assembled(graph: DependencyGraph, reached: Reached) -> list[Group]:
    """The group of these channels; several if some channels reach other tensors than the rest."""
    channel = united(reached)
    units: dict[int, dict[tuple[str, int], set[int]]] = {}
    for (node, cutter), steps in reached.items():
        for place in places(graph, node, writes(graph, node, cutter)):
            for step in steps:
                units.setdefault(channel[step.root_idx], {}).setdefault(place, set()).add(step.idx)
    alike: dict[tuple, list] = {}
    for _, unit in sorted(units.items()):
        alike.setdefault(tuple(sorted((place, len(entries)) for place, entries in unit.items())), []).append(unit)
    return [collected(graph.model, same) for same in alike.values()]


def united(reached: Reached) -> dict[int, int]:
    """For each channel at the beginning the first of those that it shares a place with."""
    first: dict[int, int] = {}

    def root(c: int) -> int:
        while first.setdefault(c, c) != c:
            c = first[c]
        return c

    for steps in reached.values():
        owner: dict[int, int] = {}
        for step in steps:
            a, b = sorted((root(step.root_idx), root(owner.setdefault(step.idx, step.root_idx))))
            first[b] = a
    return {c: root(c) for c in first}


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


def collected(model: nn.Module, units: list[dict[tuple[str, int], set[int]]]) -> Group:
    """One group: for every tensor its axis, and the places of each channel unless channel c is entry c."""
    order = {name: i for i, name in enumerate(model.state_dict())}
    group: Group = {}
    for name, axis in sorted(units[0], key=lambda place: order[place[0]]):
        if name in group:
            raise ValueError(f"{name} reads and writes the same channels, which a group cannot say")
        entries = torch.tensor([sorted(unit[name, axis]) for unit in units])
        size = tensor_of(model, name).shape[axis]
        if entries.max() >= size:
            raise ValueError(f"{name} has {size} entries along axis {axis}, and channels seem to reach {entries.max()}")
        group[name] = axis if torch.equal(entries, torch.arange(size)[:, None]) else Slots(axis, entries)
    return group


def labelled(model: nn.Module, groups: list[Group]) -> Groups:
    """Each group with a name: the layer that writes it, or the part of the network that all its writers are in."""
    paths = [[n.removesuffix(".weight") for n, place in g.items() if is_writer(model, n, place)] for g in groups]
    firsts = [names[0] if names else next(iter(g)) for names, g in zip(paths, groups, strict=True)]
    parts = [common(names) or stem(g, first) for names, g, first in zip(paths, groups, firsts, strict=True)]
    count, found = Counter(parts), {}
    for part, first, group in zip(parts, firsts, groups, strict=True):
        name = part if count[part] == 1 else first
        found[name if name not in found else f"{name} ({len(found)})"] = group
    return found


def is_writer(model: nn.Module, name: str, place: int | Slots) -> bool:
    """Is this a table whose rows write the channels? A depthwise convolution only passes each of them on."""
    path, _, leaf = name.rpartition(".")
    layer = model.get_submodule(path)
    return leaf == "weight" and isinstance(layer, TABLES) and axis_of(place) == 0 and not depthwise(layer)


def depthwise(layer: Any) -> bool:
    """Does every output of this layer read one input of its own?"""
    return getattr(layer, "groups", 1) > 1 and layer.weight.shape[1] == 1


def common(names: list[str]) -> str:
    """The longest path that all these names begin with: layer1 for layer1.0.conv3 and layer1.1.conv3."""
    alike = takewhile(lambda words: len(set(words)) == 1, zip(*(name.split(".") for name in names), strict=False))
    return ".".join(words[0] for words in alike)


def stem(group: Group, first: str) -> str:
    """What to call a stream through the whole network: the embedding of a transformer, else its first layer."""
    return "embedding" if any("embed" in name for name in group) else first


# --- attention ------------------------------------------------------------------------------------------------------


def attentions(model: nn.Module) -> tuple[Groups, Reasons]:
    """Heads and their dimensions of every attention with packed rows, and why some cannot be cut."""
    groups, reasons = {}, {}
    for name, module in model.named_modules():
        if isinstance(getattr(module, "qkv", None), nn.Module):
            if odd := oddity(module):
                reasons[f"{name}.qkv"] = f"{name} is an attention ({type(module).__name__}) {odd}"
                continue
            own = packed(name, module)
            own[f"{name}.heads"] |= {f"{name}.{table}": axis for table, axis in tables(module).items()}
            if is_there(module, "q_norm"):
                del own[f"{name}.dims"]
                reasons[f"{name}.dims"] = f"{name} normalises its queries over the dimensions of a head"
            groups |= own
    return groups, reasons


def is_there(module: nn.Module, part: str) -> bool:
    """Has the module this part, and does the part do something?"""
    return not isinstance(getattr(module, part, None), nn.Identity | None)


def oddity(attention: Any) -> str:
    """What makes an attention's rows other than (q, k, v) × heads × dimensions; nothing if they are."""
    parts = (attention.qkv, getattr(attention, "proj", None))
    if not all(isinstance(part, nn.Linear) for part in parts) or not hasattr(attention, "num_heads"):
        return "that does not keep its heads in linear layers qkv and proj"
    if attention.qkv.out_features != 3 * attention.proj.in_features:
        return "whose queries, keys and values are not equally many"
    if is_there(attention, "norm") or is_there(attention, "gate"):
        return "that normalises or gates all heads together"
    return ""


def tables(attention: Any) -> dict[str, int]:
    """Tables of relative positions, which have one column, or one map, for each head."""
    return {
        name: list(table.shape).index(attention.num_heads)
        for name, table in attention.named_parameters()
        if name.endswith("relative_position_bias_table")
    }
