# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The child that compiles: it alone loads BCC and LLVM, hands its descriptors over and ends."""

from __future__ import annotations

import array
import contextlib
import ctypes
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from ansible_collections.ebpf.fleet.collectors.fleet_bcc.basics import EXIT_FAILED, CannotRunError
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.kernel import LIBC, PR_SET_PDEATHSIG, set_process_name
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.records import Field, lay_out
from ansible_collections.ebpf.fleet.plugins.module_utils.contract.rules import KERNEL_NAME


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
        if not KERNEL_NAME.match(name):
            raise CannotRunError("EF_LOAD_REJECTED", f"the map {name!r} is not named ef_…; fix bcc.c")
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
        answer, fds = {"code": error.code, "reason": error.message[-1500:]}, []
    with socket.socket(fileno=socket_fd) as out:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        out.sendmsg([json.dumps(answer).encode("ascii")], ancillary)
    sys.stderr.flush()
    del keep
    os._exit(0)
