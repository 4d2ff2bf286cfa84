"""A detector of transformers out of a local folder, with every tensor accounted for."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import ClassVar

import torch

from ifcar.errors import InputError, one_line
from ifcar.extract.backbones.transformers_folder import CONFIG, library, read_config, read_model
from ifcar.extract.detectors.contract import Detector, DetectorRequest, existing
from ifcar.extract.weights import digest_of


class FolderDetector(Detector):
    """A model of a request's folder, in evaluation mode, and what prepares its pictures.

    Attributes:
        model_types: of config.json, those that fit.
        model_class: automatic class of transformers.
        processor_class: the same, of what prepares pictures and words.

    Raises:
        MissingDataError: there is no such folder.
        InputError: transformers is missing, or the folder does not hold such a model, whole.
    """

    model_types: ClassVar[Sequence[str]]
    model_class: ClassVar[str]
    processor_class: ClassVar[str]

    def __init__(self, request: DetectorRequest) -> None:
        what = f"detector {request.name!r}"
        folder = existing(request, f"a folder with {CONFIG}, model.safetensors and preprocessor_config.json")
        self.model_type, _ = read_config(str(folder), what, dict.fromkeys(self.model_types, ""))
        transformers = library("transformers", what)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            config = transformers.AutoConfig.from_pretrained(str(folder), local_files_only=True)
            if getattr(config, "backbone_config", 0) is None and getattr(config, "use_pretrained_backbone", False):
                config.use_pretrained_backbone = False  # its tensors are the folder's
            model = read_model(getattr(transformers, self.model_class), folder, config, ())
            try:
                load = getattr(transformers, self.processor_class).from_pretrained
                self._processor = load(str(folder), local_files_only=True)
            except Exception as error:  # transformers raises errors of many kinds
                raise InputError(
                    f"{folder}: does not say how pictures are prepared ({one_line(error)}); expected "
                    "preprocessor_config.json, and with phrases the tokenizer's files"
                ) from error
        self.folder, self.identity, self.description = folder, digest_of(folder), str(folder)
        self._model = model.eval().to(request.device)
        self._device, self._least_score = torch.device(request.device), request.least_score
