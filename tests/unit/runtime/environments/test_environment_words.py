"""How environments are named, and what their maker may say: keys, versions, hostile lines."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from hivemind_worker import errors
from hivemind_worker.runtime.environments import answers, making, sources, staging, target
from hivemind_worker.settings import upkeep


@pytest.mark.parametrize(
    ("requirement", "exact"),
    [
        ("six==1.17.0", True),
        ("six===1.17.0", True),
        ("torch==2.1.0+cpu; python_version>='3.8'", True),
        ("six", False),
        ("six==1.*", False),
        ("six>=1", False),
        ("six<=1", False),
        ("six!=1", False),
        ("six~=1.1", False),
        ("six!=1.1,==1.2", True),
    ],
)
def test_which_requirements_no_index_can_change(requirement: str, exact: bool) -> None:
    assert sources.exact(requirement) is exact


def test_keys_tell_all_that_matters_apart() -> None:
    base = ("sha256:1", ("six",), "pypi", "1")
    keys = {
        sources.asked_key(*base),
        sources.asked_key("sha256:2", *base[1:]),
        sources.asked_key("sha256:1", ("six", "x"), *base[2:]),
        sources.asked_key("sha256:1", ("six",), "other", "1"),
        sources.asked_key("sha256:1", ("six",), "pypi", "2"),
        sources.environment_key("sha256:1", "cp311", ("six==1",), "1"),
        sources.environment_key("sha256:1", "cp312", ("six==1",), "1"),
        sources.environment_key("sha256:1", "cp311", ("six==2",), "1"),
    }
    assert len(keys) == 8
    assert sources.environment_key("a", "b", ("x==1", "y==2"), "1") == sources.environment_key(
        "a", "b", ("y==2", "x==1"), "1"
    )


def test_other_wheels_and_another_index_may_give_other_versions(tmp_path: Path) -> None:
    plain = sources.Sources(wheels=tmp_path)
    before = plain.offered(plain.wheel_files())
    (tmp_path / "x-1-py3-none-any.whl").write_bytes(b"1")
    (tmp_path / "notes.txt").write_bytes(b"no wheel")
    assert [path.name for path in plain.wheel_files()] == ["x-1-py3-none-any.whl"]
    assert plain.offered(plain.wheel_files()) != before
    assert sources.Sources(index_url="https://x.example").offered(()) != sources.Sources().offered(())


def test_settings_become_sources_and_certificates_are_added_to_the_usual_ones(tmp_path: Path) -> None:
    usual = ssl.create_default_context().get_ca_certs(binary_form=True)
    one = tmp_path / "ca.pem"
    one.write_text(ssl.DER_cert_to_PEM_cert(usual[0]))
    found = sources.of(
        upkeep.Packages(
            index_url="https://me:pw@i.example/simple", proxy="http://you:pp@p.example:1", ca_file=one, refresh_days=2,
            environment_timeout=5, environment_limit_bytes="1 MiB", source_builds=True, wheels=tmp_path,
        )
    )  # fmt: skip
    assert (found.index_url, found.seconds, found.limit_bytes) == ("https://me:pw@i.example/simple", 5.0, 1024**2)
    assert (found.refresh_seconds, found.source_builds, found.wheels) == (2 * sources.DAY, True, tmp_path)
    assert set(found.secrets) == {"me", "pw", "you", "pp"}
    assert found.certificates.count(b"BEGIN CERTIFICATE") >= len(usual)


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_certificates_that_cannot_be_used_are_the_owners_to_mend(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(errors.BadSettings, match="package_ca_file"):
        sources.of(upkeep.Packages(ca_file=file))


def test_answers_outlive_the_process_and_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers.Answers(tmp_path).note("a" * 64, "key")
    found = answers.Answers(tmp_path).get("a" * 64)
    assert found is not None
    assert found.key == "key"
    (tmp_path / "answers" / f"{'b' * 64}.json").write_text("{broken")
    assert answers.Answers(tmp_path).get("b" * 64) is None
    monkeypatch.setattr(answers, "MOST", 3)
    for at in range(6):
        answers.Answers(tmp_path).note(f"{at:064}", "key")
    assert len(list((tmp_path / "answers").iterdir())) == 3
    assert answers.Answers(None).get("a") is None
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    answers.Answers(blocked).note("a", "key")  # no more than forgotten


class Pipe:
    """A fetcher that says what the test has it say."""

    def __init__(self, *data: bytes) -> None:
        self._data = list(data)
        self.written: list[bytes] = []

    async def read(self) -> bytes:
        return self._data.pop(0) if self._data else b""

    async def write(self, data: bytes) -> None:
        self.written.append(data)

    async def last_words(self) -> str:
        return "it fell at pw1"


PYTHON = target.Target("3.11.2", "x86_64", "glibc", (2, 36), "/usr/bin/python3.11", "a70d0d0a")
LOCK = json.dumps({"lock": '[[packages]]\nname = "six"\nversion = "1.0"\n'
                           'wheels = [{ url = "http://h/six-1.0-py3-none-any.whl" }]'}).encode() + b"\n"  # fmt: skip


@pytest.fixture
def staged(tmp_path: Path) -> Iterator[staging.Staging]:
    folder = staging.Staging(tmp_path)
    yield folder
    folder.remove()


def session(pipe: Pipe, notes: list[str], staged: staging.Staging) -> making.Session:
    where = sources.Sources(index_url="https://me:pw1@i.example", proxy="http://you:p%40w2@p.example")
    return making.Session(pipe, where, making.Places("/f", "/c", "", "/uv"), staged, notes.append)


async def test_a_talk_to_its_end_in_pieces(staged: staging.Staging) -> None:
    notes: list[str] = []
    pipe = Pipe(b'{"note": "we', b'll"}\n' + LOCK[:9], LOCK[9:], b'{"done": 5}\n')
    talk = session(pipe, notes, staged)
    await talk.begin()
    resolved = await talk.resolve(("six",), PYTHON)
    assert (resolved.pins, notes) == (("six==1.0",), ["well"])
    assert await talk.install(resolved, PYTHON, inherit=True) == 5
    assert json.loads(pipe.written[0])["index_url"] == "https://me:pw1@i.example"
    asked = json.loads(pipe.written[2])
    assert (asked["do"], asked["wheels"][0]["file"]) == ("install", "six-1.0-py3-none-any.whl")
    assert b"pw1" not in b"".join(pipe.written[1:])


@pytest.mark.parametrize("words", [b'{"failed": "at pw1 p@w2 p%40w2"}\n', b""])
async def test_secrets_and_control_characters_reach_no_log_and_no_error(staged: staging.Staging, words: bytes) -> None:
    notes: list[str] = []
    talk = session(Pipe(b'{"note": "get http://me:pw1@x \\u001b[31mred"}\n', words), notes, staged)
    with pytest.raises(errors.HiveMindError) as failed:
        await talk.resolve(("six",), PYTHON)
    text = str(failed.value) + "".join(notes)
    assert not any(secret in text for secret in ("pw1", "p@w2", "p%40w2", "\x1b"))


@pytest.mark.parametrize("words", [b'{"large": 90000000000}\n', b'{"large": "very"}\n'])
async def test_what_grew_too_large_is_told_with_the_owners_setting(staged: staging.Staging, words: bytes) -> None:
    with pytest.raises(errors.DependencyFailed, match="package_environment_limit_bytes"):
        await session(Pipe(words), [], staged).resolve(("six",), PYTHON)


@pytest.mark.parametrize(
    "odd", [b"no json\n", b"[]\n", b"\xff\n", b'{"lock": 1}\n', b'{"lock": "packages = 1"}\n', b""]
)
async def test_a_fetcher_that_breaks_its_word_is_a_fault_of_the_node(staged: staging.Staging, odd: bytes) -> None:
    with pytest.raises(errors.CapsuleFault):
        await session(Pipe(odd), [], staged).resolve(("six",), PYTHON)


def test_an_environment_is_known_by_what_was_asked_for() -> None:
    pins = ["attrs==1", "numpy==2", "PyYAML==6", "torch==2.13.0", "zope.interface==7"]
    asked = ("torch>=2 ; python_version > '3'", "Zope_Interface[test]", "pyyaml")
    assert making.requested_first(pins, asked) == (
        "PyYAML==6",
        "torch==2.13.0",
        "zope.interface==7",
        "attrs==1",
        "numpy==2",
    )
    assert making.requested_first(pins, ()) == tuple(pins)
