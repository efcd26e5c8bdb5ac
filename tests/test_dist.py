"""Processes that work together: alone, two on this computer, and two on computers of their own."""

import contextlib
import os
import shutil
import subprocess
import sys
import textwrap
import uuid
from pathlib import Path

import pytest
import torch
from torch import nn

from course_utils import dist

ROOT = Path(__file__).resolve().parent.parent
CODE = """
import os, sys
import torch
from torch import nn
from course_utils import dist
torch.set_num_threads(1)
with dist.together():
    me, all_of_us = dist.rank(), dist.world()
    assert dist.total(torch.tensor([1.0, me])).tolist() == [all_of_us, sum(range(all_of_us))]
    own = torch.tensor(float(me))
    assert dist.average(own) == (all_of_us - 1) / 2 and own == me, "the tensor itself stays"
    assert dist.first() == (me == 0)
    torch.manual_seed(me)
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    both = dist.spread(model)
    both(torch.randn(4, 2)).sum().backward()
    gradient = model[0].weight.grad.clone()
    assert torch.equal(dist.average(gradient), gradient), "every process has the mean of all gradients"
    model[1].running_mean.fill_(me)
    dist.equalise(model)
    assert model[1].running_mean.tolist() == [0, 0]
    dist.agree("numbers", 7)
    dist.wait()
    print(f"{me} of {all_of_us} ends", flush=True)
    if "differ" in sys.argv:
        dist.agree("numbers", me)
"""
SAID = """
import sys
try:
    exec(compile(open(__file__.replace("said_of", "code_of")).read(), "code", "exec"))
except ValueError as error:
    print(error, file=sys.stderr)
    raise SystemExit(2)
"""


def test_alone_nothing_happens():
    x, model = torch.tensor([1.0, 2.0]), nn.Linear(2, 2)
    with dist.together():
        assert (dist.rank(), dist.world(), dist.first()) == (0, 1, True)
        assert torch.equal(dist.total(x), x) and torch.equal(dist.average(x), x)
        assert dist.total(x) is not x
        assert dist.spread(model) is model
        dist.agree("numbers", 1)
        dist.equalise(model)
        dist.wait()
    assert not torch.distributed.is_initialized()


@pytest.mark.skipif(sys.platform != "linux", reason="the names of network interfaces are Linux's")
def test_the_interface_that_leads_to_an_address():
    assert dist.interface("127.0.0.1") == "lo"


@pytest.fixture
def module(tmp_path):
    """A folder with the modules `code`, which checks everything, and `said`, which puts what went wrong in a line."""
    (tmp_path / "code_of_all.py").write_text(textwrap.dedent(CODE))
    (tmp_path / "said_of_all.py").write_text(textwrap.dedent(SAID))
    return tmp_path


def launch(module, *words, before=(), **env):
    """Start the launcher; returns the process."""
    own = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "GLOO_SOCKET_IFNAME")}
    own |= {"PYTHONPATH": f"{ROOT}{os.pathsep}{module}", "OMP_NUM_THREADS": "1", **env}
    command = [*before, sys.executable, "-m", "course_utils.launch", *map(str, words)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, env=own, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True)


def end(process, seconds=300):
    """What a process printed, and its exit code."""
    with process:
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    return out, err, process.returncode


def test_two_processes_sum_average_and_agree_and_what_both_find_wrong_is_said_once(module):
    out, err, code = end(launch(module, "--processes", 2, "said_of_all", "differ"))
    assert sorted(out.splitlines()) == ["0 of 2 ends", "1 of 2 ends"], err
    assert code == 2 and len(err.splitlines()) == 1, err
    assert "the numbers that process" in err and "all need the same files" in err


def test_a_process_that_was_killed_is_named(module):
    (module / "killed.py").write_text("import os\nif os.environ['RANK'] == '1': os.kill(os.getpid(), 9)\n")
    _, err, code = end(launch(module, "--processes", 2, "killed"))
    assert code == 2 and err.splitlines() == [err.strip()], err
    assert "process 1 was killed" in err and "goes on where it was" in err


# --- two computers ---------------------------------------------------------------------------------------------------


def can_have_hosts():
    """Why two hosts cannot be made here, or nothing."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "two network namespaces need Linux and root"
    if not shutil.which("ip"):
        return "two network namespaces need the command ip (Debian: iproute2)"
    name = f"pp-probe-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    subprocess.run(["ip", "netns", "del", name], capture_output=True)
    return f"no network namespace can be made here: {made.stderr.strip()}" if made.returncode else ""


@contextlib.contextmanager
def two_hosts():
    """Two network namespaces, joined by a cable: names, and the address of the first. They can reach nothing else."""
    key = uuid.uuid4().hex[:6]
    names, ends = [f"pp{key}-{i}" for i in range(2)], [f"pp{key}{i}" for i in range(2)]

    def ip(*words):
        subprocess.run(["ip", *words], check=True, capture_output=True)

    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", ends[0], "netns", names[0], "type", "veth", "peer", "name", ends[1], "netns", names[1])
        for number, (name, link) in enumerate(zip(names, ends, strict=True), 1):
            ip("-n", name, "address", "add", f"10.77.0.{number}/24", "dev", link)
            ip("-n", name, "link", "set", link, "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names, "10.77.0.1"
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def on_two_hosts(module, *words):
    """The same command on both hosts; what each printed."""
    with two_hosts() as (names, address):
        many = [["--nodes", 2, "--node-rank", number, "--address", f"{address}:29511"] for number in range(2)]
        began = [launch(module, *many[i], *words, before=("ip", "netns", "exec", names[i])) for i in range(2)]
        return [end(process) for process in began]


@pytest.mark.skipif(bool(can_have_hosts()), reason=can_have_hosts() or "they can be had")
def test_two_computers(module):
    for number, (out, err, code) in enumerate(on_two_hosts(module, "code_of_all")):
        assert code == 0, err
        assert f"{number} of 2 ends" in out and f"Computer {number} of 0 … 1" in out
