"""Exit codes: the one table from errors and outcomes to what the shell sees.

====  ==================================================================================
0     done
1     it failed, and nothing below says it better
2     the command line or the task is wrong: change it
69    not available: no pool answers, or nothing here can fence a task
75    not now: somebody else holds it, or the time to wait was over; try later
78    a setting is wrong
124   the task took longer than its time limit
125   the node or its engine failed the task, or its image cannot be had
126   the task cannot be run here (its dependencies failed)
127   the task's program was not found (the task's own exit code)
130   ^C, or cancelled
137   killed, or out of memory
else  the task's own exit code
====  ==================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from hivemind_worker import errors
from hivemind_worker.tasks import outcome, state

if TYPE_CHECKING:  # it brings gRPC, and an error in the command line needs none
    from hivemind_worker.client import shapes

OK = 0
FAILURE = 1
USAGE = 2
UNAVAILABLE = 69
TRY_LATER = 75
CONFIGURATION = 78
TIMEOUT = 124
ENGINE = 125
NOT_RUNNABLE = 126
INTERRUPTED = 130
KILLED = 137

# The first that fits decides, so a special error stands before its parent.
_OF_ERRORS: tuple[tuple[type[BaseException], int], ...] = (
    (errors.BadSettings, CONFIGURATION),
    (errors.IsolationMissing, UNAVAILABLE),
    (errors.StateInUse, TRY_LATER),
    (errors.InvalidTask, USAGE),
    (errors.Unavailable, UNAVAILABLE),
    (errors.NodeFault, ENGINE),
    (errors.ImageUnavailable, ENGINE),
    (TimeoutError, TRY_LATER),
    (KeyboardInterrupt, INTERRUPTED),
)

# None: the task's own exit code says it.
_OF_REASONS: Mapping[outcome.Reason, int | None] = {
    outcome.Reason.NONZERO_EXIT: None,
    outcome.Reason.TIMEOUT: TIMEOUT,
    outcome.Reason.CANCELLED: INTERRUPTED,
    outcome.Reason.OOM: KILLED,
    outcome.Reason.PIDS_LIMIT: None,
    outcome.Reason.DISK_LIMIT: None,
    outcome.Reason.RESULTS_REJECTED: FAILURE,
    outcome.Reason.INVALID_TASK: USAGE,
    outcome.Reason.IMAGE_UNAVAILABLE: ENGINE,
    outcome.Reason.DEPENDENCY_FAILED: NOT_RUNNABLE,
    outcome.Reason.ENGINE_LOST: ENGINE,
    outcome.Reason.NODE_SHUTDOWN: TRY_LATER,
    outcome.Reason.WORKER_CRASH: ENGINE,
    outcome.Reason.INTERNAL: ENGINE,
}


def of_error(error: BaseException) -> int:
    """The code for an error that ends the command.

    A setting is not to blame where a disk was full: that passes, and a service is to be started again.
    """
    if isinstance(error, errors.BadSettings) and _is_of_a_full_disk(error):
        return FAILURE
    return next((code for kind, code in _OF_ERRORS if isinstance(error, kind)), FAILURE)


def _is_of_a_full_disk(error: BaseException | None) -> bool:
    """Whether it came of one, however it was worded since: of a file, or of SQLite's, which has errors of its own."""
    while error is not None:
        name = getattr(error, "sqlite_errorname", "")
        if errors.is_disk_full(error) or name.startswith(("SQLITE_FULL", "SQLITE_IOERR")):
            return True
        error = error.__cause__ or error.__context__
    return False


def of_task(task: shapes.Task) -> int:
    """The code for a task that has ended; `TRY_LATER` for one that has not."""
    if not task.ended:
        return TRY_LATER
    if task.status is state.TaskState.COMPLETED:
        return OK
    if task.reason is None:
        return INTERRUPTED if task.status is state.TaskState.CANCELLED else FAILURE
    code = _OF_REASONS[task.reason]
    # An exit code of 0 is no failure's: a task that broke a limit and still said 0 has failed.
    return code if code is not None else task.exit_code or FAILURE


def of_tasks(tasks: tuple[shapes.Task, ...]) -> int:
    """The code for several: of one task its own, of many whether all of them completed."""
    if len(tasks) == 1:
        return of_task(tasks[0])
    return OK if all(of_task(task) == OK for task in tasks) else FAILURE
