"""Every test clip of every protocol is tested on the same plain views, and augmented ones belong to training only."""

from __future__ import annotations

import csv
import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fixtures.something_else import CLASSES, write_dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ifcar.cache.export import export_hdf5
from ifcar.cache.open import open_cache
from ifcar.cache.protocols import ProtocolTable
from ifcar.cache.reader import CacheReader
from ifcar.cache.schema import Split, Status
from ifcar.cache.verify import verify_cache
from ifcar.cache.writer import CacheWriter
from ifcar.errors import CacheMismatchError, InputError
from ifcar.pipelines.configs import from_plain, to_plain
from ifcar.pipelines.evaluate import evaluate
from ifcar.pipelines.extract import ExtractResult, extract
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.extraction.sources import read_source
from ifcar.pipelines.feed.examples import Examples, limit_views, read_examples
from ifcar.pipelines.feed.held_out import hold_out
from ifcar.pipelines.finetune.data import live_examples
from ifcar.pipelines.fit import fit
from ifcar.pipelines.grid.config import GridConfig
from ifcar.pipelines.grid.plan import plan_grid
from ifcar.pipelines.grid.run import run_grid
from ifcar.pipelines.listing import describe_cache
from ifcar.pipelines.progress import Silent
from ifcar.pipelines.report.config import ReportConfig
from ifcar.pipelines.report.report import report
from ifcar.pipelines.runs.data import protocol_digest
from ifcar.pipelines.runs.finished import Run, open_run
from ifcar.pipelines.runs.questions import EvaluateConfig
from ifcar.pipelines.runs.resolve import make_run_config
from ifcar.pipelines.runs.schedule import ScheduleConfig

NUM_CLIPS = 8
Splits = list[Split]
SHORT = ScheduleConfig(kind="stretched", epochs=4, batch_size=4)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("plain") / "d", NUM_CLIPS, pixels=False)


def write_protocols(data: Path, protocols: dict[str, Splits]) -> None:
    """Replace the data set's protocols by these, which give each clip its split."""
    shutil.rmtree(data / "splits")
    for name, splits in protocols.items():
        folder = data / "splits" / name
        folder.mkdir(parents=True)
        (folder / "labels.json").write_text(json.dumps({name: k for k, name in enumerate(CLASSES)}))
        for part, own in (("train", Split.TRAIN), ("validation", Split.TEST)):
            entries = [
                {
                    "id": str(100 + clip),
                    "template": f"Moving [something] {'right' if clip % 2 else 'left'}",
                    "placeholders": [f"thing {clip // 2}"],
                    "label": "x",
                }
                for clip in range(NUM_CLIPS)
                if splits[clip] == own
            ]
            (folder / f"{part}.json").write_text(json.dumps(entries))


def options(data: Path, out: Path, **changes: object) -> ExtractConfig:
    values = {"dataset": "something-else", "data_root": data, "out": out, "backbone": "none", "frames": 4, "workers": 0}
    return ExtractConfig(**{**values, **changes})  # type: ignore[arg-type]


def splits_of(*train: int, test: tuple[int, ...]) -> Splits:
    return [Split.TRAIN if c in train else Split.TEST if c in test else Split.NONE for c in range(NUM_CLIPS)]


def two_protocols() -> dict[str, Splits]:
    """Clips 0 to 2 train in `one` and are tested in `other`, 4 the other way round; 7 is tested in both, 6 in none."""
    return {
        "one": splits_of(0, 1, 2, 3, test=(4, 5, 7)),
        "other": splits_of(4, test=(0, 1, 2, 7)),
    }


SPLITS = st.lists(st.sampled_from(Split), min_size=NUM_CLIPS, max_size=NUM_CLIPS).filter(
    lambda splits: Split.TRAIN in splits and Split.TEST in splits
)


@pytest.mark.slow
@given(
    protocols=st.lists(SPLITS, min_size=1, max_size=3),
    num_views=st.integers(1, 4),
    num_augmented=st.integers(0, 3),
    sampling=st.sampled_from([{}, {"sampling_rates": (1, 2)}, {"sampling": "annotated"}]),
)
@settings(max_examples=8, deadline=None)
def test_every_part_of_every_protocol_is_scored_by_v_plain_views_and_only_training_draws_others(
    data: Path, protocols: list[Splits], num_views: int, num_augmented: int, sampling: dict[str, object]
) -> None:
    num_views = max(num_views, len(sampling.get("sampling_rates", ())))  # type: ignore[arg-type]
    write_protocols(data, {f"p{k}": splits for k, splits in enumerate(protocols)})
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "c.zarr")
        result = extract(options(data, out, views=num_views, augmented_views=num_augmented, **sampling), Silent())
        reader = open_cache(out)
        augmented, status = (reader.table(name).reshape(NUM_CLIPS, -1) for name in ("augmented", "status"))
        trained = np.array([any(splits[c] == Split.TRAIN for splits in protocols) for c in range(NUM_CLIPS)])
        assert status.shape[1] == num_views + num_augmented
        assert (status[:, :num_views] == Status.DONE).all() and not augmented[:, :num_views].any()
        for clip in range(NUM_CLIPS):
            expected = Status.DONE if trained[clip] else Status.NOT_WANTED
            assert (status[clip, num_views:] == expected).all() and (augmented[clip, num_views:] == trained[clip]).all()
        assert result.num_computed == (status == Status.DONE).sum() and verify_cache(out).ok
        for k, splits in enumerate(protocols):
            check_parts(reader, reader.protocol(f"p{k}"), splits, num_views, num_augmented)
        reader.close()


def check_parts(reader: CacheReader, protocol: ProtocolTable, splits: Splits, num_views: int, num_more: int) -> None:
    """Check what a protocol's parts are scored by, and what training draws."""
    train, test = (read_examples(reader, protocol, split) for split in (Split.TRAIN, Split.TEST))
    division = hold_out(train, protocol, 0.3)
    parts = [train, test, division.fitting, *([division.held_out] if division.held_out else [])]
    augmented = reader.table("augmented")
    for part in parts:
        assert not part.note
        for place, clip in enumerate(part.clips):
            scored = part.rows[place][part.plain[place]]
            first = int(clip) * (num_views + num_more)
            assert scored.tolist() == list(range(first, first + num_views))
            assert not augmented[scored].any()
    assert test.clips.tolist() == [c for c in range(NUM_CLIPS) if splits[c] == Split.TEST]
    assert (test.usable == test.plain).all()
    drawn = drawn_rows(train)
    for place in range(len(train)):
        assert set(drawn[:, place]) == set(train.rows[place]), "training draws every row of its clips"


def test_live_parts_are_scored_by_the_plain_views_of_the_cache_that_follows(data: Path, tmp_path: Path) -> None:
    write_protocols(data, two_protocols())
    extract(options(data, tmp_path / "c.zarr", views=3), Silent())
    reader = open_cache(tmp_path / "c.zarr")
    source = read_source(options(data, tmp_path / "c.zarr"), Silent(), needs_pixels=False)
    for protocol in source.protocols:
        for split in (Split.TRAIN, Split.TEST):
            cached, live = read_examples(reader, protocol, split), live_examples(source, protocol, split, 3)
            for name in ("clips", "rows", "usable", "plain", "per_rate"):
                np.testing.assert_array_equal(getattr(live, name), getattr(cached, name), err_msg=name)


def drawn_rows(train: Examples, times: int = 400) -> NDArray[np.int64]:
    """Draw a row of every clip so many times: (times, n)."""
    rng = np.random.default_rng(0)
    return np.stack([train.draw_rows(np.arange(len(train)), rng) for _ in range(times)])


def test_training_draws_rates_alike_and_the_rows_of_a_rate_alike(data: Path, tmp_path: Path) -> None:
    """Nine, twelve and nine of thirty are the test's shares; training takes each rate a third of the time."""
    write_protocols(data, two_protocols())
    extract(
        options(data, tmp_path / "c.zarr", frames=2, views=30, augmented_views=2, sampling_rates=(1, 2, 4)), Silent()
    )
    reader = open_cache(tmp_path / "c.zarr")
    train = read_examples(reader, reader.protocol("one"), Split.TRAIN)
    drawn = drawn_rows(train, 3000)
    rates = reader.table("sampling_rate")
    for place, rows in enumerate(train.rows):
        for rate in (1, 2, 4):
            own = rows[rates[rows] == rate]
            shares = np.array([(drawn[:, place] == row).mean() for row in own])
            assert shares.sum() == pytest.approx(1 / 3, abs=0.04)
            np.testing.assert_allclose(shares, 1 / 3 / len(own), atol=0.02)
    reader.close()


def test_views_that_no_protocol_trained_on_are_computed_when_one_does(data: Path, tmp_path: Path) -> None:
    """The cache becomes the one that both protocols would have had from the start; the first one's runs stay valid."""
    out, protocols = tmp_path / "c.zarr", two_protocols()
    write_protocols(data, {"one": protocols["one"]})
    first = extract(options(data, out, views=2, augmented_views=3), Silent())
    assert (first.num_rows, first.num_computed) == (40, 40 - 4 * 3)
    digest = digest_of(out, "one")
    write_protocols(data, protocols)
    again = extract(options(data, out, views=2, augmented_views=3), Silent())
    assert again.num_computed == 3 and digest_of(out, "one") == digest
    extract(options(data, tmp_path / "whole.zarr", views=2, augmented_views=3), Silent())
    found, whole = open_cache(out), open_cache(tmp_path / "whole.zarr")
    assert found.fingerprint == whole.fingerprint
    for name in found.spec.names():
        np.testing.assert_array_equal(found.table(name), whole.table(name), err_msg=name)
    assert extract(options(data, out, views=2, augmented_views=3), Silent()).num_computed == 0
    assert "31 done, 0 failed, 9 not wanted (8 clips × 2 views and 3 augmented)" in str(describe_cache(out)["facts"][0])


def digest_of(cache: Path, protocol: str) -> str:
    reader = open_cache(cache)
    return protocol_digest(reader.status(), reader.protocol(protocol), reader.manifest.num_augmented_views)


def test_a_block_without_a_wanted_row_is_committed_and_exported(data: Path, tmp_path: Path) -> None:
    """Of 8 clips with 201 rows each only clip 0 is trained on; the last 72 rows are augmented views of clip 7."""
    write_protocols(data, {"one": splits_of(0, test=(1, 2))})
    out = tmp_path / "c.zarr"
    result: ExtractResult = extract(options(data, out, frames=1, instances=1, augmented_views=200), Silent())
    assert (result.num_rows, result.num_computed) == (8 * 201, 201 + 7)
    assert (open_cache(out).status()[6 * 256 :] == Status.NOT_WANTED).all() and verify_cache(out).ok
    export_hdf5(out, tmp_path / "c.h5")
    left, right = open_cache(out), open_cache(tmp_path / "c.h5")
    assert left.manifest == right.manifest and left.manifest.num_augmented_views == 200
    np.testing.assert_array_equal(left.status(), right.status())


def test_augmented_views_of_which_nobody_is_trained_are_refused(data: Path, tmp_path: Path) -> None:
    write_protocols(data, {"one": splits_of(6, 7, test=(0, 1))})
    with pytest.raises(InputError, match=r"--augmented-views 2 would be ignored: no protocol .* any of the 4 clips"):
        extract(options(data, tmp_path / "c.zarr", augmented_views=2, limit=4), Silent())
    assert not (tmp_path / "c.zarr").exists()


@pytest.mark.parametrize("changes", [{"views": 3}, {"augmented_views": 3}, {"views": 2, "augmented_views": 2}])
def test_a_cache_goes_on_with_its_own_numbers_of_views_only(
    data: Path, tmp_path: Path, changes: dict[str, int]
) -> None:
    write_protocols(data, two_protocols())
    extract(options(data, tmp_path / "c.zarr", views=2, augmented_views=1), Silent())
    with pytest.raises(CacheMismatchError, match=r"views is \d in the cache, \d now"):
        extract(options(data, tmp_path / "c.zarr", **{"views": 2, "augmented_views": 1, **changes}), Silent())


@pytest.fixture
def old_cache(data: Path, tmp_path: Path) -> Path:
    """A cache as the last version made it: of clips that some protocol trains on, views 1 and 2 are augmented."""
    write_protocols(data, two_protocols())
    extract(options(data, tmp_path / "new.zarr", views=3), Silent())
    new, path = open_cache(tmp_path / "new.zarr"), tmp_path / "old.zarr"
    identity = json.loads(json.dumps(dict(new.identity)))
    del identity["views"]["version"]
    identity["views"] |= {"seed": 0, "min_scale": 0.7, "flip": False, "training_clips": "00"}
    writer = CacheWriter.create(
        path,
        spec=new.spec,
        provenance=replace(new.manifest.provenance, identity=identity),
        clip_ids=new.clip_ids,
        num_views=3,
        protocols=[new.protocol(name) for name in new.protocol_names()],
    )
    arrays = {name: new.table(name) for name in new.spec.names()}
    trained = [0, 1, 2, 3, 4]
    arrays["augmented"].reshape(NUM_CLIPS, 3)[trained, 1:] = True
    writer.write_block(0, arrays, {})
    return path


def run_on(cache: Path, protocol: str, out: Path) -> Run:
    config = make_run_config("base", cache, protocol=protocol, streams="layout", preset="small", schedule=SHORT, seed=0)
    return fit(config, Silent(), out=out).run


def test_a_cache_of_before_is_tested_on_the_fewest_plain_views_of_a_test_clip(old_cache: Path, tmp_path: Path) -> None:
    """In `other` clips 0 to 2 have one plain view and clip 7 has three, of which the one in the middle stays."""
    reader = open_cache(old_cache)
    test = read_examples(reader, reader.protocol("other"), Split.TEST)
    assert test.clips.tolist() == [0, 1, 2, 7] and test.plain.sum(axis=1).tolist() == [1, 1, 1, 1]
    starts = reader.table("frame_indices")[:, 0]
    kept = int(test.rows[3][test.plain[3]][0])
    assert starts[kept] == np.sort(starts[7 * 3 : 7 * 3 + 3])[1]
    assert test.note.startswith("1 of 4 test clips has up to 3 plain views and others 1, as an earlier version made")
    run = run_on(old_cache, "other", tmp_path / "run")
    assert run.data().notes[0] == test.note
    scored = evaluate(run.path)
    assert scored.agrees and scored.note == test.note


def test_a_cache_of_before_whose_test_clips_are_alike_keeps_all_their_views(old_cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "alike.zarr"
    reader = open_cache(old_cache)
    alike = replace(reader.protocol("one"), split=np.array(splits_of(0, 1, 2, 3, test=(5, 6, 7)), np.uint8))
    shutil.copytree(old_cache, path)
    CacheWriter.resume(
        path,
        spec=reader.spec,
        provenance=reader.manifest.provenance,
        clip_ids=reader.clip_ids,
        num_views=3,
        protocols=[alike],
    )
    changed = open_cache(path)
    train, test = (read_examples(changed, changed.protocol("one"), split) for split in (Split.TRAIN, Split.TEST))
    assert test.plain.all() and not test.note
    assert train.plain.sum(axis=1).tolist() == [1] * 4 and train.usable.all() and not train.note


def test_a_cache_of_before_is_not_gone_on_with(old_cache: Path, data: Path) -> None:
    with pytest.raises(CacheMismatchError, match=r"identity\.views\.version is absent in the cache, 2 now"):
        extract(options(data, old_cache, views=3), Silent())


def test_evaluation_takes_as_many_plain_views_as_there_are_and_says_what_makes_more(data: Path, tmp_path: Path) -> None:
    write_protocols(data, two_protocols())
    extract(options(data, tmp_path / "c.zarr", views=3, augmented_views=2), Silent())
    run = run_on(tmp_path / "c.zarr", "other", tmp_path / "run")
    assert evaluate(run.path).agrees
    for views in (1, 2, 3):
        found = evaluate(run.path, EvaluateConfig(views=views))
        assert found.metrics.n == 4 and found.agrees is None and not found.note
    with pytest.raises(InputError) as raised:
        evaluate(run.path, EvaluateConfig(views=4))
    assert str(raised.value) == (
        f"--views is 4; expected 1 to 3, the plain views of a test clip in {tmp_path / 'c.zarr'} (augmented ones are "
        "for training only); for more, `ifcar extract --views 4` into another --out, and train on that cache"
    )
    with pytest.raises(InputError, match=r"--views is 0; expected 1 to 3, .* training only\)$"):
        evaluate(run.path, EvaluateConfig(views=0))


def test_fewer_views_are_those_of_a_cache_that_holds_no_more(data: Path, tmp_path: Path) -> None:
    """A plain view in the middle, and the first augmented one, which depends on its number alone."""
    write_protocols(data, two_protocols())
    seen = {}
    for name, views, more in (("large", 3, 2), ("small", 1, 1)):
        extract(options(data, tmp_path / f"{name}.zarr", views=views, augmented_views=more), Silent())
        reader = open_cache(tmp_path / f"{name}.zarr")
        train, test = (read_examples(reader, reader.protocol("one"), split) for split in (Split.TRAIN, Split.TEST))
        if name == "large":
            train, test = (limit_views(part, reader, 1, 1) for part in (train, test))
            np.testing.assert_array_equal(train.per_rate, np.full(train.rows.shape, 2))
        frames, boxes = reader.table("frame_indices"), reader.table("boxes")
        rows = [train.plain_rows()[0], test.plain_rows()[0], train.rows[train.usable]]
        seen[name] = [(frames[own].tolist(), boxes[own].tolist()) for own in rows]
    assert seen["large"] == seen["small"]
    train = read_examples(open_cache(tmp_path / "large.zarr"), reader.protocol("one"), Split.TRAIN)
    with pytest.raises(
        InputError, match=r"--augmented-views is 3; expected 0 to 2, .* `ifcar extract --augmented-views 3`"
    ):
        limit_views(train, open_cache(tmp_path / "large.zarr"), None, 3)


@pytest.mark.slow
def test_a_grid_over_views_is_drawn_beside_their_size(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IFCAR_RUNS", str(tmp_path / "runs"))
    write_protocols(data, two_protocols())
    extract(options(data, tmp_path / "c.zarr", views=3, augmented_views=2), Silent())
    system = {"head": "base", "streams": "layout", "name": "base"}
    content = {"name": "g", "protocols": ["one"], "preset": "small", "seeds": [0], "schedule": to_plain(SHORT)}
    systems = [{**system, "product": {"views": [1, 2]}}, {**system, "name": "all"}]
    result = run_grid(
        plan_grid(from_plain(GridConfig, {**content, "systems": systems}, "grid"), tmp_path / "c.zarr"), Silent()
    )
    assert [row.system for row in result.comparison.rows] == ["base (views 1)", "base (views 2)", "all"]
    for row in result.comparison.rows:
        run = open_run(Path(row.runs[0]))
        assert evaluate(run.path).agrees
        assert ("-views1-" in run.path.name) == (row.system == "base (views 1)")
    report([result.folder], Silent(), ReportConfig(out=tmp_path / "page", num_clips=0))
    lines = list(csv.DictReader((tmp_path / "page" / "figures" / "views.csv").open()))
    reader = open_cache(tmp_path / "c.zarr")
    size = reader.spec.row_bytes([array.name for array in reader.spec.arrays])
    by_hand = [v * (4 + 3) + 2 * 4 for v in (1, 2, 3)]  # rows of 4 training and 3 test clips
    assert [int(line["rows"]) for line in lines] == by_hand
    assert [float(line["gigabytes"]) for line in lines] == pytest.approx([n * size / 1e9 for n in by_hand])
    record = [json.loads(line) for line in (tmp_path / "c.zarr.hours.jsonl").read_text().splitlines()]
    took = sum(line["hours"] for line in record) / sum(line["rows"] for line in record)
    assert [float(line["hours"]) for line in lines] == pytest.approx([n * took for n in by_hand])
    assert [line["views"] + line["augmented_views"] for line in lines] == ["12", "22", "32"]
    with pytest.raises(InputError, match=r"system .base \(views 4\).: --views is 4; expected 1 to 3"):
        systems[0]["product"] = {"views": [4]}
        plan_grid(from_plain(GridConfig, {**content, "systems": systems}, "grid"), tmp_path / "c.zarr")
