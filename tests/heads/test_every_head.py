"""The head contract, run on every registered head, preset and stream."""

from __future__ import annotations

import importlib
import inspect
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from fixtures.batches import LAYOUT_SPEC, SPEC
from head_contract import CHECKS

import ifcar.heads
from ifcar.cache.schema import CacheSpec
from ifcar.errors import CacheMismatchError, InputError
from ifcar.heads.catalog import HEADS
from ifcar.heads.contract import Head

SMALL = {"appearance_dim": 16, "layout_dim": 16, "reduction_dim": 4}


def narrow(config: Any) -> Any:
    """Shrink every width of a config, also nested ones, so that a check takes milliseconds."""
    changes: dict[str, Any] = {}
    for f in fields(config):
        value = getattr(config, f.name)
        if is_dataclass(value):
            changes[f.name] = narrow(value)
        elif f.name.endswith("_dim") and value:
            changes[f.name] = SMALL.get(f.name, 16)
    return replace(config, **changes)


def variants() -> list[Any]:
    """Every head, preset, stream and auxiliary loss."""
    out = []
    for name in HEADS.names():
        head = HEADS.get(name)
        for preset, config in head.presets.items():
            configs = {preset: narrow(config)}
            for loss in head.auxiliary:
                configs |= {f"{k}+{loss}": replace(c, **{loss: True}) for k, c in configs.items()}
            if any(f.name == "joint" for f in fields(config)):
                for stream in ("appearance", "layout"):
                    changed = replace(narrow(config), joint=replace(narrow(config).joint, streams=stream))
                    configs[f"{preset}-{stream}"] = changed
                moving = replace(narrow(config), joint=replace(narrow(config).joint, streams="layout", motion=True))
                configs[f"{preset}-motion-layout"] = moving
            out += [
                pytest.param(head, c, LAYOUT_SPEC if k.endswith("layout") else SPEC, id=f"{name}-{k}")
                for k, c in configs.items()
            ]
    return out


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize(("head", "config", "spec"), variants())
def test_head_keeps_the_contract(head: type[Head], config: Any, spec: CacheSpec, check: str) -> None:
    joint = getattr(config, "joint", None)
    if check == "padding_does_not_change_logits" and joint is not None and not joint.mask_empty:
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


@pytest.mark.parametrize("name", ["i3d", "sfi", "base"])
def test_head_without_its_array_says_what_to_do(name: str) -> None:
    head = HEADS.get(name)
    with pytest.raises(CacheMismatchError, match="--streams layout"):
        head(head.presets["paper"], LAYOUT_SPEC, 3)
