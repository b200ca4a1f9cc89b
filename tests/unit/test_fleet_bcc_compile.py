# SPDX-License-Identifier: GPL-3.0-or-later
"""The BCC collector's compilations: the service's side with real children, and the child's side with BCC stood in for.

What LLVM and the kernel do with a source is tested in the lab, on hosts that have python3-bpfcc.
"""

from __future__ import annotations

import array
import ctypes
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Iterator

import pytest
from ansible_collections.ebpf.fleet.collectors.fleet_bcc import compile_job, compiler
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.attach import Hook
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.basics import CannotRunError
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.bundle import Source
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.compile_job import Compiled, Job
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.records import Field

SOURCE = Source("probe", {}, {"ef_a": Hook("raw_tp", "sched_switch"), "ef_b": Hook("kprobe", "do_exit")}, b"int x\xff;")

# ---- the service's side: a child that answers as it is told to ----

CHILD = """
import array, json, os, socket, sys, time
assert sys.argv[1:3] == ["compile", "--socket"], sys.argv
request = json.loads(sys.stdin.buffer.read())
print(json.dumps([request, dict(os.environ), sys.flags.isolated, sys.flags.dont_write_bytecode]), flush=True)
def answer(document, paths=()):
    fds = [os.open(path, os.O_RDONLY) for path in paths]
    with socket.socket(fileno=int(sys.argv[3])) as out:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        out.sendmsg([json.dumps(document).encode()], rights)
"""


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Any]:
    """Begin a job whose child does what the given lines of Python do."""
    jobs: list[Job] = []

    def start(lines: str, events_map: str | None = "ef_events") -> Job:
        entry = tmp_path / "bcc.py"
        entry.write_text(CHILD + lines)
        jobs.append(Job(entry, SOURCE, events_map))
        return jobs[-1]

    yield start
    for job in jobs:
        if job.socket.fileno() >= 0:
            job.close()


def result(job: Job) -> Compiled:
    """What poll() gives as soon as there is something."""
    assert select.select([job.socket], [], [], 30)[0]
    compiled = job.poll()
    assert compiled is not None
    return compiled


def failure(job: Job) -> CannotRunError:
    with pytest.raises(CannotRunError) as failed:
        result(job)
    return failed.value


def name_of(fd: int) -> str:
    return os.readlink(f"/proc/self/fd/{fd}")


def test_the_child_hands_over_programs_maps_and_fields(begin: Any, tmp_path: Path) -> None:
    paths = [str(tmp_path / name) for name in ("a", "b", "counters", "events")]
    for path in paths:
        Path(path).touch()
    job = begin(f"""
answer({{"programs": ["ef_a", "ef_b"], "maps": ["ef_counters", "ef_events"],
         "fields": [["ktime_ns", "uint", 0, 8], ["pid", "uint", 8, 4]]}}, {paths!r})
""")
    compiled = result(job)
    assert {name: name_of(fd) for name, fd in compiled.programs.items()} == {"ef_a": paths[0], "ef_b": paths[1]}
    assert {name: name_of(fd) for name, fd in compiled.maps.items()} == {"ef_counters": paths[2], "ef_events": paths[3]}
    assert compiled.fields == [Field("ktime_ns", "uint", 0, 8), Field("pid", "uint", 8, 4)]
    fds = [*compiled.programs.values(), *compiled.maps.values()]
    assert len(set(fds)) == 4 and not any(os.get_inheritable(fd) for fd in fds)
    compiled.close()
    for fd in fds:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


def test_the_child_is_given_the_source_and_nothing_of_our_environment(
    begin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LD_PRELOAD_OF_TEST", "x")
    for events_map in ("ef_events", None):
        job = begin('answer({"code": "EF_NO_BCC", "reason": "x"})', events_map)
        failure(job)
        request, environment, isolated, no_bytecode = json.loads(os.pread(job.output, 1 << 16, 0))
        assert request == {
            "text": "int x\ufffd;", "programs": {"ef_a": "raw_tp", "ef_b": "kprobe"}, "events_map": events_map,
        }  # fmt: skip
        environment.pop("LC_CTYPE", None)  # Python's own
        assert environment == {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
        assert (isolated, no_bytecode) == (1, 1)


def test_while_it_works_there_is_no_result_and_no_failure(begin: Any) -> None:
    job = begin("time.sleep(60)")
    assert job.poll() is None
    assert 299 < job.until - time.monotonic() <= compile_job.COMPILE_SECONDS == 300
    assert job.process.poll() is None


@pytest.mark.parametrize(("now", "failed"), [(-1, False), (0, False), (1, True)])
def test_after_five_minutes_it_has_failed(begin: Any, monkeypatch: pytest.MonkeyPatch, now: int, failed: bool) -> None:
    job = begin("time.sleep(60)")
    job.until = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0 + now)
    if not failed:
        assert job.poll() is None
        return
    with pytest.raises(CannotRunError, match="the compiler was not ready within 300 s") as late:
        job.poll()
    assert late.value.code == "EF_BCC_COMPILE"


def test_a_child_that_ends_without_an_answer_is_told_with_its_last_words(begin: Any) -> None:
    error = failure(begin('print("one", flush=True); print("  two  ", file=sys.stderr, flush=True); sys.exit(7)'))
    assert error.code == "EF_BCC_COMPILE"
    assert error.message.startswith("the compiler ended with 7: ") and error.message.endswith("one | two")


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("EF_BCC_COMPILE", "it is bad; it said: x.c:1: error: odd"),
        ("EF_LOAD_REJECTED", "it is bad; it said: x.c:1: error: odd"),
        ("EF_NO_HEADERS", "it is bad"),
        ("EF_NO_BCC", "it is bad"),
    ],
)
def test_what_the_compiler_said_is_told_where_it_is_why(begin: Any, code: str, text: str) -> None:
    job = begin(f'print("x.c:1: error: odd", flush=True); answer({{"code": "{code}", "reason": "it is bad"}})')
    error = failure(job)
    assert (error.code, error.message) == (code, text)


def test_a_child_that_says_nothing_is_told_without_its_words(begin: Any) -> None:
    job = begin('os.ftruncate(1, 0); answer({"code": "EF_BCC_COMPILE", "reason": "it is bad"})')
    assert failure(job).message == "it is bad"


def words(tmp_path: Path, text: str | bytes) -> str:
    """The last words of a compiler that wrote this."""
    job = Job.__new__(Job)
    path = tmp_path / "output"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    job.output = os.open(path, os.O_RDONLY)
    try:
        return job._last_words()
    finally:
        os.close(job.output)


def numbered(word: str, count: int) -> list[str]:
    return [f"{word} {number}" for number in range(count)]


def test_the_first_five_errors_are_told(tmp_path: Path) -> None:
    errors = numbered("x.c: error: odd", 7)
    assert words(tmp_path, "\n".join(["note", *errors, "more"])) == " | ".join(errors[:5])
    assert words(tmp_path, "\n".join(["note", *errors[:4], "more"])) == " | ".join(errors[:4])


def test_without_an_error_the_last_five_lines_are_told(tmp_path: Path) -> None:
    lines = numbered("line", 7)
    assert words(tmp_path, "\n\n  ".join(lines) + "\n \n") == " | ".join(lines[2:])
    assert words(tmp_path, "\n".join(lines[:3])) == " | ".join(lines[:3])
    assert words(tmp_path, "") == ""


def test_its_words_are_bounded(tmp_path: Path) -> None:
    assert words(tmp_path, "x" * 799) == "x" * 799
    assert words(tmp_path, "x" * 801) == "x" * 800
    assert words(tmp_path, b"\xff") == "\ufffd"
    assert compile_job.CHILD_SAYS_BYTES == 32768
    assert words(tmp_path, "\n".join(["a" * 32766, "error: unread"])) == "a" * 800
    assert words(tmp_path, "\n".join(["a" * 32700, "error: read"])) == "error: read"


def test_to_close_ends_the_child_and_lets_everything_go(begin: Any) -> None:
    job = begin("time.sleep(60)")
    fd, output = job.socket.fileno(), job.output
    assert os.get_inheritable(output) is False
    job.close()
    assert job.process.returncode == -signal.SIGKILL
    for each in (fd, output):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(each)


def test_to_kill_ends_the_child_and_it_is_told_as_ended(begin: Any) -> None:
    job = begin("time.sleep(60)")
    job.kill()
    job.kill()
    assert failure(job).message.startswith("the compiler ended with -9: ")


def test_only_the_descriptors_of_a_message_are_taken(begin: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of other kinds of control messages none, and of a torn one only what is whole."""
    job = begin("time.sleep(60)")
    mine = [os.dup(2) for _ in range(3)]
    payload = array.array("i", mine).tobytes()
    asked: list[tuple[int, int]] = []
    ancillary = [
        (socket.SOL_SOCKET, socket.SCM_RIGHTS, payload[:8] + b"\1\2"),
        (socket.SOL_SOCKET, socket.SCM_CREDENTIALS, payload),
        (socket.IPPROTO_IP, socket.SCM_RIGHTS, payload),
        (socket.SOL_SOCKET, socket.SCM_RIGHTS, payload[8:]),
    ]

    def recvmsg(size: int, room: int) -> tuple[Any, ...]:
        asked.append((size, room))
        return b"data", ancillary, 0, None

    kept, job.socket = job.socket, SimpleNamespace(recvmsg=recvmsg)
    try:
        for fd in mine:
            os.set_inheritable(fd, True)
        assert job._receive() == (b"data", mine)
        assert not any(os.get_inheritable(fd) for fd in mine)
    finally:
        job.socket = kept
        for fd in mine:
            os.close(fd)
    assert asked == [(65536, socket.CMSG_SPACE(256))]


# ---- the child's side ----


class Lib:
    """Stands for BCC's library: the maps of a module, and the fields of each map of events."""

    def __init__(self, maps: dict[bytes, int], fields: dict[bytes, list[bytes]]) -> None:
        self.maps, self.fields = maps, fields
        for name in ("bpf_num_tables", "bpf_table_name", "bpf_table_fd_id"):
            function = getattr(self, f"_{name}")
            setattr(self, name, SimpleCallable(function))

    def _bpf_num_tables(self, module: str) -> int:
        assert module == "the module"
        return len(self.maps)

    def _bpf_table_name(self, module: str, index: int) -> bytes:
        assert module == "the module"
        return list(self.maps)[index]

    def _bpf_table_fd_id(self, module: str, index: int) -> int:
        assert module == "the module"
        return list(self.maps.values())[index]

    def bpf_perf_event_fields(self, module: str, name: bytes) -> int:
        assert module == "the module"
        return len(self.fields[name])

    def bpf_perf_event_field(self, module: str, name: bytes, index: int) -> bytes:
        assert module == "the module"
        return self.fields[name][index]


class SimpleCallable:
    """A function of ctypes: it is told which types it has."""

    def __init__(self, function: Any) -> None:
        self.function, self.restype, self.argtypes = function, None, None

    def __call__(self, *given: Any) -> Any:
        return self.function(*given)


def bcc_with(
    maps: dict[bytes, int] | None = None,
    fields: dict[bytes, list[bytes]] | None = None,
    refuses: str = "",
    compiles: bool = True,
) -> Any:
    """A module `bcc` as far as the child uses one."""

    class BPF:
        RAW_TRACEPOINT, KPROBE = 17, 2
        loaded: list[tuple[str, int]] = []
        module = "the module"

        def __init__(self, text: str) -> None:
            if not compiles:
                raise ValueError("no C")
            self.text = text

        def load_func(self, name: str, kind: int) -> Any:
            if name == refuses:
                raise ValueError("the verifier says no")
            self.loaded.append((name, kind))
            return SimpleNamespace(fd=100 + len(self.loaded))

    return SimpleNamespace(BPF=BPF, lib=Lib(maps or {}, fields or {}), __file__="/x/bcc.py")


@pytest.mark.parametrize(
    ("build", "archive", "there"), [(True, False, True), (False, True, True), (True, True, True), (False, False, False)]
)
def test_headers_are_of_the_running_kernel(
    monkeypatch: pytest.MonkeyPatch, build: bool, archive: bool, there: bool
) -> None:
    release = os.uname().release
    folder = f"/lib/modules/{release}/build/include"
    monkeypatch.setattr(compiler.os.path, "isdir", lambda path: {folder: build}[path])
    monkeypatch.setattr(compiler.os.path, "exists", lambda path: {"/sys/kernel/kheaders.tar.xz": archive}[path])
    if there:
        compiler.need_headers()
        return
    with pytest.raises(CannotRunError, match=f"install the package linux-headers-{release}") as failed:
        compiler.need_headers()
    assert failed.value.code == "EF_NO_HEADERS"


def test_bcc_is_imported_where_it_is_bpfs(monkeypatch: pytest.MonkeyPatch) -> None:
    made = bcc_with()
    monkeypatch.setitem(sys.modules, "bcc", made)
    assert compiler.import_bcc() is made
    monkeypatch.setitem(sys.modules, "bcc", SimpleNamespace(__file__="/x/bcc.py"))  # type: ignore[arg-type]
    with pytest.raises(CannotRunError, match="/x/bcc.py is not BPF's bcc; install the package") as failed:
        compiler.import_bcc()
    assert failed.value.code == "EF_NO_BCC"
    monkeypatch.setitem(sys.modules, "bcc", None)  # type: ignore[arg-type]
    with pytest.raises(CannotRunError, match="BCC cannot be loaded .*install the package python3-bpfcc") as failed:
        compiler.import_bcc()
    assert failed.value.code == "EF_NO_BCC"


def test_maps_are_listed_by_name_with_their_descriptors() -> None:
    bcc = bcc_with({b"ef_counters": 41, b"ef_config": 42})
    assert compiler.list_maps(bcc, "the module") == {"ef_counters": 41, "ef_config": 42}
    sizes = [ctypes.c_void_p, ctypes.c_size_t]
    assert [(each.restype, each.argtypes) for each in (
        bcc.lib.bpf_num_tables, bcc.lib.bpf_table_name, bcc.lib.bpf_table_fd_id
    )] == [(ctypes.c_size_t, sizes[:1]), (ctypes.c_char_p, sizes), (ctypes.c_int, sizes)]  # fmt: skip
    assert compiler.list_maps(bcc_with(), "the module") == {}


@pytest.mark.parametrize("name", [b"counters", b"ef_\xff", b"EF_x"])
def test_a_map_whose_name_is_not_ours_is_refused(name: bytes) -> None:
    with pytest.raises(CannotRunError, match="is not named ef_…; fix bcc.c") as failed:
        compiler.list_maps(bcc_with({b"ef_config": 41, name: 42}), "the module")
    assert failed.value.code == "EF_LOAD_REJECTED"


def test_fields_are_those_of_the_ring() -> None:
    bcc = bcc_with(fields={b"ef_events": [b"ktime_ns#u64", b"comm#char [16]"]})
    assert compiler.list_fields(bcc, "the module", "ef_events") == [
        Field("ktime_ns", "uint", 0, 8), Field("comm", "chars", 8, 16),
    ]  # fmt: skip
    assert compiler.list_fields(bcc, "the module", None) == []


REQUEST = {"text": "int x;", "programs": {"ef_b": "kprobe", "ef_a": "raw_tp", "ef_c": "kretprobe"}, "events_map": None}


def compiled(monkeypatch: pytest.MonkeyPatch, bcc: Any, **changes: Any) -> tuple[dict[str, Any], list[int], Any]:
    monkeypatch.setattr(compiler, "need_headers", lambda: None)
    monkeypatch.setattr(compiler, "import_bcc", lambda: bcc)
    return compiler.compile_source({**REQUEST, **changes})


def test_the_answer_has_its_descriptors_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    bcc = bcc_with({b"ef_counters": 41, b"ef_events": 42}, {b"ef_events": [b"pid#u32"]})
    answer, fds, keep = compiled(monkeypatch, bcc, events_map="ef_events")
    assert answer == {
        "programs": ["ef_b", "ef_a", "ef_c"], "maps": ["ef_counters", "ef_events"], "fields": [["pid", "uint", 0, 4]],
    }  # fmt: skip
    assert fds == [101, 102, 103, 41, 42]
    assert bcc.BPF.loaded == [("ef_b", 2), ("ef_a", 17), ("ef_c", 2)]
    assert keep.text == "int x;", "what holds the descriptors"


def test_a_source_that_does_not_compile_or_load_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CannotRunError, match="bcc.c does not compile or its maps are refused: no C") as failed:
        compiled(monkeypatch, bcc_with(compiles=False))
    assert failed.value.code == "EF_BCC_COMPILE"
    with pytest.raises(CannotRunError, match="program ef_a: the kernel refuses it: the verifier says no") as failed:
        compiled(monkeypatch, bcc_with(refuses="ef_a"))
    assert failed.value.code == "EF_LOAD_REJECTED"


def test_without_headers_bcc_is_not_even_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise CannotRunError("EF_NO_HEADERS", "no headers")

    monkeypatch.setattr(compiler, "need_headers", refuse)
    monkeypatch.setattr(compiler, "import_bcc", lambda: pytest.fail("it was loaded"))
    with pytest.raises(CannotRunError, match="no headers"):
        compiler.compile_source(REQUEST)


# ---- the child as a process ----

PROCESS = """
import ctypes, os, sys
from ansible_collections.ebpf.fleet.collectors.fleet_bcc import compiler
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.basics import CannotRunError

class Kept:
    def __del__(self):
        os.write(2, b"let go;")

def compile_source(request):
    print("words", flush=True)
    sys.stderr.write("last words;")
    dies = ctypes.c_int()
    ctypes.CDLL(None).prctl(2, ctypes.byref(dies), 0, 0, 0)  # PR_GET_PDEATHSIG
    name = open("/proc/self/comm").read().strip()
    score = open("/proc/self/oom_score_adj").read().strip()
    if request.get("fails"):
        raise CannotRunError("EF_BCC_COMPILE", request["fails"])
    fds = [os.open("/dev/null", os.O_RDONLY)] * request["fds"]
    return {"request": request, "name": name, "score": score, "dies": dies.value}, fds, Kept()

compiler.compile_source = compile_source
try:
    compiler.compile_main(int(sys.argv[1]))
finally:
    os.write(2, b"not reached;")
"""


def child(request: dict[str, Any]) -> tuple[dict[str, Any], list[int], subprocess.CompletedProcess[str]]:
    """The answer of a child that compiles nothing, how many descriptors came with it, and how it ended."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        done = subprocess.run(
            [sys.executable, "-c", PROCESS, str(theirs.fileno())], input=json.dumps(request), text=True,
            capture_output=True, pass_fds=[theirs.fileno()], timeout=60, check=False,
            env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
        )  # fmt: skip
        theirs.close()
        data, fds, _flags, _address = socket.recv_fds(ours, 1 << 16, 8)
        for fd in fds:
            os.close(fd)
    return json.loads(data), fds, done


@pytest.mark.parametrize("count", [0, 1, 3])
def test_the_child_answers_with_one_message_and_ends(count: int) -> None:
    answer, fds, done = child({"fds": count})
    assert answer["request"] == {"fds": count} and len(fds) == count
    assert answer["name"] == "ebpf-fleet-bcc", "by which the kill script finds it"
    assert answer["dies"] == signal.SIGKILL, "with the service"
    assert answer["score"] == "1000", "it is the first to go where memory is short"
    assert done.returncode == 0
    assert done.stdout == "" and done.stderr == "words\nlast words;let go;", "what is printed goes to one place"


@pytest.mark.parametrize(("text", "told"), [("no C", "no C"), ("a" + "b" * 1500, "b" * 1500)])
def test_the_child_answers_with_a_reason_of_bounded_length(text: str, told: str) -> None:
    answer, fds, done = child({"fails": text})
    assert (answer, fds, done.returncode) == ({"code": "EF_BCC_COMPILE", "reason": told}, [], 0)


@pytest.mark.parametrize(("before", "after", "ends"), [(50, 50, False), (50, 1, True), (1, 1, True), (50, 60, True)])
def test_a_child_without_its_service_ends(monkeypatch: pytest.MonkeyPatch, before: int, after: int, ends: bool) -> None:
    """Where the service ended before the kernel was asked, no signal comes any more."""
    parents, asked, ended = [before, after], [], []
    monkeypatch.setattr(compiler.os, "getppid", lambda: parents.pop(0))
    monkeypatch.setattr(compiler.os, "_exit", ended.append)
    monkeypatch.setattr(compiler, "LIBC", SimpleNamespace(prctl=lambda *given: asked.append(given)))
    compiler.die_with_parent()
    assert asked == [(1, signal.SIGKILL, 0, 0, 0)]
    assert ended == [1] * ends
