"""What is answered over HTTP: /livez, /readyz and /healthz for whoever watches the process, /metrics for Prometheus."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from starlette import applications, requests, responses, routing

from hivemind_worker.telemetry.health import checks, report

Exposition = Callable[[], Awaitable[tuple[bytes, str]]]
"""All metrics in Prometheus' text format, and that format's content type."""


def app(health: report.Health, metrics: Exposition, more: Sequence[routing.BaseRoute] = ()) -> applications.Starlette:
    """Return the application that answers these, and ``more`` where there is a window."""
    return applications.Starlette(routes=[*routes(health, metrics), *more])


def routes(health: report.Health, metrics: Exposition) -> list[routing.Route]:
    """Return the routes. 200 is yes, 503 no; nothing can be changed by them."""

    async def livez(_: requests.Request) -> responses.Response:
        return _word(*((True, "") if health.live() else (False, "a loop of this process stands still")))

    async def readyz(_: requests.Request) -> responses.Response:
        return _word(*health.ready())

    async def healthz(_: requests.Request) -> responses.Response:
        said = await health.check_health()
        return responses.JSONResponse(said, 200 if said["status"] == checks.Status.HEALTHY else 503, _FRESH)

    async def exposed(_: requests.Request) -> responses.Response:
        text, kind = await metrics()
        return responses.Response(text, headers={**_FRESH, "content-type": kind})

    answers = {"/livez": livez, "/readyz": readyz, "/healthz": healthz, "/metrics": exposed}
    return [routing.Route(path, answer, methods=["GET"]) for path, answer in answers.items()]


_FRESH = {"cache-control": "no-store"}


def _word(good: bool, why: str) -> responses.Response:  # noqa: FBT001  (the answer itself)
    return responses.PlainTextResponse("ok\n" if good else f"{why}\n", 200 if good else 503, _FRESH)
