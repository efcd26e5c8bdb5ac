"""Taylor against finite differences, Wanda against an explicit loop; both leave the network as it was."""

import copy

import pytest
import torch
from conftest import generic
from torch import nn
from torch.nn.functional import cross_entropy

from course_utils.masks import prunable
from course_utils.scores import taylor, wanda


def tiny():
    """A network of every kind of layer that counts, with images and labels, in float64."""
    layers = nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.Tanh(), nn.Conv2d(3, 2, 2, stride=2), nn.Flatten()
    model = generic(nn.Sequential(*layers, nn.Linear(8, 4))).double()
    random = torch.Generator().manual_seed(2)
    x = torch.randn(7, 2, 4, 4, dtype=torch.float64, generator=random)
    return model, x, torch.randint(4, (7,), generator=random)


def in_batches(x, y, size):
    return list(zip(x.split(size), y.split(size), strict=True))


@pytest.mark.parametrize("size", [2, 7])
def test_taylor_is_the_change_of_the_mean_loss_when_a_weight_shrinks_a_little(size):
    model, x, y = tiny()
    found = taylor(model, in_batches(x, y, size))
    for name, weight in prunable(model).items():
        flat, step = weight.data.view(-1), 1e-5
        for q in range(weight.numel()):
            old, losses = flat[q].item(), []
            for scale in (1 - step, 1 + step):
                flat[q] = old * scale
                losses.append(cross_entropy(model(x), y).item())
            flat[q] = old
            slope = abs(losses[1] - losses[0]) / (2 * step)
            assert found[name].view(-1)[q].item() == pytest.approx(slope, rel=1e-5, abs=1e-9)


def test_taylor_averages_before_the_absolute_value():
    layer = nn.Linear(1, 2, bias=False).double()
    layer.weight.data = torch.zeros(2, 1, dtype=torch.float64) + 0.5
    x, y = torch.tensor([[1.0], [-1.0]], dtype=torch.float64), torch.tensor([0, 0])
    for batches in ([(x, y)], in_batches(x, y, 1)):  # the two images' gradients cancel
        assert taylor(layer, batches)["weight"].abs().max() < 1e-15


def test_wanda_is_the_weight_times_the_norm_of_what_it_reads():
    model, x, y = tiny()
    found = wanda(model, in_batches(x, y, 3))
    reads = {"0.weight": x, "3.weight": model[:3](x), "5.weight": model[:5](x)}
    for name, weight in prunable(model).items():
        for i in range(weight.shape[1]):
            norm = sum(value.item() ** 2 for value in reads[name][:, i].flatten()) ** 0.5
            torch.testing.assert_close(found[name][:, i], weight[:, i].detach().abs() * norm, rtol=1e-10, atol=0)


@pytest.mark.parametrize("criterion", [taylor, wanda])
@pytest.mark.parametrize("mode", [True, False])
def test_the_model_is_only_looked_at(criterion, mode):
    model, x, y = tiny()
    model.train(mode)
    model[0].weight.requires_grad_(False)
    model[5].weight.grad = torch.ones_like(model[5].weight)
    before = copy.deepcopy(model.state_dict())
    scores = criterion(model, in_batches(x, y, 4))
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert all(m.training == mode for m in model.modules())
    assert [n for n, p in model.named_parameters() if p.grad is not None] == ["5.weight"]
    assert (model[5].weight.grad == 1).all() and not model[0].weight.requires_grad
    assert not any(m._forward_hooks for m in model.modules())
    assert not any(s.requires_grad for s in scores.values())


def test_a_frozen_weight_has_the_same_score():
    model, x, y = tiny()
    free = taylor(model, [(x, y)])
    model.requires_grad_(False)
    assert all(torch.equal(score, free[name]) and score.any() for name, score in taylor(model, [(x, y)]).items())
    assert not any(p.requires_grad for p in model.parameters())
