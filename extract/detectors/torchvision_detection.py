"""`torchvision:VARIANT`: torchvision's detectors, Mask R-CNN among them, from a file of their own state dicts.

Sources: Ren et al. 2015 (Faster R-CNN), He et al. 2017 (Mask R-CNN), Lin et al. 2017 (RetinaNet), Tian et al. 2019
(FCOS), Liu et al. 2016 (SSD), Howard et al. 2019 (SSDlite); networks and keys are torchvision's, trained on COCO, whose
classes their files number 1 to 90 with gaps and `ifcar.extract.coco.CLASSES` 1 to 80 without.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from ifcar.errors import InputError
from ifcar.extract.backbones.downloads import sha256_file
from ifcar.extract.backbones.state_files import SUFFIXES, faults_of_state, listed_faults, not_finite, read_state
from ifcar.extract.coco import CLASSES, MASK_SIDE, NUMBERS_OF_91
from ifcar.extract.datasets.detections import FrameDetections
from ifcar.extract.detectors.contract import DETECTORS, Detector, DetectorFamily, DetectorRequest, Picture, existing

VARIANTS: Final = (
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "fcos_resnet50_fpn",
    "maskrcnn_resnet50_fpn",
    "maskrcnn_resnet50_fpn_v2",
    "retinanet_resnet50_fpn",
    "retinanet_resnet50_fpn_v2",
    "ssd300_vgg16",
    "ssdlite320_mobilenet_v3_large",
)
_NUM_CLASSES: Final = 91
_WRAPPERS: Final = ("model", "state_dict", "model_state")
_OPTIONAL_KEY: Final = "num_batches_tracked"
_SURE: Final = 0.5  # from which on a pixel, or a cell of a mask, belongs to the object


class TorchvisionDetection(Detector):
    """A network of torchvision with its own resizing and normalisation; pictures one at a time."""

    classes = CLASSES

    def __init__(self, request: DetectorRequest) -> None:
        path = existing(request, f"a state dict of torchvision's ({', '.join(SUFFIXES)})")
        if not path.is_file():
            raise InputError(f"{path}: a folder; detector {request.name!r} expects one file, a state dict")
        self.has_masks = request.variant.startswith("maskrcnn")
        self._network, self._device = _network(request.variant, request.least_score), torch.device(request.device)
        _fill(self._network, read_state(path, _WRAPPERS), f"{path}: these weights do not fit {request.name!r}")
        self._network.to(self._device)
        self.identity, self.description = sha256_file(path), str(path)

    @torch.inference_mode()
    def detect(self, pictures: Sequence[Picture]) -> list[FrameDetections]:
        """Return what is in each picture."""
        return [self._found(picture) for picture in pictures]

    def _found(self, picture: Picture) -> FrameDetections:
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).to(self._device).float() / 255
        found: Any = self._network([pixels])[0]
        numbers = NUMBERS_OF_91[found["labels"].cpu().numpy().clip(0, _NUM_CLASSES - 1)]
        known = numbers > 0
        masks = _squashed((found["masks"][:, 0] >= _SURE).cpu().numpy()[known]) if self.has_masks else None
        boxes, scores = (found[key].cpu().numpy()[known] for key in ("boxes", "scores"))
        return FrameDetections.of(boxes, scores, numbers[known], masks)


def _squashed(masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return masks (n, height, width) as pictures of `MASK_SIDE` squared: cells that are covered by half or more.

    Of a mask that covers half of no cell those that it covers most stay.
    """
    cells = np.zeros((len(masks), MASK_SIDE, MASK_SIDE), np.bool_)
    for number, mask in enumerate(masks):
        covered: Any = cv2.resize(mask.astype(np.float32), (MASK_SIDE, MASK_SIDE), interpolation=cv2.INTER_AREA)
        cells[number] = (covered >= min(_SURE, covered.max())) & (covered > 0)
    return cells


def _network(variant: str, least_score: float) -> torch.nn.Module:
    """Return a network without weights, which gives what scores `least_score` and more."""
    from torchvision.models import get_model

    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network: torch.nn.Module = get_model(variant, weights=None, weights_backbone=None, num_classes=_NUM_CLASSES)
    holder: Any = getattr(network, "roi_heads", network)
    holder.score_thresh = least_score
    return network.eval()


def _fill(network: torch.nn.Module, found: dict[str, torch.Tensor], fault: str) -> None:
    """Copy a state dict. Raises InputError, which begins with `fault`, when a key or shape differs."""
    expected = network.state_dict()
    found = {key: value for key, value in found.items() if key in expected or not key.endswith(_OPTIONAL_KEY)}
    said = [faults_of_state(found, expected), listed_faults({"with NaN or infinity": not_finite(found)})]
    if any(said):
        raise InputError(f"{fault}: {'; '.join(filter(None, said))}; expected its {len(expected)} tensors, each once")
    network.load_state_dict({key: found.get(key, value) for key, value in expected.items()})


DETECTORS.register(
    "torchvision",
    DetectorFamily(
        load=TorchvisionDetection,
        summary="torchvision's detectors and Mask R-CNN, from a state dict: COCO's 80 classes",
        variants=VARIANTS,
    ),
    __name__,
)
