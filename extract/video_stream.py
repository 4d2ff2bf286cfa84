"""The pictures' packets of a video file, by PyAV: in the file's order, from a key frame on, decoded."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from ifcar.extract.container import CODEC_OPTIONS, format_of, has_zero, open_container, reading
from ifcar.extract.frame_index import FrameIndex, Packet
from ifcar.extract.limits import DecodeError, check_size
from ifcar.extract.packet_heads import is_hidden, is_intra

_SEEK_BACK_SEC = (0, 1, 8)  # MPEG-TS has no index: a seek there may land behind the key frame
_STILL = ("png", "mjpeg", "bmp", "tiff", "webp")  # codecs of artwork that is not marked as such, beside another stream
Placed = tuple[int, Any]
"""A packet, or the frame decoded from it, with the packet's place in the file."""


class VideoStream:
    """The video stream that players show, FFmpeg's best one that is no embedded artwork.

    Attributes:
        codec: canonical name.
        unit: seconds of a time stamp's unit.
        by_dts: whether the container has no time stamps but places in its order of decoding (AVI).
        may_be_joined: whether the file may be recordings one after the other, each on its own clock.
        is_fresh: whether nothing was read yet.

    Raises:
        DecodeError: missing, empty or damaged file, or no video stream.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._container: Any = open_container(path)
        try:
            self._stream = self._choose_stream()
        except BaseException:
            self._container.close()
            raise
        self._format = format_of(self._container)
        self.codec: str = self._stream.codec_context.codec.canonical_name
        self.unit: Fraction = self._stream.time_base
        self.by_dts = self._format == "avi"
        self.may_be_joined = self._format in ("mpegts", "mpeg")
        self._extradata = bytes(self._stream.codec_context.extradata or b"")
        self.is_fresh = True

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def reading(self) -> AbstractContextManager[None]:
        """Turn every failure of FFmpeg into a DecodeError."""
        return reading(self.path)

    def reorders(self) -> bool:
        """Return whether frames are stored in another order than they are shown in, as far as was decoded."""
        return bool(self._stream.codec_context.has_b_frames)

    def stated_rates(self) -> tuple[Fraction | None, Fraction | None]:
        """Return the frames per second that the header states, and FFmpeg's guess; either may be wrong."""
        return self._stream.average_rate, self._stream.guessed_rate

    def zero(self, first: float) -> float:
        """Return second 0 of the file's clock as a time stamp of this stream, see `FrameClock`.

        Args:
            first: the time stamp of the first frame that is shown.
        """
        if has_zero(self._container):
            return 0.0
        sounds = [sound for sound in self._container.streams.audio if sound.start_time is not None]
        return min([first, *(float(sound.start_time * sound.time_base / self.unit) for sound in sounds)])

    def stated_length(self) -> tuple[int, float | None]:
        """Return how long the file states its pictures to last.

        Returns:
            The time stamp from which it counts; seconds, or None where they cannot be known.
        """
        container, stream = self._container, self._stream
        if stream.duration is not None:
            return stream.start_time or 0, float(stream.duration * stream.time_base)
        # The container's own duration counts from its zero, and is its longest stream's, which may be sound.
        if len(container.streams) == 1 and container.duration is not None:
            return 0, float(container.duration / av.time_base)
        return 0, None

    def num_stated(self) -> int:
        """Return how many packets the file states to have, 0 where it does not say."""
        return int(self._stream.frames)

    def packets(self) -> Iterator[Placed]:
        """Yield every packet that is left, the first as number 0."""
        self.is_fresh = False
        packets = self._container.demux(self._stream)
        return enumerate(packet for packet in packets if packet.size or packet.dts is not None)

    def described(self, packet: Any) -> Packet:
        """Return what is known of a packet before it is decoded."""
        is_shown = bool(packet.size) and not packet.is_discard
        if is_shown and self.codec in ("vp8", "vp9"):
            is_shown = not is_hidden(self.codec, memoryview(packet))
        is_key = packet.is_keyframe and (self.codec != "h264" or is_intra(bytes(packet), self._extradata))
        byte = None if packet.pos is None or packet.pos < 0 else packet.pos
        return Packet(packet.pts, packet.dts, byte, packet.duration or 0, is_key, packet.size, is_shown)

    def decode(self, place: int, packet: Any) -> list[Placed]:
        """Decode a packet under its place in the file; an empty one would end decoding."""
        if not packet.size:
            return []
        packet.pts = place
        return [(frame.pts, frame) for frame in self._stream.decode(packet)]

    def decoded(self, packets: Iterable[Placed]) -> Iterator[Placed]:
        """Yield the frames of packets, and those that the decoder still holds after them."""
        for place, packet in packets:
            yield from self.decode(place, packet)
        for frame in self._stream.decode(None):
            yield frame.pts, frame

    def restart(self) -> None:
        """Let the decoder forget what it was given."""
        self._stream.codec_context.flush_buffers()

    def sought(self, index: FrameIndex, start: int) -> Iterator[Placed] | None:
        """Return the packets from a key frame's place on, found by a seek; None where that fails."""
        stamp, mark, behind = index.stamps[start], index.marks[start], set(index.marks[start + 1 :])
        is_byte = index.marks != index.stamps
        for back_sec in _SEEK_BACK_SEC:
            with suppress(av.error.FFmpegError):  # AVI's index does not lead to every packet
                self._container.seek(stamp - round(back_sec / self.unit), stream=self._stream)
            packets = (packet for _, packet in self.packets())
            for packet in packets:
                found = packet.pos if is_byte else packet.pts
                if found == mark:
                    return zip(itertools.count(start), itertools.chain([packet], packets), strict=False)
                if found in behind:
                    break
        return None

    def _choose_stream(self) -> Any:
        streams = self._container.streams
        real = [s for s in streams.video if not s.disposition & av.stream.Disposition.attached_pic]
        if not real:
            kinds = ", ".join(sorted({stream.type for stream in streams if stream.type != "video"})) or "no"
            artwork = " and embedded artwork" if streams.video else ""
            raise DecodeError(f"{self.path}: {kinds} streams{artwork} only; expected a video stream")
        moving = [s for s in real if s.codec_context.codec.canonical_name not in _STILL] or real
        best = streams.best("video")
        stream = best if best in moving else moving[0]
        with self.reading():
            stream.thread_type = "NONE"
            stream.codec_context.thread_count = 1
            stream.codec_context.options = CODEC_OPTIONS
        check_size(self.path, stream.width, stream.height)
        return stream
