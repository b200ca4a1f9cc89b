# SPDX-License-Identifier: GPL-3.0-or-later
"""Features for the tests of the service: from tests/fixtures/features, compiled when they are needed."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "tests" / "fixtures" / "features"
CLANG = ("clang-14", "-target", "bpf", "-std=gnu11", "-g", "-O2", "-Wall", "-Werror", "-Wno-unused-parameter")
TARGETS = {"x86_64": "x86", "aarch64": "arm64"}


def fixture_contract(name: str) -> dict[str, Any]:
    """A fixture's contract as a document."""
    document: dict[str, Any] = yaml.safe_load((FIXTURES / name / "contract.yml").read_text())
    document["expires"] = str(document["expires"])
    return document


def compile_bpf(source: Path, target: Path, *options: str) -> bytes:
    """Compile one BPF source and strip its debug information; returns the object's bytes."""
    machine = platform.machine()
    command = [*CLANG, f"-D__TARGET_ARCH_{TARGETS[machine]}", f"-I/usr/include/{machine}-linux-gnu", *options]
    subprocess.run([*command, "-c", str(source), "-o", str(target)], check=True)
    subprocess.run(["llvm-strip-14", "-g", str(target)], check=True)
    return target.read_bytes()


def compile_ours(name: str, variant: str, target: Path, *options: str) -> bytes:
    """A fixture that is written with bpf/include."""
    include = f"-I{ROOT / 'bpf' / 'include'}"
    return compile_bpf(FIXTURES / name / f"{name}.bpf.c", target, include, f"-DEF_VARIANT_{variant.upper()}", *options)


def dump_vmlinux(folder: Path) -> Path:
    """This kernel's types as a header, as those who write such programs make it."""
    command = ["bpftool", "btf", "dump", "file", "/sys/kernel/btf/vmlinux", "format", "c"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    path = folder / "vmlinux.h"
    path.write_text(text)
    return path


def compile_theirs(name: str, variant: str, folder: Path, *options: str) -> bytes:
    """A fixture that knows nothing of us, against this kernel's types."""
    folder.mkdir(parents=True, exist_ok=True)
    header = dump_vmlinux(folder)
    source = FIXTURES / name / f"{variant}.bpf.c"
    return compile_bpf(source, folder / f"{variant}.bpf.o", f"-I{header.parent}", *options)


CALLER = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(15, sys.argv[1].encode("latin-1"), 0, 0, 0)
print("ready", flush=True)
for line in sys.stdin:
    call = os.getppid
    for _ in range(int(line)):
        call()
    print("done", flush=True)
"""


class Caller:
    """A process whose number is known before its programs are compiled, and which calls getppid when told to."""

    def __init__(self, name: str = "caller", cpu: int | None = None) -> None:
        pin = ["taskset", "-c", str(cpu)] if cpu is not None else []
        self.process = subprocess.Popen(
            [*pin, sys.executable, "-c", CALLER, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._expect("ready")

    @property
    def pid(self) -> int:
        return self.process.pid

    def _expect(self, word: str) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline().strip() == word

    def begin(self, times: int) -> None:
        """Start to call so many times; wait() tells when that is done."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{times}\n")
        self.process.stdin.flush()

    def wait(self) -> None:
        self._expect("done")

    def call(self, times: int) -> None:
        """Call so many times, and no sooner return."""
        self.begin(times)
        self.wait()

    def pin(self, cpu: int) -> None:
        """Move it to a CPU."""
        os.sched_setaffinity(self.pid, {cpu})

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()
