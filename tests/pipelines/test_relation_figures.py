"""The report's figures of what ORN relates, on a cache of made objects, against loops over every pair."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from ifcar.cache.arrays import MASKS, CacheSpec, object_classes
from ifcar.cache.open import open_cache
from ifcar.cache.protocols import LabelSpace, ProtocolTable
from ifcar.cache.schema import Provenance, Split, Status
from ifcar.cache.writer import CacheWriter
from ifcar.heads.orn import ORN
from ifcar.pipelines.feed.batches import read_batch
from ifcar.pipelines.fit import fit
from ifcar.pipelines.progress import Silent
from ifcar.pipelines.report.config import ReportConfig
from ifcar.pipelines.report.report import report
from ifcar.pipelines.runs.finished import Run
from ifcar.pipelines.runs.heads import trained_head
from ifcar.pipelines.runs.resolve import make_run_config
from ifcar.pipelines.runs.schedule import ScheduleConfig

OBJECTS, CLIPS, STEPS, SLOTS = ("hand", "cup", "box"), 16, 4, 3


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    spec = CacheSpec.standard(
        num_frames=STEPS, num_steps=STEPS, num_instances=SLOTS, more=(MASKS, object_classes(OBJECTS))
    )
    numbers = np.arange(CLIPS)
    table = ProtocolTable(
        name="made",
        spaces=(LabelSpace(kind="single", classes=("nears", "leaves"), targets=(numbers % 2).astype(np.int16)),),
        split=np.where(numbers < 10, Split.TRAIN, Split.TEST).astype(np.uint8),
        groups=np.full(CLIPS, -1, np.int32),
    )
    path = tmp_path_factory.mktemp("caches") / "c.zarr"
    writer = CacheWriter.create(
        path,
        spec=spec,
        provenance=Provenance(identity={"dataset": {"name": "made"}, "backbone": {"name": "none"}}),
        clip_ids=[f"clip {n}" for n in numbers],
        num_views=1,
        protocols=[table],
    )
    rows = spec.empty_rows(CLIPS)
    rows["status"][:] = Status.DONE
    present = rng.random((CLIPS, STEPS, SLOTS)) < 0.8
    rows["categories"][:] = np.where(present, [1, 2, 2], 0)
    rows["object_classes"][:] = np.where(present, rng.integers(0, 3, (CLIPS, 1, SLOTS)), -1)
    rows["boxes"][:] = rng.uniform(0.2, 0.8, rows["boxes"].shape) * present[..., None]
    rows["masks"][:] = 255 * (rng.random(rows["masks"].shape) < 0.2) * present[..., None, None]
    writer.write_block(0, rows, {})
    return path


@pytest.fixture(scope="module")
def run(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    config = make_run_config(
        "orn",
        cache,
        preset="small",
        settings={"heads": "object", "features": ["shape", "class"]},
        schedule=ScheduleConfig(kind="stretched", epochs=10, refit=False, held_out=0.0),
    )
    return fit(config, Silent(), out=tmp_path_factory.mktemp("runs") / "orn").run


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_the_reports_graphs_and_moments_are_sums_over_pairs_of_an_earlier_and_a_later_object(
    cache: Path, run: Run, tmp_path: Path
) -> None:
    page = report([run.path], Silent(), ReportConfig(out=tmp_path / "r", num_clips=0)).page.read_text()
    assert "what ORN relates over time" in page
    reader, config = open_cache(cache), run.config
    head = trained_head(config, run.path, reader.spec, 2)  # type: ignore[arg-type]
    assert isinstance(head, ORN)
    tested = np.arange(10, CLIPS)
    batch = read_batch(reader, reader.spec.names("layout"), tested)
    with torch.no_grad():
        e = head.relations(batch).double().numpy()
    classes, present = batch.array("object_classes").numpy(), batch.categories.numpy() > 0
    wanted: dict[tuple[str, str, str], list[float]] = {}
    for clip, number in enumerate(tested):
        for t in range(STEPS):
            for s in range(t):
                for j in range(SLOTS):
                    for k in range(SLOTS):
                        if present[clip, s, j] and present[clip, t, k]:
                            ends = (OBJECTS[classes[clip, s, j]], OBJECTS[classes[clip, t, k]])
                            wanted.setdefault((("nears", "leaves")[number % 2], *ends), []).append(e[clip, t, s, j, k])
    drawn = rows_of(tmp_path / "r" / "figures" / "interactions.csv")
    found = {(row["class"], row["earlier"], row["later"]): row for row in drawn}
    assert found.keys() == wanted.keys() and len(found) > 10
    for key, values in wanted.items():
        assert int(found[key]["pairs"]) == len(values)
        assert float(found[key]["sum_e"]) == pytest.approx(sum(values), rel=1e-4, abs=1e-6)

    moments = rows_of(tmp_path / "r" / "figures" / "moments-1.csv")
    clip = int(moments[0]["clip"].split()[1]) - 10
    later, earlier = np.unravel_index(int(e[clip].sum((2, 3)).argmax()), (STEPS, STEPS))
    assert {(row["earlier_step"], row["later_step"]) for row in moments} == {(str(earlier), str(later))}
    for row in moments:
        j, k = int(row["earlier_slot"]), int(row["later_slot"])
        assert float(row["e"]) == pytest.approx(e[clip, later, earlier, j, k], rel=1e-4)
        assert row["earlier"] == OBJECTS[classes[clip, earlier, j]] and row["later"] == OBJECTS[classes[clip, later, k]]
