"""Generated annotations, splits and configs, and hostile names: never a traceback, a hang, or a wrong number."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from fixtures.processes import call, run
from fixtures.something_else import write_dataset
from fixtures.weights import random_weights
from hypothesis import given, settings
from hypothesis import strategies as st

from ifcar.cache.open import open_cache
from ifcar.errors import IfcarError
from ifcar.extract.datasets.something_else import SomethingElse
from ifcar.pipelines.configs import from_plain, parse_assignment, read_yaml
from ifcar.pipelines.grid.config import GridConfig
from ifcar.pipelines.runs.config import RunConfig

REPEATABLE = settings(max_examples=120, derandomize=True, deadline=None)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["1", "0001.jpg", "hand"]),
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)),
    max_leaves=8,
)
CORNERS = st.one_of(st.floats(), st.floats(-5, 70), st.integers(-(10**30), 10**30), SCALARS)
BOXES = st.one_of(
    st.fixed_dictionaries({"x1": CORNERS, "y1": CORNERS, "x2": CORNERS, "y2": CORNERS}),
    st.just({"x1": 1, "y1": 2, "x2": 20, "y2": 30}),
    ANYTHING,
)
LABELS = st.one_of(
    st.fixed_dictionaries(
        {"standard_category": st.sampled_from(["hand", "0000", "0001", "unheard of"]), "box2d": BOXES}
    ),
    ANYTHING,
)
NAMES = st.one_of(st.integers(-1, 30).map(lambda n: f"7/{n:04d}.jpg"), SCALARS)
RECORDS = st.one_of(st.fixed_dictionaries({"name": NAMES, "labels": st.lists(LABELS, max_size=3)}), ANYTHING)
ANNOTATIONS = st.one_of(st.fixed_dictionaries({"7": st.lists(RECORDS, max_size=4)}), ANYTHING)


def assert_one_line(error: IfcarError, *parts: str) -> None:
    text = str(error)
    assert "\n" not in text and "Traceback" not in text and all(part in text for part in parts), text


@REPEATABLE
@given(ANNOTATIONS)
def test_annotations_are_read_as_finite_boxes_or_refused_with_their_file(content: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "annotations.json").write_text(json.dumps(content))
        (root / "videoid2size.json").write_text('{"7": [64, 48]}')
        dataset = SomethingElse(root)
        try:
            listing = dataset.listing(needs_pixels=False)
        except IfcarError as error:
            assert_one_line(error, str(root))
            return
        for clip in listing.clips:
            tracks = dataset.tracks(clip.clip_id)
            assert clip.clip_id == "7" and len(tracks.frames) and (np.diff(tracks.frames) > 0).all()
            assert not np.isinf(tracks.boxes).any()  # NaN = absent


ENTRIES = st.one_of(
    st.fixed_dictionaries(
        {
            "id": st.one_of(st.sampled_from(["1", "2", "3", "9"]), SCALARS),
            "template": st.one_of(st.sampled_from(["Moving [something]", "Turning [something]"]), SCALARS),
            "placeholders": st.one_of(st.lists(st.text(max_size=4), max_size=2), ANYTHING),
        }
    ),
    ANYTHING,
)
CLASSES = st.one_of(
    st.just({"Moving something": 0, "Turning something": 1}), st.just({"Moving something": "0"}), ANYTHING
)


@pytest.mark.slow
@REPEATABLE
@given(CLASSES, st.one_of(st.lists(ENTRIES, max_size=4), ANYTHING), st.one_of(st.lists(ENTRIES, max_size=4), ANYTHING))
def test_splits_are_read_without_leakage_or_refused_with_their_file(classes: Any, train: Any, test: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "splits" / "p"
        place.mkdir(parents=True)
        for name, content in (("labels", classes), ("train", train), ("validation", test)):
            (place / f"{name}.json").write_text(json.dumps(content))
        try:
            tables, _ = SomethingElse(Path(folder)).protocols(["1", "2", "3"])
        except IfcarError as error:
            assert_one_line(error, folder)
            return
        for table in tables:
            listed = [{e["id"] for e in part} for part in (train, test)]
            assert not listed[0] & listed[1]
            targets = table.labels.targets
            assert ((targets >= 0) == (table.split > 0)).all() and targets.max() < len(table.labels.classes)


@REPEATABLE
@given(ANYTHING, st.sampled_from(["options", "schedule", "seed", "aux_weights", "head", "presett", "cache"]), ANYTHING)
def test_configs_are_read_or_refused_in_one_line(content: Any, key: str, value: Any) -> None:
    plain = {"head": "sfi", "cache": "c.zarr", "protocol": "p", key: value}
    for kind, given_content in ((RunConfig, content), (RunConfig, plain), (GridConfig, content)):
        try:
            config = from_plain(kind, given_content, "file.yaml")
        except IfcarError as error:
            assert_one_line(error, "file.yaml")
        else:
            assert isinstance(config, kind)


@REPEATABLE
@given(st.one_of(st.text(), st.builds("{}={}".format, st.text(max_size=5), st.text(max_size=20))))
def test_assignments_and_yaml_files_are_read_or_refused_in_one_line(text: str) -> None:
    try:
        parse_assignment(text)
    except IfcarError as error:
        assert_one_line(error, "--set")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "grid.yaml"
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        try:
            read_yaml(path)
        except IfcarError as error:
            assert_one_line(error, str(path))


HOSTILE = (
    "../../escaped",
    "/tmp/escaped",
    "a/../../escaped",
    "..",
    "nul\x00byte",
    "n" * 5000,
    "\x1b[31mred",
    "line\nbreak",
)


@pytest.mark.slow
@pytest.mark.parametrize("clip_id", HOSTILE)
def test_hostile_clip_id_never_leaves_the_folders(tmp_path: Path, clip_id: str) -> None:
    """It is refused, or named in pictures and reports without becoming a path."""
    place = tmp_path / "deep" / "place"
    root = write_dataset(place / "data", num_clips=4, pixels=False)
    content = json.loads((root / "annotations.json").read_text())
    content[clip_id] = [{**r, "name": f"{clip_id}/{r['name'].split('/')[1]}"} for r in content["100"]]
    (root / "annotations.json").write_text(json.dumps(content))
    (root / "videoid2size.json").write_text(json.dumps({key: [64, 48] for key in content}))
    before = set(tmp_path.rglob("*"))
    out = place / "caches" / "c.zarr"
    extract = ["extract", "--dataset", "something-else", "--data-root", root, "--out", out, "--backbone", "none"]
    code, _, error = call([*extract, "--workers", "0"], place)
    assert code in (0, 2) and "Traceback" not in error and "\x1b" not in error, error
    if code == 2:
        assert len(error.splitlines()[-1]) < 2100
    else:
        shown, _, error = call(["cache", "show", out, "--out", place / "pictures"], place)
        assert shown in (0, 2) and "Traceback" not in error, error
    new = set(tmp_path.rglob("*")) - before
    assert all(path.is_relative_to(place / "caches") or path.is_relative_to(place / "pictures") for path in new), new
    assert not Path("/tmp/escaped").exists() and not Path("/tmp/escaped.png").exists()


def test_protocol_folder_of_a_hostile_name_is_refused(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "data", num_clips=4, pixels=False)
    shutil.copytree(root / "splits" / "compositional", root / "splits" / ("p" * 200))
    extract = ["extract", "--dataset", "something-else", "--data-root", root, "--out", tmp_path / "c.zarr"]
    code, _, error = call([*extract, "--backbone", "none", "--workers", "0"], tmp_path)
    assert code == 2 and "is not usable as a folder name" in error and error.count("\n") == 1


def write_video(path: Path, num_frames: int) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=12)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(num_frames):
            pixels = np.full((48, 64, 3), 10 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        container.mux(stream.encode(None))


@pytest.mark.slow
def test_every_bad_video_fails_alone_with_its_reason(tmp_path: Path) -> None:
    """Two good ones, of which one has a single frame, are extracted beside them; exit 1."""
    root = write_dataset(tmp_path / "data", num_clips=7, pixels=False)
    videos = root / "videos"
    videos.mkdir()
    write_video(videos / "100.mp4", 12)
    write_video(videos / "101.mp4", 1)
    (videos / "102.mp4").write_bytes(b"")
    (videos / "103.mp4").write_bytes((videos / "100.mp4").read_bytes()[:700])
    (videos / "104.webm").write_text("no video " * 99)
    (videos / "105.mp4").symlink_to(videos / "gone.mp4")
    (videos / "106.mp4").mkdir()
    out = tmp_path / "c.zarr"
    extract = ["extract", "--dataset", "something-else", "--data-root", root, "--out", out]
    code, error = run([*extract, "--weights", random_weights(tmp_path), "--crop", "32", "--workers", "1"], tmp_path)
    assert code == 1 and "Traceback" not in error, error
    lines = [json.loads(line) for line in (tmp_path / "c.failures.jsonl").read_text().splitlines()]
    reasons = {line["clip"]: line["reason"] for line in lines}
    expected = {
        "102": "0 bytes",
        "103": "damaged or no video",
        "104": "damaged or no video",
        "105": "not there",
        "106": "no frames in this folder",
    }
    assert reasons.keys() == expected.keys()
    assert all(expected[clip] in reasons[clip] and "\n" not in reasons[clip] for clip in expected), reasons
    assert open_cache(out).status().tolist() == [1, 1, 2, 2, 2, 2, 2]
