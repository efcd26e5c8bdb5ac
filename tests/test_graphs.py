"""Groups of any network: erasing equals removing, counts are as expected, and what cannot be cut says why."""

import copy

import pytest
import timm
import torch
import torch_pruning
import torchvision
from conftest import generic
from timm.models.vision_transformer import Attention
from torch import nn
from torch.nn.functional import cross_entropy

from course_utils import shrunken
from course_utils.channels import axis_of, channels_in, entries_of, tensor_of
from course_utils.graphs import groups_of, left_out, survey
from course_utils.importance import group_l2, normalised
from course_utils.kinds import isomorphically, kinds_of
from course_utils.measure import macs, parameters
from course_utils.models import deit_tiny, resnet50, vgg16_bn
from course_utils.plan import by_kind, planned
from course_utils.proof import proven
from course_utils.scopes import at_least, keep_top, layerwise
from course_utils.units import mute, remove

VIT = {"depth": 2, "img_size": 32, "patch_size": 16, "num_classes": 7}
SWIN = {"depths": (1, 2, 1, 1), "img_size": 64, "window_size": 2, "num_classes": 7}
MAXVIT = {"depths": (1, 1, 1, 1), "img_size": 64, "num_classes": 7}


def vision(name, **more):
    """torchvision's network of this name, with random weights."""
    return torchvision.models.get_model(name, weights=None, **more)


def vgg():
    """torchvision's VGG-16, whose 512 channels become 25,088 inputs of a smaller classifier."""
    model = vision("vgg16_bn")
    model.classifier = nn.Sequential(nn.Linear(25088, 40), nn.ReLU(), nn.Linear(40, 7))
    return model


def densenet(blocks=(2, 3, 2, 2)):
    """DenseNet-121 with fewer layers in each block."""
    return torchvision.models.DenseNet(32, blocks, 64, num_classes=7)


NETWORKS = {  # name: (how to make it, size of the images, groups, kinds, groups that are left out)
    "resnet50": (lambda: vision("resnet50"), 64, 37, 6, 0),
    "vgg16_bn": (vgg, 32, 14, 3, 0),
    "densenet121": (densenet, 64, 22, 8, 0),
    "mobilenet_v2": (lambda: vision("mobilenet_v2"), 64, 25, 6, 0),
    "mobilenet_v3_small": (lambda: vision("mobilenet_v3_small"), 64, 27, 8, 0),
    "mobilenet_v3_large": (lambda: vision("mobilenet_v3_large"), 64, 29, 8, 1),
    "efficientnet_b0": (lambda: vision("efficientnet_b0"), 64, 40, 7, 0),
    "regnet_x_400mf": (lambda: vision("regnet_x_400mf"), 64, 27, 6, 0),
    "regnet_y_400mf": (lambda: vision("regnet_y_400mf"), 64, 37, 7, 0),
    "convnext_tiny": (lambda: timm.create_model("convnext_tiny", depths=(1, 1, 2, 1)), 64, 9, 5, 0),
    "deit_tiny": (lambda: timm.create_model("deit_tiny_patch16_224", **VIT), 32, 7, 4, 0),
    "deit_small": (lambda: timm.create_model("deit_small_patch16_224", **VIT), 32, 7, 4, 0),
    "distilled": (lambda: timm.create_model("deit_small_distilled_patch16_224", **VIT), 32, 7, 4, 0),
    "vit_base": (lambda: timm.create_model("vit_base_patch16_224", **VIT), 32, 7, 4, 0),
    "swin_tiny": (lambda: timm.create_model("swin_tiny_patch4_window7_224", **SWIN), 64, 19, 7, 0),
    "maxvit": (lambda: timm.create_model("maxvit_tiny_tf_224", **MAXVIT), 64, 38, 9, 0),
    "resnest": (lambda: timm.create_model("resnest14d"), 64, 11, 4, 4),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_erasing_equals_removing(name):
    make, size, count, kinds, left = NETWORKS[name]
    model = make().eval()
    x = torch.randn(2, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    groups, reasons = survey(model, x[:1].float())
    assert (len(groups), len(set(kinds_of(model, groups).values())), len(reasons)) == (count, kinds, left)
    model, masks = generic(model).double(), random_masks(model, groups)
    silent, small = mute(model, groups, masks)(x), remove(model, groups, masks)
    assert (silent - small(x)).abs().max() <= 1e-9 * silent.abs().max()
    assert (silent - model(x)).abs().max() > 1e-3 * silent.abs().max()
    cross_entropy(small(x), torch.tensor([1, 2])).backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in small.parameters())
    assert parameters(small) == counted(model, groups, masks)


def random_masks(model, groups, sparsity=0.4):
    draw = torch.Generator().manual_seed(0)
    return {n: keep_top(torch.rand(channels_in(model, g), generator=draw), sparsity) for n, g in groups.items()}


def counted(model, groups, masks):
    """How many parameters stay: of each tensor the product of what stays along its axes, in numpy's words."""
    gone = {}
    for name, group in groups.items():
        for tensor, place in group.items():
            places = entries_of(tensor_of(model, tensor), place)[~masks[name]].flatten().tolist()
            gone.setdefault(tensor, {}).setdefault(axis_of(place), set()).update(places)
    total = 0
    for name, parameter in model.named_parameters():
        left = 1
        for axis, size in enumerate(parameter.shape):
            left *= size - len(gone.get(name, {}).get(axis, ()))
        total += left
    return total


@pytest.mark.parametrize("name", ["resnet50", "vgg16_bn", "densenet121", "mobilenet_v2", "convnext_tiny"])
def test_as_many_parameters_and_macs_stay_as_torch_pruning_leaves(name):
    make, size, *_ = NETWORKS[name]
    model, x = make().eval(), torch.randn(1, 3, size, size)
    groups = groups_of(model, x)
    ours = remove(model, groups, layerwise(group_l2(model, groups), 0.5))
    theirs = copy.deepcopy(model)
    last = [m for m in theirs.modules() if isinstance(m, nn.Linear)][-1]
    torch_pruner(theirs, x, 0.5, ignored_layers=[last]).step()
    assert (parameters(ours), macs(ours, x)) == (parameters(theirs), macs(theirs, x))


def torch_pruner(model, x, ratio, **more):
    """Torch-Pruning's pruner with group L2, on one example."""
    importance = torch_pruning.importance.GroupMagnitudeImportance(p=2)
    return torch_pruning.pruner.BasePruner(model, x, importance=importance, pruning_ratio=ratio, **more)


def test_a_whole_network_of_published_size():
    """ResNet-50 for CIFAR, as Torch-Pruning's counts are given in the literature of this course: exact numbers."""
    model, x = resnet50(), torch.zeros(1, 3, 32, 32)
    groups = model.groups()
    scores = group_l2(model, groups)
    for sparsity, millions in {0.25: 13.2446, 0.5: 5.8990, 0.75: 1.4842}.items():
        small = remove(model, groups, layerwise(scores, sparsity))
        assert round(parameters(small) / 1e6, 4) == millions
        assert small(x).shape == (1, 10)


def test_kinds_of_published_networks():
    resnet, x = vision("resnet50"), torch.zeros(1, 3, 64, 64)
    assert len(set(kinds_of(resnet, groups_of(resnet, x)).values())) == 6
    deit = timm.create_model("deit_tiny_patch16_224")
    groups = groups_of(deit, torch.zeros(1, 3, 224, 224))
    graphs = {n: g for n, g in groups.items() if not n.endswith("heads")}  # heads and dims are two views of one graph
    kinds = kinds_of(deit, graphs)
    channels = {kind: sum(channels_in(deit, graphs[n]) for n in graphs if kinds[n] == kind) for kind in kinds.values()}
    assert sorted(channels.values()) == [192, 12 * 64, 9216]


def plain(model, groups):
    """Groups as sets of tensors, axes and the entries of each channel, without their names."""
    found = set()
    for group in groups.values():
        places = [(n, axis_of(p), str(entries_of(tensor_of(model, n), p).tolist())) for n, p in group.items()]
        found.add(frozenset(places))
    return found


@pytest.mark.parametrize(
    "model, size",
    [
        (resnet50(10, 0.125), 32),
        (vgg16_bn(10, 0.125), 32),
        (deit_tiny(10, 32, 8, 0.25, 3), 32),
    ],
)
def test_groups_written_by_hand_are_those_found(model, size):
    found = groups_of(model, torch.zeros(1, 3, size, size))
    assert plain(model, found) == plain(model, model.groups())


def test_names_tell_where_a_group_is():
    groups = groups_of(vision("resnet50"), torch.zeros(1, 3, 64, 64))
    assert list(groups)[:4] == ["conv1", "layer1.0.conv1", "layer1.0.conv2", "layer1"]
    deit = groups_of(timm.create_model("deit_tiny_patch16_224", **VIT), torch.zeros(1, 3, 32, 32))
    assert {"embedding", "blocks.1.attn.heads", "blocks.1.attn.dims", "blocks.1.mlp.fc1"} < set(deit)


def test_a_network_that_is_looked_at_stays_as_it_was():
    model = timm.create_model("deit_tiny_patch16_224", **VIT)
    model.norm = nn.LayerNorm(192)
    model.train()
    model.blocks[0].eval().requires_grad_(False)
    before = copy.deepcopy(model)
    groups_of(model, torch.zeros(1, 3, 32, 32))
    assert [m.training for m in model.modules()] == [m.training for m in before.modules()]
    assert [(p.requires_grad, p.grad) for p in model.parameters()] == [
        (p.requires_grad, None) for p in before.parameters()
    ]
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), before.state_dict().values(), strict=True)
    )
    assert [b.attn.fused_attn for b in model.blocks] == [b.attn.fused_attn for b in before.blocks]


# --- what cannot be cut ---------------------------------------------------------------------------------------------


class Net(nn.Module):
    """A convolution, something in the middle, and a head."""

    def __init__(self, middle, last=8):
        super().__init__()
        self.first, self.middle, self.last, self.head = (
            nn.Conv2d(3, 8, 3),
            middle,
            nn.Conv2d(last, 6, 1),
            nn.Linear(6, 4),
        )

    def forward(self, x):
        return self.head(self.last(self.middle(self.first(x))).mean((2, 3)))


class Shuffle(nn.Module):
    """The channels in another order, which no graph of layers shows."""

    def forward(self, x):
        return x.flip(1)


class Bare(nn.Module):
    """LayerNorm over channels, without γ."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(8, elementwise_affine=False)

    def forward(self, x):
        return self.norm(x.movedim(1, -1)).movedim(-1, 1)


class Twice(nn.Module):
    """A convolution added to its own input."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x):
        return x + self.conv(x)


@pytest.mark.parametrize(
    "middle, sentence",
    [
        (nn.GroupNorm(2, 8), "middle is a GroupNorm, which is not cut here"),
        (nn.ConvTranspose2d(8, 8, 3), "middle is a ConvTranspose2d, which is not cut here"),
        (Bare(), "middle.norm is a LayerNorm without one γ for each channel"),
        (Twice(), "middle.conv.weight reads and writes the same channels"),
        (Shuffle(), "erasing its channels is not removing them"),
        (nn.Sigmoid(), "erasing its channels is not removing them"),
    ],
)
def test_what_cannot_be_cut_exactly_is_left_out_with_a_reason(middle, sentence):
    model, x = Net(middle), torch.zeros(1, 3, 9, 9)
    groups, reasons = survey(model, x)
    assert list(groups) == ["last"]  # the rest can still be cut
    assert sentence in reasons["first"] and reasons == left_out(model, x)


def test_tied_layers_are_left_out():
    model = Net(nn.Conv2d(8, 8, 1))
    other = nn.Conv2d(8, 8, 1)
    other.weight = model.middle.weight
    model.middle = nn.Sequential(model.middle, nn.ReLU(), other)
    groups, reasons = survey(model, torch.zeros(1, 3, 9, 9))
    assert list(groups) == ["last"] and reasons["first"] == "middle.0.weight and middle.2.weight are one tensor"


def test_attention_of_another_layout_is_left_out():
    vit = torchvision.models.VisionTransformer(32, 16, 2, 2, 24, 48, num_classes=5)
    groups, reasons = survey(vit, torch.zeros(1, 3, 32, 32))
    assert list(groups) == [f"encoder.layers.encoder_layer_{i}.mlp.0" for i in (0, 1)]
    assert "encoder.layers.encoder_layer_0.self_attention is a MultiheadAttention" in reasons["conv_proj"]
    normed = timm.create_model("vit_base_patch16_224", **VIT, qk_norm=True)
    groups, reasons = survey(normed, torch.zeros(1, 3, 32, 32))
    assert "blocks.0.attn.heads" in groups and "blocks.0.attn.dims" not in groups
    assert "normalises its queries" in reasons["blocks.0.attn.dims"]
    packed = timm.create_model("maxvit_rmlp_pico_rw_256", **MAXVIT)
    reasons = left_out(packed, torch.zeros(1, 3, 64, 64))
    assert "packs q, k and v head by head" in reasons["stages.0.blocks.0.attn_block.attn.qkv"]


def test_nothing_to_cut_is_an_error():
    with pytest.raises(ValueError, match=r"nothing of Sequential can be cut exactly; 0: 1 is a GroupNorm"):
        groups_of(
            nn.Sequential(nn.Conv2d(3, 8, 1), nn.GroupNorm(2, 8), nn.Flatten(), nn.Linear(8, 2)),
            torch.zeros(1, 3, 1, 1),
        )
    with pytest.raises(ValueError, match="no inner channels"):
        groups_of(nn.Conv2d(3, 8, 1), torch.zeros(1, 3, 4, 4))


def test_a_network_with_several_outputs_is_refused():
    class Two(Net):
        def forward(self, x):
            return self.first(x), super().forward(x)

    with pytest.raises(ValueError, match="return one tensor, not tuple"):
        groups_of(Two(nn.ReLU()), torch.zeros(1, 3, 9, 9))


def test_a_wrong_group_does_not_pass_the_proof():
    model, x = vision("mobilenet_v2"), torch.zeros(1, 3, 32, 32)
    groups = groups_of(model, x)
    assert proven(model, groups, x) == groups
    for lost in ("features.3.conv.1.0.weight", "features.3.conv.1.1.running_mean", "features.3.conv.2.weight"):
        wrong = groups | {"features.3.conv.0.0": {n: p for n, p in groups["features.3.conv.0.0"].items() if n != lost}}
        with pytest.raises(ValueError, match=r"features\.3\.conv\.0\.0 does not name all"):
            proven(model, wrong, x)


# --- what Torch-Pruning does, and we do not -------------------------------------------------------------------------


def perceptron(hidden=1000):
    return nn.Sequential(nn.Flatten(), nn.Linear(12, hidden), nn.ReLU(), nn.Linear(hidden, 4))


SMALL = torch.zeros(1, 3, 2, 2)


def test_a_tenth_of_1000_is_100():
    """1 - 0.9 is 0.0999…98 in binary, and int() takes one unit too many."""
    theirs, ours = perceptron(), perceptron()
    torch_pruner(theirs, SMALL, 0.9, ignored_layers=[theirs[3]]).step()
    assert theirs[1].out_features == 99
    groups = groups_of(ours, SMALL)
    assert remove(ours, groups, layerwise(group_l2(ours, groups), 0.9))[1].out_features == 100


def test_ties_do_not_all_go():
    theirs = perceptron(8)
    with torch.no_grad():
        theirs[1].weight.fill_(1.0)
        theirs[3].weight.fill_(1.0)
        theirs[1].weight[:2] = 2.0
    ours = copy.deepcopy(theirs)
    torch_pruner(theirs, SMALL, 0.25, global_pruning=True, ignored_layers=[theirs[3]]).step()
    assert theirs[1].out_features == 2  # 6 of 8 went, not a quarter: all that are not above the threshold
    groups = groups_of(ours, SMALL)
    assert remove(ours, groups, layerwise(group_l2(ours, groups), 0.25))[1].out_features == 6


def test_isomorphic_needs_no_second_switch():
    """Without global_pruning=True the indices of a whole scope are taken for those of each of its layers."""
    x, left = torch.zeros(1, 3, 32, 32), {}
    for switch in (False, True):
        model = resnet50(10, 0.25)
        torch.manual_seed(0)
        torch_pruner(model, x, 0.5, isomorphic=True, global_pruning=switch, ignored_layers=[model.fc]).step()
        left[switch] = parameters(model)
    model = resnet50(10, 0.25)
    scores = at_least(normalised(group_l2(model, model.groups())), 1)
    ours = remove(model, model.groups(), isomorphically(scores, 0.5, kinds_of(model, model.groups())))
    assert left[False] > 2 * left[True]
    assert abs(parameters(ours) / left[True] - 1) < 0.05


def shorter_heads(model, x):
    """A DeiT whose attentions lose the half of their dimensions that is zero, as Torch-Pruning does it."""
    pruned = copy.deepcopy(model)
    for attention in (m for m in pruned.modules() if isinstance(m, Attention)):
        attention.fused_attn = False
    heads = {m.qkv: m.num_heads for m in pruned.modules() if isinstance(m, Attention)}
    others = [m for n, m in pruned.named_modules() if n.endswith(("head", "fc1", "patch_embed.proj"))]
    torch_pruner(pruned, x, 0.5, num_heads=heads, ignored_layers=others).step()
    for attention in (m for m in pruned.modules() if isinstance(m, Attention)):
        attention.head_dim, attention.attn_dim = 32, attention.num_heads * 32
        attention.scale = 32**-0.5  # what its examples tell people to do
    return pruned


def test_removing_what_is_zero_changes_nothing():
    """Half of the dimensions of each head are zero. Without them the network must say what it said."""
    torch.manual_seed(0)
    model, x = generic(timm.create_model("deit_tiny_patch16_224", **VIT)), torch.randn(2, 3, 32, 32)
    for block in model.blocks:
        with torch.no_grad():
            block.attn.qkv.weight.view(3, 3, 64, 192)[:, :, 32:] = 0
            block.attn.qkv.bias.view(3, 3, 64)[:, :, 32:] = 0
            block.attn.proj.weight.view(192, 3, 64)[:, :, 32:] = 0
    before = model(x)
    theirs = shorter_heads(model, x[:1])
    assert {b.attn.qkv.out_features for b in theirs.blocks} == {3 * 96}
    assert (theirs(x) - before).abs().max() > 1e-2 * before.abs().max()
    groups = {n: g for n, g in groups_of(model, x[:1]).items() if n.endswith(".dims")}
    ours = remove(model, groups, layerwise(group_l2(model, groups), 0.5))
    assert (ours(x) - before).abs().max() < 1e-4 * before.abs().max()


def test_a_new_classifier_fits_the_new_width():
    """A network notes its own width in embed_dim and num_features: a new classifier reads as many channels."""
    x = torch.zeros(1, 3, 32, 32)
    theirs, ours = (timm.create_model("deit_tiny_patch16_224", **VIT) for _ in range(2))
    heads = {b.attn.qkv: 3 for b in theirs.blocks}
    torch_pruner(theirs, x, 0.5, num_heads=heads, ignored_layers=[theirs.head]).step()
    assert [b.attn.num_heads * b.attn.head_dim for b in theirs.blocks] != [
        b.attn.proj.in_features for b in theirs.blocks
    ]
    for block in theirs.blocks:  # what its examples tell people to do
        block.attn.head_dim, block.attn.attn_dim = 32, 96
    theirs(x)
    theirs.reset_classifier(5)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        theirs(x)
    groups = groups_of(ours, x)
    small = remove(ours, groups, layerwise(group_l2(ours, groups), 0.5))
    small.reset_classifier(5)
    assert small(x).shape == (1, 5)


def test_a_distilled_network_gets_new_classifiers_too():
    model, x = timm.create_model("deit_tiny_distilled_patch16_224", **VIT), torch.zeros(1, 3, 32, 32)
    groups = groups_of(model, x)
    small = remove(model, groups, layerwise(group_l2(model, groups), 0.5))
    small.reset_classifier(5)
    assert small(x).shape == (1, 5)


def test_a_look_at_a_network_does_not_switch_it_to_evaluation():
    theirs, ours = perceptron().train(), perceptron().train()
    torch_pruning.DependencyGraph().build_dependency(theirs, SMALL)
    groups_of(ours, SMALL)
    assert (theirs.training, ours.training) == (False, True)


def test_convolutions_in_groups_keep_their_own_weights():
    """Torch-Pruning lets every group of a convolution keep the columns that the first one keeps."""
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1, groups=2), nn.Flatten(), nn.Linear(8, 4))
    model, x = generic(nn.Sequential(*layers)), torch.randn(5, 3, 1, 1)
    groups = groups_of(model, x[:1])
    masks = {name: torch.tensor([True, False]) if len(s) == 2 else s > 0 for name, s in group_l2(model, groups).items()}
    assert (remove(model, groups, masks)(x) - mute(model, groups, masks)(x)).abs().max() < 1e-5
    theirs = copy.deepcopy(model)
    graph = torch_pruning.DependencyGraph().build_dependency(theirs, x[:1])
    gone = [0, 6]  # one of each half
    graph.get_pruning_group(theirs[0], torch_pruning.prune_conv_out_channels, gone).prune()
    silent = copy.deepcopy(model)
    with torch.no_grad():
        silent[0].weight[gone] = 0
        silent[0].bias[gone] = 0
    assert (theirs(x) - silent(x)).abs().max() > 1e-2


def test_widths_are_even_where_asked_for():
    x = torch.zeros(1, 3, 32, 32)
    torch.manual_seed(0)
    model = timm.create_model("vit_base_patch16_224", **VIT)
    theirs = copy.deepcopy(model)
    heads = {b.attn.qkv: 12 for b in theirs.blocks}
    torch_pruner(theirs, x, 0.33, num_heads=heads, global_pruning=True, ignored_layers=[theirs.head]).step()
    assert any(b.mlp.fc1.out_features % 2 for b in theirs.blocks) or theirs.norm.weight.numel() % 2
    groups = groups_of(model, x)
    masks = planned(group_l2(model, groups), {"channels": 0.33, "heads": 0.3}, by_kind(kinds_of(model, groups)), 1, 8)
    assert all(int(m.sum()) % 8 == 0 for n, m in masks.items() if not n.endswith("heads"))


def test_a_pruned_network_is_no_pickle(tmp_path, private_cache):
    x = torch.zeros(1, 3, 64, 64)
    theirs = vision("mobilenet_v3_small", num_classes=7)
    model = copy.deepcopy(theirs).eval()
    torch_pruner(theirs, x, 0.5, ignored_layers=[theirs.classifier[3]]).step()
    with pytest.raises(RuntimeError, match="size mismatch"):
        vision("mobilenet_v3_small", num_classes=7).load_state_dict(theirs.state_dict())
    groups = groups_of(model, x)
    small = remove(model, groups, layerwise(group_l2(model, groups), 0.5))
    like = {"name": "mobilenet_v3_small", "library": "torchvision", "arguments": {"num_classes": 7}}
    shrunken.save(small, tmp_path / "small.safetensors", like)
    again = shrunken.load(tmp_path / "small.safetensors")
    assert torch.equal(again(x), small(x))
