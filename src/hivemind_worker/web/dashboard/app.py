"""What is answered at / over HTTP: the page, what refreshes it, and its files. To this machine alone; only to look."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from starlette import requests, responses, routing

from hivemind_worker.concurrency import clock
from hivemind_worker.telemetry.health import report
from hivemind_worker.web.dashboard import page, views, words
from hivemind_worker.worker.machine import status

REPORT_SECONDS: Final = 5.0
"""How old a health report may be: however many pages are open, the pool is not pinged more often for them."""

_SAFE: Final = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
_FRESH: Final = {**_SAFE, "cache-control": "no-store", "vary": "accept-language"}
_ELSEWHERE: Final = (
    "403: the window is shown to the machine that the worker runs on, and to no other: it names tasks, and there is\n"
    "no password. From elsewhere: ssh -L 9464:127.0.0.1:PORT that-machine, and open http://127.0.0.1:9464/\n"
)

Answer = Callable[[requests.Request], Awaitable[responses.Response]]


def routes(look: Callable[[], status.Snapshot], health: report.Health, version: str) -> list[routing.Route]:
    """Return the routes of the window; ``look`` is called on the node's event loop."""
    shown, healthy = page.Page(), _Remembered(health)

    async def now(asked: requests.Request) -> tuple[dict[str, Any], str]:
        language = words.language(asked.query_params.get("lang", ""), asked.headers.get("accept-language", ""))
        said = await healthy.report()
        return views.view(look(), said, dt.datetime.now(dt.UTC), language), language

    async def window(asked: requests.Request) -> responses.Response:
        view, language = await now(asked)
        return responses.HTMLResponse(shown.html(view, language, version), headers=_FRESH)

    async def state(asked: requests.Request) -> responses.Response:
        view, _ = await now(asked)
        return responses.JSONResponse(view, headers=_FRESH)

    async def static(asked: requests.Request) -> responses.Response:
        name = asked.path_params["name"]
        if name not in shown.static:
            return responses.PlainTextResponse("404: no such file\n", 404, _SAFE)
        kept = {**_SAFE, "cache-control": "no-cache", "content-type": page.STATIC[name]}
        return responses.Response(shown.static[name], headers=kept)

    answers = {"/": window, "/window.json": state, "/static/{name}": static}
    return [routing.Route(path, _here(answer), methods=["GET"]) for path, answer in answers.items()]


class _Remembered:
    """The health report, not older than REPORT_SECONDS; whoever asks while one is made waits for that one."""

    def __init__(self, health: report.Health) -> None:
        self._health = health
        self._one_at_a_time = asyncio.Lock()
        self._last: tuple[float, Mapping[str, Any]] | None = None

    async def report(self) -> Mapping[str, Any]:
        async with self._one_at_a_time:
            if self._last is None or clock.now() - self._last[0] >= REPORT_SECONDS:
                found = await self._health.check_health()
                self._last = (clock.now(), found)
            return self._last[1]


def _here(answer: Answer) -> Answer:
    """Answer this machine only, wherever the door listens."""

    async def answered(asked: requests.Request) -> responses.Response:
        if asked.client is None or not local(asked.client.host):
            return responses.PlainTextResponse(_ELSEWHERE, 403, _SAFE)
        return await answer(asked)

    return answered


def local(host: str) -> bool:
    """Tell whether an address is this machine talking to itself."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    inner = getattr(address, "ipv4_mapped", None)
    return (inner or address).is_loopback
