# SPDX-License-Identifier: GPL-3.0-or-later
"""Make every feature see something, and say exactly what; runs on any test host, as root.

Prints one JSON document, by feature. Python 3.8, standard library only.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import mmap
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable

# No one else on a test host is of this user, or asks after this process.
UID = 54321
NO_PID = 2**22 + 1
GETPGID, GETPGID_32 = (121, 132) if os.uname().machine == "x86_64" else (155, -1)
FAILED_CALLS = 137
READS = 64
SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27
TCP_SYNCNT = 7
AF_NAMES = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
LIBC = ctypes.CDLL(None, use_errno=True)


def in_child(work: Callable[[], None]) -> int:
    """Run it in a process of its own; its wait status."""
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    try:
        work()
    finally:
        os._exit(1)
    return 0


# Network


def own_network() -> None:
    """A network namespace whose only device is the loopback, with no loss probes and no extra SYNs."""
    if LIBC.unshare(0x40000000):  # CLONE_NEWNET
        raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWNET)")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, 0x8914, struct.pack("16sh14x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP
    for name in ("tcp_early_retrans", "tcp_syn_linear_timeouts"):
        path = Path("/proc/sys/net/ipv4") / name
        if path.exists():
            path.write_text("0")


def retransmitted() -> int:
    """TCP's own count in this network namespace."""
    lines = Path("/proc/net/snmp").read_text().splitlines()
    names, values = [line.split() for line in lines if line.startswith("Tcp:")]
    return int(values[names.index("RetransSegs")])


class Connections:
    """Opens TCP connections and keeps the score, by address family."""

    def __init__(self) -> None:
        self.established = {"2": 0, "10": 0}
        self.failed: dict[str, int] = {}
        self.kept: list[socket.socket] = []

    def _failed(self, family: int, error: int) -> None:
        key = f"{int(family)},{error}"
        self.failed[key] = self.failed.get(key, 0) + 1

    def _socket(self, family: int) -> socket.socket:
        made = socket.socket(family, socket.SOCK_STREAM)
        self.kept.append(made)
        return made

    def listen(self, family: int, backlog: int = 64) -> socket.socket:
        made = self._socket(family)
        made.bind((AF_NAMES[socket.AddressFamily(family)], 0))
        made.listen(backlog)
        return made

    def connect(self, family: int, port: int) -> socket.socket:
        made = self._socket(family)
        made.connect((AF_NAMES[socket.AddressFamily(family)], port))
        self.established[str(int(family))] += 1
        return made

    def refused(self, family: int, port: int) -> None:
        try:
            self.connect(family, port)
        except ConnectionRefusedError:
            self._failed(family, errno.ECONNREFUSED)

    def to_itself(self, family: int) -> None:
        """A simultaneous open: SYN_SENT, SYN_RECV, ESTABLISHED."""
        made = self._socket(family)
        made.bind((AF_NAMES[socket.AddressFamily(family)], 0))
        made.connect(made.getsockname()[:2])
        self.established[str(int(family))] += 1

    def deaf(self, family: int) -> int:
        """A port that answers no further SYN: its queue is full."""
        port = int(self.listen(family, 0).getsockname()[1])
        self.connect(family, port)
        return port

    def begin(self, family: int, port: int) -> socket.socket:
        made = self._socket(family)
        made.setblocking(False)
        assert made.connect_ex((AF_NAMES[socket.AddressFamily(family)], port)) == errno.EINPROGRESS
        return made

    def given_up(self, family: int, port: int) -> None:
        self.begin(family, port).close()
        self._failed(family, 0)

    def disconnected(self, family: int, port: int) -> None:
        made = self.begin(family, port)
        nowhere = struct.pack("H126x", socket.AF_UNSPEC)
        assert LIBC.connect(made.fileno(), nowhere, len(nowhere)) == 0
        self._failed(family, 0)

    def timed_out(self, family: int, port: int) -> None:
        """One SYN is sent again, then the kernel gives up."""
        made = self._socket(family)
        made.setsockopt(socket.IPPROTO_TCP, TCP_SYNCNT, 1)
        try:
            made.connect((AF_NAMES[socket.AddressFamily(family)], port))
        except TimeoutError:
            self._failed(family, errno.ETIMEDOUT)


def closed_port(family: int) -> int:
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.bind((AF_NAMES[socket.AddressFamily(family)], 0))
        return int(probe.getsockname()[1])


def open_connections(connections: Connections, family: int) -> None:
    """Every way in which an attempt may end."""
    port = int(connections.listen(family).getsockname()[1])
    for _ in range(10):
        connections.connect(family, port)
    for _ in range(4):
        connections.refused(family, closed_port(family))
    connections.to_itself(family)
    deaf = connections.deaf(family)
    connections.given_up(family, deaf)
    connections.disconnected(family, deaf)
    connections.timed_out(family, deaf)


def lose_segments(connections: Connections, family: int) -> None:
    """Send to a socket that drops what arrives, until it was sent again."""
    listener = connections.listen(family)
    sender = connections.connect(family, int(listener.getsockname()[1]))
    receiver, _ = listener.accept()
    connections.kept.append(receiver)
    drop_all = struct.pack("HBBI", 6, 0, 0, 0)  # BPF_RET | BPF_K, 0
    buffer = ctypes.create_string_buffer(drop_all)
    receiver.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(buffer)))
    before = retransmitted()
    sender.send(b"x" * 100)
    limit = time.monotonic() + 20
    while retransmitted() < before + 2 and time.monotonic() < limit:
        time.sleep(0.05)
    receiver.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
    receiver.settimeout(20)
    assert receiver.recv(100) == b"x" * 100


def network() -> dict[str, Any]:
    """Both TCP features, in a namespace of its own."""
    own_network()
    connections = Connections()
    for family in (socket.AF_INET, socket.AF_INET6):
        open_connections(connections, family)
    before = retransmitted()
    lose_segments(connections, socket.AF_INET6)
    lost = retransmitted() - before
    for each in connections.kept:
        each.close()
    return {
        "tcp_connect_latency": {"established": connections.established, "failed": connections.failed},
        "tcp_retransmits": {"all": retransmitted(), "established_10": lost, "syn_sent_10": 1},
    }


# Block devices


def requests_done() -> int:
    """Requests that the block devices completed since boot, by /proc/diskstats; merged ones count once."""
    fields = [line.split() for line in Path("/proc/diskstats").read_text().splitlines()]
    return sum(int(each[3]) + int(each[7]) for each in fields)


def open_past_the_cache() -> int:
    """A descriptor whose reads all reach a block device: a disk, else a file on one."""
    for disk in sorted(Path("/sys/block").glob("vd*")):
        try:
            return os.open(Path("/dev") / disk.name, os.O_RDONLY | os.O_DIRECT)
        except PermissionError:
            continue
    with tempfile.NamedTemporaryFile(dir="/var/tmp") as file:
        file.write(os.urandom(READS * 4096))
        file.flush()
        os.fsync(file.fileno())
        return os.open(file.name, os.O_RDONLY | os.O_DIRECT)


def block_io() -> dict[str, Any]:
    """Read single blocks past the page cache: one request each."""
    file = open_past_the_cache()
    buffer = mmap.mmap(-1, 4096)
    before, began = requests_done(), time.monotonic_ns()
    for block in range(READS):
        os.preadv(file, [buffer], block * 4096)
    spent = time.monotonic_ns() - began
    os.close(file)
    return {"reads": READS, "diskstats": requests_done() - before, "wall_ns": spent}


# Memory


LIMIT_BYTES = 24 << 20
# By version of the hierarchy: the limit's file, the file with the count, its line.
GROUP_FILES = {
    2: ("memory.max", "memory.events", "oom_kill"),
    1: ("memory.limit_in_bytes", "memory.oom_control", "oom_kill"),
}


def memory_root() -> tuple[int, Path] | None:
    """The control groups with a memory controller: version and folder."""
    root = Path("/sys/fs/cgroup")
    if (root / "memory" / "memory.limit_in_bytes").exists():
        return 1, root / "memory"
    if "memory" in ((root / "cgroup.controllers").read_text() if (root / "cgroup.controllers").exists() else ""):
        (root / "cgroup.subtree_control").write_text("+memory")
        return 2, root
    return None


def run_out_of_memory() -> dict[str, Any]:
    """Let a process meet the limit of a control group."""
    found = memory_root()
    if found is None:
        return {"skipped": "this host has no memory controller"}
    version, root = found
    group = root / f"ef-test-{os.getpid()}"
    group.mkdir()
    try:
        return _fill(group, *GROUP_FILES[version])
    finally:
        group.rmdir()


def _fill(group: Path, limit: str, counts: str, line: str) -> dict[str, Any]:
    (group / limit).write_text(str(LIMIT_BYTES))
    if (group / "memory.swap.max").exists():
        (group / "memory.swap.max").write_text("0")
    hog = "import sys; open(sys.argv[1], 'w').write('0'); x = bytearray(64 << 20)"
    child = subprocess.Popen([sys.executable, "-S", "-c", hog, str(group / "cgroup.procs")])
    code = child.wait()
    events = dict(each.split() for each in (group / counts).read_text().splitlines())
    return {
        "pid": child.pid,
        "killed": code == -signal.SIGKILL,
        "kernel_says": int(events[line]),
        "cgroup_id": group.stat().st_ino,
        "limit_pages": LIMIT_BYTES // mmap.PAGESIZE,
        "comm": Path(sys.executable).name[:15],
    }


# System calls


def fail_calls() -> dict[str, Any]:
    for _ in range(FAILED_CALLS):
        assert LIBC.syscall(GETPGID, NO_PID) == -1
    return {"key": f"{GETPGID},{errno.ESRCH},0", "times": FAILED_CALLS, "compat": fail_calls_of_32_bit()}


def fail_calls_of_32_bit() -> dict[str, Any]:
    """The same by the other table of x86: int 0x80, in a child, as not every kernel has it."""
    if GETPGID_32 < 0:
        return {"skipped": "not an x86-64 host"}

    def work() -> None:
        code = b"\x53\xb8" + struct.pack("<I", GETPGID_32) + b"\xbb" + struct.pack("<I", NO_PID) + b"\xcd\x80\x5b\xc3"
        page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        page.write(code)
        call = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
        results = {call() for _ in range(5)}
        os._exit(0 if results == {-errno.ESRCH} else 2)

    if in_child(work):
        return {"skipped": "this kernel serves no 32-bit system calls"}
    return {"key": f"{GETPGID_32},{errno.ESRCH},1", "times": 5}


# Files


def unlink_files() -> dict[str, Any]:
    """Ten files of a user that has no others, on a file system without layers."""
    folder = Path(tempfile.mkdtemp(dir="/dev/shm"))
    for number in range(10):
        (folder / str(number)).write_text("")
    os.chmod(folder, 0o777)

    def work() -> None:
        os.setuid(UID)
        for number in range(10):
            os.unlink(folder / str(number))
        try:
            os.unlink(folder / "not-there")
        except FileNotFoundError:
            os._exit(0)

    status = in_child(work)
    shutil.rmtree(folder)
    return {"uid": UID, "removed": 10, "not_there": 1, "good": status == 0}


# Programs


def exec_without_name() -> dict[str, Any]:
    """Execute a memfd, a deleted file and, for comparison, a file with a name."""
    true = Path("/bin/true").read_bytes()
    memory = os.memfd_create("ef-test-memory")
    os.write(memory, true)
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    named, gone = folder / "ef_named", folder / "ef_gone"
    for path in (named, gone):
        path.write_bytes(true)
        path.chmod(0o755)
    deleted = os.open(gone, os.O_RDONLY)
    gone.unlink()
    codes = [in_child(lambda file=file: os.execve(file, ["ef"], {})) for file in (memory, deleted)]
    codes.append(in_child(lambda: os.execve(named, ["ef"], {})))
    shutil.rmtree(folder)
    return {"codes": codes, "names": ["memfd:ef-test-memory", "ef_gone"], "named": "ef_named", "comm": own_comm()}


def own_comm() -> str:
    return Path("/proc/self/comm").read_text().rstrip("\n")


def main() -> None:
    document: dict[str, Any] = {
        "block_io_latency": block_io(),
        "oom_kills": run_out_of_memory(),
        "syscall_errors": fail_calls(),
        "file_unlinks": unlink_files(),
        "exec_policy": exec_without_name(),
    }
    document.update(network())  # last: it leaves the host's network
    print(json.dumps(document))


if __name__ == "__main__":
    main()
