# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a bundle's loader answers when it is asked to verify that bundle: data of a program that may lie. Pure.

A hostile loader can claim that its bundle is good; by then the signature and every file were found good
by the host itself. Its word can only add a refusal, never a permission.
"""

from __future__ import annotations

from typing import Any

from ansible_collections.ebpf.fleet.plugins.module_utils.base.bounded import parse_json
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable
from ansible_collections.ebpf.fleet.plugins.module_utils.base.reasons.reason import VERIFY
from ansible_collections.ebpf.fleet.plugins.module_utils.base.reasons.table import given_by

EXIT_OK, EXIT_REFUSED = 0, 3
DEPTH = 4
MAX_REASON, MAX_FILE = 500, 260

# What `ebpf-loader verify` may refuse with.
REFUSALS = given_by(VERIFY)


def judge_verdict(stdout: bytes, stderr: bytes, ended: str, status: int | None, digest: str) -> FleetError | None:
    """None where the loader accepts exactly the bundle of that ``digest``, else why not.

    ``ended`` says in words how it ended, ``status`` is its exit status or None.
    """
    try:
        verdict = parse_json(stdout, DEPTH)
    except ValueError as error:
        return _no_verdict(f"its answer {error}", stderr, ended)
    if not isinstance(verdict, dict) or not isinstance(verdict.get("ok"), bool):
        return _no_verdict("its answer is not a verdict", stderr, ended)
    if not verdict["ok"]:
        return _refusal(verdict, stderr, ended, status)
    if status != EXIT_OK:
        return _no_verdict("it says yes and ends otherwise", stderr, ended)
    if verdict.get("digest") != digest:
        found = printable(verdict.get("digest"), 80)
        return FleetError("EF_UNKNOWN", f"the bundle's loader verified {found}, not {digest}; use another bundle")
    return None


def _no_verdict(problem: str, stderr: bytes, ended: str) -> FleetError:
    message = printable(stderr.decode("utf-8", "replace").strip()[-MAX_REASON:], MAX_REASON)
    heard = f"; it wrote: {message}" if message else ""
    return FleetError(
        "EF_UNKNOWN", f"the bundle's loader gave no verdict ({ended}: {problem}{heard}); use another bundle"
    )


def _refusal(verdict: dict[str, Any], stderr: bytes, ended: str, status: int | None) -> FleetError:
    code = verdict.get("reason_code")
    if status != EXIT_REFUSED or not isinstance(code, str) or code not in REFUSALS:
        return _no_verdict(f"it refuses with {printable(code, 80)}, which is not a code of its", stderr, ended)
    file = verdict.get("file")
    return FleetError(
        code,
        f"the bundle's loader refuses it: {printable(verdict.get('reason'), MAX_REASON)}",
        printable(file, MAX_FILE) if isinstance(file, str) else None,
    )
