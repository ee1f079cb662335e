"""Encoders: an input batch in, one feature vector per sample out."""

from __future__ import annotations

import warnings

import torch
from torch import nn

with warnings.catch_warnings():  # torch-geometric 2.8 scripts helpers and asks for widgets at import time
    warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)
    warnings.filterwarnings("ignore", "IProgress not found")
    from torch_geometric.data import Data
    from torch_geometric.nn import GINConv, global_add_pool, global_mean_pool

__all__ = ["GIN"]


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

        def conv(width_in: int, width: int, width_out: int) -> GINConv:
            return GINConv(
                nn.Sequential(nn.Linear(width_in, width), nn.ReLU(inplace=True), nn.Linear(width, width_out))
            )

        widths = [in_channels] + [hidden_channels] * (num_layers - 1)
        self.hidden = nn.ModuleList(conv(width, 4 * hidden_channels, hidden_channels) for width in widths[:-1])
        self.norms = nn.ModuleList(nn.BatchNorm1d(hidden_channels) for _ in self.hidden)
        self.last = conv(widths[-1], out_channels, out_channels)
        self.out_features = 2 * out_channels

    def forward(self, graphs: Data) -> torch.Tensor:
        """Features of a batch of graphs, shape (n_graphs, out_features)."""
        x = graphs.x
        for convolution, norm in zip(self.hidden, self.norms, strict=True):
            x = torch.tanh(norm(convolution(x, graphs.edge_index)))
        x = self.last(x, graphs.edge_index)
        pooled = [pool(x, graphs.batch, graphs.batch_size) for pool in (global_add_pool, global_mean_pool)]
        return torch.cat(pooled, dim=1)
