"""Verdicts: paired by parent, by Student's interval, against a margin; and what a batch and nbval get to see."""

import random

import pytest
import scipy.stats

from course_utils.claims import Claim, Question, interval, judge, ledger, refuted
from course_utils.profiles import LAPTOP, SMOKE
from course_utils.trials import Trial

CLAIM = Claim("00-a", "Cats beat dogs.", more={"who": "cat"}, less={"who": "dog"}, margin=0.1, profiles=("laptop",))


def trials(cats, dogs):
    values = {"cat": cats, "dog": dogs}
    pairs = [(w, i, v) for w, vs in values.items() for i, v in enumerate(vs)]
    return [Trial("k", {"who": w, "parent": i}, {"accuracy": v}, {}) for w, i, v in pairs]


def test_interval_is_scipys():
    source = random.Random(1)
    values = [source.gauss(0, 1) for _ in range(5)]
    low, high = scipy.stats.t.interval(0.95, 4, loc=sum(values) / 5, scale=scipy.stats.sem(values))
    mean, half = interval(values)
    assert (mean - half, mean + half) == pytest.approx((low, high))
    assert interval([1.0])[1] == float("inf")


@pytest.mark.parametrize(
    ("cats", "verdict", "answer"),
    [([0.9, 0.8, 0.7], "HOLDS", "YES"), ([0.5, 0.4, 0.3], "FAILS", "NO"), ([0.9, 0.4, 0.35], "UNDECIDED", "UNDECIDED")],
)
def test_verdicts(cats, verdict, answer):
    found = trials(cats, [0.5, 0.4, 0.29])
    question = Question(CLAIM.id, CLAIM.sentence, CLAIM.more, CLAIM.less, CLAIM.margin)
    assert judge(CLAIM, found, LAPTOP).verdict == verdict
    assert judge(question, found, LAPTOP).verdict == answer


def test_pairs_are_what_counts():
    """Parents differ by far more than the effect does; paired, it is decided all the same."""
    assert judge(CLAIM, trials([0.95, 0.55, 0.25], [0.8, 0.41, 0.1]), LAPTOP).verdict == "HOLDS"


def test_too_small_is_not_tested():
    assert judge(CLAIM, trials([0.9, 0.8, 0.7], [0.1, 0.1, 0.1]), SMOKE).verdict == "NOT TESTED"
    assert judge(CLAIM, trials([0.9, 0.8], [0.1, 0.1]), LAPTOP).verdict == "NOT TESTED"
    assert judge(CLAIM, [], LAPTOP).verdict == "NOT TESTED"


def test_a_plain_number_may_stand_on_either_side():
    found = trials([1.1, 1.2, 1.0], [])
    small = Claim("x", "s", more=1.5, less={"who": "cat"}, margin=0)
    large = Claim("x", "s", more={"who": "cat"}, less=1.5, margin=0)
    assert judge(small, found, LAPTOP).verdict == "HOLDS" and judge(large, found, LAPTOP).verdict == "FAILS"


def test_an_ambiguous_selection_is_an_error():
    with pytest.raises(ValueError, match="claim 00-a: .* selects several trials of one parent"):
        judge(Claim("00-a", "s", more={}, less=0.0), trials([1.0], [2.0]), LAPTOP)


def test_a_question_is_never_refuted_and_the_strict_text_has_no_numbers():
    found = trials([0.1, 0.1, 0.1], [0.5, 0.4, 0.3])
    question = Question("00-q", "Do they?", CLAIM.more, CLAIM.less)
    text = refuted([judge(CLAIM, found, LAPTOP), judge(question, found, LAPTOP)])
    assert text == "00-a Cats beat dogs. refuted"
    assert refuted([judge(CLAIM, found, SMOKE)]) == "00-a Cats beat dogs. not refuted"


def test_the_ledger_leaves_records_for_machines(monkeypatch):
    shown = []
    monkeypatch.setattr("course_utils.claims.display", lambda bundle, raw: shown.append(bundle))
    ledger([judge(CLAIM, trials([0.9, 0.8, 0.7], [0.1, 0.1, 0.1]), LAPTOP)])
    record = shown[0]["application/vnd.course.claims+json"][0]
    assert record["verdict"] == "HOLDS" and record["id"] == "00-a" and record["kind"] == "claim"
    assert "<caption>" in shown[0]["text/html"] and "HOLDS" in shown[0]["text/plain"]
