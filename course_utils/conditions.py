"""A condition of a sweep: a notebook with parameters, a place for its run, and a stamp of all that the run is of.

Workers read this module: it loads no PyTorch.
"""

import dataclasses
import json
import os
from pathlib import Path

from filelock import FileLock

from course_utils.execution import run_notebook
from course_utils.report import Run, write


@dataclasses.dataclass(frozen=True)
class Condition:
    """One notebook with its parameters; `folder` is where its run is kept, `stamp` changes with all that it is of."""

    source: Path
    parameters: dict[str, object]
    folder: Path
    stamp: str
    label: str


def finished(condition: Condition) -> Run | None:
    """The run that is kept, if it ran to its end and nothing has changed since."""
    try:
        kept = json.loads((condition.folder / "record.json").read_text(encoding="utf-8"))
        run = Run(**{field.name: kept[field.name] for field in dataclasses.fields(Run)})
    except (OSError, ValueError, KeyError, TypeError):
        return None
    whole = (condition.folder / condition.source.name).is_file()
    return run if whole and kept.get("stamp") == condition.stamp and not run.error else None


def perform(condition: Condition, surroundings: dict[str, str]) -> Run:
    """Run the notebook unless somebody just has; the record is written last, so what has one is whole."""
    os.environ.update(surroundings)
    condition.folder.mkdir(parents=True, exist_ok=True)
    with FileLock(condition.folder / ".lock"):
        if run := finished(condition):
            return run
        record = condition.folder / "record.json"
        record.unlink(missing_ok=True)
        run = run_notebook(condition.source, condition.folder, condition.parameters, condition.label)
        write(json.dumps(about(condition, run), indent=1, default=repr), record)
    return run


def about(condition: Condition, run: Run) -> dict[str, object]:
    """Everything about a run, for its record."""
    own = {"notebook": condition.source.stem, "parameters": condition.parameters, "stamp": condition.stamp}
    return own | dataclasses.asdict(run) | {"executed": str(condition.folder / condition.source.name)}
