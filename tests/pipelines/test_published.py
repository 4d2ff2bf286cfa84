"""The papers' figures: one source, with lines of shipped grids behind them, and never beside figures of other data."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from ifcar.cache.arrays import CacheSpec
from ifcar.cli import app
from ifcar.errors import InputError
from ifcar.pipelines.compare import compare
from ifcar.pipelines.comparison.results import Replicate, System, summarise
from ifcar.pipelines.comparison.store import Comparison, write_comparison
from ifcar.pipelines.grid.config import read_grid, shipped_grids
from ifcar.pipelines.grid.variants import expand
from ifcar.pipelines.labels.kinds import SingleLabel
from ifcar.pipelines.progress import Silent
from ifcar.pipelines.published.cards import NOT_RUN, comparisons_here, table_cards
from ifcar.pipelines.published.tables import published, published_row, published_table
from ifcar.pipelines.report.config import ReportConfig
from ifcar.pipelines.report.report import report
from ifcar.pipelines.runs.config import RunConfig
from ifcar.pipelines.runs.data import RunData, write_run_data
from ifcar.pipelines.runs.facts import Fact
from ifcar.pipelines.runs.finished import Run, write_config, write_results
from ifcar.pipelines.scoring.scores import Predictions, measure

IDENTITY = {
    "dataset": {"name": "something-else"}, "backbone": {"name": "i3d_r50"}, "views": {"num_frames": 16}
}  # fmt: skip
TABLE = "yan2020-table1"


def made_run(place: Path, seed: int, num_test: int = 57876, **identity: object) -> Run:
    """Return a run on 57,876 test clips, as its data say, that kept the predictions of twenty."""
    targets = np.arange(20) % 2
    logits = np.eye(2, dtype=np.float32)[np.where(np.arange(20) < 12 + seed, targets, 1 - targets)]
    ids = np.array([f"clip{k}" for k in range(20)])
    part = Predictions(split="test", clip_ids=ids, logits=logits, targets=targets, kind=SingleLabel())
    path = place / "runs" / f"sfi-{seed}"
    path.mkdir(parents=True)
    config = RunConfig(head="sfi", cache=Path("c.zarr"), protocol="compositional", seed=seed)
    metrics = [measure(part, seed=seed, started=0.0)]
    write_config(path, config)
    data = RunData(
        spec=CacheSpec.standard(num_frames=2, num_steps=1, num_instances=1),
        identity={**IDENTITY, **identity},
        protocol="compositional",
        classes=tuple(map(str, range(174))),
        num_train=54919,
        num_test=num_test,
    )
    write_run_data(path, data)
    write_results(path, [part], metrics)
    return Run(path=path, config=config, metrics=metrics)


def made_comparison(place: Path, **changes: object) -> Comparison:
    runs = [made_run(place, seed, **changes) for seed in (0, 1)]  # type: ignore[arg-type]
    replicates = [Replicate(seed=seed, runs=[run]) for seed, run in enumerate(runs)]
    rows = summarise([System(name="SFI", protocol="compositional", replicates=replicates)])
    comparison = Comparison(
        name="mine", title="", dataset="something-else", baseline="", paired_test="bootstrap", notes=(),
        rows=tuple(rows), published_table=TABLE,
    )  # fmt: skip
    (place / "runs" / "mine").mkdir()
    write_comparison(place / "runs" / "mine", comparison)
    return comparison


def test_every_row_that_names_a_line_has_that_line_in_the_grid_that_reads_the_table() -> None:
    for table in published().tables:
        if not table.grid:
            assert not any(row.system for row in table.rows), table.name
            continue
        grid = read_grid(Path(table.grid))
        assert grid.published_table == table.name
        lines = {variant.name for system in grid.systems for variant in expand(system)}
        lines |= {fusion.name for fusion in grid.ensembles}
        assert {row.line for row in table.rows if row.line} <= lines, table.name


def test_no_shipped_grid_has_figures_of_its_own_and_no_row_is_named_twice() -> None:
    for name in shipped_grids():
        grid = read_grid(Path(name))
        assert not any(line.published for line in (*grid.systems, *grid.ensembles)) and grid.published_on is None
    tables = published().tables
    assert len({table.name for table in tables}) == len(tables)
    for table in tables:
        names = [row.name for row in table.rows]
        assert len({*names}) == len(names) and published().paper(table).year > 2000
        assert all(0 < value < 100 for row in table.rows for value in row.figures.values())


@pytest.mark.parametrize(
    ("name", "figures"),
    [
        ("yan2020-table1:Ours-SFI + Pred", {"top1": 59.6, "top5": 85.8}),
        ("yan2020-table4:Ours-SFI", {"map": 25.2}),
        ("baradel2018-table2-epic:COCO, 2 heads", {"top1": 40.89}),
        ("wang2018-table2:Joint GCN", {"map": 36.2}),
        (
            "rai2021-table6:cooperative compositional, ego",
            {"top1@ego/activity": 34.9, "map@ego/atomic": 29.3},
        ),
        ("rai2021-table4:cooperative, audio", {"weighted_map@audio/atomic": 13.2}),
        ("rai2021-table7:CCAU, 20 shots", {"map@fewshot-20": 49.4}),
        ("zhang-table3:c, complete", {"map": 49.2}),
    ],
)
def test_figures_are_those_of_the_papers(name: str, figures: dict[str, float]) -> None:
    assert published_row(name)[1].figures == figures


def test_figures_of_a_line_are_those_of_all_its_rows_and_those_over_splits_stand_beside_no_split() -> None:
    table = published_table("rai2021-table2")
    found = table.figures("single")
    assert found == {"top1@audio/activity": 28.5, "top1@ego/activity": 31.3, "top1@third/activity": 21.8}
    assert table.figures("static KD") == {"top1@ego/activity": 32.3}
    reason = table.data.mismatch("homage", "split-2", 75, 5000, 1000)
    assert reason == "the paper's figures are means over split-1 and split-2"
    assert "data is toybox-views" in table.data.mismatch("toybox-views", "split-2", 10, 640, 320)
    cards = {card.row.name: card for card in table_cards(table, [])}
    card = cards["cooperative, ego"]
    assert (card.published, card.protocol, card.ours) == ("top-1 37.7", "ego/activity", NOT_RUN)
    assert cards["static KD, audio"].ours == "no grid"


def test_facts_of_rows_are_named_as_caches_and_runs_name_them() -> None:
    known = {
        "boxes", "backbone.name", "views.num_frames", "views.num_views", "views.num_instances", "views.sampling",
        "views.sampling_fps", "views.sampling_rates", "dataset.name",
    }  # fmt: skip
    stated = {fact.name for table in published().tables for row in table.rows for fact in table.stated(row)}
    assert stated <= known and {Fact(name=name, value=0).entry.split(".")[0] for name in stated} <= {
        "boxes", "backbone", "views", "dataset"
    }  # fmt: skip


def test_ours_stands_beside_the_paper_with_mean_interval_seeds_and_what_differs(tmp_path: Path) -> None:
    comparison = made_comparison(tmp_path)
    cards = {card.row.name: card for card in table_cards(published_table(TABLE), [comparison])}
    card = cards["Ours-SFI"]
    low, high = (100 * end for end in comparison.rows[0].interval)
    assert card.ours == f"top-1 62.5 ± 3.5 [{low:.1f}, {high:.1f}], 2 seeds" and card.published.startswith("top-1 58.3")
    assert card.settings == "views.num_frames 16, the paper's 8"
    assert cards["Ours-base"].ours == NOT_RUN and cards["I3D, T = 16"].ours == "no grid"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"num_test": 99}, "99 test clips, the paper's 57,876"),
        ({"dataset": {"name": "toybox"}}, "data is toybox, the paper's something-else"),
        ({"boxes": {"sha256": "ab"}}, "boxes are those of a file, the paper's are annotated"),
    ],
)
def test_figures_of_other_data_are_not_printed_but_the_reason_is(
    tmp_path: Path, changes: dict[str, object], reason: str
) -> None:
    comparison = made_comparison(tmp_path, **changes)
    (card,) = (c for c in table_cards(published_table(TABLE), [comparison]) if c.row.name == "Ours-SFI")
    assert card.ours == f"other data: {reason}"
    compared = compare(str(tmp_path / "runs" / "sfi-0"), f"{TABLE}:Ours-SFI")
    assert compared.published == {} and compared.unprinted == reason


def test_a_measure_beside_the_one_that_decides_stands_beside_the_papers_without_an_interval(tmp_path: Path) -> None:
    comparison = made_comparison(tmp_path)
    (row,) = comparison.rows
    of_many = replace(row, metric="map", top5=(), weighted_map=(0.5, 0.6))
    table = published_table(TABLE)
    line = replace(table.rows[5], figures={"weighted_map": 28.5})
    measures = {"weighted": of_many, "one class a clip": row}
    made = {
        name: table_cards(replace(table, rows=(line,)), [replace(comparison, rows=(own,))])[0].ours
        for name, own in measures.items()
    }
    assert made == {
        "weighted": "weighted mAP 55.0 ± 7.1, 2 seeds",
        "one class a clip": "another measure: top-1",
    }
    few = replace(table.rows[5], figures={"map@fewshot-5": 36.9})
    shots = [
        replace(of_many, protocol=f"fewshot-{k}, ego/atomic", task="ego/atomic", primary=(k / 10,) * 2) for k in (1, 5)
    ]
    (card,) = table_cards(replace(table, rows=(few,)), [replace(comparison, rows=tuple(shots))])
    assert (card.protocol, card.ours[:10]) == ("fewshot-5", "mAP 50.0 ±")


def test_several_draws_are_other_data(tmp_path: Path) -> None:
    comparison = made_comparison(tmp_path)
    (row,) = comparison.rows
    drawn = replace(comparison, rows=(replace(row, seeds=(0, 0)),))
    (card,) = (c for c in table_cards(published_table(TABLE), [drawn]) if c.row.name == "Ours-SFI")
    assert card.ours == "other data: several draws of the shots, the paper has one"


def test_a_run_is_compared_with_a_row_in_what_the_paper_states(tmp_path: Path) -> None:
    run = made_run(tmp_path, 0)
    compared = compare(str(run.path), f"{TABLE}:Ours-SFI + Pred")
    told = [(d.fact.name, d.a, d.b) for d in compared.differences]
    assert ("views.num_frames", "16", "8") in told and ("aux_weights.prediction", "–", "5") in [
        (name, a, b.removesuffix(".0")) for name, a, b in told
    ]
    assert not any(name.startswith(("num_", "dataset", "boxes", "seed", "schedule")) for name, _, _ in told)
    assert compared.published == {"top1": 59.6, "top5": 85.8} and len(compared.scores) == 1


def test_rows_that_are_not_there_and_two_rows_are_one_line() -> None:
    with pytest.raises(InputError, match=r"did you mean 'yan2020-table.'"):
        compare("yan2020-table:Ours-SFI", "c.zarr")
    with pytest.raises(InputError, match="no row 'Ours-SFY', did you mean 'Ours-SFI'"):
        compare(f"{TABLE}:Ours-SFY", "c.zarr")
    with pytest.raises(InputError, match="are both published; compare one of them with a run or a cache"):
        compare(f"{TABLE}:Ours-SFI", f"{TABLE}:Ours-base")


@pytest.mark.slow
def test_list_published_and_the_report_show_the_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IFCAR_RUNS", str(tmp_path / "runs"))
    made_comparison(tmp_path)
    assert [c.published_table for c in comparisons_here()] == [TABLE]
    listed = json.loads(CliRunner().invoke(app, ["list", "published", "--json"]).stdout)
    row = next(row for row in listed if row["row"] == f"{TABLE}:Ours-SFI")
    assert row["ours"].startswith("top-1 62.5") and (row["grid"], row["line"]) == ("table1", "SFI")
    assert row["boxes"] and row["protocol"] and row["source"] == "Yan et al. 2020, Table 1" and row["known_traps"]
    shown = CliRunner().invoke(app, ["list", "published"]).stdout
    assert "`ifcar grid table1` reproduces it" in shown and "trap: " in shown
    options = ReportConfig(out=tmp_path / "r", num_clips=0)
    page = report([tmp_path / "runs" / "mine"], Silent(), options).page.read_text()
    assert "Published figures" in page and "top-1 58.3, top-5 84.8" in page and "known trap: trained end to end" in page


def test_a_table_whose_data_are_others_never_shows_a_figure_of_ours(tmp_path: Path) -> None:
    comparison = replace(made_comparison(tmp_path, num_test=99), name="table1")
    for card in table_cards(published_table(TABLE), [comparison]):
        assert "±" not in card.ours and "62.5" not in card.ours
