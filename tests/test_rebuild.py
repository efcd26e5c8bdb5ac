"""OBC and SparseGPT against least squares and brute force."""

import copy
from itertools import combinations

import pytest
import torch
from conftest import generic
from torch import nn

from course_utils.masks import prunable
from course_utils.models import resnet50
from course_utils.rebuild import (
    hessians,
    inverse,
    layer_obs,
    mend,
    obc,
    obc_row,
    sparsegpt,
    sparsegpt_masks,
)
from course_utils.scopes import globally, layerwise
from course_utils.scores import magnitude

D = 8


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def layer(seed=0, rows=3, columns=D, count=200):
    """(W, X, H) with correlated inputs."""
    x = torch.randn(count, columns, generator=seeded(seed), dtype=torch.float64)
    x = x @ torch.randn(columns, columns, generator=seeded(seed + 100), dtype=torch.float64)
    w = torch.randn(rows, columns, generator=seeded(seed + 200), dtype=torch.float64)
    return w, x, 2 * x.T @ x / count


def refit(w, x, keep):
    """The row on the support `keep` that is nearest to w on the inputs x."""
    row = torch.zeros_like(w)
    row[keep] = torch.linalg.lstsq(x[:, keep], (x @ w)[:, None]).solution.flatten()
    return row


def loss(w, new, x):
    return float((x @ (w - new).mT if w.ndim > 1 else x @ (w - new)).square().sum() / len(x))


def test_obcs_row_is_least_squares_on_its_own_support():
    for seed in range(4):
        w, x, h = layer(seed)
        for count in range(D):
            row, order, costs = obc_row(w[0], inverse(h, 0), count)
            keep = torch.ones(D, dtype=torch.bool)
            keep[order] = False
            torch.testing.assert_close(row, refit(w[0], x, keep), rtol=1e-9, atol=1e-9)
            assert len(set(order)) == count and (row[order] == 0).all()
            assert sum(costs) == pytest.approx(loss(w[0], row, x), rel=1e-8, abs=1e-10)


def test_obcs_first_removal_is_the_best_and_later_ones_are_never_better_than_the_best():
    worse = 0
    for seed in range(6):
        w, x, h = layer(seed)
        for count in (1, 3):
            row, _, _ = obc_row(w[0], inverse(h, 0), count)
            best = min(
                loss(w[0], refit(w[0], x, torch.tensor([c not in gone for c in range(D)])), x)
                for gone in combinations(range(D), count)
            )
            mine = loss(w[0], row, x)
            assert mine >= best - 1e-10 and (count > 1 or mine == pytest.approx(best, rel=1e-9))
            worse += mine > best * 1.001
    assert worse > 0  # greedy is not optimal


def test_obc_takes_the_cheapest_of_all_rows():
    w, _, h = layer(5, rows=4)
    new = obc(w, h, 0.4, damping=0)
    assert int((new == 0).sum()) == round(0.4 * w.numel())
    state = [obc_row(row, inverse(h, 0), D) for row in w]
    taken = [0] * 4
    for _ in range(round(0.4 * w.numel())):  # a plain loop over the heads of the rows
        r = min((r for r in range(4) if taken[r] < D), key=lambda r: state[r][2][taken[r]])
        taken[r] += 1
    want = torch.stack([obc_row(row, inverse(h, 0), k)[0] for row, k in zip(w, taken, strict=True)])
    torch.testing.assert_close(new, want)


def test_sparsegpt_is_least_squares_if_the_removed_columns_come_first_and_else_never_better():
    worse = 0
    for seed in range(6):
        w, x, h = layer(seed)
        for gone in ([0, 1, 2], [1, 4, 6], [5, 6, 7]):
            mask = torch.ones_like(w, dtype=torch.bool)
            mask[:, gone] = False
            new, same = sparsegpt(w, h, mask=mask, damping=0)
            want = torch.stack([refit(row, x, mask[0]) for row in w])
            assert torch.equal(same, mask) and (new[~mask] == 0).all()
            assert loss(w, new, x) >= loss(w, want, x) - 1e-9
            worse += loss(w, new, x) > 1.001 * loss(w, want, x)
            if gone == [0, 1, 2]:
                torch.testing.assert_close(new, want, rtol=1e-7, atol=1e-8)
    assert worse > 6


@pytest.mark.parametrize("block", [1, 3, 8, 128])
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.55, 1.0])
def test_sparsegpt_counts_exactly_and_zeros_are_zero(sparsity, block):
    w, _, h = layer(2, rows=5, columns=11)
    new, mask = sparsegpt(w, h, sparsity, block=block)
    assert int((~mask).sum()) == round(sparsity * 55) == int((new == 0).sum())
    again, _ = sparsegpt(w, h, mask=mask)
    torch.testing.assert_close(again, new)  # the sweep with its own mask given is the same sweep
    if sparsity == 0:
        torch.testing.assert_close(new, w)


def test_one_block_of_one_column_is_chosen_by_what_it_costs():
    w, _, h = layer(3, rows=6, columns=4)
    _, mask = sparsegpt(w, h, 0.5, damping=0, block=1)
    assert (~mask).sum(0).tolist() == [3, 3, 3, 3]
    assert (w[:, 0].abs()[~mask[:, 0]].max() < w[:, 0].abs()[mask[:, 0]].min()).item()


def test_the_saliency_is_what_the_best_move_costs():
    model = nn.Sequential(nn.Linear(D, 3, bias=False))
    w, x, _ = layer(7)
    model[0].weight.data = w
    scores = layer_obs(model, [(x, None)], damping=0)["0.weight"]
    for r, c in ((0, 0), (1, 5), (2, 7)):
        keep = torch.arange(D) != c
        assert float(scores[r, c]) == pytest.approx(loss(w[r], refit(w[r], x, keep), x), rel=1e-8)


def test_hessians_are_twice_the_mean_product_of_inputs():
    model = generic(nn.Sequential(nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.Flatten(), nn.Linear(12, 4)).double())
    x = torch.randn(7, 2, 4, 4, generator=seeded(0), dtype=torch.float64)
    found = hessians(model, [(x[:3], None), (x[3:], None)])
    padded = torch.nn.functional.pad(x, [1] * 4)
    rows = torch.stack([padded[n, :, i : i + 3, j : j + 3].flatten() for n in range(7) for i in (0, 2) for j in (0, 2)])
    torch.testing.assert_close(found["0.weight"], 2 * rows.T @ rows / 28)
    y = model[0](x).detach().flatten(1)
    torch.testing.assert_close(found["2.weight"], 2 * y.T @ y / 7)


def test_dead_inputs_cost_nothing_and_go_first():
    w, x, _ = layer(4)
    x[:, [2, 6]] = 0
    h = 2 * x.T @ x / len(x)
    new, mask = sparsegpt(w, h, 0.25, damping=0)
    assert not mask[:, [2, 6]].any() and mask.sum() == 18
    torch.testing.assert_close(x @ new.T, x @ w.T, rtol=1e-8, atol=1e-8)
    assert (obc(w, h, 0.25, damping=0)[:, [2, 6]] == 0).all()


def test_a_singular_h_is_refused_without_damping():
    w, x, _ = layer(1, count=5)  # fewer rows than columns
    h = 2 * x.T @ x / 5
    for work in (lambda: sparsegpt(w, h, 0.5, damping=0), lambda: obc(w, h, 0.5, damping=0), lambda: inverse(h, 0)):
        with pytest.raises(ValueError, match="damping 0: take a damping such as 0.01"):
            work()
    assert sparsegpt(w, h, 0.5)[0].isfinite().all()
    assert inverse(torch.zeros(3, 3, dtype=torch.float64), 0).equal(torch.eye(3, dtype=torch.float64))


def test_obc_refuses_what_would_take_hours():
    with pytest.raises(ValueError, match="601"):
        obc(torch.zeros(1, 601), torch.eye(601, dtype=torch.float64), 0.5)


@pytest.fixture
def network():
    return generic(resnet50(5, 1 / 16, (1, 1)))


@pytest.fixture
def images():
    return [(torch.randn(8, 3, 16, 16, generator=seeded(s)), torch.zeros(8).long()) for s in (0, 1)]


def test_mending_is_the_sweep_in_every_layer_and_keeps_the_masks(network, images):
    for masks in (
        layerwise(magnitude(network), 0.5),
        globally(layer_obs(network, images), 0.5),
        sparsegpt_masks(network, 0.5, images),
    ):
        mended = copy.deepcopy(network)
        mend(mended, masks, images)
        before, found = prunable(network), hessians(network, images)
        for n, w in prunable(mended).items():
            assert (w[~masks[n]] == 0).all() and w.dtype == torch.float32
            want, _ = sparsegpt(before[n], found[n], mask=masks[n])
            torch.testing.assert_close(w.double(), want, rtol=1e-5, atol=1e-6)
    total = sum(m.numel() for m in masks.values())
    assert sum(int((~m).sum()) for m in masks.values()) == pytest.approx(0.5 * total, abs=len(masks))


@pytest.mark.parametrize("work", [layer_obs, hessians, lambda m, b: mend(m, layerwise(magnitude(m), 0.5), b)])
def test_what_no_layer_can_be_rebuilt_from_is_refused(network, images, work):
    x, y = images[0]
    for batches, words in (([], "no calibration"), ([(x[:0], y[:0])], "with images"), ([(x * torch.inf, y)], "NaN")):
        with pytest.raises(ValueError, match=words):
            work(network, batches)
    with pytest.raises(ValueError, match="another network"):
        mend(network, {"conv1.weight": torch.ones(1, 1, dtype=torch.bool)}, images)


def test_a_given_mask_is_kept_to_the_letter_also_where_the_input_was_always_zero():
    x = torch.randn(40, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    x[:, 2] = 0
    w, h = torch.randn(3, 6, generator=torch.Generator().manual_seed(5)), 2 * x.T @ x / len(x)
    same, _ = sparsegpt(w, h, mask=torch.ones(3, 6, dtype=torch.bool))
    torch.testing.assert_close(same.float(), w)


@pytest.mark.parametrize("sparsity", [90, -0.5])
def test_sparsity_is_a_fraction_here_too(sparsity):
    w, h = torch.randn(3, 6), torch.eye(6, dtype=torch.float64)
    for method in (sparsegpt, obc):
        with pytest.raises(ValueError, match=r"sparsity is the fraction to remove"):
            method(w, h, sparsity)
