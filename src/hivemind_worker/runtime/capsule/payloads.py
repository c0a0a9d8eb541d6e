"""One message ↔ the type and payload of its frame."""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable
from typing import Any, Final

from hivemind_worker.runtime.capsule import messages as m
from hivemind_worker.runtime.capsule import paths, tlv
from hivemind_worker.runtime.capsule import tunnel_messages as t
from hivemind_worker.runtime.capsule.frame_types import FrameType

MAX_PAYLOAD: Final = 1 << 20
_FILE = struct.Struct("<IIQH")  # mode, flags, offset, length of path
_BEGIN, _END = 1, 2
_U8 = struct.Struct("<B")
_U64 = struct.Struct("<Q")
_RESULT = struct.Struct("<IQ")  # mode, size
_SPEC_GRACE = 2**64 - 1  # in STOP: use the spec's
_LAST_SIGNAL = 64
_MODE_BITS = 0o7777


_LIMITS: Final = {
    6: "timeout_ms",
    7: "grace_ms",
    8: "output_head",
    9: "output_tail",
    10: "results_bytes",
    11: "results_apparent",
    12: "results_count",
    13: "results_depth",
    14: "results_ms",
    15: "window",
}


def encode(message: m.Message) -> tuple[FrameType, bytes]:
    """Turn a message into frame type and payload.

    Raises:
        ValueError: a field is out of its range, a path is not safe, or the whole is longer than 1 MiB.
    """
    kind = frame_type(message)
    try:
        payload = _ENCODERS[type(message)](message)
    except struct.error as wrong:
        error = f"{kind.name} cannot be said: {wrong}"
        raise ValueError(error) from wrong
    if len(payload) > MAX_PAYLOAD:
        error = f"{kind.name} would be {len(payload)} bytes long; a frame carries at most {MAX_PAYLOAD}"
        raise ValueError(error)
    return kind, payload


def frame_type(message: m.Message) -> FrameType:
    """Name the frame type that carries `message`."""
    if isinstance(message, m.Output):
        return FrameType.OUT if message.stream is m.Stream.OUT else FrameType.ERR
    if isinstance(message, t.ToTunnel | t.FromTunnel):
        return _TUNNELS[type(message)]
    return _TYPES[type(message)]


def decode(kind: int, payload: bytes) -> m.Message:
    """Turn frame type and payload into a message.

    Raises:
        ValueError: no such type, or the payload is not what that type carries.
    """
    try:
        decoder = _DECODERS[kind]
    except KeyError:
        error = f"there is no frame type {kind:#04x}"
        raise ValueError(error) from None
    try:
        return decoder(payload)
    except (ValueError, struct.error) as wrong:
        error = f"{FrameType(kind).name} of {len(payload)} bytes: {wrong}"
        raise ValueError(error) from wrong


# each message, to bytes


def _spec(spec: m.Spec) -> bytes:
    if not spec.argv:
        error = "argv is empty"
        raise ValueError(error)
    items = [(1, argument) for argument in spec.argv]
    items += [(2, _variable(name, value)) for name, value in spec.env]
    items += [(3, spec.cwd), (4, spec.workspace), (5, tlv.number(spec.stdin))]
    items += [(tag, tlv.number(getattr(spec.limits, name))) for tag, name in _LIMITS.items()]
    items += [(16, tlv.number(spec.on_disconnect)), (17, spec.resume_key)]
    if spec.expect_uid is not None:
        items.append((18, tlv.number(spec.expect_uid)))
    items += [
        (19, tlv.number(limit.resource) + tlv.number(limit.soft) + tlv.number(limit.hard)) for limit in spec.rlimits
    ]
    if spec.proxy_port:
        items.append((20, tlv.number(spec.proxy_port)))
    if any(b"\0" in data for tag, data in items if tag in {1, 2, 3, 4}):
        error = "a NUL byte in an argument, the environment, cwd or workspace cannot be passed to a program"
        raise ValueError(error)
    if len(spec.resume_key) > m.MAX_KEY_BYTES:
        error = f"resume_key is longer than {m.MAX_KEY_BYTES} bytes"
        raise ValueError(error)
    return tlv.encode(items)


def _variable(name: bytes, value: bytes) -> bytes:
    if not name or b"=" in name:
        error = f"'{paths.rendered(name)}' cannot name an environment variable"
        raise ValueError(error)
    return name + b"=" + value


def _file(file: m.File) -> bytes:
    path = paths.checked(file.path)
    flags = (_BEGIN if file.begin else 0) | (_END if file.end else 0)
    return _FILE.pack(file.mode & _MODE_BITS, flags, file.offset, len(path)) + path + file.data


def _resume(resume: m.Resume) -> bytes:
    if len(resume.nonce) != m.NONCE_BYTES or len(resume.key) > m.MAX_KEY_BYTES:
        error = "a RESUME needs a nonce of 16 bytes and a key of at most 64"
        raise ValueError(error)
    return _U64.pack(resume.after) + resume.nonce + resume.key


def _ready(ready: m.Ready) -> bytes:
    items = [(1, ready.version), (2, ready.state), (4, int(ready.pid1)), (5, ready.last), (6, ready.kept_from)]
    items += [(7, ready.exited_at), (8, ready.done_at), (9, ready.received)]
    return tlv.encode([*((tag, tlv.number(value)) for tag, value in items), (3, ready.nonce)])


_EXITED: Final = {
    5: "wall_us",
    6: "utime_us",
    7: "stime_us",
    8: "maxrss_bytes",
    9: "read_bytes",
    10: "written_bytes",
    11: "out_total",
    12: "err_total",
    13: "out_dropped",
    14: "err_dropped",
    15: "leftovers",
}


def _exited(exited: m.Exited) -> bytes:
    items = [(tag, tlv.number(getattr(exited, name))) for tag, name in _EXITED.items()]
    items += [(3, tlv.number(exited.why)), (4, exited.error.encode())]
    if exited.status is not None:
        items.append((1, tlv.number(exited.status)))
    if exited.signal is not None:
        items.append((2, tlv.number(exited.signal)))
    return tlv.encode(items)


def _done(done: m.Done) -> bytes:
    numbers = [(1, done.files), (2, done.content_bytes), (3, done.skipped), (4, int(done.capped))]
    return tlv.encode([*((tag, tlv.number(value)) for tag, value in numbers), (5, done.error.encode())])


# each message, from bytes


def _to_spec(payload: bytes) -> m.Spec:
    fields = tlv.Fields(payload)
    limits = m.Limits(**{name: fields.number(tag) for tag, name in _LIMITS.items()})
    pairs = tuple(item.partition(b"=") for item in fields.all(2))
    return m.Spec(
        argv=fields.all(1),
        env=tuple((name, value) for name, _, value in pairs),
        cwd=fields.bytes(3),
        workspace=fields.bytes(4),
        stdin=m.Stdin(fields.number(5)),
        limits=limits,
        on_disconnect=m.OnDisconnect(fields.number(16)),
        resume_key=fields.bytes(17),
        expect_uid=fields.optional(18),
        rlimits=tuple(m.ResourceLimit(*struct.unpack("<QQQ", item)) for item in fields.all(19)),
        proxy_port=fields.number(20),
    )


def _to_file(payload: bytes) -> m.File:
    mode, flags, offset, length = _FILE.unpack_from(payload)
    at = _FILE.size + length
    path = paths.checked(payload[_FILE.size : at])
    return m.File(path, payload[at:], mode, offset, begin=bool(flags & _BEGIN), end=bool(flags & _END))


def _to_resume(payload: bytes) -> m.Resume:
    at = _U64.size
    resume = m.Resume(_U64.unpack_from(payload)[0], payload[at : at + m.NONCE_BYTES], payload[at + m.NONCE_BYTES :])
    _resume(resume)
    return resume


def _to_ready(payload: bytes) -> m.Ready:
    fields = tlv.Fields(payload)
    return m.Ready(
        state=m.State(fields.number(2)),
        nonce=fields.bytes(3)[: m.NONCE_BYTES],
        version=fields.number(1),
        pid1=bool(fields.number(4)),
        last=fields.number(5),
        kept_from=fields.number(6),
        exited_at=fields.number(7),
        done_at=fields.number(8),
        received=fields.number(9),
    )


def _to_exited(payload: bytes) -> m.Exited:
    fields = tlv.Fields(payload)
    status, signal = fields.optional(1), fields.optional(2)
    good_status = status is None or status in range(256)
    good_signal = signal is None or signal in range(1, _LAST_SIGNAL + 1)
    if (status is None) == (signal is None) or not good_status or not good_signal:
        error = f"EXITED with status {status} and signal {signal}: exactly one of them, in its range, is possible"
        raise ValueError(error)
    return m.Exited(
        status=status,
        signal=signal,
        why=m.Why(fields.number(3)),
        error=fields.text(4),
        **{name: fields.number(tag) for tag, name in _EXITED.items()},
    )


def _to_done(payload: bytes) -> m.Done:
    fields = tlv.Fields(payload)
    capped = fields.number(4)
    if capped > int(m.Capped.BYTES | m.Capped.COUNT | m.Capped.DEPTH | m.Capped.TIME):
        error = f"DONE names caps that there are not: {capped:#x}"
        raise ValueError(error)
    return m.Done(fields.number(1), fields.number(2), fields.number(3), m.Capped(capped), fields.text(5))


def _to_begin(payload: bytes) -> m.ResultBegin:
    mode, size = _RESULT.unpack_from(payload)
    if mode > _MODE_BITS:
        error = f"RESULT_BEGIN with mode {mode:o}"
        raise ValueError(error)
    return m.ResultBegin(paths.checked(payload[_RESULT.size :]), mode, size)


def _to_skipped(payload: bytes) -> m.ResultSkipped:
    if not payload:
        error = "RESULT_SKIPPED is empty"
        raise ValueError(error)
    return m.ResultSkipped(paths.checked(payload[1:]), m.Skipped(payload[0]))


def _to_error(payload: bytes) -> m.Error:
    fields = tlv.Fields(payload)
    return m.Error(m.ErrorCode(fields.number(1)), fields.text(2))


def _exactly(form: struct.Struct, payload: bytes) -> int:
    if len(payload) != form.size:
        error = f"{len(payload)} bytes where {form.size} belong"
        raise ValueError(error)
    return int(form.unpack(payload)[0])


def _bare(message: m.Message) -> Callable[[bytes], m.Message]:
    def decoder(payload: bytes) -> m.Message:
        if payload:
            error = f"{len(payload)} bytes where none belong"
            raise ValueError(error)
        return message

    return decoder


def _to_signal(payload: bytes) -> m.Signal:
    return m.Signal(_exactly(_U8, payload))


def _to_stop(payload: bytes) -> m.Stop:
    grace = _exactly(_U64, payload)
    return m.Stop(None if grace == _SPEC_GRACE else grace)


def _to_output(stream: m.Stream, payload: bytes) -> m.Output:
    (offset,) = _U64.unpack_from(payload)
    return m.Output(stream, offset, payload[_U64.size :])


def _empty(_: Any) -> bytes:
    return b""


_TUNNELS: Final[dict[type[t.ToTunnel | t.FromTunnel], FrameType]] = {
    t.TunnelDownload: FrameType.TUNNEL_DOWNLOAD,
    t.TunnelUploadCredit: FrameType.TUNNEL_UPLOAD_CREDIT,
    t.TunnelClose: FrameType.TUNNEL_CLOSE,
    t.TunnelOpened: FrameType.TUNNEL_OPENED,
    t.TunnelUpload: FrameType.TUNNEL_UPLOAD,
    t.TunnelDownloadCredit: FrameType.TUNNEL_DOWNLOAD_CREDIT,
    t.TunnelClosed: FrameType.TUNNEL_CLOSED,
}

_TYPES: Final[dict[type[m.Message], FrameType]] = {
    m.Spec: FrameType.SPEC,
    m.File: FrameType.FILE,
    m.Start: FrameType.START,
    m.Input: FrameType.INPUT,
    m.Signal: FrameType.SIGNAL,
    m.Stop: FrameType.STOP,
    m.Ack: FrameType.ACK,
    m.Resume: FrameType.RESUME,
    m.Close: FrameType.CLOSE,
    m.Ready: FrameType.READY,
    m.Taken: FrameType.TAKEN,
    m.Exited: FrameType.EXITED,
    m.Done: FrameType.DONE,
    m.Error: FrameType.ERROR,
    m.ResultBegin: FrameType.RESULT_BEGIN,
    m.ResultData: FrameType.RESULT_DATA,
    m.ResultEnd: FrameType.RESULT_END,
    m.ResultDropped: FrameType.RESULT_DROPPED,
    m.ResultSkipped: FrameType.RESULT_SKIPPED,
}

# Any: each entry takes exactly the class it stands under, which a dict's type cannot say.
_ENCODERS: Final[dict[type[m.Message], Callable[[Any], bytes]]] = {
    m.Spec: _spec,
    m.File: _file,
    m.Start: _empty,
    m.Input: lambda said: bytes(said.data),
    m.Signal: lambda said: _U8.pack(said.number),
    m.Stop: lambda said: _U64.pack(_SPEC_GRACE if said.grace_ms is None else said.grace_ms),
    m.Ack: lambda said: tlv.number(said.sequence),
    m.Resume: _resume,
    m.Close: _empty,
    m.Ready: _ready,
    m.Output: lambda said: tlv.number(said.offset) + said.data,
    m.Taken: lambda said: tlv.number(said.total),
    m.Exited: _exited,
    m.Done: _done,
    m.Error: lambda said: tlv.encode([(1, tlv.number(said.code)), (2, said.text.encode())]),
    m.ResultBegin: lambda said: _RESULT.pack(said.mode, said.size) + said.path,
    m.ResultData: lambda said: tlv.number(said.offset) + said.data,
    m.ResultEnd: _empty,
    m.ResultDropped: lambda said: _U8.pack(said.why),
    m.ResultSkipped: lambda said: _U8.pack(said.why) + said.path,
    **dict.fromkeys(_TUNNELS, t.encode),
}

_DECODERS: Final[dict[int, Callable[[bytes], m.Message]]] = {
    FrameType.SPEC: _to_spec,
    FrameType.FILE: _to_file,
    FrameType.START: _bare(m.Start()),
    FrameType.INPUT: m.Input,
    FrameType.SIGNAL: _to_signal,
    FrameType.STOP: _to_stop,
    FrameType.ACK: lambda payload: m.Ack(_exactly(_U64, payload)),
    FrameType.RESUME: _to_resume,
    FrameType.CLOSE: _bare(m.Close()),
    FrameType.READY: _to_ready,
    FrameType.OUT: lambda payload: _to_output(m.Stream.OUT, payload),
    FrameType.ERR: lambda payload: _to_output(m.Stream.ERR, payload),
    FrameType.TAKEN: lambda payload: m.Taken(_exactly(_U64, payload)),
    FrameType.EXITED: _to_exited,
    FrameType.DONE: _to_done,
    FrameType.ERROR: _to_error,
    FrameType.RESULT_BEGIN: _to_begin,
    FrameType.RESULT_DATA: lambda payload: m.ResultData(_U64.unpack_from(payload)[0], payload[_U64.size :]),
    FrameType.RESULT_END: _bare(m.ResultEnd()),
    FrameType.RESULT_DROPPED: lambda payload: m.ResultDropped(m.Skipped(_exactly(_U8, payload))),
    FrameType.RESULT_SKIPPED: _to_skipped,
    **{frame_type: functools.partial(t.decode, form) for form, frame_type in _TUNNELS.items()},
}
