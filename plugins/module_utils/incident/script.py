# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Render the script that gives a host's evidence as one POSIX sh script that writes nothing on the host. Pure.

It needs a shell, head, tail, tr, sed -E, grep and readlink, and uses systemctl, journalctl, dmesg, python3 and a tool
for SHA-256 where they are. What it prints is read by `evidence`. Its text lies in the folder parts.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import script as killscript

MARK = "ebpf-fleet-evidence: "
UNIT = "ebpf-fleet-loader.service"

# Bytes of one file, and of all files of a host: least, default, most. A host that sends more than 4 MiB is cut off.
FILE_BYTES = (4096, 128 * 1024, 1024 * 1024)
TOTAL_BYTES = (8192, 1024 * 1024, 3 * 1024 * 1024)
# When the loader's own trial says why a program is refused: where one was, on every host, or never.
CHECKS = ("auto", "always", "never")

_PARTS = Path(__file__).with_name("parts")
_ROOT = re.compile(r"(?:/[A-Za-z0-9._-]+)*")


def _part(name: str) -> str:
    text = (_PARTS / name).read_text(encoding="utf-8")
    return text.partition("\n")[2] if text.startswith("# shellcheck") else text


def render(
    file_bytes: int = FILE_BYTES[1], total_bytes: int = TOTAL_BYTES[1], check: str = "auto", root: str = ""
) -> str:
    """The script as plain sh.

    `file_bytes` bounds each file and `total_bytes` all of a host; `root` is a folder that stands before our own paths.
    Raises FleetError for what is out of range.
    """
    for name, value, (least, _usual, most) in (
        ("file_bytes", file_bytes, FILE_BYTES),
        ("total_bytes", total_bytes, TOTAL_BYTES),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise FleetError("EF_ARGUMENT", f"{name} {value!r}: give a whole number of bytes from {least} to {most}")
    if check not in CHECKS:
        raise FleetError("EF_ARGUMENT", f"check {check!r}: say one of {', '.join(CHECKS)}")
    if not _ROOT.fullmatch(root):
        raise FleetError("EF_ARGUMENT", f"root {root!r}: give an absolute path of plain letters")
    values = {
        "@UNITS@": f"{UNIT} {killscript.COLLECTOR_UNIT}",
        "@USER@": killscript.USER,
        "@FILE_BYTES@": str(file_bytes),
        "@TOTAL_BYTES@": str(total_bytes),
        "@CHECK@": check,
        "@ROOT@": root,
        "@MARK@": MARK,
    }
    ours = "".join(map(_part, ("frame.sh", "redact.sh", "sources.sh")))
    script = ours + "".join(map(killscript.part, ("families.sh", "unit.sh"))) + _part("forensics.sh")
    for key, text in values.items():
        script = script.replace(key, text)
    return script.replace("@PYTHON@", shlex.quote(_part("list_bpf.py")))


def command(file_bytes: int = FILE_BYTES[1], total_bytes: int = TOTAL_BYTES[1], check: str = "auto") -> str:
    """One command that runs the script in /bin/sh, whatever the login shell is."""
    return killscript.command(render(file_bytes, total_bytes, check))
