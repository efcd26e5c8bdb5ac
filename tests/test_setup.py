"""The first thing that people meet: course.py, what it says to bad input, and what a batch of notebooks leaves."""

import ast
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).resolve().parent.parent
CLAIMS = [
    {"id": "a1", "sentence": "Zeros are <fast>.", "verdict": "HOLDS", "kind": "claim"},
    {"id": "a2", "sentence": "Zeros are small.", "verdict": "NOT TESTED", "kind": "claim"},
    {"id": "q1", "sentence": "Are zeros round?", "verdict": "NO", "kind": "question"},
]
SHOW = """from IPython.display import display
display({{'application/vnd.course.claims+json': {}, 'text/plain': 'claims'}}, raw=True)"""


def start(*words, **env):
    """Run a Python of this environment in the repository's root, as a terminal would, and without any stdin."""
    own = {k: v for k, v in os.environ.items() if not k.startswith("COURSE_")}
    command = [sys.executable, *map(str, words)]
    both = {**own, **{name: str(value) for name, value in env.items()}}
    return subprocess.run(command, cwd=ROOT, env=both, capture_output=True, text=True, stdin=subprocess.DEVNULL)


def write(path, *cells):
    """A small notebook with a cell of parameters."""
    parameters = new_code_cell('profile = "laptop"\nseed: int = 0', metadata={"tags": ["parameters"]})
    book = new_notebook(cells=[parameters, new_markdown_cell("Words."), *map(new_code_cell, cells)])
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    nbformat.write(book, path)


# --- bad words --------------------------------------------------------------------------------------------------------


@pytest.fixture
def books(tmp_path):
    """A folder with two notebooks that no test executes."""
    for name in ("00_start.ipynb", "02_magnitude.ipynb"):
        write(tmp_path / name, "1 / 0")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "named", "way_out"),
    [
        (["rnu"], "'rnu'", "did you mean run?"),
        (["--fast"], "'--fast'", "run, lab, test"),
        (["run", "--proflie", "smoke"], "'--proflie'", "--profile"),
        (["run", "--profile", "lapto"], "'lapto'", "did you mean laptop?"),
        (["run", "--only", "99"], "'99'", "00_start, 02_magnitude"),
        (["run", "--only", "00,magnitude"], "'magnitude'", "did you mean 02_magnitude?"),
        (["run", "--jobs", "two"], "'two'", "whole number"),
        (["run", "--jobs", "0"], "'0'", "at least 1"),
        (["run", "--minutes", "-3"], "--minutes", "--help"),
        (["run", "--minutes", "nan"], "'nan'", "above 0"),
        (["run", "--jobs"], "--jobs", "--help"),
        (["run", "-p", "seed"], "'seed'", "NAME=VALUE"),
        (["run", "-p", "profile=full"], "--profile full", "-p"),
        (["run", "-p", "sede=3"], "'sede' in 00_start", "did you mean seed?"),
        (["run", "--only", "02", "-p", "rounds=3"], "'rounds' in 02_magnitude", "profile, seed"),
        (["run", "02"], "'02'", "--only"),
        (["test", "--only", "07"], "'07'", "02_magnitude"),
        (["test", "-x"], "'-x'", "come after --"),
        (["lab", "--no-browser"], "'--no-browser'", "come after --"),
        (["tidy", "--chekc"], "'--chekc'", "--check"),
        (["check", "everything"], "'everything'", "--help"),
        (["import"], "FILE", "--help"),
        (["import", "x.pth"], "--like", "pruned from"),
        (["import", "x.pth", "--lik", "y"], "'--lik'", "did you mean --like?"),
        (["import", "x.pth", "--like", "resnet18", "--classes", "0"], "'0'", "at least 1"),
    ],
)
def test_a_wrong_word_gets_one_sentence(words, named, way_out, books):
    done = start("course.py", *words, COURSE_NOTEBOOKS=books, COURSE_VENV=books / "00_start.ipynb" / "none")
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert named in done.stderr
    assert way_out in done.stderr


def test_a_folder_that_cannot_be_written_is_named(books):
    words = ["-m", "course_utils.batch", books / "02_magnitude.ipynb"]
    done = start(*words, COURSE_CACHE=books / "00_start.ipynb" / "x")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "00_start.ipynb" in done.stderr
    assert "COURSE_CACHE" in done.stderr


@pytest.mark.parametrize("words", [[], ["--help"], ["help"]])
def test_the_overview_names_every_command(words):
    done = start("course.py", *words)
    assert done.returncode == 0
    names = ("run", "lab", "test", "check", "data", "bench", "tidy", "import")
    assert all(f"course.py {name} " in done.stdout for name in names)


def test_course_py_needs_nothing_but_python():
    tree = ast.parse((ROOT / "course.py").read_text(encoding="utf-8"), feature_version=(3, 7))
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {name for n in found for name in ([a.name for a in n.names] if isinstance(n, ast.Import) else [n.module])}
    assert {name.split(".")[0] for name in names} <= set(sys.stdlib_module_names)


# --- the environment --------------------------------------------------------------------------------------------------


@pytest.fixture
def course(tmp_path, monkeypatch):
    """course.py as a module with a small repository of its own, in which installing only leaves a mark."""
    spec = importlib.util.spec_from_file_location("course", ROOT / "course.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "LOCK", tmp_path / "requirements.lock")
    monkeypatch.setattr(module, "VENV", tmp_path / "a venv")
    monkeypatch.setattr(module, "PYTHON", module.VENV / module.PYTHON.relative_to(module.PYTHON.parent.parent))
    monkeypatch.setattr(module, "STAMP", module.VENV / "course-stamp.txt")
    monkeypatch.setattr(module, "install", lambda: (module.VENV / "installed").write_text("once"))
    module.LOCK.write_text("one==1.0 \\\n    --hash=sha256:00\n")
    (tmp_path / "pyproject.toml").write_text("")
    return module


def test_an_environment_is_made_once(course, monkeypatch, capsys):
    course.ensure()
    assert course.ready()
    assert "1 packages" in capsys.readouterr().out
    monkeypatch.setattr(course, "make", lambda: pytest.fail("made again"))
    course.ensure()


@pytest.mark.parametrize("name", ["requirements.lock", "pyproject.toml"])
def test_a_stale_environment_is_brought_up_to_date(course, name):
    course.ensure()
    (course.VENV / "installed").unlink()
    (course.ROOT / name).write_text("two==2.0 \\\n    --hash=sha256:00\n")
    assert not course.ready()
    course.ensure()
    assert course.ready()
    assert (course.VENV / "installed").exists()


def test_an_interrupted_installation_is_begun_anew(course, monkeypatch):
    def interrupted():
        (course.VENV / "half").write_text("written")
        raise KeyboardInterrupt

    with monkeypatch.context() as once, pytest.raises(KeyboardInterrupt):
        once.setattr(course, "install", interrupted)
        course.ensure()
    assert not course.ready()
    course.ensure()
    assert course.ready()
    assert not (course.VENV / "half").exists()


def test_an_update_that_was_interrupted_is_begun_anew(course, monkeypatch):
    course.ensure()
    course.LOCK.write_text("")
    with monkeypatch.context() as once, pytest.raises(SystemExit):
        once.setattr(course, "install", lambda: course.fail("no network", 1))
        course.ensure()
    (course.VENV / "half").write_text("written")
    course.ensure()
    assert not (course.VENV / "half").exists()


def test_an_environment_whose_python_is_gone_is_made_anew(course):
    course.ensure()
    course.PYTHON.unlink()
    assert not course.ready()
    course.ensure()
    assert course.ready()


def test_a_folder_that_is_something_else_is_left_alone(course, capsys):
    course.VENV.mkdir()
    (course.VENV / "diary.txt").write_text("dear diary")
    with pytest.raises(SystemExit) as stop:
        course.ensure()
    assert stop.value.code == 2
    assert "in the way" in capsys.readouterr().err
    assert (course.VENV / "diary.txt").exists()


def test_two_at_once_install_once(course):
    """Each of two processes wants the environment; one makes it, the other waits."""
    script = f"""
import importlib.util, pathlib, time
spec = importlib.util.spec_from_file_location("course", {str(ROOT / "course.py")!r})
course = importlib.util.module_from_spec(spec)
spec.loader.exec_module(course)
course.ROOT, course.LOCK = pathlib.Path({str(course.ROOT)!r}), pathlib.Path({str(course.LOCK)!r})
course.VENV, course.PYTHON = pathlib.Path({str(course.VENV)!r}), pathlib.Path({str(course.PYTHON)!r})
course.STAMP = pathlib.Path({str(course.STAMP)!r})
course.install = lambda: (print("installing"), time.sleep(1))
course.ensure()
print("ready", course.ready())
"""
    both = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = "".join(one.communicate(timeout=60)[0] for one in both)
    assert said.count("installing") == 1
    assert said.count("ready True") == 2


def test_uv_that_fails_gives_way_to_pip(course, monkeypatch):
    called = []

    def runner(command, **_):
        called.append([Path(command[0]).name, *command[1:4]])
        return subprocess.CompletedProcess(command, returncode=1 if Path(command[0]).name == "uv" else 0)

    monkeypatch.undo()
    monkeypatch.setattr(course.shutil, "which", lambda name: "/somewhere/uv")
    monkeypatch.setattr(course.subprocess, "run", runner)
    course.install()
    assert [words[0].split(".")[0] for words in called] == ["uv", "python", "python", "python"]
    assert called[1][1:3] == ["-m", "ensurepip"]


# --- notebooks --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def batch(tmp_path_factory):
    """A batch of a good, a failing, a dying, a refuted and again a good notebook, through course.py's own runner."""
    folder = tmp_path_factory.mktemp("a batch")
    write(folder / "00_good.ipynb", "print(profile, seed)", SHOW.format(CLAIMS))
    write(folder / "01_bad.ipynb", "print(1)", "raise ValueError('no such\\nthing')", "print(3)")
    write(folder / "02_dead.ipynb", "import os", "os._exit(1)", "print(3)")
    write(folder / "03_red.ipynb", SHOW.format([{**CLAIMS[0], "verdict": "FAILS"}]))
    write(folder / "04_good.ipynb", "import os, pathlib, sys", "print(pathlib.Path.cwd(), sys.executable)")
    books = sorted(folder.glob("*.ipynb"))
    words = ["-m", "course_utils.batch", "--jobs", 2, "-p", "seed=7", *books]
    done = start(*words, COURSE_CACHE=folder / "cache")
    return done, folder / "cache" / "runs" / "smoke"


def test_a_batch_goes_on_after_failures_and_says_so(batch):
    done, folder = batch
    assert done.returncode == 1
    rows = {line.split()[0]: line for line in done.stdout.split("\n\n")[1].splitlines()[1:]}
    assert rows["00_good"].split()[3:] == ["1", "0", "0", "1", "1/1"]
    assert "FAILED in cell [4]: ValueError: no such" in rows["01_bad"]
    assert "FAILED in cell [4]: the kernel died" in rows["02_dead"]
    assert rows["03_red"].split()[3:] == ["0", "1", "0", "0", "0/0"]
    assert rows["04_good"].split()[3:] == ["0", "0", "0", "0", "0/0"]
    assert "claim a1 FAILS" in done.stdout
    assert done.stdout.rstrip().endswith(str(folder / "report.html"))


def test_a_batch_keeps_every_notebook_and_its_page(batch):
    _, folder = batch
    names = {f"{n}_{what}" for n, what in enumerate(["good", "bad", "dead", "red", "good"])}
    assert {path.name for path in folder.iterdir()} == {
        "report.html", "report.json", *(f"0{name}.{kind}" for name in names for kind in ("ipynb", "html"))
    }  # fmt: skip
    bad = json.loads((folder / "01_bad.ipynb").read_text(encoding="utf-8"))
    assert "ValueError" in json.dumps(bad)


def test_a_batch_passes_parameters_and_uses_this_python_beside_the_notebook(batch):
    _, folder = batch
    assert "smoke 7" in (folder / "00_good.ipynb").read_text(encoding="utf-8")
    good = (folder / "04_good.ipynb").read_text(encoding="utf-8")
    assert f"{folder.parent.parent.parent} {sys.executable}" in good


def test_the_report_is_one_page_for_everybody(batch):
    _, folder = batch
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert '<html lang="en">' in page
    assert page.count("<h1>") == 1
    assert "Zeros are &lt;fast&gt;." in page
    assert "http" not in page, "the page must not need a network"
    assert page.count("<table>") == page.count("<caption>") == 3
    assert page.count("<th ") == page.count('scope="col"') + page.count('scope="row"')


@pytest.mark.skipif(os.name == "nt", reason="Windows knows neither of these signals")
@pytest.mark.parametrize("name", ["SIGINT", "SIGKILL"])
def test_nobody_works_on_after_a_batch_was_ended(name, tmp_path):
    import psutil

    begun, folder = tmp_path / "begun", tmp_path / "cache" / "runs" / "smoke"
    write(tmp_path / "00_slow.ipynb", f"import pathlib, time\npathlib.Path({str(begun)!r}).touch()\ntime.sleep(600)")
    words = [sys.executable, "-m", "course_utils.batch", str(tmp_path / "00_slow.ipynb")]
    env = {**os.environ, "COURSE_CACHE": str(tmp_path / "cache")}
    listen = partial(signal.signal, signal.SIGINT, signal.default_int_handler)  # whoever runs tests may ignore Ctrl-C
    with subprocess.Popen(words, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, preexec_fn=listen) as process:
        wait(begun.exists, 60)
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(getattr(signal, name))
    assert process.returncode == (130 if name == "SIGINT" else -signal.SIGKILL)
    wait(lambda: not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in family), 10)
    assert not (folder / "00_slow.ipynb").exists(), "half a notebook"
    assert name == "SIGKILL" or not list(folder.iterdir())


def wait(true, seconds):
    """Wait until it is true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "this took too long"
        time.sleep(0.1)


# --- the normal form of notebooks -------------------------------------------------------------------------------------


def test_tidy_catches_stored_outputs_and_keeps_verdicts(tmp_path):
    path = tmp_path / "00_x.ipynb"
    write(path, "print(1) ", "print('not refuted')")
    book = nbformat.read(path, as_version=4)
    said = {"output_type": "stream", "name": "stdout", "text": "not refuted\n"}
    for cell in book.cells[2:]:
        cell.outputs, cell.execution_count = [nbformat.from_dict(said)], 5
    book.cells[3].metadata.tags = ["nbval-check-output"]
    book.metadata["papermill"] = {"version": "2"}
    nbformat.write(book, path)
    assert start("-m", "course_utils.tidy", "--check", tmp_path).returncode == 1
    assert start("-m", "course_utils.tidy", tmp_path).returncode == 0
    assert start("-m", "course_utils.tidy", "--check", tmp_path).returncode == 0
    new = nbformat.read(path, as_version=4)
    nbformat.validate(new)
    assert [cell.id for cell in new.cells] == ["c01", "c02", "c03", "c04"]
    assert [cell.get("execution_count") for cell in new.cells] == [None, None, None, 1]
    assert [len(cell.get("outputs", [])) for cell in new.cells] == [0, 0, 0, 1]
    assert new.cells[2].source == "print(1)"
    assert set(new.metadata) == {"kernelspec", "language_info"}


# --- the house is in order --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [["ruff", "check", "."], ["ty", "check"], ["course_utils.tidy", "--check", "notebooks"]],
    ids=["ruff", "ty", "tidy"],
)
def test_the_house_is_in_order(words):
    done = start("-m", *words)
    assert done.returncode == 0, done.stdout + done.stderr
