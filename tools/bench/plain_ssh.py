# SPDX-License-Identifier: GPL-3.0-or-later
"""A peer of the fan-out: one OpenSSH process a host from one asyncio process, and nothing else.

Arguments: a JSON file {"hosts": [address], "ssh": [words of ssh], "command": TEXT, "at_once": N}. Prints how many
ended with 0.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path


async def reach(host: str, ssh: list[str], command: str, gate: asyncio.Semaphore) -> bool:
    async with gate:
        process = await asyncio.create_subprocess_exec(
            *ssh, host, command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        await process.communicate()
        return process.returncode == 0


async def reach_all(hosts: list[str], ssh: list[str], command: str, at_once: int) -> int:
    gate = asyncio.Semaphore(at_once)
    return sum(await asyncio.gather(*(reach(host, ssh, command, gate) for host in hosts)))


if __name__ == "__main__":
    print(asyncio.run(reach_all(**json.loads(Path(sys.argv[1]).read_text()))))
