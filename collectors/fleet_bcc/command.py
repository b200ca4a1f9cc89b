# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line: `run` is the service, `compile` is its child."""

from __future__ import annotations

import argparse
import contextlib
import re
import resource
from pathlib import Path

from ansible_collections.ebpf.fleet.collectors.fleet_bcc.compiler import compile_main
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.kernel import LIBC, PR_SET_NO_NEW_PRIVS, set_process_name
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.service import Service


def interval(text: str) -> int:
    """Seconds between two publications, from 1 to 3600."""
    if not re.fullmatch(r"[0-9]{1,4}", text) or not 1 <= int(text) <= 3600:
        raise argparse.ArgumentTypeError("must be a number of seconds from 1 to 3600")
    return int(text)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bcc.py", description="Runs through BCC what the loader could not.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="the service")
    run.add_argument("--bundle", required=True)
    run.add_argument("--loader", required=True, help="the release's ebpf-loader, which verifies the bundle")
    run.add_argument("--etc", default="/etc/ebpf-fleet")
    run.add_argument("--run", default="/run/ebpf-fleet")
    run.add_argument("--state", default="/run/ebpf-fleet-bcc")
    run.add_argument("--loader-status", default="/run/ebpf-fleet-loader/status.json")
    run.add_argument("--log", default="/var/log/ebpf-fleet")
    run.add_argument("--interval", type=interval, default=5)
    child = commands.add_parser("compile", help="the service's child, never called by hand")
    child.add_argument("--socket", type=int, required=True)
    return parser.parse_args(arguments)


def main(arguments: list[str], entry: Path) -> int:
    """`entry` is the file that Python was started with, its path without symlinks."""
    options = parse(arguments)
    if options.command == "compile":
        return compile_main(options.socket)
    set_process_name()
    LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return Service(options, entry).run()
