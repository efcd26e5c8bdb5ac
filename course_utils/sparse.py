"""A linear layer that stores and multiplies only the weights that are left: PyTorch's sparse kernels, rows or blocks.

CSR ("compressed sparse rows") keeps, row by row, the values and their columns; BSR does so for blocks of weights.
"""

import copy
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Parts = tuple[Tensor, Tensor, Tensor]  # row pointers, columns, values


def compressed(parts: Parts, shape: tuple[int, int]) -> Tensor:
    """The parts as PyTorch's sparse matrix; its one warning (the layout may still change) is for us, not for you."""
    layout = torch.sparse_csr if parts[2].ndim == 1 else torch.sparse_bsr
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*beta state.*")
        return torch.sparse_compressed_tensor(*parts, shape, layout=layout, check_invariants=False)


def compress(weight: Tensor, block: int = 1) -> Parts:
    """Row pointers, columns and values of what is not zero; `block` > 1 keeps each block that has a weight in it."""
    if weight.ndim != 2:
        raise ValueError(f"a sparse layer needs a matrix of weights, not a tensor of shape {tuple(weight.shape)}")
    if weight.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"sparse layers calculate in float32 or float64, not in {weight.dtype}: use .float()")
    if weight.device.type != "cpu":
        raise ValueError(f"sparse layers run on the processor, not on {weight.device}: use .cpu()")
    if block < 1 or any(size % block for size in weight.shape):
        raise ValueError(f"blocks of {block} do not divide a matrix of {weight.shape[0]} × {weight.shape[1]}")
    if block > 1 and not torch.backends.mkl.is_available():
        raise ValueError(f"blocks of {block} need Intel's MKL, and this PyTorch comes without it: use block=1")
    table = weight.detach().unflatten(0, (-1, block)).unflatten(2, (-1, block)).transpose(1, 2)  # row, column, block
    rows, columns = (table != 0).flatten(2).any(2).nonzero().T
    pointers = torch.bincount(rows, minlength=len(table)).cumsum(0)
    pointers = torch.cat([pointers.new_zeros(1), pointers])
    values = table[rows, columns].clone() if block > 1 else table[rows, columns].flatten()
    return pointers.int(), columns.int(), values


def turned(pointers: Tensor, columns: Tensor, width: int) -> Parts:
    """The transposed matrix: its row pointers, its columns, and where each of its values stands in the first one."""
    rows = rows_of(pointers)
    order = columns.argsort(stable=True)
    starts = torch.bincount(columns, minlength=width).cumsum(0)
    return torch.cat([starts.new_zeros(1), starts]).int(), rows[order].int(), order


def rows_of(pointers: Tensor) -> Tensor:
    """The row of every stored value."""
    return torch.repeat_interleave(pointers.diff())


class Multiply(torch.autograd.Function):
    """x ↦ x Wᵀ for a compressed W; its gradients are sparse as well."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Tensor, pointers: Tensor, columns: Tensor, *other: Tensor) -> Tensor:
        block = 1 if values.ndim == 1 else values.shape[1]
        ctx.save_for_backward(x, values, pointers, columns, *other)
        weight = compressed((pointers, columns, values), ((len(pointers) - 1) * block, x.shape[1]))
        return (weight @ x.T).T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, values, pointers, columns, starts, rows, order = ctx.saved_tensors
        grad, for_x, for_values = grads[0].T.contiguous(), None, None
        if ctx.needs_input_grad[0]:
            flipped = values[order] if values.ndim == 1 else values[order].transpose(1, 2).contiguous()
            for_x = (compressed((starts, rows, flipped), (x.shape[1], len(grad))) @ grad).T
        if ctx.needs_input_grad[1]:
            for_values = products(grad, x, pointers, columns, values)
        return for_x, for_values, *[None] * 5


def products(grad: Tensor, x: Tensor, pointers: Tensor, columns: Tensor, values: Tensor) -> Tensor:
    """The entries of grad · x at the kept weights only: nothing else is calculated."""
    if values.ndim == 1:
        pattern = compressed((pointers, columns, values), (len(grad), x.shape[1]))
        return torch.sparse.sampled_addmm(pattern, grad, x, beta=0.0).values()
    block = values.shape[1]
    left = grad.unflatten(0, (-1, block))[rows_of(pointers)]
    return left @ x.T.unflatten(0, (-1, block))[columns].transpose(1, 2)


class SparseLinear(nn.Module):
    """y = x Wᵀ + b as nn.Linear calculates it, but W keeps only what is not zero, and only that is trained."""

    pointers: Tensor
    columns: Tensor

    def __init__(self, parts: Parts, inputs: int, bias: Tensor | None = None):
        super().__init__()
        pointers, columns, values = parts
        self.block = 1 if values.ndim == 1 else values.shape[1]
        self.in_features, self.out_features = inputs, (len(pointers) - 1) * self.block
        self.values = nn.Parameter(values.clone())
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())
        self.register_buffer("pointers", pointers)
        self.register_buffer("columns", columns)
        transposed = turned(pointers, columns, inputs // self.block)
        for name, tensor in zip(("starts", "rows", "order"), transposed, strict=True):
            self.register_buffer(name, tensor, persistent=False)  # follows from the others

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] != self.in_features:
            raise ValueError(f"this layer reads {self.in_features} numbers for each example, not {tuple(x.shape)}")
        other = (self.get_buffer(name) for name in ("starts", "rows", "order"))
        y = Multiply.apply(x.reshape(-1, x.shape[-1]), self.values, self.pointers, self.columns, *other)
        y = y.reshape(*x.shape[:-1], self.out_features)
        return y if self.bias is None else y + self.bias

    def extra_repr(self) -> str:
        return f"{self.in_features} → {self.out_features}, {self.values.numel():,} values kept, block={self.block}"


def to_sparse(layer: nn.Linear, block: int = 1) -> SparseLinear:
    """The same layer with its zeros left out."""
    return SparseLinear(compress(layer.weight, block), layer.in_features, layer.bias)


def to_dense(layer: SparseLinear) -> nn.Linear:
    """The same layer with its zeros written out."""
    dense = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None, dtype=layer.values.dtype)
    parts = layer.pointers, layer.columns, layer.values.detach()
    with torch.no_grad():
        dense.weight.copy_(compressed(parts, (layer.out_features, layer.in_features)).to_dense())
        if layer.bias is not None:
            dense.bias.copy_(layer.bias)
    return dense.train(layer.training)


def convert(model: nn.Module, above: float = 0.8, block: int = 1) -> nn.Module:
    """A copy of `model` in which every linear layer whose weights are zero to over `above` of them is sparse."""
    box = nn.ModuleList([copy.deepcopy(model)])  # the model may itself be a linear layer
    for name, layer in list(box.named_modules()):
        if type(layer) is nn.Linear and float((layer.weight == 0).float().mean()) > above:  # no kind of its own
            put(box, name, to_sparse(layer, block).train(layer.training))
    return box[0]


def load_sparse(model: nn.Module, tensors: dict[str, Tensor]) -> nn.Module:
    """A copy of the dense `model` with the sparse layers and all values that the saved result of `convert` holds."""
    box = nn.ModuleList([copy.deepcopy(model)])
    for name in [n.removesuffix("values").rstrip(".") for n in tensors if n.endswith("values")]:
        pointers, columns, values, bias = (
            tensors.get(f"{name}.{part}".lstrip(".")) for part in ("pointers", "columns", "values", "bias")
        )
        place = f"0.{name}".rstrip(".")
        layer = dict(box.named_modules()).get(place)
        if not isinstance(layer, nn.Linear) or pointers is None or columns is None or values is None:
            raise ValueError(f"these tensors belong to another network: {name or 'it'} is no linear layer here")
        sparse = SparseLinear((pointers, columns, values), layer.in_features, bias)
        if sparse.out_features != layer.out_features or (columns >= layer.in_features // sparse.block).any():
            raise ValueError(f"these tensors belong to another network: they do not fit into {name or 'it'}, {layer}")
        put(box, place, sparse)
    box[0].load_state_dict(tensors)
    return box[0]


def put(model: nn.Module, name: str, layer: nn.Module) -> None:
    """Set `layer` in the place called `name`, in place."""
    path, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(path), leaf, layer)
