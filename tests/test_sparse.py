"""A sparse layer is a masked dense one that calculates less: same outputs, same gradients where a weight is kept."""

import copy
import subprocess
import sys

import pytest
import torch
from conftest import generic
from torch import nn

from course_utils.files import load_tensors, save_tensors
from course_utils.models import mlp, resnet50
from course_utils.sparse import SparseLinear, compress, convert, load_sparse, to_dense, to_sparse

SHAPES = {"wide": (12, 8), "tall": (4, 20), "square": (16, 16)}


def blocks(*sizes: int) -> list[int]:
    """The block sizes that this PyTorch can calculate with."""
    return [size for size in sizes if size == 1 or torch.backends.mkl.is_available()]


KINDS = ("some", "all", "none", "dead rows and columns")


def pattern(kind: str, outputs: int, inputs: int, block: int, seed: int = 1) -> torch.Tensor:
    """A mask of whole blocks."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.rand(outputs // block, inputs // block, generator=random) < 0.4
    if kind == "dead rows and columns":
        coarse[0], coarse[:, -1], coarse[-1, 0] = False, False, True
    coarse = {"all": torch.ones_like(coarse), "none": torch.zeros_like(coarse)}.get(kind, coarse)
    return coarse.repeat_interleave(block, 0).repeat_interleave(block, 1)


def masked(inputs: int, outputs: int, kind: str = "some", bias: bool = True, block: int = 1, dtype=torch.float64):
    """A dense layer with random numbers everywhere and zeros where its mask says so."""
    layer = generic(nn.Linear(inputs, outputs, bias=bias)).to(dtype)
    mask = pattern(kind, outputs, inputs, block)
    with torch.no_grad():
        layer.weight.mul_(mask)
    return layer, mask


def examples(*shape: int, dtype=torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3)).to(dtype).requires_grad_()


@pytest.mark.parametrize("block", blocks(1, 2, 4))
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_outputs_and_gradients_are_the_masked_dense_layers(shape, bias, kind, block):
    inputs, outputs = SHAPES[shape]
    dense, mask = masked(inputs, outputs, kind, bias, block)
    sparse = to_sparse(dense, block)
    x = examples(3, 5, inputs)
    weights = examples(3, 5, outputs)  # of the loss, so that every output counts differently
    ours, theirs = sparse(x), dense(x)
    assert ours.shape == theirs.shape and torch.allclose(ours, theirs, rtol=0, atol=1e-9)
    (for_x,) = torch.autograd.grad((ours * weights).sum(), x, retain_graph=True)
    assert torch.allclose(for_x, torch.autograd.grad((theirs * weights).sum(), x, retain_graph=True)[0], atol=1e-9)
    (ours * weights).sum().backward()
    (theirs * weights).sum().backward()
    assert sparse.values.numel() == int(mask.sum())
    if bias:
        assert torch.allclose(sparse.bias.grad, dense.bias.grad, atol=1e-9)
    as_dense = copy.deepcopy(sparse)
    as_dense.values.data.copy_(sparse.values.grad)
    assert torch.allclose(to_dense(as_dense).weight, dense.weight.grad * mask, atol=1e-9)


@pytest.mark.parametrize("block", blocks(1, 4))
def test_single_precision_single_examples_and_empty_batches(block):
    dense, _ = masked(64, 32, block=block, dtype=torch.float32)
    sparse = to_sparse(dense, block)
    for shape in ((64,), (7, 64), (2, 3, 4, 64), (0, 64)):
        x = examples(*shape, dtype=torch.float32)
        assert sparse(x).shape == dense(x).shape and torch.allclose(sparse(x), dense(x), atol=1e-5)
    turned = examples(64, 7, dtype=torch.float32).T  # not contiguous
    assert torch.allclose(sparse(turned), dense(turned), atol=1e-5)


@pytest.mark.parametrize("block", blocks(1, 2))
@pytest.mark.parametrize("kind", ["some", "dead rows and columns"])
def test_gradients_by_finite_differences(kind, block):
    sparse = to_sparse(masked(6, 8, kind, block=block)[0], block)
    names = [name for name, _ in sparse.named_parameters()]

    def run(x, *values):
        return torch.func.functional_call(sparse, dict(zip(names, values, strict=True)), x)

    assert torch.autograd.gradcheck(run, (examples(3, 6), *sparse.parameters()))


def test_gradients_only_where_they_are_asked_for():
    sparse = to_sparse(masked(6, 8)[0])
    sparse.values.requires_grad_(False)
    x = examples(3, 6)
    sparse(x).sum().backward()
    assert x.grad is not None and sparse.values.grad is None and sparse.bias.grad is not None


@pytest.mark.parametrize("block", blocks(1, 4))
def test_training_is_the_training_of_a_masked_layer(block):
    dense, mask = masked(12, 8, block=block)
    sparse, x, y = to_sparse(dense, block), examples(20, 12).detach(), examples(20, 8).detach()
    runs = {layer: torch.optim.SGD(layer.parameters(), 0.1, 0.9, weight_decay=0.01) for layer in (dense, sparse)}
    for _ in range(10):
        for layer, optimizer in runs.items():
            optimizer.zero_grad()
            (layer(x) - y).square().mean().backward()
            optimizer.step()
        with torch.no_grad():
            dense.weight.mul_(mask)
    back = to_dense(sparse)
    assert torch.allclose(back.weight, dense.weight, atol=1e-9) and torch.allclose(back.bias, dense.bias, atol=1e-9)
    assert (back.weight - masked(12, 8, block=block)[0].weight).abs().max() > 0.01


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("block", blocks(1, 2))
def test_there_and_back(block, kind, bias):
    dense, _ = masked(8, 6, kind, bias, block)
    back = to_dense(to_sparse(dense, block))
    assert torch.equal(back.weight, dense.weight) and (back.bias is None) == (dense.bias is None)


def pruned_mlp(bias: bool = True) -> nn.Module:
    """A perceptron whose three layers are sparse to 0, 0.5 and 0.9."""
    model = generic(mlp((20, 40, 20, 10), bias=bias))
    with torch.no_grad():
        for layer, sparsity in zip(model.layers, (0, 0.5, 0.9), strict=True):
            order = layer.weight.abs().flatten().argsort()[: round(sparsity * layer.weight.numel())]
            layer.weight.view(-1)[order] = 0
    return model


def test_a_whole_model():
    model = pruned_mlp()
    before = copy.deepcopy(model.state_dict())
    x = torch.randn(5, 20, generator=torch.Generator().manual_seed(0))
    for above, wanted in ((-0.1, 3), (0.0, 2), (0.5, 1), (0.4, 2), (0.95, 0)):
        thin = convert(model, above)
        assert sum(isinstance(layer, SparseLinear) for layer in thin.layers) == wanted
        assert torch.allclose(thin(x), model(x), atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    layer, _ = masked(8, 6)
    assert isinstance(convert(layer, 0.1), SparseLinear)  # the model is the layer itself


@pytest.mark.parametrize("block", blocks(1, 2))
@pytest.mark.parametrize("bias", [True, False])
def test_saved_and_loaded_again(bias, block, tmp_path):
    thin = convert(pruned_mlp(bias), 0.3, block)
    save_tensors(thin.state_dict(), tmp_path / "thin.safetensors")
    tensors, _ = load_tensors(tmp_path / "thin.safetensors")
    again = load_sparse(mlp((20, 40, 20, 10), bias=bias), tensors)
    x = torch.randn(5, 20, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again(x), thin(x)) and again.state_dict().keys() == thin.state_dict().keys()
    same = copy.deepcopy(thin)
    same.load_state_dict(tensors)
    again(x).sum().backward()  # what was loaded can be trained
    assert again.layers[2].values.grad is not None


def test_only_linear_layers_of_any_network():
    network = generic(resnet50(width=0.125, blocks=(1, 1, 1, 1)))
    with torch.no_grad():
        network.fc.weight[:, ::2] = 0
    thin, x = convert(network, 0.4), torch.randn(2, 3, 32, 32)
    assert isinstance(thin.fc, SparseLinear) and torch.allclose(thin(x), network(x), atol=1e-4)


@pytest.mark.parametrize(
    ("weight", "block", "words"),
    [
        (torch.ones(2, 3, 3, 3), 1, "matrix of weights"),
        (torch.ones(3), 1, "matrix of weights"),
        (torch.ones(6, 10), 4, "blocks of 4 do not divide a matrix of 6 × 10"),
        (torch.ones(6, 10), 0, "blocks of 0 do not divide"),
        (torch.ones(6, 10, dtype=torch.bfloat16), 1, "float32 or float64"),
        (torch.ones(6, 10, dtype=torch.int64), 1, "float32 or float64"),
        (torch.ones(6, 10, device="meta"), 1, "run on the processor, not on meta"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(weight, block, words):
    with pytest.raises(ValueError, match=words):
        compress(weight, block)


def test_inputs_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="reads 12 numbers"):
        to_sparse(masked(12, 8)[0])(torch.ones(2, 8, dtype=torch.float64))


def test_no_warning_reaches_the_learner_and_others_keep_theirs():
    code = """
import warnings, torch
warnings.simplefilter("error")
from course_utils.sparse import to_sparse
layer = torch.nn.Linear(8, 8)
x = torch.ones(2, 8, requires_grad=True)
to_sparse(layer, 1)(x).sum().backward()
if torch.backends.mkl.is_available():
    to_sparse(layer, 2)(x).sum().backward()
try:
    warnings.warn("another one")
except UserWarning:
    print("heard")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "heard", done.stderr


def test_blocks_without_their_library_are_refused(monkeypatch):
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    with pytest.raises(ValueError, match="blocks of 2 need Intel's MKL"):
        compress(torch.ones(4, 4), 2)
    assert len(compress(torch.ones(4, 4))[2]) == 16


def test_a_foreign_file_is_refused():
    tensors = convert(pruned_mlp(), 0.3).state_dict()
    with pytest.raises(ValueError, match="another network: layers.1 is no linear layer"):
        load_sparse(convert(pruned_mlp(), 0.3), tensors)


def test_a_file_of_another_shape_is_refused():
    tensors = to_sparse(masked(12, 8, "all")[0]).state_dict()
    for other in (nn.Linear(12, 9), nn.Linear(5, 8)):
        with pytest.raises(ValueError, match="another network: they do not fit into it"):
            load_sparse(other.double(), tensors)
    with pytest.raises(ValueError, match="another network: 5 is no linear layer"):
        load_sparse(nn.Sequential(nn.Linear(12, 8)), {f"5.{name}": tensor for name, tensor in tensors.items()})


def test_layers_that_only_look_linear_stay():
    attention = nn.MultiheadAttention(4, 2)  # it reads its output layer's weight itself
    nn.init.zeros_(attention.out_proj.weight)
    x = torch.randn(3, 1, 4)
    assert torch.equal(convert(attention, 0.5)(x, x, x)[0], attention(x, x, x)[0])


def test_a_second_derivative_is_refused():
    x = torch.randn(3, 12, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(to_sparse(masked(12, 8)[0])(x).pow(3).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        slope.pow(2).sum().backward()
