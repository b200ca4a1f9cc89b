# SPDX-License-Identifier: GPL-3.0-or-later
"""Small programs around the loader's own sources, which ask them without a kernel; ASan and UBSan watch."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Iterable

ROOT = Path(__file__).resolve().parents[2]
LOADER = ROOT / "bpf/loader"
LIBRARIES = ("-lbpf", "-lelf", "-lz", "-ljansson", "-lsodium")
# One that goes on and on, or writes without an end, has failed.
SECONDS, MOST_BYTES = 30, 8 << 20


def build(folder: Path, name: str, needed: Iterable[str], *options: str) -> Path:
    """tests/loader/NAME_driver.c with these sources of the loader; the linker leaves out what nobody calls."""
    sources = [ROOT / f"tests/loader/{name}_driver.c", *(path for one in needed for path in sorted(LOADER.glob(one)))]
    command = ["gcc", "-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE", "-iquote", str(LOADER)]
    command += ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-Wno-format-truncation"]
    command += ["-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections", *options, *map(str, sources)]
    subprocess.run([*command, "-o", str(folder / name), *LIBRARIES], check=True)
    return folder / name


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
