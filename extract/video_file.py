"""Video files: when their frames are shown, and pictures of them.

Frames are decoded forwards, in one thread of the calling process, from the last key frame before those that are asked
for. A walk over the file's packets says which packet holds which frame and when it is shown, and each packet is decoded
under its place in the file (see `FrameIndex`), so that a frame is the same picture whatever else is asked for, or none.

Opening a file decodes its first frame inside FFmpeg, and the walk decodes that frame again; so a walk keeps the packets
of all but long videos, and pictures come from them, by the decoder that has begun already.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import Any, Self

import av
from av.video.reformatter import VideoReformatter
from PIL import Image

from ifcar.extract.display_matrix import is_sideways, upright
from ifcar.extract.frame_clock import FrameClock
from ifcar.extract.frame_index import WITH_KEY_FRAMES, FrameIndex, Packet, joined, shown_at, stated_order
from ifcar.extract.limits import DecodeError
from ifcar.extract.picture_source import VideoInfo
from ifcar.extract.video_stream import Placed, VideoStream

# A video whose pictures end this long before its stated duration is taken as cut off.
_CUT_OFF_SEC = 0.5
_CUT_OFF_SHARE = 0.1
_MOST_KEPT_BYTES = 64 << 20  # of packets, between a walk and the pictures asked for after it
# PyAV 17 began to convert each frame in a thread for every core, whose waiting takes longer than the conversion.
_ONE_THREAD: dict[str, int] = {"threads": 1} if int(av.__version__.partition(".")[0]) >= 17 else {}
_MOST_LATE = 16  # frames that a decoder may hand out before one that is shown before them


class VideoFile:
    """A video file; a context manager that closes it.

    Args:
        path: the file.
        index: where its frames lie, from an earlier `info`; else the file is walked where it is needed.

    Raises:
        DecodeError: missing, empty or damaged file, or no video stream.
    """

    def __init__(self, path: Path, index: FrameIndex | None = None) -> None:
        self.path = path
        self._stream = VideoStream(path)
        self._index = index
        # Every frame from the first; None once it was handed out, or when a walk could not keep what it went past.
        self._unread: Iterator[Placed] | None = None
        self._kept: list[Placed] = []  # packets that a walk went past, but for the first

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def info(self) -> VideoInfo:
        """See `PictureSource.info`. Frames are counted by walking the packets, as WebM seldom states their number.

        Raises:
            DecodeError: a file that is damaged, cut off or without frames.
        """
        if not self._stream.is_fresh:
            with VideoFile(self.path) as again:
                return again.info()
        first, packets, num_parts = self._walk()
        width, height = self._shown_size(first)
        if num_parts == 1:
            self._check_whole(packets)
        stated = next(filter(None, self._stream.stated_rates()), None)
        return VideoInfo(
            clock=self._clock(packets),
            width=width,
            height=height,
            stated_fps=None if stated is None else float(stated),
            index=self._index,
        )

    def size(self) -> tuple[int, int]:
        """See `PictureSource.size`."""
        return self._shown_size(next((frame for _, frame in self._from_first()), None))

    def pictures(self, wanted: Sequence[int]) -> Generator[tuple[int, Image.Image]]:
        """See `PictureSource.pictures`; decodes no further than needed."""
        if self._index is None:
            if not self._stream.is_fresh:
                with VideoFile(self.path) as again:
                    yield from again.pictures(wanted)
                return
            self._walk()
        to_rgb = VideoReformatter()  # one for all frames: setting up a conversion costs more than doing it
        for number, frame in self._wanted(wanted):
            yield number, self._picture(frame, to_rgb)

    def _wanted(self, wanted: Sequence[int]) -> Iterator[tuple[int, Any]]:
        """Yield (number, frame). Raises DecodeError where one does not come."""
        assert self._index is not None
        index = self._index
        number_of = {place: number for number, place in enumerate(index.places)}
        found: dict[int, Any] = dict.fromkeys(wanted)  # number → frame, once it came
        frames: Iterator[Placed] = iter(())
        seen = -2  # the highest number that came; nothing was decoded, not even up to before frame 0
        for target in wanted:
            self._check_decodable(target, wanted[-1])
            entries: list[int | None] = [*index.entries(target)]
            if number_of.get(index.entries(target)[0], 0) <= seen + 1:
                entries.insert(0, None)  # what is being decoded comes to it first
            while found[target] is None and entries:
                entry = entries.pop(0)
                if entry is not None:
                    frames, seen = self._frames_from(entry), -1
                for place, frame in frames:
                    number = number_of.get(place, -1)
                    seen = max(seen, number)
                    if number in found and number >= target:
                        found[number] = frame
                    if number == target or number > target + _MOST_LATE:
                        break
            if found[target] is None:
                raise DecodeError(self._undecodable(target))
            yield target, found.pop(target)

    def _check_decodable(self, number: int, last: int) -> None:
        """Raise DecodeError for a frame that the file lacks, or whose packet lies before the first key frame."""
        assert self._index is not None
        places, first = self._index.places, self._index.first
        if number >= len(places):
            raise DecodeError(
                f"{self.path}: frame {number} is missing, only {len(places)} frames can be decoded; expected at least "
                f"{last + 1}, fetch it again or check the frame numbers"
            )
        if places[number] < first:
            raise DecodeError(self._undecodable(number))

    def _undecodable(self, number: int) -> str:
        assert self._index is not None
        starts = self._index.starts
        if starts and number < starts[0]:
            return (
                f"{self.path}: frame {number} cannot be decoded without what was cut away before it, frames from "
                f"{starts[0]} on can; expected a video that begins with a key frame, cut there or encoded again"
            )
        return f"{self.path}: frame {number} cannot be decoded; expected a whole video file, fetch it again"

    def _picture(self, frame: Any, to_rgb: VideoReformatter) -> Image.Image:
        with self._stream.reading():
            rgb = to_rgb.reformat(frame, format="rgb24", **_ONE_THREAD)
        plane = rgb.planes[0]
        picture = Image.frombytes("RGB", (rgb.width, rgb.height), bytes(plane), "raw", "RGB", plane.line_size)
        return upright(self.path, frame, picture)

    def _from_first(self) -> Iterator[Placed]:
        """Yield every frame that can be decoded, opening the file again where it was read already."""
        frames, self._unread = self._unread, None
        if frames is None and not self._stream.is_fresh:
            with VideoFile(self.path, self._index) as again:
                yield from again._from_first()
            return
        with self._stream.reading():
            yield from frames or self._stream.decoded(itertools.dropwhile(self._is_before, self._stream.packets()))

    def _is_before(self, placed: Placed) -> bool:
        """Return whether a packet lies before the first that can be decoded."""
        place, packet = placed
        if self._index is not None:
            return place < self._index.first
        return self._stream.codec in WITH_KEY_FRAMES and not self._stream.described(packet).is_key

    def _frames_from(self, start: int) -> Iterator[Placed]:
        """Yield the frames from the key frame at a place on; some that are shown before it may come first."""
        assert self._index is not None
        # What a walk had to decode for the first frame to come is not kept.
        if start == self._index.first or (self._kept and start < self._kept[0][0]):
            yield from self._from_first()
            return
        self._unread = None
        packets: Iterator[Placed] | None = None
        with self._stream.reading():
            if self._kept:
                self._stream.restart()
                packets = itertools.islice(self._kept, bisect_left(self._kept, start, key=itemgetter(0)), None)
            elif self._index.stamps:
                packets = self._stream.sought(self._index, start)
            if packets is not None:
                yield from self._stream.decoded(packets)
                return
        yield from self._from_first()

    def _walk(self) -> tuple[Any, list[Packet], int]:
        """Find out where the frames lie.

        Returns:
            The first frame that can be decoded, or None; the packets; of how many recordings they are.
        """
        first, packets = self._read_packets()
        stream, num_parts = self._stream, 1
        if stream.may_be_joined:
            packets, num_parts = joined(packets, float(stream.unit))
        places = stated_order(packets, stream.codec, by_dts=stream.by_dts, reorders=stream.reorders())
        self._index = FrameIndex.of_packets(packets, places or (), stream.codec, by_dts=stream.by_dts)
        if places is None or (first is not None and stream.codec == "h264" and first.interlaced_frame):
            lost = [place for place in range(self._index.first) if packets[place].is_shown]
            places = [*lost, *dict.fromkeys(place for place, _ in self._from_first())]
            self._index = FrameIndex.of_packets(packets, places, stream.codec, by_dts=stream.by_dts)
        if num_parts > 1:
            self._index = replace(self._index, stamps=(), marks=())
        return first if self._index.places else None, packets, num_parts

    def _read_packets(self) -> tuple[Any, list[Packet]]:
        """Return the first frame that can be decoded, or None, and what is known of each packet."""
        stream, packets = self._stream, list[Packet]()
        shown: list[Placed] = []
        kept: list[Placed] = []
        num_bytes = 0
        has_begun = False
        with stream.reading():
            for place, packet in stream.packets():
                packets.append(stream.described(packet))
                num_bytes += packet.size
                has_begun = has_begun or not self._is_before((place, packet))
                if has_begun and not shown:
                    shown = stream.decode(place, packet)
                elif has_begun and num_bytes <= _MOST_KEPT_BYTES:
                    kept.append((place, packet))
            if not has_begun:  # nothing is marked as a key frame: what the decoder makes of it counts
                with VideoFile(self.path, FrameIndex((), 0, ())) as again:
                    return next((frame for _, frame in again._from_first()), None), packets
            if not shown:
                shown = list(stream.decoded(()))
        first = shown[0][1] if shown else None
        if num_bytes <= _MOST_KEPT_BYTES:
            self._kept = kept
            # A decoder that was asked for its last frames already takes no more packets.
            self._unread = itertools.chain(shown, stream.decoded(kept) if kept else ())
        return first, packets

    def _shown_size(self, first: Any) -> tuple[int, int]:
        """Return the (width, height) of the first frame as it is shown."""
        if first is None:
            raise DecodeError(f"{self.path}: no frame can be decoded; expected a whole video file, fetch it again")
        width, height = first.width, first.height
        return (height, width) if is_sideways(self.path, first) else (width, height)

    def _clock(self, packets: Sequence[Packet]) -> FrameClock:
        assert self._index is not None
        rates = self._stream.stated_rates()
        stamps = shown_at(packets, self._index.places, by_dts=self._stream.by_dts)
        if stamps is None:
            rate = next(filter(None, rates), None)
            return FrameClock(num_frames=len(self._index.places), fps=None if rate is None else float(rate))
        return FrameClock.of_stamps((stamps - self._stream.zero(stamps[0])) * float(self._stream.unit), rates)

    def _check_whole(self, packets: Sequence[Packet]) -> None:
        """Raise DecodeError where the packets end before the duration that the file states.

        An edit list of MP4 may show the pictures late and leave out the first of them; the stated duration is then at
        most that of all packets, and at most the second at which the last one ends. So it counts from the first packet,
        be that one shown or not, and from 0 where packets are not even given.
        """
        assert self._index is not None
        stamps = [(time, p.duration) for p in packets if (time := p.dts if p.pts is None else p.pts) is not None]
        start, stated_sec = self._stream.stated_length()
        start = min([start, *(time for time, _ in stamps)])
        if self._stream.num_stated() > len(packets):
            start = min(start, 0)
        end_sec = float((max(time + length for time, length in stamps) - start) * self._stream.unit) if stamps else 0.0
        if stated_sec is not None and end_sec < stated_sec - max(_CUT_OFF_SEC, _CUT_OFF_SHARE * stated_sec):
            num_frames = len(self._index.places)
            raise DecodeError(
                f"{self.path}: cut off after {end_sec:.1f} s ({num_frames} frames); expected {stated_sec:.1f} s, fetch "
                "it again"
            )
