"""What is really gone cannot be noticed, whatever stands in its place; what is left can."""

import pytest
import torch
from torch import nn

from course_utils.models import mlp, vgg16_bn
from course_utils.reach import connected, linear_weights, really_gone

SIZES = (7, 9, 8, 6, 4)


def thinned(seed: int, density: float = 0.25) -> nn.Module:
    """A perceptron in which few weights are left, all of them positive: with positive inputs no ReLU is silent."""
    random = torch.Generator().manual_seed(seed)
    model = mlp(SIZES).double()
    with torch.no_grad():
        for layer in model.layers:
            layer.weight.copy_(torch.rand(layer.weight.shape, generator=random, dtype=torch.float64) + 0.5)
            layer.weight.mul_(torch.rand(layer.weight.shape, generator=random) < density)
    return model


def inputs() -> torch.Tensor:
    return torch.rand(5, SIZES[0], generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.5


@pytest.mark.parametrize("seed", range(6))
def test_what_is_gone_cannot_be_noticed_and_the_rest_can(seed):
    model = thinned(seed)
    x, before = inputs(), model(inputs())
    alive, weights = connected(linear_weights(model)), linear_weights(model)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight, mask in zip(weights, alive, strict=True):
            lost = (weight != 0) & ~mask
            weight[lost] = torch.randn(int(lost.sum()), generator=random, dtype=torch.float64) * 10
    assert torch.equal(model(x), before)
    for weight, mask in zip(weights, alive, strict=True):
        for row, column in mask.nonzero().tolist():
            old = float(weight[row, column])
            weight[row, column] = 2 * old
            assert not torch.equal(model(x), before), "a weight that counts can be noticed"
            weight[row, column] = old
    assert torch.equal(model(x), before)


def test_some_seed_has_lost_weights_of_both_kinds():
    before = sum(int((weight != 0).sum()) for seed in range(6) for weight in linear_weights(thinned(seed)))
    after = sum(int(mask.sum()) for seed in range(6) for mask in connected(linear_weights(thinned(seed))))
    assert after < 0.9 * before


def test_paths_counted_by_matrix_products():
    weights = linear_weights(thinned(3))
    kept = [(weight != 0).double() for weight in weights]
    for i, mask in enumerate(connected(weights)):
        to, away = torch.ones(SIZES[0], dtype=torch.float64), torch.ones(SIZES[-1], dtype=torch.float64)
        for k in kept[:i]:
            to = k @ to
        for k in reversed(kept[i + 1 :]):
            away = k.T @ away
        assert torch.equal(mask, (kept[i] * to * away[:, None]) > 0)


def test_fractions():
    assert really_gone(linear_weights(mlp(SIZES))) == 0
    empty = linear_weights(mlp(SIZES))
    empty[2].zero_()
    assert really_gone(empty) == 1  # one empty layer, and nothing reaches the output
    half = [torch.ones(2, 3), torch.ones(4, 2)]
    half[0][0] = 0
    assert really_gone(half) == 1 - 7 / 14  # one of two units: its row, and the column that reads it


@pytest.mark.parametrize(
    ("weights", "words"),
    [([torch.ones(2, 3), torch.ones(2, 3)], "do not follow each other"), ([torch.ones(2)], "no matrices"), ([], "no")],
)
def test_matrices_that_do_not_fit(weights, words):
    with pytest.raises(ValueError, match=words):
        connected(weights)


@pytest.mark.parametrize(("model", "words"), [(vgg16_bn(width=0.125), "Conv2d"), (mlp(SIZES, bias=True), "a bias")])
def test_networks_of_another_kind_are_refused(model, words):
    with pytest.raises(ValueError, match=words):
        linear_weights(model)
