"""The root command: which verbs there are, what each does in a line, and how a command ends."""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

import click

import hivemind_worker
from hivemind_worker import errors
from hivemind_worker.cli import exit_codes, look
from hivemind_worker.filesystem import umask

# Each verb's file, and its line in the help: shown without importing the file. A test holds them against the files.
VERBS: Mapping[str, tuple[str, str]] = {
    "up": ("up", "Start a pool and a worker here."),
    "run": ("run", "Run one script or command as a task, and follow it live."),
    "worker": ("worker", "Start the worker node."),
    "pool": ("pool", "Start the Node Pool."),
    "submit": ("submit", "Submit the tasks in task files."),
    "tasks": ("tasks", "List tasks, newest first."),
    "status": ("status", "Show all that is known about tasks."),
    "wait": ("wait", "Wait until tasks have ended."),
    "logs": ("logs", "Show what a task wrote."),
    "results": ("results", "List or fetch the result files of a task."),
    "cancel": ("cancel", "Stop tasks."),
    "retry": ("retry", "Submit ended tasks anew."),
    "nodes": ("nodes", "List the worker nodes."),
    "node": ("node", "Drain or resume a worker node."),
    "health": ("health", "Ask the worker and the pool here whether they are well."),
    "config": ("config", "Show the settings and where they come from."),
    "doctor": ("doctor", "Probe whether tasks can run here, and how well they are fenced."),
    "images": ("images", "List the images and environments on this machine."),
    "clean": ("clean", "Tidy this machine, or tell what would go and why."),
    "completion": ("completion", "Print the completion script of a shell."),
}


class Verbs(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  (click's own signature)
        """The verbs, in the order in which one meets them."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import the verb's file."""
        if cmd_name not in VERBS:
            return None
        found = importlib.import_module(f"hivemind_worker.cli.commands.{VERBS[cmd_name][0]}").command
        if not gc.isenabled():  # by `__main__`, while everything was imported
            gc.freeze()
            gc.enable()
        if not isinstance(found, click.Command):
            raise TypeError(f"cli.commands.{cmd_name}.command is no command")
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """The help's list of verbs, without importing them."""
        with formatter.section("Verbs"):
            formatter.write_dl([(name, line) for name, (_, line) in VERBS.items()])


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(hivemind_worker.__version__, prog_name="hivemind", message="%(prog)s %(version)s")
@look.options(json=False)
def command() -> None:
    """Run tasks on your own machines, each in a fresh capsule.

    Try `hivemind run -- echo hello`: it needs nothing else running.
    """


def run(arguments: Sequence[str], name: str = "hivemind") -> NoReturn:
    """Do what the command line says, and end this process with the exit code that tells how it went."""
    umask.restrict()
    shown = look.Look()
    _have_standard_streams()
    try:
        code = command.main(list(arguments), prog_name=name, standalone_mode=False, obj=shown)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output has gone: that is no error of ours, and there is nobody to tell.
        _let_go_of_output()
        code = exit_codes.FAILURE
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            code = _told(error, shown)
        else:
            look.report(f"hivemind: {error.filename or 'the output'} cannot be written: {error.strerror}")
            _let_go_of_output()
            code = exit_codes.FAILURE
    except Exception as error:  # noqa: BLE001  (the last one who can say something)
        code = _told(error, shown)
    except KeyboardInterrupt:
        code = exit_codes.INTERRUPTED
    sys.exit(code if isinstance(code, int) else exit_codes.OK)


def _have_standard_streams() -> None:
    """Put /dev/null where one of the three is closed: the next file we opened would be taken for it."""
    for fd, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null != fd:
                os.dup2(null, fd)
                os.close(null)
            setattr(sys, name, open(fd, mode, encoding="utf-8", closefd=False))  # noqa: SIM115  (for good)


def _let_go_of_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _told(error: Exception, shown: look.Look) -> int:
    """Say what went wrong, in a line that says what to do; returns the exit code."""
    if isinstance(error, click.exceptions.Abort):
        return exit_codes.INTERRUPTED
    if isinstance(error, click.ClickException):
        with contextlib.suppress(OSError):  # nobody is left to read it
            error.show()
        return error.exit_code
    if shown.debug:
        import traceback  # noqa: PLC0415  (rarely needed, and every command waits for what is imported)

        look.report("".join(traceback.format_exception(error)).rstrip())
    elif isinstance(error, errors.HiveMindError | TimeoutError):
        look.report(f"hivemind: {error}")
    else:
        said = f"{type(error).__name__}: {error}"
        look.report(f"hivemind: this should not have happened: {said}; --debug shows where")
    return exit_codes.of_error(error)
