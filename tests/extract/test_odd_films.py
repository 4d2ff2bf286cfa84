"""Films as recorders, cutters and taggers leave them: which pictures they show, and when."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from fixtures.films import HEIGHT, NUM_FRAMES, WIDTH, Case, encode_film, encode_sound, gray, number_of, write_film

from ifcar.errors import InputError
from ifcar.extract.datasets.contract import Clip
from ifcar.extract.decode import frame_size, open_source, probe
from ifcar.extract.frame_clock import FrameClock
from ifcar.extract.frame_index import Packet, shown_at, stated_order
from ifcar.extract.frame_times import frames_of_span, past_end
from ifcar.extract.limits import DecodeError
from ifcar.extract.packet_heads import is_hidden
from ifcar.extract.picture_source import VideoInfo
from ifcar.extract.sampling import strided_frames
from ifcar.extract.tracks import Tracks
from ifcar.extract.views import ViewPolicy, plan_view


def numbers(path: Path, wanted: Sequence[int] | None = None) -> list[int]:
    """The numbers that the pictures of a file stand for, each read by itself and all together."""
    info = probe(path)
    wanted = range(info.num_frames) if wanted is None else wanted
    with open_source(path) as source:
        together = [number_of(picture) for _, picture in source.pictures(wanted)]
    for number, expected in list(zip(wanted, together, strict=True))[::7]:
        with pytest.MonkeyPatch.context() as patch, open_source(path, info) as source:
            patch.setattr("ifcar.extract.video_file._MOST_KEPT_BYTES", 0)
            assert [number_of(picture) for _, picture in source.pictures([number])] == [expected]
    return together


def film(folder: Path, name: str, codec: str, step: int = 5000, offset: int = 0) -> Path:
    path = folder / name
    ending = path.suffix[1:]
    steps = (step,) * (NUM_FRAMES - 1)
    case = Case(container=ending, codec=codec, steps=steps, offset=offset)
    write_film(case, path, encode_film(folder, codec), encode_sound(folder, ending))
    return path


@pytest.mark.parametrize("offset", [-55_000, 45_000, 200_000, 60_000_000])
def test_recordings_joined_in_one_file_are_shown_one_after_the_other(tmp_path: Path, offset: int) -> None:
    """The second one's time stamps go back, overlap the first one's, follow them at once, or come much later."""
    first = film(tmp_path, "a.ts", "h264", offset=60_000).read_bytes()
    second = film(tmp_path, "b.ts", "h264", offset=60_000 + offset).read_bytes()
    path = tmp_path / "joined.ts"
    path.write_bytes(first + second)
    info = probe(path)
    assert info.num_frames == 2 * NUM_FRAMES and numbers(path) == 2 * list(range(NUM_FRAMES))
    assert info.fps == pytest.approx(12)
    assert [info.clock.frame_at(float(second)) for second in (0, 1, 3.4, 4.34)] == [0, 12, 40, 52]


def test_frames_that_avi_reorders_are_shown_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "a.avi"
    with av.open(str(encode_film(tmp_path, "mpeg4-b"))) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    info = probe(path)
    assert (info.num_frames, info.fps, info.clock.seconds) == (NUM_FRAMES, 12.0, None)
    assert numbers(path) == list(range(NUM_FRAMES))


def write_packets(path: Path, film: Path, packets: Sequence[tuple[bytes, bool]]) -> Path:
    """Put packets (bytes, is a key frame) into a file, 12 a second."""
    with av.open(str(film)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        stream.time_base = Fraction(1, 12)
        for place, (content, is_key) in enumerate(packets):
            packet = av.Packet(content)
            packet.pts = packet.dts = place
            packet.time_base, packet.stream, packet.is_keyframe = Fraction(1, 12), stream, is_key
            target.mux(packet)
    return path


def read_packets(film: Path) -> tuple[list[tuple[bytes, int, bool]], bytes]:
    """Return (bytes, time stamp, is a key frame) of each packet, and what belongs in front of them."""
    with av.open(str(film)) as source:
        stream = source.streams.video[0]
        packets = [(bytes(p), p.pts, p.is_keyframe) for p in source.demux(stream) if p.size]
        return packets, bytes(stream.codec_context.extradata or b"")


def test_frames_that_are_packed_in_pairs_are_all_shown(tmp_path: Path) -> None:
    """As DivX did: a B frame lies in the packet of the frame before it, and a packet of its own holds nothing."""
    source = encode_film(tmp_path, "mpeg4-b1")
    stored, front = read_packets(source)
    packed: list[tuple[bytes, bool]] = []
    while stored:
        content, stamp, is_key = stored.pop(0)
        packed.append((content, is_key))
        if stored and stored[0][1] < stamp:
            packed[-1] = (content + stored.pop(0)[0], is_key)
            packed.append((bytes.fromhex("000001B6509F7F"), False))
    head = front + packed[0][0]
    at = head.index(b"\0\0\1\xb6")
    packed[0] = (head[:at] + b"\0\0\1\xb2DivX503b1393p" + head[at:], True)
    path = write_packets(tmp_path / "packed.avi", source, packed)
    assert probe(path).fps == 12 and numbers(path) == list(range(NUM_FRAMES))


def test_hidden_frames_are_not_counted(tmp_path: Path) -> None:
    """VP8: without its bit, a frame is decoded and not shown."""
    source = encode_film(tmp_path, "vp8")
    stored, _ = read_packets(source)
    hidden = (3, 10, 20)
    packets = [
        (bytes([content[0] & ~0x10]) + content[1:] if place in hidden else content, is_key)
        for place, (content, _, is_key) in enumerate(stored)
    ]
    path = write_packets(tmp_path / "hidden.webm", source, packets)
    shown = [number for number in range(NUM_FRAMES) if number not in hidden]
    assert numbers(path) == shown
    np.testing.assert_allclose(probe(path).clock.seconds or (), np.array(shown) / 12, atol=0.001)
    vp9 = {0x82: False, 0x86: False, 0x84: True, 0x88: False, 0xB1: False, 0xB2: True}
    assert {head: is_hidden("vp9", memoryview(bytes([head, 0]))) for head in vp9} == vp9
    assert not is_hidden("vp9", memoryview(bytes([0x84, 0xC1])))  # of several frames


def test_marked_recovery_points_are_no_place_to_begin(tmp_path: Path) -> None:
    """Intra refresh: pictures are renewed column by column, and what is marked as a key frame is none."""
    path = encode_film(tmp_path, "h264-refreshed")
    assert sum(is_key for _, _, is_key in read_packets(path)[0]) >= 3
    assert numbers(path) == list(range(NUM_FRAMES))


def test_interlaced_films_show_one_picture_a_frame(tmp_path: Path) -> None:
    path = encode_film(tmp_path, "h264-interlaced")
    assert probe(path).fps == 12 and numbers(path) == list(range(NUM_FRAMES))


def move_to_front(path: Path) -> Path:
    """Put what describes an MP4 film before its tracks, as taggers do, so that artwork becomes stream 0."""
    content = path.read_bytes()
    at = content.rindex(b"moov") - 4
    moov = content[at : at + int.from_bytes(content[at : at + 4], "big")]
    tags = moov.index(b"udta") - 4
    tags_end = tags + int.from_bytes(moov[tags : tags + 4], "big")
    path.write_bytes(content[:at] + moov[:8] + moov[tags:tags_end] + moov[8:tags] + moov[tags_end:])
    return path


def tagged(path: Path, *, is_marked: bool) -> Path:
    """Write a film with a red picture of 200 × 200 beside it, as stream 0."""
    with av.open(str(path), "w") as container:
        artwork = container.add_stream("png", rate=1)
        artwork.width, artwork.height, artwork.pix_fmt = 200, 200, "rgb24"
        if is_marked:
            artwork.disposition = av.stream.Disposition.attached_pic
        stream = container.add_stream("libx264", rate=12)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        red = av.VideoFrame.from_ndarray(np.full((200, 200, 3), (255, 0, 0), np.uint8), format="rgb24")
        red.pts = 0
        for target, frames in ((artwork, [red]), (stream, [gray(number) for number in range(24)])):
            for frame in frames:
                whole = frame if isinstance(frame, av.VideoFrame) else av.VideoFrame.from_ndarray(frame, "rgb24")
                container.mux(target.encode(whole))
            container.mux(target.encode(None))
    return path


@pytest.mark.parametrize("is_marked", [True, False])
def test_artwork_is_not_the_film(tmp_path: Path, is_marked: bool) -> None:
    path = tagged(tmp_path / "a.mp4", is_marked=is_marked)
    if is_marked:
        move_to_front(path)
    with av.open(str(path)) as container:
        assert [stream.width for stream in container.streams.video] == [200, WIDTH]
    assert frame_size(path) == (WIDTH, HEIGHT)
    info = probe(path)
    assert (info.num_frames, info.width, info.height) == (24, WIDTH, HEIGHT)
    assert numbers(path) == list(range(24))


def test_sound_with_artwork_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "a.m4a"
    with av.open(str(path), "w", format="mp4") as container:
        artwork = container.add_stream("png", rate=1)
        artwork.width, artwork.height, artwork.pix_fmt = 16, 16, "rgb24"
        artwork.disposition = av.stream.Disposition.attached_pic
        sound = container.add_stream("aac", rate=48_000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 48_000
        container.mux(artwork.encode(av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), "rgb24")))
        for stream, item in ((artwork, None), (sound, frame), (sound, None)):
            container.mux(stream.encode(item))
    with pytest.raises(DecodeError, match="audio streams and embedded artwork only; expected a video stream"):
        probe(path)


def trim(path: Path, num_frames: int) -> None:
    """Let the edit list of an MP4 of 12 frames a second begin so many frames later, and last as much shorter."""
    content = bytearray(path.read_bytes())
    ticks, movie_ticks = (struct.unpack_from(">I", content, content.index(box) + 16)[0] for box in (b"mdhd", b"mvhd"))
    place = content.index(b"elst") + 8
    (num_edits,) = struct.unpack_from(">I", content, place)
    place += 4 + 12 * (num_edits - 1)
    length, begin = struct.unpack_from(">Ii", content, place)
    struct.pack_into(">Ii", content, place, length - num_frames * movie_ticks // 12, begin + num_frames * ticks // 12)
    path.write_bytes(content)


@pytest.mark.parametrize("num_frames", [6, 24])
@pytest.mark.parametrize("offset", [0, 60_000])
def test_a_whole_film_whose_edit_list_leaves_out_its_first_frames_is_not_cut_off(
    tmp_path: Path, offset: int, num_frames: int
) -> None:
    """Beside sound, pictures that come late stand behind an empty edit."""
    path = tmp_path / "a.mp4"
    case = Case(container="mp4", codec="h264", steps=(5000,) * (NUM_FRAMES - 1), offset=offset, sound=0)
    write_film(case, path, encode_film(tmp_path, "h264"), encode_sound(tmp_path, "mp4"))
    whole = probe(path)
    trim(path, num_frames)
    info = probe(path)
    assert numbers(path) == list(range(num_frames, NUM_FRAMES))
    assert info.clock.first_sec == pytest.approx(whole.clock.first_sec, abs=0.0012) and info.fps == whole.fps


def packet(pts: int | None, dts: int | None) -> Packet:
    return Packet(pts=pts, dts=dts, byte=None, duration=0, is_key=False, size=99, is_shown=True)


def test_what_lacks_a_time_stamp_is_shown_between_its_neighbours() -> None:
    packets = [packet(pts, None) for pts in (None, 10, None, 30, 40, None)]
    order = stated_order(packets, "mpeg2video", by_dts=False, reorders=False)
    assert order == [0, 1, 2, 3, 4, 5]
    assert np.asarray(shown_at(packets, order, by_dts=False)).tolist() == [0, 10, 20, 30, 40, 50]
    assert stated_order(packets, "mpeg2video", by_dts=False, reorders=True) is None
    assert shown_at([packet(None, None)], [0], by_dts=False) is None
    assert np.asarray(shown_at([packet(None, 7), packet(None, 9)], [1, 0], by_dts=False)).tolist() == [7, 9]


CLOCKS: dict[str, FrameClock] = {
    "even": FrameClock(num_frames=24, fps=12.0),
    "late": FrameClock(num_frames=24, fps=12.0, first_sec=0.5),
    "uneven": FrameClock.of_stamps(np.array([0.5, *(0.75 + k / 12 for k in range(23))]), [Fraction(30)]),
}


@pytest.mark.parametrize("name", CLOCKS)
def test_a_span_takes_what_is_shown_in_it(name: str) -> None:
    clock = CLOCKS[name]
    begin = clock.first_sec
    assert clock.first_sec + 24 / 12 == pytest.approx(clock.edges()[-1], abs=0.2)
    assert frames_of_span((0.0, begin + 0.05), clock) == (0, 1)
    assert frames_of_span((0.0, 99.0), clock) == (0, 24)
    start, stop = frames_of_span((1.0, 1.5), clock)
    shown = clock.seconds_of(np.arange(24))
    assert [number for number in range(24) if 1.0 <= shown[number] < 1.5] == list(range(start, stop))
    with pytest.raises(InputError, match="begins at 9 s"):
        frames_of_span((9.0, 10.0), clock)
    if begin:
        with pytest.raises(InputError, match=r"ends at 0\.4 s, and the source shows its first frame at 0\.5 s"):
            frames_of_span((0.0, 0.4), clock)


def test_a_rate_in_seconds_follows_the_clock_of_an_uneven_film() -> None:
    """24 frames in the first second and 6 in each of the next two, sampled 3 times a second."""
    shown = np.array([k / 24 for k in range(24)] + [1 + k / 6 for k in range(12)])
    clock = FrameClock.of_stamps(shown, [])
    assert clock.strided(0, 36, 3.0, 9, 0.0).tolist() == [0, 8, 16, 24, 26, 28, 30, 32, 34]
    even = FrameClock(num_frames=300, fps=29.97, first_sec=0.3)
    for place in (0.0, 0.3, 1.0):
        taken = even.strided(7, 290, 6.0, 8, place)
        np.testing.assert_array_equal(taken, strided_frames(7, 290, 8, 29.97 / 6, place))


def tracks_of(frames: Sequence[int]) -> Tracks:
    boxes = np.tile(np.array([1, 1, 9, 9], np.float32), (len(frames), 1, 1))
    return Tracks(frames=np.array(frames, np.int64), boxes=boxes, categories=np.array([2], np.uint8))


PAST_END: dict[str, tuple[tuple[float, float] | None, int, float | None, str]] = {
    "as many": (None, 24, 12.0, ""),
    "one more": (None, 25, 12.0, "25 annotated frames up to number 25 at 12 a second, of a source of 24 frames"),
    "another rate": (None, 60, 30.0, ""),
    "longer at another rate": (None, 61, 30.0, "61 annotated frames up to number 61 at 30 a second"),
    "the source's own frames": (None, 40, None, "40 annotated frames up to number 40, of a source of 24 frames"),
    "a span": ((1.0, 2.1), 1, 12.0, ""),
    "a longer span": ((1.0, 3.0), 1, 12.0, r"1 to 3 s of a source of 2 s \(24 frames\)"),
    "to the end": ((0.0, float("inf")), 24, 12.0, ""),
}


@pytest.mark.parametrize("name", PAST_END)
def test_a_source_that_ends_before_its_annotations_is_said_with_both_counts(name: str) -> None:
    span_sec, num_annotated, annotation_fps, expected = PAST_END[name]
    video = VideoInfo(clock=CLOCKS["even"], width=10, height=10)
    found = past_end(span_sec, tracks_of(range(num_annotated)), video, annotation_fps, 0.0)
    assert re.match(expected or "$", found), found


def test_annotations_that_begin_past_the_end_fail_the_clip() -> None:
    video = VideoInfo(clock=CLOCKS["even"], width=10, height=10)
    clip = Clip(clip_id="1", source=None, frame_size=None)
    plan: Callable[..., Any] = plan_view
    with pytest.raises(InputError, match="first annotated frame is number 31, past the end of a source of 24 frames"):
        plan(ViewPolicy(), clip, tracks_of([30, 31]), video, 12.0, view_number=0)
