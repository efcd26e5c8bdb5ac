"""Run notebooks for every combination of parameters, keep what is finished, and say what came out, seed by seed.

`python -m course_utils.sweep --profile smoke --jobs 2 -p seed=0 -p seed=1 notebooks/02_magnitude.ipynb …`
"""

import argparse
import importlib.util
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

from course_utils.batch import killed_run, prepare, refuse_unwritable, say, value_of
from course_utils.clusters import dask_client, in_dask
from course_utils.conditions import Condition, finished, perform
from course_utils.engines import as_command, in_processes, kill_children
from course_utils.report import Run
from course_utils.stamps import HOME, digest, stamp
from course_utils.summaries import Done, keep, means, refuted, table

CARRIED = re.compile(r"COURSE_(CACHE|DATA|QUIET)|HF_HUB_OFFLINE|JUPYTER_\w+|\w+_NUM_THREADS")  # to workers elsewhere


def axes(words: list[str]) -> dict[str, list[object]]:
    """The values of each parameter, from words like `seed=0`; each value once."""
    found: dict[str, dict[str, object]] = {}
    for name, _, text in (word.partition("=") for word in words):
        value = value_of(text)
        found.setdefault(name, {})[json.dumps(value, default=repr)] = value
    return {name: list(values.values()) for name, values in found.items()}


def conditions(sources: list[Path], values: dict[str, list[object]], profile: str, root: Path) -> list[Condition]:
    """Every notebook with every combination of the parameters."""
    every = [dict(zip(values, chosen, strict=True)) | {"profile": profile} for chosen in product(*values.values())]
    several = [name for name in values if len(values[name]) > 1]
    return [condition(source, parameters, several, root) for source in sources for parameters in every]


def condition(source: Path, parameters: dict[str, object], several: list[str], root: Path) -> Condition:
    """A notebook with one combination of parameters, in a folder of its own whose name people can read."""
    words = [f"{name}={value}" for name, value in sorted(parameters.items())]
    name = re.sub(r"[^\w.=+-]+", "_", " ".join(words))[:80]
    own = digest(json.dumps(parameters, sort_keys=True, default=repr))[:8]
    label = " ".join([source.stem, *(f"{name}={parameters[name]}" for name in several)])
    return Condition(source, parameters, root / source.stem / f"{name}-{own}", stamp(source, parameters), label)


def until(todo: list[Condition], minutes: float) -> Iterator[Condition]:
    """One after the other, as long as there is time."""
    began = time.monotonic()
    for one in todo:
        if time.monotonic() - began > 60 * minutes:
            return
        yield one


def stream(args: argparse.Namespace, todo: list[Condition], root: Path, stack: ExitStack) -> Iterator:
    """Conditions with their runs as they come, from the engine that was chosen."""
    carried = {name: value for name, value in os.environ.items() if CARRIED.fullmatch(name)}
    work, items = partial(perform, surroundings=carried), until(todo, args.minutes)
    workers = min(args.jobs, len(todo))
    if args.engine == "processes":
        return in_processes(work, items, workers)
    seen = [*args.notebooks, root]
    return in_dask(work, items, stack.enter_context(dask_client(workers, args.address, args.slurm, seen)))


def carry_out(args: argparse.Namespace, todo: list[Condition], root: Path) -> dict[Path, Run]:
    """Run these, and say when each begins and ends."""
    runs: dict[Path, Run] = {}
    try:
        with ExitStack() as stack:
            for one, run in stream(args, todo, root, stack):
                runs[one.folder] = run or killed_run(one.source.stem)
                say(replace(runs[one.folder], name=one.label), f"({len(runs)} of {len(todo)})")
    except KeyboardInterrupt:
        kill_children()
        raise
    return runs


def conclude(done: list[Done], root: Path) -> int:
    """Print the tables, write the file, and return 0 if no run failed."""
    books = list(dict.fromkeys(one.source.stem for one, _ in done))
    which = digest(*sorted(str(one.folder) for one, _ in done))[:8]
    file = keep(done, root / f"{'+'.join(books)[:80]}-{which}.jsonl")
    parts = [table(done), "\n".join(refuted(done)), means(done), f"All of it, a line of JSON for each run: {file}"]
    print("\n" + "\n\n".join(part for part in parts if part))
    return 1 if any(run and run.error for _, run in done) else 0


def root() -> Path:
    """Where sweeps are kept: in the cache (as files.cache_root says, which would load PyTorch)."""
    return Path(os.environ.get("COURSE_CACHE") or HOME.parent / ".course").expanduser().resolve() / "sweeps"


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """The words that course.py passes on, which has checked most of them."""
    parser = argparse.ArgumentParser("python -m course_utils.sweep")
    parser.add_argument("--profile", default="smoke")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--engine", default="processes")
    parser.add_argument("--address", default="")
    parser.add_argument("--slurm")
    parser.add_argument("-p", dest="parameters", action="append", default=[])
    parser.add_argument("--prepare", action="store_true")
    parser.add_argument("notebooks", nargs="+", type=Path)
    return parser.parse_args(argv)


def go_through(args: argparse.Namespace, root: Path) -> int:
    """What is finished is read, the rest is run."""
    refuse_unwritable(root)
    every = conditions([path.resolve() for path in args.notebooks], axes(args.parameters), args.profile, root)
    runs = {one.folder: finished(one) for one in every}
    todo = [one for one in every if not runs[one.folder]]
    print(f"{len(every) - len(todo)} of {len(every)} are up to date", flush=True)
    if todo and args.prepare and prepare():
        return 1
    runs |= carry_out(args, todo, root) if todo else {}
    return conclude([(one, runs[one.folder]) for one in every], root)


def main(argv: list[str] | None = None) -> int:
    """Sweep over what the command line names; 1 if a run failed."""
    args = arguments(argv)
    if args.engine == "dask" and not (importlib.util.find_spec("distributed") and importlib.util.find_spec("dask")):
        print('course.py: --engine dask needs an extra of the course: `pip install -e ".[dask]"`.', file=sys.stderr)
        return 2
    return as_command(lambda: go_through(args, root()))


if __name__ == "__main__":
    raise SystemExit(main())
