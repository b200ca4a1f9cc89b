# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a process does to itself before it becomes a program that is not trusted; see ``confined``.

The order matters: what needs a power comes before that power is given up. Each step is a refusal by the
kernel or done; none is left out in silence.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import resource
import select
import signal
import stat
import struct
from pathlib import Path
from typing import NamedTuple, NoReturn

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import OneCodeError
from ansible_collections.ebpf.fleet.plugins.module_utils.confine.syscall_filter import (
    EXEC_FD,
    EXECVEAT,
    MACHINES,
    OPEN_FILES,
    PRLIMIT64,
    filter_program,
)

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x02000000, 0x04000000, 0x08000000
CLONE_NEWPID, CLONE_NEWNET = 0x20000000, 0x40000000
WANTED_NAMESPACES = (CLONE_NEWNET, CLONE_NEWIPC, CLONE_NEWUTS, CLONE_NEWCGROUP)
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
MNT_DETACH = 2
SEALED = MS_RDONLY | MS_NOSUID | MS_NODEV
PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_SECUREBITS = 1, 22, 24, 28
PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 38, 47, 4
SECCOMP_MODE_FILTER = 2
# NOROOT and its lock, the locks of NO_SETUID_FIXUP and KEEP_CAPS, NO_CAP_AMBIENT_RAISE and its lock
SECUREBITS = 0x01 | 0x02 | 0x08 | 0x20 | 0x40 | 0x80
CAPABILITY_VERSION = 0x20080522
LAST_CAPABILITY = 63
AT_EMPTY_PATH = 0x1000
PIVOT_ROOT, CAPSET = (155, 41), (126, 91)  # by the column of syscall_filter

PROGRAM, FOLDER, EXECUTABLE = "/program", "/bundle", "/proc/self/exe"
# What the kernel calls a program that is executed by descriptor. TOMOYO (part of Debian's kernels) asks
# that the name exist, and nothing more: it is an empty file.
EXEC_NAME = f"/dev/fd/{EXEC_FD}"


class Copy(NamedTuple):
    """A small file within the confinement: its absolute path there, bytes, owner and mode."""

    path: str
    data: bytes
    uid: int
    mode: int
    folder_uid: int
    folder_mode: int


class Place(NamedTuple):
    """What the program sees: itself, ``folder`` as ``/bundle``, and ``copies``.

    ``scaffold`` is any folder that exists; the root is built over it, in the program's own namespace.
    """

    program: Path
    folder: Path
    scaffold: Path
    copies: tuple[Copy, ...] = ()


class Bounds(NamedTuple):
    """What it may take: seconds of wall clock and of CPU, bytes of memory, of standard output and error."""

    seconds: float
    cpu_seconds: int
    memory_bytes: int
    stdout_bytes: int
    stderr_bytes: int


class StepError(OneCodeError):
    """A step of the confinement that the kernel refused; it leaves the child as words on a pipe."""

    code = "EF_NO_CONFINEMENT"

    def __init__(self, step: str, number: int) -> None:
        super().__init__(step)
        self.step = step
        self.number = number


class Ends(NamedTuple):
    """The descriptors of the confined process: its standard three, its report and its keeper's lifeline."""

    null: int
    stdout: int
    stderr: int
    report: int
    lifeline: int


def become(place: Place, arguments: list[str], bounds: Bounds, ends: Ends, user: int) -> NoReturn:
    """Take everything away from this process, then execute the program; never returns."""
    try:
        os.setsid()
        os.umask(0o022)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python ignores, and a program would inherit
            signal.signal(number, signal.SIG_DFL)
        _keep_only(ends)
        account = os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)
        # Where memory is short it goes first, and nothing of the host's.
        _write("/proc/self/oom_score_adj", b"1000")
        _make_root(place)
        _open_program()
        _limit(bounds)
        _drop_privileges(user)
        # Only now: a change of user marks a process that is over this limit, and the kernel refuses to execute
        # it (EAGAIN). A container that shares the kernel may run one as the same user at the same time.
        processes = 0 if resource.getrlimit(resource.RLIMIT_NPROC)[1] == 0 else 1
        resource.setrlimit(resource.RLIMIT_NPROC, (processes, processes))
        _tie_to_keeper(ends)
        _execute(account, user, arguments, bounds.memory_bytes)
    except BaseException as error:
        report_failure(ends.report, error)
    finally:
        os._exit(127)


def _keep_only(ends: Ends) -> None:
    """Close every descriptor but the standard three, the report and the lifeline."""
    for fd, number in ((ends.null, 0), (ends.stdout, 1), (ends.stderr, 2)):
        os.dup2(fd, number)
    kept = {0, 1, 2, ends.report, ends.lifeline}
    for fd in {int(name) for name in os.listdir("/proc/self/fd")} - kept:
        with contextlib.suppress(OSError):  # the listing's own
            os.close(fd)


def _make_root(place: Place) -> None:
    """Build the root on a small tmpfs, seal it, and leave the host's behind."""
    _call("a namespace of mounts", _LIBC.unshare(CLONE_NEWNS))
    _mount("keep mounts private", None, "/", None, MS_REC | MS_PRIVATE)
    sources = [
        (os.open(place.program, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC), (PROGRAM, EXECUTABLE)),
        (os.open(place.folder, os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC), (FOLDER,)),
    ]
    if not stat.S_ISREG(os.fstat(sources[0][0]).st_mode):
        raise StepError("the program is not a regular file", errno.EINVAL)
    root = str(place.scaffold)
    size = 65536 + sum(len(copy.data) + 65536 for copy in place.copies)
    options = f"size={size},nr_inodes=64,mode=0755"
    _mount("a root of its own", "tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, options)
    for copy in (*place.copies, Copy(EXEC_NAME, b"", 0, 0o444, 0, 0o555)):
        _put_copy(root, copy)
    for fd, targets in sources:
        for target in targets:
            _bind(fd, root + target)
        os.close(fd)
    _mount("seal the root", None, root, None, MS_REMOUNT | MS_BIND | SEALED | MS_NOEXEC)
    os.chdir(root)
    column = MACHINES[platform.machine()].column
    _call("leave the host's root", _syscall(PIVOT_ROOT[column], b".", b"."))
    _call("leave the host's mounts", _LIBC.umount2(b".", MNT_DETACH))
    os.chdir("/")
    shown = (PROGRAM, FOLDER, EXECUTABLE, EXEC_NAME, *(copy.path for copy in place.copies))
    _prove_root({path.split("/")[1] for path in shown})


def _prove_root(meant: set[str]) -> None:
    """The new root must hold what was put there and nothing of the host's."""
    found = set(os.listdir("/"))
    if found != meant:
        raise StepError(f"the new root holds {' '.join(sorted(found))[:80]}", errno.EPERM)


def _put_copy(root: str, copy: Copy) -> None:
    """A file with its folder, owners and modes as on the host, so that it is judged as it is there."""
    path = Path(root + copy.path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(str(path), copy.data)
    os.chown(path, copy.uid, 0)
    path.chmod(copy.mode)
    os.chown(path.parent, copy.folder_uid, 0)
    path.parent.chmod(copy.folder_mode)


def _write(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)


def _bind(fd: int, target: str) -> None:
    """Show a file or folder at ``target``, read-only. There is no procfs: /proc/self/exe is the program's
    file itself, of the same mount as the one that is executed, and all that the loader asks of /proc."""
    place = Path(target)
    place.parent.mkdir(parents=True, exist_ok=True)
    folder = stat.S_ISDIR(os.fstat(fd).st_mode)
    place.mkdir() if folder else place.touch()
    _mount(f"show {target[-64:]}", f"/proc/self/fd/{fd}", target, None, MS_BIND)
    # What its file system forbids stays forbidden: where /var/lib is noexec the loader could not run either.
    executable = target.endswith(PROGRAM) and not os.fstatvfs(fd).f_flag & os.ST_NOEXEC
    noexec = 0 if executable else MS_NOEXEC
    _mount("seal what it is shown", None, target, None, MS_REMOUNT | MS_BIND | SEALED | noexec)


def _open_program() -> None:
    """The program as EXEC_FD, which is closed as it is executed. Its name is taken away, so that there
    is nothing left that could be executed by name: execveat(2) ignores the descriptor for an absolute path.
    """
    program = os.open(PROGRAM, os.O_RDONLY | os.O_CLOEXEC)
    resource.setrlimit(resource.RLIMIT_NOFILE, (EXEC_FD + 1, EXEC_FD + 1))
    os.dup2(program, EXEC_FD, inheritable=False)
    os.close(program)
    _call("take the program's name away", _LIBC.umount2(os.fsencode(PROGRAM), MNT_DETACH))


def _limit(bounds: Bounds) -> None:
    for name, value in (
        (resource.RLIMIT_CPU, bounds.cpu_seconds),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_STACK, 8 * 1024 * 1024),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_SIGPENDING, 16),
        (resource.RLIMIT_NICE, 0),
        (resource.RLIMIT_RTPRIO, 0),
    ):
        resource.setrlimit(name, (value, value))


def _drop_privileges(user: int) -> None:
    """Another user, without a capability, and without a way to get one."""
    for capability in range(LAST_CAPABILITY + 1):
        # EINVAL: the kernel does not have so many.
        if _LIBC.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) and ctypes.get_errno() != errno.EINVAL:
            raise StepError("drop the bounding set", ctypes.get_errno())
    prctl("lock the secure bits", PR_SET_SECUREBITS, SECUREBITS)
    prctl("clear the ambient set", PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    column = MACHINES[platform.machine()].column
    none = struct.pack("=IiIIIIII", CAPABILITY_VERSION, 0, 0, 0, 0, 0, 0, 0)
    _call("drop all capabilities", _syscall(CAPSET[column], none[:8], none[8:]))
    prctl("forbid new privileges", PR_SET_NO_NEW_PRIVS, 1)


def _tie_to_keeper(ends: Ends) -> None:
    """Die with the keeper, also if it is gone already. A change of user forgets this, so it comes after."""
    prctl("tie to its keeper", PR_SET_PDEATHSIG, signal.SIGKILL)
    poll = select.poll()
    poll.register(ends.lifeline, select.POLLIN)
    if poll.poll(0):
        os._exit(1)
    os.close(ends.lifeline)


class _Program(ctypes.Structure):
    """``struct sock_fprog``."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


def _execute(account: int, user: int, arguments: list[str], memory_bytes: int) -> None:
    """The last steps. What they need of memory is there before the limit of memory strikes."""
    machine = platform.machine()
    code = filter_program(machine)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = _Program(len(code) // 8, ctypes.addressof(buffer))
    argv = (ctypes.c_char_p * (len(arguments) + 1))(*[os.fsencode(item) for item in arguments], None)
    envp = (ctypes.c_char_p * 1)(None)
    column = MACHINES[machine].column
    number = EXECVEAT[column]
    memory = ctypes.create_string_buffer(struct.pack("=QQ", memory_bytes, memory_bytes), 16)
    prctl("filter its system calls", PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(program))
    _prove(os.pread(account, 65536, 0).decode("ascii", "replace"), user)
    _call("limit its memory", _syscall(PRLIMIT64[column], 0, resource.RLIMIT_AS, memory, None))
    _call("exec", _syscall(number, EXEC_FD, b"", argv, envp, AT_EMPTY_PATH))


def _prove(account: str, user: int) -> None:
    """Hold what the kernel says of this process against what was meant; any difference stops it."""
    found = {key: value.split() for key, _colon, value in (line.partition(":") for line in account.splitlines())}
    ids, zero = [str(user)] * 4, [f"{0:016x}"]
    meant = {"Uid": ids, "Gid": ids, "Groups": [], "NoNewPrivs": ["1"], "Seccomp": ["2"]}
    meant.update({name: zero for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")})
    for name, value in meant.items():
        if found.get(name) != value:
            raise StepError(f"the kernel says {name} is {' '.join(found.get(name) or ['unknown'])[:80]}", errno.EPERM)


def report_failure(report: int, error: BaseException) -> None:
    """Say which step failed. A second report behind it is not read."""
    step = error.step if isinstance(error, StepError) else f"{type(error).__name__} {error}"[:200]
    number = error.number if isinstance(error, StepError) else getattr(error, "errno", None) or errno.EIO
    kind = "exec" if step == "exec" else "step"
    with contextlib.suppress(OSError):
        os.write(report, f"{kind} {number} {step}\n".encode("ascii", "replace"))


def enter_namespaces() -> None:
    _call("a namespace of processes", _LIBC.unshare(CLONE_NEWPID))
    for flag in WANTED_NAMESPACES:
        # Without them it is confined as well: see the filter.
        _LIBC.unshare(flag)


# System calls that Python 3.8 has no name for

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.syscall.restype = ctypes.c_long
_LIBC.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
_LIBC.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)
_LIBC.unshare.argtypes = (ctypes.c_int,)
_LIBC.prctl.argtypes = (ctypes.c_int, *[ctypes.c_ulong] * 4)


def _call(step: str, result: int) -> None:
    if result < 0:
        raise StepError(step, ctypes.get_errno())


def _syscall(number: int, *arguments: object) -> int:
    values = [ctypes.c_long(item) if isinstance(item, int) else item for item in arguments]
    return int(_LIBC.syscall(ctypes.c_long(number), *values))


def prctl(step: str, option: int, *arguments: int) -> None:
    padded = (*arguments, 0, 0, 0, 0)[:4]
    _call(step, _LIBC.prctl(option, *padded))


def _mount(
    step: str, source: str | None, target: str, kind: str | None, flags: int, options: str | None = None
) -> None:
    coded = [None if item is None else os.fsencode(item) for item in (source, target, kind)]
    _call(step, _LIBC.mount(coded[0], coded[1], coded[2], flags, None if options is None else options.encode()))
