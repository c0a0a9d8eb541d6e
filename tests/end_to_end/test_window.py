"""The window of a real worker: over HTTP, and in a real browser."""

from __future__ import annotations

import http.client
import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import browser
import psutil
import pytest
import waiting
from installed import Shell
from PIL import Image
from services import Services

pytestmark = pytest.mark.sandbox

HOSTILE = "/<img src=x onerror=document.title=1>"

ONE_LINE = """[...document.querySelectorAll("[data-rows=running] th, [data-rows=ended] th")].every((id) => {
  id.textContent = "01a215d6-2a9d-7716-bd49-c63ca7cc521d";
  const text = document.createRange();
  text.selectNodeContents(id);
  return text.getClientRects().length === 1;
})"""
"""Whether a task's id stands on one line: two would not be copied as one word."""

UNNAMED = """
[...document.querySelectorAll("section, nav, [role=region]")].filter(
  (each) => !each.ariaLabel && !document.getElementById(each.getAttribute("aria-labelledby"))?.textContent).length
"""
"""How many parts of the page have no name that a screen reader could say."""


class Worker:
    """A worker with a window, and the pool that it works for."""

    def __init__(self, shell: Shell, address: str) -> None:
        self.shell = shell
        self.pool = address
        self.at = (shell.home / "one" / "worker-http").read_text().strip()

    def submit(self, name: str, command: object) -> None:
        file = self.shell.home / f"{name}.json"
        file.write_text(json.dumps({"id": name, "command": command, "memory_limit": "64m", "cpu_quota": 10_000}))
        assert self.shell.hivemind("submit", str(file), f"--node-pool={self.pool}").code == 0

    def get(
        self, path: str, at: str = "", method: str = "GET", **headers: str
    ) -> tuple[int, str, http.client.HTTPMessage]:
        host, _, port = (at or self.at).rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=20)
        try:
            connection.request(method, path, headers={name.replace("_", "-"): text for name, text in headers.items()})
            answer = connection.getresponse()
            return answer.status, answer.read().decode(), answer.headers
        finally:
            connection.close()

    def told(self, language: str = "en") -> dict[str, Any]:
        status, text, _ = self.get(f"/window.json?lang={language}")
        assert status == 200
        found: dict[str, Any] = json.loads(text)
        return found


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    shell = Shell(tmp_path)
    with Services(shell) as services:
        _, address = services.pool()
        services.worker(
            "one", address, "--isolation=sandbox", "--max-concurrent-tasks=2", "--http-listen=0.0.0.0:0",
            "--monitor-interval=0.5", "--drain-timeout=0", "--grace-seconds=0.5",
        )  # fmt: skip
        found = Worker(shell, address)
        found.at = f"127.0.0.1:{found.at.rpartition(':')[2]}"
        yield found


def test_the_owner_sees_what_the_worker_does_and_nobody_else_does(worker: Worker) -> None:
    worker.submit("sleeper", "sleep 600")
    worker.submit("strange", [HOSTILE])

    def seen() -> dict[str, Any] | None:
        now = worker.told()
        there = now["running"] and now["ended"] and now["running"][0]["cells"][5] and now["charts"][0]["line"]
        is_old = now["state"]["tone"] == "held"  # the report on its health is a moment older than the tables
        return now if there and not is_old else None

    now = waiting.wait_for(seen, description="one runs, one has ended", seconds=30)
    assert now is not None
    (running,), (ended,) = now["running"], now["ended"]
    assert (running["cells"][0], running["cells"][2]) == ("sleeper", "running")
    assert running["cells"][5].endswith("of 64 MiB")
    assert (ended["tone"], ended["cells"][:4]) == ("bad", ["strange", "1", "failed", "nonzero_exit"])
    assert HOSTILE in ended["cells"][6]
    assert now["state"] == {"tone": "good", "text": "All is well. Tasks here: 1"}
    assert [row["tone"] for row in now["checks"]] == ["good"] * 4
    assert now["fence"] == "bubblewrap sandbox"
    assert ["namespaces and system call filter", "in force", ""] in [row["cells"] for row in now["defences"]]
    assert worker.told("zh-Hant")["state"]["text"] == "一切正常。目前有 1 個任務"

    status, page, headers = worker.get("/", accept_language="zh-TW")
    assert (status, headers["content-type"], headers["cache-control"]) == (200, "text/html; charset=utf-8", "no-store")
    assert '<html lang="zh-Hant">' in page
    assert "<img src=x" not in page
    assert "&lt;img src=x onerror=document.title=1&gt;" in page
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"""(src|href)=["'](https?:)?//""", page), "nothing comes from elsewhere"
    assert not re.search(r"<script[^>]*>[^<]|<style| style=| on[a-z]+=[\"']", page), "nothing is inline"
    for file in re.findall(r'(?:src|href)="(/static/[^"]+)"', page):
        assert worker.get(file)[0] == 200

    assert worker.get("/", host="evil.example")[0] == 403
    assert worker.get("/window.json", origin="http://evil.example")[0] == 403
    assert worker.get("/", method="POST")[0] == 405
    assert worker.get("/static/..%2fpage.py")[0] == 404
    assert worker.get("/static/secret")[0] == 404
    own = [each.address for some in psutil.net_if_addrs().values() for each in some if each.family == socket.AF_INET]
    port = worker.at.rpartition(":")[2]
    for address in (each for each in own if not each.startswith("127.")):
        assert worker.get("/livez", at=f"{address}:{port}")[0] == 200
        for path in ("/", "/window.json", "/static/page.js"):
            assert worker.get(path, at=f"{address}:{port}")[0] == 403


def _brightness(picture: Path) -> float:
    with Image.open(picture) as image:
        shrunk = image.convert("L").resize((1, 1))
        return float(shrunk.tobytes()[0])


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_a_browser_shows_it_light_and_dark_and_keeps_it_fresh(worker: Worker, tmp_path: Path) -> None:
    worker.submit("strange", [HOSTILE])
    waiting.wait_for(lambda: worker.told()["ended"], description="it has ended", seconds=30)
    async with browser.tab(tmp_path) as tab:
        await tab.open(f"http://{worker.at}/?lang=en")
        assert await tab.script("document.querySelectorAll('[data-rows=running] tr').length") == 0
        worker.submit("sleeper", "sleep 600")

        async def fresh() -> Any:
            return await tab.script("document.querySelector('[data-rows=running] th')?.textContent === 'sleeper'")

        await waiting.wait_until(fresh, description="the script shows the new task", seconds=30)
        assert await tab.script("document.querySelector('[data-rows=running]').closest('[hidden]') === null")
        assert await tab.script("document.querySelectorAll('img').length") == 1
        assert await tab.script("document.title") == "one · HiveMind Worker"
        assert HOSTILE in await tab.script("document.querySelector('[data-rows=ended]').textContent")
        assert await tab.script(ONE_LINE)
        light = _brightness(await tab.picture(tmp_path / "light.png"))
        await tab.open(f"http://{worker.at}/?lang=zh-Hant", "dark")
        dark = _brightness(await tab.picture(tmp_path / "dark.png"))
        assert light > 200, "dark on light"
        assert dark < 60, "light on dark"
        # By keyboard: the first stop leads past the heading, to the content.
        for kind in ("rawKeyDown", "keyUp"):
            await tab.ask("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
        assert await tab.script("document.activeElement.getAttribute('href')") == "#main"
        await tab.open(f"http://{worker.at}/?lang=en", width=360)
        assert await tab.script("document.documentElement.scrollWidth <= 360"), "a narrow screen has no sideways scroll"
        assert await tab.script(UNNAMED) == 0
        assert tab.complaints == []
