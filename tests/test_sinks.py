"""A sink keeps what it is given, or says in one sentence what is missing."""

import sys

import pytest

from course_utils.files import cache_root
from course_utils.sinks import nowhere, send, tensorboard, wandb_offline

ROWS = [{"step": 50, "accuracy": 0.9, "gone": 0.75}, {"step": 0, "accuracy": 0.95, "gone": 0.0}]


def test_nowhere_writes_nothing(private_cache):
    assert "nowhere" in send(ROWS, "a run", nowhere)
    assert not cache_root().exists()


def test_tensorboard_keeps_every_number(private_cache):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    words = send(iter(ROWS), "weights, 90 %", tensorboard)
    (folder,) = (cache_root() / "tensorboard").iterdir()
    assert str(folder.parent) in words
    events = event_accumulator.EventAccumulator(str(folder))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"accuracy", "gone"}
    for name in ("accuracy", "gone"):
        found = {event.step: event.value for event in events.Scalars(name)}
        assert found == pytest.approx({row["step"]: row[name] for row in ROWS})


def test_wandb_gets_rows_in_order(private_cache, monkeypatch):
    calls = []

    class Run:
        def __enter__(self):
            return self

        def __exit__(self, *error):
            calls.append("closed")

        def log(self, values, step):
            calls.append((step, values))

    class Module:
        @staticmethod
        def init(**about):
            assert about["mode"] == "offline" and str(cache_root()) in about["dir"]
            return Run()

    monkeypatch.setitem(sys.modules, "wandb", Module)
    assert "wandb sync" in send(ROWS, "a run", wandb_offline)
    assert calls == [(0, {"accuracy": 0.95, "gone": 0.0}), (50, {"accuracy": 0.9, "gone": 0.75}), "closed"]


@pytest.mark.parametrize(("package", "sink"), [("tensorboard", tensorboard), ("wandb", wandb_offline)])
def test_a_missing_package_is_one_sentence(private_cache, monkeypatch, package, sink):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=f"needs {package}: install it with `pip install {package}`"):
        send(ROWS, "a run", sink)


@pytest.mark.parametrize("row", [{"accuracy": 0.9}, {"step": 0.5, "accuracy": 0.9}])
def test_a_row_without_a_step_is_refused(row):
    with pytest.raises(ValueError, match="whole number as its step"):
        send([row], "a run", nowhere)
