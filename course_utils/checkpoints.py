"""Checkpoints: the latest and the best epoch of a run as files, and the way back from them, bit for bit."""

import json
from collections.abc import Generator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor, nn

from course_utils.data import Split
from course_utils.files import crc, load_tensors, save_tensors


def fingerprint(model: nn.Module, split: Split, recipe: str, seed: int) -> str:
    """What tells this run from every other: recipe, seed, data, and the network that it starts from."""
    shapes = [(name, tuple(p.shape)) for name, p in model.named_parameters()]
    weights = [crc(t) for t in model.state_dict().values()]
    pieces = (recipe, seed, shapes, weights, crc(split.labels), crc(split.images))
    return sha256(repr(pieces).encode()).hexdigest()[:16]


@contextmanager
def told(epoch: int, epochs: int, checkpoint: Path | None) -> Generator[None]:
    """Turn an interrupt into a sentence that says what is kept."""
    try:
        yield
    except KeyboardInterrupt:
        kept = "nothing was kept"
        if checkpoint and epoch:
            kept = f"{latest(checkpoint)} holds epoch {epoch}; run again to go on"
        raise KeyboardInterrupt(f"stopped in epoch {epoch + 1} of {epochs}: {kept}") from None


def latest(checkpoint: Path) -> Path:
    """The file with the most recent epoch."""
    return checkpoint.with_name(checkpoint.name + ".latest.safetensors")


def best(checkpoint: Path) -> Path:
    """The file with the epoch that did best on the validation split."""
    return checkpoint.with_name(checkpoint.name + ".best.safetensors")


def keep(model: nn.Module, optimizer: torch.optim.Optimizer, log: list[dict], checkpoint: Path, run: str) -> None:
    """Write the latest checkpoint and, when this epoch is the best so far, the best one."""
    state = {f"model.{name}": t for name, t in model.state_dict().items()}
    for name, p in model.named_parameters():
        state |= {f"{key}:{name}": t for key, t in optimizer.state[p].items() if t is not None}
    about = {"run": run, "log": json.dumps(log)}
    if log[-1].get("val_accuracy", 0) >= max(record.get("val_accuracy", 0) for record in log):
        save_tensors(state, best(checkpoint), **about)  # first, so that a kill in between repeats this epoch
    save_tensors(state, latest(checkpoint), **about)


def restore(model: nn.Module, optimizer: torch.optim.Optimizer, checkpoint: Path, run: str) -> list[dict]:
    """Bring model and optimizer back to the latest checkpoint, if there is one; returns its log."""
    if not latest(checkpoint).exists():
        return []
    tensors, about = load_tensors(latest(checkpoint))
    if about.get("run") != run or "log" not in about:
        raise ValueError(
            f"{latest(checkpoint)} belongs to another run (recipe, seed, data or starting weights differ): delete it"
        )
    load_state(model, {n.removeprefix("model."): t for n, t in tensors.items() if n.startswith("model.")}, checkpoint)
    parameters = dict(model.named_parameters())
    for key, _, name in (n.partition(":") for n in tensors if ":" in n):
        where = "cpu" if key == "step" else parameters[name].device
        optimizer.state[parameters[name]][key] = tensors[f"{key}:{name}"].to(where, copy=True)
    return json.loads(about["log"])


def load_state(model: nn.Module, state: dict[str, Tensor], source: object) -> None:
    """Strictly load `state`; weights of another network are refused in one sentence."""
    counters = "num_batches_tracked"  # BatchNorm's, which older files do not have
    own = {name: tuple(t.shape) for name, t in model.state_dict().items() if not name.endswith(counters)}
    other = {name: tuple(t.shape) for name, t in state.items() if not name.endswith(counters)}
    if own != other:
        name = next(n for n in [*own, *other] if own.get(n) != other.get(n))
        raise ValueError(f"{source} holds another network: {name} is {own.get(name)} here and {other.get(name)} there")
    model.load_state_dict(state)
