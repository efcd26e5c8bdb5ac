"""Fixtures that are generic on purpose: every parameter and buffer is random, BatchNorm's too."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from torch import nn

torch.set_num_threads(1)


def generic(model: nn.Module, seed: int = 0) -> nn.Module:
    """Fill every parameter and every floating buffer of `model` with random numbers; variances stay positive."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, t in model.state_dict().items():  # non-persistent buffers, such as index tables, stay
            if t.is_floating_point():
                scale = 1.0 if t.ndim < 2 else (2 / t[0].numel()) ** 0.5
                values = torch.randn(t.shape, generator=random) * scale
                t.copy_(values.abs() + 0.5 if name.endswith("running_var") else values)
    return model.eval()


@pytest.fixture
def private_cache(tmp_path, monkeypatch):
    """A cache and a data folder that only this test uses."""
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COURSE_DATA", str(tmp_path / "data"))
    return tmp_path
