"""`ifcar cache push` and `pull`: caches in object storage."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ifcar.commands.options import Json, place, say
from ifcar.console import Screen, print_json
from ifcar.errors import InputError
from ifcar.shell_words import command

if TYPE_CHECKING:
    from ifcar.cache.addresses import Address

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
    kept = f"; {moved.kept} blocks that only the bucket has stay there" if moved.kept else ""
    say(f"{address}: {moved.blocks} blocks; {moved.files} files sent, {moved.size_bytes / 2**20:,.1f} MiB{kept}")


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
    kept = f"; {moved.kept} blocks that only this folder has stay" if moved.kept else ""
    mib = moved.size_bytes / 2**20
    say(f"{cache}: {moved.blocks} blocks; {moved.files} files fetched, {mib:,.1f} MiB{kept}")
    say(f"Next: {command('ifcar', 'cache', 'info', cache)}")


def _address(place: Path) -> Address:
    from ifcar.cache.addresses import Address

    if not isinstance(place, Address):
        raise InputError(f"{place} is a local path; expected an address, as s3://BUCKET/NAME.zarr")
    return place
