"""Inflated ResNets: torchvision's 2-D network at the start, as far in time as inflated, every key placed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from fixtures.weights import with_torchs_weights
from torch import Tensor, nn

from ifcar.errors import InputError
from ifcar.extract.backbones.base import Backbone
from ifcar.extract.backbones.catalog import build_backbone, get_backbone, resolve_backbone
from ifcar.extract.backbones.inflated_resnet import InflatedResNet
from ifcar.extract.backbones.random_init import BATCH_NORMS
from ifcar.extract.backbones.spec import FRAMES, INSTANCES
from ifcar.extract.weights import load_weights


def inflated(name: str, num_frames: int = 3, stride: int = 16, **options: str) -> InflatedResNet:
    config = get_backbone(name).config_type(**options)
    spec = resolve_backbone(name, num_frames=num_frames, crop_size=64, spatial_stride=stride, config=config)
    backbone = build_backbone(spec)
    assert isinstance(backbone, InflatedResNet)
    return backbone


def flat(name: str) -> nn.Module:
    """Return torchvision's network with weights and statistics of every layer at random."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = torchvision.models.get_model(name.removeprefix("inflated-"), weights=None).eval()
        for norm in (module for module in network.modules() if isinstance(module, BATCH_NORMS)):
            for values, low in ((norm.running_mean, -0.5), (norm.running_var, 0.5), (norm.weight, 0.1)):
                assert values is not None
                values.data.copy_(torch.rand(values.shape) + low)
    return network


def layers(network: Any, pictures: Tensor) -> Tensor:
    x = network.maxpool(network.relu(network.bn1(network.conv1(pictures))))
    out: Tensor = network.layer4(network.layer3(network.layer2(network.layer1(x))))
    return out


def at_stride_1(network: Any) -> Any:
    """Return the network with layer4 at stride 1, not dilated."""
    first = network.layer4[0]
    for convolution in (first.conv1, first.conv2, first.downsample[0]):
        convolution.stride = (1, 1)
    return network


def load(backbone: Backbone, state: dict[str, Tensor], folder: Path) -> None:
    torch.save(state, folder / "w.pth")
    load_weights(backbone, str(folder / "w.pth"))


def video(num_frames: int) -> Tensor:
    return torch.randn((2, 3, num_frames, 64, 64), generator=torch.Generator().manual_seed(0))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "inflate"),
    [("inflated-resnet18", ",".join([kind] * 5)) for kind in ("2D", "2.5D", "3D")]
    + [("inflated-resnet50", kinds) for kinds in ("2.5D,2D,2D,2D,2.5D", "3D,2D,2.5D,2D,3D")],
)
def test_starts_as_torchvisions_network_on_every_frame(tmp_path: Path, name: str, inflate: str) -> None:
    network, backbone, clips = flat(name), inflated(name, inflate=inflate), video(3)
    load(backbone, network.state_dict(), tmp_path)
    pictures = clips.transpose(1, 2).flatten(0, 1)
    with torch.inference_mode():
        maps = backbone.checked(backbone(clips))
        by_frame = {FRAMES: layers(network, pictures)}
        of_clips = network.fc(by_frame[FRAMES].unflatten(0, (2, 3)).mean(dim=(1, 3, 4)))
        torch.testing.assert_close(
            backbone.classify(clips), of_clips, rtol=1e-5, atol=1e-5 * float(of_clips.abs().max())
        )
        by_frame[INSTANCES] = layers(at_stride_1(network), pictures)
    for use, expected in by_frame.items():
        found = maps[use].transpose(1, 2).flatten(0, 1)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
    assert maps[INSTANCES].shape[-2:] == (4, 4) and maps[FRAMES].shape[-2:] == (2, 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "reach"),
    [
        ("inflated-resnet50", {"inflate": "2D,2D,2D,2D,2.5D"}, {INSTANCES: 3, FRAMES: 3}),  # 3 blocks
        ("inflated-resnet50", {"inflate": "3D,2D,2D,2D,2.5D", "instances": "2D"}, {INSTANCES: 1, FRAMES: 4}),
        ("inflated-resnet18", {"inflate": "2.5D,2D,2D,2D,2D", "instances": "3D"}, {INSTANCES: 5, FRAMES: 1}),
        ("inflated-resnet18", {"inflate": "2D,2D,2.5D,2D,2D"}, {INSTANCES: 4, FRAMES: 4}),
    ],
)
def test_frame_reaches_as_many_steps_as_there_are_kernels_in_time(
    name: str, options: dict[str, str], reach: dict[str, int]
) -> None:
    backbone = with_torchs_weights(inflated(name, num_frames=13, **options))
    clips = video(13)[:1]
    other = clips.clone()
    other[:, :, 6] += 1
    with torch.inference_mode():
        before, after = backbone(clips), backbone(other)
    for use, steps in reach.items():
        changed = (before[use] != after[use]).any(dim=1).flatten(2).any(dim=2)[0]
        assert changed.nonzero().flatten().tolist() == list(range(6 - steps, 7 + steps))


@pytest.mark.slow
def test_every_key_of_a_file_has_its_place(tmp_path: Path) -> None:
    state = flat("inflated-resnet18").state_dict()
    whole = inflated("inflated-resnet18")
    load(whole, state, tmp_path)
    again = inflated("inflated-resnet18")
    load(again, whole.state_dict(), tmp_path)
    torch.testing.assert_close(dict(again.state_dict()), dict(whole.state_dict()), rtol=0, atol=0)
    lacking = {key: value for key, value in state.items() if key != "layer4.0.conv1.weight"}
    with pytest.raises(InputError, match=r"2 missing \(layer4_instances\.0\.conv1\.weight, layer4\.0\.conv1\.weight\)"):
        load(whole, lacking, tmp_path)
    with pytest.raises(InputError, match=r"1 unexpected \(layer5\.weight\)"):
        load(whole, {**state, "layer5.weight": torch.zeros(2)}, tmp_path)
    with pytest.raises(InputError, match="do not fit backbone 'inflated-resnet50'"):
        load(inflated("inflated-resnet50"), state, tmp_path)


@pytest.mark.slow
def test_stride_32_has_one_map_and_no_twin(tmp_path: Path) -> None:
    single, double = (inflated("inflated-resnet18", stride=stride) for stride in (32, 16))
    for backbone in (single, double):
        load(backbone, flat("inflated-resnet18").state_dict(), tmp_path)
    with torch.inference_mode():
        maps = single.checked(single(video(3)))
        assert list(maps) == [INSTANCES]
        torch.testing.assert_close(maps[INSTANCES], double(video(3))[FRAMES])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inflate": "2D,2D,2D,2D"}, "expected five of 2D, 2.5D, 3D with commas between"),
        ({"inflate": "2D,2D,2D,2D,4D"}, "expected five of 2D, 2.5D, 3D with commas between"),
        ({"instances": "1D"}, "instances is '1D'; expected one of same, 2D, 2.5D, 3D"),
        ({"instances": "2D", "stride": 32}, "--set instances=2D would be ignored"),
    ],
)
def test_kinds_that_do_not_exist_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        inflated("inflated-resnet18", **options)
