"""Sound: on the clock of its file, as log-mel patches against a literal loop, and through backbone vggish."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures.sounds import FLAC_BLOCK, RATE, tone, write_sounding
from numpy.typing import NDArray
from torch.nn import functional as F

from ifcar.errors import InputError
from ifcar.extract.audio import Sound
from ifcar.extract.backbones.catalog import build_backbone, resolve_backbone
from ifcar.extract.decode import open_source
from ifcar.extract.decoded_views import READERS
from ifcar.extract.geometry import FULL_FRAME
from ifcar.extract.limits import DecodeError
from ifcar.extract.log_mel import PATCH_SAMPLES, band_weights, log_mel
from ifcar.extract.view_content import View
from ifcar.extract.views import ViewPolicy
from ifcar.extract.weights import load_file_into


def clicks(seconds: float, every_sec: float, rate: int) -> NDArray[np.float64]:
    """A short pulse at each whole multiple of `every_sec`, which tells when it is."""
    sound = np.zeros(round(seconds * rate))
    for second in np.arange(0, seconds, every_sec):
        first = round(second * rate)
        sound[first : first + round(0.01 * rate)] = 0.9
    return sound


def onsets(samples: NDArray[np.float32], first: int) -> list[float]:
    """The seconds at which pulses begin."""
    loud = np.abs(samples) > 0.4
    starts = np.flatnonzero(loud & ~np.concatenate([[False], loud[:-1]]))
    kept = [start for n, start in enumerate(starts) if n == 0 or start - starts[n - 1] > 800]
    return [(first + start) / RATE for start in kept]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ending", "codec", "rate", "channels"),
    [
        ("mkv", "flac", 16_000, 1),
        ("mkv", "flac", 44_100, 2),
        ("mkv", "libopus", 48_000, 2),
        ("mp4", "aac", 44_100, 1),
        ("ts", "aac", 48_000, 2),
    ],
)
@pytest.mark.parametrize("late_sec", [0.0, 1.3])
def test_samples_lie_where_the_files_clock_says(
    tmp_path: Path, ending: str, codec: str, rate: int, channels: int, late_sec: float
) -> None:
    """MPEG-TS has no second 0 of its own: its clock begins with AAC's run-up, 1,024 samples before the sound."""
    path = tmp_path / f"film.{ending}"
    sound = clicks(8, 0.5, rate)
    write_sounding(path, sound, seconds=9, rate=rate, late_sec=late_sec, codec=codec, channels=channels)
    late_sec += 1024 / rate if ending == "ts" and not late_sec else 0.0
    with Sound(path) as heard:
        for start, stop in [(0.0, 9.0), (5.2, 7.1), (2.05, 3.0), (5.2, 7.1)]:  # backwards too
            first = round(start * RATE)
            samples = heard.read(first, round((stop - start) * RATE))
            expected = [late_sec + k / 2 for k in range(16) if start <= late_sec + k / 2 < min(stop, late_sec + 8)]
            np.testing.assert_allclose(onsets(samples, first), expected, atol=4e-3)


def test_what_no_sample_covers_is_zero_and_reading_in_parts_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "film.mkv"
    write_sounding(path, tone(440, 3), seconds=6, late_sec=1.25)
    with Sound(path) as sound:
        whole = sound.read(-RATE, 8 * RATE)
        parts = [sound.read(first, RATE // 2) for first in range(-RATE, 7 * RATE, RATE // 2)]
    edge = RATE + round(1.25 * RATE)
    assert not whole[:edge].any() and not whole[edge + 3 * RATE :].any()
    expected = tone(440, 3)
    np.testing.assert_allclose(whole[edge : edge + 3 * RATE], expected, atol=1e-4)
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-4)


@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_the_same_sound_on_two_channels_is_as_loud_as_on_one(tmp_path: Path, rate: int) -> None:
    found = []
    for channels in (1, 2):
        path = tmp_path / f"{channels}.mkv"
        write_sounding(path, 0.9 * tone(440, 2, rate=rate) / 0.5, seconds=2, rate=rate, channels=channels)
        with Sound(path) as sound:
            found.append(sound.read(0, 2 * RATE))
    np.testing.assert_allclose(found[1], found[0], atol=1e-3)
    assert 0.8 < np.abs(found[1]).max() < 1.0


def test_a_track_with_a_pause_is_silent_there_and_right_behind_it(tmp_path: Path) -> None:
    """The file's time stamps jump by 1.5 s after 29 blocks."""
    path, sound, before = tmp_path / "film.mkv", tone(440, 4), 29 * FLAC_BLOCK
    write_sounding(path, sound, seconds=6, pause=(before, 1.5))
    with Sound(path) as heard:
        samples = heard.read(0, 6 * RATE)
        behind = heard.read(4 * RATE, RATE)
    edge = before + round(1.5 * RATE)
    np.testing.assert_allclose(samples[:before], sound[:before], atol=1e-4)
    assert not samples[before:edge].any()
    np.testing.assert_allclose(samples[edge : edge + len(sound) - before], sound[before:], atol=1e-4)
    np.testing.assert_array_equal(behind, samples[4 * RATE : 5 * RATE])


LOOKED_AT = (0, 1, 50, 95)
"""Frames of a patch that are held against the loop."""


def literal_patch(samples: NDArray[np.float32]) -> NDArray[np.float64]:
    """VGGish's patch, number by number, in the frames that are looked at."""

    def to_mel(hertz: float) -> float:
        return 1127.0 * math.log(1 + hertz / 700.0)

    edges = [to_mel(125.0) + k * (to_mel(7500.0) - to_mel(125.0)) / 65 for k in range(66)]
    patch = np.zeros((96, 64))
    for time in LOOKED_AT:
        frame = [float(samples[160 * time + n]) * (0.5 - 0.5 * math.cos(2 * math.pi * n / 400)) for n in range(400)]
        spectrum = [abs(value) for value in np.fft.fft(frame, 512)[:257]]
        for band in range(64):
            total = 0.0
            for number, magnitude in enumerate(spectrum):
                place = to_mel(number * 16_000 / 512)
                rising = (place - edges[band]) / (edges[band + 1] - edges[band])
                falling = (edges[band + 2] - place) / (edges[band + 2] - edges[band + 1])
                total += max(0.0, min(rising, falling)) * magnitude
            patch[time, band] = math.log(total + 0.01)
    return patch


def test_log_mel_is_the_literal_loops() -> None:
    samples = np.random.default_rng(0).uniform(-1, 1, PATCH_SAMPLES).astype(np.float32)
    found, expected = log_mel(samples), literal_patch(samples)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found[[*LOOKED_AT]], expected[[*LOOKED_AT]], atol=1e-5)


@pytest.mark.parametrize("hertz", [300.0, 1000.0, 4000.0])
def test_a_sine_lights_the_band_of_its_frequency(hertz: float) -> None:
    patch = log_mel(tone(hertz, 1)[:PATCH_SAMPLES].astype(np.float32))
    nearest = int(band_weights()[round(hertz / 16_000 * 512)].argmax())
    assert abs(int(patch.mean(axis=0).argmax()) - nearest) <= 1
    far = np.abs(np.arange(64) - nearest) > 6
    assert patch[:, far].max() < patch[:, nearest].min() - 2


def test_silence_is_the_logarithm_of_the_offset() -> None:
    np.testing.assert_allclose(log_mel(np.zeros(PATCH_SAMPLES, np.float32)), math.log(0.01), rtol=1e-6)


def view_of(frames: list[int]) -> View:
    numbers = np.array(frames, np.int32)
    return View(frame_indices=numbers, crop=FULL_FRAME, flip=False, sampling_rate=1.0, augmented=False, arrays={})


def test_a_patch_is_centred_on_the_time_of_its_frame(tmp_path: Path) -> None:
    """Two tones one after the other: patches lie wholly in one, half in each, wholly in the other."""
    path = tmp_path / "film.mkv"
    low, high = tone(500, 3), tone(3000, 3)
    write_sounding(path, np.concatenate([low, high]), seconds=6, fps=10)
    with open_source(path) as source:
        info = source.info()
        patches = READERS.get("audio")(source, info, view_of([15, 30, 45]), ViewPolicy(frames=3, instances=1))
    assert patches.shape == (3, 96, 64) and patches.dtype == np.float32
    sound = np.round(np.concatenate([low, high]) * 32767) / 32768  # as stored
    for patch, middle_sec in zip(patches, (1.55, 3.05, 4.55), strict=True):
        first = round(middle_sec * RATE) - PATCH_SAMPLES // 2
        np.testing.assert_allclose(patch, log_mel(sound[first : first + PATCH_SAMPLES].astype(np.float32)), atol=1e-3)


def test_a_file_without_sound_is_refused_by_one_line_never_read_as_silence(tmp_path: Path) -> None:
    write_sounding(tmp_path / "mute.mkv", None, seconds=1)
    with pytest.raises(DecodeError, match=r"mute\.mkv: video streams only; expected a sound track"):
        Sound(tmp_path / "mute.mkv")
    with pytest.raises(DecodeError, match="a folder of frames, which has no sound"):
        Sound(tmp_path)
    (tmp_path / "cut.mkv").write_bytes(b"\x1aE\xdf\xa3 no film")
    with pytest.raises(DecodeError, match="damaged"):
        Sound(tmp_path / "cut.mkv")


def test_vggish_takes_torchvggishs_file_and_is_its_layers(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = {0: (64, 1), 3: (128, 64), 6: (256, 128), 8: (256, 256), 11: (512, 256), 13: (512, 512)}
    state = {}
    for place, (width, before) in shapes.items():
        state[f"features.{place}.weight"] = torch.randn(width, before, 3, 3, generator=generator) / (3 * before**0.5)
        state[f"features.{place}.bias"] = torch.randn(width, generator=generator)
    torch.save(
        {**state, "embeddings.0.weight": torch.zeros(4, 12288), "embeddings.0.bias": torch.zeros(4)}, tmp_path / "v.pth"
    )
    spec = resolve_backbone("vggish", num_frames=2)
    assert (spec.reads, spec.num_steps, spec.channels, spec.grid_size) == ("audio", 2, 512, (6, 4))
    backbone = build_backbone(spec)
    load_file_into(backbone, tmp_path / "v.pth")
    patches = torch.randn(1, 2, 96, 64, generator=generator)
    with torch.no_grad():
        found = backbone.checked(backbone(backbone.normalise(patches)))
    (grid,) = found.values()
    for step in range(2):
        value = patches[0, step][None, None]
        for place in shapes:
            value = F.relu(
                F.conv2d(value, state[f"features.{place}.weight"], state[f"features.{place}.bias"], padding=1)
            )
            value = F.max_pool2d(value, 2) if place in (0, 3, 8, 13) else value
        torch.testing.assert_close(grid[0, :, step], value[0], rtol=1e-4, atol=1e-4)
    with pytest.raises(InputError, match=r"expected torch\.float32"):
        backbone.normalise(patches[..., :32])
    with pytest.raises(InputError, match=r"no spatial stride 8; expected 16$"):
        resolve_backbone("vggish", spatial_stride=8)
