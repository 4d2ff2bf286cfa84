"""Transformers of the library transformers as backbones: of video, and of images frame by frame.

`vjepa2`, `videomae`, `timesformer`, `vivit`, `videoprism` see tubelets of the clip; `dinov2`, `dinov3`, `siglip` and
`hiera` every frame by itself. Each token stands for a patch, so that the tokens are a map. Their size is read from the
weights folder; random weights have a tiny one.

Sources: the models of these names in transformers; the order of tokens is held by tests with an impulse.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from ifcar.errors import InputError
from ifcar.extract.backbones.base import BACKBONES, Backbone, BackboneFamily, Maps
from ifcar.extract.backbones.spec import INSTANCES, BackboneRequest, BackboneSpec
from ifcar.extract.backbones.state_files import read_state
from ifcar.extract.backbones.transformers_folder import library, read_config, read_model, read_statistics, whole_config
from ifcar.extract.backbones.transformers_models import MODELS, side_of
from ifcar.extract.backbones.undrawn import undrawn

_UNUSED: Final = (
    *("classifier.", "fc_norm.", "decoder.", "encoder_to_decoder.", "mask_token", "pooler.", "head.", "text_model."),
    *("predictor.", "embeddings.mask_token", "logit_scale", "logit_bias"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class TransformerConfig:
    """Options of every transformer.

    Args:
        layer: number of the block whose tokens are taken, from 1; they go through the model's own last norm. 0 takes
            the last.
    """

    layer: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.layer, int) or self.layer < 0:
            raise InputError(f"layer is {self.layer!r}; expected the number of a block, from 1, or 0 for the last")


_WITHOUT: Final = ", or --weights random:0 for a tiny untrained one"
_META_FIRST: Final = "encoder.embeddings.patch_embeddings.proj.weight"
_META_HEADS: Final = {1280: 16}  # heads of ViT-H have 80 channels, those of the other sizes 64
_HIERA_STAGE: Final = 3  # of the hidden states, the first being the patches; 1/16 of the picture


class VideoTransformer(Backbone):
    """A model of transformers whose tokens are taken as a map; its weights lie under `network.`."""

    wrappers = ("target_encoder", *Backbone.wrappers)

    def __init__(self, spec: BackboneSpec) -> None:
        super().__init__(spec)
        self.model = MODELS[spec.name]
        with undrawn():
            self.network: nn.Module = self._build()
        self.network.eval()

    def _class(self, which: int) -> Any:
        return getattr(library("transformers", f"backbone {self.spec.name!r}"), self.model.classes[which])

    def _config(self) -> Any:
        spec = self.spec
        stated = {**spec.facts["config"], **self.model.sized(spec.facts["config"], spec.num_frames, spec.crop_size)}
        config = self._class(1)(**{key: value for key, value in stated.items() if key != "model_type"})
        config._attn_implementation = "sdpa" if self._class(0)._supports_sdpa else "eager"
        return config

    def _build(self) -> nn.Module:
        network: nn.Module = self._class(0)(self._config(), **self.model.build)
        return _without_unused(network)

    def initialise(self, seed: int) -> None:
        """Draw the weights as the model's own class does, under the seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = self._build()
        self.eval()

    def read_state(self, path: Path) -> dict[str, Tensor]:
        """Return the tensors of a folder of transformers, or of Meta's V-JEPA 2 file, under this network's keys."""
        state: Mapping[str, Tensor]
        if path.is_dir():
            state = read_model(self._class(0), path, self._config(), _UNUSED, **self.model.build).state_dict()
        else:
            state = super().read_state(path)
            state = from_meta(state) if self.spec.name == "vjepa2" else state
        kept = self.network.state_dict()
        return {f"network.{k}": v for k, v in state.items() if k in kept or not k.startswith(_UNUSED)}

    def stages(self) -> Mapping[str, nn.Module]:
        """Return the blocks, by their number."""
        return {f"block{i}": block for i, block in enumerate(self._blocks(), 1)}

    def freeze(self, last_stage: str | None) -> None:
        """Let gradients reach the blocks behind `last_stage` and the last norm; None: everything, embeddings too."""
        super().freeze(last_stage)
        if last_stage is None:
            self.network.requires_grad_(True)
        elif self.model.norm:
            self.network.get_submodule(self.model.norm).requires_grad_(True)

    def _blocks(self) -> list[nn.Module]:
        return list(self.network.get_submodule(self.model.blocks).children())

    def forward(self, video: Tensor) -> Maps:
        """Return the tokens as a map (B, C, T′, H, W) for a normalised video (B, 3, T, S, S)."""
        clips = video.transpose(1, 2)  # (B, T, 3, S, S)
        seen = clips.flatten(0, 1) if self.model.order == "frames" else clips
        return {INSTANCES: self._as_map(self._tokens(seen), len(video))}

    def _tokens(self, pixels: Tensor) -> Tensor:
        layer = self.spec.config.layer
        found: list[Any] = []
        hook = self._blocks()[layer - 1].register_forward_hook(lambda *io: found.append(io[2])) if layer else None
        try:
            out = self.network(pixels, **self.model.call)
        finally:
            if hook is not None:
                hook.remove()
        if self.spec.name == "hiera":
            grid: Tensor = out.reshaped_hidden_states[_HIERA_STAGE]
            return grid.flatten(1, 2)
        if layer == 0:
            last: Tensor = out.last_hidden_state
            return last
        tokens: Tensor = found[0][0] if isinstance(found[0], tuple) else found[0]
        if self.model.norm:
            tokens = self.network.get_submodule(self.model.norm)(tokens)
        return tokens

    def _as_map(self, tokens: Tensor, num_clips: int) -> Tensor:
        """Lay tokens (B, leading + T′·H·W, C), or (B·T, leading + H·W, C), out as (B, C, T′, H, W)."""
        height, width = self.spec.maps[INSTANCES]
        tokens = tokens[:, self.model.leading(self.spec.facts["config"]) :]
        steps = self.spec.num_steps
        if self.model.order == "h w t":
            return tokens.reshape(num_clips, height, width, steps, -1).permute(0, 4, 3, 1, 2)
        return tokens.reshape(num_clips, steps, height, width, -1).permute(0, 4, 1, 2, 3)


def _without_unused(network: nn.Module) -> nn.Module:
    """Take away the parts that the map needs nothing of."""
    for name in ("predictor", "pooler", "head"):
        if isinstance(getattr(network, name, None), nn.Module):
            setattr(network, name, None if name == "pooler" else nn.Identity())
    return network


def from_meta(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return Meta's V-JEPA 2 encoder under the keys of transformers."""
    out: dict[str, Tensor] = {}
    for key, value in state.items():
        name = key.removeprefix("module.").removeprefix("backbone.")
        name = name.replace("patch_embed.proj.", "encoder.embeddings.patch_embeddings.proj.")
        if name.startswith("blocks."):
            name = "encoder.layer." + name.removeprefix("blocks.").replace(".attn.", ".attention.")
        elif name.startswith("norm."):
            name = "encoder.layernorm." + name.removeprefix("norm.")
        head, found, leaf = name.partition(".qkv.")
        if found:
            for part, rows in zip(("query", "key", "value"), value.chunk(3), strict=True):
                out[f"{head}.{part}.{leaf}"] = rows
        else:
            out[name] = value
    return out


def size_of_meta(path: Path) -> dict[str, Any]:
    """Return the config that the shapes in Meta's V-JEPA 2 file state.

    Raises:
        InputError: it cannot be read, or holds no such encoder.
    """
    state = from_meta(read_state(path, VideoTransformer.wrappers))
    first, mlp = state.get(_META_FIRST), state.get("encoder.layer.0.mlp.fc1.weight")
    if first is None or mlp is None or first.ndim != 5:
        raise InputError(f"{path}: holds no encoder of V-JEPA 2; expected Meta's file, or a folder of transformers")
    width = first.shape[0]
    return {
        "hidden_size": width,
        "num_hidden_layers": len({key.split(".")[2] for key in state if key.startswith("encoder.layer.")}),
        "num_attention_heads": _META_HEADS.get(width, width // 64),
        "mlp_ratio": mlp.shape[0] / width,
        "tubelet_size": first.shape[2],
        "patch_size": first.shape[3],
    }


def _facts_of(name: str) -> Callable[[str | None], Mapping[str, Any]]:
    model = MODELS[name]

    def facts(weights: str | None) -> Mapping[str, Any]:
        config_type = getattr(library("transformers", f"backbone {name!r}"), model.classes[1])
        if weights is not None and weights.startswith("random:"):
            return {"config": whole_config(config_type, model.tiny, name), "is_random": True}
        if name == "vjepa2" and weights is not None and Path(weights).expanduser().is_file():
            return {"config": whole_config(config_type, size_of_meta(Path(weights).expanduser()), weights)}
        _, stated = read_config(weights, f"backbone {name!r}", model.model_types, _WITHOUT)
        facts: dict[str, Any] = {"config": whole_config(config_type, stated, str(weights))}
        statistics = read_statistics(str(weights))
        return {**facts, "normalisation": statistics} if statistics else facts

    return facts


def _resolve(request: BackboneRequest) -> BackboneSpec:
    model, config = MODELS[request.name], request.facts["config"]
    frames, patch = model.tubelet(config)
    if model.is_fixed and "is_random" not in request.facts:
        _check_fixed(request, config)
    blocks = config.get("num_hidden_layers", 0)
    if request.config.layer > blocks:
        expected = f"1 to {blocks}, or 0 for the last" if blocks else "0, the only one that this model gives"
        raise InputError(f"backbone {request.name!r} has no layer {request.config.layer}; expected {expected}")
    return request.spec(
        channels=4 * config["embed_dim"] if request.name == "hiera" else config["hidden_size"],
        layer=f"block {request.config.layer or 'last'}, {'its own norm' if model.norm else 'no norm'}",
        strides=(patch,),
        patch=32 if request.name == "hiera" else patch,
        temporal_stride=frames,
        normalisation=model.normalisation,
    )


def _check_fixed(request: BackboneRequest, config: Mapping[str, Any]) -> None:
    """Raise InputError where a view has another size than the weights, whose positions are counted."""
    wanted = {"--crop": (side_of(config["image_size"]), request.crop_size)}
    if "num_frames" in config:
        wanted["--frames"] = (int(config["num_frames"]), request.num_frames)
    for option, (expected, given) in wanted.items():
        if expected != given:
            raise InputError(f"these weights of {request.name!r} take {option} {expected} only, not {given}")


for _name in MODELS:
    BACKBONES.register(
        _name,
        BackboneFamily(resolve=_resolve, build=VideoTransformer, facts=_facts_of(_name), config_type=TransformerConfig),
        __name__,
    )
