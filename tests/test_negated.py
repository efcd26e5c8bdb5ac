"""A claim about a method must fail when the method is turned upside down: the notebooks run with negated scores."""

import os
import re
import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
UPSIDE_DOWN = {
    "00": """
import course_utils.scores as upside_down
from course_utils.scores import magnitude as upright

def negated(model, batches=()):
    return {name: -score for name, score in upright(model, batches).items()}

upside_down.magnitude = negated
""",
    "01": """
import course_utils.measure as upside_down
from course_utils.measure import outputs as upright

def negated(*args, **options):
    return -upright(*args, **options)

upside_down.outputs = negated
""",
}
UPSIDE_DOWN["02"] = UPSIDE_DOWN["00"]
UPSIDE_DOWN["03"] = """
import course_utils.units as upside_down
from course_utils.units import bn_scale as upright

def negated(model, groups, batches=()):
    return {name: -score for name, score in upright(model, groups, batches).items()}

upside_down.bn_scale = negated
"""
UPSIDE_DOWN["07"] = """
import course_utils.scores as upside_down
from course_utils.scores import magnitude as upright

def inverted(model, batches=()):  # LAMP squares its scores, so they stay positive
    return {name: 1 / (score + 1e-3) for name, score in upright(model, batches).items()}

upside_down.magnitude = inverted
"""
UPSIDE_DOWN["04"] = """
import course_utils.curvature as upside_down
from course_utils.curvature import surgeon as upright

def negated(model, inverse):
    return {name: -score for name, score in upright(model, inverse).items()}

upside_down.surgeon = negated
"""
UPSIDE_DOWN["05"] = """
import course_utils.activity as upside_down
from course_utils.activity import awake as upright

def negated(model, groups, batches):
    return {name: -score for name, score in upright(model, groups, batches).items()}

upside_down.awake = negated
"""
UPSIDE_DOWN["06"] = """
import course_utils.regression as upside_down
from course_utils.regression import thinet as upright

def negated(model, groups, batches):
    return {name: -score for name, score in upright(model, groups, batches).items()}

upside_down.thinet = negated
"""
UPSIDE_DOWN["10"] = UPSIDE_DOWN["00"]
UPSIDE_DOWN["08"] = """
import course_utils.scores as upside_down
from course_utils.scores import magnitude as upright

def inverted(model, batches=()):
    return {name: -score for name, score in upright(model, batches).items()}

upside_down.magnitude = inverted
"""
UPSIDE_DOWN["09"] = UPSIDE_DOWN["00"]
UPSIDE_DOWN["12"] = """
import course_utils.importance as upside_down
from course_utils.importance import group_taylor as upright

def inverted(model, groups, batches):  # scores stay positive: they are divided by their mean
    return {name: 1 / (score + 0.1 * score.mean()) for name, score in upright(model, groups, batches).items()}

upside_down.group_taylor = inverted
"""

UPSIDE_DOWN["11"] = """
import course_utils.importance as upside_down
from course_utils.importance import group_l2 as upright

def inverted(model, groups, batches=()):  # the global scope divides by the mean, so they stay positive
    return {name: 1 / (score + 1e-3) for name, score in upright(model, groups, batches).items()}

upside_down.group_l2 = inverted
"""


@pytest.mark.parametrize("number", UPSIDE_DOWN)
def test_negated_scores_are_refuted(number, tmp_path, monkeypatch):
    path = next((ROOT / "notebooks").glob(f"{number}_*.ipynb"))
    book = nbformat.read(path, as_version=4)
    parameters = next(i for i, c in enumerate(book.cells) if "parameters" in c.metadata.get("tags", []))
    patch = nbformat.v4.new_code_cell("profile = 'smoke'\n" + UPSIDE_DOWN[number])
    book.cells.insert(parameters + 1, patch)
    cache = tmp_path / "cache"
    cache.mkdir()
    shared = Path(os.environ.get("COURSE_CACHE") or ROOT / ".course") / "data"
    if shared.is_dir():
        shutil.copytree(shared, cache / "data")
    monkeypatch.setenv("COURSE_CACHE", str(cache))
    NotebookClient(book, timeout=600, allow_errors=True, resources={"metadata": {"path": str(path.parent)}}).execute()
    verdict = next(c for c in book.cells if "nbval-check-output" in c.metadata.get("tags", []))
    text = "".join(output.get("text", "") for output in verdict.outputs)
    assert re.search(r"(?<!not) refuted$", text, re.MULTILINE), text or "the verdict cell printed nothing"
