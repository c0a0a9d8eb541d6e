"""`hivemind run`: one script or command as a task, followed live; its exit code is the command's."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path
from typing import Any

import click

from hivemind_worker.cli import (
    describing,
    embedded,
    exit_codes,
    following,
    look,
    options,
    progress,
    service,
    streams,
    tapped,
    words,
)
from hivemind_worker.client import asynchronous, inputs, shapes
from hivemind_worker.concurrency import stopping
from hivemind_worker.runtime.docker import image_access
from hivemind_worker.settings import schema
from hivemind_worker.tasks import outcome
from hivemind_worker.telemetry import untrusted
from hivemind_worker.wiring import clients


class _Run(click.Command):
    """A command that knows whether its words came after `--`, which click itself forgets."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given = list(args)
        rest = super().parse_args(ctx, args)
        # A shell that completes words may have none yet.
        before = len(given) - len(ctx.params["argv"] or ()) - 1
        ctx.meta["hivemind.dashed"] = before >= 0 and given[before] == "--"
        return rest


@click.command(
    "run",
    cls=_Run,
    context_settings={"allow_interspersed_args": False},
    options_metavar="[OPTIONS]",
)
@click.argument("argv", nargs=-1, required=True, type=click.UNPROCESSED, metavar="SCRIPT.py ARGS… | -- CMD…")
@click.option("--image", help="The container image; otherwise the default_image.")
@click.option("--cpu", type=click.FloatRange(min=0.01), metavar="N", help="CPU cores it may use at once.")
@click.option("--memory", metavar="M", help="Memory it may use: 512m, 2g.")
@click.option("--timeout", type=float, metavar="S", help="Seconds after which it is ended (exit code 124).")
@click.option("--env", "environment", multiple=True, metavar="NAME[=VALUE]",
              help="A variable for the task; without a value, the one it has here.")  # fmt: skip
@click.option("--secret", "secrets", multiple=True, metavar="NAME[=@FILE|=-]",
              help="A variable that only the task sees: its value from here, a file, or standard input.")  # fmt: skip
@click.option("--input", "paths", multiple=True, metavar="PATH", help="A file or folder for the task to read.")
@click.option("--results", "directory", metavar="DIR", help="Fetch the result files into this folder.")
@click.option(
    "-r",
    "requirements",
    multiple=True,
    metavar="REQ",
    help="A Python package that the script needs, such as 'numpy>=2'; may be given several times.",
)
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="A label of the task.")
@streams.option
@options.of(*options.TO_POOL, "log_level", "cache_dir", groups=("docker", "images", "packages"))
@look.options()
def command(**given: Any) -> None:
    """Run one script or command as a task, and follow it live.

    Without --node-pool it brings its own pool and worker, for as long as it runs. The task finds its inputs in its
    working directory and leaves result files in ./results. The exit code is the task's own, or tells why it has none:
    124 time limit, 125 engine, 126 and 127 not runnable, 130 ^C, 137 killed or out of memory.
    """
    shown = look.current()
    asked = describing.Asked(
        argv=given.pop("argv"),
        is_command=click.get_current_context().meta["hivemind.dashed"],
        image=given.pop("image"),
        cpu=given.pop("cpu"),
        memory=given.pop("memory"),
        timeout=given.pop("timeout"),
        environment=given.pop("environment"),
        inputs=given.pop("paths"),
        requirements=given.pop("requirements"),
        labels=given.pop("labels"),
        secrets=given.pop("secrets"),
    )
    directory = given.pop("directory")
    writer = streams.Writer(shown, raw=given.pop("raw"))
    prepared = inputs.prepare(describing.task(asked), Path())
    own = not given.get("node_pool_address")
    with progress.bars(shown) as told:
        task = asyncio.run(_run(options.load(given), prepared, shown, writer, directory, told, own=own))
    if shown.json:
        shown.object(task.as_json())
    else:
        _tell(task, directory, shown)
    sys.exit(exit_codes.of_task(task))


async def _run(
    settings: schema.Settings,
    prepared: inputs.Prepared,
    shown: look.Look,
    writer: streams.Writer,
    directory: str | None,
    told: clients.Progress,
    *,
    own: bool,
) -> shapes.Task:
    """Submit, follow, fetch. Raises KeyboardInterrupt when ^C was pressed before there was a task, or twice."""
    stop = stopping.Stop()
    with service.signals(stop, shown.more, stopping.StopLevel.CANCEL):
        run = _run_here if own else _run_there
        try:
            return await run(settings, prepared, shown, writer, directory, told, stop)
        except stopping.Stopped:
            raise KeyboardInterrupt from None
        finally:
            with contextlib.suppress(OSError):  # whoever read it has gone
                writer.finish()


async def _run_there(
    settings: schema.Settings,
    prepared: inputs.Prepared,
    shown: look.Look,
    writer: streams.Writer,
    directory: str | None,
    told: clients.Progress,
    stop: stopping.Stop,
) -> shapes.Task:
    async with clients.build(settings, told) as client:
        task_id = await _submit(client, prepared, shown, stop)
        task = await following.follow(client, task_id, stop, writer.write, shown.note)
        await _fetch(client, task, directory, shown, stop)
        return task


async def _run_here(
    settings: schema.Settings,
    prepared: inputs.Prepared,
    shown: look.Look,
    writer: streams.Writer,
    directory: str | None,
    told: clients.Progress,
    stop: stopping.Stop,
) -> shapes.Task:
    unwritten: list[OSError] = []

    def gone(error: OSError) -> None:
        unwritten.append(error)
        stop.request(stopping.StopLevel.CANCEL, f"nobody reads the output: {error.strerror}")

    tap = tapped.Tap(writer.write, gone)
    if image := prepared.task.docker_image:
        settings = settings.model_copy(update={"images": image_access.of_owner(settings.images, image)})
    async with (
        embedded.pool_and_worker(settings, prepared.task.needs, stop, tap, shown.note) as here,
        clients.build(here, told) as client,
    ):
        task_id = await _submit(client, prepared, shown, stop)
        tap.open()
        task = await following.follow(client, task_id, stop, None, shown.note)
        await tap.close()
        await _fetch(client, task, directory, shown, stop)
    if tap.left_out_bytes:
        shown.note(f"hivemind: {tap.left_out_bytes} bytes of output were left out: they were not read fast enough")
    if unwritten:
        raise unwritten[0]
    return task


async def _submit(
    client: asynchronous.AsyncClient, prepared: inputs.Prepared, shown: look.Look, stop: stopping.Stop
) -> str:
    (task_id,) = await stop.until(stopping.StopLevel.CANCEL, client.submit_prepared([prepared]))
    if shown.json:
        shown.object({"id": task_id})
    return task_id


async def _fetch(
    client: asynchronous.AsyncClient, task: shapes.Task, directory: str | None, shown: look.Look, stop: stopping.Stop
) -> None:
    if directory is not None and task.result and task.result.results:
        fetched = await stop.until(stopping.StopLevel.CANCEL, client.download(task.id, directory))
        for skipped in fetched.skipped:
            shown.note(f"hivemind: not fetched: {untrusted.line(skipped.why)}")


def _tell(task: shapes.Task, directory: str | None, shown: look.Look) -> None:
    """What the task's own output does not say: why it was ended, and what was left behind."""
    result = task.result
    its_own = outcome.Reason.NONZERO_EXIT if task.exit_code not in {126, 127} else None
    if task.reason is not None and task.reason not in {its_own, outcome.Reason.CANCELLED}:
        shown.note(f"hivemind: {words.ending(task)}" + (f": {result.error}" if result and result.error else ""))
    if task.reason is outcome.Reason.IMAGE_UNAVAILABLE:
        shown.note("hivemind: --image names another image, and --isolation=sandbox needs none")
    if result and result.results and directory is None:
        left = words.count(len(result.results), "result file")
        shown.note(f"hivemind: {left} left behind; --results DIR fetches them")
    for line in words.not_taken(task):
        shown.note(f"hivemind: {line}")
    if result:
        shown.more(f"hivemind: {task.id} {words.ending(task)} in {result.usage.wall_seconds:.2f} s, {result.isolation}")
