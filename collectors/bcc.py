#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""The BCC collector: runs, on a host without BTF, what the loader could not.

`run` is the service (docs/bcc.md). It has the bundle verified by the release's loader, compiles
only bytes whose hash the signed manifest names, and obeys the loader's kill orders. `compile` is
its child: it alone loads BCC and LLVM, hands the descriptors over and ends, so that what stays
is small. Nothing is pinned: all that is in the kernel hangs on descriptors of these processes.

Python 3.8's standard library; `bcc` (Debian's python3-bpfcc) in the child only.
"""

from __future__ import annotations

import argparse
import array
import contextlib
import ctypes
import datetime
import errno
import fcntl
import functools
import hashlib
import json
import mmap
import os
import platform
import re
import resource
import select
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Iterator, NamedTuple

NAME = "ebpf-fleet-bcc"  # at most 15 characters: also the name of the process
VERSION = "0.1.0"
ENGINE = "bcc"
EVENTS_MAP = "ef_events"
EVENTS_FILE = "events-bcc.jsonl"
EVENTS_LIMIT_BYTES = 16 * 1024 * 1024

EXIT_FAILED, EXIT_USAGE, EXIT_REFUSED = 1, 2, 3
LOOK_SECONDS = 0.1  # between two looks at the orders, and at the ring buffers
VERIFY_SECONDS = 120
COMPILE_SECONDS = 300
# What runs goes on while the loader restarts; after that nobody vouches for it.
LOADER_GRACE_SECONDS = 30
READ_LIMIT = 4096  # records of one feature before the loop looks at all else again
MAX_JSON_BYTES = 1 << 20
MAX_STATUS_BYTES = 4 << 20
U32_MAX = 0xFFFFFFFF

COUNTERS = ("produced", "delivered", "dropped", "sampled_out")  # the slots of ef_counters
HIST_SLOTS = 64
HIST_SUM = 64
BUCKETS = 40
SCALE_DIGITS = {"nanoseconds": 9, "microseconds": 6, "bytes": 0, "count": 0}
KILL_CODES = ("EF_KILLED_GLOBAL", "EF_KILLED_FEATURE", "EF_KILLED_FAMILY")
FEATURE_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
KERNEL_NAME = re.compile(r"ef_[a-z0-9_]{1,12}")
FAMILY = re.compile(r"(?:.+-)?[0-9]+\.[0-9]+")
# Of the contract's grammar (module_utils/contract/requirements.py) what we attach; a test holds both equal.
HOOK = re.compile(r"attach:(?:(raw_tp):([A-Za-z0-9_]{1,127})|(kprobe|kretprobe):([A-Za-z_][A-Za-z0-9_.]{0,126}))")


class RefusedError(Exception):
    """The bundle is not to be trusted: nothing of it runs. `code` is a reason code."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class CannotRunError(Exception):
    """One feature cannot run, and why; the others go on."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Reason(NamedTuple):
    """A stable code and a sentence."""

    code: str
    text: str


# ---- messages ----


def say(level: int, text: str, before: str = f"{NAME}: ") -> None:
    """One line for the journal, dropped when nobody takes it: a full pipe must not hold up a kill."""
    prefix = f"<{level}>" if os.environ.get("JOURNAL_STREAM") else ""
    shown = "".join(char if " " <= char <= "~" else "?" for char in text)
    line = prefix + before + shown[:3900] + "\n"
    with contextlib.suppress(OSError, ValueError):
        if select.select([], [2], [], 0)[1]:
            os.write(2, line.encode("ascii"))


def notify(state: str) -> None:
    """Tell systemd, where it listens."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        sender.sendto(state.encode("utf-8", "replace"), address)


# ---- the kernel ----

BPF_NUMBERS = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "s390x": 351}
PERF_NUMBERS = {"x86_64": 298, "aarch64": 241, "riscv64": 241, "ppc64le": 319, "s390x": 331}
MAP_LOOKUP, MAP_UPDATE, INFO_BY_FD, RAW_TRACEPOINT_OPEN, LOOKUP_BATCH = 1, 2, 15, 17, 24
MAP_TYPES = {
    1: "hash", 2: "array", 4: "perf_event_array", 5: "percpu_hash", 6: "percpu_array",
    9: "lru_hash", 10: "lru_percpu_hash", 27: "ringbuf",
}  # fmt: skip
PER_CPU_TYPES = ("percpu_hash", "percpu_array", "lru_percpu_hash")
HASH_TYPES = ("hash", "percpu_hash", "lru_hash", "lru_percpu_hash")
PERF_FLAG_FD_CLOEXEC, PERF_IOC_ENABLE, PERF_IOC_SET_BPF = 8, 0x2400, 0x40042408
PR_SET_PDEATHSIG, PR_SET_NAME, PR_SET_NO_NEW_PRIVS = 1, 15, 38

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long


def system_call(table: dict[str, int], *arguments: Any) -> int:
    """A system call by its number on this machine; raises OSError."""
    number = table.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, f"no system call number is known for {platform.machine()}")
    result = int(LIBC.syscall(number, *arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def bpf(command: int, attributes: bytes) -> tuple[int, bytes]:
    """bpf(2): its result and the attributes as the kernel left them."""
    block = ctypes.create_string_buffer(attributes.ljust(144, b"\0"), 144)
    return system_call(BPF_NUMBERS, ctypes.c_int(command), block, ctypes.c_uint(144)), block.raw


def info_by_fd(fd: int) -> bytes:
    """What the kernel says of a program, map or link: the bytes of its info struct."""
    info = ctypes.create_string_buffer(256)
    bpf(INFO_BY_FD, struct.pack("=IIQ", fd, 256, ctypes.addressof(info)))
    return info.raw


def open_raw_tracepoint(name: str, program_fd: int) -> int:
    """Attach; the descriptor that comes back is the link, and closing it detaches."""
    text = ctypes.create_string_buffer(name.encode("ascii"))
    return bpf(RAW_TRACEPOINT_OPEN, struct.pack("=QI", ctypes.addressof(text), program_fd))[0]


def open_perf_event(attributes: bytes, pid: int, cpu: int) -> int:
    """perf_event_open(2)."""
    block = ctypes.create_string_buffer(attributes.ljust(112, b"\0"), 112)
    flags = ctypes.c_ulong(PERF_FLAG_FD_CLOEXEC)
    arguments = (block, ctypes.c_int(pid), ctypes.c_int(cpu), ctypes.c_int(-1), flags)
    return system_call(PERF_NUMBERS, *arguments)


def open_kprobe(symbol: str, is_return: bool, program_fd: int) -> int:
    """Attach through perf's kprobe unit: the probe is the descriptor's, with no entry in tracefs."""
    folder = Path("/sys/bus/event_source/devices/kprobe")
    kind = int((folder / "type").read_text())
    text = ctypes.create_string_buffer(symbol.encode("ascii"))
    # type, size, config (bit 0: return), period, sample and read format, flags, wakeup, bp_type, config1, config2
    attributes = struct.pack("=IIQQQQQIIQQ", kind, 112, int(is_return), 1, 0, 0, 0, 1, 0, ctypes.addressof(text), 0)
    fd = open_perf_event(attributes, -1, 0)
    try:
        fcntl.ioctl(fd, PERF_IOC_SET_BPF, program_fd)
        fcntl.ioctl(fd, PERF_IOC_ENABLE, 0)
    except OSError:
        os.close(fd)
        raise
    return fd


class Hook(NamedTuple):
    """What a program is attached to: kind raw_tp, kprobe or kretprobe."""

    kind: str
    target: str

    def attach(self, program_fd: int) -> int:
        """The descriptor that is the attachment; raises OSError."""
        if self.kind == "raw_tp":
            return open_raw_tracepoint(self.target, program_fd)
        return open_kprobe(self.target, self.kind == "kretprobe", program_fd)


@functools.lru_cache(maxsize=None)
def possible_cpus() -> int:
    """How many values a per-CPU element has."""
    found = 0
    for part in Path("/sys/devices/system/cpu/possible").read_text().strip().split(","):
        first, _dash, last = part.partition("-")
        found += int(last or first) - int(first) + 1
    return found


def read_small(path: str) -> str:
    """A small file of the kernel, or an empty text."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read(1 << 16)
    except OSError:
        return ""


def process_start_ns(pid: int) -> int | None:
    """When a process started, in ns since boot; None when it is gone."""
    fields = read_small(f"/proc/{pid}/stat").rpartition(")")[2].split()
    ticks = os.sysconf("SC_CLK_TCK")
    return int(fields[19]) * (1000000000 // ticks) if len(fields) > 19 else None


def resident_bytes(pid: int) -> int | None:
    fields = read_small(f"/proc/{pid}/statm").split()
    return int(fields[1]) * mmap.PAGESIZE if len(fields) > 1 else None


def boot_id() -> str:
    return read_small("/proc/sys/kernel/random/boot_id").strip()


def distro_id() -> str:
    """ID of os-release, or an empty text."""
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        found = re.search(r"^ID=[\"']?([A-Za-z0-9._-]+)[\"']?$", read_small(path), re.MULTILINE)
        if found:
            return found.group(1)
    return ""


def kernel_facts() -> dict[str, Any]:
    """The kernel as status.json tells of it."""
    release = os.uname().release
    version = re.match(r"([0-9]+)\.([0-9]+)", release)
    family = f"{version.group(1)}.{version.group(2)}" if version else ""
    distro = distro_id()
    return {
        "release": release,
        "family": family,
        "distro_family": f"{distro}-{family}" if distro and family else None,
        "machine": os.uname().machine,
        "btf": "vmlinux" if os.access("/sys/kernel/btf/vmlinux", os.R_OK) else "missing",
    }


# ---- maps ----


class Map:
    """A map that we hold. Owns its descriptor."""

    def __init__(self, fd: int) -> None:
        info = info_by_fd(fd)
        kind, self.id, self.key_size, self.value_size, self.max_entries = struct.unpack_from("=IIIII", info)
        self.fd = fd
        self.name = info[24:40].split(b"\0")[0].decode("ascii", "replace")
        self.type = MAP_TYPES.get(kind, str(kind))
        copies = possible_cpus() if self.type in PER_CPU_TYPES else 1
        size = (self.value_size + 7) // 8 * 8 if self.type in PER_CPU_TYPES else self.value_size
        self._room = size * copies
        self._value = ctypes.create_string_buffer(self._room)
        self._key = ctypes.create_string_buffer(max(self.key_size, 4))

    def _element(self, flags: int = 0) -> bytes:
        addresses = (ctypes.addressof(self._key), ctypes.addressof(self._value))
        return struct.pack("=IIQQQ", self.fd, 0, addresses[0], addresses[1], flags)

    def sum_slot(self, slot: int) -> int:
        """One slot of a per-CPU array of u64, over all CPUs. Raises OSError."""
        struct.pack_into("=I", self._key, 0, slot)
        bpf(MAP_LOOKUP, self._element())
        return sum(struct.unpack(f"={self._room // 8}Q", self._value.raw[: self._room]))

    def put(self, slot: int, value: bytes) -> None:
        """Write one slot of an array. Raises OSError."""
        struct.pack_into("=I", self._key, 0, slot)
        self._value.raw = value.ljust(self._room, b"\0")[: self._room]
        bpf(MAP_UPDATE, self._element())

    def entries(self) -> int | None:
        """How many a hash holds; None for other types and where batches are not known (before 5.6)."""
        if self.type not in HASH_TYPES:
            return None
        room = 1024  # more than any bucket holds
        position, keys = ctypes.create_string_buffer(256), ctypes.create_string_buffer(room * self.key_size)
        values = ctypes.create_string_buffer(room * self._room)
        found, start = 0, 0
        while True:
            addresses = (start, ctypes.addressof(position), ctypes.addressof(keys), ctypes.addressof(values))
            block = ctypes.create_string_buffer(struct.pack("=QQQQIIQQ", *addresses, room, self.fd, 0, 0), 144)
            try:
                system_call(BPF_NUMBERS, ctypes.c_int(LOOKUP_BATCH), block, ctypes.c_uint(144))
            except OSError as error:
                return found + struct.unpack_from("=I", block, 32)[0] if error.errno == errno.ENOENT else None
            found += struct.unpack_from("=I", block, 32)[0]
            start = addresses[1]

    def memory_bytes(self) -> int | None:
        """Kernel memory; before 6.4 the kernel says 0 of a ring buffer, then it is the ring's data."""
        found = re.search(r"^memlock:\s*([0-9]+)", read_small(f"/proc/self/fdinfo/{self.fd}"), re.MULTILINE)
        if found and self.type == "ringbuf":
            return int(found.group(1)) or self.max_entries
        return int(found.group(1)) if found else None

    def describe(self) -> dict[str, Any]:
        """Its entry in status.json."""
        return {
            "name": self.name, "id": self.id, "type": self.type, "max_entries": self.max_entries,
            "entries": self.entries(), "memory_bytes": self.memory_bytes(),
        }  # fmt: skip


def describe_program(name: str, fd: int, with_stats: bool) -> dict[str, Any]:
    """A program's entry in status.json; what the kernel does not count is null."""
    info = info_by_fd(fd)
    _kind, number = struct.unpack_from("=II", info)
    run_time_ns, runs = struct.unpack_from("=QQ", info, 192)
    return {
        "name": name,
        "id": number,
        "tag": info[8:16].hex(),
        "run_cnt": runs if with_stats else None,
        "run_time_ns": run_time_ns if with_stats else None,
        "verified_insns": struct.unpack_from("=I", info, 216)[0] or None,
    }


def link_id(fd: int) -> int | None:
    """The id of a link; None for a perf event, or before 5.8."""
    try:
        return int(struct.unpack_from("=II", info_by_fd(fd))[1])
    except OSError:
        return None


# ---- the ring buffer ----


class Ring:
    """The reader's side of a ring buffer. Owns its pages, not the map.

    A ring buffer and not perf's: that asks for CAP_SYS_ADMIN where kernel.perf_event_paranoid is 3.
    """

    HEADER_BYTES = 8
    BUSY, DISCARDED = 1 << 31, 1 << 30

    def __init__(self, fd: int, size: int) -> None:
        page = mmap.PAGESIZE
        self.size = size
        self.consumer = mmap.mmap(fd, page)
        try:
            # The kernel maps the data twice, one behind the other, so no record is ever cut in two.
            self.producer = mmap.mmap(fd, page + 2 * size, prot=mmap.PROT_READ, offset=page)
        except OSError:
            self.consumer.close()
            raise

    def _positions(self) -> tuple[int, int]:
        """What the kernel has written and what we have read, in bytes since the start."""
        read = struct.unpack_from("=Q", self.consumer)[0]
        return struct.unpack_from("=Q", self.producer)[0], read

    @property
    def lag_bytes(self) -> int:
        written, read = self._positions()
        return int(written - read)

    def records(self, limit: int) -> Iterator[bytes]:
        """At most `limit` records; each is given back to the kernel when the next is asked for."""
        written, read = self._positions()
        while read < written and limit > 0:
            at = mmap.PAGESIZE + read % self.size
            length = struct.unpack_from("=I", self.producer, at)[0]
            if length & self.BUSY:
                return  # its producer has not finished; neither have those behind it
            size = length & ~self.DISCARDED
            if not length & self.DISCARDED:
                yield self.producer[at + self.HEADER_BYTES : at + self.HEADER_BYTES + size]
            read += (size + self.HEADER_BYTES + 7) // 8 * 8
            limit -= 1
            struct.pack_into("=Q", self.consumer, 0, read)

    def close(self) -> None:
        self.consumer.close()
        self.producer.close()


class Field(NamedTuple):
    """One field of a record; kind is uint, int, chars or bytes."""

    name: str
    kind: str
    offset: int
    size: int

    def read(self, record: bytes) -> Any:
        """Its value as JSON has it."""
        raw = record[self.offset : self.offset + self.size]
        if self.kind == "chars":
            return raw.split(b"\0")[0].decode("utf-8", "replace")
        if self.kind == "bytes":
            return raw.hex()
        return int.from_bytes(raw, sys.byteorder, signed=self.kind == "int")


class Tally:
    """What became of the records that left the kernel."""

    def __init__(self) -> None:
        self.written = 0
        self.dropped = 0


class Feed:
    """Turns the records of one feature into lines. Owns its ring."""

    def __init__(self, events: Map, fields: list[Field], feature: str, event: str, sink: Sink, tally: Tally) -> None:
        self.fields = fields
        self.size = max(field.offset + field.size for field in fields)
        self.feature, self.event, self.sink, self.tally = feature, event, sink, tally
        self.odd = 0
        self.ring = Ring(events.fd, events.max_entries)

    def read(self, limit: int) -> bool:
        """Take at most `limit` records; True when there may be more."""
        clock = time.time_ns() - time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        taken = 0
        for record in self.ring.records(limit):
            taken += 1
            self.take(record, clock)
        return taken == limit

    def take(self, record: bytes, clock: int) -> None:
        if len(record) < self.size:
            self.tally.dropped += 1
            self.odd += 1
            if self.odd == 1:
                say(3, f"feature {self.feature}: a record of {len(record)} bytes, expected {self.size}; it is dropped")
            return
        values = {field.name: field.read(record) for field in self.fields}
        when = int(values.get("ktime_ns", 0)) + clock
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(when // 1000000000))
        line = {"time": f"{stamp}.{when % 1000000000:09d}Z", "feature": self.feature, "event": self.event, **values}
        self.sink.add(json.dumps(line, ensure_ascii=False).encode("utf-8") + b"\n", self.tally)

    def close(self) -> None:
        self.ring.close()


class Sink:
    """The events file: bounded, rotated once, a record whole or dropped and counted."""

    BUFFER_BYTES = 64 * 1024

    def __init__(self, folder: Path) -> None:
        self.path = folder / EVENTS_FILE
        self.pending: list[tuple[bytes, Tally]] = []
        self.used = 0
        self.failing = False

    def add(self, line: bytes, tally: Tally) -> None:
        self.pending.append((line, tally))
        self.used += len(line)
        if self.used >= self.BUFFER_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what waits; what cannot be written is dropped and counted, and said once."""
        if not self.pending:
            return
        pending, self.pending, self.used = self.pending, [], 0
        try:
            written, error = self._write(b"".join(line for line, _tally in pending)), None
        except OSError as failed:
            written, error = 0, failed
        for line, tally in pending:
            written -= len(line)
            if written >= 0:
                tally.written += 1
            else:
                tally.dropped += 1
        self._report(error if error or written >= 0 else OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))

    def _report(self, error: OSError | None) -> None:
        if error and not self.failing:
            say(
                3, f"cannot write {self.path}: {error.strerror}; events are dropped and counted until it can be written"
            )
        if self.failing and not error:
            say(5, f"{self.path} can be written again")
        self.failing = error is not None

    def _write(self, data: bytes) -> int:
        """Append; the bytes that are in the file, whole records only."""
        fd = self._open(len(data))
        try:
            size = os.fstat(fd).st_size
            written = os.write(fd, data)
            whole = data.rfind(b"\n", 0, written) + 1
            if whole != written:
                os.ftruncate(fd, size + whole)
            return whole
        finally:
            os.close(fd)

    def _open(self, coming: int) -> int:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        fd = os.open(self.path, flags, 0o640)
        try:
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode):
                raise OSError(errno.EINVAL, "is no regular file")
            if info.st_size + coming <= EVENTS_LIMIT_BYTES or not info.st_size:
                self._end_torn_line(fd, info.st_size)
                return fd
        except OSError:
            os.close(fd)
            raise
        os.close(fd)
        os.rename(self.path, f"{self.path}.1")
        return os.open(self.path, flags, 0o640)

    @staticmethod
    def _end_torn_line(fd: int, size: int) -> None:
        """One that was killed may have left half a line: the next starts a line of its own."""
        if size and os.pread(fd, 1, size - 1) != b"\n":
            os.write(fd, b"\n")


# ---- the bundle ----


def parse_json(data: bytes, what: str) -> Any:
    """A document without duplicate keys; raises ValueError with a sentence."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a key is there twice")
        return found

    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{what}: {error}") from error


def read_regular(path: Path, limit: int, follow: bool = False) -> bytes:
    """A regular file of at most `limit` bytes; raises OSError."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    fd = os.open(path, flags if follow else flags | os.O_NOFOLLOW)
    with os.fdopen(fd, "rb") as stream:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "is no regular file", str(path))
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"is larger than {limit} bytes", str(path))
    return data


class Source(NamedTuple):
    """A feature that BCC can run: its contract, its programs with their hooks, and the bytes to compile."""

    name: str
    contract: dict[str, Any]
    programs: dict[str, Hook]
    text: bytes

    def signal(self, kind: str) -> dict[str, Any] | None:
        """The contract's signal of that kind, or None."""
        for each in self.contract["signals"]:
            if each["kind"] == kind:
                return dict(each)
        return None

    @property
    def sample_every(self) -> int:
        return int(self.contract["signals"][0].get("sample_every", 1))

    def expired(self) -> str | None:
        """The day on which the contract expired, or None."""
        expires = self.contract.get("expires")
        today = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d")
        return str(expires) if expires is not None and str(expires) <= today else None


class Bundle(NamedTuple):
    """What of a verified bundle matters here."""

    about: dict[str, Any]
    digest: str
    features: list[str]
    sources: list[Source]


def ask_loader(options: argparse.Namespace) -> dict[str, Any]:
    """The verdict of the release's own loader on the bundle. Raises RefusedError."""
    trust = Path(options.etc) / "trust"
    command = [options.loader, "verify", options.bundle, "--self", "--trust", str(trust / "allowed_signers")]
    if (trust / "revoked_keys").exists():
        command += ["--revoked", str(trust / "revoked_keys")]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=VERIFY_SECONDS, check=False
        )
        verdict = parse_json(done.stdout, "its answer")
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        raise RefusedError(
            "EF_UNKNOWN", f"{options.loader} gives no verdict ({error}); deploy the release again"
        ) from error
    if done.returncode != 0 or not isinstance(verdict, dict) or verdict.get("ok") is not True:
        said = verdict if isinstance(verdict, dict) else {}
        code, reason = str(said.get("reason_code", "EF_UNKNOWN")), said.get("reason", f"exit {done.returncode}")
        raise RefusedError(code, str(reason))
    return verdict


class Files:
    """The files of a bundle, each read once and compared with the manifest."""

    def __init__(self, folder: Path, digest: str) -> None:
        self.folder = folder
        data = self._read("manifest.json")
        if hashlib.sha256(data).hexdigest() != digest:
            raise RefusedError(
                "EF_FILE_DIGEST", "manifest.json: is not the one that was verified; deploy the release again"
            )
        self.manifest: dict[str, Any] = parse_json(data, "manifest.json")

    def _read(self, path: str) -> bytes:
        try:
            return read_regular(self.folder / path, MAX_JSON_BYTES)
        except OSError as error:
            raise RefusedError("EF_FILE_MISSING", f"{path}: {error.strerror}; deploy the release again") from error

    def read(self, path: str) -> bytes:
        """The bytes of a file that the manifest names. Raises RefusedError."""
        named = self.manifest["files"].get(path)
        if named is None:
            raise RefusedError("EF_FILE_MISSING", f"{path}: is not in the manifest; build the release again")
        data = self._read(path)
        if hashlib.sha256(data).hexdigest() != named["sha256"]:
            raise RefusedError("EF_FILE_DIGEST", f"{path}: is not what was signed; deploy the release again")
        return data


def read_hooks(name: str, doc: Any) -> dict[str, Hook]:
    """The contract's `bcc`: its n-th program belongs to its n-th `attach:`. Raises RefusedError."""
    programs, requires = doc.get("programs"), doc.get("requires")
    where = f"features/{name}/contract.json: bcc"
    if not isinstance(programs, list) or not isinstance(requires, list):
        raise RefusedError("EF_CONTRACT_MALFORMED", f"{where}: needs the lists programs and requires")
    for program in programs:
        if not isinstance(program, str) or not KERNEL_NAME.fullmatch(program):
            raise RefusedError(
                "EF_CONTRACT_MALFORMED", f"{where}.programs: {program!r} must be ef_ and up to 12 of [a-z0-9_]"
            )
    hooks = []
    for text in requires:
        if not str(text).startswith("attach:"):
            continue
        found = HOOK.fullmatch(str(text))
        if not found:
            raise RefusedError(
                "EF_CONTRACT_MALFORMED", f"{where}.requires: {text!r} must be a raw_tp, kprobe or kretprobe"
            )
        hooks.append(Hook(*(part for part in found.groups() if part)))
    if not programs or len(hooks) != len(programs):
        raise RefusedError(
            "EF_CONTRACT_MALFORMED", f"{where}.requires: needs one attach: for each program, in their order"
        )
    return dict(zip(programs, hooks))


def read_source(files: Files, name: str) -> Source | None:
    """A feature's source, or None where BCC is no fallback of it."""
    path = f"features/{name}/contract.json"
    contract = parse_json(files.read(path), path)
    if "bcc" not in contract:
        return None
    return Source(name, contract, read_hooks(name, contract["bcc"]), files.read(f"features/{name}/bcc.c"))


def open_bundle(options: argparse.Namespace) -> Bundle:
    """Verify and read. Raises RefusedError; then nothing runs."""
    verdict = ask_loader(options)
    files = Files(Path(options.bundle), verdict["digest"])
    own = Path(__file__).resolve()
    if read_regular(own, MAX_JSON_BYTES) != files.read("collector/bcc.py"):
        raise RefusedError("EF_LOADER_SELF", f"{own}: is not the bundle's collector; start the one in the bundle")
    names = sorted(files.manifest["features"])
    try:
        sources = [source for source in (read_source(files, name) for name in names) if source]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RefusedError(
            "EF_CONTRACT_MALFORMED", f"a contract cannot be read ({error}); build the release again"
        ) from error
    about = {**files.manifest["bundle"], "digest": verdict["digest"]}
    about = {key: about[key] for key in ("name", "version", "sequence", "digest")}
    return Bundle(about, verdict["digest"], names, sources)


# ---- orders and wishes ----


class Order(NamedTuple):
    """One kill order that holds on this host."""

    scope: str
    path: str

    @property
    def code(self) -> str:
        if self.scope == "global":
            return "EF_KILLED_GLOBAL"
        return "EF_KILLED_FAMILY" if self.scope.startswith("family.") else "EF_KILLED_FEATURE"


class Orders(NamedTuple):
    """What both kill.d folders say."""

    orders: list[Order]
    unknown: list[str]

    def everything(self) -> Order | None:
        """The order that keeps everything off."""
        for prefix in ("global", "family."):
            for order in self.orders:
                if order.scope.startswith(prefix):
                    return order
        return None

    def of_feature(self, feature: str) -> Order | None:
        """The order that keeps this feature off."""
        named = [order for order in self.orders if order.scope == f"feature.{feature}"]
        return self.everything() or (named[0] if named else None)


def judge_order(name: str, families: list[str], features: list[str] | None) -> bool | None:
    """True: holds; False: is of another host; None: was mistyped. `features` None: every name is one."""
    kind, _dot, value = name.partition(".")
    if name == "global":
        return True
    if kind == "feature" and value:
        return True if features is None or value in features else None
    if kind == "family" and FAMILY.fullmatch(value):
        return value in families
    return None


def read_orders(folders: list[Path], families: list[str], features: list[str] | None) -> Orders:
    """Both folders. One that is not there holds none; one that cannot be read is an order `global`."""
    orders, unknown = [], []
    for folder in folders:
        try:
            names = os.listdir(folder)
        except FileNotFoundError:
            continue
        except OSError:
            orders.append(Order("global", str(folder)))
            continue
        for name in names:
            path = str(folder / name)
            held = None if name.startswith(".") else judge_order(name, families, features)
            if held:
                orders.append(Order(name, path))
            elif held is None and not name.startswith("."):
                unknown.append(path.encode("utf-8", "replace").decode("utf-8"))
    return Orders(sorted(orders, key=lambda order: order.path), sorted(unknown))


class Desired(NamedTuple):
    """desired.json: the features' entries, and whether BCC is opted into. `error` says why it is not known."""

    features: dict[str, dict[str, Any]]
    bcc: bool
    error: Reason | None


def is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= U32_MAX


def check_desired(doc: Any, digest: str) -> Desired:
    """The document as a wish; raises ValueError with field and remedy."""
    if not isinstance(doc, dict) or doc.get("schema") != "ebpf.fleet/desired/v1":
        raise ValueError("field 'schema': must be ebpf.fleet/desired/v1")
    for key in doc:
        if key not in ("schema", "bundle_digest", "features", "fallbacks"):
            raise ValueError(f"field {key!r}: is not known here")
    if doc.get("bundle_digest", "") not in (None, digest):
        raise ValueError("field 'bundle_digest': is of another bundle than the one that runs")
    fallbacks, features = doc.get("fallbacks", []), doc.get("features")
    if not isinstance(fallbacks, list) or any(each != ENGINE for each in fallbacks):
        raise ValueError("field 'fallbacks': must be a list of fallbacks, and 'bcc' is the only one")
    if not isinstance(features, dict):
        raise ValueError("field 'features': must be an object")
    for name, entry in features.items():
        if (
            not FEATURE_NAME.fullmatch(name)
            or not isinstance(entry, dict)
            or not isinstance(entry.get("enabled"), bool)
        ):
            raise ValueError(f"field {name!r}: must be a feature with 'enabled' true or false")
        if set(entry) - {"enabled", "sample_every"} or not is_count(entry.get("sample_every", 1)):
            raise ValueError(f"field {name!r}: has 'enabled' and 'sample_every', an integer from 1 to {U32_MAX}")
    return Desired(features, ENGINE in fallbacks, None)


def read_desired(path: Path, digest: str) -> Desired:
    """The desired state, or an error in its place."""
    try:
        return check_desired(parse_json(read_regular(path, MAX_JSON_BYTES, follow=True), "is no JSON"), digest)
    except FileNotFoundError:
        return Desired({}, False, Reason("EF_NO_DESIRED", f"there is no {path}"))
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        return Desired({}, False, Reason("EF_DESIRED_MALFORMED", f"{path}: {why}; deploy the release again"))


class LoaderWord:
    """What the loader says of each feature, and since when it says nothing."""

    def __init__(self, path: Path, digest: str) -> None:
        self.path, self.digest = path, digest
        self.features: dict[str, Any] = {}
        self.stats_enabled = False
        self.heard: float | None = None
        self.silence = "has not been heard yet"

    def listen(self) -> None:
        """Read its status. What it said last stands for a while: it may be restarting."""
        try:
            status = self._trusted(parse_json(read_regular(self.path, MAX_STATUS_BYTES), "status.json"))
        except (OSError, ValueError, KeyError, TypeError) as error:
            self.silence = f"says nothing ({error})"
            if self.heard is None or time.monotonic() - self.heard > LOADER_GRACE_SECONDS:
                self.features, self.stats_enabled = {}, False
            return
        self.heard = time.monotonic()
        self.features, self.stats_enabled = status["features"], bool(status["stats_enabled"])

    def _trusted(self, status: dict[str, Any]) -> dict[str, Any]:
        """The status of a loader that lives and runs our bundle; raises ValueError."""
        if status.get("boot_id") != boot_id():
            raise ValueError("its status is of another boot")
        started = process_start_ns(int(status["pid"]))
        if started is None or abs(started - int(status["started_boottime_ns"])) > 20000000:
            raise ValueError("the process that wrote its status is gone")
        if not isinstance(status.get("features"), dict) or status["bundle"]["digest"] != self.digest:
            raise ValueError("it does not run this bundle")
        return status

    def could_not(self, feature: str) -> tuple[Reason | None, Reason]:
        """(why the loader could not run it, …) or (None, why BCC may not run it either)."""
        said = self.features.get(feature)
        if not isinstance(said, dict):
            return None, Reason("EF_UNKNOWN", f"the loader {self.silence}; it is asked first")
        state, code = said.get("state"), str(said.get("reason_code"))
        if state == "attached":
            return None, Reason("EF_NOT_WANTED", f"the loader runs it (variant {said.get('variant')})")
        if state == "killed" or code in KILL_CODES:
            return None, Reason(code, str(said.get("reason")))
        if state != "disabled" or code == "EF_EXPIRED":
            return None, Reason(code, f"the loader has it in state {state}: {said.get('reason')}")
        return Reason(code, str(said.get("reason"))), Reason("EF_OK", "")


# ---- compiling: the child ----

TYPE_SIZES = {
    "char": (1, "int"), "s8": (1, "int"), "signed char": (1, "int"), "u8": (1, "uint"), "unsigned char": (1, "uint"),
    "bool": (1, "uint"), "_Bool": (1, "uint"), "short": (2, "int"), "s16": (2, "int"), "u16": (2, "uint"),
    "unsigned short": (2, "uint"), "int": (4, "int"), "s32": (4, "int"), "u32": (4, "uint"),
    "unsigned int": (4, "uint"), "long": (8, "int"), "s64": (8, "int"), "long long": (8, "int"),
    "u64": (8, "uint"), "unsigned long": (8, "uint"), "unsigned long long": (8, "uint"),
}  # fmt: skip


def lay_out(declared: list[str]) -> list[Field]:
    """The fields of a record from BCC's `name#type`; raises CannotRunError for a type that is not known."""
    fields, offset = [], 0
    for text in declared:
        name, _hash, kind = text.partition("#")
        found = re.fullmatch(r"(.+?) ?(?:\[([0-9]+)\])?", kind)
        size, plain = TYPE_SIZES.get(found.group(1) if found else "", (0, ""))
        if not found or not size:
            raise CannotRunError("EF_LOAD_REJECTED", f"field {name} of the event has a type that is not known: {kind}")
        count = int(found.group(2) or 1)
        shown = plain if not found.group(2) else "chars" if found.group(1) == "char" else "bytes"
        offset = (offset + size - 1) // size * size
        fields.append(Field(name, shown, offset, size * count))
        offset += size * count
    return fields


def need_headers() -> None:
    """Raises CannotRunError where BCC finds no headers of the running kernel."""
    release = os.uname().release
    if os.path.isdir(f"/lib/modules/{release}/build/include") or os.path.exists("/sys/kernel/kheaders.tar.xz"):
        return
    raise CannotRunError(
        "EF_NO_HEADERS",
        f"the headers of kernel {release} are not on this host; install the package linux-headers-{release}",
    )


def import_bcc() -> Any:
    """BCC's module; raises CannotRunError."""
    try:
        import bcc
    except (ImportError, OSError) as error:
        raise CannotRunError(
            "EF_NO_BCC", f"BCC cannot be loaded ({error}); install the package python3-bpfcc"
        ) from error
    if not hasattr(bcc, "BPF"):
        raise CannotRunError("EF_NO_BCC", f"{bcc.__file__} is not BPF's bcc; install the package python3-bpfcc")
    return bcc


def list_maps(bcc: Any, module: Any) -> dict[str, int]:
    """Every map of a compiled module; raises CannotRunError for a name that is not ours."""
    lib = bcc.lib
    lib.bpf_num_tables.restype, lib.bpf_num_tables.argtypes = ctypes.c_size_t, [ctypes.c_void_p]
    lib.bpf_table_name.restype, lib.bpf_table_name.argtypes = ctypes.c_char_p, [ctypes.c_void_p, ctypes.c_size_t]
    lib.bpf_table_fd_id.restype, lib.bpf_table_fd_id.argtypes = ctypes.c_int, [ctypes.c_void_p, ctypes.c_size_t]
    maps = {}
    for index in range(lib.bpf_num_tables(module)):
        name = lib.bpf_table_name(module, index).decode("ascii", "replace")
        if not KERNEL_NAME.fullmatch(name):
            raise CannotRunError("EF_LOAD_REJECTED", f"the map {name!r} is not named ef_…; mend bcc.c")
        maps[name] = lib.bpf_table_fd_id(module, index)
    return maps


def list_fields(bcc: Any, module: Any, events_map: str | None) -> list[Field]:
    """The layout of the records of a ring buffer, as the compiler saw it."""
    if events_map is None:
        return []
    lib, name = bcc.lib, events_map.encode("ascii")
    count = lib.bpf_perf_event_fields(module, name)
    return lay_out([lib.bpf_perf_event_field(module, name, index).decode("ascii") for index in range(count)])


def compile_source(request: dict[str, Any]) -> tuple[dict[str, Any], list[int], Any]:
    """Compile and load; the answer, its descriptors in order, and what keeps them open."""
    need_headers()
    bcc = import_bcc()
    try:
        module = bcc.BPF(text=request["text"])
    except Exception as error:
        raise CannotRunError("EF_BCC_COMPILE", f"bcc.c does not compile or its maps are refused: {error}") from error
    maps = list_maps(bcc, module.module)
    fds = []
    for name, kind in request["programs"].items():
        try:
            wanted = bcc.BPF.RAW_TRACEPOINT if kind == "raw_tp" else bcc.BPF.KPROBE
            fds.append(module.load_func(name, wanted).fd)
        except Exception as error:
            raise CannotRunError("EF_LOAD_REJECTED", f"program {name}: the kernel refuses it: {error}") from error
    fields = list_fields(bcc, module.module, request["events_map"])
    answer = {"programs": list(request["programs"]), "maps": list(maps), "fields": [list(field) for field in fields]}
    return answer, fds + list(maps.values()), module


def die_with_parent() -> None:
    """SIGKILL when the service ends, however it ends: what we hold goes with it."""
    parent = os.getppid()
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent or parent == 1:
        os._exit(EXIT_FAILED)


def compile_main(socket_fd: int) -> int:
    """The child: a request from stdin, one message with the descriptors to the socket."""
    die_with_parent()
    set_process_name()
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    request = json.loads(sys.stdin.buffer.read())
    os.dup2(2, 1)  # LLVM and BCC speak on both
    keep = None
    try:
        answer, fds, keep = compile_source(request)
    except CannotRunError as error:
        answer, fds = {"code": error.code, "reason": error.reason[-1500:]}, []
    with socket.socket(fileno=socket_fd) as out:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        out.sendmsg([json.dumps(answer).encode("ascii")], ancillary)
    sys.stderr.flush()
    del keep
    os._exit(0)


def set_process_name() -> None:
    """The name by which the kill script finds us."""
    LIBC.prctl(PR_SET_NAME, ctypes.create_string_buffer(NAME.encode("ascii")), 0, 0, 0)


# ---- compiling: the service's side ----

CHILD_SAYS_BYTES = 32 * 1024


class Compiled(NamedTuple):
    """What the child handed over; the descriptors are the receiver's."""

    programs: dict[str, int]
    maps: dict[str, int]
    fields: list[Field]

    def close(self) -> None:
        for fd in list(self.programs.values()) + list(self.maps.values()):
            os.close(fd)


class Job:
    """One compilation in a process of its own."""

    def __init__(self, source: Source, events_map: str | None) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [
            sys.executable,
            "-I",
            "-B",
            str(Path(__file__).resolve()),
            "compile",
            "--socket",
            str(theirs.fileno()),
        ]
        self.said = os.memfd_create("said") if hasattr(os, "memfd_create") else os.open("/dev/null", os.O_RDWR)
        with theirs:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=self.said, stderr=self.said, pass_fds=[theirs.fileno()],
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"},
            )  # fmt: skip
        self.socket = ours
        self.until = time.monotonic() + COMPILE_SECONDS
        kinds = {name: hook.kind for name, hook in source.programs.items()}
        request = {"text": source.text.decode("utf-8", "replace"), "programs": kinds, "events_map": events_map}
        assert self.process.stdin is not None
        with contextlib.suppress(OSError), self.process.stdin as pipe:
            pipe.write(json.dumps(request).encode("ascii"))

    def poll(self) -> Compiled | None:
        """None while it works; raises CannotRunError when it failed."""
        if not select.select([self.socket], [], [], 0)[0]:
            if time.monotonic() > self.until:
                raise CannotRunError("EF_BCC_COMPILE", f"the compiler was not ready within {COMPILE_SECONDS} s")
            return None
        data, fds = self._receive()
        if not data:
            self.process.wait()
            raise CannotRunError(
                "EF_BCC_COMPILE", f"the compiler ended with {self.process.returncode}: {self._last_words()}"
            )
        answer = json.loads(data)
        if "code" in answer:
            said = self._last_words() if answer["code"] in ("EF_BCC_COMPILE", "EF_LOAD_REJECTED") else ""
            raise CannotRunError(answer["code"], f"{answer['reason']}{'; it said: ' if said else ''}{said}")
        names = answer["programs"]
        maps = dict(zip(answer["maps"], fds[len(names) :]))
        return Compiled(dict(zip(names, fds)), maps, [Field(*field) for field in answer["fields"]])

    def _receive(self) -> tuple[bytes, list[int]]:
        fds = array.array("i")
        data, ancillary, _flags, _address = self.socket.recvmsg(1 << 16, socket.CMSG_SPACE(64 * fds.itemsize))
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
        for fd in fds:
            os.set_inheritable(fd, False)
        return data, list(fds)

    def _last_words(self) -> str:
        """What the compiler complained of: its first errors."""
        text = os.pread(self.said, CHILD_SAYS_BYTES, 0).decode("utf-8", "replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        errors = [line for line in lines if "error:" in line]
        return " | ".join((errors or lines[-5:])[:5])[:800]

    def kill(self) -> None:
        """End it; what it holds in the kernel goes with it."""
        with contextlib.suppress(OSError):
            self.process.kill()

    def close(self) -> None:
        self.kill()
        self.process.wait()
        self.socket.close()
        os.close(self.said)


# ---- features ----


class Counts:
    """produced, delivered, dropped, sampled_out."""

    def __init__(self) -> None:
        self.values = dict.fromkeys(COUNTERS, 0)

    @property
    def in_flight(self) -> int:
        values = self.values
        return max(0, values["produced"] - values["delivered"] - values["dropped"] - values["sampled_out"])


class Live:
    """An attached feature: its descriptors. `links` belongs to the service's lock."""

    def __init__(self, source: Source, compiled: Compiled, sink: Sink) -> None:
        self.source, self.compiled = source, compiled
        self.maps = {name: Map(fd) for name, fd in compiled.maps.items()}
        self.links: list[int] = []
        self.tally = Tally()
        self.feed: Feed | None = None
        self.ran = False
        self._sink = sink
        for name in ("ef_counters", "ef_config"):
            if name not in self.maps:
                raise CannotRunError("EF_LOAD_REJECTED", f"bcc.c has no map {name}; mend it")

    def prepare(self, sample_every: int) -> None:
        """What must be in place before the first program runs. Raises OSError, CannotRunError."""
        self.sample(sample_every)
        events, histogram = self.source.signal("events"), self.source.signal("histogram")
        if histogram and "ef_hist" not in self.maps:
            raise CannotRunError("EF_LOAD_REJECTED", "bcc.c has no map ef_hist; mend it")
        if not events:
            return
        ring = self.maps.get(EVENTS_MAP)
        if not ring or ring.type != "ringbuf" or not self.compiled.fields:
            raise CannotRunError("EF_LOAD_REJECTED", f"bcc.c has no BPF_RINGBUF_OUTPUT({EVENTS_MAP}, …); mend it")
        self.feed = Feed(ring, self.compiled.fields, self.source.name, events["name"], self._sink, self.tally)

    def sample(self, every: int) -> None:
        self.maps["ef_config"].put(0, struct.pack("=II", every, 0))

    def attach(self) -> None:
        """All programs, in order, or none. Raises CannotRunError. The lock is held."""
        for name, hook in self.source.programs.items():
            try:
                self.links.append(hook.attach(self.compiled.programs[name]))
                self.ran = True
            except (OSError, ValueError) as error:
                self.cut()
                code = "EF_NO_ATTACH_POINT" if getattr(error, "errno", None) == errno.ENOENT else "EF_ATTACH_FAILED"
                code = "EF_PERMISSION" if getattr(error, "errno", None) in (errno.EPERM, errno.EACCES) else code
                raise CannotRunError(
                    code, f"program {name}: cannot be attached to {hook.kind} {hook.target}: {error}"
                ) from error

    def cut(self) -> bool:
        """Detach: closing the links does it. The lock is held."""
        links, self.links = self.links, []
        for fd in links:
            os.close(fd)
        return bool(links)

    def read_counts(self) -> Counts:
        """Since it was attached. `produced` is read last, so nothing is in flight that was not produced."""
        counts = Counts()
        for slot in (1, 2, 3, 0):
            counts.values[COUNTERS[slot]] = self.maps["ef_counters"].sum_slot(slot)
        if self.feed:
            counts.values["delivered"] = self.tally.written
            counts.values["dropped"] += self.tally.dropped
        return counts

    def read_hist(self) -> list[int]:
        hist = self.maps.get("ef_hist")
        return [hist.sum_slot(slot) for slot in range(HIST_SLOTS + 1)] if hist else [0] * (HIST_SLOTS + 1)

    def close(self) -> None:
        if self.feed:
            self.feed.close()
        self.compiled.close()


class Feature:
    """One feature through its states: off, attached, killed, disabled."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.name = source.name
        self.state = "off"
        self.reason = Reason("EF_UNKNOWN", "not looked at yet")
        self.wanted = False
        self.sample_every = source.sample_every
        self.live: Live | None = None
        self.job: Job | None = None
        self.tried = False  # in vain; tried again when it was off or killed in between
        self.past = Counts()
        self.past_hist = [0] * (HIST_SLOTS + 1)

    @property
    def profile(self) -> str:
        return "reduced" if self.state == "attached" else "disabled"

    def counts(self) -> Counts:
        """Since the service started; they never go backwards."""
        total = Counts()
        total.values.update(self.past.values)
        if self.live:
            now = self.live.read_counts()
            for key in COUNTERS:
                total.values[key] += now.values[key]
        return total

    def hist(self) -> list[int]:
        now = self.live.read_hist() if self.live else [0] * len(self.past_hist)
        return [before + value for before, value in zip(self.past_hist, now)]

    def detach(self, lock: Any, sink: Sink) -> bool:
        """To rest: read what is left, keep the counts, let everything go. True when it was attached."""
        live = self.live
        if live is None:
            return False
        with lock:
            live.cut()
        if live.ran:
            while live.feed and live.feed.read(READ_LIMIT):
                pass
            sink.flush()
            self.past_hist = self.hist()
            total = self.counts()
            # What began and has no outcome by now will have none: the maps go.
            total.values["dropped"] += total.in_flight
            self.past = total
        self.live = None
        live.close()
        return True

    def describe(self, with_stats: bool) -> dict[str, Any]:
        """Its entry in status.json."""
        live, counts = self.live, self.counts()
        attached = self.state == "attached" and live is not None
        return {
            "wanted": self.wanted,
            "state": self.state,
            "profile": self.profile,
            "variant": ENGINE if attached else None,
            "reason_code": self.reason.code,
            "reason": self.reason.text,
            "sample_every": self.sample_every,
            "programs": [
                describe_program(name, fd, with_stats) for name, fd in (live.compiled.programs if live else {}).items()
            ],
            "links": [link_id(fd) for fd in (live.links if live else [])],
            "maps": [each.describe() for each in (live.maps.values() if live else [])],
            "counters": {**counts.values, "in_flight": counts.in_flight},
            "consumer": {"lag_bytes": live.feed.ring.lag_bytes, "ring_bytes": live.feed.ring.size}
            if live and live.feed
            else None,
        }


# ---- metrics ----


def decimal(number: int, digits: int) -> str:
    """number / 10^digits without a detour over floating point."""
    whole, rest = divmod(number, 10**digits)
    return f"{whole}.{rest:0{digits}d}".rstrip("0") if rest else str(whole)


def label(value: Any) -> str:
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


class Metrics:
    """Prometheus text with the names and helps of the loader's.

    Every sample has the label engine="bcc": so both files can be collected side by side.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []

    def head(self, name: str, kind: str, text: str) -> None:
        said = text.replace("\\", "\\\\").replace("\n", "\\n")
        self.lines += [f"# HELP ebpf_fleet_{name} {said}", f"# TYPE ebpf_fleet_{name} {kind}"]

    def put(self, name: str, value: Any, **labels: Any) -> None:
        shown = ",".join(f"{key}={label(each)}" for key, each in {"engine": ENGINE, **labels}.items())
        self.lines.append(f"ebpf_fleet_{name}{{{shown}}} {value}")

    def about(self, status: dict[str, Any]) -> None:
        bundle, kernel = status["bundle"] or {}, status["kernel"]
        self.head("build_info", "gauge", "The loader and the bundle that it runs.")
        version, digest = bundle.get("version", ""), bundle.get("digest", "")
        self.put("build_info", 1, loader_version=status["loader_version"], bundle_version=version, bundle_digest=digest)
        self.head("kernel_info", "gauge", "The kernel of this host.")
        self.put("kernel_info", 1, release=kernel["release"], family=kernel["family"])

    def profiles(self, features: dict[str, Any]) -> None:
        self.head("feature_profile", "gauge", "1 for the profile that the feature has reached.")
        for name, feature in features.items():
            for profile in ("full", "reduced", "disabled"):
                self.put("feature_profile", int(feature["profile"] == profile), feature=name, profile=profile)

    def states(self, features: dict[str, Any]) -> None:
        self.head("feature_state", "gauge", "1 for the state that the feature is in.")
        for name, feature in features.items():
            for state in ("off", "attached", "killed", "disabled", "shed"):
                self.put("feature_state", int(feature["state"] == state), feature=name, state=state)
        self.head("feature_wanted", "gauge", "1 where desired.json wants the feature.")
        for name, feature in features.items():
            self.put("feature_wanted", int(feature["wanted"]), feature=name)
        self.head("feature_sample_every", "gauge", "Of how many events one is measured; 1 is every event.")
        for name, feature in features.items():
            self.put("feature_sample_every", feature["sample_every"], feature=name)

    def counters(self, features: dict[str, Any]) -> None:
        for key, name, kind, text in (
            ("produced", "events_produced_total", "counter", "Events that happened while the feature was attached."),
            ("delivered", "events_delivered_total", "counter", "Events that reached their metric or file."),
            ("dropped", "events_dropped_total", "counter", "Events that were lost."),
            ("sampled_out", "events_sampled_out_total", "counter", "Events that sampling passed over."),
            ("in_flight", "events_in_flight", "gauge", "Events that have no outcome yet."),
        ):
            self.head(name, kind, text)
            for feature, value in features.items():
                if value["counters"][key] is not None:
                    self.put(name, value["counters"][key], feature=feature)

    def items(self, features: dict[str, Any], spec: tuple[str, str, str, str, int], kind: str, text: str) -> None:
        """One measured field of each program or map; what was not measured has no sample."""
        group, item_label, key, name, digits = spec
        self.head(name, kind, text)
        for feature, value in features.items():
            for item in value[group]:
                if item[key] is not None:
                    self.put(name, decimal(item[key], digits), feature=feature, **{item_label: item["name"]})

    def programs_and_maps(self, features: dict[str, Any]) -> None:
        runs = ("programs", "program", "run_time_ns", "program_run_seconds_total", 9)
        self.items(features, runs, "counter", "Time the program ran.")
        self.items(
            features, ("programs", "program", "run_cnt", "program_runs_total", 0), "counter", "Times the program ran."
        )
        self.items(features, ("maps", "map", "entries", "map_entries", 0), "gauge", "Entries in the map.")
        room = ("maps", "map", "max_entries", "map_max_entries", 0)
        self.items(features, room, "gauge", "Entries that the map can hold.")
        memory = ("maps", "map", "memory_bytes", "map_memory_bytes", 0)
        self.items(features, memory, "gauge", "Kernel memory of the map.")
        self.head("consumer_lag_bytes", "gauge", "Bytes in the ring or perf buffers that wait to be read.")
        for feature, value in features.items():
            if value["consumer"]:
                self.put("consumer_lag_bytes", value["consumer"]["lag_bytes"], feature=feature)

    def control(self, status: dict[str, Any]) -> None:
        self.head("kill_orders_unknown", "gauge", "Kill orders with a name that holds nothing off.")
        self.put("kill_orders_unknown", len(status["kill_unknown"]))
        self.head("desired_error", "gauge", "1 while desired.json cannot be followed.")
        self.put("desired_error", int(status["desired_error"] is not None))
        self.head("stats_enabled", "gauge", "1 while the loader has run time statistics on.")
        self.put("stats_enabled", int(status["stats_enabled"]))

    def service(self, status: dict[str, Any]) -> None:
        self.head("kill_engaged", "gauge", "1 while a kill order of this scope holds.")
        for scope in dict.fromkeys(kill["scope"] for kill in status["kills"]):
            self.put("kill_engaged", 1, scope=scope)
        for name, kind, text, value, digits in (
            ("loader_cpu_seconds_total", "counter", "CPU time of the loader process.", status["loader"]["cpu_ns"], 9),
            (
                "loader_resident_memory_bytes",
                "gauge",
                "Memory of the loader process.",
                status["loader"]["rss_bytes"],
                0,
            ),
            ("status_timestamp_seconds", "gauge", "When this was written.", status["time_unix_ns"], 9),
        ):
            self.head(name, kind, text)
            if value is not None:
                self.put(name, decimal(value, digits))

    def histogram(self, signal_doc: dict[str, Any], hist: list[int]) -> None:
        """Slot i holds 2^i … 2^(i+1) - 1, and the upper end belongs to the bucket."""
        name, digits = signal_doc["name"], SCALE_DIGITS[signal_doc["scale"]]
        self.head(name, "histogram", signal_doc["help"])
        total = 0
        for slot in range(HIST_SLOTS):
            total += hist[slot]
            if slot < BUCKETS:
                self.put(f"{name}_bucket", total, le=decimal((2 << slot) - 1, digits))
        self.put(f"{name}_bucket", total, le="+Inf")
        self.put(f"{name}_sum", decimal(hist[HIST_SUM], digits))
        self.put(f"{name}_count", total)

    def text(self) -> str:
        return "\n".join(self.lines) + "\n"


def write_atomic(folder: Path, name: str, data: bytes) -> None:
    """Replace a file so that a reader sees the old bytes or the new; a failure is said."""
    temporary = folder / f".{name}.tmp"
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        with os.fdopen(fd, "wb") as stream:
            stream.write(data)
            os.fchmod(fd, 0o644)
        os.rename(temporary, folder / name)
    except OSError as error:
        say(3, f"cannot write {folder / name}: {error.strerror}; see that the folder belongs to the unit's user")


# ---- the service ----


class Service:
    """Brings about what is desired, one feature at a time, and obeys kill orders at any moment."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.state_dir = Path(options.state)
        self.kernel = kernel_facts()
        self.families = [each for each in (self.kernel["family"], self.kernel["distro_family"]) if each]
        self.order_folders = [Path(options.etc) / "kill.d", Path(options.run) / "kill.d"]
        self.bundle: Bundle | None = None
        self.refusal: Reason | None = None
        self.features: list[Feature] = []
        self.orders = Orders([], [])
        self.desired = Desired({}, False, None)
        self.sink = Sink(Path(options.log))
        self.started_ns = process_start_ns(os.getpid())
        self.compatibility: dict[str, Any] | None = None
        self.with_stats = False
        self.stopping = False
        self.ending = False
        self.lock = threading.Lock()
        self.wake_in, self.wake_out = socket.socketpair()
        self.wake_in.setblocking(False)
        self.wake_out.setblocking(False)

    # What should be

    def known_features(self) -> list[str] | None:
        return self.bundle.features if self.bundle else None

    def look_for_orders(self) -> Orders:
        return read_orders(self.order_folders, self.families, self.known_features())

    def cut_killed(self, orders: Orders) -> int:
        """Detach what the orders forbid and end its compiler; how many features that were."""
        cut = 0
        for feature in self.features:
            if not orders.of_feature(feature.name):
                continue
            job = feature.job
            if job:
                job.kill()
            with self.lock:
                cut += bool(feature.live and feature.live.cut())
        return cut

    def guard(self) -> None:
        """A thread of its own: neither a disk nor a compiler stands between an order and its effect."""
        while not self.ending:
            try:
                orders = self.look_for_orders()
                if self.cut_killed(orders) or orders != self.orders:
                    self.wake()
            except Exception as error:  # the guard must not end, whatever it meets
                say(3, f"the guard met an error: {error!r}")
            time.sleep(LOOK_SECONDS)

    def wake(self) -> None:
        with contextlib.suppress(OSError):
            self.wake_out.send(b"!")

    def obey(self) -> bool:
        """Read the orders and detach; True when they are not what they were."""
        orders = self.look_for_orders()
        cut = self.cut_killed(orders)
        changed = orders != self.orders
        before, self.orders = self.orders, orders
        self.say_orders(before, orders)
        if cut:
            say(5, f"kill: {cut} features detached")
        return changed

    @staticmethod
    def say_orders(before: Orders, now: Orders) -> None:
        """What is new, and what was released."""
        for order in now.orders:
            if order not in before.orders:
                say(5, f"kill order {order.path} holds")
        for order in before.orders:
            if order not in now.orders:
                say(5, f"kill order {order.path} was released")
        for path in now.unknown:
            if path not in before.unknown:
                say(4, f"kill order {path} holds nothing: its name must be global, feature.NAME or family.FAMILY")

    def renew_desired(self, at_start: bool) -> bool:
        """What cannot be read leaves in force what was; True when a word of it is new."""
        assert self.bundle is not None
        found = read_desired(Path(self.options.etc) / "desired.json", self.bundle.digest)
        if found == self.desired:
            return False
        if found.error and found.error.code == "EF_DESIRED_MALFORMED":
            if self.desired.error != found.error:
                say(3, found.error.text)
            self.desired = found if at_start else self.desired._replace(error=found.error)
            return True
        self.desired = found
        return True

    def wish(self, feature: Feature) -> Reason | None:
        """None when it is wanted of BCC, else why not."""
        entry = self.desired.features.get(feature.name)
        if entry and entry["enabled"] and self.desired.bcc:
            return None
        if self.desired.error and not self.desired.features:
            return self.desired.error
        if not entry or not entry["enabled"]:
            return Reason("EF_NOT_WANTED", "desired.json does not want it")
        return Reason("EF_NOT_WANTED", "desired.json has no fallback 'bcc'")

    def rest(self, feature: Feature, state: str, reason: Reason) -> bool:
        """Bring a feature to rest in a state; True when that is a change."""
        changed = (feature.state, feature.reason) != (state, reason)
        if feature.job:
            feature.job.close()
            feature.job = None
        was_attached = feature.detach(self.lock, self.sink)
        feature.state, feature.reason = state, reason
        if was_attached:
            say(5, f"feature {feature.name}: detached: {reason.text} ({reason.code})")
        return changed

    def decide(self, feature: Feature, loader: LoaderWord) -> bool:
        """Orders, wishes, contract and the loader's word for one feature; True when it changed."""
        order = self.orders.of_feature(feature.name)
        unwanted = self.wish(feature)
        feature.wanted = unwanted is None
        if order:
            feature.tried = False
            return self.rest(feature, "killed", Reason(order.code, f"kill order {order.path}; remove it to release"))
        if unwanted:
            feature.tried = False
            return self.rest(feature, "off", unwanted)
        expired = feature.source.expired()
        if expired:
            return self.rest(
                feature, "disabled",
                Reason("EF_EXPIRED", f"its contract expired on {expired}; renew it and release again"),
            )  # fmt: skip
        why, instead = loader.could_not(feature.name)
        if why is None:
            feature.tried = False
            return self.rest(feature, "off", instead)
        return self.bring_up(feature, why)

    def bring_up(self, feature: Feature, why: Reason) -> bool:
        """What should run: begin what is missing. True when something changed."""
        with self.lock:
            cut = bool(feature.live and not feature.live.links)
        if cut:
            # An order came and went before we were here: attach anew.
            feature.detach(self.lock, self.sink)
            feature.state = "off"
        if feature.live or feature.job or feature.tried:
            return False
        if any(other.job for other in self.features):
            return False  # one compiler at a time
        feature.tried = True
        feature.state, feature.reason = "off", Reason("EF_UNKNOWN", "about to be attached: BCC compiles it")
        events_map = EVENTS_MAP if feature.source.signal("events") else None
        try:
            feature.job = Job(feature.source, events_map)
        except OSError as error:
            self.fail(feature, CannotRunError("EF_BCC_COMPILE", f"the compiler cannot be started: {error}"), why)
        return True

    def fail(self, feature: Feature, error: CannotRunError, why: Reason) -> None:
        """This feature cannot run, for the loader's reason and for ours."""
        text = f"bcc: {error.reason}; the loader could not: {why.text} ({why.code})"
        self.rest(feature, "disabled", Reason(error.code, text))
        say(4, f"feature {feature.name}: disabled: {feature.reason.text} ({feature.reason.code})")

    def harvest(self, feature: Feature, loader: LoaderWord) -> bool:
        """Take what the compiler made and attach it; True when something changed."""
        if not feature.job:
            return False
        why = loader.could_not(feature.name)[0] or Reason("EF_UNKNOWN", "the loader does not say")
        try:
            compiled = feature.job.poll()
            if compiled is None:
                return False
            feature.job.close()
            feature.job = None
            self.attach(feature, compiled)
        except CannotRunError as error:
            self.fail(feature, error, why)
            return True
        if feature.live:
            feature.state, feature.reason = "attached", Reason(why.code, why.text)
            self.publish()  # before it is announced
            say(5, f"feature {feature.name}: attached through BCC, {len(feature.live.links)} programs")
        return True

    def attach(self, feature: Feature, compiled: Compiled) -> None:
        """Everything of it, or nothing. Raises CannotRunError."""
        try:
            live = Live(feature.source, compiled, self.sink)
        except (CannotRunError, OSError) as error:
            compiled.close()
            raise (
                error if isinstance(error, CannotRunError) else CannotRunError("EF_LOAD_REJECTED", str(error))
            ) from error
        try:
            live.prepare(feature.sample_every)
            with self.lock:
                if self.look_for_orders().of_feature(feature.name):
                    live.close()  # the order is dealt with by the next look
                    feature.tried = False
                    return
                live.attach()
                feature.live = live
        except (CannotRunError, OSError) as error:
            live.close()
            raise (
                error if isinstance(error, CannotRunError) else CannotRunError("EF_ATTACH_FAILED", str(error))
            ) from error

    def apply_sampling(self, feature: Feature) -> bool:
        entry = self.desired.features.get(feature.name, {})
        every = int(entry.get("sample_every", feature.source.sample_every))
        if every == feature.sample_every:
            return False
        feature.sample_every = every
        if feature.live:
            feature.live.sample(every)
        return True

    def rescan(self, loader: LoaderWord, at_start: bool = False) -> bool:
        """Everything anew; True on any change."""
        changed = self.obey()
        changed |= self.renew_desired(at_start)
        loader.listen()
        for feature in self.features:
            changed |= self.decide(feature, loader)
            changed |= self.apply_sampling(feature)
            changed |= self.harvest(feature, loader)
        self.with_stats = self.kernel_counts_runs(loader.stats_enabled)
        return changed

    # What is said

    def overall(self) -> tuple[str, Reason]:
        order = self.orders.everything()
        if self.refusal:
            return "refused", self.refusal
        if self.stopping:
            return "idle", Reason("EF_OK", "the collector was stopped")
        if order:
            return "killed", Reason(order.code, f"kill order {order.path}; remove it to release")
        if any(feature.state == "attached" for feature in self.features):
            return "running", Reason("EF_OK", "running")
        for state in ("killed", "disabled"):
            for feature in self.features:
                if feature.wanted and feature.state == state:
                    return ("killed" if state == "killed" else "idle"), feature.reason
        return "idle", self.desired.error or Reason("EF_NOT_WANTED", "nothing is wanted of BCC")

    def cost(self, features: dict[str, Any]) -> dict[str, Any]:
        """Our own CPU with that of the compilers that ended, memory with the one that works."""
        own = [resident_bytes(os.getpid())]
        own += [resident_bytes(feature.job.process.pid) or 0 for feature in self.features if feature.job]
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        maps = [each["memory_bytes"] for feature in features.values() for each in feature["maps"]]
        return {
            "cpu_ns": time.process_time_ns() + int((used.ru_utime + used.ru_stime) * 1e9),
            "rss_bytes": None if own[0] is None else sum(each or 0 for each in own),
            "map_memory_bytes": None if None in maps else sum(maps),
        }

    def kernel_counts_runs(self, loader_counts: bool) -> bool:
        return loader_counts or read_small("/proc/sys/kernel/bpf_stats_enabled").strip() == "1"

    def status(self) -> dict[str, Any]:
        state, reason = self.overall()
        features = {feature.name: feature.describe(self.with_stats) for feature in self.features}
        return {
            "schema": "ebpf.fleet/status/v1",
            "engine": ENGINE,
            "time_unix_ns": time.time_ns(),
            "boottime_ns": time.clock_gettime_ns(time.CLOCK_BOOTTIME),
            "boot_id": boot_id(),
            "pid": os.getpid(),
            "started_boottime_ns": self.started_ns,
            "loader_version": VERSION,
            "bundle": self.bundle.about if self.bundle else None,
            "kernel": self.kernel,
            "state": state,
            "reason_code": reason.code,
            "reason": reason.text,
            "kills": [order._asdict() for order in self.orders.orders],
            "kill_unknown": self.orders.unknown,
            "desired_error": self.desired.error.text if self.desired.error else None,
            "stats_enabled": self.with_stats,
            "loader": self.cost(features),
            "features": features if self.bundle else None,
            "compatibility": self.compatibility,
        }

    def publish(self) -> None:
        """programs first, then status.json, then metrics.prom."""
        self.compatibility = self.compatibility_now()
        status = self.status()
        lines = [
            f"{program['id']} {program['tag']} {name} {program['name']}\n"
            for name, feature in (status["features"] or {}).items()
            for program in feature["programs"]
        ]
        write_atomic(self.state_dir, "programs", "".join(lines).encode("ascii"))
        text = json.dumps(status, sort_keys=True, separators=(",", ":")) + "\n"
        write_atomic(self.state_dir, "status.json", text.encode("ascii"))
        write_atomic(self.state_dir, "metrics.prom", self.metrics(status).encode("utf-8"))

    def metrics(self, status: dict[str, Any]) -> str:
        out = Metrics()
        features = status["features"] or {}
        out.about(status)
        out.profiles(features)
        out.states(features)
        out.counters(features)
        out.programs_and_maps(features)
        out.control(status)
        out.service(status)
        for feature in self.features:
            signal_doc = feature.source.signal("histogram")
            if signal_doc:
                out.histogram(signal_doc, feature.hist())
        return out.text()

    def compatibility_now(self) -> dict[str, Any] | None:
        """The compatibility event; a new one is said in the journal."""
        if not self.bundle:
            return None
        features = {
            feature.name: {
                "profile": feature.profile,
                "variant": ENGINE if feature.live else None,
                "reason_code": feature.reason.code,
                "reason": feature.reason.text,
            }
            for feature in self.features
        }
        if self.compatibility and self.compatibility["features"] == features:
            return self.compatibility
        event = {
            "schema": "ebpf.fleet/compatibility/v1",
            "event": "compatibility",
            "engine": ENGINE,
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "kernel": self.kernel,
            "bundle": self.bundle.about,
            "features": features,
        }
        if not any(feature.job for feature in self.features):
            say(6, json.dumps(event, sort_keys=True, separators=(",", ":")), "")
        return event

    # The loop

    def wait(self, seconds: float) -> bool:
        """Until something may have happened; True when orders or a compiler ask to be looked at."""
        poller = select.poll()
        poller.register(self.wake_in, select.POLLIN)
        asking = {self.wake_in.fileno()}
        for feature in self.features:
            if feature.job:
                poller.register(feature.job.socket, select.POLLIN)
                asking.add(feature.job.socket.fileno())
        ready = {fd for fd, _events in poller.poll(max(0, int(seconds * 1000)))}
        with contextlib.suppress(OSError):
            self.wake_in.recv(4096)
        return bool(ready & asking)

    def read_feeds(self) -> bool:
        more = False
        for feature in self.features:
            if feature.live and feature.live.feed:
                more |= feature.live.feed.read(READ_LIMIT)
        self.sink.flush()
        return more

    def loop(self, loader: LoaderWord) -> None:
        look, changed, tick = True, False, time.monotonic()
        while not self.stopping:
            if look:
                changed = self.rescan(loader)
            more = self.read_feeds()
            if changed or time.monotonic() >= tick:
                self.publish()
                notify("WATCHDOG=1")
                tick = time.monotonic() + self.options.interval
            if self.retires():
                return
            look = self.wait(0 if more or changed else self.patience(tick))
            look = look or changed or time.monotonic() >= tick
            changed = False

    def patience(self, tick: float) -> float:
        """Seconds until there is something to do by ourselves."""
        left = max(0.0, tick - time.monotonic()) + 0.001
        reads = any(feature.live and feature.live.feed for feature in self.features)
        return min(LOOK_SECONDS, left) if reads else left

    def retires(self) -> bool:
        """Nobody opted in (any more): nothing to stay for. Whoever opts in starts the service again."""
        error = self.desired.error
        if self.desired.bcc or (error and error.code == "EF_DESIRED_MALFORMED"):
            return False
        say(5, "desired.json has no fallback 'bcc': the collector ends")
        return True

    def on_signal(self, _number: int, _frame: Any) -> None:
        self.stopping = True
        self.wake()

    def stop(self) -> None:
        """Detach first; then there is time to say so."""
        self.stopping = True
        with self.lock:
            for feature in self.features:
                if feature.live:
                    feature.live.cut()
        notify("STOPPING=1")
        for feature in self.features:
            self.rest(feature, "off", Reason("EF_NOT_WANTED", "the collector was stopped"))
        self.publish()

    def serve(self) -> int:
        assert self.bundle is not None
        loader = LoaderWord(Path(self.options.loader_status), self.bundle.digest)
        self.features = [Feature(source) for source in self.bundle.sources]
        self.rescan(loader, at_start=True)
        self.publish()
        notify("READY=1\nSTATUS=" + self.overall()[1].text[:200].replace("\n", " "))
        guard = threading.Thread(target=self.guard, name="guard", daemon=True)
        guard.start()
        try:
            self.loop(loader)
        finally:
            self.stop()
            self.ending = True
            guard.join()
        return 0

    def run(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.on_signal)
        try:
            self.state_dir.mkdir(mode=0o755, exist_ok=True)
        except OSError as error:
            say(3, f"cannot make {self.state_dir}: {error.strerror}; make it, or give --state")
            return EXIT_FAILED
        try:
            self.bundle = open_bundle(self.options)
        except RefusedError as refused:
            self.refusal = Reason(refused.code, refused.reason)
            say(3, f"refused: {refused.reason} ({refused.code})")
            self.orders = self.look_for_orders()
            self.publish()
            notify("STATUS=refused: see the journal")
            return EXIT_REFUSED
        return self.serve()


# ---- the command line ----


def interval(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,4}", text) or not 1 <= int(text) <= 3600:
        raise argparse.ArgumentTypeError("must be a number of seconds from 1 to 3600")
    return int(text)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bcc.py", description="Runs through BCC what the loader could not.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="the service")
    run.add_argument("--bundle", required=True)
    run.add_argument("--loader", required=True, help="the release's ebpf-loader, which verifies the bundle")
    run.add_argument("--etc", default="/etc/ebpf-fleet")
    run.add_argument("--run", default="/run/ebpf-fleet")
    run.add_argument("--state", default="/run/ebpf-fleet-bcc")
    run.add_argument("--loader-status", default="/run/ebpf-fleet-loader/status.json")
    run.add_argument("--log", default="/var/log/ebpf-fleet")
    run.add_argument("--interval", type=interval, default=5)
    child = commands.add_parser("compile", help="the service's child, never called by hand")
    child.add_argument("--socket", type=int, required=True)
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    if options.command == "compile":
        return compile_main(options.socket)
    set_process_name()
    LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return Service(options).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
