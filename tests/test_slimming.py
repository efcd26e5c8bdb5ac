"""The L1 term on BatchNorm's scales is exactly that, and what a silent channel still says can be folded away."""

import copy
import math

import pytest
import torch
from conftest import generic
from torch import nn
from torch.nn.functional import cross_entropy

from course_utils.channels import erase
from course_utils.data import Split
from course_utils.models import mlp, resnet50, resnet_cifar, vgg16_bn
from course_utils.slimming import fold, gammas, how_far, thinning
from course_utils.train import Recipe, constant, one_cycle, train
from course_utils.units import inner


def small(seed=0):
    return generic(resnet50(width=0.125, blocks=(1, 1, 1, 1)), seed)


def images(count=2, dtype=torch.float64):
    return torch.randn(count, 3, 32, 32, dtype=dtype, generator=torch.Generator().manual_seed(1))


def gradients(model, loss):
    names, parameters = zip(*model.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))


def backward(model, x):
    """All gradients of the loss, as training collects them."""
    model.zero_grad()
    cross_entropy(model(x), torch.tensor([1, 2])).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


def test_the_hook_adds_the_gradient_of_the_term_and_nothing_else():
    model, x, strength = small().double(), images(), 0.3
    with torch.no_grad():
        model.layer2[0].bn1.weight[:3] = 0  # at zero, autograd says 0 too
    pushed = [f"{block}.{norm}.weight" for block in [f"layer{i}.0" for i in (1, 2, 3, 4)] for norm in ("bn1", "bn2")]
    pushed.append("bn1.weight")
    plain = backward(model, x)
    with thinning(model, inner(model), strength):
        inside = backward(model, x)
    term = strength * sum(p.abs().sum() for name, p in model.named_parameters() if name in pushed)
    wanted = gradients(model, cross_entropy(model(x), torch.tensor([1, 2])) + term)
    after = backward(model, x)
    for name in plain:
        assert torch.allclose(inside[name], wanted[name], rtol=1e-12, atol=1e-13), name
        assert torch.equal(after[name], plain[name]), name
        assert torch.equal(inside[name], plain[name]) == (name not in pushed), name


def test_one_step_of_training_is_a_step_by_hand():
    random = torch.Generator().manual_seed(3)
    pictures = torch.randint(256, (10, 3, 32, 32), dtype=torch.uint8, generator=random)
    split = Split(pictures, torch.arange(10), torch.zeros(3), torch.ones(3))
    recipe = Recipe(1, 10, lr=0.1, schedule=constant, momentum=0.0, weight_decay=0.0, flip=False, shift=0)
    model, strength = small().train(), 0.2
    other = copy.deepcopy(model)
    with thinning(model, inner(model), strength):
        train(model, split, recipe)
    plain = copy.deepcopy(other)
    train(plain, split, recipe)
    for name, gamma in gammas(model, inner(model)).items():
        start, without = other.get_parameter(name), plain.get_parameter(name)
        assert torch.allclose(gamma, without - 0.1 * strength * start.sign(), atol=1e-5), name
    assert torch.allclose(model.bn1.bias, plain.bn1.bias, atol=1e-5)


def test_the_hooks_leave_also_after_an_error():
    model, x = small().double(), images()
    plain = backward(model, x)
    with pytest.raises(KeyboardInterrupt), thinning(model, inner(model), 1.0):
        raise KeyboardInterrupt
    assert all(torch.equal(g, plain[n]) for n, g in backward(model, x).items())


def test_no_strength_is_no_term():
    model, x = small().double(), images()
    plain = backward(model, x)
    with thinning(model, inner(model), 0.0):
        assert all(torch.equal(g, plain[n]) for n, g in backward(model, x).items())


@pytest.mark.parametrize("strength", [-0.1, math.inf, math.nan])
def test_a_strength_that_is_none_is_refused(strength):
    with pytest.raises(ValueError, match="strength of the L1 term"), thinning(small(), inner(small()), strength):
        pass


def test_a_network_without_batchnorm_is_refused():
    model = mlp((12, 6, 3))
    with (
        pytest.raises(ValueError, match=r"no BatchNorm writes the units of \['layers.0'\]"),
        thinning(model, inner(model), 0.1),
    ):
        pass


@pytest.mark.parametrize("schedule", [one_cycle, constant])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_how_far_bounds_what_sgd_does(schedule, momentum):
    recipe = Recipe(3, 10, lr=0.1, schedule=schedule, momentum=momentum)
    place = nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.SGD([place], 0.1, momentum, nesterov=momentum > 0)
    for step in range(3 * 15):  # 145 images are 15 batches
        optimizer.param_groups[0]["lr"] = 0.1 * schedule((step + 1) / (3 * 15 + 1))
        place.grad = torch.tensor(1.0)
        optimizer.step()
    bound = how_far(recipe, 145)
    assert -place.item() <= bound * (1 + 1e-5) and -place.item() > 0.7 * bound
    assert momentum or -place.item() == pytest.approx(bound, rel=1e-5)


def constant_channels(model, group):
    """A copy of `model`, γ = 0 in every third channel of the group, and β = 1 in the first; and these channels."""
    model = copy.deepcopy(model)
    norm = model.get_submodule(next(n for n in group if n.endswith("running_var")).removesuffix(".running_var"))
    gone = torch.arange(0, len(norm.weight), 3)
    with torch.no_grad():
        norm.weight[gone] = 0
        norm.bias[0] = 1
    return model, gone


UNPADDED = {
    "resnet50": (lambda: resnet50(width=0.125, blocks=(1, 1, 1, 1)), ["stem"] + [f"layer{i}.0.conv2" for i in (1, 4)]),
    "vgg16_bn": (lambda: vgg16_bn(width=0.125), ["features.40"]),  # read by the linear layer
}


@pytest.mark.parametrize("name", UNPADDED)
def test_folding_is_exact_before_an_unpadded_layer(name):
    make, labels = UNPADDED[name]
    dense, x = generic(make()).double(), images()
    for label in labels:
        model, gone = constant_channels(dense, dense.groups()[label])
        group, said = model.groups()[label], model(x)
        assert (fold(model, group, gone)(x) - said).abs().max() <= 1e-9 * said.abs().max(), label
        assert (erase(model, group, gone)(x) - said).abs().max() > 1e-3 * said.abs().max(), label


def seen(model, layer, x):
    found = []
    handle = model.get_submodule(layer).register_forward_hook(lambda module, inputs, output: found.append(output))
    model(x)
    handle.remove()
    return found[0]


PADDED = {
    "resnet50": (lambda: resnet50(width=0.125, blocks=(1, 1, 1, 1)), "layer1.0.conv1", "layer1.0.bn2"),
    "resnet20": (lambda: resnet_cifar(20, width=0.5), "layer1.1.conv1", "layer1.1.bn2"),
    "vgg16_bn": (lambda: vgg16_bn(width=0.125), "features.0", "features.4"),  # convolutions with biases
}


@pytest.mark.parametrize("name", PADDED)
def test_folding_is_wrong_at_the_border_of_a_padded_layer_and_exact_inside(name):
    make, label, after = PADDED[name]
    dense, x = generic(make()).double(), images()
    model, gone = constant_channels(dense, dense.groups()[label])
    error = (seen(fold(model, model.groups()[label], gone), after, x) - seen(model, after, x)).abs().amax((0, 1))
    assert error[1:-1, 1:-1].max() <= 1e-9
    for edge in (error[0], error[-1], error[:, 0], error[:, -1]):
        assert edge.min() > 1e-3


def test_folding_gives_a_new_network_and_takes_inner_units_only():
    dense = small().double()
    model, gone = constant_channels(dense, dense.groups()["layer2.0.conv2"])
    before = {n: t.clone() for n, t in model.state_dict().items()}
    folded = fold(model, model.groups()["layer2.0.conv2"], gone)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert folded.layer2[0].conv2.out_channels == 16 - len(gone)
    with pytest.raises(ValueError, match="units that one BatchNorm writes, not 2"):
        fold(model, model.groups()["layer2"], gone)
    with pytest.raises(ValueError, match="keep at least one channel"):
        fold(model, model.groups()["stem"], torch.arange(8))


def test_a_reader_that_can_take_nothing_is_refused():
    model = vgg16_bn(width=0.125)
    model.classifier = nn.Linear(64, 10, bias=False)
    with pytest.raises(ValueError, match=r"classifier.weight has neither a BatchNorm after it nor a bias"):
        fold(model, model.groups()["features.40"], torch.tensor([1]))
