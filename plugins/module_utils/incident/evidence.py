# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read the evidence that a host sent: which files, whole or cut, and whether they are what the host had. Pure.

The host is not believed: names of files are of a fixed list, sizes are bounded, every letter must be printable ASCII,
and what does not have the checksum that the host made is not the file. What came whole before a link was cut is kept.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, Mapping, NamedTuple, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base import host_document
from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable
from ansible_collections.ebpf.fleet.plugins.module_utils.incident.script import FILE_BYTES, MARK, TOTAL_BYTES

# What a bundle may hold, in the order in which it is sent, and what it is.
FILES = {
    "host.txt": "time, load, memory, pressure, kill orders, releases",
    "unit.txt": "systemd's account of our units, and the state of their processes",
    "status.json": "what the loader said last",
    "listed.txt": "the programs that the loader listed last",
    "metrics.prom": "its metrics",
    "programs.txt": "the programs that our units hold, with run counts, and the names of all that the kernel compiled",
    "maps.txt": "the maps that our units hold",
    "bpf.jsonl": "every program and map of the kernel, with run counts; where there is Python",
    "capability.txt": "the kernel's settings and configuration for BPF, and what tools the host has",
    "kernel.txt": "lines of the kernel's log on BPF",
    "disks.txt": "space of the file systems that are written to",
    "audit.jsonl": "the end of the loader's audit",
    "journal.txt": "the end of the units' journal",
    "verifier.txt": "what the journal says of the verifier",
    "check.json": "the loader's own trial of every variant, with the verifier's log; where one was refused",
}
# Without these there is nothing to start from, and what a host has of them it sends.
NEEDED = ("host.txt", "unit.txt")
BUNDLE_LIMIT = 4 << 20
LINE_LIMIT = 4096
BAR = "|"
NOTHING_CAME = "nothing of it came"
NO_SUM = "the host has no tool for SHA-256, so that the transfer is not proven"

_UNPRINTABLE = re.compile(r"[^\t\x20-\x7e]")
_SUM = host_document.text(64, r"[0-9a-f]{64}|")
_NAME = host_document.word(*FILES)
_BEGIN = host_document.record(
    {
        "begin": host_document.whole(1, 1),
        "family": host_document.text(64, r"[A-Za-z0-9._-]*"),
        "distro": host_document.text(64, r"[A-Za-z0-9._-]*"),
        "python": host_document.truth(),
        "root": host_document.truth(),
    },
    needed=("begin", "family", "distro", "python", "root"),
)
_FILE = host_document.record(
    {
        "file": _NAME,
        "bytes": host_document.whole(0, FILE_BYTES[2] + 1),
        "sha256": _SUM,
        "cut": host_document.truth(),
        "why": host_document.text(300),
    },
    needed=("file", "bytes", "sha256", "cut", "why"),
)
_END = host_document.record(
    {
        "end": host_document.whole(1, 1),
        "files": host_document.whole(0, len(FILES)),
        "bytes": host_document.whole(0, TOTAL_BYTES[2] + len(FILES)),
        "sha256": _SUM,
    },
    needed=("end", "files", "bytes", "sha256"),
)


class File(NamedTuple):
    """A file of a bundle: its text (empty where the host has none), whether it was cut, and why it is not there."""

    name: str
    text: str
    sha256: str
    cut: bool
    why: str


class Bundle(NamedTuple):
    """What a host sent. `faults` says what is wrong with it; without any it is complete."""

    files: Mapping[str, File]
    family: str
    distro: str
    python: bool | None
    faults: Sequence[str]

    @property
    def sums(self) -> str:
        """The manifest as `sha256sum -c` reads it."""
        return "".join(f"{one.sha256}  {one.name}\n" for one in self.files.values() if one.text)


class _Reader:
    """One pass over the lines that a host sent."""

    def __init__(self) -> None:
        self.files: dict[str, File] = {}
        self.begin: Mapping[str, Any] = {}
        self.end: Mapping[str, Any] = {}
        self.faults: list[str] = []
        self.open: Mapping[str, Any] | None = None
        self.lines: list[str] = []

    def line(self, line: str) -> None:
        if line.startswith(MARK):
            self.close()
            self.head(line[len(MARK) :])
        elif self.open is not None and line.startswith(BAR):
            self.lines.append(line[1:])

    def head(self, text: str) -> None:
        """A line that says what comes."""
        document = _document(text)
        for key, rule in (("begin", _BEGIN), ("file", _FILE), ("end", _END)):
            if key not in document:
                continue
            judged = host_document.usable(document, rule)
            if judged.faults:
                self.faults.append(f"a line of it cannot be used: {host_document.told(judged.faults)}")
            else:
                self.take(key, judged.document)
            return
        self.faults.append("a line of it is not one of the format")

    def take(self, key: str, document: Mapping[str, Any]) -> None:
        if key == "file":
            self.open = document
        elif getattr(self, key):
            self.faults.append(f"it has more than one {key}")
        else:
            setattr(self, key, document)

    def close(self) -> None:
        """Judge the file whose lines have come."""
        told, lines = self.open, self.lines
        self.open, self.lines = None, []
        if told is None:
            return
        text = "".join(f"{line}\n" for line in lines)
        wrong = _fault_of_file(told, text)
        if told["file"] in self.files:
            wrong = "was sent twice"
        if wrong:
            self.faults.append(f"{told['file']}: {wrong}")
            if wrong != NO_SUM:
                return
        digest = hashlib.sha256(text.encode("ascii")).hexdigest() if text else ""
        self.files[told["file"]] = File(told["file"], text, digest, told["cut"], told["why"])


def _document(text: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text) if len(text) <= LINE_LIMIT else None
    except (ValueError, RecursionError):
        found = None
    return found if isinstance(found, dict) else {}


def _fault_of_file(told: Mapping[str, Any], text: str) -> str:
    """Why this is not the file that the host had; empty where it is."""
    if _UNPRINTABLE.search(text.replace("\n", "")):
        return "holds letters that are not printable ASCII and was not kept"
    if len(text) != told["bytes"]:
        return f"{len(text)} of {told['bytes']} bytes came"
    if not text:
        return ""
    if not told["sha256"]:
        return NO_SUM
    if hashlib.sha256(text.encode("ascii")).hexdigest() != told["sha256"]:
        return "does not have the SHA-256 that the host made"
    return ""


def read(output: str) -> Bundle:
    """What a host sent, judged by itself; raises for nothing that a host can send."""
    reader = _Reader()
    # A terminal puts a carriage return before each newline; the script sends none.
    for line in output[: BUNDLE_LIMIT + LINE_LIMIT].replace("\r", "").split("\n"):
        reader.line(line)
    # Of the last file, as of any, its size says whether all of it came.
    reader.close()
    faults = list(reader.faults) + _faults_of_whole(reader)
    begin = reader.begin
    return Bundle(
        dict(sorted(reader.files.items(), key=lambda one: list(FILES).index(one[0]))),
        begin.get("family", ""),
        begin.get("distro", ""),
        begin.get("python"),
        [printable(fault, 300) for fault in faults],
    )


def _faults_of_whole(reader: _Reader) -> list[str]:
    if not reader.begin and not reader.files:
        return [NOTHING_CAME]
    faults = []
    if not reader.end:
        last = next(reversed(reader.files), None)
        faults.append(f"it ends early, after {last}" if last else "it ends early")
    elif reader.end["files"] != len(reader.files) and not reader.faults:
        faults.append(f"{len(reader.files)} of {reader.end['files']} files came")
    elif reader.end["sha256"] and reader.end["sha256"] != _manifest_sum(reader):
        faults.append("the manifest does not have the SHA-256 that the host made")
    if reader.begin.get("root") is False:
        faults.append("it was not root on the host; use become")
    faults += [f"{name} is missing" for name in NEEDED if reader.end and not _text_of(reader, name)]
    return faults


def _text_of(reader: _Reader, name: str) -> str:
    found = reader.files.get(name)
    return found.text if found else ""


def _manifest_sum(reader: _Reader) -> str:
    """As the host makes it: in the order in which the files were sent."""
    text = "".join(f"{one.sha256}  {one.name}\n" for one in reader.files.values() if one.text)
    return hashlib.sha256(text.encode("ascii")).hexdigest()
