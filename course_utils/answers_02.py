"""The exercises of notebook 02: their solutions, and the mistakes that people make. Read this after you have tried."""

import torch
from torch import Tensor

from course_utils.exercises import Exercise
from course_utils.masks import Masks
from course_utils.scopes import globally, keep_top
from course_utils.scores import Scores


def some_scores() -> list[tuple]:
    """Scores with and without ties, of odd and even number, in one row and in a table."""
    random = torch.Generator().manual_seed(0)
    table = torch.rand(3, 5, generator=random)
    return [(torch.tensor([0.8, 0.1, 0.3, 0.7, 0.05, 0.3]), 0.5), (table, 0.3), (torch.ones(7), 0.4), (table, 0.0)]


def clipped(scores: Tensor, sparsity: float) -> Tensor:
    """The largest score that goes, for the mistakes below."""
    gone = round(sparsity * scores.numel())
    return scores.flatten().sort().values[gone - 1] if gone else scores.min() - 1


def shorn(scores: Tensor, gone: int, largest: bool = False) -> Tensor:
    """A mask without the `gone` smallest (or largest) scores."""
    flat = torch.ones(scores.numel(), dtype=torch.bool)
    flat[scores.flatten().argsort(stable=True, descending=largest)[:gone]] = False
    return flat.view_as(scores)


counting = Exercise(
    task="Remove exactly round(sparsity · n) of n scores, the smallest ones; among equals the first.",
    solution=keep_top,
    cases=some_scores,
    hints=(
        "A threshold cannot split a tie. Which function tells you the *positions* of the smallest scores?",
        "scores.flatten().argsort(stable=True)[:gone] are the positions that go; set the mask to False there.",
        "Begin with torch.ones_like(flat, dtype=torch.bool), and give the mask back with .view_as(scores).",
    ),
    mistakes={
        "You keep what is larger than a cut: under ties all equal scores go, which is too many. Count instead.": (
            lambda s, p: s > clipped(s, p)
        ),
        "You keep what is at least the cut: the weight that *is* the cut stays, one too few go. Count instead.": (
            lambda s, p: s >= clipped(s, p)
        ),
        "You remove the largest scores; the smallest have to go.": (
            lambda s, p: shorn(s, round(p * s.numel()), largest=True)
        ),
        "Your sparsity is the fraction that stays. In this course it is always the fraction that goes.": (
            lambda s, p: shorn(s, s.numel() - round(p * s.numel()))
        ),
        "You round down: 0.4 · 7 = 2.8 becomes 2. Take round(), which makes it 3.": (
            lambda s, p: shorn(s, int(p * s.numel()))
        ),
        "Right positions, but your mask is flat: give it the shape of the scores with .view_as(scores).": (
            lambda s, p: keep_top(s, p).flatten()
        ),
        "True keeps and False removes. Your mask is the other way round.": lambda s, p: ~keep_top(s, p),
        "You return numbers. A mask is made of True and False: dtype=torch.bool.": lambda s, p: keep_top(s, p).float(),
    },
)


def two_layers() -> list[tuple]:
    """A layer of large and a layer of small scores: there the scopes differ."""
    random = torch.Generator().manual_seed(1)
    scores = {"a.weight": torch.rand(4, 5, generator=random), "b.weight": 3 * torch.rand(3, 4, generator=random)}
    return [(scores, 0.5), (scores, 0.8), (scores, 0.25)]


def each(scores: Scores, one) -> Masks:
    """one(scores of a layer) for every layer."""
    return {name: one(s) for name, s in scores.items()}


def joined(scores: Scores) -> Tensor:
    """All scores in one row."""
    return torch.cat([s.flatten() for s in scores.values()])


competing = Exercise(
    task="All weights of the network compete: of all scores together, round(sparsity · n) go.",
    solution=globally,
    cases=two_layers,
    hints=(
        "Put all scores into one long row first: torch.cat([s.flatten() for s in scores.values()]).",
        "keep_top of that row is one long mask. Which pieces of it belong to which layer?",
        "mask.split([s.numel() for s in scores.values()]) cuts it up again; then .view_as(s), layer by layer.",
    ),
    mistakes={
        "Each of your layers loses the same fraction: that is layer-wise. Let all layers share one competition.": (
            lambda scores, p: each(scores, lambda s: keep_top(s, p))
        ),
        "You divide each layer by its maximum before they compete. That is a criterion of its own; use raw scores.": (
            lambda scores, p: globally(each(scores, lambda s: s / s.max()), p)
        ),
        "You divide each layer by its mean before they compete. That is a criterion of its own; use raw scores.": (
            lambda scores, p: globally(each(scores, lambda s: s / s.mean()), p)
        ),
        "You average the cuts of the layers. One cut for the whole network comes from all scores together.": (
            lambda scores, p: each(scores, lambda s: s > sum(clipped(t, p) for t in scores.values()) / len(scores))
        ),
        "You remove the weights above the cut, not those below it.": (
            lambda scores, p: each(scores, lambda s: s <= clipped(joined(scores), p))
        ),
        "Your masks are flat: each needs the shape of its layer's scores, with .view_as(s).": (
            lambda scores, p: {name: mask.flatten() for name, mask in globally(scores, p).items()}
        ),
        "You return one long mask. Cut it into a dict with one mask per layer, under the same names as the scores.": (
            lambda scores, p: keep_top(joined(scores), p)
        ),
    },
)
