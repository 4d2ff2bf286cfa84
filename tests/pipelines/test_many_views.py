"""Many views of a clip, at one and at several sampling rates, from extraction to the test that pools them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures.something_else import label, record, write_dataset
from numpy.typing import NDArray

from ifcar.cache.open import open_cache
from ifcar.cache.protocols import LabelSpace
from ifcar.cache.reader import CacheReader
from ifcar.cache.schema import Provenance, Split, share_views
from ifcar.cache.writer import CacheWriter
from ifcar.cli import main
from ifcar.heads.contract import InstanceBatch
from ifcar.pipelines.feed.examples import read_examples, spread_views
from ifcar.pipelines.fit import fit
from ifcar.pipelines.labels.mean_ap import mean_average_precision
from ifcar.pipelines.progress import Silent
from ifcar.pipelines.runs.config import RunConfig
from ifcar.pipelines.runs.finished import Run
from ifcar.pipelines.runs.heads import trained_head
from ifcar.pipelines.runs.resolve import make_run_config
from ifcar.pipelines.runs.schedule import ScheduleConfig

NUM_CLIPS, LENGTH = 12, 81
NAMES = ("goes down", "goes up", "fast")
SHORT = ScheduleConfig(kind="stretched", min_steps=30, batch_size=6)


def write_long_clips(root: Path) -> None:
    """Replace the boxes of a written data set by those of clips of 81 frames, which differ in direction and speed."""
    annotations = {}
    for clip in range(NUM_CLIPS):
        name, speed = str(100 + clip), 0.1 if clip % 3 else 0.3
        y = [2 + speed * f if clip % 2 else 28 - speed * f for f in range(LENGTH)]
        annotations[name] = [record(name, f, [label("0000", (20.0, y[f], 36.0, y[f] + 14))]) for f in range(LENGTH)]
    (root / "annotations.json").write_text(json.dumps(annotations))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A short run on boxes of 30 views at three rates, with two or three labels a clip."""
    root = tmp_path_factory.mktemp("many")
    data, out = write_dataset(root / "d", NUM_CLIPS, pixels=False), root / "boxes.zarr"
    write_long_clips(data)
    command = ["extract", "--dataset", "something-else", "--data-root", str(data), "--out", str(out), "--json"]
    with pytest.raises(SystemExit) as ended:
        main([*command, "--backbone", "none", "--views", "30", "--sampling-rates", "2,4,8", "--workers", "0"])
    assert ended.value.code == 0
    reader = open_cache(out)
    single = reader.protocol("compositional")
    clips = [int(name) - 100 for name in reader.clip_ids]
    labels = np.array([[c % 2 == 1, c % 2 == 0, c % 3 == 0] for c in clips], np.uint8)
    multi = replace(single, name="many", spaces=(LabelSpace(kind="multi", classes=NAMES, targets=labels),))
    CacheWriter.resume(
        out,
        spec=reader.spec,
        provenance=Provenance(identity=reader.identity, environment=reader.environment),
        clip_ids=reader.clip_ids,
        num_views=30,
        protocols=[multi],
    )
    reader.close()
    options = make_run_config(
        "stin", out, protocol="many", streams="layout", preset="small", schedule=SHORT, seed=0, settings={}
    )
    return fit(options, Silent(), out=root / "run").run


def scores_of_each_view(run: Run, reader: CacheReader) -> NDArray[np.float64]:
    """The sigmoids of every row, one at a time: (clips, 30, K)."""
    assert isinstance(run.config, RunConfig)
    head = trained_head(run.config, run.path, reader.spec, len(NAMES))
    found = np.zeros((NUM_CLIPS, 30, len(NAMES)))
    for row in range(reader.num_rows):
        boxes, categories = (torch.from_numpy(reader.table(name)[[row]]) for name in ("boxes", "categories"))
        with torch.inference_mode():
            logits = head(InstanceBatch({"boxes": boxes, "categories": categories})).logits[0].double().numpy()
        for k in range(len(NAMES)):
            found[row // 30, row % 30, k] = 1 / (1 + np.exp(-logits[k]))
    return found


def evaluated(run: Run, capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, float]:
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", str(run.path), *options, "--json"])
    assert ended.value.code == 0
    metrics: dict[str, float] = json.loads(capsys.readouterr().out)["metrics"]
    return metrics


@pytest.mark.slow
def test_thirty_views_summed_and_ten_by_their_maximum_are_those_of_a_literal_loop(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert isinstance(run.config, RunConfig)
    reader = open_cache(run.config.cache)
    protocol = reader.protocol("many")
    rates, starts = reader.table("sampling_rate"), reader.table("frame_indices")[:, 0]
    scores = scores_of_each_view(run, reader)
    tested = protocol.clips(Split.TEST)
    summed, highest = np.zeros((len(tested), 3)), np.zeros((len(tested), 3))
    for place, clip in enumerate(tested):
        counted = {2: 0, 4: 0, 8: 0}
        ordered: dict[int, list[int]] = {2: [], 4: [], 8: []}
        for view in sorted(range(30), key=lambda v: (int(starts[clip * 30 + v]), v)):
            rate = int(rates[clip * 30 + view])
            counted[rate] += 1
            ordered[rate].append(view)
            for k in range(3):
                summed[place, k] += scores[clip, view, k]
        assert counted == {2: 9, 4: 12, 8: 9}
        ten = [*(ordered[2][j] for j in (1, 4, 7)), *(ordered[4][j] for j in (1, 4, 7, 10))]
        ten += [ordered[8][j] for j in (1, 4, 7)]
        for k in range(3):
            highest[place, k] = max(scores[clip, view, k] for view in ten)
    targets = protocol.labels.targets[tested]
    for pooled, options in ((summed / 30, ("30", "--pool", "sum")), (highest, ("10", "--pool", "max"))):
        metrics = evaluated(run, capsys, "--views", *options)
        loss = -np.mean(targets * np.log(pooled) + (1 - targets) * np.log(1 - pooled))
        assert metrics["loss"] == pytest.approx(loss, rel=1e-4)
        assert metrics["map"] == pytest.approx(mean_average_precision(pooled.astype(np.float32), targets))
    assert np.abs(summed / 30 - highest).max() > 1e-3
    reader.close()


def test_a_few_of_the_views_share_the_rates_as_all_do(run: Run) -> None:
    assert isinstance(run.config, RunConfig)
    reader = open_cache(run.config.cache)
    tested = read_examples(reader, reader.protocol("many"), Split.TEST)
    two = spread_views(tested, reader, 2)
    chosen = reader.table("sampling_rate")[two.rows[two.plain]].reshape(-1, 2)
    expected = [rate for rate, count in zip((2.0, 4.0, 8.0), share_views(2, 3), strict=True) for _ in range(count)]
    assert np.sort(chosen, axis=1).tolist() == [expected] * len(tested)
    reader.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sampling", "segments", "--sampling-fps", "6"], "--sampling is 'segments', which --sampling-fps excludes"),
        (["--sampling-fps", "6", "--sampling-rates", "2"], "--sampling-fps and --sampling-rates exclude each other"),
        (["--sampling-rates", "2,4,8"], "views is 1; expected at least 3, one for each rate"),
        (["--sampling-rates", "2;4"], "--sampling-rates is '2;4'; expected numbers"),
        (["--sampling", "rate"], "expected --sampling-fps or --sampling-rates beside it"),
        (["--boxes", "nowhere.json"], "nowhere.json: no such file"),
    ],
)
def test_options_that_exclude_each_other_end_the_command_in_one_line(
    tmp_path: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_dataset(tmp_path / "d", 2, pixels=False)
    command = ["extract", "--dataset", "something-else", "--data-root", str(data), "--out", str(tmp_path / "c.zarr")]
    with pytest.raises(SystemExit) as ended:
        main([*command, "--backbone", "none", *options])
    lines = capsys.readouterr().err.strip().splitlines()
    assert ended.value.code == 2 and len(lines) == 1 and message in lines[0]
    assert not (tmp_path / "c.zarr").exists()
