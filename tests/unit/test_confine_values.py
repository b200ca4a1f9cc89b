# SPDX-License-Identifier: GPL-3.0-or-later
"""What confines a bundle's loader, value by value: the kernel's numbers, what is read of it, what stops it.

That all of it holds against a hostile program is test_confined's.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.confine import confined, confinement
from ansible_collections.ebpf.fleet.plugins.module_utils.confine.confinement import Bounds, StepError

BOUNDS = Bounds(20, 10, 256 * 1024 * 1024, 64, 16)


def test_the_numbers_are_those_of_the_kernels_headers() -> None:
    """linux/mount.h, linux/prctl.h, linux/sched.h, linux/capability.h."""
    mount = {"RDONLY": 1, "NOSUID": 2, "NODEV": 4, "NOEXEC": 8, "REMOUNT": 32, "BIND": 4096, "REC": 16384,
             "PRIVATE": 262144}  # fmt: skip
    assert {name: getattr(confinement, f"MS_{name}") for name in mount} == mount
    assert (confinement.SEALED, confinement.MNT_DETACH) == (1 | 2 | 4, 2)
    clone = {"NEWNS": 0x20000, "NEWCGROUP": 0x2000000, "NEWUTS": 0x4000000, "NEWIPC": 0x8000000,
             "NEWPID": 0x20000000, "NEWNET": 0x40000000}  # fmt: skip
    assert {name: getattr(confinement, f"CLONE_{name}") for name in clone} == clone
    prctl = {"PR_SET_PDEATHSIG": 1, "PR_SET_SECCOMP": 22, "PR_CAPBSET_DROP": 24, "PR_SET_SECUREBITS": 28,
             "PR_SET_NO_NEW_PRIVS": 38, "PR_CAP_AMBIENT": 47, "PR_CAP_AMBIENT_CLEAR_ALL": 4, "SECCOMP_MODE_FILTER": 2,
             "CAPABILITY_VERSION": 0x20080522, "AT_EMPTY_PATH": 0x1000}  # fmt: skip
    assert {name: getattr(confinement, name) for name in prctl} == prctl


def test_the_secure_bits_are_those_that_are_locked() -> None:
    """linux/securebits.h: NOROOT 0 and its lock, the locks of NO_SETUID_FIXUP 2 and KEEP_CAPS 4, and of
    NO_CAP_AMBIENT_RAISE 6 both."""
    assert sum(1 << bit for bit in (0, 1, 3, 5, 6, 7)) == confinement.SECUREBITS


@pytest.mark.parametrize(("result", "fails"), [(-1, True), (0, False), (7, False)])
def test_only_a_negative_result_is_a_failed_step(result: int, fails: bool) -> None:
    if not fails:
        confinement._call("it", result)
        return
    with pytest.raises(StepError) as failed:
        confinement._call("it", result)
    assert failed.value.step == "it"


USER = 4_000_000_000
ACCOUNT = {
    "Name": "python3", "Uid": f"{USER}\t" * 4, "Gid": f"{USER}\t" * 4, "Groups": " ", "NoNewPrivs": "1", "Seccomp": "2",
    **{name: "0" * 16 for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")},
}  # fmt: skip


def account(**changes: str | None) -> str:
    found = {**ACCOUNT, **changes}
    return "".join(f"{name}:\t{value}\n" for name, value in found.items() if value is not None)


@pytest.mark.parametrize(
    "changes",
    [
        {"Uid": f"0\t{USER}\t{USER}\t{USER}"},
        {"Gid": f"{USER}\t{USER}\t{USER}"},
        {"Groups": "0"},
        {"NoNewPrivs": "0"},
        {"Seccomp": "1"},
        {"Seccomp": None},
        {"CapInh": "0" * 15 + "1"},
        {"CapPrm": "0" * 15 + "1"},
        {"CapEff": "0000003fffffffff"},
        {"CapBnd": "0000003fffffffff"},
        {"CapAmb": None},
    ],
)
def test_what_the_kernel_says_otherwise_than_meant_stops_it(changes: dict[str, str | None]) -> None:
    confinement._prove(account(), USER)
    (name,) = changes
    with pytest.raises(StepError, match=f"the kernel says {name} is ") as stopped:
        confinement._prove(account(**changes), USER)
    assert stopped.value.number == errno.EPERM


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (StepError("exec", errno.ENOEXEC), f"exec {errno.ENOEXEC} exec\n"),
        (StepError("drop it", errno.EPERM), f"step {errno.EPERM} drop it\n"),
        (OSError(errno.EMFILE, "full"), f"step {errno.EMFILE} OSError [Errno {errno.EMFILE}] full\n"),
        (RuntimeError("odd é"), f"step {errno.EIO} RuntimeError odd ?\n"),
    ],
)
def test_the_step_that_failed_is_reported(error: BaseException, line: str) -> None:
    near, far = os.pipe()
    confinement.report_failure(far, error)
    os.close(far)
    assert os.read(near, 4096).decode() == line
    os.close(near)


@pytest.mark.parametrize(
    ("report", "how", "status"),
    [
        ("exit 0 \n", "exit status 0", 0),
        ("exit 3 \n", "exit status 3", 3),
        ("signal 9 \nexit 0 \n", "killed by signal 9", None),
    ],
)
def test_how_the_program_ended(report: str, how: str, status: int | None) -> None:
    pipes = confined._Pipes()
    ended = confined._understand(report, {pipes.stdout: b"out", pipes.stderr: b"err"}, pipes)
    pipes.close()
    assert ended == confined.Ended(how, status, b"out", b"err")


@pytest.mark.parametrize(
    ("report", "code", "words"),
    [
        (f"exec {errno.ENOEXEC} exec\n", "EF_LOADER_ARCH", "does not run here (Exec format error)"),
        (f"exec {errno.ENOMEM} exec\n", "EF_NO_CONFINEMENT", "so it was not run: exec: Cannot allocate memory"),
        (f"step {errno.EPERM} drop it\n", "EF_NO_CONFINEMENT", "so it was not run: drop it: Operation not permitted"),
        ("", "EF_NO_CONFINEMENT", "so it was not run: what confines it was killed"),
        ("odd\n", "EF_NO_CONFINEMENT", "so it was not run: what confines it was killed"),
    ],
)
def test_what_could_not_be_confined_was_not_run(report: str, code: str, words: str) -> None:
    with pytest.raises(FleetError) as refused:
        confined._understand(report, {}, None)  # type: ignore[arg-type]
    assert refused.value.code == code and words in refused.value.message


def collected(pipes: Any, stdout: bytes, stderr: bytes = b"", report: bytes = b"exit 0 \n", **bounds: Any) -> Any:
    for fd, data in ((pipes.stdout_far, stdout), (pipes.stderr_far, stderr), (pipes.report_far, report)):
        os.write(fd, data)
    pipes.close_far_ends()
    return confined._collect(pipes, BOUNDS._replace(**bounds))


@pytest.mark.parametrize(
    ("stdout", "stderr", "how"),
    [
        (b"x" * 64, b"y" * 16, "exit status 0"),
        (b"x" * 65, b"", "killed, wrote more than 64 bytes"),
        (b"", b"y" * 17, "killed, wrote more than 16 bytes"),
    ],
)
def test_each_pipe_is_read_up_to_its_bound(stdout: bytes, stderr: bytes, how: str) -> None:
    pipes = confined._Pipes()
    ended = collected(pipes, stdout, stderr)
    assert (ended.ended, ended.stdout, ended.stderr) == (how, stdout, stderr)
    pipes.close()
    assert pipes.open == set()


def test_a_program_that_does_not_end_is_given_up() -> None:
    pipes = confined._Pipes()
    ended = confined._collect(pipes, BOUNDS._replace(seconds=0.1))
    pipes.close()
    assert (ended.ended, ended.status) == ("killed, not done within 0.1 s", None)


STARTED_WITHOUT = """
import os, sys
sys.path[:0] = {path!r}
from ansible_collections.ebpf.fleet.plugins.module_utils.confine import confined
answer = os.dup(1)
os.set_inheritable(answer, False)
for fd in {closed!r}:
    os.close(fd)
pipes = confined._Pipes()
os.write(answer, (str(min(pipes.open)) + " " + str(len(pipes.open))).encode())
"""


@pytest.mark.parametrize("closed", [[0], [1], [2], [0, 1, 2], []])
def test_no_pipe_is_one_of_the_standard_three(closed: list[int]) -> None:
    """A module may have been started without them."""
    script = STARTED_WITHOUT.format(path=sys.path, closed=closed)
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, check=True, timeout=60)
    least, count = map(int, done.stdout.split())
    assert least > 2 and count == 9


SHOWN = """
import ctypes, json, os, sys
sys.path[:0] = {path!r}
from ansible_collections.ebpf.fleet.plugins.module_utils.confine import confinement
assert ctypes.CDLL(None).unshare(confinement.CLONE_NEWNS) == 0
confinement._mount("make it private", None, "/", None, confinement.MS_REC | confinement.MS_PRIVATE)
found = {{}}
for name in ("bundle", "program", "file"):
    target = f"{{sys.argv[1]}}/deep/er/{{name}}"
    confinement._bind(os.open(f"{{sys.argv[1]}}/{{name}}", os.O_RDONLY), target)
    flags = os.statvfs(target).f_flag
    found[name] = [word for word in ("RDONLY", "NOSUID", "NODEV", "NOEXEC") if flags & getattr(os, "ST_" + word)]
print(json.dumps(found))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root for a mount namespace")
def test_what_a_program_is_shown_is_sealed_and_only_itself_can_run(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "program").touch()
    (tmp_path / "file").touch()
    script = SHOWN.format(path=sys.path)
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, check=True, timeout=60)
    sealed = ["RDONLY", "NOSUID", "NODEV"]
    # Where the folder itself forbids execution, that stays forbidden.
    program = sealed + ["NOEXEC"] * bool(os.statvfs(tmp_path).f_flag & os.ST_NOEXEC)
    assert json.loads(done.stdout) == {"bundle": [*sealed, "NOEXEC"], "program": program, "file": [*sealed, "NOEXEC"]}


DROPPED = """
import json, os, struct, sys
sys.path[:0] = {path!r}
from ansible_collections.ebpf.fleet.plugins.module_utils.confine import confinement
# Root of a container may have capabilities to hand on: here one of each of the two words that it has any of.
column = confinement.MACHINES[os.uname().machine].column
held = [line.split()[1] for line in open("/proc/self/status") if line.startswith("CapPrm")]
low, high = int(held[0], 16) & 0xffffffff, int(held[0], 16) >> 32
some = struct.pack("=IiIIIIII", confinement.CAPABILITY_VERSION, 0, low, low, low & -low, high, high, high & -high)
confinement._call("hand some on", confinement._syscall(confinement.CAPSET[column], some[:8], some[8:]))
account = os.open("/proc/self/status", os.O_RDONLY)
os.setgroups([1, 2])
before = os.pread(account, 65536, 0).decode()
confinement._drop_privileges({user})
print(json.dumps([before, os.pread(account, 65536, 0).decode()]))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has capabilities to give up")
def test_no_capability_of_any_set_is_kept_nor_a_group() -> None:
    script = DROPPED.format(path=sys.path, user=USER)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    before, after = (dict(line.split(":", 1) for line in one.splitlines()) for one in json.loads(done.stdout))
    assert int(before["CapInh"], 16) != 0 and before["Groups"].split() == ["1", "2"]
    kept = {name: after[name].split() for name in ACCOUNT if name.startswith("Cap") or name in ("Groups", "NoNewPrivs")}
    none = {name: ["0" * 16] for name in kept if name.startswith("Cap")}
    assert kept == {**none, "Groups": [], "NoNewPrivs": ["1"]}
    assert after["Uid"].split() == after["Gid"].split() == [str(USER)] * 4
