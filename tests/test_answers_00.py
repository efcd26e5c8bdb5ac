"""The bank of wrong answers of notebook 00, and predictions."""

import numpy as np
import pytest

from course_utils.answers_00 import speedup
from course_utils.exercises import judged, predict, reveal

BANK = {
    "Upside down": lambda b, a: np.median(a) / np.median(b),
    "take the mean": lambda b, a: float(np.mean(b) / np.mean(a)),
    "fastest pass": lambda b, a: sorted(b)[0] / sorted(a)[0],
    "time saved": lambda b, a: float((np.median(b) - np.median(a)) / np.median(b)),
    "difference in milliseconds": lambda b, a: float(np.median(b) - np.median(a)),
    "average the ratios": lambda b, a: float(np.mean(np.array(b) / np.array(a))),
    "Per cent": lambda b, a: float(np.median(b) / np.median(a)) * 100,
}


@pytest.mark.parametrize("words", BANK)
def test_a_wrong_answer_gets_its_own_hint(words):
    state, sentence = judged(speedup, BANK[words])
    assert state == "wrong" and words in sentence, sentence


def test_right_and_open():
    assert judged(speedup, lambda b, a: float(np.quantile(b, 0.5) / np.quantile(a, 0.5)))[0] == "right"
    assert judged(speedup, lambda b, a: None)[0] == "open"


def test_a_prediction_never_stops_a_batch(capsys):
    predict("How many?")
    predict("How many?", 3)
    reveal(None, 2.0, "×")
    reveal(3, 2.0, "×")
    out = capsys.readouterr().out
    assert "No guess yet" in out and "Your guess: 3" in out and "You guessed 3×; measured: 2×." in out
