"""Part check of `benchmarks/gpu.py`: what the machine is, and whether what runs there gives what a CPU gives."""

from __future__ import annotations

import gc
import os
import platform
import shutil
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from backbones import backbone, random_weights
from fleet_steps import FleetSteps, open_rows
from fleets import make_config, write_rows
from gpu_rows import Rows
from machine import copy_rate, median, peaks, repeated, synchronise, tf32
from stack_steps import StackStep

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from fixtures.decoded import decoded_views
from fixtures.flops import PAPER_CLASSES, PAPER_SPEC, training_loss
from fixtures.golden import FILES, load_golden
from fixtures.narrow_heads import narrow
from fixtures.something_else import write_dataset

from ifcar.cache.arrays import MASKS, CacheSpec, object_classes
from ifcar.cache.open import open_cache
from ifcar.extract.extractor import EngineOptions, FeatureExtractor
from ifcar.heads.catalog import HEADS
from ifcar.heads.contract import InstanceBatch
from ifcar.pipelines.extract import extract
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.feed.memory import Memory, free_bytes
from ifcar.pipelines.fit import fit
from ifcar.pipelines.progress import Silent
from ifcar.pipelines.runs.resolve import make_run_config
from ifcar.pipelines.runs.schedule import ScheduleConfig
from ifcar.pipelines.runs.weights import load_tensors
from ifcar.testing.batches import random_batch

LIMITS = {
    "logits": 1e-4, "gradient": 1e-3, "features": 2e-3, "weights": 1e-3, "fleet": 1e-4, "fp32": 1e-5, "bf16": 1e-3
}  # fmt: skip
"""Largest ‖found − expected‖ / ‖expected‖. Features are rounded to float16 (5e-4) and weights have been moved by
several steps; a gradient also crosses ReLUs, where rounding decides. fp32 and bf16: a step that is recorded against the
same launched kernel by kernel; some kernels add up in any order."""
RECORDED = ("fp32_recorded", "bf16_recorded")
LEFT_MIB = 512


def run(rows: Rows) -> None:
    """Measure and compare, the machine first."""
    device = rows.device
    rows.measure("machine", partial(machine_facts, device))
    rows.measure("peaks", partial(peaks, device, small=rows.small))
    rows.measure("copies", partial(copies, device, rows.small))
    rows.measure("float32 is float32", partial(float32_error, device))
    first = ("sfi", "strg", "nl", "stin", "stin-nl", "base", "orn", "ccau")
    for name in first if rows.small else (*first, *sorted(HEADS.names())):
        if name not in done(rows):
            rows.measure(name, partial(head_error, name, device, rows.small))
    if device.startswith("cuda"):
        rows.measure("memory that heads left", left_in_memory)
    shared = os.environ.get("IFCAR_SHARED")
    for file in FILES if shared else ():
        rows.measure(f"golden {file}", partial(golden_error, Path(str(shared)) / "golden", file, device))
    write_dataset(Path("something-else"), 12 if rows.small else 24)
    rows.measure("extract", partial(extraction_error, device, rows.small))
    rows.measure("fit-head", partial(training_error, device))
    write_rows(Path("random.zarr"), "toybox")
    rows.measure("where rows are kept", partial(memory_error, device))
    rows.measure("fleet", partial(fleet_error, device))
    rows.measure("a run that was stopped", partial(resume_error, device))
    if device.startswith("cuda"):
        rows.measure("a batch that does not fit", partial(halving_error, device))
        rows.measure("waits for the GPU in a step", partial(waits, device))


def done(rows: Rows) -> set[str]:
    """Return the names of the rows so far."""
    return {row["row"] for row in rows.found}


def difference(found: Any, expected: Any) -> float:
    """Return ‖found − expected‖ / ‖expected‖ in float64, inf where something is not finite."""
    first, second = (torch.as_tensor(value).detach().double().cpu().flatten() for value in (found, expected))
    value = float((first - second).norm() / second.norm())
    return value if np.isfinite(value) else float("inf")


def judged(kind: str, **errors: float) -> dict[str, Any]:
    """Return errors with the limit of their kind, and whether all keep it."""
    return {**errors, "limit": LIMITS[kind], "ok": all(error <= LIMITS[kind] for error in errors.values())}


def machine_facts(device: str) -> dict[str, Any]:
    """Return what the machine is and which switches torch has on."""
    content = {
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "free_gib": free_bytes() / 2**30,
        "shared_memory_gib": shutil.disk_usage("/dev/shm").free / 2**30 if Path("/dev/shm").is_dir() else None,
        "disk_gib": shutil.disk_usage(".").free / 2**30,
        "numpy": np.__version__,
        "product_precision": torch.get_float32_matmul_precision(),
        "convolutions_in_tf32": torch.backends.cudnn.allow_tf32,
    }
    if device.startswith("cuda"):
        query = "name,driver_version,memory.total,clocks.sm,clocks.max.sm,power.limit,temperature.gpu"
        said = subprocess.run(["nvidia-smi", f"--query-gpu={query}", "--format=csv"], capture_output=True, text=True)
        free, total = torch.cuda.mem_get_info(device)
        content |= {
            "nvidia_smi": said.stdout.splitlines(),
            "gpu_gib": total / 2**30,
            "gpu_free_gib": free / 2**30,
            "capability": list(torch.cuda.get_device_capability(device)),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    return content


def copies(device: str, small: bool) -> dict[str, float]:
    """Return GB a second: read by a copy on the device, and over the bus from pageable and from pinned memory."""
    found = {"on_device_gb_per_sec": copy_rate(device, 2**20 if small else 2**28) / 1e9}
    if device.startswith("cuda"):
        pageable = torch.randint(0, 256, (2**27,), dtype=torch.uint8)
        here = {"pageable": pageable, "pinned": pageable.pin_memory()}
        there = pageable.to(device)
        for name, memory in here.items():
            up, down = partial(there.copy_, memory), partial(memory.copy_, there)
            found[f"to_gpu_{name}_gb_per_sec"] = len(memory) / median(repeated(up, device)) / 1e9
            found[f"from_gpu_{name}_gb_per_sec"] = len(memory) / median(repeated(down, device)) / 1e9
    return found


def float32_error(device: str) -> dict[str, Any]:
    """Compare a convolution and a product with float64's, as the commands run them and with TF32 inputs."""
    torch.manual_seed(0)
    video, kernel = torch.randn(2, 16, 4, 28, 28), torch.randn(32, 16, 3, 3, 3)
    a, b = torch.randn(256, 1024), torch.randn(1024, 256)
    expected = [torch.conv3d(video.double(), kernel.double()), a.double() @ b.double()]

    def errors() -> list[float]:
        found = torch.conv3d(video.to(device), kernel.to(device)), a.to(device) @ b.to(device)
        return [difference(*pair) for pair in zip(found, expected, strict=True)]

    convolution, product = errors()
    with tf32(True):
        rounded = dict(zip(("tf32_convolution", "tf32_product"), errors(), strict=True))
    return {
        "convolution": convolution, "product": product, **rounded, "limit": 1e-5, "ok": max(convolution, product) < 1e-5
    }  # fmt: skip


def head_error(name: str, device: str, small: bool) -> dict[str, Any]:
    """Compare a head's logits and gradient with the CPU's, in float32 and evaluation mode, and its recorded steps."""
    torch.manual_seed(0)
    kind = HEADS.get(name)
    spec = CacheSpec.standard(
        num_frames=PAPER_SPEC.num_frames, num_steps=PAPER_SPEC.num_steps, num_instances=PAPER_SPEC.num_instances,
        channels=PAPER_SPEC.channels, pooled_size=PAPER_SPEC.pooled_size, grid_size=(7, 7),
        more=(MASKS, object_classes(["cup", "box", "pen"])),
    )  # fmt: skip
    config = narrow(kind.presets["paper"]) if small else kind.presets["paper"]
    if hasattr(config, "num_blocks"):
        config = replace(config, num_blocks=spec.num_steps)  # blocks of time divide the steps
    head = kind(config, spec, PAPER_CLASSES).eval()
    batch, labels = random_batch(8, spec), torch.arange(8)

    def outcome(where: str) -> tuple[torch.Tensor, torch.Tensor]:
        head.to(where).zero_grad(set_to_none=True)
        training_loss(head, batch.to(torch.device(where)), labels.to(where)).backward()
        gradient = torch.cat([p.grad.flatten().cpu() for p in head.parameters() if p.grad is not None])
        return head(batch.to(torch.device(where))).logits.cpu(), gradient

    expected, found = outcome("cpu"), outcome(device)
    errors = dict(zip(("logits", "gradient"), map(difference, found, expected), strict=True))
    recorded = {}
    if device.startswith("cuda"):
        for precision in ("fp32", "bf16"):
            step = StackStep(head, batch, labels, device, precision)
            errors[precision], recorded[f"{precision}_same_bits"] = record_error(step)
            recorded[f"{precision}_recorded"] = step.is_recorded
    ok = all(error <= LIMITS[name] for name, error in errors.items())
    return {**errors, **recorded, "ok": ok and False not in (recorded.get(k) for k in RECORDED)}


def record_error(step: StackStep) -> tuple[float, bool]:
    """Compare gradients and statistics of a step launched kernel by kernel with those of the same step, recorded.

    Returns:
        The largest difference of two recorded ones; whether all have the same bits.
    """
    before = {name: value.clone() for name, value in step.stack.constants.items()}
    left = []
    for compute in (step.launched, step.computed, step.computed):
        with torch.no_grad():
            step.stack.gradients.fill_(torch.nan)
            for name, value in before.items():
                step.stack.constants[name].copy_(value)
        compute()
        left.append(torch.cat([v.flatten().float() for v in (step.stack.gradients, *step.stack.constants.values())]))
    launched, *recorded = left
    return max(difference(own, launched) for own in recorded), all(torch.equal(own, launched) for own in recorded)


def left_in_memory() -> dict[str, Any]:
    """Return what of the GPU's memory is still taken after heads have come and gone: what libraries work with."""
    gc.collect()
    torch.cuda.empty_cache()
    mib = torch.cuda.memory_reserved() / 2**20
    return {"mib": mib, "limit": LEFT_MIB, "ok": mib <= LEFT_MIB}


def golden_error(folder: Path, file: str, device: str) -> dict[str, Any]:
    """Compare a head's logits with those of released code, in float32."""
    golden = load_golden(folder, file)
    head, where = golden.head.float().to(device), torch.device(device)
    single = {k: v.float() if v.is_floating_point() else v for k, v in golden.batch.arrays.items()}
    found = head(InstanceBatch(single).to(where)).logits
    return judged("logits", logits=difference(found, golden.array("out/logits")))


def extraction_error(device: str, small: bool) -> dict[str, Any]:
    """Extract the same clips on the CPU and on the device, and compare the rows that the caches hold."""
    found = {}
    crop, workers = (16, 0) if small else (64, 2)
    for name, where, precision in (("cpu", "cpu", "fp32"), ("fp32", device, "fp32"), ("bf16", device, "bf16")):
        config = ExtractConfig(
            dataset="something-else", data_root=Path("something-else"), out=Path(f"{name}.zarr"), crop=crop,
            workers=workers, weights=random_weights("i3d_r50"), device=where, precision=precision,
        )  # fmt: skip
        extract(config, Silent())
        reader = open_cache(Path(f"{name}.zarr"))
        found[name] = reader.read_rows("instance_features", np.arange(reader.num_rows)).astype(np.float32)
        reader.close()
    return judged("features", fp32=difference(found["fp32"], found["cpu"])) | {
        "bf16": difference(found["bf16"], found["cpu"])
    }


def training_error(device: str) -> dict[str, Any]:
    """Train the same run on the CPU and on the device, and compare weights; each device drops out at random its own."""
    config = make_run_config(
        "sfi", Path("cpu.zarr"), preset="small", aux_weight=5.0, settings={"joint.dropout": 0}, schedule=few_steps(2)
    )
    expected = fit(config, Silent(), out=Path("fit-cpu"), device="cpu")
    found = fit(config, Silent(), out=Path("fit-device"), device=device)
    return judged("weights", weights=weights_difference(found.run.path, expected.run.path)) | {"steps": found.steps}


def few_steps(epochs: int) -> ScheduleConfig:
    """Return the paper's schedule for a few epochs of small batches."""
    return ScheduleConfig(kind="paper", epochs=epochs, batch_size=4)


def weights_difference(found: Path, expected: Path) -> float:
    """Return the difference of two runs' weights."""
    states = [load_tensors(path / "model.safetensors") for path in (found, expected)]
    return difference(*(torch.cat([state[k].flatten().double() for k in sorted(state)]) for state in states))


def memory_error(device: str) -> dict[str, Any]:
    """Read the same batch from wherever rows can be kept; bytes must be the same."""
    places: list[Memory] = ["stream", "ram", *(["gpu"] if device.startswith("cuda") else [])]  # type: ignore[list-item]
    wanted = np.random.default_rng(0).permutation(288)[:64].reshape(2, 32)
    batches = {}
    for place in places:
        opened = open_rows(("instance_features", "boxes"), Path("random.zarr"), torch.device(device), place)
        opened.expect([wanted])
        batches[place] = opened.batch(wanted)
    expected = open_cache(Path("random.zarr")).read_rows("instance_features", wanted.ravel())
    same = {
        place: torch.equal(batch.array("instance_features").flatten(0, 1).cpu(), torch.from_numpy(expected))
        and batch.boxes.device.type == torch.device(device).type
        for place, batch in batches.items()
    }
    return {**same, "ok": all(same.values())}


def fleet_error(device: str) -> dict[str, Any]:
    """Train three runs together and each alone, and compare their weights after five steps."""
    config = make_config(Path("random.zarr"), "toybox")
    configs = [replace(config, seed=seed) for seed in range(3)]

    def weights(members: list[Any]) -> torch.Tensor:
        steps = FleetSteps(members, Path("random.zarr"), torch.device(device))
        for _ in range(5):
            steps()
        return steps.trainer.stack.weights

    together = weights(configs)
    errors = [difference(together[k], weights([own])[0]) for k, own in enumerate(configs)]
    return judged("fleet", worst=max(errors))


class Stops(Silent):
    """Stops a run, as Ctrl-C does, after this many rounds."""

    def __init__(self, rounds: int) -> None:
        self.rounds = rounds

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count a round."""
        if count:
            self.rounds -= 1
        if not self.rounds:
            raise KeyboardInterrupt


def resume_error(device: str) -> dict[str, Any]:
    """Stop a run and go on with it; it must end where the same run ends that is not stopped."""
    config = make_run_config("sfi", Path("cpu.zarr"), preset="small", aux_weight=5.0, schedule=few_steps(4))
    fit(config, Silent(), out=Path("whole"), device=device)
    try:
        fit(config, Stops(3), out=Path("stopped"), device=device)
    except KeyboardInterrupt:
        fit(config, Silent(), out=Path("stopped"), device=device, resume=True)
    return judged("fleet", weights=weights_difference(Path("stopped"), Path("whole")))


def halving_error(device: str) -> dict[str, Any]:
    """Let torch have too little memory for a batch of 32, which `extract` must halve, and compare with the whole."""
    spec = CacheSpec.standard(num_frames=8, num_steps=4, num_instances=2, channels=2048, pooled_size=3)
    items = decoded_views(32, crop=112)
    found, peaks_of = {}, {}
    for size in (32, 4):
        extractor = FeatureExtractor(
            backbone("cpu", crop=112), spec, "3", EngineOptions(batch_size=size, device=device)
        )
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        found[size] = extractor(items)["instance_features"].astype(np.float32)
        peaks_of[size] = torch.cuda.max_memory_reserved()
    torch.cuda.empty_cache()
    extractor = FeatureExtractor(backbone("cpu", crop=112), spec, "3", EngineOptions(batch_size=32, device=device))
    allowed = (peaks_of[32] + peaks_of[4]) / 2
    torch.cuda.set_per_process_memory_fraction(allowed / torch.cuda.mem_get_info(device)[1])
    try:
        halved = extractor(items)["instance_features"].astype(np.float32)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    error = difference(halved, found[32])
    return {
        "peak_mib": peaks_of[32] / 2**20, "allowed_mib": allowed / 2**20, "views_at_once": extractor.views_at_once,
        "features": error, "ok": error <= LIMITS["features"] and extractor.views_at_once < 32,
    }  # fmt: skip


def waits(device: str) -> dict[str, Any]:
    """Count the calls of a training step that wait for the GPU, by the line of ours that makes them."""
    steps = FleetSteps([make_config(Path("random.zarr"), "toybox")], Path("random.zarr"), torch.device(device))
    for _ in range(3):
        steps()
    synchronise(device)
    found = lines_that_wait(steps)
    return {"waits": sum(found.values()), "lines": dict(found)}


def lines_that_wait(step: Callable[[], object]) -> Counter[str]:
    """Return how often each line of ours makes torch wait for the GPU in one step."""
    root = str(Path(__file__).resolve().parents[1])
    found: Counter[str] = Counter()

    def note(message: Any, category: Any, filename: str, line: int, *_: Any, **__: Any) -> None:
        found[f"{filename.removeprefix(root).rpartition('site-packages/')[2]}:{line}"] += 1

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note
        torch.cuda.set_sync_debug_mode("warn")
        try:
            step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return found
