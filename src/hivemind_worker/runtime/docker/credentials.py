"""Credentials for registries, from the owner's Docker configuration: written there by `docker login`, only read here.

They go to the engine with the one pull they are for, and into no log, no error and no task.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from hivemind_worker.runtime.docker import references
from hivemind_worker.telemetry import logs

log = logs.StructuredLogger(__name__)

HELPER_SECONDS: Final = 15.0
"""Longest that a credential helper may take: some ask a key ring, some a cloud."""

_HELPER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_MOST: Final = 64 * 1024


class Credentials:
    """What the folder's config.json has for a registry. Read anew each time: logins change."""

    def __init__(self, folder: Path | None) -> None:
        self._file = None if folder is None else folder / "config.json"
        self.trouble = ""
        """Why the last look found nothing although there is something; for the owner, never with a secret."""

    async def header(self, reference: str) -> str:
        """Return the value of X-Registry-Auth for pulling this image; empty where there are no credentials."""
        self.trouble = ""
        config = await asyncio.to_thread(self._read)
        server = references.registry(reference)
        found = await self._from_helper(config, server) or _from_file(config, server)
        if not found:
            return ""
        said = json.dumps({"serveraddress": server, **found})
        return base64.urlsafe_b64encode(said.encode()).decode()

    def _read(self) -> Mapping[str, Any]:
        if self._file is None:
            return {}
        try:
            found = json.loads(self._file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            self._complain(f"{self._file} cannot be read: {type(error).__name__}")
            return {}
        return found if isinstance(found, dict) else {}

    async def _from_helper(self, config: Mapping[str, Any], server: str) -> dict[str, str]:
        helpers = config.get("credHelpers")
        name = _entry(helpers, server) if isinstance(helpers, dict) else None
        name = name or config.get("credsStore")
        if not name:
            return {}
        if not isinstance(name, str) or not _HELPER.fullmatch(name):
            self._complain(f"{self._file} names a credential helper that is no plain name")
            return {}
        said = await self._ask(f"docker-credential-{name}", server)
        user, secret = said.get("Username"), said.get("Secret")
        if not isinstance(user, str) or not isinstance(secret, str):
            return {}
        # Docker's own convention for helpers that have a token instead of a password.
        return {"identitytoken": secret} if user == "<token>" else {"username": user, "password": secret}

    async def _ask(self, program: str, server: str) -> Mapping[str, Any]:
        quiet = asyncio.subprocess.DEVNULL
        try:
            asked = await asyncio.create_subprocess_exec(
                program, "get", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=quiet
            )
        except OSError as error:
            self._complain(f"the credential helper {program} cannot be run: {error.strerror}")
            return {}
        try:
            async with asyncio.timeout(HELPER_SECONDS):
                said, _ = await asked.communicate(server.encode())
        except TimeoutError:
            self._complain(f"the credential helper {program} did not answer within {HELPER_SECONDS:.0f} s")
            return {}
        finally:
            if asked.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    asked.kill()
                await asked.wait()
        if asked.returncode != 0:  # its way to say that it has none
            return {}
        try:
            found = json.loads(said[:_MOST])
        except ValueError:
            self._complain(f"the credential helper {program} did not answer in JSON")
            return {}
        return found if isinstance(found, dict) else {}

    def _complain(self, why: str) -> None:
        self.trouble = why
        log.log_system_event("registry_credentials", {"why": why}, level="warning")


def _from_file(config: Mapping[str, Any], server: str) -> dict[str, str]:
    auths = config.get("auths")
    entry = _entry(auths, server) if isinstance(auths, dict) else None
    if not isinstance(entry, dict):
        return {}
    tokens = {name: entry[name] for name in ("identitytoken", "registrytoken") if isinstance(entry.get(name), str)}
    user, password = entry.get("username"), entry.get("password")
    if isinstance(entry.get("auth"), str) and entry["auth"]:
        with contextlib.suppress(binascii.Error, UnicodeDecodeError):
            user, _, password = base64.b64decode(entry["auth"]).decode().partition(":")
    if isinstance(user, str) and isinstance(password, str) and user:
        return {"username": user, "password": password, **tokens}
    return tokens


def _entry(entries: Mapping[str, Any], server: str) -> Any:
    """The entry of a registry, however its key is written: with a scheme, with a path, bare."""
    if server in entries:
        return entries[server]
    return next((entry for name, entry in entries.items() if _host(name) == _host(server)), None)


def _host(name: str) -> str:
    return name.partition("://")[2].partition("/")[0] if "://" in name else name.partition("/")[0]
