"""Grids and few-shot on real files: product, resume after SIGKILL, failing runs, fine-tuning, bad files."""

from __future__ import annotations

import itertools
import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from fixtures.processes import Command, workers
from fixtures.something_else import write_dataset, write_few_shot
from safetensors.numpy import load_file

from ifcar.config_fields import fields_of
from ifcar.errors import CacheMismatchError, IfcarError, InputError
from ifcar.heads.catalog import HEADS
from ifcar.pipelines.comparison.formats import cells
from ifcar.pipelines.comparison.store import read_comparison
from ifcar.pipelines.configs import from_plain
from ifcar.pipelines.extract import extract
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.extraction.needs import extract_words
from ifcar.pipelines.few_shot import few_shot_grid
from ifcar.pipelines.fleets.pool import fit_all
from ifcar.pipelines.folders import folder
from ifcar.pipelines.grid.config import SHIPPED, FewShotConfig, GridConfig, read_grid, shipped_grids
from ifcar.pipelines.grid.lines import SystemConfig
from ifcar.pipelines.grid.plan import plan_grid
from ifcar.pipelines.grid.run import run_grid
from ifcar.pipelines.grid.run_configs import run_config
from ifcar.pipelines.grid.variants import expand
from ifcar.pipelines.progress import Silent
from ifcar.pipelines.runs.config import run_id
from ifcar.pipelines.runs.finished import open_run
from ifcar.pipelines.runs.history import read_history, training_seconds
from ifcar.pipelines.runs.resolve import head_options, make_run_config
from ifcar.pipelines.runs.schedule import ScheduleConfig
from ifcar.pipelines.training.machine import MachineConfig

SHORT = {"kind": "stretched", "epochs": 8, "batch_size": 8, "refit": False}
LAYOUT = {"name": "base", "head": "base", "streams": "layout"}
GRID = {
    "name": "tiny",
    "title": "Tiny",
    "seeds": [0, 1],
    "preset": "small",
    "schedule": SHORT,
    "baseline": "base",
    "systems": [
        LAYOUT,
        {"name": "λ = {aux_weight}", "head": "sfi", "streams": "layout", "product": {"aux_weight": [0, 5]}},
    ],
    "ensembles": [{"name": "both", "members": ["base", "λ = 5"]}],
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_dataset(tmp_path_factory.mktemp("data") / "d", num_clips=48, pixels=False)
    write_few_shot(root)
    out = root.parent / "boxes.zarr"
    extract(
        ExtractConfig(
            dataset="something-else", data_root=root, out=out, backbone="none", views=2, workers=0, instances=3
        ),
        Silent(),
    )
    return out


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IFCAR_RUNS", str(tmp_path / "runs"))
    return tmp_path


def grid(**changes: object) -> GridConfig:
    return from_plain(GridConfig, {**GRID, **changes}, "grid")


def table_bytes(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.suffix in (".csv", ".md", ".tex", ".yaml")}


@pytest.mark.slow
def test_grid_makes_every_run_once_and_compares_them(cache: Path, place: Path) -> None:
    plan = plan_grid(grid(), cache)
    assert len(plan.jobs()) == 6 and len({run_id(job.config) for job in plan.jobs()}) == 6
    result = run_grid(plan, Silent(), MachineConfig(processes=2))
    assert (result.num_runs, result.num_made, len(result.failures)) == (6, 6, 0)
    rows = {row.system: row for row in result.comparison.rows}
    assert list(rows) == ["base", "λ = 0", "λ = 5", "both"]
    assert rows["λ = 5"].factors["aux_weight"] == 5 and rows["both"].head == "ensemble"
    assert all(row.n == 24 and row.seeds == (0, 1) for row in rows.values())
    assert rows["base"].against is None and rows["both"].p_corrected is not None
    before = {job.path: (job.path / "metrics.json").stat().st_mtime_ns for job in plan.jobs()}
    again = run_grid(plan_grid(grid(), cache), Silent(), MachineConfig(processes=2))
    assert again.num_made == 0 and again.comparison == result.comparison
    assert before == {path: (path / "metrics.json").stat().st_mtime_ns for path in before}
    wider = run_grid(
        plan_grid(grid(name="wider", seeds=[0, 1, 2], ensembles=[]), cache), Silent(), MachineConfig(processes=1)
    )
    assert (wider.num_runs, wider.num_made) == (9, 3)  # another grid shares the finished runs
    assert read_comparison(place / "runs" / "tiny") == result.comparison
    _check_costs(cache)


def _check_costs(cache: Path) -> None:
    """Of finished runs: training and test clips have two views of T = 8 frames and N = 3 slots."""
    result = run_grid(plan_grid(grid(name="costs", costs=True), cache), Silent(), MachineConfig(processes=1))
    rows = {row.system: row for row in result.comparison.rows}
    assert result.num_made == 0 and read_comparison(result.folder) == result.comparison
    boxes, categories = 8 * 3 * 4 * 4, 8 * 3
    assert rows["base"].costs is not None and rows["base"].costs.size_bytes == 48 * 2 * (boxes + categories)
    for row in (rows["base"], rows["λ = 5"]):
        records = [json.loads((Path(run) / "history.jsonl").read_text().splitlines()[-1]) for run in row.runs]
        shares = [record["seconds"] / record["fleet"] / 60 for record in records]
        assert row.costs is not None and row.costs.minutes == pytest.approx(np.mean(shares), rel=1e-12)
    assert rows["both"].costs is None
    header, cells_of = cells(result.comparison)
    assert header[-2:] == ["minutes", "GB"] and cells_of[-1][-2:] == ["–", "–"]
    assert "all lines share one extraction: 96 rows took" in result.comparison.notes[-1]


def test_run_id_follows_the_config_and_the_data_but_not_the_place(cache: Path, tmp_path: Path) -> None:
    ids = [run_id(job.config) for job in plan_grid(grid(), cache).jobs()]
    moved = tmp_path / "moved.zarr"
    moved.symlink_to(cache)
    assert [run_id(job.config) for job in plan_grid(grid(), moved).jobs()] == ids
    other = plan_grid(grid(schedule={**SHORT, "epochs": 9}), cache)
    assert not set(ids) & {run_id(job.config) for job in other.jobs()}
    job = plan_grid(grid(), cache).jobs()[0]
    assert run_id(replace(job.config, protocol_digest="other")) != ids[0]


def test_a_switch_that_earlier_runs_do_not_know_changes_their_id_only_where_it_is_on(cache: Path) -> None:
    config = plan_grid(grid(), cache).jobs()[0].config
    on, off = ({"layout": {"hidden_dim": 64, "motion": value}} for value in (True, False))
    earlier, now, other = (replace(config, head="stlt", options=o) for o in ({"layout": {"hidden_dim": 64}}, off, on))
    assert run_id(earlier) == run_id(now) != run_id(other)
    assert now.options == off


def wait_for(process: Command, happened: Callable[[], bool]) -> None:
    while process.poll() is None and not happened():
        time.sleep(0.02)


@pytest.mark.slow(seconds=30)
def test_killed_grid_goes_on_to_the_same_bytes_and_replaces_a_killed_worker(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside the same grid left alone: killed as a whole twice, then one of its workers is."""
    slower = {**GRID, "schedule": {**SHORT, "epochs": 20}}
    whole, killed = tmp_path / "runs", tmp_path / "killed"
    assert not run_grid(
        plan_grid(from_plain(GridConfig, slower, "grid"), cache), Silent(), MachineConfig(processes=2)
    ).failures
    file = tmp_path / "grid.yaml"
    file.write_text(yaml.safe_dump(slower))
    monkeypatch.setenv("IFCAR_RUNS", str(killed))
    command = ["grid", file, "--cache", cache, "--processes", "2"]

    for pattern, count in (("history.jsonl", 3), ("metrics.json", 1)):
        process = Command(command, tmp_path)
        wait_for(process, lambda: len(list(killed.glob(f"*/{pattern}"))) >= count)  # noqa: B023
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    begun = time.time_ns()
    process = Command(command, tmp_path)
    wait_for(process, lambda: any(path.stat().st_mtime_ns > begun for path in killed.glob("*/history.jsonl")))
    os.kill(workers(process.pid)[-1], signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert table_bytes(whole / "tiny") == table_bytes(killed / "tiny")
    runs = sorted(path.parent.name for path in whole.glob("*/metrics.json"))
    assert len(runs) == 8 and runs == sorted(path.parent.name for path in killed.glob("*/metrics.json"))
    for history in map(read_history, (path.parent for path in killed.glob("*/history.jsonl"))):
        assert training_seconds(history), "the clock goes on where it was"
    for path in whole.glob("*/model.safetensors"):
        assert path.read_bytes() == (killed / path.parent.name / path.name).read_bytes()


def test_training_seconds_are_the_share_of_a_fleet_over_all_phases_and_unknown_where_the_clock_was_set_back() -> None:
    def phase(name: str, fleet: int, *seconds: float) -> list[dict[str, object]]:
        return [{"phase": name, "seconds": second, "fleet": fleet} for second in seconds]

    assert training_seconds([*phase("fit", 4, 2.0, 6.0), *phase("refit", 2, 1.0, 3.0)]) == 6 / 4 + 3 / 2
    assert training_seconds([]) is None
    assert training_seconds(phase("fit", 4, 5.0, 2.0)) is None
    assert training_seconds([{"phase": "fit", "seconds": 2.0}]) is None


@pytest.mark.slow
def test_failing_run_is_reported_and_leaves_the_rest(cache: Path) -> None:
    systems = [
        *GRID["systems"],  # type: ignore[misc]
        {"name": "wild", "head": "base", "streams": "layout", "schedule": {"lr": 1e30}},
    ]
    result = run_grid(plan_grid(grid(systems=systems), cache), Silent(), MachineConfig(processes=1))
    assert len(result.failures) == 2 and all("not finite" in f.reason for f in result.failures)
    assert "\n" not in result.failures[0].reason
    assert [row.system for row in result.comparison.rows] == ["base", "λ = 0", "λ = 5", "both"]
    assert sum(note.startswith("failed: ") for note in result.comparison.notes) == 2


@pytest.mark.slow
def test_few_shot_moves_only_the_classifier_and_covers_every_draw(cache: Path) -> None:
    system = SystemConfig(name="sfi", head="sfi", preset="small", streams="layout", aux_weight=1.0)
    schedule = ScheduleConfig(**SHORT)  # type: ignore[arg-type]
    shots = FewShotConfig(shots=(5,), schedule=schedule)
    frozen = plan_grid(few_shot_grid(system, shots, schedule=schedule), cache)
    result = run_grid(frozen, Silent(), MachineConfig(processes=1))
    assert not result.failures
    rows = {row.protocol: row for row in result.comparison.rows}
    assert rows["fewshot-base"].n == 8 and rows["fewshot-base"].seeds == (0,)
    assert rows["fewshot-5"].n == 10 and rows["fewshot-5"].seeds == (0, 0)  # two draws
    base, *tuned = (job.path for job in frozen.jobs())
    before = load_file(base / "model.safetensors")
    for path in tuned:
        after = load_file(path / "model.safetensors")
        moved = {k for k in before if before[k].shape != after[k].shape or (before[k] != after[k]).any()}
        assert moved == {"classifier.weight", "classifier.bias"} and after["classifier.bias"].shape == (3,)
    everything = plan_grid(few_shot_grid(system, replace(shots, train="all"), schedule=schedule), cache)
    assert everything.jobs()[0].path == base
    assert not fit_all(everything.jobs(), Silent(), MachineConfig(processes=1))
    after = load_file(everything.jobs()[1].path / "model.safetensors")
    assert sum((before[k] != after[k]).any() for k in before if before[k].shape == after[k].shape) > 20


@pytest.mark.slow
def test_fine_tuning_needs_its_base_run(cache: Path) -> None:
    system = SystemConfig(name="base", head="base", preset="small", streams="layout")
    config = few_shot_grid(system, FewShotConfig(shots=(5,)), schedule=ScheduleConfig(lr=1e30))
    with pytest.raises(InputError, match="every run failed"):
        run_grid(plan_grid(config, cache), Silent(), MachineConfig(processes=1))


@pytest.mark.slow
def test_published_figures_stand_beside_the_same_data_only(cache: Path) -> None:
    systems = [{**GRID["systems"][0], "published": {"top1": 44.1}}]  # type: ignore[index]
    same = {"dataset": "something-else", "classes": {"compositional": 2}, "train": {"compositional": 24}}
    for published_on, expected in ((same, {"top1": 44.1}), ({**same, "train": {"compositional": 54919}}, {})):
        config = grid(systems=systems, ensembles=[], baseline=None, seeds=[0], published_on=published_on)
        (row,) = run_grid(plan_grid(config, cache), Silent(), MachineConfig(processes=1)).comparison.rows
        assert row.published == expected


@pytest.mark.slow
def test_system_starts_from_parts_of_another_s_run_and_says_which_weights_it_draws(cache: Path) -> None:
    still = {"lr": 1e-12, "weight_decay": 0.0, "epochs": 1}
    first = {"name": "first", "head": "sfi", "streams": "layout", "schedule": {"epochs": 2}}
    then = {**first, "name": "then", "aux_weight": 5, "start": "first", "parts": ["joint", "lstm"], "schedule": still}
    protocols = ["compositional", "fewshot-base"]
    config = grid(systems=[then, first], ensembles=[], baseline=None, seeds=[0], protocols=protocols)
    plan = plan_grid(config, cache)
    comparison = run_grid(plan, Silent(), MachineConfig(processes=1)).comparison
    paths = {(c.variant.name, c.seed): c.jobs[0].path for c in plan.replicates if c.stage.label == protocols[0]}
    before, after = (load_file(paths[name, 0] / "model.safetensors") for name in ("first", "then"))
    for key in (key for key in before if key.startswith(("joint.", "lstm.")) and key.endswith("weight")):
        np.testing.assert_allclose(after[key], before[key], atol=1e-6)
    assert not np.allclose(after["classifier.weight"], before["classifier.weight"], atol=1e-6)
    (note,) = (n for n in comparison.notes if "another run's" in n)
    assert note.startswith("compositional, fewshot-base (then): ")  # once, however many runs took it down
    absent = {key for key in after if not key.startswith(("joint.", "lstm."))}
    assert f"; {len(absent)} start from the seed: " in note and {*note.rpartition(": ")[2].split(", ")} == absent
    assert "from-joint-lstm" in paths["then", 0].name


@pytest.mark.slow
def test_shipped_grids_are_valid_and_published_figures_stand_beside_their_lines() -> None:
    grids = {name: read_grid(Path(name)) for name in shipped_grids()}
    assert {"table1", "table2", "table3", "figure3"} <= set(grids)
    for grid in grids.values():  # a head's options are checked without a cache
        for variant in (v for system in grid.systems if system.head for v in expand(system)):
            run_config(grid, variant.system, "any", 0, Path("none.zarr"))
    for name in ("table1", "table2", "table3", "figure3"):
        twin = grids[f"toybox-{name}"]
        assert twin.dataset == "toybox" and [s.name for s in twin.systems] == [s.name for s in grids[name].systems]
        assert twin.published_table is None and not any(s.published for s in (*twin.systems, *twin.ensembles))
    for number in range(2, 8):
        own, twin = (grids[f"{data}-table{number}"].systems for data in ("homage", "toybox-views"))
        assert [(s.name, s.tasks, s.aux_weights) for s in own] == [(s.name, s.tasks, s.aux_weights) for s in twin]
    table = grids["toybox-views-table2"]
    lines = {(s.name, s.settings["streams"][0]): (s.settings, s.aux_weights) for s in table.systems}
    for name in ("control-shuffled", "control-private", "design"):  # the same training, of other streams or recordings
        control = grids[f"toybox-views-{name}"]
        assert (control.seeds, control.schedule, control.preset) == (table.seeds, table.schedule, table.preset)
        assert all(lines[s.name, s.settings["streams"][0]] == (s.settings, s.aux_weights) for s in control.systems)
    assert grids["toybox-views-control-shuffled"].shuffled_streams() == ["third", "audio"]
    assert grids["table1"].figures("I3D", {}) == {"top1": 40.0, "top5": 69.3}
    assert grids["table1"].figures("I3D, SFI + Pred", {}) == {"top1": 61.0, "top5": 86.5}
    assert grids["table2"].figures("STIN", {})["top1"] == 57.5
    few = grids["table3"].figures("SFI + Pred", {})
    assert (few["top1@fewshot-5"], few["top1@fewshot-10"]) == (30.7, 36.2)


def test_toybox_heads_has_a_line_of_every_head() -> None:
    variants = [v for system in read_grid(Path("toybox-heads")).systems for v in expand(system)]
    own = {name for name in HEADS.names() if HEADS.get(name).__module__.startswith("ifcar.")}
    assert {v.system.head for v in variants} == own


def test_shipped_grids_of_orn_start_both_heads_from_the_object_head_of_the_same_options() -> None:
    for name in (name for name in shipped_grids() if name.startswith("orn-") or name == "toybox-contact-table2"):
        config = read_grid(Path(name))
        systems = {system.name: system for system in config.systems}
        for system in config.systems:
            run = make_run_config(
                "orn",
                Path("c.zarr"),
                protocol="official",
                preset=config.preset,
                aux_weight=system.aux_weight,
                settings=system.settings,
            )
            assert head_options(run).heads == run.options["heads"]
            if run.options["heads"] == "both":
                first = systems[str(system.start)]
                assert first.settings == {**system.settings, "heads": "object"} and system.parts == ("object",)
                assert first.aux_weight == system.aux_weight


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nam": "x"}, r"unknown key 'nam', did you mean 'name'"),
        ({"systems": [{"name": "a", "head": "sfy"}]}, r"system 'a': unknown head 'sfy', did you mean 'sfi'"),
        ({"systems": [{"name": "a", "haed": "sfi"}]}, r"systems\[0\]: unknown key 'haed', did you mean 'head'"),
        ({"systems": [*GRID["systems"], GRID["systems"][0]]}, "two lines are called 'base'"),  # type: ignore[misc,index]
        ({"systems": [{"name": "base", "head": "sfi", "aux_weight": -1}]}, "aux-weight is -1"),
        ({"systems": [{"name": "base", "head": "base", "product": {"lr": [1]}}]}, "unknown factor 'lr'"),
        ({"systems": [{"name": "{x}", "head": "base"}]}, "is no factor of its product"),
        ({"systems": [{"name": "base", "head": "base", "streams": "layout", "aux_weight": 5}]}, "would be ignored"),
        (
            {"systems": [{"name": "base", "head": "base", "settings": {"pol": 1}}]},
            r"unknown key 'pol'(, did you mean .*\?|\.) Known: ",
        ),
        ({"systems": [{"name": "base", "head": "base", "schedule": {"lr": -1}}]}, "lr is -1"),
        ({"schedule": {"kind": "paper", "held_out": 0.3}}, "held_out would be ignored: it belongs to kind stretched"),
        (
            {"systems": [{"name": "base", "head": "base", "schedule": {"kind": "paper", "refit": False}}]},
            "system 'base': schedule: refit would be ignored",
        ),
        (
            {"protocols": ["fewshot-5", "fewshot-5-draw2"], "pool": True},
            "pool: .* are in the test parts of 'fewshot-5' and",
        ),
        (
            {"systems": [LAYOUT, {"name": "b", "head": "sfi", "streams": "layout", "start": "base"}]},
            "system 'b': start: 'base' is of head base; expected one of its own head, sfi",
        ),
        ({"ensembles": [{"name": "e", "members": ["base", "base"]}]}, "'e': names a member twice"),
        ({"systems": []}, "name at least one"),
        ({"protocols": ["compositionel"]}, "did you mean 'compositional'"),
        ({"seeds": [0, 0]}, "0 is named 2 times"),
        ({"seeds": []}, "seeds: there are none"),
        ({"published_table": "yan2020-table7"}, "no published table 'yan2020-table7', did you mean 'yan2020-table"),
        (
            {"published_table": "yan2020-table1", "published_on": {"dataset": "toybox"}},
            "published_table and figures of the file's own exclude each other",
        ),
        ({"baseline": "bas"}, "baseline 'bas' is no line of the table, did you mean 'base'"),
        ({"ensembles": [{"name": "e", "members": ["base", "λ = 6"]}]}, "no system 'λ = 6'"),
        ({"choices": [{"name": "best", "of": "bass"}]}, "choice 'best': no system 'bass', did you mean 'base'"),
        ({"choices": [{"name": "base", "of": "base"}]}, "two lines are called 'base'"),
        ({"paired_test": "mcnemar"}, "there are 2 seeds"),
        ({"dataset": "toybox"}, "is for toybox"),
        ({"extraction": {"frame": 8}}, "extraction: unknown key 'frame', did you mean 'frames'"),
        ({"extraction": {"frames": 0}}, "frames is 0; expected 1 to"),
        ({"extraction": {"frames": 32, "views": 2}}, "this cache has 8 frames; tiny needs --frames 32: make one with"),
        ({"extraction": {"sampling_fps": 6.0}}, "this cache has 8 frames; tiny needs --sampling-fps 6.0"),
        ({"extraction": {"views": 10}}, "this cache has --views 2; tiny needs --views 10: .* --out caches/tiny.zarr"),
        (
            {"extraction": {"backbone": "i3d_r50", "instances": 4, "grid": True}},
            "has --backbone none, no feature map, --instances 3;",
        ),
        ({"name": "../x"}, "as for a folder"),
        ({"few_shot": {"shots": [7]}, "protocols": []}, "no protocol 'fewshot-7'"),
        ({"systems": [{**LAYOUT, "parts": ["mlp"]}]}, "name it as start"),
        ({"systems": [LAYOUT, {**LAYOUT, "name": "b", "start": "bass"}]}, "no system 'bass', did you mean 'base'"),
        ({"systems": [{**LAYOUT, "start": "base"}]}, "start names the system itself"),
        (
            {"systems": [LAYOUT, *({**LAYOUT, "name": n, "start": b} for n, b in (("b", "base"), ("c", "b")))]},
            "start: 'b' is made from another system itself",
        ),
        (
            {"systems": [LAYOUT, {**LAYOUT, "name": "b", "start": "base", "parts": ["mpl"]}]},
            "no part 'mpl', did you mean 'mlp'",
        ),
        ({"systems": [LAYOUT, {**LAYOUT, "name": "b", "start": "base"}], "few_shot": {}}, "exclude each other"),
    ],
)
def test_bad_grid_is_one_line_before_any_run(
    cache: Path, place: Path, changes: dict[str, object], message: str
) -> None:
    content = json.loads(json.dumps({**GRID, **changes}))  # what occurs twice would be written as an alias
    if "systems" in changes and "two lines" not in message:
        content |= {"ensembles": [], "baseline": None}
    (place / "bad.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(IfcarError, match=message) as caught:
        plan_grid(read_grid(place / "bad.yaml"), cache)
    assert "\n" not in str(caught.value) and not (place / "runs").exists()


def test_cache_of_the_extraction_that_a_grid_names_is_taken(cache: Path) -> None:
    extraction = {"backbone": "none", "frames": 8, "views": 2, "augmented_views": 0, "instances": 3, "grid": False}
    assert (
        len(plan_grid(grid(extraction={**extraction, "sampling": "segments", "framing": "stretch"}), cache).jobs()) == 6
    )


@pytest.mark.slow
def test_every_shipped_grid_names_the_command_that_makes_its_cache() -> None:
    """The words are options that `ifcar extract` takes, and only they are checked."""
    known = {field.flag for field in fields_of(ExtractConfig).values() if field.option}
    for name in shipped_grids():
        assert {"extraction", "streams"} & yaml.safe_load((SHIPPED / f"{name}.yaml").read_text()).keys(), name
        grid = read_grid(Path(name))
        made = grid.cache_commands()
        for words in made[: len(grid.streams) or 1]:
            assert words[:3] == ["ifcar", "extract", "--dataset"] and {w for w in words if str(w)[:2] == "--"} <= known
        if grid.streams:  # the join names the caches that the commands before it make
            outs = [str(words[words.index("--out") + 1]) for words in made]
            named = [f"{stream}={out}" for stream, out in zip(grid.streams, outs, strict=False)]
            shuffled = [word for stream in grid.shuffled_streams() for word in ("--shuffled", stream)]
            out = folder("caches") / Path(outs[-1]).name
            assert made[-1] == ["ifcar", "cache", "join", *named, *shuffled, "--out", out]
    words = extract_words(read_grid(Path("charades-table3")).extract_config())
    assert {" ".join(map(str, pair)) for pair in itertools.pairwise(words)} >= {"--frames 32", "--sampling-rates 4"}
    assert words[2:4] == ["--dataset", "charades"] and "--grid" in words


@pytest.mark.parametrize("name", ["charades-table3", "toybox-multi-table3"])
def test_lines_of_zhang_et_al_tables_a_b_and_e_have_no_correlation(name: str) -> None:
    """48.4, 64 observations in 32 groups, is the line without it (Table 3c); with it 49.2."""
    systems = {v.name: v.system for system in read_grid(Path(name)).systems for v in expand(system)}
    assert "correlation" not in systems["complete"].settings
    lines = [system for line, system in systems.items() if line.startswith(("groups", "observations"))]
    assert len(lines) == 6 and not any(system.settings["correlation"] for system in lines)


def test_head_that_the_cache_cannot_feed_is_refused_before_any_run(cache: Path) -> None:
    with pytest.raises(CacheMismatchError, match=r"system 'a': .*--streams layout"):
        plan_grid(grid(systems=[{"name": "a", "head": "sfi"}], ensembles=[], baseline=None), cache)
    (cache.parent / "twice.yaml").write_text("name: a\nname: b\n")
    with pytest.raises(InputError, match="key 'name' is named twice"):
        read_grid(cache.parent / "twice.yaml")
    with pytest.raises(InputError, match="did you mean 'table1'"):
        read_grid(Path("tabel1"))


@pytest.mark.slow
def test_choice_is_the_best_run_of_each_seed_on_the_part_that_chooses(cache: Path) -> None:
    own = {"name": "lr", "head": "base", "streams": "layout", "product": {"schedule.lr": [1e-2, 1e-3, 1e-6]}}
    choices = [{"name": "held out", "of": "lr"}, {"name": "test", "of": "lr", "by": "test"}]
    schedule = {"kind": "stretched", "epochs": 6, "batch_size": 8, "held_out": 0.3}
    made = grid(systems=[own], ensembles=[], baseline=None, choices=choices, schedule=schedule)
    plan = plan_grid(made, cache)
    rows = {row.system: row for row in run_grid(plan, Silent(), MachineConfig(processes=1)).comparison.rows}
    assert len(rows) == 5
    for name, part in (("held out", "held_out"), ("test", "test")):
        expected = []
        for seed in rows[name].seeds:
            runs = [open_run(job.path) for job in plan.jobs() if job.config.seed == seed]
            best = max(runs, key=lambda run: (run.metric(part).top1, -run.metric(part).loss))
            expected.append(best.path.name)
        assert [Path(run).name for run in rows[name].runs] == expected
    unfit = grid(systems=[own], ensembles=[], baseline=None, choices=choices[:1], schedule={**schedule, "held_out": 0})
    with pytest.raises(InputError, match="hold nothing out that could choose"):
        plan_grid(unfit, cache)  # before any run is made


@pytest.mark.slow
def test_other_caches_results_are_not_overwritten(cache: Path, tmp_path: Path) -> None:
    config = grid(systems=GRID["systems"][:1], ensembles=[], seeds=[0])  # type: ignore[index]
    run_grid(plan_grid(config, cache), Silent(), MachineConfig(processes=1))
    root = write_dataset(tmp_path / "other", num_clips=16, pixels=False)
    options = ExtractConfig(
        dataset="something-else", data_root=root, out=tmp_path / "o.zarr", backbone="none", workers=0
    )
    extract(options, Silent())
    with pytest.raises(InputError, match="results of another cache"):
        run_grid(plan_grid(config, tmp_path / "o.zarr"), Silent(), MachineConfig(processes=1))
    assert np.isfinite(read_comparison(tmp_path / "runs" / "tiny").rows[0].primary[0])
