"""Multi-layer perceptrons on top of pooled features.

Shape suffixes: B batch, D features, E embedding, n condition; N samples, K MLPs, I input width, H hidden width, O total
output width of all K, M largest output width.
"""

from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .norm import batch_norm_1d

LastNorm = Literal["none", "affine", "plain", "bare"]
Activation = Literal["relu", "gelu"]


def mlp(
    widths: list[int],
    *,
    hidden_norm: bool = True,
    last_norm: LastNorm = "none",
    last_relu: bool = False,
    sync: bool = False,
    activation: Activation = "relu",
) -> nn.Sequential:
    """An MLP of linear layers; each hidden layer is followed by (batch norm and) ReLU or GELU.

    widths: input, hidden and output widths. hidden_norm: batch norm after hidden layers; linear layers before a batch
    norm have no bias. last_norm: no batch norm after the last layer, one with affine parameters, one without ("plain"),
    or neither batch norm nor bias ("bare"). last_relu: the last layer is a hidden layer too. sync: synchronised batch
    norm.
    """
    layers: list[nn.Module] = []
    for i, (inputs, outputs) in enumerate(pairwise(widths)):
        hidden = last_relu or i < len(widths) - 2
        norm = ("affine" if hidden_norm else "none") if hidden else last_norm
        layers.append(nn.Linear(inputs, outputs, bias=norm == "none"))
        if norm in ("affine", "plain"):
            layers.append(batch_norm_1d(outputs, affine=norm == "affine", sync=sync))
        if hidden:
            layers.append(nn.ReLU(inplace=True) if activation == "relu" else nn.GELU())
    return nn.Sequential(*layers)


class Projector(nn.Module):
    """The MLP from pooled features to embeddings: hidden layers (`hidden`) and the output layer (`last`).

    widths: of the features, the hidden layers and the embedding. Others as for `mlp`.
    """

    hidden: nn.Module
    last: nn.Module

    def __init__(
        self,
        widths: list[int],
        *,
        hidden_norm: bool = True,
        last_norm: LastNorm = "none",
        sync: bool = False,
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        self.hidden = mlp(widths[:-1], hidden_norm=hidden_norm, last_relu=True, sync=sync, activation=activation)
        self.last = mlp(widths[-2:], last_norm=last_norm, sync=sync)

    def forward(self, f_BD: Tensor, condition_Bn: Tensor | None = None) -> Tensor:
        """Embeddings [B, E] of features [B, D]. condition_Bn: ignored; for subclasses (CASSLE)."""
        return self.last(self.hidden(f_BD))


class Predictor(nn.Module):
    """The two-layer MLP that predicts one view's embedding from the other's (BYOL, SimSiam, NNCLR, MoCo v3).

    widths, last_norm, sync: as for `mlp`.
    """

    def __init__(self, widths: list[int], *, last_norm: LastNorm = "none", sync: bool = False) -> None:
        super().__init__()
        self.layers: nn.Module = mlp(widths, last_norm=last_norm, sync=sync)

    def forward(
        self, z_BE: Tensor, params_VBP: Tensor | None = None, sizes_B2: Tensor | None = None, view: int = 0
    ) -> Tensor:
        """Predictions [B, E] from the embeddings of global view `view`, 0 or 1.

        params_VBP, sizes_B2: as in `Views`; ignored here, for subclasses that condition on them.
        """
        predictions: Tensor = self.layers(z_BE)
        return predictions


class ParallelMlps(nn.Module):
    """K three-layer MLPs on the same input, equal to K calls of `mlp` but with one batched matrix product per layer.

    inputs: input width. hidden: width of both hidden layers. outputs: output width of each MLP. sync: synchronised
    batch norm. Weights are stacked along the first dimension; those of the last layer, whose widths differ, are
    concatenated. The number of parameters is that of K separate MLPs. LARS and LAMB, which scale the step of each
    tensor, treat a stack as one layer.
    """

    padded_rows_O: Tensor

    def __init__(self, inputs: int, hidden: int, outputs: list[int], *, sync: bool = False) -> None:
        super().__init__()
        K = len(outputs)
        self.outputs = outputs
        self.first_KHI = nn.Parameter(torch.empty(K, hidden, inputs))
        self.second_KHH = nn.Parameter(torch.empty(K, hidden, hidden))
        self.last_OH = nn.Parameter(torch.empty(sum(outputs), hidden))
        self.bias_O = nn.Parameter(torch.empty(sum(outputs)))
        self.first_norm = batch_norm_1d(K * hidden, sync=sync)
        self.second_norm = batch_norm_1d(K * hidden, sync=sync)
        rows = [k * max(outputs) + i for k, width in enumerate(outputs) for i in range(width)]
        self.register_buffer("padded_rows_O", torch.tensor(rows), persistent=False)
        for weight, fan_in in ((self.first_KHI, inputs), *((w, hidden) for w in (self.second_KHH, self.last_OH))):
            nn.init.uniform_(weight, -(fan_in**-0.5), fan_in**-0.5)  # the default of nn.Linear
        nn.init.uniform_(self.bias_O, -(hidden**-0.5), hidden**-0.5)

    def forward(self, x_NI: Tensor) -> list[Tensor]:
        """The outputs of the K MLPs, each [N, width]."""
        K, M = len(self.outputs), max(self.outputs)
        hidden_NKH = F.linear(x_NI, self.first_KHI.flatten(0, 1))
        hidden_KNH = F.relu(self.first_norm(hidden_NKH)).unflatten(1, (K, -1)).transpose(0, 1)
        hidden_NKH = torch.bmm(hidden_KNH, self.second_KHH.transpose(1, 2)).transpose(0, 1).flatten(1)
        hidden_KNH = F.relu(self.second_norm(hidden_NKH)).unflatten(1, (K, -1)).transpose(0, 1)
        last_KMH = self.last_OH.new_zeros(K * M, self.last_OH.shape[1]).index_copy(0, self.padded_rows_O, self.last_OH)
        bias_KM = self.bias_O.new_zeros(K * M).index_copy(0, self.padded_rows_O, self.bias_O)
        out_KNM = torch.baddbmm(bias_KM.view(K, 1, M), hidden_KNH, last_KMH.unflatten(0, (K, M)).transpose(1, 2))
        return [out_KNM[k, :, :width] for k, width in enumerate(self.outputs)]
