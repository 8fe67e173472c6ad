"""The three nets: a plain wide VGG, a ResNet and a ViT with attention written out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["NETS", "ResNet", "ViT", "build", "vgg"]


def conv_bn(inputs: int, outputs: int, stride: int = 1, kernel: int = 3) -> list[nn.Module]:
    """A convolution without bias, padded to keep the size at stride 1, and its BatchNorm."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    return [conv, nn.BatchNorm2d(outputs)]


def vgg(widths: tuple[tuple[int, ...], ...] = ((64, 64), (128, 128), (192, 192))) -> nn.Sequential:
    """Conv-BN-ReLU stages with max pooling between them, then a mean and a Linear."""
    layers: list[nn.Module] = []
    channels = 1
    for index, stage in enumerate(widths):
        if index:
            layers.append(nn.MaxPool2d(2))
        for width in stage:
            layers += [*conv_bn(channels, width), nn.ReLU()]
            channels = width
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10)]
    return nn.Sequential(*layers)


class Block(nn.Module):
    """relu(BN(conv(relu(BN(conv(x))))) + shortcut(x))."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *conv_bn(inputs, outputs, stride), nn.ReLU(), *conv_bn(outputs, outputs)
        )
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Sequential(*([] if same else conv_bn(inputs, outputs, stride, 1)))

    def forward(self, x: Tensor) -> Tensor:
        """[n,c,h,w] -> [n,c',h/stride,w/stride]."""
        return torch.relu(self.body(x) + self.shortcut(x))


class ResNet(nn.Module):
    """A CIFAR-style ResNet; ``depth`` residual blocks in each of the stages."""

    def __init__(self, widths: tuple[int, ...] = (32, 64, 128), depth: int = 1) -> None:
        super().__init__()
        self.stem = nn.Sequential(*conv_bn(1, widths[0]), nn.ReLU())
        blocks: list[nn.Module] = []
        channels = widths[0]
        for index, width in enumerate(widths):
            for place in range(depth):
                blocks.append(Block(channels, width, 2 if index and not place else 1))
                channels = width
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.pool(self.blocks(self.stem(x))).flatten(1))
        return logits


class Attention(nn.Module):
    """Multi-head self-attention written out: [n,t,d] -> [n,t,d]."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.size = dim // heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        tokens, dim = x.shape[1], x.shape[2]
        qkv = self.qkv(x).reshape(-1, tokens, 3, self.heads, self.size)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        scores = torch.matmul(q, k.transpose(-2, -1)) * self.size**-0.5
        mixed = torch.matmul(torch.softmax(scores, dim=-1), v)
        y: Tensor = self.out(mixed.permute(0, 2, 1, 3).reshape(-1, tokens, dim))
        return y


class Encoder(nn.Module):
    """A pre-norm transformer block with an erf-GELU MLP."""

    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attention = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        y: Tensor = x + self.mlp(self.norm2(x))
        return y


class ViT(nn.Module):
    """7 x 7 patches of 4 x 4 pixels and a class token through pre-norm blocks."""

    def __init__(self, dim: int = 64, depth: int = 5, heads: int = 4, hidden: int = 128) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, dim, 4, 4)
        self.token = nn.Parameter(torch.zeros(1, 1, dim))
        self.position = nn.Parameter(0.02 * torch.randn(1, 50, dim))
        self.blocks = nn.Sequential(*(Encoder(dim, heads, hidden) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, 10)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patch(x).flatten(2).transpose(1, 2)
        token = self.token.expand(patches.shape[0], -1, -1)
        x = torch.cat([token, patches], dim=1) + self.position
        logits: Tensor = self.head(self.norm(self.blocks(x))[:, 0])
        return logits


NETS = ("vgg", "resnet", "vit")


def build(name: str) -> nn.Module:
    """A freshly initialised net, by its name in ``NETS``."""
    if name == "vgg":
        return vgg()
    if name == "resnet":
        return ResNet()
    if name == "vit":
        return ViT()
    raise ValueError(f"unknown net {name!r}, expected one of {NETS}")
