"""What a batch of notebooks showed: one record per notebook, a table for the terminal, a page for the browser."""

import html
import platform
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

HEAD = ("notebook", "seconds", "MiB", "hold", "fail", "undecided", "not tested", "questions")
VERDICTS = ("HOLDS", "FAILS", "UNDECIDED", "NOT TESTED")

STYLE = """
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1b1b1b;
       background: #fff }
table { border-collapse: collapse; margin: 1rem 0 } caption { text-align: left; font-weight: 600; padding: .3rem 0 }
th, td { border: 1px solid #767676; padding: .3rem .7rem; text-align: left; vertical-align: top }
td.n { text-align: right; font-variant-numeric: tabular-nums }
a { color: #0b4a9e } .bad { color: #9c1616; font-weight: 700 } .wide { overflow-x: auto }
"""


@dataclass(frozen=True)
class Run:
    """One executed notebook; `error` is empty when it ran to its end, `claims` as its claims cells displayed them."""

    name: str
    seconds: float
    mebibytes: int | None
    error: str
    claims: list[dict[str, str]]
    outcome: dict[str, object] = field(default_factory=dict)


def counts(run: Run) -> list[str]:
    """How many claims hold, fail, are undecided, are not tested; and questions answered of those asked."""
    found = [claim["verdict"] for claim in run.claims if claim["kind"] == "claim"]
    asked = [claim["verdict"] for claim in run.claims if claim["kind"] == "question"]
    return [*(str(found.count(v)) for v in VERDICTS), f"{sum(v in ('YES', 'NO') for v in asked)}/{len(asked)}"]


def row(run: Run) -> list[str]:
    """One line of the table; of a notebook that stopped, why."""
    start = [run.name, f"{run.seconds:.1f}", str(run.mebibytes or "–")]
    return [*start, f"FAILED {run.error}"] if run.error else [*start, *counts(run)]


def good(run: Run) -> bool:
    """Did it run to its end, and does no claim fail?"""
    return not run.error and all(claim["verdict"] != "FAILS" for claim in run.claims)


def table(runs: list[Run]) -> str:
    """The table for the terminal; below it what failed."""
    rows = [list(HEAD), *(row(run) for run in runs)]
    widths = [max(len(cells[i]) for cells in rows if len(cells) == len(HEAD)) for i in range(len(HEAD))]
    lines = ["  ".join([c[0].ljust(widths[0]), *map(str.rjust, c[1:], widths[1:])]) for c in rows]
    failed = [(run.name, claim) for run in runs for claim in run.claims if claim["verdict"] == "FAILS"]
    return "\n".join([*lines, *(f"{name}: claim {claim['id']} FAILS: {claim['sentence']}" for name, claim in failed)])


def page(runs: list[Run], profile: str) -> str:
    """The whole page, self-contained: the table, and every claim with its verdict."""
    body = [f"<h1>Pruning, Proven: what your run showed ({html.escape(profile)})</h1>", f"<p>{about()}</p>"]
    body += [grid("All notebooks", HEAD, [summary(run) for run in runs])]
    for run in runs:
        body += [f"<h2>{html.escape(run.name)}</h2>"] if run.claims else []
        cells = [[head(c["id"]), cell(c["sentence"]), verdict(c["verdict"])] for c in run.claims]
        body += [grid(f"Claims and questions of {run.name}", ("id", "sentence", "verdict"), cells)] if cells else []
    title = f"<title>Pruning, Proven: {html.escape(profile)}</title><style>{STYLE}</style>"
    sight = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    main = "\n".join(["<main>", *body, "</main>"])
    return f'<!doctype html>\n<html lang="en"><head>{sight}{title}</head>\n<body>{main}</body></html>\n'


def about() -> str:
    """When, where and with what."""
    parts = [f"{name} {version(name)}" for name in ("torch", "torchvision", "timm", "numpy")]
    where = [f"Python {platform.python_version()}", platform.platform(terse=True)]
    return html.escape(", ".join([datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"), *where, *parts]))


def grid(caption: str, names: tuple[str, ...], rows: list[list[str]]) -> str:
    """A table whose first row and first column are headers."""
    top = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in names)
    rest = "\n".join(f"<tr>{''.join(cells)}</tr>" for cells in rows)
    return (
        f'<div class="wide" role="region" aria-label="{html.escape(caption)}" tabindex="0"><table>'
        f"<caption>{html.escape(caption)}</caption><thead><tr>{top}</tr></thead>\n<tbody>{rest}</tbody></table></div>"
    )


def summary(run: Run) -> list[str]:
    """One line of the first table; the name leads to the executed notebook."""
    name = html.escape(run.name)
    first = f'<th scope="row"><a href="{name}.html">{name}</a></th>'
    rest = [cell(text, "n") for text in row(run)[1:]]
    why = f'<td class="bad" colspan="5">{html.escape(row(run)[-1])}</td>'
    return [first, *rest[:2], why] if run.error else [first, *rest]


def head(text: str) -> str:
    """A cell that names its row."""
    return f'<th scope="row">{html.escape(text)}</th>'


def cell(text: str, kind: str = "") -> str:
    """An ordinary cell."""
    return f'<td class="{kind}">{html.escape(text)}</td>' if kind else f"<td>{html.escape(text)}</td>"


def verdict(text: str) -> str:
    """A verdict; what fails stands out, and not by its colour alone."""
    return cell(text, "bad" if text == "FAILS" else "")


def write(text: str, path: Path) -> Path:
    """Write a file whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    return part.replace(path)
