"""A day on the real engine: our images come and go below the mark, and nothing of the owner's is touched."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import tarfile
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import attempts
import engine_api
import package_index
import pytest
import pytest_asyncio
import waiting

from hivemind_worker.concurrency import stopping
from hivemind_worker.runtime.docker import docker_executor, ledger
from hivemind_worker.runtime.docker import engine as engines
from hivemind_worker.runtime.environments import answers
from hivemind_worker.runtime.environments import sources as sourcing
from hivemind_worker.tasks import outcome
from hivemind_worker.worker.housekeeping import images, policy, sweep

pytestmark = pytest.mark.docker
EPOCH = 1_800_000_000.0
HOUR = 3600.0
KIB = 1024
SIZE = 100 * KIB
CAPACITY = 20 * SIZE


class Stage:
    """Images of one test at the real engine, all below one repository; and a disk on which nothing else lies."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self.run = uuid.uuid4().hex[:12]
        self.repository = f"hivemind-test/house-{self.run}"
        self.ours = ledger.Ledger(folder / "images")
        self.time = EPOCH
        self.pinned: set[str] = set()
        self.engine = engines.Engine(url)
        self.place = images.Images(engines.Engine(url), self.ours, lambda: self.pinned)
        self.house = sweep.Housekeeping([self.place], policy.Terms(), measure=self.measure, now=lambda: self.time)

    def make(self, tag: str, *, ours: bool) -> str:
        """An image of its own 100 KiB, as if pulled now; its name."""
        name = f"{self.repository}:{tag}"
        archive = self.folder / "image.tar"
        with tarfile.open(archive, "w") as tar:
            entry = tarfile.TarInfo("content")
            entry.size = SIZE
            tar.addfile(entry, io.BytesIO(os.urandom(SIZE)))
        engine_api.import_image(self.url, archive, name)
        if ours:
            self.ours.note(name, engine_api.get(self.url, f"/images/{name}/json")["Id"])
            self.use(name)
        return name

    def use(self, name: str) -> None:
        """A task uses it now, in the day that is told here."""
        self.ours.used(name)
        for path in (self.folder / "images").glob("*.json"):
            if name in path.read_text():
                os.utime(path, (self.time, self.time))

    def here(self) -> set[str]:
        """The tags that the engine has below our repository."""
        listed = engine_api.get(self.url, "/images/json")
        tags = {tag for image in listed for tag in image["RepoTags"] or () if tag.startswith(f"{self.repository}:")}
        return {tag.rpartition(":")[2] for tag in tags}

    async def measure(self, names: Sequence[str]) -> Mapping[str, policy.Disk]:
        used = len(self.here()) * SIZE
        return {name: policy.Disk(name, used, CAPACITY - used) for name in names}


@pytest_asyncio.fixture
async def stage(docker_url: str, tmp_path: Path) -> AsyncIterator[Stage]:
    made = Stage(docker_url, tmp_path)
    await made.engine.connect()
    yield made
    for tag in made.here():
        with contextlib.suppress(engines.Refused):
            await made.engine.remove_image(f"{made.repository}:{tag}")
    await made.engine.close()


async def test_a_day_on_the_engine_touches_nothing_of_the_owners(stage: Stage) -> None:
    owners = {stage.make(tag, ours=False) for tag in ("owners-idle", "owners-base")}
    in_use, pinned = stage.make("ours-in-use", ours=True), stage.make("ours-pinned", ours=True)
    stage.pinned = {pinned}
    volume = f"owners-volume-{stage.run}"
    await stage.engine.create_volume(volume, {})
    bystander = await stage.engine.create(f"owners-{stage.run}", {"Image": in_use, "Cmd": ["/never-run"]})
    try:
        report = await stage.house.round()
        for hour in range(24):
            stage.time = EPOCH + hour * HOUR
            stage.make(f"came-at-{hour:02}", ours=True)
            if "came-at-03" in stage.here():
                stage.use(f"{stage.repository}:came-at-03")
            report = await stage.house.round()
            assert not report.troubles
            assert not policy.too_full(report.disks, policy.Terms())
        here = stage.here()
        assert {"owners-idle", "owners-base", "ours-in-use", "ours-pinned", "came-at-03", "came-at-23"} <= here
        came = sorted(tag for tag in here if tag.startswith("came"))
        assert came == ["came-at-03", *(f"came-at-{hour:02}" for hour in range(24 - len(came) + 1, 24))]
        assert len(here) == 17  # 85 % of twenty
        assert (await stage.engine.inspect(bystander))["Id"] == bystander
        assert await stage.engine.remove_volume(volume)
        why = {each.decision.thing.name: each.decision.why for each in report.done}
        assert all(why[name].startswith("not ours") for name in owners)
        assert why[in_use] == f"in use by container owners-{stage.run}"
        assert why[pinned].startswith("pinned")
        assert {record.name for record in stage.ours.records()} == {in_use, pinned, *(
            f"{stage.repository}:{tag}" for tag in came
        )}  # fmt: skip
    finally:
        await stage.engine.remove(bystander)
        await stage.engine.remove_volume(volume)


async def test_what_the_owner_has_made_of_an_image_of_ours_makes_it_stay(stage: Stage) -> None:
    named = stage.make("named-by-owner", ours=True)
    replaced = stage.make("replaced-by-owner", ours=True)
    older = str(engine_api.get(stage.url, f"/images/{replaced}/json")["Id"])
    stage.make("replaced-by-owner", ours=False)
    gone = stage.make("removed-by-owner", ours=True)
    free = stage.make("free", ours=True)
    query = f"repo={stage.repository}&tag=the-owners-name"
    engine_api._call(stage.url, "POST", f"/images/{named}/tag?{query}")
    assert await stage.engine.remove_image(gone)
    stage.time = EPOCH + HOUR
    found = {thing.name: thing for thing in await stage.place.look()}
    assert found[named].held == f"its owner calls it {stage.repository}:the-owners-name"
    assert found[replaced].held.startswith("not ours")
    assert gone not in found
    assert not await stage.place.remove(found[replaced])  # whatever anybody has decided
    assert found[older].held == ""  # what we fetched under that name is still ours
    assert await stage.place.remove(found[older])
    assert found[free].held == ""
    assert found[free].size_bytes == SIZE
    stage.use(free)  # a task has begun to use it since
    assert not await stage.place.remove(found[free])
    (again,) = [thing for thing in await stage.place.look() if thing.name == free]
    assert await stage.place.remove(again)
    assert "free" not in stage.here()


async def test_an_image_in_use_is_refused_by_the_engine_too(stage: Stage) -> None:
    name = stage.make("in-use", ours=True)
    (thing,) = [thing for thing in await stage.place.look() if thing.name == name]
    container = await stage.engine.create(f"owners-{stage.run}", {"Image": name, "Cmd": ["/never-run"]})
    try:
        assert not await stage.place.remove(thing)
    finally:
        await stage.engine.remove(container)
    assert stage.ours.get(name) is not None


async def test_the_engines_disk_is_found(stage: Stage) -> None:
    stage.make("any", ours=True)
    root = (await stage.engine.info())["DockerRootDir"]
    (thing,) = [thing for thing in await stage.place.look() if thing.name == f"{stage.repository}:any"]
    if not os.path.exists(root):  # noqa: ASYNC240, PTH110  (in a test it may block)
        pytest.skip("the engine's folder cannot be seen from here")
    assert os.stat(thing.disk).st_dev == os.stat(root).st_dev  # noqa: PTH116


async def test_an_environment_stays_while_a_task_needs_it_then_goes_and_is_made_anew(
    docker_url: str, python_image: str, tmp_path: Path
) -> None:
    ours = ledger.Ledger(tmp_path / "images")
    place = images.Images(engines.Engine(docker_url), ours, lambda: ())
    later = 0.0

    async def an_empty_disk(names: Sequence[str]) -> Mapping[str, policy.Disk]:
        return {name: policy.Disk(name, 1, 99) for name in names}

    house = sweep.Housekeeping([place], policy.Terms(days=7.0), measure=an_empty_disk, now=lambda: time.time() + later)

    async def fate() -> tuple[bool, str]:
        """Whether the one environment went in this round, and why or why not."""
        report = await house.round()
        (its,) = [each for each in report.done if each.decision.thing.kind is policy.Kind.ENVIRONMENT]
        assert its.decision.thing.contents == ("hm-probe==1.0",)
        assert its.decision.thing.size_bytes > 0
        return its.removed, its.decision.why

    with package_index.serving() as index:
        index.offer("hm-probe", "1.0")
        where = f"http://{package_index.seen_from_containers(docker_url)}:{index.port}/simple"
        supply = docker_executor.Supply(sourcing.Sources(index_url=where), answers.Answers(tmp_path), ours)
        async with attempts.docker_bench(docker_url, python_image, tmp_path, supply=supply) as bench:
            stop, watcher = stopping.Stop(), attempts.Watcher()
            show = "import hm_probe, time; print(hm_probe.VERSION, flush=True); time.sleep(600)"
            running = asyncio.create_task(
                bench.python(show, requirements=("hm-probe",), stop=stop, watcher=watcher), name="in the environment"
            )
            await waiting.wait_until(watcher.text, description="a task runs in its environment", seconds=90)
            later = 8 * policy.DAY
            gone, why = await fate()
            assert not gone, why
            assert why.startswith("in use by container hivemind-")
            stop.request(stopping.StopLevel.CANCEL, "cancelled")
            assert (await running).status is outcome.Status.CANCELLED

            async def unused() -> bool:
                """Its container goes a moment after its end is told."""
                (thing,) = [each for each in await place.look() if each.kind is policy.Kind.ENVIRONMENT]
                return not thing.held

            look: Callable[[], bool | Awaitable[bool]] = unused
            await waiting.wait_until(look, description="no container uses the environment", seconds=30)
            later = 6 * policy.DAY
            gone, why = await fate()
            assert not gone, why
            (made,) = [record for record in ours.records() if record.kind is ledger.Kind.ENVIRONMENT]
            later = 8 * policy.DAY
            gone, why = await fate()
            assert gone, why
            assert "(cleanup_days)" in why
            assert not [each for each in engine_api.get(docker_url, "/images/json") if each["Id"] == made.image_id]
            assert not ours.records()
            index.asked.clear()
            ended = await bench.python("import hm_probe; print(hm_probe.VERSION)", requirements=("hm-probe",))
            assert (ended.error, ended.logs.text) == ("", b"1.0\n")
            assert index.asked  # made anew
            assert [record.kind for record in ours.records()] == [ledger.Kind.ENVIRONMENT]
