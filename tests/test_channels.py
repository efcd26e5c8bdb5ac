"""Many groups at once, channels that are not simply entries, attention and LayerNorm: erasing still equals removing."""

import pytest
import torch
from conftest import generic
from torch import nn
from torch.nn.functional import cross_entropy

from course_utils.channels import Slots, channels_in, cut, erase, shrink, staying
from course_utils.importance import gathered, group_l1, group_l2, group_taylor, normalised
from course_utils.kinds import isomorphically, kinds_of
from course_utils.models import deit_tiny, resnet50, vgg16_bn
from course_utils.scopes import at_least, keep_top, rounded
from course_utils.units import mute, remove


def vit(dtype=torch.float64):
    return generic(deit_tiny(10, 32, 8, 0.25, 2)).to(dtype)


def images(dtype=torch.float64):
    return torch.randn(2, 3, 32, 32, dtype=dtype, generator=torch.Generator().manual_seed(1))


def random_masks(model, seed=0):
    draw = torch.Generator().manual_seed(seed)
    sizes = {name: channels_in(model, group) for name, group in model.groups().items()}
    return {name: keep_top(torch.rand(size, generator=draw), 0.4) for name, size in sizes.items()}


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_each_group_of_a_transformer(dtype, tolerance):
    model, x = vit(dtype), images(dtype)
    for label, group in model.groups().items():
        count = channels_in(model, group)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(count))
        gone, keep = order[: count // 3], order[count // 3 :]
        silent, small = erase(model, group, gone)(x), shrink(model, group, keep)(x)
        assert (silent - small).abs().max() <= tolerance * silent.abs().max(), label
        assert (silent - model(x)).abs().max() > 1e-3 * silent.abs().max(), label


@pytest.mark.parametrize("network", [vit, lambda: generic(resnet50(10, 0.125, (1, 1, 1, 1))).double()])
def test_all_groups_at_once(network):
    model, x = network(), images()
    masks = random_masks(model)
    silent, small = mute(model, model.groups(), masks)(x), remove(model, model.groups(), masks)
    assert (silent - small(x)).abs().max() <= 1e-9 * silent.abs().max()
    cross_entropy(small(x), torch.tensor([1, 2])).backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in small.parameters())


def test_a_transformer_knows_its_new_sizes():
    model = vit()
    small = remove(model, model.groups(), random_masks(model))
    attention = small.blocks[0].attn
    assert (attention.num_heads, attention.head_dim, attention.attn_dim) == (2, 10, 20)
    assert small.norm.normalized_shape == (29,) and small.embed_dim == small.num_features == 29
    small.reset_classifier(7)
    assert small(images()).shape == (2, 7)


def test_logits_of_a_shorter_head_stay():
    """By hand: softmax(q kᵀ / √16) over the dimensions that are left, with the old √16, not the new √10."""
    model, x = vit(), torch.randn(1, 5, 48, dtype=torch.float64)
    name = "blocks.0.attn"
    keep = torch.tensor([0, 2, 3, 5, 7, 8, 10, 11, 14, 15])
    before, after = model.blocks[0].attn, shrink(model, model.groups()[f"{name}.dims"], keep).blocks[0].attn
    q, k, v = before.qkv(x).view(5, 3, 3, 16)[..., keep].permute(1, 2, 0, 3)
    heads = (q @ k.mT / 16**0.5).softmax(-1) @ v
    columns = before.proj.weight.view(48, 3, 16)[..., keep].flatten(1)
    expected = heads.permute(1, 0, 2).flatten(1) @ columns.T + before.proj.bias
    assert torch.allclose(after(x)[0], expected, atol=1e-12)
    before.fused_attn = after.fused_attn = False
    assert torch.allclose(after(x)[0], expected, atol=1e-12)


def test_heads_must_stay_equally_long():
    model = vit()
    rows = torch.ones(144, dtype=torch.bool)
    rows[[3, 51, 99]] = False  # dimension 3 of the first head alone, in q, k and v
    columns = torch.ones(48, dtype=torch.bool)
    columns[3] = False
    stays = {("blocks.0.attn.qkv.weight", 0): rows, ("blocks.0.attn.qkv.bias", 0): rows}
    with pytest.raises(ValueError, match="equally many dimensions"):
        cut(model, stays | {("blocks.0.attn.proj.weight", 1): columns})


class Joined(nn.Module):
    """Two layers whose outputs are concatenated, and channels that are flattened before a linear layer."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 5, 3, padding=1)
        self.head = nn.Linear(9 * 16, 6)

    def forward(self, x):
        return self.head(torch.cat([self.left(x), self.right(x)], 1).relu().flatten(1))


def test_slots_of_concatenated_and_flattened_channels():
    model = generic(Joined()).double()
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    places = torch.arange(9 * 16).view(9, 16)
    groups = {
        "left": {"left.weight": 0, "left.bias": 0, "head.weight": Slots(1, places[:4])},
        "right": {"right.weight": 0, "right.bias": 0, "head.weight": Slots(1, places[4:])},
    }
    masks = {"left": torch.tensor([1, 0, 1, 0]).bool(), "right": torch.tensor([0, 1, 1, 0, 1]).bool()}
    small = remove(model, groups, masks)
    assert small.head.in_features == 5 * 16 and small.right.out_channels == 3
    assert torch.allclose(mute(model, groups, masks)(x), small(x), atol=1e-12)
    assert "axis 1, channel 0 at 0, 1, 2, 3, …" in str(groups["left"])


def test_convolutions_in_groups_lose_whole_groups():
    model = generic(nn.Sequential(nn.Conv2d(3, 12, 1), nn.Conv2d(12, 24, 3, groups=4), nn.Conv2d(24, 5, 1))).double()
    threes, sixes = torch.arange(12).view(4, 3), torch.arange(24).view(4, 6)
    group = {"0.weight": Slots(0, threes), "0.bias": Slots(0, threes), "1.weight": Slots(0, sixes)}
    group |= {"1.bias": Slots(0, sixes), "2.weight": Slots(1, sixes)}
    small, x = shrink(model, group, torch.tensor([0, 2, 3])), torch.randn(1, 3, 5, 5, dtype=torch.float64)
    assert (small[1].groups, small[1].in_channels, small[1].out_channels) == (3, 9, 18)
    assert torch.allclose(small(x), erase(model, group, torch.tensor([1]))(x), atol=1e-12)


def test_empty_tensors_are_refused():
    model = vit()
    group = {"g": model.groups()["blocks.0.mlp"]}
    stays = staying(model, group, {"g": torch.zeros(192, dtype=torch.bool)})
    with pytest.raises(ValueError, match=r"nothing would be left of blocks\.0\.mlp\.fc1\.weight"):
        cut(model, stays)


def test_gathered_by_hand():
    model = vit()
    group = model.groups()["blocks.0.attn.dims"]
    qkv, proj = model.blocks[0].attn.qkv.weight.detach(), model.blocks[0].attn.proj.weight.detach()
    rows = [n for n in range(144) if n % 16 == 5]
    columns = [n for n in range(48) if n % 16 == 5]
    expected = (qkv[rows].abs().sum() + proj[:, columns].abs().sum()) / 2
    assert torch.isclose(group_l1(model, {"dims": group})["dims"][5], expected)
    assert torch.isclose(
        group_l2(model, {"d": group})["d"][5], (qkv[rows] ** 2).sum() / 2 + (proj[:, columns] ** 2).sum() / 2
    )
    with pytest.raises(ValueError, match="no weight of d has a score"):
        gathered({}, {"d": group})


def test_gathered_from_the_scales_of_norms_too():
    model = generic(resnet50(10, 0.125, (1, 1, 1, 1)))
    conv, norm, reader = (model.get_submodule(f"layer1.0.{name}").weight.detach() for name in ("conv1", "bn1", "conv2"))
    group = {"inner": model.groups()["layer1.0.conv1"]}
    expected = (conv[5].abs().sum() + norm[5].abs() + reader[:, 5].abs().sum()) / 3
    assert torch.isclose(group_l1(model, group)["inner"][5], expected)
    assert all(scores.isfinite().all() for scores in group_l2(vit(), vit().groups()).values())


def test_group_taylor_accumulates_over_all_batches():
    model, draw = vit(), torch.Generator().manual_seed(0)
    x, y = torch.randn(6, 3, 32, 32, dtype=torch.float64, generator=draw), torch.arange(6)
    groups = {"mlp": model.groups()["blocks.1.mlp"]}
    split = group_taylor(model, groups, [(x[:4], y[:4]), (x[4:], y[4:])])["mlp"]
    fc1, fc2 = model.blocks[1].mlp.fc1.weight, model.blocks[1].mlp.fc2.weight
    up, down = torch.autograd.grad(cross_entropy(model(x), y), (fc1, fc2))
    expected = ((fc1 * up).abs().sum(1) + (fc2 * down).abs().sum(0)) / 2
    assert torch.allclose(split, expected.detach(), rtol=1e-9)
    assert all(p.grad is None for p in model.parameters())


def test_normalised_means_one():
    scores = normalised({"a": torch.tensor([1.0, 3.0]), "b": torch.tensor([10.0, 20.0])})
    assert torch.equal(scores["a"], torch.tensor([0.5, 1.5])) and scores["b"].mean() == 1
    with pytest.raises(ValueError, match="scores of a have the mean 0"):
        normalised({"a": torch.zeros(3)})


def test_kinds_of_the_courses_networks():
    for network, count in ((resnet50(), 6), (deit_tiny(), 4)):  # attention is seen twice: as heads, as their dimensions
        assert len(set(kinds_of(network, network.groups()).values())) == count
    deit = deit_tiny()
    graphs = {n: g for n, g in deit.groups().items() if not n.endswith("heads")}
    assert len(set(kinds_of(deit, graphs).values())) == 3
    inner = [
        n for n, kind in kinds_of(resnet50(), resnet50().groups()).items() if kind.startswith("1 BatchNorm2d, 1 C")
    ]
    assert len(inner) == 32
    assert len(set(kinds_of(vgg16_bn(), vgg16_bn().groups()).values())) == 2  # the last one is read by a Linear


def test_kinds_tell_readers_from_writers():
    """One writer and two readers is another drawing than two writers and one reader; biases say nothing new."""
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(6)))
    groups = {
        "fork": {"0.weight": 0, "0.bias": 0, "1.weight": 1, "2.weight": 1},
        "join": {"3.weight": 0, "3.bias": 0, "4.weight": 0, "5.weight": 1},
        "other fork": {"3.weight": 0, "4.weight": 1, "5.weight": 1},
    }
    words = kinds_of(model, groups)
    assert words["fork"] == words["other fork"] == "2 Linear reads, 1 Linear writes"
    assert words["join"] == "1 Linear reads, 2 Linear writes"


def test_isomorphic_is_global_within_a_kind():
    scores = {
        "a": torch.tensor([1.0, 2.0, 3.0, 40.0]),
        "b": torch.tensor([5.0, 6.0, 7.0, 80.0]),
        "c": torch.arange(4.0),
    }
    kinds = {"a": "x", "b": "x", "c": "y"}
    masks = isomorphically(scores, {"x": 0.5, "y": 0.25}, kinds)
    assert [m.int().tolist() for m in masks.values()] == [[0, 0, 0, 1], [0, 1, 1, 1], [0, 1, 1, 1]]
    assert list(masks) == ["a", "b", "c"]
    alone = isomorphically(scores, 0.5, {"a": "1", "b": "2", "c": "3"})
    assert [int(m.sum()) for m in alone.values()] == [2, 2, 2]
    with pytest.raises(ValueError, match="no sparsity for the kind 'y'"):
        isomorphically(scores, {"x": 0.5}, kinds)
    with pytest.raises(ValueError, match="c has no kind"):
        isomorphically(scores, 0.5, {"a": "x", "b": "x"})


def test_rounded_to_multiples():
    draw = torch.Generator().manual_seed(0)
    scores = {
        "a": torch.rand(64, generator=draw),
        "b": torch.rand(64, generator=draw),
        "c": torch.rand(12, generator=draw),
    }
    masks = {"a": keep_top(scores["a"], 0.3), "b": keep_top(scores["b"], 0.98), "c": keep_top(scores["c"], 0.0)}
    new = rounded(masks, scores, 8)
    assert [int(m.sum()) for m in new.values()] == [48, 8, 12]  # 45 → 48, 1 → 8; 12 → 12, there is no 16
    assert scores["a"][new["a"]].min() > scores["a"][~new["a"]].max()
    assert int(rounded(masks, at_least(scores, 4), 8)["a"].sum()) == 48
    with pytest.raises(ValueError, match="multiple of 1, 2, 4, 8"):
        rounded(masks, scores, 0)
