"""The state of a training as one safetensors file: network, optimizer, moving average, log. Nothing is pickled."""

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from course_utils.checkpoints import load_state
from course_utils.files import load_tensors, save_tensors


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


def load_about(file: Path) -> dict:
    """The words about a state."""
    _, about = load_tensors(file)
    try:
        return {name: json.loads(value) for name, value in about.items()}
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} is not the state of a training ({error}): delete it") from error


def load_state_of(parts: dict[str, nn.Module], optimizer: torch.optim.Optimizer, file: Path) -> None:
    """Bring all parts and the optimizer back to what the file holds."""
    tensors, about = load_tensors(file)
    for part, model in parts.items():
        own = {name.removeprefix(f"{part}."): t for name, t in tensors.items() if name.startswith(f"{part}.")}
        load_state(model, own, file)
    state: dict[int, dict[str, object]] = {}
    for name, value in (tensors | json.loads(about["numbers"])).items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
