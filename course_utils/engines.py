"""An engine takes work(item) and items, and yields each item with its result as it comes: here, from processes.

The result is None if the process that worked on the item was killed. The next item is taken only when somebody is free.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, ProcessPoolExecutor, wait
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def end_when(happened: Callable[[], object]) -> None:
    """End this process at once when `happened` returns, so that a killed run leaves nobody working."""

    def watch() -> None:
        happened()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def parent_gone(parent: int) -> None:
    """Return when the process that started this one is gone."""
    while os.getppid() == parent:
        time.sleep(0.5)


def as_command(work: Callable[[], int]) -> int:
    """Do the work of a command: ended by SIGTERM as by Ctrl-C, or with course.py; a failure is one sentence."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if os.environ.get("COURSE_PARENT") == str(os.getppid()):
        end_when(lambda parent=os.getppid(): parent_gone(parent))
    try:
        return work()
    except OSError as error:
        print(f"course.py: {error}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def begin_worker() -> None:
    """A worker loads papermill once (this takes seconds), leaves Ctrl-C to its parent, and ends when that is gone."""
    signal.signal(signal.SIGINT, lambda *_: None)
    parent = multiprocessing.parent_process()
    if parent:
        end_when(parent.join)
    import papermill  # noqa: F401


def single() -> ProcessPoolExecutor:
    """A pool of one process: if that is killed, no other run is lost."""
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), initializer=begin_worker)


def in_processes(
    work: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Iterator[tuple[Item, Result | None]]:
    """Processes on this computer, each taking one item after the other; one that was killed is replaced."""
    left = iter(items)
    free = [single() for _ in range(workers)]
    running: dict[Future[Result], tuple[Item, ProcessPoolExecutor]] = {}
    while True:
        running |= {pool.submit(work, item): (item, pool) for pool, item in zip(free, left)}  # noqa: B905
        if not running:
            return
        free = []
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            item, pool = running.pop(future)
            killed = isinstance(future.exception(), BrokenExecutor)
            free.append(single() if killed else pool)
            yield item, None if killed else future.result()


def kill_children() -> None:
    """End all processes that this one started, and theirs, at once."""
    import psutil

    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "resource_tracker" not in " ".join(process.cmdline()):
                process.kill()
