"""What must hold for whole units: silent is removed, scores are what they say, what does not fit is refused."""

import pytest
import torch
from conftest import generic

from course_utils.channels import channels_in
from course_utils.measure import macs, parameters
from course_utils.models import mlp, resnet50, resnet_cifar, vgg16_bn
from course_utils.scopes import at_least, globally, layerwise
from course_utils.units import bn_scale, inner, mute, remove, scales, unit_chance, unit_norm, writers

NETWORKS = {
    "resnet50": lambda: resnet50(width=0.125, blocks=(2, 1, 1, 1)),
    "resnet20": lambda: resnet_cifar(20, width=0.5),
    "vgg16_bn": lambda: vgg16_bn(width=0.125),
}


def made(name):
    return generic(NETWORKS[name]()).double()


def images():
    return torch.randn(2, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def random_masks(model, groups, seed):
    """Each unit stays with probability a half; one of each layer stays in any case."""
    random = torch.Generator().manual_seed(seed)
    masks = {n: torch.rand(channels_in(model, g), generator=random) < 0.5 for n, g in groups.items()}
    for mask in masks.values():
        mask[0] |= ~mask.any()
    return masks


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", NETWORKS)
def test_silent_units_are_removed_units(name, seed):
    model, x = made(name), images()
    groups = inner(model)
    masks = random_masks(model, groups, seed)
    silent, small = mute(model, groups, masks), remove(model, groups, masks)
    assert (silent(x) - small(x)).abs().max() <= 1e-9 * silent(x).abs().max()
    assert (silent(x) - model(x)).abs().max() > 1e-3 * model(x).abs().max()
    assert parameters(small) < parameters(silent) == parameters(model)
    assert macs(small, x) < macs(silent, x) == macs(model, x)
    for name, mask in masks.items():
        assert channels_in(small, inner(small)[name]) == int(mask.sum())


@pytest.mark.parametrize("name", NETWORKS)
def test_all_groups_at_once_streams_too(name):
    model, x = made(name), images()
    groups = model.groups()
    masks = random_masks(model, groups, 2)
    silent = mute(model, groups, masks)(x)
    assert (silent - remove(model, groups, masks)(x)).abs().max() <= 1e-9 * silent.abs().max()


def test_nothing_masked_is_the_same_network_and_a_copy():
    model, x = made("resnet50"), images()
    groups = inner(model)
    everything = layerwise(bn_scale(model, groups), 0.0)
    for other in (mute(model, groups, everything), remove(model, groups, everything), mute(model, groups, {})):
        assert torch.equal(other(x), model(x)) and other is not model
        assert not {id(p) for p in other.parameters()} & {id(p) for p in model.parameters()}


@pytest.mark.parametrize("name", NETWORKS)
def test_inner_groups_have_one_writer(name):
    model = made(name)
    groups = inner(model)
    left_out = set(model.groups()) - set(groups)
    assert all(len(writers(model, g)) == len(scales(model, g)) == 1 for g in groups.values())
    expected = {"resnet50": {f"layer{i}" for i in (1, 2, 3, 4)}, "resnet20": {"layer1", "layer2", "layer3"}}
    assert left_out == expected.get(name, set())


@pytest.mark.parametrize("name", NETWORKS)
def test_bn_scale_is_an_independent_loop(name):
    model = made(name)
    scores = bn_scale(model, model.groups())
    state = model.state_dict()
    for label, group in model.groups().items():
        norms = [n.removesuffix("running_var") for n in group if n.endswith("running_var")]
        for channel, score in enumerate(scores[label].tolist()):
            assert score == pytest.approx(sum(abs(state[f"{norm}weight"][channel].item()) for norm in norms))


def test_the_quietest_go_first():
    model = made("vgg16_bn")
    groups, gammas = inner(model), {}
    for label, group in groups.items():
        name = next(n for n in group if n.endswith("running_var")).replace("running_var", "weight")
        gammas |= {(label, c): abs(g) for c, g in enumerate(model.state_dict()[name].tolist())}
    masks = globally(bn_scale(model, groups), 0.3)
    gone = {(label, c) for label, mask in masks.items() for c in (~mask).nonzero().flatten().tolist()}
    assert gone == set(sorted(gammas, key=gammas.get)[: round(0.3 * len(gammas))])


def test_unit_norm_is_an_independent_loop():
    model = made("resnet50")
    scores = unit_norm(model, model.groups())
    block = model.layer1[0]
    for channel in range(8):
        assert scores["layer1.0.conv2"][channel].item() == pytest.approx(
            sum(w * w for w in block.conv2.weight[channel].flatten().tolist()) ** 0.5
        )
    rows = torch.cat([c.weight[3].flatten() for c in (block.conv3, block.downsample[0], model.layer1[1].conv3)])
    assert scores["layer1"][3].item() == pytest.approx(sum(w * w for w in rows.tolist()) ** 0.5)


def test_chance_is_reproducible_and_leaves_the_global_generator_alone():
    model = made("resnet50")
    groups, state = inner(model), torch.get_rng_state()
    one, two, other = (unit_chance(model, groups, seed=seed) for seed in (1, 1, 2))
    assert all(torch.equal(one[n], two[n]) and not torch.equal(one[n], other[n]) for n in one)
    assert {n: len(s) for n, s in one.items()} == {n: channels_in(model, g) for n, g in groups.items()}
    assert torch.equal(state, torch.get_rng_state())


def test_an_emptied_layer_is_refused_and_a_floor_helps():
    model = made("resnet50")
    groups = inner(model)
    scores = bn_scale(model, groups)
    scores["layer2.0.conv1"] = scores["layer2.0.conv1"] / 1e6
    with pytest.raises(ValueError, match=r"layer2.0.conv1 would lose all its units: give it a floor, at_least"):
        remove(model, groups, globally(scores, 0.5))
    masks = globally(at_least(scores, 2), 0.5)
    assert int(masks["layer2.0.conv1"].sum()) == 2
    assert sum(int((~m).sum()) for m in masks.values()) == round(0.5 * sum(len(m) for m in masks.values()))
    assert remove(model, groups, masks)(images()).shape == (2, 10)


def test_a_floor_above_the_width_is_refused():
    model = made("resnet50")
    with pytest.raises(ValueError, match=r"a floor of 9 does not fit stem, which has 8"):
        at_least(bn_scale(model, inner(model)), 9)


@pytest.mark.parametrize("make", [mute, remove])
def test_masks_of_another_network_are_refused(make):
    model, wide = made("resnet50"), resnet50(width=0.25, blocks=(2, 1, 1, 1))
    masks = layerwise(bn_scale(wide, inner(wide)), 0.5)
    with pytest.raises(ValueError, match=r"these masks belong to other units: stem with \(16,\) does not fit"):
        make(model, inner(model), masks)
    with pytest.raises(ValueError, match=r"these masks belong to other units: conv1.weight"):
        make(model, inner(model), {"conv1.weight": torch.ones(8, 3, 3, 3, dtype=torch.bool)})


def test_networks_without_batchnorm_or_groups_get_a_sentence():
    model = mlp((12, 6, 5, 3))
    assert set(inner(model)) == {"layers.0", "layers.1"}
    with pytest.raises(ValueError, match=r"no BatchNorm writes the units of layers.0: .* take unit_norm"):
        bn_scale(model, inner(model))
    with pytest.raises(ValueError, match=r"Linear has no groups\(\)"):
        inner(torch.nn.Linear(2, 2))


def test_inner_groups_are_not_written_by_a_shortcut_either():
    assert sorted(inner(resnet_cifar(8, width=0.25))) == ["layer1.0.conv1", "layer2.0.conv1", "layer3.0.conv1"]


def test_masks_of_units_are_true_and_false():
    model = resnet_cifar(8, width=0.25)
    with pytest.raises(ValueError, match=r"True and False; that of layer1.0.conv1 holds torch.int64"):
        mute(model, inner(model), {"layer1.0.conv1": torch.ones(4, dtype=torch.long)})
