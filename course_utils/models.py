"""The networks of the course. Each convolutional one says in `groups()` which tensors belong to which of its channels.

`width` and `blocks` make a network narrower and shallower through the same constructor; `smoke` gets its own that way.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from course_utils.channels import Group


def conv(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Conv2d:
    """A convolution without bias whose output is as large as its input (at stride 1)."""
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)


def channels(full: int, width: float) -> int:
    """How many channels are left of `full` ones at this width."""
    if round(full * width) < 1:
        raise ValueError(f"width {width} leaves no channel of {full}")
    return round(full * width)


def writes(*layers: str) -> Group:
    """What belongs to the outputs of these (convolution, BatchNorm) pairs: 'conv1 bn1' -> {'conv1.weight': 0, …}."""
    group: Group = {}
    for pair in layers:
        convolution, norm = pair.split()
        group[f"{convolution}.weight"] = 0
        group |= {f"{norm}.{leaf}": 0 for leaf in ("weight", "bias", "running_mean", "running_var")}
    return group


def reads(*layers: str) -> Group:
    """What belongs to the inputs of these layers: their weights, along axis 1."""
    return {f"{layer}.weight": 1 for layer in layers}


def initialise(model: nn.Module) -> None:
    """He's initialisation for convolutions (fan-out, ReLU)."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class Bottleneck(nn.Module):
    """1×1 down, 3×3, 1×1 up to four times the width, added to the shortcut. Tensor names are torchvision's."""

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        self.conv1, self.bn1 = conv(inputs, width, 1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = conv(width, width, 3, stride), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = conv(width, 4 * width, 1), nn.BatchNorm2d(4 * width)
        self.downsample = None
        if stride != 1 or inputs != 4 * width:
            self.downsample = nn.Sequential(conv(inputs, 4 * width, 1, stride), nn.BatchNorm2d(4 * width))

    def forward(self, x: Tensor) -> Tensor:
        y = relu(self.bn1(self.conv1(x)))
        y = relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """A bottleneck ResNet for small images: a 3×3 stem with stride 1 and no pooling after it."""

    def __init__(self, classes: int, width: float, blocks: tuple[int, ...]):
        super().__init__()
        stem = inputs = channels(64, width)
        self.conv1, self.bn1 = conv(3, stem, 3), nn.BatchNorm2d(stem)
        for stage, count in enumerate(blocks, 1):
            inner = stem * 2 ** (stage - 1)
            strides = [1 if stage == 1 else 2] + [1] * (count - 1)
            layers = [Bottleneck(inputs if b == 0 else 4 * inner, inner, s) for b, s in enumerate(strides)]
            self.add_module(f"layer{stage}", nn.Sequential(*layers))
            inputs = 4 * inner
        self.stages = len(blocks)
        self.fc = nn.Linear(inputs, classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = relu(self.bn1(self.conv1(x)))
        for stage in range(1, self.stages + 1):
            x = self.get_submodule(f"layer{stage}")(x)
        return self.fc(x.mean((2, 3)))

    def groups(self) -> dict[str, Group]:
        """The stem, the two inner widths of every block, and one residual stream per stage."""
        found = {"stem": writes("conv1 bn1") | reads("layer1.0.conv1", "layer1.0.downsample.0")}
        for stage in range(1, self.stages + 1):
            names = [f"layer{stage}.{name}" for name, _ in self.get_submodule(f"layer{stage}").named_children()]
            for name in names:
                found[f"{name}.conv1"] = writes(f"{name}.conv1 {name}.bn1") | reads(f"{name}.conv2")
                found[f"{name}.conv2"] = writes(f"{name}.conv2 {name}.bn2") | reads(f"{name}.conv3")
            writers = [f"{names[0]}.downsample.0 {names[0]}.downsample.1"] + [f"{n}.conv3 {n}.bn3" for n in names]
            after = f"layer{stage + 1}.0"
            readers = [f"{n}.conv1" for n in names[1:]]
            readers += ["fc"] if stage == self.stages else [f"{after}.conv1", f"{after}.downsample.0"]
            found[f"layer{stage}"] = writes(*writers) | reads(*readers)
        return found


def resnet50(classes: int = 10, width: float = 1.0, blocks: tuple[int, ...] = (3, 4, 6, 3)) -> ResNet:
    """ResNet-50 with the stem for 32 × 32 images; with its full width 23.5 million parameters."""
    return ResNet(classes, width, blocks)


class BasicBlock(nn.Module):
    """Two 3×3 convolutions; the shortcut is He's option A: skip pixels, add silent channels, no parameters."""

    source: Tensor

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.stride = outputs // inputs
        self.conv1, self.bn1 = conv(inputs, outputs, 3, self.stride), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = conv(outputs, outputs, 3), nn.BatchNorm2d(outputs)
        source = torch.zeros(outputs, inputs)  # row o says which input channel becomes output channel o
        source[(outputs - inputs) // 2 :][:inputs] = torch.eye(inputs)
        self.register_buffer("source", source, persistent=False)

    def shortcut(self, x: Tensor) -> Tensor:
        x = x[:, :, :: self.stride, :: self.stride]
        return x[:, self.source.argmax(1)] * self.source.sum(1).view(-1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return relu(y + (self.shortcut(x) if self.stride > 1 else x))


class ResNetCifar(nn.Module):
    """He et al.'s ResNet for CIFAR: three stages of 16, 32 and 64 channels, each of (depth - 2) / 6 blocks."""

    def __init__(self, depth: int, classes: int, width: float):
        super().__init__()
        if depth < 8 or depth % 6 != 2:
            raise ValueError(f"the depth of a CIFAR ResNet is 6 n + 2 (20, 32, 44, 56, …), not {depth}")
        stem = channels(16, width)
        widths = [stem, stem, 2 * stem, 4 * stem]
        self.blocks = depth // 6
        self.conv1, self.bn1 = conv(3, widths[0], 3), nn.BatchNorm2d(widths[0])
        for stage in (1, 2, 3):
            inputs = [widths[stage - 1]] + [widths[stage]] * (self.blocks - 1)
            self.add_module(f"layer{stage}", nn.Sequential(*(BasicBlock(i, widths[stage]) for i in inputs)))
        self.linear = nn.Linear(widths[3], classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = relu(self.bn1(self.conv1(x)))
        for stage in (1, 2, 3):
            x = self.get_submodule(f"layer{stage}")(x)
        return self.linear(x.mean((2, 3)))

    def groups(self) -> dict[str, Group]:
        """The inner channels of every block, and one residual stream per stage (the stem writes into the first)."""
        found, blocks = {}, {s: [f"layer{s}.{b}" for b in range(self.blocks)] for s in (1, 2, 3)}
        for name in (n for names in blocks.values() for n in names):
            found[f"{name}.conv1"] = writes(f"{name}.conv1 {name}.bn1") | reads(f"{name}.conv2")
        for stage, names in blocks.items():
            stream = writes(*(f"{n}.conv2 {n}.bn2" for n in names))
            stream |= writes("conv1 bn1") if stage == 1 else {f"{names[0]}.source": 0}
            stream |= reads(*(f"{n}.conv1" for n in names[stage > 1 :]))
            after = f"layer{stage + 1}.0"
            stream |= reads("linear") if stage == 3 else reads(f"{after}.conv1") | {f"{after}.source": 1}
            found[f"layer{stage}"] = stream
        return found


def resnet_cifar(depth: int, classes: int = 10, width: float = 1.0) -> ResNetCifar:
    """ResNet-20 or ResNet-56 of He et al. for CIFAR-10, with shortcuts that have no parameters."""
    return ResNetCifar(depth, classes, width)


class VGG(nn.Module):
    """VGG-16 with BatchNorm: 3×3 convolutions in five stages, pooling between them, one linear layer."""

    def __init__(self, classes: int, width: float, blocks: tuple[int, ...]):
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for full, count in zip((64, 128, 256, 512, 512), blocks, strict=True):
            for _ in range(count):
                outputs = channels(full, width)
                layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
                inputs = outputs
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(inputs, classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean((2, 3)))

    def groups(self) -> dict[str, Group]:
        """One group per convolution: its outputs, and the inputs of the layer that follows."""
        convs = [f"features.{i}" for i, m in enumerate(self.features) if isinstance(m, nn.Conv2d)]
        found = {}
        for name, after in zip(convs, [*convs[1:], "classifier"], strict=True):
            norm = f"features.{int(name.split('.')[1]) + 1}"
            found[name] = writes(f"{name} {norm}") | {f"{name}.bias": 0} | reads(after)
        return found


def vgg16_bn(classes: int = 10, width: float = 1.0, blocks: tuple[int, ...] = (2, 2, 3, 3, 3)) -> VGG:
    """VGG-16 with BatchNorm and a single linear layer, as it is used on CIFAR-10; 14.7 million parameters."""
    return VGG(classes, width, blocks)


class MLP(nn.Module):
    """Linear layers with ReLU between them, on flattened images."""

    def __init__(self, sizes: tuple[int, ...], bias: bool):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(i, o, bias) for i, o in pairwise(sizes))

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for layer in self.layers[:-1]:
            x = relu(layer(x))
        return self.layers[-1](x)

    def groups(self) -> dict[str, Group]:
        """The units of each hidden layer: its rows, and the columns of the layer that follows."""
        found = {}
        for i, layer in enumerate(self.layers[:-1]):
            own: Group = {f"layers.{i}.{leaf}": 0 for leaf, _ in layer.named_parameters()}
            found[f"layers.{i}"] = own | {f"layers.{i + 1}.weight": 1}
        return found


def mlp(sizes: tuple[int, ...] = (784, 1000, 1000, 500, 200, 10), bias: bool = False) -> MLP:
    """The perceptron of the pruning challenge; `mlp((64, 100, 100, 50, 20, 10))` is its little sister for digits."""
    return MLP(sizes, bias)


def deit_tiny(classes: int = 1000, size: int = 224, patch: int = 16, width: float = 1.0, depth: int = 12) -> nn.Module:
    """timm's DeiT-Tiny (three heads of 64 at full width)."""
    return deit(classes, size, patch, width, depth, heads=3)


def deit_small(classes: int = 1000, size: int = 224, patch: int = 16, width: float = 1.0, depth: int = 12) -> nn.Module:
    """timm's DeiT-Small (six heads of 64 at full width)."""
    return deit(classes, size, patch, width, depth, heads=6)


def deit(classes: int, size: int, patch: int, width: float, depth: int, heads: int) -> nn.Module:
    """A vision transformer from timm; `width` scales the channels of each head, not the number of heads."""
    from course_utils.vits import DeiT

    embedding = heads * channels(64, width)
    return DeiT(img_size=size, patch_size=patch, embed_dim=embedding, depth=depth, num_heads=heads, num_classes=classes)
