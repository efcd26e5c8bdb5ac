"""Where a curve goes besides the notebook: nowhere, unless you choose a sink. A sink is a function of (run, rows)."""

import importlib
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType

from course_utils.files import cache_root

Rows = list[dict[str, float]]  # each with a "step", and numbers by name
Sink = Callable[[str, Rows], str]


def send(rows: Iterable[dict[str, float]], run: str, sink: Sink) -> str:
    """Give the rows of one run to a sink; returns a sentence that says where they are."""
    rows = list(rows)
    for row in rows:
        if not isinstance(row.get("step"), int):
            raise ValueError(f"every row needs a whole number as its step, and {row} has {row.get('step')!r}")
    return sink(run, rows)


def nowhere(run: str, rows: Rows) -> str:
    """The default: nothing is written, nothing is needed."""
    return f"{len(rows)} rows of {run} went nowhere: choose another sink to keep them"


def tensorboard(run: str, rows: Rows) -> str:
    """An event file that `tensorboard --logdir` shows."""
    needed("tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    folder = folder_of("tensorboard", run)
    with SummaryWriter(str(folder)) as writer:
        for row in rows:
            for name in row.keys() - {"step"}:
                writer.add_scalar(name, row[name], row["step"])
    return f"see it with: tensorboard --logdir {folder.parent}"


def wandb_offline(run: str, rows: Rows) -> str:
    """A run of Weights & Biases that stays on this computer until you sync it yourself."""
    folder = folder_of("wandb", run)
    folder.mkdir(parents=True, exist_ok=True)
    with needed("wandb").init(project="pruning-proven", name=run, dir=str(folder), mode="offline") as current:
        for row in sorted(rows, key=step_of):  # it drops steps that go back
            current.log({name: value for name, value in row.items() if name != "step"}, step=int(row["step"]))
    return f"upload it, if you want to, with: wandb sync {folder / 'wandb'}/offline-run-*"


def step_of(row: dict[str, float]) -> float:
    """The row's step."""
    return row["step"]


def folder_of(sink: str, run: str) -> Path:
    """A folder for this run, under a name that every system allows."""
    return cache_root() / sink / "".join(letter if letter.isalnum() else "-" for letter in run)


def needed(package: str) -> ModuleType:
    """The package, or one sentence that says how to get it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ValueError(
            f"this sink needs {package}: install it with `pip install {package}`, or choose nowhere"
        ) from error
