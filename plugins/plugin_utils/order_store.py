# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kill orders that stand, as files on the controller beside the fleet's ledger; what is written is on disk.

orders/ID.json           an order that stands
orders/released/ID.json  one that was taken back, with who and why
orders/.guard            flock(2) of whoever writes; it is waited for a few seconds only
"""

from __future__ import annotations

import contextlib
import datetime
import getpass
import os
from pathlib import Path

from ansible_collections.ebpf.fleet.plugins.module_utils.base import atomic_files, bounded, waitlock
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import standing_order
from ansible_collections.ebpf.fleet.plugins.module_utils.kill.standing_order import StoreError
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import ledger_lock
from ansible_collections.ebpf.fleet.plugins.plugin_utils import ledger_folder

LOCK_SECONDS = 5
# Some 50,000 hosts, with names as long as names get.
FILE_LIMIT = 32 << 20


def folder_of(given, environment):
    """The store of the fleet whose ledger's folder is given; empty: that of this user."""
    if given is not None and not isinstance(given, str):
        raise StoreError(f"ebpf_fleet_ledger: {printable(given, 60)} is not a path; give one, as text")
    return ledger_folder.folder_of(given, environment) / "orders"


def who(environment):
    """Who gives or takes back an order."""
    try:
        return ledger_lock.person(environment, getpass.getuser())
    except (KeyError, OSError):
        return f"user {os.getuid()}"


def now():
    """The time as orders have it, to the second."""
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


class Store:
    """The orders of a fleet. Reading needs no lock: a file is whole or not there."""

    def __init__(self, path):
        self.path = Path(path)
        self.taken = self.path / "released"

    @contextlib.contextmanager
    def locked(self, seconds=LOCK_SECONDS):
        """Nothing else writes meanwhile; StoreError where another does for too long."""
        self.taken.mkdir(mode=0o750, parents=True, exist_ok=True)
        guard = os.open(self.path / ".guard", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
        try:
            if not waitlock.took(guard, seconds):
                problem = f"{self.path}: another process holds .guard; find it with fuser, and end it"
                raise StoreError(problem, str(self.path))
            yield self
        finally:
            os.close(guard)

    def orders(self):
        """Every order that stands, the oldest first; StoreError for a file that cannot be read as one."""
        try:
            names = sorted(entry.name for entry in self.path.iterdir() if entry.name.endswith(".json"))
        except FileNotFoundError:
            return []
        found = [self._read(self.path / name) for name in names if not name.startswith(".")]
        return [order for order in found if order is not None]

    def _read(self, path):
        try:
            data = bounded.read_bytes(path, FILE_LIMIT)
            return None if data is None else standing_order.parse(data)
        except FleetError as error:
            problem = f"{path}: {printable(error, 300)}; find out who wrote there, put the file right or take it away"
            raise StoreError(problem, str(path)) from error

    def of_scope(self, wanted):
        """The order of exactly this scope, or None."""
        return next((order for order in self.orders() if order.scope == wanted), None)

    def of_id(self, ident):
        """The order of this id, or None."""
        return next((order for order in self.orders() if order.id == ident), None)

    def put(self, order):
        """Write an order that stands."""
        atomic_files.replace_file(self.path / f"{order.id}.json", standing_order.render(order), 0o640, self.path)

    def take_out(self, order):
        """An order that was taken back: first its record with who and why, then it stands no longer."""
        atomic_files.replace_file(self.taken / f"{order.id}.json", standing_order.render(order), 0o640, self.path)
        self.forget(order)

    def forget(self, order):
        """An order stands no longer."""
        (self.path / f"{order.id}.json").unlink(missing_ok=True)
        atomic_files.sync_folder(self.path)
