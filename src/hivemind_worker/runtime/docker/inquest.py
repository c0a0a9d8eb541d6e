"""What the engine is asked about a container whose conversation has ended: why, what it used, who killed it."""

from __future__ import annotations

from hivemind_worker import errors
from hivemind_worker.runtime import session_result
from hivemind_worker.runtime.capsule import accounts, messages
from hivemind_worker.runtime.docker import engine as engines
from hivemind_worker.runtime.docker import usage


async def ask_why(engine: engines.Engine, container: str, heard: session_result.SessionResult) -> None:
    """Add what the engine knows to the fault.

    A stream that ends early looks the same whether engine, container or only the capsule's word is gone.
    """
    try:
        known = (await engine.inspect(container)).get("State") or {}
        heard.fault += f"; the engine says: {known.get('Status')} {known.get('Error') or ''}".rstrip()
    except engines.NotThere:
        heard.fault += "; someone has removed its container"
    except errors.NodeFault as error:
        heard.lost = True
        heard.fault = str(error)


async def count(engine: engines.Engine, container: str, heard: session_result.SessionResult) -> accounts.Reading:
    """Return what the container has used, as far as anybody can tell."""
    found = usage.read(container)
    if found is None and heard.exited is not None:
        found = await usage.ask(engine, container)
    return found or accounts.Reading()


def is_unexplained(heard: session_result.SessionResult) -> bool:
    """Whether only the engine may know why the conversation broke off."""
    known = heard.stopped or heard.overtime or heard.lost or heard.not_begun
    return heard.exited is None and not known


def suspicious(heard: session_result.SessionResult) -> bool:
    """Whether the engine must be asked about memory: the task, or the capsule itself, was killed by someone."""
    if heard.stopped or heard.overtime:
        return False
    exited = heard.exited
    if exited is None or heard.cut:  # what a task leaves in memory may kill the capsule that reads its results
        return True
    return exited.why is messages.Why.OWN and exited.status != 0
