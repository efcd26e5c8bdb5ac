"""A shrunken network as a file: what comes back is what was saved, bit for bit, or one clear sentence."""

import json
import os

import pytest
import timm
import torch
import torch_pruning as tp
import torchvision
from conftest import generic
from torch import nn

from course_utils import shrunken, zoo
from course_utils.files import load_tensors, save_tensors
from course_utils.models import resnet50, resnet_cifar
from course_utils.units import remove

DEIT = {"img_size": 32, "depth": 2, "num_classes": 7}


def halves(model, groups):
    """Masks that keep every other channel of each group."""
    from course_utils.channels import channels_in

    return {name: torch.arange(channels_in(model, group)) % 2 == 0 for name, group in groups.items()}


def cut_resnet():
    """The course's ResNet-50, narrow, with all its groups cut."""
    like = {"name": "resnet50", "library": "course", "arguments": {"classes": 7, "width": 0.125}}
    model = generic(resnet50(7, 0.125))
    return remove(model, model.groups(), halves(model, model.groups())), like


def cut_cifar():
    """ResNet-20, whose shortcuts are tables that no state dict holds."""
    like = {"name": "resnet_cifar", "library": "course", "arguments": {"depth": 20}}
    model = generic(resnet_cifar(20))
    groups = model.groups()
    return remove(model, groups, halves(model, groups)), like


def select(layer, axis, kept):
    """Cut a layer's weight along an axis by hand, and its bias with its rows."""
    layer.weight = nn.Parameter(layer.weight.detach().index_select(axis, kept))
    if axis == 0 and layer.bias is not None:
        layer.bias = nn.Parameter(layer.bias.detach()[kept])


def cut_deit():
    """timm's DeiT-Tiny, cut by hand: one head of three, half of the dimensions of the others, half of the MLP."""
    like = {"name": "deit_tiny_patch16_224", "library": "timm", "arguments": DEIT}
    model = generic(timm.create_model("deit_tiny_patch16_224", **DEIT))
    rows = torch.arange(3 * 192).view(3, 3, 64)[:, 1:, :32]
    for block in model.blocks:
        select(block.attn.qkv, 0, rows.flatten())
        select(block.attn.proj, 1, rows[0].flatten())
        block.attn.num_heads, block.attn.head_dim, block.attn.attn_dim, block.attn.scale = 2, 32, 64, 32**-0.5
        block.attn.fused_attn = False
        select(block.mlp.fc1, 0, torch.arange(0, 768, 2))
        select(block.mlp.fc2, 1, torch.arange(0, 768, 2))
    return model, like


def pruned(name, library="timm", size=64, ratio=0.5, **arguments):
    """A network cut by Torch-Pruning itself, all but its classifier."""
    like = {"name": name, "library": library, "arguments": {"num_classes": 7, **arguments}}
    model = generic(zoo.build(like))
    heads = {m.qkv: m.num_heads for m in model.modules() if hasattr(m, "qkv")}
    last = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == 7]
    options = {"importance": tp.importance.MagnitudeImportance(), "pruning_ratio": ratio, "ignored_layers": last}
    for attention in (m for m in model.modules() if hasattr(m, "qkv")):
        attention.fused_attn = False
    pruner = tp.pruner.BasePruner(model, torch.zeros(1, 3, size, size), num_heads=heads, **options)
    pruner.step()
    for attention in (m for m in model.modules() if hasattr(m, "qkv")):
        attention.num_heads = pruner.num_heads[attention.qkv]
        attention.attn_dim = attention.proj.in_features
        attention.head_dim = attention.attn_dim // attention.num_heads
        attention.scale = attention.head_dim**-0.5
    return model.eval(), like


NETWORKS = {
    "the course's resnet50": (cut_resnet, 32),
    "resnet20 with tables": (cut_cifar, 32),
    "deit by hand": (cut_deit, 32),
    "deit": (lambda: pruned("deit_tiny_distilled_patch16_224", size=32, img_size=32, depth=2), 32),
    "mobilenetv2": (lambda: pruned("mobilenetv2_100"), 64),
    "convnext": (lambda: pruned("convnext_atto"), 64),
    "torchvision's densenet": (lambda: pruned("densenet121", "torchvision"), 64),
    "half precision": (lambda: (lambda m, like: (m.half(), like))(*cut_resnet()), 32),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_what_comes_back_is_what_was_saved(name, tmp_path):
    make, size = NETWORKS[name]
    model, like = make()
    fresh = zoo.build(like)
    assert sum(p.numel() for p in model.parameters()) < 0.7 * sum(p.numel() for p in fresh.parameters())
    shrunken.save(model, tmp_path / "cut.safetensors", like, ratio=0.5)
    back = shrunken.load(tmp_path / "cut.safetensors")
    x = torch.randn(2, 3, size, size, dtype=next(model.parameters()).dtype)
    with torch.no_grad():
        assert torch.equal(back(x), model(x))
    assert not any(m.training for m in back.modules())
    assert [p.requires_grad for p in back.parameters()] == [p.requires_grad for p in model.parameters()]
    back.train()(x).sum().backward()
    assert all(p.grad is not None for p in back.parameters())
