"""What listings say in JSON and in tables."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures.something_else import write_dataset

from ifcar.cli import main
from ifcar.console import print_json, print_table
from ifcar.pipelines.ensemble import ensemble
from ifcar.pipelines.extract import extract
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.fit import fit
from ifcar.pipelines.listing import LISTINGS
from ifcar.pipelines.progress import Silent
from ifcar.pipelines.runs.finished import finished_runs
from ifcar.pipelines.runs.query import differing_options
from ifcar.pipelines.runs.resolve import make_run_config
from ifcar.pipelines.runs.schedule import ScheduleConfig

NUMBER = re.compile(r"[-+]?[\d.,/]+( ?%)?|[–-]?")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only cache in caches/, with two runs beside it and a grid file of a third."""
    for kind in ("runs", "caches"):
        monkeypatch.setenv(f"IFCAR_{kind.upper()}", str(tmp_path / kind))
    root = write_dataset(tmp_path / "d", pixels=False)
    out = tmp_path / "caches" / "boxes.zarr"
    extract(ExtractConfig(dataset="something-else", data_root=root, out=out, backbone="none", workers=0), Silent())
    for seed in (3, 4):
        schedule = ScheduleConfig(kind="paper", epochs=1)
        fit(make_run_config("base", out, streams="layout", preset="small", schedule=schedule, seed=seed), Silent())
    (tmp_path / "grid.yaml").write_text(
        "name: g\nseeds: [7]\npreset: small\nsystems:\n- {name: A, head: base, streams: layout}\n"
    )
    return out


def printed(capsys: pytest.CaptureFixture[str], *command: object) -> str:
    with pytest.raises(SystemExit) as done:
        main([str(part) for part in command])
    assert not done.value.code
    return capsys.readouterr().out


def texts(content: Any) -> list[str]:
    if isinstance(content, dict):
        content = list(content.values())
    return (
        [text for item in content for text in texts(item)]
        if isinstance(content, list)
        else [content] * (type(content) is str)
    )


@pytest.mark.slow
def test_no_listing_gives_a_number_or_a_dash_as_text(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = [("list", what) for what in LISTINGS]
    commands += [("cache", "info", cache), ("grid", tmp_path / "grid.yaml", "--dry-run", "--cache", cache)]  # type: ignore[list-item]
    for command in commands:
        content = json.loads(printed(capsys, *command, "--json"))
        assert content
        if command[:2] == ("cache", "info"):
            del content["made_with"]  # versions are texts
        assert not [text for text in texts(content) if NUMBER.fullmatch(text)], command


def test_runs_and_caches_have_their_numbers_and_null_for_none(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = json.loads(printed(capsys, "list", "runs", "--json"))
    for run, seed in zip(runs, (3, 4), strict=True):
        metrics = json.loads((Path(run["run"]) / "metrics.json").read_text())
        (test,) = (m for m in metrics if m["split"] == "test")
        assert (run["seed"], run["test_n"], run["map"]) == (seed, 4, None)
        assert run["top1"] == pytest.approx(test["top1"]) and type(run["top1"]) is float
    table = printed(capsys, "list", "runs")
    assert f" {100 * runs[0]['top1']:.1f} " in table and " – " in table
    (listed,) = json.loads(printed(capsys, "list", "caches", "--json"))
    assert (listed["clips"], listed["rows"], listed["rows_done"]) == (8, 8, 8)
    info = json.loads(printed(capsys, "cache", "info", cache, "--json"))
    assert [[*row.values()] for row in info["protocols"]] == [["compositional", "labels", "clip", 2, 4, 4, 4, "object"]]
    (boxes,) = (row for row in info["arrays"] if row["array"] == "boxes")
    assert [*boxes.values()][1:] == [[8, 8, 4, 4], "float32", 8 * 8 * 4 * 4 * 4 / 2**20, "layout"]
    assert info["rows"]["done"] == 8 and info["identity"]["backbone"]["name"] == "none"


def test_a_number_that_is_none_is_null_in_json_and_a_dash_in_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": [float("nan"), np.float32("inf"), 99.5], "b": np.array([1.0, np.nan]), "c": Path("x"), 1: None})
    assert json.loads(capsys.readouterr().out) == {"a": [None, None, 99.5], "b": [1.0, None], "c": "x", "1": None}
    print_table("t", ["a", "b", "c"], [[99.44, None, 3]])
    assert re.search(r"99\.4 .* – .* 3 ", capsys.readouterr().out)


@pytest.mark.slow
def test_runs_are_filtered_and_sorted_by_what_is_shown(
    cache: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    def seeds(*options: str) -> list[int]:
        return [run["seed"] for run in json.loads(printed(capsys, "list", "runs", *options, "--json"))]

    assert seeds("--sort", "-seed") == [4, 3] and seeds("--sort", "seed", "--head", "base") == [3, 4]
    assert seeds("--where", "seed>=4", "--where", "top1>=0") == [4] and seeds("--where", "mAP>0") == []
    assert seeds("--cache", "boxes.zarr") == [3, 4] and seeds("--cache", "other.zarr") == seeds("--head", "sfi") == []
    assert seeds("--protocol", "compositional") == [3, 4]
    assert seeds("--where", "head=base", "--where", "seed!=3") == [4] and seeds("--where", "head=sfi") == []
    assert seeds("--where", "made>2020-01-01") == [3, 4] and seeds("--where", "head~as", "--where", "run~nothing") == []
    for options, said in (
        (["runs", "--where", "top1"], "expected COLUMN, one of >= <= != > < = ~, and a value"),
        (["runs", "--where", "top1>x"], "column 'top-1' holds numbers; expected one"),
        (["runs", "--where", "nothing>1"], "no column 'nothing'. There are: run, head,"),
        (["runs", "--sort", "tpo1"], "no column 'tpo1', did you mean 'top1'"),
        (["heads", "--sort", "name"], "--sort name would be ignored"),
    ):
        with pytest.raises(SystemExit) as done:
            main(["list", *options])
        assert done.value.code == 2 and said in capsys.readouterr().err
    # one that is damaged is said and left out, and is in nobody's way
    first = Path(json.loads(printed(capsys, "list", "runs", "--json"))[0]["run"])
    damaged = shutil.copytree(first, first.with_name("damaged"))
    (damaged / "metrics.json").write_text("{")
    assert seeds("--sort", "seed") == [3, 4] and f"{damaged}/metrics.json: damaged" in caplog.text
    printed(capsys, "runs", "rm", damaged)
    printed(capsys, "cache", "export", cache)
    listed = json.loads(printed(capsys, "list", "caches", "--json"))
    assert [Path(one["cache"]).suffix for one in listed] == [".h5", ".zarr"]


def test_options_that_differ_are_named_and_a_name_is_never_broken(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [{"head": "a", "seed": k, "schedule": {"lr": lr, "epochs": 2}} for k, lr in enumerate((0.1, 0.2))]
    assert differing_options([*runs, {"head": "b", "seed": 0}]) == ["schedule.lr=0.1", "schedule.lr=0.2", ""]
    live = [None, {"crop": 96, "adam": {"lr": 1}}, {"crop": 96, "adam": {"lr": 2}}]
    tuned = differing_options([{"head": "a", "live": own} for own in live])
    assert tuned == ["", "live.adam.lr=1, live=…", "live.adam.lr=2, live=…"]
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    name = "runs/" + "n" * 75
    print_table("t", ["run", "what"], [[name, "a b c d " * 20]])
    assert name in capsys.readouterr().out


def test_runs_are_removed_but_none_that_another_was_made_from(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = (run.path for run in finished_runs())
    fused = ensemble([a, b]).run.path
    for refused, said in (([b, a], "was made from it"), ([b, tmp_path / "caches"], "holds no run")):
        with pytest.raises(SystemExit) as done:
            main(["runs", "rm", *map(str, refused)])
        assert done.value.code == 2 and said in capsys.readouterr().err
        assert [run.path for run in finished_runs()] == [a, b, fused]
    assert json.loads(printed(capsys, "runs", "rm", fused, a, "--json")) == {"removed": [str(fused), str(a)]}
    assert [run.path for run in finished_runs()] == [b] and not a.exists()
