# All programs and maps of the kernel, one JSON object a line, for the forensics script: with run counts, which are 0
# also where the kernel does not count. Struct bpf_prog_info and bpf_map_info, include/uapi/linux/bpf.h.
import ctypes
import json
import os
import struct
from typing import Iterator, Optional

NUMBERS = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "s390x": 351, "armv7l": 386, "i686": 357}
INFO = 15
MOST = 4000
number = NUMBERS[os.uname().machine]
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


def bpf(command: int, attributes: "ctypes.Array[ctypes.c_char]") -> int:
    result: int = libc.syscall(ctypes.c_long(number), ctypes.c_int(command), attributes, ctypes.c_uint(len(attributes)))
    return result if result >= 0 else -ctypes.get_errno()


def info_of(by_id: int, one: int, size: int) -> Optional[bytes]:
    fd = bpf(by_id, ctypes.create_string_buffer(struct.pack("=III", one, 0, 0), 12))
    if fd < 0:
        return None
    info = ctypes.create_string_buffer(size)
    asked = bpf(INFO, ctypes.create_string_buffer(struct.pack("=IIQ", fd, size, ctypes.addressof(info)), 16))
    os.close(fd)
    return info.raw if asked >= 0 else None


def ids(command: int) -> Iterator[int]:
    last = 0
    for _turn in range(MOST):
        ask = ctypes.create_string_buffer(struct.pack("=III", last, 0, 0), 12)
        if bpf(command, ask) < 0:
            return
        last = int(struct.unpack("=III", ask.raw)[1])
        yield last


def name_at(raw: bytes, at: int) -> str:
    return raw[at : at + 16].split(bytes(1))[0].decode("ascii", "replace")


for one in ids(11):
    raw = info_of(13, one, 224)
    if raw is not None:
        numbers = struct.unpack_from("=QQ", raw, 192)
        print(json.dumps({"program": one, "type": struct.unpack_from("=I", raw)[0], "name": name_at(raw, 64),
                          "tag": raw[8:16].hex(), "uid": struct.unpack_from("=I", raw, 48)[0],
                          "load_time_ns": struct.unpack_from("=Q", raw, 40)[0], "run_time_ns": numbers[0],
                          "run_cnt": numbers[1], "recursion_misses": struct.unpack_from("=Q", raw, 208)[0],
                          "verified_insns": struct.unpack_from("=I", raw, 216)[0]}))  # fmt: skip
for one in ids(12):
    raw = info_of(14, one, 80)
    if raw is not None:
        kind, _id, key, value, most, flags = struct.unpack_from("=IIIIII", raw)
        print(json.dumps({"map": one, "type": kind, "name": name_at(raw, 24), "key_bytes": key, "value_bytes": value,
                          "max_entries": most, "flags": flags}))  # fmt: skip
