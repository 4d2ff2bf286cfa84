"""All that a GPU must show, in one command: python benchmarks/gpu.py --out FOLDER [--budget 480] [--small] [--parts …].

In order of worth:

check       the machine and its peaks, copies, every head and a small extraction and training against the CPU
extraction  three backbones from memory in every form, then from videos with 16 decoders, beside the decoders alone
heads       a training step at the paper's size against the time of its operations
fleets      time per run of fleets of 1 to 64
full_size   Something-Else's training part, from the GPU's memory, main memory and disk, and the papers' tables

Each part is a process of its own with a time box, a share of what is left of the budget when it begins, so that what
one part leaves is for those after it; at its box's end it is killed with all that it started. Its file
FOLDER/gpu-PART.json is whole after every row, so that a cut, a crash or a hang loses one row at most. Figures that were
not measured to the end have "extrapolated" in their name. The last line says what is done; the exit code is 0 when
nothing failed.

--small shows on a CPU that everything runs, in a minute; its figures mean nothing.
The variable BENCHMARK_WEIGHTS may name a folder that has random weights or keeps them for another call.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from gpu_rows import Rows, ended
from machine import WEIGHTS, hardware

from ifcar.devices import choose_device

SHARES = {"check": 75, "extraction": 150, "heads": 60, "fleets": 75, "full_size": 120}  # of the time, as of 480 s
GRACE = 5.0  # seconds between what a part is told of its box and its end


def run_part(part: str, options: argparse.Namespace, ends: float, weights: str) -> str:
    """Run a part in a process of its own, end it at its box's end, and return one line on what it did."""
    path = options.out / f"gpu-{part}.json"
    path.unlink(missing_ok=True)
    command = [sys.executable, str(Path(__file__).resolve()), "--out", str(options.out), "--device", options.device]
    command += ["--alone", part, "--ends", str(ends - GRACE), *(["--small"] if options.small else [])]
    with tempfile.TemporaryDirectory() as folder:
        # The folder goes with the part, however that ends; a relative path would mean another place in it.
        paths = os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path if entry)
        where = {"PYTHONPATH": paths, WEIGHTS: weights}
        process = subprocess.Popen(command, process_group=0, cwd=folder, env={**os.environ, **where})
        try:
            code = process.wait(max(0.0, ends - time.monotonic()))
            how = f"died with exit code {code}"
        except subprocess.TimeoutExpired:
            how = "killed at its box's end"
        finally:
            kill_group(process)
    content = ended(path, part, how)
    rows = content["rows"]
    counts = {
        "failed": sum("failed" in row or row.get("ok") is False for row in rows),
        "not begun": sum("not_begun" in row for row in rows),
    }
    notes = "".join(f", {count} {what}" for what, count in counts.items() if count)
    return f"{part} {content['ended']}: {len(rows)} rows{notes}"


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """End a part's process and those that it started and left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def run_alone(part: str, options: argparse.Namespace) -> bool:
    """Run one part in this process and folder; return whether all went well."""
    path = options.out / f"gpu-{part}.json"
    rows = Rows(path, part, choose_device(options.device), small=options.small, ends=options.ends)
    try:
        importlib.import_module(f"gpu_{part}").run(rows)
    except Exception as error:
        rows.fail("the part itself", error)
    return rows.end()


def main() -> None:
    """Run the parts one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--budget", type=float, default=480, help="seconds for everything; default: 480")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--parts", nargs="+", choices=SHARES, default=list(SHARES))
    parser.add_argument("--alone", choices=SHARES, help=argparse.SUPPRESS)
    parser.add_argument("--ends", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    started = time.monotonic()
    options.out = options.out.absolute()
    if options.alone:
        sys.exit(0 if run_alone(options.alone, options) else 1)
    if options.device == "cpu" and not options.small:
        parser.error("torch sees no GPU; --small shows on a CPU that everything runs")
    options.out.mkdir(parents=True, exist_ok=True)
    print(f"{hardware(options.device)}, torch {torch.__version__}, {options.budget:.0f} s", flush=True)
    lines = []
    with tempfile.TemporaryDirectory() as drawn:  # by the first part that needs them, for all
        weights = os.environ.get(WEIGHTS, drawn)
        for number, part in enumerate(options.parts):
            now = time.monotonic()
            left = started + options.budget - now
            share = SHARES[part] / sum(SHARES[later] for later in options.parts[number:])
            lines.append(run_part(part, options, now + share * left, weights))
            print(f"== {lines[-1]}", flush=True)
    taken = time.monotonic() - started
    print(f"done in {taken:.0f} of {options.budget:.0f} s: " + "; ".join(lines))
    sys.exit(0 if all(" failed" not in line and " through" in line for line in lines) else 1)


if __name__ == "__main__":
    main()
