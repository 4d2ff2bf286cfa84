"""The objects of a cache in object storage: read, sent and checked, with every error as one line.

Only this file knows obstore. Credentials come from where the environment has them; they are in no message and no file.
"""

from __future__ import annotations

import configparser
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import IO, Any

from ifcar.cache.addresses import Address
from ifcar.cache.bucket_errors import saying
from ifcar.errors import InputError, UnavailableError

PARALLEL = 16  # requests at a time
PART_BYTES = 16 << 20  # larger objects are sent in parts
_RETRY = {"max_retries": 6, "retry_timeout": timedelta(minutes=3)}
_NO_RANGES = ("non-partial response", "Range request not supported")  # how obstore says that a server gives none
_CLIENT = {"timeout": "300s", "connect_timeout": "10s"}


class ConflictError(InputError):
    """An object is there already, or is another than it was."""


class WholeOnlyError(UnavailableError):
    """A server answers a request for a range as if it had asked for the whole."""


@dataclass(frozen=True, slots=True)
class ObjectFacts:
    """What a store says of an object.

    Args:
        size: in bytes.
        tag: its ETag without quotes, or the time of its last change where the store has none.
    """

    size: int
    tag: str


class Bucket:
    """The objects below an address.

    Args:
        address: of the cache.

    Raises:
        InputError: the extra `cloud` is not installed, or the environment's settings are not usable.
    """

    def __init__(self, address: Address) -> None:
        try:
            import obstore
        except ImportError as error:
            raise InputError(
                f"{address}: object storage needs a further package: pip install 'ifcar[cloud]'"
            ) from error
        self.address = address
        self._obstore = obstore
        self._store = self._open()

    def _open(self) -> Any:
        from obstore import store

        options: dict[str, Any] = {"client_options": dict(_CLIENT), "retry_config": dict(_RETRY)}
        if self.address.scheme == "http" or _insecure(self.address.scheme):
            options["client_options"]["allow_http"] = True
        if self.address.scheme == "s3":
            options |= _shared_credentials()
        with saying(str(self.address)):
            return store.from_url(str(self.address), **options)

    def where(self, name: str) -> str:
        """Return an object's address for messages."""
        return f"{self.address}/{name}" if name else str(self.address)

    def head(self, name: str) -> ObjectFacts | None:
        """Return what the store says of an object, None where there is none."""
        with saying(self.where(name)), suppress(FileNotFoundError):
            return _facts(self._obstore.head(self._store, name))
        return None

    def get(self, name: str) -> bytes | None:
        """Return an object whole, None where there is none.

        Raises:
            MissingDataError: the bucket itself is not there.
        """
        found = self.get_tagged(name)
        return None if found is None else found[0]

    def get_tagged(self, name: str) -> tuple[bytes, str] | None:
        """Return an object whole and its tag, None where there is none."""
        with saying(self.where(name)):
            try:
                result = self._obstore.get(self._store, name)
                return bytes(result.bytes()), _facts(result.meta).tag
            except FileNotFoundError as error:
                if "NoSuchBucket" in str(error) or "ContainerNotFound" in str(error):
                    raise
        return None

    def stream(self, name: str) -> Iterator[Any]:
        """Yield an object in parts.

        Raises:
            MissingDataError: it is not there.
        """
        with saying(self.where(name)):
            yield from self._obstore.get(self._store, name).stream(min_chunk_size=PART_BYTES)

    def get_range(self, name: str, start: int, stop: int, tag: str) -> memoryview:
        """Return bytes `start` to `stop` of an object that must still be the one with this tag.

        Raises:
            ConflictError: it was replaced.
            WholeOnlyError: the server gives no ranges.
        """
        with saying(self.where(name)):
            try:
                result = self._obstore.get(self._store, name, options={"range": (start, stop)})
                self._check_same(name, _facts(result.meta).tag, tag)
                data = memoryview(result.bytes())
            except Exception as error:
                if not any(said in str(error) for said in _NO_RANGES):
                    raise
                raise WholeOnlyError(f"{self.where(name)}: the server gives objects as a whole only") from error
        if len(data) != stop - start:
            raise UnavailableError(
                f"{self.where(name)}: {len(data)} bytes came of {stop - start}; run the command again"
            )
        return data

    def get_same(self, name: str, tag: str) -> bytes:
        """Return an object whole, which must still be the one with this tag, see `get_range`."""
        found = self.get_tagged(name)
        if found is None:
            raise ConflictError(f"{self.where(name)} was deleted while it was read; push the cache again")
        self._check_same(name, found[1], tag)
        return found[0]

    def _check_same(self, name: str, found: str, tag: str) -> None:
        if found != tag:
            raise ConflictError(
                f"{self.where(name)} was replaced while it was read (ETag {found}, before {tag}); start again, and let "
                "nothing write there meanwhile"
            )

    def put(self, name: str, data: bytes | memoryview) -> None:
        """Send an object and make sure that the store holds these bytes.

        A store that answers with the MD5 of what it took has said so; from any other the object is read back.

        Raises:
            UnavailableError: the store holds something else.
        """
        in_parts = len(data) > PART_BYTES
        with saying(self.where(name)):
            answer = self._obstore.put(self._store, name, data, use_multipart=in_parts, chunk_size=PART_BYTES)
        if _bare(answer["e_tag"]) != expected_tag(data) and not self._holds(name, data):
            raise UnavailableError(f"{self.where(name)}: the store holds other bytes than were sent; run it again")

    def put_record(self, name: str, data: bytes, replacing: str | None) -> None:
        """Send a record, on the condition that none is there, or that it is still the one that is to be replaced.

        Args:
            name: of the object.
            data: the record.
            replacing: the tag of the record that was read there, or None for a new one.

        Raises:
            ConflictError: another process was there first with another record.
        """
        from obstore.exceptions import AlreadyExistsError, NotModifiedError, PreconditionError

        with saying(self.where(name)):
            try:
                mode: Any = "create" if replacing is None else self._as_it_was(name, replacing)
                self._obstore.put(self._store, name, data, mode=mode, use_multipart=False)
            except (AlreadyExistsError, PreconditionError, NotModifiedError) as error:
                if self.get(name) != data:
                    raise ConflictError(
                        f"{self.where(name)}: another process wrote there; let one at a time write, and run it again"
                    ) from error
        if not self._holds(name, data):
            raise ConflictError(f"{self.where(name)}: the store holds another record than was sent; run it again")

    def _as_it_was(self, name: str, tag: str) -> dict[str, str]:
        """Return the condition that an object is still the one with this tag; Google's store knows it by a version."""
        from obstore.exceptions import PreconditionError

        try:
            meta = self._obstore.head(self._store, name)
        except FileNotFoundError as error:
            raise PreconditionError(f"{name} is gone") from error
        if _facts(meta).tag != tag:
            raise PreconditionError(f"{name} is another")
        version = meta["version"]
        return {"e_tag": f'"{tag}"'} | ({} if version is None else {"version": version})

    def delete(self, name: str) -> None:
        """Delete an object that may be gone already."""
        with saying(self.where(name)), suppress(FileNotFoundError):
            self._obstore.delete(self._store, name)

    def names(self) -> set[str]:
        """Return the names of all objects.

        Raises:
            InputError: it is a web server's address, which lists nothing.
        """
        with saying(str(self.address)):
            return {str(entry["path"]) for batch in self._obstore.list(self._store) for entry in batch}

    def digest(self, name: str, copy: IO[bytes] | None = None) -> tuple[int, str]:
        """Return the size and SHA-256 of an object, read in parts and perhaps copied into a file, see `stream`."""
        found, size = hashlib.sha256(), 0
        for part in self.stream(name):
            found.update(part)
            size += len(part)
            if copy is not None:
                copy.write(part)
        return size, found.hexdigest()

    def _holds(self, name: str, data: bytes | memoryview) -> bool:
        return self.digest(name)[1] == hashlib.sha256(data).hexdigest()


def expected_tag(data: bytes | memoryview) -> str:
    """Return the ETag of a store that makes them of MD5: of the whole, or of its parts' and their number."""
    if len(data) <= PART_BYTES:
        return whole_tag(data)
    view = memoryview(data)
    parts = [_md5(view[start : start + PART_BYTES]).digest() for start in range(0, len(view), PART_BYTES)]
    return f"{_md5(b''.join(parts)).hexdigest()}-{len(parts)}"


def _md5(data: bytes | memoryview) -> Any:
    return hashlib.md5(data, usedforsecurity=False)


def whole_tag(data: bytes | memoryview) -> str:
    """Return the ETag of a store that makes it of the MD5 of the whole, however it was sent."""
    return str(_md5(data).hexdigest())


def _facts(meta: Mapping[str, Any]) -> ObjectFacts:
    return ObjectFacts(int(meta["size"]), _bare(meta["e_tag"]) or str(meta["last_modified"]))


def _bare(tag: str | None) -> str:
    return (tag or "").removeprefix("W/").strip('"')


def _insecure(scheme: str) -> bool:
    """Return whether the environment itself names a server without encryption: one in the house, or an emulator."""
    if scheme == "gs":
        return re.search(r'"gcs_base_url"\s*:\s*"http://', os.environ.get("GOOGLE_SERVICE_ACCOUNT_KEY", "")) is not None
    names = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT") if scheme == "s3" else ("AZURE_ENDPOINT", "AZURE_STORAGE_ENDPOINT")
    return next((os.environ[name] for name in names if name in os.environ), "").startswith("http://")


def _shared_credentials() -> dict[str, str]:
    """Return the keys of the profile in AWS' shared file, where the environment itself has none."""
    if any(os.environ.get(name) for name in ("AWS_ACCESS_KEY_ID", "AWS_SKIP_SIGNATURE", "AWS_WEB_IDENTITY_TOKEN_FILE")):
        return {}
    path = Path(os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials").expanduser()
    profile = os.environ.get("AWS_PROFILE", "default")
    parser = configparser.RawConfigParser()
    try:
        parser.read(path)
    except (configparser.Error, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a file of credentials ({type(error).__name__}); mend it") from error
    if profile not in parser:
        if "AWS_PROFILE" in os.environ:
            raise InputError(f"AWS_PROFILE is {profile!r}, and {path} has no such profile")
        return {}
    names = {"aws_access_key_id": "access_key_id", "aws_secret_access_key": "secret_access_key"}
    names |= {"aws_session_token": "session_token"}
    return {own: parser[profile][name] for name, own in names.items() if name in parser[profile]}
