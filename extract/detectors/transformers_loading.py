"""A detector of transformers out of a local folder, with every tensor accounted for."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ifcar.errors import InputError, one_line
from ifcar.extract.backbones.transformers_folder import CONFIG, library, read_config, read_model
from ifcar.extract.detectors.contract import DetectorRequest, existing
from ifcar.extract.weights import digest_of


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedFolder:
    """A folder's model, in evaluation mode, and what prepares its pictures."""

    folder: Path
    model_type: str
    model: Any
    processor: Any
    identity: str


def load_folder(
    request: DetectorRequest, model_types: Sequence[str], model_class: str, processor_class: str
) -> LoadedFolder:
    """Return the model of a request's folder.

    Args:
        request: its weights are the folder.
        model_types: of config.json, those that fit.
        model_class: automatic class of transformers.
        processor_class: the same, of what prepares pictures and words.

    Raises:
        MissingDataError: there is no such folder.
        InputError: transformers is missing, or the folder does not hold such a model, whole.
    """
    what = f"detector {request.name!r}"
    folder = existing(request, f"a folder with {CONFIG}, model.safetensors and preprocessor_config.json")
    model_type, _ = read_config(str(folder), what, dict.fromkeys(model_types, ""))
    transformers = library("transformers", what)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = transformers.AutoConfig.from_pretrained(str(folder), local_files_only=True)
        if getattr(config, "backbone_config", 0) is None and getattr(config, "use_pretrained_backbone", False):
            config.use_pretrained_backbone = False  # its tensors are the folder's
        model = read_model(getattr(transformers, model_class), folder, config, ())
        try:
            processor = getattr(transformers, processor_class).from_pretrained(str(folder), local_files_only=True)
        except Exception as error:  # transformers raises errors of many kinds
            raise InputError(
                f"{folder}: does not say how pictures are prepared ({one_line(error)}); expected "
                "preprocessor_config.json, and with phrases the tokenizer's files"
            ) from error
    return LoadedFolder(
        folder=folder,
        model_type=model_type,
        model=model.eval().to(request.device),
        processor=processor,
        identity=digest_of(folder),
    )
