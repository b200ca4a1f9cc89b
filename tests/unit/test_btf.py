# SPDX-License-Identifier: GPL-3.0-or-later
"""Names and ids in BTF: on made blobs and on this machine's kernel."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel import btf

VMLINUX = Path("/sys/kernel/btf/vmlinux")

with_btf = pytest.mark.skipif(not VMLINUX.exists(), reason="this machine's kernel has no BTF to ask about")


def blob(types: bytes, strings: bytes) -> bytes:
    """A BTF blob of these sections."""
    sizes = struct.pack("=IIIII", 24, 0, len(types), len(types), len(strings))
    return struct.pack("=HBB", 0xEB9F, 1, 0) + sizes + types + strings


STRINGS = b"\0int\0btf_trace_x\0vfs_unlink\0s\0"
AT = {name: STRINGS.index(name.encode() + b"\0") for name in ("int", "btf_trace_x", "vfs_unlink", "s")}
TYPES = b"".join(
    [
        struct.pack("=IIII", AT["int"], 1 << 24, 4, 32),  # 1
        # 2: a struct with two members, so that the walk must step over them
        struct.pack("=III", AT["s"], 4 << 24 | 2, 8) + struct.pack("=IIIIII", 0, 1, 0, 0, 1, 32),
        struct.pack("=III", AT["btf_trace_x"], 8 << 24, 1),  # 3
        struct.pack("=III", 0, 13 << 24 | 1, 0) + struct.pack("=II", 0, 1),  # 4
        struct.pack("=III", AT["vfs_unlink"], 12 << 24, 4),  # 5
    ]
)


class TestBtf:
    def test_finds_ids_by_kind_and_name(self) -> None:
        wanted = [(btf.TYPEDEF, "btf_trace_x"), (btf.FUNC, "vfs_unlink")]
        assert btf.type_ids(blob(TYPES, STRINGS), wanted) == {wanted[0]: 3, wanted[1]: 5}

    def test_the_wrong_kind_is_not_found(self) -> None:
        assert btf.type_ids(blob(TYPES, STRINGS), [(btf.FUNC, "btf_trace_x"), (btf.FUNC, "nope")]) == {}

    def test_a_suffix_of_a_name_is_not_the_name(self) -> None:
        assert btf.type_ids(blob(TYPES, STRINGS), [(btf.FUNC, "unlink")]) == {}

    @pytest.mark.parametrize(
        "broken",
        [
            b"",
            b"\0" * 64,
            blob(TYPES, STRINGS)[:-1],
            blob(TYPES + struct.pack("=III", 0, 31 << 24, 0), STRINGS),
            blob(TYPES + b"\0\0", STRINGS),
        ],
    )
    def test_a_broken_blob_is_refused(self, broken: bytes) -> None:
        with pytest.raises(btf.BtfError):
            btf.type_ids(broken, [(btf.FUNC, "vfs_unlink")])

    @with_btf
    def test_agrees_with_bpftool_on_the_real_kernel(self) -> None:
        dump = subprocess.run(
            ["bpftool", "btf", "dump", "file", str(VMLINUX), "format", "raw"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        found = btf.type_ids(VMLINUX.read_bytes(), [(btf.TYPEDEF, "btf_trace_sched_switch"), (btf.FUNC, "vfs_unlink")])
        assert f"[{found[(btf.TYPEDEF, 'btf_trace_sched_switch')]}] TYPEDEF 'btf_trace_sched_switch'" in dump
        assert f"[{found[(btf.FUNC, 'vfs_unlink')]}] FUNC 'vfs_unlink'" in dump
