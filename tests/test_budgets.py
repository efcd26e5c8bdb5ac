"""LAMP and ERK against their definitions, written out the slow way."""

import pytest
import torch
from conftest import generic

from course_utils.budgets import erk, erk_counts, lamp, lamp_scores, shuffled
from course_utils.masks import sparsity_of
from course_utils.models import resnet50
from course_utils.scopes import at_least, layerwise, restrict
from course_utils.scores import magnitude


def some_scores(seed=0):
    random = torch.Generator().manual_seed(seed)
    shapes = {"a.weight": (4, 3, 3, 3), "b.weight": (8, 4, 1, 1), "c.weight": (10, 8)}
    return {n: torch.rand(shape, generator=random) * 10**i for i, (n, shape) in enumerate(shapes.items())}


def test_lamp_is_its_definition():
    s = some_scores()["a.weight"].flatten().double()
    slow = torch.stack([v**2 / sum(u**2 for u in s if u >= v) for v in s])
    torch.testing.assert_close(lamp_scores(s.float()), slow, rtol=1e-6, atol=0)


@pytest.mark.parametrize("sparsity", [0, 0.1, 0.5, 0.9, 0.97])
@pytest.mark.parametrize("scope", [lamp, erk])
def test_budgets_count_exactly(scope, sparsity):
    scores = magnitude(generic(resnet50(width=0.125, blocks=(1, 1, 1, 1))))
    total = sum(s.numel() for s in scores.values())
    removed = sum(int((~m).sum()) for m in scope(scores, sparsity).values())
    assert removed == round(sparsity * total)


def test_lamp_leaves_one_weight_in_every_layer_and_does_not_care_about_scale():
    scores = some_scores()
    n = sum(s.numel() for s in scores.values())
    assert all(m.sum() == 1 for m in lamp(scores, 1 - len(scores) / n).values())
    scaled = {name: s * factor for (name, s), factor in zip(scores.items(), (1e-6, 1.0, 1e6), strict=True)}
    assert all(torch.equal(m, lamp(scaled, 0.6)[name]) for name, m in lamp(scores, 0.6).items())


def test_lamp_keeps_the_order_inside_a_layer():
    s = some_scores()["b.weight"]
    assert torch.equal(lamp_scores(s).flatten().argsort(), s.flatten().argsort())


def test_lamp_respects_what_is_gone_and_refuses_what_is_protected():
    scores = some_scores()
    gone = layerwise(chance_of(scores), 0.5)
    assert all(not (m & ~gone[n]).any() for n, m in lamp(restrict(scores, gone), 0.7).items())
    s, stays = scores["a.weight"], gone["a.weight"]
    alone = lamp_scores(s[stays])  # what is gone counts for nothing in the sums of what stays
    torch.testing.assert_close(lamp_scores(s.masked_fill(~stays, -torch.inf))[stays], alone)
    with pytest.raises(ValueError, match=r"without at_least\(\): it leaves every layer one weight"):
        lamp(at_least(scores, 5), 0.85)


def chance_of(scores):
    random = torch.Generator().manual_seed(5)
    return {n: torch.rand(s.shape, generator=random) for n, s in scores.items()}


def test_lamp_refuses_negative_scores_and_bears_layers_of_zeros():
    with pytest.raises(ValueError, match=r"LAMP squares scores from 0 upwards"):
        lamp({"a": torch.tensor([1.0, -1.0])}, 0.5)
    masks = lamp({"a": torch.zeros(4), "b": torch.ones(4)}, 0.5)
    assert not masks["a"].any() and masks["b"].all()


def slow_erk(shapes, density):
    """Evci et al.'s algorithm as published: densities p = ε Σ(axes) / Π(axes), full layers fixed one at a time."""
    sizes = {n: torch.Size(s).numel() for n, s in shapes.items()}
    raw = {n: sum(s) / sizes[n] for n, s in shapes.items()}
    dense = set()
    while True:
        rhs = density * sum(sizes.values()) - sum(sizes[n] for n in dense)
        epsilon = rhs / sum(raw[n] * sizes[n] for n in sizes if n not in dense)
        worst = max((n for n in sizes if n not in dense), key=lambda n: raw[n])
        if epsilon * raw[worst] <= 1:
            return {n: 1.0 if n in dense else epsilon * raw[n] for n in sizes}
        dense.add(worst)


@pytest.mark.parametrize("sparsity", [0.95, 0.8, 0.5, 0.1])
def test_erk_is_its_definition(sparsity):
    shapes = {n: s.shape for n, s in magnitude(resnet50(width=0.125, blocks=(1, 1, 1, 1))).items()}
    wanted, counts = slow_erk(shapes, 1 - sparsity), erk_counts(shapes, sparsity)
    total = sum(s.numel() for s in shapes.values())
    assert sum(counts.values()) == total - round(sparsity * total)
    for name, shape in shapes.items():
        assert abs(counts[name] - wanted[name] * shape.numel()) <= 1 and counts[name] <= shape.numel()


def test_shuffled_masks_keep_the_layers_sparsities_and_nothing_else():
    masks = layerwise(magnitude(generic(resnet50(width=0.125, blocks=(1, 1, 1, 1)))), 0.7)
    mixed = shuffled(masks, seed=3)
    assert sparsity_of(mixed) == sparsity_of(masks)
    assert all(mixed[n].sum() == m.sum() and mixed[n].shape == m.shape for n, m in masks.items())
    assert not all(torch.equal(mixed[n], m) for n, m in masks.items())
    assert all(torch.equal(shuffled(masks, seed=3)[n], m) for n, m in mixed.items())
