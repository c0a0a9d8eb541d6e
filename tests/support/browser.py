"""A real Chromium, told what to do over its own protocol: open a page, run a line of script, take a picture."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import waiting

SECONDS = 30.0


class Tab:
    """One page. ``complaints`` is what the browser had to say of it: errors, and what its policy refused."""

    def __init__(self, line: aiohttp.ClientWebSocketResponse) -> None:
        self._line = line
        self._numbers = itertools.count(1)
        self.complaints: list[str] = []

    async def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """One call of the protocol; its result."""
        number = next(self._numbers)
        await self._line.send_json({"id": number, "method": method, "params": params})
        while True:
            said = await self._line.receive_json(timeout=SECONDS)
            if said.get("method") in {"Log.entryAdded", "Runtime.exceptionThrown"}:
                self.complaints.append(str(said["params"]))
            if said.get("id") == number:
                assert "error" not in said, said
                return dict(said["result"])

    async def script(self, text: str) -> Any:
        """What an expression comes to."""
        found = await self.ask("Runtime.evaluate", expression=text, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def open(self, url: str, scheme: str = "light", width: int = 1100, height: int = 1400) -> None:
        """Load a page and wait for it."""
        for domain in ("Log", "Runtime", "Page"):
            await self.ask(f"{domain}.enable")
        feature = {"name": "prefers-color-scheme", "value": scheme}
        await self.ask("Emulation.setEmulatedMedia", features=[feature])
        await self.ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        await self.ask("Page.navigate", url=url)

        async def loaded() -> Any:
            return bool(await self.script(f"document.readyState === 'complete' && location.href === {url!r}"))

        await waiting.wait_until(loaded, description="the page is loaded", seconds=SECONDS)

    async def picture(self, place: Path) -> Path:
        """Save what is seen, as PNG."""
        found = await self.ask("Page.captureScreenshot", format="png")
        await asyncio.to_thread(place.write_bytes, base64.b64decode(found["data"]))
        return place


@contextlib.asynccontextmanager
async def tab(folder: Path) -> AsyncIterator[Tab]:
    """A tab of a Chromium of its own, with its profile in ``folder``. Skips the test where none is installed."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium is installed")
    profile = folder / "profile"
    flags = [
        "--headless=new",
        "--disable-gpu",
        "--no-first-run",
        "--disable-dev-shm-usage",
        "--remote-debugging-port=0",
    ]
    if os.geteuid() == 0:
        flags.append("--no-sandbox")  # Chromium's own does not work for root
    with (folder / "chromium.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            program, *flags, f"--user-data-dir={profile}", "about:blank",
            stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    note = profile / "DevToolsActivePort"
    try:
        await waiting.wait_until(
            lambda: note.exists() and note.read_text().count("\n"), description="it listens", seconds=SECONDS
        )
        port = note.read_text().split()[0]
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                pages = [each for each in await answer.json() if each["type"] == "page"]
            async with session.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=64 << 20) as line:
                found = Tab(line)
                yield found
                await line.send_json({"id": 0, "method": "Browser.close"})
                await asyncio.wait_for(process.wait(), SECONDS)
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            await process.wait()
