from __future__ import annotations

import pytest

from hivemind_worker import errors
from hivemind_worker.wire import channels
from hivemind_worker.worker.pool_link import channel


@pytest.mark.parametrize(
    "address",
    [
        "localhost:50051",
        "LOCALHOST:1",
        "127.0.0.1:50051",
        "127.8.8.8:1",
        "[::1]:50051",
        "ipv4:127.0.0.1:1",
        "dns:///localhost:1",
        "dns:localhost:1",
        "unix:/run/pool.sock",
    ],
)
def test_addresses_that_stay_on_this_machine(address: str) -> None:
    assert channels.is_local(address)


@pytest.mark.parametrize(
    "address",
    [
        "pool.example.org:50051",
        "10.0.0.1:1",
        "localhost.example.org:1",
        "127.0.0.1.example.org:1",
        "[::2]:1",
        "0.0.0.0:1",
    ],
)
def test_addresses_that_may_leave_it(address: str) -> None:
    assert not channels.is_local(address)


async def test_p06_plaintext_to_another_machine_is_refused_in_one_clear_line() -> None:
    with pytest.raises(errors.BadSettings, match="tls_ca_file") as refused:
        channel.open_channel(channel.Access("pool.example.org:50051", token="secret"))
    assert "\n" not in str(refused.value)
    assert "secret" not in str(refused.value)


async def test_p06_even_where_plaintext_is_allowed_no_token_goes_out() -> None:
    with pytest.raises(errors.BadSettings, match="token"):
        channel.open_channel(channel.Access("pool.example.org:50051", token="secret", insecure=True))
    opened = channel.open_channel(channel.Access("pool.example.org:50051", insecure=True))
    await opened.close()


def test_a_token_is_not_shown_in_what_may_be_logged() -> None:
    access = channel.Access("localhost:1", token="secret")
    assert "secret" not in repr(access)
    assert channel.metadata(access) == (("authorization", "Bearer secret"),)
    assert channel.metadata(channel.Access("localhost:1")) == ()


def test_our_address_on_the_way_to_the_pool() -> None:
    assert channel.own_address("localhost:50051") in {"127.0.0.1", "::1"}
    assert channel.own_address("unix:/run/pool.sock") == ""
    assert channel.own_address("no-such-host.invalid:1") == ""
