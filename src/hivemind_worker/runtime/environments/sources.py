"""Where packages come from and how much of them: the owner's word alone, never a task's."""

from __future__ import annotations

import hashlib
import json
import re
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from hivemind_worker import errors
from hivemind_worker.settings import upkeep

DAY = 86_400.0
_SECONDS = 1800.0
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----")
_BYTES = 10 * 1024**3


@dataclass(frozen=True, slots=True)
class Sources:
    """What an environment is made from. Seconds and bytes; ``certificates`` PEM, ``refresh_seconds`` 0: never."""

    index_url: str = ""
    proxy: str = ""
    certificates: bytes = b""
    wheels: Path | None = None
    source_builds: bool = False
    seconds: float = _SECONDS
    limit_bytes: int = _BYTES
    refresh_seconds: float = 7 * DAY

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must never be read in a task's log: names and passwords within addresses."""
        found = [urlsplit(address) for address in (self.index_url, self.proxy)]
        parts = {part for url in found for part in (url.password, url.username) if part}
        return tuple(sorted(parts | {unquote(part) for part in parts}, key=len, reverse=True))

    def wheel_files(self) -> tuple[Path, ...]:
        """The wheels on this machine, by name. Raises BadSettings when the folder cannot be read. Blocks."""
        if self.wheels is None:
            return ()
        try:
            return tuple(sorted(path for path in self.wheels.iterdir() if path.suffix == ".whl" and path.is_file()))
        except OSError as error:
            raise errors.BadSettings(f"package_wheels: {self.wheels} cannot be read: {error.strerror}") from None

    def offered(self, files: tuple[Path, ...]) -> str:
        """A sum over what decides which versions are found: other sources may give others."""
        listed = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
        return _sum([self.index_url, self.source_builds, listed])

    def fresh(self, resolved: float, requirements: tuple[str, ...]) -> bool:
        """Whether names that were resolved then (Unix seconds) need not be resolved anew."""
        if not self.refresh_seconds or all(exact(each) for each in requirements):
            return True
        return time.time() - resolved < self.refresh_seconds


def of(settings: upkeep.Packages) -> Sources:
    """The sources that the settings name. Reads the certificates. Raises BadSettings where that fails."""
    return Sources(
        index_url=settings.index_url,
        proxy=settings.proxy,
        certificates=b"" if settings.ca_file is None else certificates(settings.ca_file),
        wheels=settings.wheels,
        source_builds=settings.source_builds,
        seconds=settings.environment_timeout,
        limit_bytes=int(settings.environment_limit_bytes),
        refresh_seconds=settings.refresh_days * DAY,
    )


def certificates(file: Path) -> bytes:
    """The usual certificates of this machine and those in `file`, as PEM. Raises BadSettings."""
    usual = ssl.create_default_context().get_ca_certs(binary_form=True)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=file)
        ours = file.read_text(encoding="ascii", errors="ignore")
    except (OSError, ssl.SSLError) as error:
        why = error.strerror or "there is no certificate (PEM) in it"
        raise errors.BadSettings(f"package_ca_file: {file} cannot be used: {why}") from None
    found = [*(ssl.DER_cert_to_PEM_cert(each) for each in usual), *_PEM.findall(ours)]
    return "\n".join(dict.fromkeys(each.strip() for each in found)).encode() + b"\n"


def exact(requirement: str) -> bool:
    """Whether a requirement names one version, which no index changes later."""
    return re.search(r"(?<![!<>~=])={2,3}[^*,;]+(;|$)", requirement) is not None


def asked_key(base: str, requirements: tuple[str, ...], offered: str, recipe: str) -> str:
    """What was asked for, as a short name: the same words on the same base from the same sources."""
    return _sum(["asked", base, list(requirements), offered, recipe])


def environment_key(base: str, python: str, pins: tuple[str, ...], recipe: str) -> str:
    """What an environment is, as a short name: base, ABI and platform of its Python, exact versions."""
    return _sum(["environment", base, python, sorted(pins), recipe])


def _sum(said: object) -> str:
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()
