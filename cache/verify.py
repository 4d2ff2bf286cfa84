"""Re-read a cache byte by byte, and name all that is damaged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from ifcar.cache.addresses import Address, place_of
from ifcar.cache.commits import (
    COMMITS,
    TABLES_RECORD,
    CommitRecord,
    TablesRecord,
    check_commit,
    commit_name,
    digest_problem,
    read_commit,
    read_tables,
)
from ifcar.cache.damage import Damage, DamageKind, VerifyReport
from ifcar.cache.durable import list_files
from ifcar.cache.layout import PROTOCOLS, read_clips, read_manifest
from ifcar.cache.manifest import COMPRESSIONS, Manifest, check_fingerprint, describe_row
from ifcar.cache.parts import PartsReader, open_each, part_places
from ifcar.cache.schema import ROWS_PER_SHARD
from ifcar.cache.shards import ShardedArray, ShardPool
from ifcar.cache.single import HDF5_SUFFIXES, JOIN_SUFFIX, PARTS_SUFFIX
from ifcar.cache.zarr_reader import read_table_block
from ifcar.errors import CacheDamageError, IfcarError, InputError, MissingDataError

Progress = Callable[[int, int], None]


def check_form(path: Path) -> None:
    """Raise InputError for a join, whose rows are those of other caches."""
    if path.name.endswith(JOIN_SUFFIX):
        raise InputError(f"{path} is a join and has no rows of its own; give the caches that it joins, one by one")


def verify_cache(path: Path, progress: Progress | None = None) -> VerifyReport:
    """Read every byte of a cache and name all that is damaged, missing or not of the cache.

    Args:
        path: a `.zarr` folder, its address in object storage, or a file that `export_hdf5` or `write_parts` wrote.
        progress: called with (blocks done, blocks in all).

    Raises:
        MissingDataError: there is nothing at `path`.
        InputError: it is no cache, or one of another format version.
    """
    check_form(path)
    path = place_of(path)
    if isinstance(path, Address):
        # object storage needs a package of its own
        from ifcar.cache.bucket_verify import verify_bucket

        return verify_bucket(path, progress)
    if not path.exists():
        raise MissingDataError(f"there is no cache at {path}; make one with `ifcar extract`")
    if path.is_file() and path.suffix in HDF5_SUFFIXES:
        # h5py costs start-up time that Zarr caches need not pay
        from ifcar.cache.hdf5 import verify_hdf5

        return verify_hdf5(path, progress)
    if path.name.endswith(PARTS_SUFFIX):
        return _verify_parts(path, progress)
    return _Verification(path).run(progress)


def _verify_parts(path: Path, progress: Progress | None) -> VerifyReport:
    """Verify parts one after the other, that they are what was listed and, once all are finished, one cache."""
    places, reports = part_places(path), list[VerifyReport]()
    for place in places:
        reports.append(verify_cache(place))
        if progress:
            progress(len(reports), len(places))
    if all(report.ok for report in reports):
        parts = open_each(path)
        for part in parts if any(report.num_pending for report in reports) else [PartsReader(path, parts)]:
            part.close()
    return VerifyReport(
        path=path,
        num_rows=sum(report.num_rows for report in reports),
        num_rows_checked=sum(report.num_rows_checked for report in reports),
        num_failed=sum(report.num_failed for report in reports),
        metadata_usable=all(report.metadata_usable for report in reports),
        damages=tuple(replace(own, path=f"{r.path}/{own.path}") for r in reports for own in r.damages),
    )


class _Verification:
    """One pass over a Zarr cache; `run` returns the report."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damages: list[Damage] = []
        self.clip_ids: list[str] = []
        self.tables: TablesRecord | None = None

    def run(self, progress: Progress | None) -> VerifyReport:
        """Check tables, then every block, then look for files that do not belong."""
        manifest = self._check_tables()
        if manifest is None:
            return VerifyReport(path=self.path, metadata_usable=False, damages=tuple(self.damages))
        commits: dict[int, CommitRecord] = {}
        pending = []
        for block in range(manifest.num_blocks):
            if (self.path / commit_name(block)).exists():
                self._check_block(manifest, block, commits)
            else:
                pending.append(block)
            if progress:
                progress(block + 1, manifest.num_blocks)
        self._find_stray(manifest)
        return VerifyReport(
            path=self.path,
            num_rows=manifest.num_rows,
            num_rows_checked=sum(record.stop - record.start for record in commits.values()),
            num_failed=sum(len(record.failures) for record in commits.values()),
            pending_blocks=tuple(pending),
            damages=tuple(self.damages),
        )

    def _add(
        self, kind: DamageKind, path: str, problem: str, block: int | None = None, array: str | None = None
    ) -> None:
        self.damages.append(Damage(kind=kind, path=path, problem=problem, block=block, array=array))

    def _check_tables(self) -> Manifest | None:
        """Check all files outside blocks; return the manifest when it can be trusted."""
        try:
            self.tables = read_tables(self.path / TABLES_RECORD)
        except CacheDamageError as error:
            if not (self.path / COMMITS).is_dir():
                read_manifest(self.path)
            self._add(DamageKind.METADATA, TABLES_RECORD, str(error))
        if self.tables is not None:
            for name, digest in self.tables.files.items():
                if problem := digest_problem(self.path, name, digest):
                    self._add(DamageKind.METADATA, name, problem)
            if not self.tables.protocols_complete:
                problem = "protocols were being replaced when the writer stopped; run `ifcar extract` again"
                self._add(DamageKind.METADATA, PROTOCOLS, problem)
        try:
            manifest = read_manifest(self.path)
            self.clip_ids = read_clips(self.path).ids
            check_fingerprint(self.path, manifest, self.clip_ids)
        except IfcarError as error:
            if isinstance(error, InputError) and not self.damages:
                raise
            self._add(DamageKind.METADATA, "zarr.json", str(error))
            return None
        if manifest.rows_per_shard != ROWS_PER_SHARD or manifest.compression not in COMPRESSIONS:
            self._add(DamageKind.METADATA, "zarr.json", "rows_per_shard or compression has an impossible value")
            return None
        if self.tables is not None and self.tables.fingerprint != manifest.fingerprint:
            self._add(DamageKind.METADATA, TABLES_RECORD, "has the fingerprint of another cache")
        return manifest

    def _check_block(self, manifest: Manifest, block: int, commits: dict[int, CommitRecord]) -> None:
        file = self.path / commit_name(block)
        try:
            record = commits[block] = check_commit(file, read_commit(file), manifest, block)
        except CacheDamageError as error:
            self._add(DamageKind.COMMIT, commit_name(block), str(error), block)
            return
        for array, name in manifest.block_files(block).items():
            problem = digest_problem(self.path, name, record.files[name])
            if problem and not (self.path / name).exists():
                self._add(DamageKind.MISSING, name, f"{problem}; {self._span(manifest, block)}", block, array)
            elif problem and manifest.spec.array(array).sharded:
                self._locate(manifest, record, array, problem)
            elif problem:
                self._add(DamageKind.ROW, name, f"{problem}; {self._span(manifest, block)}", block, array)
            elif array == "status":
                self._check_status(manifest, record)

    def _locate(self, manifest: Manifest, record: CommitRecord, array: str, problem: str) -> None:
        """Name the damaged rows of a shard, or its index."""
        name = manifest.block_files(record.block)[array]
        sharded = ShardedArray(
            name=array,
            row_bytes=manifest.spec.row_bytes([array]),
            rows_per_shard=manifest.rows_per_shard,
            compressed=manifest.compression is not None,
            files={record.block: (name, record.files[name].size)},
            pool=ShardPool(self.path, manifest.rows_per_shard, 1),
            describe=partial(self._describe, manifest),
        )
        found = False
        try:
            for row in range(record.start, record.stop):
                if text := sharded.check_row(row):
                    found = True
                    clips = self.clip_ids, manifest.rows_per_clip
                    self.damages.append(Damage.of_row(name, text, array, row, clips, block=record.block))
        except CacheDamageError as error:
            problem = f"{error}; {self._span(manifest, record.block)}"
            self._add(DamageKind.INDEX, name, problem, record.block, array)
            return
        if not found:
            problem += "; its rows match their own checksums but are not those that were committed"
            self._add(DamageKind.FOREIGN, name, problem, record.block, array)

    def _check_status(self, manifest: Manifest, record: CommitRecord) -> None:
        failed = {failure.row for failure in record.failures}
        describe = partial(self._describe, manifest)
        status = read_table_block(self.path, manifest, "status", record.block, describe)
        for row in range(record.start, record.stop):
            found = int(status[row - record.start])
            if fault := manifest.status_fault(row, found, failed=row in failed):
                text = f"{describe(row)} has status {found}, expected {fault}"
                self._add(DamageKind.STATUS, commit_name(record.block), text, record.block)

    def _find_stray(self, manifest: Manifest) -> None:
        known = {TABLES_RECORD, *(self.tables.files if self.tables else ())}
        for block in range(manifest.num_blocks):
            known.update([commit_name(block), *manifest.block_files(block).values()])
        complete = self.tables is not None and self.tables.protocols_complete
        for name in sorted(list_files(self.path) - known):
            unlisted = name.endswith("zarr.json") or name.startswith("clips/") or name.startswith(f"{PROTOCOLS}/")
            if complete or not unlisted:
                self._add(DamageKind.STRAY, name, "does not belong to the cache; `ifcar cache repair` removes it")

    def _describe(self, manifest: Manifest, row: int) -> str:
        return describe_row(row, self.clip_ids, manifest.rows_per_clip)

    def _span(self, manifest: Manifest, block: int) -> str:
        rows = manifest.rows_of(block)
        first, last = self._describe(manifest, rows.start), self._describe(manifest, rows.stop - 1)
        return f"affects {first} to {last}"
