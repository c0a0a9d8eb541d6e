"""The Python client in an ordinary program: no event loop in sight, several threads, several clients."""

from __future__ import annotations

import threading
from concurrent import futures
from pathlib import Path

import pytest
import waiting
from installed import Shell, Up, running_up

from hivemind_worker import errors
from hivemind_worker.client.client import Client
from hivemind_worker.tasks import state


@pytest.mark.sandbox
def test_a_program_submits_waits_and_fetches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running_up(Shell(tmp_path, "--isolation", "sandbox")) as up, Client(up.address) as client:
        (tmp_path / "script.py").write_text("print('from a file')\nopen('results/r', 'w').write('x' * 100)\n")
        (task_id,) = client.submit({"code": {"file": "script.py"}}, base=tmp_path)
        assert client.wait(task_id, 40)[0].status is state.TaskState.COMPLETED
        assert b"".join(output.data for output in client.logs(task_id)) == b"from a file\n"
        (path,) = client.download(task_id, tmp_path / "out")
        assert path.read_text() == "x" * 100
        assert [file.name for file in client.results(task_id)] == ["r"]
        assert [node.node_id for node in client.nodes()] == [up.node]
        monkeypatch.setenv("HIVEMIND_NODE_POOL_ADDRESS", up.address)
        with Client() as told_nothing:  # asks where the command would ask
            assert told_nothing.task(task_id).id == task_id
        _interrupted(up, client)
        _in_threads(up, client)
    assert not [thread for thread in threading.enumerate() if thread.name == "hivemind-client"]


def _interrupted(up: Up, client: Client) -> None:
    """Whoever stops listening leaves nothing running, and the client goes on."""
    (endless,) = client.submit({"command": "while :; do echo y; sleep 0.01; done"})
    listening = client.logs(endless, follow=True)
    assert next(listening).data.startswith(b"y\n")
    listening.close()  # type: ignore[attr-defined]
    # Output and state travel in calls of their own: the first line may be here before the pool was told "running".
    watching = client.watch(endless)
    assert any(seen.status is state.TaskState.RUNNING for seen in watching)
    watching.close()  # type: ignore[attr-defined]
    client.cancel(endless)
    assert client.wait(endless, 40)[0].status is state.TaskState.CANCELLED
    (again,) = client.retry(endless)
    client.cancel(again)
    with pytest.raises(errors.NoSuchTask):
        client.task("nobody")
    client.drain(up.node)
    waiting.wait_for(lambda: client.nodes()[0].draining, description="the node drains")
    client.resume(up.node)


def _in_threads(up: Up, client: Client) -> None:
    def one(number: int) -> int | None:
        with Client(up.address) as mine:
            (task_id,) = client.submit({"command": f"exit {number}"})
            return mine.wait(task_id, 40)[0].exit_code

    with futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(one, range(8))) == list(range(8))


def test_a_client_that_is_not_open_says_so() -> None:
    with pytest.raises(RuntimeError, match="within `with`"):
        Client("localhost:1").info()


def test_another_machine_in_the_clear_is_refused() -> None:
    with pytest.raises(errors.BadSettings, match="TLS"), Client("pool.example:1"):
        pass
    assert not [thread for thread in threading.enumerate() if thread.name == "hivemind-client"]
