"""Counting zeros, against a loop that counts them one by one."""

import copy

import pytest
import torch
from conftest import generic
from torch import nn
from torch.nn.functional import batch_norm, conv2d, relu

from course_utils.activity import apoz, awake, mean_activity, relative, zeros
from course_utils.models import deit_tiny, mlp, resnet50, resnet_cifar, vgg16_bn
from course_utils.scopes import globally
from course_utils.units import inner, mute, remove

NORM = ("weight", "bias", "running_mean", "running_var")


def norm(name):
    return {f"{name}.{leaf}": 0 for leaf in NORM}


GROUPS = {
    "first": {"conv1.weight": 0, "conv1.bias": 0} | norm("bn1") | {"conv2.weight": 1},
    "second": {"conv2.weight": 0, "conv2.bias": 0} | norm("bn2") | {"fc.weight": 1},
}


class Twice(nn.Module):
    """Two convolutions, whose ReLU has the form that a test asks for."""

    def __init__(self, form):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(2, 5, 3), nn.BatchNorm2d(5)
        self.conv2, self.bn2 = nn.Conv2d(5, 4, 3), nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 3)
        self.relu = nn.ReLU(inplace=form == "one layer, in place")
        self.forms = FORMS[form]

    def forward(self, x):
        x = self.forms(self, self.bn1(self.conv1(x)))
        x = self.forms(self, self.bn2(self.conv2(x)))
        return self.fc(x.mean((2, 3)))


FORMS = {
    "function": lambda net, x: relu(x),
    "function, in place": lambda net, x: relu(x, inplace=True),
    "method": lambda net, x: x.relu(),
    "one layer": lambda net, x: net.relu(x),
    "one layer, in place": lambda net, x: net.relu(x),
}


def twice(form="function"):
    return generic(Twice(form), seed=3)


def images(count, channels=2, size=8):
    return torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(count))


def pieces(x, size):
    return [(piece, torch.zeros(len(piece))) for piece in x.split(size)]


def one_by_one(activation):
    """Zeros of each channel, and positions: a loop over Python numbers."""
    counts, seen = [0] * activation.shape[1], 0
    for picture in activation.tolist():
        for channel, rows in enumerate(picture):
            for value in [v for row in rows for v in row]:
                counts[channel] += value == 0.0
                seen += channel == 0
    return counts, seen


def by_hand(net, x):
    """The two activations of `Twice`, computed from its tensors alone."""
    t, found = net.state_dict(), []
    for i in (1, 2):
        x = conv2d(x, t[f"conv{i}.weight"], t[f"conv{i}.bias"])
        running = t[f"bn{i}.running_mean"], t[f"bn{i}.running_var"]
        x = batch_norm(x, *running, t[f"bn{i}.weight"], t[f"bn{i}.bias"]).clamp(min=0)
        found.append(x)
    return dict(zip(GROUPS, found, strict=True))


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_relu_gives_the_counts_of_a_loop(form):
    x = images(7)
    found = zeros(twice(form), GROUPS, pieces(x, 3))  # the last batch has one image
    for label, activation in by_hand(twice(), x).items():
        counts, seen = one_by_one(activation)
        assert (found[label][0].tolist(), found[label][1]) == (counts, seen)
        assert found[label][0].dtype == torch.int64 and 0 < sum(counts) < seen * len(counts)


def test_apoz_is_zeros_by_positions_and_awake_is_the_rest():
    net, batches = twice(), pieces(images(7), 3)
    silent, loud = apoz(net, GROUPS, batches), awake(net, GROUPS, batches)
    for label, (count, seen) in zeros(net, GROUPS, batches).items():
        assert silent[label].tolist() == [c / seen for c in count.tolist()]
        assert torch.equal(loud[label], 1 - silent[label]) and silent[label].dtype == torch.float64


def test_the_mean_of_batch_means_would_be_something_else():
    net, x = twice(), images(7)
    means = torch.stack([apoz(net, GROUPS, [piece])["first"] for piece in pieces(x, 3)]).mean(0)
    assert (means - apoz(net, GROUPS, pieces(x, 3))["first"]).abs().max() > 1e-3


@pytest.mark.parametrize("size", [1, 2, 5, 7])
def test_counts_do_not_depend_on_the_batch_size(size):
    net, x = generic(resnet50(width=0.125, blocks=(1, 1, 1, 1))), images(7, channels=3, size=16)
    one, other = (zeros(net, inner(net), pieces(x, n)) for n in (7, size))
    assert one.keys() == other.keys() == inner(net).keys()
    for label, (count, seen) in one.items():  # a value next to 0 may fall on either side when the sums are reordered
        assert (count - other[label][0]).abs().max() <= 1 and seen == other[label][1]


def test_zeros_are_counted_after_batchnorm_not_before():
    net, x = twice(), images(7)
    before = relu(net.conv1(x))
    assert (torch.tensor(one_by_one(before)[0]) - zeros(net, GROUPS, pieces(x, 3))["first"][0]).abs().max() > 20


def test_a_perceptron_without_batchnorm():
    net, x = generic(mlp((12, 9, 6, 4), bias=True)), torch.randn(11, 12, generator=torch.Generator().manual_seed(0))
    found = zeros(net, inner(net), [x[:8], x[8:]])
    for i, (count, seen) in enumerate(found.values()):
        x = (x @ net.layers[i].weight.T + net.layers[i].bias).clamp(min=0)
        assert seen == 11 and count.tolist() == [sum(v == 0 for v in column) for column in x.T.tolist()]


def test_a_network_of_relu_layers():
    net, x = generic(vgg16_bn(width=0.125)), images(3, channels=3, size=32)
    found = zeros(net, inner(net), pieces(x, 2))
    first = net.features[:3](x)
    assert found["features.0"][0].tolist() == one_by_one(first)[0] and len(found) == 13


def test_where_no_relu_follows_there_is_a_sentence():
    class Smooth(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(6, 5), nn.Linear(5, 3)

        def forward(self, x):
            return self.two(nn.functional.gelu(self.one(x)))

    group = {"hidden": {"one.weight": 0, "one.bias": 0, "two.weight": 1}}
    with pytest.raises(ValueError, match=r"no ReLU follows hidden: .* use mean_activity"):
        zeros(generic(Smooth()), group, [torch.randn(3, 6)])
    vit, label = deit_tiny(10, 32, 8, 0.25, 2), "blocks.0.mlp.fc1"
    hidden = {label: {f"{label}.weight": 0, f"{label}.bias": 0, "blocks.0.mlp.fc2.weight": 1}}
    with pytest.raises(ValueError, match=r"no ReLU follows blocks.0.mlp.fc1"):
        apoz(vit, hidden, [images(2, 3, 32)])


@pytest.mark.parametrize("make", [lambda: resnet50(width=0.125, blocks=(1, 1, 1, 1)), lambda: resnet_cifar(8)])
def test_residual_streams_are_refused(make):
    net = generic(make())
    for label in set(net.groups()) - set(inner(net)):
        with pytest.raises(ValueError, match=f"no ReLU follows {label}"):
            zeros(net, {label: net.groups()[label]}, pieces(images(2, 3, 16), 2))


def test_a_layer_that_never_runs_is_refused():
    net = twice()
    net.idle = nn.Conv2d(2, 5, 3)
    with pytest.raises(ValueError, match="no ReLU follows idle"):
        zeros(net, {"idle": {"idle.weight": 0, "idle.bias": 0}}, pieces(images(3), 3))


@pytest.mark.parametrize("look", [zeros, apoz, awake, mean_activity])
def test_pictures_that_nothing_can_be_learnt_from(look):
    bad = {"no calibration batches": [], "NaN": [torch.full((2, 2, 8, 8), torch.nan)], "2 channels": [images(2, 3)]}
    for words, batches in bad.items():
        with pytest.raises(ValueError, match=words):
            look(twice(), GROUPS, batches)


@pytest.mark.parametrize("look", [zeros, mean_activity])
def test_looking_changes_nothing(look):
    net = twice("one layer, in place").train()
    before = copy.deepcopy(net.state_dict())
    look(net, GROUPS, pieces(images(7), 3))
    assert all(torch.equal(t, before[name]) for name, t in net.state_dict().items())
    assert net.training and not any(m._forward_hooks for m in net.modules())
    assert all(p.grad is None and p.requires_grad for p in net.parameters())


def test_a_unit_that_is_always_zero_can_go_and_nothing_changes():
    net, x = twice().double(), images(7).double()
    with torch.no_grad():
        net.bn1.bias[[0, 3]], net.bn2.bias[:] = -1000.0, 100.0
        net.bn2.bias[1] = -1000.0
    silent = apoz(net, GROUPS, pieces(x, 3))
    masks = {label: share < 1 for label, share in silent.items()}
    assert not masks["first"][[0, 3]].any() and masks["second"].tolist() == [True, False, True, True]
    assert torch.equal(mute(net, GROUPS, masks)(x), net(x))
    assert (remove(net, GROUPS, masks)(x) - net(x)).abs().max() < 1e-12


def test_relative_scores_have_a_mean_of_one_and_no_scale():
    random = torch.Generator().manual_seed(0)
    scores = {"a": torch.rand(9, generator=random), "b": torch.rand(7, generator=random).double()}
    louder = scores | {"b": 100 * scores["b"]}
    assert all(s.mean() == pytest.approx(1) for s in relative(scores).values())
    one, other = globally(relative(scores), 0.5), globally(relative(louder), 0.5)
    assert all(torch.equal(one[n], other[n]) for n in scores)
    raw = globally(louder, 0.5)
    assert raw["b"].all() and not one["b"].all()
    assert relative({"dead": torch.zeros(3)})["dead"].tolist() == [0, 0, 0]


def test_mean_activity_is_what_the_next_layer_receives():
    net, x = twice(), images(7)
    found, expected = mean_activity(net, GROUPS, pieces(x, 3)), by_hand(net, x)
    assert torch.allclose(found["first"], expected["first"].double().mean((0, 2, 3)), rtol=1e-5)
    assert torch.allclose(found["second"], expected["second"].double().mean((0, 2, 3)), rtol=1e-5)
    vit, label = deit_tiny(10, 32, 8, 0.25, 2).eval(), "blocks.1.mlp.fc1"
    hidden = {label: {f"{label}.weight": 0, f"{label}.bias": 0, "blocks.1.mlp.fc2.weight": 1}}
    seen = []
    handle = vit.blocks[1].mlp.fc2.register_forward_hook(lambda m, inputs, output: seen.append(inputs[0].detach()))
    vit(images(5, 3, 32))
    handle.remove()
    means = mean_activity(vit, hidden, [images(5, 3, 32)[:3], images(5, 3, 32)[3:]])[label]
    assert torch.allclose(means, seen[0].abs().double().mean((0, 1)), rtol=1e-4) and (means > 0).all()
