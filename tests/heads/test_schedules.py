"""Published schedules: by head, name and data set, and the plans that follow from them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from ifcar.errors import InputError
from ifcar.heads.catalog import HEADS
from ifcar.heads.ccau_config import CCAUConfig
from ifcar.heads.schedules import RAI, Schedule, schedules_on
from ifcar.pipelines.runs.schedule import ScheduleConfig, make_plan
from ifcar.pipelines.stacks.stack import stack_heads
from ifcar.pipelines.training.trainer import FleetRun, RunState, make_optimizer
from ifcar.testing.batches import JOINED_SPEC

CHARADES_CLIPS = 7_811


def taken(head: str, dataset: str, *, appearance: bool = True, name: str = "paper") -> Schedule:
    return schedules_on(HEADS.get(head).schedules, dataset, reads_appearance=appearance)[name]


@pytest.mark.parametrize("appearance", [True, False])
def test_paper_schedule_follows_from_roles_and_on_charades_is_the_same_for_both(appearance: bool) -> None:
    found = taken("sfi", "something-else", appearance=appearance)
    expected = (30, (5, 10, 15, 20, 25)) if appearance else (50, (35, 45))
    assert (found.epochs, found.milestones) == expected
    charades = taken("sfi", "charades", appearance=appearance)
    assert (charades.epochs, charades.milestones) == (50, (35, 45))


@pytest.mark.parametrize(
    ("head", "name"), [("activity-specific", "paper"), ("two-stage-transformer", "paper"), ("i3d", "zhang")]
)
def test_every_line_of_zhang_et_al_trains_as_they_say_on_charades_only(head: str, name: str) -> None:
    published = taken(head, "charades", name=name)
    plan = make_plan(ScheduleConfig(kind="paper", published=published), CHARADES_CLIPS, reads_appearance=True)
    assert (plan.num_steps, plan.batch_size, plan.lr, plan.weight_decay) == (50_000, 12, 3.5e-2, 1.25e-5)
    assert {plan.lr_at(step) for step in (0, 25_000, 49_999)} == {3.5e-2}
    assert taken(head, "hockey") == taken("sfi", "hockey")
    halved = ScheduleConfig(kind="paper", published=published, epochs=2, lr=1e-3, weight_decay=0.0, batch_size=6)
    plan = make_plan(halved, CHARADES_CLIPS, reads_appearance=True)
    assert (plan.num_steps, plan.lr, plan.weight_decay) == (2 * 1302, 1e-3, 0.0)  # what is given counts


@pytest.mark.parametrize(
    ("head", "name", "dataset"),
    [("strg", "wang-gupta", "toybox"), ("proposal-avg", "wang-gupta", "toybox"), ("proposal-avg", "paper", "charades")],
)
def test_graphs_on_fixed_features_train_as_their_backbone_did(head: str, name: str, dataset: str) -> None:
    """Wang and Gupta 2018, §6: 100,000 steps of 8 clips at 0.00125, the last 10,000 of them at a tenth."""
    published = taken(head, dataset, name=name)
    plan = make_plan(ScheduleConfig(kind=name, published=published), CHARADES_CLIPS, reads_appearance=True)
    assert (plan.kind, plan.optimizer, plan.num_steps, plan.batch_size) == (name, "sgd", 100_000, 8)
    rates = [plan.lr_at(step) for step in (0, 89_999, 90_000, 99_999)]
    assert rates == pytest.approx([1.25e-3, 1.25e-3, 1.25e-4, 1.25e-4])
    in_epochs = ScheduleConfig(kind=name, published=published, epochs=4, milestones=(3,))
    plan = make_plan(in_epochs, CHARADES_CLIPS, reads_appearance=True)
    rates = [plan.lr_at(step) for step in (0, 3 * 977 - 1, 3 * 977)]
    assert rates == pytest.approx([1.25e-3, 1.25e-3, 1.25e-4]) and plan.num_steps == 4 * 977


@pytest.mark.parametrize("head", ["base", "nl", "sfi", "stin", "strg"])
def test_released_schedule_is_that_of_the_released_code(head: str) -> None:
    config = ScheduleConfig(kind="released", published=taken(head, "something-else", name="released"))
    plan = make_plan(config, 54_919, reads_appearance=True)
    assert (plan.kind, plan.epochs, plan.clip_gradient) == ("released", 20, 5.0)
    assert plan.milestones == tuple(epoch * plan.steps_per_epoch for epoch in (5, 10, 15))
    assert (plan.optimizer, plan.momentum, plan.batch_size) == ("sgd", 0.9, 72)


def test_orns_released_schedule_is_that_of_its_code_on_the_data_set_that_the_code_is_for() -> None:
    """The code's loss is 15 BCE + CE of classes, its gradient's norm at most 10: ours is a fifteenth of that loss."""
    config = ScheduleConfig(kind="released", published=taken("orn", "vlog", name="released"))
    plan = make_plan(config, 85_805, reads_appearance=True)
    assert (plan.kind, plan.optimizer, plan.epochs, plan.batch_size) == ("released", "adam", 10, 32)
    assert (plan.lr, plan.weight_decay, plan.milestones) == (1e-4, 0.0, ())
    assert plan.clip_gradient == pytest.approx(10 / 15)
    assert "released" not in schedules_on(HEADS.get("orn").schedules, "toybox-contact", reads_appearance=True)


def test_linear_decay_rises_over_two_of_twenty_epochs_and_ends_at_zero() -> None:
    published = taken("stlt", "something-else")
    plan = make_plan(ScheduleConfig(kind="paper", published=published), 6_400, reads_appearance=False)
    assert (plan.steps_per_epoch, plan.num_steps) == (100, 2_000)
    rates = [plan.lr_at(step) for step in (0, 99, 199, 200, 1_100, 1_999)]
    assert rates == pytest.approx([5e-5 / 200, 2.5e-5, 5e-5, 5e-5, 2.5e-5, 5e-5 / 1800])
    with pytest.raises(InputError, match="milestones would be ignored"):
        make_plan(ScheduleConfig(kind="paper", published=published, milestones=(3,)), 640, reads_appearance=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "epochs or num_steps"),
        ({"epochs": 3, "num_steps": 9}, "epochs or num_steps"),
        ({"num_steps": 9, "milestones": (9,)}, "outside its length, 9"),
        ({"epochs": 3, "decay_vectors": False}, "needs the optimiser adam"),
        ({"epochs": 0}, "must be positive"),
        ({"epochs": 1, "clip_gradient": 0.0}, "positive clip_gradient"),
    ],
)
def test_schedule_that_contradicts_itself_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Schedule(source="a paper", **options)  # type: ignore[arg-type]


def test_ccaus_schedules_are_its_codes_adam_with_coupled_decay_on_a_plateau() -> None:
    found = [taken("ccau", "homage", name=name) for name in ("paper", "released")]
    assert found[0] == found[1]
    plan = make_plan(ScheduleConfig(kind="released", published=found[0]), 1_600, reads_appearance=True)
    assert (plan.kind, plan.optimizer, plan.coupled_decay, plan.weight_decay) == ("released", "adam", True, 1e-5)
    assert (plan.num_steps, plan.batch_size, plan.epochs_per_round, plan.decay) == (10_000, 16, 1, "plateau")
    assert "weight decay 1e-05 in the gradient" in plan.describe()
    with pytest.raises(InputError, match=r"milestones would be ignored: .* another rule \(plateau\)"):
        make_plan(ScheduleConfig(kind="paper", published=found[0], milestones=(5,)), 1_600, reads_appearance=True)


@pytest.mark.parametrize("seed", range(4))
def test_a_plateau_lowers_the_rate_where_torchs_own_scheduler_does(seed: int) -> None:
    generator, wait = torch.Generator().manual_seed(seed), 2 + seed
    losses = (torch.rand(60, generator=generator) + torch.linspace(1, 0.4, 60)).tolist()
    plan = make_plan(ScheduleConfig(published=replace(RAI, patience=wait), kind="paper"), 16, reads_appearance=True)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1e-3)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=wait, min_lr=1e-5)
    rates = []
    for epoch, loss in enumerate(losses):
        rates.append(plan.lr_at(epoch, losses[:epoch]))
        assert rates[-1] == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        theirs.step(loss)
    assert len({round(rate, 9) for rate in rates}) == 3  # 1e-3, 1e-4, and 1e-5 from there on


@pytest.mark.parametrize(
    "change",
    [
        {"patience": 0},
        {"decay": "steps"},
        {"decay": "cosine", "patience": 0},
        {"epochs": None, "num_steps": 100},
        {"least_lr": 1e-3},
        {"optimizer": "sgd"},
        {"decay_vectors": False},
    ],
)
def test_a_schedule_whose_parts_would_be_ignored_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="schedule of released code of Rai"):
        replace(RAI, **change)


@pytest.mark.parametrize("coupled", [True, False])
def test_coupled_decay_is_a_part_of_the_gradient_that_adam_scales(coupled: bool) -> None:
    """Where the loss has no gradient a weight moves by the whole rate; decoupled it shrinks by rate times decay."""
    head = HEADS.get("ccau").build(CCAUConfig(streams=("ego",), embedding_dim=4, num_blocks=2), JOINED_SPEC, 5)
    stack = stack_heads([head], torch.device("cpu"))
    plan = make_plan(ScheduleConfig(kind="paper", published=RAI), 16, reads_appearance=True)
    plan = replace(plan, coupled_decay=coupled, weight_decay=0.1)
    member = FleetRun(plan=plan, stop_step=1, aux_weights={}, seed=0, state=RunState())
    optimizer, before = make_optimizer(stack, [member]), stack.weights[0].clone()
    (group,) = optimizer.param_groups
    group["params"][0].grad, group["lr"] = torch.zeros_like(before), 1e-3
    optimizer.step()
    expected = before - 1e-3 * before.sign() if coupled else before * (1 - 1e-3 * 0.1)
    large = before.abs() > 1e-3
    torch.testing.assert_close(stack.weights[0][large], expected[large], rtol=1e-4, atol=1e-6)
