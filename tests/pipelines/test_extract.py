"""Extraction end to end on small files: resume, failures, fingerprints, plain reading."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from fixtures.something_else import box_at, write_dataset
from fixtures.videos import write_video
from fixtures.weights import random_weights

from ifcar.cache import schema
from ifcar.cache.arrays import CacheSpec
from ifcar.cache.open import open_cache
from ifcar.cli import main
from ifcar.errors import CacheMismatchError, InputError
from ifcar.pipelines.extract import extract
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.extraction.versions import FEATURE_VERSION
from ifcar.pipelines.progress import Silent

ROOT = Path(__file__).parents[2]


def config(root: Path, out: Path, **changes: object) -> ExtractConfig:
    values: dict[str, object] = {
        "dataset": "something-else",
        "data_root": root,
        "out": out,
        "backbone": "mobilenet_v2",
        "weights": random_weights(out, "mobilenet_v2"),
        "crop": 32,
        "workers": 0,
        "batch_size": 4,
        **changes,
    }
    return ExtractConfig(**values)  # type: ignore[arg-type]


def boxes_only(root: Path, out: Path, **changes: object) -> ExtractConfig:
    return config(root, out, backbone="none", weights=None, **changes)


def files_below(cache: Path) -> dict[str, bytes]:
    return {str(p.relative_to(cache)): p.read_bytes() for p in sorted(cache.rglob("*")) if p.is_file()}


@pytest.mark.slow
def test_bytes_do_not_depend_on_decode_workers(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "d")
    extract(config(root, tmp_path / "a.zarr", workers=0, views=2), Silent())
    extract(config(root, tmp_path / "b.zarr", workers=2, views=2), Silent())
    assert files_below(tmp_path / "a.zarr") == files_below(tmp_path / "b.zarr")


@pytest.mark.slow
def test_features_belong_to_their_boxes(tmp_path: Path) -> None:
    """Stored boxes are the drawn ones, and an object's feature differs from the empty slots' zeros."""
    root = write_dataset(tmp_path / "d")
    extract(config(root, tmp_path / "a.zarr"), Silent())
    reader = open_cache(tmp_path / "a.zarr")
    row = reader.clip_ids.index("103")
    frames, boxes = reader.table("frame_indices")[row], reader.table("boxes")[row]
    for t, frame in enumerate(frames):
        x1, y1, x2, y2 = box_at(3, int(frame))
        expected = np.array([(x1 + x2) / 128, (y1 + y2) / 96, (x2 - x1) / 64, (y2 - y1) / 48])
        np.testing.assert_allclose(boxes[t, 1], expected, atol=1e-6)
    features = reader.read_rows("instance_features", np.array([row]))[0]
    assert features.shape == (8, 4, 1280, 3, 3) and features[:, :2].any() and not features[:, 2:].any()


@pytest.mark.slow
def test_where_every_clip_fails_nothing_is_proposed_and_nothing_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_dataset(tmp_path / "d", num_clips=2)
    for frame in (root / "frames").rglob("*.jpg"):
        frame.write_bytes(b"")
    out = tmp_path / "a.zarr"

    def said_by(code: int, *words: object) -> str:
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        printed = capsys.readouterr()
        assert ended.value.code == code, printed.err
        return printed.out + printed.err

    data = ("--dataset", "something-else", "--data-root", root, "--backbone", "mobilenet_v2", "--weights", "random:0")
    said = said_by(1, "extract", *data, "--crop", 32, "--workers", 0, "--out", out)
    assert "2 rows failed" in said and "Next: " not in said
    shown = ("cache", "show", out, "--data-root", root, "--out", tmp_path / "pictures")
    assert "no clip is extracted, so there is nothing to draw" in said_by(2, *shown)
    assert "clip '100' is not extracted" in said_by(2, *shown, "--clip", "100")
    assert not (tmp_path / "pictures").exists()


@pytest.mark.slow
def test_bad_video_fails_alone_and_can_be_retried(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "d")
    frame = root / "frames" / "102" / "0005.jpg"
    good = frame.read_bytes()
    frame.write_bytes(b"")
    result = extract(config(root, tmp_path / "a.zarr"), Silent())
    assert result.num_failed == 1 and result.failures_file is not None
    assert "0005.jpg" in result.failures_file.read_text()
    reader = open_cache(tmp_path / "a.zarr")
    assert [f.clip_id for f in reader.failures()] == ["102"]
    assert (reader.status() == schema.Status.DONE).sum() == 7
    frame.write_bytes(good)
    again = extract(config(root, tmp_path / "a.zarr"), Silent())
    assert again.num_computed == 0 and again.num_failed == 1
    retried = extract(config(root, tmp_path / "a.zarr", retry_failed=True), Silent())
    assert retried.num_computed == 1 and retried.num_failed == 0 and not result.failures_file.exists()
    extract(config(root, tmp_path / "b.zarr"), Silent())
    for name in ("instance_features", "boxes"):
        a, b = (open_cache(tmp_path / f"{k}.zarr").read_rows(name, np.arange(8)) for k in "ab")
        np.testing.assert_allclose(a.astype(np.float32), b.astype(np.float32), rtol=2e-2, atol=2e-3)


def test_boxes_of_a_file_that_lie_past_the_end_of_their_source_are_said(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "d")
    content = json.loads((root / "annotations.json").read_text())
    for clip_id, frames in content.items():
        for number, frame in enumerate(frames):
            frame["name"] = f"{clip_id}/{number + 101:04d}.jpg"
    (tmp_path / "late.json").write_text(json.dumps(content))
    result = extract(config(root, tmp_path / "a.zarr", boxes=tmp_path / "late.json", limit=2), Silent())
    line = r"2 clips reach past the end .*100: \d+ annotated frames up to number 1\d\d"
    assert [note for note in result.notes if re.search(line, note)]


@pytest.mark.slow
def test_sources_that_end_before_their_annotations_are_said_again_on_resume_and_retry(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "d")
    for clip_id in ("103", "105"):
        for number in range(8, 13):
            (root / "frames" / clip_id / f"{number:04d}.jpg").unlink()
    video = root / "videos" / "101.webm"
    shutil.rmtree(root / "frames" / "101")
    write_video(video, 5, fps=12, size=(64, 48), codec="libvpx-vp9")
    frame = root / "frames" / "102" / "0006.jpg"
    good = frame.read_bytes()
    frame.write_bytes(b"")
    line = (
        "3 clips reach past the end of their source, which ends them there, the first: 101: 11 annotated frames up to "
        "number 11 at 12 a second, of a source of 5 frames at 12 a second"
    )
    results = [extract(config(root, tmp_path / "a.zarr", views=2), Silent()) for _ in range(2)]
    frame.write_bytes(good)
    results.append(extract(config(root, tmp_path / "a.zarr", views=2, retry_failed=True), Silent()))
    assert [result.num_computed for result in results] == [16, 0, 2]
    assert all(result.notes[0] == line for result in results)
    status = open_cache(tmp_path / "a.zarr").status()
    assert (status == schema.Status.DONE).all()


def test_options_that_are_not_used_are_not_in_the_identity(tmp_path: Path) -> None:
    """Caches made before an option was there keep their fingerprint."""
    root = write_dataset(tmp_path / "d", pixels=False)
    extract(boxes_only(root, tmp_path / "a.zarr"), Silent())
    reader = open_cache(tmp_path / "a.zarr")
    first_options = {"num_frames": 8, "num_views": 1, "num_instances": 4, "framing": "stretch"}
    only_augmented = dict.fromkeys(("seed", "min_scale", "flip", "training_clips"))
    annotations = hashlib.sha256((root / "annotations.json").read_bytes()).hexdigest()
    identity = {
        "feature_version": FEATURE_VERSION,
        "dataset": {"name": "something-else", "annotations": annotations},
        "views": first_options | only_augmented,
        "backbone": {"name": "none", "weights": "none"},
    }
    assert reader.identity == identity
    assert reader.fingerprint == schema.fingerprint(reader.spec, identity, reader.clip_ids, 1)
    spec = CacheSpec.standard(num_frames=8, num_steps=8, num_instances=4)
    assert reader.spec == spec
    for changes in ({"sampling": "annotated"}, {"sampling_fps": 6.0}, {"sampling_rates": (2.0,)}):
        with pytest.raises(CacheMismatchError, match="sampling"):
            extract(boxes_only(root, tmp_path / "a.zarr", **changes), Silent())


def test_other_options_are_refused_by_name(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "d", pixels=False)
    extract(boxes_only(root, tmp_path / "a.zarr"), Silent())
    with pytest.raises(CacheMismatchError, match="num_instances"):
        extract(boxes_only(root, tmp_path / "a.zarr", instances=3), Silent())
    extract(boxes_only(root, tmp_path / "a.zarr", instances=3, overwrite=True), Silent())
    assert open_cache(tmp_path / "a.zarr").spec.num_instances == 3


def test_overwrite_never_removes_what_is_no_cache(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "d", pixels=False)
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match="not a cache"):
        extract(boxes_only(root, tmp_path / "precious", overwrite=True), Silent())
    assert (tmp_path / "precious" / "thesis.tex").read_text() == "x"


@pytest.mark.slow
def test_a_pooled_grid_is_the_mean_of_equal_parts_of_the_map_and_another_cache(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "d", num_clips=2)
    readers = []
    for pool in (1, 2):
        out = tmp_path / f"{pool}.zarr"
        extract(config(root, out, crop=64, grid=True, grid_pool=pool), Silent())
        readers.append(open_cache(out))
    whole, pooled = (r.read_rows("grid_features", np.arange(2)).astype(np.float32) for r in readers)
    assert pooled.shape == (*whole.shape[:3], whole.shape[3] // 2, whole.shape[4] // 2) and pooled.std() > 0
    parts = whole.reshape(*whole.shape[:3], pooled.shape[3], 2, pooled.shape[4], 2)
    np.testing.assert_allclose(pooled, parts.mean((4, 6)), rtol=2e-3, atol=1e-3)
    assert readers[0].fingerprint != readers[1].fingerprint
    assert "grid_pool" not in readers[0].identity["backbone"] and readers[1].identity["backbone"]["grid_pool"] == 2
    with pytest.raises(InputError, match=r"--grid-pool 3: does not divide the 2 × 2 cells of the map"):
        extract(config(root, tmp_path / "3.zarr", crop=64, grid=True, grid_pool=3), Silent())


@pytest.mark.slow
def test_readme_snippet_reads_a_cache_without_ifcar(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "d")
    (tmp_path / "caches").mkdir()
    extract(config(root, tmp_path / "caches" / "toybox-i3d_inception.zarr"), Silent())
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    snippet = text.split("```python\n")[1].split("```")[0]
    assert "ifcar" not in snippet.replace("# ifcar", "")
    values: dict[str, object] = {}
    before = Path.cwd()
    os.chdir(tmp_path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            exec(snippet, values)
    finally:
        os.chdir(before)
    assert list(values["ids"])[:2] == ["100", "101"]  # type: ignore[call-overload]
    assert values["done"].all() and values["features"].shape == (8, 4, 1280, 3, 3)  # type: ignore[attr-defined]
    assert values["targets"].tolist() == [0, 1] * 4  # type: ignore[attr-defined]
    assert len(values["inputs"]) == (values["split"] == 1).sum() > 0  # type: ignore[arg-type, attr-defined]
