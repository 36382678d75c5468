# SPDX-License-Identifier: GPL-3.0-or-later
"""Media id -> bytes: the Graph API names a URL, which serves the file to whoever holds the token.

The token goes to origins we were told to trust and to nobody else: an answer that names another place, or sends us on to one, is
refused, whoever wrote it.
"""

import base64
import binascii
import hashlib
import os
import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import httpx

from whats_agent.errors import AgentError

CHUNK_BYTES = 64 * 1024
PART = ".part-"
_MEDIA_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")


class MediaRefusedError(AgentError):
    """This file is not fetched, now or later: wrong type, too large, gone, or not where Meta keeps media."""


class MediaUnavailableError(AgentError):
    """It could not be fetched this time."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Where from (``https://host[:port]``), which MIME types, how many bytes, within how many seconds."""

    origins: frozenset[str]
    types: frozenset[str]
    max_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file that lies at ``path``, whole and synced."""

    path: Path
    mime_type: str
    sha256: str
    size: int


def origin_of(url: str) -> str:
    """``https://host[:port]`` of an absolute URL without user or password. Raises MediaRefusedError."""
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError, ValueError) as error:
        raise MediaRefusedError("Meta named no usable URL") from error
    if parsed.scheme not in ("http", "https") or not parsed.host or parsed.userinfo:
        raise MediaRefusedError("Meta named no usable URL")
    port = f":{parsed.port}" if parsed.port is not None else ""
    return f"{parsed.scheme}://{parsed.host.lower()}{port}"


def plain_type(text: object) -> str:
    """``audio/ogg; codecs=opus`` -> ``audio/ogg``."""
    return text.partition(";")[0].strip().lower() if isinstance(text, str) else ""


def same_digest(told: object, sha256: str) -> bool:
    """Whether Meta's digest, in hexadecimal or Base64, is this one; nothing told is no contradiction."""
    if not isinstance(told, str) or not told:
        return True
    if told.lower() == sha256:
        return True
    try:
        return base64.b64decode(told, validate=True).hex() == sha256
    except (binascii.Error, ValueError):
        return False


def check(info: Any, limits: Limits) -> str:
    """The URL in the Graph API's answer about a media id. Raises MediaRefusedError for what the limits do not allow."""
    url = info.get("url") if isinstance(info, dict) else None
    if not isinstance(url, str):
        raise MediaRefusedError("the Graph API named no URL")
    origin = origin_of(url)
    if origin not in limits.origins:
        raise MediaRefusedError(f"{origin} is none of MEDIA_ORIGINS")
    kind = plain_type(info.get("mime_type"))
    if kind not in limits.types:
        raise MediaRefusedError(f"type {kind or 'unknown'} is none of MEDIA_TYPES")
    size = info.get("file_size")
    if isinstance(size, str) and size.isdigit():
        size = int(size)
    if isinstance(size, int) and size > limits.max_bytes:
        raise MediaRefusedError(f"{size} bytes are more than MEDIA_MAX_BYTES")
    return url


class MediaClient:
    """Fetches one file after the other."""

    def __init__(self, base_url: str, version: str, token: Callable[[], str], limits: Limits) -> None:
        self._base = f"{base_url}/{version}"
        self._token = token
        self._limits = limits
        self._http = httpx.Client(timeout=httpx.Timeout(10.0, connect=5.0), trust_env=False, follow_redirects=False)

    def fetch(self, media_id: str, phone_number_id: str, folder: Path) -> Fetched:
        """Fetch one file into ``folder`` under a temporary name. Raises MediaRefusedError, MediaUnavailableError, OSError."""
        if not _MEDIA_ID.fullmatch(media_id):
            raise MediaRefusedError("that is no media id")
        headers = {"Authorization": f"Bearer {self._token()}"}
        try:
            answer = self._http.get(
                f"{self._base}/{media_id}", params={"phone_number_id": phone_number_id}, headers=headers
            )
            _must_be_good(answer.status_code, "the media id")
            info = answer.json()
            url = check(info, self._limits)
            return self._download(url, info, headers, folder / f"{PART}{socket.gethostname()}-{media_id}")
        except httpx.HTTPError as error:
            raise MediaUnavailableError(f"the call broke off: {type(error).__name__}") from error
        except (ValueError, RecursionError) as error:
            raise MediaUnavailableError("the Graph API answered no JSON") from error

    def _download(self, url: str, info: dict[str, Any], headers: dict[str, str], path: Path) -> Fetched:
        try:
            with self._http.stream("GET", url, headers=headers) as response:
                kind = self._type_of(response)
                with path.open("wb") as file:
                    sha256, size = self._copy(response, file)
                    file.flush()
                    os.fsync(file.fileno())
            _must_match(info.get("sha256"), sha256)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return Fetched(path, kind, sha256, size)

    def _type_of(self, response: httpx.Response) -> str:
        _must_be_good(response.status_code, "the file")
        kind = plain_type(response.headers.get("Content-Type"))
        if kind not in self._limits.types:
            raise MediaRefusedError(f"type {kind or 'unknown'} is none of MEDIA_TYPES")
        return kind

    def _copy(self, response: httpx.Response, file: BinaryIO) -> tuple[str, int]:
        """Write what comes, within the limits; its SHA-256 and how many bytes it was."""
        deadline = time.monotonic() + self._limits.seconds
        digest, size = hashlib.sha256(), 0
        for chunk in response.iter_bytes(CHUNK_BYTES):
            size += len(chunk)
            if size > self._limits.max_bytes:
                raise MediaRefusedError(f"more than MEDIA_MAX_BYTES ({self._limits.max_bytes}) came")
            if time.monotonic() > deadline:
                raise MediaUnavailableError(f"not whole within {self._limits.seconds:g} s")
            digest.update(chunk)
            file.write(chunk)
        return digest.hexdigest(), size

    def close(self) -> None:
        """Close the pool."""
        self._http.close()


def _must_be_good(status: int, what: str) -> None:
    """Raise unless the answer is a plain 200: a passing trouble, or one that stays."""
    if status == 200:
        return
    if status in (401, 403, 408, 429) or status >= 500:
        raise MediaUnavailableError(f"{what} was answered with status {status}")
    raise MediaRefusedError(f"{what} was answered with status {status}")


def _must_match(told: object, sha256: str) -> None:
    if not same_digest(told, sha256):
        raise MediaUnavailableError("what came does not match Meta's SHA-256")
