"""Static distillation: one stream learns what finished runs of other streams answer."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixtures.streams import ACTIVITIES, MOMENTS, write_stream

from ifcar.cache.joining import join_caches
from ifcar.cache.segments import Stream
from ifcar.errors import IfcarError, InputError
from ifcar.heads.contract import HeadOutput, Task
from ifcar.pipelines.configs import from_plain
from ifcar.pipelines.fit import fit
from ifcar.pipelines.grid.config import GridConfig
from ifcar.pipelines.grid.plan import plan_grid
from ifcar.pipelines.grid.run import run_grid
from ifcar.pipelines.labels.kinds import label_kind
from ifcar.pipelines.progress import Silent
from ifcar.pipelines.runs.config import RunConfig, run_id, run_name
from ifcar.pipelines.runs.distil import DistilConfig
from ifcar.pipelines.runs.finished import open_run
from ifcar.pipelines.runs.removal import remove_runs
from ifcar.pipelines.runs.resolve import make_run_config
from ifcar.pipelines.runs.schedule import ScheduleConfig
from ifcar.pipelines.stacks.objectives import Labels, Teachers, losses_of
from ifcar.pipelines.training.machine import MachineConfig

SHORT = ScheduleConfig(kind="stretched", epochs=1, refit=False, held_out=0.0)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("caches")
    write_stream(root / "video.zarr", {"ego": range(MOMENTS), "left": range(MOMENTS)})
    write_stream(root / "sound.zarr", {"": range(MOMENTS)}, channels=5, seed=1)
    streams = {
        "ego": Stream(cache=root / "video.zarr", cameras=("ego",)),
        "third": Stream(cache=root / "video.zarr", cameras=("left",)),
        "audio": Stream(cache=root / "sound.zarr"),
    }
    return join_caches(streams, root / "all.join.json").path


def config(path: Path, streams: list[str], schedule: ScheduleConfig = SHORT, **changes: Any) -> RunConfig:
    settings = {"embedding_dim": 16, "num_blocks": 2, "streams": streams, "spaces": ["activity"]}
    made = make_run_config("ccau", path, preset="small", settings=settings, schedule=schedule)
    return replace(made, **changes)


@pytest.fixture(scope="module")
def teachers(path: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("teachers")
    for stream in ("third", "audio"):
        fit(config(path, [stream]), Silent(), out=root / stream)
    return root / "third", root / "audio"


def test_the_loss_is_of_labels_and_of_the_mean_soft_cross_entropy_of_the_teachers() -> None:
    torch.manual_seed(0)
    heads, clips, students, classes, weight, tau = 2, 3, 2, 4, 0.3, 2.5
    scores = torch.randn(heads, clips, classes).double()
    targets, answers = torch.randint(classes, (heads, clips)), torch.randn(heads, clips, students, classes).double()
    teachers = Teachers(logits=answers, weight=weight, temperature=tau)
    labels = {"": Labels(targets=targets, kind=label_kind("single"), teachers=teachers)}
    out = HeadOutput(logits=scores)
    found = losses_of(out, (Task(weight=1.0),), labels, {}, 0.0)
    for head in range(heads):
        of_labels = of_teachers = 0.0
        for clip in range(clips):
            own = scores[head, clip].tolist()
            of_labels += math.log(sum(map(math.exp, own))) - own[int(targets[head, clip])]
            soft = [math.exp(v / tau) for v in own]
            for teacher in answers[head, clip].tolist():
                theirs = [math.exp(v / tau) for v in teacher]
                for p, q in zip(soft, theirs, strict=True):
                    of_teachers -= q / sum(theirs) * math.log(p / sum(soft)) / students
        assert float(found["classification"][head]) == pytest.approx((1 - weight) * of_labels / clips, rel=1e-9)
        assert float(found["teachers"][head]) == pytest.approx(weight * tau**2 * of_teachers / clips, rel=1e-9)
    plain = losses_of(out, (Task(),), {"": replace(labels[""], teachers=None)}, {}, 0.0)
    assert list(plain) == ["classification"]


@pytest.mark.slow
def test_a_student_takes_on_what_its_teachers_say_even_where_they_are_wrong(
    path: Path, teachers: tuple[Path, Path], tmp_path: Path
) -> None:
    """A teacher that always says the next class moves a student that listens to it and not to the labels."""
    wrong = tmp_path / "wrong"
    fit(config(path, ["third"]), Silent(), out=wrong)
    known = dict(np.load(wrong / "predictions.npz"))
    known["train/logits"] = 20 * np.eye(ACTIVITIES, dtype=np.float32)[(known["train/targets"] + 1) % ACTIVITIES]
    np.savez(wrong / "predictions.npz", **known)
    schedule = replace(SHORT, epochs=150)
    distil = DistilConfig(runs=(wrong,), weight=0.99, temperature=1.0)
    run = fit(config(path, ["ego"], schedule, distil_from=distil), Silent(), out=tmp_path / "run").run
    tested = run.predictions("test")
    assert ((tested.logits.argmax(1) - tested.targets) % ACTIVITIES == 1).mean() > 0.8
    assert "teachers_loss" in (tmp_path / "run" / "history.jsonl").read_text()
    alone = fit(config(path, ["ego"], schedule), Silent(), out=tmp_path / "alone").run
    assert alone.metric("test").top1 > 0.8  # type: ignore[union-attr]


def test_teachers_and_their_weight_tell_runs_apart_and_where_they_lie_does_not(
    path: Path, teachers: tuple[Path, Path], tmp_path: Path
) -> None:
    ids = set()
    for name, own in (
        ("plain", None),
        ("both", DistilConfig(runs=teachers)),
        ("one", DistilConfig(runs=teachers[:1])),
        ("more", DistilConfig(runs=teachers, weight=0.2)),
    ):
        run = fit(config(path, ["ego"], distil_from=own), Silent(), out=tmp_path / name).run
        assert isinstance(run.config, RunConfig) and ("taught" in run_name(run.config)) == (own is not None)
        ids.add(run_id(run.config))
    assert len(ids) == 4
    moved = replace(run.config, distil_from=replace(run.config.distil_from, runs=(Path("x"), Path("y"))))
    assert run_id(moved) in ids
    again = fit(run.config, Silent(), out=tmp_path / "again").run
    np.testing.assert_array_equal(again.predictions("test").logits, run.predictions("test").logits)


@pytest.mark.parametrize(
    ("streams", "schedule", "distil", "message"),
    [
        (["ego"], SHORT, {"runs": ("nowhere",)}, "nowhere: no such run"),
        (["ego", "third"], SHORT, {}, "would answer by ego/activity, third/activity; expected one student"),
        (
            ["ego"],
            replace(SHORT, held_out=0.2),
            {},
            "its answers come from a training on clips that are held out",
        ),
        (["ego"], SHORT, {"run_ids": ("0", "1")}, "not the run that was learned from; it has been trained anew"),
    ],
)
def test_teachers_that_cannot_teach_are_one_line(
    path: Path, teachers: tuple[Path, Path], tmp_path: Path, streams: list[str], schedule: ScheduleConfig,
    distil: dict[str, Any], message: str,
) -> None:  # fmt: skip
    runs = tuple(map(Path, distil.pop("runs", teachers)))
    own = DistilConfig(runs=runs, **distil)
    with pytest.raises(IfcarError, match=message):
        fit(config(path, streams, schedule, distil_from=own), Silent(), out=tmp_path / "run")
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_teachers_of_other_labels_or_clips_are_one_line(
    path: Path, teachers: tuple[Path, Path], tmp_path: Path
) -> None:
    atomic = make_run_config("ccau", path, preset="small", labels="atomic", schedule=SHORT,
                             settings={"embedding_dim": 8, "num_blocks": 2, "streams": ["third"]})  # fmt: skip
    fit(replace(atomic, options={**atomic.options, "spaces": ["atomic"]}), Silent(), out=tmp_path / "atomic")
    with pytest.raises(InputError, match="learned 'atomic' of protocol 'split-1', which has other classes"):
        distil = DistilConfig(runs=(tmp_path / "atomic",))
        fit(config(path, ["ego"], distil_from=distil), Silent(), out=tmp_path / "run")
    with pytest.raises(InputError, match="'atomic' has several labels a clip; expected a label space of one class"):
        distil = DistilConfig(runs=teachers)
        fit(replace(atomic, distil_from=distil), Silent(), out=tmp_path / "run")
    for part, message in (("train", "has no answer for 1 of the 18 training clips"), ("test", "was trained on 1 of")):
        other = tmp_path / part
        fit(config(path, ["third"]), Silent(), out=other)
        known = dict(np.load(other / "predictions.npz"))
        known["train/clip_ids"][0] = "another" if part == "train" else known["test/clip_ids"][0]
        np.savez(other / "predictions.npz", **known)
        with pytest.raises(InputError, match=message):
            fit(config(path, ["ego"], distil_from=DistilConfig(runs=(other,))), Silent(), out=tmp_path / "run")


GRID = {
    "name": "kd",
    "dataset": "made",
    "protocols": ["split-1"],
    "seeds": [0, 1],
    "preset": "small",
    "schedule": {"kind": "stretched", "epochs": 2, "refit": False, "held_out": 0.2},
    "systems": [
        {"name": "single", "head": "ccau", "settings": {"num_blocks": 2, "streams": [own], "spaces": ["activity"]},
         "tasks": [f"{own}/activity"]}
        for own in ("third", "audio")
    ]
    + [
        {"name": "static", "head": "ccau", "settings": {"num_blocks": 2, "streams": ["ego"], "spaces": ["activity"]},
         "distil_from": {"single": ["third/activity", "audio/activity"]}, "tasks": ["ego/activity"]},
    ],
}  # fmt: skip


@pytest.mark.slow
def test_a_grid_line_learns_from_the_runs_of_its_seed(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IFCAR_RUNS", str(tmp_path / "runs"))
    plan = plan_grid(from_plain(GridConfig, GRID, "grid"), path)
    made = run_grid(plan, Silent(), MachineConfig(processes=1, device="cpu"))
    assert not made.failures and made.num_made == 6
    (row,) = [row for row in made.comparison.rows if row.system == "static"]
    for run in map(open_run, map(Path, row.runs)):
        assert isinstance(run.config, RunConfig) and run.config.distil_from is not None
        bases = [open_run(base).config for base in run.config.distil_from.runs]
        assert [base.seed for base in bases] == [run.config.seed] * 2  # type: ignore[union-attr]
        assert [base.options["streams"] for base in bases] == [["third"], ["audio"]]  # type: ignore[union-attr]
        with pytest.raises(InputError, match="was made from it; remove that run too"):
            remove_runs([run.config.distil_from.runs[0]])
        first = json.loads((run.path / "history.jsonl").read_text().splitlines()[0])
        assert first["teachers_loss"] > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"single": []}, "distil_from: 'single' has tasks; name those that are meant: third/activity, audio/activity"),
        ({"singel": []}, "distil_from: no system 'singel', did you mean 'single'"),
        ({"single": ["ego/activity"]}, "distil_from: 'single' has no task 'ego/activity'"),
        ({"static": ["ego/activity"]}, "distil_from names the system itself"),
    ],
)
def test_teachers_that_a_grid_does_not_have_are_one_line(path: Path, change: object, message: str) -> None:
    content: Any = copy.deepcopy(GRID)
    content["systems"][2]["distil_from"] = change
    with pytest.raises(InputError, match=message):
        plan_grid(from_plain(GridConfig, content, "grid"), path)


@pytest.mark.parametrize("change", [{"refit": True}, {"held_out": 0.3}, {"kind": "auto", "refit": True}])
def test_teachers_that_would_learn_what_is_held_out_are_refused_before_they_train(path: Path, change: Any) -> None:
    content: Any = copy.deepcopy(GRID)
    for system in content["systems"][:2]:
        system["schedule"] = change
    with pytest.raises(InputError, match="'static': distil_from: 'single' would learn clips that are held out here"):
        plan_grid(from_plain(GridConfig, content, "grid"), path)
    content["schedule"] = {"kind": "paper", "epochs": 1}
    for system in content["systems"][:2]:
        system["schedule"] = {}
    plan_grid(from_plain(GridConfig, content, "grid"), path)


def test_a_teacher_of_several_streams_teaches_what_it_keeps_of_training_clips(path: Path) -> None:
    content: Any = copy.deepcopy(GRID)
    content["systems"][1]["settings"]["streams"] = ["ego", "audio"]
    with pytest.raises(InputError, match="keeps its answers on training clips of ego/activity, not of audio/activity"):
        plan_grid(from_plain(GridConfig, content, "grid"), path)
