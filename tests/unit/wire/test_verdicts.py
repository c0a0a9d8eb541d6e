from __future__ import annotations

import grpc
import pytest
from google.rpc import error_details_pb2  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as some

from hivemind_worker import errors
from hivemind_worker.wire import calls, verdicts


def _failed(
    code: grpc.StatusCode, message: str = "", trailing: tuple[tuple[str, str | bytes], ...] = ()
) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailing), details=message)


def _refused(error: errors.HiveMindError) -> calls.NodeManagerServicer:
    class Refusing(calls.NodeManagerServicer):
        async def Ping(  # noqa: N802  (the wire's own name)
            self, _: calls.pb.PingRequest, context: calls.Context
        ) -> calls.pb.PingResponse:
            await verdicts.refuse(context, error)

    return Refusing()  # type: ignore[abstract]


async def _seen(error: errors.HiveMindError) -> verdicts.Verdict:
    server = grpc.aio.server(options=calls.SERVER_OPTIONS)
    calls.add_node_manager(_refused(error), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=calls.CLIENT_OPTIONS) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await calls.node_manager(channel).Ping(calls.pb.PingRequest(), timeout=5)
        return verdicts.read(failed.value)
    finally:
        await server.stop(5)


@pytest.mark.parametrize(
    ("error", "reason", "course"),
    [
        (errors.InvalidTask("timeout", "must be above 0"), "INVALID_TASK", verdicts.Course.GIVE_UP),
        (errors.NoSuchTask("t-1"), "NO_SUCH_TASK", verdicts.Course.GIVE_UP),
        (errors.Conflict("key used before"), "CONFLICT", verdicts.Course.GIVE_UP),
        (errors.UnknownNode("who?"), "UNKNOWN_NODE", verdicts.Course.REREGISTER),
        (errors.UnknownNode("old", "UNKNOWN_SESSION"), "UNKNOWN_SESSION", verdicts.Course.REREGISTER),
        (errors.StateInUse("taken over"), "SESSION_REPLACED", verdicts.Course.GIVE_UP),
        (errors.Rejected("upload it", "MISSING_ARTIFACT"), "MISSING_ARTIFACT", verdicts.Course.GIVE_UP),
        (errors.Rejected("16 GiB", "TOO_LARGE"), "TOO_LARGE", verdicts.Course.GIVE_UP),
        (errors.Unavailable("store busy"), None, verdicts.Course.RETRY),
        (errors.Rejected("no"), None, verdicts.Course.GIVE_UP),
        (errors.NotImplementedByPeer("no such call"), None, verdicts.Course.FALL_BACK),
        (errors.ImpossibleMove("defect"), None, verdicts.Course.RETRY),
    ],
)
async def test_a_refusal_arrives_as_the_error_it_was(
    error: errors.HiveMindError, reason: str | None, course: verdicts.Course
) -> None:
    seen = await _seen(error)
    assert (seen.reason, seen.course) == (reason, course)
    back = verdicts.to_error(seen, "ping")
    if not isinstance(error, errors.ImpossibleMove):
        assert type(back) is type(error)
    assert str(error) in str(back) or str(back) == str(error)


async def test_a_message_of_any_size_and_script_still_arrives() -> None:
    seen = await _seen(errors.InvalidTask("code", "漢" * 5_000))
    assert seen.reason is verdicts.Reason.INVALID_TASK
    assert seen.metadata["field"] == "code"


def test_every_reason_and_every_failing_code_has_a_course() -> None:
    assert set(verdicts.REASONS) == set(verdicts.Reason)
    assert set(verdicts.CODES) == set(grpc.StatusCode) - {grpc.StatusCode.OK}


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_a_peer_that_reads_codes_alone_does_nothing_worse(code: grpc.StatusCode) -> None:
    reasons = [reason for reason, (its, _) in verdicts.REASONS.items() if its is code]
    assert not reasons or verdicts.CODES[code] is verdicts.Course.GIVE_UP


def test_a_call_that_the_pool_does_not_know_is_done_without() -> None:
    seen = verdicts.read(_failed(grpc.StatusCode.UNIMPLEMENTED, "Method not found!"))
    assert seen.course is verdicts.Course.FALL_BACK
    assert isinstance(verdicts.to_error(seen), errors.NotImplementedByPeer)


def test_a_message_beyond_the_limit_is_not_tried_for_ever() -> None:
    text = "CLIENT: Sent message larger than max (4194305 vs. 4194304)"
    assert verdicts.read(_failed(grpc.StatusCode.RESOURCE_EXHAUSTED, text)).course is verdicts.Course.GIVE_UP
    assert verdicts.read(_failed(grpc.StatusCode.RESOURCE_EXHAUSTED, "busy")).course is verdicts.Course.RETRY


@given(some.binary(max_size=200))
def test_details_that_are_garbage_leave_the_code_to_decide(garbage: bytes) -> None:
    seen = verdicts.read(_failed(grpc.StatusCode.UNAVAILABLE, "gone", (("grpc-status-details-bin", garbage),)))
    assert seen.course is verdicts.Course.RETRY


def test_a_foreign_or_newer_reason_leaves_the_code_to_decide() -> None:
    for reason, domain in (("SOMETHING_NEW", "hivemind"), ("UNKNOWN_NODE", "example.org")):
        status = verdicts.status_of(verdicts.Reason.CONFLICT, "x")
        info = error_details_pb2.ErrorInfo(reason=reason, domain=domain)
        status.details[0].Pack(info)
        trailing = (("grpc-status-details-bin", status.SerializeToString()),)
        seen = verdicts.read(_failed(grpc.StatusCode.UNAVAILABLE, "", trailing))
        assert (seen.reason, seen.course) == (None, verdicts.Course.RETRY)
