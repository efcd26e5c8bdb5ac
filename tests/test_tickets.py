"""Rewinding brings back everything, and the paths, the loudness and the scores before training obey their laws."""

import copy
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from conftest import generic
from torch import nn
from torch.nn.functional import cross_entropy

from course_utils.data import Split, batches
from course_utils.lotteries import Lottery
from course_utils.masks import apply_masks, keep_all, prunable, sparsity_of
from course_utils.measure import loss
from course_utils.models import mlp, resnet_cifar, vgg16_bn
from course_utils.scopes import globally
from course_utils.scores import chance, magnitude, snip, synflow
from course_utils.tickets import (
    barrier,
    between,
    chained,
    errors_between,
    in_rounds,
    listening,
    louder,
    remembering,
    rewind,
    snapshot,
)
from course_utils.train import Recipe, hold, train

RECIPE = Recipe(epochs=4, batch_size=10, lr=0.05, momentum=0.0, shift=1)


def pictures(count: int = 40, seed: int = 0) -> Split:
    random = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 3, 8, 8), generator=random, dtype=torch.uint8)
    return Split(images, torch.arange(count) % 4, torch.full((3,), 0.4), torch.full((3,), 0.3))


def small(seed: int = 0) -> nn.Module:
    """A network with BatchNorm, all of whose parameters and buffers are random."""
    return generic(resnet_cifar(8, classes=4, width=0.25), seed)


def equal(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_snapshot_is_not_touched_by_training():
    model = small()
    past, truth = snapshot(model), copy.deepcopy(model.state_dict())
    train(model, pictures(), replace(RECIPE, epochs=1))
    assert equal(past, truth)
    assert not any(torch.equal(past[n], t) for n, t in model.state_dict().items())  # buffers and counter, too


def test_rewinding_brings_back_all_but_what_is_masked():
    model, past = small(), snapshot(small(seed=1))
    masks = globally(chance(model), 0.7)
    train(model, pictures(), replace(RECIPE, epochs=1))
    rewind(model, past, masks)
    for name, t in model.state_dict().items():
        assert torch.equal(t, past[name] * masks[name] if name in masks else past[name]), name
    train(model, pictures(), replace(RECIPE, epochs=1))
    rewind(model, past, keep_all(model))
    assert equal(snapshot(model), past)  # neither the training nor the masking before has reached the snapshot


def test_a_snapshot_of_another_network_is_refused():
    with pytest.raises(ValueError, match="this snapshot holds another network"):
        rewind(small(), snapshot(resnet_cifar(8, classes=5, width=0.25)), {})


@pytest.mark.parametrize("k", [0, 1, 3])
def test_rewound_to_epoch_k_the_rest_of_the_training_repeats_itself(k):
    """Weights, BatchNorm's buffers, learning rate and order of the images: all as in the training without a break."""
    model, split, kept = small(), pictures(), {}
    kept[0] = snapshot(model)
    train(model, split, RECIPE, seed=3, after_step=remembering(model, [4, 8, 12], kept))
    end = snapshot(model)
    rewind(model, kept[4 * k], keep_all(model))
    train(model, split, RECIPE, seed=3, first=k)
    assert equal(snapshot(model), end)


def test_momentum_is_not_rewound_and_from_the_start_that_is_exact():
    recipe, split, kept = replace(RECIPE, momentum=0.9), pictures(), {}
    model = small()
    kept[0] = snapshot(model)
    train(model, split, recipe, after_step=remembering(model, [4], kept))
    end = snapshot(model)
    for k in (0, 1):
        rewind(model, kept[4 * k], keep_all(model))
        train(model, split, recipe, first=k)
        assert equal(snapshot(model), end) == (k == 0)


def test_removed_weights_stay_zero_and_the_hooks_come_in_turn():
    model, split, heard, kept = small(), pictures(), [], {}
    masks = globally(magnitude(model), 0.6)
    apply_masks(model, masks)
    ears = listening(model, split, 3, heard), remembering(model, [3, 16], kept)
    train(model, split, RECIPE, after_step=chained(hold(model, masks), *ears))
    assert [step for _, step in heard] == [3, 6, 9, 12, 15]
    for past in kept.values():
        assert all((past[name][~mask] == 0).all() for name, mask in masks.items())
    twin = small(seed=5)
    rewind(twin, kept[3], masks)
    assert loss(twin, split) == heard[0][0]


def test_listening_changes_nothing():
    one, other = small(), small()
    train(one, pictures(), RECIPE)
    train(other, pictures(), RECIPE, after_step=listening(other, pictures(), 1, []))
    assert equal(snapshot(one), snapshot(other))


def test_louder_keeps_the_sum_of_squares_that_a_unit_expects():
    model = generic(mlp((300, 200, 100, 10)))
    before = {name: w.detach().square().sum() for name, w in prunable(model).items()}
    masks = globally(chance(model, seed=7), 0.8)  # with the weights' own seed, chance would be no chance
    apply_masks(model, masks)
    exact = {n: w.detach() / masks[n].float().mean().sqrt() for n, w in prunable(model).items()}
    louder(model, masks)
    for name, w in prunable(model).items():
        assert torch.allclose(w, exact[name], rtol=1e-5)
        assert w.detach().square().sum().item() == pytest.approx(before[name].item(), rel=0.3)
    dense = snapshot(model)
    louder(model, keep_all(model))
    assert equal(snapshot(model), dense)


def test_louder_survives_an_empty_layer():
    model = generic(mlp((6, 5, 4)))
    masks = keep_all(model) | {"layers.0.weight": torch.zeros(5, 6, dtype=torch.bool)}
    apply_masks(model, masks)
    louder(model, masks)
    assert all(w.isfinite().all() for w in model.parameters())


def test_between_is_a_straight_line_through_all_numbers():
    one, other = snapshot(small(1)), snapshot(small(2))
    assert equal(between(one, other, 0.0), one)
    end = between(one, other, 1.0)
    for name, third in between(one, other, 0.25).items():
        if third.is_floating_point():
            assert torch.allclose(third, 0.75 * one[name] + 0.25 * other[name], atol=1e-6), name
            assert torch.equal(end[name], other[name])
        else:
            assert torch.equal(third, one[name])


def test_errors_between_asks_at_even_places_and_the_barrier_is_its_definition():
    one, other = {"w": torch.tensor(0.0)}, {"w": torch.tensor(2.0)}
    errors = errors_between(one, other, lambda state: state["w"].item() ** 2, 5)
    assert errors == [0.0, 0.25, 1.0, 2.25, 4.0]
    assert barrier(errors) == 4.0 - 2.0
    assert barrier([0.1, 0.5, 0.2, 0.3]) == pytest.approx(0.5 - 0.2)
    assert barrier([0.3, 0.2, 0.1]) == pytest.approx(0.1)


def test_rounds_without_training_are_one_cut_for_magnitude():
    model = small()
    steps = in_rounds(magnitude, model, 0.9, 6)
    assert [sparsity_of(m) for m in steps] == pytest.approx([1 - 0.1 ** (k / 6) for k in range(1, 7)], abs=1e-3)
    assert equal(steps[-1], globally(magnitude(model), 0.9))
    for earlier, later in pairwise(steps):
        assert all((later[n] <= earlier[n]).all() for n in later)
    assert equal(snapshot(model), snapshot(small()))  # the network itself is left alone


BATCH = list(batches(pictures(24), 10))  # the last one is smaller


@pytest.mark.parametrize("batch", [BATCH[:1], BATCH[-1:]])
def test_snip_is_the_slope_for_a_mask(batch):
    """|∂loss/∂c| at c = 1, by autograd through a network whose weights are c · w; BatchNorm uses the batch."""
    model = small()
    gates = {name: torch.ones_like(w, requires_grad=True) for name, w in prunable(model).items()}
    gated = snapshot(model) | {name: w.detach() * gates[name] for name, w in prunable(model).items()}
    (x, y), model = batch[0], model.train()
    cross_entropy(torch.func.functional_call(copy.deepcopy(model), gated, (x,)), y).backward()
    found = snip(model, batch)
    for name, gate in gates.items():
        assert torch.allclose(found[name], gate.grad.abs(), rtol=1e-3, atol=1e-6), name


def test_snip_sums_the_gradient_over_the_batches_before_it_takes_the_size():
    model = generic(mlp((192, 12, 4)))  # without BatchNorm the batches do not matter
    together = snip(model, [tuple(torch.cat(parts) for parts in zip(*BATCH, strict=True))])
    apart = snip(model, BATCH)
    assert all(torch.allclose(apart[n], s, rtol=1e-3, atol=1e-7) for n, s in together.items())
    again = snip(model, BATCH)
    assert equal(apart, again)  # nothing was left over from the first time


@pytest.mark.parametrize("score", [snip, synflow])
def test_scores_before_training_leave_the_network_as_it_was(score):
    model = small().train()
    model.linear.requires_grad_(False)
    before = snapshot(model)
    found = score(model, BATCH)
    assert equal(snapshot(model), before) and model.training and not model.linear.weight.requires_grad
    assert all(p.grad is None for p in model.parameters())
    assert found.keys() == prunable(model).keys()
    assert all(s.dtype.is_floating_point and (s >= 0).all() for s in found.values())


CHAINS = {
    "perceptron": lambda: mlp((192, 9, 7, 5), bias=True),
    "VGG": lambda: vgg16_bn(classes=4, width=0.05),
    "convolutions": lambda: nn.Sequential(
        nn.Conv2d(3, 5, 3, bias=False), nn.ReLU(), nn.Conv2d(5, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)
    ),
}


@pytest.mark.parametrize("chain", CHAINS)
def test_synflow_is_conserved(chain):
    """What flows into a layer flows out of it: the sums of all layers are equal, and equal to the flow R itself."""
    model = generic(CHAINS[chain]())
    x = torch.randn(2, 3, 32, 32) if chain == "VGG" else torch.randn(2, 3, 8, 8)
    totals = torch.stack([s.sum() for s in synflow(model, [(x, None)]).values()])
    assert totals.min() > 0 and torch.allclose(totals, totals[:1], rtol=1e-9)


def test_synflow_is_its_definition_on_a_perceptron():
    model = generic(mlp((192, 9, 7, 5)))
    w = [p.detach().double().abs() for p in model.parameters()]
    before = [torch.ones(192, dtype=torch.float64)]
    for matrix in w[:-1]:
        before.append(matrix @ before[-1])
    after = [torch.ones(5, dtype=torch.float64)]
    for matrix in reversed(w[1:]):
        after.insert(0, after[0] @ matrix)
    found = synflow(model, BATCH)
    for score, matrix, into, out in zip(found.values(), w, before, after, strict=True):
        assert torch.allclose(score, out[:, None] * matrix * into, rtol=1e-9)


def test_synflow_looks_at_no_image():
    model = small()
    other = [(torch.randn(7, 3, 8, 8), None)]
    assert equal(synflow(model, BATCH), synflow(model, other))


def test_a_deep_thin_chain_keeps_its_scores_in_double_precision():
    model = nn.Sequential(*(nn.Linear(6, 6, bias=False) for _ in range(40)))
    for i, p in enumerate(model.parameters()):
        nn.init.normal_(p, std=0.01, generator=torch.Generator().manual_seed(i))
    assert all((s > 0).all() for s in synflow(model, [(torch.ones(1, 6), None)]).values())


def test_synflow_in_rounds_keeps_every_layer_where_one_shot_empties_some():
    model = vgg16_bn(classes=4, width=0.1)
    x = [(torch.randn(1, 3, 32, 32), None)]
    slow, fast = (in_rounds(synflow, model, 0.99, rounds, x)[-1] for rounds in (30, 1))
    assert min(int(m.sum()) for m in slow.values()) > 0
    assert min(int(m.sum()) for m in fast.values()) == 0


def test_a_lottery_knows_its_densities():
    plan = Lottery((0,), rounds=10, kept=0.8, epochs=1, images=1, early=0, late=0, forks=())
    assert plan.density(0) == 1 and plan.density(10) == pytest.approx(0.107, abs=1e-3)
