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
    "torchvision's mobilenetv3": (lambda: pruned("mobilenet_v3_small", "torchvision"), 64),
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


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small():
    """A cut network that is built quickly."""
    like = {"name": "resnet_cifar", "library": "course", "arguments": {"depth": 8, "width": 0.5}}
    model = generic(resnet_cifar(8, 10, 0.5))
    return remove(model, model.groups(), halves(model, model.groups())), like


@pytest.fixture
def file(small, tmp_path, private_cache):
    shrunken.save(small[0], tmp_path / "net.safetensors", small[1], ratio=0.5)
    return tmp_path / "net.safetensors"


def refused(file, kind=ValueError):
    """The one sentence with which a file is refused."""
    with pytest.raises(kind) as caught:
        shrunken.load(file)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    return str(caught.value)


def rewrite(file, seal=True, **changes):
    """Change the description of a file; with `seal`, as somebody would who knows how it is written."""
    place = file.with_suffix(".json")
    record = json.loads(place.read_text()) | changes
    if seal:
        tensors, _ = load_tensors(file)
        save_tensors(changes.pop("tensors", tensors), file, record=shrunken.seal(record))
        record["sha256"] = shrunken.digest(file)
    record.pop("tensors", None)
    place.write_text(json.dumps(record))


def test_the_description_says_what_was_kept(small, tmp_path):
    kept = {"layer1.0.conv1": [0, 2]}
    shrunken.save(*[small[0], tmp_path / "net.safetensors", small[1]], kept=kept, before=torch.tensor(3).item())
    record = json.loads((tmp_path / "net.json").read_text())
    assert record["kept"] == kept and record["about"] == {"before": 3} and record["like"] == small[1]
    assert record["sizes"]["conv1"] == {"out_channels": 4} and "layer1" not in record["sizes"]


@pytest.mark.parametrize("ending", [".safetensors", ".json"])
def test_one_of_the_two_files_is_missing(file, ending):
    file.with_suffix(ending).unlink()
    said = refused(file, FileNotFoundError)
    assert str(file.with_suffix(ending)) in said and "net.safetensors and net.json" in said


@pytest.mark.parametrize("at", [200, -3])
def test_an_altered_file_is_refused(file, at):
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)
    assert f"{file} was altered, or net.json is that of another" in refused(file)


def test_a_truncated_file_is_refused(file):
    file.write_bytes(file.read_bytes()[:-100])
    assert f"{file} was altered" in refused(file)


@pytest.mark.parametrize("changes", [{"sizes": {}}, {"kept": {"a": [1]}}, {"like": {"name": "mlp"}}])
def test_an_altered_description_is_refused(file, changes):
    rewrite(file, seal=False, **changes)
    assert "net.json was altered" in refused(file)


def test_the_words_about_a_network_are_free(file):
    rewrite(file, seal=False, about={"accuracy": 0.9})
    shrunken.load(file)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "net.json is damaged"),
        ("\x80\x04\x95", "net.json is damaged"),
        ("[" * 10**5, "net.json is damaged"),
        ("[1, 2]", "no description"),
        ("{}", "no description"),
        ('{"format": 2, "new": 1}', "format 2, and this course reads 1: update"),
        ('{"format": 1, "like": "resnet50"}', "it lacks one of format, like"),
    ],
)
def test_a_foreign_description_is_refused(file, text, said):
    file.with_suffix(".json").write_text(text, encoding="utf-8")
    assert said in refused(file)


@pytest.mark.parametrize(
    ("like", "said"),
    [
        ({"name": "resnet_cifer", "library": "course", "arguments": {}}, "did you mean resnet_cifar?"),
        ({"name": "resnet_cifar", "library": "pip", "arguments": {}}, "'pip/resnet_cifar'"),
        ({"name": "hf-hub:somebody/net", "library": "timm", "arguments": {}}, "there is no network"),
        ({"name": "resnet_cifar", "library": "course"}, "name, library, arguments"),
        ({"name": "resnet_cifar", "library": "course", "arguments": {"depth": 9}}, "cannot build"),
        ({"name": "resnet_cifar", "library": "course", "arguments": {"deep": 8}}, "cannot build"),
        ({"name": "resnet18", "library": "timm", "arguments": {"pretrained": True}}, "without pretrained"),
        ({"name": "resnet18", "library": "timm", "arguments": {"checkpoint_path": "x.pth"}}, "without checkpoint_path"),
        ({"name": "resnet18", "library": "torchvision", "arguments": {"weights": "DEFAULT"}}, "without weights"),
        ({"name": "resnet_cifar", "library": "course", "arguments": {"depth": 14}}, "lacks layer1.1.conv1.weight"),
        ({"name": "mlp", "library": "course", "arguments": {}}, "lacks layers.0.weight"),
    ],
)
def test_another_architecture_is_refused(file, like, said):
    rewrite(file, like=like)
    assert said in refused(file)


def test_tensors_of_another_architecture_are_refused(file):
    tensors, _ = load_tensors(file)
    for changed, said in [
        ({**tensors, "conv1.bias": torch.zeros(4)}, "it has conv1.bias"),
        ({n: t for n, t in tensors.items() if n != "bn1.bias"}, "it lacks bn1.bias"),
        (tensors | {"bn1.bias": torch.zeros(2, 2)}, "bn1.bias is (2, 2), and (8,)"),
        (tensors | {"bn1.bias": torch.zeros(4, dtype=torch.long)}, "bn1.bias"),
        (tensors | {"bn1.bias": torch.zeros(0)}, "bn1.bias is empty"),
    ]:
        rewrite(file, tensors=changed)
        assert said in refused(file) and "another architecture" in refused(file)


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"conv9": {"stride": [1, 1]}}, "'conv9'"),
        ({"conv1": {"strides": [1, 1]}}, "conv1.strides is None"),
        ({"conv1": {"out_channels": 4.0}}, "conv1.out_channels is 8 and cannot become 4.0"),
        ({"conv1": {"out_channels": "4"}}, "cannot become '4'"),
        ({"conv1": {"stride": [1, [2]]}}, "cannot become"),
        ({"conv1": {"training": True}}, "conv1.training"),
        ({"conv1": {"forward": 1}}, "conv1.forward"),
        ({"conv1": {"__class__": 1}}, "conv1.__class__"),
        ({"conv1": {"weight": 1}}, "conv1.weight"),
        ({"conv1": [1]}, "conv1"),
    ],
)
def test_sizes_that_a_layer_does_not_have(file, sizes, said):
    rewrite(file, sizes=sizes)
    assert said in refused(file)


def test_what_a_file_could_not_tell_is_not_saved(small, tmp_path):
    other = generic(resnet_cifar(8, 10, 0.5))
    other.layer1[0].add_module("extra", nn.Linear(2, 2))
    vgg = {"name": "vgg11", "library": "torchvision", "arguments": {"num_classes": 2}}
    activation = torchvision.models.vgg11(num_classes=2)
    activation.features[1] = nn.Sigmoid()
    padded = torchvision.models.vgg11(num_classes=2)
    padded.features[0].padding_mode = "circular"
    for model, like, said in [
        (other, small[1], "it has layer1.0.extra.weight"),
        (small[0], vgg, "it lacks features.0.weight"),
        (activation, vgg, "features.1 is Sigmoid, and ReLU"),
        (padded, vgg, "features.0.padding_mode is 'circular'"),
    ]:
        with pytest.raises(ValueError, match="was not made from") as caught:
            shrunken.save(model, tmp_path / "x.safetensors", like)
        assert said in str(caught.value)
    with pytest.raises(ValueError, match="can hold numbers"):
        shrunken.save(small[0], tmp_path / "x.safetensors", small[1], picture=torch.zeros(2))
    with pytest.raises(ValueError, match=r"ends in \.safetensors"):
        shrunken.save(small[0], tmp_path / "x.json", small[1])
    assert list(tmp_path.iterdir()) == []


# --- a writer that is killed -----------------------------------------------------------------------------------------


def outputs(model):
    with torch.no_grad():
        return model(torch.arange(2 * 3 * 32 * 32).view(2, 3, 32, 32) / 3000)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a process that dies at a given moment is made by fork")
@pytest.mark.parametrize("older", [True, False])
@pytest.mark.parametrize("moment", range(4))
def test_a_killed_writer_leaves_the_old_network_or_the_new_one(small, tmp_path, private_cache, moment, older):
    model, like = small
    other, file = generic(resnet_cifar(8, 10, 0.5), seed=1), tmp_path / "net.safetensors"
    if older:
        shrunken.save(other, file, like)
    child = os.fork()
    if child == 0:
        steps, replace = iter(range(9)), type(file).replace

        def dying(self, target):
            if next(steps) == moment:
                os._exit(1)
            return replace(self, target)

        type(file).replace = dying
        shrunken.save(model, file, like)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert (status == 0) == (moment == 3)
    if older or moment >= 2:
        assert torch.equal(outputs(shrunken.load(file)), outputs(model if moment >= 2 else other))
    else:
        refused(file, FileNotFoundError)
    shrunken.save(other, file, like)
    assert torch.equal(outputs(shrunken.load(file)), outputs(other))
    left = {path.name for path in tmp_path.iterdir() if path.is_file() and ".part" not in path.name}
    assert left == {"net.safetensors", "net.json"}


@pytest.mark.parametrize("moment", range(3))
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interrupted_writer_leaves_nothing_behind(small, file, monkeypatch, moment, error):
    before, steps, replace = outputs(shrunken.load(file)), iter(range(9)), type(file).replace

    def interrupted(self, target):
        if next(steps) == moment:
            raise error
        return replace(self, target)

    monkeypatch.setattr(type(file), "replace", interrupted)
    other = generic(resnet_cifar(8, 10, 0.5), seed=1)
    with pytest.raises((KeyboardInterrupt, OSError)):
        shrunken.save(other, file, small[1])
    monkeypatch.undo()
    assert torch.equal(outputs(shrunken.load(file)), outputs(other) if moment == 2 else before)
    left = {path.name for path in file.parent.iterdir() if path.is_file()}
    assert left == {"net.safetensors", "net.json"} | ({".net.safetensors.new"} if moment == 2 else set())


# --- any network by its name -----------------------------------------------------------------------------------------


def test_a_name_is_found_in_one_of_three_libraries():
    for word, library, name in [
        ("resnet50", "timm", "resnet50"),
        ("deit_tiny_patch16_224.fb_in1k", "timm", "deit_tiny_patch16_224.fb_in1k"),
        ("vit_b_16", "torchvision", "vit_b_16"),
        ("torchvision/resnet50", "torchvision", "resnet50"),
        ("resnet_cifar", "course", "resnet_cifar"),
        ("course/vgg16_bn", "course", "vgg16_bn"),
    ]:
        assert zoo.like_of(word) == {"name": name, "library": library, "arguments": {}}
    assert zoo.like_of("vit_b_16", 5)["arguments"] == {"num_classes": 5}
    assert zoo.like_of("course/vgg16_bn", 5)["arguments"] == {"classes": 5}
    for word in ("resnet51", "timm/vit_b_16", "keras/resnet50", "hf-hub:a/b", "fasterrcnn_resnet50_fpn"):
        with pytest.raises(ValueError, match="there is no network"):
            zoo.like_of(word)
    with pytest.raises(ValueError, match=r"did you mean mobilenetv2_100\?"):
        zoo.like_of("mobilenetv2_1000")


def test_building_draws_the_same_weights_and_leaves_the_generator_alone():
    like = zoo.like_of("resnet_cifar") | {"arguments": {"depth": 8}}
    before = torch.random.get_rng_state()
    one, two = zoo.build(like), zoo.build(like)
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(one.conv1.weight, two.conv1.weight) and not one.training
    assert not torch.equal(one.conv1.weight, zoo.build(like, seed=1).conv1.weight)


@pytest.mark.parametrize("ending", ["", "_fp16"])
def test_trained_weights_are_taken_from_the_data_folder(tmp_path, private_cache, monkeypatch, ending):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model = generic(timm.create_model("test_resnet"))
    state = model.half().state_dict() if ending else model.state_dict()
    save_tensors(state, tmp_path / "data" / "weights" / f"test_resnet{ending}.safetensors")
    x = torch.randn(1, 3, 64, 64)
    opened, like = shrunken.open_network("test_resnet")
    with torch.no_grad():
        assert torch.equal(opened(x), model.float()(x)) and not opened.training
    fewer, like = shrunken.open_network("test_resnet", classes=5)
    assert like["arguments"] == {"num_classes": 5} and zoo.classes_of(fewer) == 5
    assert torch.equal(fewer.conv1[0].weight, opened.conv1[0].weight)
    for name, change in [("fc.weight", state["fc.weight"][:5]), ("extra", torch.zeros(3))]:
        save_tensors(state | {name: change}, tmp_path / "data" / "weights" / f"test_resnet{ending}.safetensors")
        with pytest.raises(ValueError, match=f"another network than test_resnet: {name}"):
            shrunken.open_network("test_resnet")


def test_weights_that_are_not_here(private_cache, monkeypatch):
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained, **more: 1 / 0 if pretrained else MODEL)
    for word in ("test_resnet", "torchvision/alexnet"):
        with pytest.raises(FileNotFoundError, match="no trained weights") as caught:
            shrunken.open_network(word)
        assert "weights/" in str(caught.value) and "\n" not in str(caught.value)
    monkeypatch.undo()
    assert shrunken.open_network("test_resnet", random=True)[1]["name"] == "test_resnet"


MODEL = nn.Linear(2, 2)


def test_a_file_is_opened_by_its_path(file, small):
    model, like = shrunken.open_network(str(file), classes=10)
    assert like == small[1] and torch.equal(outputs(model), outputs(small[0]))
    for word, classes, said in [
        (file, 81, "10 classes apart, not 81"),
        (file.with_suffix(".json"), None, "no file of a shrunken network"),
        (file.with_suffix(".pth"), None, "course.py import"),
    ]:
        with pytest.raises(ValueError, match=said):
            shrunken.open_network(str(word), classes)
    with pytest.raises(FileNotFoundError, match=r"none\.safetensors"):
        shrunken.open_network(str(file.with_name("none.safetensors")))


@pytest.mark.parametrize(
    ("like", "shape"),
    [
        (zoo.like_of("test_vit"), (1, 3, 160, 160)),
        (
            {"name": "deit_tiny_patch16_224", "library": "timm", "arguments": {"img_size": 32, "depth": 1}},
            (1, 3, 32, 32),
        ),
        (zoo.like_of("squeezenet1_0"), (1, 3, 224, 224)),
        ({"name": "mlp", "library": "course", "arguments": {"sizes": [64, 10, 5]}}, (1, 64)),
        ({"name": "deit_tiny", "library": "course", "arguments": {"size": 48, "depth": 1}}, (1, 3, 48, 48)),
    ],
)
def test_the_example_is_as_large_as_the_network_expects(like, shape):
    model = zoo.build(like)
    x = zoo.example(model, like)
    assert x.shape == shape and model(x).shape == (1, zoo.classes_of(model))
