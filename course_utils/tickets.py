"""Lottery tickets: copy a network's state, rewind it, and measure whether two trainings end up in the same valley.

A `Snapshot` is a copy of everything in a network's state: weights, biases, BatchNorm's parameters and its statistics.
"""

import copy
from collections.abc import Callable, Container

import torch
from torch import Tensor, nn

from course_utils.checkpoints import load_state
from course_utils.data import Split
from course_utils.masks import Masks, apply_masks, fitting, keep_all
from course_utils.measure import loss
from course_utils.schedules import geometric
from course_utils.scopes import globally, restrict
from course_utils.scores import Criterion
from course_utils.train import Hook

Snapshot = dict[str, Tensor]


def snapshot(model: nn.Module) -> Snapshot:
    """θ: every weight and every buffer, as copies that later training cannot touch."""
    return {name: t.detach().clone() for name, t in model.state_dict().items()}


def rewind(model: nn.Module, past: Snapshot, masks: Masks) -> None:
    """θ ⊙ m: the whole state goes back to `past`, in place, and what the masks remove is zero."""
    load_state(model, past, "this snapshot")
    apply_masks(model, masks)


@torch.no_grad()
def louder(model: nn.Module, masks: Masks) -> None:
    """w ← w / √(part of the layer that is left), in place: sums of fewer terms are as large as before."""
    for name, weight in fitting(model, masks).items():
        left = masks[name].float().mean().clamp_min(1 / masks[name].numel())
        weight.div_(left.sqrt().to(weight.device))


def remembering(model: nn.Module, steps: Container[int], kept: dict[int, Snapshot]) -> Hook:
    """An `after_step` that puts a snapshot into kept[n] when n steps are done, for each n in `steps`."""

    def after_step(step: int) -> None:
        if step + 1 in steps:
            kept[step + 1] = snapshot(model)

    return after_step


def listening(model: nn.Module, split: Split, every: int, heard: list[tuple[float, int]]) -> Hook:
    """An `after_step` that appends (loss on `split`, steps done) after every `every` steps: min(heard) is the best."""

    def after_step(step: int) -> None:
        if (step + 1) % every == 0:
            heard.append((loss(model, split), step + 1))

    return after_step


def chained(*hooks: Hook) -> Hook:
    """One `after_step` that calls several, in this order."""

    def after_step(step: int) -> None:
        for hook in hooks:
            hook(step)

    return after_step


def in_rounds(criterion: Criterion, model: nn.Module, sparsity: float, rounds: int, batches=()) -> list[Masks]:
    """The masks after each round of: score what is left, remove the same fraction of it, globally; no training."""
    pruned, masks, found = copy.deepcopy(model), keep_all(model), []
    for level in geometric(sparsity, rounds):
        masks = globally(restrict(criterion(pruned, batches), masks), level)
        apply_masks(pruned, masks)
        found.append(masks)
    return found


def between(one: Snapshot, other: Snapshot, t: float) -> Snapshot:
    """(1 - t) · one + t · other, number by number; counters are those of `one`."""
    return {name: torch.lerp(a, other[name], t) if a.is_floating_point() else a for name, a in one.items()}


def errors_between(one: Snapshot, other: Snapshot, error: Callable[[Snapshot], float], points: int) -> list[float]:
    """The error at `points` places on the straight line between two networks, the ends included."""
    return [error(between(one, other, t)) for t in torch.linspace(0, 1, points).tolist()]


def barrier(errors: list[float]) -> float:
    """max(path) - mean(ends): how much worse the worst place on the way is than the two ends are on average."""
    return max(errors) - (errors[0] + errors[-1]) / 2
