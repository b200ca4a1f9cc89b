# SPDX-License-Identifier: GPL-3.0-or-later
"""What our programs count and write, call by call: they are compiled for this machine, a hook is a function call."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

import pytest

from tests.loader.drivers import ARCH, ROOT, ask, build_for_here

# Variants whose hook is a kprobe: the arguments are in registers.
KPROBES = {("exec_policy", "kprobe"), ("tcp_connect_latency", "reduced"), ("tcp_retransmits", "reduced"),
           ("oom_kills", "reduced")}  # fmt: skip
Programs = Callable[..., list[str]]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    """Compiles a variant when it is first called for; returns the lines that it says."""
    folder = tmp_path_factory.mktemp("programs")

    def say(feature: str, variant: str, *words: str) -> list[str]:
        binary = folder / f"{feature}-{variant}"
        if not binary.exists():
            compile_for_here(feature, variant, binary)
        return ask(binary, *words).splitlines()

    return say


def compile_for_here(feature: str, variant: str, binary: Path) -> None:
    options = ["-Wno-unused-function", f"-I{ROOT}/bpf/features", f'-DPROGRAM="{feature}/{feature}.bpf.c"']
    options += [f"-DIS_{feature.upper()}", f"-DEF_VARIANT_{variant.upper()}"]
    options += ["-DBY_REGISTERS"] * ((feature, variant) in KPROBES)
    build_for_here("program", binary, *options)


def numbers(row: str) -> list[int]:
    return [int(word) for word in row.split()]


def records(lines: list[str]) -> list[bytes]:
    """Without their weight, the u64 behind the time; each stands for itself here, where nothing samples."""
    whole = [bytes.fromhex(line.split()[1]) for line in lines if line.startswith("record ")]
    assert all(number(one[8:16]) == 1 for one in whole)
    return [one[:8] + one[16:] for one in whole]


def counters(lines: list[str]) -> list[int]:
    """Produced, delivered, dropped, sampled out."""
    return next(numbers(line) for line in lines if line[0].isdigit() and " at " not in line)


def table(lines: list[str]) -> dict[str, int]:
    return {line.split()[-1]: int(line.split()[0]) for line in lines if " at " in line}


def histogram(lines: list[str]) -> dict[int, int]:
    return {int(line.split()[1]): int(line.split()[2]) for line in lines if line.startswith("slot ")}


def le(*values: tuple[int, int]) -> str:
    """Numbers with their size in bytes, as a key holds them."""
    return b"".join(value.to_bytes(size, "little") for value, size in values).hex()


def text(data: bytes) -> str:
    return data.partition(b"\0")[0].decode()


def number(data: bytes) -> int:
    return int.from_bytes(data, "little")


@pytest.mark.parametrize("variant", ["full", "reduced", "kprobe"])
def test_an_execution_of_a_file_without_a_name_is_told_and_never_denied(programs: Programs, variant: str) -> None:
    lines = programs("exec_policy", variant, "1", "0", "2")
    assert [line for line in lines if line.startswith("=")] == ["= 0"] * 3 and counters(lines) == [1, 1, 0, 0]
    (one,) = records(lines)
    assert len(one) == 160
    assert (number(one[:8]), number(one[8:12]), number(one[12:16])) == (1000, 41, 52)
    assert [text(one[at:]) for at in (16, 32, 96)] == ["current", "memfd:x", "/proc/self/fd/3"]
    lines = programs("exec_policy", variant, "full ring", "0")
    assert counters(lines) == [1, 0, 1, 0] and lines[0] == "= 0"


@pytest.mark.parametrize("variant", ["full", "reduced", "perf"])
def test_each_execution_is_told_once(programs: Programs, variant: str) -> None:
    lines = programs("exec_events", variant, "5", "5")
    assert counters(lines) == [2, 2, 0, 0]
    one, other = records(lines)
    assert one == other and (number(one[:8]), number(one[8:12])) == (1000, 62)
    full = variant == "full"
    uid, comm = (16, 24) if full else (12, 16)
    assert (number(one[uid : uid + 4]), text(one[comm:]), len(one)) == (53, "task", 168 if full else 32)
    assert counters(programs("exec_events", variant, "full ring", "5")) == [1, 0, 1, 0]


@pytest.mark.parametrize(
    ("letters", "kept", "cut"), [(0, 0, 0), (1, 1, 0), (127, 127, 0), (128, 127, 1), (200, 127, 1)]
)
def test_a_long_file_name_is_cut_and_said_to_be(programs: Programs, letters: int, kept: int, cut: int) -> None:
    (one,) = records(programs("exec_events", "full", str(letters)))
    assert number(one[12:16]) == 61
    assert (number(one[20:24]), text(one[40:168])) == (cut, "n" * kept)


def test_a_file_name_that_cannot_be_read_is_empty(programs: Programs) -> None:
    (one,) = records(programs("exec_events", "full", "-1"))
    assert (number(one[20:24]), one[40]) == (0, 0)


ESTABLISHED, SYN_SENT, SYN_RECV, CLOSE = 1, 2, 3, 7
TCP, OTHER = 6, 132


def state(socket: int, before: int, after: int, now: int, error: int = 0, protocol: int = TCP, family: int = 2) -> str:
    return f"{socket},{before},{after},{now},{family},{error},{protocol}"


@pytest.mark.parametrize("variant", ["full", "reduced", "tracepoint"])
class TestConnect:
    def test_the_time_from_the_first_packet_to_the_answer(self, programs: Programs, variant: str) -> None:
        calls = [state(0, CLOSE, SYN_SENT, 1000), state(1, CLOSE, SYN_SENT, 1010)]
        calls += [state(0, SYN_SENT, ESTABLISHED, 1005), state(1, SYN_SENT, ESTABLISHED, 5010)]
        lines = programs("tcp_connect_latency", variant, *calls)
        assert lines[0] == "= 0" and counters(lines) == [2, 2, 0, 0] and table(lines) == {}
        assert histogram(lines) == {2: 1, 11: 1, 64: 5 + 4000}

    def test_what_is_no_attempt_of_this_host_is_not_one(self, programs: Programs, variant: str) -> None:
        calls = [state(0, 10, SYN_RECV, 1), state(0, SYN_RECV, ESTABLISHED, 5), state(0, ESTABLISHED, 4, 6)]
        calls += [state(1, SYN_SENT, ESTABLISHED, 9), state(1, 4, CLOSE, 10)]
        lines = programs("tcp_connect_latency", variant, *calls)
        assert counters(lines) == [0, 0, 0, 0] and histogram(lines) == {} and table(lines) == {}

    def test_a_simultaneous_open_ends_when_it_is_established(self, programs: Programs, variant: str) -> None:
        lines = programs("tcp_connect_latency", variant, state(0, CLOSE, SYN_SENT, 1), state(0, SYN_SENT, SYN_RECV, 3),
                         state(0, SYN_RECV, ESTABLISHED, 9))  # fmt: skip
        assert counters(lines) == [1, 1, 0, 0] and histogram(lines) == {3: 1, 64: 8}

    def test_a_failure_is_counted_by_family_and_error(self, programs: Programs, variant: str) -> None:
        words = []
        for socket, (error, family) in enumerate(((111, 2), (0, 10), (111, 2))):
            words += [state(socket, CLOSE, SYN_SENT, 1, family=family),
                      state(socket, SYN_SENT, CLOSE, 2, error=error, family=family)]  # fmt: skip
        lines = programs("tcp_connect_latency", variant, *words)
        assert counters(lines) == [3, 3, 0, 0] and histogram(lines) == {}
        assert table(lines) == {le((2, 2), (111, 2)): 2, le((10, 2), (0, 2)): 1}

    def test_an_attempt_whose_end_was_missed_is_dropped_by_the_next(self, programs: Programs, variant: str) -> None:
        lines = programs("tcp_connect_latency", variant, state(0, CLOSE, SYN_SENT, 1), state(0, CLOSE, SYN_SENT, 100),
                         state(0, SYN_SENT, ESTABLISHED, 104), state(0, SYN_SENT, ESTABLISHED, 200))  # fmt: skip
        assert counters(lines) == [2, 1, 1, 0] and histogram(lines) == {2: 1, 64: 4}

    def test_what_finds_no_place_is_dropped(self, programs: Programs, variant: str) -> None:
        lines = programs("tcp_connect_latency", variant, "full", state(0, CLOSE, SYN_SENT, 1),
                         state(0, SYN_SENT, ESTABLISHED, 5))  # fmt: skip
        assert counters(lines) == [1, 0, 1, 0]
        lines = programs("tcp_connect_latency", variant, state(0, CLOSE, SYN_SENT, 1), "full",
                         state(0, SYN_SENT, CLOSE, 5, error=5))  # fmt: skip
        assert counters(lines) == [1, 0, 1, 0]


def test_other_protocols_use_the_same_tracepoint_and_are_left_out(programs: Programs) -> None:
    lines = programs("tcp_connect_latency", "tracepoint", state(0, CLOSE, SYN_SENT, 1, protocol=OTHER),
                     state(0, SYN_SENT, ESTABLISHED, 5, protocol=OTHER))  # fmt: skip
    assert counters(lines) == [0, 0, 0, 0]


@pytest.mark.parametrize("variant", ["full", "reduced", "tracepoint"])
def test_retransmits_are_counted_by_family_and_state(programs: Programs, variant: str) -> None:
    lines = programs("tcp_retransmits", variant, "2,1", "10,2", "2,1")
    assert lines[0] == "= 0" and counters(lines) == [3, 3, 0, 0]
    assert table(lines) == {le((2, 2), (1, 2)): 2, le((10, 2), (2, 2)): 1}
    assert counters(programs("tcp_retransmits", variant, "full", "2,1")) == [1, 0, 1, 0]


RUNNING, SLEEPING = 0, 1


def switch(prev: int, following: int, now: int, state: int = SLEEPING, preempted: int = 0) -> str:
    return f"s,{preempted},{prev},{following},{state},{now}"


@pytest.mark.parametrize("variant", ["full", "reduced"])
class TestRunQueue:
    def test_the_time_from_the_wake_up_to_the_cpu(self, programs: Programs, variant: str) -> None:
        lines = programs("runqlat", variant, "w,5,0,100", "n,6,0,101", switch(0, 5, 108), switch(5, 6, 1125))
        assert lines[0] == "= 0" and counters(lines) == [2, 2, 0, 0]
        assert histogram(lines) == {3: 1, 10: 1, 64: 8 + 1024}

    def test_who_is_put_back_waits_from_then_on_and_who_sleeps_does_not(self, programs: Programs, variant: str) -> None:
        for state_then, preempted, waits in ((SLEEPING, 0, 0), (RUNNING, 0, 1), (SLEEPING, 1, 1), (RUNNING, 1, 1)):
            lines = programs("runqlat", variant, switch(5, 6, 100, state_then, preempted), switch(6, 5, 116))
            assert counters(lines) == [waits, waits, 0, 0], (state_then, preempted)
            assert histogram(lines) == ({4: 1, 64: 16} if waits else {})

    def test_one_wait_of_a_task_is_one(self, programs: Programs, variant: str) -> None:
        lines = programs("runqlat", variant, "w,5,0,100", "w,5,0,150", switch(0, 5, 164))
        assert counters(lines) == [1, 1, 0, 0] and histogram(lines) == {6: 1, 64: 64}
        # Whoever held the CPU waits only from then on.
        lines = programs("runqlat", variant, "w,5,0,100", switch(5, 6, 200, RUNNING), switch(6, 5, 232))
        assert counters(lines) == [1, 1, 0, 0] and histogram(lines) == {5: 1, 64: 32}

    def test_who_has_a_cpu_and_the_idle_task_wait_for_none(self, programs: Programs, variant: str) -> None:
        lines = programs("runqlat", variant, "w,5,1,100", "w,0,0,100", switch(0, 5, 110, RUNNING), switch(5, 0, 120))
        assert counters(lines) == [0, 0, 0, 0]

    def test_a_wait_for_which_there_is_no_place_is_dropped(self, programs: Programs, variant: str) -> None:
        assert counters(programs("runqlat", variant, "full", "w,5,0,100", switch(0, 5, 110))) == [1, 0, 1, 0]


@pytest.mark.parametrize("variant", ["full", "reduced"])
def test_errors_of_system_calls_are_counted_by_number_and_error(programs: Programs, variant: str) -> None:
    calls = ["-2,257,0", "-2,257,0", "-1,3,0", "-511,4,0", "-512,5,0", "0,6,0", "1,7,0", "-4095,8,0", "-13,-1,0"]
    lines = programs("syscall_errors", variant, *calls)
    assert lines[0] == "= 0" and counters(lines) == [4, 4, 0, 0]
    assert table(lines) == {
        le((257, 2), (2, 2), (0, 4)): 2,
        le((3, 2), (1, 2), (0, 4)): 1,
        le((4, 2), (511, 2), (0, 4)): 1,
    }
    assert counters(programs("syscall_errors", variant, "full", "-2,1,0")) == [1, 0, 1, 0]


def test_a_32_bit_system_call_is_counted_apart(programs: Programs) -> None:
    """Only x86 has such calls with other numbers."""
    lines = programs("syscall_errors", "full", "-2,5,0", "-2,5,2", "-2,5,1")
    apart = {le((5, 2), (2, 2), (0, 4)): 2, le((5, 2), (2, 2), (1, 4)): 1}
    assert table(lines) == (apart if ARCH == "x86" else {le((5, 2), (2, 2), (0, 4)): 3})


@pytest.mark.parametrize("variant", ["full", "reduced"])
@pytest.mark.parametrize("memcg", [0, 1])
def test_a_victim_of_memory_is_told_with_its_limit(programs: Programs, variant: str, memcg: int) -> None:
    lines = programs("oom_kills", variant, str(memcg))
    (one,) = records(lines)
    assert lines[-1].split() == ["1", "1", "0", "0"] and len(one) == 64
    wide = [int.from_bytes(one[at : at + 8], "little", signed=True) for at in (0, 8, 16, 24)]
    assert wide == [1000, 9 * memcg, 71, -72]
    assert [number(one[at : at + 4]) for at in (32, 36, 40, 44)] == [62, 53, 41, memcg] and text(one[48:]) == "task"
    assert counters(programs("oom_kills", variant, "full ring", "0")) == [1, 0, 1, 0]


def test_a_victim_of_which_an_older_kernel_hands_over_the_pid_only(programs: Programs) -> None:
    (one,) = records(programs("oom_kills", "marked", "77"))
    assert (number(one[8:12]), number(one[12:16]), text(one[16:]), len(one)) == (77, 41, "", 32)
    (one,) = records(programs("oom_kills", "marked", "0"))
    assert (number(one[8:12]), text(one[16:])) == (62, "task")
