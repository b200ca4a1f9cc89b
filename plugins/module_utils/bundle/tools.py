# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tools that build a bundle, run without a terminal."""

from __future__ import annotations

import os
import subprocess

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError

SECONDS_FOR_TOOL = 60


def run_tool(
    command: list[str], data: bytes | None = None, seconds: int = SECONDS_FOR_TOOL, code: str = "EF_BUILD"
) -> subprocess.CompletedProcess[bytes]:
    """Run a tool without a terminal; raises FleetError with its last words if it fails."""
    environment = dict(os.environ, SSH_ASKPASS_REQUIRE="never", LC_ALL="C")
    try:
        done = subprocess.run(
            command,
            input=data,
            stdin=subprocess.DEVNULL if data is None else None,
            capture_output=True,
            check=False,
            timeout=seconds,
            start_new_session=True,
            env=environment,
        )
    except FileNotFoundError as error:
        raise FleetError("EF_NO_TOOL", f"{command[0]}: is not installed here; install it") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FleetError(code, f"{command[0]}: does not run ({error}); repair it") from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout).decode("utf-8", "replace").strip()[-1500:]
        shown = " ".join(command[:4])
        raise FleetError(code, f"'{shown} …' failed with exit {done.returncode}: {said}; correct what it names")
    return done
