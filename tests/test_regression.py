"""LASSO, ThiNet and the readers' re-fit against definitions, brute force and torch's own least squares."""

import copy
from itertools import combinations, pairwise

import pytest
import torch
from conftest import generic
from torch import nn
from torch.nn.functional import conv2d

from course_utils.channels import channels_in
from course_utils.models import resnet50, resnet_cifar
from course_utils.readings import moments, tables
from course_utils.regression import (
    contributions,
    entries,
    lasso,
    lasso_path,
    least_squares,
    listeners,
    reconstruct,
    removals,
    rising,
    thinet,
)
from course_utils.scopes import at_least, globally, keep_top, layerwise
from course_utils.units import inner, remove, unit_chance


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def network():
    return generic(resnet50(5, 1 / 16, (1, 1)))


@pytest.fixture
def images():
    return [(torch.randn(6, 3, 16, 16, generator=seeded(s)), torch.zeros(6).long()) for s in (0, 1)]


def parts(seed=0, rows=60, count=7):
    """Contributions with very different sizes and some correlation."""
    z = torch.randn(rows, count, generator=seeded(seed), dtype=torch.float64)
    z = z * torch.linspace(0.3, 2, count) + 0.5 * z[:, :1]
    return z, z.T @ z / rows


def patch_by_patch(weight, x, stride):
    """Each unit's contribution to all outputs, by convolving with that unit alone."""
    return torch.stack(
        [conv2d(x[:, c : c + 1], weight[:, c : c + 1], None, stride, weight.shape[2] // 2) for c in range(x.shape[1])]
    )


def test_products_are_those_of_contributions_that_convolution_gives(network, images):
    groups = inner(network)
    network.double()
    seen: dict = {}
    hooks = [m.register_forward_hook(lambda m, i, o: seen.setdefault(m, []).append(i[0])) for m in network.modules()]
    with torch.no_grad():
        for x, _ in images:
            network(x[:, :, :4, :4].double())
    [h.remove() for h in hooks]
    grams = contributions(network, groups, [(x[:, :, :4, :4].double(), y) for x, y in images])  # all 16 positions
    for name, group in groups.items():
        want = torch.zeros_like(grams[name])
        for layer in listeners(group):
            module = network.get_submodule(layer)
            z = patch_by_patch(module.weight.detach(), torch.cat(seen[module]), module.stride).flatten(1)
            want += z @ z.T / (z.shape[1] / module.out_channels)
        torch.testing.assert_close(grams[name], want, rtol=1e-9, atol=1e-12)


def test_the_stem_is_heard_by_two_layers(network):
    assert listeners(inner(network)["stem"]) == ["layer1.0.conv1", "layer1.0.downsample.0"]


def test_tables_are_rows_of_a_matrix_product_and_moments_are_theirs(network, images):
    found = tables(network, ["conv1", "layer1.0.conv2", "fc"], images, places=7)
    for name, (x, y) in found.items():
        module = network.get_submodule(name)
        torch.testing.assert_close(x @ module.weight.detach().double().flatten(1).T, y, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(moments(network, [name], images, places=7)[name], x.T @ x / len(x))
    assert {name: len(x) for name, (x, _) in found.items()} == {"conv1": 84, "layer1.0.conv2": 84, "fc": 12}
    alone = tables(network, ["layer1.0.conv2"], images, places=7)
    assert torch.equal(alone["layer1.0.conv2"][0], found["layer1.0.conv2"][0])  # the same places in any company


def test_the_lassos_conditions_hold_along_the_whole_path():
    for seed in range(5):
        z, gram = parts(seed)
        y = z.sum(1)
        bends, betas = lasso_path(gram)
        assert bends[0] == pytest.approx(float((z.T @ y / len(z)).abs().max()))
        assert bends[-1] == pytest.approx(0, abs=1e-9)
        for level in torch.rand(20, generator=seeded(seed), dtype=torch.float64) * bends[0]:
            i = int((bends > level).sum())  # between two bends the path is a straight line
            share = (bends[i - 1] - level) / (bends[i - 1] - bends[i])
            beta = betas[:, i - 1] + share * (betas[:, i] - betas[:, i - 1])
            slope = z.T @ (y - z @ beta) / len(z)
            assert (slope.abs() <= level + 1e-6).all()
            held = beta != 0
            torch.testing.assert_close(slope[held], level * beta[held].sign(), atol=1e-6, rtol=0)


def test_an_orthonormal_lasso_has_a_closed_form():
    q = torch.linalg.qr(torch.randn(40, 6, generator=seeded(3), dtype=torch.float64)).Q
    scale = torch.tensor([3.0, 0.5, 2.0, 1.0, 2.5, 0.1], dtype=torch.float64)
    z = q * scale  # Z'y = scale²: unit c is in as soon as λ < scale_c² / rows
    torch.testing.assert_close(entries(z.T @ z / 40), scale.square() / scale.square().max())
    _, betas = lasso_path(q.T @ q)
    torch.testing.assert_close(betas[:, -1], torch.ones(6, dtype=torch.float64))


def test_a_unit_that_says_nothing_or_what_another_says_comes_last():
    z, _ = parts()
    z[:, 2] = 0
    z[:, 5] = z[:, 6]
    scores = entries(z.T @ z)
    assert scores[2] == 0 and scores[5:].min() == 0 and scores[5:].max() > 0 and (scores >= 0).all()
    assert entries(torch.zeros(3, 3, dtype=torch.float64)).tolist() == [0, 0, 0]


def cost(z, gone):
    return float(z[:, list(gone)].sum(1).square().sum() / z.sum(1).square().sum())


def test_thinet_is_the_naive_loop_and_never_beats_brute_force():
    for seed in range(4):
        z, gram = parts(seed, count=8)
        order, errors = removals(gram)
        gone = []
        for step, unit in enumerate(order):
            best = min((c for c in range(8) if c not in gone), key=lambda c: cost(z, [*gone, c]))
            gone.append(best)
            optimum = min(cost(z, some) for some in combinations(range(8), step + 1))
            assert unit == best and errors[step] == pytest.approx(cost(z, gone), rel=1e-9)
            assert errors[step] >= optimum - 1e-12 and (step or errors[0] == pytest.approx(optimum))


def test_thinets_scores_rise_strictly_along_its_order():
    z, _ = parts(1)
    z[:, 2], z[:, 4], z[:, 5] = 0, 0, -z[:, 0]  # silent units, and two that cancel: the error falls on the way
    order, errors = removals(z.T @ z)
    assert any(b < a for a, b in pairwise(errors))
    scores = rising(order, errors)
    assert scores.argsort().tolist() == order and (scores.sort().values.diff() > 0).all()
    for sparsity in (0.3, 0.5, 0.8):
        assert (~keep_top(scores, sparsity)).nonzero().flatten().tolist() == sorted(order[: round(sparsity * 7)])


def test_scores_fit_the_units_and_go_through_both_scopes(network, images):
    groups = inner(network)
    for criterion in (lasso, thinet):
        scores = criterion(network, groups, images)
        assert {n: len(s) for n, s in scores.items()} == {n: channels_in(network, g) for n, g in groups.items()}
        assert all(s.dtype == torch.float64 and s.isfinite().all() and (s >= 0).all() for s in scores.values())
        again = criterion(network, groups, images)
        assert all(torch.equal(s, again[n]) for n, s in scores.items())
        for scope in (layerwise, globally):
            gone = sum(int((~m).sum()) for m in scope(at_least(scores, 1), 0.5).values())
            assert gone == pytest.approx(0.5 * sum(map(len, scores.values())), abs=len(scores))


def test_least_squares_is_torchs():
    for seed in range(3):
        x, y = (torch.randn(50, n, generator=seeded(seed), dtype=torch.float64) for n in (12, 5))
        w = torch.randn(5, 12, generator=seeded(9), dtype=torch.float64)
        torch.testing.assert_close(least_squares(x, y, w), torch.linalg.lstsq(x, y).solution.T, rtol=1e-8, atol=1e-8)


def test_a_ridge_holds_the_old_weights_and_never_makes_it_worse():
    x, y = (torch.randn(6, n, generator=seeded(n), dtype=torch.float64) for n in (12, 5))
    w = torch.randn(5, 12, generator=seeded(9), dtype=torch.float64)
    with pytest.raises(ValueError, match=r"6 rows cannot fit 12 columns.*ridge > 0"):
        least_squares(x, y, w)
    assert torch.allclose(least_squares(x, y, w, ridge=1e9), w, atol=1e-6)
    losses = [(y - x @ least_squares(x, y, w, ridge).T).square().sum() for ridge in (1e-6, 0.1, 10)]
    assert losses[0] < losses[1] < losses[2] < (y - x @ w.T).square().sum()


def test_silent_columns_keep_their_old_weights():
    x, y = (torch.randn(50, n, generator=seeded(n), dtype=torch.float64) for n in (4, 2))
    x[:, 1] = 0
    w = torch.randn(2, 4, generator=seeded(9), dtype=torch.float64)
    assert torch.allclose(least_squares(x, y, w)[:, 1], w[:, 1])


def by_hand(network, groups, masks, batches):
    """Group by group: pruned inputs in a cut copy, original outputs, torch's least squares on the kept columns."""
    network = copy.deepcopy(network).double()
    batches = [(x.double(), y) for x, y in batches]
    layers = [layer for g in groups.values() for layer in listeners(g)]
    wanted = tables(network, layers, batches)
    for name, group in groups.items():
        for tensor, axis in group.items():
            if axis == 0 and "bn" in tensor and tensor.endswith(("weight", "bias")):
                network.state_dict()[tensor][~masks[name]] = 0
    for name, group in groups.items():
        for layer in listeners(group):
            module = network.get_submodule(layer)
            keep = masks[name][:, None].expand(-1, module.weight[0, 0].numel()).flatten()
            x = tables(network, [layer], batches)[layer][0][:, keep]
            w = module.weight.detach().flatten(1).clone()
            w[:, keep] = torch.linalg.lstsq(x, wanted[layer][1]).solution.T
            module.weight.data = w.view_as(module.weight)
    return network


def test_reconstruction_is_least_squares_on_pruned_inputs_and_original_outputs(network, images):
    network, groups = network.double(), inner(network)
    images = [(x.double(), y) for x, y in images]
    masks = layerwise(unit_chance(network, groups), 0.5)
    small = reconstruct(network, groups, masks, images)
    want = by_hand(network, groups, masks, images)
    x = images[0][0]
    torch.testing.assert_close(small(x), want(x), rtol=1e-7, atol=1e-7)
    shapes = {n: p.shape for n, p in remove(network, groups, masks).named_parameters()}
    assert {n: p.shape for n, p in small.named_parameters()} == shapes


def test_reconstruction_brings_every_reader_closer(network, images):
    groups = inner(network)
    masks = layerwise(unit_chance(network, groups), 0.5)
    layers = ["layer1.0.conv3", "layer1.0.downsample.0"]
    cut, fitted = remove(network, groups, masks), reconstruct(network, groups, masks, images)
    dense, cut, small = (tables(m, layers, images) for m in (network, cut, fitted))
    for layer in layers:
        assert (small[layer][1] - dense[layer][1]).norm() < (cut[layer][1] - dense[layer][1]).norm()


def test_keeping_all_changes_nothing_and_the_original_stays(network, images):
    groups, before = inner(network), copy.deepcopy(network.state_dict())
    everything = {n: torch.ones(channels_in(network, g), dtype=torch.bool) for n, g in groups.items()}
    small = reconstruct(network, groups, everything, images)
    x = images[0][0]
    torch.testing.assert_close(small(x), network(x), rtol=1e-4, atol=1e-4)
    reconstruct(network, groups, layerwise(unit_chance(network, groups), 0.5), images)
    assert all(torch.equal(t, before[n]) for n, t in network.state_dict().items()) and not network.training


def test_two_channels_that_say_the_same_need_only_one():
    torch.manual_seed(0)
    twins = generic(resnet50(5, 1 / 16, (1,))).double()
    group = {"layer1.0.conv1": inner(twins)["layer1.0.conv1"]}
    for name, axis in group["layer1.0.conv1"].items():
        if axis == 0:
            tensor = twins.state_dict()[name]
            tensor[1] = tensor[0]
    x = torch.randn(8, 3, 8, 8, generator=seeded(0), dtype=torch.float64)
    masks = {"layer1.0.conv1": torch.tensor([True, False, True, True])}
    torch.testing.assert_close(reconstruct(twins, group, masks, [(x, None)])(x), twins(x), rtol=1e-6, atol=1e-6)
    assert not torch.allclose(remove(twins, group, masks)(x), twins(x), atol=1e-3)


def halved(network, groups, batches):
    return reconstruct(network, groups, layerwise(unit_chance(network, groups), 0.5), batches)


@pytest.mark.parametrize("work", [lasso, thinet, halved])
def test_what_no_regression_can_learn_from_is_refused(network, images, work):
    groups = inner(network)
    x, y = images[0]
    for batches, words in (
        ([], "no calibration batches"),
        ([(x[:0], y[:0])], "no calibration batches with images"),
        ([(x * torch.nan, y)], "NaN"),
        ([(x[:, :1], y)], "3 channels"),
    ):
        with pytest.raises(ValueError, match=words):
            work(network, groups, batches)


def test_too_few_images_are_said_and_a_ridge_is_the_way_out(network, images):
    groups, few = inner(network), [(images[0][0][:1, :, :4, :4], None)]
    masks = layerwise(unit_chance(network, groups), 0.25)
    with pytest.raises(ValueError, match="rows cannot fit"):
        reconstruct(network, groups, masks, few)
    assert reconstruct(network, groups, masks, few, ridge=0.1)(images[0][0]).isfinite().all()


def test_an_empty_layer_and_strange_masks_are_refused(network, images):
    groups = inner(network)
    masks = layerwise(unit_chance(network, groups), 0.5)
    with pytest.raises(ValueError, match="floor"):
        reconstruct(network, groups, masks | {"stem": torch.zeros(4, dtype=torch.bool)}, images)
    with pytest.raises(ValueError, match="other units"):
        reconstruct(network, groups, {"stem": torch.ones(9, dtype=torch.bool)}, images)


def test_another_network_with_other_groups(images):
    model = generic(resnet_cifar(8, 5, 0.25))
    groups = inner(model)
    masks = globally(at_least(thinet(model, groups, images), 1), 0.5)
    assert reconstruct(model, groups, masks, images, ridge=1e-3)(images[0][0]).shape == (6, 5)


def test_a_convolution_that_is_not_one_matrix_is_refused():
    for options in ({"groups": 2}, {"padding": "same"}, {"padding": 1, "padding_mode": "circular"}):
        model = nn.Sequential(nn.Conv2d(4, 4, 3, **options))
        with pytest.raises(ValueError, match="not one matrix"):
            tables(model, ["0"], [(torch.randn(2, 4, 5, 5), None)])


def test_a_bias_is_no_contribution():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 2))
    found = tables(model, ["0", "2"], [(torch.randn(5, 3, 4, 4), None)])
    for name, (x, y) in found.items():
        want = x @ model.get_submodule(name).weight.detach().double().flatten(1).T
        torch.testing.assert_close(y, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-10, 1e-5, 1.0, 1e6])
def test_entries_do_not_depend_on_the_scale_of_the_contributions(scale):
    z = torch.randn(50, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    gram = z.T @ z / len(z)
    torch.testing.assert_close(entries(gram * scale), entries(gram), rtol=1e-6, atol=0)


def test_every_image_is_looked_at_in_places_of_its_own():
    conv = nn.Conv2d(1, 1, 1, bias=False)
    x = torch.arange(16.0).view(1, 1, 4, 4).repeat(20, 1, 1, 1)
    seen, _ = tables(nn.Sequential(conv), ["0"], [(x, torch.zeros(20).long())], places=3)["0"]
    assert len({tuple(sorted(row)) for row in seen.view(20, 3).tolist()}) > 10
