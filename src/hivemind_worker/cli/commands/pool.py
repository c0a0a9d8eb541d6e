"""`hivemind pool`: the Node Pool, in the foreground until it is told to stop; its backup, and its restore."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hivemind_worker.cli import exit_codes, look, options, rereading, service, words
from hivemind_worker.concurrency import stopping
from hivemind_worker.wiring import http, pools

if TYPE_CHECKING:
    from hivemind_worker.pool import backup as pool_backup

_PLACES = ("state_dir", "pool_store", "pool_artifact_dir")


@click.group("pool", invoke_without_command=True)
@options.of(
    *("state_dir", "log_dir", "tls_cert_file", "tls_key_file", "insecure", "http_hosts"), groups=("pool", "logging")
)
@look.options()
def command(**given: Any) -> None:
    """Start the Node Pool: it takes tasks from submitters and hands them to worker nodes.

    SIGTERM or ^C stops it; SIGHUP has the settings file read anew. With a command, do that instead.
    """
    ctx = click.get_current_context()
    if ctx.invoked_subcommand is not None:
        ctx.meta[__name__] = given
        return
    from hivemind_worker.pool import heap  # noqa: PLC0415  (slow to import)

    heap.give_back_what_is_free()
    settings = options.load(given)
    reread = rereading.Rereading(settings, lambda: options.load(given))
    shown = look.current()

    async def work(stop: stopping.Stop) -> None:
        pool = pools.build(settings, reread.takers)
        async with service.serving(pool) as address, http.of_pool(settings, pool):
            shown.note(f"the pool listens at {address}")
            await service.beside(pool, stop, lambda: _until(stop))

    sys.exit(service.run(reread, "pool", work, shown))


async def _until(stop: stopping.Stop) -> None:
    await stop.wait()


@command.command("backup")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@options.of(*_PLACES)
@click.option("--with-key", is_flag=True, help="Also the key of tasks' secrets: keep such a backup as secret as those.")
@look.options()
def backup(folder: Path, with_key: bool, **given: Any) -> None:  # noqa: FBT001  (click's own signature)
    """Back this machine's pool up into DIR, also while it serves.

    What DIR has of an earlier backup is not copied again, and that stays until the new one is whole. The exit code is 1
    where the pool itself has lost files that its tasks name: the backup is whole but for those.
    """
    from hivemind_worker.pool import backup as pool_backup  # noqa: PLC0415  (slow to import)

    shown = look.current()
    summary = pool_backup.make(_folders(given), folder, with_key=with_key)
    if shown.json:
        shown.object(_plain(summary))
    else:
        copied = f"{words.size(summary.copied)} of {words.size(summary.size)} were new"
        shown.note(f"{summary.path} is whole: {summary.files} files; {copied}")
        shown.note(f"restore: hivemind pool restore {folder}")
    _say_missing(summary.missing, shown)


@command.command("restore")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@options.of(*_PLACES)
@click.option("--replace", is_flag=True, help="Set aside, by another name, what is there of a pool already.")
@look.options()
def restore(folder: Path, replace: bool, **given: Any) -> None:  # noqa: FBT001  (click's own signature)
    """Put the backup in DIR in this machine's pool's place; that pool must not run.

    Every file is checked first. The store gets a new epoch: nodes register again, what they ran is given up and queued
    again, and nothing that was assigned before is ever taken for what is assigned from now on.
    """
    from hivemind_worker.pool import restore as pool_restore  # noqa: PLC0415  (slow to import)

    shown = look.current()
    summary = pool_restore.restore(folder, _folders(given), replace=replace)
    if shown.json:
        shown.object(_plain(summary))
    else:
        for path in summary.set_aside:
            shown.note(f"set aside: {path}")
        shown.note(f"restored {summary.files} files, as of {words.moment(summary.made_at)}; start: hivemind pool")
    if summary.unreadable:
        folders = _folders(given)
        shown.note(
            f"{summary.unreadable} tasks have secrets, and the key that can read them is not in the backup: put it at "
            f"{folders.store}.key before you start the pool, or they end as invalid_task"
        )
    _say_missing(summary.missing, shown)


def _folders(given: dict[str, Any]) -> pool_backup.Folders:
    """Where the pool has its data; options before the command's name are as good as those behind it."""
    from hivemind_worker.pool import backup as pool_backup  # noqa: PLC0415  (slow to import)

    before = click.get_current_context().meta.get(__name__, {})
    settings = options.load(before | {key: value for key, value in given.items() if value is not None})
    return pool_backup.Folders(settings.pool_store, settings.storage.state_dir / "logs", settings.pool_artifact_dir)


def _plain(summary: Any) -> dict[str, Any]:
    fields = dataclasses.asdict(summary)
    return {
        name: [str(each) for each in value] if isinstance(value, tuple) else str(value) if name == "path" else value
        for name, value in fields.items()
    }


def _say_missing(missing: tuple[str, ...], shown: look.Look) -> None:
    if not missing:
        return
    some = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
    shown.note(f"the pool itself does not have {len(missing)} of the files that its tasks name: {some}")
    sys.exit(exit_codes.FAILURE)
