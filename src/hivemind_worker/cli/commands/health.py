"""`hivemind health`: are the worker and the pool of this state folder well? For people, and for a HEALTHCHECK."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from hivemind_worker.cli import exit_codes, look
from hivemind_worker.web import finding

SECONDS = 8.0
"""Longest that one answer is waited for: each check has five seconds (health_probe_seconds), all at once."""

# Written out rather than made from the settings, which take longer to read than the answer to come; a test holds them
# against those.
STATE_DIR = ("--state-dir", "HIVEMIND_STATE_DIR")


@click.command("health")
@click.option(STATE_DIR[0], "state_dir", metavar="PATH", help="The state folder of the worker or pool to ask.")
@click.option("--address", metavar="HOST:PORT", default="", help="Ask whoever answers there instead.")
@click.option("--config", "config", metavar="FILE", help="The settings file; otherwise HIVEMIND_CONFIG or the usual.")
@look.options()
def command(state_dir: str | None, address: str, config: str | None) -> None:
    """Ask the worker and the pool here whether they are well. The exit code is 0 when they are, otherwise 1.

    They are found by their state folder, whatever port they answer at.
    """
    shown = look.current()
    folder = _state_dir(state_dir, config)
    found = {"": address} if address else finding.addresses(folder)
    if not found:
        click.echo(f"hivemind: neither a worker nor a pool answers over HTTP for {folder}: start one, name another "
                   "--state-dir, or set http_enabled", err=True)  # fmt: skip
        sys.exit(exit_codes.FAILURE)
    well = True
    for name, where in found.items():
        answer = finding.ask(where, SECONDS)
        if answer.report is None:
            look.report(f"hivemind: {answer.trouble}")
        else:
            _show(name.removesuffix("-http"), where, answer.report, shown)
        well = well and answer.report is not None and answer.report["status"] == "healthy"
    sys.exit(exit_codes.OK if well else exit_codes.FAILURE)


def _show(what: str, where: str, report: Mapping[str, Any], shown: look.Look) -> None:
    if shown.json:
        shown.object({"what": what, "address": where, **report})
    elif not shown.quiet:
        shown.line(f"{what or where}: {report['status']}")
        for name, value in _rows(report):
            shown.line(f"  {name + ':':<12}{value}")


def _rows(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, check in report.get("checks", {}).items():
        yield name, str(check["message"]) if check["status"] == "healthy" else f"UNHEALTHY: {check['message']}"
    if not report.get("ready", True):
        yield "not ready", str(report.get("not_ready_because", ""))


def _state_dir(flag: str | None, config: str | None) -> Path:
    """The state folder in force, as `settings.sources` would find it; without it where nothing needs it."""
    from hivemind_worker.settings import paths  # noqa: PLC0415  (as below: nothing is imported that is not needed)

    said = flag or os.environ.get(STATE_DIR[1], "").strip()
    if said:
        return Path(said).expanduser().absolute()
    named = config or os.environ.get("HIVEMIND_CONFIG", "").strip()
    if not named and not any(path.is_file() for path in paths.config_files()):
        return paths.state_dir()
    from hivemind_worker.settings import sources  # noqa: PLC0415  (slow to import)

    return sources.load({}, os.environ, sources.find_file(config, os.environ)).storage.state_dir
