"""Statistics over clips against other implementations and by hand, and what the tables say."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom, bootstrap

from ifcar.cache.arrays import CacheSpec
from ifcar.errors import InputError
from ifcar.pipelines.comparison.formats import caption, cells, latex, markdown, numbers
from ifcar.pipelines.comparison.results import Replicate, System, summarise
from ifcar.pipelines.comparison.statistics import bootstrap_interval, holm, mcnemar, paired_bootstrap
from ifcar.pipelines.comparison.store import Comparison, read_comparison, write_comparison
from ifcar.pipelines.ensemble import ensemble
from ifcar.pipelines.labels.kinds import SingleLabel
from ifcar.pipelines.progress import Silent
from ifcar.pipelines.report.config import ReportConfig
from ifcar.pipelines.report.report import report
from ifcar.pipelines.runs.config import RunConfig
from ifcar.pipelines.runs.data import RunData, write_run_data
from ifcar.pipelines.runs.finished import Run, write_config, write_results
from ifcar.pipelines.scoring.scores import Predictions, measure, pooled_units

NUM_CLIPS = 60


def made_run(
    folder: Path,
    name: str,
    accuracy: float,
    seed: int,
    num_clips: int = NUM_CLIPS,
    parts: Sequence[str] = ("train", "test"),
    groups: Sequence[int] | None = None,
) -> Run:
    """Return a run folder whose predictions are right with this probability."""
    rng = np.random.default_rng([seed, len(name)])
    targets = np.arange(num_clips) % 7
    logits = rng.normal(size=(num_clips, 7)).astype(np.float32)
    right = rng.random(num_clips) < accuracy
    logits[right, targets[right]] += 20
    logits[~right, targets[~right]] -= 20
    ids = np.array([f"clip{k}" for k in range(num_clips)])
    shared: dict[str, Any] = {"clip_ids": ids, "logits": logits, "targets": targets, "kind": SingleLabel()}
    shared["groups"] = None if groups is None else np.array(groups)
    predictions = [Predictions(split=s, **shared) for s in parts]
    metrics = [measure(p, seed=seed, started=0.0) for p in predictions]
    path = folder / f"{name}-{seed}"
    path.mkdir(parents=True)
    config = RunConfig(head="base", cache=Path("c.zarr"), protocol="compositional", seed=seed)
    write_config(path, config)
    spec = CacheSpec.standard(num_frames=2, num_steps=1, num_instances=1)
    facts = {"classes": tuple("abcdefg"), "num_train": num_clips, "num_test": num_clips, "group_kind": "subject"}
    write_run_data(path, RunData(spec=spec, identity={}, protocol="compositional", **facts))  # type: ignore[arg-type]
    write_results(path, predictions, metrics)
    return Run(path=path, config=config, metrics=metrics)


def system(folder: Path, name: str, accuracy: float, seeds: int = 3, **options: object) -> System:
    runs = [made_run(folder, name, accuracy, seed) for seed in range(seeds)]
    replicates = [Replicate(seed=k, runs=[run]) for k, run in enumerate(runs)]
    return System(name=name, protocol="compositional", replicates=replicates, **options)  # type: ignore[arg-type]


def right_matrix(one: System) -> np.ndarray:
    """Return (S, n) by a loop over clips, independently of the code under test."""
    rows = []
    for replicate in one.replicates:
        p = replicate.runs[0].predictions("test")
        rows.append([float(np.argmax(row) == target) for row, target in zip(p.logits, p.targets, strict=True)])
    return np.array(rows)


def test_interval_is_the_percentile_bootstrap_over_clips() -> None:
    values = np.random.default_rng(1).integers(0, 4, 150) / 3
    low, high = bootstrap_interval(values)
    expected = bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=0).confidence_interval
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.004)


def test_paired_bootstrap_finds_a_difference_and_no_other() -> None:
    rng = np.random.default_rng(2)
    one, noise = (rng.random(400) < 0.6).astype(float), (rng.random(400) < 0.1).astype(float)
    better = np.maximum(one, noise)
    found = paired_bootstrap(better, one)
    assert found.difference == pytest.approx(better.mean() - one.mean()) and found.low > 0 and found.p < 0.001
    assert found.p > 0  # never 0
    same = paired_bootstrap(one, one)
    assert (same.difference, same.low, same.high, same.p) == (0.0, 0.0, 0.0, 1.0)
    mirrored = paired_bootstrap(one, better)
    assert mirrored.difference == -found.difference and mirrored.p < 0.001


@pytest.mark.slow
def test_false_alarms_of_the_paired_bootstrap_are_about_one_in_twenty() -> None:
    rng = np.random.default_rng(3)
    alarms = [paired_bootstrap(*(rng.random((2, 300)) < 0.5).astype(float)).p < 0.05 for _ in range(300)]
    assert 0.02 < np.mean(alarms) < 0.09


def test_mcnemar_is_the_exact_binomial_test_on_discordant_clips() -> None:
    ours = np.array([1.0] * 9 + [0.0] * 2 + [1.0] * 30 + [0.0] * 5)
    other = np.array([0.0] * 9 + [1.0] * 2 + [1.0] * 30 + [0.0] * 5)
    by_hand = 2 * binom.cdf(2, 11, 0.5)
    assert mcnemar(ours, other).p == pytest.approx(by_hand) == pytest.approx(0.0654296875)
    with pytest.raises(ValueError, match="several seeds"):
        mcnemar(ours / 2, other)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_rows_hold_what_a_loop_over_clips_finds(tmp_path: Path) -> None:
    systems = [system(tmp_path, "plain", 0.5), system(tmp_path, "better", 0.9), system(tmp_path, "equal!", 0.5)]
    rows = summarise(systems, baseline="plain")
    for one, row in zip(systems, rows, strict=True):
        matrix = right_matrix(one)
        assert row.primary == pytest.approx(tuple(matrix.mean(axis=1))) and row.n == NUM_CLIPS
        assert row.interval[0] <= matrix.mean() <= row.interval[1]
        assert row.train_primary == pytest.approx(row.primary)
    assert rows[0].against is None and rows[1].against is not None and rows[1].against.low > 0
    p = [rows[k].against.p for k in (1, 2)]  # type: ignore[union-attr]
    assert [rows[1].p_corrected, rows[2].p_corrected] == pytest.approx(holm(p))


def test_pooled_protocols_put_their_test_clips_together(tmp_path: Path) -> None:
    parts = [made_run(tmp_path, "a", 0.2, 0, 10), made_run(tmp_path, "bb", 0.9, 0, 30)]
    pooled = System(name="x", protocol="all", replicates=[Replicate(seed=0, runs=parts)])
    (row,) = summarise([pooled])
    right = sum(m.top1 * m.n for part in parts for m in part.metrics if m.split == "test")
    assert row.n == 40 and row.primary[0] == pytest.approx(right / 40)


def test_intervals_draw_subjects_whole_and_the_caption_says_so(tmp_path: Path) -> None:
    plain = made_run(tmp_path / "plain", "a", 0.6, 0)
    grouped = made_run(tmp_path / "grouped", "a", 0.6, 0, groups=[k // 10 for k in range(NUM_CLIPS)])
    by_name = {
        run.path.parent.name: summarise([System(name="x", protocol="p", replicates=[Replicate(seed=0, runs=[run])])])
        for run in (plain, grouped)
    }
    stored = grouped.predictions("test")
    assert by_name["plain"][0].num_units == NUM_CLIPS and by_name["plain"][0].unit == "clip"
    (row,) = by_name["grouped"]
    assert (row.num_units, row.unit) == (6, "subject")
    right = (stored.logits.argmax(axis=1) == stored.targets).astype(float)
    assert row.interval == bootstrap_interval(right, np.repeat(np.arange(6), 10))
    facts: dict[str, Any] = {"title": "T", "dataset": "d", "baseline": "", "paired_test": "bootstrap", "notes": ()}
    text = caption(Comparison(name="t", rows=(row,), **facts))
    assert "95 % interval of the mean over 6 subjects, whose clips are taken together" in text
    # one subject of each of two pooled protocols is two subjects; one alone says nothing of others
    one, two = (made_run(tmp_path / f"fold{k}", "a", 0.6, 0, 20, groups=[k] * 20).predictions("test") for k in (0, 1))
    assert [len(np.unique(pooled_units(parts)[0])) for parts in ([one, two], [one])] == [2, 20]
    some = made_run(tmp_path / "some", "a", 0.6, 0, 6, groups=[0, 0, 1, 1, -1, -1]).predictions("test")
    assert len(np.unique(pooled_units([some])[0])) == 4


def test_results_of_an_earlier_version_are_read_where_their_intervals_mean_the_same(tmp_path: Path) -> None:
    rows = tuple(summarise([system(tmp_path, "plain", 0.5)]))
    facts: dict[str, Any] = {"title": "T", "dataset": "d", "baseline": "", "paired_test": "bootstrap", "notes": ()}
    path = write_comparison(tmp_path, Comparison(name="t", rows=rows, **facts))
    content = json.loads(path.read_text())
    for name in ("population", "num_units", "unit"):
        del content["rows"][0][name]
    path.write_text(json.dumps(content))
    (row,) = read_comparison(tmp_path).rows
    assert row.interval == rows[0].interval and row.population == pytest.approx(rows[0].population)
    content["rows"][0]["metric"] = "map"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="earlier version made it, whose intervals of mAP"):
        read_comparison(tmp_path)


def test_different_test_clips_are_not_compared(tmp_path: Path) -> None:
    short = System(
        name="short",
        protocol="compositional",
        replicates=[Replicate(seed=0, runs=[made_run(tmp_path, "s", 0.5, 0, 20)])],
    )
    with pytest.raises(InputError, match="different clips"):
        summarise([system(tmp_path, "plain", 0.5), short], baseline="plain")
    with pytest.raises(InputError, match="single runs"):
        summarise(
            [system(tmp_path / "m", "p", 0.5), system(tmp_path / "m", "qq", 0.6)], baseline="p", paired_test="mcnemar"
        )


def test_tables_escape_names_and_print_published_figures_only_where_given(tmp_path: Path) -> None:
    named = system(tmp_path, "plain", 0.5)
    odd = system(tmp_path, "50 % of a_b | <b> & λ", 0.9, published={"top1": 59.6, "top5": 85.8})
    comparison = Comparison(
        name="t",
        title="T & T",
        dataset="d",
        baseline="plain",
        paired_test="bootstrap",
        notes=("one failed",),
        rows=tuple(summarise([named, odd], baseline="plain")),
    )
    write_comparison(tmp_path, comparison)
    assert read_comparison(tmp_path) == comparison
    header, rows = cells(comparison)
    assert header[-1] == "published top-5" and rows[1][-2:] == ["59.6", "85.8"] and rows[0][-2:] == ["–", "–"]
    assert rows[0][header.index("p (Holm)")] == "–" and rows[1][header.index("p (Holm)")] == "< 0.001"
    assert r"50 \% of a\_b | $<$b$>$ \& $\lambda$" in latex(comparison)
    assert r"a_b \| <b>" in markdown(comparison) and "- one failed" in markdown(comparison)
    lines = list(csv.DictReader(io.StringIO(numbers(comparison))))
    assert float(lines[1]["top1_mean"]) == pytest.approx(np.mean(right_matrix(odd)))
    assert float(lines[1]["top1_std"]) == pytest.approx(np.std(right_matrix(odd).mean(axis=1), ddof=1))
    assert [lines[0]["p"], lines[0]["published_top1_percent"]] == ["", ""]


@pytest.fixture
def opened() -> Iterator[Counter[str]]:
    """Count how often each file of predictions is opened; a hook of the interpreter cannot be taken away again."""
    counts: Counter[str] = Counter()
    counting = [True]

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        if counting[0] and event == "open" and str(arguments[0]).endswith("predictions.npz"):
            counts[str(arguments[0])] += 1

    sys.addaudithook(count)
    yield counts
    counting[0] = False


@pytest.mark.slow
def test_report_opens_the_predictions_of_each_run_once(tmp_path: Path, opened: Counter[str]) -> None:
    runs = [made_run(tmp_path, name, share, seed) for name, share in (("a", 0.5), ("b", 0.9)) for seed in (0, 1)]
    opened.clear()
    result = report([run.path for run in runs], Silent(), ReportConfig(out=tmp_path / "page"))
    assert result.figures and opened == {str(run.path / "predictions.npz"): 1 for run in runs}


def test_ensemble_opens_the_predictions_of_each_member_once_a_part(tmp_path: Path, opened: Counter[str]) -> None:
    """Weights are tried on the held-out part 63 times a member."""
    members = [made_run(tmp_path, name, 0.7, 0, parts=("train", "held_out", "test")) for name in ("a", "b")]
    opened.clear()
    ensemble([member.path for member in members], weights="held_out", out=tmp_path / "fused")
    assert [opened[str(member.path / "predictions.npz")] for member in members] == [3, 3]
