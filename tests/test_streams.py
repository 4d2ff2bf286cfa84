"""Several caches joined by the moments that they show: read, trained on together, and asked one by one."""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fixtures.streams import ACTIVITIES, ATOMIC_OF, MOMENTS, write_stream

from ifcar.cache.joined import JoinedReader
from ifcar.cache.joining import Joined, join_caches
from ifcar.cache.open import open_cache
from ifcar.cache.schema import Split
from ifcar.cache.segments import Stream
from ifcar.cache.streams import multi_spaces, space_sizes
from ifcar.cache.verify import verify_cache
from ifcar.errors import CacheMismatchError, IfcarError, InputError, MissingDataError
from ifcar.pipelines.configs import from_plain
from ifcar.pipelines.evaluate import evaluate
from ifcar.pipelines.feed.examples import read_examples
from ifcar.pipelines.fit import fit
from ifcar.pipelines.grid.config import GridConfig
from ifcar.pipelines.grid.plan import plan_grid
from ifcar.pipelines.grid.run import run_grid
from ifcar.pipelines.labels.kinds import label_kind
from ifcar.pipelines.listing import list_caches
from ifcar.pipelines.progress import Silent
from ifcar.pipelines.report.chapter import open_chapters
from ifcar.pipelines.runs.answers import answer_of, answered, members_of, on_stream
from ifcar.pipelines.runs.finished import finished_runs, open_run
from ifcar.pipelines.runs.questions import EvaluateConfig
from ifcar.pipelines.runs.resolve import make_run_config
from ifcar.pipelines.runs.schedule import ScheduleConfig
from ifcar.pipelines.runs.tasks import on_task
from ifcar.pipelines.scoring.scores import Predictions, group_predictions
from ifcar.pipelines.training.machine import MachineConfig


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("caches")
    write_stream(root / "video.zarr", {"ego": range(MOMENTS), "left": range(20), "right": range(2, MOMENTS)})
    write_stream(root / "sound.zarr", {"": range(MOMENTS - 1)}, channels=5, num_steps=8, seed=1)
    return root


def join(caches: Path, name: str = "all.join.json") -> Joined:
    return join_caches(
        {
            "ego": Stream(cache=caches / "video.zarr", cameras=("ego",)),
            "third": Stream(cache=caches / "video.zarr", cameras=("left", "right")),
            "audio": Stream(cache=caches / "sound.zarr"),
        },
        caches / name,
    )


def test_a_row_of_a_join_is_one_row_of_each_stream_of_the_same_moment(caches: Path) -> None:
    made = join(caches)
    assert (made.num_segments, dict(made.dropped)) == (MOMENTS - 1, {"ego": 1, "third": 1, "audio": 0})
    reader, video, sound = open_cache(made.path), open_cache(caches / "video.zarr"), open_cache(caches / "sound.zarr")
    assert reader.spec.shape("audio/grid_features") == (8, 5, 2, 2) and reader.num_views == 2
    done = reader.status() == 1
    assert done.sum() == 20 + (MOMENTS - 1 - 2)  # both third-person cameras saw moments 2 to 19, one the others
    for row in np.flatnonzero(done):
        moment = reader.clip_ids[row // 2]
        own = {
            name: reader.read_rows(f"{name}/grid_features", np.array([row]))[0] for name in ("ego", "third", "audio")
        }
        places = [k for k, segment in enumerate(video.clips.segments) if segment == moment]
        found = {video.clips.cameras[k]: video.read_rows("grid_features", np.array([k]))[0] for k in places}
        assert np.array_equal(own["ego"], found.pop("ego"))
        assert sum(np.array_equal(own["third"], other) for other in found.values()) == 1
        place = sound.clips.segments.index(moment)
        assert np.array_equal(own["audio"], sound.read_rows("grid_features", np.array([place]))[0])
    table = reader.protocol("split-1")
    assert [space.name for space in table.spaces] == ["activity", "atomic"]
    assert table.labels.targets.tolist() == [int(segment.split()[1]) % ACTIVITIES for segment in reader.clip_ids]


@pytest.mark.slow
def test_streams_train_together_and_answer_alone_from_their_own_cache(caches: Path, tmp_path: Path) -> None:
    path = join(caches).path
    config = make_run_config(
        "ccau",
        path,
        preset="small",
        settings={"embedding_dim": 16, "num_blocks": 2},
        aux_weights={"align": 0.1},
        schedule=ScheduleConfig(kind="stretched", min_steps=150, refit=False, held_out=0.0),
    )
    run = fit(config, Silent(), out=tmp_path / "run").run
    assert run.config.options["streams"] == ["ego", "third", "audio"]  # type: ignore[union-attr]
    assert "align_loss" in (tmp_path / "run" / "history.jsonl").read_text()
    tasks = json.loads((tmp_path / "run" / "tasks.json").read_text())
    assert list(tasks) == [f"{s}/{space}" for s in ("ego", "third", "audio") for space in ("activity", "atomic")]
    assert tasks["ego/activity"]["top1"] == run.metric("test").top1  # type: ignore[union-attr]
    assert all(own.get("top1", own.get("map")) > 0.8 for own in tasks.values())

    hidden = caches / "elsewhere"
    shutil.move(caches / "sound.zarr", hidden)  # what is not asked for may be gone
    try:
        for stream, space in (("ego", "activity"), ("third", "activity"), ("third", "atomic")):
            found = evaluate(tmp_path / "run", EvaluateConfig(stream=stream, labels=space)).metrics.record()
            told = tasks[f"{stream}/{space}"]
            assert (found["split"], found["n"]) == (told["split"], told["n"])
            for measure in {"top1", "top5", "map", "loss"} & told.keys():
                assert found[measure] == pytest.approx(told[measure], rel=1e-5)
        with pytest.raises(MissingDataError, match=r"stream 'audio': there is no cache at .*sound.zarr"):
            evaluate(tmp_path / "run", EvaluateConfig(stream="audio"))
        with pytest.raises(InputError, match="no stream 'eg', did you mean 'ego'"):
            evaluate(tmp_path / "run", EvaluateConfig(stream="eg"))
        with pytest.raises(MissingDataError, match=r"run: there is no cache at .*j.join.json; name it with --cache"):
            evaluate(tmp_path / "run", EvaluateConfig(stream="ego", cache=tmp_path / "j.join.json"))
    finally:
        shutil.move(hidden, caches / "sound.zarr")


def test_a_shuffled_stream_shows_another_recording_of_the_same_part(caches: Path, tmp_path: Path) -> None:
    whole = {"ego": Stream(cache=caches / "video.zarr", cameras=("ego",))}
    other = {"audio": Stream(cache=caches / "sound.zarr", shuffled=True)}
    plain = open_cache(
        join_caches({**whole, "audio": Stream(cache=caches / "sound.zarr")}, caches / "p.join.json").path
    )
    reader = open_cache(join_caches({**whole, **other}, caches / "s.join.json").path)
    table = reader.protocol("split-1")
    rows = np.arange(reader.num_rows)
    shown, own = (cache.read_rows("audio/grid_features", rows) for cache in (reader, plain))
    for place in rows:
        (source,) = [k for k in rows if np.array_equal(own[k], shown[place])]
        assert table.split[source] == table.split[place] and table.groups[source] != table.groups[place]
    assert np.array_equal(reader.read_rows("ego/grid_features", rows), plain.read_rows("ego/grid_features", rows))
    assert reader.fingerprint != plain.fingerprint
    assert np.array_equal(table.labels.targets, plain.protocol("split-1").labels.targets)
    with pytest.raises(InputError, match="stream 'audio' is shuffled; expected the first as it is"):
        join_caches({**other, **whole}, tmp_path / "j.join.json")
    (tmp_path / "own.join.json").write_text("mine")
    with pytest.raises(InputError, match=r"own\.join\.json: is there and is something else; name another file"):
        join_caches(whole, tmp_path / "own.join.json")
    assert (tmp_path / "own.join.json").read_text() == "mine"
    (tmp_path / "folder.join.json").mkdir()
    with pytest.raises(InputError, match=r"folder\.join\.json: is there and is something else"):
        join_caches(whole, tmp_path / "folder.join.json")


def test_a_moment_that_fewer_cameras_saw_is_no_failure_and_a_join_has_no_rows_to_verify(caches: Path) -> None:
    reader = open_cache(join(caches).path)
    table = reader.protocol("split-1").led_by(None, ("atomic",))
    tested = read_examples(reader, table, Split.TEST)
    assert sorted(set(tested.plain.sum(axis=1))) == [1, 2] and tested.note == ""
    assert tested.labels_in("atomic").targets.tolist() == [ATOMIC_OF[k].tolist() for k in tested.targets]
    with pytest.raises(InputError, match="has no rows of its own; give the caches that it joins"):
        verify_cache(reader.path)


def test_what_cannot_be_joined_is_one_line(caches: Path, tmp_path: Path) -> None:
    video = Stream(cache=caches / "video.zarr")
    with pytest.raises(InputError, match="no clip is of the camera 'top'; cameras there: ego, left, right"):
        join_caches({"top": Stream(cache=caches / "video.zarr", cameras=("top",))}, tmp_path / "j.join.json")
    other = np.arange(MOMENTS) % ACTIVITIES
    other[5] = 0
    write_stream(tmp_path / "other.zarr", {"": range(MOMENTS)}, labels=other)
    with pytest.raises(
        InputError,
        match=r"'other' \(.*other.zarr\) differ in the labels 'activity' of segment 'moment 5'",
    ):
        join_caches({"video": video, "other": Stream(cache=tmp_path / "other.zarr")}, tmp_path / "j.join.json")
    assert not (tmp_path / "j.join.json").exists()


def test_a_cache_that_is_another_than_was_joined_is_refused_and_a_broken_join_is_one_line(tmp_path: Path) -> None:
    write_stream(tmp_path / "a.zarr", {"": range(MOMENTS)})
    path = join_caches({"a": Stream(cache=tmp_path / "a.zarr")}, tmp_path / "j.join.json").path
    shutil.rmtree(tmp_path / "a.zarr")
    write_stream(tmp_path / "a.zarr", {"": range(MOMENTS - 1)})
    with pytest.raises(CacheMismatchError, match=r"stream 'a': .*a.zarr is another cache than is listed; join"):
        open_cache(path)
    path.write_text('{"join_version": 1}')
    with pytest.raises(InputError, match="not a join of caches"):
        JoinedReader(path)


@pytest.mark.slow
def test_a_grid_of_a_join_trains_every_seed_as_a_run_by_itself(caches: Path, tmp_path: Path) -> None:
    path = join(caches).path
    content = {
        "name": "streams",
        "title": "Streams",
        "dataset": "made",
        "protocols": ["split-1"],
        "seeds": [0, 1],
        "preset": "small",
        "schedule": {"kind": "stretched", "epochs": 8, "refit": False},
        "baseline": "all",
        "systems": [
            {"name": "all", "head": "ccau", "aux_weights": {"align": 0.1}, "settings": {"num_blocks": 2}},
            {"name": "ego", "head": "ccau", "settings": {"num_blocks": 2, "streams": ["ego"]}},
        ],
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IFCAR_RUNS", str(tmp_path / "runs"))
        plan = plan_grid(from_plain(GridConfig, content, "grid"), path)
        made = run_grid(plan, Silent(), MachineConfig(processes=1, device="cpu"))
    assert len(made.comparison.rows) == 2 and all(len(row.seeds) == 2 for row in made.comparison.rows)
    config = make_run_config("ccau", path, preset="small", settings={"num_blocks": 2}, aux_weights={"align": 0.1},
                             schedule=ScheduleConfig(kind="stretched", epochs=8, refit=False))  # fmt: skip
    alone = fit(config, Silent(), out=tmp_path / "alone").run.predictions("test").logits
    (found,) = [
        run.predictions("test").logits
        for run in finished_runs(tmp_path / "runs")
        if run.config.aux_weights and run.config.seed == 0  # type: ignore[union-attr]
    ]
    np.testing.assert_allclose(found, alone, rtol=1e-4, atol=1e-5)


def test_a_recordings_windows_are_scored_together_by_their_mean_logits() -> None:
    logits = np.array([[2, 0, 0], [0, 1, 0], [0, 3, 0], [0, 0, 1], [0, 0, 0.5]], np.float32)
    own = Predictions(
        split="test",
        clip_ids=np.array(list("abcde")),
        logits=logits,
        targets=np.array([0, 0, 2, 2, 1]),
        kind=label_kind("single"),
        groups=np.array([7, 7, 3, 3, 5]),
    )
    pooled = group_predictions(own)
    assert pooled is not None and pooled.targets.tolist() == [2, 1, 0]
    np.testing.assert_allclose(pooled.logits, [[0, 1.5, 0.5], [0, 0, 0.5], [1, 0.5, 0]])
    assert pooled.kind.measures(pooled.logits, pooled.targets)["top1"] == pytest.approx(1 / 3)
    for change in (
        {"targets": np.array([0, 1, 2, 2, 1])},
        {"groups": None},
        {"groups": np.array([0, 1, 2, 3, 4])},
        {"groups": np.array([7, 7, 3, 3, -1])},
    ):
        assert group_predictions(replace(own, **change)) is None


TASKS = {
    "name": "tasks",
    "dataset": "made",
    "seeds": [0, 1],
    "preset": "small",
    "schedule": {"kind": "stretched", "epochs": 8, "refit": False},
    "baseline": "single",
    "systems": [
        {"name": "single", "head": "ccau", "settings": {"num_blocks": 2, "streams": ["ego"]},
         "tasks": ["ego/activity", "ego/atomic"]},
        {"name": "single", "head": "ccau", "settings": {"num_blocks": 2, "streams": ["third"]},
         "tasks": ["third/activity"]},
        {"name": "all", "head": "ccau", "settings": {"num_blocks": 2},
         "tasks": ["ego/activity", "ego/atomic", "third/activity"]},
    ],
}  # fmt: skip


@pytest.mark.slow
def test_each_task_is_a_row_that_is_tested_against_the_same_task(
    caches: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IFCAR_RUNS", str(tmp_path / "runs"))
    plan = plan_grid(from_plain(GridConfig, TASKS, "grid"), join(caches).path)
    made = run_grid(plan, Silent(), MachineConfig(processes=1, device="cpu"))
    rows = {(row.system, row.task): row for row in made.comparison.rows}
    both = ["ego/activity", "ego/atomic", "third/activity"]
    assert list(rows) == [("single", task) for task in both] + [("all", task) for task in both]
    for (system, task), row in rows.items():
        assert (row.protocol, row.metric) == (task, "map" if task == "ego/atomic" else "top1")
        for path, value in zip(row.runs, row.primary, strict=True):
            told = json.loads((Path(path) / "tasks.json").read_text())[task]
            assert value == pytest.approx(told[row.metric], rel=1e-6)
            shown = on_task(open_run(Path(path)), task)
            assert (
                shown.data().classes == tuple(told["classes"]) and shown.predictions("test").kind == shown.data().kind
            )
        assert (row.against is None) == (system == "single")
        if row.metric == "top1" and row.against is not None:
            expected = np.mean(row.primary) - np.mean(rows["single", task].primary)
            assert row.against.difference == pytest.approx(expected)
    table = made.files[0].read_text()
    assert "| system | task | " in table and "| all | third/activity |" in table
    chapters = open_chapters([made.comparison], open_run, compare=None, baseline=None, protocol="third/activity")
    assert [len(system.runs()) for system in chapters[0].systems] == [2, 2] and not chapters[0].notes
    with pytest.raises(InputError, match="no task 'audio/activty'"):
        on_task(open_run(Path(rows["all", both[0]].runs[0])), "audio/activty")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s[2].update(tasks=["third/activty"]), "system 'all': tasks names 'third/activty', did you mean"),
        (lambda s: s[1].update(name="b", tasks=["ego/activity"]), "system 'b': tasks names 'ego/activity'"),
        (lambda s: s[2].update(name="single"), "two lines are called 'single', task ego/activity"),
        (lambda s: s[2].update(tasks=["ego/activity"] * 2), "tasks are ego/activity, ego/activity; expected each once"),
        (lambda s: s[2].update(start="single"), "start: 'single' has tasks; expected a system that is one line"),
    ],
)
def test_tasks_that_cannot_be_rows_are_one_line(caches: Path, change: object, message: str) -> None:
    content = copy.deepcopy(TASKS)
    change(content["systems"])  # type: ignore[operator]
    with pytest.raises(InputError, match=message):
        plan_grid(from_plain(GridConfig, content, "grid"), join(caches).path)


@pytest.mark.parametrize(
    ("streams", "message"),
    [
        ({"ego": {}, "top": {}}, r"no stream 'top'; tasks needs a join made with `ifcar extract .*cache join ego="),
        ({"ego": {"frames": 8}}, r"stream 'ego' has 4 frames; tasks needs --frames 8: make it with `ifcar extract"),
        ({"ego": {"frame": 8}}, "streams ego: unknown key 'frame', did you mean 'frames'"),
        ({"ego": {"cameras": ["left"]}}, "stream 'ego' takes the cameras ego; tasks needs left: make the join with"),
        ({"third": {"cameras": ["left"]}}, "stream 'third' takes the cameras left, right; tasks needs left: make"),
        ({"audio": {"shuffled": True}}, r"stream 'audio' shows its own recordings; .*--shuffled audio --out caches/"),
        ({"ego": {"shuffled": "no"}}, "streams ego: shuffled is 'no'; expected true or false"),
        ({"ego": {"cameras": "ego"}}, r"streams ego: cameras is 'ego'; expected a list of names, as \[ego\]"),
    ],
)
def test_a_grid_refuses_a_join_of_other_streams(caches: Path, streams: object, message: str) -> None:
    with pytest.raises(IfcarError, match=message):
        plan_grid(from_plain(GridConfig, {**TASKS, "streams": streams}, "grid"), join(caches).path)


@pytest.mark.slow
def test_a_grid_takes_a_shuffled_join_where_it_asks_for_one_and_says_so(caches: Path, tmp_path: Path) -> None:
    streams = {"ego": Stream(cache=caches / "video.zarr", cameras=("ego",)),
               "third": Stream(cache=caches / "video.zarr", cameras=("left", "right"), shuffled=True)}  # fmt: skip
    path = join_caches(streams, tmp_path / "shuffled.join.json").path
    cameras = {"cameras": ["left", "right", "of another kitchen"]}
    for own in ({"ego": {}, "third": cameras}, {"third": {}}):
        with pytest.raises(CacheMismatchError, match="stream 'third' shows the recordings of other segments"):
            plan_grid(from_plain(GridConfig, {**TASKS, "streams": own}, "grid"), path)
    content = {**TASKS, "baseline": None, "seeds": [0], "systems": TASKS["systems"][:1]}  # type: ignore[index]
    content["schedule"] = {"kind": "stretched", "epochs": 1, "refit": False}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IFCAR_RUNS", str(tmp_path / "runs"))
        asked = from_plain(GridConfig, {**content, "streams": {"ego": {}, "third": {**cameras, "shuffled": True}}}, "g")
        made = run_grid(plan_grid(asked, path), Silent(), MachineConfig(processes=1, device="cpu"))
    assert any("a control: other recordings are shown in third" in note for note in made.comparison.notes)


def test_a_join_whose_rows_changed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "j.join.json"
    write_stream(tmp_path / "a.zarr", {"": range(MOMENTS)}, failed=(3,))
    assert join_caches({"a": Stream(cache=tmp_path / "a.zarr")}, path).num_segments == MOMENTS - 1
    shutil.rmtree(tmp_path / "a.zarr")
    write_stream(tmp_path / "a.zarr", {"": range(MOMENTS)})
    with pytest.raises(CacheMismatchError, match=r"rows of .*a\.zarr finished or failed since; join anew"):
        open_cache(path)


def test_a_run_of_streams_is_asked_about_one_and_says_what_it_lacks(caches: Path, tmp_path: Path) -> None:
    config = make_run_config(
        "ccau",
        join(caches).path,
        preset="small",
        settings={"embedding_dim": 16, "num_blocks": 2, "streams": ["third", "audio"]},
        schedule=ScheduleConfig(kind="stretched", epochs=1, refit=False, held_out=0.0),
    )
    run = fit(config, Silent(), out=tmp_path / "run").run
    data, members = run.data(), members_of(run, run.data())
    for asked, stream, channels in ((None, "third", 8), ("audio", "audio", 5)):
        (member,) = on_stream(members, asked)
        own = data.of_stream(member.stream)
        assert (member.reads(), own.spec.channels) == ((f"{stream}/grid_features",), channels)
        assert own.identity["backbone"]["name"] == ("sound" if stream == "audio" else "video")
    told = np.load(tmp_path / "run" / "tasks.npz")
    tested = run.predictions("test").clip_ids.tolist()
    reader = JoinedReader(join(caches).path, ("audio",))
    row = reader.clip_ids.index(tested[2]) * reader.rows_per_clip
    shown = {"audio/grid_features": reader.read_rows("audio/grid_features", np.array([row]))}
    for labels, classes in (("activity", "abc"), ("atomic", "wxyz")):
        asked = answered(run, data, "audio", labels)
        (member,) = on_stream(members, "audio")
        member = replace(member, labels="" if labels == data.labels else labels)
        found = answer_of(None, [member], asked, np.zeros((1, 4, 1, 4), np.float32), shown, "cpu", 2)
        np.testing.assert_allclose(found.logits[0], told[f"audio/{labels}/logits"][2], atol=1e-4)
        assert asked.classes == tuple(classes) and {score.name for score in found.top} <= set(classes)
    with pytest.raises(InputError, match=r"no task 'audio/atomi', did you mean 'audio/atomic'"):
        answered(run, data, "audio", "atomi")
    with pytest.raises(InputError, match=r"no stream 'audi', did you mean 'audio'.* Known: third, audio"):
        on_stream(members, "audi")
    with pytest.raises(InputError, match="does not state what the stream 'audio' is made of; train the run again"):
        replace(data, streams={}).of_stream("audio")


def test_a_join_is_listed_with_every_backbone(caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    join(caches)
    monkeypatch.setenv("IFCAR_CACHES", str(caches))
    columns, rows = list_caches()
    shown = {Path(row[0]).name: row[columns.index("backbone")] for row in rows}
    assert (shown["all.join.json"], shown["sound.zarr"]) == ("video, sound", "sound")


@pytest.mark.parametrize("name", ["", "Ego", "a/b", "multi", "x" * 33])
def test_a_stream_needs_a_name_that_arrays_can_have(caches: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="is no name of a stream; expected 1 to 32 small letters"):
        join_caches({name: Stream(cache=caches / "sound.zarr")}, tmp_path / "j.join.json")


def few_shot_join(folder: Path) -> Path:
    write_stream(folder / "video.zarr", {"ego": range(MOMENTS)}, few_shot=True)
    write_stream(folder / "sound.zarr", {"": range(MOMENTS)}, channels=5, num_steps=8, seed=1, few_shot=True)
    streams = {name: Stream(cache=folder / f"{own}.zarr") for name, own in (("ego", "video"), ("audio", "sound"))}
    return join_caches(streams, folder / "all.join.json").path


def test_label_spaces_of_a_join_are_its_protocols_own(tmp_path: Path) -> None:
    path = few_shot_join(tmp_path)
    streams = {
        "ego": Stream(cache=tmp_path / "video.zarr"),
        "audio": Stream(cache=tmp_path / "sound.zarr", shuffled=True),
    }
    shuffled = join_caches(streams, tmp_path / "shuffled.join.json").path  # one recording alone is of a few-shot part
    lent = json.loads(shuffled.read_text())["streams"]["audio"]["shuffled"]
    for table in map(open_cache(shuffled).protocol, ("split-1", "fewshot-base", "fewshot-1")):
        for place, other in enumerate(lent):
            assert {table.split[place], table.split[other]} != {Split.TRAIN, Split.TEST}
            assert table.groups[place] != table.groups[other]
    reader = open_cache(path)
    for name, classes in (("split-1", (3, 4)), ("fewshot-base", (2, 3)), ("fewshot-1", (2, 4))):
        spec = reader.spec_of(name)
        assert space_sizes(spec) == dict(zip(("activity", "atomic"), classes, strict=True))
        assert multi_spaces(spec) == ("atomic",)
    content = json.loads(path.read_text())  # as joins once were: with the label spaces of all protocols in one
    path.write_text(json.dumps(content | {"spaces": {"activity": 9, "atomic": 9}, "multi": ["atomic"]}))
    before = open_cache(path)
    assert space_sizes(before.spec_of("split-1")) == {"activity": 3, "atomic": 4}
    assert before.fingerprint != reader.fingerprint  # runs of such a join still find it


@pytest.mark.slow
def test_few_shots_on_a_join_learn_the_novel_classes_of_every_label_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IFCAR_RUNS", str(tmp_path / "runs"))
    content = {
        "name": "few",
        "dataset": "made",
        "labels": "atomic",
        "seeds": [0],
        "preset": "small",
        "schedule": {"kind": "stretched", "epochs": 8, "refit": False},
        "few_shot": {"shots": [1]},
        "systems": [
            {"name": "all", "head": "ccau", "aux_weights": {"align": 0.1}, "tasks": ["ego/atomic", "ego/activity"],
             "settings": {"num_blocks": 2, "spaces": ["atomic", "activity"]}},
        ],
    }  # fmt: skip
    plan = plan_grid(from_plain(GridConfig, content, "grid"), few_shot_join(tmp_path))
    made = run_grid(plan, Silent(), MachineConfig(processes=1, device="cpu"))
    assert not made.failures and made.num_made == 2
    for run in finished_runs(tmp_path / "runs"):
        tuned = run.config.fine_tune is not None  # type: ignore[union-attr]
        tasks = json.loads((run.path / "tasks.json").read_text())
        assert tasks["ego/atomic"]["classes"] == (["w", "x", "y", "z"] if tuned else ["w", "x", "y"])
        assert tasks["audio/activity"]["classes"] == (["c", "a"] if tuned else ["a", "b"])
        found = evaluate(run.path, EvaluateConfig(stream="ego", labels="activity")).metrics
        assert found.top1 == pytest.approx(tasks["ego/activity"]["top1"])


def test_a_stream_that_a_join_or_a_run_does_not_have_is_one_line(caches: Path, tmp_path: Path) -> None:
    path = join(caches).path
    chosen = {"embedding_dim": 16, "num_blocks": 2}
    short = ScheduleConfig(kind="stretched", epochs=1, refit=False, held_out=0.0)
    there = {path: "a join of ego, third, audio", caches / "video.zarr": "one cache, no join of streams"}
    for cache, said in there.items():
        wrong = {**chosen, "streams": ["thrd"]}
        config = make_run_config("ccau", cache, preset="small", settings=wrong, schedule=short)
        with pytest.raises(CacheMismatchError, match=rf"streams names 'thrd'.* This is {said}"):
            fit(config, Silent(), out=tmp_path / "none")
    settings = {**chosen, "streams": ["ego"], "spaces": ["activity"]}
    config = make_run_config("ccau", path, preset="small", settings=settings, schedule=short)
    fit(config, Silent(), out=tmp_path / "run")
    with pytest.raises(InputError, match="the run has no stream 'third'; it learned ego"):
        evaluate(tmp_path / "run", EvaluateConfig(stream="third"))
    write_stream(tmp_path / "fewer.zarr", {"": range(MOMENTS)}, classes="ab")
    with pytest.raises(InputError, match=r"label space 'activity' of protocol 'split-1' has other classes: 3 and 2"):
        both = {"ego": Stream(cache=caches / "sound.zarr"), "audio": Stream(cache=tmp_path / "fewer.zarr")}
        join_caches(both, tmp_path / "j.join.json")
