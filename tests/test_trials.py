"""Records: appended whole, resumed after any kill, never reused when what they came from has changed."""

import json
import os
import random
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch

from course_utils import trials as module
from course_utils.files import load_tensors, save_tensors
from course_utils.keys import key_of
from course_utils.masks import sparsity_of
from course_utils.models import mlp
from course_utils.profiles import SMOKE, grid, start
from course_utils.scopes import globally
from course_utils.scores import magnitude
from course_utils.train import Recipe, constant, one_cycle
from course_utils.trials import Trial, append, collect, read, select, stale, store

ROOT = Path(__file__).parents[1]
network = mlp((6, 5, 4))
factor = 2


def double(x):
    return {"y": factor * x}


def pruned(sparsity):
    return {"sparsity": sparsity_of(globally(magnitude(network), sparsity))}


def test_grid_is_ordered_and_every_prefix_balanced():
    conditions = grid(sparsity=(0.9, 0.5), parent=(0, 1), method=("a", "b"))
    assert conditions[:2] == [dict(sparsity=0.9, parent=0, method=m) for m in "ab"] and len(conditions) == 8


def test_collect_runs_each_once_and_reads_it_the_next_time(tmp_path):
    place = tmp_path / "trials.jsonl"
    first = collect(double, grid(x=(1, 2, 3)), place)
    assert [t.results["y"] for t in first] == [2, 4, 6] and all("torch" in t.where for t in first)
    again = collect(double, grid(x=(3, 1, 4)), place)
    assert [t.results["y"] for t in again] == [6, 2, 8] and len(read(place)) == 4
    assert again[0] == first[2] and select(again, x=1) == [first[0]]


def test_time_is_up_between_trials(tmp_path):
    place = tmp_path / "trials.jsonl"
    collect(double, grid(x=(1,)), place)
    assert len(collect(double, grid(x=(1, 2, 3)), place, minutes=0)) == 1


def test_a_key_changes_with_everything_that_matters(monkeypatch):
    base = key_of(pruned, {"sparsity": 0.5})
    assert key_of(pruned, {"sparsity": 0.5}) == base != key_of(pruned, {"sparsity": 0.6})
    with torch.no_grad():
        network.layers[0].weight[0, 0] += 1
    changed = key_of(pruned, {"sparsity": 0.5})
    assert changed != base
    monkeypatch.setattr("course_utils.keys.tree", lambda name: "edited" if name == "course_utils.scopes" else "same")
    one = key_of(pruned, {"sparsity": 0.5})
    monkeypatch.setattr("course_utils.keys.tree", lambda name: "edited" if name == "course_utils.plots" else "same")
    assert one != key_of(pruned, {"sparsity": 0.5})
    before = key_of(double, {"x": 1})
    monkeypatch.setitem(globals(), "factor", 3)
    assert key_of(double, {"x": 1}) != before


@cache
def remembered(x):
    return factor * x


def uses_what_is_remembered(x):
    return {"y": remembered(x)}


def test_a_remembered_function_counts_by_what_it_does_and_not_by_what_it_remembers(monkeypatch):
    base = key_of(uses_what_is_remembered, {"x": 1})
    remembered(7)
    assert key_of(uses_what_is_remembered, {"x": 1}) == base
    monkeypatch.setitem(globals(), "factor", 3)
    assert key_of(uses_what_is_remembered, {"x": 1}) != base


class Tools:
    @staticmethod
    def times(x):
        return factor * x


def uses_a_static_method(x):
    return {"y": Tools.times(x)}


def test_static_methods_of_a_notebooks_classes_count_too(monkeypatch):
    base = key_of(uses_a_static_method, {"x": 1})
    monkeypatch.setitem(globals(), "factor", 3)
    assert key_of(uses_a_static_method, {"x": 1}) != base


recipe = Recipe(epochs=1)
CHOICES = {"one": one_cycle}


def trained(x):
    return {"y": recipe.epochs * len(CHOICES)}


def test_a_recipe_in_a_key_counts_by_its_content_and_a_function_by_its_name(monkeypatch):
    base = key_of(trained, {"x": 1})
    monkeypatch.setitem(globals(), "recipe", Recipe(epochs=1, schedule=constant))
    other_schedule = key_of(trained, {"x": 1})
    monkeypatch.setitem(globals(), "recipe", Recipe(epochs=1))
    assert key_of(trained, {"x": 1}) == base != other_schedule
    monkeypatch.setitem(CHOICES, "one", constant)
    assert key_of(trained, {"x": 1}) != base


nets = [network]
pairs = (torch.zeros(2), 1)


def from_containers(x):
    return {"y": nets[x], "z": pairs}


def test_a_key_looks_into_containers_and_refuses_what_it_cannot_see():
    base = key_of(from_containers, {"x": 0})
    with torch.no_grad():
        pairs[0][1] = 5
    changed = key_of(from_containers, {"x": 0})
    with torch.no_grad():
        network.layers[1].weight[0, 0] += 1
    assert len({base, changed, key_of(from_containers, {"x": 0})}) == 3
    with pytest.raises(ValueError, match="nobody can tell whether it changed"):
        key_of(ask_generator, {})


stream = (i for i in range(3))


def ask_generator():
    return next(stream)


def test_a_key_is_the_same_in_another_process():
    code = "import sys; sys.path[:0] = ['tests', '.']; import test_trials as t; print(t.key_of(t.trained, {'x': 1}))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == key_of(trained, {"x": 1})


def test_comments_and_docstrings_do_not_change_a_key():
    from course_utils.keys import stripped

    assert stripped('def f(x):\n    "words"\n    return x  # note') == stripped("def f(x):\n\n    return x")
    assert stripped("def f(x): return x") != stripped("def f(x): return -x")


def test_stale_records_are_kept_and_not_used(tmp_path, monkeypatch):
    place = tmp_path / "trials.jsonl"
    collect(double, grid(x=(1,)), place)
    monkeypatch.setitem(globals(), "factor", 5)
    trials = collect(double, grid(x=(1,)), place)
    assert trials[0].results["y"] == 5 and stale(place, trials) == 1 and len(read(place)) == 2


def test_half_a_line_is_not_a_trial_and_harms_nothing(tmp_path):
    place = tmp_path / "trials.jsonl"
    collect(double, grid(x=(1, 2)), place)
    whole = place.read_bytes()
    place.write_bytes(whole[:-9])
    assert len(read(place)) == 1
    assert [t.results["y"] for t in collect(double, grid(x=(1, 2)), place)] == [2, 4]
    assert len(read(place)) == 2


class FullDisk:
    """A file that takes only a few bytes."""

    def __init__(self, file):
        self.file = file

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()

    def write(self, data):
        return self.file.write(data[:7])


def test_a_full_disk_is_said_and_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    place = tmp_path / "trials.jsonl"
    collect(double, grid(x=(1,)), place)
    before, opened = place.read_bytes(), Path.open

    def full(self, *args, **options):
        file = opened(self, *args, **options)
        return FullDisk(file) if args[:1] == ("ab",) else file

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OSError, match="cannot write .*disk is full"):
        append(Trial("k", {}, {}, {}), place)
    assert place.read_bytes() == before


def test_a_place_that_cannot_be_written_is_said(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "file" / "below"))
    with pytest.raises(OSError, match="cannot write .* set COURSE_CACHE to a folder you may write to") as caught:
        collect(double, grid(x=(1,)), store("99", SMOKE))
    assert "\n" not in str(caught.value)
    with pytest.raises(OSError, match="cannot write"):
        save_tensors({"a": torch.zeros(2)}, tmp_path / "file" / "a.safetensors")


@pytest.mark.parametrize("damage", ["truncated", "foreign", "corrupt", "absent"])
def test_a_bad_tensor_file_is_one_sentence(tmp_path, damage):
    place = tmp_path / "a.safetensors"
    save_tensors({"a": torch.arange(1000.0)}, place, about="words")
    assert load_tensors(place)[1] == {"about": "words"}
    if damage == "truncated":
        place.write_bytes(place.read_bytes()[:500])
    elif damage == "corrupt":
        place.write_bytes(place.read_bytes()[:-5] + b"12345")
    elif damage == "foreign":
        place.write_bytes(b"\x80\x04\x95 a pickle, say")
    else:
        place.unlink()
    with pytest.raises((ValueError, FileNotFoundError), match=r"a\.safetensors") as caught:
        load_tensors(place)
    assert "\n" not in str(caught.value)


def test_a_failed_write_leaves_the_old_file_and_no_leftovers(tmp_path, monkeypatch):
    place = tmp_path / "a.safetensors"
    save_tensors({"a": torch.ones(3)}, place)

    def fail(tensors, path, metadata):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("course_utils.files.save_file", fail)
    with pytest.raises(OSError, match="cannot write .*No space left on device; free some space"):
        save_tensors({"a": torch.zeros(3)}, place)
    assert torch.equal(load_tensors(place)[0]["a"], torch.ones(3))
    assert [p.name for p in tmp_path.iterdir()] == [place.name]


@pytest.mark.parametrize("name", ["big", "", "Smoke"])
def test_an_unknown_profile_is_one_sentence(name):
    with pytest.raises(ValueError, match=f"no profile '{name}': choose one of smoke, laptop, full"):
        start(name)


BATCH = """
import os, sys, time
from pathlib import Path
from course_utils.profiles import grid
from course_utils.trials import collect

def slow(x):
    time.sleep(0.004)
    return {"y": x * x}

print("ready", flush=True)
collect(slow, grid(x=tuple(range(120))), Path(sys.argv[1]))
"""


def test_kill_minus_nine_twenty_times(tmp_path):
    """A batch that is killed at random moments loses no finished trial and repeats none."""
    script, place = tmp_path / "batch.py", tmp_path / "trials.jsonl"
    script.write_text(BATCH)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    chance, kills = random.Random(0), 0
    while kills < 20:
        run = subprocess.Popen([sys.executable, str(script), str(place)], env=environment, stdout=subprocess.PIPE)
        run.stdout.readline()
        time.sleep(chance.uniform(0.0, 0.06))
        before = {t.key for t in read(place)}
        run.kill()
        run.wait()
        kills += 1
        assert before <= {t.key for t in read(place)}
    assert len(read(place)) < 120, "all was over before the last kill: nothing was shown"
    subprocess.run([sys.executable, str(script), str(place)], env=environment, check=True, capture_output=True)
    keys = [t.key for t in read(place)]
    assert len(keys) == len(set(keys)) == 120
    assert sorted(t.inputs["x"] for t in read(place)) == list(range(120))


def render_once(folder: str) -> tuple[str, int]:
    """In a process of its own: ask for the embedded data and count how often they are rendered here."""
    os.environ["COURSE_CACHE"] = folder
    torch.set_num_threads(1)
    from course_utils import data

    calls, render = [], data.render
    data.render = lambda count, seed, domain: calls.append(1) or render(60, seed, domain)
    data.SOLIDS_SPLIT = (40, 10, 10)
    return data.solids().checksum, len(calls)


def test_eight_processes_render_once(tmp_path):
    with ProcessPoolExecutor(8, mp_context=get_context("spawn")) as pool:
        results = list(pool.map(render_once, [str(tmp_path)] * 8))
    assert len({checksum for checksum, _ in results}) == 1 and sum(calls for _, calls in results) == 1


def work_in_parallel(place: str) -> int:
    """In a process of its own: the same conditions as everybody else, against the same file."""
    return len(collect(double, grid(x=tuple(range(40))), Path(place)))


def test_eight_processes_share_one_file_of_trials(tmp_path):
    place = tmp_path / "trials.jsonl"
    with ProcessPoolExecutor(8, mp_context=get_context("spawn")) as pool:
        assert list(pool.map(work_in_parallel, [str(place)] * 8)) == [40] * 8
    lines = [json.loads(line) for line in place.read_text().splitlines()]
    assert sorted(line["inputs"]["x"] for line in lines) == list(range(40))
    assert not list(tmp_path.glob(".trials-*")), "the locks of single trials are removed"


def test_where_names_what_a_reader_needs():
    assert {"python", "torch", "torchvision", "timm", "threads", "commit", "cores"} <= set(module.where())
