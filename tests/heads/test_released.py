"""Presets `released` against the released code of Yan et al. 2020 in words, each number computed by itself.

The loops read weights by name and use no module of the package. All in float64 and evaluation mode; normalisations use
running statistics that were moved from their start. Training is compared with the same code layer by layer
(`fixtures/released_heads.py`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from fixtures.released_heads import RELEASED
from torch import Tensor

from ifcar.cache.arrays import CacheSpec
from ifcar.errors import InputError
from ifcar.heads.catalog import HEADS
from ifcar.heads.contract import InstanceBatch
from ifcar.heads.nl import NLConfig
from ifcar.heads.strg import STRG
from ifcar.testing.batches import random_batch
from ifcar.testing.built_heads import WithLosses, build_moved
from ifcar.testing.changed_batches import in_double, map_batch

SPEC = CacheSpec.standard(num_frames=10, num_steps=5, num_instances=3, channels=6, pooled_size=2)
EXACT = {"rtol": 0, "atol": 1e-9}
WIDTHS = {
    "hidden_dim": 7,
    "step_dim": 6,
    "key_dim": 5,
    "classifier_dim": 9,
    "temporal_hidden_dim": 10,
    "temporal_dim": 8,
}


class Weights:
    """A head's arrays by name, and the layers that the released code is made of."""

    def __init__(self, head: Any) -> None:
        self.arrays = head.state_dict()

    def linear(self, name: str, x: Tensor) -> Tensor:
        y = self.arrays[f"{name}.weight"] @ x
        return y + self.arrays[f"{name}.bias"] if f"{name}.bias" in self.arrays else y

    def norm(self, name: str, x: Tensor) -> Tensor:
        mean, var, gain, shift = (self.arrays[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
        return (x - mean) / (var + 1e-5).sqrt() * gain + shift

    def linear_norm_relu(self, name: str, x: Tensor, first: int = 0) -> Tensor:
        return self.norm(f"{name}.{first + 1}", self.linear(f"{name}.{first}", x)).relu()


def build(name: str, preset: str, **joint: Any) -> tuple[Any, InstanceBatch]:
    """Return the preset at small widths, away from its start, and clips with empty slots that hold something."""
    kind = HEADS.get(name)
    config = kind.presets[preset]
    narrow = {k: v for k, v in WIDTHS.items() if getattr(config, k, 0)}
    small = replace(config.joint, appearance_dim=4, layout_dim=6, reduction_dim=4 if joint.pop("reduced", 0) else 0)
    head = build_moved(kind, replace(config, joint=replace(small, **joint), **narrow), SPEC).double().eval()
    g = torch.Generator().manual_seed(1)
    for key, buffer in head.named_buffers():
        if key.endswith("running_mean"):
            buffer.copy_(torch.randn(buffer.shape, generator=g))
        elif key.endswith("running_var"):
            buffer.copy_(0.5 + torch.rand(buffer.shape, generator=g))
    return head, in_double(random_batch(5, SPEC, seed=2))


def joint_features(w: Weights, batch: InstanceBatch, clip: int) -> list[list[Tensor]]:
    """Return F[t][i], the front end's features of one clip: appearance, then layout."""
    out = []
    for t in range(SPEC.num_steps):
        frame = t * SPEC.num_frames // SPEC.num_steps
        slots = []
        for i in range(SPEC.num_instances):
            parts = []
            if "joint.appearance.embed.weight" in w.arrays:
                region = batch.array("instance_features")[clip, t, i]
                parts.append(w.linear("joint.appearance.embed", region.flatten()).relu())
            position = w.linear_norm_relu("joint.layout.position", batch.boxes[clip, frame, i])
            layout = w.linear_norm_relu("joint.layout.position", position, 3)
            if "joint.layout.category.weight" in w.arrays:
                row = w.arrays["joint.layout.category.weight"][int(batch.categories[clip, frame, i])]
                layout = w.linear_norm_relu("joint.layout.fusion", torch.cat([layout, row]))
                for layer in (3, 5):
                    if f"joint.layout.fusion.{layer}.weight" in w.arrays:
                        layout = w.linear(f"joint.layout.fusion.{layer}", layout).relu()
            slots.append(torch.cat([*parts, layout]))
        out.append(slots)
    return out


def mean(values: list[Tensor]) -> Tensor:
    return sum(values, torch.zeros_like(values[0])) / len(values)


def base(w: Weights, f: list[list[Tensor]]) -> Tensor:
    steps = torch.cat([mean(slots) for slots in f])
    return w.linear("classifier", w.linear("mlp.0", steps).relu())


def base_pool(w: Weights, f: list[list[Tensor]]) -> Tensor:
    return w.linear("classifier", mean([x for slots in f for x in slots]))


def stin(w: Weights, f: list[list[Tensor]]) -> Tensor:
    by_slot: list[list[Tensor]] = [[] for _ in f[0]]
    for slots in f:
        for i, x in enumerate(slots):
            others = mean([y for j, y in enumerate(slots) if j != i])
            by_slot[i].append(w.linear("interaction.spatial.0", torch.cat([x, others])))
    z = [w.linear("interaction.temporal.0", torch.cat(steps)) for steps in by_slot]
    return w.linear("classifier", mean(z))


def stin_original(w: Weights, f: list[list[Tensor]]) -> Tensor:
    by_slot: list[list[Tensor]] = [[] for _ in f[0]]
    for slots in f:
        for i, x in enumerate(slots):
            others = mean([y for j, y in enumerate(slots) if j != i])
            s = w.linear_norm_relu("interaction.spatial", torch.cat([x, others]))
            by_slot[i].append(w.linear_norm_relu("interaction.spatial", s, 3))
    z = [w.linear_norm_relu("interaction.temporal", torch.cat(steps)) for steps in by_slot]
    pooled = mean([w.linear_norm_relu("interaction.temporal", x, 3) for x in z])
    return w.linear("classifier", w.linear("mlp.2", w.linear("mlp.0", pooled).relu()).relu())


def nl(w: Weights, f: list[list[Tensor]]) -> Tensor:
    """Keys and values: maxima over 2 × 2 neighbours of steps and slots, a last odd step or slot left out."""
    keys, values = [], []
    for t in range(0, len(f) - 1, 2):
        for i in range(0, len(f[0]) - 1, 2):
            four = [f[t + a][i + b] for a in (0, 1) for b in (0, 1)]
            keys.append(torch.stack([w.linear("blocks.0.key", x) for x in four]).amax(0))
            values.append(torch.stack([w.linear("blocks.0.value", x) for x in four]).amax(0))
    by_slot: list[list[Tensor]] = [[] for _ in f[0]]
    for slots in f:
        for i, x in enumerate(slots):
            query = w.linear("blocks.0.query", x)
            y = sum((query @ k / len(keys) * v for k, v in zip(keys, values, strict=True)), torch.zeros_like(query))
            z = x + w.norm("blocks.0.norm", w.linear("blocks.0.output", y))
            by_slot[i].append(w.linear("step", z))
    return w.linear("classifier", mean([w.linear("temporal", torch.cat(steps)) for steps in by_slot]))


def strg(w: Weights, f: list[list[Tensor]]) -> Tensor:
    nodes = [x for slots in f for x in slots]
    phi = [w.linear("reasoning.similarity_graph.phi", x) for x in nodes]
    phi_prime = [w.linear("reasoning.similarity_graph.phi_prime", x) for x in nodes]
    graph = []
    for a in phi:
        row = torch.stack([(a @ b).exp() for b in phi_prime])
        graph.append(row / row.sum())
    h = nodes
    for layer in range(3):
        name = f"reasoning.similarity.convolutions.{layer}.weights.0"
        mapped = [w.linear(name, x) for x in h]
        h = [sum((g * x for g, x in zip(row, mapped, strict=True)), torch.zeros_like(h[0])).relu() for row in graph]
    out = [a + x for a, x in zip(h, nodes, strict=True)]
    n = len(f[0])
    steps = torch.cat([mean(out[t * n : (t + 1) * n]) for t in range(len(f))])
    return w.linear("classifier", w.linear("hidden.0", steps).relu())


@pytest.mark.parametrize(
    ("name", "preset", "literal"),
    [
        ("base", "released", base),
        ("base", "released-pool", base_pool),
        ("stin", "released-joint", stin),
        ("stin", "released-coordinates", stin_original),
        ("stin", "released", stin_original),
        ("nl", "released", nl),
        ("strg", "released", strg),
    ],
)
def test_released_preset_equals_the_released_code_written_out(name: str, preset: str, literal: Any) -> None:
    head, batch = build(name, preset)
    w = Weights(head)
    expected = torch.stack([literal(w, joint_features(w, batch, clip)) for clip in range(5)])
    torch.testing.assert_close(head(batch).logits, expected, **EXACT)


@pytest.mark.parametrize("name", RELEASED)
def test_a_training_step_of_a_released_preset_is_that_of_the_released_layers(name: str) -> None:
    preset, released = RELEASED[name]
    kind, losses = HEADS.get(name), ("prediction",) if name == "sfi" else ()
    config = kind.presets[preset]
    joint = replace(config.joint, appearance_dim=8, layout_dim=6, reduction_dim=0, dropout=0.0)
    spec = SPEC.resized(N=4)
    build_it: Any = WithLosses(kind, losses)
    head = build_moved(build_it, replace(config, joint=joint), spec).double().train()
    theirs = released(head).double().train()
    batch, results = in_double(random_batch(9, spec, seed=3)), []
    for model in (head, theirs):
        out = model(batch)
        (F.cross_entropy(out.logits, torch.arange(9) % 5) + sum(5 * loss for loss in out.losses.values())).backward()
        results.append((out, {key: value.grad for key, value in model.named_parameters() if value.requires_grad}))
    (ours, our_gradients), (expected, gradients) = results
    torch.testing.assert_close(ours.logits, expected.logits, **EXACT)
    torch.testing.assert_close(dict(ours.losses), dict(expected.losses), **EXACT)
    torch.testing.assert_close(our_gradients, gradients, **EXACT)
    torch.testing.assert_close(dict(head.state_dict()), dict(theirs.state_dict()), **EXACT)


@pytest.mark.parametrize("reduced", [False, True])
def test_global_feature_stands_in_front_of_the_slots_sum(reduced: bool) -> None:
    plain, batch = build("sfi", "released", reduced=reduced)
    head, _ = build("sfi", "released-global", reduced=reduced)
    state = {k: v for k, v in plain.state_dict().items() if not k.startswith("classifier.")}
    head.load_state_dict(state, strict=False)
    w, pooled = Weights(head), []
    plain.classifier.register_forward_hook(lambda _module, inputs, _output: pooled.append(inputs[0]))
    plain(batch)
    frames = batch.array("frame_features")
    video = [mean([frames[clip, t] for t in range(SPEC.num_steps)]) for clip in range(5)]
    if reduced:
        video = [w.linear("joint.appearance.reduction", x) for x in video]
    both = [torch.cat([x, slots]) for x, slots in zip(video, pooled[0], strict=True)]
    torch.testing.assert_close(head(batch).logits, torch.stack([w.linear("classifier", x) for x in both]), **EXACT)


def test_released_similarity_graph_is_never_trained() -> None:
    """Neither φ and φ′ nor the nodes get a gradient through the graph."""
    head, batch = build("strg", "released")
    head(batch).logits.sum().backward()
    graph = head.reasoning.similarity_graph
    assert graph.phi.weight.grad is None and graph.phi_prime.weight.grad is None
    assert not graph(torch.randn(1, 15, 10).double().requires_grad_(), torch.ones(1, 15).bool()).requires_grad
    paper = STRG(STRG.presets["small"], SPEC, 5)
    assert paper.reasoning.similarity_graph.phi.weight.requires_grad


def test_released_non_local_block_starts_without_a_say_and_goes_by_the_order_of_slots() -> None:
    head, batch = build("nl", "released")
    swapped = map_batch(batch, lambda k, v: v[:, :, [0, 2, 1]] if SPEC.array(k).is_by_slot else v)
    assert (head(batch).logits - head(swapped).logits).abs().max() > 1e-6
    for module in head.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    nodes = torch.randn(2, 15, 10).double()
    torch.testing.assert_close(head.blocks[0](nodes, torch.ones(2, 15).bool()), nodes, rtol=0, atol=0)


def test_sub_sampling_beside_a_mask_or_softmax_is_refused() -> None:
    released = HEADS.get("nl").presets["released"]
    with pytest.raises(InputError, match=r"attention is 'softmax'; expected dot"):
        replace(released, attention="softmax")
    with pytest.raises(InputError, match=r"joint\.mask_empty is True; expected False"):
        NLConfig(attention="dot", subsample=True)
    with pytest.raises(InputError, match=r"N is 1; expected at least 2"):
        HEADS.get("nl")(released, SPEC.resized(N=1), 5)
