"""`transformers-phrases`: a local folder of one of transformers' detectors that look for what words say.

OWL-ViT and OWLv2 (Minderer et al. 2022, 2023) and Grounding DINO (Liu et al. 2023). Its classes are the phrases. Their
scores are lower than those of detectors of closed classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch

from ifcar.errors import InputError
from ifcar.extract.datasets.detections import FrameDetections
from ifcar.extract.detectors.contract import BACKGROUND, DETECTORS, DetectorFamily, DetectorRequest, Picture
from ifcar.extract.detectors.transformers_loading import FolderDetector

_OWL: Final = ("owlv2", "owlvit")
_DINO: Final = ("grounding-dino", "mm-grounding-dino")
MODEL_TYPES: Final = (*_OWL, *_DINO)
_SEPARATOR: Final = "."


class TransformersPhrases(FolderDetector):
    """A detector of what phrases say."""

    model_types = MODEL_TYPES
    model_class, processor_class = "AutoModelForZeroShotObjectDetection", "AutoProcessor"

    def __init__(self, request: DetectorRequest) -> None:
        super().__init__(request)
        self._is_owl = self.model_type in _OWL
        self._phrases = [_read(phrase) for phrase in request.phrases]
        self.classes = (BACKGROUND, *self._phrases)
        config = self._model.config
        self._most_tokens = config.text_config.max_position_embeddings if self._is_owl else config.max_text_len
        texts = self._phrases if self._is_owl else [f"{_SEPARATOR} ".join(self._phrases) + _SEPARATOR]
        for text in texts:
            count = len(self._processor.tokenizer(text).input_ids)
            if count > self._most_tokens:
                raise InputError(
                    f"--phrases: {text!r:.100} has {count} tokens, and {self.folder} reads {self._most_tokens}; "
                    f"shorten {'it' if self._is_owl else 'them, or look for fewer'}"
                )

    @torch.inference_mode()
    def detect(self, pictures: Sequence[Picture]) -> list[FrameDetections]:
        """Return where each picture shows what the phrases say."""
        texts = [self._phrases] * len(pictures)
        padding = {}
        if self._is_owl:  # as it was trained; the other kind reads one text, the same for each picture
            padding = {"padding": "max_length", "max_length": self._most_tokens}
        inputs = self._processor(images=list(pictures), text=texts, return_tensors="pt", **padding)
        inputs = inputs.to(self._device)
        outputs = self._model(**inputs)
        sizes = torch.tensor([picture.shape[:2] for picture in pictures], device=self._device)
        if self._is_owl:
            found = self._processor.post_process_grounded_object_detection(
                outputs, threshold=self._least_score, target_sizes=sizes
            )
        else:
            found = self._of_tokens(outputs, inputs["input_ids"], sizes)
        return [self._of(one) for one in found]

    def _of_tokens(self, outputs: Any, tokens: torch.Tensor, sizes: torch.Tensor) -> list[dict[str, torch.Tensor]]:
        """Return boxes whose class is the phrase with the highest token; the words between full stops are a phrase."""
        phrase = self._phrase_of_token(tokens[0])
        scores = outputs.logits[..., : len(phrase)].sigmoid()
        by_phrase = torch.stack([scores[..., phrase == k].amax(-1) for k in range(len(self._phrases))], dim=-1)
        best, labels = by_phrase.max(-1)
        middle, sides = outputs.pred_boxes.split(2, dim=-1)
        scale = sizes.flip(1).repeat(1, 2)[:, None]
        boxes = torch.cat([middle - sides / 2, middle + sides / 2], dim=-1) * scale
        likely = best >= self._least_score
        return [
            {"boxes": boxes[k][own], "scores": best[k][own], "labels": labels[k][own]} for k, own in enumerate(likely)
        ]

    def _phrase_of_token(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the number of the phrase that each token belongs to, −1 for full stops and what frames the text."""
        tokenizer = self._processor.tokenizer
        stop = tokenizer.convert_tokens_to_ids(_SEPARATOR)
        number, numbers = 0, []
        for token in tokens.tolist():
            special = token in tokenizer.all_special_ids
            numbers.append(-1 if special or token == stop else number)
            number += token == stop
        return torch.tensor(numbers, device=self._device)

    def _of(self, found: Any) -> FrameDetections:
        boxes, scores, labels = (found[key].float().cpu().numpy() for key in ("boxes", "scores", "labels"))
        return FrameDetections.of(boxes, scores, labels.astype(np.int16) + 1)


def _read(phrase: str) -> str:
    """Return a phrase in lower case. Raises InputError when it holds what separates phrases."""
    text = phrase.strip().lower()
    if not text or _SEPARATOR in text:
        raise InputError(f"--phrases {phrase!r:.100}: expected words without full stops, with commas between phrases")
    return text


DETECTORS.register(
    "transformers-phrases",
    DetectorFamily(
        load=TransformersPhrases,
        summary="a folder of OWL-ViT, OWLv2 or Grounding DINO: what --phrases says",
        reads_phrases=True,
        scores=(0.1, 0.2, 0.25),
    ),
    __name__,
)
