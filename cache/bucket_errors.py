"""What the errors of a store mean, each on one line that holds neither its request nor a credential."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from ifcar.errors import IfcarError, MissingDataError, UnavailableError, one_line

_SHOWN = 300
_MEANINGS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("NoSuchBucket", ("ContainerNotFound",), "there is no such bucket; make it, or correct the name"),
    (
        "RequestTimeTooSkewed",
        ("RequestExpired", "is too far in the", "Signature not yet current"),
        "this machine's clock is wrong by more than the store allows; set it, and run the command again",
    ),
    (
        "InvalidAccessKeyId",
        ("SignatureDoesNotMatch", "InvalidToken", "ExpiredToken", "AuthenticationFailed"),
        "the store does not know these credentials; see the variables AWS_…, GOOGLE_… or AZURE_… of the environment",
    ),
    (
        "NoCredentials",
        ("169.254.169.254", "169.254.170.2", "metadata.google.internal", "missing AccountName", "Account must be"),
        "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_PROFILE, GOOGLE_…, AZURE_…); for a "
        "public bucket AWS_SKIP_SIGNATURE=true",
    ),
    ("PermissionDenied", ("403 Forbidden",), "the store refuses this; ask for the right to do it, or correct the name"),
    ("Unauthenticated", ("401 Unauthorized",), "the store asks for credentials; put them into the environment"),
    ("NotFound", (), "there is no such object"),
    (
        "Unreachable",
        ("error sending request", "dns error", "Connection refused", "connection closed", "timed out"),
        "the store cannot be reached; see the network and the endpoint (AWS_ENDPOINT_URL), and run the command again",
    ),
)


@contextmanager
def saying(place: str) -> Iterator[None]:
    """Turn what fails at an address into an error that says what it means; errors of ours stay."""
    try:
        yield
    except IfcarError:
        raise
    except Exception as error:
        raise _meant(place, error) from error


def _meant(place: str, error: Exception) -> IfcarError:
    text = str(error).partition("Debug source:")[0]
    code = match[1] if (match := re.search(r"<Code>(\w+)</Code>", text)) else ""
    for kind, known, meaning in _MEANINGS:
        if kind in type(error).__name__ + code or any(word in text for word in known):
            missing = kind == "NotFound"
            return (MissingDataError if missing else UnavailableError)(f"{place}: {meaning}{code and f' ({code})'}")
    without_requests = re.sub(r"https?://\S+", "…", text)
    return UnavailableError(f"{place}: {one_line(without_requests)[:_SHOWN]}")
