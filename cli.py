"""The command line: parses options, calls one pipeline function, prints. Heavy imports happen inside commands."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ifcar import __version__
from ifcar.console import Screen, fail, print_json, print_table
from ifcar.errors import IfcarError, InputError

if TYPE_CHECKING:
    from ifcar.pipelines.runs import Run
    from ifcar.pipelines.schedule import ScheduleConfig

app = typer.Typer(
    name="ifcar",
    help="Object-centric activity recognition: extract features once, then train every head from the cache.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
cache_app = typer.Typer(help="Look at, check, repair, draw and export caches.", no_args_is_help=True)
app.add_typer(cache_app, name="cache")

INTERRUPTED = 130

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
CacheOption = Annotated[Path | None, typer.Option(help="Cache to use; default: the only one in caches/.")]
CacheArgument = Annotated[Path, typer.Argument(help="Path of the cache, NAME.zarr or an exported NAME.h5.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, …; default: cuda where there is one.")]


@app.callback(invoke_without_command=True)
def options(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Run one of the commands below; `ifcar demo` shows the whole way in a few minutes."""
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
def demo(
    processes: Annotated[int | None, typer.Option(help="Training processes; default: one a core.")] = None,
    as_json: Json = False,
) -> None:
    """Go the whole way on generated videos: render, extract, train six heads over three seeds, fuse, tabulate."""
    from ifcar.pipelines.demo import demo as run_demo
    from ifcar.pipelines.demo import mean_and_deviation

    result = run_demo(Screen(quiet=as_json), processes=processes)
    if as_json:
        print_json({"rows": [asdict(r) for r in result.rows], "table": result.table})
        return
    for protocol in dict.fromkeys(r.protocol for r in result.rows):
        rows = [r for r in result.rows if r.protocol == protocol]
        print_table(
            f"toybox, {protocol}, {rows[0].n} test clips: percent, mean ± deviation over {len(rows[0].top1)} seeds",
            ["system", "top-1", "each seed", "top-5", "train top-1"],
            [
                [
                    r.system,
                    mean_and_deviation(r.top1),
                    " ".join(f"{100 * v:.1f}" for v in r.top1),
                    mean_and_deviation(r.top5),
                    mean_and_deviation(r.train_top1),
                ]
                for r in rows
            ],
        )
    _say(f"Table: {result.table}; pictures: {result.pictures[0].parent}/")
    _say("Next: `ifcar extract --dataset something-else --data-root FOLDER` for real videos, or `ifcar list runs`.")


@app.command()
def extract(
    dataset: Annotated[str, typer.Option(help="One of `ifcar list datasets`.")],
    data_root: Annotated[Path | None, typer.Option(help="The dataset's folder; default: data/DATASET.")] = None,
    out: Annotated[Path | None, typer.Option(help="The cache; default: caches/DATASET-BACKBONE.zarr.")] = None,
    backbone: Annotated[str, typer.Option(help="One of `ifcar list backbones`; none reads no pixels.")] = "i3d_r50",
    weights: Annotated[
        str | None, typer.Option(help="A file, published, or random:SEED; default: published (toybox: random:0).")
    ] = None,
    frames: Annotated[int, typer.Option(help="T, frames sampled for a view.")] = 8,
    crop: Annotated[int | None, typer.Option(help="Side of the crop in pixels; default: 224 (toybox: 112).")] = None,
    views: Annotated[int, typer.Option(help="V, views of a clip; all but the first of training clips vary.")] = 1,
    instances: Annotated[int, typer.Option(help="N, instance slots: subjects first, then the longest tracks.")] = 4,
    spatial_stride: Annotated[int, typer.Option(help="16 or 32 pixels a cell of the last feature map.")] = 16,
    pooled: Annotated[str, typer.Option(help="RoIAlign bins: 3, or 7-max (7×7, max-pooled to one).")] = "3",
    grid: Annotated[bool, typer.Option("--grid", help="Store the feature map itself as well.")] = False,
    framing: Annotated[str, typer.Option(help="View 0: stretch (whole frame) or center (centre square).")] = "stretch",
    flip: Annotated[bool, typer.Option("--flip", help="Mirror half of the augmented views.")] = False,
    seed: Annotated[int, typer.Option(help="Of the augmented views.")] = 0,
    batch_size: Annotated[int, typer.Option(help="Views per forward pass.")] = 8,
    workers: Annotated[int | None, typer.Option(help="Decoding processes; default: cores − 1, at most 8.")] = None,
    precision: Annotated[str, typer.Option(help="fp32 or bf16.")] = "fp32",
    device: Device = None,
    limit: Annotated[int | None, typer.Option(help="Only the first so many clips.")] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try failed clips again.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Remove a cache that is in the way.")] = False,
    as_json: Json = False,
) -> None:
    """Run the backbone once over every clip and write the cache; interrupted and run again, it goes on."""
    values = {k: v for k, v in locals().items() if k != "as_json"}
    from ifcar.pipelines.extract import extract as run_extract
    from ifcar.pipelines.sources import ExtractConfig

    result = run_extract(ExtractConfig(**values), Screen(quiet=as_json))
    if as_json:
        print_json(asdict(result))
    else:
        for note in result.notes[:20]:
            _say(f"note: {note}")
        if len(result.notes) > 20:
            _say(f"note: … and {len(result.notes) - 20} more (all with --json)")
        print_table(
            str(result.cache),
            ["clips", "rows", "computed now", "failed"],
            [[str(v) for v in (result.num_clips, result.num_rows, result.num_computed, result.num_failed)]],
        )
        streams = " --streams layout" if backbone == "none" else ""
        _say(f"Next: `ifcar fit-head sfi{streams} --aux-weight 5`, or `ifcar cache show {result.cache}` for pictures.")
    if result.num_failed:
        _say(f"{result.num_failed} rows failed; reasons in {result.failures_file}; try again with --retry-failed")
        raise typer.Exit(1)


@app.command("fit-head")
def fit_head(
    head: Annotated[str | None, typer.Argument(help="One of `ifcar list heads`; not with --config.")] = None,
    cache: CacheOption = None,
    protocol: Annotated[str | None, typer.Option(help="Default: compositional, or the only one.")] = None,
    preset: Annotated[str, typer.Option(help="paper, small, or another of `ifcar list heads`.")] = "paper",
    streams: Annotated[str | None, typer.Option(help="appearance, layout or both.")] = None,
    aux_weight: Annotated[float, typer.Option(help="Weight λ of the auxiliary loss; 0: without.")] = 0.0,
    schedule: Annotated[str, typer.Option(help="auto, paper or stretched.")] = "auto",
    epochs: Annotated[int | None, typer.Option(help="Number of epochs.")] = None,
    min_steps: Annotated[int | None, typer.Option(help="Fewest steps of a stretched schedule (1500).")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Clips per step; default: 72, or 32 stretched.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate; default: 1e-2 SGD, 1e-3 Adam.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Default: 1e-4.")] = None,
    label_smoothing: Annotated[float | None, typer.Option(help="Default: 0.")] = None,
    refit: Annotated[
        bool | None, typer.Option(help="Train again on the whole training split up to the stopping point.")
    ] = None,
    setting: Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE of a head option.")] = None,
    seed: Annotated[int, typer.Option(help="Of weights, batches, views and dropout.")] = 0,
    config: Annotated[Path | None, typer.Option(help="A run's config.yaml, in place of the options above.")] = None,
    device: Device = None,
    memory: Annotated[str, typer.Option(help="auto, ram (preload) or stream (read every batch).")] = "auto",
    out: Annotated[Path | None, typer.Option(help="Run folder; default: a fresh one in runs/.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the stopped run in --out.")] = False,
    as_json: Json = False,
) -> None:
    """Train one head from a cache and evaluate it on the protocol's test clips."""
    from dataclasses import replace

    from ifcar.pipelines.fit import fit, make_run_config
    from ifcar.pipelines.folders import only_cache
    from ifcar.pipelines.runs import RunConfig, read_config

    if resume and out is None:
        raise InputError("--resume needs --out, the folder of the stopped run")
    if memory not in ("auto", "ram", "stream"):
        raise InputError(f"--memory is {memory!r}; expected auto, ram or stream")
    if config is not None or (resume and head is None and out is not None):
        source = config or Path(str(out)) / "config.yaml"
        read = read_config(source)
        if head is not None or not isinstance(read, RunConfig):
            raise InputError(f"{source}: give a head's config alone, without a head name")
        run_config = read if cache is None else replace(read, cache=cache)
    elif head is None:
        raise InputError("name a head (`ifcar list heads`), or give --config")
    else:
        run_config = make_run_config(
            head,
            only_cache(cache),
            protocol=protocol,
            preset=preset,
            streams=streams,
            aux_weight=aux_weight,
            settings=setting or (),
            schedule=_schedule(
                kind=schedule,
                epochs=epochs,
                min_steps=min_steps,
                batch_size=batch_size,
                lr=lr,
                weight_decay=weight_decay,
                label_smoothing=label_smoothing,
                refit=refit,
            ),
            seed=seed,
        )
    result = fit(
        run_config,
        Screen(quiet=as_json),
        out=out,
        resume=resume,
        device=device,
        memory=memory,  # type: ignore[arg-type]
    )
    plan = result.plan
    used = f"{plan.kind} schedule, {result.steps:,} steps of {plan.optimizer}, batch {plan.batch_size}"
    if result.best_step is not None:
        used += f"; stopping point step {result.best_step:,}, chosen on the held-out part of the training split"
        used += ", then trained again on all of it" if result.refit else ""
    if as_json:
        print_json({"run": result.run.path, "schedule": used, "metrics": [asdict(m) for m in result.run.metrics]})
        return
    _print_metrics(result.run)
    _say(f"Used: {used}.")
    _say(f"Next: `ifcar evaluate {result.run.path}` (per class), or `ifcar ensemble` once an i3d run stands beside it.")


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    cache: Annotated[Path | None, typer.Option(help="The run's cache, when it was moved.")] = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Score a run's test clips again from its weights and cache: top-1, top-5 and per class."""
    from ifcar.pipelines.evaluate import evaluate as run_evaluate

    result = run_evaluate(run, cache=cache, device=device)
    if as_json:
        print_json(asdict(result))
    else:
        m = result.metrics
        print_table(
            f"{run}, per class",
            ["class", "n", "top-1"],
            [[str(c["class"]), str(c["n"]), f"{100 * c['top1']:.1f}"] for c in result.classes],
        )
        _say(f"test, n = {m.n}: top-1 {100 * m.top1:.1f}, top-5 {100 * m.top5:.1f}, loss {m.loss:.3f}")
        _say(f"The logits stored with the run are {'the same' if result.agrees else 'NOT the same (over 1e-4 apart)'}.")
    if not result.agrees:
        raise typer.Exit(1)


@app.command()
def ensemble(
    runs: Annotated[list[Path] | None, typer.Argument(help="Runs; default: newest i3d and newest relational.")] = None,
    weights: Annotated[
        str | None, typer.Option(help="One number a run, comma-separated, or held-out; default: equal.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; default: a fresh one in runs/.")] = None,
    as_json: Json = False,
) -> None:
    """Fuse runs late: the weighted average of their class probabilities."""
    from ifcar.pipelines.ensemble import ensemble as run_ensemble

    result = run_ensemble(runs or [], weights=_weights(weights), out=out)
    if as_json:
        members = [m.path for m in result.members]
        metrics = [asdict(m) for m in result.run.metrics]
        print_json({"run": result.run.path, "members": members, "weights": result.weights, "metrics": metrics})
        return
    rows = []
    for member, weight in [*zip(result.members, result.weights, strict=True), (result.run, None)]:
        test = member.metric("test")
        assert test is not None
        share = "" if weight is None else f"{weight:.3f}"
        rows.append([str(member.path), share, str(test.n), f"{100 * test.top1:.1f}", f"{100 * test.top5:.1f}"])
    print_table("late fusion, test clips", ["run", "weight", "n", "top-1", "top-5"], rows)
    if not runs:
        _say(
            "Fused: the newest finished i3d run and the newest finished relational run of the same cache and protocol."
        )


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(help="datasets, backbones, heads, caches or runs.")], as_json: Json = False
) -> None:
    """List what there is."""
    from ifcar.pipelines.listing import LISTINGS

    if what not in LISTINGS:
        raise InputError(f"cannot list {what!r}; expected one of {', '.join(LISTINGS)}")
    columns, rows = LISTINGS[what]()
    if as_json:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        print_table(what, columns, rows)


@cache_app.command()
def info(cache: CacheArgument, as_json: Json = False) -> None:
    """Show what a cache holds: arrays, protocols, provenance and failed clips."""
    from ifcar.pipelines.listing import describe_cache

    facts = describe_cache(cache)
    if as_json:
        print_json(facts)
        return
    print_table(str(cache), ["array", "shape", "dtype", "MiB"], facts["arrays"])
    print_table("protocols", ["name", "classes", "train", "test", "groups"], facts["protocols"])
    for line in facts["facts"]:
        _say(line)
    if facts["failures"]:
        print_table("failed", ["row", "clip", "view", "reason"], facts["failures"])


@cache_app.command()
def verify(cache: CacheArgument, as_json: Json = False) -> None:
    """Read every byte again and name what is damaged; exit 1 when anything is."""
    from ifcar.cache.verify import verify_cache
    from ifcar.pipelines.progress import counter

    report = verify_cache(cache, counter(Screen(quiet=as_json), "verifying"))
    lines = [str(d) for d in report.damages]
    if as_json:
        print_json({"clean": not lines, "damages": lines})
    else:
        for line in lines:
            _say(line)
        _say(f"{cache}: {'clean' if not lines else f'{len(lines)} damaged; mend with `ifcar cache repair {cache}`'}")
    if lines:
        raise typer.Exit(1)


@cache_app.command()
def repair(cache: CacheArgument, as_json: Json = False) -> None:
    """Drop damaged blocks, so that running `ifcar extract` again computes just those."""
    from ifcar.cache.verify import repair_cache

    blocks = repair_cache(cache)
    if as_json:
        print_json({"dropped": blocks})
    elif blocks:
        _say(f"{cache}: dropped blocks {', '.join(map(str, blocks))}; run the same `ifcar extract` again")
    else:
        _say(f"{cache}: nothing to drop")


@cache_app.command()
def export(
    cache: CacheArgument,
    out: Annotated[Path | None, typer.Option(help="The file; default: the cache's name with .h5.")] = None,
    format_: Annotated[str, typer.Option("--format", help="hdf5.")] = "hdf5",
    as_json: Json = False,
) -> None:
    """Write a finished cache as one HDF5 file; every command that takes --cache reads it back."""
    from ifcar.cache.export import export_hdf5
    from ifcar.pipelines.progress import counter

    if format_ != "hdf5":
        raise InputError(f"--format is {format_!r}; expected hdf5")
    path = out or cache.with_suffix(".h5")
    export_hdf5(cache, path, counter(Screen(quiet=as_json), "exporting"))
    if as_json:
        print_json({"path": path, "bytes": path.stat().st_size})
    else:
        _say(f"{path}: {path.stat().st_size / 2**20:,.1f} MiB")


@cache_app.command()
def show(
    cache: CacheArgument,
    clip: Annotated[list[str] | None, typer.Option(help="Clip to draw; again for more; default: ten.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("pictures"),
    data_root: Annotated[Path | None, typer.Option(help="The dataset's folder; default: data/DATASET.")] = None,
    as_json: Json = False,
) -> None:
    """Draw clips as PNG: the sampled frames with the boxes that heads are given."""
    from ifcar.cache.reader import open_cache
    from ifcar.pipelines.pictures import draw_clips

    paths = draw_clips(open_cache(cache), clip or [], out, data_root)
    if as_json:
        print_json({"pictures": paths})
    else:
        _say(f"{len(paths)} pictures in {out}/")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 some items failed, 2 bad input, 130 interrupted."""
    logging.basicConfig(format="ifcar: %(message)s", level=logging.WARNING)
    debug = bool(os.environ.get("IFCAR_DEBUG"))
    try:
        code = app(args=None if arguments is None else list(arguments), standalone_mode=False)
        if code == INTERRUPTED:
            raise KeyboardInterrupt  # newer typer turns Ctrl-C into this code
    except IfcarError as error:
        if debug:
            raise
        code = fail(str(error))
    except (KeyboardInterrupt, typer.Abort):
        code = fail(
            "interrupted; what is finished is kept, go on with the same command (fit-head: --resume --out RUN)",
            INTERRUPTED,
        )
    except OSError as error:
        if debug:
            raise
        code = fail(f"{error.filename or 'a file'}: {error.strerror or error}")
    except Exception as error:
        if not _is_usage_error(error):
            raise
        code = fail(f"{error.format_message()}; see `ifcar --help`")  # type: ignore[attr-defined]
    sys.exit(code if isinstance(code, int) else 0)


def _is_usage_error(error: Exception) -> bool:
    """Return whether typer's parser raised it: typer carries its own copy of click or uses the installed one."""
    return any(kind.__name__ == "ClickException" for kind in type(error).__mro__)


def _schedule(**values: Any) -> ScheduleConfig:
    """Return the schedule with the given options; None leaves a default."""
    from ifcar.pipelines.configs import from_plain
    from ifcar.pipelines.schedule import ScheduleConfig

    return from_plain(ScheduleConfig, {k: v for k, v in values.items() if v is not None}, "options")


def _weights(text: str | None) -> Any:
    if text is None:
        return None
    if text in ("held-out", "held_out"):
        return "held_out"
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--weights is {text!r}; expected numbers such as 0.4,0.6, or held-out") from None


def _print_metrics(run: Run) -> None:
    rows = [[m.split, str(m.n), f"{100 * m.top1:.1f}", f"{100 * m.top5:.1f}", f"{m.loss:.3f}"] for m in run.metrics]
    print_table(str(run.path), ["part", "n", "top-1", "top-5", "loss"], rows)


def _say(line: str) -> None:
    typer.echo(line, err=False)
