# SPDX-License-Identifier: GPL-3.0-or-later
"""The offered load of benchmarks and soak: a process that calls getppid at a rate, and a feature that records it.

A service over `{"load_events": feature(folder, generator.pid)}` records each call
that `generator.run(rate, seconds)` makes and counts.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.loader.foreign import ROOT, compile_ours, fixture_contract

SOURCE = Path(__file__).with_name("generator.c")
NAME = "load_events"


def build() -> Path:
    """Compile the generator where it is not newer than its source; returns the binary."""
    binary = ROOT / "build" / "load" / "generator"
    if binary.exists() and binary.stat().st_mtime >= SOURCE.stat().st_mtime:
        return binary
    binary.parent.mkdir(parents=True, exist_ok=True)
    part = binary.with_suffix(f".{os.getpid()}")
    command = ["gcc", "-std=gnu11", "-O2", "-g", "-Wall", "-Wextra", "-Werror", str(SOURCE), "-o", str(part)]
    subprocess.run(command, check=True)
    part.rename(binary)
    return binary


class Generator:
    """A generator that waits for rates; its number is known before programs are compiled for it."""

    def __init__(self, cpu: int = -1) -> None:
        self.process = subprocess.Popen(
            [str(build()), str(cpu)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = int(self._answer("ready")[0])

    def __enter__(self) -> Generator:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.end()

    def _answer(self, word: str) -> list[str]:
        assert self.process.stdout is not None
        words = self.process.stdout.readline().split()
        assert words and words[0] == word, f"the generator said {words}, not {word}"
        return words[1:]

    def begin(self, rate: int, seconds: float) -> None:
        """Start to offer so many calls a second (0: as many as it can); wait() tells how many there were."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{rate} {int(seconds * 1000)}\n")
        self.process.stdin.flush()

    def wait(self) -> int:
        """Calls that were made since begin(), once they are over."""
        return int(self._answer("offered")[0])

    def run(self, rate: int, seconds: float) -> int:
        """Offer, and return the number of calls made."""
        self.begin(rate, seconds)
        return self.wait()

    def end(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()


def run(rate: int, seconds: float, cpu: int = -1) -> int:
    """One load by a generator of its own; returns the number of calls made."""
    with Generator(cpu) as generator:
        return generator.run(rate, seconds)


def feature(folder: Path, pid: int, *options: str, **changes: Any) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The feature that records each call of that process, as make_bundle() takes it.

    options are the compiler's, changes are of its signal.
    """
    contract = fixture_contract(NAME)
    contract["signals"][0].update(changes)
    folder.mkdir(parents=True, exist_ok=True)
    return contract, {"full": compile_ours(NAME, "full", folder / "load.bpf.o", f"-DEF_LOAD_PID={pid}", *options)}
