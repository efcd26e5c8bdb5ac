"""A trial is one finished run: what went in, what came out, where. Trials are appended to a file, one JSON line each.

A killed run goes on where it stopped, and a finished trial is never repeated as long as its key stays the same.
"""

import json
import os
import platform
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import FunctionType

import torch

from course_utils.files import ROOT, cache_root, locked, unwritable
from course_utils.keys import key_of
from course_utils.profiles import Profile
from course_utils.progress import counted

STARTED = time.monotonic()


@dataclass(frozen=True)
class Trial:
    """One finished run."""

    key: str
    inputs: dict
    results: dict
    where: dict


def store(notebook: str, sizes: Profile) -> Path:
    """The file of a notebook's trials in this profile."""
    return cache_root() / "trials" / f"{notebook}-{sizes.name}.jsonl"


def collect(work: FunctionType, conditions: list[dict], place: Path, minutes: float = float("inf")) -> list[Trial]:
    """work(**inputs) for every condition, in order; finished ones are read, and nothing new begins after `minutes`."""
    finished = {trial.key: trial for trial in read(place)}
    trials = []
    for inputs in counted(conditions, len(conditions), "trial"):
        key = key_of(work, inputs)
        if key not in finished and time.monotonic() - STARTED > 60 * minutes:
            break
        trials.append(finished.get(key) or remember(work, inputs, key, place))
    return trials


def remember(work: FunctionType, inputs: dict, key: str, place: Path) -> Trial:
    """Run one trial and append it, unless another process has just done so."""
    turn = place.with_name(f".{place.stem}-{key}")
    with locked(turn):
        trial = next((t for t in read(place) if t.key == key), None)
        if trial is None:
            trial = run(work, inputs, key)
            append(trial, place)
    with suppress(OSError):  # another process may be waiting for its turn
        turn.with_name(turn.name + ".lock").unlink()
    return trial


def run(work: FunctionType, inputs: dict, key: str) -> Trial:
    """work(**inputs) as a trial, in the form in which it will be read again (tuples become lists)."""
    began = time.perf_counter()
    results = work(**inputs)
    seconds = round(time.perf_counter() - began, 3)
    return Trial(**json.loads(json.dumps(asdict(Trial(key, inputs, results | {"seconds": seconds}, where())))))


def append(trial: Trial, place: Path) -> None:
    """Add one line, whole or not at all."""
    data = (json.dumps(asdict(trial)) + "\n").encode()
    with locked(place), place.open("ab", buffering=0) as file:
        size = file.tell()
        if size and place.read_bytes()[-1:] != b"\n":
            data = b"\n" + data  # the last writer was killed in the middle of a line
        try:
            if file.write(data) != len(data):
                raise OSError("the disk is full")
            os.fsync(file.fileno())
        except OSError as error:
            file.truncate(size)
            raise unwritable(place, error) from error


def read(place: Path) -> list[Trial]:
    """All whole lines of a file of trials."""
    if not place.exists():
        return []
    trials = []
    for line in place.read_text(encoding="utf-8").splitlines():
        try:
            trials.append(Trial(**json.loads(line)))
        except (ValueError, TypeError):  # half a line of a killed process: that trial was not finished
            continue
    return trials


def select(trials: Iterable[Trial], **inputs) -> list[Trial]:
    """The trials with these inputs."""
    wanted = json.loads(json.dumps(inputs))
    return [t for t in trials if all(t.inputs.get(name) == value for name, value in wanted.items())]


def stale(place: Path, trials: list[Trial]) -> int:
    """How many records in the file were made by other code, data or inputs: they are kept, and never used."""
    used = {trial.key for trial in trials}
    return sum(trial.key not in used for trial in read(place))


@cache
def where() -> dict:
    """Versions, processor, threads and commit: where a result comes from."""
    versions = {"python": platform.python_version()}
    versions |= {name: version(name) for name in ("torch", "torchvision", "timm")}
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    machine = {"system": platform.system(), "processor": platform.machine(), "cores": os.cpu_count(), "gpu": gpu}
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return versions | machine | {"threads": torch.get_num_threads(), "commit": commit(), "started": now}


def commit() -> str:
    """The first digits of the current git commit, if there is one."""
    try:
        run = subprocess.run(["git", "rev-parse", "--short=10", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    except OSError:
        return "unknown"
    return run.stdout.strip() or "unknown"


def footer(sizes: Profile, data_checksum: str, place: Path, trials: list[Trial]) -> str:
    """The provenance of a notebook's results, as text."""
    lines = [f"profile: {sizes.name}", f"data: {data_checksum}"]
    lines += [f"{name}: {value}" for name, value in where().items() if value is not None]
    lines.append(f"trials: {len(trials)} used, {stale(place, trials)} stale in {place.name} (never reused)")
    lines.append(f"minutes since the kernel started: {(time.monotonic() - STARTED) / 60:.1f}")
    return "\n".join(lines)
