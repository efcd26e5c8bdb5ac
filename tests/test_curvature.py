"""Fisher, OBD and OBS against double loops, torch.func, explicit inverses and least squares; all in float64."""

import copy

import pytest
import torch
from conftest import generic
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy

from course_utils.curvature import compensate, fisher, inverse_fisher, obd, obs, surgeon
from course_utils.masks import prunable
from course_utils.models import mlp, resnet50
from course_utils.scopes import globally


class Varied(nn.Module):
    """Strides, paddings, dilation, groups, 1 × 1, an odd kernel, BatchNorm and a linear layer."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 6, 3, stride=2, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(6)
        self.b = nn.Conv2d(6, 8, 1, stride=2)
        self.c = nn.Conv2d(8, 4, (3, 2), padding=(2, 0), dilation=(2, 1), groups=2)
        self.fc = nn.Linear(4, 5)

    def forward(self, x):
        x = torch.tanh(self.bn(self.a(x)))
        return self.fc(torch.tanh(self.c(self.b(x))).mean((2, 3)))


class Tokens(nn.Module):
    """A linear layer that is applied at every position of a picture."""

    def __init__(self):
        super().__init__()
        self.inner, self.fc = nn.Linear(3, 4), nn.Linear(4, 5)

    def forward(self, x):
        return self.fc(torch.tanh(self.inner(x.movedim(1, -1))).mean((1, 2)))


NETWORKS = {
    "varied": (Varied, (3, 9, 11), 5),
    "tokens": (Tokens, (3, 3, 4), 5),
    "perceptron": (lambda: mlp((12, 7, 5), bias=True), (12,), 5),
    "resnet": (lambda: resnet50(width=0.0625, blocks=(1, 1, 1, 1)), (3, 8, 8), 10),
}


def network(name, images=9):
    make, shape, classes = NETWORKS[name]
    random = torch.Generator().manual_seed(3)
    model = generic(make()).double()
    x = torch.randn(images, *shape, dtype=torch.float64, generator=random)
    return model, x, torch.randint(classes, (images,), generator=random)


def in_batches(x, y, size):
    return list(zip(x.split(size), y.split(size), strict=True))


def one_by_one(model, x, y):
    """The gradients, image by image: weight name -> images × weight."""
    found = {name: [] for name in prunable(model)}
    for n in range(len(x)):
        loss = cross_entropy(model(x[n : n + 1]), y[n : n + 1])
        for name, g in zip(found, torch.autograd.grad(loss, list(prunable(model).values())), strict=True):
            found[name].append(g)
    return {name: torch.stack(rows) for name, rows in found.items()}


def vectorised(model, x, y):
    """The same by torch.func."""
    state = {n: t.detach() for n, t in [*model.named_parameters(), *model.named_buffers()]}
    weights = {n: state.pop(n) for n in prunable(model)}

    def loss(weights, image, label):
        return cross_entropy(functional_call(model, weights | state, (image[None],)), label[None])

    return vmap(grad(loss), in_dims=(None, 0, 0))(weights, x, y)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("oracle", [one_by_one, vectorised])
def test_fisher_is_the_mean_of_squared_gradients_of_single_images(name, oracle):
    model, x, y = network(name)
    found = fisher(model, in_batches(x, y, 4))
    for weight, rows in oracle(model, x, y).items():
        torch.testing.assert_close(found[weight], rows.square().mean(0), rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [1, 3, 8])
def test_the_size_of_a_batch_is_no_matter(name, size):
    model, x, y = network(name)
    whole, inverse = fisher(model, [(x, y)]), inverse_fisher(model, [(x, y)], 0.1, 7)
    for weight, found in fisher(model, in_batches(x, y, size)).items():
        torch.testing.assert_close(found, whole[weight], rtol=1e-9, atol=1e-15)
    for weight, found in inverse_fisher(model, in_batches(x, y, size), 0.1, 7).items():
        torch.testing.assert_close(found, inverse[weight], rtol=1e-9, atol=1e-12)


def test_one_linear_layer_by_hand():
    layer = generic(nn.Linear(6, 2, bias=False)).double()
    x = torch.randn(11, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = torch.arange(11) % 2
    p = torch.sigmoid((layer.weight[1] - layer.weight[0]) @ x.mT)  # of class 1
    by_hand = ((p - y)[:, None].square() * x.square()).mean(0)
    found = fisher(layer, [(x, y)])["weight"]
    torch.testing.assert_close(found, by_hand.expand(2, -1), rtol=1e-12, atol=0)
    half = obd(layer, [(x, y)])["weight"]
    torch.testing.assert_close(half, by_hand * layer.weight**2 / 2, rtol=1e-12, atol=0)


def blocks_of(rows, size):
    """The explicit block matrices of F, one after the other, the last one as short as it is."""
    flat = rows.flatten(1)
    return [piece.mT @ piece / len(flat) for piece in flat.split(size, dim=1)]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("damping", "block"), [(1e-3, 7), (0.5, 1), (1e-2, 200)])
def test_the_inverse_is_the_explicit_inverse(name, damping, block):
    model, x, y = network(name)
    rows = one_by_one(model, x, y)
    found = inverse_fisher(model, in_batches(x, y, 4), damping, block)
    for weight, inverse in found.items():
        matrices = blocks_of(rows[weight], block)
        assert len(matrices) == len(inverse)
        for matrix, mine in zip(matrices, inverse, strict=True):
            n = len(matrix)
            eye = torch.eye(n, dtype=torch.float64)
            torch.testing.assert_close(mine[:n, :n], torch.linalg.inv(matrix + damping * eye), rtol=1e-8, atol=1e-9)
            assert not mine[:n, n:].any() and not mine[n:, :n].any()  # what fills up the last block touches nothing


def test_woodbury_image_by_image_gives_the_same_inverse():
    model, x, y = network("varied")
    rows = one_by_one(model, x, y)["b.weight"].flatten(1)
    inverse = torch.eye(48, dtype=torch.float64) / 0.01
    for g in rows:
        v = inverse @ g
        inverse -= torch.outer(v, v) / (len(rows) + g @ v)
    found = inverse_fisher(model, [(x, y)], 0.01, 48)["b.weight"][0]
    torch.testing.assert_close(found, inverse, rtol=1e-9, atol=1e-9)


def least_squares(size=8, layers=1):
    """A linear layer, and data with targets that it fits as well as it can: then the loss is exactly a parabola."""
    random = torch.Generator().manual_seed(5)
    x = torch.randn(50, size, dtype=torch.float64, generator=random)
    x[:, 1:] += 0.8 * x[:, :-1]
    target = torch.randn(50, layers, dtype=torch.float64, generator=random)
    layer = nn.Linear(size, layers, bias=False).double()
    layer.weight.data = torch.linalg.lstsq(x, target).solution.mT.contiguous()
    inverse = torch.linalg.inv(x.mT @ x / len(x)).expand(layers, -1, -1).contiguous()
    return layer, {"weight": inverse}, x, target


def half_error(layer, x, target):
    return ((layer(x) - target) ** 2).sum(1).mean().item() / 2


def refit(x, target, keep):
    """Least squares for the inputs in `keep` alone, and half its mean squared error."""
    best = torch.zeros(x.shape[1], dtype=torch.float64)
    best[keep] = torch.linalg.lstsq(x[:, keep], target).solution[:, 0]
    return best, ((x @ best[:, None] - target) ** 2).mean().item() / 2


def test_the_cost_of_one_removal_is_that_of_the_refit():
    layer, inverse, x, target = least_squares()
    before = half_error(layer, x, target)
    costs = surgeon(layer, inverse)["weight"][0]
    for q in range(8):
        _, after = refit(x, target, [i for i in range(8) if i != q])
        assert costs[q].item() == pytest.approx(after - before, rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("gone", [[0], [2, 3], [0, 1, 4, 6], list(range(8))])
def test_many_removals_at_once_are_the_refit(gone):
    layer, inverse, x, target = least_squares()
    keep = [i for i in range(8) if i not in gone]
    mask = torch.tensor([[i in keep for i in range(8)]])
    compensate(layer, {"weight": mask}, inverse)
    best, after = refit(x, target, keep)
    torch.testing.assert_close(layer.weight[0].detach(), best, rtol=1e-9, atol=1e-10)
    assert half_error(layer, x, target) == pytest.approx(after, rel=1e-10)


def test_updates_added_up_are_not_the_refit():
    layer, inverse, x, target = least_squares()
    gone, keep, F, w = [2, 3, 4], [0, 1, 5, 6, 7], inverse["weight"][0], layer.weight[0].detach().clone()
    added = w - sum(w[q] / F[q, q] * F[:, q] for q in gone)
    added[gone] = 0
    _, best = refit(x, target, keep)
    layer.weight.data[0] = added
    assert half_error(layer, x, target) > 1.05 * best


def test_the_joint_update_solves_the_constrained_problem():
    model, x, y = network("varied")
    damping, w = 0.01, model.b.weight.detach().flatten().clone()
    inverse = inverse_fisher(model, [(x, y)], damping, 12)
    F = [m + damping * torch.eye(12, dtype=torch.float64) for m in blocks_of(one_by_one(model, x, y)["b.weight"], 12)]
    mask = torch.rand(w.shape, generator=torch.Generator().manual_seed(8)) > 0.5
    compensate(model, {"b.weight": mask.view_as(model.b.weight)}, inverse)
    for block, matrix in enumerate(F):  # the gradient of ½ δ'Fδ in the free directions is zero
        here = slice(12 * block, 12 * block + 12)
        delta = model.b.weight.detach().flatten()[here] - w[here]
        assert not (matrix @ delta)[mask[here]].abs().gt(1e-9).any()


def test_removed_weights_are_exactly_zero_and_others_move():
    model, x, y = network("resnet")
    inverse = inverse_fisher(model, [(x, y)], 0.01, 16)
    masks, before = globally(surgeon(model, inverse), 0.7), copy.deepcopy(model)
    compensate(model, masks, inverse)
    for name, w in prunable(model).items():
        assert not w[~masks[name]].any()
    moved = [
        name
        for name, w in prunable(model).items()
        if not torch.equal(w * masks[name], prunable(before)[name] * masks[name])
    ]
    assert len(moved) > 10
    biases = [(a, b) for a, b in zip(model.parameters(), before.parameters(), strict=True) if a.ndim == 1]
    assert all(torch.equal(a, b) for a, b in biases)


def test_nothing_removed_nothing_moves():
    model, x, y = network("varied")
    before = copy.deepcopy(model.state_dict())
    inverse = inverse_fisher(model, [(x, y)], 0.01, 12)
    compensate(model, {n: torch.ones_like(w, dtype=torch.bool) for n, w in prunable(model).items()}, inverse)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


def test_earlier_zeros_stay_zero():
    model, x, y = network("varied")
    first = globally(obd(model, [(x, y)]), 0.5)
    compensate(model, first, inverse_fisher(model, [(x, y)], 0.01, 12))
    second = {n: m & (torch.arange(m.numel()).view_as(m) % 3 > 0) for n, m in first.items()}
    compensate(model, second, inverse_fisher(model, [(x, y)], 0.01, 12))
    assert all(not w[~second[n]].any() for n, w in prunable(model).items())


def test_obs_is_surgeon_and_blocks_of_one_are_damped_obd():
    model, x, y = network("varied")
    batches = in_batches(x, y, 4)
    inverse = inverse_fisher(model, batches, 1e-3, 12)
    alone, curvature = obs(model, batches, 1e-3, 1), fisher(model, batches)
    for name, w in prunable(model).items():
        together = obs(model, batches, 1e-3, 12)[name]
        assert torch.equal(together, surgeon(model, inverse)[name])
        torch.testing.assert_close(alone[name], (curvature[name] + 1e-3) * w.detach() ** 2 / 2, rtol=1e-9, atol=1e-15)
        assert (together <= alone[name] * (1 + 1e-9)).all()  # the others can only help


def test_infinite_damping_is_magnitude():
    model, x, y = network("resnet")
    scores = obs(model, [(x, y)], 1e9, 8)
    for name, w in prunable(model).items():
        torch.testing.assert_close(scores[name] / 1e9, w.detach() ** 2 / 2, rtol=1e-4, atol=0)


@pytest.mark.parametrize("criterion", [fisher, obd, obs])
@pytest.mark.parametrize("mode", [True, False])
def test_the_model_is_only_looked_at(criterion, mode):
    model, x, y = network("varied")
    model.train(mode)
    model.a.weight.requires_grad_(False)
    model.fc.weight.grad = torch.ones_like(model.fc.weight)
    before, kept = copy.deepcopy(model.state_dict()), x.clone()
    criterion(model, in_batches(x, y, 4))
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert all(m.training == mode for m in model.modules())
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == ["a.weight"]
    assert [n for n, p in model.named_parameters() if p.grad is not None] == ["fc.weight"]
    assert (model.fc.weight.grad == 1).all() and torch.equal(x, kept) and not x.requires_grad
    assert not any(m._forward_hooks for m in model.modules())


@pytest.mark.parametrize("criterion", [fisher, obd, obs])
def test_bad_calibration_is_one_sentence(criterion):
    model, x, y = network("varied")
    bad = {
        "no calibration batches": [],
        "one label for each": [x],
        "reads 3 channels": [(x[:, :2], y)],
        "NaN or infinite": [(x.log(), y)],
    }
    for words, batches in bad.items():
        with pytest.raises(ValueError, match=words) as error:
            criterion(model, batches)
        assert "\n" not in str(error.value)
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks for m in model.modules())


@pytest.mark.parametrize(("damping", "block"), [(0, 50), (-1e-4, 50), (float("nan"), 50), (1e-4, 0)])
def test_damping_and_block_have_to_be_positive(damping, block):
    model, x, y = network("varied")
    with pytest.raises(ValueError, match="no inverse") as error:
        inverse_fisher(model, [(x, y)], damping, block)
    assert f"damping {damping}" in str(error.value) and f"block {block}" in str(error.value)


class Twice(nn.Module):
    """One layer, used twice."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, 5)

    def forward(self, x):
        return self.layer(torch.tanh(self.layer(x)))


class Mixing(nn.Module):
    """A layer that sees two images as one."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(10, 10)

    def forward(self, x):
        return self.layer(x.view(-1, 10)).view(-1, 5)


@pytest.mark.parametrize("make", [Twice, Mixing])
def test_layers_whose_gradient_of_one_image_is_unknown_are_refused(make):
    x, y = torch.randn(4, 5, generator=torch.Generator().manual_seed(0)), torch.arange(4)
    with pytest.raises(ValueError, match="layer is used twice, or mixes images"):
        fisher(make(), [(x, y)])


def test_unknown_layers_are_refused():
    for layer in (nn.Conv2d(3, 4, 3, padding="same"), nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect")):
        model = nn.Sequential(layer, nn.Flatten(), nn.LazyLinear(4))
        x = torch.randn(2, 3, 5, 5)
        model(x)
        with pytest.raises(ValueError, match="is not known here"):
            fisher(model, [(x, torch.arange(2))])


def test_an_inverse_of_another_network_is_refused():
    model, x, y = network("varied")
    inverse = inverse_fisher(model, [(x, y)], 0.01, 12)
    inverse["b.weight"] = inverse["b.weight"][:2]
    with pytest.raises(ValueError, match=r"another network: b.weight"):
        surgeon(model, inverse)
    with pytest.raises(ValueError, match=r"another network: b.weight"):
        compensate(model, globally(obd(model, [(x, y)]), 0.5), inverse)
