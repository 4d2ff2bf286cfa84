"""Which packet of a video file holds which frame, when it is shown, and at which of them decoding can begin.

A packet goes by its place in the file, and tells a decoder that place in the stead of its time stamp, so that every
picture says by itself which packet it comes from, wherever decoding began. Frames are numbered in the order in which
they are shown. Packets that show nothing (left out by an edit list, VP8's and VP9's hidden frames, AVI's empty ones)
hold no frame; packets before the first key frame hold frames that cannot be decoded.

Packets that do not say in which order they are shown have to be decoded once: AVI has no time stamps, other files lack
some or have one twice; the two fields of an interlaced frame may be packets of their own, and so may MPEG-4's copies of
the frame before.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

# Codecs of which nothing is decoded before the first packet that is marked as a key frame.
WITH_KEY_FRAMES = ("h264", "hevc", "mpeg4", "vp8", "vp9", "av1", "mpeg1video", "mpeg2video")
# Codecs whose key frames need nothing of what comes before them; a GIF's frames are all marked as such, and are not.
_WITH_ENTRIES = ("h264", "hevc", "mpeg4", "vp8", "vp9", "mpeg1video", "mpeg2video")
_JUMP_SEC = 10.0  # a gap of MPEG-TS time stamps at a key frame from which on they are another recording's
_BACK_SEC = 1.0  # the same, backwards, at any packet
_COPY_BYTES = 8  # an MPEG-4 packet of so few says that the frame before is shown once more


@dataclass(frozen=True, slots=True)
class Packet:
    """What is known of a packet of pictures before it is decoded, in units of the stream's time base.

    Args:
        pts: when it is shown, as the file says.
        dts: when it is decoded, as the file says.
        byte: where it lies in the file, or None.
        duration: how long it is shown, or 0.
        is_key: marked as a key frame.
        size: bytes.
        is_shown: not left out, hidden or empty.
    """

    pts: int | None
    dts: int | None
    byte: int | None
    duration: int
    is_key: bool
    size: int
    is_shown: bool


@dataclass(frozen=True, slots=True)
class FrameIndex:
    """The frames of a video file.

    Args:
        places: (F,) the place of each frame's packet in the file, in the order in which frames are shown.
        first: the place of the first packet that is decoded.
        starts: ascending numbers of frames at which decoding can begin: decoded from there on, a frame and those shown
            after it are what they are when everything is decoded. Begins with the frame of packet `first`.
        stamps: of each packet, the time stamp with which to seek it; empty where it cannot be sought.
        marks: of each packet, the byte or, where those are not known, the time stamp by which it is known after a seek:
            AVI's packets have other time stamps then.
    """

    places: tuple[int, ...]
    first: int
    starts: tuple[int, ...]
    stamps: tuple[int, ...] = field(default=(), repr=False)
    marks: tuple[int, ...] = field(default=(), repr=False)

    @classmethod
    def of_packets(cls, packets: Sequence[Packet], places: Sequence[int], codec: str, *, by_dts: bool) -> FrameIndex:
        """Return the index of packets whose frames are shown in the order `places`."""
        first = first_decoded(packets, codec)
        has_entries = codec in _WITH_ENTRIES and not _has_copies(packets, codec)
        starts = [
            number
            for number, place in enumerate(places)
            if place == first or (has_entries and packets[place].is_key and place > first)
        ]
        stamps = _all_known([packet.dts if by_dts else packet.pts for packet in packets])
        marks = _all_different([packet.byte for packet in packets])
        if not marks and not by_dts:
            marks = _all_different(stamps)
        return cls(tuple(places), first, tuple(starts), stamps if marks else (), marks if stamps else ())

    def entries(self, number: int) -> list[int]:
        """Return the places of packets with which decoding may begin for a frame to come, the nearest first.

        A picture at which decoding can begin may be said to be whole some frames later only, then the one before helps.
        """
        at = bisect_right(self.starts, number)
        return [self.places[start] for start in reversed(self.starts[max(0, at - 2) : at])] or [self.first]


def _all_known(values: Sequence[int | None]) -> tuple[int, ...]:
    known = tuple(value for value in values if value is not None)
    return known if len(known) == len(values) else ()


def _all_different(values: Sequence[int | None]) -> tuple[int, ...]:
    known = _all_known(values)
    return known if len(set(known)) == len(values) else ()


def _has_copies(packets: Sequence[Packet], codec: str) -> bool:
    """Return whether packets say that the frame before is shown once more, or that theirs lies in the one before."""
    return codec == "mpeg4" and any(packet.is_shown and packet.size <= _COPY_BYTES for packet in packets)


def first_decoded(packets: Sequence[Packet], codec: str) -> int:
    """Return the place of the first packet that is decoded: a key frame, where the codec has them and the file one."""
    if codec not in WITH_KEY_FRAMES:
        return 0
    return next((place for place, packet in enumerate(packets) if packet.is_key), 0)


def stated_order(packets: Sequence[Packet], codec: str, *, by_dts: bool, reorders: bool) -> list[int] | None:
    """Return the places of packets in the order in which they are shown, or None where they have to be decoded.

    Args:
        packets: of the whole file.
        codec: canonical name.
        by_dts: the container has no other time stamps.
        reorders: the codec stores frames in another order than it shows them.
    """
    places = [place for place, packet in enumerate(packets) if packet.is_shown]
    if _has_copies(packets, codec):
        return None
    stamps = [packets[place].pts for place in places]
    known = {stamp for stamp in stamps if stamp is not None}
    if not by_dts and len(known) == len(places):
        return sorted(places, key=lambda place: packets[place].pts or 0)
    return None if reorders else places


def shown_at(packets: Sequence[Packet], places: Sequence[int], *, by_dts: bool) -> NDArray[np.float64] | None:
    """Return (F,) when the frames of `places` are shown, ascending, in units of the time base; None if nothing says it.

    A container that has no other time stamps shows a frame when it is decoded, in the order of showing. What lacks a
    time stamp is shown evenly between its neighbours.
    """
    times = [packets[place].dts if by_dts else packets[place].pts for place in places]
    if all(time is None for time in times):
        times = [packets[place].dts for place in places]
    known = np.array([number for number, time in enumerate(times) if time is not None])
    if not len(known):
        return None
    values = np.sort(np.array([time for time in times if time is not None], np.float64))
    if len(known) == len(times):
        return values
    step = (values[-1] - values[0]) / max(1, known[-1] - known[0])
    numbers = np.arange(len(times))
    between: NDArray[np.float64] = np.interp(numbers, known, values)
    before, after = np.minimum(0, numbers - known[0]), np.maximum(0, numbers - known[-1])
    times_of_all: NDArray[np.float64] = between + step * (before + after)
    return times_of_all


def joined(packets: Sequence[Packet], unit_sec: float) -> tuple[list[Packet], int]:
    """Put recordings that were written one after the other into one file on one clock, each after the one before.

    Returns:
        The packets with times of one clock; of how many recordings they are.
    """
    parts: list[list[Packet]] = [[]]
    before: int | None = None
    for packet in packets:
        if before is not None and packet.dts is not None:
            gap_sec = (packet.dts - before) * unit_sec
            if gap_sec < -_BACK_SEC or (packet.is_key and not 0 <= gap_sec <= _JUMP_SEC):
                parts.append([])
        parts[-1].append(packet)
        before = before if packet.dts is None else packet.dts
    placed, end = list(parts[0]), _span(parts[0])[1]
    for part in parts[1:]:
        begin, stop = _span(part)
        shift = end - begin
        placed += [_shifted(packet, shift) for packet in part]
        end = stop + shift
    return placed, len(parts)


def _span(packets: Sequence[Packet]) -> tuple[int, int]:
    """Return when the first of the packets is shown, and when the last one ends."""
    times = sorted(t for p in packets if (t := p.dts if p.pts is None else p.pts) is not None)
    if not times:
        return 0, 0
    longest = max(packet.duration for packet in packets)
    mean = round((times[-1] - times[0]) / max(1, len(times) - 1))
    return times[0], times[-1] + (mean or longest)


def _shifted(packet: Packet, shift: int) -> Packet:
    pts, dts = (None if time is None else time + shift for time in (packet.pts, packet.dts))
    return replace(packet, pts=pts, dts=dts)
