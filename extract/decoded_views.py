"""Row number → decoded view, as the engine's decoding processes ask for it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, InitVar, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ifcar.cache.arrays import ArraySpec
from ifcar.counts import count_of
from ifcar.errors import InputError, LostProcessError
from ifcar.extract.audio import SAMPLE_RATE, Sound
from ifcar.extract.backbones.spec import Reads
from ifcar.extract.datasets.contract import Clip
from ifcar.extract.decode import cut_frames, open_source
from ifcar.extract.frame_clock import FrameClock
from ifcar.extract.frame_times import past_end
from ifcar.extract.log_mel import PATCH_SAMPLES, log_mel
from ifcar.extract.picture_source import PictureSource, VideoInfo
from ifcar.extract.tracks import Tracks
from ifcar.extract.view_content import View
from ifcar.extract.views import ViewPolicy, plan_view
from ifcar.registry import Registry


@dataclass(frozen=True, kw_only=True, slots=True)
class Decoded:
    """One row's view with its pixels, or the reason why there are none.

    Args:
        row: the cache's row.
        view: the sampled view, when the source could be read.
        inputs: what the backbone reads, see `READERS`; None where it reads nothing.
        failure: one line, when the source could not be read.
        note: how the clip reaches past its source's end, see `past_end`; on its view 0 alone.
    """

    row: int
    view: View | None = None
    inputs: Tensor | None = None
    failure: str = ""
    note: str = ""


_MOST_PROBED = 8  # sources whose index is kept: more than cameras film one moment
Reader = Callable[[PictureSource, VideoInfo, View, ViewPolicy], NDArray[Any]]
READERS: Registry[Reader] = Registry("kind of input")
"""What a view is read as, by `BackboneSpec.reads`: the open source, its info, the view and the policy → an array.

pixels: (T, S, S, 3) uint8 RGB, cropped and mirrored.
audio: (T, 96, 64) float32, a log-mel patch around the middle of each frame's time; crop and mirror do not matter.
"""


def _read_pixels(source: PictureSource, info: VideoInfo, view: View, policy: ViewPolicy) -> NDArray[np.uint8]:
    return cut_frames(source, view.frame_indices.tolist(), view.crop, policy.crop, view.flip)


def _read_audio(source: PictureSource, info: VideoInfo, view: View, policy: ViewPolicy) -> NDArray[np.float32]:
    with Sound(source.path) as sound:
        edges = info.clock.edges()
        middles = (edges[view.frame_indices] + edges[view.frame_indices + 1]) / 2
        firsts = np.rint(middles * SAMPLE_RATE).astype(np.int64) - PATCH_SAMPLES // 2
        return np.stack([log_mel(sound.read(int(first), PATCH_SAMPLES)) for first in firsts])


READERS.register("pixels", _read_pixels, __name__)
READERS.register("audio", _read_audio, __name__)


@dataclass(eq=False, repr=False)
class ViewDataset(Dataset[Decoded]):
    """Row number → decoded view.

    Args:
        clips: the cache's clips, in order.
        tracks: gives a clip's boxes by its id.
        annotation_fps: the rate that annotated frame numbers count in; None: they are the source's.
        policy: how views are sampled.
        reads: what the backbone reads of a view, "nothing" for backbone `none`.
        proposals: gives the boxes that are seen in place of the tracks; the tracks still say where a clip's span and
            its annotated frames are.
        proposals_fps: the rate that their frame numbers count in; None: they are the source's.
        carried: the arrays that the boxes' tracks carry beside them.
        complete: adds the dataset's own arrays to a view.
    """

    clips: Sequence[Clip]
    tracks: Callable[[str], Tracks]
    annotation_fps: float | None
    policy: ViewPolicy
    _: KW_ONLY
    reads: InitVar[Reads]
    proposals: Callable[[str], Tracks] | None = None
    proposals_fps: float | None = None
    carried: Sequence[ArraySpec] = ()
    complete: Callable[[Clip, View], View] | None = None

    def __post_init__(self, reads: Reads) -> None:
        self.read = None if reads == "nothing" else READERS.get(reads)
        self._probed_last: dict[tuple[Path | None, float | None], VideoInfo] = {}

    def __len__(self) -> int:
        return len(self.clips) * self.policy.rows_per_clip

    def __getitem__(self, row: int) -> Decoded:
        try:
            if self.read is None:
                return Decoded(row=row, view=self.plan(row))
            clip = self.clips[row // self.policy.rows_per_clip]
            assert clip.source is not None
            with open_source(clip.source, self._known(clip)) as source:
                info = self._probed(clip, source)
                view = self._planned(row, info)
                inputs = self.read(source, info, view, self.policy)
            note = self._past_end(clip, info) if row % self.policy.rows_per_clip == 0 else ""
        except (InputError, OSError) as error:
            return Decoded(row=row, failure=str(error))
        return Decoded(row=row, view=view, inputs=torch.from_numpy(inputs), note=note)

    def plan(self, row: int) -> View:
        """Return a row's view without its pixels. Raises InputError when the source cannot be read."""
        return self._planned(row, self.info(self.clips[row // self.policy.rows_per_clip]))

    def info(self, clip: Clip) -> VideoInfo:
        """Return what a clip's views are sampled from. Raises InputError when the source cannot be read."""
        if self.read is None:
            return self._annotated_info(clip)
        info = self._known(clip)
        if info is None:
            assert clip.source is not None
            with open_source(clip.source) as source:
                info = self._probed(clip, source)
        return info

    def _planned(self, row: int, info: VideoInfo) -> View:
        number, view_number = divmod(row, self.policy.rows_per_clip)
        clip = self.clips[number]
        view = plan_view(
            self.policy,
            clip,
            self.tracks(clip.clip_id),
            info,
            self.annotation_fps,
            view_number=view_number,
            proposals=None if self.proposals is None else self.proposals(clip.clip_id),
            proposals_fps=self.proposals_fps,
            carried=self.carried,
        )
        return view if self.complete is None else self.complete(clip, view)

    def _past_end(self, clip: Clip, info: VideoInfo) -> str:
        own = past_end(clip.span_sec, self.tracks(clip.clip_id), info, self.annotation_fps, clip.origin_sec)
        if own or self.proposals is None:
            return own
        return past_end(None, self.proposals(clip.clip_id), info, self.proposals_fps, clip.origin_sec)

    def _known(self, clip: Clip) -> VideoInfo | None:
        """Return the info of the clip's source if it was among the last to be probed.

        Probing walks the whole file. The views of a clip and the clips of a video follow each other, those of several
        cameras in turn.
        """
        return self._probed_last.get((clip.source, clip.source_fps))

    def _probed(self, clip: Clip, source: PictureSource) -> VideoInfo:
        which = (clip.source, clip.source_fps)
        info = self._probed_last.pop(which, None) or clip_info(clip, source)
        self._probed_last[which] = info  # as the newest
        if len(self._probed_last) > _MOST_PROBED:
            del self._probed_last[next(iter(self._probed_last))]
        return info

    def _annotated_info(self, clip: Clip) -> VideoInfo:
        """Return what the annotations say of a clip whose pixels are not read."""
        assert clip.frame_size is not None
        fps = self.annotation_fps or clip.source_fps
        annotated = self.tracks(clip.clip_id).frames
        num_frames = int(annotated[-1]) + 1 if len(annotated) else 1
        if clip.span_sec is not None and clip.span_sec[1] < math.inf and fps is not None:
            num_frames = max(num_frames, math.ceil(clip.span_sec[1] * fps))
        clock = FrameClock(num_frames=num_frames, fps=fps)
        return VideoInfo(clock=clock, width=clip.frame_size[0], height=clip.frame_size[1])


def past_end_lines(notes: Mapping[str, str]) -> list[str]:
    """Return the line that says which clips reach past the end of their source, when any does.

    Args:
        notes: clip id → `Decoded.note`.
    """
    if not notes:
        return []
    first, text = next(iter(notes.items()))
    clips = count_of(len(notes), "clip reaches past the end of its", "clips reach past the end of their")
    return [f"{clips} source, which ends them there, the first: {first}: {text}"]


def clip_info(clip: Clip, source: PictureSource) -> VideoInfo:
    """Return what a clip's open source holds, with the rate that the dataset states for a folder of frames.

    Raises:
        DecodeError: see `PictureSource.info`.
    """
    info = source.info()
    if info.fps is not None or clip.source_fps is None:
        return info
    return replace(info, clock=replace(info.clock, fps=clip.source_fps))


@contextmanager
def naming_lost_decoders() -> Iterator[None]:
    """Turn torch's error about a decoding process that was killed into one that says so.

    Raises:
        LostProcessError: names the process.
    """
    try:
        yield
    except RuntimeError as error:
        found = re.search(r"DataLoader worker \(pid\(?s?\)?:? ?([\d, ]+)\)", str(error))
        if found is None:
            raise
        raise LostProcessError(
            f"decoding process {found[1]} was killed, as the system does when memory runs out; what is committed is "
            "kept: run the same command again, with fewer --workers"
        ) from error
