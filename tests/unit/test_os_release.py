# SPDX-License-Identifier: GPL-3.0-or-later
"""One table of odd os-release files, read by modules and kill script; the loader reads it in its own suite."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel import hostfiles
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import script as killscript

TABLE = Path(__file__).resolve().parents[1] / "fixtures/control/os_release.json"
CASES: list[dict[str, Any]] = json.loads(TABLE.read_text())
SHELLS = {"dash": ["dash"], "busybox": ["busybox", "sh"], "bash": ["bash", "--posix"], "mksh": ["mksh"], "ksh": ["ksh"]}


def put(root: Path, text: bytes, where: str = "etc") -> None:
    (root / where).mkdir(parents=True, exist_ok=True)
    (root / where / "os-release").write_bytes(text)


def by_shell(shell: str, root: Path) -> str:
    """What the part of the kill script finds; it runs as it stands in the script."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed here")
    script = (
        f'set -u; LC_ALL=C; root={root}\n{killscript.part("families.sh")}\nfind_distro || true; printf %s "$distro"'
    )
    done = subprocess.run([*SHELLS[shell], "-c", script], capture_output=True, text=True, check=True, timeout=20)
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
@pytest.mark.parametrize("reader", ["python", *SHELLS])
def test_every_reader_finds_the_same_id(tmp_path: Path, reader: str, case: dict[str, Any]) -> None:
    put(tmp_path, case["bytes"].encode("latin-1"))
    found = hostfiles.read_os_release(tmp_path)["id"] if reader == "python" else by_shell(reader, tmp_path)
    assert (found or None) == case["id"]


@pytest.mark.parametrize("reader", ["python", *SHELLS])
def test_a_file_that_gives_no_id_leaves_it_to_the_other(tmp_path: Path, reader: str) -> None:
    put(tmp_path, b"NAME=x\n")
    put(tmp_path, b"ID=other", "usr/lib")
    found = hostfiles.read_os_release(tmp_path)["id"] if reader == "python" else by_shell(reader, tmp_path)
    assert found == "other"


def test_the_version_is_read_by_the_same_rules(tmp_path: Path) -> None:
    put(tmp_path, b"\xef\xbb\xbfVERSION_ID='9.4'\r\nID=\"rhel\"")
    assert hostfiles.read_os_release(tmp_path) == {"id": "rhel", "version_id": "9.4"}
