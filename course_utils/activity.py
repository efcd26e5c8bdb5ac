"""What units do while pictures pass: how often each is exactly zero (APoZ), and how strong it is on average.

Zeros are counted where they are made: on the result of the very ReLU that follows a unit's BatchNorm (or, if there is
none, its convolution or linear layer), whatever form that ReLU has. Counts are whole numbers.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from course_utils.calibration import Batches, samples, watching
from course_utils.measure import evaluating
from course_utils.scores import Scores
from course_utils.units import Groups, readers, scales, writers

RELUS = (torch.ops.aten.relu.default, torch.ops.aten.relu_.default)


class ReluWatch(TorchDispatchMode):
    """Inside the block, call see(input, output) for every ReLU: a function or a layer, in place or not."""

    def __init__(self, see: Callable):
        super().__init__()
        self.see = see

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in RELUS:
            self.see(args[0], result)
        return result


def positions(x: Tensor) -> Tensor:
    """One row for each position (image × pixel), one column for each unit."""
    return (x.movedim(1, -1) if x.ndim == 4 else x).flatten(0, -2)


def last_layers(model: nn.Module, groups: Groups) -> dict[str, str]:
    """The layers whose outputs go into the ReLU (BatchNorms, or else the writers), with the names of their groups."""
    pairs = [(name, label) for label, group in groups.items() for name in scales(model, group) or writers(model, group)]
    return {name.removesuffix(".weight"): label for name, label in pairs}


def zeros(model: nn.Module, groups: Groups, batches: Batches) -> dict[str, tuple[Tensor, int]]:
    """For each group: how many zeros each unit shows after its ReLU, and the number of positions looked at."""
    layers, waiting, found = last_layers(model, groups), {}, {}

    def announce(layer: str, x: Tensor, output: Tensor) -> None:
        waiting[id(output)] = layers[layer], output  # kept alive, so that its id stays its own

    def count(before: Tensor, after: Tensor) -> None:
        if id(before) in waiting:
            label, _ = waiting.pop(id(before))
            zero, (old, seen) = positions(after) == 0, found.get(label, (0, 0))
            found[label] = old + zero.sum(0), seen + len(zero)

    with evaluating(model), watching(model, layers, announce), ReluWatch(count):
        for x, _ in samples(model, batches):
            model(x)
            followed(groups, found, [label for label, _ in waiting.values()])
    return {label: found[label] for label in groups}


def followed(groups: Groups, found: Iterable[str], waiting: list[str]) -> None:
    """Refuse groups whose output no ReLU has seen."""
    for label in [*waiting, *(label for label in groups if label not in found)]:
        raise ValueError(f"no ReLU follows {label}: its units are never exactly zero; use mean_activity")


def apoz(model: nn.Module, groups: Groups, batches: Batches) -> Scores:
    """zeros / positions: the fraction of images and pixels at which a unit is exactly zero. The LARGEST go first."""
    return {label: count.double() / seen for label, (count, seen) in zeros(model, groups, batches).items()}


def awake(model: nn.Module, groups: Groups, batches: Batches) -> Scores:
    """1 - APoZ: the fraction of images and pixels at which a unit is not zero. As always, small scores go first."""
    return {label: 1 - silent for label, silent in apoz(model, groups, batches).items()}


def relative(scores: Scores) -> Scores:
    """s / mean(s) of its layer: each unit is compared with its neighbours before the layers compete."""
    return {label: s / s.mean() if s.any() else s for label, s in scores.items()}


def mean_activity(model: nn.Module, groups: Groups, batches: Batches) -> Scores:
    """mean |a| of what the next layer receives from a unit: also where nothing is exactly zero (GELU)."""
    layers = {name.removesuffix(".weight"): label for label, group in groups.items() for name in readers(group)}
    found: dict[str, tuple] = {}

    def add(layer: str, x: Tensor, output: Tensor) -> None:
        rows, (old, seen) = positions(x).abs(), found.get(layers[layer], (0, 0))
        found[layers[layer]] = old + rows.sum(0, dtype=torch.float64), seen + len(rows)

    with evaluating(model), watching(model, layers, add):
        for x, _ in samples(model, batches):
            model(x)
    return {label: total / seen for label, (total, seen) in found.items()}
