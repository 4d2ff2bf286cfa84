"""`ifcar predict`: the cache path's numbers from the run's folder alone, and one line for every bad input."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import typer
from fixtures.something_else import CLASSES, HEIGHT, NUM_FRAMES, WIDTH, label, record, write_dataset
from fixtures.weights import random_weights
from PIL import Image
from typer.testing import CliRunner

from ifcar.commands.predict import predict as predict_command
from ifcar.errors import CacheMismatchError, IfcarError, InputError, MissingDataError
from ifcar.pipelines.ensemble import ensemble
from ifcar.pipelines.extract import extract
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.extraction.versions import FEATURE_VERSION
from ifcar.pipelines.fit import fit
from ifcar.pipelines.labels.kinds import SingleLabel
from ifcar.pipelines.predict import Prediction, predict
from ifcar.pipelines.progress import Silent
from ifcar.pipelines.runs.finished import Run
from ifcar.pipelines.runs.questions import PredictConfig
from ifcar.pipelines.runs.resolve import make_run_config
from ifcar.pipelines.runs.schedule import ScheduleConfig

softmax = SingleLabel().probabilities
# Rates so high that clips get different logits; see `Trained.stored`.
TINY = ScheduleConfig(kind="stretched", epochs=4, batch_size=4, lr=0.1)
LAYOUT = {"streams": "layout", "schedule": ScheduleConfig(kind="paper", epochs=60, batch_size=4, lr=0.03)}
# The backbone computes the same batches here as in the cache (batch_size = views of a clip), so that features are equal
# to the bit; the head's batch is one clip instead of all test clips, whose sums in float32 run in another order.
HEAD_BATCH = {"rtol": 1e-5, "atol": 1e-5}


@dataclass(frozen=True)
class Trained:
    """Runs by name whose cache is gone, the data that it was made from, and the file of weights that a run needs."""

    root: Path
    runs: dict[str, Run]
    weights: str | None = None

    def predict(self, name: str, clip: str, **options: Any) -> Prediction:
        given = {"device": "cpu", "weights": None if name == "sfi-layout" else self.weights, **options}
        return predict(self.runs[name].path, self.video(clip), Silent(), PredictConfig(boxes=self.boxes, **given))

    def video(self, clip: str) -> Path:
        file = self.root / "videos" / f"{clip}.mp4"
        return file if file.is_file() else self.root / "frames" / clip

    @property
    def boxes(self) -> Path:
        return self.root / "annotations.json"

    def stored(self, name: str) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
        test = self.runs[name].predictions("test")
        assert np.ptp(test.logits, axis=0).min() > 0.1  # clips differ by far more than any tolerance here
        return dict(zip(test.clip_ids.tolist(), test.logits, strict=True))


def train(root: Path, heads: dict[str, dict[str, Any]], **options: Any) -> Trained:
    """Extract, train each head, and delete the cache."""
    values = {"weights": "random:0", "crop": 32, "workers": 0, "device": "cpu", **options}
    cache = root.parent / f"{root.name}.zarr"
    extract(ExtractConfig(dataset="something-else", data_root=root, out=cache, **values), Silent())
    runs = {}
    for name, chosen in heads.items():
        config = make_run_config(
            **{"head": name.split("-")[0], "cache": cache, "preset": "small", "schedule": TINY, **chosen}
        )
        runs[name] = fit(config, Silent(), out=root.parent / f"{root.name}-runs" / name, device="cpu").run
    shutil.rmtree(cache)
    return Trained(root, runs)


BOTH = {"i3d": {}, "sfi": {"streams": "both", "aux_weight": 5.0}}


@pytest.fixture(scope="module")
def one_view(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    root = write_dataset(tmp_path_factory.mktemp("one") / "d")
    weights = random_weights(root)
    return replace(train(root, {**BOTH, "sfi-layout": LAYOUT}, batch_size=1, weights=weights), weights=weights)


@pytest.fixture(scope="module")
def two_views(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    root = write_dataset(tmp_path_factory.mktemp("two") / "d")
    weights = random_weights(root, "i3d_inception")
    options = {
        "weights": weights,
        "backbone": "i3d_inception",
        "pooled": "7-max",
        "framing": "center",
        "instances": 3,
        "flip": True,
    }
    return replace(train(root, BOTH, views=2, augmented_views=1, batch_size=2, seed=3, **options), weights=weights)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """On weights that are drawn from a seed, again for every prediction."""
    root = write_dataset(tmp_path_factory.mktemp("drawn") / "d")
    return train(root, {"i3d": {}}, backbone="i3d_inception", batch_size=4)


@pytest.fixture(scope="module")
def boxes_only(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    root = write_dataset(tmp_path_factory.mktemp("none") / "d")
    heads = {"base": LAYOUT, "sfi": LAYOUT}
    return train(root, heads, backbone="none", weights=None, crop=None, views=2, frames=6)


@pytest.mark.slow
@pytest.mark.parametrize("head", ["i3d", "sfi"])
@pytest.mark.parametrize("views", ["one_view", "two_views"])
def test_prediction_equals_the_stored_logits_without_the_cache(
    head: str, views: str, request: pytest.FixtureRequest
) -> None:
    trained: Trained = request.getfixturevalue(views)
    stored = trained.stored(head)
    assert len(stored) == 4
    for clip in list(stored)[::3]:
        found = trained.predict(head, clip)
        (answer,) = found.answers
        np.testing.assert_allclose(answer.logits, stored[clip][None], **HEAD_BATCH)
        assert found.num_views == (1 if views == "one_view" else 2) and found.clip_id == clip
        assert (found.num_subjects, found.num_objects, found.num_tracks) == (1, 1, 2)
        best = CLASSES[int(stored[clip].argmax())]
        assert answer.top[0].name == best and answer.top[0].probability == softmax(answer.logits[0]).max()


@pytest.mark.slow
def test_extraction_in_other_batches_differs_by_rounding_only(drawn: Trained) -> None:
    """A convolution over 4 clips sums in another order than over 1, which float16 turns into its last bit."""
    for clip, logits in list(drawn.stored("i3d").items())[:2]:
        np.testing.assert_allclose(drawn.predict("i3d", clip).answers[0].logits[0], logits, rtol=1e-3, atol=5e-3)


@pytest.mark.slow
def test_prediction_from_boxes_equals_the_stored_logits(boxes_only: Trained) -> None:
    for name in boxes_only.runs:
        for clip, logits in boxes_only.stored(name).items():
            found = boxes_only.predict(name, clip)
            np.testing.assert_allclose(found.answers[0].logits[0], logits, rtol=1e-6, atol=1e-6)
            assert (found.num_views, found.num_frames) == (2, 6)


@pytest.mark.slow
def test_layout_head_of_a_cache_with_pixels_needs_no_weights(one_view: Trained) -> None:
    for clip, logits in one_view.stored("sfi-layout").items():
        (answer,) = one_view.predict("sfi-layout", clip).answers
        np.testing.assert_allclose(answer.logits[0], logits, rtol=1e-6, atol=1e-6)
    with pytest.raises(InputError, match=r"--weights random:0 would be ignored: .* reads boxes only"):
        one_view.predict("sfi-layout", "102", weights="random:0")


@pytest.mark.slow
def test_video_file_gives_the_same_as_extraction_from_it(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "d")
    (root / "videos").mkdir()
    for frames in sorted((root / "frames").iterdir()):
        write_video(root / "videos" / f"{frames.name}.mp4", frames)
    shutil.rmtree(root / "frames")
    weights = random_weights(root, "i3d_inception")
    given = {"backbone": "i3d_inception", "precision": "bf16", "batch_size": 1, "weights": weights}
    trained = replace(train(root, {"i3d": {}}, **given), weights=weights)
    for clip, logits in list(trained.stored("i3d").items())[:2]:
        np.testing.assert_allclose(trained.predict("i3d", clip).answers[0].logits[0], logits, **HEAD_BATCH)


@pytest.mark.slow
def test_ensemble_predicts_the_weighted_probabilities_wherever_the_runs_lie(one_view: Trained, tmp_path: Path) -> None:
    for name in ("i3d", "sfi"):
        shutil.copytree(one_view.runs[name].path, tmp_path / "runs" / name)
    members = [tmp_path / "runs" / name for name in ("i3d", "sfi")]
    fused = ensemble(members, weights=[1, 3], out=tmp_path / "runs" / "both").run.predictions("test")
    expected = softmax(fused.logits[fused.clip_ids.tolist().index("103")])
    (tmp_path / "runs").rename(tmp_path / "moved")
    given = PredictConfig(boxes=one_view.boxes, device="cpu", weights=one_view.weights)
    found = predict(tmp_path / "moved" / "both", one_view.video("103"), Silent(), given)
    np.testing.assert_allclose(found.answers[0].probabilities, expected, atol=1e-5)
    stored = np.stack([one_view.stored(name)["103"] for name in ("i3d", "sfi")])
    np.testing.assert_allclose(found.answers[0].logits, stored, **HEAD_BATCH)
    np.testing.assert_allclose(
        found.answers[0].probabilities,
        0.25 * softmax(stored[0]) + 0.75 * softmax(stored[1]),
        atol=1e-5,
    )


@pytest.mark.slow
def test_ensemble_of_members_on_other_data_is_refused(one_view: Trained, two_views: Trained, tmp_path: Path) -> None:
    for name in ("i3d", "sfi"):
        shutil.copytree(one_view.runs[name].path, tmp_path / name)
    ensemble([tmp_path / "i3d", tmp_path / "sfi"], out=tmp_path / "both")
    shutil.rmtree(tmp_path / "sfi")
    with pytest.raises(MissingDataError, match="sfi: no such run"):
        predict(tmp_path / "both", one_view.video("103"), Silent(), PredictConfig(boxes=one_view.boxes))
    shutil.copytree(two_views.runs["sfi"].path, tmp_path / "sfi")
    with pytest.raises(InputError, match="sfi: trained on other data than the ensemble"):
        predict(tmp_path / "both", one_view.video("103"), Silent(), PredictConfig(boxes=one_view.boxes))


@pytest.mark.slow
def test_other_weights_than_the_runs_are_refused_by_name(drawn: Trained) -> None:
    with pytest.raises(CacheMismatchError, match=r"weights random:0, but random:1 are random:1; .*--weights"):
        drawn.predict("i3d", "102", weights="random:1")


@pytest.mark.slow
def test_features_of_another_version_are_refused(two_views: Trained, tmp_path: Path) -> None:
    run = shutil.copytree(two_views.runs["i3d"].path, tmp_path / "run")
    given = PredictConfig(boxes=two_views.boxes, weights=two_views.weights)
    content = json.loads((run / "data.json").read_text())
    content["identity"]["feature_version"] = 99
    (run / "data.json").write_text(json.dumps(content))
    with pytest.raises(CacheMismatchError, match=r"\(99, 2, 'Mixed_4f', 832\).*extract and train again"):
        predict(run, two_views.video("102"), Silent(), given)
    content["identity"]["feature_version"] = FEATURE_VERSION
    del content["identity"]["views"]["version"]  # as of a run whose two views lay elsewhere
    (run / "data.json").write_text(json.dumps(content))
    with pytest.raises(
        CacheMismatchError, match=rf"\({FEATURE_VERSION}, 1, 'Mixed_4f', 832\).*extract and train again"
    ):
        predict(run, two_views.video("102"), Silent(), given)
    del content["identity"]["views"]
    (run / "data.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="does not state the features' 'views'"):
        predict(run, two_views.video("102"), Silent(), given)


@pytest.mark.parametrize("form", ["mapping by video name", "mapping of one", "mapping by --clip", "list of records"])
def test_every_form_of_a_boxes_file_gives_the_same(boxes_only: Trained, tmp_path: Path, form: str) -> None:
    whole = json.loads(boxes_only.boxes.read_text())
    video, clip = boxes_only.video("102"), None
    content = {"list of records": whole["102"], "mapping of one": {"102": whole["102"]}}.get(form, whole)
    if form != "mapping by video name":
        video = shutil.copytree(video, tmp_path / "103")
    if form == "mapping by --clip":
        clip = "102"
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps(content))
    found = predict(boxes_only.runs["sfi"].path, video, Silent(), PredictConfig(boxes=boxes, clip=clip))
    assert found.clip_id == "102"
    np.testing.assert_array_equal(found.answers[0].logits, boxes_only.predict("sfi", "102").answers[0].logits)


def test_boxes_of_another_video_are_said(boxes_only: Trained, tmp_path: Path) -> None:
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps({"103": json.loads(boxes_only.boxes.read_text())["103"]}))
    found = predict(boxes_only.runs["sfi"].path, boxes_only.video("102"), Silent(), PredictConfig(boxes=boxes))
    (note,) = found.notes
    assert "boxes.json has no boxes of '102'; those of '103', the only one in it, are taken" in note


@pytest.mark.slow
def test_boxes_that_no_part_of_a_run_uses_are_refused(one_view: Trained, tmp_path: Path) -> None:
    """Records say which part of the video is meant; boxes of its own frames say nothing to a head that reads none."""
    found = predict(
        one_view.runs["i3d"].path,
        one_view.video("102"),
        Silent(),
        PredictConfig(boxes=one_view.boxes, weights=one_view.weights),
    )
    assert "reads no boxes: those of" in found.notes[0] and "say only which frames it sees" in found.notes[0]
    (tmp_path / "boxes.csv").write_text("frame,label,x1,y1,x2,y2\n1,hand,1,1,9,9\n")
    options = PredictConfig(boxes=tmp_path / "boxes.csv", weights=one_view.weights)
    with pytest.raises(InputError, match=r"--boxes .*boxes.csv would be ignored: .*i3d reads no boxes"):
        predict(one_view.runs["i3d"].path, one_view.video("102"), Silent(), options)


def test_boxes_in_shares_are_said(boxes_only: Trained, tmp_path: Path) -> None:
    records = [record("v", frame, [label("hand", (0.1, 0.2, 0.7, 1.02))]) for frame in range(NUM_FRAMES)]
    (tmp_path / "boxes.json").write_text(json.dumps(records))
    found = predict(
        boxes_only.runs["sfi"].path,
        boxes_only.video("102"),
        Silent(),
        PredictConfig(boxes=tmp_path / "boxes.json", clip="v"),
    )
    assert len(found.notes) == 1 and "if they are shares of the picture's sides" in found.notes[0]
    assert boxes_only.predict("sfi", "102").notes == []


def test_boxes_in_frames_that_no_view_samples_are_said_not_refused(boxes_only: Trained, tmp_path: Path) -> None:
    """Of frames 1 to 100 two views of 6 see 1, 9, 17, 26, …, never the fourth, which alone has a box."""
    hand = record("7", 3, [label("hand", (2, 30, 14, 44))])
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps([record("7", 0, []), hand, record("7", 99, [])]))
    run, video = boxes_only.runs["sfi"].path, boxes_only.video("102")
    found = predict(run, video, Silent(), PredictConfig(boxes=boxes))
    assert (found.num_subjects, found.num_objects, found.num_tracks) == (0, 0, 1)
    assert "note: no sampled frame has a box" in command(run, video, "--boxes", boxes).stdout


def records_with(*boxes: tuple[float, float, float, float], first: int = 0) -> list[dict[str, Any]]:
    return [record("102", first + k, [label("hand", box)]) for k, box in enumerate(boxes)]


# name: (boxes file's content or None, options, kind of error, message)
BAD: dict[str, tuple[Any, dict[str, Any], type[IfcarError], str]] = {
    "no boxes file": (None, {}, MissingDataError, "boxes.json: no such file; expected boxes in Something-Else's"),
    "not JSON": ("{", {}, InputError, "boxes.json: not valid JSON before byte 1 "),
    "no object": (7, {}, InputError, "boxes.json: boxes in no known form; expected one of COCO JSON, .*Something-Else"),
    "no clip": ({}, {}, InputError, "holds no clip"),
    "no record": ([], {}, InputError, "found an empty list"),
    "no name": ([{"labels": []}], {}, InputError, "found the name None"),
    "no record of the clip": ({"102": []}, {}, InputError, "clip '102': none of its 0 records has a box"),
    "no box": ([record("102", 0, [])], {}, InputError, "clip '102': none of its 1 records has a box"),
    "labels no list": ([{"name": "102/0001.jpg", "labels": 5}], {}, InputError, "labels are a int; expected a list"),
    "label no object": ([{"name": "102/0001.jpg", "labels": [5]}], {}, InputError, "a label lacks standard_category"),
    "two clips": (
        {"1023": [], "9": []},
        {},
        InputError,
        "2 clips and none is called '102', did you mean '1023'.*--clip",
    ),
    "other clip": ({"102": []}, {"clip": "103"}, InputError, "no clip '103', did you mean '102'"),
    "far clip": ({"102": []}, {"clip": "x"}, InputError, "no clip 'x'; it holds 1, the first is '102'"),
    "boxes outside": (records_with((70, 0, 90, 20)), {}, InputError, r"no box lies in the 64 × 48 .*\(70, 0, 90, 20\)"),
    "inverted boxes": (records_with((30, 0, 10, 20)), {}, InputError, "has a box; 1 box without area"),
    "later boxes": (records_with((0, 0, 9, 9), first=50), {}, InputError, "number 51 of .*, which has 12"),
    "top 0": (records_with((0, 0, 9, 9)), {"top": 0}, InputError, "--top is 0; expected 1 to 2"),
    "top 3": (records_with((0, 0, 9, 9)), {"top": 3}, InputError, "--top is 3; expected 1 to 2"),
    "weights": (records_with((0, 0, 9, 9)), {"weights": "x.pt"}, InputError, "--weights x.pt would be ignored"),
    "no video": (records_with((0, 0, 9, 9)), {"video": "gone.webm"}, InputError, "gone.webm: not there"),
    "no picture": (records_with((0, 0, 9, 9)), {"video": "boxes.json"}, InputError, "boxes.json: damaged or no video"),
    "empty folder": (records_with((0, 0, 9, 9)), {"video": "empty"}, InputError, "no frames in this folder"),
    "no run": (records_with((0, 0, 9, 9)), {"run": "gone"}, MissingDataError, "gone: no such run"),
    "unfinished run": (records_with((0, 0, 9, 9)), {"run": "empty"}, MissingDataError, "empty: not a finished run"),
}


def test_boxes_whose_corners_are_in_another_order_are_one_clear_line(boxes_only: Trained, tmp_path: Path) -> None:
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("video,frame,x1,y1,x2,y2,label\n102,1,30,20,10,5,hand\n102,2,31,20,11,5,hand\n")
    with pytest.raises(InputError, match="clip '102': no box has an area; expected x1, y1, x2, y2 in the video's pix"):
        predict(boxes_only.runs["sfi"].path, boxes_only.video("102"), Silent(), PredictConfig(boxes=boxes))


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_clear_line(boxes_only: Trained, tmp_path: Path, name: str) -> None:
    content, options, kind, message = BAD[name]
    boxes = tmp_path / "boxes.json"
    if content is not None:
        boxes.write_text(content if isinstance(content, str) else json.dumps(content))
    (tmp_path / "empty").mkdir()
    run = tmp_path / options["run"] if "run" in options else boxes_only.runs["sfi"].path
    video = tmp_path / options["video"] if "video" in options else boxes_only.video("102")
    rest = {k: v for k, v in options.items() if k not in ("run", "video")}
    with pytest.raises(kind, match=message) as caught:
        predict(run, video, Silent(), PredictConfig(boxes=boxes, **rest))
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_damaged_frame_of_the_video_is_named(two_views: Trained, tmp_path: Path) -> None:
    video = shutil.copytree(two_views.video("102"), tmp_path / "102")
    for frame in video.glob("*.jpg"):
        if frame.name != "0001.jpg":
            frame.write_bytes(b"")
    with pytest.raises(InputError, match=r"\d\.jpg: damaged or no image"):
        predict(
            two_views.runs["i3d"].path, video, Silent(), PredictConfig(boxes=two_views.boxes, weights=two_views.weights)
        )


def command(*arguments: object) -> Any:
    app = typer.Typer()
    app.command()(predict_command)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_command_prints_the_top_classes(boxes_only: Trained) -> None:
    run, video = boxes_only.runs["sfi"].path, boxes_only.video("103")
    table = command(run, video, "--boxes", boxes_only.boxes)
    assert table.exit_code == 0 and all(name in table.stdout for name in CLASSES)
    assert "2 of 2 tracks (subjects 1, objects 1), 2 views, averaged, of 6 frames" in table.stdout
    printed = command(run, video, "--boxes", boxes_only.boxes, "--top", 1, "--json")
    content = json.loads(printed.stdout)
    expected = boxes_only.predict("sfi", "103", top=1)
    assert content["top"] == [
        {"name": expected.answers[0].top[0].name, "probability": expected.answers[0].top[0].probability}
    ]
    np.testing.assert_allclose(content["probabilities"], expected.answers[0].probabilities)
    assert isinstance(command(run, video, "--boxes", boxes_only.boxes, "--top", 9).exception, InputError)
    with pytest.raises(InputError, match="sfi: reads boxes, and none are given; give --boxes FILE, or let them be"):
        predict(run, video, Silent(), PredictConfig())


@pytest.mark.slow
def test_real_clip_with_kinetics_weights_equals_the_cache_path(tmp_path: Path) -> None:
    folder = os.environ.get("IFCAR_SHARED")
    if not folder:
        pytest.skip("IFCAR_SHARED is not set: the real clips and weights lie there")
    shared = Path(folder)
    weights = str(shared / "weights" / "i3d_inception_rgb_kinetics400.safetensors")
    root = tmp_path / "real"
    splits = root / "splits" / "compositional"
    splits.mkdir(parents=True)
    for name in ("annotations.json", "frames"):
        (root / name).symlink_to(shared / "data" / "something-else" / name)
    (splits / "labels.json").write_text(json.dumps({"a": 0, "b": 1}))
    for part, ids in (("train", ("2", "2003", "3201", "6981")), ("validation", ("862", "13201"))):
        entries = [{"id": clip, "template": "ab"[k % 2], "placeholders": ["x"]} for k, clip in enumerate(ids)]
        (splits / f"{part}.json").write_text(json.dumps(entries))
    options = {"backbone": "i3d_inception", "weights": weights, "crop": 112, "batch_size": 1}
    trained = train(root, {"sfi": {"streams": "both"}}, **options)
    found = trained.predict("sfi", "862", weights=weights)
    np.testing.assert_allclose(found.answers[0].logits[0], trained.stored("sfi")["862"], **HEAD_BATCH)
    assert found.num_subjects == 1 and found.num_objects == 1
    with pytest.raises(CacheMismatchError, match=r"weights [0-9a-f]{64}, but random:0 are random:0"):
        trained.predict("sfi", "862", weights="random:0")


def write_video(path: Path, frames: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(12))
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(NUM_FRAMES):
            picture = Image.open(frames / f"{number + 1:04d}.jpg")
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode(None))
