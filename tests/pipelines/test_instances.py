"""Labels over instances, from the feed to tables; what a run learns is chosen by the name of a label space."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures.volleyball import HEIGHT, WIDTH, players_of, write_volleyball
from fixtures.weights import random_weights
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from scipy.stats import t as student
from torch.nn.functional import cross_entropy

from ifcar.cache.arrays import CacheSpec
from ifcar.cache.open import open_cache
from ifcar.cache.protocols import LabelSpace, ProtocolTable
from ifcar.cache.schema import Category, Split
from ifcar.cli import main
from ifcar.errors import InputError
from ifcar.extract.datasets.volleyball import PERSONAL_ACTIONS
from ifcar.heads.contract import InstanceBatch
from ifcar.pipelines.comparison.results import Replicate, System, summarise
from ifcar.pipelines.comparison.statistics import bootstrap_interval, paired_bootstrap, population_map
from ifcar.pipelines.ensemble import ensemble
from ifcar.pipelines.evaluate import evaluate
from ifcar.pipelines.extract import extract
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.feed.examples import Examples, read_examples
from ifcar.pipelines.feed.held_out import hold_out
from ifcar.pipelines.feed.subjects import ask_about, grouped, slot_order
from ifcar.pipelines.finetune.data import stack_views
from ifcar.pipelines.finetune.distributed import Group
from ifcar.pipelines.finetune.loop import train_step
from ifcar.pipelines.finetune.run import finetune, make_trainer
from ifcar.pipelines.finetune.score import score_live
from ifcar.pipelines.finetune.setting import open_setting
from ifcar.pipelines.finetune.start import joint_config
from ifcar.pipelines.fit import fit
from ifcar.pipelines.fleets.fleet import fleet_key
from ifcar.pipelines.grid.config import GridConfig
from ifcar.pipelines.grid.lines import SystemConfig
from ifcar.pipelines.grid.plan import plan_grid
from ifcar.pipelines.labels.kinds import MultiLabel, SingleLabel
from ifcar.pipelines.predict import predict
from ifcar.pipelines.progress import Silent
from ifcar.pipelines.report.config import ReportConfig
from ifcar.pipelines.report.report import report
from ifcar.pipelines.runs.config import RunConfig
from ifcar.pipelines.runs.finished import Run
from ifcar.pipelines.runs.questions import EvaluateConfig, PredictConfig
from ifcar.pipelines.runs.resolve import make_run_config
from ifcar.pipelines.runs.schedule import ScheduleConfig
from ifcar.pipelines.stacks.noise import draw_noise
from ifcar.pipelines.training.together import FitResult, fit_together

SHORT = ScheduleConfig(kind="stretched", epochs=3, batch_size=8)
SLOTS = 6


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Boxes of ten key frames with two to four players each; the two of video 4 are the test."""
    root = write_volleyball(tmp_path_factory.mktemp("data") / "d")
    out = root.parent / "boxes.zarr"
    extract(
        ExtractConfig(
            dataset="volleyball", data_root=root, out=out, backbone="none", instances=SLOTS, workers=0, views=2
        ),
        Silent(),
    )
    return out


Runs = Mapping[str, Run]


@pytest.fixture(scope="module")
def runs(cache: Path) -> Runs:
    """One run of each of two label spaces."""
    names = ("group", "personal")
    return {name: fit(config(cache, name), Silent(), out=cache.parent / name).run for name in names}


@pytest.fixture(autouse=True)
def runs_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IFCAR_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("IFCAR_CACHES", str(tmp_path / "caches"))
    return tmp_path / "runs"


def config(cache: Path, labels: str | None = "personal", head: str = "stin", seed: int = 0) -> RunConfig:
    return make_run_config(head, cache, labels=labels, streams="layout", preset="small", schedule=SHORT, seed=seed)


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.booleans())
def test_a_batch_about_instances_is_what_a_literal_loop_makes_of_it(seed: int, slots: int, of_fleet: bool) -> None:
    rng = np.random.default_rng(seed)
    lead = (2, 3) if of_fleet else (3,)
    spec = CacheSpec.standard(num_frames=4, num_steps=2, num_instances=slots, channels=3, pooled_size=2)
    arrays = {
        "boxes": rng.random((*lead, 4, slots, 4)).astype(np.float32),
        "categories": rng.integers(0, 3, (*lead, 4, slots)).astype(np.uint8),
        "instance_features": rng.random((*lead, 2, slots, 3, 2, 2)).astype(np.float16),
        "frame_features": rng.random((*lead, 2, 3)).astype(np.float16),
    }
    arrays["boxes"][arrays["categories"] == 0] = 0
    asked = rng.integers(0, slots, lead)
    order = slot_order(asked.ravel(), arrays["boxes"].reshape(-1, 4, slots, 4)).reshape(*lead, slots)
    batch = InstanceBatch({name: torch.from_numpy(value) for name, value in arrays.items()})
    found = ask_about(torch.from_numpy(order), batch, spec)
    assert torch.equal(found.array("frame_features"), batch.array("frame_features"))
    for place in np.ndindex(lead):
        own, centres = int(asked[place]), arrays["boxes"][place][..., :2].astype(np.float64)
        there = arrays["boxes"][place].any(axis=-1)
        far = {}
        for other in set(range(slots)) - {own}:
            both = there[:, own] & there[:, other]
            apart = ((centres[both, other] - centres[both, own]) ** 2).sum(axis=1)
            far[other] = (apart.mean() if len(apart) else np.inf, other)
        expected = [own, *sorted(far, key=lambda n: far[n])]
        assert order[place].tolist() == expected
        for new, old in enumerate(expected):
            assert torch.equal(found.boxes[place][:, new], batch.boxes[place][:, old])
            features = (value.array("instance_features")[place] for value in (found, batch))
            assert torch.equal(*(value[:, n] for value, n in zip(features, (new, old), strict=True)))
            kind = Category.SUBJECT if new == 0 else Category.OBJECT
            was = arrays["categories"][place][:, old]
            assert found.categories[place][:, new].tolist() == np.where(was == 0, 0, kind).tolist()


def test_every_player_is_an_example_named_by_its_place_in_the_line(cache: Path) -> None:
    reader = open_cache(cache)
    examples = read_examples(reader, reader.protocol("official").only("personal"), Split.TEST)
    players = {f"4/{key}/{n + 1}": player[-1] for key in (100, 250) for n, player in enumerate(players_of(4, key))}
    assert examples.names.tolist() == list(players)
    assert [PERSONAL_ACTIONS[k] for k in examples.targets] == list(players.values())
    assert examples.rows.shape == (len(players), 2) and len(np.unique(examples.segments)) == 2
    reader.close()


def examples_of(segments: list[int]) -> Examples:
    n = len(segments)
    once = np.ones((n, 1), np.bool_)
    numbers = np.array(segments)
    return Examples(
        name="train",
        names=np.arange(n).astype(np.str_),
        clips=numbers,
        segments=numbers,
        targets=np.zeros(n),
        kind=SingleLabel(),
        rows=numbers[:, None],
        usable=once,
        plain=once,
        per_rate=once.astype(np.int64),
    )


@given(st.lists(st.integers(1, 9), min_size=1, max_size=20), st.sampled_from([0.15, 0.3, 0.6]))
def test_instances_of_a_segment_are_never_on_both_sides(sizes: list[int], share: float) -> None:
    segments = [number for number, size in enumerate(sizes) for _ in range(size)]
    table = ProtocolTable(
        name="p",
        spaces=(LabelSpace(kind="single", classes=("a",), targets=np.zeros(len(sizes), np.int16)),),
        split=np.ones(len(sizes), np.uint8),
        groups=np.full(len(sizes), -1, np.int32),
    )
    division = hold_out(examples_of(segments), table, share)
    if len(sizes) == 1:
        assert division.held_out is None and division.note
        return
    assert division.held_out is not None
    fitted, held = (set(part.segments.tolist()) for part in (division.fitting, division.held_out))
    assert fitted and held and not fitted & held and len(fitted | held) == len(sizes)
    # no draw of whole segments from the front of the order would have come nearer than by the largest one
    assert abs(len(division.held_out) - round(share * len(segments))) <= max(sizes)


@pytest.mark.slow
def test_runs_alone_in_a_fleet_and_streamed_learn_the_same(cache: Path, runs: Runs, tmp_path: Path) -> None:
    grid = GridConfig(
        name="g",
        labels="personal",
        preset="small",
        seeds=(0, 1),
        schedule=SHORT,
        systems=(SystemConfig(name="A", head="stin", streams="layout"),),
    )
    jobs = plan_grid(grid, cache).jobs()
    assert fleet_key(jobs[0].config) == fleet_key(jobs[1].config) and jobs[0].config.labels == "personal"
    fleet = [result.run for result in fit_together(jobs, tmp_path, Silent()) if isinstance(result, FitResult)]
    streamed = fit(config(cache), Silent(), memory="stream").run
    alone = runs["personal"].predictions("test")
    assert alone.segments is not None and len(np.unique(alone.segments)) == 2
    for run, apart in ((fleet[0], 0.02), (streamed, 1e-6)):  # a fleet's sums round otherwise, step after step
        np.testing.assert_allclose(run.predictions("test").logits, alone.logits, atol=apart)
    system = System(name="A", protocol="p", replicates=[Replicate(seed=n, runs=[run]) for n, run in enumerate(fleet)])
    (row,) = summarise([system])
    assert row.n == len(alone.clip_ids) == 8
    held_out = runs["personal"].predictions("held_out").clip_ids.tolist()
    assert len({name.split("/")[0] for name in held_out}) == 1  # a whole video
    assert evaluate(fleet[0].path).agrees
    assert fleet[1].path.name.startswith("stin-layout-small-official-personal-seed1")


def test_the_chosen_space_is_in_the_config_the_first_is_the_default(cache: Path, runs: Runs) -> None:
    named, first = runs["group"], fit(config(cache, None), Silent()).run
    assert first.config.labels == named.config.labels == "group"
    np.testing.assert_array_equal(first.predictions("test").logits, named.predictions("test").logits)
    assert (first.data().labels, first.data().over) == ("group", "clip")
    personal = runs["personal"]
    assert (personal.data().labels, personal.data().over) == ("personal", "instance")
    with pytest.raises(InputError, match=r"another labels \(personal\) than .* \(group\)"):
        ensemble([first.path, personal.path])
    with pytest.raises(InputError, match="the run learned 'group', and 'personal' has another classes"):
        evaluate(first.path, EvaluateConfig(labels="personal"))
    with pytest.raises(InputError, match="the run learned 'personal', and 'actions' has another kind"):
        evaluate(personal.path, EvaluateConfig(labels="actions"))


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_an_unknown_space_is_refused_with_the_nearest_name(
    cache: Path, runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = "protocol 'official' has no label space 'personl', did you mean 'personal'"
    layout = ("--streams", "layout", "--preset", "small", "--cache", cache)
    assert said in refused(capsys, "fit-head", "stin", *layout, "--labels", "personl")
    grid = tmp_path / "g.yaml"
    grid.write_text("name: g\nlabels: personl\nsystems: [{name: A, head: stin, streams: layout}]\n")
    assert said in refused(capsys, "grid", grid, "--cache", cache)
    run = runs["personal"].path
    assert said in refused(capsys, "evaluate", run, "--labels", "personl")
    video, boxes = tmp_path / "video.mp4", tmp_path / "boxes.json"
    err = refused(capsys, "predict", run, video, "--boxes", boxes, "--labels", "group")
    assert "learned the label space 'personal'" in err


def test_a_new_video_gets_an_answer_about_each_person(
    cache: Path, runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    players = players_of(4, 100)
    shown = [
        {"category": "hand", "standard_category": "hand", "box2d": {"x1": x, "y1": y, "x2": x + w, "y2": y + h}}
        for x, y, w, h, _ in players
    ]
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps([{"name": f"4/{number:04d}.jpg", "labels": shown} for number in range(80, 121)]))
    video = cache.parent / "d" / "videos" / "4" / "100"
    stored = runs["personal"].predictions("test")
    expected = dict(zip(stored.clip_ids, stored.logits, strict=True))
    found = predict(runs["personal"].path, video, Silent(), PredictConfig(boxes=boxes))
    assert [answer.slot for answer in found.answers] == list(range(len(players)))
    for place, answer in enumerate(found.answers):
        x, y, w, h, _ = players[place]
        assert answer.box == pytest.approx(((x + w / 2) / WIDTH, (y + h / 2) / HEIGHT, w / WIDTH, h / HEIGHT), abs=1e-5)
        np.testing.assert_allclose(answer.logits[0], expected[f"4/100/{place + 1}"], atol=1e-5)
    (group,) = predict(runs["group"].path, video, Silent(), PredictConfig(boxes=boxes)).answers
    assert group.slot is None and group.logits.shape == (1, 8)
    with pytest.raises(SystemExit) as ended:
        main(["predict", str(runs["personal"].path), str(video), "--boxes", str(boxes), "--json"])
    content = json.loads(capsys.readouterr().out)
    assert not ended.value.code and "top" not in content and len(content["instances"]) == len(players)


@pytest.mark.slow
def test_report_has_a_table_for_each_space_and_pictures_of_instances(cache: Path, runs: Runs, tmp_path: Path) -> None:
    written = report([run.path for run in runs.values()], Silent(), ReportConfig(out=tmp_path / "report", cache=cache))
    page = written.page.read_text()
    assert "official group" in page and "official personal" in page and "4/100/1" in page


def test_persons_of_a_segment_are_resampled_together() -> None:
    rng = np.random.default_rng(0)
    values, other = (rng.random(30) < 0.6).astype(float), (rng.random(30) < 0.4).astype(float)
    copies, segments = 4, np.repeat(np.arange(30), 4)
    assert bootstrap_interval(values.repeat(copies), segments) == pytest.approx(bootstrap_interval(values))
    narrow, wide = bootstrap_interval(values.repeat(copies)), bootstrap_interval(values)
    assert narrow[1] - narrow[0] < 0.7 * (wide[1] - wide[0])
    assert bootstrap_interval(values, np.arange(30)) == bootstrap_interval(values)
    together = paired_bootstrap(values.repeat(copies), other.repeat(copies), segments)
    alone = paired_bootstrap(values, other)
    assert (together.low, together.high, together.p) == pytest.approx((alone.low, alone.high, alone.p))
    # segments of unlike sizes against a literal loop over the draws
    sizes = rng.integers(1, 5, 12)
    uneven, of = rng.random(sizes.sum()), np.repeat(np.arange(12), sizes)
    sums = np.bincount(of, weights=uneven)
    drawn = np.random.default_rng(3).integers(0, 12, (20_000, 12))
    literal = np.quantile(sums[drawn].sum(1) / sizes[drawn].sum(1), [0.025, 0.975])
    wider = student.ppf(0.975, 11) / norm.ppf(0.975) * np.sqrt(12 / 11)  # so few segments
    literal = uneven.mean() + wider * (literal - uneven.mean())
    assert bootstrap_interval(uneven, of) == pytest.approx(tuple(literal), abs=0.01)


def test_persons_of_a_segment_count_once_in_the_interval_of_map() -> None:
    rng = np.random.default_rng(1)
    labels = (rng.random((60, 3)) < 0.4).astype(np.int8)
    labels[~labels.any(axis=1), 0] = 1
    logits = (rng.normal(size=(60, 3)) + labels).astype(np.float32)
    copies, segments = 4, np.repeat(np.arange(60), 4)
    noise = rng.normal(scale=1e-4, size=(240, 3)).astype(np.float32)
    four = population_map(logits.repeat(copies, axis=0) + noise, labels.repeat(copies, axis=0), MultiLabel())
    one = population_map(logits, labels, MultiLabel())
    (together, apart, single) = (high - low for low, high in (four.interval(segments), four.interval(), one.interval()))
    assert apart < 0.6 * together and together == pytest.approx(single, rel=0.25)


def test_labels_that_are_unknown_are_no_examples(cache: Path) -> None:
    reader = open_cache(cache)
    table = reader.protocol("official").only("personal")
    targets = table.labels.targets.copy()
    clip = reader.clip_ids.index("4/100")
    targets[clip, 1] = -1
    unsure = replace(table, spaces=(replace(table.labels, targets=targets),))
    names = read_examples(reader, unsure, Split.TEST).names.tolist()
    assert "4/100/1" in names and "4/100/2" not in names
    reader.close()


def test_list_and_info_show_every_label_space(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["cache", "info", str(cache), "--json"])
    shown = json.loads(capsys.readouterr().out)["protocols"]
    train = sum(len(players_of(video, key)) for video in (0, 1, 3, 6) for key in (100, 250))
    assert [list(row.values())[:6] for row in shown] == [
        ["official", "group", "clip", 8, 8, 2],
        ["official", "personal", "instance", 9, train, 8],
        ["official", "actions", "clip", 9, 8, 2],
    ]


@given(st.lists(st.integers(-3, 3), min_size=1))
def test_places_are_grouped_as_a_dict_of_lists_groups_them(numbers: list[int]) -> None:
    expected: dict[int, list[int]] = {}
    for place, number in enumerate(numbers):
        expected.setdefault(number, []).append(place)
    assert [places.tolist() for places in grouped(np.array(numbers))] == list(expected.values())


@pytest.mark.slow
def test_fine_tuning_over_instances_sees_a_key_frame_once_and_scores_as_its_cache(cache: Path, tmp_path: Path) -> None:
    root, weights, out = cache.parent / "d", random_weights(cache, "i3d_inception"), tmp_path / "c.zarr"
    seen = {"dataset": "volleyball", "data_root": root, "backbone": "i3d_inception", "crop": 32, "instances": SLOTS}
    extract(ExtractConfig(out=out, weights=weights, workers=0, **seen), Silent())
    brief = replace(SHORT, epochs=2, refit=False)
    base = fit(make_run_config("stin", out, labels="personal", preset="small", schedule=brief), Silent()).run
    joint = joint_config(base.path, data_root=root, weights=weights, num_steps=2, batch_size=4, lr=1e-3)
    check_one_pass_a_key_frame(joint)
    run = finetune(joint, Silent(), out=tmp_path / "joint", workers=0).run
    assert (run.config.labels, run.data().over) == ("personal", "instance")
    trained = str(run.path / "backbone.safetensors")
    extract(ExtractConfig(out=run.config.cache, weights=trained, workers=0, **seen), Silent())
    result = evaluate(run.path)
    assert result.agrees and result.metrics.n == 8


def check_one_pass_a_key_frame(joint: RunConfig) -> None:
    """Count what the backbone is given, and compare a step's loss with that of its instances one by one."""
    alone = Group(number=0, size=1, device=torch.device("cpu"))
    trainer = make_trainer(open_setting(joint, alone, Silent()), alone, 0)
    model, examples = trainer.model, trainer.examples
    counts: list[int] = []
    model.backbone.register_forward_pre_hook(lambda _, inputs: counts.append(len(inputs[0])))
    (step_batch,) = trainer.sampler.batches(0, 1)
    assert len(step_batch.clips) == trainer.plan.batch_size == 4 < len(step_batch.places)
    views = [trainer.views[int(clip), 0] for clip in step_batch.clips]
    noise = draw_noise(model.head, [joint.seed], "fit", 0, len(step_batch.places), alone.device)
    losses = []
    model.train()
    for number, (place, view) in enumerate(zip(step_batch.places, step_batch.views, strict=True)):
        model.set_noise(noise, number, number + 1)
        (item,) = examples.order_of(np.array([place]))
        logits, _ = model(*stack_views([views[view]], model.of_view, alone.device), item[None])
        losses.append(cross_entropy(logits[0], torch.from_numpy(examples.targets[[place]])).item())
    counts.clear()
    found = train_step(trainer, step_batch, iter(views))
    assert counts == [4] and found["classification"] == pytest.approx(np.mean(losses), rel=1e-4)
    counts.clear()
    score_live(trainer, examples)
    assert sum(counts) == len({*examples.clips.tolist()}) < len(examples)
