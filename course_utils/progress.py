"""A line that says how far a loop is and how long it still takes; silent when nobody watches."""

import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")
PATIENCE = 3.0  # seconds before the first line appears


def watched() -> bool:
    """Does a person look on? (In a terminal or in JupyterLab, but not in a batch run.)"""
    if os.environ.get("COURSE_QUIET") or os.environ.get("CI"):
        return False
    return sys.stdout.isatty() or "ipykernel" in sys.modules


def clock(seconds: float) -> str:
    """75 -> '1:15'."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def line(label: str, done: int, total: int, seconds: float) -> str:
    """'training 120/400, 0:12 gone, 0:28 left'."""
    return f"{label} {done}/{total}, {clock(seconds)} gone, {clock(seconds / done * (total - done))} left"


def counted(items: Iterable[Item], total: int, label: str) -> Iterator[Item]:
    """The same items, with a progress line once the loop has run for three seconds."""
    began = shown = time.monotonic()
    show = watched()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if show and now - began > PATIENCE and (now - shown > 0.5 or done == total):
            print("\r" + line(label, done, total, now - began).ljust(70), end="", flush=True)
            shown = now
    if show and shown > began:
        print("\r" + " " * 70, end="\r", flush=True)
