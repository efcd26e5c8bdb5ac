"""Sweeps for real: tiny notebooks in fresh kernels, in processes, Dask and Slurm, and what is left when some die."""

import contextlib
import dataclasses
import json
import math
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import nbformat
import numpy as np
import psutil
import pytest
import torch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from scipy import stats

from course_utils import outcomes, stamps, sweep
from course_utils.conditions import Condition, about, finished, perform
from course_utils.execution import MIME
from course_utils.files import cache_root
from course_utils.intervals import interval
from course_utils.report import Run
from course_utils.summaries import means, table

ROOT = Path(__file__).resolve().parent.parent
WRITES = 'with open("log", "a") as log:\n    log.write(f"{seed} {os.getpid()} {os.getppid()}\\n")'
DIES = """if way not in WAYS:
    from course_utils.profiles import choose
    choose(WAYS, way)
if seed == 2:
    os._exit(1)
if seed == 3:
    os.kill(os.getppid(), 9)
time.sleep(float(os.environ.get("SLEEP", 0)))"""
CLAIM = {"id": "a1", "sentence": "Seeds are large.", "verdict": "HOLDS", "kind": "claim"}
needs_signals = pytest.mark.skipif(os.name == "nt", reason="Windows knows no kill -9")


def write(folder):
    """A notebook with four parameters that says it began, may die, takes its time, and has an outcome and a claim."""
    parameters = 'profile = "laptop"\nseed = 0\nsparsity = 0.8\nway = "cubic"'
    shown = f"{{'text/plain': 'claims', MIME: [{CLAIM} | {{'verdict': 'HOLDS' if seed else 'FAILS'}}]}}"
    cells = ["import os, time\nfrom course_utils.outcomes import outcome\nWAYS = {'cubic': 3, 'linear': 1}", WRITES]
    cells += [DIES, "outcome(accuracy=sparsity + seed / 100, way=way)"]
    cells += [f"from IPython.display import display\nMIME = {MIME!r}\ndisplay({shown}, raw=True)"]
    first = new_code_cell(parameters, metadata={"tags": ["parameters"]})
    book = new_notebook(cells=[first, new_markdown_cell("Words."), *map(new_code_cell, cells)])
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    nbformat.write(book, folder / "09_tiny.ipynb")
    return folder / "09_tiny.ipynb"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A copy of the package, so that nobody's edits make its stamps stale meanwhile."""
    folder = tmp_path_factory.mktemp("a home")
    left_out = shutil.ignore_patterns("networks", "__pycache__")
    shutil.copytree(ROOT / "course_utils", folder / "course_utils", ignore=left_out)
    return folder


def begin(home, book, *words, engine=("--engine", "processes"), **env):
    """Start a sweep over a notebook, with two runs at a time, and its cache beside the notebook."""
    own = {k: v for k, v in os.environ.items() if not k.startswith("COURSE_")}
    own |= {"COURSE_CACHE": str(book.parent / "cache"), "PYTHONPATH": str(home), "PYTHONDONTWRITEBYTECODE": "1", **env}
    pairs = [part for word in words for part in (["-p", word] if word[0].isalpha() else [word])]
    command = [sys.executable, "-m", "course_utils.sweep", "--jobs", "2", *engine, *pairs, str(book)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=home, env=own, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True)


def end(process):
    """What a sweep said, when it is over: exit code, words, complaints."""
    said, complained = process.communicate(timeout=300)
    return process.returncode, said, complained


def run(home, book, *words, **more):
    """A whole sweep."""
    return end(begin(home, book, *words, **more))


def records(book):
    """What is kept of a notebook's runs, by seed."""
    found = [json.loads(path.read_text()) for path in (book.parent / "cache" / "sweeps").glob("*/*/record.json")]
    return {record["parameters"]["seed"]: record for record in found}


def begun(book):
    """[seed, kernel, worker] of every run that began."""
    log = book.parent / "log"
    return [[int(word) for word in line.split()] for line in log.read_text().splitlines()] if log.exists() else []


def wait(true, seconds=120):
    """Wait until it is true."""
    last = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < last, "this took too long"
        time.sleep(0.1)


def alive(pid):
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def nobody_left(book):
    """No kernel and no worker works on."""
    wait(lambda: not any(alive(pid) for line in begun(book) for pid in line[1:]), 20)


# --- in processes -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def swept(home, tmp_path_factory):
    """Seeds 0 and 1 are good, the kernel of 2 dies, 3 kills its worker."""
    book = write(tmp_path_factory.mktemp("a sweep"))
    return book, *run(home, book, "seed=0", "seed=1", "seed=2", "seed=3", "way=cubic")


@needs_signals
def test_a_death_costs_only_its_own_run_and_the_table_says_so(swept):
    book, code, said, complained = swept
    assert code == 1, complained
    lines = [line.split() for line in said.split("\n\n")[1].splitlines()]
    assert lines[0] == ["seed", "seconds", "outcome", "hold", "fail", "undecided"]
    assert [line[0] for line in lines[1:]] == ["0", "1", "2", "3"]
    assert lines[1][2:] == ["accuracy", "0.8", "·", "way", "cubic", "0", "1", "0"]
    assert lines[2][2:] == ["accuracy", "0.81", "·", "way", "cubic", "1", "0", "0"]
    assert "FAILED in cell [5]: the kernel died" in " ".join(lines[3])
    assert "FAILED before its end: its process was killed" in " ".join(lines[4])
    assert "09_tiny: claim a1 FAILS in 1 runs: Seeds are large." in said
    nobody_left(book)


@needs_signals
def test_a_sweep_keeps_every_run_and_one_file_with_everything(swept):
    book, _, said, _ = swept
    assert sorted(records(book)) == [0, 1, 2]
    for record in (records(book)[0], records(book)[1]):
        executed = Path(record["executed"])
        assert record["outcome"] == {"accuracy": 0.8 + record["parameters"]["seed"] / 100, "way": "cubic"}
        assert record["claims"][0]["id"] == "a1"
        assert "accuracy 0.8" in executed.read_text(encoding="utf-8")
        assert "accuracy 0.8" in executed.with_suffix(".html").read_text(encoding="utf-8")
    everything = Path(said.rstrip().rpartition(": ")[2]).read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["parameters"]["seed"] for line in everything] == [0, 1, 2, 3]
    assert json.loads(everything[3])["error"] != ""


@needs_signals
def test_only_what_failed_is_to_do_again(swept, home):
    book, _, first, _ = swept
    before = len(begun(book))
    code, said, _ = run(home, book, "seed=0", "seed=1", "way=cubic")
    assert code == 0
    assert said.startswith("2 of 2 are up to date\n")
    assert said.split("\n\n")[1].splitlines() == [line.rstrip() for line in first.split("\n\n")[1].splitlines()[:3]], (
        "the same numbers"
    )
    mean, half = stats.t.interval(0.95, 1, 0.805, stats.sem([0.8, 0.81]))
    assert said.split("\n\n")[3].splitlines()[1].split() == ["accuracy", "0.805", f"{half - 0.805:.2g}", "2"], mean
    code, said, _ = run(home, book, "seed=0", "seed=1", "seed=2", "seed=3", "way=cubic", "--minutes", "1e-9")
    assert said.startswith("2 of 4 are up to date\n")
    assert said.count("not begun") == 2
    assert len(begun(book)) == before, "nothing was run"


def test_a_word_that_the_notebook_does_not_know_gets_its_sentence(home, tmp_path):
    code, said, _ = run(home, write(tmp_path), "way=cubical")
    assert code == 1
    assert "FAILED in cell [5]: ValueError: there is no 'cubical': choose one of cubic, linear" in said


@needs_signals
def test_a_sweep_goes_on_after_kill_9_and_two_at_once_do_nothing_twice(home, tmp_path):
    book = write(tmp_path)
    words = [f"seed={seed}" for seed in (0, 1, 4, 5)]
    with begin(home, book, *words, SLEEP="1") as process:
        wait(lambda: len(records(book)) >= 1 and len(begun(book)) >= 3)
        process.kill()
    nobody_left(book)
    kept, lost = records(book), len(begun(book))
    assert 1 <= len(kept) < 4
    both = [begin(home, book, *words, SLEEP="1") for _ in range(2)]
    for code, said, complained in map(end, both):
        assert code == 0, said + complained
        assert said.count("accuracy 0.8") == 4
    again = Counter(seed for seed, *_ in begun(book)[lost:])
    assert again == {seed: 1 for seed in (0, 1, 4, 5) if seed not in kept}, "each of the others once"
    assert all(records(book)[seed] == kept[seed] for seed in kept)
    assert not list(book.parent.glob("cache/sweeps/**/*.part"))


# --- in Dask ----------------------------------------------------------------------------------------------------------


@needs_signals
def test_dask_survives_its_workers_and_finds_the_same(home, tmp_path):
    """Somebody kills the worker of a good run: it is tried again. Seed 3 kills two workers, and costs only itself."""
    book = write(tmp_path)
    words = [*(f"seed={seed}" for seed in (0, 1, 3, 4)), "way=cubic"]
    with begin(home, book, *words, engine=("--engine", "dask"), SLEEP="2") as process:
        wait(lambda: begun(book))
        os.kill(begun(book)[0][2], signal.SIGKILL)
        code, said, complained = end(process)
    assert code == 1, said + complained
    tries = Counter(seed for seed, *_ in begun(book))
    assert tries[begun(book)[0][0]] == 2, "tried again"
    assert tries[3] == 2, "tried again, once"
    assert "its process was killed" in said.split("\n\n")[1].splitlines()[3]
    assert sorted(records(book)) == [0, 1, 4]
    for seed, record in records(book).items():
        assert record["outcome"] == {"accuracy": 0.8 + seed / 100, "way": "cubic"}
        assert record["claims"] == [CLAIM | {"verdict": "HOLDS" if seed else "FAILS"}]
    _, said, _ = run(home, book, *words, "--minutes", "1e-9")
    assert said.startswith("3 of 4 are up to date\n"), "for the other engine, too"
    nobody_left(book)


def test_an_address_where_nobody_listens(home, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    engine = ("--engine", "dask", "--address", f"tcp://127.0.0.1:{port}")
    code, _, complained = run(home, write(tmp_path), "seed=0", engine=engine)
    assert code == 1
    assert complained.splitlines()[-1].startswith(f"course.py: nobody answers at tcp://127.0.0.1:{port}")
    assert "Traceback" not in complained


def test_without_dask_one_sentence_says_what_to_install(home, tmp_path):
    lack = "import sys; sys.modules['distributed'] = None; from course_utils.sweep import main; sys.exit(main())"
    words = [sys.executable, "-c", lack, "--engine", "dask", str(write(tmp_path))]
    done = subprocess.run(words, cwd=home, env=os.environ | {"PYTHONPATH": str(home)}, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == 'course.py: --engine dask needs an extra of the course: `pip install -e ".[dask]"`.\n'


# --- in Slurm ---------------------------------------------------------------------------------------------------------

SLURM = """ClusterName=course
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
KillWait=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=8000
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
missing = [name for name in ("munged", "slurmctld", "slurmd", "sbatch") if not shutil.which(name)]
why = f"{', '.join(missing)} not on this machine" if missing else "only root can start a Slurm of its own"
needs_slurm = pytest.mark.skipif(bool(missing) or os.geteuid() != 0 if os.name != "nt" else True, reason=why)


def free_ports(count):
    """Ports of loopback where nobody listens."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@pytest.fixture
def slurm(tmp_path):
    """A Slurm with one node, on loopback, in a folder of its own; gives the variables by which commands find it."""
    folder = tmp_path / "slurm"
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    (folder / "munge.key").write_bytes(secrets.token_bytes(128))
    (folder / "munge.key").chmod(0o600)
    host = socket.gethostname().split(".")[0]
    (folder / "slurm.conf").write_text(SLURM.format(host=host, ports=free_ports(2), folder=folder))
    env = {"SLURM_CONF": str(folder / "slurm.conf")}
    kinds = {"socket": "socket", "key-file": "key", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    munged = ["munged", "--foreground", "--force", *(f"--{k}={folder}/munge.{v}" for k, v in kinds.items())]
    with contextlib.ExitStack() as stack:
        log = stack.enter_context((folder / "log").open("w"))
        for words in (munged, ["slurmctld", "-D"], ["slurmd", "-D"]):
            process = subprocess.Popen(words, env=os.environ | env, stdout=log, stderr=log)
            stack.callback(process.wait)
            stack.callback(process.terminate)
            wait(lambda: (folder / "munge.socket").exists(), 20)
        sinfo = ["sinfo", "--noheader", "--format=%T"]
        quiet = {"env": os.environ | env, "capture_output": True, "text": True}
        wait(lambda: subprocess.run(sinfo, **quiet).stdout.strip() == "idle", 30)
        yield env


@needs_slurm
def test_slurm(home, slurm, tmp_path):
    (tmp_path / "a folder").mkdir()
    book = write(tmp_path / "a folder")
    engine = ("--engine", "dask", "--slurm", "queue=debug,memory=1GB,interface=lo")
    code, said, complained = run(home, book, "seed=0", "seed=1", engine=engine, **slurm)
    assert code == 0, said + complained
    assert {seed: record["outcome"]["accuracy"] for seed, record in records(book).items()} == {0: 0.8, 1: 0.81}
    assert "starts" in "".join(path.read_text() for path in (tmp_path / "a folder/cache/sweeps/slurm").glob("*.log"))
    nobody_left(book)


# --- stamps -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def stamped(tmp_path, monkeypatch):
    """A notebook and a copy of the package with its lock; gives a function that takes the stamp anew."""
    shutil.copytree(Path(stamps.__file__).parent, tmp_path / "course_utils", ignore=shutil.ignore_patterns("networks"))
    (tmp_path / "course_utils/networks").mkdir()
    (tmp_path / "requirements.lock").write_text("one==1.0")
    monkeypatch.setattr(stamps, "HOME", tmp_path / "course_utils")
    monkeypatch.setenv("COURSE_DATA", str(tmp_path))
    book = write(tmp_path)

    def take(**parameters):
        stamps.code.cache_clear()
        stamps.package.cache_clear()
        return stamps.stamp(book, {"profile": "smoke", "seed": 0, **parameters})

    yield book, take
    stamps.package.cache_clear()


def test_a_stamp_changes_with_what_counts(stamped):
    book, take = stamped
    seen = [take(), take(seed=1), take(profile="laptop"), take(way="linear"), take(seed="0")]
    book.write_text(book.read_text(encoding="utf-8").replace("'linear': 1", "'linear': 2"), encoding="utf-8")
    seen.append(take())
    module = book.parent / "course_utils" / "scores.py"
    module.write_text(module.read_text(encoding="utf-8").replace(".abs()", ".square()", 1), encoding="utf-8")
    seen.append(take())
    (book.parent / "course_utils/new.py").write_text("x = 1")
    seen.append(take())
    (book.parent / "course_utils/networks/one.safetensors").write_bytes(b"weights")
    seen.append(take())
    (book.parent / "requirements.lock").write_text("one==1.1")
    seen.append(take())
    (book.parent / "cifar10.safetensors").write_bytes(b"pixels")
    seen.append(take())
    (book.parent / "cifar10.safetensors").write_bytes(b"other pixels")
    seen.append(take())
    assert len(set(seen)) == len(seen) == 12


def test_a_stamp_stays_when_prose_outputs_or_comments_change(stamped):
    book, take = stamped
    before = take(way="cubic", sparsity=0.5)
    node = nbformat.read(book, as_version=4)
    node.cells[1].source = "Other words."
    node.cells[2].outputs, node.cells[2].execution_count = [new_output("stream", name="stdout", text="3\n")], 7
    node.metadata["papermill"] = {"version": "2"}
    nbformat.write(node, book)
    module = book.parent / "course_utils" / "scores.py"
    module.write_text(module.read_text(encoding="utf-8") + "\n\n# a comment\n", encoding="utf-8")
    assert take(sparsity=0.5, way="cubic") == before


# --- small pieces -----------------------------------------------------------------------------------------------------


def condition(folder, stamp="s", seed=0, **parameters):
    return Condition(
        folder / "09_x.ipynb", {"seed": seed, **parameters}, folder / f"kept{seed}{parameters}", stamp, "09_x"
    )


def keep(one, text):
    one.folder.mkdir(exist_ok=True)
    (one.folder / one.source.name).write_text("{}")
    (one.folder / "record.json").write_text(text)


def test_what_counts_as_finished(tmp_path):
    one, good = condition(tmp_path), Run("09_x", 1.5, None, "", [], {"accuracy": 0.9})
    assert finished(one) is None
    keep(one, json.dumps(about(one, good)))
    assert finished(one) == good
    assert finished(dataclasses.replace(one, stamp="other")) is None
    for text in (
        json.dumps(about(one, dataclasses.replace(good, error="the kernel died"))),
        "",
        '{"stamp": "s"}',
        "[]",
    ):
        keep(one, text)
        assert finished(one) is None, text
    keep(one, json.dumps(about(one, good))[:-20])
    assert finished(one) is None, "half a record"
    keep(one, json.dumps(about(one, good)))
    (one.folder / one.source.name).unlink()
    assert finished(one) is None, "its notebook is gone"


def test_a_run_that_somebody_has_just_finished_is_not_run_again(tmp_path, monkeypatch):
    one, good = condition(tmp_path), Run("09_x", 1.5, None, "", [], {"accuracy": 0.9})
    monkeypatch.setattr("course_utils.conditions.run_notebook", lambda *_: good)
    assert perform(one, {}) == good
    (one.folder / one.source.name).write_text("{}")
    monkeypatch.setattr("course_utils.conditions.run_notebook", lambda *_: pytest.fail("run again"))
    assert perform(one, {}) == good


def test_sweeps_lie_in_the_cache(monkeypatch):
    assert sweep.root() == cache_root() / "sweeps"
    monkeypatch.setenv("COURSE_CACHE", "~/some place")
    assert sweep.root() == cache_root() / "sweeps"


def test_workers_load_no_pytorch():
    code = "import course_utils.sweep, sys; print(*({'torch', 'scipy.stats', 'distributed'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "", "every worker reads the main module, and these take seconds"


def test_all_combinations(tmp_path):
    book = write(tmp_path)
    values = sweep.axes(["seed=0", "seed=1", "seed=0", "way=cubic", "sparsity=0.5", "sparsity=.5", "sizes=[1, 2]"])
    assert values == {"seed": [0, 1], "way": ["cubic"], "sparsity": [0.5], "sizes": [[1, 2]]}
    found = sweep.conditions([book], {"seed": [0, 1], "lr": [0.1, 0.2, 1], "way": ["cubic"]}, "smoke", tmp_path)
    inputs = [(one.parameters["seed"], one.parameters["lr"]) for one in found]
    assert inputs == [(0, 0.1), (0, 0.2), (0, 1), (1, 0.1), (1, 0.2), (1, 1)]
    assert all(one.parameters["profile"] == "smoke" and one.parameters["way"] == "cubic" for one in found)
    assert len({one.folder for one in found}) == len({one.stamp for one in found}) == 6
    turned = sweep.conditions([book], {"way": ["cubic"], "lr": [0.1], "seed": [0]}, "smoke", tmp_path)
    assert (turned[0].folder, turned[0].stamp) == (found[0].folder, found[0].stamp), "order is no matter"


def test_means_are_over_seeds_within_a_condition(tmp_path):
    random = np.random.default_rng(0)
    numbers = {(seed, lr): float(random.normal()) for lr in (0.1, 0.2) for seed in range(4)}
    done = [
        (condition(tmp_path, seed=seed, lr=lr), Run("09_x", 1.0, None, "", [], {"loss": x, "word": "w", "yes": True}))
        for (seed, lr), x in numbers.items()
    ]
    done += [(condition(tmp_path, seed=4, lr=0.1), Run("09_x", 1.0, None, "in cell [1]: broken", [], {"loss": 9.0}))]
    done += [(condition(tmp_path, seed=5, lr=0.1), None)]
    lines = [line.split() for line in means(done).splitlines()]
    assert lines[0] == ["lr", "result", "mean", "±", "95", "%", "runs"]
    for line, lr in zip(lines[1:], (0.1, 0.2), strict=True):
        mean, half = interval([x for (_, rate), x in numbers.items() if rate == lr])
        assert line == [str(lr), "loss", f"{mean:.4g}", f"{half:.2g}", "4"]
    assert "FAILED in cell [1]: broken" in table(done)
    assert "not begun" in table(done)
    assert means(done[:1]) == "", "one run has no interval"


def test_an_outcome_is_finite_numbers_and_words(monkeypatch):
    shown = []
    monkeypatch.setattr(outcomes, "display", lambda data, raw: shown.append(data))
    outcomes.outcome(accuracy=torch.tensor(0.75), images=np.int64(12000), done=np.bool_(True), way="cubic")
    assert shown[0][outcomes.MIME] == {"accuracy": 0.75, "images": 12000, "done": True, "way": "cubic"}
    assert shown[0]["text/plain"] == "accuracy 0.75 · images 12,000 · done True · way cubic"
    assert json.loads(json.dumps(shown[0])) == shown[0]
    for wrong in (math.nan, torch.tensor(math.inf), torch.ones(2), np.array([]), [0.5], None):
        with pytest.raises(ValueError, match="loss is .*: an outcome holds"):
            outcomes.outcome(loss=wrong)
    with pytest.raises(ValueError, match="at least one"):
        outcomes.outcome()


@pytest.mark.parametrize(
    ("words", "named", "way_out"),
    [
        ([], "NOTEBOOK", "--help"),
        (["99", "-p", "seed=0"], "'99'", "09_tiny"),
        (["09", "-p", "sede=0"], "'sede' in 09_tiny", "did you mean seed?"),
        (["09", "-p", "seed"], "'seed'", "NAME=VALUE"),
        (["09", "-p", "seed="], "seed=", "seed=0..4"),
        (["09", "-p", "seed=0,,1"], "seed=0,,1", "seed=0..4"),
        (["09", "-p", "seed=4..0"], "'4..0'", "the smaller first"),
        (["09", "-p", "seed=0.."], "'0..'", "as in 0..4"),
        (["09", "-p", "sparsity=0.5..0.9"], "'0.5..0.9'", "whole numbers"),
        (["09", "-p", "seed=0..1000"], "1,000 runs", "fewer values"),
        (["09", "-p", "seed=0..99", "-p", "sparsity=1..11"], "1,000 runs", "fewer values"),
        (["09", "-p", "profile=full"], "--profile full", "-p"),
        (["09", "--profile", "lapto"], "'lapto'", "did you mean laptop?"),
        (["09", "--engine", "dsk"], "'dsk'", "did you mean dask?"),
        (["09", "--address", "localhost"], "'localhost'", "tcp://127.0.0.1:8786"),
        (["09", "--slurm", "partition=debug"], "'partition=debug'", "queue"),
        (["09", "--engine", "processes", "--slurm"], "--slurm", "--engine dask"),
        (["09", "--address", "tcp://a:1", "--slurm"], "--address", "one of the two"),
    ],
)
def test_a_wrong_word_gets_one_sentence_and_writes_nothing(words, named, way_out, tmp_path):
    write(tmp_path)
    env = {"COURSE_NOTEBOOKS": str(tmp_path), "COURSE_CACHE": str(tmp_path / "cache")}
    env |= {"COURSE_VENV": str(tmp_path / "09_tiny.ipynb" / "none")}
    command = [sys.executable, "course.py", "sweep", *words]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | env, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert named in done.stderr and way_out in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["09_tiny.ipynb"]


@pytest.mark.parametrize(
    ("word", "values"),
    [
        ("s=0..2,7", "0 1 2 7"),
        ("s=-1..1", "-1 0 1"),
        ("s=0.1, 0.2", "0.1 0.2"),
        ("s=[1,2]", "[1,2]"),
        ("s='a..b'", "'a..b'"),
    ],
)
def test_values_of_a_parameter(word, values):
    import importlib.util

    spec = importlib.util.spec_from_file_location("course", ROOT / "course.py")
    course = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(course)
    assert " ".join(course.values(word)) == values
