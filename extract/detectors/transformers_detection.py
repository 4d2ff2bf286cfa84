"""`transformers`: a local folder of one of transformers' detectors, its classes those of its training.

DETR (Carion et al. 2020) and what followed it: Conditional and Deformable DETR, RT-DETR and RT-DETRv2, D-FINE, RF-DETR,
YOLOS. The folder states the network (config.json), its classes (id2label), how pictures are prepared
(preprocessor_config.json), and its tensors, each of which must have its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch

from ifcar.extract.datasets.detections import FrameDetections
from ifcar.extract.detectors.contract import BACKGROUND, DETECTORS, DetectorFamily, DetectorRequest, Picture
from ifcar.extract.detectors.transformers_loading import FolderDetector

MODEL_TYPES: Final = (
    "conditional_detr",
    "d_fine",
    "deformable_detr",
    "detr",
    "rf_detr",
    "rt_detr",
    "rt_detr_v2",
    "yolos",
)


class TransformersDetection(FolderDetector):
    """A detector of a closed list of classes."""

    model_types = MODEL_TYPES
    model_class, processor_class = "AutoModelForObjectDetection", "AutoImageProcessor"

    def __init__(self, request: DetectorRequest) -> None:
        super().__init__(request)
        names = self._model.config.id2label
        self._numbers = sorted(names)
        self.classes = (BACKGROUND, *(str(names[number]) for number in self._numbers))

    @torch.inference_mode()
    def detect(self, pictures: Sequence[Picture]) -> list[FrameDetections]:
        """Return what is in each picture."""
        inputs = self._processor(images=list(pictures), return_tensors="pt").to(self._device)
        sizes = torch.tensor([picture.shape[:2] for picture in pictures], device=self._device)
        found = self._processor.post_process_object_detection(
            self._model(**inputs), threshold=self._least_score, target_sizes=sizes
        )
        return [self._of(one) for one in found]

    def _of(self, found: Any) -> FrameDetections:
        place = {number: place for place, number in enumerate(self._numbers, start=1)}
        labels = torch.tensor([place.get(int(label), 0) for label in found["labels"]], dtype=torch.int16)
        boxes, scores = (found[key].float().cpu().numpy() for key in ("boxes", "scores"))
        known = labels.numpy() > 0
        return FrameDetections.of(boxes[known], scores[known], labels.numpy()[known])


DETECTORS.register(
    "transformers",
    DetectorFamily(
        load=TransformersDetection, summary="a folder of DETR, RT-DETR, D-FINE, RF-DETR, YOLOS, …: its own classes"
    ),
    __name__,
)
