"""What a user would write instead of this product: Celery, and docker-py in a task."""

from __future__ import annotations

import os

import celery
import docker

app = celery.Celery("peer", broker=os.environ["PEER_REDIS"], backend=os.environ["PEER_REDIS"])
app.conf.update(
    task_acks_late=True,  # otherwise a worker that dies loses the task: no fair comparison with a lease
    worker_prefetch_multiplier=1,
    task_ignore_result=False,
    broker_connection_retry_on_startup=True,
)


@app.task
def noop() -> int:
    """Do nothing: dispatch alone."""
    return 0


@app.task
def in_container(image: str, command: list[str]) -> str:
    """Run a command in a fresh container, as docker-py's own documentation shows it."""
    client = docker.from_env()
    try:
        output: bytes = client.containers.run(image, command, network_mode="none", remove=True)
        return output.decode()
    finally:
        client.close()
