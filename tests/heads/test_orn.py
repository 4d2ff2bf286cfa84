"""ORN against loops over the paper's equations, and its released preset against loops over what that code does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from fixtures.literal_orn import PaperORN, released_orn
from fixtures.plain_orn import plain_orn
from torch import Tensor

from ifcar.cache.arrays import MASKS, CacheSpec, object_classes
from ifcar.errors import CacheMismatchError, InputError
from ifcar.heads.contract import InstanceBatch
from ifcar.heads.dropout import Dropout
from ifcar.heads.orn import ORN, RELEASED_NAMES
from ifcar.heads.orn_config import ORNConfig
from ifcar.testing.batches import FULL_SPEC, random_batch
from ifcar.testing.built_heads import WithLosses, build_moved, draw_noise
from ifcar.testing.changed_batches import in_double, map_batch

EXACT = {"rtol": 0, "atol": 1e-9}
NARROW: dict[str, Any] = {"mask_dim": 5, "class_dim": 4, "relation_dim": 7, "state_dim": 6, "activity_dim": 8}
T, STEPS, N = 8, 4, 4  # `FULL_SPEC`


def narrow_orn(preset: str = "paper", spec: CacheSpec = FULL_SPEC, losses: tuple[str, ...] = (), **options: Any) -> ORN:
    config = replace(ORN.presets[preset], **{**NARROW, "input_norm": False, **options})
    kind: Any = WithLosses(ORN, losses)
    head = build_moved(kind, config, spec).double().eval()
    assert isinstance(head, ORN)
    return head


def batch_of(num_clips: int = 5, spec: CacheSpec = FULL_SPEC) -> InstanceBatch:
    return in_double(random_batch(num_clips, spec, seed=4))


def literal(head: ORN, batch: InstanceBatch, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
    model = PaperORN(head.config, head.state_dict())
    clips = [{name: value[n] for name, value in batch.arrays.items()} for n in range(len(batch.categories))]
    scored = [model.score(c, STEPS, None if noise is None else noise[n]) for n, c in enumerate(clips)]
    return torch.stack([logits for logits, _ in scored]), torch.stack([loss for _, loss in scored]).mean()


@pytest.mark.parametrize(
    "options",
    [
        {"losses": ("object_class",)},
        {"heads": "object", "losses": ("object_class",), "features": ("visual",)},
        {"heads": "activity"},
        {"heads": "object", "features": ("shape", "class")},
        {"heads": "object", "pairs": "intra"},
        {"heads": "object", "f": "mlp"},
        {"heads": "object", "f": "avg", "pairs": "intra", "clique": 1},
        {"heads": "object", "clique": 1},
        {"heads": "object", "clique": 3},
    ],
)
def test_logits_and_class_loss_equal_equations_4_to_13(options: dict[str, Any]) -> None:
    head, batch = narrow_orn(**options), batch_of()
    out = head(batch)
    logits, loss = literal(head, batch)
    torch.testing.assert_close(out.logits, logits, **EXACT)
    if "losses" in options:
        torch.testing.assert_close(out.losses["object_class"], loss, **EXACT)


@pytest.mark.parametrize("clique", [1, 2, 3])
def test_training_relates_each_frame_to_the_earlier_one_that_the_noise_draws(clique: int) -> None:
    head, batch = narrow_orn(heads="object", clique=clique).train(), batch_of()
    draw_noise(head, 5, torch.Generator().manual_seed(0))
    assert head.object is not None
    noise = head.object.relations.earlier.noise
    assert noise is not None and noise.shape == (5, STEPS - 1)
    last_frames = noise.clone()
    last_frames[0] = 0.999
    noise[0] = 1 - 2**-24  # the largest number below 1 that 32 bits hold
    torch.testing.assert_close(head(batch).logits, literal(head, batch, last_frames)[0], **EXACT)


def test_first_layer_by_object_equals_every_pair_concatenated() -> None:
    head = narrow_orn(losses=("object_class",), input_norm=True).train()
    draw_noise(head, 5, torch.Generator().manual_seed(0))
    plain, batch = plain_orn(head), batch_of()
    outs = [model(batch) for model in (head, plain)]
    torch.testing.assert_close(outs[0].logits, outs[1].logits, **EXACT)
    for out in outs:
        (out.logits.square().sum() + out.losses["object_class"]).backward()
    gradients = [{name: p.grad for name, p in model.named_parameters()} for model in (head, plain)]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-9, atol=1e-9)


def released_weights(head: ORN) -> dict[str, Tensor]:
    ours = {name: theirs for theirs, name in RELEASED_NAMES.items()}
    weights = {}
    for key, value in head.state_dict().items():
        module, _, leaf = key.rpartition(".")
        weights[f"{ours[module]}.{leaf}"] = value
    return weights


def kept_by_dropout(head: ORN) -> dict[str, list[Tensor]]:
    """What dropout of rate ½ multiplies each encoder's layers by, by the released code's names."""
    ours = {name: theirs for theirs, name in RELEASED_NAMES.items()}
    kept: dict[str, list[Tensor]] = {}
    for name, layer in head.named_modules():
        if isinstance(layer, Dropout):
            assert layer.noise is not None
            encoder = ours[name.replace("dropout", "linear")].partition(".encoder.")[0]
            kept.setdefault(encoder, []).append(2.0 * (layer.noise >= 0.5).double())
    return kept


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("f", ["gru", "avg"])
def test_released_preset_does_what_the_released_code_does(f: str, training: bool) -> None:
    head, batch = narrow_orn("released", f=f, losses=("object_class",)).train(training), batch_of()
    draw_noise(head, 5, torch.Generator().manual_seed(0))
    kept = kept_by_dropout(head)
    assert {name: len(layers) for name, layers in kept.items()} == {
        "Encoder_Binary_Mask": 2,
        "Encoder_COCO_Obj_Class": 2,
        "ORN.mlp_inter": 3,
    }
    frames = torch.arange(0, T, T // STEPS)
    classes, weights = batch.array("object_classes")[:, frames].long(), released_weights(head)
    one_hot = (classes.unsqueeze(-1) == torch.arange(3)).double()
    masks = (batch.array("masks")[:, frames].flatten(3) >= 127.5).double()
    u = batch.array("instance_features").mean((-1, -2))
    clips = zip(u, masks, one_hot, batch.array("frame_features"), strict=True)
    scored = [
        released_orn(
            weights,
            *clip,
            f=f,
            kept={name: [layer[n] for layer in layers] for name, layers in kept.items()} if training else None,
        )
        for n, clip in enumerate(clips)
    ]
    out = head(batch)
    torch.testing.assert_close(out.logits, torch.stack([logits for logits, _ in scored]), **EXACT)
    scores = torch.stack([classes for _, classes in scored]).flatten(0, 2)
    expected = F.cross_entropy(scores, one_hot.argmax(-1).flatten())  # an empty slot's row of zeros: class 0
    torch.testing.assert_close(out.losses["object_class"], expected, **EXACT)


@pytest.mark.parametrize(("preset", "reads_frame_1"), [("paper", True), ("released", False)])
def test_objects_of_frame_1_change_the_logits_in_paper_and_not_in_released(preset: str, reads_frame_1: bool) -> None:
    head, batch = narrow_orn(preset), batch_of()

    def other(name: str, value: Tensor) -> Tensor:
        changed = value.clone()
        if FULL_SPEC.array(name).is_by_slot and name not in ("boxes", "categories"):
            changed[:, : T // STEPS if value.shape[1] == T else 1] = value.flip(0)[:, -1:]
        return changed

    same = torch.equal(head(batch).logits, head(map_batch(batch, other)).logits)
    assert same is not reads_frame_1


def test_pixels_are_the_means_of_two_by_two_cells_of_a_map_of_14() -> None:
    spec = CacheSpec.standard(num_frames=3, num_steps=3, num_instances=1, channels=4, grid_size=(14, 14), pooled_size=1)
    head, batch = narrow_orn(spec=spec, heads="object", objects="pixel", features=("visual",)), batch_of(2, spec)
    grid = batch.array("grid_features")
    cells = F.avg_pool2d(grid.flatten(0, 1), 2).view(2, 3, 4, 49).transpose(2, 3)
    assert head.object is not None
    torch.testing.assert_close(head.object.objects(batch, torch.double).features, cells, **EXACT)
    assert head.relations(batch).shape == (2, 3, 3, 49, 49)


@pytest.mark.parametrize("pairs", ["inter", "intra"])
def test_relations_are_the_summed_outputs_of_h_for_present_objects_of_earlier_frames(pairs: str) -> None:
    head, batch = narrow_orn(pairs=pairs), batch_of(3)
    e, present = head.relations(batch), batch.categories[:, :: T // STEPS] > 0
    model, expected = PaperORN(head.config, head.state_dict()), torch.zeros(3, STEPS, STEPS, N, N).double()
    assert head.object is not None
    o = head.object.objects(batch, torch.double).features
    for clip, t, s, j, k in torch.cartesian_prod(*(torch.arange(n) for n in expected.shape)).tolist():
        first = s if pairs == "inter" else t
        if s < t and present[clip, first, j] and present[clip, t, k]:
            expected[clip, t, s, j, k] = model.h(o[clip, first, j], o[clip, t, k]).sum()
    torch.testing.assert_close(e, expected, **EXACT)
    assert (e >= 0).all() and (e > 0).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objects": "pixel"}, r"features is \('visual', 'shape', 'class'\); expected \[visual\]"),
        ({"features": ()}, "expected some of visual, shape, class"),
        ({"features": ("visual", "visual")}, "expected some of visual, shape, class"),
        ({"heads": "activity", "losses": ("object_class",)}, "the object-class loss"),
        ({"features": ("shape",), "losses": ("object_class",)}, "the object-class loss"),
        ({"features": ("shape",), "gate": "sums"}, "visual among them"),
        ({"clique": 4}, "clique is 4; expected one of 1, 2, 3"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        narrow_orn(**options)


def test_cache_with_one_step_or_without_names_of_classes_is_refused() -> None:
    sizes: dict[str, int] = {"num_instances": 2, "channels": 4, "pooled_size": 1}
    short = CacheSpec.standard(num_frames=2, num_steps=1, **sizes, more=(MASKS, object_classes(["cup"])))
    nameless = CacheSpec.standard(num_frames=2, num_steps=2, **sizes, more=(MASKS, object_classes([])))
    with pytest.raises(CacheMismatchError, match="this cache has T′ = 1; extract more frames"):
        ORN(ORNConfig(), short, 3)
    with pytest.raises(CacheMismatchError, match="names of the classes"):
        ORN(ORNConfig(), nameless, 3)
    assert ORN(ORNConfig(heads="activity"), short, 3).num_classes == 3


def test_relations_without_an_object_head_or_pairs_are_refused() -> None:
    for options in ({"heads": "activity"}, {"clique": 3}):
        with pytest.raises(InputError, match="relations between pairs need"):
            narrow_orn(**options).relations(batch_of(1))
