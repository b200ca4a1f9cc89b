# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Records on a host: /var/lib/ebpf-fleet/foreign/TARGET.json, for root alone, one run at a time."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Iterator

from ansible_collections.ebpf.fleet.plugins.module_utils.base import atomic_files, bounded, waitlock
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError, explain
from ansible_collections.ebpf.fleet.plugins.module_utils.foreign import record as records
from ansible_collections.ebpf.fleet.plugins.module_utils.foreign.record import Record
from ansible_collections.ebpf.fleet.plugins.module_utils.foreign.target import Target

FOLDER = "/var/lib/ebpf-fleet/foreign"
_SECONDS_FOR_LOCK = 30


class Store:
    """The records below a folder; reading makes nothing there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, target: Target) -> Path:
        """Where the record of a target is."""
        return self.folder / f"{target.id}.json"

    def read(self, target: Target) -> Record | None:
        """The record, or None; FleetError EF_TAKEOFF_RECORD for one that cannot be used."""
        path = self.path(target)
        try:
            data = bounded.read_bytes(path, records.BYTES_LIMIT)
        except bounded.BoundedReadError as error:
            raise FleetError("EF_TAKEOFF_RECORD", f"{error.message}; nothing was changed", str(path)) from error
        return None if data is None else records.parse(data, str(path))

    def write(self, record: Record) -> None:
        """Keep a record, synced; FleetError where it cannot be kept, on which nothing may be changed."""
        path = self.path(record.target)
        data = records.render(record)
        if len(data) > records.BYTES_LIMIT:
            problem = f"{path}: the record of {record.target.text} is larger than {records.BYTES_LIMIT} bytes"
            raise FleetError("EF_TAKEOFF_RECORD", problem, str(path))
        try:
            self._make()
            atomic_files.replace_file(path, data, 0o600, self.folder)
        except OSError as error:
            raise explain(error, "EF_TAKEOFF_RECORD") from error

    def archive(self, record: Record) -> None:
        """Put the record of what was put back aside: the last one of each target is kept."""
        path = self.path(record.target)
        try:
            atomic_files.make_folder(self.folder / "released")
            path.rename(self.folder / "released" / path.name)
            atomic_files.sync_folder(self.folder)
        except OSError as error:
            raise explain(error, "EF_TAKEOFF_RECORD") from error

    def _make(self) -> None:
        atomic_files.make_folder(self.folder)
        self.folder.chmod(0o700)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One run at a time on this host; FleetError where another does not end."""
        try:
            self._make()
            fd = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise explain(error, "EF_TAKEOFF_RECORD") from error
        try:
            _wait_for(fd, self.folder / ".lock")
            yield
        finally:
            os.close(fd)


def _wait_for(fd: int, path: Path) -> None:
    if not waitlock.took(fd, _SECONDS_FOR_LOCK):
        problem = f"{path}: another run takes programs off this host still; run this again when it has ended"
        raise FleetError("EF_TAKEOFF_RECORD", problem, str(path))
