# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a worker of ansible-runner sends back, read with bounds and believed only as the answer to one job. Pure.

A line is a JSON object: a status, an event, a keepalive, the announcement of an archive that follows in base64, or
the end. Exactly one end comes, and nothing after it. The archive is passed over: every event of it is in the stream
already, and an archive may hold links and paths that lead elsewhere.
"""

from __future__ import annotations

import json
import re
from typing import Any, Iterable, Mapping, NamedTuple

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError, OneCodeError
from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.cells import STEPS, Binding

# Bytes: of a line, and of a whole answer beside what each host adds to it.
LINE_LIMIT = 16 << 20
BASE_LIMIT = 16 << 20
HOST_LIMIT = 2 << 20
# A stream that fits is at most so many lines beside those of each host.
BASE_LINES, HOST_LINES = 1000, 200
ECHO = "Say which job this is"
COLLECTION = "ebpf.fleet."

_UUID = re.compile(r"[0-9a-f-]{1,64}", re.ASCII)
_RESULTS = ("runner_on_ok", "runner_on_failed", "runner_on_unreachable", "runner_on_skipped")


class CellAnswerError(OneCodeError):
    """The stream is not the answer to the job; the message says why."""

    code = "EF_CELL_ANSWER"


class Answers(NamedTuple):
    """{host: {module: its result}}, and the hosts that were not reached, with the words of the connection."""

    hosts: dict[str, dict[str, Any]]
    unreachable: dict[str, str]
    command: dict[str, Any]


class Stream:
    """Bytes as they come, to lines that may be believed; `ended` once the one end has come."""

    def __init__(self, hosts: int) -> None:
        self.most_bytes = BASE_LIMIT + HOST_LIMIT * hosts
        self.most_lines = BASE_LINES + HOST_LINES * hosts
        self.bytes = self.lines = 0
        self.ended = False
        self.failed = ""
        self._buffer = bytearray()
        self._skip = 0
        self._counters: set[int] = set()

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that came whole with this data, for `ansible-runner process`; CellAnswerError for anything else."""
        self.bytes += len(data)
        if self.bytes > self.most_bytes:
            raise CellAnswerError(f"it sent more than {self.most_bytes} bytes")
        self._buffer += data
        found: list[bytes] = []
        while True:
            if self._skip:
                gone = min(self._skip, len(self._buffer))
                del self._buffer[:gone]
                self._skip -= gone
            end = self._buffer.find(b"\n")
            if self._skip or end < 0:
                if len(self._buffer) > LINE_LIMIT:
                    raise CellAnswerError(f"it sent a line of more than {LINE_LIMIT} bytes")
                return found
            line = bytes(self._buffer[: end + 1])
            del self._buffer[: end + 1]
            if self._take(line):
                found.append(line)

    def finish(self) -> None:
        """When nothing more comes: CellAnswerError where the stream was cut, or something follows its end."""
        if not self.ended:
            raise CellAnswerError("its stream ended before its end was said")
        if self._buffer:
            raise CellAnswerError("something follows the end of its stream")

    def _take(self, line: bytes) -> bool:
        """Whether the line is one for `ansible-runner process`."""
        if self.ended:
            raise CellAnswerError("something follows the end of its stream: it answered twice")
        self.lines += 1
        if self.lines > self.most_lines:
            raise CellAnswerError(f"it sent more than {self.most_lines} lines")
        document = _object(line)
        if "status" in document:
            self.failed = self.failed or _failure(document)
            return True
        if "zipfile" in document:
            self._skip = _archive(document["zipfile"], self.most_bytes)
            return False
        if "eof" in document:
            self.ended = True
            return True
        if document.get("event") == "keepalive":
            self.lines -= 1
            return False
        counter = _counter(document)
        if counter in self._counters:
            raise CellAnswerError(f"event {counter} comes twice")
        self._counters.add(counter)
        return True


def _object(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise CellAnswerError(f"a line of its stream is not JSON: {printable(line[:100].decode('latin-1'))}") from error
    if not isinstance(found, dict):
        raise CellAnswerError("a line of its stream is not an object")
    return found


def _failure(document: Mapping[str, Any]) -> str:
    """Why the worker says that it could not work; empty where it does not."""
    if document["status"] not in ("error", "timeout", "canceled"):
        return ""
    said = str(document.get("job_explanation") or document.get("result_traceback") or "no reason given")
    return f"{document['status']}: {said.strip().splitlines()[-1] if said.strip() else said}"


def _archive(length: Any, most: int) -> int:
    """Bytes of base64 that an archive of so many bytes takes."""
    if isinstance(length, bool) or not isinstance(length, int) or not 0 <= length <= most:
        raise CellAnswerError(f"it announces an archive of {printable(repr(length), 40)} bytes")
    return (length + 2) // 3 * 4


def _counter(document: Mapping[str, Any]) -> int:
    """The number of an event; `ansible-runner process` makes a file's name of it and of the event's id."""
    counter, uuid = document.get("counter"), document.get("uuid")
    if isinstance(counter, bool) or not isinstance(counter, int) or counter < 1:
        raise CellAnswerError("a line of its stream counts as no event")
    if not isinstance(uuid, str) or not _UUID.fullmatch(uuid):
        raise CellAnswerError("an event of its stream has no id that can be used")
    return counter


def answers(events: Iterable[Mapping[str, Any]], binding: Binding) -> Answers:
    """What the hosts answered in the events of a whole stream.

    CellAnswerError where an event is of another job, a host is not of this one, something answers twice, or the job
    is not named again as it was given; FleetError with EF_CELL_LOST where it was not begun.
    """
    found = Answers({}, {}, {})
    named, last = 0, ""
    for event in events:
        last = _last_words(event) or last
        if event.get("runner_ident") != binding.ident:
            raise CellAnswerError(f"an event is of the job {printable(event.get('runner_ident'), 80)}")
        kind, data = event.get("event"), event.get("event_data")
        if kind not in _RESULTS or not isinstance(data, Mapping):
            continue
        result = data.get("res")
        if data.get("task") == ECHO:
            if named:
                raise CellAnswerError("it names its job twice")
            named += _is_named(result, binding)
        else:
            _keep(found, binding, str(kind), data, result if isinstance(result, Mapping) else {})
    if named == 0:
        words = printable(" ".join(last.split()), 500) or "nothing"
        raise FleetError("EF_CELL_LOST", f"did not begin the job; its last words: {words}")
    return found


def _last_words(event: Mapping[str, Any]) -> str:
    """What an event says that may be why nothing came after it; the recap of a play is not."""
    if event.get("event") == "playbook_on_stats":
        return ""
    data = event.get("event_data")
    result = data.get("res") if isinstance(data, Mapping) else None
    said = result.get("msg") if isinstance(result, Mapping) and event.get("event") == "runner_on_failed" else None
    return str(said or event.get("stdout") or "").strip()


def _is_named(result: Any, binding: Binding) -> int:
    said = result.get("msg") if isinstance(result, Mapping) else None
    if said != binding.digest():
        raise CellAnswerError("the job that it names is not the one that it was given")
    return 1


def _keep(found: Answers, binding: Binding, kind: str, data: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    host, module = str(data.get("host")), str(data.get("task_action")).replace(COLLECTION, "", 1)
    if module == "fan_out" and binding.step == "command":
        _keep_command(found, binding, result)
        return
    if host not in binding.hosts and host != "localhost":
        raise CellAnswerError(f"it answers for {printable(host, 80)}, which is not of this job")
    if kind == "runner_on_unreachable":
        found.unreachable.setdefault(host, str(result.get("msg") or "it cannot be reached"))
        return
    if module not in STEPS[binding.step]:
        if kind == "runner_on_failed" and not result.get("ansible_loop_var"):
            found.hosts.setdefault(host, {}).setdefault("", dict(result))
        return
    results = found.hosts.setdefault(host, {})
    if module in results:
        raise CellAnswerError(f"{printable(host, 80)} answers {module} twice")
    results[module] = {name: value for name, value in result.items() if name != "invocation"}
    if kind == "runner_on_failed":
        results[module]["failed"] = True


def _keep_command(found: Answers, binding: Binding, result: Mapping[str, Any]) -> None:
    told = result.get("hosts")
    if found.command or not isinstance(told, Mapping) or set(told) != set(binding.hosts):
        raise CellAnswerError("the hosts that its command was run on are not once those of the job")
    found.command.update(told)


def result_of(found: Answers, host: str, module: str) -> dict[str, Any] | None:
    """What a host answered for a module; None where it said nothing, which is unknown and never good."""
    results = found.hosts.get(host, {})
    if module in results:
        return dict(results[module])
    if host in found.unreachable:
        return {"unreachable": True, "changed": False, "msg": found.unreachable[host]}
    # A task before the module failed, such as a refusal of the role.
    return {**results[""], "failed": True} if "" in results else None
