"""Nothing goes to another machine in the clear unless the owner says so."""

import pytest

from hivemind_worker import errors
from hivemind_worker.wire import channels


@pytest.mark.parametrize(
    "address",
    ["localhost:50051", "127.0.0.1:0", "127.9.9.9:1", "[::1]:50051", "unix:/run/pool.sock", "dns:localhost:1",
     "dns:///localhost:1", "ipv4:127.0.0.1:5", "ipv6:[::1]:5", "unix-abstract:pool"],
)  # fmt: skip
def test_this_machine_needs_no_tls(address: str) -> None:
    assert channels.is_local(address)


@pytest.mark.parametrize(
    "address",
    ["pool.example:50051", "10.0.0.1:1", "0.0.0.0:50051", "[::]:50051", "[2001:db8::1]:1", "localhost.example:1",
     "dns:pool.example:1", "ipv4:127.0.0.1:5,10.0.0.1:5", "dns://localhost/pool.example:1", "127.0.0.1.example:1"],
)  # fmt: skip
async def test_another_machine_is_refused_without_tls(address: str) -> None:
    assert not channels.is_local(address)
    with pytest.raises(errors.BadSettings, match="no TLS"):
        channels.open_channel(channels.Line(address))
    with pytest.raises(errors.BadSettings, match="no TLS"):
        channels.open_blocking_channel(channels.Line(address))
    channels.open_blocking_channel(channels.Line(address, insecure=True)).close()
    await channels.open_channel(channels.Line(address, insecure=True)).close()
