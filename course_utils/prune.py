"""Make any network smaller: score the groups of its channels, plan, remove, and write the small network as a file.

`python course.py prune NETWORK --ratio 0.5 --out FILE` calls this.
"""

import argparse
import copy
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path

from torch import Tensor, nn
from torch_pruning.utils import count_ops_and_params

from course_utils import dist, shrunken
from course_utils.channels import Groups
from course_utils.classifiers import about, matched, names_in, outputs_of, set_size
from course_utils.evaluation import command, followed
from course_utils.files import writable
from course_utils.folders import View, example, place_of, seen, shuffled, size_of, view_of
from course_utils.graphs import survey
from course_utils.importance import group_l1, group_l2, group_taylor, normalised
from course_utils.kinds import kinds_of
from course_utils.masks import Masks
from course_utils.measure import macs, parameters
from course_utils.plan import Ratios, by_kind, planned
from course_utils.scopes import globally, layerwise
from course_utils.scores import Scores
from course_utils.units import bn_scale, remove, unit_chance

CRITERIA: dict[str, Callable] = {
    "taylor": group_taylor,
    "l1": group_l1,
    "l2": group_l2,
    "bn": bn_scale,
    "chance": unit_chance,
}
SCOPES: dict[str, Callable] = {
    "isomorphic": lambda model, groups: by_kind(kinds_of(model, groups)),
    "global": lambda model, groups: globally,
    "local": lambda model, groups: layerwise,
}


def groups_for(model: nn.Module, image: Tensor, spared: list[str]) -> Groups:
    """The groups that may be cut: the network's own, or those found, without the ones that are spared."""
    own = getattr(model, "groups", None)
    groups, reasons = (own(), {}) if callable(own) else survey(model, image)
    for name, why in reasons.items():
        print(f"left as it is: {name} ({why})", flush=True)
    if not groups:
        raise ValueError(f"nothing of this {type(model).__name__} can be cut exactly")
    how = "written down by hand" if callable(own) else "found, and tried: removing equals erasing"
    print(f"{len(groups)} groups of channels ({how})", flush=True)
    if unknown := [word for word in spared if not any(inside(name, word) for name in groups)]:
        raise ValueError(f"there is no group {unknown[0]!r} to keep; there are {', '.join(list(groups)[:6])}, …")
    return {name: g for name, g in groups.items() if not any(inside(name, word) for word in spared)}


def inside(name: str, word: str) -> bool:
    """Is the group called so, or part of what is called so?"""
    return name == word or name.startswith(f"{word}.") or name.endswith(f".{word}")


def images_for(args: argparse.Namespace, model: nn.Module, view: View) -> list:
    """The batches that the criterion looks at: images of DATA/train in random order, as the network sees them later."""
    if CRITERIA[args.criterion] is not group_taylor:
        return []
    if args.data is None:
        free = ", ".join(name for name, criterion in CRITERIA.items() if criterion is not group_taylor)
        raise ValueError(f"{args.criterion} needs images: give --data DATA, or --criterion {free}")
    place, known = place_of(args.data, "train"), about(args.network)
    names = names_in(args.classes) if args.classes else known.get("classes", ())
    images = seen(matched(place, outputs_of(model, example(view, dist.device())), names), view)
    size = min(args.batch_size, size_of(images))
    loader = shuffled(images, view, size, args.workers, args.seed)
    return list(followed(islice(loader, args.batches), min(args.batches, len(loader)), "reading images, batch"))


def scores_of(args: argparse.Namespace, model: nn.Module, groups: Groups, batches: list) -> Scores:
    """What the criterion says about every channel; each group's scores are divided by their mean."""
    if args.criterion == "chance":
        return unit_chance(model, groups, seed=args.seed)
    try:
        return normalised(CRITERIA[args.criterion](model, groups, batches))
    except ValueError as error:
        if args.criterion != "bn":
            raise
        raise ValueError(f"--criterion bn: {str(error).partition(';')[0]}; take taylor, l1 or l2") from error


def ratios_of(args: argparse.Namespace) -> Ratios:
    """The ratios by the part of the network that they are meant for."""
    own = {} if args.head_dim is None else {"dims": args.head_dim}
    return {"channels": args.ratio, "heads": args.heads} | own


def meant(ratios: Ratios, groups: Groups) -> None:
    """Refuse a ratio for heads, or for their dimensions, where the groups have none."""
    for part in ("heads", "dims"):
        if ratios.get(part) and not any(name.endswith(f".{part}") for name in groups):
            option = {"heads": "--heads", "dims": "--head-dim"}[part]
            raise ValueError(f"no attention head can be cut here: leave out {option} {ratios[part]}")


def cost(model: nn.Module, image: Tensor) -> str:
    """'1.254 G MACs (1,253,683,200), 5.717 M parameters; Torch-Pruning counts 1.259 G'."""
    count, theirs = macs(model, image), count_ops_and_params(copy.deepcopy(model), image)[0]
    own = f"{count / 1e9:,.4g} G MACs ({count:,}), {parameters(model) / 1e6:,.4g} M parameters ({parameters(model):,})"
    return f"{own}; Torch-Pruning's counter: {theirs / 1e9:,.4g} G"


def stayed(masks: Masks) -> dict[str, list[int]]:
    """The indices of the channels that stay, by group."""
    return {name: mask.nonzero().flatten().tolist() for name, mask in masks.items()}


def work(args: argparse.Namespace) -> int:
    """Open the network, score, plan, remove and write; print what it costs before and after."""
    writable(args.out.parent)
    model, like = shrunken.open_network(args.network, random=args.random)
    known = about(args.network)
    view = view_of(model.to(dist.device()), known.get("view"), size=args.size)
    set_size(model, view.size)
    if args.data is not None:
        place_of(args.data, "train")
    image = example(view, dist.device())
    batches = images_for(args, model, view)
    print(f"before: {cost(model, image)}", flush=True)
    groups = groups_for(model, image, args.keep)
    meant(ratios_of(args), groups)
    scores = scores_of(args, model, groups, batches)
    masks = planned(scores, ratios_of(args), SCOPES[args.scope](model, groups), args.floor, args.round_to)
    if left(masks) == 1 and any(ratios_of(args).values()):
        raise ValueError(f"nothing goes, because widths are multiples of {args.round_to}: take a smaller --round-to")
    small = remove(model, groups, masks)
    print(f"after:  {cost(small, image)}", flush=True)
    said = {name: value for name, value in vars(args).items() if isinstance(value, int | float | str)}
    shrunken.save(small.cpu(), args.out, like, stayed(masks), **known | {"view": asdict(view), "pruned": said})
    print(f"{args.network} without {1 - left(masks):.0%} of its channels is written to {args.out}")
    return 0


def left(masks: Masks) -> float:
    """The part of all channels that stays."""
    return sum(int(mask.sum()) for mask in masks.values()) / sum(mask.numel() for mask in masks.values())


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """The words that course.py passes on, which has checked most of them."""
    parser = argparse.ArgumentParser("python -m course_utils.prune")
    parser.add_argument("network")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--classes", default="")
    parser.add_argument("--scope", choices=SCOPES, default="isomorphic")
    parser.add_argument("--criterion", choices=CRITERIA, default="taylor")
    for name, default in {"ratio": 0.5, "heads": 0.0, "head-dim": None}.items():
        parser.add_argument(f"--{name}", type=float, default=default)
    numbers = {"batches": 50, "batch-size": 64, "round-to": 2, "floor": 1, "size": 0, "seed": 0, "workers": 2}
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--keep", action="append", default=[])
    parser.add_argument("--random", action="store_true")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Prune the network named on the command line."""
    return command(partial(work, arguments(argv)))


if __name__ == "__main__":
    raise SystemExit(main())
