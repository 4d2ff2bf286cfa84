"""Which picture is shown at which second of a file's clock, whatever the file says and wherever it begins.

IFCAR_CLOCK_CASES=600 pytest -n 0 tests/extract/test_clock.py tries that many files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from fixtures.films import (
    GRID,
    HOLDS,
    NUM_FRAMES,
    Case,
    Expected,
    encode_film,
    encode_sound,
    number_of,
    write_film,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ifcar.extract.datasets.contract import Clip
from ifcar.extract.decode import open_source, probe
from ifcar.extract.limits import DecodeError
from ifcar.extract.picture_source import VideoInfo
from ifcar.extract.tracks import Tracks
from ifcar.extract.views import ViewPolicy, plan_view

NUM_CASES = int(os.environ.get("IFCAR_CLOCK_CASES", "0"))
ROUNDED_SEC = 0.0012  # Matroska and FLV store milliseconds
PACES = (1000, 2000, 2002, 2400, 2500, 5000, 12_000)  # ticks: 60, 30, 29.97, 25, 24, 12 and 5 frames a second


@st.composite
def cases(draw: st.DrawFn) -> Case:
    container = draw(st.sampled_from(sorted(HOLDS)))
    grid = GRID.get(container, 1)
    paces = [pace for pace in PACES if not pace % grid]
    steps = [draw(st.sampled_from(paces))] * (NUM_FRAMES - 1)
    if draw(st.booleans()):
        steps = draw(st.lists(st.sampled_from(paces), min_size=NUM_FRAMES - 1, max_size=NUM_FRAMES - 1))
    cut = draw(st.one_of(st.just(0), st.integers(1, 20)))
    offsets = (0, 0, 1000, 30_000, 90_000, 7_200_000)
    if container in GRID:
        offsets = (0, 30_000)
    elif container == "mp4" and cut:  # with times below 0, the muxer begins its edit list elsewhere
        offsets = (30_000, 90_000, 7_200_000)
    return Case(
        container=container,
        codec=draw(st.sampled_from(HOLDS[container])),
        steps=tuple(steps),
        offset=draw(st.sampled_from(offsets)),
        sound=draw(st.sampled_from((None, None, 0, 45_000))),
        cut=cut,
    )


class Films:
    """Films and sounds, encoded once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._made: dict[str, Path] = {}

    def write(self, case: Case) -> tuple[Path, Expected]:
        film, sound = self._once(case.codec, encode_film), self._once(case.container, encode_sound)
        path = self.folder / f"case.{case.container}"
        return path, write_film(case, path, film, sound)

    def _once(self, name: str, encode: object) -> Path:
        if name not in self._made:
            self._made[name] = encode(self.folder, name)  # type: ignore[operator]
        return self._made[name]


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Films:
    return Films(tmp_path_factory.mktemp("films"))


@pytest.mark.slow
@settings(
    max_examples=NUM_CASES or 60,
    deadline=None,
    derandomize=not NUM_CASES,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(case=cases(), data=st.data())
def test_the_picture_of_a_second_is_the_one_that_the_file_shows_then(
    films: Films, case: Case, data: st.DataObject
) -> None:
    path, expected = films.write(case)
    info = probe(path)
    check_clock(info, expected)
    kept_bytes = data.draw(st.sampled_from((1 << 20, 0)), label="kept bytes")
    known = data.draw(st.sampled_from((info, None)), label="known")
    wanted = st.lists(st.integers(0, len(expected.numbers) - 1), min_size=1, max_size=6, unique=True).map(sorted)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ifcar.extract.video_file._MOST_KEPT_BYTES", kept_bytes)
        check_pictures(path, known, data.draw(st.lists(wanted, min_size=2, max_size=3), label="wanted"), expected)
    check_views(info, expected, case, data.draw(st.tuples(st.integers(0, 39), st.integers(1, 30)), label="span"))


def check_clock(info: VideoInfo, expected: Expected) -> None:
    assert info.num_frames == len(expected.numbers)
    shown = info.clock.seconds_of(np.arange(info.num_frames))
    np.testing.assert_allclose(shown, [float(second) for second in expected.seconds], atol=ROUNDED_SEC)
    mean = (info.num_frames - 1) / float(expected.seconds[-1] - expected.seconds[0])
    assert info.fps == pytest.approx(mean, rel=0.01)
    for number, second in enumerate(expected.seconds):
        following = [*expected.seconds, expected.end_sec][number + 1]
        for moment in (second, (second + following) / 2):
            assert info.clock.frame_at(float(moment)) == number, f"at {float(moment):.4f} s"
    assert info.clock.frame_at(float(expected.seconds[0]) - 0.01) == -1
    assert info.clock.frame_at(float(expected.end_sec) + 0.01) == info.num_frames


def check_pictures(path: Path, known: VideoInfo | None, calls: list[list[int]], expected: Expected) -> None:
    """Whatever is asked for together, and before: each frame is its picture, or says that it cannot be decoded."""
    with open_source(path, known) as source:
        for wanted in calls:
            seen: Iterator[int] = iter(wanted)
            try:
                for number, picture in source.pictures(wanted):
                    assert number == next(seen)
                    assert number_of(picture) == expected.numbers[number], f"frame {number} of {wanted}"
                    assert number not in expected.lost
                assert next(seen, None) is None
            except DecodeError as error:
                failed = next(seen)
                assert f"frame {failed} cannot be decoded" in str(error)
                assert failed in expected.lost | expected.leaning


def check_views(info: VideoInfo, expected: Expected, case: Case, span: tuple[int, int]) -> None:
    start = expected.seconds[min(span[0], len(expected.seconds) - 1)]
    stop = start + span[1] * Fraction(1, 8)
    if any(0 < abs(shown - moment) < 2 * ROUNDED_SEC for shown in expected.seconds for moment in (start, stop)):
        return
    frames = np.arange(2000)
    boxes = np.stack([frames, frames * 0, frames + 10, frames * 0 + 10], -1)[:, None].astype(np.float32)
    tracks = Tracks(frames=frames, boxes=boxes, categories=np.array([2], np.uint8))
    wide = VideoInfo(clock=info.clock, width=4000, height=48)
    policy = ViewPolicy(frames=4)
    for on_clock in (True, False):
        clip = Clip(
            clip_id="7",
            source=None,
            frame_size=None,
            span_sec=(float(max(start, Fraction(0))), float(stop)),
            frames_on_clock=on_clock,
        )
        view = plan_view(policy, clip, tracks, wide, 8.0, view_number=0)
        first, last = expected.span(start, stop)
        wanted = [first + (2 * k + 1) * (last - first) // 8 for k in range(4)]
        assert view.frame_indices.tolist() == wanted
        origin = 0 if on_clock else expected.seconds[0]
        moments = [float((expected.seconds[number] - origin) * 8) for number in wanted]
        seen = (view.boxes[:, 0, 0] * 4000 - 5).tolist()
        for moment, annotated in zip(moments, seen, strict=True):
            if moment < len(frames) - 1:
                assert abs(moment - annotated) <= 0.5 + 8 * ROUNDED_SEC
