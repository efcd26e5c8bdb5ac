"""Calibration batches: what is wrong with them is said in one sentence; the network stays as it was."""

import copy

import pytest
import torch
from conftest import generic

from course_utils.activity import awake, mean_activity
from course_utils.calibration import looking, samples, watching
from course_utils.curvature import obd, obs
from course_utils.models import mlp, resnet50
from course_utils.rebuild import layer_obs
from course_utils.regression import lasso, thinet
from course_utils.scores import taylor, wanda
from course_utils.units import inner

LABELLED = {"taylor": taylor, "obd": obd, "obs": obs}
BLIND = {"wanda": wanda, "layer_obs": layer_obs}
UNITS = {"awake": awake, "mean_activity": mean_activity, "lasso": lasso, "thinet": thinet}


def network():
    return generic(resnet50(width=0.0625, blocks=(1, 1)))


def pictures(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def ask(name, model, batches):
    if name in UNITS:
        return UNITS[name](model, inner(model), batches)
    return {**LABELLED, **BLIND}[name](model, batches)


ALL = [*LABELLED, *BLIND, *UNITS]
NAN = pictures(2, 3, 8, 8).index_fill(0, torch.tensor([1]), torch.nan)
BAD = {
    "none": ([], r"no calibration batches with images"),
    "no images in them": ([(pictures(0, 3, 8, 8), torch.zeros(0).long())], r"no calibration batches with images"),
    "NaN": ([(NAN, torch.tensor([0, 1]))], r"calibration batch 0 holds NaN"),
    "grey": ([(pictures(2, 1, 8, 8), torch.tensor([0, 1]))], r"\(2, 1, 8, 8\), but the first layer reads 3 channels"),
    "flat": ([(pictures(2, 192), torch.tensor([0, 1]))], r"\(2, 192\), but the first layer reads 3 channels"),
    "not images": ([("cat", torch.tensor([0]))], r"a calibration batch is a pair .* not str and Tensor"),
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("name", ALL)
def test_bad_batches_are_refused_in_one_sentence(name, bad):
    batches, words = BAD[bad]
    with pytest.raises(ValueError, match=words) as caught:
        ask(name, network(), batches)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", LABELLED)
@pytest.mark.parametrize(
    "batch", [pictures(2, 3, 8, 8), (pictures(2, 3, 8, 8), torch.tensor([1]))], ids=["none", "few"]
)
def test_labels_are_asked_for_where_they_are_needed(name, batch):
    with pytest.raises(ValueError, match=r"one label for each"):
        ask(name, network(), [batch])


@pytest.mark.parametrize("name", [*BLIND, *UNITS])
def test_who_needs_no_labels_takes_images_alone(name):
    x = pictures(4, 3, 8, 8)
    alone, paired = (ask(name, network(), [batch]) for batch in (x, (x, torch.zeros(4).long())))
    assert all(torch.equal(s, paired[n]) for n, s in alone.items())


@pytest.mark.parametrize("name", ALL)
def test_a_generator_that_is_used_up_is_told(name):
    used = (batch for batch in [(pictures(2, 3, 8, 8), torch.tensor([0, 1]))])
    ask(name, network(), used)
    with pytest.raises(ValueError, match=r"pass list\(batches\(…\)\)"):
        ask(name, network(), used)


@pytest.mark.parametrize("name", ALL)
def test_a_look_changes_nothing(name):
    model = network().train()
    before = copy.deepcopy(model.state_dict())
    ask(name, model, [(pictures(3, 3, 8, 8), torch.tensor([0, 1, 2])), (pictures(2, 3, 8, 8), torch.tensor([3, 4]))])
    assert model.training and all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks for m in model.modules())


def test_the_last_batch_may_be_smaller_and_the_order_does_not_matter():
    x, y = pictures(5, 3, 8, 8), torch.arange(5)
    for criterion in (taylor, wanda):
        one = criterion(network(), [(x, y)])
        two = criterion(network(), [(x[3:], y[3:]), (x[:3], y[:3])])
        assert all(torch.allclose(s, two[n], rtol=1e-4, atol=1e-6) for n, s in one.items())


def test_hooks_go_even_when_somebody_raises():
    model = network()
    with pytest.raises(ZeroDivisionError), watching(model, ["conv1"], lambda *seen: 1 / 0), looking(model):
        model(pictures(1, 3, 8, 8))
    assert not model.conv1._forward_hooks and all(p.requires_grad for p in model.parameters())


def test_perceptrons_read_any_shape():
    assert len(list(samples(mlp((64, 8, 4)), [(pictures(2, 1, 8, 8), torch.tensor([0, 1]))]))) == 1


def test_a_frozen_batchnorm_stays_frozen():
    model = network().train()
    model.bn1.eval()
    for criterion in (taylor, wanda):
        criterion(model, [(pictures(2, 3, 8, 8), torch.tensor([0, 1]))])
        assert model.training and not model.bn1.training and model.fc.training
