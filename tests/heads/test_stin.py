"""STIN and STIN + NL against literal loops, and their released presets against golden tensors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from fixtures.golden import load_golden

from ifcar.cache.arrays import CacheSpec
from ifcar.heads.contract import Head, InstanceBatch
from ifcar.heads.i3d_stin_nl import I3DSTINNL
from ifcar.heads.joint import JointConfig
from ifcar.heads.stin import STIN, STINConfig, message_from_others
from ifcar.heads.stin_nl import STINNL, STINNLConfig, slots_normalised
from ifcar.testing.batches import LAYOUT_SPEC, SPEC, random_batch
from ifcar.testing.changed_batches import in_double

EXACT = {"rtol": 0, "atol": 1e-12}


@pytest.mark.parametrize("name", ["stin", "stin-nl"])
def test_released_preset_equals_the_released_code(golden: Path, name: str) -> None:
    z = load_golden(golden, f"stin_coord_category{'_nl' if name == 'stin-nl' else ''}")
    head: Any = z.head
    batch = z.batch
    interaction = head.trunk.interaction if name == "stin-nl" else head.interaction
    tolerance = {"rtol": 0, "atol": 1e-9}
    joint = head.joint(batch)
    heard = torch.cat([joint.features, message_from_others(joint.features, joint.instance_mask)], dim=-1)
    by_slot = heard.transpose(1, 2).flatten(0, 2)  # (V·N·T, 2D), as the released code lays it out
    torch.testing.assert_close(by_slot, z.array("mid/spatial_in_bPT"), **tolerance)
    torch.testing.assert_close(interaction.spatial(by_slot), z.array("mid/spatial_out_bPT"), **tolerance)
    torch.testing.assert_close(interaction(joint).flatten(0, 1), z.array("mid/box_features_bP"), **tolerance)
    logits = head(batch).logits
    torch.testing.assert_close(logits, z.array("out/logits"), **tolerance)
    loss = F.cross_entropy(logits, z.array("in/label"))
    torch.testing.assert_close(loss, z.array("out/loss_for_grad"), **tolerance)
    loss.backward()
    theirs = {new: old for old, new in z.names.items()}
    frozen = {str(key) for key in z.arrays["meta/params_without_grad"]}
    for key, parameter in head.named_parameters():
        module, _, leaf = key.rpartition(".")
        old = f"{theirs[module]}.{leaf}"
        if old not in frozen:
            expected = z.array(f"grad/{old}").reshape(parameter.shape)
            torch.testing.assert_close(parameter.grad, expected, **tolerance)


def small(kind: type[Head], config: Any, spec: CacheSpec = SPEC) -> tuple[Any, InstanceBatch]:
    torch.manual_seed(0)
    joint = replace(config.joint, appearance_dim=8, layout_dim=8, reduction_dim=0)
    head = kind(replace(config, joint=joint, hidden_dim=6), spec, 5).double().eval()
    return head, in_double(random_batch(7, spec, seed=2))


def literal_interaction(interaction: Any, joint: Any) -> list[dict[int, torch.Tensor]]:
    """Return z_i of every clip's slots that are real in some step, one instance and one message at a time."""
    clips = []
    for f, real in zip(joint.features, joint.instance_mask, strict=True):
        over_time: dict[int, list[torch.Tensor]] = {}
        for i in range(f.shape[1]):
            if not real[:, i].any():
                continue
            over_time[i] = []
            for t in range(f.shape[0]):
                if not real[t, i]:
                    over_time[i].append(torch.zeros(6).double())
                    continue
                others = [f[t, j] for j in range(f.shape[1]) if j != i and real[t, j]]
                message = sum(others) / len(others) if others else torch.zeros_like(f[t, i])
                over_time[i].append(interaction.spatial(torch.cat([f[t, i], message])[None])[0])
        clips.append({i: interaction.temporal(torch.cat(steps)[None])[0] for i, steps in over_time.items()})
    return clips


def test_stin_equals_its_messages_written_out() -> None:
    head, batch = small(STIN, STINConfig())
    joint = head.joint(batch)
    clips = literal_interaction(head.interaction, joint)
    assert not head.interaction(joint)[~joint.instance_mask.any(1)].any()
    expected = torch.stack([head.classifier(sum(z.values()) / len(z)) for z in clips])
    torch.testing.assert_close(head(batch).logits, expected, **EXACT)


def literal_group_norm(values: torch.Tensor) -> torch.Tensor:
    flat = [float(v) for row in values.tolist() for v in row]
    mean = sum(flat) / len(flat)
    variance = sum((v - mean) ** 2 for v in flat) / len(flat)
    return (values - mean) / (variance + 1e-5) ** 0.5


def literal_blocks(blocks: Any, z: torch.Tensor) -> torch.Tensor:
    """Run the non-local blocks on the (n, D) real instances of one clip."""
    for block in blocks:
        a = block.attention
        gathered = []
        for x_i in z:
            scores = torch.stack([a.query(x_i) @ a.key(x_j) / a.query.out_features**0.5 for x_j in z])
            weights = scores.exp() / scores.exp().sum()
            gathered.append(a.output(sum(w * a.value(x_j) for w, x_j in zip(weights, z, strict=True))))
        z = block.fusion(z + literal_group_norm(torch.stack(gathered)))
    return z


@pytest.mark.parametrize("stream", ["layout", "both"])
def test_stin_nl_equals_its_blocks_written_out(stream: Any) -> None:
    config = STINNLConfig(joint=JointConfig(streams=stream, layout_layers=0), key_dim=3)
    head, batch = small(STINNL, config)
    clips = literal_interaction(head.trunk.interaction, head.joint(batch))
    pooled = [literal_blocks(head.trunk.blocks, torch.stack(list(z.values()))).mean(0) for z in clips]
    expected = head.classifier(head.mlp(torch.stack(pooled)))
    torch.testing.assert_close(head(batch).logits, expected, **EXACT)


def test_i3d_stin_nl_concatenates_the_frame_with_the_average_instance() -> None:
    head, batch = small(I3DSTINNL, replace(I3DSTINNL.presets["paper"], key_dim=3))
    head.frame[0].input_norm.running_mean += 0.3
    clips = literal_interaction(head.trunk.interaction, head.joint(batch))
    norm, reduction = head.frame[0].input_norm, head.frame[0].reduction
    for b, z in enumerate(clips):
        instances = literal_blocks(head.trunk.blocks, torch.stack(list(z.values()))).mean(0)
        frame = sum(batch.array("frame_features")[b]) / batch.array("frame_features").shape[1]
        frame = reduction((frame - norm.running_mean) / (norm.running_var + norm.eps).sqrt())
        expected = head.classifier(head.mlp(torch.cat([frame, instances])))
        torch.testing.assert_close(head(batch).logits[b], expected, **EXACT)


def test_message_to_an_instance_alone_is_zero() -> None:
    features, mask = torch.randn(2, 3, 4, 5), torch.zeros(2, 3, 4, dtype=torch.bool)
    mask[:, :, 1] = True
    message = message_from_others(features * mask[..., None], mask)
    torch.testing.assert_close(message[mask], torch.zeros(6, 5), rtol=0, atol=0)


def test_normalisation_over_slots_is_group_norm_of_the_real_ones() -> None:
    values, mask = torch.randn(3, 4, 6).double(), torch.tensor([[1, 1, 1, 1], [0, 1, 0, 1], [0, 0, 0, 0]]).bool()
    got = slots_normalised(values, mask)
    for b in range(2):
        expected = F.group_norm(values[b][mask[b]].T[None], num_groups=1)[0].T
        torch.testing.assert_close(got[b][mask[b]], expected, **EXACT)
    assert not got[~mask].any()


def test_bias_of_phi_changes_nothing() -> None:
    head, batch = small(STINNL, STINNLConfig(key_dim=3, key_bias=True), LAYOUT_SPEC)
    before = head(batch).logits
    with torch.no_grad():
        head.trunk.blocks[0].attention.key.bias.add_(1.0)
    torch.testing.assert_close(head(batch).logits, before, **EXACT)


def test_paper_presets_have_the_papers_dimensions() -> None:
    spec = CacheSpec.standard(num_frames=8, num_steps=4, num_instances=4, channels=2048, pooled_size=3)
    stin: Any = STIN(STIN.presets["paper"], spec, 174)
    shapes = [m.weight.shape for m in stin.interaction.modules() if isinstance(m, torch.nn.Linear)]
    assert shapes == [(512, 2048), (512, 512), (512, 4 * 512), (512, 512)]
    assert stin.classifier.weight.shape == (174, 512)
    nl: Any = STINNL(STINNL.presets["paper"], spec, 174)
    shapes = [m.weight.shape for m in nl.trunk.interaction.modules() if isinstance(m, torch.nn.Linear)]
    assert shapes == [(512, 1024), (512, 512), (512, 4 * 512), (512, 512)]
    assert len(nl.trunk.blocks) == 3
    assert nl.trunk.blocks[0].attention.query.weight.shape == (256, 512)
    assert [m.weight.shape for m in nl.mlp if isinstance(m, torch.nn.Linear)] == [(512, 512), (512, 512)]
    joint: Any = I3DSTINNL(I3DSTINNL.presets["paper"], spec, 174)
    assert joint.frame[0].reduction.weight.shape == (512, 2048)
    assert [m.weight.shape for m in joint.mlp if isinstance(m, torch.nn.Linear)] == [(512, 1024), (512, 512)]
    assert joint.joint.appearance is None
