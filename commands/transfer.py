"""`ifcar cache push` and `pull`: caches in object storage."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ifcar.commands.options import Json, place, say
from ifcar.console import Screen, print_json
from ifcar.counts import count_of
from ifcar.errors import InputError
from ifcar.shell_words import command

if TYPE_CHECKING:
    from ifcar.cache.addresses import Address
    from ifcar.cache.push import Moved

AddressArgument = Annotated[
    Path, typer.Argument(help="As s3://BUCKET/NAME.zarr, gs://… or az://…; to pull also https://….", callback=place)
]


def push(
    cache: Annotated[Path, typer.Argument(help="Path of the cache, NAME.zarr.")],
    address: AddressArgument,
    as_json: Json = False,
) -> None:
    """Send a cache into object storage, every byte checked; run it again to go on, or to send what is new."""
    from ifcar.cache.push import push_cache
    from ifcar.pipelines.progress import counter

    moved = push_cache(cache, _address(address), counter(Screen(quiet=as_json), "pushing"))
    if as_json:
        print_json({"address": str(address), **asdict(moved)})
        return
    say(f"{address}: {_what_moved(moved, 'sent', 'the bucket')}")


def pull(
    address: AddressArgument,
    cache: Annotated[Path, typer.Argument(help="The folder, NAME.zarr; made where it is not there.")],
    as_json: Json = False,
) -> None:
    """Fetch a cache out of object storage, every byte checked; run it again to go on, or to fetch what is new."""
    from ifcar.cache.pull import pull_cache
    from ifcar.pipelines.progress import counter

    moved = pull_cache(_address(address), cache, counter(Screen(quiet=as_json), "pulling"))
    if as_json:
        print_json({"cache": str(cache), **asdict(moved)})
        return
    say(f"{cache}: {_what_moved(moved, 'fetched', 'this folder')}")
    say(f"Next: {command('ifcar', 'cache', 'info', cache)}")


def _what_moved(moved: Moved, done: str, where: str) -> str:
    """Return what was sent or fetched, and which blocks stay that only the receiving side has."""
    kept = count_of(moved.kept, f"block that only {where} has stays", f"blocks that only {where} has stay")
    blocks, files = count_of(moved.blocks, "block"), count_of(moved.files, "file")
    return f"{blocks}; {files} {done}, {moved.size_bytes / 2**20:,.1f} MiB{f'; {kept}' if moved.kept else ''}"


def _address(place: Path) -> Address:
    from ifcar.cache.addresses import Address

    if not isinstance(place, Address):
        raise InputError(f"{place} is a local path; expected an address, as s3://BUCKET/NAME.zarr")
    return place
