"""The appearance branch of Radevski et al. 2021: a transformer over the positions of the feature map."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ifcar.cache.arrays import CacheSpec
from ifcar.heads.contract import InstanceBatch
from ifcar.heads.rows import RowNorm
from ifcar.heads.transformer import Encoder


class FirstTokens(nn.Module):
    """A learned CLS token and a learned position for each token; both start at zero."""

    def __init__(self, num_tokens: int, width: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.pos_embed = nn.Parameter(torch.empty(1, num_tokens + 1, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set both to zero."""
        nn.init.zeros_(self.cls_token)
        nn.init.zeros_(self.pos_embed)

    def forward(self, tokens: Tensor) -> Tensor:
        """Put the CLS token in front of (B, M, H) and add the positions: (B, M + 1, H)."""
        return torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], dim=1) + self.pos_embed


class AppearanceEncoder(nn.Module):
    """Encode a clip's feature map: a = Enc([CLS; W x_p + b] + P), p running over steps, rows and columns.

    Source: Radevski et al. 2021, appearance branch; released code, whose backbone is trained along and whose 1×1×1
    convolution is W here.
    """

    def __init__(
        self, spec: CacheSpec, *, width: int, num_heads: int, num_layers: int, dropout: float, input_norm: bool
    ) -> None:
        super().__init__()
        assert spec.grid_size is not None
        self.num_tokens = spec.num_steps * spec.grid_size[0] * spec.grid_size[1]
        self.input_norm = RowNorm(spec.channels, affine=False) if input_norm else nn.Identity()
        self.projector = nn.Linear(spec.channels, width)
        self.tokens = FirstTokens(self.num_tokens, width)
        self.transformer = Encoder(num_layers, (self.num_tokens + 1,), width, num_heads, dropout, "relu")

    def forward(self, batch: InstanceBatch) -> Tensor:
        """Return (B, T′·H·W + 1, width) from grid_features (B, T′, C, H, W); the first token is the clip's."""
        grid = batch.array("grid_features").to(self.projector.weight.dtype)
        positions = grid.permute(0, 1, 3, 4, 2).flatten(1, 3)  # (B, T′·H·W, C)
        out: Tensor = self.transformer(self.tokens(self.projector(self.input_norm(positions))))
        return out
