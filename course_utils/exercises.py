"""Predictions and exercises. Nothing here ever stops a batch run: an unanswered exercise is simply open.

An exercise knows its solution, and the mistakes that people make: each mistake is a small function with a hint, and
your answer gets the hint of the mistake that it behaves like.
"""

import copy
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from IPython.display import Code, display
from torch import Tensor


@dataclass(frozen=True)
class Exercise:
    """`cases` are argument tuples; `mistakes` maps a hint to a function that makes that mistake."""

    task: str
    solution: Callable
    cases: Callable[[], list[tuple]]
    mistakes: dict[str, Callable]
    hints: tuple[str, ...] = field(default=())


def predict(question: str, guess: Any = None) -> None:
    """Repeat the question and your guess; None is allowed, but a guess makes the answer stick."""
    print(question)
    print(f"Your guess: {guess}" if guess is not None else "No guess yet: replace None and run the cell again.")


def reveal(guess: float | None, measured: float, unit: str = "") -> None:
    """Set a numeric guess beside what was measured."""
    if guess is None:
        print(f"Measured: {measured:.3g}{unit}. You made no guess.")
    else:
        print(f"You guessed {guess:.3g}{unit}; measured: {measured:.3g}{unit}.")


def same(a: Any, b: Any) -> bool:
    """Equal values: tensors by content (to rounding), dicts and sequences item by item."""
    a, b = (torch.as_tensor(v) if isinstance(v, np.ndarray) else v for v in (a, b))
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        alike = a.shape == b.shape and a.dtype.is_floating_point == b.dtype.is_floating_point
        return alike and torch.allclose(a.double(), b.double(), rtol=1e-4, atol=1e-6, equal_nan=True)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, int | float) and isinstance(b, int | float):
        return bool(abs(a - b) <= 1e-6 + 1e-4 * abs(b))
    return type(a) is type(b) and bool(a == b)


def outcome(function: Callable, case: tuple) -> Any:
    """What `function` makes of a copy of `case`; an error counts as an outcome too."""
    try:
        return function(*copy.deepcopy(case))
    except (Exception, SystemExit) as error:  # whatever a learner's code raises is an answer, and gets a sentence
        return f"{type(error).__name__}: {error}"


def judged(exercise: Exercise, answer: Callable) -> tuple[str, str]:
    """('right' | 'open' | 'wrong', a sentence that helps)."""
    cases = exercise.cases()
    got = [outcome(answer, case) for case in cases]
    if all(g is None for g in got):
        return "open", "This exercise is still open: fill in the function, then run the check again."
    want = [outcome(exercise.solution, case) for case in cases]
    if same(got, want):
        return "right", "Right!"
    for hint, mistake in exercise.mistakes.items():
        if same(got, [outcome(mistake, case) for case in cases]):
            return "wrong", hint
    first = next(i for i, (g, w) in enumerate(zip(got, want, strict=True)) if not same(g, w))
    return "wrong", f"Not yet. For {brief(cases[first])} {differing(got[first], want[first])}."


def differing(got: Any, want: Any) -> str:
    """What an answer has otherwise; of two dicts, the first entry that differs."""
    if isinstance(got, dict) and isinstance(want, dict):
        for key in [*want, *got]:
            if key not in want:
                return f"you return {key!r}, which is not expected"
            if key not in got:
                return f"you return no {key!r}"
            if not same(got[key], want[key]):
                return f"your {key!r} is {form(got[key])}, expected {form(want[key])}"
    return f"you return {brief(got)}, expected {brief(want)}"


def form(value: Any) -> str:
    """A value; of a tensor the shape comes first."""
    return f"{tuple(value.shape)}, {brief(value)}" if isinstance(value, Tensor) else brief(value)


def brief(value: Any) -> str:
    """A value in at most 200 characters."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 200 else text[:197] + "…"


def check(exercise: Exercise, answer: Callable) -> None:
    """Try your function on some inputs, and say what is right or which mistake it looks like."""
    state, sentence = judged(exercise, answer)
    print({"right": "✓ ", "open": "… ", "wrong": "✗ "}[state] + sentence)


def hint(exercise: Exercise, number: int = 1) -> None:
    """The first hint, the second, …"""
    count = len(exercise.hints)
    print(exercise.hints[number - 1] if 1 <= number <= count else f"There are {count} hints: ask for 1 to {count}.")


def solution(exercise: Exercise) -> None:
    """The solution's source."""
    display(Code(inspect.getsource(exercise.solution), language="python"))
