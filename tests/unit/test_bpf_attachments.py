# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kernel's messages and structures about attachments say, by their bytes; and netlink itself where it runs."""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.inventory import ask, host
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel import (
    bpfholders,
    bpfnames,
    bpfpins,
    bpfqueries,
    btf,
    cgroupattach,
    linkinfo,
    loaded,
    netattach,
    netlink,
    netns,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel.netattach import Interface, Qdisc, TcProgram

BTF = Path("/sys/kernel/btf/vmlinux")


# ---- netlink ----


def attr(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def word(value: int) -> bytes:
    return struct.pack("=I", value)


def link(*attributes: bytes, ifindex: int = 3) -> bytes:
    return struct.pack("=BBHiII", 0, 0, 1, ifindex, 0, 0) + b"".join(attributes)


def tc(*attributes: bytes, ifindex: int = 3, handle: int = 0, parent: int = 0, info: int = 0) -> bytes:
    return struct.pack("=BBHiIII", 0, 0, 0, ifindex, handle, parent, info) + b"".join(attributes)


NESTED = 0x8000


@pytest.mark.parametrize(
    ("xdp", "expected"),
    [
        (b"", []),
        (attr(2, b"\0"), []),
        (attr(2, b"\1") + attr(4, word(41)) + attr(5, word(41)), [("native", 41)]),
        (attr(2, b"\2") + attr(4, word(41)) + attr(6, word(41)), [("generic", 41)]),
        (attr(2, b"\4") + attr(5, word(41)) + attr(7, word(42)), [("native", 41), ("offloaded", 42)]),
        # Before 5.0.
        (attr(2, b"\2") + attr(4, word(41)), [("generic", 41)]),
        (attr(2, b"\x09") + attr(4, word(41)), [("unknown", 41)]),
        (attr(2, b"\1") + attr(5, word(0)), []),
        # Cut off.
        (struct.pack("=HH", 8, 5) + b"\1", []),
    ],
)
def test_an_interfaces_xdp_programs(xdp: bytes, expected: list[tuple[str, int]]) -> None:
    body = link(attr(3, b"eth0\0"), attr(43 | NESTED, xdp))
    assert netattach.parse_interface(body) == Interface(3, "eth0", expected)


def test_an_interface_without_a_name_and_a_message_that_is_cut_off() -> None:
    assert netattach.parse_interface(link()) == Interface(3, "ifindex 3", [])
    assert netattach.parse_interface(b"\0" * 7) is None
    assert netattach.parse_qdisc(b"\0" * 7) is None and netattach.parse_filter(b"\0" * 7) == []


def of_filter(kind: bytes, options: bytes, *more: bytes, info: int = 10 << 16 | 0x300) -> bytes:
    return tc(attr(1, kind + b"\0"), attr(2 | NESTED, options), *more, info=info)


def action(kind: bytes, number: int) -> bytes:
    return attr(1, kind + b"\0") + attr(2 | NESTED, attr(8, b"tagtagta") + attr(9, word(number)))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (of_filter(b"bpf", attr(8, word(1)) + attr(11, word(41))), [TcProgram(41, "prio 10 direct-action", True)]),
        (of_filter(b"bpf", attr(8, word(0)) + attr(11, word(41))), [TcProgram(41, "prio 10", False)]),
        (of_filter(b"bpf", attr(11, word(41)), attr(11, word(3))), [TcProgram(41, "prio 10 chain 3", False)]),
        # Classic BPF has no id.
        (of_filter(b"bpf", attr(4, b"\1\0")), []),
        (of_filter(b"u32", attr(11, word(41))), []),
        (of_filter(b"matchall", attr(2, attr(1, action(b"bpf", 42)))),
         [TcProgram(42, "prio 10 action of matchall", False)]),
        (of_filter(b"matchall", attr(2, attr(1, action(b"mirred", 42)))), []),
        (of_filter(b"u32", attr(7, attr(2, action(b"bpf", 44)) + attr(1, action(b"bpf", 43)))),
         [TcProgram(43, "prio 10 action of u32", False), TcProgram(44, "prio 10 action of u32", False)]),
        (of_filter(b"bpf", attr(11, word(41)) + attr(1, attr(1, action(b"bpf", 42)))),
         [TcProgram(41, "prio 10", False), TcProgram(42, "prio 10 action of bpf", False)]),
        (of_filter(b"flower", attr(3, attr(1, action(b"bpf", 42)))),
         [TcProgram(42, "prio 10 action of flower", False)]),
        (of_filter(b"tomorrow", attr(3, attr(1, action(b"bpf", 42)))), []),
    ],
)  # fmt: skip
def test_the_programs_of_a_filter(body: bytes, expected: list[TcProgram]) -> None:
    assert netattach.parse_filter(body) == expected


@pytest.mark.parametrize(
    ("qdisc", "expected"),
    [
        (tc(attr(1, b"clsact\0"), handle=0xFFFF0000),
         [("tc_ingress", 3, 0xFFFFFFF2), ("tc_egress", 3, 0xFFFFFFF3)]),
        (tc(attr(1, b"ingress\0"), handle=0xFFFF0000), [("tc_ingress", 3, 0xFFFF0000)]),
        (tc(attr(1, b"clsact\0"), attr(13, word(22)), attr(14, word(23)), handle=0xFFFF0000),
         [("tc_ingress", -1, 22), ("tc_egress", -1, 23)]),
        (tc(attr(1, b"htb\0"), handle=0x10000), [("tc_qdisc", 3, 0x10000)]),
        (tc(attr(1, b"noqueue\0")), []),
    ],
)  # fmt: skip
def test_where_a_discipline_has_filters(qdisc: bytes, expected: list[tuple[str, int, int]]) -> None:
    found = netattach.parse_qdisc(qdisc)
    assert isinstance(found, Qdisc) and list(netattach.places_of(found)) == expected


def test_a_datagram_is_read_to_its_last_whole_message() -> None:
    good = netlink._HEADER.pack(20, 16, 2, 1, 0) + word(7)
    assert list(netlink.messages(good + good)) == [(16, 2, 1, word(7))] * 2
    for bad in (b"\0" * 16, netlink._HEADER.pack(99, 16, 2, 1, 0), good[:17]):
        assert list(netlink.messages(bad)) == []


@pytest.mark.parametrize("value", [None, b"", b"\1\2\3", b"\0" * 5])
def test_what_is_not_a_number_of_the_kernel_is_not_known(value: bytes | None) -> None:
    assert netlink.number(value) is None


def test_netlink_lists_this_machines_interfaces_and_says_what_it_refuses() -> None:
    with netlink.route_socket() as sock:
        parsed = [netattach.parse_interface(body) for body in netlink.dump(sock, netlink.GET_LINK, b"\0" * 16)]
        assert {one.name: one.ifindex for one in parsed if one} == {
            name: index for index, name in socket.if_nameindex()
        }
        with pytest.raises(OSError) as refused:
            netlink.dump(sock, 200, b"\0" * 16)  # beyond RTM_MAX
        assert refused.value.errno == errno.EOPNOTSUPP
        # Below RTM_BASE: the kernel says nothing at all.
        sock.settimeout(0.01)
        with pytest.raises(OSError) as silent:
            netlink.dump(sock, 15, b"\0" * 16)
        assert silent.value.errno == errno.ETIMEDOUT


class Scripted:
    """A kernel whose list changes while it is dumped, so many times; a real one does so when it likes."""

    def __init__(self, interrupted: int) -> None:
        self.interrupted, self.number = interrupted, 0

    def send(self, data: bytes) -> None:
        self.number = netlink._HEADER.unpack_from(data)[3]

    def recv(self, _size: int) -> bytes:
        flags = 0x10 if self.number <= self.interrupted else 0
        part = netlink._HEADER.pack(20, 16, 2 | flags, self.number, 0) + word(self.number)
        stale = netlink._HEADER.pack(20, 16, 2, 99, 0) + word(99)
        return stale + part + netlink._HEADER.pack(20, 3, 2, self.number, 0) + word(0)


def test_a_dump_that_was_interrupted_is_asked_again_and_not_for_ever() -> None:
    sock: Any = Scripted(2)
    assert netlink.dump(sock, 18, b"") == [word(3)]
    sock = Scripted(99)
    with pytest.raises(OSError) as refused:
        netlink.dump(sock, 18, b"")
    assert refused.value.errno == errno.EAGAIN


# ---- links ----


def info(at: dict[int, int], size: str = "=I") -> bytes:
    found = bytearray(256)
    for offset, value in at.items():
        struct.pack_into(size, found, offset, value)
    return bytes(found)


@pytest.mark.parametrize(
    ("kind", "found", "text", "expected"),
    [
        ("raw_tracepoint", info({}), "sys_enter", {"hook": "raw_tp", "target": "sys_enter", "attached": True}),
        ("tracing", info({16: 24, 20: 1, 24: 77}), "", {"hook": "fentry", "btf": (1, 77), "attached": True}),
        ("tracing", info({16: 27, 20: 1, 24: 77}), "", {"hook": "lsm", "btf": (1, 77), "attached": True}),
        ("tracing", info({16: 0, 20: 9, 24: 3}), "", {"hook": "freplace", "btf": (9, 3), "attached": True}),
        ("cgroup", info({16: 1108, 24: 1}), "", {"hook": "cgroup_inet_egress", "cgroup_id": 1108, "attached": True}),
        ("cgroup", info({24: 6}), "", {"hook": "cgroup_device", "cgroup_id": 0, "attached": False}),
        ("iter", info({}), "task", {"hook": "iter", "target": "task", "attached": True}),
        ("netns", info({16: 5, 20: 36}), "", {"hook": "sk_lookup", "netns": 5, "attached": True}),
        ("xdp", info({16: 2}), "", {"hook": "xdp", "ifindex": 2, "attached": True}),
        ("xdp", info({}), "", {"hook": "xdp", "ifindex": 0, "attached": False}),
        ("tcx", info({16: 2, 20: 47}), "", {"hook": "tcx_egress", "ifindex": 2, "attached": True}),
        ("netkit", info({16: 2, 20: 54}), "", {"hook": "netkit_primary", "ifindex": 2, "attached": True}),
        ("perf_event", info({16: 3, 36: 0}), "f", {"hook": "kprobe", "target": "f", "attached": True}),
        ("perf_event", info({16: 4, 36: 16}), "f", {"hook": "kretprobe", "target": "f+0x10", "attached": True}),
        ("perf_event", info({16: 1, 36: 0}), "/bin/sh", {"hook": "uprobe", "target": "/bin/sh+0x0", "attached": True}),
        ("perf_event", info({16: 5}), "exec", {"hook": "tracepoint", "target": "exec", "attached": True}),
        ("perf_event", info({16: 6, 24: 9, 32: 1}), "", {"hook": "perf_event", "target": "type 1 config 9",
                                                         "attached": True}),
        # Before 6.6 the kernel does not say which.
        ("perf_event", info({}), "", {"hook": "perf_event", "attached": True}),
        ("kprobe_multi", info({24: 7}), "", {"hook": "kprobe_multi", "mode": "7 functions", "attached": True}),
        ("kprobe_multi", info({24: 7, 28: 1}), "", {"hook": "kretprobe_multi", "mode": "7 functions",
                                                    "attached": True}),
        ("uprobe_multi", info({52: 2}), "/bin/sh", {"hook": "uprobe_multi", "target": "/bin/sh", "mode": "2 places",
                                                    "attached": True}),
        ("struct_ops", info({16: 12}), "", {"hook": "struct_ops", "map_id": 12, "attached": True}),
        ("netfilter", info({16: 2, 20: 1, 24: 0xFFFFFFFF}), "", {"hook": "netfilter", "target": "ipv4 input",
                                                               "mode": "priority -1", "attached": True}),
        ("sockmap", info({16: 12, 20: 5}), "", {"hook": "sk_skb_stream_verdict", "map_id": 12, "attached": True}),
    ],
)  # fmt: skip
def test_a_link_says_its_hook_and_target(kind: str, found: bytes, text: str, expected: dict[str, Any]) -> None:
    assert linkinfo._READERS[kind](found, text) == expected


def test_every_kind_of_link_has_its_reader() -> None:
    assert set(linkinfo._READERS) == set(bpfnames.LINK_TYPES) - {"unspec"}
    assert set(linkinfo._TEXT_AT) <= set(linkinfo._READERS)


# ---- holders, pins, cgroups ----


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("pos:\t0\nprog_type:\t6\nprog_id:\t41\n", "program", 41),
        ("link_type:\txdp\nlink_id:\t7\nprog_tag:\t00\nprog_id:\t41\n", "link", 7),
        ("map_type:\t2\nmap_id:\t12\nfrozen:\t0\n", "map", 12),
        ("map_type:\t2\nmap_id:\t12\n", "program", None),
        ("prog_id: x\n", "program", None),
        ("", "program", None),
    ],
)
def test_the_id_in_a_descriptors_text(text: str, kind: str, expected: int | None) -> None:
    assert bpfholders.id_in(text, kind) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0::/system.slice/a.service\n", "/system.slice/a.service"),
        ("12:cpu:/x\n1:name=systemd:/system.slice/a.service\n0::/\n", "/system.slice/a.service"),
        ("1:name=systemd:/old\n0::/system.slice/a.service\n", "/system.slice/a.service"),
        ("0::/with:colon/a.scope\n", "/with:colon/a.scope"),
        ("0::/\n", "/"),
        ("12:cpu:/x\n", None),
        ("", None),
    ],
)
def test_the_cgroup_by_which_systemd_knows_a_process(text: str, expected: str | None) -> None:
    assert bpfholders.cgroup_in(text) == expected


def test_the_mounts_of_a_bpffs() -> None:
    text = (
        "30 23 0:26 / /sys/fs/bpf rw,nosuid - bpf bpf rw,mode=700\n"
        "31 23 0:27 / /run/with\\040space rw shared:5 master:1 - bpf none rw\n"
        "32 23 0:28 / /mnt rw - tmpfs bpf rw\nbroken\n33 23 0:29 / /x rw -\n"
    )
    assert bpfpins.parse_mounts(text) == [("0:26", "/sys/fs/bpf"), ("0:27", "/run/with space")]


def test_where_the_cgroups_are_mounted() -> None:
    text = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup2 /sys/fs/cgroup/uni\\040fied cgroup2 rw 0 0\n"
    assert cgroupattach.mounted(text) == "/sys/fs/cgroup/uni fied"
    assert cgroupattach.mounted("tmpfs /x tmpfs rw 0 0\n") is None


@pytest.mark.parametrize(
    ("flags", "mode"), [(0, "exclusive"), (1, "override"), (2, "multi"), (3, "multi"), (4, "exclusive")]
)
def test_the_mode_of_a_cgroups_hook(flags: int, mode: str) -> None:
    assert cgroupattach.mode_of(flags) == mode


@pytest.mark.parametrize(
    ("setting", "counts", "unknown", "expected", "words"),
    [
        ("1", False, [], "yes", "is 1"),
        ("0", True, [], "yes", "a process holds BPF_ENABLE_STATS"),
        (None, True, [], "yes", "a process holds BPF_ENABLE_STATS"),
        (None, False, [], "unknown", "cannot be read"),
        ("0", False, ["process 7: EACCES"], "unknown", "not every process could be asked"),
        ("0", False, [], "no", "and no process holds BPF_ENABLE_STATS"),
    ],
)
def test_whether_run_time_is_counted(
    tmp_path: Path, setting: str | None, counts: bool, unknown: list[str], expected: str, words: str
) -> None:
    place = tmp_path / "proc/sys/kernel/bpf_stats_enabled"
    place.parent.mkdir(parents=True)
    if setting is not None:
        place.write_text(f"{setting}\n")
    found = ask._stats(tmp_path, bpfholders.Held([], counts, unknown))
    assert found["answer"] == expected and words in found["evidence"]


def test_a_namespace_that_cannot_be_entered_is_named_and_the_others_are_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = netns.Namespace(netns.own_inode() or 0, "/proc/self/ns/net", None, None)
    gone = [netns.Namespace(number, str(tmp_path / "gone"), name, None) for number, name in ((7, "blue"), (8, None))]
    monkeypatch.setattr(netns, "namespaces", lambda root, limit: ([own, *gone], 2))
    unknown: list[str] = []
    found = ask._namespaces(Path("/"), time.monotonic_ns() + 60 * 10**9, unknown)
    assert [one.found is None for one in found] == [False, True, True]
    assert unknown == [
        "network namespaces: 2 more were not asked", "network namespace blue: ENOENT", "network namespace 8: ENOENT"
    ]  # fmt: skip
    unknown.clear()
    assert ask._namespaces(Path("/"), time.monotonic_ns() - 1, unknown) == []
    assert unknown[1:] == ["network namespaces: stopped after 0 for want of time"]


@pytest.mark.parametrize("error", [ValueError("what the kernel gave is no answer"), OSError(errno.EPERM, "not yours")])
def test_what_is_raised_inside_a_namespace_comes_out_of_it(error: Exception) -> None:
    def asked() -> int:
        raise error

    own = netns.Namespace(netns.own_inode() or 0, "/proc/self/ns/net", None, None)
    with pytest.raises(type(error)) as raised:
        netns.inside(own, asked)
    assert raised.value is error and netns.inside(own, lambda: 7) == 7


def test_our_own_namespace_comes_first_and_the_bound_is_told() -> None:
    found, more = netns.namespaces(Path("/"), 1)
    assert [one.inode for one in found] == [os.stat("/proc/self/ns/net").st_ino] and more >= 0
    every, none = netns.namespaces(Path("/"), 10_000)
    assert (len(every) - 1, none) == (more, 0)


def test_a_namespace_that_cannot_be_entered_is_the_kernels_error() -> None:
    with pytest.raises(OSError) as refused:
        netns.inside(netns.Namespace(1, "/proc/self/ns/uts", None, None), lambda: 1)
    assert refused.value.errno in (errno.EINVAL, errno.EPERM)


# ---- names ----


# Of the kernel: nothing else has whole BTF; the lab's guests have it.
@pytest.mark.skipif(not os.access(BTF, os.R_OK), reason=f"{BTF} cannot be read: this kernel has no BTF")
def test_the_names_of_types_are_those_by_which_they_are_found() -> None:
    blob = BTF.read_bytes()
    wanted = [(btf.TYPEDEF, "btf_trace_sched_switch"), (btf.FUNC, "vfs_read"), (btf.TYPEDEF, "size_t")]
    ids = btf.type_ids(blob, wanted)
    assert len(ids) == 3
    names = btf.type_names(blob, [*ids.values(), 0, 1 << 30])
    assert names == {number: name for (_kind, name), number in ids.items()}


def made_btf(types: list[bytes], strings: bytes) -> bytes:
    body = b"".join(types)
    return struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(body), len(body), len(strings)) + body + strings


def test_a_modules_names_follow_those_of_the_kernel() -> None:
    integer = struct.pack("=IIII", 1, 1 << 24, 4, 32)
    base = made_btf([integer, integer], b"\0int\0")
    module = made_btf(
        [struct.pack("=III", 5, btf.FUNC << 24, 1), struct.pack("=III", 1, btf.TYPEDEF << 24, 1)], b"there\0"
    )
    assert btf.type_names(module, [1, 3, 4], base) == {3: "there", 4: "int"}
    with pytest.raises(btf.BtfError):
        btf.type_names(module, [1])
    with pytest.raises(btf.BtfError):
        btf.type_names(b"x" * 40, [1])


# ---- put together ----


def raw(**more: Any) -> ask.Raw:
    none = loaded.Listing([], "0 listed")
    return ask.Raw(
        "6.1", None, 1_000_000_000, 0, True, {"answer": "no", "evidence": ""}, none, none, none,
        bpfholders.Held([], False, []), bpfpins.Pins([], []), [], cgroupattach.OfCgroups([], {}, []), [], {}, {}, [],
    )._replace(**more)  # fmt: skip


def test_what_was_refused_is_null_and_told_and_never_an_empty_list() -> None:
    refused = loaded.Listing(None, "programs: EPERM from BPF_*_GET_NEXT_ID")
    found = host.assemble(raw(programs=refused, privileged=False))
    assert found["programs"] is None and found["maps"] == [] and found["privileged"] is False
    assert found["unknown"] == ["programs: EPERM from BPF_*_GET_NEXT_ID"]


@pytest.mark.parametrize("remark", ["links: 3 listed, 2 more are not listed", "links: 3 listed, 1 could not be opened",
                                    "links: stopped after 3 for want of time"])  # fmt: skip
def test_a_list_that_is_not_whole_is_told(remark: str) -> None:
    assert host.assemble(raw(links=loaded.Listing([], remark)))["unknown"] == [remark]


def test_a_link_whose_interface_has_gone_is_no_attachment() -> None:
    one = {"id": 7, "type": "xdp", "program_id": 41, "hook": "xdp", "target": None, "mode": None, "attached": False,
           "ifindex": 0}  # fmt: skip
    found = host.assemble(raw(links=loaded.Listing([one], "")))
    assert found["attachments"] == [] and found["links"][0]["attached"] is False
    there = {**one, "attached": True, "ifindex": 5}
    (attached,) = host.assemble(raw(links=loaded.Listing([there], "")))["attachments"]
    assert (attached["point"], attached["source"], attached["link_id"]) == ("xdp:ifindex 5", "link", 7)


def test_a_crowd_of_attachments_is_counted_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "ATTACHMENTS", 2)
    one = {"program_id": 1, "hook": "cgroup_device", "target": "/a", "cgroup_id": 9, "mode": "multi", "link_id": None,
           "source": "query"}  # fmt: skip
    found = host.assemble(raw(cgroups=cgroupattach.OfCgroups([one] * 5, {}, [])))
    assert len(found["attachments"]) == 2 and found["unknown"] == ["attachments: 3 more are not listed"]


def holding(pid: int, *objects: tuple[str, int], **more: Any) -> bpfholders.Holding:
    process = {"pid": pid, "comm": "x", "exe": None, "uid": 0, "cgroup": "/a.service", **more}
    return bpfholders.Holding(process, list(objects), [], 0)


A_PROGRAM = {"id": 41, "name": "p", "tag": "0" * 16, "type": "xdp", "ours": False, "run_time_ns": None, "run_cnt": None,
             "memory_bytes": 1, "map_ids": [12], "uid": 0, "load_time_ns": None, "jited": True}  # fmt: skip
A_MAP = {"id": 12, "name": "m", "type": "array", "max_entries": 1, "memory_bytes": 1, "key_bytes": 4, "value_bytes": 4}


def test_one_that_forks_does_not_fill_the_document(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "PROCESSES", 5)
    monkeypatch.setattr(host, "HOLDERS", 3)
    held = bpfholders.Held([holding(pid, ("map", 12), ("program", 41)) for pid in range(1, 9)], False, [])
    listed = {"maps": loaded.Listing([A_MAP], ""), "programs": loaded.Listing([A_PROGRAM], "")}
    found = host.assemble(raw(held=held, **listed))
    assert [one["pid"] for one in found["programs"][0]["holders"]] == [1, 2, 3]
    assert sorted(found["processes"]) == ["1", "2", "3", "4", "5"] and found["maps"][0]["pids"] == [1, 2, 3]
    assert found["unknown"] == ["processes: 3 more are not listed", "holders: of 2 programs or maps only 3 are listed"]


def test_long_names_are_cut_and_what_is_not_known_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "UNKNOWN", 3)
    held = bpfholders.Held([holding(1, ("map", 12), exe="/" * 5000, cgroup="/c" * 5000)], False, ["e" * 5000] * 5)
    found = host.assemble(raw(held=held))
    assert {len(found["processes"]["1"][name]) for name in ("exe", "cgroup")} == {2000}
    assert [len(one) for one in found["unknown"][:3]] == [2000] * 3
    assert found["unknown"][3:] == ["unknown: 2 more are not told"]


def test_a_kind_of_descriptor_of_tomorrow_has_its_number() -> None:
    assert bpfnames.name_of(bpfnames.LINK_TYPES, 99) == "type_99" and len(bpfqueries.FD_TYPES) == 6
