"""Run notebooks, several at a time, and say what they showed: a table here, a page for the browser.

`python -m course_utils.batch --profile smoke --jobs 2 -p name=value notebooks/02_magnitude.ipynb …`
"""

import argparse
import ast
import dataclasses
import json
import subprocess
import sys
from functools import partial
from pathlib import Path

from course_utils.engines import as_command, in_processes, kill_children
from course_utils.execution import run_notebook
from course_utils.report import Run, good, page, table, write


def read(words: list[str]) -> dict[str, object]:
    """Parameters from words like `sparsity=0.5`."""
    pairs = (word.partition("=") for word in words)
    return {name: value_of(text) for name, _, text in pairs}


def value_of(text: str) -> object:
    """A number, a list, True, None, or else the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def refuse_unwritable(folder: Path) -> None:
    """Raise an OSError that says what to do if no file can be written here."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write("?", folder / "probe").unlink()
    except OSError as error:
        from course_utils.files import unwritable

        raise unwritable(folder, error) from error


def killed_run(name: str) -> Run:
    """What there is to say about a notebook whose process died itself."""
    return Run(name, 0.0, None, "before its end: its process was killed (was there too little memory?)", [])


def say(run: Run, count: str) -> None:
    """One line, written in one piece: workers write here too."""
    end = f"FAILED {run.error}" if run.error else "ends"
    print(f"  {run.name} {end} after {run.seconds:.0f} s {count}\n", end="", flush=True)


def run_all(sources: list[Path], folder: Path, parameters: dict[str, object], jobs: int) -> list[Run]:
    """Run notebooks in a few processes that each take one after the other, and say when each begins and ends."""
    runs, work = {}, partial(run_notebook, folder=folder, parameters=parameters)
    try:
        for source, run in in_processes(work, sources, jobs):
            runs[source] = run or killed_run(source.stem)
            say(runs[source], f"({len(runs)} of {len(sources)})")
    except KeyboardInterrupt:
        stop(folder)
        raise
    return [runs[source] for source in sources]


def stop(folder: Path) -> None:
    """End the workers and their kernels at once, and remove the notebooks that they had half done."""
    kill_children()
    for part in folder.glob(".*"):
        part.unlink(missing_ok=True)


def conclude(runs: list[Run], folder: Path, profile: str) -> int:
    """Write the page and its records, print the table, and return 0 if nothing failed."""
    write(json.dumps([dataclasses.asdict(run) for run in runs], indent=1), folder / "report.json")
    write(page(runs, profile), folder / "report.html")
    print(f"\n{table(runs)}\n\nOpen {folder / 'report.html'}")
    return 0 if all(good(run) for run in runs) else 1


def prepare() -> int:
    """Render the embedded data once, before the first notebook."""
    return subprocess.run([sys.executable, "-m", "course_utils.sources", "prepare"]).returncode


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """The words that course.py passes on, which has checked most of them."""
    parser = argparse.ArgumentParser("python -m course_utils.batch")
    parser.add_argument("--profile", default="smoke")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("-p", dest="parameters", action="append", default=[])
    parser.add_argument("--prepare", action="store_true")
    parser.add_argument("notebooks", nargs="+", type=Path)
    return parser.parse_args(argv)


def go_through(args: argparse.Namespace) -> int:
    """Run the notebooks, and say what they showed."""
    from course_utils.files import cache_root

    sources, folder = [path.resolve() for path in args.notebooks], cache_root() / "runs" / args.profile
    parameters = {**read(args.parameters), "profile": args.profile}
    refuse_unwritable(folder)
    if args.prepare and prepare():
        return 1
    return conclude(run_all(sources, folder, parameters, args.jobs), folder, args.profile)


def main(argv: list[str] | None = None) -> int:
    """Run the notebooks named on the command line; 1 if one fails or one of its claims does."""
    return as_command(partial(go_through, arguments(argv)))


if __name__ == "__main__":
    raise SystemExit(main())
