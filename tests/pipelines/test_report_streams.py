"""The report's part on streams: its measures against literal loops, and what it shows of runs from a join."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from fixtures.streams import MOMENTS, write_stream

from ifcar.cache.joined import JoinedReader
from ifcar.cache.joining import join_caches
from ifcar.cache.segments import Stream
from ifcar.pipelines.fit import fit
from ifcar.pipelines.progress import Silent
from ifcar.pipelines.report.config import ReportConfig
from ifcar.pipelines.report.context_figures import plane
from ifcar.pipelines.report.contexts import NUM_NEIGHBOURS, purity, retrieval, unit_length
from ifcar.pipelines.report.report import report
from ifcar.pipelines.report.views import stream_views
from ifcar.pipelines.runs.resolve import make_run_config
from ifcar.pipelines.runs.schedule import ScheduleConfig


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    dot = sum(float(a) * float(b) for a, b in zip(one, other, strict=True))
    return dot / math.sqrt(sum(float(a) ** 2 for a in one) * sum(float(b) ** 2 for b in other))


@pytest.mark.parametrize("seed", range(5))
def test_retrieval_and_purity_equal_literal_loops(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = 30
    one = rng.normal(size=(n, 6))
    other = one + rng.normal(size=(n, 6)) * (0.3 + seed)
    targets, units = rng.integers(0, 3, n), np.arange(n) // 4
    hits = 0
    for i in range(n):
        scores = [cosine(one[i], other[j]) for j in range(n)]
        hits += all(scores[i] > scores[j] for j in range(n) if j != i)
    assert retrieval(unit_length(one), unit_length(other)) == pytest.approx(hits / n)

    shares, chances = [], []
    for i in range(n):
        others = [j for j in range(n) if units[j] != units[i]]
        nearest = sorted(others, key=lambda j: -cosine(one[i], one[j]))[:NUM_NEIGHBOURS]
        shares.append(sum(targets[j] == targets[i] for j in nearest) / len(nearest))
        chances.append(sum(targets[j] == targets[i] for j in others) / len(others))
    assert purity(unit_length(one), targets, units) == pytest.approx((sum(shares) / n, sum(chances) / n))


def test_streams_that_say_nothing_retrieve_nothing_and_one_recording_has_no_purity() -> None:
    alike = unit_length(np.ones((5, 3)))
    assert retrieval(alike, alike) == 0.0
    assert all(math.isnan(value) for value in purity(alike, np.zeros(5, np.int64), np.zeros(5, np.int64)))
    assert np.array_equal(unit_length(np.zeros((2, 3))), np.zeros((2, 3)))


def test_the_plane_is_the_same_each_time_and_keeps_each_stream_apart() -> None:
    rng = np.random.default_rng(0)
    vectors = {"ego": unit_length(rng.normal(size=(9, 4))), "audio": unit_length(rng.normal(size=(9, 4)))}
    once, again = plane(vectors), plane(vectors)
    assert {name: own.shape for name, own in once.items()} == {"ego": (9, 2), "audio": (9, 2)}
    assert all(np.array_equal(once[name], again[name]) for name in vectors)


def test_the_clips_of_a_join_are_those_of_a_streams_first_camera(tmp_path: Path) -> None:
    write_stream(tmp_path / "video.zarr", {"left": range(2, MOMENTS), "right": range(20)})
    write_stream(tmp_path / "sound.zarr", {"": range(MOMENTS)}, channels=5, seed=1)
    streams = {
        "audio": Stream(cache=tmp_path / "sound.zarr"),
        "third": Stream(cache=tmp_path / "video.zarr", cameras=("left", "right")),
    }
    join = JoinedReader(join_caches(streams, tmp_path / "all.join.json").path)
    views = stream_views(join, "third", ["moment 7", "moment 0", "nowhere"], None)
    clips = {own: views.reader.clip_ids[row] for own, row in views.rows.items()}
    assert clips == {"moment 7": "left 7", "moment 0": "right 0"} and views.stream == "third"
    assert views.sources == {} and "made" in views.without_pixels
    assert views.num_instances(["moment 7", "nowhere"]).tolist() == [0, -1]


def numbers(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / "figures" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_runs_from_a_join_show_contexts_and_the_cells_that_say_what_happens(tmp_path: Path) -> None:
    write_stream(tmp_path / "video.zarr", {"ego": range(MOMENTS), "left": range(20), "right": range(2, MOMENTS)})
    write_stream(tmp_path / "sound.zarr", {"": range(MOMENTS)}, channels=5, seed=1)
    path = join_caches(
        {
            "ego": Stream(cache=tmp_path / "video.zarr", cameras=("ego",)),
            "third": Stream(cache=tmp_path / "video.zarr", cameras=("left", "right")),
            "audio": Stream(cache=tmp_path / "sound.zarr"),
        },
        tmp_path / "all.join.json",
    ).path
    for name, streams, losses in (("all", [], {"align": 0.1}), ("one", ["ego"], {})):
        config = make_run_config(
            "ccau",
            path,
            preset="small",
            settings={"embedding_dim": 16, "num_blocks": 2, "streams": streams},
            aux_weights=losses,
            schedule=ScheduleConfig(kind="stretched", epochs=60, refit=False, held_out=0.0),
        )
        fit(config, Silent(), out=tmp_path / name)
    out = tmp_path / "report"
    report([tmp_path / "all", tmp_path / "one"], options=ReportConfig(out=out, num_clips=2))
    assert f"all.join.json, fingerprint {JoinedReader(path).fingerprint[:12]}" in (out / "index.html").read_text()
    other = join_caches({"ego": Stream(cache=tmp_path / "video.zarr", cameras=("ego",))}, tmp_path / "o.join.json").path
    report([tmp_path / "one"], options=ReportConfig(out=tmp_path / "other", num_clips=0, cache=other))
    page = (tmp_path / "other" / "index.html").read_text()
    assert f"not at hand, fingerprint {JoinedReader(path).fingerprint[:12]}" in page

    shown = numbers(out, "contexts")
    together, alone = {row["system"] for row in shown if row["stream"] == "audio"}, {row["system"] for row in shown}
    assert len(together) == 1 and len(alone) == 2 and len(shown) == 6 * (3 + 1)
    agreement = numbers(out, "streams-agreement")
    assert sum(row["measure"] == "R@1" for row in agreement) == 6
    assert {row["streams"] for row in agreement if row["measure"] == "kNN purity"} == {"ego", "third", "audio"}
    tasks = numbers(out, "streams-tasks")
    assert list(tasks[0]) == ["system", "stream", "activity, top-1", "atomic, mAP"] and len(tasks) == 4

    looked = numbers(out, "cameras-1")
    assert {row["camera"] for row in looked} >= {"ego", "third, right", "audio"}
    for clip, camera, frame in {(r["clip"], r["camera"], r["frame"]) for r in looked}:
        own = [r for r in looked if (r["clip"], r["camera"], r["frame"]) == (clip, camera, frame)]
        assert np.mean([float(r["weight"]) for r in own]) == pytest.approx(1.0, abs=1e-5)
    own = [r for r in looked if r["camera"] == "ego"]
    told = [float(r["weight"]) for r in own if (r["row"], r["column"]) == ("1", "0")]
    assert np.mean(told) > 1.3  # the only cell that differs between activities
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "Retrieval R@1 between streams" in page and "chance" in page
    assert "Frames are those of the stream ego, by its first camera." in page and "all.join.json" in page
