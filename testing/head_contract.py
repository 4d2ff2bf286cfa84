"""What every registered head must satisfy, whatever it computes.

A test file of a head from outside, which pytest runs check by check:

    class TestMeanBox(HeadContract):
        head = MeanBox
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ifcar.cache.arrays import CacheSpec
from ifcar.heads.contract import Head, InstanceBatch
from ifcar.testing.batches import random_batch, spec_with
from ifcar.testing.built_heads import (
    NUM_CLASSES,
    build,
    build_moved,
    draw_noise,
    give_noise,
    loss_of,
    total_loss,
    without_dropout,
)
from ifcar.testing.changed_batches import constant, fill_empty_slots, in_double, junk, map_batch

MADE_OF_NUMBERS = (torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor)
MOVED = (Tensor.to, Tensor.cuda)


def check_shape_and_finite(head: type[Head], config: Any, spec: CacheSpec) -> None:
    """Features come as a cache holds them, in float16."""
    batch = map_batch(random_batch(6, spec), lambda k, v: v.half() if spec.array(k).role == "feature" else v)
    out = build_moved(head, config, spec).eval()(batch)
    assert out.logits.shape == (6, NUM_CLASSES)
    assert torch.isfinite(out.logits).all()
    assert all(loss.shape == () and torch.isfinite(loss) for loss in out.losses.values())


def check_gradient_reaches_every_parameter(head: type[Head], config: Any, spec: CacheSpec) -> None:
    model = build(head, config, spec).train()
    batch, labels = random_batch(16, spec), torch.arange(16) % NUM_CLASSES
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(3):  # a layer that starts at zero blocks what lies before it for one step, two in a row for two
        optimizer.zero_grad()
        total_loss(model, batch, labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    trained = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    dead = [name for name, grad in trained.items() if grad is None or not grad.abs().sum() > 0]
    assert not dead, f"no gradient in {dead}"


def check_classifier_makes_the_logits(head: type[Head], config: Any, spec: CacheSpec) -> None:
    model = build(head, config, spec).eval()
    assert model.num_classes == NUM_CLASSES
    made: list[Tensor] = []
    model.classifier.register_forward_hook(lambda _module, _inputs, output: made.append(output))
    out = model(random_batch(4, spec))
    assert len(made) == 1
    torch.testing.assert_close(made[0], out.logits if out.outputs is None else out.outputs, rtol=0, atol=0)
    torch.testing.assert_close(out.trained().mean(1), out.logits, rtol=0, atol=0)


def check_only_the_classifier_depends_on_the_classes(head: type[Head], config: Any, spec: CacheSpec) -> None:
    few, many = (head(config, spec, number).state_dict() for number in (3, 4))
    assert few.keys() == many.keys()
    assert all(key.startswith("classifier.") for key in few if few[key].shape != many[key].shape)


def check_initial_weights_come_from_reset_parameters(head: type[Head], config: Any, spec: CacheSpec) -> None:
    if not head.stackable:
        return
    fresh, reset = build(head, config, spec), build(head, config, spec, seed=1)
    with torch.no_grad():
        for parameter in reset.parameters():
            parameter.fill_(7.0)
    for module in reset.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()  # type: ignore[operator]
    for (name, parameter), again in zip(fresh.named_parameters(), reset.parameters(), strict=True):
        assert not (again == 7).any(), f"{name} is not set by its module's reset_parameters"
        constant = bool((parameter == parameter.flatten()[0]).all()) and parameter.numel() > 1
        assert not constant or torch.equal(again, parameter), f"{name} does not start at its constant again"


def check_padding_does_not_change_logits(head: type[Head], config: Any, spec: CacheSpec) -> None:
    batch = in_double(random_batch(7, spec))
    contents = [junk, constant(torch.nan), constant(torch.inf)]
    for training in (False, True):
        results = []
        for filled in [batch, *(fill_empty_slots(batch, spec, content) for content in contents)]:
            model = build_moved(head, config, spec).train(training).double()
            draw_noise(model, 7, torch.Generator().manual_seed(1))
            out = model(filled)
            loss_of(out, torch.arange(7) % NUM_CLASSES).backward()  # type: ignore[no-untyped-call]
            values: dict[str, Any] = {"logits": out.logits, **out.losses, **dict(model.named_buffers())}
            results.append(values | {k: p.grad for k, p in model.named_parameters()})
        for filled_result in results[1:]:
            torch.testing.assert_close(filled_result, results[0], rtol=0, atol=0)


def check_another_empty_slot_changes_nothing(head: type[Head], config: Any, spec: CacheSpec) -> None:
    """Training statistics too: rows of padding that hold zeros would move them."""
    batch = in_double(random_batch(7, spec))
    wider_spec = spec.resized(N=spec.num_instances + 1)

    def widen(name: str, value: Tensor) -> Tensor:
        array = spec.array(name)
        return torch.cat([value, torch.full_like(value[:, :, :1], array.empty)], 2) if array.is_by_slot else value

    wider = map_batch(batch, widen)
    for training in (False, True):
        first = build_moved(head, config, spec).train(training).double()
        second = build_moved(head, config, wider_spec).train(training).double()
        second.load_state_dict(first.state_dict())
        draw_noise(first, 7)
        give_noise(first, second)
        narrow_out, wider_out = first(batch), second(wider)
        torch.testing.assert_close(narrow_out.logits, wider_out.logits, rtol=1e-9, atol=1e-9)
        for name, loss in narrow_out.losses.items():
            torch.testing.assert_close(loss, wider_out.losses[name], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(dict(first.state_dict()), dict(second.state_dict()), rtol=1e-9, atol=1e-9)


def check_stacks(head: type[Head], config: Any, spec: CacheSpec) -> None:
    """Heads of one config that train stacked, on one batch or on one each, do what each would do alone."""
    if not head.stackable:
        return
    labels = torch.arange(7) % NUM_CLASSES
    exact: Any = {"rtol": 1e-9, "atol": 1e-9}
    for own in (False, True):
        batches = [in_double(random_batch(7, spec, seed=k if own else 0)) for k in range(3)]
        heads = [build_moved(head, config, spec, seed).double().train() for seed in range(3)]
        for seed, model in enumerate(heads):
            draw_noise(model, 7, torch.Generator().manual_seed(seed))
        parameters, buffers = torch.func.stack_module_state(heads)
        buffers = {name: value.clone() for name, value in buffers.items()}
        first = batches[0].arrays
        data = {name: torch.stack([b.arrays[name] for b in batches]) for name in first} if own else dict(first)

        def losses_of(weights: Any, statistics: Any, arrays: Any, model: Head = heads[0]) -> tuple[Tensor, Any, Any]:
            out = torch.func.functional_call(model, (weights, statistics), (InstanceBatch(arrays),))
            return loss_of(out, labels), out.logits, dict(out.losses)

        in_dims = (0, 0, 0 if own else None)
        total, logits, losses = torch.func.vmap(losses_of, in_dims=in_dims)(parameters, buffers, data)
        total.sum().backward()  # type: ignore[no-untyped-call]
        for k, (model, batch) in enumerate(zip(heads, batches, strict=True)):
            out = model(batch)
            torch.testing.assert_close(logits[k], out.logits, **exact)
            torch.testing.assert_close({n: loss[k] for n, loss in losses.items()}, dict(out.losses), **exact)
            loss_of(out, labels).backward()  # type: ignore[no-untyped-call]
            for name, parameter in model.named_parameters():
                if parameter.requires_grad:
                    torch.testing.assert_close(parameters[name].grad[k], parameter.grad, **exact)
            torch.testing.assert_close({n: v[k] for n, v in buffers.items()}, dict(model.named_buffers()), **exact)


def check_looks_at_no_value(head: type[Head], config: Any, spec: CacheSpec) -> None:
    """A step runs on tensors without values: no shape, branch or wait depends on them, and none are sent there.

    Such a step can be recorded on a GPU, and launched as a whole.
    """
    if not head.stackable:
        return
    batch = random_batch(6, spec).to(torch.device("meta"))
    model = build(head, config, spec).to("meta").train()
    labels = torch.zeros(6, dtype=torch.long, device="meta")
    with _NothingSent():
        total_loss(model, batch, labels).backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and p.grad.shape == p.shape for p in model.parameters() if p.requires_grad)


class _NothingSent(TorchFunctionMode):
    """Refuses to send numbers from Python or the CPU to another device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor) and out.device.type != "cpu":
            assert func not in MADE_OF_NUMBERS, f"a step sends {args[-1]} to the device; keep it there as a buffer"
            assert func not in MOVED or args[0].device == out.device, f"a step sends {args[0]} to the device"
            index = args[1] if func is Tensor.__getitem__ else ()
            parts = index if isinstance(index, tuple) else (index,)
            listed = [p for p in parts if isinstance(p, list) or (isinstance(p, Tensor) and p.device.type == "cpu")]
            assert not listed, f"a step sends the index {listed} to the device; keep it there as a buffer"
        return out


def check_trains_in_bf16(head: type[Head], config: Any, spec: CacheSpec) -> None:
    """Under autocast loss and gradients are finite, statistics stay float32 and near the exact ones."""
    batch, labels = random_batch(16, spec), torch.arange(16) % NUM_CLASSES
    exact, rounded = (build_moved(head, config, spec).train() for _ in range(2))
    for model in (exact, rounded):
        draw_noise(model, 16, torch.Generator().manual_seed(0))
    loss = total_loss(exact, batch, labels)
    with torch.autocast("cpu", torch.bfloat16):
        rounded_loss = total_loss(rounded, batch, labels)
    rounded_loss.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(rounded_loss, loss, rtol=0.1, atol=0.1)
    for name, parameter in rounded.named_parameters():
        if not parameter.requires_grad:
            continue
        assert parameter.grad is not None and parameter.grad.dtype == torch.float32, name
        assert torch.isfinite(parameter.grad).all(), name
    for name, buffer in exact.named_buffers():
        torch.testing.assert_close(rounded.get_buffer(name), buffer, rtol=0.1, atol=0.1)


def check_slot_order_does_not_change_logits(head: type[Head], config: Any, spec: CacheSpec) -> None:
    batch, order = random_batch(7, spec), torch.randperm(spec.num_instances)
    shuffled = map_batch(batch, lambda k, v: v[:, :, order] if spec.array(k).is_by_slot else v)
    model = build_moved(head, config, spec).eval()
    torch.testing.assert_close(model(batch).logits, model(shuffled).logits, rtol=1e-4, atol=1e-5)


def check_batch_independence(head: type[Head], config: Any, spec: CacheSpec) -> None:
    batch = random_batch(6, spec)
    model = build_moved(head, config, spec).eval()
    together = model(batch).logits
    clips = [InstanceBatch({name: v[i : i + 1] for name, v in batch.arrays.items()}) for i in range(6)]
    alone = torch.cat([model(clip).logits for clip in clips])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def check_one_instance_and_no_instance(head: type[Head], config: Any, spec: CacheSpec) -> None:
    one = map_batch(random_batch(1, spec), lambda _, v: v)
    none = map_batch(one, lambda k, v: torch.full_like(v, spec.array(k).empty) if spec.array(k).is_by_slot else v)
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
    bare = InstanceBatch({name: batch.arrays[name] for name in head.reads(config)})
    model = build_moved(head, config, spec).eval()
    torch.testing.assert_close(model(batch).logits, model(bare).logits, rtol=0, atol=0)


def check_overfits_8_clips(head: type[Head], config: Any, spec: CacheSpec) -> None:
    batch, labels = random_batch(8, spec, seed=5), torch.arange(8) % NUM_CLASSES
    model = build(head, without_dropout(config), spec).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(1000):
        out = model(batch)
        if (out.logits.argmax(1) == labels).all():
            return
        optimizer.zero_grad()
        loss_of(out, labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    raise AssertionError("1000 Adam steps did not fit 8 clips")


CHECKS = {name.removeprefix("check_"): check for name, check in sorted(globals().items()) if name.startswith("check_")}


class HeadContract:
    """The checks as tests, one a check; a subclass named Test… says which head they are of.

    Attributes:
        head: the head.
        config: an instance of its `config_type`; None takes its preset "small", or "paper" where there is none.
        spec: arrays of the random clips; None takes the smallest caches' that have what the head reads.
    """

    head: ClassVar[type[Head]]
    config: ClassVar[Any] = None
    spec: ClassVar[CacheSpec | None] = None

    def check(self, name: str) -> None:
        """Run one of `CHECKS`. Raises AssertionError when the head does not keep it."""
        presets = self.head.presets
        config = presets.get("small", presets.get("paper")) if self.config is None else self.config
        spec = self.spec or spec_with(self.head.reads(config))
        CHECKS[name](self.head, config, spec)


def _test_of(name: str) -> Callable[[HeadContract], None]:
    def test(self: HeadContract) -> None:
        self.check(name)

    test.__name__ = test.__qualname__ = f"test_{name}"
    return test


for _name in CHECKS:
    setattr(HeadContract, f"test_{_name}", _test_of(_name))
