"""One training loop with one hook. It runs on any device, and continues exactly where a killed run stopped.

`train` changes the model in place and returns its log, one dict per epoch. `hold` is the hook that pruning needs.
"""

import json
import math
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from types import FunctionType

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from course_utils.data import Split, batches
from course_utils.files import crc, load_tensors, save_tensors
from course_utils.masks import Masks, fitting
from course_utils.measure import accuracy
from course_utils.progress import counted

Hook = Callable[[int], None]


def one_cycle(progress: float, warmup: float = 0.2) -> float:
    """Up in a straight line to 1 at `warmup`, then down in half a cosine to 0 at the end."""
    if progress < warmup:
        return progress / warmup
    return (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup))) / 2


def constant(progress: float) -> float:
    """Always 1."""
    return 1.0


@dataclass(frozen=True)
class Recipe:
    """Everything that decides how a network is trained, apart from the data and the seed."""

    epochs: int
    batch_size: int = 50
    lr: float = 0.1
    schedule: FunctionType = one_cycle
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    flip: bool = True
    shift: int = 2
    bf16: bool = False
    compiled: bool = False

    def words(self) -> str:
        """The recipe as text, for keys and records."""
        return json.dumps(asdict(self) | {"schedule": self.schedule.__name__})


def hold(model: nn.Module, masks: Masks) -> Hook:
    """An `after_step` that keeps removed weights at zero, whatever momentum and weight decay want."""
    pairs = [(weight, masks[name].to(weight)) for name, weight in fitting(model, masks).items()]  # as numbers: faster

    @torch.no_grad()
    def after_step(step: int) -> None:
        for weight, mask in pairs:
            weight.mul_(mask)

    return after_step


def train(
    model: nn.Module,
    split: Split,
    recipe: Recipe,
    seed: int = 0,
    after_step: Hook = lambda step: None,
    val: Split | None = None,
    checkpoint: Path | None = None,
) -> list[dict]:
    """Train `model` in place and return one record per epoch; with a `checkpoint`, go on from the latest one."""
    optimizer = sgd(model, recipe)
    run = fingerprint(model, split, recipe, seed)
    log = restore(model, optimizer, checkpoint, run) if checkpoint else []
    forward = torch.compile(model) if recipe.compiled else model
    model.train()
    for epoch in range(len(log), recipe.epochs):
        began = time.perf_counter()
        with seeded(seed * 10007 + epoch), told(epoch, recipe.epochs, checkpoint):
            record = one_epoch(forward, split, recipe, optimizer, epoch, seed, after_step)
        if val is not None:
            record["val_accuracy"] = accuracy(model, val)
        log.append({"epoch": epoch + 1} | record | {"seconds": time.perf_counter() - began})
        if checkpoint:
            keep(model, optimizer, log, checkpoint, run)
    return log


def fingerprint(model: nn.Module, split: Split, recipe: Recipe, seed: int) -> str:
    """What tells this run from every other: recipe, seed, data, and the shapes of the network."""
    shapes = [(name, tuple(p.shape)) for name, p in model.named_parameters()]
    pieces = (recipe.words(), seed, shapes, crc(split.labels), crc(split.images))
    return sha256(repr(pieces).encode()).hexdigest()[:16]


def one_epoch(
    forward: Callable, split: Split, recipe: Recipe, optimizer: torch.optim.SGD, epoch: int, seed: int, after_step: Hook
) -> dict:
    """One pass over the data; the order of the images depends on (seed, epoch) alone."""
    steps = math.ceil(len(split) / recipe.batch_size)
    stream = batches(split, recipe.batch_size, seed * 10007 + epoch, recipe.flip, recipe.shift)
    total, right = 0.0, 0
    for step, (x, y) in counted(enumerate(stream, epoch * steps), steps, f"epoch {epoch + 1}/{recipe.epochs}, batch"):
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * recipe.schedule((step + 1) / (recipe.epochs * steps + 1))
        with torch.autocast(x.device.type, torch.bfloat16, enabled=recipe.bf16):
            scores = forward(x)
            loss = cross_entropy(scores, y, label_smoothing=recipe.label_smoothing)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        after_step(step)
        total, right = total + loss.detach() * len(y), right + (scores.argmax(1) == y).sum()
    total = float(total)
    if not math.isfinite(total):
        raise ValueError(f"the loss is {total} in epoch {epoch + 1}: try a smaller learning rate than {recipe.lr}")
    return {"loss": total / len(split), "train_accuracy": int(right) / len(split)}


def refresh(model: nn.Module, split: Split, recipe: Recipe, seed: int = 0) -> None:
    """Let BatchNorm measure its means and variances anew on `split`: no labels, no gradients, no weight changes."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over all batches
    with training(model), torch.no_grad():
        for x, _ in batches(split, recipe.batch_size, seed, recipe.flip, recipe.shift):
            model(x)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


@contextmanager
def training(model: nn.Module):
    """Training mode inside the block; afterwards the model is in the mode it was in."""
    mode = model.training
    model.train()
    try:
        yield
    finally:
        model.train(mode)


def sgd(model: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    """Stochastic gradient descent with Nesterov's momentum; normalisation and biases are not decayed."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    nesterov = recipe.momentum > 0
    return torch.optim.SGD([g for g in groups if g["params"]], recipe.lr, recipe.momentum, nesterov=nesterov)


@contextmanager
def seeded(seed: int):
    """Dropout and the like draw from `seed` inside the block; afterwards torch's global generator is as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


@contextmanager
def told(epoch: int, epochs: int, checkpoint: Path | None):
    """Turn an interrupt into a sentence that says what is kept."""
    try:
        yield
    except KeyboardInterrupt:
        kept = f"{latest(checkpoint)} holds epoch {epoch}; run again to go on" if checkpoint else "nothing was kept"
        raise KeyboardInterrupt(f"stopped in epoch {epoch + 1} of {epochs}: {kept}") from None


def latest(checkpoint: Path) -> Path:
    """The file with the most recent epoch."""
    return checkpoint.with_name(checkpoint.name + ".latest.safetensors")


def best(checkpoint: Path) -> Path:
    """The file with the epoch that did best on the validation split."""
    return checkpoint.with_name(checkpoint.name + ".best.safetensors")


def keep(model: nn.Module, optimizer: torch.optim.SGD, log: list[dict], checkpoint: Path, run: str) -> None:
    """Write the latest checkpoint and, when this epoch is the best so far, the best one."""
    state = {f"model.{name}": t for name, t in model.state_dict().items()}
    momentum = {f"momentum.{name}": optimizer.state[p].get("momentum_buffer") for name, p in model.named_parameters()}
    state |= {name: t for name, t in momentum.items() if t is not None}
    about = {"run": run, "log": json.dumps(log)}
    save_tensors(state, latest(checkpoint), **about)
    if log[-1].get("val_accuracy", 0) >= max(record.get("val_accuracy", 0) for record in log):
        save_tensors(state, best(checkpoint), **about)


def restore(model: nn.Module, optimizer: torch.optim.SGD, checkpoint: Path, run: str) -> list[dict]:
    """Bring model and momentum back to the latest checkpoint, if there is one; returns its log."""
    if not latest(checkpoint).exists():
        return []
    tensors, about = load_tensors(latest(checkpoint))
    if about.get("run") != run:
        raise ValueError(f"{latest(checkpoint)} belongs to another run (recipe, seed or data differ): delete it")
    load_state(model, {n.removeprefix("model."): t for n, t in tensors.items() if n.startswith("model.")}, checkpoint)
    for name, p in model.named_parameters():
        if f"momentum.{name}" in tensors:
            optimizer.state[p]["momentum_buffer"] = tensors[f"momentum.{name}"].to(p.device)
    return json.loads(about["log"])


def load_state(model: nn.Module, state: dict[str, Tensor], source: object) -> None:
    """Strictly load `state`; weights of another network are refused in one sentence."""
    own = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    other = {name: tuple(t.shape) for name, t in state.items()}
    if own != other:
        name = next(n for n in [*own, *other] if own.get(n) != other.get(n))
        raise ValueError(f"{source} holds another network: {name} is {own.get(name)} here and {other.get(name)} there")
    model.load_state_dict(state)
