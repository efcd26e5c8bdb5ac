"""Cuts of a given size: the same part of every group, or as little as meets a budget of MACs; and such shapes anew."""

import copy
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from course_utils.channels import Groups
from course_utils.masks import Masks
from course_utils.measure import macs
from course_utils.models import initialise
from course_utils.scopes import layerwise
from course_utils.scores import Scores
from course_utils.units import mute, remove, unit_chance


def to_budget(
    model: nn.Module, groups: Groups, scores: Scores, scope: Callable, budget: float, example: Tensor
) -> Masks:
    """The masks of the mildest sparsity, to a hundredth, that leaves at most the part `budget` of the MACs."""
    if not 0 < budget <= 1:
        raise ValueError(f"a budget is the part of the MACs that may be left, above 0 and up to 1, not {budget!r}")
    whole, best = macs(model, example), scope(scores, 0.0) if budget == 1 else None
    low, high = 0.0, 1.0
    while budget < 1 and high - low > 0.01:
        middle = (low + high) / 2
        try:
            masks = scope(scores, middle)
            left = macs(remove(model, groups, masks), example) / whole
        except ValueError:  # a floor, or nothing left of a group: too much
            high = middle
            continue
        low, high, best = (low, middle, masks) if left <= budget else (middle, high, best)
    if best is None:
        raise ValueError(f"this scope cannot reach {budget:.0%} of the MACs: lower its floor, or allow more MACs")
    return best


def cut_alike(model: nn.Module, groups: Groups, sparsities: Iterable[float]) -> dict[str, nn.Module]:
    """The whole network, a copy with half of its channels silent, and copies whose groups all lost the same part."""
    scores = unit_chance(model, groups)
    forms = {"whole": model, "half silent": mute(model, groups, layerwise(scores, 0.5))}
    return forms | {f"{s:.0%} removed": remove(model, groups, layerwise(scores, s)) for s in sparsities}


def reborn(model: nn.Module, seed: int) -> nn.Module:
    """A copy of the same shape with new random weights: the control that has learnt nothing but its shape."""
    new = copy.deepcopy(model)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for module in new.modules():
            if callable(reset := getattr(module, "reset_parameters", None)):
                reset()
        initialise(new)
    return new
