"""A head of torch's own layers, which stands outside the package, keeps the contract and trains beside ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from fixtures.interrupts import interrupted_after
from fixtures.something_else import write_dataset
from torch import nn

from ifcar.cache.arrays import CacheSpec
from ifcar.errors import InputError
from ifcar.heads.catalog import HEADS
from ifcar.heads.contract import Head, HeadOutput, InstanceBatch
from ifcar.pipelines.evaluate import evaluate
from ifcar.pipelines.extract import extract
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.fit import fit
from ifcar.pipelines.fleets.fleet import plan_fleets
from ifcar.pipelines.grid.config import GridConfig
from ifcar.pipelines.grid.lines import SystemConfig
from ifcar.pipelines.grid.plan import plan_grid
from ifcar.pipelines.progress import Silent
from ifcar.pipelines.runs.config import RunConfig
from ifcar.pipelines.runs.resolve import make_run_config
from ifcar.pipelines.runs.schedule import ScheduleConfig
from ifcar.pipelines.training.checkpoint import NAME as CHECKPOINT
from ifcar.pipelines.training.together import FitResult, fit_together
from ifcar.testing.batches import LAYOUT_SPEC
from ifcar.testing.head_contract import CHECKS

BRIEF = ScheduleConfig(kind="stretched", epochs=4, batch_size=8, held_out=0.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnConfig:
    width: int = 16
    dropout: float = 0.3


class OwnLayers(Head):
    """Source: none; an attention layer over the boxes' means of each step, then a GRU."""

    name = "own-layers"
    source = "tests"
    formula = "logits = W GRU(attend(mean_i box_i^t))"
    config_type = OwnConfig
    presets: ClassVar[Mapping[str, OwnConfig]] = {"paper": OwnConfig(), "small": OwnConfig()}
    stackable = False

    @classmethod
    def reads(cls, config: OwnConfig) -> tuple[str, ...]:
        return ("boxes", "categories")

    def __init__(self, config: OwnConfig, spec: CacheSpec, num_classes: int) -> None:
        super().__init__(config, spec, num_classes)
        width, dropout = config.width, config.dropout
        self.embed = nn.Linear(4, width)
        self.attend = nn.TransformerEncoderLayer(width, 2, 2 * width, dropout, batch_first=True)
        self.over_time = nn.GRU(width, width, num_layers=2, dropout=dropout, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, batch: InstanceBatch) -> HeadOutput:
        real = (batch.categories > 0).unsqueeze(-1)
        boxes = torch.where(real, batch.boxes, 0).to(self.classifier.weight.dtype)
        steps = self.attend(self.embed(boxes.sum(2) / real.sum(2).clamp(min=1)))
        states, _ = self.over_time(steps)
        return HeadOutput(logits=self.classifier(self.dropout(states[:, -1])))


class Stray(OwnLayers):
    """A head that gives a loss which no weight asks for."""

    name = "stray"

    def forward(self, batch: InstanceBatch) -> HeadOutput:
        out = super().forward(batch)
        return HeadOutput(logits=out.logits, losses={"stray": out.logits.square().mean()})


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_dataset(tmp_path_factory.mktemp("data") / "d", num_clips=16, pixels=False)
    out = root.parent / "boxes.zarr"
    extract(
        ExtractConfig(dataset="something-else", data_root=root, out=out, backbone="none", workers=0, instances=3),
        Silent(),
    )
    return out


@pytest.fixture(autouse=True)
def registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("IFCAR_RUNS", str(tmp_path / "runs"))
    for head in (OwnLayers, Stray):
        HEADS.register(head.name, head, __name__)
    yield
    for head in (OwnLayers, Stray):
        del HEADS._items[head.name]


def config(cache: Path, head: str = "own-layers", **options: object) -> RunConfig:
    return make_run_config(head, cache, schedule=BRIEF, **options)  # type: ignore[arg-type]


def weights_of(path: Path) -> bytes:
    return (path / "model.safetensors").read_bytes()


@pytest.mark.parametrize("check", CHECKS)
def test_head_of_torch_s_layers_keeps_the_contract(check: str) -> None:
    CHECKS[check](OwnLayers, OwnConfig(), LAYOUT_SPEC)


@pytest.mark.slow
def test_run_that_was_stopped_goes_on_to_the_same_bytes_and_scores_as_it_did(cache: Path, tmp_path: Path) -> None:
    whole = fit(config(cache), Silent(), out=tmp_path / "whole").run
    torch.rand(7)  # what else the process draws does not matter
    with interrupted_after(CHECKPOINT, 2), pytest.raises(KeyboardInterrupt):
        fit(config(cache), Silent(), out=tmp_path / "stopped")
    torch.manual_seed(99)
    fit(config(cache), Silent(), out=tmp_path / "stopped", resume=True)
    assert weights_of(tmp_path / "stopped") == weights_of(whole.path)
    other = fit(config(cache, settings={"dropout": 0.0}), Silent()).run
    assert weights_of(other.path) != weights_of(whole.path)  # it does drop
    assert evaluate(whole.path).agrees


@pytest.mark.slow
def test_grid_trains_its_runs_alone_beside_fleets_of_stackable_heads(cache: Path) -> None:
    systems = (
        SystemConfig(name="own", head="own-layers"),
        SystemConfig(name="base", head="base", preset="small", streams="layout"),
    )
    plan = plan_grid(GridConfig(name="g", seeds=(0, 1), schedule=BRIEF, systems=systems), cache)
    fleets, _ = plan_fleets(plan.jobs(), processes=1, device="cpu")
    heads = sorted((fleet.jobs[0].config.head, len(fleet.jobs)) for fleet in fleets)
    assert heads == [("base", 2), ("own-layers", 1), ("own-layers", 1)]
    for fleet in fleets:
        results = fit_together(fleet.jobs, fleet.folder, Silent(), device="cpu")
        assert all(isinstance(result, FitResult) for result in results)


def test_auxiliary_loss_without_a_weight_is_refused(cache: Path) -> None:
    with pytest.raises(InputError, match="auxiliary loss 'stray', which has no weight"):
        fit(config(cache, "stray"), Silent())
