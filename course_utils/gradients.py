"""The gradient of each image's loss for each weight, from one backward pass over the whole batch.

A layer's weight gradient is d xᵀ, where x is what the layer read and d what flows back into it. PyTorch sums this over
the images; two hooks per layer catch x and d before that, and what is made of them is not kept.
"""

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn.functional import cross_entropy, unfold

from course_utils.calibration import Batches, looking, samples, watching
from course_utils.masks import prunable


def per_image(model: nn.Module, batches: Batches, use: Callable) -> int:
    """Call use(name, d, x) for every weight, where d @ x.mT holds its gradient for each image; returns how many."""
    names = {name[: -len("weight")].rstrip("."): name for name in prunable(model)}  # of layers: of their weights
    used: set[int] = set()
    size = count = 0

    def see(layer: str, x: Tensor, output: Tensor) -> None:
        module = model.get_submodule(layer)
        if id(module.weight) in used or len(x) != size:
            raise ValueError(f"{layer} is used twice, or mixes images: its gradient of one image cannot be told here")
        used.add(id(module.weight))
        output.register_hook(lambda d: use(names[layer], *factors(module, d, x.detach())))

    with looking(model), watching(model, names, see):
        model.requires_grad_(False)  # else backward would also sum the weights' gradients, for nothing
        for x, y in samples(model, batches, labelled=True):
            used.clear()
            size = len(x)
            count += size
            cross_entropy(model(x.detach().requires_grad_()), y, reduction="sum").backward()
    return count


def factors(layer: nn.Module, d: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """d as images × groups × outputs × positions, x as images × groups × inputs × positions: so that g = d @ x.mT."""
    if isinstance(layer, nn.Linear):
        d, x = d.flatten(1, -2) if d.ndim > 2 else d[:, None], x.flatten(1, -2) if x.ndim > 2 else x[:, None]
        return d[:, None].mT, x[:, None].mT
    if not isinstance(layer, nn.Conv2d) or isinstance(layer.padding, str) or layer.padding_mode != "zeros":
        raise ValueError(f"{layer} is not known here: take Linear, or Conv2d padded by a number of zeros")
    if layer.kernel_size == (1, 1) and layer.padding == (0, 0):
        patches = x[:, :, :: layer.stride[0], :: layer.stride[1]].flatten(2)  # nothing to unfold
    else:
        patches = unfold(x, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
    return d.flatten(2).unflatten(1, (layer.groups, -1)), patches.unflatten(1, (layer.groups, -1))
