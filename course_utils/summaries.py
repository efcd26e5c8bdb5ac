"""What a sweep showed: one line for each run, and for each condition the mean over its seeds with a 95 % interval."""

import json
from pathlib import Path

from course_utils import outcomes
from course_utils.conditions import Condition, about
from course_utils.intervals import interval
from course_utils.report import Run, counts, write

Done = tuple[Condition, Run | None]  # None: not begun


def facts(condition: Condition) -> dict[str, str]:
    """The notebook and its parameters, as words for a table."""
    parameters = {name: str(value) for name, value in condition.parameters.items()}
    return {"notebook": condition.source.stem} | parameters


def varying(done: list[Done]) -> list[str]:
    """What differs between the runs: the parameters, or the notebook."""
    every = [facts(condition) for condition, _ in done]
    names = [name for name in every[0] if len({one[name] for one in every}) > 1]
    return names or ["notebook"]


def align(rows: list[list[str]], words: str) -> str:
    """A table for the terminal: the column `words` to the left, the others to the right; a last cell may stick out."""
    titles, *rest = rows
    whole = [titles, *(cells for cells in rest if len(cells) == len(titles))]
    widths = [max(map(len, column)) for column in zip(*whole, strict=True)]
    sides = [str.ljust if title == words else str.rjust for title in titles]
    lines = [[side(cell, width) for side, cell, width in zip(sides, cells, widths, strict=False)] for cells in rows]
    return "\n".join("  ".join(line).rstrip() for line in lines)


def table(done: list[Done]) -> str:
    """One line for each run: its parameters, what its outcome says, and how many claims hold, fail, are undecided."""
    names = varying(done)
    rows = [[*names, "seconds", "outcome", "hold", "fail", "undecided"]]
    for condition, run in done:
        start = [facts(condition)[name] for name in names]
        if run is None:
            rows.append([*start, "–", "not begun"])
        elif run.error:
            rows.append([*start, f"{run.seconds:.1f}", f"FAILED {run.error}"])
        else:
            rows.append([*start, f"{run.seconds:.1f}", outcomes.line(run.outcome) or "–", *counts(run)[:3]])
    return align(rows, "outcome")


def means(done: list[Done]) -> str:
    """Mean ± half-width of the 95 % Student interval over the seeds, for each number of each condition's outcome."""
    names = [name for name in varying(done) if name != "seed"]
    found: dict[tuple[str, ...], list[float]] = {}
    for condition, run in done:
        results = run.outcome if run and not run.error else {}
        for name, value in results.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                key = *(facts(condition)[n] for n in names), name
                found.setdefault(key, []).append(float(value))
    rows = [[*names, "result", "mean", "± 95 %", "runs"]]
    for key, values in found.items():
        mean, half = interval(values)
        rows.append([*key, f"{mean:.4g}", f"{half:.2g}" if len(values) > 1 else "–", str(len(values))])
    return align(rows, "result") if any(len(values) > 1 for values in found.values()) else ""


def refuted(done: list[Done]) -> list[str]:
    """One line for each claim that fails, and in how many runs."""
    failed: dict[tuple[str, ...], int] = {}
    for condition, run in done:
        for claim in run.claims if run else []:
            key = condition.source.stem, claim["id"], claim["sentence"]
            failed[key] = failed.get(key, 0) + (claim["verdict"] == "FAILS")
    return [f"{book}: claim {id_} FAILS in {n} runs: {sentence}" for (book, id_, sentence), n in failed.items() if n]


def keep(done: list[Done], path: Path) -> Path:
    """Everything in one file, a line of JSON for each run."""
    return write("".join(json.dumps(about(c, run), default=repr) + "\n" for c, run in done if run), path)
