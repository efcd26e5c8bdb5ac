"""Fine-tuning and evaluation of any network: what is learnt, what is kept, and that a killed run goes on unharmed."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import images
import pytest
import timm
import torch
from conftest import generic
from hosts import can_have_hosts, end, launch, on_two_hosts
from PIL import Image
from torch import nn
from torch.nn.functional import cross_entropy, log_softmax, softmax

from course_utils import epochs, evaluation, options, shrunken, states, teachers, tuning
from course_utils.files import load_tensors, save_tensors
from course_utils.folders import View, in_order, labelled, seen

ROOT = Path(__file__).resolve().parent.parent
ALTERED = ("--mixup", "0.4", "--cutmix", "1", "--randaugment", "rand-m9-mstd0.5-inc1", "--erasing", "0.3")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return images.write(tmp_path_factory.mktemp("some images"))


@pytest.fixture(autouse=True)
def quiet(private_cache):
    """A cache of this test's own."""


def given(data, out, *more, network="test_vit"):
    """The words for a small fine-tuning."""
    words = [network, "--data", data, "--out", out, "--size", "32", "--batch-size", "8", "--epochs", "3"]
    words += ["--workers", "0", "--lr", "1e-3", *(["--random", "--new-head"] if "/" not in network else [])]
    return [str(word) for word in (*words, *more)]


def tune(data, out, *more, **network):
    """Fine-tune, and return the log."""
    assert tuning.finetune(options.read(given(data, out, *more, **network))) == 0
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def refused(data, out, *more, **network) -> str:
    """The sentence by which a fine-tuning is refused; nothing is written."""
    before = sorted(out.rglob("*")) if out.exists() else []
    with pytest.raises((ValueError, OSError)) as error:
        tuning.finetune(options.read(given(data, out, *more, **network)))
    text = str(error.value)
    assert "\n" not in text and len(text) < 350
    assert (sorted(out.rglob("*")) if out.exists() else []) == before
    return text


def weights(file):
    return load_tensors(file)[0]


def equal(one, other):
    """The same tensors under the same names."""
    return one.keys() == other.keys() and all(torch.equal(t, other[name]) for name, t in one.items())


# --- what is learnt and kept ------------------------------------------------------------------------------------------


def test_it_learns_and_keeps_the_latest_the_best_and_every_second(data, tmp_path):
    log = tune(data, tmp_path / "out", "--every", "2")
    assert [record["epoch"] for record in log] == [1, 2, 3] and log[-1]["training_loss"] < log[0]["training_loss"]
    names = {path.name for path in (tmp_path / "out").iterdir()}
    both = [f"{name}.{end}" for name in ("latest", "best", "epoch-002") for end in ("safetensors", "json")]
    assert names == {*both, "state.safetensors", "log.jsonl"}
    best = max(log, key=lambda record: record["top1"])
    record = json.loads((tmp_path / "out" / "best.json").read_text())["about"]
    assert record["result"]["epoch"] == best["epoch"] == min(r["epoch"] for r in log if r["top1"] == best["top1"])
    assert record["classes"] == ["blue", "green", "red"] and record["view"]["size"] == 32
    assert best["top1"] > 0.6


def test_a_kept_network_evaluates_to_what_the_log_says(data, tmp_path, capsys):
    log = tune(data, tmp_path / "out")
    capsys.readouterr()
    args = evaluation.arguments([str(tmp_path / "out" / "latest.safetensors"), "--data", str(data), "--workers", "0"])
    assert evaluation.report(args) == 0
    lines = capsys.readouterr().out.splitlines()
    last = log[-1]
    assert "at 32 × 32, bicubic" in lines[0] and "M parameters" in lines[0] and "1,444,800" in lines[0]
    told = f"top-1 {last['top1']:.2%}, top-5 100.00%, loss {last['loss']:.4f} on 12 images of"
    assert lines[1].startswith(told)


def test_evaluation_by_hand(data):
    model = generic(timm.create_model("test_resnet", num_classes=7))
    view = View(size=32)
    found = seen(labelled(data / "val", ["red", "white", "black", "grey", "green", "pink", "blue"]), view)
    x, y = (torch.cat(parts) for parts in zip(*in_order(found, view, 5, 0), strict=True))
    with torch.no_grad():
        scores = model(x)
    ranks = (scores.argsort(1, descending=True) == y[:, None]).int().argmax(1)
    result = evaluation.evaluate(model, in_order(found, view, 5, 0), 3)
    assert result["top1"] == (ranks < 1).double().mean() and result["top5"] == (ranks < 5).double().mean()
    assert result["loss"] == pytest.approx(cross_entropy(scores, y).item(), rel=1e-6) and result["images"] == 12


def test_with_a_moving_average_that_is_what_is_kept(data, tmp_path):
    tune(data, tmp_path / "out", "--ema", "0.5")
    state, kept = weights(tmp_path / "out" / "state.safetensors"), weights(tmp_path / "out" / "latest.safetensors")
    assert equal(kept, {n.removeprefix("average."): t for n, t in state.items() if n.startswith("average.")})
    assert not torch.equal(kept["head.weight"], state["model.head.weight"])


def test_a_network_from_a_file_is_tuned_on(data, tmp_path):
    tune(data, tmp_path / "first", "--epochs", "1")
    start = tmp_path / "first" / "latest.safetensors"
    tune(data, tmp_path / "second", "--epochs", "1", "--lr", "1e-30", "--weight-decay", "0", network=str(start))
    assert equal(weights(start), weights(tmp_path / "second" / "latest.safetensors"))


def test_a_shrunken_network_is_tuned_and_kept(data, tmp_path):
    from course_utils.channels import shrink

    model, like = shrunken.open_network("test_vit", 3, random=True)
    hidden = {"blocks.0.mlp.fc1.weight": 0, "blocks.0.mlp.fc1.bias": 0, "blocks.0.mlp.fc2.weight": 1}
    shrunken.save(shrink(model, hidden, torch.arange(10)), tmp_path / "small.safetensors", like)
    tune(data, tmp_path / "out", "--epochs", "1", network=str(tmp_path / "small.safetensors"))
    assert shrunken.load(tmp_path / "out" / "best.safetensors").blocks[0].mlp.fc1.out_features == 10


def test_all_of_timms_augmentation_at_once(data, tmp_path):
    log = tune(data, tmp_path / "out", *ALTERED, "--epochs", "1", "--clip", "1", "--optimizer", "sgd")
    plain = tune(data, tmp_path / "plain", "--plain", "--epochs", "1", "--clip", "1", "--optimizer", "sgd")
    assert log[0]["training_loss"] != plain[0]["training_loss"]


def test_the_learning_rate_rises_and_falls(data, tmp_path):
    chosen = options.read(given(data, tmp_path, "--warmup", "0.5", "--batch-size", "4"))
    model = nn.Linear(1, 1)
    run = epochs.begin(model, chosen, range(6), None)
    rates = []
    for step in range(1, 19):
        epochs.schedule(run).step_update(step)
        rates.append(run.optimizer.param_groups[0]["lr"])
    assert rates[0] == pytest.approx(1e-3 / 9.5) and max(rates) == pytest.approx(max(rates[8:11]))
    assert 0 < rates[-1] < 2e-5 and rates == sorted(rates[:9]) + sorted(rates[9:], reverse=True)


# --- a killed run -----------------------------------------------------------------------------------------------------


def left(out):
    """What a run has left: all its tensors, and its log without what tells how long it took."""
    log = [{**json.loads(line), "seconds": 0} for line in (out / "log.jsonl").read_text().splitlines()]
    about = [json.loads((out / f"{name}.json").read_text())["about"] for name in ("latest", "best")]
    return (log, about), {name: weights(out / f"{name}.safetensors") for name in ("latest", "best", "state")}


def same_run(one, other):
    """Have two runs left the same, bit for bit?"""
    (words, tensors), (other_words, other_tensors) = left(one), left(other)
    return words == other_words and all(equal(tensors[name], other_tensors[name]) for name in tensors)


@pytest.mark.parametrize("network", ["test_vit", "test_resnet"])
def test_a_run_killed_after_an_epoch_ends_as_one_that_was_not(data, tmp_path, monkeypatch, network, capsys):
    more = (*ALTERED, "--ema", "0.9")
    tune(data, tmp_path / "whole", *more, network=network)
    for die_in in ("latest", "state"):
        out, real = tmp_path / die_in, {"latest": shrunken.save, "state": states.save_state}[die_in]

        def die(*args, real=real, **kwargs):
            epoch = (kwargs.get("result") or kwargs["log"][-1])["epoch"]
            if epoch == 2:
                raise KeyboardInterrupt
            return real(*args, **kwargs)

        with monkeypatch.context() as patch:
            place, name = (shrunken, "save") if die_in == "latest" else (tuning, "save_state")
            patch.setattr(place, name, die)
            with pytest.raises(KeyboardInterrupt):
                tune(data, out, *more, network=network)
        assert "holds 1 of 3; the same command goes on" in capsys.readouterr().out
        tune(data, out, *more, network=network)
        assert "epochs done: 1/3" in capsys.readouterr().out
        assert same_run(tmp_path / "whole", out)


@pytest.mark.skipif(os.name == "nt", reason="Windows knows no kill -9")
def test_kill_9_loses_at_most_an_epoch(data, tmp_path):
    command = [sys.executable, "-m", "course_utils.tuning", *given(data, tmp_path / "killed", "--epochs", "200")]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, **quiet)
    began = time.monotonic()
    while (
        not (tmp_path / "killed" / "log.jsonl").exists() and process.poll() is None and time.monotonic() - began < 200
    ):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    _, err = process.communicate()
    done = len(states.load_state_file(tmp_path / "killed" / "state.safetensors")[1]["log"])
    assert 0 < done < 200, err
    chosen = options.read(given(data, tmp_path / "killed", "--epochs", "200"))
    step, went_on = tuning.next_epoch, []

    def stop(run, pupil, val, log):
        went_on.append(len(log))
        if len(log) == done + 1:
            raise KeyboardInterrupt
        return step(run, pupil, val, log)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(tuning, "next_epoch", stop)
        tuning.finetune(chosen)
    assert went_on == [done, done + 1]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(tuning, "next_epoch", stop)
        tuning.finetune(replace(chosen, out=str(tmp_path / "whole")))
    assert same_run(tmp_path / "killed", tmp_path / "whole")


def test_a_finished_run_is_not_run_again(data, tmp_path, monkeypatch):
    tune(data, tmp_path / "out", "--epochs", "1")
    monkeypatch.setattr(tuning, "next_epoch", lambda *_: pytest.fail("run again"))
    tune(data, tmp_path / "out", "--epochs", "1")


def test_what_a_run_that_goes_on_may_change(data, tmp_path):
    tune(data, tmp_path / "out", "--epochs", "1", "--every", "3")
    tune(data, tmp_path / "out", "--epochs", "1", "--workers", "1")
    data.rename(data.with_name("moved"))
    try:
        tune(data.with_name("moved"), tmp_path / "out", "--epochs", "1")
    finally:
        data.with_name("moved").rename(data)


# --- a teacher --------------------------------------------------------------------------------------------------------


def run_of(model, chosen, ask):
    return epochs.begin(model, chosen, range(1), ask)


@pytest.mark.parametrize("way", ["soft", "hard"])
@pytest.mark.parametrize("mixed", [False, True])
def test_the_loss_with_a_teacher_by_hand(data, tmp_path, way, mixed):
    chosen = options.read(given(data, tmp_path, "--distillation", way, "--alpha", "0.3", "--temperature", "2"))
    torch.manual_seed(0)
    x, y = torch.randn(4, 3, 8, 8), torch.tensor([0, 2, 1, 1])
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    theirs = torch.randn(4, 3)
    mix = (lambda x, y: (x, 0.9 * nn.functional.one_hot(y, 3) + 0.1 / 3)) if mixed else None
    found = epochs.error(run_of(model, chosen, lambda _: theirs), x, y, mix)
    ours = model(x)
    task = cross_entropy(ours, y, label_smoothing=0.1)
    p = softmax(theirs / 2, 1)
    soft = 4 * (p * (p.log() - log_softmax(ours / 2, 1))).sum(1).mean()
    lesson = soft if way == "soft" else -log_softmax(ours, 1)[torch.arange(4), theirs.argmax(1)].mean()
    assert found.item() == pytest.approx((0.7 * task + 0.3 * lesson).item(), rel=1e-5)


def test_a_teacher_sees_the_same_images_in_its_own_colours_and_size():
    own, shown = View(16, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7)), View(16)
    pixels, heard = torch.rand(2, 3, 16, 16), []
    teacher = nn.Identity()
    teacher.register_forward_hook(lambda module, given, out: heard.append((given[0], module.training)))
    teacher.train()
    colour = partial(torch.tensor, dtype=torch.float)
    x = (pixels - colour(shown.mean).view(3, 1, 1)) / colour(shown.std).view(3, 1, 1)
    said = teachers.answers(teacher, own, shown)(x)
    assert torch.allclose(said, (pixels - colour(own.mean).view(3, 1, 1)) / colour(own.std).view(3, 1, 1), atol=1e-5)
    assert not heard[0][1], "in evaluation mode"
    teachers.answers(teacher, replace(own, size=24), shown)(x)
    assert heard[1][0].shape == (2, 3, 24, 24)
    assert torch.equal(teachers.answers(teacher, shown, shown)(x), x)


def test_a_distilled_networks_second_head_learns_from_the_teacher(data, tmp_path):
    model = timm.create_model("deit_tiny_distilled_patch16_224", img_size=32, depth=1, num_classes=3)
    chosen = options.read(given(data, tmp_path, "--teacher", "test_vit", "--alpha", "1"))
    run = run_of(model, chosen, lambda x: torch.eye(3)[torch.zeros(len(x)).long()])
    epochs.error(run, torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 0]), None).backward()
    assert model.head_dist.weight.grad.abs().sum() > 0 and model.head.weight.grad.abs().sum() == 0


def test_a_teacher_from_a_file(data, tmp_path):
    tune(data, tmp_path / "teacher", "--epochs", "1")
    file = str(tmp_path / "teacher" / "best.safetensors")
    taught = tune(data, tmp_path / "taught", "--teacher", file, "--distillation", "soft", "--epochs", "1")
    alone = tune(data, tmp_path / "alone", "--teacher", file, "--distillation", "none", "--epochs", "1")
    assert taught[0]["training_loss"] != alone[0]["training_loss"]


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--batch-size", "99"], "--batch-size 99 is more than the 24 training images"),
        (["--batch-size", "7", "--mixup", "1"], "even number"),
        (["--distillation", "softly"], "soft, hard or none, not 'softly'"),
        (["--distillation", "soft"], "needs a --teacher"),
        (["--alpha", "2"], "--alpha is from 0 to 1, not 2.0"),
        (["--lr", "0"], "--lr is above 0, not 0.0"),
        (["--smoothing", "1"], "--smoothing is from 0 to below 1"),
        (["--epochs", "0"], "--epochs is at least 1, not 0"),
        (["--size", "8"], "8 × 8"),
        (["--teacher", "test_vit"], "knows 1000 classes and these are 3"),
        (["--teacher", "test_vti"], "did you mean test_vit"),
        (["--optimizer", "adamm"], "adamm"),
        (["--randaugment", "much"], "rand-m9-mstd0.5-inc1"),
        (["--classes", "none.txt"], "none.txt"),
    ],
)
def test_options_that_cannot_be(data, tmp_path, words, told):
    assert told in refused(data, tmp_path / "out", *words)


def test_another_fine_tuning_in_the_same_folder(data, tmp_path):
    tune(data, tmp_path / "out", "--epochs", "1")
    assert "lr is 0.001 there and 0.002 here" in refused(data, tmp_path / "out", "--epochs", "1", "--lr", "2e-3")
    assert "another --out" in refused(data, tmp_path / "out", "--epochs", "2")
    other = refused(data, tmp_path / "out", "--epochs", "1", network="test_resnet")
    assert "first-weights" in other or "holds another network" in other
    Image.new("RGB", (40, 40)).save(data / "train" / "red" / "new.png")
    try:
        assert "training-images" in refused(data, tmp_path / "out", "--epochs", "1")
    finally:
        (data / "train" / "red" / "new.png").unlink()


def test_classes_that_do_not_match(data, tmp_path):
    network, _ = shrunken.open_network("test_vit", 4, random=True)
    like = {"name": "test_vit", "library": "timm", "arguments": {"num_classes": 4}}
    shrunken.save(network, tmp_path / "four.safetensors", like)
    told = refused(data, tmp_path / "out", network=str(tmp_path / "four.safetensors"))
    assert "distinguishes 4 classes" in told and "has 3 folders" in told and "--new-head" in told
    tune(data, tmp_path / "out", "--new-head", "--epochs", "1", network=str(tmp_path / "four.safetensors"))
    assert "none of the 3 classes" in refused(
        images.write(tmp_path / "other", classes=("blue", "green", "white")),
        tmp_path / "out2",
        network=str(tmp_path / "out" / "best.safetensors"),
    )


def test_a_teacher_that_knows_the_classes_in_another_order(data, tmp_path):
    tune(data, tmp_path / "teacher", "--epochs", "1")
    file, record = tmp_path / "teacher" / "best.safetensors", tmp_path / "teacher" / "best.json"
    record.write_text(
        record.read_text().replace('"blue"', '"x"').replace('"green"', '"blue"').replace('"x"', '"green"')
    )
    assert "green where this has blue" in refused(data, tmp_path / "out", "--teacher", str(file))


def test_a_state_that_is_none(data, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "state.safetensors").write_bytes(b"nonsense")
    assert "state.safetensors is truncated, corrupt or no safetensors file" in refused(data, tmp_path / "out")
    save_tensors({"x": torch.zeros(1)}, tmp_path / "out" / "state.safetensors")
    assert "is not the state of a training" in refused(data, tmp_path / "out")


def test_a_loss_that_explodes(data, tmp_path):
    assert "try a smaller --lr" in refused(data, tmp_path / "out", "--lr", "1e30", "--optimizer", "sgd", "--plain")


def test_folders_that_lack_something(tmp_path):
    place = images.write(tmp_path / "data", 4, 2)
    (place / "train").rename(place / "trian")
    assert "has no folder train, it has trian, val" in refused(place, tmp_path / "out")


def test_the_command_says_one_sentence_and_ends_with_2(data, tmp_path):
    broken = images.write(tmp_path / "data", 8, 2) / "train" / "red" / "3.png"
    broken.write_bytes(b"no image")
    words = [*given(tmp_path / "data", tmp_path / "out"), "--workers", "1"]
    command = [sys.executable, "-m", "course_utils.tuning", *words]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("course.py: ") and str(broken) in done.stderr and "cannot be read" in done.stderr


# --- several processes ------------------------------------------------------------------------------------------------


PLAIN = ("--plain", "--optimizer", "sgd", "--lr", "0.01", "--epochs", "2")


@pytest.fixture(scope="module")
def alone(data, tmp_path_factory):
    """The folder and the log of a run in one process, without anything random but the order of the images."""
    out = tmp_path_factory.mktemp("alone")
    return out, tune(data, out, *PLAIN)


def as_alone(out, alone, host):
    """Has a run with half the batch in each of two processes left what one process leaves with all of it?"""
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [record["processes"] for record in log] == [2, 2], host
    for ours, theirs in zip(log, alone[1], strict=True):
        assert ours["training_loss"] == pytest.approx(theirs["training_loss"], rel=1e-5)
        assert (ours["top1"], ours["images"]) == (theirs["top1"], 12)
    one, two = (weights(folder / "latest.safetensors") for folder in (alone[0], out))
    assert one.keys() == two.keys() and max((one[n] - two[n]).abs().max().item() for n in one) < 1e-5


def test_two_processes_with_half_the_batch_each_are_one_with_all_of_it(data, tmp_path, alone):
    words = given(data, tmp_path / "two", *PLAIN)
    out, err, code = end(launch("--processes", 2, "course_utils.tuning", *words))
    assert code == 0, err
    assert out.count("epoch 1/2") == 1, "only one of them speaks"
    as_alone(tmp_path / "two", alone, "one computer")


@pytest.mark.skipif(bool(can_have_hosts()), reason=can_have_hosts() or "they can be had")
def test_two_computers_are_one_process_too(data, tmp_path, alone):
    words = given(data, tmp_path / "two", *PLAIN)
    (first, err, code), (second, more, other) = on_two_hosts("course_utils.tuning", *words)
    assert code == other == 0, err + more
    assert first.splitlines()[0] == "Computer 0 of 0 … 1 waits for the others at 10.77.0.1:29511."
    assert "epoch 2/2" in first and len(second.splitlines()) == 1
    as_alone(tmp_path / "two", alone, "two computers")
