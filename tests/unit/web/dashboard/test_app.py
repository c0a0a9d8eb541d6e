from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import snapshots
import waiting

from hivemind_worker.telemetry.health import checks, report
from hivemind_worker.web import endpoints, finding, serving
from hivemind_worker.web.dashboard import app


class Part:
    """One probe of a health report: counts how often it is asked, and answers when it may."""

    def __init__(self) -> None:
        self.asked = 0
        self.may = asyncio.Event()

    async def look(self) -> checks.Check:
        self.asked += 1
        await self.may.wait()
        return checks.healthy("fine")


async def test_however_many_look_the_health_is_asked_for_once(tmp_path: Path) -> None:
    part = Part()
    health = report.HealthChecker({"part": part.look}, live=lambda: True, ready=lambda: (True, ""), seconds=20.0)
    shown = app.routes(lambda: snapshots.SNAPSHOT, health, "1.0")

    async def metrics() -> tuple[bytes, str]:
        return b"", "text/plain"

    door = serving.Door(endpoints.app(health, metrics, shown), "127.0.0.1:0", note=tmp_path / finding.WORKER)
    async with door, aiohttp.ClientSession(f"http://{door.address}") as session:

        async def told() -> dict[str, Any]:
            async with session.get("/window.json") as answer:
                return dict(json.loads(await answer.text()))

        asking = [asyncio.create_task(told()) for _ in range(20)]
        await waiting.wait_until(lambda: part.asked, description="somebody asks")
        async with session.get("/livez") as answer:
            assert answer.status == 200  # who waits for the report holds up nobody else
        part.may.set()
        answers = await asyncio.gather(*asking)
        assert all(each["state"]["text"] == "All is well: it is ready for tasks" for each in answers)
        assert part.asked == 1
        for name in ("page.css", "page.js", "icon.svg"):
            async with session.get(f"/static/{name}") as answer:
                assert (answer.status, answer.headers["x-content-type-options"]) == (200, "nosniff")
        async with session.get("/static/page.html") as answer:
            assert answer.status == 404
