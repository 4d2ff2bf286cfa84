"""The generated data set: rendered on first use, then read by the Something-Else adapter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from ifcar.cache.protocols import ProtocolTable
from ifcar.extract.datasets.contract import Progress, register_dataset
from ifcar.extract.datasets.multi_label import read_multi_protocols
from ifcar.extract.datasets.something_else import SomethingElse
from ifcar.extract.toybox.generate import Size, generate_toybox


@register_dataset
class Toybox(SomethingElse):
    """About 320 + 160 generated clips, in exactly Something-Else's files."""

    name = "toybox"
    summary = "generated videos of hands and objects, rendered on first use (small: about 480 clips)"
    default_root = "toybox"
    default_weights = "random:0"
    default_crop = 112
    size: ClassVar[Size] = "small"

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


@register_dataset
class ToyboxMulti(Toybox):
    """200 + 100 generated clips of two to four actions each, in sequence or at once."""

    name = "toybox-multi"
    summary = "300 generated clips of 2 to 4 actions each, in sequence or at once (multi-label)"
    default_root = "toybox-multi"
    default_crop = 96
    size = "multi"

    def protocols(self, clip_ids: Sequence[str]) -> tuple[list[ProtocolTable], list[str]]:
        """Read every folder below splits/; their clips list several actions."""
        return read_multi_protocols(self.root / "splits", clip_ids)
