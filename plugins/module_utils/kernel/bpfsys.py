# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The bpf(2) system call for Python's standard library.

Every function either returns what the kernel gave or raises OSError with the kernel's errno.
Descriptors are owned by the caller; those that a function opens for itself it closes.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import struct
from typing import Callable, Iterator, NamedTuple

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import OneCodeError

MAP_CREATE = 0
PROG_LOAD = 5
OBJ_GET = 7
PROG_GET_NEXT_ID = 11
MAP_GET_NEXT_ID = 12
PROG_GET_FD_BY_ID = 13
MAP_GET_FD_BY_ID = 14
OBJ_GET_INFO_BY_FD = 15
PROG_QUERY = 16
RAW_TRACEPOINT_OPEN = 17
BTF_LOAD = 18
BTF_GET_FD_BY_ID = 19
TASK_FD_QUERY = 20
LINK_CREATE = 28
LINK_GET_FD_BY_ID = 30
LINK_GET_NEXT_ID = 31
ENABLE_STATS = 32

OWN_PREFIX = "ef_"

# What the kernel does not know it requires to be zero, so one large block fits every kernel.
ATTR_BYTES = 144
INFO_BYTES = 256
# With the three fields of a signature, which kernels from 6.18 on know.
SIGNED_ATTR_BYTES = 168

# By machine and size of a pointer: a 32-bit Python on a 64-bit kernel has the 32-bit numbers.
BPF_NUMBERS = {
    ("x86_64", 8): 321,
    ("x86_64", 4): 357,
    ("i686", 4): 357,
    ("aarch64", 8): 280,
    ("aarch64", 4): 386,
    ("armv7l", 4): 386,
    ("riscv64", 8): 280,
    ("loongarch64", 8): 280,
    ("ppc64le", 8): 361,
    ("s390x", 8): 351,
}
PERF_NUMBERS = {
    ("x86_64", 8): 298,
    ("aarch64", 8): 241,
    ("riscv64", 8): 241,
    ("loongarch64", 8): 241,
    ("ppc64le", 8): 319,
    ("s390x", 8): 331,
}

# r0 = 0; exit
RETURN_ZERO = struct.pack("=BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0)
# r0 = r2; exit: r2 was never written, so the verifier always refuses this, and says "R2 !read_ok".
READS_UNWRITTEN = struct.pack("=BBhiBBhi", 0xBF, 0x20, 0, 0, 0x95, 0, 0, 0)


_LICENCE = ctypes.create_string_buffer(b"GPL")


class UnsupportedMachineError(OneCodeError):
    """The number of the system call is not known for this machine."""

    code = "EF_UNSUPPORTED_HOST"


class Program(NamedTuple):
    """One program in the kernel; `type` is the kernel's number, `tag` 16 hex digits."""

    id: int
    type: int
    name: str
    tag: str


def syscall_number(table: dict[tuple[str, int], int]) -> int:
    """The number for this machine, or UnsupportedMachineError."""
    key = (platform.machine(), ctypes.sizeof(ctypes.c_void_p))
    if key not in table:
        raise UnsupportedMachineError(f"no system call number for machine {key[0]} with {key[1]}-byte pointers")
    return table[key]


_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.syscall.restype = ctypes.c_long


def _syscall(number: int, *args: object) -> int:
    result = int(_LIBC.syscall(ctypes.c_long(number), *args))
    if result < 0:
        err = ctypes.get_errno()
        raise OSError(err, os.strerror(err))
    return result


def bpf(command: int, attr: bytes) -> int:
    """bpf(2): `attr` is padded with zeros; returns the call's value, a descriptor for most commands."""
    return bpf_buffer(command, ctypes.create_string_buffer(attr, ATTR_BYTES))


def bpf_buffer(command: int, buffer: ctypes.Array[ctypes.c_char]) -> int:
    """bpf(2) with ATTR_BYTES that the kernel also writes its answer to."""
    number = syscall_number(BPF_NUMBERS)
    return _syscall(number, ctypes.c_long(command), buffer, ctypes.c_long(ATTR_BYTES))


def map_create(
    map_type: int,
    key_size: int,
    value_size: int,
    max_entries: int,
    flags: int = 0,
    inner_fd: int = 0,
    btf_fd: int = 0,
) -> int:
    """Create a map and return its descriptor; with `btf_fd`, key and value are type 1 of that BTF."""
    attr = struct.pack("=IIIIIII", map_type, key_size, value_size, max_entries, flags, inner_fd, 0)
    type_id = 1 if btf_fd else 0
    attr += struct.pack("=16sIIII", b"", 0, btf_fd, type_id, type_id)
    return bpf(MAP_CREATE, attr)


class ProgramSpec(NamedTuple):
    """What BPF_PROG_LOAD is asked for; `attach_btf_id` is an id in the BTF of vmlinux."""

    type: int
    attach_type: int = 0
    attach_btf_id: int = 0
    flags: int = 0
    code: bytes = RETURN_ZERO


def prog_load(spec: ProgramSpec, log: ctypes.Array[ctypes.c_char] | None = None) -> int:
    """Load a program and return its descriptor; the verifier's words go to `log`."""
    code = ctypes.create_string_buffer(spec.code, len(spec.code))
    return bpf(PROG_LOAD, _load_attr(spec, code, log))


def _load_attr(spec: ProgramSpec, code: ctypes.Array[ctypes.c_char], log: ctypes.Array[ctypes.c_char] | None) -> bytes:
    log_size = len(log) if log is not None else 0
    attr = struct.pack(
        "=IIQQIIQII16sIIII",
        spec.type,
        len(spec.code) // 8,
        ctypes.addressof(code),
        ctypes.addressof(_LICENCE),
        1 if log_size else 0,
        log_size,
        ctypes.addressof(log) if log is not None else 0,
        _kernel_version_code(),
        spec.flags,
        b"probe",
        0,
        spec.attach_type,
        0,
        0,
    )
    return attr.ljust(108, b"\0") + struct.pack("=I", spec.attach_btf_id)


class Verdict(NamedTuple):
    """What became of a load: errno (0: it was accepted, and closed again) and the verifier's words."""

    errno: int
    log: str


class Trial:
    """Loads one program again and again with another number in its first instruction.

    Thousands of questions differ in one number only, so buffers are built once.
    """

    def __init__(self, spec: ProgramSpec, log_bytes: int = 4096) -> None:
        self._number = syscall_number(BPF_NUMBERS)
        self._log = ctypes.create_string_buffer(log_bytes)
        self._code = ctypes.create_string_buffer(spec.code, len(spec.code))
        self._attr = ctypes.create_string_buffer(_load_attr(spec, self._code, self._log), ATTR_BYTES)

        self._immediate = ctypes.c_int32.from_buffer(self._code, 4)

    def run(self, immediate: int | None = None) -> Verdict:
        """Load with the first instruction's immediate value, or as it is; nothing stays loaded."""
        if immediate is not None:
            self._immediate.value = immediate
        self._log[0] = b"\0"
        fd = _LIBC.syscall(self._number, PROG_LOAD, self._attr, ATTR_BYTES)
        if fd >= 0:
            os.close(fd)
            return Verdict(0, "")
        return Verdict(ctypes.get_errno(), self._log.value.decode("ascii", "replace"))


def signed_load(program_type: int, signature: bytes) -> int:
    """errno of a load that carries this signature for the built-in keyring; 0 where it was accepted."""
    spec = ProgramSpec(type=program_type, code=READS_UNWRITTEN)
    code = ctypes.create_string_buffer(spec.code, len(spec.code))
    blob = ctypes.create_string_buffer(signature, len(signature))
    attr = _load_attr(spec, code, None).ljust(152, b"\0")
    attr += struct.pack("=QIi", ctypes.addressof(blob), len(signature), 0)
    buffer = ctypes.create_string_buffer(attr, SIGNED_ATTR_BYTES)
    try:
        number = syscall_number(BPF_NUMBERS)
        os.close(_syscall(number, ctypes.c_long(PROG_LOAD), buffer, ctypes.c_long(SIGNED_ATTR_BYTES)))
    except OSError as error:
        return error.errno or 0
    return 0


def attached_count(attach_type: int, target: int) -> int:
    """Number of programs attached to a cgroup, a network namespace or an interface; raises if not offered."""
    attr = struct.pack("=IIIIQI", target, attach_type, 0, 0, 0, 0)
    buffer = ctypes.create_string_buffer(attr, ATTR_BYTES)
    bpf_buffer(PROG_QUERY, buffer)
    return int(struct.unpack_from("=I", buffer.raw, 24)[0])


def raw_tracepoint_open(name: str, program_fd: int) -> int:
    """Attach to a raw tracepoint and return the link's descriptor; closing it detaches."""
    text = ctypes.create_string_buffer(name.encode("ascii"))
    return bpf(RAW_TRACEPOINT_OPEN, struct.pack("=QI", ctypes.addressof(text), program_fd))


def _kernel_version_code() -> int:
    """LINUX_VERSION_CODE, which kprobe programs had to name before 5.0."""
    parts = [int(part) for part in platform.release().split("-")[0].split(".")[:3] if part.isdigit()]
    major, minor, patch = (parts + [0, 0, 0])[:3]
    return (major << 16) + (minor << 8) + min(patch, 255)


def btf_load_int() -> int:
    """Load a BTF that holds one int, for maps whose key and value need a type; returns its descriptor."""
    strings = b"\0int\0"
    types = struct.pack("=IIII", 1, 1 << 24, 4, 1 << 24 | 32)
    header = struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings))
    blob = ctypes.create_string_buffer(header + types + strings, 24 + len(types) + len(strings))
    attr = struct.pack("=QQIII", ctypes.addressof(blob), 0, len(blob), 0, 0)
    return bpf(BTF_LOAD, attr)


def object_ids(command: int) -> Iterator[int]:
    """Ids of all objects of one kind in rising order, by its *_GET_NEXT_ID; needs CAP_SYS_ADMIN."""
    current = 0
    while True:
        buffer = ctypes.create_string_buffer(struct.pack("=II", current, 0), ATTR_BYTES)
        try:
            bpf_buffer(command, buffer)
        except FileNotFoundError:
            return
        current = struct.unpack_from("=II", buffer.raw)[1]
        yield current


def program_ids() -> Iterator[int]:
    """Ids of all programs in the kernel, in rising order; needs CAP_SYS_ADMIN."""
    return object_ids(PROG_GET_NEXT_ID)


def object_info(fd: int, given: bytes = b"") -> bytes:
    """BPF_OBJ_GET_INFO_BY_FD of any object; `given` are the fields that the caller fills in."""
    info = ctypes.create_string_buffer(given, INFO_BYTES)
    bpf(OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", fd, INFO_BYTES, ctypes.addressof(info)))
    return info.raw


def program(program_id: int) -> Program:
    """What the kernel says of one program."""
    fd = bpf(PROG_GET_FD_BY_ID, struct.pack("=I", program_id))
    try:
        return program_from(object_info(fd))
    finally:
        os.close(fd)


def id_buffer(count: int) -> ctypes.Array[ctypes.c_uint32]:
    """Room for `count` ids that the kernel writes."""
    return (ctypes.c_uint32 * count)()


def map_ids_request(ids: ctypes.Array[ctypes.c_uint32]) -> bytes:
    """The fields of struct bpf_prog_info by which the kernel writes a program's map ids into `ids`."""
    return b"\0" * 52 + struct.pack("=IQ", len(ids), ctypes.addressof(ids))


def program_from(info: bytes) -> Program:
    """Type, id, tag and name out of struct bpf_prog_info."""
    kind, number = struct.unpack_from("=II", info)
    name = info[64:80].split(b"\0")[0].decode("ascii", "replace")
    return Program(number, kind, name, info[8:16].hex())


def own_programs(prefix: str = OWN_PREFIX) -> list[Program]:
    """Programs in the kernel whose name starts with `prefix`; needs CAP_SYS_ADMIN."""
    found = []
    for number in program_ids():
        # A program that ends between the two calls is not there any more.
        with contextlib.suppress(FileNotFoundError):
            one = program(number)
            if one.name.startswith(prefix):
                found.append(one)
    return found


def kprobe_open(pmu_type: int, symbol: str, on_return: bool = False) -> int:
    """Create a kprobe event on `symbol` without enabling it; returns its descriptor."""
    return _probe_open(pmu_type, 1 if on_return else 0, symbol, 0)


_CAPABILITY_VERSION = 0x20080522
_SYS_ADMIN_BIT = 1 << 21


def _effective(change: Callable[[int], int]) -> int:
    """Apply `change` to the low word of this thread's effective capabilities; returns what it was."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = struct.pack("=II", _CAPABILITY_VERSION, 0)
    data = ctypes.create_string_buffer(24)
    if libc.capget(header, data):
        raise OSError(ctypes.get_errno(), "capget")
    words = list(struct.unpack("=6I", data.raw))
    before: int = words[0]
    words[0] = change(before)
    if words[0] != before and libc.capset(header, struct.pack("=6I", *words)):
        raise OSError(ctypes.get_errno(), "capset")
    return before


@contextlib.contextmanager
def without_sys_admin() -> Iterator[None]:
    """Ask with the capabilities that the loader keeps: CAP_SYS_ADMIN is lowered, and raised again after."""
    before = _effective(lambda word: word & ~_SYS_ADMIN_BIT)
    try:
        yield
    finally:
        _effective(lambda word: before)


def uprobe_open(pmu_type: int, path: str, offset: int) -> int:
    """Create a uprobe event at an offset of a file without enabling it; returns its descriptor."""
    return _probe_open(pmu_type, 0, path, offset)


def _probe_open(pmu_type: int, config: int, target: str, offset: int) -> int:
    number = syscall_number(PERF_NUMBERS)
    name = ctypes.create_string_buffer(target.encode())
    # struct perf_event_attr: type, size, config, ..., flags at 40 (bit 0: disabled), config1 at 56.
    attr = struct.pack("=IIQQQQQ", pmu_type, 112, config, 0, 0, 0, 1)
    attr += struct.pack("=IIQQ", 0, 0, ctypes.addressof(name), offset)
    buffer = ctypes.create_string_buffer(attr, 112)
    minus_one, close_on_exec = ctypes.c_long(-1), ctypes.c_long(8)
    return _syscall(number, buffer, minus_one, ctypes.c_long(0), minus_one, close_on_exec)


def active_lsms() -> list[int]:
    """Ids of the active LSMs in order, by lsm_list_modules(2) (6.8 on); raises OSError where there is none."""
    if ctypes.sizeof(ctypes.c_void_p) != 8:
        raise UnsupportedMachineError("lsm_list_modules: number known for 64-bit Python only")
    ids = (ctypes.c_uint64 * 32)()
    size = ctypes.c_uint32(ctypes.sizeof(ids))
    # Of the calls that came after 5.0, which have one number on all machines.
    count = _syscall(461, ids, ctypes.byref(size), ctypes.c_long(0))
    return list(ids[:count])
