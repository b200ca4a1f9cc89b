# SPDX-License-Identifier: GPL-3.0-or-later
"""An eBPF agent of somebody, as a service of a host with systemd: it holds its programs, and one outlives it.

It attaches XDP by netlink, which stays when it ends, and a raw tracepoint by a link, which does not. Its interfaces are
in a network namespace of the host's own.
"""

from __future__ import annotations

import json
import shutil
import textwrap
import time
from pathlib import Path
from typing import Any

from tests.support.syshost import SysHost, SysHostError

ROOT = Path(__file__).resolve().parents[2]
PLACE = "/opt/agent"
UTILS = "ansible_collections/ebpf/fleet/plugins/module_utils"
NETNS = "agent"
# r0 = 2 (XDP_PASS), with a number of its own that makes the tag another; exit
PROGRAM = """
import ctypes, struct, sys, time
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel import bpfsys, netchange

ctypes.CDLL(None).prctl(15, sys.argv[1].encode(), 0, 0, 0)
ifindex, number = int(sys.argv[2]), int(sys.argv[3])


def code(result):
    return struct.pack("=BBhi", 0xB7, 1, 0, number) + struct.pack("=BBhiBBhi", 0xB7, 0, 0, result, 0x95, 0, 0, 0)


xdp = bpfsys.prog_load(bpfsys.ProgramSpec(type=6, code=code(2)))
# As agents do: what an earlier one left there is replaced.
netchange._set_xdp(ifindex, xdp, netchange.XDP_MODES["generic"])
tracer = bpfsys.prog_load(bpfsys.ProgramSpec(type=17, code=code(0)))
link = bpfsys.raw_tracepoint_open("sys_enter", tracer)
open(f"/run/{sys.argv[1]}.ready", "w").close()
time.sleep(100000)
"""
UNIT = """
[Service]
ExecStart=/usr/bin/python3 {place}/agent.py {name} {ifindex} {number}
Environment=PYTHONPATH={place}
NetworkNamespacePath=/run/netns/{netns}
Restart=always
RestartSec=100ms
[Install]
WantedBy=multi-user.target
"""


def install(host: SysHost) -> None:
    """What agents need on a host: the interfaces, and Python's way to bpf(2)."""
    shutil.copytree(ROOT / "plugins/module_utils", host.path(f"{PLACE}/{UTILS}"))
    host.path(f"{PLACE}/agent.py").write_text(PROGRAM)
    host.must(
        f"ip netns add {NETNS} && ip -n {NETNS} link add va type veth peer name vb &&"
        f" ip -n {NETNS} link set va up && ip -n {NETNS} link set vb up"
    )


def ifindex(host: SysHost, name: str) -> int:
    return int(json.loads(host.must(f"ip -j -n {NETNS} link show {name}"))[0]["ifindex"])


def start(host: SysHost, name: str, interface: str, number: int, folder: str = "/usr/lib/systemd/system") -> None:
    """Write the unit of an agent, enable it, and wait until its programs are attached."""
    text = UNIT.format(place=PLACE, name=name, ifindex=ifindex(host, interface), number=number, netns=NETNS)
    path = host.path(f"{folder}/{name}.service")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))
    host.must(f"systemctl daemon-reload && systemctl enable --quiet {name} && systemctl start {name}")
    await_ready(host, name)


def await_ready(host: SysHost, name: str) -> None:
    end = time.monotonic() + 30
    while not host.path(f"/run/{name}.ready").exists():
        if time.monotonic() > end:
            raise SysHostError(f"{name} does not attach: {host.run(f'systemctl status {name}').stdout}")
        time.sleep(0.1)


def xdp_id(host: SysHost, interface: str) -> int | None:
    """The id of the XDP program of an interface."""
    found: dict[str, Any] = json.loads(host.must(f"ip -j -n {NETNS} link show {interface}"))[0]
    return found["xdp"]["prog"]["id"] if "xdp" in found else None
