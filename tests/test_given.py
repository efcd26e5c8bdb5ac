"""The parts that stay out of the way: progress, preflight, figures, reference runs."""

import json

import pytest
import torch

from course_utils import plots, preflight, progress
from course_utils.progress import clock, counted, line
from course_utils.trials import Trial


def test_progress_says_what_is_left():
    assert clock(75) == "1:15"
    assert line("epoch 1/2, batch", 10, 40, 6.0) == "epoch 1/2, batch 10/40, 0:06 gone, 0:18 left"


@pytest.mark.parametrize("watched", [True, False])
def test_progress_is_quiet_when_nobody_watches(watched, monkeypatch, capsys):
    now = iter(range(0, 1000, 2))
    monkeypatch.setattr(progress, "watched", lambda: watched)
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(now)))
    assert list(counted("abcd", 4, "letter")) == list("abcd")
    out = capsys.readouterr().out
    assert ("letter 4/4" in out) == watched and (out == "") == (not watched)


def test_headless_is_not_watched(monkeypatch):
    for name in ("COURSE_QUIET", "CI"):
        monkeypatch.delenv("COURSE_QUIET", raising=False)
        monkeypatch.delenv("CI", raising=False)
        monkeypatch.setenv(name, "1")
        assert not progress.watched()


def test_preflight_says_what_is_wrong(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "file" / "cache"))
    assert preflight.main() == 1
    out = capsys.readouterr().out
    assert "NO  disk" in out and "Not ready: see disk above." in out


def test_preflight_passes_here(monkeypatch, capsys):
    threads = torch.get_num_threads()
    assert preflight.main() == 0
    out = capsys.readouterr().out
    assert "This computer is ready" in out and "1 of" in out and all(name in out for name in preflight.CORE)
    torch.set_num_threads(threads)


def shown(monkeypatch) -> list[dict]:
    bundles: list[dict] = []
    monkeypatch.setattr(plots, "display", lambda bundle, raw: bundles.append(bundle))
    return bundles


def test_every_figure_has_its_words(monkeypatch):
    bundles = shown(monkeypatch)
    figure, axes = plots.new_figure()
    axes.plot([1, 2])
    plots.draw(figure, 'A line that rises from "one" to two')
    assert 'alt="A line that rises from &quot;one&quot; to two"' in bundles[0]["text/html"]
    assert bundles[0]["text/plain"].startswith("A line") and not plots.plt.fignum_exists(figure.number)


def test_curves_draw_means_with_intervals():
    trials = [
        Trial("k", {"s": s, "m": m, "parent": p}, {"y": s + p}, {}) for s in (1, 2) for m in "ab" for p in (0, 1, 2)
    ]
    figure, axes = plots.new_figure()
    plots.curves(axes, trials, "s", "y", "m")
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["a", "b"]
    lines = [container.lines[0].get_ydata().tolist() for container in axes.containers]
    assert lines == [[2.0, 3.0], [2.0, 3.0]]
    plots.plt.close(figure)


def test_an_absent_reference_is_shown_as_absent(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(plots, "FIGURES", tmp_path)
    bundles = shown(monkeypatch)
    assert plots.reference("01_full", "words") is None and bundles == []
    assert "figures/01_full.png and .json are absent" in capsys.readouterr().out
    figure, _ = plots.new_figure()
    plots.save_reference(figure, "01_full", {"accuracy": 0.5}, tmp_path)
    assert (
        plots.reference("01_full", "words & more") == {"accuracy": 0.5}
        and "words &amp; more" in bundles[0]["text/html"]
    )


def test_the_cpu_reference_is_what_its_records_say():
    records = json.loads((plots.FIGURES / "cifar10_cpu.json").read_text(encoding="utf-8"))
    assert records["parameters"] == 1_484_186 and records["macs"] == 81_449_984 and len(records["log"]) == 8
    assert "CPU" in records["label"] and records["where"]["gpu"] is None and records["images"]["test"] == 10_000


def test_tables_escape_and_head_their_rows(monkeypatch):
    bundles = shown(monkeypatch)
    plots.table([{"name": "a<b", "n": 1}, {"name": "c", "n": 2}], "words")
    assert "<th scope='row'>a&lt;b</th><td>1</td>" in bundles[0]["text/html"]
    assert bundles[0]["text/plain"].splitlines() == ["name  n", "a<b  1", "c  2"]
