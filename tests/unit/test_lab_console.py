# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab tells a guest whose kernel gave up at once, and a program that could not run in its initrd by name."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab import guest
from tests.lab.console import Console, panic_in
from tests.lab.elf import interpreter, static_program
from tests.lab.errors import LabError

PANIC = b"[    1.234567] Kernel panic - not syncing: No working init found.  Try passing init= option to kernel.\r\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (PANIC, "No working init found"),
        (b"Kernel panic - not syncing: Attempted to kill init! exitcode=0x00007f00\n", "Attempted to kill init!"),
        (b"[    0.5] [    T1] Kernel panic - not syncing: VFS: Unable to mount root fs\n", "VFS: Unable to mount"),
        (b"before\n[   12.0] Kernel panic - not syncing: Fatal exception\nafter\n", "Fatal exception"),
        (b"[    1.0] Kernel panic - not syncing: \xff\x1b[31mred\n", "\\xff"),
        # Not complete yet, or told by a program.
        (PANIC[:-2], None),
        (b"logger: we saw Kernel panic - not syncing: once\n", None),
        (b"[    1.0] systemd[1]: Kernel panic - not syncing: a test\n", None),
        (b"[    1.0] panic=5 is set\n", None),
        (b"", None),
    ],
)
def test_a_panic_is_told_by_the_kernels_own_line(text: bytes, words: str | None) -> None:
    found = panic_in(text)
    assert found is None if words is None else found is not None and words in found and "\n" not in found


def test_a_console_is_read_as_it_grows_and_a_line_cut_in_two_is_found(tmp_path: Path) -> None:
    path = tmp_path / "console.log"
    console = Console(path)
    assert console.panic() is None
    with path.open("ab", buffering=0) as file:
        for part in (b"[    0.1] Linux version 6.1\n", PANIC[:30], PANIC[30:60]):
            file.write(part)
            assert console.panic() is None
        file.write(PANIC[60:])
        assert "No working init" in (console.panic() or "")


def test_what_stood_there_before_a_reboot_is_not_the_reboots(tmp_path: Path) -> None:
    path = tmp_path / "console.log"
    path.write_bytes(PANIC)
    console = Console(path, from_now=True)
    assert console.panic() is None
    with path.open("ab") as file:
        file.write(b"[    2.0] Kernel panic - not syncing: Fatal exception\n")
    assert console.panic() == "Kernel panic - not syncing: Fatal exception"


def test_the_wait_ends_with_the_guests_name_and_the_kernels_words(tmp_path: Path) -> None:
    """A process that writes as a guest does: the console grows, a panic ends it."""
    path = tmp_path / "console.log"
    script = f"import sys; sys.stdout.buffer.write({PANIC!r})"
    with path.open("wb") as file:
        subprocess.run([sys.executable, "-c", script], stdout=file, check=True)
    with pytest.raises(LabError, match="k61a: its kernel gave up during waiting for SSH: .*No working init found"):
        guest.refuse_panic("k61a", "waiting for SSH", Console(path))
    guest.refuse_panic("k61a", "waiting for SSH", Console(tmp_path / "none"))
    guest.refuse_panic("k61a", "saving", None)


def test_a_dynamically_linked_program_is_refused_by_name(tmp_path: Path) -> None:
    dynamic = Path(shutil.which("sh") or "/bin/sh").resolve()
    if interpreter(dynamic) is None:
        pytest.skip(f"{dynamic} is statically linked here")
    busybox = tmp_path / "busybox"
    shutil.copy(dynamic, busybox)
    with pytest.raises(LabError) as caught:
        static_program(busybox)
    assert str(caught.value).startswith(f"{busybox}: is dynamically linked (it needs /lib")
    assert "install busybox-static" in str(caught.value)


def test_a_statically_linked_program_is_taken(tmp_path: Path) -> None:
    source, target = tmp_path / "a.c", tmp_path / "a"
    source.write_text("int main(void) { return 0; }\n")
    done = subprocess.run(["cc", "-static", "-o", target, source], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("cc cannot link statically here")
    assert static_program(target) == target


@pytest.mark.parametrize("data", [None, b"", b"#!/bin/sh\n" * 20, b"\x7fELF\x01\x01" + bytes(80)])
def test_what_is_no_program_is_refused_by_name(tmp_path: Path, data: bytes | None) -> None:
    path = tmp_path / "busybox"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(LabError, match=f"{path}: is not .*busybox-static"):
        static_program(path)
