"""What a learner can get wrong ends in one clear sentence that names the value, and nothing is changed."""

import math

import pytest
import torch
from conftest import generic
from torch import nn

from course_utils.channels import shrink
from course_utils.data import Split, batches
from course_utils.masks import apply_masks, keep_all, prunable
from course_utils.models import mlp, resnet50, resnet_cifar
from course_utils.plots import draw, new_figure
from course_utils.profiles import choose
from course_utils.schedules import cubic, geometric
from course_utils.scopes import globally, keep_top, layerwise, restrict, spare
from course_utils.scores import magnitude
from course_utils.train import hold


def network():
    return generic(mlp((6, 5, 4)))


def sentence(error) -> str:
    text = str(error.value)
    assert "\n" not in text and len(text) < 250
    return text


@pytest.mark.parametrize("scope", [globally, layerwise])
@pytest.mark.parametrize("sparsity", [-0.1, 1.5, math.nan, "half", None, 2])
def test_sparsity_out_of_range(scope, sparsity):
    with pytest.raises(ValueError, match="a number from 0 to 1, not") as error:
        scope(magnitude(network()), sparsity)
    assert repr(sparsity) in sentence(error)


@pytest.mark.parametrize("scope", [globally, layerwise])
def test_a_criterion_that_returns_nan(scope):
    scores = magnitude(network())
    scores["layers.1.weight"][0, 0] = math.nan
    with pytest.raises(ValueError, match="scores are NaN") as error:
        scope(scores, 0.5)
    sentence(error)


@pytest.mark.parametrize("use", [apply_masks, hold])
def test_a_criterion_that_returns_another_shape(use):
    model = network()
    scores = {n: s[:, 1:] for n, s in magnitude(model).items()}
    before = {n: t.clone() for n, t in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"another network: layers.0.weight is \(5, 6\), its mask \(5, 5\)") as error:
        use(model, globally(scores, 0.5))
    sentence(error)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


@pytest.mark.parametrize("use", [apply_masks, hold])
def test_masks_of_another_network(use):
    with pytest.raises(ValueError, match="another network: conv1.weight is absent") as error:
        use(network(), keep_all(resnet_cifar(20)))
    sentence(error)


def test_a_model_with_nothing_prunable():
    for model in (nn.Sequential(nn.ReLU()), nn.BatchNorm2d(3)):
        with pytest.raises(ValueError, match="no convolution and no linear layer: there is nothing to prune"):
            prunable(model)


def test_sparing_what_is_not_there():
    with pytest.raises(ValueError, match=r"no weight called 'fc.weight' to spare: choose from layers.0.weight"):
        spare(magnitude(network()), "fc.weight")


@pytest.mark.parametrize("keep", [[], [0, 0], [5], [-1]])
def test_channels_that_cannot_be_kept(keep):
    model = network()
    with pytest.raises(ValueError, match=r"keep at least one|different numbers from 0 to 4"):
        shrink(model, model.groups()["layers.0"], torch.tensor(keep))


def test_a_group_of_another_network():
    with pytest.raises(ValueError, match="equally many channels"):
        shrink(network(), {"layers.0.weight": 0, "layers.1.weight": 0}, torch.tensor([0]))
    with pytest.raises(ValueError, match=r"no tensor called 'conv1.weight'"):
        shrink(network(), resnet50(width=0.125).groups()["stem"], torch.tensor([0]))


@pytest.mark.parametrize("depth", [0, 21, 57])
def test_a_depth_that_does_not_exist(depth):
    with pytest.raises(ValueError, match=f"not {depth}"):
        resnet_cifar(depth)


def test_an_empty_split():
    empty = Split(torch.zeros(0, 1, 8, 8, dtype=torch.uint8), torch.zeros(0).long(), torch.zeros(1), torch.ones(1))
    with pytest.raises(ValueError, match="empty"):
        next(batches(empty, 10))


def test_a_data_set_that_does_not_exist():
    with pytest.raises(ValueError, match="there is no 'imagenet': choose one of solids, cifar10"):
        choose({"solids": 1, "cifar10": 2}, "imagenet")


def test_a_figure_without_words():
    figure, _ = new_figure()
    with pytest.raises(ValueError, match="say in a sentence what the figure shows"):
        draw(figure, "a plot")


def test_keep_top_of_nothing():
    with pytest.raises(ValueError, match="no scores"):
        keep_top(torch.zeros(0), 0.5)


@pytest.mark.parametrize("schedule", [geometric, cubic])
@pytest.mark.parametrize(("final", "rounds"), [(1.5, 3), ("half", 3), (math.nan, 3), (0.5, 0), (0.5, 2.5)])
def test_a_schedule_that_cannot_be(schedule, final, rounds):
    with pytest.raises(ValueError, match=r"a number from 0 to 1|a whole number from 1 on") as error:
        schedule(final, rounds)
    assert repr(final) in sentence(error) or repr(rounds) in sentence(error)


def test_restricting_by_masks_of_another_network():
    with pytest.raises(ValueError, match="another network: conv1.weight does not fit"):
        restrict(magnitude(network()), keep_all(resnet_cifar(20)))


@pytest.mark.parametrize("make", [lambda: resnet50(width=0.001), lambda: resnet_cifar(20, width=0.01)])
def test_a_width_that_leaves_nothing(make):
    with pytest.raises(ValueError, match="leaves no channel"):
        make()


@pytest.mark.parametrize("width", [0.3, 0.35, 0.6])
def test_odd_widths_work(width):
    assert resnet_cifar(20, width=width)(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
