"""Walks through Torch-Pruning's dependency graph: from the outputs of a layer to all places where its channels arrive.

Torch-Pruning runs a network once and notes which layer hands its channels on to which, and how their numbers change on
the way. A walk keeps steps, one number each: the place here, shifted by 32 bits, plus the channel that arrives there.
"""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch_pruning import DependencyGraph
from torch_pruning._helpers import _HybridIndex  # (idx, root_idx): the place, and the channel

Steps = np.ndarray
Side = tuple[Any, Callable]  # a node of the graph, and Torch-Pruning's function that would cut its inputs or outputs
Reached = dict[Side, Steps]
TABLES = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


def traced(model: nn.Module, example: Tensor) -> DependencyGraph:
    """Torch-Pruning's graph of a copy of the network, in evaluation mode and with gradients; the weights are shared."""
    shared = {id(p): nn.Parameter(p.detach()) for p in model.parameters()}
    probe = copy.deepcopy(model, shared).eval()
    for module in probe.modules():
        if hasattr(module, "fused_attn"):
            setattr(module, "fused_attn", False)  # noqa: B010
    with torch.enable_grad():
        graph = DependencyGraph().build_dependency(probe, (example,), output_transform=alone, verbose=False)
    for name, module in probe.named_modules():
        if type(module).__name__ == "PatchMerging":
            tile(graph, probe.get_submodule(f"{name}.norm"), int(getattr(module, "dim", 0)))
    return graph


def alone(output: object) -> Tensor:
    """What the network returns, if it is one tensor."""
    if not isinstance(output, Tensor):
        raise ValueError(f"groups are found for networks that return one tensor, not {type(output).__name__}")
    return output


def tile(graph: DependencyGraph, norm: nn.Module, width: int) -> None:
    """Swin merges 2 × 2 patches: channel c of a patch comes to lie at c, c + width, c + 2 width and c + 3 width."""
    node = graph.module2node.get(norm)
    if node is None or tuple(getattr(norm, "normalized_shape", ())) != (4 * width,):
        return
    for source in node.inputs:
        for dep in source.dependencies:
            if dep.target is node:
                dep.index_mapping[0] = lambda there: [
                    _HybridIndex(s.idx + k * width, s.root_idx) for s in there for k in range(4)
                ]
        for dep in node.dependencies:
            if dep.target is source:
                dep.index_mapping[0] = lambda there: [_HybridIndex(s.idx % width, s.root_idx) for s in there]


def walks(graph: DependencyGraph) -> Iterator[tuple[str, Reached]]:
    """Every layer that writes channels of its own, and where these arrive; the class scores are not among them."""
    done: Reached = {}
    for name, layer in graph.model.named_modules():
        if layer in graph.module2node and isinstance(layer, TABLES) and not name.endswith(".qkv"):
            side = (graph.module2node[layer], graph.get_pruner_of_module(layer).prune_out_channels)
            new = np.setdiff1d(np.arange(layer.weight.shape[0]), done.get(side, steps([], [])) >> 32)
            reached = walk(graph, side, steps(new, new)) if len(new) else {}
            for each, found in reached.items():
                done[each] = np.union1d(done[each], found) if each in done else found
            if reached and all(node.outputs or not writes(graph, node, cutter) for node, cutter in reached):
                yield name, reached


def steps(places: Any, channels: Any) -> Steps:
    """Each place with the channel that arrives there, as one number."""
    return (np.asarray(places, dtype=np.int64) << 32) + np.asarray(channels, dtype=np.int64)


def apart(found: Steps) -> tuple[np.ndarray, np.ndarray]:
    """The places, and the channels that arrive there."""
    return found >> 32, found & 0xFFFFFFFF


def writes(graph: DependencyGraph, node: Any, cutter: Callable) -> bool:
    """Is this the side of the node's outputs? Norms have the same channels on both."""
    return cutter == graph.get_pruner_of_module(node.module).prune_out_channels


def walk(graph: DependencyGraph, side: Side, found: Steps) -> Reached:
    """Where the channels arrive that begin here."""
    reached: Reached = {}
    stack = [(side, found)]
    while stack:
        side, found = stack.pop()
        known = side in reached
        if known and np.array_equal(reached[side], found):
            continue
        fresh = np.setdiff1d(found, reached[side]) if known else distinct(found)
        if len(fresh):
            reached[side] = np.union1d(reached[side], fresh) if known else fresh
            stack += [*neighbours(*side, fresh), *across(graph, *side, fresh)]
    return reached


def distinct(found: Steps) -> Steps:
    """The same steps in order, each once; sorting is faster here than numpy's table of what was seen."""
    order = np.sort(found)
    return order[np.append(True, order[1:] != order[:-1])] if len(order) else order


def neighbours(node: Any, cutter: Callable, found: Steps) -> Iterator[tuple[Side, Steps]]:
    """The sides that are cut along with this one, and the steps to there."""
    for dep in node.dependencies:
        if dep.is_triggered_by(cutter):
            moved = found
            for mapping in filter(None, dep.index_mapping):
                there = mapping(
                    [_HybridIndex(*step) for step in zip(*map(np.ndarray.tolist, apart(moved)), strict=True)]
                )
                moved = steps([step.idx for step in there], [step.root_idx for step in there])
            yield (dep.target, dep.handler), moved


def across(graph: DependencyGraph, node: Any, cutter: Callable, found: Steps) -> Iterator[tuple[Side, Steps]]:
    """From one side of a convolution in groups to its other side: such a group goes as a whole."""
    layer, pruner = node.module, graph.get_pruner_of_module(node.module)
    if getattr(layer, "groups", 1) > 1:
        sizes = {pruner.prune_in_channels: layer.in_channels, pruner.prune_out_channels: layer.out_channels}
        places, channels = apart(found)
        group, first = np.unique(places // (sizes[cutter] // layer.groups), return_index=True)
        for other, size in sizes.items():
            wide = size // layer.groups
            yield (node, other), steps(places // (sizes[cutter] // layer.groups) * wide, channels)  # all meet here
            yield (node, other), steps(group[:, None] * wide + np.arange(wide), channels[first][:, None]).ravel()
