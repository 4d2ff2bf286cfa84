"""SFI against literal loops over the paper's equations, and its released preset against golden tensors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from fixtures.golden import load_golden

from ifcar.cache.arrays import CacheSpec
from ifcar.heads.contract import InstanceBatch
from ifcar.heads.motion import motion_of
from ifcar.heads.sfi import SFI, SFIConfig
from ifcar.testing.batches import SPEC, random_batch
from ifcar.testing.changed_batches import in_double


@pytest.mark.parametrize("name", ["sfi", "sfi_pred"])
def test_released_preset_equals_the_released_code(golden: Path, name: str) -> None:
    z = load_golden(golden, name)
    head, batch = z.head, z.batch
    assert isinstance(head, SFI)
    out = head(batch)
    tolerance = {"rtol": 0, "atol": 1e-9}
    torch.testing.assert_close(out.logits, z.array("out/logits"), **tolerance)
    torch.testing.assert_close(head.joint(batch).features, z.array("mid/joint"), **tolerance)
    loss = F.cross_entropy(out.logits, z.array("in/label"))
    if name == "sfi_pred":
        torch.testing.assert_close(out.losses["prediction"], z.array("out/aux_loss"), **tolerance)
        loss = loss + 5 * out.losses["prediction"]
    torch.testing.assert_close(loss, z.array("out/loss_total"), **tolerance)
    loss.backward()
    ours = {new: old for old, new in z.names.items()}
    for key, parameter in head.named_parameters():
        module, _, leaf = key.rpartition(".")
        torch.testing.assert_close(parameter.grad, z.array(f"grad/{ours[module]}.{leaf}"), **tolerance)


def small_sfi(prediction: bool) -> tuple[SFI, InstanceBatch]:
    torch.manual_seed(0)
    config = SFIConfig(
        joint=replace(SFIConfig().joint, appearance_dim=8, layout_dim=8, reduction_dim=0),
        temporal_hidden_dim=12,
        temporal_dim=10,
    )
    head = SFI(config, SPEC, 5, ["prediction"] if prediction else []).double().eval()
    return head, in_double(random_batch(7, SPEC, seed=2))


def test_compositional_reasoning_equals_equation_2() -> None:
    head, batch = small_sfi(False)
    joint = head.joint(batch)
    phi = dict(zip(("ss", "so", "oo"), head.reasoning.edges, strict=True))
    psi_s, f, c = head.reasoning.fusion, joint.features, joint.categories
    expected = torch.zeros_like(f)
    for b in range(f.shape[0]):
        for t in range(f.shape[1]):
            for i in range(f.shape[2]):
                if c[b, t, i] == 0:
                    continue
                total = f[b, t, i].clone()
                for j in range(f.shape[2]):
                    if j == i or c[b, t, j] == 0:
                        continue
                    subjects = int(c[b, t, i] == 1) + int(c[b, t, j] == 1)
                    edge = {2: "ss", 1: "so", 0: "oo"}[subjects]
                    total = total + phi[edge](torch.cat([f[b, t, i], f[b, t, j]]))
                expected[b, t, i] = psi_s(total)
    torch.testing.assert_close(head.reasoning(joint), expected, rtol=0, atol=1e-12)


def literal_lstm(lstm: torch.nn.LSTM, sequence: torch.Tensor) -> torch.Tensor:
    """Run a stacked LSTM over (T, D) gate by gate and return its last output."""
    layers = [
        [getattr(lstm, f"{kind}_l{n}") for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        for n in range(lstm.num_layers)
    ]
    hidden = [torch.zeros(lstm.hidden_size).double() for _ in layers]
    cell = [torch.zeros(lstm.hidden_size).double() for _ in layers]
    for x in sequence:
        for n, (w, u, bw, bu) in enumerate(layers):
            i, f, g, o = (w @ x + bw + u @ hidden[n] + bu).chunk(4)
            cell[n] = f.sigmoid() * cell[n] + i.sigmoid() * g.tanh()
            hidden[n] = o.sigmoid() * cell[n].tanh()
            x = hidden[n]
    return hidden[-1]


def test_temporal_flow_and_average_equal_equation_3() -> None:
    head, batch = small_sfi(False)
    joint = head.joint(batch)
    g = head.reasoning(joint)
    expected = []
    for b in range(g.shape[0]):
        z = []
        for i in range(g.shape[2]):
            if not joint.instance_mask[b, :, i].any():
                continue
            outputs = [literal_lstm(head.lstm, g[b, : t + 1, i]) for t in range(g.shape[1])]
            z.append(head.temporal(torch.cat(outputs)[None])[0])
        expected.append(head.classifier(sum(z) / len(z)))
    torch.testing.assert_close(head(batch).logits, torch.stack(expected), rtol=0, atol=1e-12)


def test_prediction_loss_equals_equations_4_and_5() -> None:
    head, batch = small_sfi(True)
    joint = head.joint(batch)
    g, p, real = head.reasoning(joint), joint.boxes, joint.instance_mask
    num_steps = g.shape[1]
    observed = num_steps // 2  # T_obs = T/4 frames are half of the T′ = T/2 steps
    total = torch.zeros((), dtype=torch.float64)
    for b in range(g.shape[0]):
        for i in range(g.shape[2]):
            for t in range(observed - 1, num_steps - 1):  # the last observed step; the target is t + 1
                if not real[b, t + 1, i]:
                    continue
                state = literal_lstm(head.lstm, g[b, : t + 1, i])
                total += (head.prediction.position.weight @ state - p[b, t + 1, i]).square().sum()
                if real[b, t, i]:
                    offset = (p[b, t + 1, i] - p[b, t, i])[:2]
                    total += (head.prediction.offset.weight @ state - offset).square().sum()
    expected = total / g.shape[0]
    torch.testing.assert_close(head(batch).losses["prediction"], expected, rtol=0, atol=1e-12)


def test_paper_preset_has_the_papers_dimensions() -> None:
    spec = CacheSpec.standard(num_frames=8, num_steps=4, num_instances=4, channels=512, pooled_size=3)
    head = SFI(SFI.presets["paper"], spec, 174, ["prediction"])
    assert head.joint.appearance.embed.weight.shape == (512, 512 * 9)
    assert [e.weight.shape for e in head.reasoning.edges] == [(1024, 2048)] * 3
    assert head.reasoning.fusion.weight.shape == (1024, 1024)
    assert (head.lstm.num_layers, head.lstm.hidden_size) == (2, 1024)
    assert head.temporal[0].weight.shape == (512, 4 * 1024)
    assert head.prediction.position.weight.shape == (4, 1024)
    assert head.prediction.offset.weight.shape == (2, 1024)


@pytest.mark.parametrize(("frames", "steps", "observed"), [(8, 2, 1), (12, 3, 2), (4, 4, None), (8, 4, None)])
def test_prediction_task_says_when_it_has_one_step_to_predict(frames: int, steps: int, observed: int | None) -> None:
    spec = CacheSpec.standard(num_frames=frames, num_steps=steps, num_instances=4, channels=8, pooled_size=1)
    with torch.device("meta"):
        lines = SFI(SFI.presets["small"], spec, 5, ["prediction"]).remarks()
        assert not SFI(SFI.presets["small"], spec, 5).remarks()
    assert len(lines) == (observed is not None)
    assert all(f"T′ is {steps}, of which {observed} " in line and "--frames" in line for line in lines)


def test_motion_input_is_offset_and_distance_from_the_mean() -> None:
    batch = random_batch(5, SPEC, seed=4)
    boxes, real = batch.boxes[:, ::2], batch.categories[:, ::2] > 0
    motion = motion_of(boxes, real)
    for b in range(5):
        for n in range(boxes.shape[2]):
            steps = [t for t in range(boxes.shape[1]) if real[b, t, n]]
            for t in range(boxes.shape[1]):
                expected = torch.zeros(4)
                if t in steps:
                    if t - 1 in steps:
                        expected[:2] = boxes[b, t, n, :2] - boxes[b, t - 1, n, :2]
                    expected[2:] = boxes[b, t, n, :2] - sum(boxes[b, s, n, :2] for s in steps) / len(steps)
                torch.testing.assert_close(motion[b, t, n], expected)
