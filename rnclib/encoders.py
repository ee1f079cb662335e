"""Encoders: an input batch in, one feature vector per sample out."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from torch_geometric.data import Data
    from torch_geometric.nn import GINConv

__all__ = ["GIN", "GraphsAndNumbers", "ImageEncoder", "Perceptron"]


class GIN(nn.Module):
    """Graph isomorphism network (Xu et al. 2019) of the ESOL protocol.

    Graph convolutions without a learned ε, each with a two-layer perceptron inside; batch norm and tanh
    after all but the last; sum and mean over the atoms, concatenated.

    Parameters
    ----------
    in_channels : int
        Atom features.
    hidden_channels : int
        Width between the convolutions; their perceptrons are four times as wide inside.
    out_channels : int
        Width of the last convolution, and of its perceptron.
    num_layers : int
        Number of convolutions, at least 2.

    Attributes
    ----------
    out_features : int
        Length of a feature vector, ``2 * out_channels``.
    """

    def __init__(
        self, in_channels: int = 9, hidden_channels: int = 64, out_channels: int = 100, num_layers: int = 5
    ) -> None:
        super().__init__()
        if num_layers < 2:
            raise ValueError(f"num_layers: got {num_layers!r}; allowed: an integer of at least 2")
        with warnings.catch_warnings():  # torch-geometric 2.8 scripts helpers and asks for widgets at import time
            warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)
            warnings.filterwarnings("ignore", "IProgress not found")
            from torch_geometric.nn import GINConv, global_add_pool, global_mean_pool

        def conv(width_in: int, width: int, width_out: int) -> GINConv:
            return GINConv(
                nn.Sequential(nn.Linear(width_in, width), nn.ReLU(inplace=True), nn.Linear(width, width_out))
            )

        widths = [in_channels] + [hidden_channels] * (num_layers - 1)
        self.hidden = nn.ModuleList(conv(width, 4 * hidden_channels, hidden_channels) for width in widths[:-1])
        self.norms = nn.ModuleList(nn.BatchNorm1d(hidden_channels) for _ in self.hidden)
        self.last = conv(widths[-1], out_channels, out_channels)
        self.pools = (global_add_pool, global_mean_pool)
        self.out_features = 2 * out_channels

    def forward(self, graphs: Data) -> torch.Tensor:
        """Features of a batch of graphs, shape (n_graphs, out_features)."""
        x = graphs.x
        for convolution, norm in zip(self.hidden, self.norms, strict=True):
            x = torch.tanh(norm(convolution(x, graphs.edge_index)))
        x = self.last(x, graphs.edge_index)
        pooled = [pool(x, graphs.batch, graphs.batch_size) for pool in self.pools]
        return torch.cat(pooled, dim=1)


class ImageEncoder(nn.Module):
    """Convolutional trunk: images in, one feature vector for each image or view out.

    Parameters
    ----------
    model : {'resnet18', 'resnet50', 'small', 'residual'}
        The trunk of torchvision's ResNet (He et al. 2016) up to its average pooling, not pretrained; or, for images of
        at most 64 pixels on a CPU, four convolutions of stride 2 with batch norm and ReLU, or a convolution and three
        of that ResNet's blocks with fewer channels.

    Attributes
    ----------
    out_features : int
        Length of a feature vector: 512, 2048, 256, 96.
    """

    MODELS = ("resnet18", "resnet50", "small", "residual")

    def __init__(self, model: str) -> None:
        super().__init__()
        if model not in self.MODELS:
            raise ValueError(f"model: got {model!r}; allowed: {', '.join(map(repr, self.MODELS))}")
        if model == "small":
            widths = (3, 32, 64, 128, 256)
            layers: list[nn.Module] = []
            for width_in, width_out in itertools.pairwise(widths):
                convolution = nn.Conv2d(width_in, width_out, 3, stride=2, padding=1, bias=False)
                layers += [convolution, nn.BatchNorm2d(width_out), nn.ReLU(inplace=True)]
            self.trunk: nn.Module = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
            self.out_features = widths[-1]
        elif model == "residual":
            self.trunk, self.out_features = _residual((24, 48, 96)), 96
        else:
            from torchvision.models import get_model

            trunk = get_model(model, weights=None)
            self.out_features = trunk.fc.in_features
            trunk.fc = nn.Identity()
            self.trunk = trunk
        self.to(memory_format=torch.channels_last)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Features (n, out_features) of images (n, 3, height, width); (n, n_views, out_features) of several views."""
        features = self.trunk(images.flatten(0, -4).contiguous(memory_format=torch.channels_last))
        return features.unflatten(0, images.shape[:-3])


def _residual(widths: Sequence[int]) -> nn.Sequential:
    """A convolution of stride 2, and a basic block for each width, all but the first of stride 2."""
    from torchvision.models.resnet import BasicBlock

    layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 3, stride=2, padding=1, bias=False)]
    layers += [nn.BatchNorm2d(widths[0]), nn.ReLU(inplace=True), BasicBlock(widths[0], widths[0])]
    for width_in, width in itertools.pairwise(widths):
        shortcut = nn.Sequential(nn.Conv2d(width_in, width, 1, stride=2, bias=False), nn.BatchNorm2d(width))
        layers.append(BasicBlock(width_in, width, stride=2, downsample=shortcut))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


class Perceptron(nn.Module):
    """Fully connected layers with SiLU: numeric inputs in, one feature vector per sample out.

    Parameters
    ----------
    in_features : int
        Numbers of an input.
    widths : sequence of int
        Of the layers; the last gives the features, without an activation.
    dropout : float
        After each layer but the last.

    Attributes
    ----------
    out_features : int
        Length of a feature vector, the last of `widths`.
    """

    def __init__(self, in_features: int, widths: Sequence[int], dropout: float = 0.0) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width_in, width_out in itertools.pairwise((in_features, *widths)):
            layers += [nn.Linear(width_in, width_out), nn.SiLU(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers[:-2])
        self.out_features = widths[-1]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features (n, out_features) of inputs (n, in_features)."""
        return self.layers(x)


class GraphsAndNumbers(nn.Module):
    """A `GIN` and a `Perceptron` side by side, for molecules as graphs and as numbers.

    Their features, those of the graphs scaled by batch norm, are joined by a linear layer after a SiLU.

    Parameters
    ----------
    in_features, widths, dropout
        As for `Perceptron`.

    Attributes
    ----------
    out_features : int
        Length of a feature vector, the last of `widths`.
    """

    def __init__(self, in_features: int, widths: Sequence[int], dropout: float = 0.0) -> None:
        super().__init__()
        self.graphs, self.numbers = GIN(), Perceptron(in_features, widths, dropout)
        self.norm = nn.BatchNorm1d(self.graphs.out_features)
        self.out_features = widths[-1]
        self.join = nn.Linear(self.graphs.out_features + widths[-1], self.out_features)

    def forward(self, batch: tuple[Data, torch.Tensor]) -> torch.Tensor:
        """Features (n, out_features) of n molecules."""
        graphs, numbers = batch
        both = torch.cat([self.norm(self.graphs(graphs)), self.numbers(numbers)], dim=1)
        return self.join(nn.functional.silu(both))
