"""Networks of the shapes that GPUs are used for, in torch alone, with random weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Size:
    """How large the networks are: whole, or small enough to be tried on a CPU."""

    hidden: int
    image: int
    blocks: tuple[int, ...]
    layers: int
    tokens: int


WHOLE = Size(hidden=1024, image=224, blocks=(3, 4, 6, 3), layers=6, tokens=256)
SMALL = Size(hidden=64, image=32, blocks=(1, 1, 1, 1), layers=2, tokens=64)
FEATURES = 64
VOCABULARY = 30_522


class Mlp(nn.Sequential):
    """64 numbers, three hidden layers, one logit."""

    def __init__(self, size: Size) -> None:
        wide = size.hidden
        layers: list[nn.Module] = [nn.Linear(FEATURES, wide), nn.ReLU()]
        layers += [nn.Linear(wide, wide), nn.ReLU(), nn.Linear(wide, wide), nn.ReLU()]
        super().__init__(*layers, nn.Linear(wide, 1), nn.Flatten(0))


class _Bottleneck(nn.Module):
    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        after = 4 * width
        self.body = nn.Sequential(
            *_convolution(before, width, 1),
            nn.ReLU(),
            *_convolution(width, width, 3, stride),
            nn.ReLU(),
            *_convolution(width, after, 1),
        )
        same = before == after and stride == 1
        self.skip = (
            nn.Identity() if same else nn.Sequential(*_convolution(before, after, 1, stride))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(x) + self.skip(x))


def _convolution(before: int, after: int, size: int, stride: int = 1) -> list[nn.Module]:
    padding = size // 2
    return [
        nn.Conv2d(before, after, size, stride, padding, bias=False),
        nn.BatchNorm2d(after),
    ]


class ResNet(nn.Module):
    """ResNet-50 where the size is whole: bytes of an image (b, 3·h·w) to 1,000 logits."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.image = size.image
        stem = [*_convolution(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
        stages, before = list[nn.Module](), 64
        for index, count in enumerate(size.blocks):
            width = 64 << index
            for block in range(count):
                stages.append(_Bottleneck(before, width, 2 if index and not block else 1))
                before = 4 * width
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 1000)]
        self.body = nn.Sequential(*stem, *stages, *head)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Returns logits (b, 1000) of bytes (b, 3·h·w)."""
        pixels = image.view(-1, 3, self.image, self.image).float() / 127.5 - 1
        logits: torch.Tensor = self.body(pixels)
        return logits


class MiniLm(nn.Module):
    """A MiniLM-shaped encoder: tokens (b, t), 0 where there is none, to one vector of 384."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, 384)
        self.places = nn.Embedding(size.tokens, 384)
        layers = [
            nn.TransformerEncoderLayer(384, 12, 1536, activation="gelu", batch_first=True)
            for _ in range(size.layers)
        ]
        self.layers = nn.ModuleList(layers)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Returns the mean over each row's tokens (b, 384)."""
        blank = ids == 0
        x = self.tokens(ids) + self.places(torch.arange(ids.shape[1], device=ids.device))
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=blank)
        kept = (~blank).unsqueeze(2)
        mean: torch.Tensor = (x * kept).sum(1) / kept.sum(1).clamp(min=1)
        return mean
