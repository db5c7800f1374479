"""The encoders: a CNN on frames and a convolutional recurrent network on spectrograms.

Tensors in, tensors out: no files, no choice of device. Both encoders give features `(B, D)`; an embedding is the
features less the `centre` (their mean over the training data, which takes away what all moments have in common),
divided by their norm.

References:
    [arandjelovic2017] Look, Listen and Learn, 2017, arXiv:1705.08168. Two subnetworks, one per modality, trained on the
        correspondence of sight and sound; ours keeps the division and replaces both subnetworks by smaller ones.
    [he2016] Deep Residual Learning for Image Recognition, 2015, arXiv:1512.03385. The visual encoder's block (fig. 2)
        and its four stages.
    [hariharan2015] Hypercolumns for Object Segmentation and Fine-grained Localization, 2014, arXiv:1411.5752. What is
        read off several stages together.
    [cakir2017] Convolutional Recurrent Neural Networks for Polyphonic Sound Event Detection, 2017, arXiv:1702.06286.
        Convolutions that pool over frequency, then a recurrent layer over time.
"""

from dataclasses import dataclass
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

LEAST_VARIANCE = 1e-4
"""Added to variances before their root is taken, whose slope is infinite at 0."""


@dataclass(frozen=True)
class VisualConfig:
    """Shape of the visual encoder.

    Attributes:
        frame_size: side of the square input picture in pixels, in training and in use.
        base_channels: channels of the first stage; the four stages have 1, 2, 4 and 8 times as many.
        blocks: residual blocks of each stage; (2, 2, 2, 2) is the ResNet-18 layout.
        embedding: D.
        mirrored: whether the embedding is of a picture and its mirror image together, so that both have the same one.
        grid: n, where features are read off deviations and n x n grids of means after the first three stages and the
            mean after the last; 0, where off that mean alone. The early stages tell where light, colours and edges are.
    """

    frame_size: int = 96
    base_channels: int = 40
    blocks: tuple[int, int, int, int] = (2, 2, 2, 2)
    embedding: int = 256
    mirrored: bool = True
    grid: int = 3


@dataclass(frozen=True)
class AudioConfig:
    """Shape of the audio encoder.

    Attributes:
        channels: of the four convolution stages.
        hidden: units of the GRU in each direction.
        embedding: D.
    """

    channels: tuple[int, int, int, int] = (24, 48, 96, 192)
    hidden: int = 256
    embedding: int = 256


class Encoder(nn.Module):
    """What both encoders share: features, and the embedding made of them."""

    centre: Tensor

    def __init__(self, embedding: int) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(embedding))

    def embed(self, inputs: Tensor) -> Tensor:
        """(B, D) float32 embeddings of norm 1."""
        return self.normalised(self.features(inputs))

    def features(self, inputs: Tensor) -> Tensor:
        """(B, D) features that embeddings are made of."""
        features: Tensor = self(inputs)
        return features

    def normalised(self, features: Tensor) -> Tensor:
        """(B, D) features to embeddings."""
        return F.normalize(features.float() - self.centre, dim=1)


class VisualEncoder(Encoder):
    """(B, 3, S, S) uint8 RGB to (B, D) features; [he2016] fig. 2 and table 1, the 7x7 stem replaced by 3x3."""

    def __init__(self, config: VisualConfig) -> None:
        super().__init__(config.embedding)
        self.config = config
        width = config.base_channels
        self.stem = nn.Sequential(
            _convolution(3, width, kernel=3, stride=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        stages: list[nn.Module] = []
        n_in = width
        n_read = 0
        for stage, n_blocks in enumerate(config.blocks):
            n_out = width << stage
            for block in range(n_blocks):
                stages.append(ResidualBlock(n_in, n_out, stride=2 if stage and not block else 1))
                n_in = n_out
            n_read += n_out * (1 + config.grid**2) if config.grid and stage < 3 else 0
        self.stages = nn.Sequential(*stages)
        self.project = nn.Linear(n_read + n_in, config.embedding)

    def forward(self, frames: Tensor) -> Tensor:
        """Features of a batch of pictures one way round; float ones in [0, 255] are taken too (augmented ones)."""
        features: Tensor = self.project(self._pool(frames))
        return features

    def features(self, frames: Tensor) -> Tensor:
        """(B, D) features of pictures, or their mean with those of the mirror images if the encoder is `mirrored`."""
        features: Tensor = self.project(self.pool(frames))
        return features

    def pool(self, frames: Tensor) -> Tensor:
        """(B, R) float32: all the work of `features` but the projection."""
        pooled = self._pool(frames)
        return (pooled + self._pool(frames.flip(3))) / 2 if self.config.mirrored else pooled

    def _pool(self, frames: Tensor) -> Tensor:
        """What features are read off: (B, 3, S, S) -> (B, 8W, S/32, S/32) after the last stage -> (B, R)."""
        x = ((frames.float() - 127.5) / 64).to(_dtype_of(self.stem))
        x = self.stem(x.contiguous(memory_format=torch.channels_last))
        ends = list(accumulate(self.config.blocks))[:3] if self.config.grid else []
        read: list[Tensor] = []
        for n_blocks, block in enumerate(self.stages, start=1):
            x = block(x)
            if n_blocks in ends:
                read += self._describe(x.float())
        return torch.cat([*read, x.mean(dim=(2, 3), dtype=torch.float32)], dim=1)

    def _describe(self, x: Tensor) -> list[Tensor]:
        """Of a (B, C, H, W) stage the (B, C) deviations and the (B, C n^2) means of a grid's cells."""
        means, squares = (F.adaptive_avg_pool2d(values, 1).flatten(1) for values in (x, x.square()))
        variances = (squares - means.square()).clamp_min(0)  # eight times as fast as `var`, the maps as they lie
        return [(variances + LEAST_VARIANCE).sqrt(), F.adaptive_avg_pool2d(x, self.config.grid).flatten(1)]


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a short cut; [he2016] fig. 2, projection short cut where the shape changes."""

    def __init__(self, n_in: int, n_out: int, *, stride: int | tuple[int, int]) -> None:
        super().__init__()
        self.first = _convolution(n_in, n_out, kernel=3, stride=stride)
        self.second = _convolution(n_out, n_out, kernel=3, stride=1)
        same = n_in == n_out and stride in (1, (1, 1))
        self.shortcut = nn.Identity() if same else _convolution(n_in, n_out, kernel=1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, n_in, H, W) -> (B, n_out, H / stride, W / stride)."""
        return F.relu(self.second(F.relu(self.first(x))) + self.shortcut(x))


class AudioEncoder(Encoder):
    """(B, n_mels, n_steps) log-mel spectrogram to (B, D) features; the layout of [cakir2017].

    Four convolution stages halve time twice and frequency four times, the last two by stride; a bidirectional GRU reads
    the 25 steps that are left; its outputs are averaged and their maximum taken over time.
    """

    def __init__(self, config: AudioConfig, *, n_mels: int) -> None:
        super().__init__(config.embedding)
        if n_mels % 16:
            raise ValueError(f"n_mels {n_mels} is not a multiple of 16, which four halvings need")
        self.config = config
        a, b, c, d = config.channels
        self.normalise = nn.BatchNorm1d(n_mels)  # each band to zero mean and unit deviation over the training data
        self.convolutions = nn.Sequential(
            _convolution(1, a, kernel=3, stride=2),
            nn.ReLU(inplace=True),
            _convolution(a, b, kernel=3, stride=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            ResidualBlock(b, c, stride=(2, 1)),
            ResidualBlock(c, d, stride=(2, 1)),
        )
        self.recurrent = nn.GRU(d * n_mels // 16, config.hidden, batch_first=True, bidirectional=True)
        self.project = nn.Linear(4 * config.hidden, config.embedding)

    def forward(self, spectrogram: Tensor) -> Tensor:
        """Features of a batch of spectrograms."""
        x = self.normalise(spectrogram)[:, None].to(_dtype_of(self.convolutions))  # (B, M, T) -> (B, 1, M, T)
        x = self.convolutions(x.contiguous(memory_format=torch.channels_last))  # -> (B, C, M/16, T/4)
        x = x.permute(0, 3, 1, 2).flatten(2).float()  # -> (B, T/4, C * M/16)
        x, _ = self.recurrent(x)  # -> (B, T/4, 2H)
        features: Tensor = self.project(torch.cat([x.mean(dim=1), x.amax(dim=1)], dim=1))
        return features


def fold_norms(encoder: Encoder) -> None:
    """Fold every batch norm into the convolution before it, in place: the same function in fewer passes over memory.

    For use only: a folded encoder cannot be trained, nor take weights of one that is not folded.
    """
    for module in encoder.modules():
        if isinstance(module, nn.Sequential) and len(module) == 2:
            convolution, norm = module
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                module[0], module[1] = fuse_conv_bn_eval(convolution, norm), nn.Identity()


def convolve_in_bfloat16(encoder: Encoder) -> None:
    """Let the convolutions compute in bfloat16, in place, and what is around them in float32. For use only."""
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d):
            module.to(torch.bfloat16)


def _dtype_of(module: nn.Module) -> torch.dtype:
    """What the first layer of a module computes in."""
    return next(module.parameters()).dtype


def _convolution(n_in: int, n_out: int, *, kernel: int, stride: int | tuple[int, int]) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, kernel, stride=stride, padding=kernel // 2, bias=False), nn.BatchNorm2d(n_out)
    )
