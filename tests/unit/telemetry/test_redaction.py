"""No secret leaves in an event, wherever it stands; what is left is bounded and JSON can say it."""

from __future__ import annotations

import enum
import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hivemind_worker.telemetry import redaction

SECRET = "s3cr3tV4lu3XyZ0987654321"
TEXTS = [
    f"hm1.{'ab' * 32}.node7.{SECRET}",
    f"Authorization: Bearer {SECRET}",
    f"authorization=Basic {SECRET}",
    f"{{'authorization': 'Bearer {SECRET}'}}",
    f'"Proxy-Authorization": "Digest {SECRET}"',
    f"https://user:{SECRET}@registry.example/v2/",
    f"pip install --index-url https://{SECRET}@pypi.example/simple six",
    f"postgresql://pool:{SECRET}@db:5432/pool",
    f"redis://:{SECRET}@cache/0",
    f"PGPASSWORD={SECRET} psql",
    f"export HF_TOKEN='{SECRET}'",
    f'aws_secret_access_key: "{SECRET}"',
    f"api-key={SECRET}&x=1",
    f"docker login --password {SECRET}",
    f"mysql --password={SECRET}",
    f'{{"password": "{SECRET}"}}',
    f"-----BEGIN RSA PRIVATE KEY-----\n{SECRET}\n-----END RSA PRIVATE KEY-----",
    f"-----BEGIN PRIVATE KEY-----\n{SECRET}",
    f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.{SECRET}",
    f"ghp_{SECRET}",
    f"sent bearer {SECRET} to it",
]
NAMES = [
    "password",
    "PGPASSWORD",
    "HM_TOKEN",
    "apiKey",
    "dbPassword",
    "X-Api-Key",
    "client_secret",
    "Set-Cookie",
    "tls.private_key",
]
HARMLESS = [
    "task finished in 3.2 s, exit code 0",
    "https://example.org/path?x=1@2",
    "mail me at a@b.example",
    "tokens per second: rising",
    "sha256:" + "ab" * 32,
    "/var/lib/hivemind/node-id",
    "skipping the authorisation of nothing",
]


@pytest.mark.parametrize("text", TEXTS)
def test_a_secret_in_a_text_is_removed(text: str) -> None:
    assert SECRET not in redaction.text(text)
    assert redaction.REMOVED in redaction.text(text)
    assert SECRET not in redaction.text(f"before it: {text} and after it")


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_no_secret_stays_as_it_is(text: str) -> None:
    assert redaction.text(text) == text


def test_the_host_and_the_name_stay_readable() -> None:
    assert redaction.text(f"https://user:{SECRET}@registry.example/v2/") == "https://[redacted]@registry.example/v2/"
    assert redaction.text(f"HM_TOKEN={SECRET} run") == "HM_TOKEN=[redacted] run"


@pytest.mark.parametrize("name", NAMES)
def test_whatever_bears_a_secrets_name_is_removed(name: str) -> None:
    for value in (SECRET, [SECRET], {"a": SECRET}, SECRET.encode(), 12345678):
        assert redaction.clean({name: value}) == {name: redaction.REMOVED}


def test_what_is_said_about_a_secret_stays() -> None:
    about = {
        "token_count": 3,
        "secret_bytes": 10,
        "tls_key_file": "/a.pem",
        "key": "value",
        "monkey": "x",
        "compass": "n",
    }
    assert redaction.clean(about) == about


@pytest.mark.parametrize("name", ["env", "environment", "ENVIRON"])
def test_variables_keep_their_names_alone(name: str) -> None:
    assert redaction.clean({name: {"PATH": SECRET, "X": SECRET}}) == {name: {"PATH": "[redacted]", "X": "[redacted]"}}
    assert redaction.clean({name: [f"PATH={SECRET}"]}) == {name: ["PATH=[redacted]"]}
    assert redaction.clean({name: SECRET}) == {name: "[redacted]"}


SECRETS = st.one_of(
    st.sampled_from(TEXTS),
    st.sampled_from(NAMES).map(lambda name: {name: SECRET}),
    st.sampled_from(TEXTS).map(str.encode),
    st.sampled_from(TEXTS).map(ValueError),
    st.sampled_from(TEXTS).map(lambda text: {text: 1}),
)
PLAIN = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.binary(max_size=20))
TREES = st.recursive(
    PLAIN | SECRETS,
    lambda inside: (
        st.lists(inside, max_size=4)
        | st.dictionaries(st.text(max_size=8), inside, max_size=4)
        | st.tuples(inside, inside)
    ),
    max_leaves=20,
)


@given(TREES)
def test_no_secret_is_left_at_any_depth_and_json_can_say_the_rest(tree: Any) -> None:
    said = json.dumps(redaction.clean(tree), ensure_ascii=False, allow_nan=False)
    said.encode("utf-8")
    assert SECRET not in said


@given(st.text(alphabet=st.characters(), max_size=300))
def test_any_text_can_be_written(text: str) -> None:
    redaction.text(text).encode("utf-8")


def test_the_cut_does_not_hide_a_secret_that_began_before_it() -> None:
    for missing in range(80):
        text = "x " * ((redaction.TEXT_LIMIT - missing) // 2) + f"https://user:{SECRET}@host/"
        shown = redaction.text(text)
        assert not any(SECRET[:length] in shown for length in range(8, len(SECRET)))


class Odd:
    def __str__(self) -> str:
        raise RuntimeError("no")


class Colour(enum.Enum):
    RED = "red"


def test_whatever_it_is_it_becomes_something_json_can_say() -> None:
    given: dict[Any, Any] = {
        1: Odd(),
        (2, 3): Colour.RED,
        "path": Path("/a"),
        "big": 10**10_000,
        "nan": float("nan"),
        "set": {1},
    }
    cleaned = redaction.clean(given)
    assert cleaned["1"] == "<Odd that cannot be printed>"
    assert cleaned["path"] == "/a"
    assert cleaned["nan"] == "nan"
    assert cleaned["set"] == [1]
    assert json.loads(json.dumps(cleaned, allow_nan=False)) == cleaned
    assert redaction.clean("\ud800") == "\\ud800"


def test_the_original_is_not_touched() -> None:
    given = {"password": SECRET, "inside": [{"token": SECRET}]}
    redaction.clean(given)
    assert given == {"password": SECRET, "inside": [{"token": SECRET}]}


def test_size_and_depth_are_bounded() -> None:
    wide = {f"k{n}": ["x" * 10_000] * 100 for n in range(10_000)}
    assert len(json.dumps(redaction.clean(wide))) < 3 * redaction.CHARACTERS_LIMIT
    assert redaction.clean("x" * 10_000_000).endswith("…[10000000 characters]")
    deep: list[Any] = []
    deep.append(deep)
    assert len(json.dumps(redaction.clean(deep))) < 100
    many = redaction.clean(list(range(100_000)))
    assert len(many) <= redaction.VALUES_LIMIT + 1
    assert "more" in many[-1]


@pytest.mark.parametrize(
    "unit",
    ["a", "a_", "token", "://", "a:", "-----BEGIN ", "passw=", "eyJ", "'", " bearer", "hm1.", "A.", "key-", "http://@"],
)
def test_no_text_makes_it_slow(unit: str) -> None:
    text = unit * (10_000_000 // len(unit))
    before = time.process_time()
    redaction.text(text)
    assert time.process_time() - before < 0.5, "5 KiB are searched at most, in about linear time"
