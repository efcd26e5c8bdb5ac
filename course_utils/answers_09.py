"""The exercises of notebook 09: their solutions, and the mistakes that people make. Read this after you have tried."""

from itertools import pairwise

import torch
from torch import Tensor

from course_utils.exercises import Exercise
from course_utils.masks import Masks, sparsity_of
from course_utils.schedules import cubic
from course_utils.scopes import fraction, globally, layerwise, restrict
from course_utils.scores import Scores


def some_schedules() -> list[tuple]:
    """Final and initial sparsities that differ, and several numbers of rounds."""
    return [(0.9, 0.0, 3), (0.95, 0.5, 4), (0.8, 0.3, 6)]


def climbing(final: float, initial: float, rounds: int) -> list[float]:
    """The cubic schedule, as a list."""
    return list(cubic(final, rounds, initial))


def powers(final: float, initial: float, xs: list[float], power: int = 3) -> list[float]:
    """s - (s - s₀)(1 - x)^power at these x."""
    return [final - (final - initial) * (1 - min(x, 1)) ** power for x in xs]


def places(rounds: int, first: int = 1, end: int | None = None) -> list[float]:
    """k / end for `rounds` numbers k, from `first` on."""
    return [k / (end or rounds) for k in range(first, first + rounds)]


def increments(final: float, initial: float, rounds: int) -> list[float]:
    """What each round adds."""
    levels = [initial, *climbing(final, initial, rounds)]
    return [after - before for before, after in pairwise(levels)]


rise = Exercise(
    task="A list of the sparsities after rounds 1, 2, …, n of the cubic schedule that begins at `initial`.",
    solution=climbing,
    cases=some_schedules,
    hints=(
        "After round k the fraction k / rounds of the way is done: 1 - k / rounds is left.",
        "What still has to go after round k: (final - initial) * (1 - k / rounds) ** 3.",
        "Subtract that from final, for k = 1, 2, …, rounds: range(1, rounds + 1).",
    ),
    mistakes={
        "You forgot where it begins: the distance to go is final - initial, and not final.": (
            lambda final, initial, n: powers(final, 0.0, places(n))
        ),
        "You count k from 0: the first round removes nothing, and the last one does not arrive. Count from 1 to n.": (
            lambda final, initial, n: powers(final, initial, places(n, 0))
        ),
        "You give n + 1 numbers: the sparsity before round 1 is not asked for.": (
            lambda final, initial, n: powers(final, initial, places(n + 1, 0, n))
        ),
        "You arrive one round early, because you divide by n - 1. Round n is the last one that removes something.": (
            lambda final, initial, n: powers(final, initial, places(n, 1, n - 1))
        ),
        "That is a straight line: the exponent is missing. With it, the early rounds remove more.": (
            lambda final, initial, n: powers(final, initial, places(n), 1)
        ),
        "Your exponent is 2. Zhu and Gupta take 3.": lambda final, initial, n: powers(final, initial, places(n), 2),
        "Slow first and fast at the end: you raised k / n to the third power, and not what is left, 1 - k / n.": (
            lambda final, initial, n: [initial + (final - initial) * x**3 for x in places(n)]
        ),
        "Each of your rounds removes the same fraction of what is *left*. That is the geometric schedule.": (
            lambda final, initial, n: [1 - (1 - initial) * ((1 - final) / (1 - initial)) ** x for x in places(n)]
        ),
        "You return the fraction that stays. In this course, sparsity is what is gone.": (
            lambda final, initial, n: [1 - s for s in climbing(final, initial, n)]
        ),
        "You return what each round adds. A schedule says what is gone in all.": increments,
        "You return what still has to go. Subtract it from final.": (
            lambda final, initial, n: [final - s for s in climbing(final, initial, n)]
        ),
        "The sign: what still has to go is subtracted from final. You come from above.": (
            lambda final, initial, n: [2 * final - s for s in climbing(final, initial, n)]
        ),
        "Only 1 - k / rounds is raised to the third power. The distance, final - initial, is not.": (
            lambda final, initial, n: [final - ((final - initial) * (1 - x)) ** 3 for x in places(n)]
        ),
        "You leave out what was gone before round 1: a level counts that, too.": (
            lambda final, initial, n: [s - initial for s in climbing(final, initial, n)]
        ),
        "You go beyond final: from initial on, only final - initial is left to add.": (
            lambda final, initial, n: [initial + s for s in powers(final, 0.0, places(n))]
        ),
    },
)


def some_rounds() -> list[tuple]:
    """Two layers of different scales, a part of them gone already; scores may be negative, and among the gone high."""
    random = torch.Generator().manual_seed(9)
    cases = []
    for sparsity in (0.5, 0.8):
        scores = {"a": torch.randn(7, 9, generator=random), "b": 3 * torch.randn(5, 8, generator=random) + 1}
        masks = {name: torch.rand(s.shape, generator=random) > 0.3 for name, s in scores.items()}
        cases.append((scores, masks, sparsity))
    return cases


def tightened(scores: Scores, masks: Masks, sparsity: float) -> Masks:
    """Masks that remove `sparsity` of all weights: those that are gone, and then the smallest of the others."""
    return globally(restrict(scores, masks), sparsity)


def of_the_rest(masks: Masks, sparsity: float) -> float:
    """The sparsity that removes this fraction of what is left."""
    gone = sparsity_of(masks)
    return fraction(gone + sparsity * (1 - gone))


def zeroed(scores: Scores, masks: Masks) -> Scores:
    """Scores that are 0 where the weight is gone."""
    return {name: s * masks[name] for name, s in scores.items()}


def in_both(first: Masks, second: Masks) -> dict[str, Tensor]:
    """What stays in both."""
    return {name: mask & second[name] for name, mask in first.items()}


def with_gone(scores: Scores, masks: Masks, score: float) -> Scores:
    """Scores that are this number where the weight is gone."""
    return {name: s.masked_fill(~masks[name], score) for name, s in scores.items()}


tighten = Exercise(
    task="Of all weights, gone ones included, round(sparsity * n) are gone afterwards, and nothing comes back.",
    solution=tightened,
    cases=some_rounds,
    hints=(
        "Notebook 02's `globally` counts for you, if the weights that are gone are the first in line.",
        "Which score is smaller than every other one? -inf. See `restrict`, or s.masked_fill(~mask, -torch.inf).",
        "globally(restrict(scores, masks), sparsity): the level is cumulative, so it is passed on as it is.",
    ),
    mistakes={
        "Weights come back: you decide as if nothing was gone yet. Put what is gone first in line.": (
            lambda scores, masks, sparsity: globally(scores, sparsity)
        ),
        "You remove that fraction of the weights that are *left*. The level counts all weights, gone ones included.": (
            lambda scores, masks, sparsity: globally(restrict(scores, masks), of_the_rest(masks, sparsity))
        ),
        "You add the level to what is gone already. It is cumulative: what is gone counts towards it.": (
            lambda scores, masks, sparsity: globally(restrict(scores, masks), min(1.0, sparsity_of(masks) + sparsity))
        ),
        "Too many are gone: you decide without the old masks, and then combine the two. Decide *with* them.": (
            lambda scores, masks, sparsity: in_both(masks, globally(scores, sparsity))
        ),
        "A score of 0 is not the first in line if there are negative ones: take -inf for what is gone.": (
            lambda scores, masks, sparsity: globally(zeroed(scores, masks), sparsity)
        ),
        "You decide layer by layer. All weights of the network compete here.": (
            lambda scores, masks, sparsity: layerwise(restrict(scores, masks), sparsity)
        ),
        "With +inf, what is gone is the *last* in line, and stays for ever. It is -inf.": (
            lambda scores, masks, sparsity: globally(with_gone(scores, masks, torch.inf), sparsity)
        ),
        "You take the size of the scores. A negative score is small: compare the scores as they are.": (
            lambda scores, masks, sparsity: tightened({n: s.abs() for n, s in scores.items()}, masks, sparsity)
        ),
        "Old *or* new keeps too much: what one of the two removes must go.": (
            lambda scores, masks, sparsity: {n: m | masks[n] for n, m in globally(scores, sparsity).items()}
        ),
        "You return the masks that you were given: nothing new is gone.": lambda scores, masks, sparsity: masks,
        "True keeps. You return the opposite.": (
            lambda scores, masks, sparsity: {n: ~m for n, m in tightened(scores, masks, sparsity).items()}
        ),
        "What was gone is kept, and what was there goes first: look at where you put the -inf.": (
            lambda scores, masks, sparsity: globally(restrict(scores, {n: ~m for n, m in masks.items()}), sparsity)
        ),
    },
)
