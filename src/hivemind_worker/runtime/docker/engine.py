"""The container engine: the only door to it. Every call has a deadline, every failure becomes a word of ours.

Calls go through aiodocker's `_query` and `_query_json` (connection, TLS, version of the API): its own methods inspect
before they attach, wait without deadline and read archives whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any

from hivemind_worker import errors
from hivemind_worker.runtime.docker import created, hardening, pull_progress, references, unsure
from hivemind_worker.runtime.docker import engine_library as library

CALL_SECONDS = 60.0
"""Deadline of an ordinary call. An engine under load answered within 2 s where this was measured; a hung one never."""

_STDOUT, _STDERR = 1, 2
_UNREACHABLE, _NOT_FOUND = 900, 404  # the first is aiodocker's own, for "no connection"
CONFLICT = 409
"""Status of a refusal because a name is taken or a thing is in use."""


class Refused(errors.NodeFault):
    """The engine answered no. `status` is its HTTP status."""

    def __init__(self, doing: str, status: int, said: str) -> None:
        super().__init__(f"the container engine would not {doing}: {said.strip()[:500]} (status {status})")
        self.status = status
        self.said = said


class NotThere(Refused):
    """The engine knows no such image, container or volume."""


class Engine:
    """One engine. Made anywhere; `connect` and all else belong to one event loop.

    `host` as in DOCKER_HOST (unix://, tcp://, https://, ssh:// with asyncssh installed). When empty: the Docker context
    in use, DOCKER_HOST, or the usual sockets. TLS from DOCKER_TLS_VERIFY and DOCKER_CERT_PATH. `patience`: seconds for
    which a running task waits for an engine that does not answer.
    """

    def __init__(self, host: str = "", patience: float = 120.0) -> None:
        self._host, self.patience = host, patience
        self._docker: library.aiodocker.Docker | None = None
        self.unsure = unsure.Unsure(Refused)
        self.inspector = created.Inspector(self)

    async def connect(self) -> Mapping[str, Any]:
        """Connect and agree on a version of the API; what the engine says of itself (`version`). Raises EngineLost."""
        fresh = self._docker is None
        if fresh:
            try:
                self._docker = library.aiodocker.Docker(url=self._host or None)
            except (AssertionError, ValueError, OSError, library.aiodocker.DockerContextInvalidError) as error:
                said = str(error) or "there is no socket in the usual places and DOCKER_HOST is not set"
                raise errors.EngineLost(f"no container engine to connect to: {said}") from error
            # Each capsule's stream holds a connection for as long as it lives: no limit of 100 on those.
            self._docker.connector._limit = 0  # noqa: SLF001 - the constructor offers no way
        try:
            found: Mapping[str, Any] = await self._json("say its version", "version", seconds=5.0)
        except BaseException:
            if fresh:  # else others' streams go on
                await self.close()
            raise
        return found

    async def close(self) -> None:
        """Let go of the connections."""
        docker, self._docker = self._docker, None
        if docker is not None:
            await docker.close()

    @property
    def local(self) -> bool:
        """Whether it is reached by a socket of this machine, so that its folders may be this machine's."""
        return self._open.docker_host.startswith(("unix:", "npipe:"))

    async def info(self) -> Mapping[str, Any]:
        """What the engine says of its machine (`docker info`)."""
        return dict(await self._json("say what it is", "info"))

    async def image(self, reference: str) -> Mapping[str, Any]:
        """What the engine knows of an image. Raises NotThere when it has none of that name."""
        return dict(await self._json("look at an image", f"images/{reference}/json"))

    async def image_sizes(self) -> Mapping[str, int]:
        """How many bytes each image has to itself, by its id: what its removal frees, layers of others not counted."""
        listed = await self._json("list images", "images/json", params={"shared-size": "1"})
        if any(image.get("SharedSize", -1) < 0 for image in listed):  # before API 1.42
            said = await self._json("count what images hold", "system/df", params={"type": "image"})
            listed = said["Images"] or ()
        return {image["Id"]: image["Size"] - max(0, image.get("SharedSize", 0)) for image in listed}

    async def remove_image(self, reference: str) -> bool:
        """Take a name off an image, which goes with its last name; never by force. False when it is in use."""
        with contextlib.suppress(NotThere):
            try:
                await self._empty("remove an image", f"images/{reference}", "DELETE")
            except Refused as refused:
                if refused.status != CONFLICT:
                    raise
                return False
        return True

    async def pull(self, reference: str, credentials: str = "") -> AsyncGenerator[Mapping[str, Any]]:
        """Fetch an image; what the engine tells meanwhile. Closed early, the engine gives up what is half fetched.

        ``credentials`` as X-Registry-Auth has them. Raises Refused with the registry's own words.
        """
        name, tag = references.split(reference)
        headers = {"X-Registry-Auth": credentials} if credentials else {}
        with _worded("pull an image"):
            async with self._open._query(  # noqa: SLF001 - its own method takes credentials for some registries only
                "images/create", "POST", params={"fromImage": name, "tag": tag}, headers=headers,
                timeout=library.aiohttp.ClientTimeout(),
            ) as response:  # fmt: skip
                try:
                    async for said in response.content:
                        line = pull_progress.parse(said)
                        if "error" in line:
                            raise Refused("pull the image", 500, str(line["error"]))
                        yield line
                finally:
                    response.close()

    async def create(
        self, name: str, body: Mapping[str, Any], image: hardening.Image | None = None, *, is_own: bool = False
    ) -> str:
        """Create a container; its id. Raises NotThere when the image is gone. See `created` for the other words."""
        with self.unsure.making(name):
            made = await self._json("create a container", "containers/create", "POST", params={"name": name}, body=body)
            self.inspector.expect(str(made["Id"]), created.Expected(body, image, is_own=is_own))
            return str(made["Id"])

    async def attach(self, container: str) -> Attached:
        """Open the stream to a container's stdin, stdout and stderr. Works before it is started, and again later."""

        async def setup() -> tuple[library.yarl.URL, bytes | None, bool]:
            query = {"stdin": "1", "stdout": "1", "stderr": "1", "stream": "1", "logs": "0"}
            return library.yarl.URL(f"containers/{container}/attach").with_query(query), b"", False

        stream = library.aiodocker.stream.Stream(self._open, setup)
        try:
            async with _deadline("attach to a container", CALL_SECONDS):
                await stream._init()  # noqa: SLF001 - the public way in, `async with`, does the same and closes too
        except BaseException:
            with contextlib.suppress(Exception):
                await stream.close()
            raise
        return Attached(stream)

    async def start(self, container: str) -> None:
        """Start a container that was created. Raises SpecMismatch where it is another than it was to be."""
        await self.inspector.check(container)
        await self._empty("start a container", f"containers/{container}/start", "POST")

    async def kill(self, container: str) -> None:
        """SIGKILL to all of a container; nothing if it has ended or is gone."""
        with contextlib.suppress(NotThere):
            try:
                await self._empty("kill a container", f"containers/{container}/kill", "POST")
            except Refused as refused:
                if refused.status != CONFLICT:  # "is not running"
                    raise

    async def wait(self, container: str, seconds: float | None = None) -> int:
        """Wait until it has ended; its exit code. Raises EngineLost after `seconds`."""
        said = await self._json("wait", f"containers/{container}/wait", "POST", seconds=seconds)
        return int(said["StatusCode"])

    async def update(self, container: str, body: Mapping[str, Any]) -> None:
        """Change the limits of a container, running or not."""
        await self._json("change a container's limits", f"containers/{container}/update", "POST", body=body)

    async def inspect(self, container: str) -> Mapping[str, Any]:
        """All the engine knows of a container. Raises NotThere."""
        return dict(await self._json("look at a container", f"containers/{container}/json"))

    async def stats(self, container: str) -> Mapping[str, Any]:
        """One reading of what a running container uses, without the engine's second of waiting for another."""
        query = {"stream": "0", "one-shot": "1"}
        return dict(await self._json("say what a container uses", f"containers/{container}/stats", params=query))

    async def remove(self, container: str) -> None:
        """Remove a container with its unnamed volumes, killing it first if it runs; nothing if it is gone."""
        with self.unsure.removing(container), contextlib.suppress(NotThere):
            try:
                await self._empty("remove", f"containers/{container}", "DELETE", params={"force": "1", "v": "1"})
            except Refused as refused:
                if refused.status != CONFLICT:  # "removal is already in progress"
                    raise

    async def keeps_log(self, container: str) -> bool:
        """Whether what a container writes is kept: with the log driver `none` the engine would read none of it."""
        with contextlib.suppress(Refused):
            await self._empty("read a log", f"containers/{container}/logs", "GET", params={"stdout": "1", "tail": "1"})
            return True
        return False

    async def containers(self, label: str = "") -> list[Mapping[str, Any]]:
        """All containers that bear the label `name=value`, of anybody without one; ended ones included."""
        query = {"all": "1", "filters": json.dumps({"label": [label]} if label else {})}
        return list(await self._json("list containers", "containers/json", params=query))

    async def create_volume(self, name: str, labels: Mapping[str, str]) -> None:
        """Make a named volume; nothing if there is one of that name."""
        body = {"Name": name, "Driver": "local", "Labels": dict(labels)}
        with self.unsure.making(name):
            await self._json("create a volume", "volumes/create", "POST", body=body)

    async def volumes(self, label: str) -> list[Mapping[str, Any]]:
        """All volumes that bear the label `name=value`."""
        said = await self._json("list volumes", "volumes", params={"filters": json.dumps({"label": [label]})})
        return list(said["Volumes"] or ())

    async def remove_volume(self, name: str) -> bool:
        """Remove a volume; false if a container still uses it. Nothing if it is gone."""
        with self.unsure.removing(name), contextlib.suppress(NotThere):
            try:
                await self._empty("remove a volume", f"volumes/{name}", "DELETE")
            except Refused as refused:
                if refused.status != CONFLICT:
                    raise
                return False
        return True

    async def volume_sizes(self) -> Mapping[str, int]:
        """How many bytes each volume has on disk. The engine counts all there are: not to be asked often."""
        said = await self._json("count what volumes hold", "system/df", params={"type": "volume"})
        found = {volume["Name"]: (volume.get("UsageData") or {}).get("Size", 0) for volume in said["Volumes"] or ()}
        return {name: size for name, size in found.items() if size > 0}

    async def networks(self, name: str) -> list[Mapping[str, Any]]:
        """All networks whose name holds `name`."""
        return list(await self._json("list networks", "networks", params={"filters": json.dumps({"name": [name]})}))

    async def create_network(self, body: Mapping[str, Any]) -> str:
        """Make a network; its id."""
        return str((await self._json("create a network", "networks/create", "POST", body=body))["Id"])

    async def remove_network(self, network: str) -> None:
        """Remove a network that nobody uses; nothing if it is gone."""
        with contextlib.suppress(NotThere):
            await self._empty("remove a network", f"networks/{network}", "DELETE")

    async def put_archive(
        self, container: str, path: str, tar: bytes | AsyncIterator[bytes], seconds: float = CALL_SECONDS
    ) -> None:
        """Unpack an uncompressed tar under `path` of a container, which need not run, within `seconds`."""
        data = io.BytesIO(tar) if isinstance(tar, bytes) else tar
        address = f"containers/{container}/archive"
        await self._empty("unpack files", address, "PUT", params={"path": path}, data=data, seconds=seconds)

    async def look_at(self, container: str, path: str) -> Mapping[str, str] | None:
        """What it says of a path in a container without opening it, as headers; None where there is none."""
        with contextlib.suppress(NotThere):
            try:
                return await self._empty("look", f"containers/{container}/archive", "HEAD", params={"path": path})
            except json.JSONDecodeError:  # aiodocker reads what a refusal says, and that of HEAD says nothing
                await self._empty("look", f"containers/{container}/archive", "GET", params={"path": path})
        return None

    async def commit(self, container: str, repository: str, tag: str, labels: Mapping[str, str]) -> str:
        """Make an image of an ended container's files; its id. The larger, the longer: 5 minutes at most."""
        query = {"container": container, "repo": repository, "tag": tag, "pause": "0"}
        made = await self._json(
            "make an image", "commit", "POST", params=query, body={"Labels": dict(labels)}, seconds=300.0
        )
        return str(made["Id"])

    async def images(self, label: str = "", *, bases: bool = False) -> list[Mapping[str, Any]]:
        """All images that have a name, or the label `name` or `name=value`; with ``bases`` what is only a base, too."""
        query = {"filters": json.dumps({"label": [label]})} if label else {"all": str(int(bases))}
        return list(await self._json("list images", "images/json", params=query))

    async def written(self, container: str) -> int:
        """How many bytes a container has written to its own file system. The engine counts them: not to be hurried."""
        found = await self._json("count", f"containers/{container}/json", params={"size": "1"})
        return int(found.get("SizeRw") or 0)

    async def get_archive(self, container: str, path: str, most: int) -> bytes:
        """One small file of a container as a tar. Raises NotThere; Refused when it is more than `most` bytes."""
        call = self._open._query(f"containers/{container}/archive", params={"path": path})  # noqa: SLF001 - no public streaming
        async with _deadline("read a file", CALL_SECONDS), call as response:
            found = bytearray()
            async for piece in response.content.iter_any():
                found += piece
                if len(found) > most:
                    raise Refused("hand over a small file", 200, f"{path} has more than {most} bytes")
            return bytes(found)

    @property
    def _open(self) -> library.aiodocker.Docker:
        if self._docker is None:
            raise errors.EngineLost("not connected to a container engine")
        return self._docker

    async def _json(
        self,
        doing: str,
        path: str,
        method: str = "GET",
        *,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        seconds: float | None = 0.0,
    ) -> Any:
        """Make a call; `seconds` 0: the usual deadline, None: no deadline."""
        async with _deadline(doing, CALL_SECONDS if seconds == 0 else seconds):
            return await self._open._query_json(path, method, params=params, data=body)  # noqa: SLF001 - see module docs

    async def _empty(
        self,
        doing: str,
        path: str,
        method: str,
        *,
        params: Mapping[str, str] | None = None,
        data: io.BytesIO | AsyncIterator[bytes] | None = None,
        seconds: float | None = None,
    ) -> Mapping[str, str]:
        headers = {} if data is None else {"Content-Type": "application/x-tar"}
        async with (
            _deadline(doing, CALL_SECONDS if seconds is None else seconds),
            self._open._query(path, method, params=params, data=data, headers=headers) as response,  # noqa: SLF001 - see module docs
        ):
            await response.read()
            return response.headers


class Attached:
    """The byte stream of a container: what is written goes to its stdin, what is read is its stdout.

    What its stderr says (our program only complains there) is kept in `complaint`, the last 4 KiB of it.
    """

    def __init__(self, stream: library.aiodocker.stream.Stream) -> None:
        self._stream = stream
        self.complaint = b""

    async def read(self) -> bytes:
        """The next bytes; empty at the end. Raises EngineLost when the connection broke."""
        with _worded("go on with a container's stream"):
            while (message := await self._stream.read_out()) is not None:
                if message.stream != _STDERR:
                    return message.data
                self.complaint = (self.complaint + message.data)[-4096:]
        return b""

    async def write(self, data: bytes) -> None:
        """Write, and wait while the other end takes nothing. Raises EngineLost when the connection broke."""
        with _worded("take a container's input"):
            try:
                await self._stream.write_in(data)
            except (RuntimeError, AssertionError) as error:  # closed under our hands
                raise errors.EngineLost("the stream to the container is closed") from error

    async def close(self) -> None:
        """Let go of the stream at once; the container goes on."""
        response = self._stream._resp  # noqa: SLF001 - its own close waits for a reader of what was written, for ever
        transport = response.connection.transport if response is not None and response.connection is not None else None
        with contextlib.suppress(Exception):  # it is gone either way, and aiodocker asserts on a lost connection
            await self._stream.close()
        if transport is not None:
            transport.abort()


@contextlib.asynccontextmanager
async def _deadline(doing: str, seconds: float | None) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            with _worded(doing):
                yield
    except TimeoutError as error:
        raise errors.EngineLost(f"the container engine did not {doing} within {seconds} s") from error


@contextlib.contextmanager
def _worded(doing: str) -> Any:
    try:
        yield
    except library.aiodocker.DockerError as error:
        if error.status == _UNREACHABLE:
            raise errors.EngineLost(f"the container engine cannot be reached: {error.message}") from error
        raise (NotThere if error.status == _NOT_FOUND else Refused)(doing, error.status, str(error.message)) from error
    except (library.aiohttp.ClientError, ConnectionError) as error:
        said = str(error) or type(error).__name__
        raise errors.EngineLost(f"the connection to the container engine broke: {said}") from error
