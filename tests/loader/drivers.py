# SPDX-License-Identifier: GPL-3.0-or-later
"""Small programs around the loader's own sources, which ask them without a kernel; ASan and UBSan watch."""

from __future__ import annotations

import fcntl
import os
import platform
import subprocess
from pathlib import Path
from typing import Iterable

ROOT = Path(__file__).resolve().parents[2]
LOADER = ROOT / "bpf/loader"
# As libbpf's headers call it.
ARCH = {"x86_64": "x86", "aarch64": "arm64"}[platform.machine()]
OBJECTS = ROOT / "build/driver-obj"
# One that goes on and on, or writes without an end, has failed.
SECONDS, MOST_BYTES = 30, 8 << 20


def build(folder: Path, name: str, needed: Iterable[str], *options: str) -> Path:
    """tests/loader/NAME_driver.c with these sources of the loader; the linker leaves out what nobody calls."""
    sources = dict.fromkeys(path.relative_to(LOADER).as_posix() for one in needed for path in sorted(LOADER.glob(one)))
    OBJECTS.mkdir(parents=True, exist_ok=True)
    command = ["make", "-s", "-j2", "-f", "tests/loader/drivers.mk", f"NAME={name}", f"OUT={folder / name}"]
    command += [f"OBJ={OBJECTS}", f"SOURCES={' '.join(sources)}", f"LINK={' '.join(options)}"]
    with (OBJECTS / ".lock").open("w") as lock:  # two builds would link each other's half-written objects
        fcntl.flock(lock, fcntl.LOCK_EX)
        subprocess.run(command, cwd=ROOT, check=True)
    return folder / name


def build_for_here(name: str, binary: Path, *options: str) -> None:
    """tests/loader/NAME_driver.c with headers and programs for the kernel, compiled for this machine's processor."""
    command = [
        "gcc",
        "-std=gnu11",
        "-O1",
        "-g",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-Wno-attributes",
        "-Wno-unknown-pragmas",
    ]
    command += ["-Wno-unused-parameter", "-fno-strict-aliasing", "-fsanitize=address,undefined"]
    command += ["-fno-sanitize-recover=all", f"-D__TARGET_ARCH_{ARCH}", f"-I{ROOT}/tests/loader/host_bpf"]
    command += [f"-I{ROOT}/bpf/include", *options, f"{ROOT}/tests/loader/{name}_driver.c", "-o", str(binary)]
    subprocess.run(command, check=True)


def run(driver: Path, *words: str | bytes, **variables: str) -> subprocess.CompletedProcess[bytes]:
    """What it wrote; bytes are given in hexadecimal."""
    command = [str(driver), *(word.hex() if isinstance(word, bytes) else word for word in words)]
    limited = ["prlimit", f"--fsize={MOST_BYTES}", *command]
    out = driver.with_name("out")
    with out.open("w+b") as file:
        done = subprocess.run(
            limited, check=True, stdout=file, stderr=subprocess.PIPE, env={**os.environ, **variables}, timeout=SECONDS
        )
    return subprocess.CompletedProcess(done.args, 0, out.read_bytes(), done.stderr)


def ask(driver: Path, *words: str | bytes) -> str:
    return run(driver, *words).stdout.decode().rstrip("\n")
