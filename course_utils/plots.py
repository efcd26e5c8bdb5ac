"""One look for all figures: colours that everybody can tell apart, markers too, and words for those who cannot see."""

import base64
import html
import inspect
import io
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from cycler import cycler
from IPython.display import Code, display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from course_utils.claims import interval
from course_utils.files import ROOT
from course_utils.trials import Trial

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito's palette
MARKERS = "osD^vPX"
FIGURES = ROOT / "figures"
STYLE: dict[Any, Any] = {
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3, "font.size": 11,
    "axes.prop_cycle": cycler(color=COLOURS), "figure.constrained_layout.use": True, "legend.frameon": False,
}  # fmt: skip


def new_figure(width: float = 7, height: float = 4, **grid: Any) -> tuple[Figure, Any]:
    """An empty figure in the course's style; `ncols=2` makes two axes."""
    with plt.rc_context(STYLE):
        return plt.subplots(figsize=(width, height), **grid)


def draw(figure: Figure, alt: str) -> None:
    """Show `figure` with an alternative text that says what is to be seen; then close it."""
    if len(alt.split()) < 5:
        raise ValueError(f"say in a sentence what the figure shows, for those who cannot see it; {alt!r} is too short")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    plt.close(figure)
    image = base64.b64encode(buffer.getvalue()).decode()
    words = html.escape(alt, quote=True)
    tag = f'<figure style="margin:0"><img alt="{words}" style="max-width:100%" src="data:image/png;base64,{image}">'
    whole = f"{tag}<figcaption><small>{words}</small></figcaption></figure>"
    display({"text/html": whole, "text/plain": alt}, raw=True)


def show(definition: Callable) -> None:
    """The source of a function, as it stands in the package."""
    display(Code(inspect.getsource(definition), language="python"))


def table(rows: list[dict], caption: str) -> None:
    """Rows of values under named columns; the first column heads its row."""
    columns = list(rows[0])
    head = "".join(f"<th scope='col'>{html.escape(str(c))}</th>" for c in columns)
    body = ""
    for row in rows:
        first, *others = (html.escape(str(row[c])) for c in columns)
        body += f"<tr><th scope='row'>{first}</th>" + "".join(f"<td>{value}</td>" for value in others) + "</tr>"
    plain = "\n".join("  ".join(str(value) for value in values) for values in [columns, *(r.values() for r in rows)])
    whole = f"<table><caption>{html.escape(caption)}</caption><tr>{head}</tr>{body}</table>"
    display({"text/html": whole, "text/plain": plain}, raw=True)


def curves(axes: Axes, trials: Iterable[Trial], x: str, y: str, by: str) -> None:
    """Mean of the result `y` over parents against the input `x`, one line per value of `by`, with 95 % intervals."""
    trials = list(trials)
    for i, name in enumerate(dict.fromkeys(t.inputs[by] for t in trials)):
        mine = [t for t in trials if t.inputs[by] == name]
        places = sorted({t.inputs[x] for t in mine})
        stats = [interval([t.results[y] for t in mine if t.inputs[x] == place]) for place in places]
        means, halves = zip(*stats, strict=True)
        halves = [h if h < float("inf") else 0 for h in halves]
        shifted = [place + 0.004 * (i - 1) for place in places]  # side by side, so that bars do not hide each other
        axes.errorbar(shifted, means, halves, label=name, color=COLOURS[i], marker=MARKERS[i], capsize=3)
    axes.legend()


def contact_sheet(images: Tensor, titles: Iterable[str], columns: int, alt: str) -> None:
    """A grid of pictures with a title each."""
    titles = list(titles)
    rows = -(-len(titles) // columns)
    figure, axes = new_figure(1.1 * columns, 1.3 * rows, nrows=rows, ncols=columns, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, image, title in zip(axes.flat, images, titles, strict=False):
        axis.imshow(image.permute(1, 2, 0).squeeze().cpu(), cmap="gray")
        axis.set_title(title, fontsize=8)
    draw(figure, alt)


def confusion(truth: Tensor, guesses: Tensor, classes: tuple[str, ...], alt: str) -> None:
    """How often each class (row) was called what (column)."""
    counts = torch.zeros(len(classes), len(classes), dtype=torch.long)
    counts.index_put_((truth.cpu(), guesses.cpu()), torch.tensor(1), accumulate=True)
    figure, axes = new_figure(6, 5.5)
    axes.imshow(counts, cmap="Blues")
    axes.grid(False)
    axes.set_xticks(range(len(classes)), classes, rotation=60, ha="right")
    axes.set_yticks(range(len(classes)), classes)
    axes.set(xlabel="what the network said", ylabel="what it was")
    for i, j in (counts > 0).nonzero().tolist():
        colour = "white" if counts[i, j] > counts.max() / 2 else "black"
        axes.text(j, i, str(int(counts[i, j])), ha="center", va="center", fontsize=8, color=colour)
    draw(figure, alt)


def reference(name: str, alt: str) -> dict | None:
    """Show the reference picture figures/NAME.png and return its records; say so if there is none yet."""
    picture, records = FIGURES / f"{name}.png", FIGURES / f"{name}.json"
    if not (picture.is_file() and records.is_file()):
        print(f"There is no reference run yet: figures/{name}.png and .json are absent. Nothing is shown in its place.")
        return None
    image = base64.b64encode(picture.read_bytes()).decode()
    words = html.escape(alt, quote=True)
    display({"text/html": f'<img alt="{words}" src="data:image/png;base64,{image}">', "text/plain": alt}, raw=True)
    return json.loads(records.read_text(encoding="utf-8"))


def save_reference(figure: Figure, name: str, records: dict, folder: Path = FIGURES) -> None:
    """Write a reference picture and the records that it was drawn from."""
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
    figure.savefig(folder / f"{name}.png", dpi=100)
    plt.close(figure)
