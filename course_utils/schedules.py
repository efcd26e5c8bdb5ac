"""A schedule is an iterator of sparsities: how much is gone after each round of pruning.

A timetable, {step: sparsity}, says when in a training each of them is due; `gradually` is the hook that keeps to it.
"""

from collections.abc import Callable, Iterable, Iterator

from torch import nn

from course_utils.masks import Masks, apply_masks
from course_utils.scopes import fraction, globally, restrict
from course_utils.scores import Criterion, magnitude
from course_utils.train import Hook, hold

Scope = Callable[..., Masks]
Timetable = dict[int, float]  # step -> what is gone before it


def one_shot(final: float) -> Iterator[float]:
    """s: everything goes at once."""
    return iter([fraction(final)])


def even(final: float, rounds: int) -> Iterator[float]:
    """s k/n: each round removes the same number of the original weights."""
    final = fraction(final)
    return (final * (k / rounds) for k in counting(rounds))


def geometric(final: float, rounds: int) -> Iterator[float]:
    """1 - (1 - s)^(k/n): each round removes the same fraction of the weights that are left."""
    final = fraction(final)
    return (1 - (1 - final) ** (k / rounds) for k in counting(rounds))


def cubic(final: float, rounds: int, initial: float = 0.0) -> Iterator[float]:
    """s - (s - s₀)(1 - k/n)³: fast while there is much to remove, slow towards the end."""
    final, initial = fraction(final), fraction(initial)
    return (final - (final - initial) * (1 - k / rounds) ** 3 for k in counting(rounds))


def counting(rounds: int) -> range:
    """1, 2, …, rounds."""
    if not isinstance(rounds, int) or rounds < 1:
        raise ValueError(f"rounds is a whole number from 1 on, not {rounds!r}")
    return range(1, rounds + 1)


def timed(levels: Iterable[float], steps: int) -> Timetable:
    """{step: sparsity}: a timetable with the levels at equal distances, the first one before any step."""
    levels = list(levels)
    if not 0 < len(levels) <= steps:
        raise ValueError(f"{len(levels)} rounds do not fit into {steps} steps: take at least one, and at most {steps}")
    return {k * steps // len(levels): level for k, level in enumerate(levels)}


def gradually(
    model: nn.Module, masks: Masks, timetable: Timetable, criterion: Criterion = magnitude, scope: Scope = globally
) -> Hook:
    """An `after_step` that tightens `masks`, in place, before each step of the timetable, and holds weights to them.

    What is due before step 0 goes at once. What is removed stays removed: it is the first in line at every decision.
    What is due after the last step never goes: `sparsity_of(masks)` says what is gone.
    """
    waiting, hooks = checked(timetable), [hold(model, masks)]

    def tighten(step: int) -> None:
        masks.update(scope(restrict(criterion(model), masks), waiting.pop(step)))
        apply_masks(model, masks)
        hooks[0] = hold(model, masks)

    def after_step(step: int) -> None:
        if waiting and min(waiting) <= step:
            raise ValueError(f"step {step} is over, and the cut before step {min(waiting)} was missed: begin anew")
        hooks[0](step)
        if step + 1 in waiting:
            tighten(step + 1)

    if 0 in waiting:
        tighten(0)
    return after_step


def checked(timetable: Timetable) -> Timetable:
    """A copy, in order; refuses what is no sparsity, and a level by which something would come back."""
    ordered = {step: fraction(level) for step, level in sorted(timetable.items())}
    if list(ordered.values()) != sorted(ordered.values()):
        raise ValueError(f"a timetable only goes up, because what is removed stays removed; this one is {timetable}")
    return ordered
