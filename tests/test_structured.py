"""Budgets of MACs, cuts of all groups alike, N:M patterns, and what the clock reports."""

import pytest
import torch
from conftest import generic

from course_utils.channels import channels_in
from course_utils.clock import costs, doublings, in_eights, raced, worth
from course_utils.measure import macs, parameters
from course_utils.models import resnet50, vgg16_bn
from course_utils.patterns import n_of_m, packed_bytes
from course_utils.scopes import at_least, globally, layerwise
from course_utils.spending import cut_alike, reborn, to_budget
from course_utils.units import remove, unit_norm


def small():
    return generic(resnet50(10, 0.25, (1, 1, 1, 1)))


IMAGE = torch.zeros(1, 3, 32, 32)


@pytest.mark.parametrize("budget", [0.75, 0.5, 0.2])
def test_a_budget_is_met_and_not_by_much(budget):
    model = small()
    groups, scores = model.groups(), unit_norm(model, model.groups())

    def scope(scores, sparsity):
        return globally(at_least(scores, 2), sparsity)

    masks = to_budget(model, groups, scores, scope, budget, IMAGE)
    left = macs(remove(model, groups, masks), IMAGE) / macs(model, IMAGE)
    gone = 1 - sum(int(m.sum()) for m in masks.values()) / sum(len(m) for m in masks.values())
    milder = macs(remove(model, groups, scope(scores, gone - 0.012)), IMAGE) / macs(model, IMAGE)
    assert left <= budget < milder


def test_budgets_that_cannot_be_met_are_refused():
    model = small()
    groups, scores = model.groups(), unit_norm(model, model.groups())
    whole = to_budget(model, groups, scores, layerwise, 1, IMAGE)
    assert all(m.all() for m in whole.values())
    with pytest.raises(ValueError, match="cannot reach 1% of the MACs"):
        to_budget(model, groups, scores, lambda s, p: globally(at_least(s, 14), p), 0.01, IMAGE)
    for wrong in (0, 1.5):
        with pytest.raises(ValueError, match="above 0 and up to 1"):
            to_budget(model, groups, scores, layerwise, wrong, IMAGE)


def test_the_published_sizes_of_a_resnet50():
    model = resnet50()
    groups = model.groups()
    for sparsity, millions in ((0.25, 13.2446), (0.5, 5.8990), (0.75, 1.4842)):
        counts = {name: channels_in(model, group) for name, group in groups.items()}
        masks = {name: torch.arange(count) >= round(sparsity * count) for name, count in counts.items()}
        assert abs(parameters(remove(model, groups, masks)) / 1e6 - millions) < 1e-4


def test_forms_lose_the_same_part_of_every_group():
    model = generic(vgg16_bn(10, 0.125))
    forms = cut_alike(model, model.groups(), (0.25, 0.5))
    assert list(forms) == ["whole", "half silent", "25% removed", "50% removed"]
    assert [forms["50% removed"].features[i].out_channels for i in (0, 3, 40)] == [4, 4, 32]
    x = torch.randn(2, 3, 32, 32)
    assert torch.allclose(forms["half silent"](x), forms["50% removed"](x), atol=1e-4)
    found = raced(forms, x, 1)
    assert found["half silent"]["macs"] == found["whole"]["macs"] > 3 * found["50% removed"]["macs"]
    assert all(row["low"] <= row["ms"] <= row["high"] for row in found.values())


def test_a_gain_is_counted_in_doublings():
    assert [doublings(f) for f in (0.5, 1, 4)] == [-1, 0, 2]
    model = small()
    found = in_eights(model, model.groups(), 0.45, torch.randn(1, 3, 32, 32), 1)
    fast, slow = found["rates"]["multiples of 8"], found["rates"]["as it comes"]
    assert abs(2 ** found["gain"] - fast / slow) < 1e-9


@pytest.mark.parametrize("shape", [(6, 8), (3, 12, 3, 3)])
def test_two_of_four_by_a_double_loop(shape):
    scores = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    mask = n_of_m({"w": scores}, keep=2, of=4)["w"]
    assert mask.shape == scores.shape and mask.dtype == torch.bool
    rows = scores.movedim(1, -1).reshape(-1, shape[1])
    for row, kept in zip(rows.tolist(), mask.movedim(1, -1).reshape(-1, shape[1]).tolist(), strict=True):
        for start in range(0, shape[1], 4):
            best = sorted(range(start, start + 4), key=lambda i: -row[i])[:2]
            assert [i for i in range(start, start + 4) if kept[i]] == sorted(best)


def test_patterns_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="no multiple of 4"):
        n_of_m({"w": torch.rand(4, 6)}, keep=2, of=4)
    with pytest.raises(ValueError, match="at most 4 can stay, not 5"):
        n_of_m({"w": torch.rand(4, 8)}, keep=5, of=4)


def test_a_packed_matrix_is_nine_sixteenths():
    assert packed_bytes(1024, keep=2, of=4) == (1024, 128)


def test_a_network_born_again_has_its_shape_and_nothing_else():
    model = small()
    new, again = reborn(model, 3), reborn(model, 3)
    for (name, old), fresh, same in zip(
        model.state_dict().items(), *(n.state_dict().values() for n in (new, again)), strict=True
    ):
        assert old.shape == fresh.shape and torch.equal(fresh, same)
        assert not old.is_floating_point() or not torch.equal(old, fresh), name
    assert new.bn1.running_var.eq(1).all() and new.bn1.bias.eq(0).all()


def test_costs_are_ratios_to_the_whole():
    row = {"parameters": 10, "macs": 80, "ms": 6.0, "low": 5.0, "high": 7.0}
    rows = costs("net", {"whole": row, "less": row | {"macs": 20, "ms": 2.0}})
    assert [r["MAC ratio"] for r in rows] == ["1.00", "4.00"] and rows[1]["measured"] == "3.00"
    assert rows[1]["ratio of both"] == "0.75" and rows[1]["ms"] == "2.0 (5.0–7.0)"
    model = generic(vgg16_bn(10, 0.125))
    found = worth(cut_alike(model, model.groups(), (0.5,)), torch.randn(1, 3, 32, 32), 1)
    forms = found["forms"]
    assert abs(2 ** found["removed"] - forms["whole"]["ms"] / forms["50% removed"]["ms"]) < 1e-9
