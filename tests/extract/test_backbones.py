"""Backbones: published keys, shapes at both strides, and real weights that recognise a real clip."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from fixtures.weights import with_torchs_weights
from safetensors import safe_open
from torch import nn

from ifcar.errors import InputError
from ifcar.extract.backbones.catalog import build_backbone, get_backbone, names, resolve_backbone
from ifcar.extract.backbones.cost import multiply_adds
from ifcar.extract.backbones.i3d_inception import same_padding
from ifcar.extract.backbones.spec import INSTANCES
from ifcar.extract.backbones.transformers_models import MODELS
from ifcar.extract.decode import probe, read_frames
from ifcar.extract.geometry import center_crop
from ifcar.extract.weights import licence_of, load_weights

PIXEL_BACKBONES = ["i3d_inception", "i3d_r50", "slowfast_r50"]  # on videos; per frame: test_per_frame
# (backbone, stride) → C and T′ for T = 8.
EXPECTED = {
    ("i3d_r50", 32): (2048, 4),
    ("i3d_r50", 16): (2048, 4),
    ("slowfast_r50", 32): (2304, 2),
    ("slowfast_r50", 16): (2304, 2),
    ("i3d_inception", 32): (1024, 1),
    ("i3d_inception", 16): (832, 2),
}


@pytest.fixture(scope="module")
def shared() -> Path:
    folder = os.environ.get("IFCAR_SHARED")
    if not folder:
        pytest.skip("IFCAR_SHARED is not set: this test reads the project's shared weights and clips")
    return Path(folder)


@pytest.fixture(scope="module")
def inception_weights(shared: Path) -> Path:
    return shared / "weights" / "i3d_inception_rgb_kinetics400.safetensors"


OWN_SIZE = [
    *("i3d_inception", "i3d_r50", "inflated-resnet18", "inflated-resnet50", "mobilenet_v2", "mvit_v2_s", "none"),
    *("r2plus1d_18", "resnet50", "s3d", "slowfast_r50", "swin3d_b", "swin3d_s", "swin3d_t", "vggish"),
]


def test_registered_names() -> None:
    assert names() == sorted([*OWN_SIZE, *MODELS, "timm"])
    with pytest.raises(InputError, match="did you mean 'i3d_r50'"):
        get_backbone("i3d_r5")


def test_every_family_says_what_it_reads_and_names_its_weights_and_their_licence() -> None:
    for name in OWN_SIZE:
        spec = resolve_backbone(name, num_frames=16)
        assert spec.name == name
        assert spec.reads == {"none": "nothing", "vggish": "audio"}.get(name, "pixels")
        for stride in spec.strides:
            spec = resolve_backbone(name, num_frames=16, spatial_stride=stride)
            assert spec.spatial_stride == stride and spec.layer
            assert spec.published and all(entry.license for entry in spec.published.values())
            assert spec.normalisation == next(iter(spec.published.values())).normalisation


def test_none_reads_no_pixels_and_builds_nothing() -> None:
    spec = resolve_backbone("none", num_frames=7)
    assert (spec.reads, spec.channels, spec.num_steps, spec.grid_size) == ("nothing", 0, 7, None)
    with pytest.raises(InputError, match="reads no pixels"):
        build_backbone(spec)


@pytest.mark.parametrize(
    ("name", "num_frames", "spatial_stride", "message"),
    [
        ("i3d_r50", 7, 32, "expected a positive multiple of 2"),
        ("i3d_r50", 0, 32, "expected a positive multiple of 2"),
        ("slowfast_r50", 6, 16, "expected a positive multiple of 4"),
        ("i3d_inception", 12, 32, "expected a positive multiple of 8"),
        ("i3d_r50", 8, 8, "expected one of 16, 32"),
    ],
)
def test_unsupported_combinations_are_one_line(name: str, num_frames: int, spatial_stride: int, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        resolve_backbone(name, num_frames=num_frames, spatial_stride=spatial_stride)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("name", PIXEL_BACKBONES)
def test_both_strides_share_keys_have_integer_sizes_and_the_stated_shapes(name: str) -> None:
    global_state = torch.get_rng_state()
    shapes: list[dict[str, tuple[int, ...]]] = []
    for stride in (16, 32):
        backbone = build_backbone(resolve_backbone(name, num_frames=8, crop_size=64, spatial_stride=stride))
        shapes.append({key: tuple(value.shape) for key, value in backbone.state_dict().items()})
        for module in backbone.modules():
            if isinstance(module, nn.Conv3d | nn.MaxPool3d):
                for field in (module.stride, module.kernel_size, module.padding, module.dilation):
                    assert all(type(size) is int for size in (field if isinstance(field, tuple) else (field,)))
        frames = torch.zeros((1, 8, 64, 64, 3), dtype=torch.uint8)
        with torch.inference_mode():
            maps = backbone.checked(backbone(backbone.normalise(frames)))
            assert backbone.classify(backbone.normalise(frames)).shape == (1, 400)
        channels, num_steps = EXPECTED[name, stride]
        assert maps[INSTANCES].shape == (1, channels, num_steps, 64 // stride, 64 // stride)
    assert shapes[0] == shapes[1]
    assert torch.equal(torch.get_rng_state(), global_state)


@pytest.mark.parametrize("name", ["i3d_inception", "mobilenet_v2", "swin3d_t"])
def test_a_network_is_built_without_a_draw_that_its_weights_would_overwrite(name: str) -> None:
    backbone = build_backbone(resolve_backbone(name, num_frames=8, crop_size=64))
    drawn = [m.weight for m in backbone.modules() if isinstance(m, nn.Conv2d | nn.Conv3d | nn.Linear)]
    assert drawn and not any(weight.any() for weight in drawn)


@pytest.mark.slow
def test_i3d_r50_at_stride_16_gives_2048_by_4_by_14_by_14() -> None:
    backbone = build_backbone(resolve_backbone("i3d_r50", num_frames=8, spatial_stride=16))
    with torch.inference_mode():
        maps = backbone(backbone.normalise(torch.zeros((1, 8, 224, 224, 3), dtype=torch.uint8)))
    assert maps[INSTANCES].shape == (1, 2048, 4, 14, 14)


@pytest.mark.parametrize("name", ["i3d_r50", "slowfast_r50"])
def test_resnets_have_the_keys_of_pytorchvideos_hub(name: str) -> None:
    from pytorchvideo.models import hub

    with torch.random.fork_rng(devices=[]):
        published = getattr(hub, name)(pretrained=False)
    ours = build_backbone(resolve_backbone(name, num_frames=8, spatial_stride=16))
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in published.state_dict().items()}


@pytest.mark.slow
def test_i3d_r50_computes_what_pytorchvideos_hub_computes() -> None:
    from pytorchvideo.models import hub

    with torch.random.fork_rng(devices=[]):
        published = hub.i3d_r50(pretrained=False).eval()
    ours = build_backbone(resolve_backbone("i3d_r50", num_frames=8, spatial_stride=32))
    ours.load_state_dict(published.state_dict())
    video = torch.rand((1, 3, 8, 224, 224), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(ours.classify(video), published(video), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "expected"),
    [(224, 7, 2, (2, 3)), (112, 3, 2, (0, 1)), (7, 3, 2, (1, 1)), (7, 2, 2, (0, 1)), (8, 1, 1, (0, 0))],
)
def test_same_padding_worked_numbers(size: int, kernel: int, stride: int, expected: tuple[int, int]) -> None:
    assert same_padding(size, kernel, stride) == expected


def test_inception_takes_any_size_with_the_cells_that_same_padding_gives() -> None:
    backbone = build_backbone(resolve_backbone("i3d_inception", num_frames=8, crop_size=75, spatial_stride=16))
    with torch.inference_mode():
        maps = backbone(backbone.normalise(torch.zeros((1, 8, 75, 75, 3), dtype=torch.uint8)))
    assert maps[INSTANCES].shape[3:] == backbone.spec.grid_size == (5, 5)


@pytest.mark.parametrize(("name", "black", "white"), [("i3d_inception", -1, 1), ("i3d_r50", -2, 0.55 / 0.225)])
def test_normalise_maps_black_and_white_and_keeps_axes(name: str, black: float, white: float) -> None:
    backbone = build_backbone(resolve_backbone(name, num_frames=8, spatial_stride=32))
    frames = torch.zeros((2, 8, 4, 6, 3), dtype=torch.uint8)
    frames[1, 5, 2, 3, 1] = 255
    video = backbone.normalise(frames)
    assert video.shape == (2, 3, 8, 4, 6)
    assert video.dtype == torch.float32
    assert video[1, 1, 5, 2, 3].item() == pytest.approx(white, rel=1e-5)
    assert video[0].unique().item() == pytest.approx(black, rel=1e-5)
    with pytest.raises(InputError, match=r"expected torch\.uint8"):
        backbone.normalise(frames.float())


def test_published_inception_keys_are_ours(inception_weights: Path) -> None:
    with safe_open(inception_weights, "pt") as file:
        published = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    for stride in (16, 32):
        ours = build_backbone(resolve_backbone("i3d_inception", num_frames=8, spatial_stride=stride)).state_dict()
        assert published == {
            key: tuple(value.shape) for key, value in ours.items() if not key.endswith("num_batches_tracked")
        }


@pytest.mark.slow
def test_real_weights_recognise_arm_wrestling(shared: Path, inception_weights: Path, tmp_path: Path) -> None:
    clip = shared / "data" / "clips" / "arm_wrestling.mp4"
    labels = (shared / "data" / "clips" / "kinetics400_labels.txt").read_text().splitlines()
    info = probe(clip)
    numbers = np.linspace(0, 95, 32).round().astype(int).tolist()
    frames = read_frames(clip, numbers, center_crop((info.width, info.height), 224 / 256), 224, False)
    backbone = build_backbone(resolve_backbone("i3d_inception", num_frames=32, spatial_stride=16))
    load_weights(backbone, str(inception_weights), tmp_path)
    with torch.inference_mode():
        probabilities = backbone.classify(backbone.normalise(torch.from_numpy(frames)[None])).softmax(-1)[0]
    assert labels[int(probabilities.argmax())] == "arm wrestling"
    assert probabilities.max() > 0.99


@pytest.mark.slow
@pytest.mark.parametrize("name", PIXEL_BACKBONES)
def test_torch_compile_traces_the_whole_backbone_as_one_graph(name: str) -> None:
    backbone = with_torchs_weights(build_backbone(resolve_backbone(name, num_frames=8, spatial_stride=16)))
    torch.compiler.reset()  # or numbers in which networks before this one differ are traced as symbols, for minutes
    traced = torch.compile(backbone, fullgraph=True, backend="eager")
    video = torch.rand((1, 3, 8, 32, 32), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(traced(video), backbone(video))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "weights", "frames", "crop"),
    [
        ("r2plus1d_18", "R2Plus1D_18_Weights", 16, 112),
        ("s3d", "S3D_Weights", 16, 224),
        ("swin3d_t", "Swin3D_T_Weights", 16, 224),
        ("mvit_v2_s", "MViT_V2_S_Weights", 16, 224),
    ],
)
def test_multiply_adds_are_those_that_torchvision_publishes(name: str, weights: str, frames: int, crop: int) -> None:
    published = getattr(torchvision.models.video, weights).KINETICS400_V1.meta["_ops"]  # with the classifier
    spec = resolve_backbone(name, num_frames=frames, crop_size=crop, spatial_stride={"r2plus1d_18": 16}.get(name))
    assert multiply_adds(spec) / 1e9 == pytest.approx(published, rel=0.02)


def test_licence_of_a_folder_is_what_its_card_or_file_states(tmp_path: Path) -> None:
    file = tmp_path / "net.pt"
    file.touch()
    assert licence_of(file) == ""
    assert "states none" in licence_of(tmp_path)
    (tmp_path / "LICENSE.md").write_text("\n  Apache License \nVersion 2.0")
    assert licence_of(tmp_path) == "; licence: Apache License (LICENSE.md)"
    for card, stated in (
        ("---\nlicense: cc-by-nc-4.0\n---\n# A model", "cc-by-nc-4.0"),
        ("---\nlicense: other\nlicense_name: dinov3-license\n---\n", "dinov3-license"),
        ("---\nlicense: [\n---\n", "Apache License (LICENSE.md)"),
    ):
        (tmp_path / "README.md").write_text(card)
        assert licence_of(tmp_path) == f"; licence: {stated}"
