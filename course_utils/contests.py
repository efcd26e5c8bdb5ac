"""Who competes with whom in notebook 07, and in which order: what comes first is what every profile can afford.

With three networks, the first level of most pairs makes 33 trials (`smoke`); with all levels and the others it is 300.
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Contest:
    """Who competes in notebook 07: the `pairs` (criterion, scope) at every level, then the `others` at the first."""

    pairs: tuple[tuple[str, str], ...]
    levels: tuple[float, ...]  # sparsities, the most telling first
    others: tuple[tuple[str, str], ...] = ()

    def rounds(self, parents: Iterable[int]) -> list[dict]:
        """All that is to be tried, in order: every prefix treats all pairs alike."""
        blocks = [(level, self.pairs) for level in self.levels] + [(self.levels[0], self.others)]
        return [
            {"sparsity": level, "parent": parent, "criterion": criterion, "scope": scope}
            for level, pairs in blocks
            for parent in parents
            for criterion, scope in pairs
        ]


WEIGHTS = Contest(
    pairs=(
        ("magnitude", "LAMP"), ("magnitude", "LAMP, shuffled"), ("magnitude", "global"), ("magnitude", "layer-wise"),
        ("Wanda", "LAMP"), ("OBD", "global"), ("OBS", "global"), ("Taylor", "global"), ("chance", "global"),
    ),
    levels=(0.75, 0.5, 0.875, 0.9375, 0.25, 0.96875),  # 4, 2, 8, 16, 1.3 and 32 times fewer weights
    others=(
        ("magnitude", "ERK"), ("Wanda", "layer-wise"), ("Wanda", "row-wise"), ("Wanda", "global"), ("Wanda", "ERK"),
        ("Taylor", "layer-wise"), ("Taylor", "LAMP"), ("Taylor", "ERK"), ("OBD", "layer-wise"), ("OBD", "LAMP"),
        ("OBD", "ERK"), ("OBS", "layer-wise"), ("OBS", "LAMP"), ("OBS", "ERK"), ("SparseGPT", "layer-wise"),
        ("chance", "LAMP"), ("chance", "ERK"),
    ),
)  # fmt: skip
UNITS = Contest(
    pairs=(("scaling", "layer-wise"), ("zeros", "layer-wise"), ("LASSO", "layer-wise"), ("chance", "layer-wise")),
    levels=(0.5, 0.25, 0.125, 0.375, 0.625, 0.75),
    others=(
        ("scaling", "global"), ("zeros", "global"), ("LASSO", "global"), ("ThiNet", "layer-wise"),
        ("norm", "layer-wise"),
    ),
)  # fmt: skip
TUNED = (  # trained on after the cut; "nothing" is the dense network, trained on for as long
    ("magnitude", "LAMP"), ("magnitude", "LAMP, shuffled"), ("magnitude", "layer-wise"), ("magnitude", "global"),
    ("Wanda", "LAMP"), ("OBS", "global"), ("chance", "global"), ("scaling", "layer-wise"), ("LASSO", "layer-wise"),
    ("nothing", "global"),
)  # fmt: skip
