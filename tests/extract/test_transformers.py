"""Transformers as backbones: the order of their tokens, their folders, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ifcar.errors import InputError, MissingDataError
from ifcar.extract.backbones.base import Backbone
from ifcar.extract.backbones.catalog import build_backbone, resolve_backbone
from ifcar.extract.backbones.spec import INSTANCES
from ifcar.extract.backbones.transformers_models import MODELS
from ifcar.extract.backbones.transformers_video import VideoTransformer
from ifcar.extract.weights import load_weights

transformers = pytest.importorskip("transformers", reason="transformers, the extra 'vit', is not installed")

SIZES = {"dinov2": (4, 56), "dinov2-registers": (4, 56), "videoprism": (4, 72), "hiera": (4, 64)}


def built(name: str, weights: str = "random:3", **options: Any) -> Backbone:
    frames, size = SIZES.get(name, (8, 64))
    spec = resolve_backbone(name, num_frames=frames, crop_size=size, weights=weights, **options)
    backbone = build_backbone(spec)
    load_weights(backbone, weights)
    return backbone.eval()


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_an_impulse_in_a_patch_is_seen_most_in_its_cell(name: str) -> None:
    backbone = built(name)
    spec = backbone.spec
    (height, width), steps = spec.maps[INSTANCES], spec.num_steps
    per_step, side = spec.num_frames // steps, spec.crop_size // height
    generator = torch.Generator().manual_seed(0)
    video = torch.rand(1, 3, spec.num_frames, spec.crop_size, spec.crop_size, generator=generator)
    with torch.inference_mode():
        before = backbone.checked(backbone(video))[INSTANCES]
        for number in torch.randperm(steps * height * width, generator=generator)[:6].tolist():
            t, y, x = number // (height * width), number // width % height, number % width
            rows, columns = slice(y * side, (y + 1) * side), slice(x * side, (x + 1) * side)
            moved = video.repeat(8, 1, 1, 1, 1)
            patch = moved[:, :, t * per_step : (t + 1) * per_step, rows, columns]
            patch += 2 * torch.rand(patch.shape, generator=generator)
            change = (backbone(moved)[INSTANCES] - before).norm(dim=1).mean(0)
            assert change.argmax().item() == number, f"{name}: cell ({t}, {y}, {x})"


def test_random_weights_repeat_and_differ_by_seed() -> None:
    first, again, other = (built("dinov3", f"random:{seed}").state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_freezing_leaves_what_lies_behind_a_block_and_none_of_it_without_one() -> None:
    backbone = built("dinov2")
    backbone.freeze(None)
    assert all(parameter.requires_grad for parameter in backbone.parameters())
    backbone.freeze("block1")
    trained = {name for name, parameter in backbone.named_parameters() if parameter.requires_grad}
    behind = ("network.encoder.layer.1.", "network.layernorm.")
    assert trained == {name for name, _ in backbone.named_parameters() if name.startswith(behind)} and trained


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A DINOv2 of 56 pixels as transformers saves it, with a classifier."""
    config = transformers.Dinov2Config(**MODELS["dinov2"].tiny, image_size=56, num_labels=3)
    torch.manual_seed(0)
    transformers.Dinov2ForImageClassification(config).save_pretrained(tmp_path / "dino")
    statistics = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    (tmp_path / "dino" / "preprocessor_config.json").write_text(json.dumps(statistics))
    return tmp_path / "dino"


def test_a_folder_gives_its_own_tokens_and_statistics(folder: Path) -> None:
    backbone = built("dinov2", str(folder))
    assert backbone.spec.normalisation.mean == (0.1, 0.2, 0.3)
    theirs = transformers.Dinov2Model.from_pretrained(str(folder)).eval()
    video = torch.rand(2, 3, 4, 56, 56)
    with torch.inference_mode():
        found = backbone(video)[INSTANCES]
        for t in range(4):
            tokens = theirs(video[:, :, t]).last_hidden_state[:, 1:]
            torch.testing.assert_close(found[:, :, t].flatten(2).transpose(1, 2), tokens, rtol=0, atol=1e-5)


def test_a_block_before_the_last_goes_through_the_models_own_norm(folder: Path) -> None:
    from ifcar.extract.backbones.transformers_video import TransformerConfig

    theirs = transformers.Dinov2Model.from_pretrained(str(folder)).eval()
    video = torch.rand(1, 3, 4, 56, 56)
    states = theirs(video[:, :, 1], output_hidden_states=True).hidden_states
    for layer in (1, 2):
        found = built("dinov2", str(folder), config=TransformerConfig(layer=layer))(video)[INSTANCES][:, :, 1]
        expected = theirs.layernorm(states[layer])[:, 1:]
        torch.testing.assert_close(found.flatten(2).transpose(1, 2), expected, rtol=0, atol=1e-5)
    with pytest.raises(InputError, match=r"has no layer 3; expected 1 to 2, or 0 for the last"):
        built("dinov2", str(folder), config=TransformerConfig(layer=3))


def test_missing_and_unexpected_keys_are_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    state = load_file(path)
    save_file({k: v for k, v in state.items() if "layernorm.bias" not in k}, path, metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"do not fit Dinov2Model: 1 missing \(layernorm\.bias\)"):
        built("dinov2", str(folder))
    save_file({**state, "dinov2.extra": torch.zeros(1)}, path, metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"do not fit Dinov2Model: 1 unexpected"):
        built("dinov2", str(folder))


def test_no_folder_another_family_and_code_of_its_own_are_one_line(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"vjepa2.* reads its size from its weights"):
        built("vjepa2", str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match=r"model_type is 'dinov2'; backbone 'vjepa2' expects vjepa2"):
        built("vjepa2", str(folder))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "x.py"}}))
    with pytest.raises(InputError, match=r"code of its own \(auto_map\), which is never run"):
        built("dinov2", str(folder))


def test_sizes_that_the_weights_count_positions_for_are_kept(tmp_path: Path) -> None:
    config = transformers.VideoMAEConfig(**MODELS["videomae"].tiny, image_size=64, num_frames=4)
    transformers.VideoMAEModel(config).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"these weights of 'videomae' take --frames 4 only, not 8"):
        built("videomae", str(tmp_path))
    with pytest.raises(InputError, match=r"cannot take crops of 60 pixels; expected a multiple of 16"):
        resolve_backbone("vjepa2", num_frames=8, crop_size=60, weights="random:0")


def test_metas_file_of_vjepa2_fills_every_key(tmp_path: Path) -> None:
    """Written under Meta's names from a model of ours; both give the same map."""
    config = {**MODELS["vjepa2"].tiny, "hidden_size": 64, "num_attention_heads": 1}
    facts = {"config": transformers.VJEPA2Config(**config).to_dict()}
    ours = build_backbone(resolve_backbone("vjepa2", num_frames=8, crop_size=64, facts=facts))
    assert isinstance(ours, VideoTransformer)
    ours.initialise(0)
    state: dict[str, torch.Tensor] = {}
    theirs = ours.network.state_dict()
    for key, value in theirs.items():
        name = key.removeprefix("encoder.").replace("embeddings.patch_embeddings.proj", "patch_embed.proj")
        name = name.replace("layer.", "blocks.", 1).replace("layernorm.", "norm.").replace(".attention.", ".attn.")
        if ".attn.query." in name:
            rows = [theirs[key.replace(".query.", f".{part}.")] for part in ("query", "key", "value")]
            state["module.backbone." + name.replace(".query.", ".qkv.")] = torch.cat(rows)
        elif ".attn.key." not in name and ".attn.value." not in name:
            state["module.backbone." + name] = value
    torch.save({"target_encoder": state, "epoch": 3}, tmp_path / "vitl.pt")
    spec = resolve_backbone("vjepa2", num_frames=8, crop_size=64, weights=str(tmp_path / "vitl.pt"))
    assert (spec.channels, spec.facts["config"]["num_hidden_layers"]) == (64, 2)
    again = build_backbone(spec)
    load_weights(again, str(tmp_path / "vitl.pt"))
    video = torch.rand(1, 3, 8, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(again.eval()(video)[INSTANCES], ours(video)[INSTANCES], rtol=0, atol=0)
