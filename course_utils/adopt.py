"""Adopt a network that somebody else pruned and pickled as a whole, as Torch-Pruning does: `python course.py import`.

From the file come only tensors and numbers. The code is that of the architecture it was pruned from, built anew here.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from course_utils import shrunken, zoo
from course_utils.channels import update_sizes
from course_utils.drift import noted, settle
from course_utils.engines import as_command
from course_utils.files import writable
from course_utils.fitting import fill, kind_of, misfit, set_sizes
from course_utils.husks import Husk, husks_in, is_tensor, network_in, paired, parts
from course_utils.measure import macs, parameters
from course_utils.zoo import Like


def at(found: Any, path: str) -> Any:
    """The layer or the tensor of a pickled network at a dotted path, or None."""
    if isinstance(found, dict):
        return found.get(path)
    for word in path.split("."):
        found = (parts(found, "_modules") | parts(found, "_parameters")).get(word)
    return found


def trimmed(found: Any, network: nn.Module) -> dict[str, Any]:
    """The arguments that give the architecture as many blocks as the pickled network has, where whole blocks went."""
    rows = {"depth": ["blocks"], "depths": [f"stages.{i}.blocks" for i in range(len(getattr(network, "stages", [])))]}
    full = {word: [len(parts_at(network, path)) for path in paths] for word, paths in rows.items()}
    left = {word: [len(parts(at(found, path), "_modules")) for path in paths] for word, paths in rows.items()}
    less = [word for word in rows if 0 not in left[word] and left[word] != full[word]]
    return {word: left[word] if word == "depths" else left[word][0] for word in less}


def parts_at(network: nn.Module, path: str) -> list[nn.Module]:
    """The parts of a layer at a dotted path, if there is one."""
    return list(dict(network.named_modules()).get(path, nn.Identity()).children())


def architecture(found: Any, word: str, classes: int | None) -> Like:
    """The architecture that `word` names, with as many classes and blocks as the pickled network has."""
    network = zoo.outline(zoo.like_of(word))
    head = at(found, list(dict(network.named_parameters()))[-1])
    rows = len(head) if is_tensor(head) and head.ndim else zoo.classes_of(network)
    if classes and rows != classes:
        raise ValueError(f"it tells {rows} classes apart, not {classes}")
    like = zoo.like_of(word, rows if rows != zoo.classes_of(network) else None)
    like["arguments"] |= trimmed(found, network)
    return like


def tensors_in(found: Any, network: nn.Module) -> dict[str, Tensor]:
    """The tensors of a pickled network as a state dict; tables that a state dict leaves out are left out."""
    if isinstance(found, dict):
        return found
    tensors = {}
    for name, husk, layer in paired(found, network):
        prefix = f"{name}." if name else ""
        for leaf, part in parts(husk, "_modules").items():
            if leaf not in dict(layer.named_children()) and not is_idle(part):
                raise ValueError(f"it has {prefix}{leaf}, which the architecture lacks")
        own = parts(husk, "_parameters") | parts(husk, "_buffers")
        if foreign := [leaf for leaf, tensor in own.items() if not is_tensor(tensor)]:
            raise ValueError(f"{prefix}{foreign[0]} is no plain tensor")
        left_out = vars(husk).get("_non_persistent_buffers_set", ())
        tensors |= {f"{prefix}{leaf}": tensor.detach() for leaf, tensor in own.items() if leaf not in left_out}
    return tensors


def is_idle(part: object) -> bool:
    """Does this layer do nothing in evaluation, and hold nothing?"""
    holds = any(parts(part, kind) for kind in ("_parameters", "_buffers", "_modules"))
    return isinstance(part, Husk) and kind_of(part) in ("Identity", "Sequential") and not holds


def rebuilt(found: Any, like: Like) -> nn.Module:
    """The architecture built anew, with the tensors and the sizes of a pickled network."""
    model = zoo.outline(like)
    tensors = tensors_in(found, model)
    if wrong := misfit(tensors, model):
        raise ValueError(wrong)
    whole = isinstance(found, Husk)
    if not whole and any(tensors[name].shape != own.shape for name, own in model.state_dict().items()):
        raise ValueError("its tensors alone do not say how they were cut: bring the whole network, not its state")
    sizes = noted(found, model) if whole else {}
    fill(model, tensors)
    set_sizes(model, sizes)
    for name, husk, layer in paired(found, model) if whole else ():
        update_sizes(layer)
        if {"qkv", "proj"} <= dict(layer.named_children()).keys() and hasattr(layer, "num_heads"):
            settle(name, layer, vars(husk))
    return model.eval()


def adopted(file: Path, word: str, classes: int | None = None) -> tuple[nn.Module, Like]:
    """The network in a pickle, and the architecture it was pruned from; it has run once."""
    content = husks_in(file, zoo.outline(zoo.like_of(word)))
    try:
        found = network_in(content)
        like = architecture(found, word, classes)
        model = rebuilt(found, like)
        with torch.no_grad():
            model(zoo.example(model, like))
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{file} does not fit {word}: {zoo.first_line(error)}") from error
    return model, like


def bring_in(args: argparse.Namespace) -> int:
    """Turn a pickle into a file of ours, and say what it is."""
    out = args.out or args.file.with_suffix(".safetensors")
    try:
        shrunken.beside(out)
        if args.file.suffix == ".safetensors":
            raise ValueError(
                f"{args.file} is no pickle, and import is for pickles: the other commands take it as it is"
            )
        writable(out.parent)
        model, like = adopted(args.file, args.like, args.classes)
        shrunken.save(model, out, like, source=args.file.name, source_sha256=shrunken.digest(args.file))
    except (ValueError, FileNotFoundError) as error:
        print(f"course.py: {error}.", file=sys.stderr)
        return 2
    whole = zoo.like_of(args.like)
    pairs = ((model, like), (zoo.outline(whole), whole))
    counts = [(parameters(net) / 1e6, macs(net, zoo.example(net, form)) / 1e9) for net, form in pairs]
    (millions, billions), (full, full_macs) = counts
    print(f"{out} (and {shrunken.beside(out).name}) is {args.file.name} without its pickle: {zoo.title(like)} with")
    print(f"{millions:.2f} M of {full:.2f} M parameters and {billions:.3f} of {full_macs:.3f} G multiply-accumulates.")
    return 0


def main(argv: list[str] | None = None) -> int:
    """The command line, `python course.py import`."""
    parser = argparse.ArgumentParser("python course.py import", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--like", required=True)
    parser.add_argument("--classes", type=int)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args(argv)
    return as_command(lambda: bring_in(args))


if __name__ == "__main__":
    sys.exit(main())
