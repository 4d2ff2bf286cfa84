"""The head contract, run on every registered head, preset and stream."""

from __future__ import annotations

import importlib
import inspect
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_args

import pytest
from fixtures.narrow_heads import narrow

import ifcar.heads
from ifcar.cache.arrays import CacheSpec
from ifcar.errors import CacheMismatchError, InputError
from ifcar.heads.catalog import HEADS
from ifcar.heads.contract import Head
from ifcar.heads.joint import Streams
from ifcar.testing.batches import LAYOUT_SPEC, spec_with
from ifcar.testing.built_heads import WithLosses
from ifcar.testing.head_contract import CHECKS

WITH_LOSS: dict[tuple[str, str], dict[str, Any]] = {  # what a loss needs
    ("ccau", "align"): {"streams": ("ego", "third", "audio")},
    ("ccau", "distil"): {"streams": ("ego", "third"), "distil": "cooperative"},
}
PADDING_CHECKS = ("padding_does_not_change_logits", "another_empty_slot_changes_nothing")
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "activity-specific": [{"specific": False}, {"correlation": False}, {"own_scores": True}, {"query": "mean"}],
    "two-stage-transformer": [{"features": "instances"}],
    "ccau": [
        {"attention": "off"},
        {"learned_weights": True},
        {"plain": ("audio",), "streams": ("ego", "audio")},
        {"streams": ("ego", "third")},
        {"features": "frame", "streams": ("ego", "third")},
    ],
    "nl": [{"attention": "dot"}, {"blocks": 2}],
    "orn": [
        {"heads": "object"},
        {"heads": "activity"},
        {"objects": "pixel", "features": ("visual",)},
        {"features": ("shape",)},
        {"features": ("class",)},
        {"pairs": "intra"},
        {"f": "mlp"},
        {"f": "avg"},
        {"clique": 1},
        {"clique": 3},
        {"dropout": 0.5},
    ],
    "stin": [{"classifier_dim": 16}],
    "i3d-stin-nl": [{"frame_relu": True}],
    "strg": [
        {"graphs": "similarity"},
        {"graphs": "spatial-temporal"},
        {"non_local": True},
        {"residual": False},
        {"layers": 1},
    ],
}


def variants() -> list[Any]:
    """Every head, preset, auxiliary loss and stream, and the paper's preset with each of `OPTIONS`.

    What differs in widths alone is the same variant. That a head fits clips is shown for each preset as it stands;
    `-m "not slow"` leaves that out, and runs the presets alone.
    """
    out = []
    for name in HEADS.names():
        head, seen = HEADS.get(name), list[Any]()
        for preset, config in head.presets.items():
            configs = {preset: narrow(config)}
            if any(f.name == "joint" for f in fields(config)):
                for stream in get_args(Streams):
                    if stream != config.joint.streams:
                        changed = replace(narrow(config), joint=replace(narrow(config).joint, streams=stream))
                        configs[f"{preset}-{stream}"] = changed
                moving = replace(narrow(config), joint=replace(narrow(config).joint, streams="layout", motion=True))
                configs[f"{preset}-motion-layout"] = moving
            for option in OPTIONS.get(name, []) if preset == "paper" else []:
                field, value = next(iter(option.items()))
                configs[f"{preset}-{field}-{value}"] = replace(narrow(config), **option)
            new: dict[str, tuple[Any, Any]] = {key: (head, c) for key, c in configs.items() if c not in seen}
            seen += [c for _, c in new.values()]
            for loss in head.auxiliary:
                with_loss = replace(narrow(config), **WITH_LOSS.get((name, loss), {}))
                new[f"{preset}+{loss}"] = (WithLosses(head, (loss,)), with_loss)
            out += [
                pytest.param(
                    kind,
                    c,
                    spec_with(kind.reads(c)),
                    check,
                    id=f"{name}-{key}-{check}",
                    marks=() if key == preset and check != "overfits_8_clips" else pytest.mark.slow,
                )
                for key, (kind, c) in new.items()
                for check in CHECKS
                if key == preset or check != "overfits_8_clips"
            ]
    return out


def masks_empty_slots(config: Any) -> bool:
    joint = getattr(config, "joint", None)
    return (joint is None or joint.mask_empty) and getattr(config, "gate", "presence") == "presence"


@pytest.mark.parametrize(("head", "config", "spec", "check"), variants())
def test_head_keeps_the_contract(head: type[Head], config: Any, spec: CacheSpec, check: str) -> None:
    if check == "slot_order_does_not_change_logits" and getattr(config, "subsample", False):
        return  # its block takes slots by their order, which tests/heads/test_released.py shows
    if check in PADDING_CHECKS and not masks_empty_slots(config):
        with pytest.raises(AssertionError):
            CHECKS[check](head, config, spec)
        return
    CHECKS[check](head, config, spec)


def test_every_head_file_is_registered_and_described() -> None:
    folder = Path(inspect.getfile(ifcar.heads)).parent
    found = set()
    for path in folder.glob("*.py"):
        module = importlib.import_module(f"ifcar.heads.{path.stem}")
        for _, item in inspect.getmembers(module, inspect.isclass):
            if issubclass(item, Head) and item is not Head and item.__module__ == module.__name__:
                assert HEADS.get(item.name) is item
                assert item.name.replace("-", "_") == path.stem
                assert is_dataclass(item.config_type) and item.source and item.formula
                assert "paper" in item.presets and "small" in item.presets
                assert item.__doc__ and "Source:" in item.__doc__
                found.add(item.name)
    assert found == set(HEADS.names())


def test_unknown_head_names_the_nearest() -> None:
    with pytest.raises(InputError, match=r"unknown head 'sfy', did you mean 'sfi'\?"):
        HEADS.get("sfy")


@pytest.mark.parametrize("name", HEADS.names())
def test_head_without_its_array_says_what_to_do(name: str) -> None:
    head = HEADS.get(name)
    for config in head.presets.values():
        if spec_with(head.reads(config)) is not LAYOUT_SPEC:
            with pytest.raises(CacheMismatchError, match="--streams layout"):
                head(config, LAYOUT_SPEC, 3)
        else:
            head(config, LAYOUT_SPEC, 3)


def test_layout_stream_needs_no_pixels_unless_the_head_reads_the_frame() -> None:
    for name in ("base", "sfi", "nl", "strg", "stin", "stin-nl"):
        config = HEADS.get(name).presets["paper"]
        config = replace(config, joint=replace(config.joint, streams="layout"))
        assert set(HEADS.get(name).reads(config)) == {"boxes", "categories"}
    for name, preset in (("i3d", "paper"), ("proposal-avg", "paper"), ("i3d-stin-nl", "paper"), ("strg", "full")):
        assert "frame_features" in HEADS.get(name).reads(HEADS.get(name).presets[preset])


def test_a_head_reads_what_it_or_its_config_or_a_part_of_that_says_and_else_is_refused() -> None:
    for name, parts in (("stin", "joint"), ("stlt", "layout"), ("caf", None)):
        config = HEADS.get(name).config_type()
        assert HEADS.get(name).reads(config) == (getattr(config, parts) if parts else config).reads()
    silent = type("Silent", (HEADS.get("stin"),), {})
    with pytest.raises(InputError, match=r"head 'stin' \(.*\) names no array; give it a class method `reads`"):
        silent.reads(HEADS.get("i3d").config_type())
