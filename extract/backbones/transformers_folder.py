"""A folder of weights as transformers writes it: what it says of its network, and its tensors, each accounted for."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from ifcar.errors import InputError, MissingDataError, one_line
from ifcar.extract.backbones.state_files import listed_faults
from ifcar.text_files import read_text

CONFIG = "config.json"
PREPROCESSORS = ("video_preprocessor_config.json", "preprocessor_config.json")
_NEEDS = "needs transformers and timm: pip install 'ifcar[vit]'"
_NOT_JSON = ("dtype", "torch_dtype", "transformers_version", "architectures", "id2label", "label2id")


def library(name: str, who: str) -> Any:
    """Return an optional library that `who` needs. Raises InputError with what to install where it is missing."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # weights come from folders alone
    try:
        return import_module(name)
    except ImportError as error:
        raise InputError(f"{who} {_NEEDS} ({one_line(error)})") from error


def read_config(
    folder: str | None, who: str, model_types: Mapping[str, str], way_out: str = ""
) -> tuple[str, dict[str, Any]]:
    """Return a folder's model type and config; of a model of two towers, that of its vision tower.

    Args:
        folder: as `--weights` has it.
        who: reads it, for messages: "backbone 'dinov2'".
        model_types: those that fit → key of the vision tower's config in theirs, or "".
        way_out: what to do without a folder, for the message.

    Raises:
        MissingDataError: there is no such folder, or no config.json in it.
        InputError: it is no config, belongs to another family, or asks for code of its own.
    """
    path = Path(folder or "").expanduser() / CONFIG
    if folder is None or not path.is_file():
        raise MissingDataError(
            f"{who} reads its size from its weights: {path} is not there; give --weights FOLDER, as downloaded, with "
            f"{CONFIG} and model.safetensors{way_out}"
        )
    try:
        content = json.loads(read_text(path))
    except ValueError as error:
        raise InputError(f"{path}: no JSON ({one_line(error)}); fetch it again") from error
    if not isinstance(content, dict) or not isinstance(content.get("model_type"), str):
        raise InputError(f"{path}: states no model_type; expected the config of a transformers model")
    if "auto_map" in content:
        raise InputError(
            f"{path}: asks for code of its own (auto_map), which is never run; use a model of transformers"
        )
    kind = content["model_type"]
    if kind not in model_types:
        known = " or ".join(sorted(model_types))
        raise InputError(f"{path}: model_type is {kind!r}; {who} expects {known}")
    tower = model_types[kind]
    return kind, content[tower] if tower else content


def read_statistics(folder: str) -> dict[str, list[float]]:
    """Return mean and std of the input as the folder's preprocessor states them; nothing where none does."""
    for name in PREPROCESSORS:
        path = Path(folder).expanduser() / name
        if path.is_file():
            content = json.loads(read_text(path))
            found = {ours: content.get(theirs) for ours, theirs in (("mean", "image_mean"), ("std", "image_std"))}
            if not all(isinstance(v, list) and len(v) == 3 and {*map(type, v)} <= {int, float} for v in found.values()):
                raise InputError(f"{path}: expected image_mean and image_std, three numbers each")
            return {key: [float(number) for number in value] for key, value in found.items()}
    return {}


def whole_config(config_type: Any, stated: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return a config with every default filled in, as JSON values. Raises InputError where a value is refused."""
    try:
        filled = config_type(**{k: v for k, v in stated.items() if k not in (*_NOT_JSON, "model_type")}).to_dict()
    except Exception as error:  # transformers validates with errors of many kinds
        raise InputError(f"{where}: transformers refuses this config ({one_line(error)})") from error
    plain = json.loads(json.dumps({k: v for k, v in filled.items() if k not in _NOT_JSON}, default=str))
    return dict(plain)


def read_model(model_type: Any, folder: Path, config: Any, unused: tuple[str, ...], **kwargs: Any) -> Any:
    """Return a model that holds the tensors of a folder.

    Args:
        model_type: class of transformers.
        folder: with model.safetensors, or its index and parts.
        config: of that class, for the size of the views.
        unused: what keys begin with that the model has no place for: a classifier's for example.
        **kwargs: of the class.

    Raises:
        InputError: a key is missing or unexpected, or a tensor has another shape; the message names the first.
    """
    try:
        model, info = model_type.from_pretrained(
            str(folder),
            config=config,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **kwargs,
        )
    except Exception as error:  # transformers and safetensors raise errors of many kinds
        raise InputError(f"{folder}: cannot be read as weights ({one_line(error)}); fetch it again") from error
    unexpected = [key for key in info["unexpected_keys"] if not key.startswith(unused)]
    reshaped = map(str, info.get("mismatched_keys", ()))
    faults = {"missing": info["missing_keys"], "unexpected": unexpected, "of another shape": reshaped}
    if said := listed_faults({what: sorted(keys) for what, keys in faults.items()}):
        raise InputError(f"{folder}: these weights do not fit {type(model).__name__}: {said}")
    return model
