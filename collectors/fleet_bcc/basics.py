# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every other file here may use: names, exit codes, reasons and the two errors."""

from __future__ import annotations

from typing import NamedTuple

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError

NAME = "ebpf-fleet-bcc"  # at most 15 characters: also the name of the process
VERSION = "0.1.0"
ENGINE = "bcc"

EXIT_FAILED, EXIT_USAGE, EXIT_REFUSED = 1, 2, 3


class RefusedError(FleetError):
    """The bundle is not to be trusted: nothing of it runs."""


class CannotRunError(FleetError):
    """One feature cannot run, and why; the others go on."""


class Reason(NamedTuple):
    """A stable code and a sentence."""

    code: str
    text: str
