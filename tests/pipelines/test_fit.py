"""Training from a cache: determinism, resume, held-out parts, ensembles, and evaluation against scikit-learn."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from fixtures.interrupts import interrupted_after
from fixtures.something_else import write_dataset
from safetensors.numpy import load_file
from sklearn.metrics import log_loss, top_k_accuracy_score

from ifcar.cache.open import open_cache
from ifcar.cache.schema import Split
from ifcar.cli import main
from ifcar.errors import CacheMismatchError, InputError
from ifcar.heads.schedules import RAI
from ifcar.heads.sfi import SFI
from ifcar.pipelines.ensemble import choose_weights, ensemble, fuse, fusion_notes, partner
from ifcar.pipelines.evaluate import evaluate
from ifcar.pipelines.extract import extract
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.feed.examples import read_examples
from ifcar.pipelines.feed.held_out import hold_out
from ifcar.pipelines.fit import fit
from ifcar.pipelines.grid.config import GridConfig
from ifcar.pipelines.grid.lines import SystemConfig
from ifcar.pipelines.grid.plan import plan_grid
from ifcar.pipelines.labels.kinds import SingleLabel
from ifcar.pipelines.progress import Silent
from ifcar.pipelines.runs.config import FineTuneConfig, RunConfig, run_id, without_places
from ifcar.pipelines.runs.finished import Run, open_run, read_config, write_config
from ifcar.pipelines.runs.questions import EvaluateConfig
from ifcar.pipelines.runs.resolve import default_protocol, make_run_config, resolve
from ifcar.pipelines.runs.schedule import ScheduleConfig, make_plan
from ifcar.pipelines.scoring.scores import Predictions, measure
from ifcar.pipelines.training import phases
from ifcar.pipelines.training.checkpoint import NAME as CHECKPOINT
from ifcar.pipelines.training.estimate import in_words

SHORT = ScheduleConfig(kind="stretched", min_steps=60, batch_size=8)
BRIEF = replace(SHORT, epochs=3)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_dataset(tmp_path_factory.mktemp("data") / "d", num_clips=32, pixels=False)
    out = root.parent / "boxes.zarr"
    options = ExtractConfig(
        dataset="something-else", data_root=root, out=out, backbone="none", augmented_views=3, workers=0, instances=3
    )
    extract(options, Silent())
    return out


@pytest.fixture(autouse=True)
def runs_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IFCAR_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


def config(cache: Path, head: str = "sfi", schedule: ScheduleConfig = SHORT, **options: object) -> RunConfig:
    values: dict[str, object] = {"streams": "layout", "preset": "small", **options}
    return make_run_config(head, cache, schedule=schedule, **values)  # type: ignore[arg-type]


def same_run(a: Run, b: Run) -> None:
    left, right = (load_file(r.path / "model.safetensors") for r in (a, b))
    assert left.keys() == right.keys()
    for key, value in left.items():
        np.testing.assert_array_equal(value, right[key], err_msg=key)
    for m, n in zip(a.metrics, b.metrics, strict=True):
        assert replace(m, seconds=0.0) == replace(n, seconds=0.0)


@pytest.fixture(scope="module")
def learned(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return fit(config(cache, aux_weight=1.0), Silent(), out=tmp_path_factory.mktemp("learned") / "run").run


@pytest.mark.slow
def test_layout_head_learns_direction(learned: Run) -> None:
    test = learned.metric("test")
    assert test is not None and test.n == 16 and test.top1 == 1.0


@pytest.mark.slow
def test_training_is_deterministic(cache: Path) -> None:
    brief = config(cache, aux_weight=1.0, schedule=replace(SHORT, epochs=6))
    first, second = (fit(brief, Silent()) for _ in range(2))
    assert first.run.path != second.run.path
    same_run(first.run, second.run)


@pytest.fixture(scope="module")
def whole(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunConfig, Run]:
    chosen = config(cache, schedule=replace(SHORT, epochs=6), seed=2)  # its best round is the fourth
    return chosen, fit(chosen, Silent(), out=tmp_path_factory.mktemp("whole") / "run").run


@pytest.mark.slow
@pytest.mark.parametrize("stop_after", [2, 8])
def test_resumed_run_ends_like_an_uninterrupted_one(
    whole: tuple[RunConfig, Run], tmp_path: Path, stop_after: int
) -> None:
    """Stop after a checkpoint in the fit and in the refit phase, then go on."""
    chosen, run = whole
    with interrupted_after(CHECKPOINT, stop_after), pytest.raises(KeyboardInterrupt):
        fit(chosen, Silent(), out=tmp_path / "stopped")
    assert ("refit" in (tmp_path / "stopped" / "history.jsonl").read_text()) == (stop_after == 8)
    with pytest.raises(InputError, match="--resume"):
        fit(chosen, Silent(), out=tmp_path / "stopped")
    with pytest.raises(InputError, match="another seed"):
        fit(replace(chosen, seed=1), Silent(), out=tmp_path / "stopped", resume=True)
    resumed = fit(chosen, Silent(), out=tmp_path / "stopped", resume=True)
    same_run(run, resumed.run)
    history = [(r.path / "history.jsonl").read_text().count("\n") for r in (run, resumed.run)]
    assert history[0] == history[1]


class Told(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.mark.slow
def test_how_long_it_takes_is_said_before_and_changes_no_byte_of_the_run(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_config = config(cache, "base", BRIEF, preset="paper")
    plain = fit(run_config, Silent(), out=tmp_path / "plain", device="cpu").run
    monkeypatch.setattr(phases, "LEAST_STEPS", 1)
    monkeypatch.setattr(phases, "SAID_FROM_SEC", 0.0)
    told = Told()
    timed = fit(run_config, told, out=tmp_path / "timed", device="cpu").run
    length = r"about \d+(\.\d)? (s|min|h)"
    expected = f"base: preset paper on this CPU: {length} with the refit; --preset small: {length}"
    assert [line for line in told.lines if re.fullmatch(expected, line)], told.lines
    same_run(plain, timed)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "1 s"),
        (89, "89 s"),
        (600, "10 min"),
        (5399, "90 min"),
        (5401, "1.5 h"),
        (86400, "24 h"),
        (259200, "3.0 days"),
    ],
)
def test_lengths_of_time_are_said_in_the_unit_that_suits_them(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


@pytest.mark.slow
def test_streamed_batches_equal_preloaded_ones(cache: Path) -> None:
    brief = config(cache, schedule=replace(SHORT, epochs=6))
    same_run(fit(brief, Silent(), memory="ram").run, fit(brief, Silent(), memory="stream").run)


def test_held_out_part_is_whole_groups_and_the_same_for_every_seed(cache: Path) -> None:
    reader = open_cache(cache)
    protocol = reader.protocol("compositional")
    train = read_examples(reader, protocol, Split.TRAIN)
    division = hold_out(train, protocol, 0.2)
    fitting, held_out = division.fitting, division.held_out
    assert held_out is not None and not division.note
    assert not set(protocol.groups[fitting.clips]) & set(protocol.groups[held_out.clips])
    assert len(fitting) + len(held_out) == len(train) and len(held_out) >= 0.2 * len(train)
    assert not set(held_out.clips) - set(train.clips)
    assert not set(held_out.clips) & set(protocol.clips(Split.TEST))


def test_training_draws_augmented_views_and_tests_never_do(cache: Path) -> None:
    reader = open_cache(cache)
    protocol = reader.protocol("compositional")
    augmented = reader.table("augmented")
    train, test = (read_examples(reader, protocol, s) for s in (Split.TRAIN, Split.TEST))
    drawn = train.draw_rows(np.arange(len(train)), np.random.default_rng(0))
    assert augmented[drawn].any() and not augmented[test.rows[test.plain]].any()


def test_paper_schedule_is_the_papers() -> None:
    appearance = make_plan(ScheduleConfig(kind="paper"), 54_919, reads_appearance=True)
    layout = make_plan(ScheduleConfig(), 54_919, reads_appearance=False)
    assert (appearance.epochs, appearance.steps_per_epoch, appearance.batch_size) == (30, 763, 72)
    rates = [appearance.lr_at(e * 763) for e in (0, 4, 5, 10, 29)]
    np.testing.assert_allclose(rates, [1e-2, 1e-2, 1e-3, 1e-4, 1e-7])
    assert layout.kind == "paper" and layout.epochs == 50
    np.testing.assert_allclose([layout.lr_at(e * 763) for e in (34, 35, 45)], [1e-2, 1e-3, 1e-4])
    assert make_plan(ScheduleConfig(), 300, reads_appearance=True).kind == "stretched"


@pytest.mark.slow
def test_run_takes_and_keeps_the_published_schedule_of_its_head(cache: Path) -> None:
    result = fit(config(cache, schedule=ScheduleConfig(kind="released")), Silent())
    stored = read_config(result.run.path / "config.yaml")
    assert isinstance(stored, RunConfig) and stored.schedule.published == SFI.schedules["released"][""]
    assert (result.plan.kind, result.plan.epochs, result.plan.clip_gradient) == ("released", 20, 5.0)
    assert "released code of Yan et al. 2020" in result.plan.describe()
    same_run(result.run, fit(replace(stored, seed=stored.seed), Silent()).run)


def test_schedule_that_the_head_does_not_have_names_the_nearest(cache: Path) -> None:
    with pytest.raises(InputError, match=r"'relesed', which head 'sfi' does not have .* did you mean 'released'"):
        fit(config(cache, schedule=ScheduleConfig(kind="relesed")), Silent())
    with pytest.raises(InputError, match="Known: auto, stretched, paper"):
        fit(config(cache, "stin-nl", schedule=ScheduleConfig(kind="released")), Silent())


def test_metrics_equal_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(200, 9)).astype(np.float32)
    targets = rng.integers(0, 9, 200)
    ids, kind = np.arange(200).astype(str), SingleLabel()
    m = measure(Predictions(split="t", clip_ids=ids, logits=logits, targets=targets, kind=kind), seed=0, started=0.0)
    assert m.top1 == pytest.approx(top_k_accuracy_score(targets, logits, k=1))
    assert m.top5 == pytest.approx(top_k_accuracy_score(targets, logits, k=5))
    assert m.loss == pytest.approx(log_loss(targets, kind.probabilities(logits), labels=range(9)), abs=1e-6)
    zeros = np.zeros((1, 9), np.float32)
    tied = Predictions(split="t", clip_ids=np.array(["a"]), logits=zeros, targets=np.array([0]), kind=kind)
    assert measure(tied, seed=0, started=0.0).top1 == 0.0


def test_ensemble_is_the_average_of_probabilities(cache: Path) -> None:
    members = [fit(config(cache, head, BRIEF, seed=k), Silent()).run for k, head in enumerate(("base", "sfi"))]
    fused = ensemble([m.path for m in members], weights=[1, 3]).run
    expected = 0.25 * SingleLabel().probabilities(members[0].predictions("test").logits)
    expected += 0.75 * SingleLabel().probabilities(members[1].predictions("test").logits)
    np.testing.assert_allclose(SingleLabel().probabilities(fused.predictions("test").logits), expected, atol=1e-6)
    assert not fused.data().notes
    chosen = choose_weights(members)
    assert sum(chosen) == pytest.approx(1.0)
    assert partner(members[1]) is None
    with pytest.raises(InputError, match="no finished i3d run"):
        ensemble([])
    with pytest.raises(InputError, match="named twice; name each run once"):
        ensemble([members[0].path, members[0].path])


@pytest.mark.slow
def test_ensemble_says_which_member_counts_for_nothing_and_that_one_alone_is_better(
    learned: Run, tmp_path: Path
) -> None:
    good = learned
    test = good.predictions("test")
    bad = replace(good, path=tmp_path / "bad", metrics=[replace(m, top1=0.0) for m in good.metrics])
    wrong = replace(test, logits=-9 * test.logits)
    shown = [good.showing(test), bad.showing(wrong)]
    fused = measure(fuse(shown, "test", [0.5, 0.5]), seed=0, started=0.0)
    assert fusion_notes(shown, [0.5, 0.5], [fused]) == [
        f"worse than its best member: 0.0 against 100.0 of {good.path.name} alone, on 16 test clips"
    ]
    kept = measure(fuse(shown, "test", [1.0, 0.0]), seed=0, started=0.0)
    assert fusion_notes(shown, [1.0, 0.0], [kept]) == ["bad has weight 0: the ensemble is the same without it"]


def test_evaluate_gives_the_stored_logits_and_refuses_another_cache(cache: Path, tmp_path: Path) -> None:
    run = fit(config(cache, schedule=BRIEF), Silent()).run
    result = evaluate(run.path)
    assert result.agrees and result.metrics.top1 == run.metric("test").top1  # type: ignore[union-attr]
    assert sum(c["n"] for c in result.classes) == 16
    root = write_dataset(tmp_path / "other", num_clips=8, pixels=False)
    other = ExtractConfig(dataset="something-else", data_root=root, out=tmp_path / "o.zarr", backbone="none", workers=0)
    extract(other, Silent())
    with pytest.raises(CacheMismatchError, match="was trained from"):
        evaluate(run.path, EvaluateConfig(cache=tmp_path / "o.zarr"))


def test_config_of_a_run_repeats_it(cache: Path, tmp_path: Path) -> None:
    from ifcar.pipelines.runs.finished import read_config

    first = fit(config(cache, schedule=BRIEF, settings={"joint.dropout": 0.1}), Silent()).run
    stored = read_config(first.path / "config.yaml")
    assert isinstance(stored, RunConfig) and stored.options["joint"]["dropout"] == 0.1
    same_run(first, fit(stored, Silent(), out=tmp_path / "again").run)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": "sfii"}, "did you mean 'sfi'"),
        ({"preset": "papr"}, "did you mean 'paper'"),
        ({"streams": "layuot"}, "streams is 'layuot'"),
        ({"aux_weight": -1.0}, "aux-weight is -1"),
        ({"head": "base", "aux_weight": 5.0}, "would be ignored"),
        ({"settings": {"joint.droput": 0.5}}, "did you mean 'dropout'"),
        ({"settings": {"joint.dropout": "high"}}, "expected a finite number"),
        ({"settings": {"lstm_layers": 0}}, "whole number"),
    ],
)
def test_bad_run_options_are_one_clear_line(cache: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        config(cache, **{"head": "sfi", **options})  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("aux_weight", "settings", "message"),
    [
        (0.0, {"prediction": True}, "option prediction is True, but its loss has no weight"),
        (5.0, {"prediction": False}, "option prediction is False, but its loss has a weight"),
    ],
)
def test_option_that_contradicts_the_weight_of_its_loss_is_refused_alone_and_in_a_grid(
    cache: Path, aux_weight: float, settings: dict[str, bool], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        fit(config(cache, aux_weight=aux_weight, settings=settings), Silent())
    system = SystemConfig(name="A", head="sfi", streams="layout", aux_weight=aux_weight, settings=settings)
    with pytest.raises(InputError, match=message):
        plan_grid(GridConfig(name="g", title="", systems=(system,)), cache)


@pytest.mark.parametrize("aux_weight", [0.0, 5.0])
def test_auxiliary_loss_is_there_where_it_has_a_weight(cache: Path, aux_weight: float) -> None:
    chosen = config(cache, aux_weight=aux_weight, schedule=ScheduleConfig(kind="paper", epochs=1))
    run = fit(chosen, Silent()).run
    assert ("prediction_loss" in (run.path / "history.jsonl").read_text()) == bool(aux_weight)
    same = config(cache, aux_weights={"prediction": aux_weight}, settings={"prediction": bool(aux_weight)})
    assert (same.aux_weights, same.options) == (chosen.aux_weights, chosen.options)
    assert "prediction" not in chosen.options


@pytest.mark.parametrize("aux_weight", [0.0, 5.0])
def test_config_that_still_names_its_auxiliary_losses_among_the_options_is_the_same_run(
    cache: Path, tmp_path: Path, aux_weight: float
) -> None:
    reader = open_cache(cache)
    chosen = config(cache, aux_weight=aux_weight)
    chosen = resolve(chosen, reader, reader.protocol(chosen.protocol))
    write_config(tmp_path, chosen)
    stated = yaml.safe_load((tmp_path / "config.yaml").read_text())
    stated["options"]["prediction"] = bool(aux_weight)
    del stated["schedule"]["published"]
    stated["schedule"]["weight_decay"] = 1e-4
    assert run_id(chosen) == id_of(stated)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(stated))
    read = read_config(tmp_path / "config.yaml")
    assert isinstance(read, RunConfig) and read.options == chosen.options and run_id(read) == run_id(chosen)
    stated["options"]["prediction"] = not aux_weight
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(stated))
    with pytest.raises(InputError, match="option prediction is"):
        read_config(tmp_path / "config.yaml")


# what an earlier run did not state
NEW = tuple((key, None) for key in ("live", "labels", "views", "augmented_views", "distil_from"))


def id_of(stated: dict[str, object]) -> str:
    """The id of a run from a cache as it was before losses and schedules were heads': of all but where files lie."""
    content = {key: value for key, value in stated.items() if key != "cache" and (key, value) not in NEW}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def test_options_that_earlier_runs_do_not_know_leave_their_ids_as_they_are(cache: Path) -> None:
    reader = open_cache(cache)
    later = {"motion", "attention_scale", "embedding_scale"}
    for preset, known in (("small", set()), ("tuned", later)):
        chosen = config(cache, "stlt", preset=preset, streams=None)
        chosen = resolve(chosen, reader, reader.protocol(chosen.protocol))
        assert without_places(chosen)["options"]["layout"].keys() & later == known


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"aux_weights": {"predicton": 5.0}}, "no auxiliary loss 'predicton', did you mean 'prediction'"),
        ({"aux_weights": {"prediction": -5.0}}, "weight of the auxiliary loss 'prediction' is -5"),
        ({"aux_weights": {"prediction": float("nan")}}, "weight of the auxiliary loss 'prediction' is nan"),
        ({"aux_weights": {"prediction": 5.0}, "aux_weight": 5.0}, "give one of them"),
        ({"head": "base", "aux_weights": {"prediction": 5.0}}, "'base' has no auxiliary loss 'prediction'"),
    ],
)
def test_weights_that_mean_nothing_are_one_clear_line(cache: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        config(cache, **options)  # type: ignore[arg-type]


def test_weight_of_an_auxiliary_loss_that_the_head_lacks_is_refused(cache: Path) -> None:
    with pytest.raises(InputError, match="'base' has no auxiliary loss 'prediction'"):
        fit(replace(config(cache, "base"), aux_weights={"prediction": 5.0}), Silent())


def test_appearance_head_on_boxes_only_says_what_to_do(cache: Path) -> None:
    with pytest.raises(CacheMismatchError, match="--streams layout"):
        fit(config(cache, streams="both"), Silent())
    assert default_protocol(cache) == "compositional"


def test_run_starts_from_another_s_parts_where_they_are_alike(cache: Path, tmp_path: Path) -> None:
    base = fit(config(cache, schedule=replace(SHORT, epochs=1)), Silent()).run.path
    words = ["fit-head", "sfi", "--streams", "layout", "--preset", "small", "--cache", str(cache)]
    brief = ["--schedule", "stretched", "--epochs", "1", "--batch-size", "8", "--json"]
    with pytest.raises(SystemExit) as done:
        main(
            [
                *words,
                *brief,
                "--set",
                "temporal_dim=32",
                "--start",
                str(base),
                "--part",
                "joint",
                "--out",
                str(tmp_path / "r"),
            ]
        )
    assert not done.value.code
    (note,) = (n for n in open_run(tmp_path / "r").data().notes if "another run's" in n)
    assert "weights of joint are another run's" in note and "classifier.weight" in note and "joint." not in note
    start = FineTuneConfig(base=base, parts=("temporal",), train="all")
    other = replace(config(cache, settings={"temporal_dim": 32}), fine_tune=start)
    with pytest.raises(
        InputError, match=r"has no temporal\.3\.weight of the shape \(32, 64\) \(.* of part 'temporal'\)"
    ):
        fit(other, Silent())
    with pytest.raises(
        InputError, match="another temporal_dim than the run that is to start from it; name what both have"
    ):
        fit(replace(other, fine_tune=replace(start, parts=())), Silent())
    with pytest.raises(InputError, match="what is not taken from the other run has to train"):
        replace(start, train="classifier")


def test_part_without_a_run_to_take_it_from_is_refused(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(["fit-head", "sfi", "--cache", str(cache), "--part", "joint"])
    assert done.value.code == 2 and "name it with --start" in capsys.readouterr().err


def test_run_whose_prediction_has_one_step_says_so(cache: Path, tmp_path: Path) -> None:
    options = ExtractConfig(
        dataset="something-else",
        data_root=cache.parent / "d",
        out=tmp_path / "two.zarr",
        backbone="none",
        frames=2,
        workers=0,
    )
    extract(options, Silent())
    brief = ScheduleConfig(kind="stretched", epochs=1, refit=False)
    run = fit(config(tmp_path / "two.zarr", schedule=brief, aux_weight=1.0), Silent(), out=tmp_path / "run").run
    assert [note for note in run.data().notes if "one step to predict: T′ is 2, of which 1 is observed" in note]
    run = fit(config(tmp_path / "two.zarr", schedule=brief), Silent(), out=tmp_path / "without").run
    assert not [note for note in run.data().notes if "predict" in note]


@pytest.mark.slow
def test_a_plateaus_rate_follows_from_the_runs_own_losses_and_goes_on_after_a_stop(cache: Path, tmp_path: Path) -> None:
    published = replace(RAI, epochs=14, lr=1e-7, least_lr=1e-9, patience=2)  # so slow that only chance lowers a loss
    chosen = config(cache, "stin", ScheduleConfig(kind="paper", published=published, batch_size=8))
    run = fit(chosen, Silent(), out=tmp_path / "run").run
    history = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=published.lr)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=2, min_lr=published.least_lr)
    for record in history:
        assert record["lr"] == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        theirs.step(record["classification_loss"])
    assert history[-1]["lr"] < history[0]["lr"]
    with interrupted_after(CHECKPOINT, 9), pytest.raises(KeyboardInterrupt):
        fit(chosen, Silent(), out=tmp_path / "stopped")
    same_run(run, fit(chosen, Silent(), out=tmp_path / "stopped", resume=True).run)
