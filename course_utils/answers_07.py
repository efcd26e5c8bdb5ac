"""The exercises of notebook 07: their solutions, and the mistakes that people make. Read this after you have tried."""

import torch
from torch import Tensor

from course_utils.budgets import lamp_scores, shuffled
from course_utils.exercises import Exercise
from course_utils.masks import Masks


def some_layers() -> list[tuple]:
    """Scores of layers of several shapes, not in order, without ties."""
    random = torch.Generator().manual_seed(7)
    return [(torch.tensor([0.4, 0.1, 0.3, 0.2]),), (torch.rand(3, 5, generator=random),)]


def tail(s: Tensor, power: int = 2, own: bool = True, larger: bool = True) -> Tensor:
    """s^power over the sum of s^power of the scores that are larger (or smaller), and its own."""
    flat = s.double().flatten()
    other = flat[None, :] > flat[:, None] if larger else flat[None, :] < flat[:, None]
    among = other | (torch.eye(len(flat), dtype=torch.bool) if own else False)
    return (flat**power / (among * flat**power).sum(1)).view_as(s)


def in_order(s: Tensor) -> Tensor:
    """LAMP's values in rising order, not put back to where they belong."""
    return lamp_scores(s).flatten().sort().values.view_as(s)


lamping = Exercise(
    task="LAMP's score of each weight: s² divided by the sum of all s² of the layer that are not smaller, its own too.",
    solution=lamp_scores,
    cases=some_layers,
    hints=(
        "Sort the squares of the flattened scores, and remember the order: order = squares.argsort().",
        "The sums from each place to the end: squares[order].flip(0).cumsum(0).flip(0).",
        "Put them back: share = torch.empty_like(squares); share[order] = squares[order] / rest; then .view_as(s).",
    ),
    mistakes={
        "You sum over the *smaller* scores. LAMP divides by what would still be there: itself and all larger ones.": (
            lambda s: tail(s, larger=False)
        ),
        "You left the weight itself out of the sum. It counts, so that the largest of a layer gets exactly 1.": (
            lambda s: tail(s, own=False)
        ),
        "You forgot the squares: LAMP compares s², not s.": lambda s: tail(s, power=1),
        "You divide by the sum over the whole layer. The sum runs only over what is not smaller.": (
            lambda s: s.double().square() / s.double().square().sum()
        ),
        "You divide by the layer's maximum. That repairs the scale, but it lets a layer of equal weights win.": (
            lambda s: s.double() / s.double().max()
        ),
        "Right values in the wrong places: you sorted and did not put them back (share[order] = …).": in_order,
    },
)


def some_masks() -> list[tuple]:
    """Masks of two layers of which very different parts stay."""
    random = torch.Generator().manual_seed(8)
    masks = {"a": torch.rand(30, 20, generator=random) < 0.8, "b": torch.rand(25, 40, generator=random) < 0.1}
    return [(masks, 1), (masks, 2)]


def across(masks: Masks, seed: int) -> Masks:
    """The masks' values shuffled over the whole network."""
    row = torch.cat([mask.flatten() for mask in masks.values()])
    row = row[torch.randperm(len(row), generator=torch.Generator().manual_seed(seed))]
    pieces = row.split([mask.numel() for mask in masks.values()])
    return {name: piece.view_as(mask) for (name, mask), piece in zip(masks.items(), pieces, strict=True)}


def per_layer(masks: Masks, seed: int, one) -> Masks:
    """one(mask, generator) for every layer, with one generator for all of them."""
    random = torch.Generator().manual_seed(seed)
    return {name: one(mask, random) for name, mask in masks.items()}


def fresh(masks: Masks, seed: int) -> Masks:
    """Every layer begins again at the seed."""
    return {name: shuffled({name: mask}, seed)[name] for name, mask in masks.items()}


controlling = Exercise(
    task="For each layer in turn: mask.flatten() in the order torch.randperm(n, generator=random), and its shape back.",
    solution=shuffled,
    cases=some_masks,
    hints=(
        "One generator for all layers: random = torch.Generator().manual_seed(seed) before the loop.",
        "torch.randperm(mask.numel(), generator=random) is a random order of a layer's places.",
        "mask.flatten()[order].view_as(mask) is the same mask, shuffled: as many True as before.",
    ),
    mistakes={
        "You shuffle across the whole network: then every layer loses the same fraction. Shuffle inside each layer.": (
            across
        ),
        "You draw each weight with a probability: the counts come out only about right. Shuffle, and they are exact.": (
            lambda m, seed: per_layer(m, seed, lambda v, r: torch.rand(v.shape, generator=r) < v.float().mean())
        ),
        "You give the masks back as they were: nothing is left to chance.": lambda m, seed: m,
        "You shuffle only the rows. Within a row nothing is left to chance: shuffle all places of a layer.": (
            lambda m, seed: per_layer(m, seed, lambda v, r: v[torch.randperm(len(v), generator=r)])
        ),
        "You always start at seed 0. Then every network gets the same draw: use the argument `seed`.": (
            lambda m, seed: shuffled(m, 0)
        ),
        "You start a generator for each layer. Layers of one size get the same order: make one before the loop.": fresh,
        "True keeps: as many True must stay in each layer as before. You return the opposite.": (
            lambda m, seed: {name: ~mask for name, mask in shuffled(m, seed).items()}
        ),
    },
)
