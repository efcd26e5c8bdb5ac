"""A claim is a sentence that the machine checks after it ran: HOLDS, FAILS, UNDECIDED or NOT TESTED.

It says that `more` is larger than `less` by over `margin`, in the mean over independently trained parents.
A question is open: it is answered YES, NO or UNDECIDED, and no answer is wrong.
"""

import html
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

from IPython.display import display

from course_utils.intervals import interval
from course_utils.profiles import Profile
from course_utils.trials import Trial, select

ANSWERS = {"claim": ("HOLDS", "FAILS"), "question": ("YES", "NO")}


@dataclass(frozen=True)
class Claim:
    """`more` and `less` are inputs that select trials, or plain numbers; they are compared on the result `measure`."""

    id: str
    sentence: str
    more: dict | float
    less: dict | float
    margin: float = 0.0
    measure: str = "accuracy"
    profiles: tuple[str, ...] = ("smoke", "laptop", "full")
    parents: int = 3
    pair: str = "parent"
    kind: str = field(default="claim", init=False)


@dataclass(frozen=True)
class Question(Claim):
    """An open question in the same form; YES and NO are both good answers."""

    kind: str = field(default="question", init=False)


@dataclass(frozen=True)
class Verdict:
    """What came out, with the mean difference and its 95 % interval in words."""

    id: str
    sentence: str
    verdict: str
    kind: str
    detail: str


def judge(claim: Claim, trials: Iterable[Trial], sizes: Profile) -> Verdict:
    """Compare parent by parent, and see on which side of the margin the interval lies."""
    gaps = differences(claim, list(trials))
    if sizes.name not in claim.profiles or len(gaps) < claim.parents:
        why = f"{len(gaps)} of {claim.parents} parents" if sizes.name in claim.profiles else f"profile {sizes.name}"
        return Verdict(claim.id, claim.sentence, "NOT TESTED", claim.kind, f"too small to tell: {why}")
    mean, half = interval(gaps)
    yes, no = ANSWERS[claim.kind]
    verdict = yes if mean - half > claim.margin else no if mean + half < claim.margin else "UNDECIDED"
    detail = f"difference {mean:+.3f} ± {half:.3f}, margin {claim.margin:+.3f}, {len(gaps)} parents"
    return Verdict(claim.id, claim.sentence, verdict, claim.kind, detail)


def differences(claim: Claim, trials: list[Trial]) -> list[float]:
    """more - less for every parent that has both."""
    more, less = (side(s, claim, trials) for s in (claim.more, claim.less))
    keys = [k for s in (more, less) if isinstance(s, dict) for k in s]
    both = [k for k in dict.fromkeys(keys) if all(not isinstance(s, dict) or k in s for s in (more, less))]
    return [at(more, k) - at(less, k) for k in both]


def side(selection: dict | float, claim: Claim, trials: list[Trial]) -> dict | float:
    """One side of a claim: a number as it is, or the measured values by parent."""
    if not isinstance(selection, dict):
        return selection
    found = select(trials, **selection)
    values = {t.inputs[claim.pair]: t.results[claim.measure] for t in found}
    if len(values) < len(found):
        raise ValueError(f"claim {claim.id}: {selection} selects several trials of one {claim.pair}")
    return values


def at(values: dict | float, key: object) -> float:
    """The value of one parent; a plain number is the same for all."""
    return values[key] if isinstance(values, dict) else values


def ledger(verdicts: list[Verdict]) -> None:
    """Show the verdicts as a table, and leave them in the notebook for machines to read."""
    left = "style='text-align:left'"
    rows = ""
    for v in verdicts:
        values = (html.escape(v.sentence), f"<b>{v.verdict}</b>", html.escape(v.detail))
        head = f"<th scope='row' style='white-space:nowrap'>{v.id}</th>"
        rows += f"<tr>{head}{''.join(f'<td {left}>{value}</td>' for value in values)}</tr>"
    head = "".join(f"<th scope='col' {left}>{title}</th>" for title in ("id", "sentence", "verdict", "measured"))
    table = f"<table><caption>Claims and questions</caption><tr>{head}</tr>{rows}</table>"
    plain = "\n".join(f"{v.id} {v.verdict}: {v.sentence} ({v.detail})" for v in verdicts)
    records = [asdict(v) for v in verdicts]
    display({"text/html": table, "text/plain": plain, "application/vnd.course.claims+json": records}, raw=True)


def refuted(verdicts: list[Verdict]) -> str:
    """One line per claim, the same on every computer unless a claim fails."""
    lines = [(v, "refuted" if v.verdict == "FAILS" else "not refuted") for v in verdicts if v.kind == "claim"]
    return "\n".join(f"{v.id} {v.sentence} {word}" for v, word in lines)
