"""Fleets: a run trains among others as it does alone, fails alone, and goes on with the same others after a stop."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fixtures.interrupts import interrupted_after
from fixtures.narrow_heads import narrow
from fixtures.something_else import write_dataset
from safetensors.numpy import load_file
from torch import Tensor

from ifcar.cache.open import open_cache
from ifcar.cache.schema import Split
from ifcar.errors import InputError
from ifcar.heads.catalog import HEADS
from ifcar.heads.contract import Head, InstanceBatch
from ifcar.heads.schedules import Schedule
from ifcar.pipelines.extract import extract
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.feed.batches import open_batches
from ifcar.pipelines.feed.examples import read_examples
from ifcar.pipelines.feed.held_out import hold_out
from ifcar.pipelines.fit import fit
from ifcar.pipelines.fleets.fleet import FOLDER, Fleet, choose_size, fleet_key, make_fleet, member_bytes, plan_fleets
from ifcar.pipelines.fleets.pool import fit_all
from ifcar.pipelines.grid.run_configs import run_folder
from ifcar.pipelines.progress import Silent
from ifcar.pipelines.runs.config import RunConfig, run_id
from ifcar.pipelines.runs.finished import is_finished, open_run, read_config, read_remark
from ifcar.pipelines.runs.heads import build_head
from ifcar.pipelines.runs.resolve import head_options, make_run_config, resolve
from ifcar.pipelines.runs.schedule import Plan, ScheduleConfig, make_plan
from ifcar.pipelines.stacks.noise import draw_noise
from ifcar.pipelines.stacks.stack import stack_heads
from ifcar.pipelines.training.checkpoint import NAME as CHECKPOINT
from ifcar.pipelines.training.jobs import FailedRun, Job
from ifcar.pipelines.training.machine import MachineConfig
from ifcar.pipelines.training.phases import Data, PreparedRun, train_phases
from ifcar.pipelines.training.together import FitResult, fit_together
from ifcar.pipelines.training.trainer import FleetRun, RunState, clip_gradients, decay_matrices, make_optimizer
from ifcar.testing.batches import SPEC, random_batch, spec_with

SHORT = ScheduleConfig(kind="stretched", epochs=20, batch_size=8)
BRIEF = replace(SHORT, epochs=6)
"""For what needs no run to stop before its end."""
CPU = torch.device("cpu")
RESULTS = "metrics.json"
"""The last file that a run writes."""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_dataset(tmp_path_factory.mktemp("data") / "d", num_clips=32, pixels=False)
    out = root.parent / "boxes.zarr"
    options = ExtractConfig(
        dataset="something-else", data_root=root, out=out, backbone="none", views=2, workers=0, instances=3
    )
    extract(options, Silent())
    return out


@pytest.fixture(autouse=True)
def runs_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IFCAR_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


def config(cache: Path, head: str = "sfi", schedule: ScheduleConfig = SHORT, **options: object) -> RunConfig:
    values: dict[str, object] = {"streams": "layout", "preset": "small", **options}
    if head == "sfi":
        values.setdefault("aux_weight", 1.0)
    made = make_run_config(head, cache, schedule=schedule, **values)  # type: ignore[arg-type]
    reader = open_cache(cache)
    return resolve(made, reader, reader.protocol(made.protocol))


def mixed(cache: Path, schedule: ScheduleConfig = SHORT) -> list[RunConfig]:
    """Four runs that differ in everything that runs of a fleet may differ in."""
    return [
        config(cache, schedule=schedule),
        config(cache, schedule=schedule, seed=1, aux_weight=5.0),
        config(cache, seed=2, schedule=replace(schedule, lr=3e-3)),
        config(cache, schedule=replace(schedule, weight_decay=0.1), settings={"joint.dropout": 0.1}),
    ]


def calm(cache: Path, *rates: float, schedule: ScheduleConfig = SHORT) -> list[RunConfig]:
    """The same at rates at which rounding grows slowly, from step to step."""
    runs = zip(mixed(cache, schedule), rates, strict=True)
    return [replace(run, schedule=replace(run.schedule, lr=rate)) for run, rate in runs]


def fleet_of(configs: list[RunConfig]) -> Fleet:
    fleet = make_fleet([Job(config=c, path=run_folder(c)) for c in configs])
    fleet.folder.mkdir(parents=True, exist_ok=True)
    return fleet


def train_fleet(fleet: Fleet) -> list[FitResult | FailedRun]:
    return fit_together(fleet.jobs, fleet.folder, Silent(), device="cpu")


def weights_of(path: Path) -> bytes:
    return (path / "model.safetensors").read_bytes()


def double(batch: InstanceBatch) -> InstanceBatch:
    return InstanceBatch({k: v.double() if v.is_floating_point() else v for k, v in batch.arrays.items()})


def members(lrs: list[float], decays: list[float], optimizer: str) -> list[FleetRun]:
    plan = Plan(
        kind="paper",
        optimizer=optimizer,  # type: ignore[arg-type]
        batch_size=4,
        lr=0.0,
        epochs=1,
        steps_per_epoch=1,
        milestones=(),
        epochs_per_round=1,
    )
    return [
        FleetRun(plan=replace(plan, lr=lr, weight_decay=decay), stop_step=1, aux_weights={}, seed=k, state=RunState())
        for k, (lr, decay) in enumerate(zip(lrs, decays, strict=True))
    ]


def train_stack(
    heads: list[Head], runs: list[FleetRun], batches: Callable[[int, int], InstanceBatch], *, per_head: bool
) -> list[dict[str, Tensor]]:
    """Train heads for three steps in one stack; `batches` gives the batch of a run and a step."""
    stack = stack_heads(heads, CPU)
    optimizer = make_optimizer(stack, runs)
    labels = torch.arange(6) % 5
    for step in range(3):
        stack.set_training(True)
        many = [batches(run.seed, step) for run in runs]
        batch = many[0]
        if per_head:
            batch = InstanceBatch({name: torch.stack([b.arrays[name] for b in many]) for name in batch.arrays})
        noise = draw_noise(stack.template, [run.seed for run in runs], "fit", step, 6, CPU)
        out = stack.score(batch, per_head=per_head, noise=noise)
        losses = F.cross_entropy(out.logits.transpose(1, 2), labels.expand(len(runs), -1), reduction="none").mean(1)
        stack.fill_gradients(losses + sum(out.losses.values(), torch.zeros(())))
        for place, group in enumerate(optimizer.param_groups):
            group["params"][0].grad = stack.gradients[place]
        optimizer.step()
    return [stack.state(place) for place in range(len(runs))]


@pytest.mark.slow
@pytest.mark.parametrize("per_head", [True, False])
@pytest.mark.parametrize("name", HEADS.names())
def test_every_head_trains_in_a_stack_as_alone(name: str, per_head: bool) -> None:
    """In float64 to 1e-9, among other weights, dropout and learning rates, on its own batch or a shared one."""
    kind = HEADS.get(name)
    options = narrow(kind.presets["paper"])
    if hasattr(options, "streams"):  # its losses are between streams
        options = replace(options, streams=("ego", "third"), distil="cooperative")
    heads, spec = [], spec_with(kind.arrays(options, kind.auxiliary))
    for seed in range(3):
        torch.manual_seed(seed)
        mine = options
        if hasattr(options, "joint"):
            mine = replace(options, joint=replace(options.joint, dropout=0.1 * seed))
        heads.append(kind.build(mine, spec, 5, kind.auxiliary).double())
    runs = members([1e-3, 3e-3, 1e-4], [0.0, 0.1, 1e-4], "adam")

    def batches(seed: int, step: int) -> InstanceBatch:
        return double(random_batch(6, spec, seed=10 * step + seed * per_head))

    together = train_stack(heads, runs, batches, per_head=per_head)
    for place in range(3):
        (alone,) = train_stack(heads[place : place + 1], runs[place : place + 1], batches, per_head=False)
        start = heads[place].state_dict()
        assert any(not torch.equal(alone[key], start[key]) for key in alone)
        for key, value in alone.items():
            torch.testing.assert_close(together[place][key], value, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_optimiser_of_a_stack_is_torch_s_for_each_member(optimizer: str) -> None:
    torch.manual_seed(0)
    rates, decays = [1e-2, 1e-3, 3e-2], [0.0, 1e-4, 0.1]
    heads = [HEADS.get("base")(HEADS.get("base").presets["small"], SPEC, 5).double() for _ in rates]
    stack = stack_heads(heads, CPU)
    made = make_optimizer(stack, members(rates, decays, optimizer))
    own: list[torch.optim.Optimizer] = []
    for head, lr, decay in zip(heads, rates, decays, strict=True):
        if optimizer == "sgd":
            own.append(torch.optim.SGD(head.parameters(), lr=lr, momentum=0.9, weight_decay=decay))
        else:
            own.append(torch.optim.AdamW(head.parameters(), lr=lr, weight_decay=decay))
    for step in range(50):
        for place, (head, single) in enumerate(zip(heads, own, strict=True)):
            for name, parameter in head.named_parameters():
                parameter.grad = torch.randn(parameter.shape, dtype=torch.float64)
                first, end, _ = stack.columns[name]
                stack.gradients[place, first:end] = parameter.grad.flatten()
            group = made.param_groups[place]
            group["lr"] = single.param_groups[0]["lr"] = rates[place] * (1 - step / 100)
            group["params"][0].grad = stack.gradients[place]
            single.step()
        made.step()
    for place, head in enumerate(heads):
        for name, value in stack.state(place).items():
            torch.testing.assert_close(value, head.state_dict()[name], rtol=1e-7, atol=1e-7)


def test_clipping_and_the_decay_of_matrices_are_torch_s_for_each_member() -> None:
    torch.manual_seed(0)
    rates, decays, largest = [1e-2, 1e-3], [0.1, 0.3], 0.5
    heads = [HEADS.get("base")(HEADS.get("base").presets["small"], SPEC, 5).double() for _ in rates]
    stack = stack_heads(heads, CPU)
    runs = members(rates, decays, "adam")
    made = make_optimizer(stack, [replace(m, plan=replace(m.plan, decay_vectors=False)) for m in runs])
    own = []
    for head, lr, decay in zip(heads, rates, decays, strict=True):
        by_decay: dict[float, list[torch.nn.Parameter]] = {0.0: [], decay: []}
        for parameter in head.parameters():
            by_decay[decay if parameter.ndim > 1 else 0.0].append(parameter)
        own.append(torch.optim.AdamW([{"params": p, "weight_decay": d} for d, p in by_decay.items()], lr=lr))
    for step in range(20):
        for place, (head, single) in enumerate(zip(heads, own, strict=True)):
            for name, parameter in head.named_parameters():
                parameter.grad = torch.randn(parameter.shape, dtype=torch.float64) * 0.1 ** (4 * (step % 2))
                first, end, _ = stack.columns[name]
                stack.gradients[place, first:end] = parameter.grad.flatten()
            torch.nn.utils.clip_grad_norm_(head.parameters(), largest)
            single.step()
        clip_gradients(stack.gradients, torch.linalg.vector_norm(stack.gradients, dim=1), largest)
        for place, group in enumerate(made.param_groups):
            group["lr"], group["params"][0].grad = rates[place], stack.gradients[place]
            decay_matrices(stack, place, 1 - rates[place] * decays[place])
        made.step()
    for place, head in enumerate(heads):
        for name, value in stack.state(place).items():
            torch.testing.assert_close(value, head.state_dict()[name], rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_member_of_a_fleet_by_a_schedule_of_steps_is_the_run_alone(cache: Path, tmp_path: Path) -> None:
    """Its norm is clipped by its own gradient, and it ends in the middle of an epoch."""
    published = Schedule(
        source="a paper",
        optimizer="adam",
        num_steps=7,
        decay="linear",
        warm_up=0.3,
        batch_size=8,
        decay_vectors=False,
        clip_gradient=0.05,
    )
    schedule = ScheduleConfig(kind="paper", published=published)
    several = [config(cache, schedule=schedule), config(cache, schedule=schedule, seed=1, aux_weight=9.0)]
    entries, data = entries_of(several, tmp_path)
    together = train_phases(entries, data, tmp_path, Silent())
    for entry, outcome in zip(entries, together, strict=True):
        (alone,) = train_phases([entry], data, entry.path, Silent())
        assert outcome.steps == alone.steps == 7
        for key, value in alone.weights.items():
            torch.testing.assert_close(outcome.weights[key], value, rtol=1e-9, atol=1e-9)


def entries_of(configs: list[RunConfig], tmp_path: Path) -> tuple[list[PreparedRun], Data]:
    reader = open_cache(configs[0].cache)
    protocol = reader.protocol(configs[0].protocol)
    trained = read_examples(reader, protocol, Split.TRAIN)
    heads = [build_head(c, reader.spec, len(protocol.labels.classes)).double() for c in configs]
    plans = [make_plan(c.schedule, len(trained), reads_appearance=False) for c in configs]
    batches = open_batches(reader, heads[0].reads(head_options(configs[0])), [trained], "cpu", "auto")
    division = hold_out(trained, protocol, plans[0].held_out)
    data = Data(batches=batches, trained=trained, division=division, protocol=protocol)
    entries = []
    for place, (c, head, plan) in enumerate(zip(configs, heads, plans, strict=True)):
        path = tmp_path / str(place)
        path.mkdir()
        entries.append(PreparedRun(config=c, path=path, head=head, plan=plan))
    return entries, data


@pytest.mark.slow
def test_both_phases_of_a_member_are_those_of_the_run_alone(cache: Path, tmp_path: Path) -> None:
    """Stopping points included: to 1e-9 in float64."""
    entries, data = entries_of(calm(cache, 3e-4, 6e-4, 9e-4, 3e-4, schedule=replace(SHORT, epochs=8)), tmp_path)
    together = train_phases(entries, data, tmp_path, Silent())
    assert len({outcome.steps for outcome in together}) > 1  # they stop at different steps
    for entry, outcome in zip(entries, together, strict=True):
        (alone,) = train_phases([entry], data, entry.path, Silent())
        assert (outcome.best_step, outcome.steps) == (alone.best_step, alone.steps)
        assert [r["step"] for r in outcome.history] == [r["step"] for r in alone.history]
        for key, value in alone.weights.items():
            torch.testing.assert_close(outcome.weights[key], value, rtol=1e-9, atol=1e-9)
        for mine, own in zip(outcome.history, alone.history, strict=True):
            for key in ("classification_loss", "prediction_loss", "lr"):
                assert mine[key] == pytest.approx(own[key], rel=1e-9)


@pytest.mark.slow
def test_run_of_a_fleet_has_the_files_and_metrics_of_the_run_alone(cache: Path, tmp_path: Path) -> None:
    """In float32: losses to 1e-4 while rounding has not grown yet, and logits to 0.02 at the end."""
    fleet = fleet_of(calm(cache, 2e-4, 2e-4, 2e-4, 2e-4, schedule=BRIEF))
    for place, result in enumerate(train_fleet(fleet)):
        assert isinstance(result, FitResult)
        alone = fit(fleet.jobs[place].config, Silent(), out=tmp_path / f"alone{place}").run
        assert sorted(p.name for p in result.run.path.iterdir()) == sorted(p.name for p in alone.path.iterdir())
        mine, own = (read_history(run.path) for run in (result.run, alone))
        assert {record["fleet"] for record in mine} == {4} and {record["fleet"] for record in own} == {1}
        for key in ("classification_loss", "prediction_loss", "held_out_loss"):
            assert [r[key] for r in mine[:3]] == pytest.approx([r[key] for r in own[:3]], rel=1e-4)
        for split in ("train", "test", "held_out"):
            logits = [run.predictions(split).logits for run in (result.run, alone)]
            np.testing.assert_allclose(*logits, atol=0.02)


@pytest.mark.slow
def test_config_of_a_fleet_s_run_says_how_to_make_its_bytes_again_and_that_makes_them(cache: Path) -> None:
    configs = calm(cache, 2e-4, 2e-4, 2e-4, 2e-4, schedule=BRIEF)[:3]
    jobs = [Job(config=one, path=run_folder(one)) for one in configs]
    (pair,), _ = plan_fleets(jobs[:2], processes=1, device="cpu")
    train_fleet(pair)
    train_fleet(make_fleet(jobs[2:]))
    said = [read_remark(job.path / "config.yaml") for job in jobs]
    size = re.search(r"--processes 1 --fleet (\d+)$", said[0][1])
    assert said[0] == said[1] and size is not None and all(job.path.name in said[0][0] for job in jobs[:2])
    assert "trained alone" in said[2][0] and run_id(read_config(jobs[0].path / "config.yaml")) == run_id(configs[0])
    before = [weights_of(job.path) for job in jobs[:2]]
    for job in jobs[:2]:
        shutil.rmtree(job.path)
    (again,), _ = plan_fleets(jobs, processes=1, device="cpu", fleet_size=int(size[1]))
    train_fleet(again)
    assert [weights_of(job.path) for job in jobs[:2]] == before


@pytest.mark.slow
def test_non_finite_member_stops_and_the_others_do_not_notice(cache: Path, tmp_path: Path) -> None:
    schedule = replace(BRIEF, refit=False)
    calm = [config(cache, schedule=schedule, seed=seed) for seed in range(3)]
    wild = [calm[0], config(cache, schedule=replace(schedule, lr=1e30), seed=1), calm[2]]
    assert all(isinstance(result, FitResult) for result in train_fleet(fleet_of(calm)))
    before = {}
    for number in (0, 2):
        path = run_folder(calm[number])
        before[number] = (weights_of(path), without_seconds(path))
        path.rename(tmp_path / path.name)
    results = train_fleet(fleet_of(wild))
    failed = results[1]
    assert isinstance(failed, FailedRun) and not is_finished(failed.path)
    assert all(part in failed.reason for part in ("not finite at step", "classification", "weights left", "clips:"))
    for number in (0, 2):
        assert (weights_of(run_folder(calm[number])), without_seconds(run_folder(calm[number]))) == before[number]


def read_history(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (path / "history.jsonl").read_text().splitlines()]


def without_seconds(path: Path) -> list[dict[str, float]]:
    return [{key: value for key, value in record.items() if key != "seconds"} for record in read_history(path)]


@pytest.fixture(scope="module")
def whole(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[RunConfig], dict[str, bytes]]:
    """Configs of a fleet, and the weights of its runs by the names of their folders."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IFCAR_RUNS", str(tmp_path_factory.mktemp("whole")))
        jobs = fleet_of(mixed(cache, BRIEF)).jobs
        (fleet,), _ = plan_fleets(jobs, processes=1, device="cpu")
        train_fleet(fleet)
        return [job.config for job in jobs], {job.path.name: weights_of(job.path) for job in jobs}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "count"), [(CHECKPOINT, 4), (CHECKPOINT, 9), (RESULTS, 1)])
def test_stopped_fleet_goes_on_with_the_same_members_to_the_same_bytes(
    whole: tuple[list[RunConfig], dict[str, bytes]], runs_folder: Path, name: str, count: int
) -> None:
    configs, expected = whole
    jobs = tuple(Job(config=one, path=run_folder(one)) for one in configs)
    (fleet,), _ = plan_fleets(jobs, processes=1, device="cpu")
    with interrupted_after(name, count), pytest.raises(KeyboardInterrupt):
        train_fleet(fleet)
    assert sum(is_finished(job.path) for job in jobs) == (count if name == RESULTS else 0)
    assert ("refit" in (jobs[0].path / "history.jsonl").read_text()) == (count != 4)
    (again,), _ = plan_fleets(jobs, processes=2, device="cpu")  # two processes would have made two fleets
    assert again == fleet
    assert not fit_all(jobs, Silent(), MachineConfig(processes=2, device="cpu"))
    assert {job.path.name: weights_of(job.path) for job in jobs} == expected
    assert not list((runs_folder / FOLDER).iterdir())


def test_grouping_is_the_same_every_time_and_separates_what_cannot_train_together(cache: Path) -> None:
    other = [
        config(cache, aux_weight=0.0),
        config(cache, head="base"),
        config(cache, schedule=replace(SHORT, epochs=21)),
        config(cache, schedule=replace(SHORT, batch_size=4)),
        config(cache, schedule=replace(SHORT, refit=False)),
        config(cache, schedule=replace(SHORT, precision="bf16")),
        config(cache, settings={"lstm_layers": 1}),
    ]
    assert len({fleet_key(c) for c in mixed(cache)}) == 1
    assert len({fleet_key(c) for c in [*mixed(cache), *other]}) == 1 + len(other)
    jobs = [Job(config=c, path=run_folder(c)) for c in [*mixed(cache), *other]]
    fleets, lines = plan_fleets(jobs, processes=1, device="cpu")
    assert [len(fleet.jobs) for fleet in fleets] == [4] + [1] * 7
    assert len(lines) == 1 and "sfi, 4 runs" in lines[0] and "at most" in lines[0]
    assert plan_fleets(jobs, processes=1, device="cpu")[0] == fleets
    assert sorted(job.path for fleet in fleets for job in fleet.jobs) == sorted(job.path for job in jobs)


def test_fleets_are_as_large_as_asked_and_give_every_process_work(cache: Path) -> None:
    configs = [config(cache, seed=seed) for seed in range(7)]
    jobs = [Job(config=c, path=run_folder(c)) for c in configs]

    def sizes(**options: object) -> list[int]:
        fleets, _ = plan_fleets(jobs, device="cpu", **options)  # type: ignore[arg-type]
        for fleet in fleets:
            (fleet.folder / "members.json").unlink(missing_ok=True)
        return [len(fleet.jobs) for fleet in fleets]

    assert sizes(processes=1) == [7]
    assert sizes(processes=2) == [4, 3]
    assert sizes(processes=1, fleet_size=3) == [3, 2, 2]
    assert sizes(processes=1, fleet_size=1) == [1] * 7


@pytest.mark.slow
def test_fleet_size_follows_the_memory_that_is_free(cache: Path) -> None:
    jobs = [Job(config=c, path=run_folder(c)) for c in (config(cache, seed=seed) for seed in range(40))]
    reader = open_cache(cache)
    each = member_bytes(jobs[0].config, reader.spec, 2, 16)
    sizes = [choose_size(jobs, processes=1, free=n * each, cuda=True)[0] for n in (1, 2, 9, 40, 10_000)]
    assert sizes == [1, 1, 4, 16, 64]
    assert choose_size(jobs, processes=2, free=40 * each, cuda=True)[0] == 8
    assert choose_size(jobs, processes=1, free=10_000 * each, cuda=False)[0] <= 16
    wide = [replace(job, config=config(cache, preset="paper", settings={"joint.layout_dim": 4096})) for job in jobs[:2]]
    assert choose_size(wide, processes=1, free=2**50, cuda=False)[0] == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", HEADS.names())
def test_memory_of_a_member_covers_its_weights_batch_and_activations(name: str, cache: Path) -> None:
    kind = HEADS.get(name)
    made = RunConfig(head=name, cache=cache, protocol="compositional", options={}, schedule=SHORT)
    # every head's groups divide these channels, and its blocks of time these steps
    spec = spec_with(kind.reads(kind.config_type())).resized(**{"C": 64, "T′": 8})
    small, large = (member_bytes(made, spec, 5, n) for n in (2, 8))  # the batch is no larger than the split
    weights = 4 * sum(p.numel() for p in kind(kind.config_type(), spec, 5).parameters())
    assert 8 * weights < small < large


@pytest.mark.slow
def test_fleet_that_raises_is_taken_apart(cache: Path) -> None:
    fleet = fleet_of([config(cache, seed=seed) for seed in range(3)])
    bad = fleet.jobs[1].path
    bad.mkdir(parents=True)
    text = "head: base\ncache: x\nprotocol: y\n"
    (bad / "config.yaml").write_text(text)  # a stopped run of another config
    (failure,) = fit_all(fleet.jobs, Silent(), MachineConfig(processes=1, device="cpu"))
    assert failure.path == bad and "the stopped run has another" in failure.reason
    assert [is_finished(job.path) for job in fleet.jobs] == [True, False, True]
    assert all(record["fleet"] == 1 for record in read_history(fleet.jobs[0].path))


def test_stopped_single_run_stays_single_and_its_checkpoint_is_no_other_runs(cache: Path) -> None:
    jobs = [Job(config=c, path=run_folder(c)) for c in (config(cache, seed=seed) for seed in range(3))]
    with interrupted_after(CHECKPOINT, 2), pytest.raises(KeyboardInterrupt):
        fit(jobs[0].config, Silent(), out=jobs[0].path)
    assert (jobs[0].path / CHECKPOINT).is_file()
    fleets, _ = plan_fleets(jobs, processes=1, device="cpu")
    assert [tuple(job.path for job in fleet.jobs) for fleet in fleets] == [
        (jobs[1].path, jobs[2].path),
        (jobs[0].path,),
    ]
    for others in (jobs[1:2], jobs):
        with pytest.raises(InputError, match=f"{CHECKPOINT}: the checkpoint of other runs than those"):
            fit_together(others, jobs[0].path, Silent(), device="cpu")


@pytest.mark.slow
def test_bf16_training_ends_near_fp32_and_is_evaluated_in_fp32(cache: Path) -> None:
    full, half = (fit(config(cache, schedule=replace(BRIEF, precision=p)), Silent()).run for p in ("fp32", "bf16"))  # type: ignore[arg-type]
    left, right = (load_file(run.path / "model.safetensors") for run in (full, half))
    assert all(value.dtype == right[key].dtype for key, value in left.items())
    assert any((value != right[key]).any() for key, value in left.items())
    np.testing.assert_allclose(half.predictions("test").logits, full.predictions("test").logits, atol=0.05)
    assert open_run(half.path).config.schedule.precision == "bf16"  # type: ignore[union-attr]
