"""Decoding small generated videos and folders whose gray level is the frame's number."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from ifcar.errors import InputError
from ifcar.extract.decode import cut_frames, open_source, probe, read_frames
from ifcar.extract.geometry import FULL_FRAME, Crop
from ifcar.extract.limits import DecodeError

NUM_FRAMES = 30
STEP = 8  # gray levels between neighbouring frames, far above what VP9 loses
WIDTH, HEIGHT = 96, 64


def gray_frame(number: int) -> NDArray[np.uint8]:
    return np.full((HEIGHT, WIDTH, 3), number * STEP % 256, dtype=np.uint8)


def write_video(
    path: Path,
    codec: str = "libvpx-vp9",
    num_frames: int = NUM_FRAMES,
    noise: bool = False,
    options: dict[str, str] | None = None,
    gop: int | None = None,
) -> Path:
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(12))
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.options = options or {"deadline": "realtime", "cpu-used": "8"}
        if gop:
            stream.codec_context.gop_size = gop
        for number in range(num_frames):
            pixels = gray_frame(number)
            if noise:
                pixels = rng.integers(0, 255, pixels.shape, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "gray.webm")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(NUM_FRAMES):
        Image.fromarray(gray_frame(number)).save(tmp_path / f"{number + 1:04d}.jpg", quality=95)
    (tmp_path / "DONE").touch()
    return tmp_path


def levels(frames: NDArray[np.uint8]) -> list[int]:
    """The frame numbers that the gray levels stand for."""
    return [round(level / STEP) for level in frames.astype(float).mean(axis=(1, 2, 3))]


def test_probe_counts_the_frames_of_a_webm(video: Path) -> None:
    info = probe(video)
    assert (info.num_frames, info.fps, info.width, info.height) == (NUM_FRAMES, 12.0, WIDTH, HEIGHT)


@pytest.mark.parametrize(("name", "codec"), [("a.webm", "libvpx"), ("a.mp4", "mpeg4"), ("a.avi", "mpeg4")])
def test_other_containers_and_codecs(tmp_path: Path, name: str, codec: str) -> None:
    path = write_video(tmp_path / name, codec)
    assert probe(path).num_frames == NUM_FRAMES
    assert levels(read_frames(path, [0, 17, NUM_FRAMES - 1], FULL_FRAME, 16, False)) == [0, 17, NUM_FRAMES - 1]


@pytest.mark.parametrize("kept_bytes", [1 << 20, 0])
@pytest.mark.parametrize(
    ("name", "codec"), [("a.webm", "libvpx-vp9"), ("a.webm", "libvpx"), ("a.mp4", "libx264"), ("a.mp4", "mpeg4")]
)
def test_an_open_video_gives_the_same_frames_after_a_walk_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, codec: str, kept_bytes: int
) -> None:
    """Whether the walk's packets are kept or not; libx264 stores frames in another order than it shows them."""
    monkeypatch.setattr("ifcar.extract.video_file._MOST_KEPT_BYTES", kept_bytes)
    path = write_video(tmp_path / name, codec, noise=True)
    wanted = [0, 4, 5, NUM_FRAMES - 1]
    expected = read_frames(path, wanted, FULL_FRAME, 32, False)
    with open_source(path) as source:
        infos = [source.info()]
        for _ in range(2):
            np.testing.assert_array_equal(cut_frames(source, wanted, FULL_FRAME, 32, False), expected)
            infos.append(source.info())
    assert infos == [probe(path)] * 3
    with open_source(path) as source:
        assert source.size() == (WIDTH, HEIGHT)
        np.testing.assert_array_equal(cut_frames(source, wanted, FULL_FRAME, 32, False), expected)


GROUPS: list[tuple[str, str, dict[str, str]]] = [
    ("a.webm", "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}),
    ("a.mp4", "libx264", {"x264-params": "keyint=7:open-gop=1:bframes=3", "preset": "fast"}),
    ("a.mkv", "libx264", {"x264-params": "keyint=7:bframes=3", "preset": "fast"}),
    ("a.ts", "libx264", {"x264-params": "keyint=7:bframes=3", "preset": "fast"}),
    ("a.mp4", "libx265", {"x265-params": "keyint=7:open-gop=1:bframes=3:log-level=error", "preset": "fast"}),
    ("a.mp4", "mpeg4", {"bf": "2"}),
]
"""Films with a key frame every 7 frames: container, codec, options."""


@pytest.mark.slow
@pytest.mark.parametrize(("kept_bytes", "known"), [(1 << 20, False), (0, False), (0, True)])
@pytest.mark.parametrize(("name", "codec", "options"), GROUPS)
def test_wherever_decoding_begins_pictures_are_those_of_the_whole_film(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    codec: str,
    options: dict[str, str],
    kept_bytes: int,
    known: bool,
) -> None:
    """Of noise; B frames and, where the codec has them, frames that lean on the next group."""
    path = write_video(tmp_path / name, codec, noise=True, options=options, gop=7)
    wanted = [1, 2, 6, 7, 8, 20, 28, 29]
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == NUM_FRAMES
    monkeypatch.setattr("ifcar.extract.video_file._MOST_KEPT_BYTES", kept_bytes)
    info = probe(path)
    assert info.index is not None and len(info.index.starts) >= 4
    with open_source(path, info if known else None) as source:
        pictures = list(source.pictures(wanted))
    assert [number for number, _ in pictures] == wanted
    for number, picture in pictures:
        np.testing.assert_array_equal(np.asarray(picture), frames[number], err_msg=f"frame {number}")


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="needs /proc to count the bytes that are read")
@pytest.mark.parametrize(("name", "codec", "options"), GROUPS[:3])
def test_a_frame_of_a_known_film_is_read_from_the_last_key_frame_on(
    tmp_path: Path, name: str, codec: str, options: dict[str, str]
) -> None:
    """A frame of the last of ten groups, or of the first, takes few of the file's bytes; opening it takes as many."""
    path = write_video(tmp_path / name, codec, num_frames=70, noise=True, options=options, gop=7)
    info = probe(path)
    assert info.index is not None and len(info.index.starts) >= 8

    def share_read(number: int) -> float:
        before = bytes_read()
        with open_source(path, info) as source:
            assert [found for found, _ in source.pictures([number])] == [number]
        return (bytes_read() - before) / path.stat().st_size

    assert share_read(info.index.starts[-1]) < 0.5
    assert share_read(0) < 0.5


def bytes_read() -> int:
    return int(Path("/proc/self/io").read_text().split()[1])


def test_probe_of_a_folder(folder: Path) -> None:
    info = probe(folder)
    assert (info.num_frames, info.fps, info.width, info.height) == (NUM_FRAMES, None, WIDTH, HEIGHT)


@pytest.mark.parametrize("wanted", [[0], [29], [3, 4, 5], [20, 3, 3, 29, 0, 20], list(range(30))])
def test_frames_come_in_the_order_asked_for(video: Path, folder: Path, wanted: list[int]) -> None:
    for source in (video, folder):
        frames = read_frames(source, wanted, FULL_FRAME, 32, False)
        assert frames.shape == (len(wanted), 32, 32, 3)
        assert frames.dtype == np.uint8
        assert levels(frames) == wanted


def test_reading_twice_gives_the_same_bytes(video: Path) -> None:
    crop = Crop(0.43, 0.52, 0.71, 0.8)
    first, second = (read_frames(video, [1, 9], crop, 50, True) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_flip_mirrors_the_crop(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "0001.png")
    crop = Crop(0.3, 0.6, 0.37, 0.53)
    plain, mirrored = (read_frames(tmp_path, [0], crop, 24, flip) for flip in (False, True))
    np.testing.assert_array_equal(mirrored, plain[:, :, ::-1])


def test_crop_of_whole_pixels_at_its_own_size_copies_them(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (40, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "0001.png")
    crop = Crop((16 + 10) / 80, (4 + 10) / 40, 20 / 80, 20 / 40)
    np.testing.assert_array_equal(read_frames(tmp_path, [0], crop, 20, False)[0], pixels[4:24, 16:36])


def test_shrinking_averages_instead_of_skipping(tmp_path: Path) -> None:
    stripes = np.zeros((64, 64, 3), dtype=np.uint8)
    stripes[:, ::2] = 200
    Image.fromarray(stripes).save(tmp_path / "0001.png")
    small = read_frames(tmp_path, [0], FULL_FRAME, 8, False)
    assert np.abs(small[:, :, 1:-1].astype(int) - 100).max() <= 3


def test_gray_and_palette_images_become_rgb(tmp_path: Path) -> None:
    Image.new("L", (20, 20), 77).save(tmp_path / "0001.png")
    Image.new("RGB", (20, 20), (77, 77, 77)).convert("P").save(tmp_path / "0002.png")
    frames = read_frames(tmp_path, [0, 1], FULL_FRAME, 10, False)
    assert frames.shape == (2, 10, 10, 3)
    assert np.abs(frames.astype(int) - 77).max() <= 5


def write_audio(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libvorbis" if path.suffix == ".webm" else "pcm_s16le", rate=8000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), dtype=np.float32), format="fltp", layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_bytes(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def make_folder(path: Path, *names: str) -> Path:
    path.mkdir()
    for name in names:
        Image.new("RGB", (16, 16)).save(path / name)
    return path


def truncated(path: Path, name: str, codec: str, share: float) -> Path:
    whole = write_video(path / f"whole-{name}", codec, noise=True).read_bytes()
    return write_bytes(path / name, whole[: int(len(whole) * share)])


DAMAGED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing file": (lambda p: p / "gone.webm", "not there"),
    "zero bytes": (lambda p: write_bytes(p / "a.webm", b""), "0 bytes"),
    "zero bytes mp4": (lambda p: write_bytes(p / "a.mp4", b""), "0 bytes"),
    "text": (lambda p: write_bytes(p / "a.webm", b"not a video at all\n" * 99), "damaged or no video"),
    "random bytes": (
        lambda p: write_bytes(p / "a.mp4", np.random.default_rng(0).bytes(9999)),
        "damaged or no video",
    ),
    "playlist": (
        lambda p: write_bytes(p / "a.m3u8", b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n"),
        "damaged or no video",
    ),
    "audio only": (lambda p: write_audio(p / "a.wav"), "audio streams only"),
    "webm cut in half": (lambda p: truncated(p, "a.webm", "libvpx-vp9", 0.5), "cut off"),
    "webm head only": (lambda p: write_bytes(p / "a.webm", write_video(p / "b.webm").read_bytes()[:300]), "."),
    "mp4 cut in half": (lambda p: truncated(p, "a.mp4", "mpeg4", 0.5), "damaged or no video"),
    "empty folder": (lambda p: make_folder(p / "a"), "no frames in this folder"),
    "numbered from 0": (lambda p: make_folder(p / "a", "0000.png", "0001.png"), "0000.png.*numbered 0"),
    "number twice": (lambda p: make_folder(p / "a", "1.png", "0001.png"), "same number as 0001.png"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_unusable_source_is_one_line_that_names_it(tmp_path: Path, name: str) -> None:
    make, message = DAMAGED[name]
    source = make(tmp_path)
    with pytest.raises(DecodeError, match=message) as caught:
        probe(source)
    assert str(source) in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(DecodeError) as caught:
        read_frames(source, [0, NUM_FRAMES - 1], FULL_FRAME, 16, False)
    assert str(source) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_frames_past_the_end_of_a_video_are_an_error(video: Path) -> None:
    with pytest.raises(DecodeError, match=r"frame 30 is missing, only 30 frames can be decoded; expected at least 36"):
        read_frames(video, [3, 30, 35], FULL_FRAME, 16, False)


def test_missing_frame_of_a_folder_is_named(folder: Path) -> None:
    (folder / "0007.jpg").unlink()
    with pytest.raises(DecodeError, match=r"0007\.jpg: this frame is missing"):
        read_frames(folder, [0, 6], FULL_FRAME, 16, False)
    with pytest.raises(DecodeError, match=r"0031\.jpg: this frame is missing"):
        read_frames(folder, [30], FULL_FRAME, 16, False)


def test_damaged_frame_of_a_folder_is_named(folder: Path) -> None:
    path = folder / "0002.jpg"
    path.write_bytes(path.read_bytes()[:200])
    (folder / "0003.jpg").write_bytes(b"")
    for number in (1, 2):
        with pytest.raises(DecodeError, match=rf"000{number + 1}\.jpg: damaged or no image"):
            read_frames(folder, [number], FULL_FRAME, 16, False)


def test_frames_of_two_sizes_are_an_error(folder: Path) -> None:
    Image.new("RGB", (50, 50)).save(folder / "0005.jpg")
    with pytest.raises(DecodeError, match="frame 4 is 50 × 50, an earlier one 96 × 64"):
        read_frames(folder, [0, 4], FULL_FRAME, 16, False)


@pytest.mark.parametrize("numbers", [[], [-1, 3]])
def test_impossible_requests_are_input_errors(video: Path, numbers: list[int]) -> None:
    with pytest.raises(InputError, match="expected at least one number from 0"):
        read_frames(video, numbers, FULL_FRAME, 16, False)


def test_no_file_stays_open(video: Path, folder: Path) -> None:
    def open_files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("needs /proc to count open files")
    before = open_files()
    for _ in range(3):
        probe(video)
        read_frames(video, [2], FULL_FRAME, 16, False)
        read_frames(folder, [2], FULL_FRAME, 16, False)
        for source in (video, folder):
            with pytest.raises(DecodeError):
                read_frames(source, [99], FULL_FRAME, 16, False)
    assert open_files() == before
