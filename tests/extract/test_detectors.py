"""Detectors: published networks on real pictures, whole state dicts and folders, and one line for every bad input."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixtures.networks import load, published
from PIL import Image

from ifcar.errors import IfcarError, InputError, MissingDataError
from ifcar.extract.coco import CLASSES, MASK_SIDE
from ifcar.extract.detectors import (
    mediapipe_hands,
    mediapipe_objects,
    torchvision_detection,
    transformers_phrases,
)
from ifcar.extract.detectors.mediapipe_hands import hand_boxes
from ifcar.extract.detectors.suppression import suppressed
from ifcar.extract.tracks import box_iou


def shared() -> Path:
    folder = os.environ.get("IFCAR_SHARED")
    if not folder:
        pytest.skip("IFCAR_SHARED is not set: the real clips lie there")
    return Path(folder) / "data"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("weights")


def pictures(folder: Path, step: int) -> dict[str, np.ndarray[Any, Any]]:
    return {
        f"{folder.name}/{p.name}": np.asarray(Image.open(p).convert("RGB"))
        for p in sorted(folder.glob("*.jpg"))[::step]
    }


@pytest.mark.slow
def test_hands_are_found_where_people_drew_boxes_around_them(weights: Path) -> None:
    data = shared() / "something-else"
    detector = published("mediapipe-hands", weights)
    annotations = json.loads((data / "annotations.json").read_text())
    overlaps = []
    for clip in ("13201", "3201", "862"):
        drawn = {
            record["name"]: [
                [label["box2d"][corner] for corner in ("x1", "y1", "x2", "y2")]
                for label in record["labels"]
                if label["standard_category"] == "hand"
            ]
            for record in annotations[clip]
        }
        seen = {name: own for name, own in pictures(data / "frames" / clip, 6).items() if drawn.get(name)}
        for name, found in zip(seen, detector.detect(list(seen.values())), strict=True):
            assert set(found.classes.tolist()) <= {1}
            best = found.at(np.argsort(-found.scores)[:1])
            true = np.array(drawn[name], np.float32)
            overlaps.append(float(box_iou(best.boxes, true).max(initial=0)))
    assert len(overlaps) >= 14
    assert np.mean(np.array(overlaps) > 0.3) > 0.5 and np.mean(overlaps) > 0.35


@pytest.mark.slow
def test_a_person_who_fills_the_picture_is_found_and_each_picture_counts_by_itself(weights: Path) -> None:
    detector = published("mediapipe-objects", weights)
    sample = pytest.importorskip("matplotlib.cbook").get_sample_data("grace_hopper.jpg")
    portrait = np.asarray(Image.open(sample).convert("RGB"))
    both = detector.detect([np.zeros_like(portrait), portrait])
    found = both[1].at(np.argsort(-both[1].scores)[:1])
    assert detector.classes[found.classes[0]] == "person" and found.scores[0] == pytest.approx(0.47, abs=0.03)
    height, width = portrait.shape[:2]
    assert box_iou(found.boxes, np.array([[0, 0, width, height]], np.float32))[0, 0] > 0.5
    alone = detector.detect([portrait])[0]
    assert all(np.array_equal(getattr(alone, name), getattr(both[1], name)) for name in ("boxes", "scores", "classes"))


@pytest.mark.slow
def test_persons_are_found_in_clips_with_hands_and_in_none_without(weights: Path) -> None:
    data = shared() / "something-else"
    detector = published("mediapipe-objects", weights)
    firsts: dict[bool, list[str]] = {True: [], False: []}
    for clip, records in json.loads((data / "annotations.json").read_text()).items():
        drawn = {own["name"]: [label["standard_category"] for label in own["labels"]] for own in records}
        with_hands = any("hand" in names for names in drawn.values())
        seen = pictures(data / "frames" / clip, 12)
        chosen = [picture for name, picture in seen.items() if not with_hands or "hand" in drawn.get(name, [])]
        for found in detector.detect(chosen):
            first = int(found.classes[found.scores.argmax()]) if len(found.scores) else 0
            firsts[with_hands].append(detector.classes[first])
    assert len(firsts[True]) > 20 and np.mean(np.array(firsts[True]) == "person") > 0.7
    assert len(firsts[False]) > 2 and "person" not in firsts[False]


@pytest.mark.slow
def test_a_published_network_is_fetched_once_and_a_file_of_it_will_do(weights: Path, tmp_path: Path) -> None:
    published("mediapipe-hands", weights)
    (kept,) = (path for path in weights.iterdir() if path.name == "mediapipe-hands.tflite")
    modified = kept.stat().st_mtime_ns
    assert published("mediapipe-hands", weights).identity == mediapipe_hands.NETWORK.sha256
    assert kept.stat().st_mtime_ns == modified
    assert load("mediapipe-hands", kept, tmp_path).identity == mediapipe_hands.NETWORK.sha256
    kept.write_bytes(b"another")
    with pytest.raises(InputError, match="its SHA-256 is"):
        load("mediapipe-hands", None, weights)
    with pytest.raises(InputError, match="another file than detector 'mediapipe-hands' expects: hands_solution_packed"):
        load("mediapipe-hands", kept, tmp_path)
    kept.unlink()


def test_no_index_is_one_line_with_the_ways_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError) as error:
        load("mediapipe-objects", None, tmp_path)
    said = str(error.value)
    assert "\n" not in said and said.startswith("cannot download @mediapipe/objectron 0.4.1675468480 (package index)")
    assert "npm is not there" in said and said.endswith("--weights FILE, or take another --detector")
    assert not list(tmp_path.iterdir())


def test_anchors_are_as_many_as_the_network_has_and_their_grids_are_in_order() -> None:
    anchors = mediapipe_objects.anchors()
    assert anchors.shape == (1917, 4)
    np.testing.assert_allclose(anchors[0], [0.5 / 19, 0.5 / 19, 0.1, 0.1])
    np.testing.assert_allclose(anchors[1], [0.5 / 19, 0.5 / 19, 0.2 * 2**0.5, 0.2 / 2**0.5])
    np.testing.assert_allclose(anchors[3, :2], [1.5 / 19, 0.5 / 19])
    np.testing.assert_allclose(anchors[-1], [0.5, 0.5, (0.95 * 1.0) ** 0.5, (0.95 * 1.0) ** 0.5])
    assert mediapipe_hands._ANCHORS.shape == (2016, 2)


def test_a_hands_box_reaches_from_the_palm_towards_the_fingers() -> None:
    points = np.zeros((1, 7, 2))
    points[0, 0], points[0, 2] = (50, 80), (50, 40)  # the fingers point up
    boxes = hand_boxes(np.array([[50.0, 60.0]]), np.array([[20.0, 18.0]]), points)
    np.testing.assert_allclose(boxes, [[50 - 18, 60 - 5 - 18, 50 + 18, 60 - 5 + 18]])


def test_suppression_equals_a_literal_loop() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        low = rng.random((12, 2)) * 20
        boxes, scores = np.concatenate([low, low + 5 + rng.random((12, 2)) * 10], axis=1), rng.random(12).round(1)
        classes = rng.integers(1, 3, 12)
        kept: list[int] = []
        for k in sorted(range(12), key=lambda k: (-scores[k], k)):
            rivals = [j for j in kept if classes[j] == classes[k]]
            if all(box_iou(boxes[[j]], boxes[[k]])[0, 0] <= 0.4 for j in rivals):
                kept.append(k)
        assert suppressed(boxes, scores, classes, 0.4).tolist() == kept


@pytest.fixture(scope="module")
def ssdlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ssdlite") / "ssdlite.pth"
    torch.manual_seed(0)
    torch.save(torchvision_detection._network("ssdlite320_mobilenet_v3_large", 0.1).state_dict(), path)
    return path


def test_a_state_dict_gives_what_torchvision_gives_in_cocos_80_classes(ssdlite: Path, tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    detector = load("torchvision:ssdlite320_mobilenet_v3_large", ssdlite, tmp_path, least_score=0.01)
    (found,) = detector.detect([picture])
    network = torchvision_detection._network("ssdlite320_mobilenet_v3_large", 0.01)
    network.load_state_dict(torch.load(ssdlite))
    with torch.inference_mode():
        raw = network([torch.from_numpy(picture).permute(2, 0, 1) / 255])[0]
    from torchvision.models.detection import SSDLite320_MobileNet_V3_Large_Weights as Published

    names = [Published.COCO_V1.meta["categories"][label] for label in raw["labels"].tolist()]
    known = [place for place, name in enumerate(names) if name not in ("N/A", "__background__")]
    assert len(known) > 5 and detector.classes == CLASSES and not detector.has_masks
    assert [CLASSES[number] for number in found.classes] == [names[place] for place in known]
    np.testing.assert_array_equal(found.boxes, raw["boxes"][known].numpy())
    np.testing.assert_array_equal(found.scores, raw["scores"][known].numpy())


def test_keys_that_do_not_fit_are_named(ssdlite: Path, tmp_path: Path) -> None:
    state = torch.load(ssdlite)
    first = next(iter(state))
    renamed = {("other" if key == first else key): value for key, value in state.items()}
    torch.save(renamed, tmp_path / "renamed.pth")
    name = "torchvision:ssdlite320_mobilenet_v3_large"
    with pytest.raises(InputError, match=rf"do not fit '{name}': 1 missing \({first}\); 1 unexpected \(other\)"):
        load(name, tmp_path / "renamed.pth", tmp_path)
    torch.save({**state, first: torch.full_like(state[first], torch.nan)}, tmp_path / "nan.pth")
    with pytest.raises(InputError, match=rf"1 with NaN or infinity \({first}\)"):
        load(name, tmp_path / "nan.pth", tmp_path)


def test_masks_are_squashed_to_cells_that_are_half_covered_and_thin_ones_stay() -> None:
    masks = np.zeros((2, 200, 300), np.bool_)
    masks[0, 20:60, 30:90] = True  # cells of 2 × 3
    masks[1, 7, 5] = True
    cells = torchvision_detection._squashed(masks)
    assert cells.shape == (2, MASK_SIDE, MASK_SIDE)
    expected = np.zeros((MASK_SIDE, MASK_SIDE), np.bool_)
    expected[10:30, 10:30] = True
    np.testing.assert_array_equal(cells[0], expected)
    assert np.argwhere(cells[1]).tolist() == [[3, 1]]


@pytest.mark.slow
def test_mask_rcnn_gives_masks_of_the_whole_frame(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = torchvision_detection._network("maskrcnn_resnet50_fpn", 0.0)
    torch.save(network.state_dict(), tmp_path / "mask.pth")
    detector = load("torchvision:maskrcnn_resnet50_fpn", tmp_path / "mask.pth", tmp_path, least_score=0.0)
    assert isinstance(detector, torchvision_detection.TorchvisionDetection)
    own: Any = detector._network
    own.transform.min_size, own.roi_heads.detections_per_img = (64,), 4  # of a hundred, in 800 pixels
    (found,) = detector.detect([np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)])
    assert detector.has_masks and found.masks.shape == (len(found.scores), MASK_SIDE, MASK_SIDE) and len(found.scores)


def tiny_rt_detr(folder: Path) -> Path:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    backbone = transformers.RTDetrResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = transformers.RTDetrV2Config(
        backbone_config=backbone, encoder_in_channels=[16, 24, 32], encoder_hidden_dim=32, encoder_ffn_dim=32,
        encoder_attention_heads=2, d_model=32, num_queries=20, decoder_in_channels=[32, 32, 32], decoder_ffn_dim=32,
        decoder_attention_heads=2, decoder_layers=2, id2label={0: "hand", 1: "cup", 2: "plate"},
        label2id={"hand": 0, "cup": 1, "plate": 2},
    )  # fmt: skip
    transformers.RTDetrV2ForObjectDetection(config).save_pretrained(folder)
    transformers.RTDetrImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_a_folder_of_transformers_gives_its_own_classes_in_pixels(tmp_path: Path) -> None:
    folder = tiny_rt_detr(tmp_path / "rt")
    detector = load("transformers", folder, tmp_path, least_score=0.01)
    assert detector.classes == ("background", "hand", "cup", "plate")
    pictures = list(np.random.default_rng(0).integers(0, 256, (2, 50, 90, 3), np.uint8))
    found = detector.detect(pictures)
    assert [len(own.scores) > 0 for own in found] == [True, True]
    for own in found:
        assert set(own.classes.tolist()) <= {1, 2, 3} and (own.scores >= 0.01).all()
        centre = (own.boxes[:, :2] + own.boxes[:, 2:]) / 2
        assert (centre >= 0).all() and (centre <= [90, 50]).all()
    assert load("transformers", folder, tmp_path).identity == detector.identity
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    gone = next(key for key in sorted(tensors) if "class_embed" in key)
    save_file({k: v for k, v in tensors.items() if k != gone}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"do not fit RTDetrV2ForObjectDetection: \d missing \("):
        load("transformers", folder, tmp_path)


def tiny_owl(folder: Path) -> Path:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    layers = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {"vocab_size": 54, "max_position_embeddings": 16, "pad_token_id": 0, "bos_token_id": 52, "eos_token_id": 53}
    config = transformers.Owlv2Config(
        text_config={**layers, **text}, vision_config={**layers, "image_size": 64, "patch_size": 16}, projection_dim=16
    )
    transformers.Owlv2ForObjectDetection(config).save_pretrained(folder)
    transformers.Owlv2Processor(
        image_processor=transformers.Owlv2ImageProcessor(size={"height": 64, "width": 64}),
        tokenizer=transformers.CLIPTokenizer(vocab={token: k for k, token in enumerate(tokens)}, merges=[]),
    ).save_pretrained(folder)
    return folder


def tiny_dino(folder: Path) -> Path:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "hand", "coffee", "cup"]
    swin = transformers.SwinConfig(
        embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1], image_size=64, window_size=2,
        out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip
    layers = {"hidden_size": 32, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.GroundingDinoConfig(
        backbone_config=swin, text_config={"model_type": "bert", "vocab_size": len(words), **layers}, d_model=32,
        encoder_layers=1, decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=16,
        decoder_ffn_dim=16, num_queries=12, max_text_len=32,
    )  # fmt: skip
    transformers.GroundingDinoForObjectDetection(config).save_pretrained(folder)
    transformers.GroundingDinoProcessor(
        image_processor=transformers.GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 96}),
        tokenizer=transformers.BertTokenizer(vocab={word: k for k, word in enumerate(words)}),
    ).save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("write", [tiny_owl, tiny_dino])
def test_phrases_are_the_classes_of_what_reads_words(tmp_path: Path, write: Any) -> None:
    detector = load("transformers-phrases", write(tmp_path / "words"), tmp_path, "Hand", "coffee cup", least_score=0.0)
    assert detector.classes == ("background", "hand", "coffee cup")
    picture = np.random.default_rng(0).integers(0, 256, (40, 90, 3), np.uint8)
    one, two = detector.detect([picture, picture])
    assert len(one.scores) > 5 and set(one.classes.tolist()) == {1, 2}
    np.testing.assert_allclose(one.boxes, two.boxes, atol=1e-3)
    assert np.abs(one.boxes).max() > 5  # pixels, and no shares
    if isinstance(detector, transformers_phrases.TransformersPhrases) and write is tiny_dino:
        tokens = detector._processor.tokenizer("hand. coffee cup.", return_tensors="pt").input_ids[0]
        assert detector._phrase_of_token(tokens).tolist() == [-1, 0, -1, 1, 1, -1, -1]
    with pytest.raises(InputError, match=r"--phrases 'a\. b': expected words without full stops"):
        load("transformers-phrases", tmp_path / "words", tmp_path, "a. b")
    with pytest.raises(InputError, match=r"--phrases: 'cup cup .* has \d+ tokens, and .* reads \d+; shorten"):
        load("transformers-phrases", tmp_path / "words", tmp_path, "cup " * 40)


# name: (detector, weights, phrases, kind of error, message)
BAD: dict[str, tuple[str, str | None, tuple[str, ...], type[IfcarError], str]] = {
    "no such detector": ("mediapipe-hand", None, (), InputError, "unknown detector 'mediapipe-hand', did you mean"),
    "no variant": ("torchvision", "x", (), InputError, "detector 'torchvision' needs a variant: fasterrcnn"),
    "wrong variant": ("torchvision:maskrcnn", "x", (), InputError, "has no variant 'maskrcnn'.*maskrcnn_resnet50_fpn"),
    "variant in vain": ("transformers:detr", "x", (), InputError, "has no variants; leave out"),
    "closed classes": ("mediapipe-hands", None, ("cup",), InputError, "--phrases 'cup' would be ignored: detector"),
    "no phrases": ("transformers-phrases", "x", (), InputError, "say what with --phrases hand,cup"),
    "no weights": ("transformers", None, (), MissingDataError, "no weights that can be fetched; give its file or"),
    "no folder": (
        "transformers",
        "gone",
        (),
        MissingDataError,
        "gone: no such file or folder; detector",
    ),
    "empty folder": ("transformers", "empty", (), MissingDataError, "empty/config.json is not there"),
    "other model": (
        "transformers",
        "bert",
        (),
        InputError,
        "model_type is 'bert'; detector 'transformers' ",
    ),
    "own code": ("transformers", "code", (), InputError, r"asks for code of its own \(auto_map\), which is never run"),
    "folder": ("torchvision:fcos_resnet50_fpn", "empty", (), InputError, "empty: a folder; .* expects one file"),
    "folder of a network": ("mediapipe-hands", "empty", (), InputError, "empty: a folder; detector 'mediapipe-hands'"),
    "no state dict": (
        "torchvision:fcos_resnet50_fpn",
        "text.pth",
        (),
        InputError,
        "cannot be read as weights",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_clear_line(tmp_path: Path, name: str) -> None:
    detector, weights, phrases, kind, message = BAD[name]
    (tmp_path / "empty").mkdir()
    for folder, content in (("bert", {"model_type": "bert"}), ("code", {"model_type": "detr", "auto_map": {}})):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.json").write_text(json.dumps(content))
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(kind, match=message) as caught:
        load(detector, None if weights is None else tmp_path / weights, tmp_path, *phrases)
    assert "\n" not in str(caught.value)
