"""A plan says what goes from every group: channels by one ratio, and heads and their dimensions by ratios of their own.

The scope is a function of scores and sparsity, as everywhere: `layerwise`, `globally`, or `by_kind(kinds)`.
"""

from collections.abc import Callable
from functools import partial

from course_utils.kinds import isomorphically
from course_utils.masks import Masks
from course_utils.scopes import at_least, rounded
from course_utils.scores import Scores

Ratios = dict[str, float]
ENDINGS = (".heads", ".dims")  # of the names of an attention's two groups


def by_kind(kinds: dict[str, str]) -> Callable[[Scores, float], Masks]:
    """The isomorphic scope as a function of scores and sparsity."""
    return partial(isomorphically, kinds=kinds)


def parts(scores: Scores, ratios: Ratios) -> dict[str, Scores]:
    """The scores by the ratio that is meant for them: "heads", "dims", and "channels" for what has none of its own."""
    found: dict[str, Scores] = {}
    for name, s in scores.items():
        own = next((end[1:] for end in ENDINGS if name.endswith(end) and end[1:] in ratios), "channels")
        found.setdefault(own, {})[name] = s
    return found


def planned(scores: Scores, ratios: Ratios, scope: Callable, floor: int = 1, multiple: int = 1) -> Masks:
    """Masks that remove the ratios["channels"] of the channels, …; heads know no floor but 1, and are not rounded."""
    masks: Masks = {}
    for part, rivals in parts(scores, ratios).items():
        least = 1 if part == "heads" else floor
        for name, s in rivals.items():
            if len(s) < least:
                raise ValueError(f"a floor of {floor} does not fit {name}, which has only {len(s)}: take a lower one")
        try:
            chosen = scope(at_least(rivals, least), ratios[part])
        except ValueError as error:
            few = min(rivals, key=lambda name: len(rivals[name]))
            reason = f"would empty a group such as {few}, which has {len(rivals[few])}, where {least} must stay"
            raise ValueError(f"the ratio {ratios[part]} for {part} {reason}: take a smaller one") from error
        masks |= chosen if part == "heads" else rounded(chosen, rivals, multiple)
    return {name: masks[name] for name in scores}
