"""Videos and pictures as cameras and broken disks leave them: turned, uneven, huge, in any colour mode, or no files."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from ifcar.extract.datasets.contract import Clip
from ifcar.extract.decode import probe, read_frames
from ifcar.extract.frame_clock import FrameClock
from ifcar.extract.geometry import FULL_FRAME
from ifcar.extract.limits import MAX_PIXELS, DecodeError
from ifcar.extract.picture_source import VideoInfo
from ifcar.extract.tracks import Tracks
from ifcar.extract.views import ViewPolicy, plan_view

WIDTH, HEIGHT = 96, 64
RED, GREEN, BLUE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0)


def quarters(width: int = WIDTH, height: int = HEIGHT) -> NDArray[np.uint8]:
    """A picture that is red, green / blue, black in its quarters."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2] = RED
    pixels[: height // 2, width // 2 :] = GREEN
    pixels[height // 2 :, : width // 2] = BLUE
    return pixels


def seen(frame: NDArray[np.uint8]) -> tuple[Any, ...]:
    """The colours in the quarters of a picture: left top, right top, left bottom, right bottom."""
    size = len(frame)
    near, far = size // 4, size - size // 4
    places = ((near, near), (near, far), (far, near), (far, far))
    colours = (RED, GREEN, BLUE, BLACK)
    return tuple(min(colours, key=lambda c: np.abs(frame[y, x].astype(int) - c).sum()) for y, x in places)


def write_video(
    path: Path, frames: list[NDArray[np.uint8]], codec: str = "mpeg4", seconds: list[float] | None = None
) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(12))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000) if seconds else Fraction(1, 12)
        for number, pixels in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            picture.time_base = stream.codec_context.time_base
            picture.pts = round(1000 * seconds[number]) if seconds else number
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def set_matrix(path: Path, a: int, b: int, c: int, d: int) -> Path:
    """Write a display matrix into the header of an MP4 file's track."""
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 44
    content[at : at + 36] = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return path


TURNS = {
    "upright": ((1, 0, 0, 1), (RED, GREEN, BLUE, BLACK)),
    "quarter turn with the clock": ((0, 1, -1, 0), (BLUE, RED, BLACK, GREEN)),
    "half turn": ((-1, 0, 0, -1), (BLACK, BLUE, GREEN, RED)),
    "quarter turn against the clock": ((0, -1, 1, 0), (GREEN, BLACK, RED, BLUE)),
    "mirrored": ((-1, 0, 0, 1), (GREEN, RED, BLACK, BLUE)),
    "upside down": ((1, 0, 0, -1), (BLUE, BLACK, RED, GREEN)),
    "transposed": ((0, 1, 1, 0), (RED, BLUE, GREEN, BLACK)),
    "transversed": ((0, -1, -1, 0), (BLACK, GREEN, BLUE, RED)),
}
EXIF = {"upright": 1, "mirrored": 2, "half turn": 3, "upside down": 4, "transposed": 5}
EXIF |= {"quarter turn with the clock": 6, "transversed": 7, "quarter turn against the clock": 8}


@pytest.mark.parametrize("name", TURNS)
def test_video_and_image_are_turned_as_their_metadata_says(tmp_path: Path, name: str) -> None:
    matrix, colours = TURNS[name]
    video = set_matrix(write_video(tmp_path / "a.mp4", [quarters()] * 3), *matrix)
    folder = tmp_path / "frames"
    folder.mkdir()
    exif = Image.Exif()
    exif[0x0112] = EXIF[name]
    for number, kind in enumerate(("jpg", "png", "webp"), start=1):
        Image.fromarray(quarters()).save(folder / f"{number:04d}.{kind}", exif=exif, quality=95)
    size = (HEIGHT, WIDTH) if matrix[0] == 0 else (WIDTH, HEIGHT)
    for source in (video, folder):
        info = probe(source)
        assert (info.width, info.height) == size
        for frame in read_frames(source, [0, 1, 2], FULL_FRAME, 32, False):
            assert seen(frame) == colours


def test_video_turned_by_no_quarter_turn_is_refused(tmp_path: Path) -> None:
    video = set_matrix(write_video(tmp_path / "a.mp4", [quarters()] * 3), 1, 1, -1, 1)
    with pytest.raises(DecodeError, match="no quarter turn"):
        probe(video)


def test_boxes_meet_their_frames_by_the_clock_when_the_rate_varies(tmp_path: Path) -> None:
    """36 frames in the first second and 6 in the second; the box counts annotated frames at 12 a second."""
    seconds = [k / 36 for k in range(36)] + [1 + k / 6 for k in range(6)]
    video = write_video(tmp_path / "a.mkv", [np.full((48, 64, 3), 6 * k, np.uint8) for k in range(42)], seconds=seconds)
    info = probe(video)
    assert info.num_frames == 42 and info.clock.seconds is not None
    np.testing.assert_allclose(info.clock.seconds, seconds, atol=0.002)
    frames = np.arange(24)
    boxes = np.stack([frames, frames * 0, frames + 10, frames * 0 + 10], -1)[:, None].astype(np.float32)
    tracks = Tracks(frames=frames, boxes=boxes, categories=np.array([2], np.uint8))
    clip = Clip(clip_id="7", source=None, frame_size=None)
    view = plan_view(ViewPolicy(frames=42), clip, tracks, info, 12.0, view_number=0)
    assert view.frame_indices.tolist() == list(range(42))
    expected = (np.rint(12 * np.array(seconds)) + 5) / 64
    np.testing.assert_allclose(view.boxes[:, 0, 0], expected, atol=1e-6)
    assert probe(write_video(tmp_path / "b.mkv", [quarters()] * 9)).clock.seconds is None


@pytest.mark.parametrize(("width", "height", "codec"), [(1, 1, "png"), (2, 2, "mpeg4"), (3840, 2160, "mpeg4")])
def test_odd_sizes_are_read(tmp_path: Path, width: int, height: int, codec: str) -> None:
    path = tmp_path / ("a.mov" if codec == "png" else "a.mp4")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(12))
        stream.width, stream.height = width, height
        stream.pix_fmt = "rgb24" if codec == "png" else "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((height, width, 3), 200, np.uint8), "rgb24")))
        container.mux(stream.encode(None))
    assert probe(path) == VideoInfo(clock=FrameClock(num_frames=1, fps=12.0), width=width, height=height)
    assert abs(int(read_frames(path, [0, 0], FULL_FRAME, 16, True).mean()) - 200) < 8


@pytest.mark.slow
def test_last_of_10_000_frames_is_read_without_keeping_them(tmp_path: Path) -> None:
    frame = np.zeros((48, 64, 3), np.uint8)
    video = write_video(tmp_path / "a.mp4", [*[frame] * 9_999, frame + 200])
    assert probe(video).num_frames == 10_000
    first, last = read_frames(video, [0, 9_999], FULL_FRAME, 16, False)
    assert first.mean() < 20 and last.mean() > 150


def write_16_bit(path: Path) -> None:
    Image.fromarray(np.full((16, 16), 200 * 257, np.uint16)).save(path)


MODES: dict[str, Callable[[Path], None]] = {
    "gray.png": lambda p: Image.new("L", (16, 16), 200).save(p),
    "palette.png": lambda p: Image.new("RGB", (16, 16), (200, 200, 200)).convert("P").save(p),
    "bit.png": lambda p: Image.new("1", (16, 16), 1).save(p),
    "cmyk.jpg": lambda p: Image.new("CMYK", (16, 16), (55, 55, 55, 0)).save(p, quality=95),
    "16-bit.png": write_16_bit,
    "alpha.png": lambda p: Image.new("RGBA", (16, 16), (200, 200, 200, 0)).save(p),
    "gray-alpha.png": lambda p: Image.new("LA", (16, 16), (200, 0)).save(p),
    "wrong-ending.jpg": lambda p: Image.new("RGB", (16, 16), (200, 200, 200)).save(p, "PNG"),
    "bitmap.bmp": lambda p: Image.new("RGB", (16, 16), (200, 200, 200)).save(p),
}


@pytest.mark.parametrize("name", MODES)
def test_every_colour_mode_becomes_the_rgb_that_it_shows(tmp_path: Path, name: str) -> None:
    MODES[name](tmp_path / f"1.{name.rsplit('.')[-1]}")
    level = read_frames(tmp_path, [0], FULL_FRAME, 16, False).mean()
    assert abs(level - (255 if name == "bit.png" else 200)) <= 3


def png_header(width: int, height: int) -> bytes:
    """The first bytes of a PNG that claims to be this large."""
    import zlib

    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))


def huge_video(path: Path) -> Path:
    """Write a VP8 video whose frames claim 16,383 × 16,383 pixels."""
    content = bytearray(write_video(path, [quarters()] * 2, "libvpx").read_bytes())
    at = content.index(b"\x9d\x01\x2a") + 3
    content[at : at + 4] = struct.pack("<HH", 16_383, 16_383)
    path.write_bytes(content)
    return path


def large_image(folder: Path) -> Path:
    folder.mkdir()
    Image.new("1", (9_000, 9_000)).save(folder / "1.png")
    return folder


def in_folder(folder: Path, name: str, content: bytes) -> Path:
    folder.mkdir()
    (folder / name).write_bytes(content)
    return folder


def linked(path: Path) -> Path:
    path.symlink_to(path.with_name("gone.mp4"))
    return path


def pipe_in(folder: Path) -> Path:
    folder.mkdir()
    os.mkfifo(folder / "0001.jpg")
    return folder


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\nshowpage\n%%EOF\n"
REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a directory called a video": (lambda p: in_folder(p / "a.mp4", "readme.txt", b""), "no frames in this folder"),
    "a dangling link": (lambda p: linked(p / "a.mp4"), "not there"),
    "a pipe for a frame": (lambda p: pipe_in(p / "a"), "no file; expected an image"),
    "a program for a frame": (lambda p: in_folder(p / "a", "1.jpg", EPS), "damaged or no image"),
    "a huge image": (lambda p: in_folder(p / "a", "1.png", png_header(60_000, 60_000)), r"1\.png"),
    "a large image": (lambda p: large_image(p / "a"), f"at most {MAX_PIXELS:,}"),
    "a frame number without end": (lambda p: in_folder(p / "a", f"{'9' * 200}.jpg", b""), "is numbered 999"),
    "a huge video": (lambda p: huge_video(p / "a.webm"), r"a\.webm"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_picture_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    make, message = REFUSED[name]
    source = make(tmp_path)
    for use in (probe, lambda s: read_frames(s, [0], FULL_FRAME, 16, False)):
        with pytest.raises(DecodeError, match=message) as caught:
            use(source)
        assert "\n" not in str(caught.value) and str(source) in str(caught.value)
