"""`ifcar cache …`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ifcar.cache.addresses import Address
from ifcar.commands.config_options import Given, OptionsOf, with_config_options
from ifcar.commands.options import CacheArgument, Json, places, say
from ifcar.console import Screen, json_rows, print_json, print_table
from ifcar.counts import count_of
from ifcar.errors import InputError, nearest_of
from ifcar.pipelines.extraction.cache_options import ExportConfig, RecomputeConfig, ShowConfig
from ifcar.shell_words import command

if TYPE_CHECKING:
    from ifcar.pipelines.recompute import Recomputed


ARRAYS = ("array", "shape", "dtype", "MiB", "role")
PROTOCOLS = ("name", "labels", "of each", "classes", "train", "test", "groups", "by")
FAILURES = ("row", "clip", "view", "reason")


def info(cache: CacheArgument, as_json: Json = False) -> None:
    """Show what a cache holds: arrays, protocols, provenance and failed clips."""
    from ifcar.pipelines.listing import describe_cache

    found = describe_cache(cache)
    tables = {
        "arrays": (ARRAYS, found["arrays"]),
        "protocols": (PROTOCOLS, found["protocols"]),
        "failures": (FAILURES, found["failures"]),
    }
    if as_json:
        print_json({**found["typed"], **{key: json_rows(columns, rows) for key, (columns, rows) in tables.items()}})
        return
    print_table(str(cache), ARRAYS, found["arrays"])
    print_table("protocols", PROTOCOLS, found["protocols"])
    for line in found["facts"]:
        say(line)
    if found["failures"]:
        print_table("failed", FAILURES, found["failures"])


def join(
    streams: Annotated[
        list[str],
        typer.Argument(help="NAME=CACHE, or NAME=CACHE:CAMERA,CAMERA of some cameras of a cache.", show_default=False),
    ],
    out: Annotated[Path, typer.Option(help="The join, a file ending in .join.json.")],
    shuffled: Annotated[
        list[str] | None,
        typer.Option(help="A stream to show other recordings in, as a control of joint training; again for more."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Join caches of the same moments by their segments, so that heads of several streams train on them."""
    from ifcar.cache.joining import join_caches
    from ifcar.cache.open import open_cache, protocol_to_name
    from ifcar.cache.segments import Stream
    from ifcar.cache.single import JOIN_SUFFIX

    if not out.name.endswith(JOIN_SUFFIX):
        raise InputError(f"--out is {out}; expected a name ending in {JOIN_SUFFIX}")
    named: dict[str, Stream] = {}
    for text in streams:
        name, equals, place = text.partition("=")
        path, _, cameras = _with_cameras(place)
        if not equals or not path:
            raise InputError(f"{text!r}: expected NAME=CACHE or NAME=CACHE:CAMERA,CAMERA")
        if name in named:
            raise InputError(f"{text!r}: the stream {name!r} is given twice; every stream needs a name of its own")
        shown = tuple(filter(None, cameras.split(",")))
        named[name] = Stream(cache=Path(path), cameras=shown, shuffled=name in (shuffled or ()))
    for name in shuffled or ():
        if name not in named:
            raise InputError(f"--shuffled {name!r}: no such stream{nearest_of(name, named)}")
    made = join_caches(named, out)
    if as_json:
        print_json(asdict(made))
        return
    for name, count in made.dropped.items():
        dropped = f"{count_of(count, 'segment')} dropped, which another stream lacks"
        say(f"{name}: {dropped if count else 'all segments'}")
    protocol = protocol_to_name(open_cache(out))
    words = [] if protocol is None else ["--protocol", protocol]
    fit = command("ifcar", "fit-head", "ccau", "--cache", out, *words)
    say(f"{out}: {count_of(made.num_segments, 'segment')}. Next: {fit}")


def _with_cameras(text: str) -> tuple[str, str, str]:
    """Return a cache and the cameras after its colon; an address has colons of its own."""
    before, colon, after = text.rpartition(":")
    of_address = "/" in after
    return (before, colon, after) if colon and not of_address and not Path(text).exists() else (text, "", "")


def parts(
    caches: Annotated[
        list[Path],
        typer.Argument(help="The parts: .zarr folders, exported .h5, or addresses in object storage.", callback=places),
    ],
    out: Annotated[Path, typer.Option(help="The list of parts, a file ending in .parts.json.")],
    as_json: Json = False,
) -> None:
    """List the parts of a cache, extracted apart, so that every command that takes --cache reads them as one."""
    from ifcar.cache.parts import write_parts
    from ifcar.cache.single import PARTS_SUFFIX

    if not out.name.endswith(PARTS_SUFFIX):
        raise InputError(f"--out is {out}; expected a name ending in {PARTS_SUFFIX}")
    reader = write_parts(caches, out)
    if as_json:
        facts = {"path": out, "parts": len(caches), "clips": reader.num_clips, "rows": reader.num_rows}
        print_json({**facts, "fingerprint": reader.fingerprint})
        return
    counts = (len(caches), "part"), (reader.num_clips, "clip"), (reader.num_rows, "row")
    say(f"{out}: {', '.join(count_of(*own) for own in counts)}.")
    say(f"Next: {command('ifcar', 'cache', 'info', out)}, or --cache {out} of any command.")


@with_config_options
def verify(
    cache: CacheArgument,
    options: Annotated[Given, OptionsOf(RecomputeConfig, stated={"rows": "none"})],
    as_json: Json = False,
) -> None:
    """Read every byte again and name what is damaged; with --recompute also make rows anew. Exit 1 when one differs."""
    from ifcar.cache.verify import verify_cache
    from ifcar.pipelines.progress import counter

    given = options.read()
    if given and "rows" not in given:
        flags = [field.flag for field in options.values]
        raise InputError(f"{flags[0]} would be ignored: it belongs to --recompute N")
    screen = Screen(quiet=as_json)
    report = verify_cache(cache, counter(screen, "verifying"))
    lines = [str(d) for d in report.damages]
    again = _recompute(cache, given, screen) if given and not lines else None
    if as_json:
        print_json({"clean": not lines, "damages": lines} | ({"recomputed": asdict(again)} if again else {}))
    else:
        for line in lines:
            say(line)
        is_local = not isinstance(cache, Address)  # the lines themselves say what to do in object storage
        mend = f"; mend with {command('ifcar', 'cache', 'repair', cache)}" if is_local else ""
        say(f"{cache}: {f'{len(lines)} damaged{mend}' if lines else 'clean'}")
        if report.num_pending and not lines:
            rows = count_of(report.num_pending, "is", of=count_of(report.num_rows, "row"))
            say(f"{rows} not extracted yet; run the same `ifcar extract` to finish")
        if again is not None:
            _print_recomputed(again)
    if lines or (again is not None and again.faults):
        raise typer.Exit(1)


def _recompute(cache: Path, given: Mapping[str, Any], screen: Screen) -> Recomputed:
    from ifcar.pipelines.recompute import recompute

    return recompute(cache, RecomputeConfig(**given), screen)


def _print_recomputed(again: Recomputed) -> None:
    rows = [
        [
            d.name,
            f"{d.largest:.3g}",
            f"{d.mean:.3g}",
            f"{d.cosine:.6f}",
            f"{d.relative:.2g}",
            f"{d.bound:.2g}",
            len(d.beyond),
        ]
        for d in again.arrays
    ]
    columns = ["array", "largest difference", "mean", "lowest cosine", "relative to a row", "at most", "rows beyond"]
    print_table(f"{count_of(len(again.rows), 'row')} computed again", columns, rows)
    if again.environment:
        print_table("what has changed since", ["what", "then", "now"], again.environment)
    else:
        say("nothing has changed since of what the cache records: decoder, packages, device")
    for line in again.faults.values():
        say(line)
    say(again.verdict())


def repair(cache: CacheArgument, as_json: Json = False) -> None:
    """Drop damaged blocks, of each part where there are parts, so that running `ifcar extract` again computes those."""
    from ifcar.cache.repair import repair_cache

    dropped = repair_cache(cache)
    if as_json:
        parts = [{"cache": place, "dropped": blocks} for place, blocks in dropped.items()]
        print_json({"dropped": dropped[cache]} if cache in dropped else {"parts": parts})
        return
    for place, blocks in dropped.items():
        said = f"dropped blocks {', '.join(map(str, blocks))}; run the same `ifcar extract` again"
        say(f"{place}: {said if blocks else 'nothing to drop'}")


@with_config_options
def export(cache: CacheArgument, options: Annotated[Given, OptionsOf(ExportConfig)], as_json: Json = False) -> None:
    """Write a finished cache as one HDF5 file; every command that takes --cache reads it back."""
    from ifcar.cache.export import export_hdf5
    from ifcar.cache.open import refuse_address
    from ifcar.pipelines.progress import counter

    config = ExportConfig(**options.read())
    if config.out is None:
        refuse_address(cache, "name the file with --out")
    path = config.out or cache.with_suffix(".h5")
    export_hdf5(cache, path, counter(Screen(quiet=as_json), "exporting"))
    if as_json:
        print_json({"path": path, "bytes": path.stat().st_size})
    else:
        say(f"{path}: {path.stat().st_size / 2**20:,.1f} MiB")


@with_config_options
def show(cache: CacheArgument, options: Annotated[Given, OptionsOf(ShowConfig)], as_json: Json = False) -> None:
    """Draw clips as PNG: the sampled frames with the boxes that heads are given."""
    from ifcar.cache.open import open_cache
    from ifcar.pipelines.pictures.clips import draw_clips

    config = ShowConfig(**options.read())
    paths = draw_clips(open_cache(cache), config.clip, config.out, config.data_root)
    if as_json:
        print_json({"pictures": paths})
    else:
        say(f"{count_of(len(paths), 'picture')} in {config.out}/")
