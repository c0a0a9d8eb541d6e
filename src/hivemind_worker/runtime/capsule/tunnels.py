"""What may be under way in the tunnels of one capsule: numbers, windows and ends, each checked. No I/O."""

from __future__ import annotations

import dataclasses

from hivemind_worker.runtime.capsule import tunnel_messages as t


@dataclasses.dataclass(slots=True)
class _Tunnel:
    uploaded: int = 0
    upload_credit: int = 0
    upload_ended: bool = False
    downloaded: int = 0
    download_credit: int = 0
    download_ended: bool = False
    closing: bool = False


class Tunnels:
    """The tunnels that are open. The capsule is not trusted: what goes beyond a window or a number is refused."""

    def __init__(self) -> None:
        """Begin with none."""
        self._open: dict[int, _Tunnel] = {}
        self._last = 0

    def cut(self) -> None:
        """Another stream begins: both ends have forgotten what was open. Numbers go on."""
        self._open.clear()

    def is_open(self, number: int) -> bool:
        """Whether the capsule has it open still."""
        return number in self._open

    def room(self, number: int) -> int:
        """How many bytes may be sent to the task now; 0 where that is over."""
        tunnel = self._open.get(number)
        if tunnel is None or tunnel.closing or tunnel.download_ended:
            return 0
        return t.WINDOW - (tunnel.downloaded - tunnel.download_credit)

    def receive(self, message: t.FromTunnel) -> None:
        """Take note of what the capsule says. Raises ValueError where it may not say that."""
        if isinstance(message, t.TunnelOpened):
            _refuse(message.tunnel <= self._last, f"tunnel {message.tunnel} is opened after {self._last}")
            _refuse(len(self._open) >= t.MAX_OPEN, f"more than {t.MAX_OPEN} tunnels at once")
            self._last = message.tunnel
            self._open[message.tunnel] = _Tunnel()
            return
        tunnel = self._open.get(message.tunnel)
        if tunnel is None:
            raise ValueError(f"tunnel {message.tunnel} is not open")
        if isinstance(message, t.TunnelClosed):
            del self._open[message.tunnel]
        elif isinstance(message, t.TunnelUpload):
            under_way = tunnel.uploaded + len(message.data) - tunnel.upload_credit
            _refuse(tunnel.upload_ended, f"tunnel {message.tunnel} goes on after its end")
            _refuse(under_way > t.WINDOW, f"{under_way} bytes under way in tunnel {message.tunnel}")
            tunnel.uploaded += len(message.data)
            tunnel.upload_ended = not message.data
        else:
            in_order = tunnel.download_credit <= message.total <= tunnel.downloaded
            _refuse(not in_order, f"{message.total} bytes delivered of {tunnel.downloaded} in tunnel {message.tunnel}")
            tunnel.download_credit = message.total

    def send(self, message: t.ToTunnel) -> None:
        """Take note of what the worker says. Raises ValueError where it may not say that."""
        tunnel = self._open.get(message.tunnel)
        if tunnel is None or tunnel.closing:
            raise ValueError(f"tunnel {message.tunnel} is not open")
        if isinstance(message, t.TunnelClose):
            tunnel.closing = True
        elif isinstance(message, t.TunnelDownload):
            room = self.room(message.tunnel)
            _refuse(len(message.data) > room, f"{len(message.data)} bytes for a tunnel with room for {room}")
            _refuse(tunnel.download_ended, f"tunnel {message.tunnel} goes on after its end")
            tunnel.downloaded += len(message.data)
            tunnel.download_ended = not message.data
        else:
            in_order = tunnel.upload_credit <= message.total <= tunnel.uploaded
            _refuse(not in_order, f"{message.total} bytes taken of {tunnel.uploaded} in tunnel {message.tunnel}")
            tunnel.upload_credit = message.total


def _refuse(wrong: bool, what: str) -> None:  # noqa: FBT001 - the condition is the sentence's first word
    if wrong:
        raise ValueError(what)
