"""Layout transformers against torch's own layers put together as the released code of Radevski et al. 2021 does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ifcar.cache.arrays import CacheSpec
from ifcar.errors import CacheMismatchError, InputError
from ifcar.heads.catalog import HEADS
from ifcar.heads.contract import Head, InstanceBatch
from ifcar.heads.layout_weights import load_released
from ifcar.heads.layouts import LayoutConfig
from ifcar.heads.motion import motion_of
from ifcar.heads.stlt import STLT, STLTConfig
from ifcar.heads.transformer import EncoderLayer, causal_mask
from ifcar.testing.batches import FULL_SPEC, random_batch
from ifcar.testing.built_heads import build_moved
from ifcar.testing.changed_batches import in_double

EXACT = {"rtol": 0, "atol": 1e-9}
H, HEADS_OF, CLASSES = 8, 2, 5


class Embeddings(nn.Module):
    """Their first stage: boxes and categories of all frames, as one batch of frames."""

    def __init__(self, num_categories: int) -> None:
        super().__init__()
        self.category_embeddings = nn.Embedding(num_categories, H, padding_idx=0)
        self.box_embedding, self.score_embeddings = nn.Linear(4, H), nn.Linear(1, H)
        self.layer_norm = nn.LayerNorm(H, eps=1e-12)


def torchs_layer(activation: str) -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(H, HEADS_OF, 4 * H, 0.1, activation, batch_first=True)


def torchs_encoder(num_layers: int, activation: str = "gelu") -> nn.TransformerEncoder:
    return nn.TransformerEncoder(torchs_layer(activation), num_layers, enable_nested_tensor=False)


class Spatial(nn.Module):
    def __init__(self, num_categories: int) -> None:
        super().__init__()
        self.category_box_embeddings = Embeddings(num_categories)
        self.encoder_layer = torchs_layer("gelu")
        self.transformer = torchs_encoder(1)


class Frames(nn.Module):
    def __init__(self, num_categories: int) -> None:
        super().__init__()
        self.layout_embedding = Spatial(num_categories)
        self.position_embeddings = nn.Embedding(12, H)
        self.frame_type_embedding = nn.Embedding(5, H, padding_idx=0)
        self.layer_norm = nn.LayerNorm(H, eps=1e-12)
        self.register_buffer("position_ids", torch.arange(12)[None])


class Layout(nn.Module):
    """Their layout branch, read frame by frame and box by box from (cx, cy, w, h)."""

    def __init__(self, num_categories: int = 4, cls: int = 3, types: tuple[int, int, int] = (2, 4, 3)) -> None:
        super().__init__()
        self.frames_embeddings = Frames(num_categories)
        self.transformer = torchs_encoder(2)
        self.cls, self.types = cls, types

    def forward(self, boxes: Tensor, categories: Tensor, present: Tensor) -> Tensor:
        regular, extract, empty = self.types
        embed, stage = self.frames_embeddings.layout_embedding.category_box_embeddings, self.frames_embeddings
        clips = []
        for clip in range(len(boxes)):
            states = []
            for t in range(boxes.shape[1] + 1):
                tokens = [
                    embed.category_embeddings.weight[self.cls] + embed.box_embedding(boxes.new_tensor([0, 0, 1, 1]))
                ]
                kind = extract if t == boxes.shape[1] else empty
                for i in range(boxes.shape[2] if t < boxes.shape[1] else 0):
                    if present[clip, t, i]:
                        cx, cy, w, h = boxes[clip, t, i]
                        corners = torch.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2])
                        row = embed.category_embeddings.weight[categories[clip, t, i]]
                        tokens.append(row + embed.box_embedding(corners))
                        kind = regular
                encoded = stage.layout_embedding.transformer(embed.layer_norm(torch.stack(tokens))[None])[0, 0]
                state = encoded + stage.position_embeddings.weight[t] + stage.frame_type_embedding.weight[kind]
                states.append(stage.layer_norm(state))
            ahead = torch.ones(len(states), len(states)).triu(1).bool()
            clips.append(self.transformer(torch.stack(states)[None], mask=ahead)[0])
        return torch.stack(clips)


class Hidden(nn.Module):
    def __init__(self, in_dim: int) -> None:
        super().__init__()
        self.fc1, self.layer_norm, self.fc2 = nn.Linear(in_dim, H), nn.LayerNorm(H, eps=1e-12), nn.Linear(H, CLASSES)

    def forward(self, state: Tensor) -> Tensor:
        return self.fc2(self.layer_norm(F.gelu(self.fc1(state))))


class Stlt(nn.Module):
    def __init__(self, **layout: Any) -> None:
        super().__init__()
        self.backbone, self.prediction_head = Layout(**layout), Hidden(H)

    def forward(self, grid: Tensor, *layout: Tensor) -> Tensor:
        return self.prediction_head(self.backbone(*layout)[:, -1])


class Appearance(nn.Module):
    def __init__(self, spec: CacheSpec) -> None:
        super().__init__()
        num_tokens = spec.num_steps * 9
        self.resnet = nn.Sequential(nn.Conv3d(3, 4, 1))
        self.projector = nn.Conv3d(spec.channels, H, 1)
        self.transformer = torchs_encoder(1, "relu")
        self.cls_token = nn.Parameter(torch.randn(1, 1, H))
        self.pos_embed = nn.Parameter(torch.randn(num_tokens + 1, 1, H))
        self.classifier = nn.Linear(H, CLASSES)

    def forward(self, grid: Tensor) -> Tensor:
        tokens = self.projector(grid.transpose(1, 2)).flatten(2).transpose(1, 2)
        with_cls = torch.cat([self.cls_token.expand(len(grid), 1, H), tokens], 1)
        return self.transformer(with_cls + self.pos_embed.transpose(0, 1))


class Lcf(nn.Module):
    def __init__(self, spec: CacheSpec) -> None:
        super().__init__()
        self.layout_branch, self.appearance_branch, self.classifier = Layout(), Appearance(spec), Hidden(2 * H)

    def forward(self, grid: Tensor, *layout: Tensor) -> Tensor:
        u, v = self.layout_branch(*layout)[:, -1], self.appearance_branch(grid)[:, 0]
        return self.classifier(torch.cat([u, v], -1))


class SelfOrCross(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn, self.ln = nn.MultiheadAttention(H, HEADS_OF, batch_first=True), nn.LayerNorm(H, eps=1e-12)

    def forward(self, x: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.ln(x + self.attn(x, context, context, attn_mask=mask, need_weights=False)[0])


class FeedForward(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(H, 4 * H), nn.Linear(4 * H, H)
        self.ln = nn.LayerNorm(H, eps=1e-12)

    def forward(self, x: Tensor) -> Tensor:
        return self.ln(x + self.linear2(F.gelu(self.linear1(x))))


class FusionLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cross_attn, self.layout_attn, self.layout_ffn = SelfOrCross(), SelfOrCross(), FeedForward()
        self.appearance_attn, self.appearance_ffn = SelfOrCross(), SelfOrCross()

    def forward(self, layout: Tensor, appearance: Tensor) -> tuple[Tensor, Tensor]:
        ahead = torch.ones(layout.shape[1], layout.shape[1]).triu(1).bool()
        first, second = self.cross_attn(layout, appearance), self.cross_attn(appearance, layout)
        first, second = self.layout_attn(first, first, ahead), self.appearance_attn(second, second)
        return self.layout_ffn(first), self.appearance_ffn(second, second)


class Fusion(nn.Module):
    def __init__(self, spec: CacheSpec) -> None:
        super().__init__()
        self.layout_branch, self.appearance_branch = Layout(), Appearance(spec)
        self.mm_fusion = nn.ModuleList(FusionLayer() for _ in range(2))

    def forward(self, grid: Tensor, *layout: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        first, second = self.layout_branch(*layout), self.appearance_branch(grid)
        u, v = first[:, -1], second[:, 0]
        for layer in self.mm_fusion:
            first, second = layer(first, second)
        return u, v, torch.cat([first[:, -1], second[:, 0]], -1)


class Caf(nn.Module):
    def __init__(self, spec: CacheSpec) -> None:
        super().__init__()
        self.caf_backbone, self.classifier = Fusion(spec), Hidden(2 * H)

    def forward(self, grid: Tensor, *layout: Tensor) -> Tensor:
        return self.classifier(self.caf_backbone(grid, *layout)[2])


class Cacnf(nn.Module):
    def __init__(self, spec: CacheSpec) -> None:
        super().__init__()
        self.backbone = Fusion(spec)
        self.layout_classifier, self.appearance_classifier = Hidden(H), Hidden(H)
        self.fusion_classifier = Hidden(2 * H)

    def forward(self, grid: Tensor, *layout: Tensor) -> Tensor:
        u, v, both = self.backbone(grid, *layout)
        return (self.layout_classifier(u) + self.appearance_classifier(v) + self.fusion_classifier(both)) / 3


def released(name: str, **layout: Any) -> Head:
    """Return the head of preset `released` at small widths, in float64."""
    kind = HEADS.get(name)
    config = kind.presets["released"]
    narrow = replace(
        config.layout, hidden_dim=H, num_heads=HEADS_OF, spatial_layers=1, num_positions=12, temporal_layers=2, **layout
    )
    counts = {"appearance_layers": 1, "fusion_layers": 2}
    config = replace(config, layout=narrow, **{k: v for k, v in counts.items() if hasattr(config, k)})
    return build_moved(kind, config, FULL_SPEC).double().eval()


def clips() -> tuple[InstanceBatch, tuple[Tensor, ...]]:
    """Return clips as our heads and as their code take them; one clip has no instance, one an empty frame."""
    batch = in_double(random_batch(6, FULL_SPEC, seed=4))
    batch.categories[1] = 0
    batch.categories[2, 3] = 0
    categories = batch.categories.long()
    return batch, (batch.array("grid_features"), batch.boxes, categories, categories > 0)


def move(module: nn.Module) -> nn.Module:
    """Move a module in float64 away from its start."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
        for embedding in (m for m in module.modules() if isinstance(m, nn.Embedding) and m.padding_idx == 0):
            embedding.weight[0] = 0
    return module.double().eval()


@pytest.mark.parametrize("name", ["stlt", "lcf", "caf", "cacnf"])
def test_released_preset_equals_torchs_layers_put_together_and_takes_their_weights(name: str) -> None:
    theirs = move(
        {"stlt": Stlt, "lcf": Lcf, "caf": Caf, "cacnf": Cacnf}[name](*([] if name == "stlt" else [FULL_SPEC]))
    )
    ours, (batch, inputs) = released(name), clips()
    aside = load_released(ours, theirs.state_dict())
    assert {key.split(".")[-2] for key in aside} <= {
        "score_embeddings", "frames_embeddings", "0", "classifier", "self_attn", "out_proj", "linear1", "linear2",
        "norm1", "norm2",
    }  # fmt: skip
    logits, expected = ours(batch).logits, theirs(*inputs)
    torch.testing.assert_close(logits, expected, **EXACT)
    labels = torch.arange(6) % CLASSES
    F.cross_entropy(logits, labels).backward()
    F.cross_entropy(expected, labels).backward()
    pairs = list(gradients(ours, theirs))
    assert len(pairs) > 10
    for mine, other in pairs:
        torch.testing.assert_close(mine, other, **EXACT)


def gradients(ours: Head, theirs: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the gradients of their arrays and, by loading them as weights, of ours."""
    mine = {name: p.grad.clone() for name, p in ours.named_parameters() if p.grad is not None}
    values = {name: p.grad if p.grad is not None else torch.zeros_like(p) for name, p in theirs.named_parameters()}
    load_released(ours, values | dict(theirs.named_buffers()))
    for name, parameter in ours.named_parameters():
        if name in mine:
            yield mine[name], parameter.detach()


def test_classes_of_a_data_set_take_the_place_of_hand_and_object() -> None:
    """CLS is 1 and classes follow; an instance of no known class is seen with padding's embedding."""
    theirs = move(Stlt(num_categories=5, cls=1, types=(1, 2, 3)))
    ours, (batch, (grid, boxes, _, present)) = released("stlt", classes="object_classes"), clips()
    load_released(ours, theirs.state_dict())
    known = batch.array("object_classes").long()
    known[:, :, 2] = -1
    arrays = InstanceBatch({**batch.arrays, "object_classes": known.to(torch.int16)})
    expected = theirs(grid, boxes, torch.where(known >= 0, known + 2, 0), present)
    torch.testing.assert_close(ours(arrays).logits, expected, **EXACT)


def test_frames_of_its_own_and_scores() -> None:
    """T_L frames with scores: a score moves the logits only where an instance is."""
    spec = replace(
        FULL_SPEC,
        arrays=(
            *FULL_SPEC.arrays,
            *(
                replace(FULL_SPEC.array("boxes"), name=f"layout_{name}", axes=(6, "N", *more), dtype=dtype)
                for name, more, dtype in (
                    ("boxes", (4,), "float32"),
                    ("categories", (), "uint8"),
                    ("scores", (), "float32"),
                )
            ),
        ),
    )
    config = STLTConfig(layout=replace(LayoutConfig.small(), frames="layout", scores=True))
    head = build_moved(HEADS.get("stlt"), config, spec).eval()
    batch = random_batch(4, FULL_SPEC)
    scores = torch.rand(4, 6, 4)
    arrays = {"layout_boxes": batch.boxes[:, :6], "layout_categories": batch.categories[:, :6], "layout_scores": scores}
    logits = head(InstanceBatch(arrays)).logits
    assert logits.shape == (4, CLASSES)
    hidden = torch.where(arrays["layout_categories"] > 0, scores, torch.nan)
    same = head(InstanceBatch({**arrays, "layout_scores": hidden})).logits
    torch.testing.assert_close(same, logits, rtol=0, atol=0)
    assert not torch.allclose(head(InstanceBatch({**arrays, "layout_scores": 1 - scores})).logits, logits)


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_encoder_layer_equals_torchs(activation: Any) -> None:
    ours = EncoderLayer((7,), H, HEADS_OF, 0.1, activation).double().eval()
    theirs = move(torchs_layer(activation))
    ours.load_state_dict(theirs.state_dict())
    tokens = torch.randn(3, 7, H).double()
    torch.testing.assert_close(ours(tokens), theirs(tokens), **EXACT)
    causal = causal_mask(7, tokens.device)
    torch.testing.assert_close(ours(tokens, causal), theirs(tokens, src_mask=~causal), **EXACT)


def test_a_state_dict_of_another_model_or_size_is_refused_by_name() -> None:
    state = Stlt().double().state_dict()
    with pytest.raises(InputError, match=r"unknown key 'prediction_head\.fc3\.weight'"):
        load_released(released("stlt"), state | {"prediction_head.fc3.weight": torch.zeros(2)})
    with pytest.raises(CacheMismatchError, match=r"nothing for hidden\.fc1\.bias"):
        load_released(released("stlt"), {k: v for k, v in state.items() if k != "prediction_head.fc1.bias"})
    short = {**state, "backbone.frames_embeddings.position_embeddings.weight": torch.zeros(9, H)}
    with pytest.raises(CacheMismatchError, match=r"layout\.position_embeddings\.weight has the shape \(9, 8\)"):
        load_released(released("stlt"), short)
    with pytest.raises(InputError, match="head 'base' has no released layout transformer"):
        load_released(HEADS.get("base")(HEADS.get("base").presets["small"], FULL_SPEC, 3), state)


def test_more_frames_than_positions_are_refused() -> None:
    with pytest.raises(InputError, match=r"num_positions is 8; expected at least 9"):
        HEADS.get("stlt")(STLTConfig(layout=replace(LayoutConfig.small(), num_positions=8)), FULL_SPEC, 3)


def test_motion_of_boxes_enters_their_embedding_and_the_cls_token_has_none() -> None:
    """A box's embedding gains W_m m with m of its centre; where W_m is zero the head is the one without motion."""
    without, moving = LayoutConfig.small(), replace(LayoutConfig.small(), motion=True)
    batch = random_batch(4, FULL_SPEC)
    plain, head = (build_moved(HEADS.get("stlt"), STLTConfig(layout=c), FULL_SPEC).eval() for c in (without, moving))
    state = plain.state_dict()
    name = "layout.boxes.box_embedding.weight"
    state[name] = torch.cat([state[name], torch.zeros_like(state[name])], dim=1)
    head.load_state_dict(state)
    torch.testing.assert_close(head(batch).logits, plain(batch).logits)
    fed: list[torch.Tensor] = []
    head.layout.boxes.box_embedding.register_forward_pre_hook(lambda _, inputs: fed.append(inputs[0]))
    head(batch)
    present = batch.categories > 0
    expected = motion_of(torch.where(present.unsqueeze(-1), batch.boxes, 0), present)
    torch.testing.assert_close(fed[0][:, :-1, 1:, 4:], expected.to(fed[0].dtype))
    assert not fed[0][:, :, 0, 4:].any() and not fed[0][:, -1, :, 4:].any() and expected.any()


def fresh(config: LayoutConfig) -> Head:
    torch.manual_seed(0)
    return HEADS.get("stlt")(STLTConfig(layout=config), FULL_SPEC, 3).eval()


def test_scales_multiply_the_initial_weights_of_embeddings_and_attentions_and_no_others() -> None:
    plain, scaled = (
        dict(fresh(config).named_parameters())
        for config in (
            LayoutConfig.small(),
            replace(LayoutConfig.small(), embedding_scale=0.1, attention_scale=3.0),
        )
    )
    for name, weight in scaled.items():
        embedding = any(part in name for part in ("category_emb", "position_emb", "frame_type_emb"))
        attention = name.endswith(("self_attn.in_proj_weight", "self_attn.out_proj.weight"))
        expected = plain[name] * (0.1 if embedding else 3.0 if attention else 1.0)
        torch.testing.assert_close(weight, expected)


def test_clips_differ_more_in_the_first_state_of_the_tuned_preset_than_in_that_of_small() -> None:
    batch = random_batch(16, FULL_SPEC)
    spread = {}
    for name, config in (("small", LayoutConfig.small()), ("tuned", LayoutConfig.tuned())):
        head = fresh(config)
        assert isinstance(head, STLT)
        state = head.layout(batch)[:, -1].detach()
        spread[name] = float(state.std(0).mean() / state.square().mean().sqrt())
    assert spread["tuned"] > 3 * spread["small"]


@pytest.mark.parametrize("name", ["embedding_scale", "attention_scale"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_that_is_no_positive_number_is_refused(name: str, value: float) -> None:
    with pytest.raises(InputError, match=rf"{name} is {value}; expected a number above 0"):
        replace(LayoutConfig.small(), **{name: value})
