"""Tries every defence in a capsule of the very kind that tasks get, by a program of ours in an image of ours."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from hivemind_worker import errors, units
from hivemind_worker.concurrency import stopping
from hivemind_worker.runtime import executor, trial
from hivemind_worker.runtime.capsule import defence_spec, defences, init
from hivemind_worker.tasks import outcome, plan

SECONDS: Final = 8.0
"""Longest that it takes. 1 s usually, a third of it waiting for what a processor quota allows."""

MEMORY: Final = 48 * units.MIB
DISK: Final = units.MIB
PIDS: Final = 128
QUOTA: Final = 50_000
"""Small, so that going beyond them costs the machine little: with no defence in force the probe takes 0.2 GB."""

_LOG: Final = "look at the logs of the worker, of the engine and of the kernel"
_PROXY: Final = "look what stands between the worker and the engine, and at the engine's own configuration"


async def prove(runs: executor.Executor) -> tuple[defence_spec.Verdict, ...]:
    """Say of each defence of ``runs`` whether it holds; nothing of an executor that promises none.

    Raises nothing but the cancellation of the asyncio task it runs in.
    """
    limits = outcome.Limits(MEMORY, QUOTA, SECONDS - 2.0, DISK, PIDS)
    asked = trial.own_plan((f"{plan.WORKSPACE}/{defences.PROBE}",), limits)
    output = trial.Output()
    try:
        async with asyncio.timeout(SECONDS):
            promises = await runs.promises(asked)
            if promises is None:
                return ()
            content = await asyncio.to_thread(init.binary_path(promises.machine, defences.PROBE).read_bytes)
            program = plan.InputFile(defences.PROBE, content, mode=0o755)
            argv = (*asked.argv, *defences.arguments(promises))
            ended = await runs.run(trial.own_plan(argv, limits, (program,)), stopping.Stop(), output)
            fit = await runs.fitness()
    except TimeoutError:
        return (_slow(f"it had not ended after {SECONDS:g} s"),)
    except errors.EngineLost as error:
        return (_slow(str(error)),)
    except (errors.HiveMindError, LookupError, OSError) as error:
        return (_run(str(error)),)
    text = output.data.decode("ascii", "replace")
    spec = tuple(
        defence_spec.Verdict("spec", "made as it was asked", defence_spec.State.BROKEN, difference, _PROXY)
        for difference in fit.differences
    )
    if ended.reason in {outcome.Reason.TIMEOUT, outcome.Reason.ENGINE_LOST}:
        return (_slow(f"it ended as {ended.reason}: {ended.error}"), *spec)
    if ended.status is not outcome.Status.COMPLETED:
        return (_run(f"it ended as {ended.reason}: {ended.error}"), *spec)
    if not text.rstrip().rpartition("\n")[2].startswith("end "):
        return (_run("the probe did not come to its end"), *spec)
    throttled = ended.usage.throttled_seconds
    return (_run(""), *spec, *defences.judge(text, promises, throttled))


def broken(
    verdicts: tuple[defence_spec.Verdict, ...], accepted: frozenset[str] = frozenset()
) -> tuple[defence_spec.Verdict, ...]:
    """Return those that are not in force and that the owner has not accepted, by their ids. Pure."""
    return tuple(each for each in verdicts if each.state is defence_spec.State.BROKEN and each.id not in accepted)


def rows(verdicts: tuple[defence_spec.Verdict, ...]) -> tuple[executor.Defence, ...]:
    """Return the verdicts as lines for people; those that could not be tried say so. Pure."""
    return tuple(
        executor.Defence(
            each.promise,
            each.state is defence_spec.State.HOLDS or (each.state is defence_spec.State.UNTRIED and each.id != "run"),
            f"not tried: {each.evidence}" if each.state is defence_spec.State.UNTRIED else each.evidence,
            each.fix,
            each.id,
        )
        for each in verdicts
    )


def merged(read: Iterable[executor.Defence], tried: tuple[executor.Defence, ...]) -> tuple[executor.Defence, ...]:
    """Return what was read of defences, but for those that were tried, and then these: a deed tells more. Pure."""
    names = {row.check for row in tried} | {row.id for row in tried}
    return (*(row for row in read if row.check not in names and row.id not in names - {""}), *tried)


def is_proved(verdicts: tuple[defence_spec.Verdict, ...]) -> bool:
    """Whether the probe ran to its end, or there is nothing to be proved. Pure."""
    return not verdicts or verdicts[0].state is defence_spec.State.HOLDS


def _slow(problem: str) -> defence_spec.Verdict:
    """A machine that is too busy, or whose engine is away, proves nothing in either way."""
    fix = "try again when it is less busy"
    return defence_spec.Verdict("run", "a task runs", defence_spec.State.UNTRIED, problem, fix)


def _run(problem: str) -> defence_spec.Verdict:
    state = defence_spec.State.BROKEN if problem else defence_spec.State.HOLDS
    return defence_spec.Verdict("run", "a task runs", state, problem, _LOG if problem else "")
