"""Pool, worker and client over TLS, as their flags say; a wrong authority and plaintext are refused."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import installed
import pytest
import services


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A self-signed certificate for localhost, and its key."""
    folder.mkdir()
    made = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]
    made += ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem"), "-subj", f"/CN={name}"]
    subprocess.run([*made, "-addext", "subjectAltName=DNS:localhost"], check=True, capture_output=True)
    return folder / "cert.pem", folder / "key.pem"


@pytest.mark.sandbox
@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_p06_a_task_travels_over_tls_and_nothing_else_gets_in(shell: installed.Shell, tmp_path: Path) -> None:
    ours, key = certificate(tmp_path / "ours", "pool")
    others, _ = certificate(tmp_path / "others", "pool")
    with services.Services(shell) as running:
        _, listens = running.pool(f"--tls-cert-file={ours}", f"--tls-key-file={key}", listen="0.0.0.0:0")
        address = listens.replace("0.0.0.0", "localhost")
        running.worker("over-tls", address, f"--tls-ca-file={ours}", "--isolation=sandbox")
        there = (f"--node-pool={address}", f"--tls-ca-file={ours}")
        (task_id,) = shell.feed(b'{"command": "echo safe; echo kept > results/f"}', "submit", "-", *there).text.split()
        assert shell.hivemind("wait", task_id, *there, "--timeout=60").code == 0, running.logs()
        assert shell.hivemind("logs", task_id, *there).text == "safe\n"
        assert shell.hivemind("results", task_id, "-o", "out", *there).code == 0
        assert (tmp_path / "out" / "f").read_text() == "kept\n"

        wrong = shell.hivemind("nodes", f"--node-pool={address}", f"--tls-ca-file={others}")
        assert wrong.code == 69, wrong.err
        assert len(wrong.err.splitlines()) == 1
        plain = shell.hivemind("nodes", f"--node-pool={listens.replace('0.0.0.0', '127.0.0.1')}")
        assert plain.code == 69, plain.err
        assert len(plain.err.splitlines()) == 1
