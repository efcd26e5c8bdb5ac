"""Processes that work together, and one that works alone by the same code."""

import sys
import textwrap

import pytest
import torch
from hosts import end, launch
from torch import nn

from course_utils import dist

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


def test_two_processes_sum_average_and_agree_and_what_both_find_wrong_is_said_once(module):
    out, err, code = end(launch("--processes", 2, "said_of_all", "differ", modules=module))
    assert sorted(out.splitlines()) == ["0 of 2 ends", "1 of 2 ends"], err
    assert code == 2 and len(err.splitlines()) == 1, err
    assert "the numbers that process" in err and "all need the same files" in err


KILLED = """
import os, sys
import torch
from course_utils import dist
with dist.together():
    dist.wait()
    if dist.rank() == 1:
        os.kill(os.getpid(), 9)
    dist.total(torch.ones(1))
"""


def test_a_process_that_was_killed_is_named(tmp_path):
    (tmp_path / "killed.py").write_text(KILLED)
    _, err, code = end(launch("--processes", 2, "killed", modules=tmp_path))
    assert code == 2 and len(err.splitlines()) == 1, err
    assert "process 1 was killed" in err and "goes on where it was" in err


@pytest.mark.parametrize(
    ("error", "others", "told"),
    [
        (ValueError("x"), 0, "ValueError: x"),
        (ValueError("x"), 1, "SystemExit: 2"),
        (RuntimeError("a bug"), 1, "RuntimeError: a bug"),
        (RuntimeError("[gloo/pair.cc] Connection closed"), 0, "ConnectionError: the connection to another process"),
        (RuntimeError("[gloo/pair.cc] Connection closed"), 1, "SystemExit: 2"),
    ],
)
def test_who_tells_what_went_wrong(error, others, told, monkeypatch):
    monkeypatch.setattr(dist, "QUIET", 0)
    store = torch.distributed.HashStore()
    for _ in range(others):
        store.add("failed", 1)
    found = dist.spoken(error, store)
    assert f"{type(found).__name__}: {found}".startswith(told)
