"""Typed stub and servicer base of both services, the messages as `pb`, and the channel options of both ends.

The generated code is seen by this room alone; others say `calls.pb.Task`, `calls.node_manager(channel)`,
`calls.NodeManagerServicer`, `calls.add_node_manager(servicer, server)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import grpc
from google.protobuf import message

from hivemind_worker.wire.generated import nodepool_pb2 as pb
from hivemind_worker.wire.generated import nodepool_pb2_grpc as _grpc
from hivemind_worker.wire.generated.nodepool_pb2_grpc import (
    NodeManagerServicer,
    NodeManagerStub,
    TaskManagerServicer,
    TaskManagerStub,
)

if TYPE_CHECKING:
    from typing import Any

    from hivemind_worker.wire.generated.nodepool_pb2_grpc import NodeManagerAsyncStub, TaskManagerAsyncStub

    NodeManager: TypeAlias = NodeManagerAsyncStub
    TaskManager: TypeAlias = TaskManagerAsyncStub
    Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
else:
    # The generator's asynchronous stubs exist for the type checker alone; at run time there is one class for both.
    NodeManager = NodeManagerStub
    TaskManager = TaskManagerStub
    Context = grpc.aio.ServicerContext

__all__ = [
    "CALLS_AT_ONCE",
    "CHUNK_BYTES",
    "CLIENT_OPTIONS",
    "MESSAGE_BYTES",
    "NODE_MANAGER",
    "PROTOCOL_VERSION",
    "SERVER_OPTIONS",
    "TASK_MANAGER",
    "Context",
    "Garbled",
    "Gone",
    "NodeManager",
    "NodeManagerServicer",
    "NodeManagerStub",
    "TaskManager",
    "TaskManagerServicer",
    "TaskManagerStub",
    "add_node_manager",
    "add_task_manager",
    "node_manager",
    "pb",
    "service_names",
    "task_manager",
]

Garbled = message.DecodeError
"""What came over a stream is no message of this protocol."""

Gone = grpc.aio.InternalError
"""A call cannot be ended any more: whoever made it has hung up."""

PROTOCOL_VERSION = 1
"""Grows when a meaning changes; added fields alone do not count."""

MESSAGE_BYTES = 4 * 1024**2
"""Largest message either way: gRPC's own default, kept on purpose. What is larger goes in chunks."""

CHUNK_BYTES = 1024**2
"""Bytes per chunk of a file: over loopback 1 MiB moved 692 MB/s, 256 KiB 542, 4 MiB 565."""

KEEPALIVE_MS = 30_000
"""Milliseconds of silence after which the line is tested; proxies drop lines that idle for a minute."""

NODE_MANAGER = pb.DESCRIPTOR.services_by_name["NodeManager"].full_name
TASK_MANAGER = pb.DESCRIPTOR.services_by_name["TaskManager"].full_name

_BOTH: tuple[tuple[str, int], ...] = (
    ("grpc.max_send_message_length", MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
)

CLIENT_OPTIONS: Sequence[tuple[str, int]] = (
    *_BOTH,
    ("grpc.http2.max_pings_without_data", 0),
    # Who tries again, and when, stands in verdicts and in the callers' own backoff.
    ("grpc.enable_retries", 0),
    # While gRPC waits between its own attempts to connect every call fails at once: its default of up to 2 minutes
    # would keep a worker away long after its pool is back.
    ("grpc.initial_reconnect_backoff_ms", 500),
    ("grpc.min_reconnect_backoff_ms", 2_000),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    # Clients in one process do not share the state of one another's connections.
    ("grpc.use_local_subchannel_pool", 1),
)
"""Options of every channel of ours."""

CALLS_AT_ONCE = 10_000
"""Calls under way, and calls that wait to be taken; each worker has one long poll outstanding. Beyond them a call is
refused and tried again."""

SERVER_OPTIONS: Sequence[tuple[str, int]] = (
    *_BOTH,
    # Clients test the line every 30 s; without these two the server would call that abuse and hang up.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 0),
    # A second server on a port that is taken must fail, not share it.
    ("grpc.so_reuseport", 0),
    # What a call may send before anybody reads it. With its probes gRPC takes 1 MiB and more of each, also of those
    # that wait for room: 600 idle uploads took 618 MiB. Once a message is read its whole length may
    # come: uploads over loopback are as fast as before. 2,000 calls that wait for room have 64 MiB.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 32 * 1024),
    # Calls that came faster than one loop takes them: of those beyond 1,000 gRPC would cancel some at random.
    ("grpc.server.max_pending_requests", CALLS_AT_ONCE),
    ("grpc.server.max_pending_requests_hard_limit", CALLS_AT_ONCE),
)
"""Options of every server of ours."""


def node_manager(channel: grpc.aio.Channel) -> NodeManager:
    """Return the worker's stub on ``channel``."""
    return NodeManagerStub(channel)


def task_manager(channel: grpc.aio.Channel) -> TaskManager:
    """Return the submitter's stub on ``channel``."""
    return TaskManagerStub(channel)


def add_node_manager(servicer: NodeManagerServicer, server: grpc.aio.Server) -> None:
    """Serve the workers' calls on ``server``."""
    _grpc.add_NodeManagerServicer_to_server(servicer, server)


def add_task_manager(servicer: TaskManagerServicer, server: grpc.aio.Server) -> None:
    """Serve the submitters' calls on ``server``."""
    _grpc.add_TaskManagerServicer_to_server(servicer, server)


def service_names() -> tuple[str, str]:
    """Return the full names of both services, as health checks and reflection want them."""
    return NODE_MANAGER, TASK_MANAGER
