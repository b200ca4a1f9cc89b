# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands, progress, digests and the lock: what every part of the lab needs from the machine."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Iterator, Sequence

from .errors import LabError

_STARTED = time.monotonic()


def say(text: str) -> None:
    """Report progress on standard error, with the seconds since this command started."""
    sys.stderr.write(f"lab {time.monotonic() - _STARTED:6.1f}s  {text}\n")
    sys.stderr.flush()


def run(argv: Sequence[str | Path], what: str, **options: Any) -> str:
    """Run a command and return its standard output; raise LabError with its last words."""
    try:
        done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, check=False, **options)
    except FileNotFoundError as error:
        raise LabError(f"{what}: command {argv[0]} is not installed: install it and try again") from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{what}: {argv[0]} did not end within {error.timeout:.0f} s") from error
    if done.returncode:
        words = (done.stderr or done.stdout).strip()[-1500:]
        raise LabError(f"{what}: {argv[0]} ended with status {done.returncode}:\n{words}")
    return str(done.stdout)


def digest_of(*parts: str | bytes | Path) -> str:
    """SHA-256 over texts, bytes and file contents, each preceded by its length."""
    total = hashlib.sha256()
    for part in parts:
        data = part.read_bytes() if isinstance(part, Path) else part
        data = data.encode() if isinstance(data, str) else data
        total.update(f"{len(data)}:".encode() + data)
    return total.hexdigest()


def read_json(path: Path) -> Any:
    """The document in `path`, or None where there is none that can be read."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def write_text(path: Path, text: str) -> None:
    """Replace `path` in one step: a reader sees the old text or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        file.write(text)
    written = Path(file.name)
    written.chmod(0o644)
    written.replace(path)


def write_json(path: Path, document: Any) -> None:
    """Replace `path` with `document` as readable JSON."""
    write_text(path, json.dumps(document, indent=2, sort_keys=True) + "\n")


@contextlib.contextmanager
def scratch_beside(final: Path) -> Iterator[Path]:
    """A new folder that becomes `final` when the block ends well and vanishes when it does not."""
    final.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=final.parent, prefix=f".{final.name}."))
    try:
        yield scratch
        scratch.chmod(0o755)
        scratch.replace(final)
    finally:
        if scratch.exists():
            subprocess.run(["rm", "-rf", "--one-file-system", str(scratch)], check=True)


@contextlib.contextmanager
def exclusive(lock: Path) -> Iterator[None]:
    """Hold the lab for one command at a time; says who holds it while it waits."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for the lab: process {lock.read_text().strip() or 'unknown'} holds it")
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
