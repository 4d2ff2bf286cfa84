"""The global feature: the whole frame, averaged over the clip."""

from __future__ import annotations

from torch import Tensor, nn

from ifcar.heads.contract import InstanceBatch
from ifcar.heads.rows import RowNorm


class GlobalFeature(nn.Module):
    """One vector for the whole clip, x = W mean_t(frame_features_t) + b."""

    def __init__(self, channels: int, width: int, input_norm: bool) -> None:
        super().__init__()
        self.input_norm = RowNorm(channels, affine=False) if input_norm else nn.Identity()
        self.reduction = nn.Linear(channels, width)

    def forward(self, batch: InstanceBatch) -> Tensor:
        """Return (B, width) from frame_features (B, T′, C)."""
        pooled = batch.array("frame_features").to(self.reduction.weight.dtype).mean(dim=1)
        out: Tensor = self.reduction(self.input_norm(pooled))
        return out
