"""Values of secrets in a task's message: taken out and sealed for whoever keeps the message, and put back."""

from __future__ import annotations

from hivemind_worker.filesystem import sealed
from hivemind_worker.wire.generated import nodepool_pb2 as pb


def seal(task: pb.Task, key: sealed.Key) -> bytes:
    """Take the values out of a message, which names them from now on; return them sealed. Raises as `Key.seal`."""
    names = sorted(task.secrets)
    content = pb.Task(secrets=task.secrets).SerializeToString()
    task.ClearField("secrets")
    task.secret_names[:] = names
    return key.seal(content, _about(task))


def unseal(task: pb.Task, content: bytes, key: sealed.Key) -> None:
    """Put values back that `seal` took out of this message. Raises ValueError where this key cannot read them."""
    task.secrets.update(pb.Task.FromString(key.unseal(content, _about(task))).secrets)


def for_records(task: pb.Task, key: sealed.Key) -> bytes:
    """Return a message as it may be written down: its values sealed. Raises as `seal`."""
    if not task.secrets:
        return task.SerializeToString()
    record = pb.Task()
    record.CopyFrom(task)
    record.sealed_secrets = seal(record, key)
    return record.SerializeToString()


def from_records(task: pb.Task, key: sealed.Key) -> None:
    """Put values back into a message that `for_records` has written. Raises as `unseal`."""
    if task.sealed_secrets:
        content = task.sealed_secrets
        task.ClearField("sealed_secrets")
        unseal(task, content, key)


def _about(task: pb.Task) -> str:
    """What the values belong to: a store's row put in another's place is not read."""
    return "\0".join(task.secret_names)
