"""Requests read and parsed only once it is certain what they take in memory: 4 MiB can become 1 GiB of objects.

An empty task takes two bytes on the wire and almost 500 in memory. So a server takes requests as bytes, counts what
they would take by the fields that are in them, in slices, and parses what stays within `MAX_PARSED_BYTES`. gRPC reads
the one request of a call before anybody is asked, so every call is served as one that streams its requests: on the wire
they are the same, and its handler says when the request is read.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar, cast

import grpc
from google.protobuf import descriptor as descriptors
from google.protobuf import message as protobuf
from google.protobuf import message_factory

from hivemind_worker import errors
from hivemind_worker.concurrency import slicing
from hivemind_worker.wire import calls, verdicts

M = TypeVar("M", bound=protobuf.Message)
T = TypeVar("T")

MAX_PARSED_BYTES = 16 * 1024**2
"""Most that a request may take once it is parsed: 10,000 tasks of 400 bytes, with their labels, take 12 MiB."""

_SMALL_BYTES = 4 * 1024
"""Requests of no more are counted at once, without a look at the clock: 2,048 fields, the worst there is, take 1 ms."""

MAX_DEPTH = 64
"""How deep messages may lie in each other: protobuf's parser refuses 100, and JSON of people has less than 10."""

_FIELDS_AT_ONCE = 2_000
"""Fields that are counted between two looks at the clock."""

_LENGTH = 2  # the wire type of what has a length: strings, bytes, messages

# What protobuf's parser takes: a pointer and its share of a list that grows by doubling; a string's reference with the
# same, and what Python takes of it in a tuple; an entry of a map with its share of a table; a message's header.
_POINTER_BYTES, _STRING_BYTES, _ENTRY_BYTES, _HEADER_BYTES = 16, 32 + 64, 96, 24


class Unparsed(Generic[M]):
    """A message as it came. Parse it with `parse`."""

    __slots__ = ("data", "kind")

    def __init__(self, kind: type[M], data: bytes) -> None:
        self.kind = kind
        self.data = data


class Unread(Generic[M]):
    """The one request of a call, while it is still on its way."""

    __slots__ = ("_context",)

    def __init__(self, context: calls.Context) -> None:
        self._context = context

    async def read(self) -> Unparsed[M]:
        """Read it. Raises :class:`errors.UserError` where the call ends without one."""
        message = await self._context.read()
        if not isinstance(message, Unparsed):
            raise errors.UserError("the call has no request")
        return message


async def parse(message: T) -> T:
    """Return what came, parsed where it is `Unparsed`; others get their turns while a large one is looked through.

    Raises as `parsed_bytes`, and `calls.Garbled` for what is no such message.
    """
    if not isinstance(message, Unparsed):
        return message
    await parsed_bytes(message)
    return cast("T", parse_counted(message))


async def parsed_bytes(message: Unparsed[M]) -> int:
    """Return about how many bytes a message takes once it is parsed.

    Raises :class:`errors.Rejected` (TOO_LARGE) for one that would take more than `MAX_PARSED_BYTES`, and
    `calls.Garbled` for what is no such message; both let go of its bytes.
    """
    kind, data = message.kind, message.data
    if len(data) <= _SMALL_BYTES:
        return cost(kind, data)
    message.data = b""  # where it is refused: gRPC has the message until the call has ended, and longer
    total = 0
    async for step in slicing.in_slices(_costs(_descriptor(kind), data)):
        total += step
        if total > MAX_PARSED_BYTES:
            raise errors.Rejected(
                f"a {kind.DESCRIPTOR.name} of {len(data)} bytes would take more than {MAX_PARSED_BYTES} in memory, "
                "for the number of its entries: send fewer at once",
                str(verdicts.Reason.TOO_LARGE),
            )
    message.data = data
    return total


def parse_counted(message: Unparsed[M]) -> M:
    """Return a message whose `parsed_bytes` are known, parsed; its bytes are let go of."""
    data, message.data = message.data, b""
    return message.kind.FromString(data)


def cost(kind: type[protobuf.Message], data: bytes) -> int:
    """Return how many bytes a message takes at most once it is parsed. Raises `calls.Garbled`."""
    total = 0
    for step in _costs(_descriptor(kind), data):
        total += step
    return total


def field_bytes(data: bytes, number: int) -> bytes:
    """Return what a serialized message has in a field of text or bytes, the last of that number; empty without one.

    As text of Python one wide character would make four bytes of each. Raises `calls.Garbled`.
    """
    place, content = 0, (0, 0)
    try:
        while place < len(data):
            tag, place = _varint(data, place)
            if tag & 7 != _LENGTH:
                place = _after(data, place, tag)
                continue
            length, place = _varint(data, place)
            if tag >> 3 == number:
                content = place, place + length
            place += length
    except IndexError:
        raise calls.Garbled("it ends in the middle of a field") from None
    return data[slice(*content)]


def add_servicer(service: str, servicer: object, server: grpc.aio.Server) -> None:
    """Serve a service, by its full name, with requests that come as `Unparsed` to the methods of ``servicer``."""
    methods = calls.pb.DESCRIPTOR.services_by_name[service.rpartition(".")[2]].methods
    handlers = {method.name: _handler(method, getattr(servicer, method.name)) for method in methods}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))


def _handler(method: descriptors.MethodDescriptor, behaviour: Callable[..., Any]) -> grpc.RpcMethodHandler[Any, Any]:
    make = grpc.stream_stream_rpc_method_handler if method.server_streaming else grpc.stream_unary_rpc_method_handler
    request = functools.partial(Unparsed, message_factory.GetMessageClass(method.input_type))
    return make(
        behaviour if method.client_streaming else _with_unread(behaviour),
        request_deserializer=request,
        response_serializer=_serialized,
    )


def _serialized(answer: bytes | protobuf.Message) -> bytes:
    """Answers come as bytes where they may be large: gRPC would have the message in memory beside its bytes."""
    return answer if isinstance(answer, bytes) else answer.SerializeToString()


def _with_unread(behaviour: Callable[..., Any]) -> Callable[..., Any]:
    async def called(_stream: object, context: calls.Context) -> Any:
        return await behaviour(Unread(context), context)

    return called


# ---- counting ----


def _descriptor(kind: type[protobuf.Message]) -> descriptors.Descriptor:
    return cast("descriptors.Descriptor", kind.DESCRIPTOR)


class _Kind:
    """What the parser takes for one message of a kind, and for an entry of each field of it besides its bytes."""

    def __init__(self, descriptor: descriptors.Descriptor) -> None:
        fields = descriptor.fields
        strings = sum(field.type in _STRINGS and not field.is_repeated for field in fields)
        is_entry = descriptor.GetOptions().map_entry
        self.size = _POINTER_BYTES + (_ENTRY_BYTES if is_entry else _HEADER_BYTES + 8 * (len(fields) + strings))
        self.is_leaf = not any(field.is_repeated or field.message_type for field in fields)
        """Nothing is in it that takes more than its bytes: it need not be looked into."""
        self.strings = {field.number: _STRING_BYTES * field.is_repeated for field in fields}
        self.messages = {field.number: field.message_type for field in fields if field.message_type is not None}


_STRINGS = (descriptors.FieldDescriptor.TYPE_STRING, descriptors.FieldDescriptor.TYPE_BYTES)


@functools.cache
def _kind(descriptor: descriptors.Descriptor) -> _Kind:
    return _Kind(descriptor)


def _costs(descriptor: descriptors.Descriptor, data: bytes) -> Iterator[int]:
    """Yield what the parts of a message take, so many fields at a time. Raises `calls.Garbled`."""
    kind = _kind(descriptor)
    size, left = kind.size, _FIELDS_AT_ONCE
    outer: list[tuple[int, _Kind]] = []
    place, end = 0, len(data)
    try:
        while place < end or outer:
            if place >= end:
                end, kind = outer.pop()
                continue
            left -= 1
            if not left:
                yield size
                size, left = 0, _FIELDS_AT_ONCE
            tag, place = (data[place], place + 1) if data[place] < 0x80 else _varint(data, place)
            if tag & 7 != _LENGTH:
                place = _after(data, place, tag)
                continue
            length, place = (data[place], place + 1) if data[place] < 0x80 else _varint(data, place)
            if place + length > end:
                raise calls.Garbled("a field is longer than the message that it is in")
            inner = kind.messages.get(tag >> 3)
            if inner is None:
                size += length + kind.strings.get(tag >> 3, _STRING_BYTES)
                place += length
                continue
            entry = _kind(inner)
            size += entry.size
            if entry.is_leaf:
                size += length
                place += length
            elif len(outer) == MAX_DEPTH:
                raise calls.Garbled(f"its messages lie in each other more than {MAX_DEPTH} deep")
            else:
                outer.append((end, kind))
                kind, end = entry, place + length
    except IndexError:
        raise calls.Garbled("it ends in the middle of a field") from None
    yield size


def _after(data: bytes, place: int, tag: int) -> int:
    """Return where a field ends that is a number. Raises `calls.Garbled` for groups, of which there are none here."""
    match tag & 7:
        case 0:
            while data[place] & 0x80:
                place += 1
            return place + 1
        case 1:
            return place + 8
        case 5:
            return place + 4
        case other:
            raise calls.Garbled(f"a field of type {other}")


def _varint(data: bytes, place: int) -> tuple[int, int]:
    byte = data[place]
    if byte < 0x80:
        return byte, place + 1
    value, shift = byte & 0x7F, 7
    while True:
        place += 1
        byte = data[place]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place + 1
        shift += 7
        if shift > 63:
            raise calls.Garbled("a number of more than 64 bits")
