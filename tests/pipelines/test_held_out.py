"""Which training clips are held out, whatever the groups are like, and runs whose held-out part is small or missing."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fixtures.something_else import write_dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ifcar.cache.open import open_cache
from ifcar.cache.protocols import LabelSpace
from ifcar.cache.protocols import ProtocolTable as Table
from ifcar.cache.schema import Provenance, Split
from ifcar.cache.writer import CacheWriter
from ifcar.cli import main
from ifcar.errors import InputError
from ifcar.pipelines.ensemble import choose_weights
from ifcar.pipelines.extract import extract
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.feed.examples import Examples
from ifcar.pipelines.feed.held_out import hold_out
from ifcar.pipelines.fit import fit
from ifcar.pipelines.grid.config import GridConfig
from ifcar.pipelines.grid.lines import SystemConfig
from ifcar.pipelines.grid.plan import plan_grid
from ifcar.pipelines.grid.run import run_grid
from ifcar.pipelines.labels.kinds import SingleLabel
from ifcar.pipelines.progress import Silent
from ifcar.pipelines.runs.config import RunConfig
from ifcar.pipelines.runs.resolve import make_run_config
from ifcar.pipelines.runs.schedule import ScheduleConfig

SHORT = ScheduleConfig(kind="stretched", epochs=4, batch_size=8)


def part_of(groups: list[int], share: float) -> tuple[NDArray[np.int64], str]:
    """Return the held-out clips of a training split with these groups, and the note."""
    n = len(groups)
    table = Table(
        name="p",
        spaces=(LabelSpace(kind="single", classes=("a",), targets=np.zeros(n, np.int16)),),
        split=np.full(n, Split.TRAIN, np.uint8),
        groups=np.array(groups, np.int32),
        group_names=tuple(str(g) for g in range(max(groups) + 1)),
        group_kind="subject" if max(groups) >= 0 else "",
    )
    once = np.ones((n, 1), np.bool_)
    clips, kind = np.arange(n), SingleLabel()
    train = Examples(
        name="train",
        names=clips.astype(np.str_),
        clips=clips,
        segments=clips,
        targets=np.zeros(n),
        kind=kind,
        rows=clips[:, None],
        usable=once,
        plain=once,
        per_rate=once.astype(np.int64),
    )
    division = hold_out(train, table, share)
    held = np.empty(0, np.int64) if division.held_out is None else division.held_out.clips
    np.testing.assert_array_equal(np.sort(np.concatenate([division.fitting.clips, held])), np.arange(n))
    return held, division.note


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.integers(1, 40) | st.sampled_from([1, 1, 200]), min_size=1, max_size=8),
    st.sampled_from([0.15, 0.3, 0.5, 0.8]),
)
def test_held_out_part_is_near_the_share_and_by_groups_where_they_allow_it(sizes: list[int], share: float) -> None:
    groups = [g for g, size in enumerate(sizes) for _ in range(size)]
    held, note = part_of(groups, share)
    n, count = len(groups), len(held)
    assert count < n and (count > 0 or n == 1)
    assert count <= max(share * n, n / 2, 1) + 0.5
    sums = [sum(some) for k in range(1, len(sizes)) for some in itertools.combinations(sizes, k)]
    near = [s for s in sums if share / 2 <= s / n <= min(1.5 * share, max(share, 0.5))]
    whole = all(np.isin(np.flatnonzero(np.array(groups) == g), held).all() for g in np.array(groups)[held])
    if near and len(sizes) >= 3:
        assert whole and share / 2 - 1e-9 <= count / n <= 1.5 * share + 1e-9 and not note
    if not whole:
        assert count == min(max(1, round(share * n)), n - 1) and note.startswith(f"held out: {count} of {n} ")
    if n > 1 and count > 1.5 * share * n + 1:
        assert note and (count <= 0.4 * n + 1e-9 or share > 0.4)


@given(st.lists(st.integers(3, 9), min_size=12, max_size=30))
def test_groups_of_like_size_are_held_out_in_their_drawn_order_until_the_share_is_reached(sizes: list[int]) -> None:
    groups = np.repeat(np.arange(len(sizes)), sizes)
    expected: list[int] = []
    for group in np.random.default_rng(0).permutation(len(sizes)):
        if len(expected) / len(groups) >= 0.15:
            break
        expected += np.flatnonzero(groups == group).tolist()
    held, note = part_of(groups.tolist(), 0.15)
    if len(expected) <= 1.5 * 0.15 * len(groups):
        np.testing.assert_array_equal(held, np.sort(expected))
        assert not note


@pytest.mark.parametrize(
    ("groups", "count", "note"),
    [
        (
            [0] + [1] * 40 + [2],
            6,
            r"6 of 42 training clips \(14 %, asked for 15 %\), one by one .* largest of 3 subjects",
        ),
        (
            [0] * 30 + [1] * 30 + [2] * 30,
            30,
            r"30 of 90 training clips \(33 %, asked for 15 %\), for the 3 subjects are",
        ),
        ([0] * 20 + [1] * 20, 6, "there are 2 subjects, of which none can be spared"),
        ([0] * 20, 3, "there is one subject, which cannot be spared"),
        ([0] * 10 + [1] * 10 + [2] * 10 + [-1] * 10, 6, "10 of the clips are of no known subject"),
        ([-1] * 20, 3, "not by groups, for the protocol names none; both parts may .* flatters"),
        ([0], 0, "no held-out part: there is one training clip"),
    ],
)
def test_a_part_that_is_not_what_was_asked_for_is_said(groups: list[int], count: int, note: str) -> None:
    held, found = part_of(groups, 0.15)
    assert len(held) == count
    assert re.search(note, found), found


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Boxes of 32 clips, 16 to train on, with protocols whose groups or labels leave little to hold out."""
    root = write_dataset(tmp_path_factory.mktemp("data") / "d", num_clips=32, pixels=False)
    out = root.parent / "boxes.zarr"
    extract(ExtractConfig(dataset="something-else", data_root=root, out=out, backbone="none", workers=0), Silent())
    reader = open_cache(out)
    even = reader.protocol("compositional")
    train, test = even.clips(Split.TRAIN), even.clips(Split.TEST)
    groups = np.zeros(32, np.int32)
    groups[train[0]] = 1
    names = {"group_names": ("long", "short"), "group_kind": "video"}
    uneven = replace(even, name="uneven", groups=groups, **names)
    split = np.zeros(32, np.uint8)
    split[train[0]], split[test] = Split.TRAIN, Split.TEST
    one = replace(uneven, name="one", split=split)
    held = part_of(groups[train].tolist(), 0.15)[0]
    labels = np.stack([even.labels.targets == k for k in (0, 1)], 1).astype(np.uint8)
    labels[train[held]] = 0
    several = replace(even.labels, kind="multi", targets=labels)
    unlabelled = replace(uneven, name="unlabelled", spaces=(several,))
    without_test = replace(several, targets=labels * (even.split != Split.TEST)[:, None])
    untested = replace(unlabelled, name="untested", spaces=(without_test,))
    CacheWriter.resume(
        out,
        spec=reader.spec,
        provenance=Provenance(identity=reader.identity, environment=reader.environment),
        clip_ids=reader.clip_ids,
        num_views=1,
        protocols=[even, uneven, one, unlabelled, untested],
    )
    reader.close()
    return out


@pytest.fixture(autouse=True)
def runs_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IFCAR_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


def config(cache: Path, protocol: str, schedule: ScheduleConfig = SHORT) -> RunConfig:
    return make_run_config(
        "base", cache, protocol=protocol, streams="layout", preset="small", schedule=schedule, settings={}
    )


def test_uneven_groups_are_said_on_the_terminal_and_kept_in_run_and_ensemble(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["fit-head", "base", "--streams", "layout", "--preset", "small", "--epochs", "2", "--cache", str(cache)]
    with pytest.raises(SystemExit) as done:
        main([*command, "--protocol", "uneven", "--out", str(tmp_path / "a")])
    printed = capsys.readouterr()
    assert not done.value.code
    line = "held out: 2 of 16 training clips (12 %, asked for 15 %), one by one"
    assert f"note: {line}" in printed.out and line in printed.err
    assert "steps choose the stopping point; then the refit on all training clips, at most" in printed.err
    with pytest.raises(SystemExit):
        main([*command, "--protocol", "uneven", "--json", "--out", str(tmp_path / "b")])
    (note,) = json.loads(capsys.readouterr().out)["notes"]
    assert note.startswith(line)
    with pytest.raises(SystemExit):
        main(
            [
                "ensemble",
                str(tmp_path / "a"),
                str(tmp_path / "b"),
                "--weights",
                "held-out",
                "--out",
                str(tmp_path / "e"),
            ]
        )
    assert f"note: {line}" in capsys.readouterr().out
    assert json.loads((tmp_path / "e" / "data.json").read_text())["notes"] == [note]


def test_one_training_clip_is_trained_for_the_epochs_given_and_resumes(cache: Path, tmp_path: Path) -> None:
    stopped = tmp_path / "stopped"
    result = fit(config(cache, "one"), Silent(), out=tmp_path / "r")
    assert (result.steps, result.best_step, result.refit) == (4, None, False)
    assert [m.split for m in result.run.metrics] == ["train", "test"]
    assert "there is one training clip" in result.run.data().notes[0]
    stopped.mkdir()
    (stopped / "config.yaml").write_bytes((tmp_path / "r" / "config.yaml").read_bytes())
    again = fit(result.run.config, Silent(), out=stopped, resume=True)  # type: ignore[arg-type]
    weights = [(path / "model.safetensors").read_bytes() for path in (stopped, tmp_path / "r")]
    assert weights[0] == weights[1] and again.run.data() == result.run.data()
    with pytest.raises(InputError, match="trained without a held-out part"):
        choose_weights([result.run, again.run])


def test_held_out_part_without_a_label_is_judged_by_its_loss(cache: Path) -> None:
    result = fit(config(cache, "unlabelled"), Silent())
    history = [json.loads(line) for line in (result.run.path / "history.jsonl").read_text().splitlines()]
    fitted = [record for record in history if record["phase"] == "fit"]
    assert result.best_step == min(fitted, key=lambda record: record["held_out_loss"])["step"]
    assert not any("held_out_map" in record for record in fitted)
    held_out, test = result.run.metric("held_out"), result.run.metric("test")
    assert held_out is not None and held_out.measures() == {} and "map" not in held_out.record()
    assert test is not None and test.map is not None


def test_test_part_without_a_label_has_a_loss_and_no_table(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = fit(config(cache, "untested"), Silent()).run
    with pytest.raises(SystemExit) as done:
        main(["evaluate", str(run.path)])
    test = run.metric("test")
    assert test is not None and test.map is None
    assert not done.value.code and f"test, n = 16: loss {test.loss:.3f}" in capsys.readouterr().out
    grid = GridConfig(name="g", title="", systems=(SystemConfig(name="A", head="base"),), protocols=("untested",))
    with pytest.raises(InputError, match="none of the 16 test clips of protocol 'untested' has a label"):
        plan_grid(grid, cache)


def test_grid_says_what_its_runs_say_of_the_held_out_part(cache: Path) -> None:
    grid = GridConfig(
        name="g",
        title="",
        preset="small",
        seeds=(0, 1),
        schedule=SHORT,
        protocols=("uneven",),
        systems=(SystemConfig(name="A", head="base", streams="layout"),),
    )
    plan = plan_grid(grid, cache)
    for job in plan.jobs():
        fit(job.config, Silent(), out=job.path)
    result = run_grid(plan, Silent())
    assert result.num_runs == 2 and not result.failures
    (note,) = result.comparison.notes
    assert note.startswith("uneven: held out: 2 of 16 training clips")
