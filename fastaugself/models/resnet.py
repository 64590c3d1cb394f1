"""ResNet-18, -34 and -50 with torchvision's parameter names (He 2016, arXiv 1512.03385).

Bottleneck blocks have their stride in the 3x3 convolution ("v1.5"), as in torchvision.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Norm = Callable[[int], nn.Module]

LAYERS: dict[str, tuple[str, tuple[int, int, int, int]]] = {
    "resnet18": ("basic", (2, 2, 2, 2)),
    "resnet34": ("basic", (3, 4, 6, 3)),
    "resnet50": ("bottleneck", (3, 4, 6, 3)),
}

STAGES = ("layer1", "layer2", "layer3", "layer4")


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)


class Shortcut(nn.Conv2d):
    """The 1x1 convolution of a downsampling residual connection.

    On CPUs without AVX-512, oneDNN 3.12 (torch 2.13) writes out of bounds in the weight gradient of a stride-2 1x1
    convolution on fewer than 8 channels in channels-last layout. In that case the input is subsampled first, and the
    convolution has stride 1.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__(inputs, outputs, 1, stride=stride, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        if self.in_channels < 8 and input.device.type == "cpu":
            step = int(self.stride[0])
            return F.conv2d(input[:, :, ::step, ::step], self.weight)
        return super().forward(input)


class BasicBlock(nn.Module):
    expansion = 1

    def __init__(self, inputs: int, planes: int, stride: int, downsample: nn.Module | None, norm: Norm) -> None:
        super().__init__()
        self.conv1 = _conv(inputs, planes, 3, stride)
        self.bn1 = norm(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = _conv(planes, planes, 3)
        self.bn2 = norm(planes)
        self.downsample = downsample

    def forward(self, x_BCHW: Tensor) -> Tensor:
        identity = x_BCHW if self.downsample is None else self.downsample(x_BCHW)
        y = self.relu(self.bn1(self.conv1(x_BCHW)))
        return self.relu(self.bn2(self.conv2(y)) + identity)


class Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, inputs: int, planes: int, stride: int, downsample: nn.Module | None, norm: Norm) -> None:
        super().__init__()
        self.conv1 = _conv(inputs, planes, 1)
        self.bn1 = norm(planes)
        self.conv2 = _conv(planes, planes, 3, stride)
        self.bn2 = norm(planes)
        self.conv3 = _conv(planes, planes * self.expansion, 1)
        self.bn3 = norm(planes * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x_BCHW: Tensor) -> Tensor:
        identity = x_BCHW if self.downsample is None else self.downsample(x_BCHW)
        y = self.relu(self.bn1(self.conv1(x_BCHW)))
        y = self.relu(self.bn2(self.conv2(y)))
        return self.relu(self.bn3(self.conv3(y)) + identity)


class ResNet(nn.Module):
    """ResNet from images [B, 3, H, W] to pooled features [B, num_features].

    name: a key of LAYERS. width: channels of the first stage (64 in the paper). stem: "imagenet" is 7x7 stride 2 and
    max-pooling; "small" is 3x3 stride 1 without pooling, for images of about 32 px. norm: builds a norm for a number of
    channels. zero_init_residual: initialise the last batch norm of each residual branch to zero.
    """

    def __init__(
        self,
        name: str,
        *,
        width: int = 64,
        stem: str = "imagenet",
        norm: Norm = nn.BatchNorm2d,
        zero_init_residual: bool = False,
    ) -> None:
        super().__init__()
        kind, layers = LAYERS[name]
        block: type[BasicBlock | Bottleneck] = BasicBlock if kind == "basic" else Bottleneck
        self._inputs = width
        small = stem == "small"
        self.conv1 = nn.Conv2d(3, width, 3 if small else 7, 1 if small else 2, 1 if small else 3, bias=False)
        self.bn1 = norm(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if small else nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = self._stage(block, width, layers[0], 1, norm)
        self.layer2 = self._stage(block, 2 * width, layers[1], 2, norm)
        self.layer3 = self._stage(block, 4 * width, layers[2], 2, norm)
        self.layer4 = self._stage(block, 8 * width, layers[3], 2, norm)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.num_features = 8 * width * block.expansion
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif zero_init_residual and isinstance(module, BasicBlock):
                nn.init.zeros_(module.bn2.weight)  # type: ignore[arg-type]
            elif zero_init_residual and isinstance(module, Bottleneck):
                nn.init.zeros_(module.bn3.weight)  # type: ignore[arg-type]

    def _stage(
        self, block: type[BasicBlock | Bottleneck], planes: int, depth: int, stride: int, norm: Norm
    ) -> nn.Sequential:
        outputs = planes * block.expansion
        downsample = None
        if stride != 1 or self._inputs != outputs:
            downsample = nn.Sequential(Shortcut(self._inputs, outputs, stride), norm(outputs))
        blocks = [block(self._inputs, planes, stride, downsample, norm)]
        self._inputs = outputs
        blocks += [block(outputs, planes, 1, None, norm) for _ in range(depth - 1)]
        return nn.Sequential(*blocks)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.forward_layers(x_BCHW, ())[0]

    def forward_layers(self, x_BCHW: Tensor, layers: tuple[str, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        """Pooled features [B, D], and the feature maps [B, C, H, W] of the named stages (`layer1` to `layer4`)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x_BCHW))))
        maps = {}
        for name in STAGES:
            x = getattr(self, name)(x)
            if name in layers:
                maps[name] = x
        return torch.flatten(self.avgpool(x), 1), maps

    def layer_widths(self) -> dict[str, int]:
        """Number of channels of every stage, by name."""
        return {name: self.num_features // 2 ** (len(STAGES) - 1 - i) for i, name in enumerate(STAGES)}
