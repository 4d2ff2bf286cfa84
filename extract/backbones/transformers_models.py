"""What is particular to each model of transformers that is a backbone: sizes, the order of its tokens, its norm."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from ifcar.extract.backbones.spec import IMAGENET, Normalisation

Order = Literal["t h w", "h w t", "frames"]
HALF: Final = Normalisation.of_all(0.5, 0.5)
_TINY: Final = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
_TINY_WIDTH: Final = {"hidden_size": 48, "num_attention_heads": 4, "intermediate_size": 96}
_TINY_MLP: Final = {**_TINY, **_TINY_WIDTH}


def side_of(value: Any) -> int:
    """Return the side of a square that a config states as a number or as a pair."""
    return int(value[0] if isinstance(value, list | tuple) else value)


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """What is particular to one model of transformers.

    Args:
        classes: names of the model's and of its config's class.
        model_types: of config.json → key of the vision tower's config, or "".
        tubelet: config → (frames, pixels) of a token; default: a patch of one frame.
        sized: config, T, S → what of the config follows from the view's size; default: nothing.
        blocks: dotted name of its list of blocks.
        norm: dotted name of its last norm; "" where it has none.
        order: of tokens: of the clip, or of every frame by itself.
        leading: config → tokens before those of patches.
        is_fixed: whether T and S are those of the weights.
        tiny: config of random weights.
        normalisation: where the folder states none.
        build: arguments of the model's class beside its config.
        call: arguments of its forward pass beside the pixels.
    """

    classes: tuple[str, str]
    model_types: Mapping[str, str]
    tubelet: Callable[[Mapping[str, Any]], tuple[int, int]] = lambda config: (1, side_of(config["patch_size"]))
    sized: Callable[[Mapping[str, Any], int, int], Mapping[str, Any]] = lambda config, num_frames, size: {}
    blocks: str = "encoder.layer"
    norm: str = "layernorm"
    order: Order = "frames"
    leading: Callable[[Mapping[str, Any]], int] = lambda config: 0
    is_fixed: bool = False
    tiny: Mapping[str, Any] = field(default_factory=lambda: _TINY_MLP)
    normalisation: Normalisation = IMAGENET
    build: Mapping[str, Any] = field(default_factory=dict)
    call: Mapping[str, Any] = field(default_factory=dict)


def _clip(config: Mapping[str, Any], num_frames: int, size: int) -> Mapping[str, Any]:
    return {"image_size": size, "num_frames": num_frames}


def _tubelet(config: Mapping[str, Any]) -> tuple[int, int]:
    return config["tubelet_size"], side_of(config["patch_size"])


MODELS: Final[Mapping[str, Model]] = {
    "vjepa2": Model(
        classes=("VJEPA2Model", "VJEPA2Config"),
        model_types={"vjepa2": ""},
        tubelet=_tubelet,
        sized=lambda c, t, s: {"crop_size": s, "frames_per_clip": t},
        norm="encoder.layernorm",
        order="t h w",
        tiny={**_TINY, "pred_hidden_size": 24, "pred_num_attention_heads": 2, "pred_num_hidden_layers": 1},
        call={"skip_predictor": True},
    ),
    "videomae": Model(
        classes=("VideoMAEModel", "VideoMAEConfig"),
        model_types={"videomae": ""},
        tubelet=_tubelet,
        sized=_clip,
        order="t h w",
        is_fixed=True,
    ),
    "timesformer": Model(
        classes=("TimesformerModel", "TimesformerConfig"),
        model_types={"timesformer": ""},
        sized=_clip,
        order="h w t",
        leading=lambda c: 1,
        is_fixed=True,
    ),
    "vivit": Model(
        classes=("VivitModel", "VivitConfig"),
        model_types={"vivit": ""},
        tubelet=lambda c: (c["tubelet_size"][0], c["tubelet_size"][1]),
        sized=_clip,
        blocks="layers",
        order="t h w",
        leading=lambda c: 1,
        is_fixed=True,
        normalisation=HALF,
        build={"add_pooling_layer": False},
    ),
    "videoprism": Model(
        classes=("VideoPrismVisionModel", "VideoPrismVisionConfig"),
        model_types={"videoprism_vision_model": "", "videoprism": "vision_config"},
        tubelet=lambda c: (c["tubelet_size"][0], c["tubelet_size"][1]),
        sized=_clip,
        blocks="temporal_layers",
        norm="layernorm2",
        order="t h w",
        is_fixed=True,
        tiny={**_TINY_WIDTH, "num_spatial_layers": 2, "num_temporal_layers": 1, "num_auxiliary_layers": 1},
    ),
    "dinov2": Model(
        classes=("Dinov2Model", "Dinov2Config"),
        model_types={"dinov2": ""},
        leading=lambda c: 1,
        tiny=_TINY,
    ),
    "dinov2-registers": Model(
        classes=("Dinov2WithRegistersModel", "Dinov2WithRegistersConfig"),
        model_types={"dinov2_with_registers": ""},
        leading=lambda c: 1 + c["num_register_tokens"],
        tiny={**_TINY, "patch_size": 14},
    ),
    "dinov3": Model(
        classes=("DINOv3ViTModel", "DINOv3ViTConfig"),
        model_types={"dinov3_vit": ""},
        blocks="model.layer",
        norm="norm",
        leading=lambda c: 1 + c["num_register_tokens"],
        tiny={**_TINY_MLP, "num_register_tokens": 4},
    ),
    "siglip": Model(
        classes=("SiglipVisionModel", "SiglipVisionConfig"),
        model_types={"siglip_vision_model": "", "siglip": "vision_config"},
        blocks="encoder.layers",
        norm="post_layernorm",
        normalisation=HALF,
        call={"interpolate_pos_encoding": True},
    ),
    "hiera": Model(
        classes=("HieraModel", "HieraConfig"),
        model_types={"hiera": ""},
        tubelet=lambda c: (1, 16),
        sized=lambda c, t, s: {"image_size": [s, s]},
        blocks="encoder.stages",
        norm="",
        is_fixed=True,
        tiny={"embed_dim": 12, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2]},
        call={"output_hidden_states": True},
    ),
}
