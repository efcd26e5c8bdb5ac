"""How good is any network on a folder of images? First guess, first five, loss; and what the network costs.

`python course.py evaluate FILE --data DIR` calls this.
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from course_utils import dist
from course_utils.classifiers import about, matched, names_in, outputs_of, set_size
from course_utils.data import pixels_last
from course_utils.engines import as_command
from course_utils.folders import View, example, in_order, limited, place_of, seen, view_of
from course_utils.measure import evaluating, macs, parameters
from course_utils.progress import counted
from course_utils.shrunken import open_network


def evaluate(model: nn.Module, loader: Iterable, batches: int, bf16: bool = False) -> dict[str, float]:
    """The fractions of images whose class is the first guess, or among the first five, and the mean loss."""
    sums = torch.zeros(4, dtype=torch.double, device=dist.device())
    with evaluating(model):
        for x, y in followed(loader, batches, "evaluating, batch"):
            with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
                scores = model(pixels_last(x)).float()
            hits = scores.topk(min(5, scores.shape[1])).indices == y[:, None]
            loss = cross_entropy(scores, y, reduction="sum")
            sums += torch.stack([hits[:, 0].sum(), hits.sum(), loss, torch.tensor(len(y)).to(loss)]).double()
    right, among, loss, count = dist.total(sums).tolist()
    return {"top1": right / count, "top5": among / count, "loss": loss / count, "images": int(count)}


def followed(items: Iterable, total: int, label: str) -> Iterator:
    """The same items; the first process shows how far they are."""
    return counted(items, total, label) if dist.first() else iter(items)


def cost(model: nn.Module, view: View) -> str:
    """'1.254 G MACs and 5.717 M parameters, at 224 × 224, bicubic'."""
    count = macs(model, example(view, dist.device()))
    size = f"at {view.size} × {view.size}, {view.interpolation}"
    return f"{count / 1e9:,.4g} G MACs ({count:,}) and {parameters(model) / 1e6:,.4g} M parameters, {size}"


def words(result: dict[str, float]) -> str:
    """'top-1 72.13 %, top-5 91.07 %, loss 1.2345'."""
    return f"top-1 {result['top1']:.2%}, top-5 {result['top5']:.2%}, loss {result['loss']:.4f}"


def report(args: argparse.Namespace) -> int:
    """Open the network and the images, evaluate, and print what came out."""
    place, known = place_of(args.data.expanduser(), args.split), about(args.network)
    model = open_network(args.network, random=args.random)[0].to(dist.device())
    view = view_of(model, known.get("view"), size=args.size, interpolation=args.interpolation)
    set_size(model, view.size)
    outputs = outputs_of(model, example(view, dist.device()))
    found = matched(place, outputs, names_in(args.classes) if args.classes else known.get("classes", ()))
    images = limited(seen(found, view), args.limit)
    if dist.first():
        print(f"{args.network}: {cost(model, view)}", flush=True)
    loader = in_order(images, view, args.batch_size, args.workers)
    result = evaluate(model, loader, len(loader), args.bf16)
    if dist.first():
        print(f"{words(result)} on {result['images']:,} images of {place}")
    return 0


def command(work: Callable[[], int]) -> int:
    """Do the work with one thread, in one process or many; what goes wrong is one sentence and code 2."""
    torch.set_num_threads(1)

    def said() -> int:
        try:
            with dist.together():
                return work()
        except torch.OutOfMemoryError:
            sentence = "there is not enough memory on the GPU: try a smaller --batch-size"
        except (ValueError, OSError) as error:
            sentence = str(error).strip().splitlines()[-1].removeprefix("ValueError: ").removeprefix("OSError: ")
        print(f"course.py: {sentence.rstrip('.')}.", file=sys.stderr, flush=True)
        return 2

    return as_command(said)


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """The words that course.py passes on, which has checked most of them."""
    parser = argparse.ArgumentParser("python -m course_utils.evaluation")
    parser.add_argument("network")
    parser.add_argument("--data", type=Path, required=True)
    for name, default in {"split": "val", "interpolation": "", "classes": ""}.items():
        parser.add_argument(f"--{name}", default=default)
    for name, default in {"size": 0, "batch-size": 64, "workers": 2, "limit": 0}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    for name in ("bf16", "random"):
        parser.add_argument(f"--{name}", action="store_true")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Evaluate the network named on the command line."""
    return command(partial(report, arguments(argv)))


if __name__ == "__main__":
    raise SystemExit(main())
