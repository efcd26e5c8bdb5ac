"""The state of a training as one safetensors file: network, optimizer, moving average, log. Nothing is pickled."""

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from course_utils.checkpoints import load_state
from course_utils.files import load_tensors, save_tensors

KNOWN = ("identity", "log", "numbers")  # what a state says beside its tensors


def save_state(parts: dict[str, nn.Module], optimizer: torch.optim.Optimizer, file: Path, **about: object) -> None:
    """Write the tensors of all parts and of the optimizer to one file, with words about them as JSON."""
    tensors = {f"{part}.{name}": t for part, model in parts.items() for name, t in model.state_dict().items()}
    numbers = {}
    for index, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            place = tensors if isinstance(value, Tensor) else numbers
            place[f"optimizer.{index}.{name}"] = value
    save_tensors(
        tensors, file, numbers=json.dumps(numbers), **{name: json.dumps(value) for name, value in about.items()}
    )


def load_state_file(file: Path) -> tuple[dict[str, Tensor], dict]:
    """The tensors of a training's state, and the words about it."""
    tensors, about = load_tensors(file)
    absent = [name for name in KNOWN if name not in about]
    if absent:
        raise ValueError(f"{file} is not the state of a training, it says nothing of {absent[0]}: move it away")
    return tensors, {name: json.loads(about[name]) for name in KNOWN}


def restore(
    parts: dict[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    tensors: dict[str, Tensor],
    numbers: dict[str, object],
    file: Path,
) -> None:
    """Bring all parts and the optimizer back to a state."""
    for part, model in parts.items():
        own = {name.removeprefix(f"{part}."): t for name, t in tensors.items() if name.startswith(f"{part}.")}
        load_state(model, own, file)
    state: dict[int, dict[str, object]] = {}
    for name, value in (tensors | numbers).items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
