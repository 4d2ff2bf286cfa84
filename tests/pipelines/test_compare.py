"""Caches and runs told apart by what they are, in the order of what moves a number."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from fixtures.something_else import write_dataset
from typer.testing import CliRunner

from ifcar.cache.arrays import CacheSpec
from ifcar.cache.open import open_cache
from ifcar.cli import app
from ifcar.errors import InputError, MissingDataError
from ifcar.pipelines.compare import Compared, compare
from ifcar.pipelines.comparison.statistics import paired_bootstrap
from ifcar.pipelines.extract import extract
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.fit import fit
from ifcar.pipelines.progress import Silent
from ifcar.pipelines.runs.differences import differences
from ifcar.pipelines.runs.facts import KINDS, Fact, Facts, Moves, identity_facts
from ifcar.pipelines.runs.finished import open_run
from ifcar.pipelines.runs.resolve import make_run_config
from ifcar.pipelines.runs.schedule import ScheduleConfig


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two caches of boxes, `a.zarr` and `fewer.zarr`, and runs: `base`, `seed` and `other` of the first."""
    place = tmp_path_factory.mktemp("compare")
    root = write_dataset(place / "d", num_clips=24, pixels=False)
    for name, limit, frames in (("a.zarr", None, 8), ("fewer.zarr", 16, 4)):
        options = ExtractConfig(
            dataset="something-else", data_root=root, out=place / name, backbone="none", workers=0, limit=limit,
            frames=frames,
        )  # fmt: skip
        extract(options, Silent())
    schedule = ScheduleConfig(kind="stretched", epochs=2, batch_size=8, refit=False)
    for name, head, cache, seed in (
        ("base", "base", "a.zarr", 0),
        ("seed", "base", "a.zarr", 1),
        ("other", "sfi", "a.zarr", 0),
        ("fewer", "base", "fewer.zarr", 0),
    ):
        config = make_run_config(head, place / cache, streams="layout", preset="small", schedule=schedule, seed=seed)
        fit(config, Silent(), out=place / name)
    return place


def told(compared: Compared) -> list[str]:
    return [d.fact.name for d in compared.differences]


def test_runs_of_two_seeds_differ_in_the_seed_alone_and_are_tested(place: Path) -> None:
    compared = compare(str(place / "base"), str(place / "seed"))
    assert told(compared) == ["seed"] and compared.untested == "" and not any(compared.silent.values())
    first, second = compared.scores
    right = []
    for name in ("base", "seed"):
        own = open_run(place / name).predictions("test")
        right.append((own.logits.argmax(axis=1) == own.targets).astype(float))
    expected = paired_bootstrap(right[1], right[0])
    assert first.against is None and second.against is not None
    assert second.against.difference == pytest.approx(right[1].mean() - right[0].mean())
    assert second.against.low <= expected.difference <= second.against.high


def test_a_run_is_nothing_else_than_itself(place: Path) -> None:
    compared = compare(str(place / "base"), str(place / "base"))
    assert told(compared) == [] and [row.system for row in compared.scores][1].endswith("(again)")


def test_options_that_only_one_head_has_are_one_line_below_the_head(place: Path) -> None:
    compared = compare(str(place / "base"), str(place / "other"))
    assert told(compared)[:2] == ["head", "options of its own"]
    assert "lstm_layers" in compared.differences[1].b and "hidden_dim" in compared.differences[1].a


def test_runs_on_other_clips_say_so_first_and_are_not_tested(place: Path) -> None:
    compared = compare(str(place / "base"), str(place / "fewer"))
    names = told(compared)
    assert names[0] == "test clips" and {"training clips", "views.num_frames"} < {*names} and "fingerprint" not in names
    assert len(compared.scores) == 2 and "of which" in compared.untested
    assert all(row.against is None for row in compared.scores)


def test_caches_differ_in_clips_and_views(place: Path) -> None:
    compared = compare(str(place / "a.zarr"), str(place / "fewer.zarr"))
    assert set(told(compared)) == {"clips", "views.num_frames"} and compared.scores == []
    (clips,) = (d for d in compared.differences if d.fact.name == "clips")
    assert (clips.a, clips.b) == ("24, 8 of them here alone", "16, 0 of them here alone")


def test_a_run_is_of_its_cache_and_of_no_other(place: Path) -> None:
    assert told(compare(str(place / "base"), str(place / "a.zarr"))) == []
    compared = compare(str(place / "base"), str(place / "fewer.zarr"))
    assert told(compared) == ["views.num_frames"] and "head" in compared.silent["b"]
    wide = shutil.copytree(place / "base", place / "moved")
    config = yaml.safe_load((wide / "config.yaml").read_text()) | {"fingerprint": "0" * 64}
    (wide / "config.yaml").write_text(yaml.safe_dump(config))
    assert told(compare(str(wide), str(place / "a.zarr"))) == ["fingerprint"]


def test_labels_that_changed_between_two_runs_are_found_by_clip(place: Path) -> None:
    changed = shutil.copytree(place / "base", place / "relabelled")
    with np.load(changed / "predictions.npz") as stored:
        arrays = dict(stored)
    arrays["test/targets"] = arrays["test/targets"].copy()
    arrays["test/targets"][3] ^= 1
    np.savez(changed / "predictions.npz", **arrays)
    compared = compare(str(place / "base"), str(changed))
    assert told(compared) == ["test labels"] and compared.untested == "their test clips have other labels"
    assert str(arrays["test/clip_ids"][3]) in compared.differences[0].a


def test_versions_are_recorded_and_told_last(place: Path) -> None:
    data = open_run(place / "base").data()
    assert data.made_with == open_cache(place / "a.zarr").environment and "libavcodec" in data.trained_with
    older = shutil.copytree(place / "seed", place / "older")
    content = json.loads((older / "data.json").read_text())
    content["trained_with"]["torch"] = "2.0"
    del content["trained_with"]["av"]  # not recorded is not another one
    (older / "data.json").write_text(json.dumps(content))
    assert told(compare(str(place / "base"), str(older))) == ["seed", "versions.training.torch"]
    del content["trained_with"], content["made_with"]  # as before they were recorded
    (older / "data.json").write_text(json.dumps(content))
    compared = compare(str(place / "base"), str(older))
    assert told(compared) == ["seed"] and compared.silent["b"] == ["versions"]


def test_an_option_that_a_run_of_before_does_not_state_has_its_default(place: Path) -> None:
    older = shutil.copytree(place / "base", place / "before")
    config = yaml.safe_load((older / "config.yaml").read_text())
    del config["options"]["pool"]
    (older / "config.yaml").write_text(yaml.safe_dump(config))
    assert told(compare(str(place / "base"), str(older))) == []


def test_differences_are_told_by_how_likely_they_move_the_number() -> None:
    names = {name: Fact(name=name, value=1) for name in KINDS if name not in ("fingerprint", "protocol_digest")}
    every = Facts(facts=list(names.values()))
    other = Facts(facts=[replace(fact, value=2) for fact in reversed(names.values())])
    found = [d.fact for d in differences(every, other)]
    assert [fact.moves for fact in found] == sorted(fact.moves for fact in found) and len(found) == len(names)
    assert {fact.name for fact in found if fact.moves is Moves.ROUNDING} == {
        "backbone.precision", "schedule.precision", "versions.features", "versions.training"
    }  # fmt: skip


def test_a_fact_that_nobody_listed_is_told_with_the_data() -> None:
    one, two = (Facts(facts=[Fact(name="depth.sensor", value=value)]) for value in ("a", "b"))
    (difference,) = differences(one, two)
    assert (difference.fact.kind, difference.fact.moves) == ("data", Moves.MUCH)


def test_what_is_neither_run_nor_cache_is_one_line(place: Path) -> None:
    with pytest.raises(InputError, match="neither a finished run nor a cache; expected"):
        compare(str(place), str(place / "base"))
    with pytest.raises(MissingDataError, match="no such run or cache; expected"):
        compare(str(place / "nowhere"), str(place / "base"))


def test_json_says_what_the_table_says(place: Path) -> None:
    result = CliRunner().invoke(app, ["compare", str(place / "base"), str(place / "other"), "--json"])
    content = json.loads(result.stdout)
    assert content["differences"][0] == {"moves": "much", "of": "head", "what": "head", "a": "base", "b": "sfi"}
    assert content["scores"][1]["against"].keys() == {"difference", "low", "high", "p"}
    table = CliRunner().invoke(app, ["compare", str(place / "base"), str(place / "other")]).stdout
    assert "likely, much" in table and "B − A" in table


def test_boxes_of_a_file_and_the_datasets_own_differ_in_one_line() -> None:
    dataset = {"dataset": {"name": "d"}, "backbone": {"name": "none"}}
    spec = CacheSpec.standard(num_frames=2, num_steps=1, num_instances=1)
    sides = []
    for identity in (dataset, {**dataset, "boxes": {"sha256": "ab" * 32}}):
        sides.append(Facts(facts=identity_facts(identity, spec.names())))
    (difference,) = differences(*sides)
    assert (difference.fact.name, difference.b) == ("boxes", "a file of SHA-256 abababababab")
