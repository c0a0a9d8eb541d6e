"""Environments, on each executor: made once for all who want them, found again, refused in the resolver's own words."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

import attempts
import engine_api
import package_index
import pytest
import waiting

from hivemind_worker.concurrency import stopping
from hivemind_worker.runtime.environments import sources as sourcing
from hivemind_worker.tasks import outcome

ADDRESS = "127.0.0.1"
SHOW = "import hm_probe, sys; print(hm_probe.VERSION, sys.prefix)"


@dataclass
class Place:
    """Where executors come and go and what they made stays."""

    open: Callable[[sourcing.Sources], AbstractAsyncContextManager[attempts.Bench]]
    traces: Callable[[], set[str]]

    def sources(self, index: package_index.Index, **more: object) -> sourcing.Sources:
        who = f"{index.credentials}@" if index.credentials else ""
        url = f"http://{who}127.0.0.1:{index.port}/simple"
        return sourcing.Sources(index_url=url, **more)  # type: ignore[arg-type]


@pytest.fixture
def index() -> Iterator[package_index.Index]:
    with package_index.serving() as made:
        yield made


SANDBOX = pytest.param("process", marks=pytest.mark.sandbox)
ENGINE = [pytest.mark.docker]
# What each driver does by the same code: an engine's many containers take long, and prove no more.
MOSTLY_SANDBOX = pytest.mark.parametrize(
    "place", [SANDBOX, pytest.param("docker", marks=[*ENGINE, pytest.mark.long])], indirect=True
)


@pytest.fixture(params=[SANDBOX, pytest.param("docker", marks=ENGINE)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "docker":
        url, image = request.getfixturevalue("docker_url"), request.getfixturevalue("python_image")
        before = _environments(url)

        def in_containers(sources: sourcing.Sources) -> AbstractAsyncContextManager[attempts.Bench]:
            # Another folder each time: what a restart finds, it finds at the engine.
            return attempts.docker_bench(url, image, tmp_path / uuid.uuid4().hex, sources, keep=True)

        try:
            yield Place(in_containers, lambda: _inspectors(url) | _staged(tmp_path))
        finally:
            for made in _environments(url) - before:
                engine_api.delete(url, f"/images/{made}")
        return
    with package_index.open_folder() as cache:
        yield Place(lambda sources: attempts.process_bench(tmp_path, sources, cache), lambda: _staged(cache))


def _environments(url: str) -> set[str]:
    return {
        image["Id"] for image in engine_api.get(url, "/images/json", filters='{"label":["io.hivemind.environment"]}')
    }


def _inspectors(url: str) -> set[str]:
    filters = '{"label":["io.hivemind.role=inspector"]}'
    return {row["Id"] for row in engine_api.get(url, "/containers/json", all="1", filters=filters)}


def _staged(folder: Path) -> set[str]:
    # Not `rglob`, which breaks off where a folder goes while it looks.
    return {
        os.path.join(place, name)  # noqa: PTH118 - os.walk gives text, and a Path for each of thousands of names takes long
        for place, folders, files in os.walk(folder)
        if Path(place).name == "environments"
        for name in (*folders, *files)
        if name.startswith(".")
    }


@pytest.mark.long
@MOSTLY_SANDBOX
async def test_twenty_tasks_at_once_share_one_build_and_a_restart_needs_none(
    place: Place, index: package_index.Index
) -> None:
    index.offer("hm-probe", "1.2", "hm-below>=1")
    index.offer("hm-below", "1.0")
    index.offer("hm-below", "1.1")
    watchers = [attempts.Watcher() for _ in range(20)]
    async with place.open(place.sources(index)) as bench:
        ended = await asyncio.gather(
            *(bench.python(SHOW, requirements=("hm-probe",), watcher=watcher) for watcher in watchers)
        )
    said = b"1.2 /opt/hivemind/environment\n"
    assert [(each.error, each.logs.text) for each in ended] == [("", said)] * 20
    assert sorted(index.downloads()) == ["hm_below-1.1-py3-none-any.whl", "hm_probe-1.2-py3-none-any.whl"]
    for watcher in watchers:
        assert any("making an environment with hm-probe" in note for note in watcher.notes)
    assert any("hm-below==1.1, hm-probe==1.2" in note for note in watchers[0].notes)
    index.asked.clear()
    async with place.open(place.sources(index)) as bench:
        again = await asyncio.gather(*(bench.python(SHOW, requirements=("hm-probe",)) for _ in range(20)))
    assert [each.logs.text for each in again] == [said] * 20
    assert index.asked == []
    assert {ended[0].image_digest} == {each.image_digest for each in again}
    assert not place.traces()


async def test_the_run_itself_cannot_write_its_environment_nor_reach_the_index(
    place: Place, index: package_index.Index
) -> None:
    index.offer("hm-probe", "1.0")
    script = (
        "import hm_probe, os, socket\n"
        "try: open(hm_probe.__file__, 'a')\n"
        "except OSError as error: print(type(error).__name__)\n"
        f"try: socket.create_connection(({ADDRESS!r}, {index.port}), 2)\n"
        "except OSError as error: print('unreachable')\n"
    )
    async with place.open(place.sources(index)) as bench:
        ended = await bench.python(script, requirements=("hm-probe",))
    first, second = ended.logs.text.decode().split()
    assert first in {"OSError", "PermissionError"}
    assert second == "unreachable"


@pytest.mark.parametrize(
    ("requirements", "words"),
    [
        (("hm-missing",), "hm-missing was not found in the package registry"),
        (("hm-probe>=7",), "hm-probe"),
        (("hm-left", "hm-right"), "your requirements are unsatisfiable"),
        (("hm-source",), "hm-source"),
    ],
    ids=["missing", "version", "conflict", "no wheel"],
)
async def test_what_cannot_be_had_is_said_in_the_resolvers_words(
    place: Place, index: package_index.Index, requirements: tuple[str, ...], words: str
) -> None:
    index.offer("hm-probe", "1.0")
    index.offer("hm-probe", "2.0")
    index.offer("hm-left", "1.0", "hm-probe==1.0")
    index.offer("hm-right", "1.0", "hm-probe==2.0")
    index.files["hm_source-1.0.tar.gz"] = b"no wheel"
    async with place.open(place.sources(index)) as bench:
        ended = await bench.python("print('never')", requirements=requirements)
    assert (ended.status, ended.reason) == (outcome.Status.FAILED, outcome.Reason.DEPENDENCY_FAILED)
    assert words in ended.error
    assert not ended.try_again
    assert not place.traces()


async def test_a_password_of_the_index_is_in_no_word_for_the_task(place: Place, index: package_index.Index) -> None:
    index.credentials = "reader:s3cret"
    index.offer("hm-probe", "1.0")
    watcher = attempts.Watcher()
    async with place.open(place.sources(index)) as bench:
        good = await bench.python(SHOW, requirements=("hm-probe",), watcher=watcher)
        bad = await bench.python("print()", requirements=("hm-missing",), watcher=watcher)
    assert good.status is outcome.Status.COMPLETED, good.error
    assert bad.reason is outcome.Reason.DEPENDENCY_FAILED
    assert "s3cret" not in "".join([*watcher.notes, bad.error])


@MOSTLY_SANDBOX
async def test_who_is_cancelled_leaves_the_build_to_others_and_the_last_one_ends_it(
    place: Place, index: package_index.Index
) -> None:
    index.offer("hm-probe", "1.0")
    index.silent = True
    stops = [stopping.Stop(), stopping.Stop()]
    async with place.open(place.sources(index)) as bench:
        runs = [asyncio.create_task(bench.python(SHOW, requirements=("hm-probe",), stop=stop)) for stop in stops]
        await waiting.wait_until(lambda: index.asked, description="the index is asked", seconds=30)
        stops[0].request(stopping.StopLevel.CANCEL, "cancelled")
        first = await asyncio.wait_for(runs[0], 5)
        assert first.status is outcome.Status.CANCELLED
        assert place.traces()  # it goes on for the other
        stops[1].request(stopping.StopLevel.CANCEL, "cancelled")
        second = await asyncio.wait_for(runs[1], 5)
        assert second.status is outcome.Status.CANCELLED
        await waiting.wait_until(lambda: not place.traces(), description="nothing of the build is left", seconds=15)
        index.silent = False
        index.released.set()
        assert (await bench.python(SHOW, requirements=("hm-probe",))).status is outcome.Status.COMPLETED


@MOSTLY_SANDBOX
async def test_the_build_has_its_own_clock(place: Place, index: package_index.Index) -> None:
    index.silent = True
    async with place.open(place.sources(index, seconds=3.0)) as bench:
        ended = await bench.python("print()", requirements=("hm-probe",), limits={"timeout_seconds": 1.0})
    assert ended.reason is outcome.Reason.DEPENDENCY_FAILED
    assert "package_environment_timeout" in ended.error


@MOSTLY_SANDBOX
@pytest.mark.parametrize("pieces", [1, pytest.param(40, marks=pytest.mark.long)])
async def test_an_environment_that_is_too_large_is_refused(
    place: Place, index: package_index.Index, pieces: int
) -> None:
    needs = [f"hm-part-{at}" for at in range(pieces)]
    index.offer("hm-probe", "1.0", *needs)
    for name in needs:
        index.offer(name, "1.0", size=40_000_000 // pieces)
    async with place.open(place.sources(index, limit_bytes=20_000_000)) as bench:
        ended = await bench.python("print()", requirements=("hm-probe",))
    assert ended.reason is outcome.Reason.DEPENDENCY_FAILED
    assert "package_environment_limit_bytes" in ended.error


@contextlib.contextmanager
def _wheels() -> Iterator[Path]:
    """A folder with one wheel, open to everyone."""
    with package_index.open_folder() as folder:
        local = package_index.Index()
        local.offer("hm-local", "3.0")
        for file, content in local.files.items():
            (folder / file).write_bytes(content)
            (folder / file).chmod(0o644)
        yield folder


@pytest.mark.long
@MOSTLY_SANDBOX
async def test_wheels_of_this_machine_are_offered_and_names_resolved_anew_when_old(
    place: Place, index: package_index.Index
) -> None:
    index.offer("hm-probe", "1.0")
    with _wheels() as wheels:
        sources = place.sources(index, wheels=wheels, refresh_seconds=0.001)
        async with place.open(sources) as bench:
            ended = await bench.python(
                "import hm_local, hm_probe; print(hm_local.VERSION, hm_probe.VERSION)",
                requirements=("hm-local", "hm-probe"),
            )
            assert ended.logs.text == b"3.0 1.0\n", ended.error
            index.offer("hm-probe", "1.1")
            newer = await bench.python(SHOW, requirements=("hm-probe",))
            assert newer.logs.text.startswith(b"1.1 "), newer.error
            index.offer("hm-probe", "1.2")
            newest = await bench.python(SHOW, requirements=("hm-probe",))
            exact = await bench.python(SHOW, requirements=("hm-probe==1.1",))
            index.asked.clear()
            again = await bench.python(SHOW, requirements=("hm-probe==1.1",))
        assert newest.logs.text.startswith(b"1.2 ")
        assert (exact.logs.text, again.logs.text) == (newer.logs.text,) * 2
        assert index.asked == []


@MOSTLY_SANDBOX
async def test_names_that_cannot_be_resolved_anew_leave_the_environment_of_before(
    place: Place, index: package_index.Index
) -> None:
    index.offer("hm-probe", "1.0")
    watcher = attempts.Watcher()
    async with place.open(place.sources(index, refresh_seconds=0.001)) as bench:
        before = await bench.python(SHOW, requirements=("hm-probe",))
        index.files.clear()
        after = await bench.python(SHOW, requirements=("hm-probe",), watcher=watcher)
    assert (after.error, after.logs.text) == ("", before.logs.text)
    assert any("could not be resolved anew" in note and "hm-probe" in note for note in watcher.notes)


def _certificate(folder: Path, address: str) -> tuple[Path, Path]:
    """A certificate with its key for the server, and that of the authority which has signed it."""
    pem, ca, key = folder / "site.pem", folder / "ca.pem", folder / "ca.key"
    new = (
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    )
    its = ("-subj", "/CN=site", "-addext", f"subjectAltName=IP:{address}", "-addext", "basicConstraints=CA:FALSE")
    for words in (
        [*new, "-subj", "/CN=authority", "-keyout", key, "-out", ca],
        [*new, *its, "-CA", ca, "-CAkey", key, "-keyout", folder / "key", "-out", folder / "cert"],
    ):
        subprocess.run([str(word) for word in words], check=True, capture_output=True)
    pem.write_bytes((folder / "key").read_bytes() + (folder / "cert").read_bytes())
    return pem, ca


@MOSTLY_SANDBOX
async def test_a_proxy_and_certificates_are_the_owners_to_name(place: Place, tmp_path: Path) -> None:
    pem, ca = _certificate(tmp_path, ADDRESS)
    with package_index.serving() as proxy, package_index.serving(pem) as private:
        for offers in (proxy, private):
            offers.offer("hm-probe", "1.0")
        by_proxy = sourcing.Sources(index_url="http://packages.invalid/simple", proxy=f"http://{ADDRESS}:{proxy.port}")
        async with place.open(by_proxy) as bench:
            ended = await bench.python(SHOW, requirements=("hm-probe",))
        assert ended.logs.text.startswith(b"1.0 "), ended.error
        assert any(path.startswith("http://packages.invalid/") for path in proxy.asked)
        url = f"https://{ADDRESS}:{private.port}/simple"
        async with place.open(sourcing.Sources(index_url=url)) as bench:
            refused = await bench.python(SHOW, requirements=("hm-probe",))
        async with place.open(sourcing.Sources(index_url=url, certificates=sourcing.certificates(ca))) as bench:
            trusted = await bench.python(SHOW, requirements=("hm-probe",))
    assert refused.reason is outcome.Reason.DEPENDENCY_FAILED
    assert "certificate" in refused.error
    assert trusted.logs.text.startswith(b"1.0 "), trusted.error


async def test_sources_are_built_only_where_the_owner_allows_it(place: Place, index: package_index.Index) -> None:
    index.offer_source("hm-source", "1.0")
    show = "import hm_source; print(hm_source.BUILT)"
    async with place.open(place.sources(index)) as bench:
        refused = await bench.python(show, requirements=("hm-source",))
    async with place.open(place.sources(index, source_builds=True)) as bench:
        built = await bench.python(show, requirements=("hm-source",))
    assert refused.reason is outcome.Reason.DEPENDENCY_FAILED
    assert built.logs.text == b"True\n", built.error


async def test_no_code_of_a_package_runs_where_there_is_a_network(place: Place, index: package_index.Index) -> None:
    call = f"__import__('urllib.request').request.urlopen('http://{ADDRESS}:{index.port}/called', timeout=2)"
    index.offer(
        "hm-probe", "1.0", source=f"try: {call}\nexcept OSError: pass\nVERSION = '1.0'\n", pth=f"import os; {call}\n"
    )
    async with place.open(place.sources(index)) as bench:
        ended = await bench.python(
            "import hm_probe; print(hm_probe.__cached__ is not None)", requirements=("hm-probe",)
        )
        compiled = await bench.python(
            "import hm_probe, os; print(os.path.exists(hm_probe.__cached__))", requirements=("hm-probe",)
        )
    assert ended.status is outcome.Status.COMPLETED, ended.error
    assert b"True\n" in compiled.logs.text  # what the .pth file has to say may come before or after it
    assert "/called" not in index.asked
