"""course.py's commands for any network: which words they take, what they pass on, and what their help promises."""

import importlib.util
import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import pytest
from torch import nn

from course_utils import evaluation
from course_utils.epochs import begin
from course_utils.folders import View, seen
from course_utils.options import Options, read
from course_utils.pupils import Pupil
from course_utils.shrunken import open_network

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def course(monkeypatch, tmp_path):
    """course.py as a module, in a folder of its own, that only notes what it would run."""
    spec = importlib.util.spec_from_file_location("course", ROOT / "course.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.ran = []
    monkeypatch.setattr(module, "inside", lambda *words, **extra: module.ran.append([str(word) for word in words]))
    monkeypatch.chdir(tmp_path)
    return module


def test_paths_are_seen_from_where_the_command_was_given(course, tmp_path):
    (tmp_path / "odd").touch()
    course.evaluate(["small.safetensors", "--data", "images"])
    assert course.ran.pop() == [
        "-m",
        "course_utils.evaluation",
        str(tmp_path / "small.safetensors"),
        "--data",
        str(tmp_path / "images"),
    ]
    course.evaluate(["odd", "--data", "/images"])
    assert course.ran.pop()[2:] == [str(tmp_path / "odd"), "--data", "/images"]
    course.evaluate(["resnet50.a1_in1k", "--data", "/images"])
    assert course.ran.pop()[2] == "resnet50.a1_in1k"


def test_every_option_arrives(course):
    values = {int: "3", float: "0.25", str: "words", bool: None}
    own = [field for field in fields(Options) if field.name not in ("network", "data", "out")]
    words = ["resnet50", "--data", "/images", "--out", "/out"]
    for field in own:
        words += [f"--{field.name.replace('_', '-')}"] + ([values[field.type]] if values[field.type] else [])
    course.finetune(words)
    found = read(course.ran.pop()[2:])
    for field in own:
        assert getattr(found, field.name) != field.default, field.name
    assert (found.network, found.data, found.out) == ("resnet50", "/images", "/out")


def test_only_what_was_given_is_passed_on(course):
    course.finetune(["resnet50", "--data", "/images", "--out", "/out"])
    assert read(course.ran.pop()[2:]) == Options("resnet50", "/images", "/out")
    course.finetune(["resnet50", "--data", "/images", "--out", "/out", "--randaugment", "--workers", "0"])
    found = read(course.ran.pop()[2:])
    assert found.randaugment == "rand-m9-mstd0.5-inc1" and found.workers == 0


def test_every_option_of_an_evaluation_arrives(course):
    words = ["resnet50", "--data", "/d", "--split", "test", "--size", "96", "--batch-size", "3", "--limit", "7"]
    words += ["--interpolation", "bilinear", "--workers", "0", "--classes", "/c.txt", "--bf16", "--random"]
    course.evaluate(words)
    found = vars(evaluation.arguments(course.ran.pop()[2:]))
    assert {name: str(value) for name, value in found.items()} == {
        "network": "resnet50",
        "data": "/d",
        "split": "test",
        "size": "96",
        "batch_size": "3",
        "limit": "7",
        "interpolation": "bilinear",
        "workers": "0",
        "classes": "/c.txt",
        "bf16": "True",
        "random": "True",
    }


def test_several_processes_and_computers(course):
    course.finetune(["resnet50", "--data", "/d", "--out", "/o", "--processes", "4"])
    many = ["-m", "course_utils.launch", "--processes", "4", "--nodes", "1", "--node-rank", "0", "course_utils.tuning"]
    assert course.ran.pop() == [*many, "resnet50", "--data", "/d", "--out", "/o"]
    where = ["--nodes", "2", "--node-rank", "1", "--address", "one:29500"]
    course.evaluate(["resnet50", "--data", "/d", *where])
    assert course.ran.pop()[2:] == ["--processes", "1", *where, "course_utils.evaluation", "resnet50", "--data", "/d"]


def test_ctrl_c_during_the_imports_says_nothing(course, tmp_path):
    for name, line in {"slow": "raise KeyboardInterrupt", "quick": "import sys; sys.exit(int(sys.argv[1]))"}.items():
        (tmp_path / f"{name}.py").write_text(line)
    ends = {"slow": 130, "quick": 7}
    for name, code in ends.items():
        start = [sys.executable, "-c", course.QUIETLY, name, "7"]
        done = subprocess.run(start, cwd=tmp_path, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (code, "")


def test_the_limit_counts(tmp_path):
    pupil = SimpleNamespace(train=range(2640), val=range(16), classes="ab")
    assert Pupil.counts(pupil, 64) == "64 training and 16 validation images of 2 classes"  # ty: ignore
    assert Pupil.counts(pupil) == "2,640 training and 16 validation images of 2 classes"  # ty: ignore


def test_names_that_mean_nothing_are_named(tmp_path):
    with pytest.raises(ValueError, match="--interpolation is bicubic, bilinear or nearest, not 'cubic'"):
        seen(None, View(interpolation="cubic"))  # ty: ignore
    with pytest.raises(ValueError, match="is a folder: name a file of a network in it"):
        open_network(str(tmp_path))
    with pytest.raises(ValueError, match="--optimizer adamww is none that timm makes"):
        begin(nn.Linear(2, 2), Options("n", "d", "o", optimizer="adamww"), [], None)  # ty: ignore


def test_the_help_tells_the_defaults(course):
    defaults = {field.name.replace("_", "-"): field.default for field in fields(Options)}
    for name, (_, _, words) in course.TUNING.items():
        told = re.search(r"\(default ([\d.e-]+)", words)
        assert name in defaults and (not told or float(told[1]) == defaults[name]), name
    told = [name for name, (_, _, words) in course.TUNING.items() if "(default" in words]
    assert len(told) >= 15


@pytest.mark.parametrize("command", ["evaluate", "finetune"])
def test_help(command):
    done = subprocess.run([sys.executable, "course.py", command, "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith(f"usage: python course.py {command} NETWORK --data DATA")
    overview = subprocess.run([sys.executable, "course.py"], cwd=ROOT, capture_output=True, text=True)
    assert f"python course.py {command} " in overview.stdout


@pytest.mark.parametrize(
    ("words", "named", "way_out"),
    [
        (["evaluate"], "NETWORK", "--help"),
        (["evaluate", "resnet50"], "--data", "--help"),
        (["evaluate", "resnet50", "--data", "d", "--siez", "3"], "'--siez'", "did you mean --size?"),
        (["evaluate", "resnet50", "--data", "d", "--size", "big"], "'big'", "whole number"),
        (["finetune", "resnet50", "--data", "d"], "--out", "--help"),
        (["finetune", "resnet50", "--data", "d", "--ouput", "o"], "'--ouput'", "did you mean --out?"),
        (["import", "x.pth", "--like", "resnet50", "--out", "o.pth"], "o.pth", "NAME.safetensors"),
        (["finetune", "resnet50", "--data", "d", "--out", "o", "--lr", "fast"], "'fast'", "a number of at least 0"),
        (["finetune", "resnet50", "--data", "d", "--out", "o", "--lr", "nan"], "'nan'", "a number of at least 0"),
        (["finetune", "resnet50", "--data", "d", "--out", "o", "--alpha", "2"], "'2'", "from 0 to 1"),
        (["finetune", "resnet50", "--data", "d", "--out", "o", "--nodes", "2"], "--nodes", "--address"),
        (["finetune", "resnet50", "--data", "d", "--out", "o", "--node-rank", "1"], "1", "counted from 0"),
        (["finetune", "resnet50", "--data", "d", "--out", "o", "--address", "host"], "'host'", "192.168.0.10:29500"),
        (["finetune", "resnet50", "--data", "d", "--out", "o", "--processes", "0"], "'0'", "at least 1"),
        (["finetun", "resnet50"], "'finetun'", "did you mean finetune?"),
    ],
)
def test_a_wrong_word_gets_one_sentence(words, named, way_out, tmp_path):
    env = os.environ | {"COURSE_VENV": str(tmp_path / "file" / "none")}
    (tmp_path / "file").touch()
    done = subprocess.run([sys.executable, "course.py", *words], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == "" and len(done.stderr.splitlines()) == 1, done.stderr
    assert named in done.stderr and way_out in done.stderr
