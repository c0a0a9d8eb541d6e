"""Whether the capsule keeps to the spec it was given: byte, file and depth totals, offsets, order of results."""

from __future__ import annotations

from hivemind_worker.runtime.capsule import messages, paths

MAX_NAMED_SKIPS = 1000  # as many as the program inside names


class Promises:
    """Counts what one capsule says. It is not trusted: what it was told to limit is limited here again."""

    def __init__(self, spec: messages.Spec | None, *, fresh: bool) -> None:
        """Begin. `spec` None: unknown, only the defaults of `Limits` are checked. `fresh` False: something was said
        before.
        """
        self._limits = spec.limits if spec else messages.Limits()
        self._exact = fresh
        self._ends = dict.fromkeys(messages.Stream, 0)
        self._received = dict.fromkeys(messages.Stream, 0)
        self._files = self._content = self._apparent = self._skips = 0
        self._ended_content = self._ended_files = 0
        self._file: messages.ResultBegin | None = None
        self._file_end = self._file_content = 0
        self._last: tuple[bytes, ...] = ()

    def loosen(self) -> None:
        """Some of what was said is lost: check bounds from now on, not exact sums."""
        self._exact = False

    def check(self, message: messages.Message) -> None:
        """Take note of `message`. Raises ValueError if it breaks a promise."""
        if isinstance(message, messages.Output):
            self._output(message)
        elif isinstance(message, messages.Exited):
            self._exited(message)
        elif isinstance(message, messages.ResultBegin):
            self._begin(message)
        elif isinstance(message, messages.ResultData):
            self._data(message)
        elif isinstance(message, messages.ResultEnd):
            self._ended_content += self._file_content
            self._ended_files += 1
        elif isinstance(message, messages.ResultSkipped):
            self._skips += 1
            _refuse(self._skips > MAX_NAMED_SKIPS, f"more than {MAX_NAMED_SKIPS} skipped results are named")
        elif isinstance(message, messages.Done):
            self._done(message)

    def _output(self, output: messages.Output) -> None:
        stream = output.stream
        _refuse(not output.data, "an empty piece of output")
        _refuse(output.offset < self._ends[stream], f"{stream.name} goes back to byte {output.offset}")
        self._received[stream] += len(output.data)
        self._ends[stream] = output.offset + len(output.data)
        allowed = self._limits.output_head + 2 * self._limits.output_tail
        _refuse(sum(self._received.values()) > allowed, f"more than {allowed} bytes of output")

    def _exited(self, exited: messages.Exited) -> None:
        totals = {messages.Stream.OUT: exited.out_total, messages.Stream.ERR: exited.err_total}
        dropped = {messages.Stream.OUT: exited.out_dropped, messages.Stream.ERR: exited.err_dropped}
        wrong = [stream for stream in totals if totals[stream] != self._received[stream] + dropped[stream]]
        _refuse(self._exact and bool(wrong), "EXITED counts other output than was received")
        _refuse(any(totals[stream] < dropped[stream] for stream in totals), "more output dropped than there was")

    def _begin(self, begin: messages.ResultBegin) -> None:
        limits = self._limits
        shown = paths.rendered(begin.path[:200])
        parts = tuple(begin.path.split(b"/"))
        inside = bool(self._last) and parts[: len(self._last)] == self._last
        _refuse(parts <= self._last or inside, f"result '{shown}' is out of order or inside another file")
        _refuse(len(parts) > limits.results_depth, f"result '{shown}' is deeper than {limits.results_depth}")
        self._files += 1
        self._apparent += begin.size
        _refuse(self._files > limits.results_count, f"more than {limits.results_count} result files")
        _refuse(self._apparent > limits.results_apparent, f"result files of more than {limits.results_apparent} bytes")
        self._file, self._last, self._file_end, self._file_content = begin, parts, 0, 0

    def _data(self, data: messages.ResultData) -> None:
        end = data.offset + len(data.data)
        _refuse(not data.data or data.offset < self._file_end, "a piece of a result is empty or goes back")
        _refuse(self._file is not None and end > self._file.size, f"byte {end} of a result that was said to be shorter")
        self._content += len(data.data)
        self._file_content += len(data.data)
        self._file_end = end
        limit = self._limits.results_bytes
        _refuse(self._content > limit, f"more than {limit} bytes of results")

    def _done(self, done: messages.Done) -> None:
        same = (done.files, done.content_bytes) == (self._ended_files, self._ended_content)
        _refuse(self._exact and not same, "DONE counts other results than were received")
        _refuse(done.skipped < self._skips, "DONE counts fewer skipped results than were named")


def _refuse(wrong: bool, what: str) -> None:  # noqa: FBT001 - the condition is the sentence's first word
    if wrong:
        raise ValueError(what)
