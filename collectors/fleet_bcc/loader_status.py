# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the loader says of each feature: it is asked first, and BCC runs only what it could not."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ansible_collections.ebpf.fleet.collectors.fleet_bcc.basics import Reason
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.files import MAX_STATUS_BYTES, parse_json, read_regular
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.kernel import boot_id, process_start_ns
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.orders import KILL_CODES

# What runs goes on while the loader restarts; after that nothing vouches for it.
LOADER_GRACE_SECONDS = 30


class LoaderStatus:
    """What the loader says of each feature, and since when it says nothing."""

    def __init__(self, path: Path, digest: str) -> None:
        self.path, self.digest = path, digest
        self.features: dict[str, Any] = {}
        self.stats_enabled = False
        self.heard: float | None = None
        self.silence = "has not been heard yet"

    def listen(self) -> None:
        """Read its status. What it said last stands for a while: it may be restarting."""
        try:
            status = self._trusted(parse_json(read_regular(self.path, MAX_STATUS_BYTES), "status.json"))
        except (OSError, ValueError, KeyError, TypeError) as error:
            self.silence = f"says nothing ({error})"
            if self.heard is None or time.monotonic() - self.heard > LOADER_GRACE_SECONDS:
                self.features, self.stats_enabled = {}, False
            return
        self.heard = time.monotonic()
        self.features, self.stats_enabled = status["features"], bool(status["stats_enabled"])

    def _trusted(self, status: dict[str, Any]) -> dict[str, Any]:
        """The status of a loader that lives and runs our bundle; raises ValueError."""
        if status.get("boot_id") != boot_id():
            raise ValueError("its status is of another boot")
        started = process_start_ns(int(status["pid"]))
        if started is None or abs(started - int(status["started_boottime_ns"])) > 20000000:
            raise ValueError("the process that wrote its status is gone")
        if not isinstance(status.get("features"), dict) or status["bundle"]["digest"] != self.digest:
            raise ValueError("it does not run this bundle")
        return status

    def could_not(self, feature: str) -> tuple[Reason | None, Reason]:
        """(why the loader could not run it, …) or (None, why BCC may not run it either)."""
        said = self.features.get(feature)
        if not isinstance(said, dict):
            return None, Reason("EF_UNKNOWN", f"the loader {self.silence}; it is asked first")
        state, code = said.get("state"), str(said.get("reason_code"))
        if state == "attached":
            return None, Reason("EF_NOT_WANTED", f"the loader runs it (variant {said.get('variant')})")
        if state == "killed" or code in KILL_CODES:
            return None, Reason(code, str(said.get("reason")))
        if state != "disabled" or code == "EF_EXPIRED":
            return None, Reason(code, f"the loader has it in state {state}: {said.get('reason')}")
        return Reason(code, str(said.get("reason"))), Reason("EF_OK", "")
