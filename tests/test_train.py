"""Training: it learns, it resumes exactly, it stops cleanly, it refuses what is not its own."""

import copy
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import generic
from torch import nn

from course_utils.checkpoints import best, latest, load_state
from course_utils.data import batches, digits
from course_utils.measure import accuracy
from course_utils.models import mlp, resnet50
from course_utils.train import Recipe, adamw, constant, one_cycle, sgd, train

SMALL = (64, 40, 10)
RECIPE = Recipe(epochs=4, batch_size=50, lr=0.1, flip=False, shift=0)
SCRIPT = """
import sys, torch
from pathlib import Path
from course_utils.data import digits
from course_utils.models import mlp
from course_utils.train import Recipe, train
torch.set_num_threads(1)
torch.manual_seed(3)
model = mlp((64, 40, 10))
recipe = Recipe(epochs=40, batch_size=20, lr=0.05, flip=False, shift=1)
train(model, digits().train, recipe, seed=5, val=digits().val, checkpoint=Path(sys.argv[1]))
torch.save(model.state_dict(), sys.argv[2])
"""


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return mlp(SMALL)


def test_it_learns():
    model, data = network(), digits()
    log = train(model, data.train, RECIPE, val=data.val)
    assert [r["epoch"] for r in log] == [1, 2, 3, 4] and log[-1]["loss"] < log[0]["loss"] / 2
    assert accuracy(model, data.val) == log[-1]["val_accuracy"] > 0.85
    assert model.training


def test_same_seed_same_network_whatever_the_global_generator_says():
    data, networks = digits(), []
    for state in (1, 2):
        model = network()
        torch.manual_seed(state)
        train(model, data.train, RECIPE, seed=7)
        networks.append(model)
    assert all(torch.equal(a, b) for a, b in zip(*(m.state_dict().values() for m in networks), strict=True))


def test_training_leaves_the_global_generator_alone():
    torch.manual_seed(11)
    state = torch.get_rng_state()
    train(mlp(SMALL), digits().train.first(100), RECIPE)
    torch.manual_seed(11)
    mlp(SMALL)
    expected = torch.get_rng_state()
    torch.set_rng_state(state)
    model = mlp(SMALL)
    train(model, digits().train.first(100), RECIPE)
    assert torch.equal(torch.get_rng_state(), expected)


def test_a_killed_run_resumes_bit_identical(tmp_path):
    """kill -9 in the middle, run again: the same bits as a run that was never disturbed."""
    script = tmp_path / "run.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script)]
    root = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, str(tmp_path / "whole"), str(tmp_path / "whole.pt")], check=True, env=root)
    victim = subprocess.Popen([*command, str(tmp_path / "cut"), str(tmp_path / "cut.pt")], env=root)
    while not latest(tmp_path / "cut").exists():
        time.sleep(0.005)
    victim.send_signal(signal.SIGTERM if os.name == "nt" else signal.SIGKILL)
    victim.wait()
    assert not (tmp_path / "cut.pt").exists(), "the run was over before it could be killed"
    subprocess.run([*command, str(tmp_path / "cut"), str(tmp_path / "cut.pt")], check=True, env=root)
    whole, cut = (torch.load(tmp_path / f"{n}.pt", weights_only=True) for n in ("whole", "cut"))
    assert all(torch.equal(whole[n], cut[n]) for n in whole)


@pytest.mark.parametrize("optimizer", [sgd, adamw])
def test_batchnorm_and_log_are_resumed_too(tmp_path, optimizer):
    """Stop after two of four epochs by an exception from the hook; the second call ends where an unbroken one does."""
    random = torch.Generator().manual_seed(0)
    data = digits()
    images = torch.randint(256, (60, 3, 16, 16), dtype=torch.uint8, generator=random)
    split = type(data.train)(images, torch.arange(60) % 10, torch.full((3,), 0.5), torch.full((3,), 0.3))
    recipe = Recipe(epochs=4, batch_size=20, lr=0.01, optimizer=optimizer)
    start = generic(resnet50(width=0.0625, blocks=(1, 1)))
    whole, cut = copy.deepcopy(start), copy.deepcopy(start)
    log = train(whole, split, recipe)

    def stop(step: int) -> None:
        if step == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="stopped in epoch 3 of 4: .* holds epoch 2; run again to go on"):
        train(cut, split, recipe, after_step=stop, checkpoint=tmp_path / "c")
    again = train(copy.deepcopy(start), split, recipe, checkpoint=tmp_path / "c")
    resumed = copy.deepcopy(start)
    train(resumed, split, recipe, checkpoint=tmp_path / "c")
    expected = whole.state_dict()
    assert all(torch.equal(t, expected[n]) for n, t in resumed.state_dict().items())
    assert [r["loss"] for r in again] == [r["loss"] for r in log]


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_late_start_is_the_rest_of_the_same_training(tmp_path, momentum):
    """Two epochs, then `first=2` from their weights: order and learning rate fit; only momentum starts at zero."""
    data, recipe = digits(), replace(RECIPE, momentum=momentum, shift=1)
    whole, copied = network(), []

    def keep(step: int) -> None:
        if step == 2 * 24 - 1:
            copied.append(copy.deepcopy(whole))

    log = train(whole, data.train, recipe, seed=3, after_step=keep)
    late = copied[0]
    rest = train(late, data.train, recipe, seed=3, first=2)
    equal = all(torch.equal(a, b) for a, b in zip(whole.parameters(), late.parameters(), strict=True))
    assert equal == (momentum == 0.0) and [r["epoch"] for r in rest] == [3, 4]
    if not momentum:
        assert [r["loss"] for r in rest] == [r["loss"] for r in log[2:]]


def test_a_late_start_is_resumed_too(tmp_path):
    """Killed in the last epoch and started again: as if nothing had happened."""
    data, unbroken = digits(), network()
    start = copy.deepcopy(unbroken)
    train(unbroken, data.train, RECIPE, first=2)

    def interrupt(step: int) -> None:
        if step >= 3 * 24 + 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="holds epoch 3"):
        train(copy.deepcopy(start), data.train, RECIPE, first=2, checkpoint=tmp_path / "c", after_step=interrupt)
    again = copy.deepcopy(start)
    log = train(again, data.train, RECIPE, first=2, checkpoint=tmp_path / "c")
    assert [r["epoch"] for r in log] == [3, 4]
    assert all(torch.equal(a, b) for a, b in zip(unbroken.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize("first", [-1, 5])
def test_a_start_outside_the_training_is_refused(first):
    with pytest.raises(ValueError, match=f"first is an epoch from 0 to 4, not {first}"):
        train(network(), digits().train, RECIPE, first=first)


@pytest.mark.parametrize("wrong", [{"epochs": -1}, {"epochs": 1, "batch_size": 0}])
def test_a_recipe_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match="a recipe needs epochs ≥ 0 and batch_size ≥ 1"):
        Recipe(**wrong)


def test_best_is_the_epoch_with_the_best_validation(tmp_path):
    data = digits()
    recipe = Recipe(epochs=5, batch_size=50, lr=0.3, schedule=constant, momentum=0.95, flip=False, shift=0)
    log = train(network(), data.train, recipe, val=data.val, checkpoint=tmp_path / "c")
    from course_utils.files import load_tensors

    tensors, _ = load_tensors(best(tmp_path / "c"))
    model = network()
    load_state(model, {n.removeprefix("model."): t for n, t in tensors.items() if n.startswith("model.")}, "best")
    assert accuracy(model, data.val) == max(r["val_accuracy"] for r in log)


@pytest.mark.parametrize(
    "damage", ["truncated", "foreign", "another run", "another network", "other labels", "another start"]
)
def test_a_bad_checkpoint_is_refused_in_one_sentence(tmp_path, damage):
    data, model = digits(), network()
    train(model, data.train, RECIPE, checkpoint=tmp_path / "c")
    file, recipe = latest(tmp_path / "c"), RECIPE
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:-100])
    elif damage == "foreign":
        file.write_bytes(b"PK\x03\x04 this is something else")
    elif damage == "another run":
        recipe = Recipe(epochs=9)
    elif damage == "another start":
        model = network(seed=1)
    elif damage == "other labels":
        order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(0))
        data = replace(data, train=replace(data.train, labels=data.train.labels[order]))
    else:
        model = mlp((64, 41, 10))
    before = {n: t.clone() for n, t in model.state_dict().items()}
    with pytest.raises(ValueError, match="delete it") as caught:
        train(model, data.train, recipe, checkpoint=tmp_path / "c")
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


def test_a_loss_that_explodes_is_said():
    with pytest.raises(ValueError, match="smaller learning rate than 1000000"):
        train(network(), digits().train, Recipe(epochs=3, lr=1e6, flip=False, schedule=constant))


def test_schedules():
    assert [one_cycle(p) for p in (0.1, 0.2, 0.6, 1)] == pytest.approx([0.5, 1, 0.5, 0])
    assert constant(0.3) == 1


def test_batches_flip_and_shift_are_what_they_say():
    """Every augmented image is one of the original's possible shifts and mirrors, and all of these occur."""
    split = digits().train.first(1)
    padded = torch.nn.functional.pad(split.images[0], [1] * 4)
    windows = [padded[:, i : i + 8, j : j + 8] for i in range(3) for j in range(3)]
    variants = [w for window in windows for w in (window, window.flip(2))]
    expected = [(w.float() / 255 - split.mean) / split.std for w in variants]
    seen = set()
    for seed in range(300):
        x, _ = next(batches(split, 1, seed, flip=True, shift=1))
        matches = [i for i, e in enumerate(expected) if torch.allclose(x[0], e, atol=1e-5)]
        assert matches
        seen.update(matches[:1])
    assert len(seen) == 18


def test_batches_cover_every_image_once_in_another_order_each_epoch():
    split = digits().train.first(100)
    orders = [torch.cat([y for _, y in batches(split, 7, seed)]) for seed in (1, 2)]
    assert not torch.equal(*orders) and all(torch.equal(o.sort().values, split.labels.sort().values) for o in orders)
    plain = torch.cat([y for _, y in batches(split, 7)])
    assert torch.equal(plain, split.labels)


def test_each_epoch_has_its_own_order():
    """A network that notes what it sees: the same images in both epochs, in another order."""
    data, seen = digits().train.first(40), []

    class Spy(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(64, 10)

        def forward(self, x):
            seen.append(x[:, 0].flatten(1).clone())
            return self.linear(x.flatten(1))

    train(Spy(), data, Recipe(epochs=2, batch_size=40, lr=0.0, flip=False, shift=0))
    one, two = seen
    assert not torch.equal(one, two) and torch.allclose(one.sum(0), two.sum(0), atol=1e-3)
