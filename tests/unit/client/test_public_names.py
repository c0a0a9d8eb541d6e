"""What `import hivemind_worker` gives, and that it costs nothing until it is used."""

import subprocess
import sys

import pytest

import hivemind_worker
from hivemind_worker import errors
from hivemind_worker.client import asynchronous, client


def test_the_public_names_are_what_they_say() -> None:
    assert hivemind_worker.Client is client.Client
    assert hivemind_worker.AsyncClient is asynchronous.AsyncClient
    assert hivemind_worker.errors is errors
    assert {"AsyncClient", "Client", "errors"} <= set(dir(hivemind_worker))


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Clinet'"):
        _ = hivemind_worker.Clinet


def test_the_import_alone_brings_no_library() -> None:
    script = (
        "import sys\nbefore = set(sys.modules)\nimport hivemind_worker\n"
        "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before}))"
    )
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True)
    assert {"grpc", "pydantic", "google", "structlog", "asyncio"} & set(done.stdout.split()) == set()
