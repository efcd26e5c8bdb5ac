"""An outcome is what a notebook found for its own parameters, in a few numbers: `course.py sweep` collects them."""

import math
from contextlib import suppress
from numbers import Integral, Real
from typing import Any

from IPython.display import display

MIME = "application/vnd.course.outcome+json"


def outcome(**results: object) -> None:
    """Show the results in one line, and leave them in the notebook for machines to read."""
    if not results:
        raise ValueError("an outcome needs at least one result: outcome(accuracy=0.9)")
    found = {name: plain(name, value) for name, value in results.items()}
    display({"text/plain": line(found), MIME: found}, raw=True)


def plain(name: str, value: Any) -> float | int | bool | str:
    """A result as JSON knows it: a word, a truth, a whole number, or a finite one (NumPy's and PyTorch's too)."""
    with suppress(AttributeError, ValueError, RuntimeError):  # no tensor, or not one of a single number
        value = value.item()
    if isinstance(value, bool | str):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real) and math.isfinite(value):
        return float(value)
    raise ValueError(f"{name} is {str(value)[:60]}: an outcome holds finite numbers and words")


def line(results: dict) -> str:
    """The results in one line, numbers with four digits: `accuracy 0.93 · sparsity 0.9`."""
    return " · ".join(f"{name} {shown(value)}" for name, value in results.items())


def shown(value: object) -> str:
    """A value for people to read."""
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if type(value) is int else str(value)
