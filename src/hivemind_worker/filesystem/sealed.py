"""Sealing: what only the holder of a private key file can read again, and hashes that only it can make."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import threading
from pathlib import Path

from hivemind_worker import errors
from hivemind_worker.filesystem import private_file

KEY_BYTES = 32
_NONCE_BYTES = 12
_FORMAT = b"\x01"


class Key:
    """A key in a private file, made when it is first needed. Safe from several threads. Blocks on the disk once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._bytes = b""

    def seal(self, content: bytes, about: str) -> bytes:
        """Encrypt content (AES-256-GCM), bound to what it is about. Raises :class:`errors.BadSettings`, OSError."""
        from cryptography.hazmat.primitives.ciphers import aead  # noqa: PLC0415  (slow to import, rarely needed)

        nonce = secrets.token_bytes(_NONCE_BYTES)
        return _FORMAT + nonce + aead.AESGCM(self._derived(b"seal")).encrypt(nonce, content, about.encode())

    def unseal(self, sealed: bytes, about: str) -> bytes:
        """Return what `seal` was given.

        Raises ValueError where another key sealed it, or about something else; else as `seal`.
        """
        from cryptography import exceptions  # noqa: PLC0415  (slow to import, rarely needed)
        from cryptography.hazmat.primitives.ciphers import aead  # noqa: PLC0415

        nonce, content = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
        try:
            if not sealed.startswith(_FORMAT):
                raise ValueError("it is of a format that is not known")
            return aead.AESGCM(self._derived(b"seal")).decrypt(nonce, content, about.encode())
        except exceptions.InvalidTag:
            raise ValueError("another key sealed it") from None

    def digest(self, content: bytes) -> str:
        """Return a hash that tells nobody without the key whether a guess of the content is right. Raises as `seal`."""
        return hmac.digest(self._derived(b"digest"), content, "sha256").hex()

    def _derived(self, purpose: bytes) -> bytes:
        with self._lock:
            if not self._bytes:
                self._bytes = self._read()
            return hmac.digest(self._bytes, purpose, "sha256")

    def _read(self) -> bytes:
        try:
            content = _content(self.path)
        except FileNotFoundError:
            content = self._made()
        except OSError as error:
            raise errors.BadSettings(f"the key {self.path} cannot be read: {error.strerror}") from None
        if len(content) != KEY_BYTES:
            raise errors.BadSettings(
                f"{self.path} holds no key: put the file of a backup in its place, or remove it; what it sealed is "
                "lost then"
            )
        return content

    def _made(self) -> bytes:
        """Make one, whole and on the disk before anything is sealed with it."""
        content = secrets.token_bytes(KEY_BYTES)
        new = self.path.with_name(f"{self.path.name}.{secrets.token_hex(8)}.new")
        try:
            with private_file.open_binary(new, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.link(new, self.path)  # of two processes at once the first one's stays
        except FileExistsError:
            return _content(self.path)
        finally:
            new.unlink(missing_ok=True)
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return content


def _content(path: Path) -> bytes:
    with private_file.open_binary(path, "rb") as file:
        return file.read(KEY_BYTES + 1)


def fingerprint(path: Path) -> str:
    """Return what tells two keys apart, without the key; empty where there is none."""
    try:
        return hashlib.sha256(b"fingerprint" + _content(path)).hexdigest()[:16]
    except OSError:
        return ""
