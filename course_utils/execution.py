"""One notebook in a fresh kernel: executed by papermill, kept with a page of HTML, and what it showed."""

import contextlib
import json
import threading
import time
from collections.abc import Generator
from pathlib import Path

from course_utils import outcomes
from course_utils.report import Run, write

MIME = "application/vnd.course.claims+json"


def execute(source: Path, target: Path, parameters: dict[str, object]) -> str:
    """Execute one notebook into `target`, and return what went wrong: nothing, if all is well."""
    import papermill
    from nbclient.exceptions import DeadKernelError
    from traitlets.config import Config

    private = Config(KernelManager={"transport_encryption": "auto"})
    try:
        papermill.execute_notebook(
            source, target, parameters, cwd=source.parent, kernel_name="python3", progress_bar=False, config=private
        )
    except papermill.PapermillExecutionError as error:
        return first_line(f"in cell [{error.exec_count}]: {error.ename}: {error.evalue}")
    except DeadKernelError:
        return f"in cell [{begun(target)}]: the kernel died (was there too little memory?)"
    except Exception as error:  # whatever it is: the other notebooks go on, and the table shows it
        return first_line(f"before its end: {type(error).__name__}: {error}")
    return ""


def first_line(text: str) -> str:
    """The first line, cut to a length that a table can bear."""
    return text.strip().splitlines()[0][:300]


def begun(target: Path) -> int:
    """How many code cells had begun when the kernel died."""
    cells = json.loads(target.read_text(encoding="utf-8"))["cells"]
    return sum(c["cell_type"] == "code" and bool(c["metadata"]["papermill"]["start_time"]) for c in cells)


@contextlib.contextmanager
def peak_memory() -> Generator[dict[str, int]]:
    """Watches the kernel and its children; "MiB" is the most that they were seen to hold together."""
    import psutil

    seen, done = {"MiB": 0}, threading.Event()

    def watch() -> None:
        while not done.wait(0.25):
            with contextlib.suppress(psutil.Error):
                held = sum(child.memory_info().rss for child in psutil.Process().children(recursive=True))
                seen["MiB"] = max(seen["MiB"], held >> 20)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield seen
    finally:
        done.set()


def shown(notebook: Path, mime: str) -> list:
    """What a notebook's cells displayed for machines to read, in this form."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    data = [output.get("data", {}) for cell in cells for output in cell.get("outputs", [])]
    return [each[mime] for each in data if mime in each]


def claims_in(notebook: Path) -> list[dict[str, str]]:
    """The claims and questions that a notebook displayed; of one shown twice, the later."""
    return list({claim["id"]: claim for claims in shown(notebook, MIME) for claim in claims}.values())


def outcome_in(notebook: Path) -> dict[str, object]:
    """The results that a notebook displayed as its outcome; of one shown twice, the later."""
    return {name: value for results in shown(notebook, outcomes.MIME) for name, value in results.items()}


def as_html(notebook: Path, home: Path) -> str:
    """An executed notebook as one page of HTML, its pictures inside; relative paths in it start at `home`."""
    import nbformat
    from nbconvert import HTMLExporter

    node = nbformat.read(notebook, as_version=4)
    resources = {"metadata": {"name": notebook.stem, "path": str(home)}}
    return HTMLExporter(embed_images=True).from_notebook_node(node, resources)[0]


def run_notebook(source: Path, folder: Path, parameters: dict[str, object], label: str = "") -> Run:
    """Execute one notebook into a folder, as far as it goes, and return what it showed."""
    print(f"  {label or source.stem} starts\n", end="", flush=True)
    part, kept = folder / f".{source.name}", folder / source.name
    start, claims, results = time.perf_counter(), [], {}
    try:
        part.unlink(missing_ok=True)
        with peak_memory() as memory:
            error = execute(source, part, parameters)
        seconds = time.perf_counter() - start
        part.replace(kept)
        claims, results = claims_in(kept), outcome_in(kept)
        write(as_html(kept, source.parent), kept.with_suffix(".html"))
    except (OSError, KeyError, ValueError) as problem:
        error, seconds = error or f"after its end: {problem}", time.perf_counter() - start
    return Run(source.stem, seconds, memory["MiB"] or None, error, claims, results)
