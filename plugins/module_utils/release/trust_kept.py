# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host keeps of its trust beside the trust files: the high-water mark, and the signers of before a change."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ansible_collections.ebpf.fleet.plugins.module_utils.base import filesteps
from ansible_collections.ebpf.fleet.plugins.module_utils.base.atomic_files import sync_folder
from ansible_collections.ebpf.fleet.plugins.module_utils.base.bounded import BoundedReadError, read_bytes
from ansible_collections.ebpf.fleet.plugins.module_utils.release.mark import (
    MAX_BYTES,
    UNREADABLE,
    Mark,
    parse_mark,
    render_mark,
)


def read_mark(path: Path) -> Mark | None:
    """The host's high-water mark; what is there and is not a plain file is one that cannot be used."""
    try:
        return parse_mark(read_bytes(path, MAX_BYTES))
    except BoundedReadError:
        return UNREADABLE


def write_mark(path: Path, mark: Mark) -> None:
    """Replace the mark, synced: it must outlive a power cut."""
    filesteps.write_atomically(str(path), render_mark(mark), 0o644)
    sync_folder(path.parent)


def former_signers(folder: Path, signers: Path) -> str | None:
    """The digest (empty: no release) with which the signers of before a change of trust come back; see ``trust_host``.

    None where none are kept, and where somebody wrote ``signers`` since.
    """
    try:
        running = (folder / "running").read_text(encoding="ascii").strip()
        written = (folder / "written").read_text(encoding="ascii").strip()
        is_kept = (folder / "allowed_signers").is_file()
        return running if is_kept and hashlib.sha256(signers.read_bytes()).hexdigest() == written else None
    except (OSError, ValueError):
        return None
