"""What every registered head must satisfy, whatever it computes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import torch
import torch.nn.functional as F
from fixtures.batches import random_batch
from torch import Tensor, nn

from ifcar.cache.schema import CacheSpec
from ifcar.heads.contract import Head, InstanceBatch

NUM_CLASSES = 5


def build(head: type[Head], config: Any, spec: CacheSpec, seed: int = 0) -> Head:
    torch.manual_seed(seed)
    return head(config, spec, NUM_CLASSES)


def build_moved(head: type[Head], config: Any, spec: CacheSpec, seed: int = 0) -> Head:
    """Build a head away from its start, where layers at zero would hide what lies before them."""
    model = build(head, config, spec, seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return model


def map_batch(batch: InstanceBatch, change: Callable[[str, Tensor], Tensor]) -> InstanceBatch:
    values = {f.name: getattr(batch, f.name) for f in fields(batch)}
    return InstanceBatch(**{k: None if v is None else change(k, v) for k, v in values.items()})


def total_loss(head: Head, batch: InstanceBatch, labels: Tensor) -> Tensor:
    out = head(batch)
    return F.cross_entropy(out.logits, labels) + sum(out.losses.values(), torch.zeros(()))


def fill_empty_slots(batch: InstanceBatch, seed: int) -> InstanceBatch:
    """Put noise into the boxes and features of empty slots; categories stay 0."""
    g = torch.Generator().manual_seed(seed)
    num_frames = batch.boxes.shape[1]
    empty = batch.categories == 0

    def change(name: str, value: Tensor) -> Tensor:
        if name == "boxes":
            return torch.where(empty[..., None], torch.rand(value.shape, generator=g), value)
        if name == "instance_features":
            stride = num_frames // value.shape[1]
            hole = empty[:, ::stride][..., None, None, None]
            return torch.where(hole, 10 * torch.randn(value.shape, generator=g), value)
        return value

    return map_batch(batch, change)


def check_shape_and_finite(head: type[Head], config: Any, spec: CacheSpec) -> None:
    out = build_moved(head, config, spec).eval()(random_batch(6, spec))
    assert out.logits.shape == (6, NUM_CLASSES)
    assert torch.isfinite(out.logits).all()
    assert all(loss.shape == () and torch.isfinite(loss) for loss in out.losses.values())


def check_gradient_reaches_every_parameter(head: type[Head], config: Any, spec: CacheSpec) -> None:
    model = build(head, config, spec).train()
    batch, labels = random_batch(16, spec), torch.arange(16) % NUM_CLASSES
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(3):  # a layer that starts at zero blocks what lies before it for one step, two in a row for two
        optimizer.zero_grad()
        total_loss(model, batch, labels).backward()
        optimizer.step()
    dead = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not dead, f"no gradient in {dead}"


def check_classifier_makes_the_logits(head: type[Head], config: Any, spec: CacheSpec) -> None:
    model = build(head, config, spec).eval()
    assert isinstance(model.classifier, nn.Linear)
    assert model.classifier.out_features == NUM_CLASSES
    made: list[Tensor] = []
    model.classifier.register_forward_hook(lambda _module, _inputs, output: made.append(output))
    logits = model(random_batch(4, spec)).logits
    assert len(made) == 1
    torch.testing.assert_close(made[0], logits, rtol=0, atol=0)


def check_initial_weights_come_from_reset_parameters(head: type[Head], config: Any, spec: CacheSpec) -> None:
    fresh, reset = build(head, config, spec), build(head, config, spec, seed=1)
    with torch.no_grad():
        for parameter in reset.parameters():
            parameter.fill_(7.0)
    for module in reset.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    for (name, parameter), again in zip(fresh.named_parameters(), reset.parameters(), strict=True):
        assert not (again == 7).any(), f"{name} is not set by its module's reset_parameters"
        constant = bool((parameter == parameter.flatten()[0]).all()) and parameter.numel() > 1
        assert not constant or torch.equal(again, parameter), f"{name} does not start at its constant again"


def check_padding_does_not_change_logits(head: type[Head], config: Any, spec: CacheSpec) -> None:
    batch = random_batch(7, spec)
    for training in (False, True):
        model = build_moved(head, config, spec).train(training).double()
        torch.manual_seed(1)
        clean = model(map_batch(batch, lambda _, v: v.double() if v.is_floating_point() else v))
        torch.manual_seed(1)
        noisy = fill_empty_slots(batch, 3)
        filled = model(map_batch(noisy, lambda _, v: v.double() if v.is_floating_point() else v))
        torch.testing.assert_close(clean.logits, filled.logits, rtol=0, atol=0)
        for name, loss in clean.losses.items():
            torch.testing.assert_close(loss, filled.losses[name], rtol=0, atol=0)


def check_another_empty_slot_changes_nothing(head: type[Head], config: Any, spec: CacheSpec) -> None:
    """Training statistics too: rows of padding that hold zeros would move them."""
    batch = map_batch(random_batch(7, spec), lambda _, v: v.double() if v.is_floating_point() else v)
    wider_spec = replace(spec, num_instances=spec.num_instances + 1)
    by_slot = ("boxes", "categories", "instance_features")
    wider = map_batch(batch, lambda k, v: torch.cat([v, torch.zeros_like(v[:, :, :1])], 2) if k in by_slot else v)
    for training in (False, True):
        first = build_moved(head, config, spec).train(training).double()
        second = build_moved(head, config, wider_spec).train(training).double()
        second.load_state_dict(first.state_dict())
        torch.manual_seed(1)
        narrow_out = first(batch)
        torch.manual_seed(1)
        wider_out = second(wider)
        torch.testing.assert_close(narrow_out.logits, wider_out.logits, rtol=1e-9, atol=1e-9)
        for name, loss in narrow_out.losses.items():
            torch.testing.assert_close(loss, wider_out.losses[name], rtol=1e-9, atol=1e-9)


def check_slot_order_does_not_change_logits(head: type[Head], config: Any, spec: CacheSpec) -> None:
    batch, order = random_batch(7, spec), torch.randperm(spec.num_instances)
    shuffled = map_batch(batch, lambda k, v: v[:, :, order] if k in ("boxes", "categories", "instance_features") else v)
    model = build_moved(head, config, spec).eval()
    torch.testing.assert_close(model(batch).logits, model(shuffled).logits, rtol=1e-4, atol=1e-5)


def check_batch_independence(head: type[Head], config: Any, spec: CacheSpec) -> None:
    batch = random_batch(6, spec)
    model = build_moved(head, config, spec).eval()
    together = model(batch).logits
    alone = torch.cat([model(map_batch(batch, lambda _, v, i=i: v[i : i + 1])).logits for i in range(6)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def check_one_instance_and_no_instance(head: type[Head], config: Any, spec: CacheSpec) -> None:
    one = map_batch(random_batch(1, spec), lambda _, v: v)
    none = map_batch(one, lambda k, v: torch.zeros_like(v) if k != "frame_features" else v)
    for training in (False, True):
        model = build_moved(head, config, spec).train(training)
        assert torch.isfinite(model(one).logits).all()
        assert torch.isfinite(model(none).logits).all()


def check_state_round_trip(head: type[Head], config: Any, spec: CacheSpec) -> None:
    batch = random_batch(4, spec)
    first, second = build_moved(head, config, spec, seed=0).eval(), build_moved(head, config, spec, seed=1).eval()
    second.load_state_dict(first.state_dict())
    torch.testing.assert_close(first(batch).logits, second(batch).logits, rtol=0, atol=0)


def check_reads_only_what_it_declares(head: type[Head], config: Any, spec: CacheSpec) -> None:
    batch = random_batch(4, spec)
    needed = {*head.reads(config), "boxes", "categories"}
    bare = InstanceBatch(**{f.name: getattr(batch, f.name) for f in fields(batch) if f.name in needed})
    model = build_moved(head, config, spec).eval()
    torch.testing.assert_close(model(batch).logits, model(bare).logits, rtol=0, atol=0)


def check_overfits_8_clips(head: type[Head], config: Any, spec: CacheSpec) -> None:
    batch, labels = random_batch(8, spec, seed=5), torch.arange(8) % NUM_CLASSES
    model = build(head, without_dropout(config), spec).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(1000):
        optimizer.zero_grad()
        total_loss(model, batch, labels).backward()
        optimizer.step()
        if (model(batch).logits.argmax(1) == labels).all():
            return
    raise AssertionError("1000 Adam steps did not fit 8 clips")


def without_dropout(config: Any) -> Any:
    """Return the config with every `dropout` field, also nested ones, at 0."""
    changes: dict[str, Any] = {}
    for f in fields(config):
        value = getattr(config, f.name)
        if f.name == "dropout":
            changes[f.name] = 0.0
        elif hasattr(value, "__dataclass_fields__"):
            changes[f.name] = without_dropout(value)
    return replace(config, **changes)


CHECKS = {name.removeprefix("check_"): check for name, check in sorted(globals().items()) if name.startswith("check_")}
