"""Networks that others pruned and pickled: what comes in is the same network, and nothing of the file is run."""

import argparse
import json
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import timm
import torch
from conftest import generic
from test_shrunken import outputs, pruned
from torch import nn

from course_utils import adopt, shrunken, zoo

NAME = "deit_tiny_distilled_patch16_224"


@pytest.fixture(autouse=True)
def small(monkeypatch, private_cache):
    """DeiT for small images and with two blocks, wherever somebody asks for it by its name."""
    real = timm.create_model

    def create(name, **more):
        return real(name, **({"img_size": 32, "depth": 2} if "deit" in name else {}) | more)

    monkeypatch.setattr(timm, "create_model", create)
    sides = {True: 32, False: 64}
    monkeypatch.setattr(zoo, "example", lambda model, like: torch.zeros(1, 3, *[sides["deit" in like["name"]]] * 2))


def torch_pruned(seed=0, **more):
    """A DeiT whose embedding, heads, their dimensions and hidden units Torch-Pruning cut."""
    import torch_pruning as tp

    torch.manual_seed(seed)
    model = generic(timm.create_model(NAME, **more), seed)
    attentions = [block.attn for block in model.blocks]
    for attention in attentions:
        attention.fused_attn = False
    options = {"importance": tp.importance.MagnitudeImportance(), "pruning_ratio": 0.5, "round_to": 2}
    options |= {"ignored_layers": [model.head, model.head_dist], "num_heads": {a.qkv: 3 for a in attentions}}
    options |= {"prune_num_heads": True, "prune_head_dims": True, "head_pruning_ratio": 0.3}
    options |= {"pruning_ratio_dict": {a.qkv: 0.25 for a in attentions}}
    pruner = tp.pruner.BasePruner(model, torch.zeros(1, 3, 32, 32), **options)
    for group in pruner.step(interactive=True):
        group.prune()
    for attention in attentions:  # as its examples do
        attention.num_heads = pruner.num_heads[attention.qkv]
        attention.head_dim = attention.qkv.out_features // (3 * attention.num_heads)
        attention.scale = attention.head_dim**-0.5
    return model.eval()


def works(model):
    """The same network with what today's timm wants to know, and the examples of that time did not set."""
    for block in model.blocks:
        block.attn.attn_dim = block.attn.proj.in_features
    return model


def brought(file, word=NAME, **more):
    """What the command makes of a pickle."""
    out = file.with_suffix(".safetensors")
    words = [w for key, value in more.items() for w in (f"--{key}", str(value))]
    assert adopt.main([str(file), "--like", word, *words]) == 0
    return shrunken.load(out)


@pytest.mark.parametrize("form", ["whole", "dict", "training", "patched"])
def test_a_network_that_torch_pruning_saved(tmp_path, capsys, form):
    model = torch_pruned()
    if form == "patched":  # an example of Torch-Pruning puts its own forward into every attention
        for block in model.blocks:
            block.attn.forward = type(block.attn).forward.__get__(block.attn)
    more = {"optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}, "epoch": 3, "args": argparse.Namespace(lr=0.1)}
    content = {"whole": model, "patched": model, "dict": {"model": model}, "training": {"model": model, **more}}[form]
    torch.save(content, tmp_path / "deit.pth")
    back = brought(tmp_path / "deit.pth")
    assert torch.equal(outputs(back), outputs(works(model)))
    attention = back.blocks[0].attn
    assert (attention.num_heads, attention.attn_dim) == (2, attention.num_heads * attention.head_dim)
    said = capsys.readouterr().out
    assert "deit.safetensors (and deit.json) is deit.pth without its pickle" in said and " M parameters" in said
    about = json.loads((tmp_path / "deit.json").read_text())["about"]
    assert about == {"source": "deit.pth", "source_sha256": shrunken.digest(tmp_path / "deit.pth")}


@pytest.mark.parametrize("name", ["mobilenetv2_100", "convnext_atto"])
def test_other_networks_that_torch_pruning_cut(tmp_path, name):
    model, _ = pruned(name)
    torch.save(model, tmp_path / "net.pth")
    back = brought(tmp_path / "net.pth", name, classes=7)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(back(x), model(x))


def test_a_network_without_some_of_its_blocks(tmp_path):
    for name in ("convnext_atto", NAME):
        model = generic(timm.create_model(name))
        holder = model.stages[2] if name == "convnext_atto" else model
        holder.blocks = nn.Sequential(*list(holder.blocks)[1:])
        torch.save(model, tmp_path / "net.pth")
        back = brought(tmp_path / "net.pth", name)
        x = torch.randn(1, 3, 32, 32)
        with torch.no_grad():
            assert torch.equal(back(x), model(x))
        record = json.loads((tmp_path / "net.json").read_text())
        assert record["like"]["arguments"] in ({"depths": [2, 2, 5, 2]}, {"depth": 1})


def test_an_uncut_state_comes_in_too(tmp_path):
    model = generic(timm.create_model(NAME))
    torch.save({"model": model.state_dict()}, tmp_path / "net.pth")
    assert torch.equal(outputs(brought(tmp_path / "net.pth")), outputs(model))


def aged(model, *names, **noted):
    """Attentions as older versions of timm had them: without these names, and with others."""
    for block in model.blocks:
        for name in names:
            block.attn.__dict__.pop(name, None)
            block.attn.__dict__["_modules"].pop(name, None)
        vars(block.attn).update(noted)
    return model


@pytest.mark.parametrize(
    ("gone", "more"),
    [
        (["attn_dim", "norm", "gate"], {"old_name": 3}),
        (["attn_dim", "head_dim", "norm", "q_norm", "k_norm"], {}),
        (["attn_dim", "fused_attn"], {}),
        (["attn_dim", "scale", "head_dim"], {}),
    ],
)
def test_what_other_versions_of_timm_noted(tmp_path, gone, more):
    expected = outputs(works(torch_pruned()))
    torch.save(aged(torch_pruned(), *gone, **more), tmp_path / "deit.pth")
    back = brought(tmp_path / "deit.pth")
    assert torch.equal(outputs(back), expected)
    assert not hasattr(back.blocks[0].attn, "old_name")


def test_the_scale_of_the_time_is_kept(tmp_path):
    model = works(torch_pruned())
    for block in model.blocks:
        block.attn.scale = 0.3
    expected = outputs(model)
    torch.save(aged(model, "attn_dim", "fused_attn"), tmp_path / "deit.pth")
    assert torch.equal(outputs(brought(tmp_path / "deit.pth")), expected)


def test_how_it_was_trained_stays_behind(tmp_path):
    model = works(torch_pruned())
    model.distilled_training = True
    torch.save(model.train(), tmp_path / "deit.pth")
    back = brought(tmp_path / "deit.pth")
    assert isinstance(back.train()(torch.zeros(2, 3, 32, 32)), torch.Tensor)


# --- what is refused -------------------------------------------------------------------------------------------------


def refused(file, capsys, *words, word=NAME):
    """The one sentence, without an output, with which the command refuses a file."""
    before = sorted(file.parent.iterdir())
    capsys.readouterr()
    assert adopt.main([str(file), "--like", word, *words]) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1 and err.startswith("course.py: ") and len(err) < 500
    assert sorted(file.parent.iterdir()) == before
    return err


class Calls:
    """Something that runs a function when it is unpickled."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


class Wakes(nn.Module):
    """A layer whose code runs when it is unpickled."""

    def __setstate__(self, state):
        wake(state["mark"])


class Reduces(nn.Module):
    """A layer that is pickled as a call."""

    def __reduce__(self):
        return wake, (self.mark,)


def wake(mark):
    Path(mark).write_text("run")


def planted(kind, mark):
    """A network with something in it that leaves a mark when it is unpickled."""
    model, writes = timm.create_model(NAME), f"open({str(mark)!r}, 'w').write('run')"
    if kind == "beside":
        return {"model": model, "epoch": Calls(exec, writes)}
    if kind in ("setstate", "reduce"):
        model.blocks[0].mlp.act = {"setstate": Wakes, "reduce": Reduces}[kind]()
        model.blocks[0].mlp.act.mark = str(mark)
    else:
        things = {"system": Calls(os.system, f"echo run > {mark}"), "nested": [{"a": (Calls(eval, writes), 1)}]}
        model.planted = things[kind]
    return model


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        ("system", f"'{os.system.__module__}.system'"),
        ("nested", "'builtins.eval'"),
        ("beside", "'builtins.exec'"),
        ("setstate", "'test_adopt.Wakes'"),
        ("reduce", "'test_adopt.wake'"),
    ],
)
def test_a_pickle_with_code_in_it_is_refused_and_not_run(tmp_path, capsys, kind, named):
    mark, file = tmp_path / "mark", tmp_path / "evil.pth"
    torch.save(planted(kind, mark), file)
    said = refused(file, capsys)
    assert f"it holds {named}" in said and "nothing of it was run" in said and not mark.exists()
    torch.load(file, weights_only=False)
    assert mark.exists()  # so the plant was a live one


def test_no_code_of_an_allowed_layer_is_run(tmp_path, monkeypatch):
    model, ran = torch_pruned(), []
    torch.save(model, tmp_path / "deit.pth")
    for layer in (timm.layers.Mlp, timm.layers.Attention, nn.Linear, nn.Module):
        monkeypatch.setattr(layer, "__setstate__", lambda self, state: ran.append(self), raising=False)
    brought(tmp_path / "deit.pth")
    assert ran == []


def forged(file, content):
    """A file as torch.save writes it, with a pickle written by hand."""
    torch.save({}, file)
    with zipfile.ZipFile(file) as whole:
        entries = {entry: whole.read(entry) for entry in whole.namelist()}
    with zipfile.ZipFile(file, "w") as whole:
        for entry, old in entries.items():
            whole.writestr(entry, content if entry.endswith("data.pkl") else old)
    return file


ECHO = b"X\x04\x00\x00\x00true\x85R."


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"\x80\x02cposix\nsystem\n" + ECHO, "'posix.system'"),
        (b"\x80\x02c__builtin__\neval\n" + ECHO, "'builtins.eval'"),
        (b"\x80\x02ctorch\nload\n" + ECHO, "'torch.load'"),
        (b"\x80\x02ctorch.hub\nload\n" + ECHO, "'torch.hub.load'"),
        (b"\x80\x02ctimm.models\nload_checkpoint\n" + ECHO, "'timm.models.load_checkpoint'"),
        (b"\x80\x02ctimm.layers.mlp\nMlp.forward\n" + ECHO, "'timm.layers.mlp.Mlp.forward'"),
        (b"\x80\x02ctimm.layers.mlp.os\nsystem\n" + ECHO, "'timm.layers.mlp.os.system'"),
        (b"\x80\x02ctimm_layers\nMlp\n" + ECHO, "'timm_layers.Mlp'"),
        (b"\x80\x02ctimm.layers.\x1b[2J\nMlp\n" + ECHO, "\\x1b[2J"),
        (b"\x80\x04\x8c\x05posix\x8c\x06system\x93" + ECHO, "Unsupported operand"),
        (b"\x80\x02cposix\nsystem", "damaged"),
        (b"\x80\x02(iposix\nsystem\n.", "damaged"),
        (b"\x80\x02c__builtin__\ngetattr\n" + ECHO, "it lacks cls_token"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n" + ECHO, "nothing of it was run"),
        (b"\x80\x02ccollections\nOrderedDict\n" + ECHO, "nothing of it was run"),
        (b"\x80\x02]h\x05.", "refused"),
        (b"\x80\x02" + b"]" * 9 + b".", "no network"),
    ],
)
def test_a_pickle_written_by_hand_is_refused(tmp_path, capsys, content, named):
    said = refused(forged(tmp_path / "x.pth", content), capsys)
    assert named in said


def test_files_of_another_form_are_refused(tmp_path, capsys):
    file = tmp_path / "x.pth"
    model = nn.Linear(2, 2)
    for content in (b"", b"hello", b"PK\x03\x04" + b"\0" * 100, pickle.dumps({"model": 1})):
        file.write_bytes(content)
        assert "damaged, or nothing that torch.save writes today" in refused(file, capsys)
    torch.save(timm.create_model(NAME), file)
    file.write_bytes(file.read_bytes()[:-1000])
    assert "damaged" in refused(file, capsys)
    torch.save(model, file, _use_new_zipfile_serialization=False)
    assert "damaged" in refused(file, capsys)
    torch.save({"epoch": 3, "weights": [torch.zeros(3)]}, file)
    assert "no network" in refused(file, capsys)
    assert "no file" in refused(tmp_path / "none.pth", capsys)


def changed(change):
    """A pruned DeiT after a change by hand."""
    model = works(torch_pruned())
    change(model)
    return model


def larger(model):
    model.pos_embed = nn.Parameter(torch.zeros(1).expand(10**5, 10**5, 10**5))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: setattr(m.blocks[0].mlp, "act", nn.ReLU()), "blocks.0.mlp.act is ReLU, and GELU"),
        (lambda m: setattr(m.blocks[0].mlp, "act", nn.GELU("tanh")), "act.approximate is 'tanh', and 'none'"),
        (lambda m: setattr(m.blocks[0].attn, "num_heads", 3), "blocks.0.attn notes 3 heads of"),
        (lambda m: setattr(m.blocks[0].attn, "num_heads", "2"), "num_heads is '2', and 3"),
        (lambda m: setattr(m.blocks[0].attn, "head_dim", 7), "notes 2 heads of 7"),
        (lambda m: setattr(m.blocks[0].attn, "num_heads", 0), "notes 0 heads"),
        (lambda m: m.blocks[0].add_module("more", nn.Linear(2, 2)), "it has blocks.0.more"),
        (lambda m: m.blocks[0].add_module("more", nn.ReLU()), "it has blocks.0.more"),
        (lambda m: m.blocks[1]._modules.pop("mlp"), "it lacks blocks.1.mlp.fc1.weight"),
        (lambda m: setattr(m.blocks[0].mlp.fc1, "bias", None), "it lacks blocks.0.mlp.fc1.bias"),
        (lambda m: setattr(m, "cls_token", nn.Parameter(torch.zeros(4))), "cls_token is (4,)"),
        (lambda m: setattr(m, "cls_token", nn.Parameter(torch.zeros(1, 1, 9))), "does not fit"),
        (lambda m: m._parameters.update(cls_token=[1, 2]), "cls_token is no plain tensor"),
        (lambda m: m._modules.update(blocks=m), "does not fit"),
        (lambda m: m.__dict__.update(_modules=3), "does not fit"),
        (lambda m: m.__dict__.update(_parameters={}), "it lacks cls_token"),
        (larger, "pos_embed is no plain tensor"),
    ],
)
def test_a_network_that_is_not_of_this_architecture_is_refused(tmp_path, capsys, change, said):
    torch.save(changed(change), tmp_path / "x.pth")
    assert said in refused(tmp_path / "x.pth", capsys)


def test_words_that_do_not_fit_the_file(tmp_path, capsys):
    file = tmp_path / "x.pth"
    torch.save(works(torch_pruned()), file)
    assert "it tells 1000 classes apart, not 81" in refused(file, capsys, "--classes", "81")
    assert "did you mean" in refused(file, capsys, word="deit_tiny_destilled_patch16_224")
    assert "VisionTransformerDistilled', which is no part of a ResNet" in refused(file, capsys, word="resnet18")
    assert "ends in .safetensors" in refused(file, capsys, "--out", str(tmp_path / "x.pt"))
    torch.save(works(torch_pruned()).state_dict(), file)
    assert "bring the whole network" in refused(file, capsys)


def test_a_place_that_cannot_be_written(tmp_path, capsys):
    torch.save(works(torch_pruned()), tmp_path / "x.pth")
    assert (
        adopt.main([str(tmp_path / "x.pth"), "--like", NAME, "--out", str(tmp_path / "x.pth" / "y.safetensors")]) == 1
    )
    assert len(capsys.readouterr().err.splitlines()) == 1
