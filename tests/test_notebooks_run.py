"""Every notebook, prepared by papermill in profile smoke, executed once under nbval, its verdicts compared."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
NBVAL = ["--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=600", "-q", "-p", "no:cacheprovider"]


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """An empty cache of trials: the one that `course.py test` made, or else one for this session."""
    return Path(os.environ.get("COURSE_CACHE") or tmp_path_factory.mktemp("cache"))


@pytest.mark.parametrize("source", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_and_its_verdicts_are_the_stored_ones(source, cache, tmp_path):
    copy = tmp_path / source.name
    papermill.execute_notebook(source, copy, {"profile": "smoke"}, prepare_only=True, progress_bar=False)
    command = [sys.executable, "-m", "pytest", *NBVAL, "--rootdir", str(tmp_path), "-c", os.devnull, str(copy)]
    env = {**os.environ, "COURSE_CACHE": str(cache), "HF_HUB_OFFLINE": "1", "PYTEST_ADDOPTS": ""}
    env |= {f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS")}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("source", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_stores_verdicts_to_compare_with(source):
    """A verdict cell without a stored output would be compared with nothing, and pass."""
    cells = [c for c in nbformat.read(source, as_version=4).cells if "nbval-check-output" in c.metadata.get("tags", [])]
    assert cells, f"{source.name} has no verdict cell: tag one nbval-check-output"
    for cell in cells:
        assert cell.outputs, f"{source.name}, cell {cell.id}: run it and keep its output"
        assert {output.output_type for output in cell.outputs} == {"stream"}, "a verdict cell prints text only"


def test_nbval_sees_a_verdict_that_changed(tmp_path):
    """The strict comparison itself: the same text passes, another does not."""
    for said, code in (("a1 not refuted\n", 0), ("a1 refuted\n", 1)):
        output = nbformat.v4.new_output("stream", name="stdout", text=said)
        cell = nbformat.v4.new_code_cell("print('a1 not refuted')", outputs=[output], execution_count=1)
        cell.metadata["tags"] = ["nbval-check-output"]
        kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
        nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata={"kernelspec": kernel}), tmp_path / "x.ipynb")
        command = [sys.executable, "-m", "pytest", *NBVAL, "--rootdir", str(tmp_path), "-c", os.devnull, "x.ipynb"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        assert done.returncode == code, done.stdout + done.stderr
