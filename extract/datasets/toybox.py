"""The generated data set: rendered on first use, then read by the Something-Else adapter."""

from __future__ import annotations

from typing import Literal

from ifcar.extract.datasets.contract import Progress, register_dataset
from ifcar.extract.datasets.something_else import SomethingElse
from ifcar.extract.toybox.generate import generate_toybox


@register_dataset
class Toybox(SomethingElse):
    """About 320 + 160 generated clips, in exactly Something-Else's files."""

    name = "toybox"
    summary = "generated videos of hands and objects, rendered on first use (small: about 480 clips)"
    default_root = "toybox"
    default_weights = "random:0"
    default_crop = 112
    size: Literal["small", "standard"] = "small"

    def prepare(self, progress: Progress | None = None) -> None:
        """Render the videos that are not there yet."""
        generate_toybox(self.root, size=self.size, seed=0, progress=progress)


@register_dataset
class ToyboxStandard(Toybox):
    """About 4,000 + 2,000 generated clips."""

    name = "toybox-standard"
    summary = "the same, about 6,000 clips"
    default_root = "toybox-standard"
    size = "standard"
