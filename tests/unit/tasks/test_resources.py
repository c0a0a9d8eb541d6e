"""Amounts: what fits, what is lacking, how Docker writes them."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hivemind_worker import errors, units
from hivemind_worker.tasks import resources

amounts = st.builds(
    resources.Resources,
    cpu_cores=st.floats(0, 1024),
    memory_bytes=st.integers(0, 2**50),
    disk_bytes=st.integers(0, 2**50),
    gpus=st.integers(0, 16),
)


@given(amounts, amounts)
def test_what_fits_leaves_nothing_negative(wanted: resources.Resources, room: resources.Resources) -> None:
    left = room - wanted
    assume(not -2 * resources.CPU_SLACK < left.cpu_cores < 0)  # within the slack either answer is right
    fits = min(left.memory_bytes, left.disk_bytes, left.gpus) >= 0 and left.cpu_cores >= 0
    assert wanted.fits(room) == fits
    assert bool(wanted.lacking(room)) != fits


@given(amounts, amounts)
def test_caps_and_floors(one: resources.Resources, other: resources.Resources) -> None:
    assert one.at_most(other).fits(one)
    assert one.at_most(other).fits(other)
    assert one.fits(one.at_least(other))
    assert (one + other) - other == pytest.approx(one) or one.memory_bytes >= 0


def test_lacking_names_the_amounts() -> None:
    wanted = resources.Resources(2, 2 * units.GIB, 0, 1)
    assert wanted.lacking(resources.Resources(1, units.GIB, 0, 0)) == (
        "cpu: wants 2 cores, 1 free",
        "memory: wants 2.00 GiB, 1.00 GiB free",
        "gpus: wants 1, 0 free",
    )


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("512m", 512 * 2**20),
        ("1g", 2**30),
        ("1G", 2**30),
        ("1gb", 2**30),
        ("1GiB", 2**30),
        ("1.5g", 3 * 2**29),
        ("64k", 65536),
        ("100", 100),
        (4096, 4096),
        (" 2t ", 2**41),
    ],
)
def test_amounts_as_docker_writes_them(written: object, meant: int) -> None:
    assert resources.parse_bytes("memory_limit", written) == meant


@pytest.mark.parametrize(
    "written",
    [
        "",
        "g",
        "-1",
        "1x",
        "1e9",
        "nan",
        "inf",
        "0",
        0,
        -5,
        float("nan"),
        float("inf"),
        True,
        None,
        [],
        "9" * 400,
        10**400,
    ],
)
def test_what_is_no_amount(written: object) -> None:
    with pytest.raises(errors.InvalidTask) as caught:
        resources.parse_bytes("memory_limit", written)
    assert caught.value.field == "memory_limit"
