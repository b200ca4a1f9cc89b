# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host sends while it is asked, kept within bounds and read for what it means. Pure.

OpenSSH says by its own words on standard error when a login succeeded; the become plugin says by
what it prints whether it waits for a password. Both are only ever data.
"""

from __future__ import annotations

import re
from typing import Protocol

from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable

HEAD_BYTES = 16 * 1024
TAIL_BYTES = 48 * 1024
# More than this from one host is a flood: it is cut off, as it only takes the others' time.
FLOOD_BYTES = 4 * 1024 * 1024
SAID_LETTERS = 300
PROMPT_BYTES = 200

_LOGGED_IN = re.compile(rb"^Authenticated to .", re.MULTILINE)
# What ssh says of itself at LogLevel VERBOSE or with -v; nothing of it comes from the command.
_CHATTER = re.compile(
    r"(?:Authenticated to .*|Transferred: sent .*|Bytes per second: sent .*|(?:Shared )?[Cc]onnection to .* closed\.?"
    r"|debug[0-9]: .*|OpenSSH_[0-9].*)\r?"
)
_KEX = re.compile(
    r"no matching key exchange|[Uu]nsupported KEX|kex algorithm|KEX method|choose_kex|ssh_dispatch_run_fatal"
)
# A server that has no room for one more login, or a proxy that is overrun, says no more than this.
_TRANSIENT = re.compile(
    r"kex_exchange_identification|banner exchange.*(?:closed|reset|[Bb]roken pipe)|[Cc]onnection (?:reset|closed) by"
)
_FOR_GOOD = re.compile(r"Permission denied|Host key verification failed|Could not resolve hostname|Connection refused")


def document_bytes(head_bytes: int) -> int:
    """What is kept of a JSON document of both streams: it is of use only as a whole, with every byte escaped."""
    return max(12 * (HEAD_BYTES + TAIL_BYTES), FLOOD_BYTES if head_bytes > HEAD_BYTES else 0)


class Capture:
    """The beginning and the end of a stream; what lies between is counted and dropped."""

    def __init__(self, head_bytes: int = HEAD_BYTES) -> None:
        self.total = 0
        self._head_bytes = head_bytes
        self._head = bytearray()
        self._tail = bytearray()

    def add(self, data: bytes) -> None:
        self.total += len(data)
        room = max(0, self._head_bytes - len(self._head))
        self._head += data[:room]
        self._tail += data[room:]
        if len(self._tail) > TAIL_BYTES:
            del self._tail[:-TAIL_BYTES]

    @property
    def head(self) -> bytes:
        """The first bytes, as many as are kept."""
        return bytes(self._head)

    def text(self) -> str:
        """All that was kept, as text; bytes that are not UTF-8 are replaced, a gap is said."""
        dropped = self.total - len(self._head) - len(self._tail)
        gap = f"\n[{dropped} bytes left out]\n".encode() if dropped else b""
        return (bytes(self._head) + gap + bytes(self._tail)).decode("utf-8", "replace")


class Become(Protocol):
    """The face of Ansible's become plugins that matters here."""

    def expect_prompt(self) -> bool: ...
    def check_password_prompt(self, b_output: bytes) -> bool: ...
    def check_success(self, b_output: bytes) -> bool: ...
    def check_incorrect_password(self, b_output: bytes) -> bool: ...
    def check_missing_password(self, b_output: bytes) -> bool: ...


class Escalation:
    """The talk with a become plugin's program until it lets the command in.

    Lines that belong to it (prompt, mark of success) are taken out of what the command printed.
    """

    def __init__(self, become: Become, password: str) -> None:
        self.become = become
        self.done = False
        self.asked = False
        self.error = ""
        self._answer = f"{password}\n".encode("utf-8", "surrogateescape")
        self._parts: dict[str, bytes] = {}

    def feed(self, stream: str, data: bytes) -> tuple[bytes, bytes]:
        """(what is output of the command, what to send it) for new data of a stream."""
        kept, send = b"", b""
        pending = self._parts.pop(stream, b"") + data
        lines = pending.splitlines(True)
        for number, line in enumerate(lines):
            if self.done or self.error:
                kept += b"".join(lines[number:])
                return kept, send
            mine, answer = self._read(line)
            send += answer
            if mine:
                continue
            if line.endswith((b"\n", b"\r")) or len(line) > HEAD_BYTES:
                kept += line
            else:
                self._parts[stream] = line
        return kept, send

    def flush(self, stream: str) -> bytes:
        """A last line without an end, which is not a prompt."""
        return self._parts.pop(stream, b"")

    def _read(self, line: bytes) -> tuple[bool, bytes]:
        """(does the line belong to the escalation, what to send)."""
        if self.become.expect_prompt() and self._ends_in_prompt(line):
            if self.asked:
                self.error = "the become password is wrong: it was asked for twice"
                return True, b""
            self.asked = True
            return True, self._answer
        if self.become.check_success(line):
            self.done = True
            return True, b""
        if self.become.check_incorrect_password(line):
            self.error = "the become password is wrong"
        elif self.become.check_missing_password(line):
            self.error = "a become password is required and none is given"
        return False, b""

    def _ends_in_prompt(self, line: bytes) -> bool:
        """Is it the prompt, at its begin or, where a profile printed before it without a newline, at its end?

        A prompt stands alone on a line that has no end, so only such a line is searched.
        """
        if self.become.check_password_prompt(line):
            return True
        if line.endswith((b"\n", b"\r")):
            return False
        end = line[-PROMPT_BYTES:]
        return any(self.become.check_password_prompt(end[at:]) for at in range(1, len(end)))

    @property
    def waits_for(self) -> str:
        """What the escalation hangs at, in words."""
        return "took the password and then said nothing" if self.asked else "did not let the command in"


def is_logged_in(stderr_head: bytes) -> bool:
    """Has ssh said that the login succeeded?"""
    return _LOGGED_IN.search(stderr_head) is not None


def hides_the_login(argv: list[bytes]) -> bool:
    """Is ssh told to be quiet, so that it does not say when the login succeeded?"""
    return any(re.fullmatch(rb"-[46AaCfGgKkMNnsTtVvXxYy]*q[A-Za-z0-9]*", one) for one in argv[1:])


def without_chatter(stderr: str) -> str:
    """Standard error without the lines in which ssh speaks of itself."""
    lines = stderr.splitlines(True)
    return "".join(line for line in lines if not _CHATTER.fullmatch(line.rstrip("\n")))


def last_words(stdout: str, stderr: str) -> str:
    """The last lines of both streams, on one printable line; "nothing" if nothing was sent."""
    lines: list[str] = []
    for text in (stdout, stderr):
        lines += [line.strip() for line in text.splitlines() if line.strip()][-2:]
    return printable(" / ".join(lines)[-SAID_LETTERS:], SAID_LETTERS) or "nothing"


def refuses_our_kex(stderr: str) -> bool:
    """Did the key exchange fail in a way that a list of our own could have caused?"""
    return _KEX.search(stderr) is not None


def is_worth_another_try(stderr: str) -> bool:
    """Was the login cut off before it began, as a server or proxy that is overrun does?"""
    return _TRANSIENT.search(stderr) is not None and _FOR_GOOD.search(stderr) is None
