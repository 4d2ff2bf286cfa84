"""Verify a cache in object storage: every byte of every object against the records, and what is there besides."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from ifcar.cache.addresses import Address
from ifcar.cache.bucket import PARALLEL, Bucket
from ifcar.cache.commits import TABLES_RECORD, CommitRecord, FileDigest, commit_name
from ifcar.cache.damage import Damage, DamageKind, VerifyReport
from ifcar.cache.manifest import Manifest
from ifcar.cache.pull import read_remote_commit, read_remote_manifest, read_remote_tables
from ifcar.cache.push import Progress, counted, everything
from ifcar.errors import CacheDamageError, MissingDataError


def verify_bucket(address: Address, progress: Progress | None = None) -> VerifyReport:
    """Read every object of a cache and name those that are damaged, missing or not of the cache.

    Args:
        address: of the cache.
        progress: called with (blocks done, blocks in all).

    Raises:
        MissingDataError: there is no cache, or a half-pushed one.
        CacheDamageError: the record of the files outside blocks, or the root metadata, is damaged.
    """
    bucket = Bucket(address)
    _, tables = read_remote_tables(bucket)
    manifest = read_remote_manifest(bucket, tables)
    check = _Check(bucket, manifest)
    with ThreadPoolExecutor(PARALLEL) as pool:
        everything(pool, lambda item: check.file(*item, DamageKind.METADATA, None), tables.files.items())
        everything(pool, counted(check.block, manifest.num_blocks, progress), range(manifest.num_blocks))
    if not address.is_read_only:
        known = {TABLES_RECORD, *tables.files}
        for block in range(manifest.num_blocks):
            known |= {commit_name(block), *manifest.block_files(block).values()}
        for name in sorted(bucket.names() - known):
            check.add(DamageKind.STRAY, name, "does not belong to the cache; delete it there", None)
    records = check.records.values()
    return VerifyReport(
        path=address,
        num_rows=manifest.num_rows,
        num_rows_checked=sum(record.stop - record.start for record in records),
        num_failed=sum(len(record.failures) for record in records),
        pending_blocks=tuple(sorted(check.pending)),
        damages=tuple(sorted(check.damages, key=lambda damage: damage.path)),
    )


class _Check:
    def __init__(self, bucket: Bucket, manifest: Manifest) -> None:
        self.damages: list[Damage] = []
        self.records: dict[int, CommitRecord] = {}
        self.pending: list[int] = []
        self._bucket, self._manifest = bucket, manifest

    def add(self, kind: DamageKind, name: str, problem: str, block: int | None) -> None:
        self.damages.append(Damage(kind=kind, path=name, problem=problem, block=block))

    def block(self, block: int) -> None:
        try:
            record = read_remote_commit(self._bucket, self._manifest, block)
        except CacheDamageError as error:
            self.add(DamageKind.COMMIT, commit_name(block), str(error), block)
            return
        if record is None:
            self.pending.append(block)
            return
        self.records[block] = record
        for name, digest in record.files.items():
            self.file(name, digest, DamageKind.FOREIGN, block)

    def file(self, name: str, digest: FileDigest, kind: DamageKind, block: int | None) -> None:
        try:
            size, sha256 = self._bucket.digest(name)
        except MissingDataError:
            self.add(DamageKind.MISSING, name, "is missing; push the cache again", block)
            return
        if (size, sha256) != (digest.size, digest.sha256):
            hashes = f"SHA-256 {sha256[:12]}…", f"{digest.sha256[:12]}…"
            found, expected = hashes if size == digest.size else (f"{size} bytes", f"{digest.size}")
            problem = f"is not what was committed ({found}, expected {expected}); delete it and push again"
            self.add(kind, name, problem, block)
