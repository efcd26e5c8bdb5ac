"""What must hold for every network, criterion and scope of the course."""

import copy
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from conftest import generic
from torch import nn
from torch.nn.utils import prune

from course_utils.channels import channels_in, erase, shrink, tensor_of
from course_utils.data import Split
from course_utils.masks import apply_masks, keep_all, prunable, sparsity_of
from course_utils.measure import macs, parameters
from course_utils.models import deit_small, deit_tiny, mlp, resnet50, resnet_cifar, vgg16_bn
from course_utils.schedules import cubic, geometric, one_shot
from course_utils.scopes import at_least, globally, keep_top, layerwise, restrict, rowwise, spare
from course_utils.scores import chance, magnitude
from course_utils.train import Recipe, hold, train

NETWORKS = {
    "resnet50": lambda: resnet50(width=0.125, blocks=(3, 4, 6, 3)),
    "smoke": lambda: resnet50(width=0.125, blocks=(1, 1, 1, 1)),
    "resnet20": lambda: resnet_cifar(20, width=0.5),
    "resnet56": lambda: resnet_cifar(56, width=0.25),
    "vgg16_bn": lambda: vgg16_bn(width=0.125),
    "mlp": lambda: mlp((3 * 32 * 32, 30, 20, 10)),
    "mlp with bias": lambda: mlp((3 * 32 * 32, 30, 20, 10), bias=True),
}
SPARSITIES = (0, 0.1, 0.2, 1 / 3, 0.5, 0.9, 0.97, 1)


def small(seed: int = 0) -> nn.Module:
    return generic(resnet50(width=0.125, blocks=(1, 1, 1, 1)), seed)


@pytest.mark.parametrize("sparsity", SPARSITIES)
@pytest.mark.parametrize("n", [1, 7, 170, 1001])
def test_exact_count_also_under_ties(n, sparsity):
    random = torch.Generator().manual_seed(n)
    for scores in (torch.rand(n, generator=random), torch.randint(3, (n,), generator=random).float(), torch.ones(n)):
        kept = int(keep_top(scores, sparsity).sum())
        assert kept == n - round(sparsity * n)


@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_the_smallest_go(sparsity):
    scores = torch.randn(999, generator=torch.Generator().manual_seed(1))
    mask = keep_top(scores.view(27, 37), sparsity).flatten()
    expected = np.argsort(scores.numpy(), kind="stable")[: round(sparsity * 999)]
    assert set((~mask).nonzero().flatten().tolist()) == set(expected.tolist())


def test_among_equals_the_first_go():
    assert keep_top(torch.tensor([2.0, 1.0, 1.0, 1.0, 0.0]), 0.4).tolist() == [True, False, True, True, False]


@pytest.mark.parametrize("scope", [layerwise, globally])
@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_scopes_count_exactly(scope, sparsity):
    scores = magnitude(small())
    masks = scope(scores, sparsity)
    total = sum(s.numel() for s in scores.values())
    layers = sum(round(sparsity * s.numel()) for s in scores.values())
    assert sum(int((~m).sum()) for m in masks.values()) == (layers if scope is layerwise else round(sparsity * total))
    assert all(masks[n].shape == s.shape and masks[n].dtype == torch.bool for n, s in scores.items())


@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.9, 0.97])
def test_global_masks_are_torchs(sparsity):
    model = small()
    masks = globally(magnitude(model), sparsity)
    other = copy.deepcopy(model)
    modules = {n: other.get_submodule(n.removesuffix(".weight")) for n in prunable(other)}
    prune.global_unstructured([(m, "weight") for m in modules.values()], prune.L1Unstructured, amount=sparsity)
    assert all(torch.equal(masks[n], m.weight_mask.bool()) for n, m in modules.items())


@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.9])
def test_layerwise_masks_are_torchs(sparsity):
    model = small()
    masks = layerwise(magnitude(model), sparsity)
    for name, weight in prunable(model).items():
        layer = nn.Linear(1, 1)
        layer.weight = nn.Parameter(weight.detach().clone())
        prune.l1_unstructured(layer, "weight", amount=sparsity)
        assert torch.equal(masks[name], layer.weight_mask.bool())


def test_monotone_what_is_removed_stays_removed():
    model, before = small(), None
    masks = keep_all(model)
    for k, sparsity in enumerate(geometric(0.95, rounds=5)):
        masks = globally(restrict(magnitude(small(seed=k)), masks), sparsity)
        assert before is None or all(not (masks[n] & ~before[n]).any() for n in masks)
        before = masks
    assert sparsity_of(masks) == pytest.approx(0.95, abs=1e-5)


def test_removed_weights_stay_zero_through_momentum_and_decay():
    model = small()
    masks = globally(magnitude(model), 0.7)
    random = torch.Generator().manual_seed(0)
    images = torch.randint(256, (20, 3, 32, 32), dtype=torch.uint8, generator=random)
    split = Split(images, torch.arange(20) % 10, torch.full((3,), 0.5), torch.full((3,), 0.2))
    train(model, split, Recipe(epochs=1, batch_size=10, lr=0.01))  # momentum of the dense network is not carried over
    apply_masks(model, masks)
    train(model, split, Recipe(epochs=2, batch_size=10, lr=0.01), after_step=hold(model, masks))
    assert all(not w[~masks[n]].any() and w[masks[n]].all() for n, w in prunable(model).items())


def test_spared_tensors_lose_nothing():
    model = small()
    masks = globally(spare(magnitude(model), "fc.weight"), 0.9)
    before = model.fc.weight.clone()
    apply_masks(model, masks)
    assert "fc.weight" not in masks and torch.equal(model.fc.weight, before)


def test_chance_is_reproducible_and_leaves_the_global_generator_alone():
    model = small()
    state = torch.get_rng_state()
    one, two, other = chance(model, seed=1), chance(model, seed=1), chance(model, seed=2)
    assert all(torch.equal(one[n], two[n]) and not torch.equal(one[n], other[n]) for n in one)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_erasing_equals_removing(name, dtype):
    model = generic(NETWORKS[name]()).to(dtype)
    x = torch.randn(2, 3, 32, 32, dtype=dtype, generator=torch.Generator().manual_seed(1))
    tolerance = 1e-9 if dtype == torch.float64 else 1e-5
    dense = model(x)
    for label, group in model.groups().items():
        count = channels_in(model, group)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(count))
        gone, keep = order[: count // 3 + 1], order[count // 3 + 1 :]
        if len(keep) == 0:
            gone, keep = order[:-1], order[-1:]
        silent, shrunken = erase(model, group, gone)(x), shrink(model, group, keep)(x)
        assert (silent - shrunken).abs().max() <= tolerance * silent.abs().max(), label
        assert (silent - dense).abs().max() > 1e-3 * dense.abs().max(), f"{label}: erasing changed nothing"


@pytest.mark.parametrize("name", NETWORKS)
def test_groups_reach_every_channel(name):
    """Every output channel of every layer but the last belongs to exactly one group."""
    model = NETWORKS[name]()
    owners = [tensor for group in model.groups().values() for tensor, axis in group.items() if axis == 0]
    inner = [n for n, _ in model.named_parameters() if not n.startswith(("fc.", "linear.", "classifier."))]
    last = list(prunable(model))[-1] if name.startswith("mlp") else ""
    expected = {n for n in inner if not n.startswith(last.removesuffix("weight") or "?")}
    assert len(owners) == len(set(owners)) and expected <= set(owners)


def test_shrink_all_groups_one_after_the_other():
    model = generic(NETWORKS["resnet50"]()).double()
    small = model
    for group in model.groups().values():
        small = shrink(small, group, torch.arange(0, channels_in(small, group), 2))
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    assert small(x).shape == (2, 10) and parameters(small) < 0.3 * parameters(model)
    assert macs(small, x) < 0.3 * macs(model, x)
    bn = small.layer1[0].bn2
    assert bn.num_features == len(bn.weight) and small.fc.in_features == small.fc.weight.shape[1]


def test_shrink_returns_something_new():
    model = small()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    group = model.groups()["layer2"]
    shrink(model, group, torch.arange(3))
    erase(model, group, torch.arange(3))
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


@pytest.mark.parametrize(
    ("make", "size", "count", "expected"),
    [
        (resnet50, 32, 23_520_842, 1_297_829_888),
        (vgg16_bn, 32, 14_728_266, 313_201_664),
        (deit_tiny, 224, 5_717_416, 1_253_683_200),
        (deit_small, 224, 22_050_664, 4_598_882_304),
    ],
)
def test_parameters_and_macs_to_the_integer(make, size, count, expected):
    model = make()
    assert parameters(model) == count and macs(model, torch.zeros(1, 3, size, size)) == expected


def test_macs_by_hand():
    """Sum over layers of output positions × kernel size × inputs × outputs, counted by hooks of our own."""
    model, total = NETWORKS["resnet50"](), []

    def count(module, inputs, output):
        positions = output.shape[2] * output.shape[3] if output.ndim == 4 else 1
        total.append(positions * module.weight.numel())

    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    x = torch.zeros(1, 3, 32, 32)
    model.eval()(x)
    expected = sum(total)
    assert macs(model, x) == expected > 0


def test_prunable_weights_of_resnet50():
    assert sum(w.numel() for w in prunable(resnet50()).values()) == 23_467_712


def test_perceptron_of_the_challenge():
    weights = prunable(mlp())
    assert sum(w.numel() for w in weights.values()) == 784 * 1000 + 1000 * 1000 + 1000 * 500 + 500 * 200 + 200 * 10


@pytest.mark.parametrize("final", [0.5, 0.9, 0.99])
def test_schedules_end_where_they_should(final):
    assert list(one_shot(final)) == [final]
    for schedule in (geometric, cubic):
        steps = list(schedule(final, 7))
        assert len(steps) == 7 and steps == sorted(steps) and math.isclose(steps[-1], final)
    kept = [1 - s for s in geometric(0.9, 9)]
    assert all(math.isclose(b / a, kept[0]) for a, b in pairwise(kept))


def test_cubic_is_torchs():
    from torch.ao.pruning import BaseScheduler, CubicSL, WeightNormSparsifier

    model = nn.Sequential(nn.Linear(4, 4))
    sparsifier = WeightNormSparsifier(sparsity_level=0.9)
    sparsifier.prepare(model, [{"tensor_fqn": "0.weight"}])
    scheduler: BaseScheduler = CubicSL(sparsifier, init_sl=0.0, init_t=0, delta_t=1, total_t=6, initially_zero=True)
    levels = []
    for _ in range(6):
        scheduler.step()
        levels.append(sparsifier.groups[0]["sparsity_level"])
    assert levels == pytest.approx(list(cubic(0.9, 6)))


def test_groups_by_hand():
    group = small().groups()["layer2.0.conv1"]
    norm = {f"layer2.0.bn1.{leaf}": 0 for leaf in ("weight", "bias", "running_mean", "running_var")}
    assert group == {"layer2.0.conv1.weight": 0} | norm | {"layer2.0.conv2.weight": 1}
    assert tensor_of(small(), "layer2.0.bn1.running_var").shape == (16,)


def test_removed_weights_are_true_zeros():
    """Not -0.0: a compressor would see two kinds of zero."""
    model = small()
    masks = globally(magnitude(model), 0.7)
    apply_masks(model, masks)
    assert all(not torch.signbit(w[~masks[n]]).any() for n, w in prunable(model).items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_exact_count_in_every_precision(dtype):
    scores = torch.rand(1001, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert int((~keep_top(scores, 0.1)).sum()) == 100


def test_rowwise_takes_equally_much_of_every_row():
    scores = magnitude(small())
    for name, mask in rowwise(scores, 0.75).items():
        rows = scores[name].flatten(1)
        assert ((~mask).flatten(1).sum(1) == round(0.75 * rows.shape[1])).all()
        assert torch.equal(mask[1].flatten(), keep_top(rows[1], 0.75))


def test_units_have_no_rows():
    with pytest.raises(ValueError, match=r"the scores of stem have no rows, their shape is \(5,\)"):
        rowwise({"stem": torch.rand(5)}, 0.4)


def test_a_floor_protects_the_best_of_every_layer_and_refuses_what_cannot_be():
    scores = {"a": torch.tensor([1.0, 2.0, 3.0]), "b": torch.tensor([10.0, 20.0, 30.0])}
    masks = globally(at_least(scores, 1), 0.5)
    assert masks["a"].tolist() == [False, False, True] and masks["b"].tolist() == [False, True, True]
    gone = {"a": torch.tensor([True, False, False]), "b": torch.tensor([True, True, True])}
    both = at_least(restrict(scores, gone), 2)  # a floor brings nothing back
    assert both["a"].tolist() == [torch.inf, -torch.inf, -torch.inf]
    assert at_least({"a": torch.tensor([torch.nan, 1.0])}, 1)["a"].isnan().any()  # keep_top will refuse it
    with pytest.raises(ValueError, match=r"a floor of 4 does not fit a, which has 3"):
        at_least(scores, 4)
    with pytest.raises(ValueError, match=r"sparsity 0.5 would take what at_least\(\) protects"):
        globally(at_least(scores, 2), 0.5)
