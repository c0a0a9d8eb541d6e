"""Files by HTTP, within bounds: the owner's proxy and certificates, the index's password for the index alone.

Used by `fetcher`.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import ssl
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from unpacking import TooLarge

SILENCE_SECONDS = 60.0
TRIES = 3

_PIECE = 1024 * 1024
_PASSING = {408, 429, 500, 502, 503, 504}


class Failed(Exception):
    """It cannot be done; says why."""


class Web:
    """Files by HTTP, through the owner's proxy, with the owner's certificates; the password for the index alone."""

    def __init__(self, order: dict[str, Any], scratch: Path) -> None:
        self.bundle = scratch / "certificates.pem"
        self.bundle.write_text(order["certificates"], encoding="ascii")
        context = ssl.create_default_context(cadata=order["certificates"] or None)
        proxies = dict.fromkeys(("http", "https"), order["proxy"]) if order["proxy"] else {}
        index = urlsplit(order["index_url"])
        self._origin = (index.scheme, index.hostname, index.port)
        self._secret = ""
        if index.username or index.password:
            pair = f"{unquote(index.username or '')}:{unquote(index.password or '')}"
            self._secret = "Basic " + base64.b64encode(pair.encode()).decode()
        self._opener = urllib.request.OpenerDirector()
        for handler in (
            urllib.request.ProxyHandler(proxies), urllib.request.HTTPHandler(),
            urllib.request.HTTPSHandler(context=context), urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPRedirectHandler(), urllib.request.HTTPErrorProcessor(),
        ):  # fmt: skip
            self._opener.add_handler(handler)

    def fetch(self, url: str, place: Path, limit: int) -> str:
        """Write a file; its sha256. Raises Failed, TooLarge, OSError where it cannot be written."""
        for attempt in range(TRIES):
            try:
                with self.open(url) as source, place.open("wb") as file:
                    return _copy(source, file, limit)
            except urllib.error.HTTPError as error:
                if error.code not in _PASSING or attempt == TRIES - 1:
                    raise Failed(f"{shown(url)} cannot be fetched: status {error.code}") from None
            except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
                if attempt == TRIES - 1:
                    reason = getattr(error, "reason", None) or error
                    raise Failed(f"{shown(url)} cannot be fetched: {reason}") from None
            time.sleep(0.5 * 2**attempt)
        raise AssertionError

    def open(self, url: str) -> IO[bytes]:
        """The content of an address. Raises URLError, Failed."""
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"}:
            raise Failed(f"{shown(url)} is no address of an index")
        headers = {"User-Agent": "hivemind-worker", "Accept-Encoding": "identity"}
        request = urllib.request.Request(url, headers=headers)  # noqa: S310 - the scheme is looked at just above
        if self._secret and (parts.scheme, parts.hostname, parts.port) == self._origin:
            request.add_unredirected_header("Authorization", self._secret)  # another host gets none, redirected or not
        response: IO[bytes] = self._opener.open(request, timeout=SILENCE_SECONDS)
        return response


def _copy(source: IO[bytes], file: IO[bytes], limit: int) -> str:
    digest, size = hashlib.sha256(), 0
    while piece := source.read(_PIECE):
        size += len(piece)
        if size > limit:
            raise TooLarge(size)
        digest.update(piece)
        file.write(piece)
    expected = getattr(source, "length", None)
    if expected:  # http.client counts down what the answer promised
        raise ConnectionError("the connection ended before the file did")
    return digest.hexdigest()


def shown(url: str) -> str:
    """An address without what may be secret in it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or ''}{parts.path}"[:300]
