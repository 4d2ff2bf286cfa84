"""Several labels a clip: loss, mean average precision, and the whole way from a cache to a table."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fixtures.something_else import box_at, write_dataset
from sklearn.metrics import average_precision_score

from ifcar.cache.open import open_cache
from ifcar.cache.protocols import LabelSpace
from ifcar.cache.schema import Provenance
from ifcar.cache.writer import CacheWriter
from ifcar.cli import main
from ifcar.errors import InputError
from ifcar.pipelines.comparison.results import Replicate, System, summarise
from ifcar.pipelines.ensemble import choose_weights, ensemble
from ifcar.pipelines.evaluate import evaluate
from ifcar.pipelines.extract import extract
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.fit import fit
from ifcar.pipelines.labels.contract import LabelKind
from ifcar.pipelines.labels.kinds import MultiLabel, SingleLabel
from ifcar.pipelines.labels.mean_ap import class_precisions, mean_average_precision
from ifcar.pipelines.progress import Silent
from ifcar.pipelines.runs.config import RunConfig
from ifcar.pipelines.runs.resolve import make_run_config
from ifcar.pipelines.runs.schedule import ScheduleConfig
from ifcar.pipelines.scoring.pooling import pool_views

NAMES = ("moves left", "moves right", "lies low", "never seen")
SHORT = ScheduleConfig(kind="stretched", min_steps=60, batch_size=8)
BRIEF = ScheduleConfig(kind="stretched", epochs=3, batch_size=8)
"""For what needs a run, and none that has learned."""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Boxes of 32 clips with a multi-label protocol: direction, height, and for every eighth clip no label at all."""
    root = write_dataset(tmp_path_factory.mktemp("data") / "d", num_clips=32, pixels=False)
    out = root.parent / "boxes.zarr"
    extract(
        ExtractConfig(dataset="something-else", data_root=root, out=out, backbone="none", workers=0, views=4), Silent()
    )
    reader = open_cache(out)
    single = reader.protocol("compositional")
    clips = [int(name) - 100 for name in reader.clip_ids]
    labels = np.array([[c % 2 == 0, c % 2 == 1, box_at(c, 0)[1] >= 9, False] for c in clips], np.uint8)
    labels[np.array(clips) % 8 == 5] = 0
    multi = replace(single, name="many", spaces=(LabelSpace(kind="multi", classes=NAMES, targets=labels),))
    CacheWriter.resume(
        out,
        spec=reader.spec,
        provenance=Provenance(identity=reader.identity, environment=reader.environment),
        clip_ids=reader.clip_ids,
        num_views=4,
        protocols=[multi, single],
    )
    reader.close()
    return out


@pytest.fixture(autouse=True)
def runs_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IFCAR_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


def config(cache: Path, head: str = "stin", seed: int = 0, schedule: ScheduleConfig = SHORT) -> RunConfig:
    return make_run_config(
        head, cache, protocol="many", streams="layout", preset="small", schedule=schedule, seed=seed, settings={}
    )


def test_precision_of_four_clips_is_what_a_hand_counts() -> None:
    labels = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 0]])
    logits = np.array([[3.0, 0.0, 1.0], [2.0, 0.0, 1.0], [1.0, 0.0, 1.0], [9.0, 9.0, 9.0]])
    # class 0 ranks clips 0, 1, 2 (the unlabelled clip 3 goes last): hits at ranks 1 and 3, (1/1 + 2/3) / 2
    # class 1 is tied and keeps the clips' order 0, 1, 2: its hit is at rank 2; class 2 has no positive clip
    found = class_precisions(logits, labels)
    np.testing.assert_allclose(found[:2], [(1 + 2 / 3) / 2, 1 / 2])
    assert np.isnan(found[2])
    assert mean_average_precision(logits, labels) == pytest.approx((5 / 6 + 1 / 2) / 2)
    assert mean_average_precision(logits, labels, weighted=True) == pytest.approx((2 * 5 / 6 + 1 / 2) / 3)
    with pytest.raises(InputError, match="none of 4 clips has a label"):
        mean_average_precision(logits, np.zeros_like(labels))


def test_precision_without_ties_and_unlabelled_clips_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(80, 12)).astype(np.float32), (rng.random((80, 12)) < 0.2).astype(np.uint8)
    labels[~labels.any(axis=1), 0] = 1
    assert mean_average_precision(logits, labels) == pytest.approx(average_precision_score(labels, logits))
    weighted = average_precision_score(labels, logits, average="weighted")
    assert mean_average_precision(logits, labels, weighted=True) == pytest.approx(weighted)


def test_precision_is_that_of_charades_script_by_a_literal_loop() -> None:
    """Scores with ties, clips without labels, 157 classes: rank, walk down, average the precision at each hit."""
    rng = np.random.default_rng(4)
    logits, labels = rng.normal(size=(120, 157)).round(1), (rng.random((120, 157)) < 0.05).astype(np.uint8)
    labels[::9] = 0
    labels[1] = 1
    expected = []
    for k in range(157):
        scores = [logits[n, k] if labels[n].sum() else -np.inf for n in range(120)]
        total = hits = 0.0
        for rank, n in enumerate(sorted(range(120), key=lambda n: -scores[n]), 1):
            if labels[n, k]:
                hits += 1
                total += hits / rank
        expected.append(total / labels[:, k].sum())
    np.testing.assert_allclose(class_precisions(logits, labels), expected)
    assert mean_average_precision(logits, labels) == pytest.approx(sum(expected) / 157)
    weighted = sum(ap * n for ap, n in zip(expected, labels.sum(0), strict=True)) / labels.sum()
    assert mean_average_precision(logits, labels, weighted=True) == pytest.approx(weighted)


def test_class_loss_is_the_binary_cross_entropy_of_a_literal_loop() -> None:
    rng = np.random.default_rng(2)
    logits, labels = rng.normal(size=(2, 3, 4)), rng.integers(0, 2, (2, 3, 4))
    each = MultiLabel().class_loss(torch.from_numpy(logits), torch.from_numpy(labels), label_smoothing=0.1)
    for m in range(2):
        for b in range(3):
            total = 0.0
            for k in range(4):
                p, t = 1 / (1 + np.exp(-logits[m, b, k])), labels[m, b, k] * 0.9 + 0.05
                total -= t * np.log(p) + (1 - t) * np.log(1 - p)
            assert each[m, b].item() == pytest.approx(total / 4)
    plain = F.binary_cross_entropy_with_logits(torch.from_numpy(logits[0]), torch.from_numpy(labels[0]).double())
    assert MultiLabel().mean_loss(logits[0], labels[0]) == pytest.approx(plain.item())


def test_views_are_pooled_by_mean_of_logits_or_maximum_or_sum_of_probabilities() -> None:
    rng = np.random.default_rng(3)
    logits, clip = rng.normal(size=(5, 4)).astype(np.float32), np.array([0, 0, 0, 1, 1])
    kinds: tuple[LabelKind, ...] = (MultiLabel(), SingleLabel())
    for kind in kinds:
        p = kind.probabilities(logits)
        by_clip = [p[:3], p[3:]]
        pooled = {pool: pool_views(logits, clip, 2, pool, kind) for pool in ("mean", "max", "sum")}  # type: ignore[arg-type]
        np.testing.assert_allclose(pooled["mean"], [logits[:3].mean(0), logits[3:].mean(0)], rtol=1e-6)
        shown = kind.probabilities(pooled["sum"])
        np.testing.assert_allclose(shown, [part.mean(0) for part in by_clip], rtol=1e-5)
        highest = np.exp(pooled["max"]) if kind.exclusive else kind.probabilities(pooled["max"])
        np.testing.assert_allclose(highest, [part.max(0) for part in by_clip], rtol=1e-5)


@pytest.mark.slow
def test_run_learns_labels_and_stores_map_alone(cache: Path) -> None:
    run = fit(config(cache), Silent()).run
    records = json.loads((run.path / "metrics.json").read_text())
    assert [r["split"] for r in records] == ["train", "test", "held_out"]
    assert all({"map", "loss", "n"} <= r.keys() and not {"top1", "top5"} & r.keys() for r in records)
    test = run.metric("test")
    assert test is not None and test.n == 16 and test.primary > 0.8
    stored = run.predictions("test")
    assert stored.targets.shape == (16, 4)
    history = [json.loads(line) for line in (run.path / "history.jsonl").read_text().splitlines()]
    fitted = [r for r in history if r["phase"] == "fit"]
    assert all("held_out_map" in r and "held_out_top1" not in r for r in fitted)
    best = max(fitted, key=lambda r: (r["held_out_map"], -r["held_out_loss"]))
    held_out = run.metric("held_out")
    assert held_out is not None and held_out.map == pytest.approx(best["held_out_map"], abs=1e-6)
    result = evaluate(run.path)
    assert result.agrees and result.metrics.map == test.map
    shown = {row["class"]: row["n"] for row in result.classes}
    assert shown == {name: n for name, n in zip(NAMES, stored.targets.sum(0), strict=True) if n}
    weighted = mean_average_precision(stored.logits, stored.targets, weighted=True)
    assert test.weighted_map == result.metrics.weighted_map == pytest.approx(weighted, abs=1e-6)


@pytest.mark.slow
def test_runs_in_a_fleet_equal_runs_alone(cache: Path, tmp_path: Path) -> None:
    from ifcar.pipelines.training.jobs import Job
    from ifcar.pipelines.training.together import FitResult, fit_together

    alone = [fit(config(cache, seed=seed, schedule=BRIEF), Silent()).run for seed in (0, 1)]
    jobs = [Job(config=config(cache, seed=seed, schedule=BRIEF), path=tmp_path / f"s{seed}") for seed in (0, 1)]
    for own, result in zip(alone, fit_together(jobs, tmp_path, Silent()), strict=True):
        assert isinstance(result, FitResult)
        together, apart = (
            [json.loads(line)["classification_loss"] for line in (run.path / "history.jsonl").read_text().splitlines()]
            for run in (result.run, own)
        )
        assert together == pytest.approx(apart, rel=1e-3) and together[0] == pytest.approx(apart[0], rel=1e-4)


@pytest.mark.slow
def test_ensembles_average_sigmoids_and_tables_rank_by_map(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [fit(config(cache, head, schedule=BRIEF), Silent()).run for head in ("stin", "base")]
    fused = ensemble([run.path for run in runs], weights=[0.25, 0.75]).run
    parts = [MultiLabel().probabilities(run.predictions("test").logits) for run in runs]
    found = MultiLabel().probabilities(fused.predictions("test").logits)
    np.testing.assert_allclose(found, 0.25 * parts[0] + 0.75 * parts[1], atol=1e-6)
    assert sum(choose_weights(runs)) == pytest.approx(1.0)

    systems = [
        System(name=run.config.head, protocol="many", replicates=[Replicate(seed=0, runs=[run])]) for run in runs
    ]
    rows = summarise(systems, baseline="base")
    for row, run in zip(rows, runs, strict=True):
        stored = run.predictions("test")
        assert row.metric == "map" and row.top5 == () and row.n == 16
        assert row.primary[0] == pytest.approx(mean_average_precision(stored.logits, stored.targets))
        assert row.weighted_map == pytest.approx((run.metric("test").weighted_map,), abs=1e-9)  # type: ignore[union-attr]
        assert row.interval[0] <= row.population <= row.interval[1] and row.population <= row.primary[0] + 1e-9
    assert rows[0].against is not None
    assert rows[0].against.difference == pytest.approx(rows[0].population - rows[1].population)
    with pytest.raises(InputError, match="one class a clip"):
        summarise(systems, baseline="base", paired_test="mcnemar")
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", str(runs[0].path), "--pool", "max"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert "weighted mAP" in printed and "top-1" not in printed
    for words in ([], ["--json"]):
        with pytest.raises(SystemExit):
            main(["compare", str(runs[1].path), str(runs[0].path), *words])
    printed, _, answer = capsys.readouterr().out.partition("{")
    scores = json.loads("{" + answer)["scores"]
    assert "n → ∞" in printed and f"{100 * rows[1].population:.1f} " in printed  # narrow tables break titles
    assert [score["population"] for score in scores] == pytest.approx([rows[1].population, rows[0].population])
    assert scores[1]["against"]["difference"] == pytest.approx(scores[1]["population"] - scores[0]["population"])


def test_labels_other_than_0_and_1_are_refused(tmp_path: Path, cache: Path) -> None:
    reader = open_cache(cache)
    table = reader.protocol("many")
    doubled = replace(table, spaces=(replace(table.labels, targets=table.labels.targets * 2),))
    with pytest.raises(InputError, match="targets of labels lie in"):
        CacheWriter.create(
            tmp_path / "c.zarr",
            spec=reader.spec,
            provenance=Provenance(identity={}),
            clip_ids=reader.clip_ids,
            num_views=4,
            protocols=[doubled],
        )
