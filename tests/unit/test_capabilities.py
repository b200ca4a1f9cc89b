# SPDX-License-Identifier: GPL-3.0-or-later
"""Capability answers: the parsers on made files, the questions on this machine's own kernel."""

from __future__ import annotations

import errno
import gc
import gzip
import json
import os
import resource
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.base import answers
from ansible_collections.ebpf.fleet.plugins.module_utils.contract.requirements import parse
from ansible_collections.ebpf.fleet.plugins.module_utils.facts import capabilities, hookask, kernelfacts
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel import bpfsys, kernelask, loaded
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel.hostfiles import kernel_family, read_os_release

VMLINUX = Path("/sys/kernel/btf/vmlinux")

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="the kernel answers these questions to root only")
with_btf = pytest.mark.skipif(not VMLINUX.exists(), reason="this machine's kernel has no BTF to ask about")


class TestHostFiles:
    @pytest.mark.parametrize(
        ("release", "family"),
        [("6.1.0-31-cloud-amd64", "6.1"), ("5.10.0", "5.10"), ("7.3-rc1", "7.3"), ("next", None), ("", None)],
    )
    def test_kernel_family(self, release: str, family: str | None) -> None:
        assert kernel_family(release) == family

    def test_os_release_is_unquoted(self, tmp_path: Path) -> None:
        (tmp_path / "etc").mkdir()
        (tmp_path / "etc/os-release").write_text("# c\nID=\"rhel\"\nVERSION_ID='9.4'\nNAME=x\n")
        assert read_os_release(tmp_path) == {"id": "rhel", "version_id": "9.4"}

    def test_no_os_release_is_null(self, tmp_path: Path) -> None:
        assert read_os_release(tmp_path) == {"id": None, "version_id": None}

    def test_lockdown_mode(self, tmp_path: Path) -> None:
        folder = tmp_path / "sys/kernel/security"
        folder.mkdir(parents=True)
        (folder / "lockdown").write_text("none [integrity] confidentiality\n")
        (folder / "lsm").write_text("lockdown,capability,bpf\n")
        assert kernelfacts.read_lockdown(tmp_path)["mode"] == "integrity"
        assert kernelfacts.read_lsms(tmp_path) == ["lockdown", "capability", "bpf"]

    def test_what_cannot_be_read_is_null(self, tmp_path: Path) -> None:
        assert kernelfacts.read_lockdown(tmp_path)["mode"] is None
        assert kernelfacts.read_lsms(tmp_path) is None
        assert kernelfacts.read_config(tmp_path, "6.1") is None
        assert kernelfacts.read_cgroup(tmp_path) is None

    def test_config_of_boot(self, tmp_path: Path) -> None:
        (tmp_path / "boot").mkdir()
        (tmp_path / "boot/config-6.1").write_text("CONFIG_BPF_LSM=y\n# CONFIG_KPROBES is not set\n")
        found = kernelfacts.read_config(tmp_path, "6.1")
        assert found is not None
        assert (found["options"]["CONFIG_BPF_LSM"], found["options"]["CONFIG_KPROBES"]) == ("y", "n")

    @pytest.mark.parametrize(
        "place", ["proc/config.gz", "boot/config-6.1", "lib/modules/6.1/config", "usr/lib/modules/6.1/config"]
    )
    def test_every_place_of_a_configuration(self, tmp_path: Path, place: str) -> None:
        (tmp_path / place).parent.mkdir(parents=True)
        text = b"# Linux\nCONFIG_BPF_LSM=y\n"
        (tmp_path / place).write_bytes(gzip.compress(text) if place.endswith(".gz") else text)
        found = kernelfacts.read_config(tmp_path, "6.1")
        assert found is not None and (found["source"], found["options"]["CONFIG_BPF_LSM"]) == (place, "y")

    @pytest.mark.parametrize(
        "raw",
        [
            gzip.compress(b"CONFIG_BPF_LSM=y\n" * 9000)[:-30],
            gzip.compress(b"CONFIG_BPF_LSM=y\n" * 300_000),
            b"CONFIG_BPF_LSM=y\n" * 300_000,
            b"<html>not found</html>",
            b"",
        ],
        ids=["cut", "bomb", "giant", "page", "empty"],
    )
    def test_part_of_a_configuration_is_not_one(self, tmp_path: Path, raw: bytes) -> None:
        """Else every option behind the cut would be a no."""
        (tmp_path / "proc").mkdir()
        (tmp_path / "proc/config.gz").write_bytes(raw)
        assert kernelfacts.read_config(tmp_path, "6.1") is None

    def test_a_broken_config_is_passed_over(self, tmp_path: Path) -> None:
        (tmp_path / "proc").mkdir()
        (tmp_path / "proc/config.gz").write_bytes(b"no gzip")
        assert kernelfacts.read_config(tmp_path, "6.1") is None

    def test_cgroup_versions(self, tmp_path: Path) -> None:
        base = tmp_path / "sys/fs/cgroup"
        (base / "cpu").mkdir(parents=True)
        assert kernelfacts.read_cgroup(tmp_path) == "v1"
        (base / "unified").mkdir()
        (base / "unified/cgroup.controllers").write_text("")
        assert kernelfacts.read_cgroup(tmp_path) == "hybrid"
        (base / "cgroup.controllers").write_text("")
        assert kernelfacts.read_cgroup(tmp_path) == "v2"

    def test_systemd_is_installed_but_not_running(self, tmp_path: Path) -> None:
        (tmp_path / "usr/bin").mkdir(parents=True)
        (tmp_path / "usr/bin/systemctl").write_text("")
        found = kernelfacts.read_systemd(tmp_path)
        assert (found["installed"]["answer"], found["pid1"]["answer"]) == ("yes", "no")


TRUSTED = kernelask.Standing(trusted=True, confidential=False)
STRANGER = kernelask.Standing(trusted=False, confidential=False)
LOCKED = kernelask.Standing(trusted=True, confidential=True)


class TestStanding:
    @pytest.mark.parametrize(
        ("who", "number", "answer", "code"),
        [
            (TRUSTED, 0, "yes", None),
            (TRUSTED, errno.EINVAL, "no", None),
            (TRUSTED, errno.ENOENT, "no", None),
            (TRUSTED, 524, "no", None),
            (TRUSTED, errno.ENOMEM, "unknown", None),
            (TRUSTED, errno.EPERM, "no", "EF_PERMISSION"),
            (TRUSTED, errno.EACCES, "no", "EF_PERMISSION"),
            (LOCKED, errno.EPERM, "no", "EF_LOCKDOWN"),
            (STRANGER, errno.EPERM, "unknown", None),
            (STRANGER, errno.EINVAL, "no", None),
        ],
    )
    def test_what_an_errno_says_depends_on_who_asks(
        self, who: kernelask.Standing, number: int, answer: str, code: str | None
    ) -> None:
        def refuse() -> int:
            raise OSError(number, "")

        found = who.judge(0, "asked") if number == 0 else who.attempt(refuse, "asked")
        assert (found["answer"], found.get("reason_code")) == (answer, code)
        assert "asked" in found["evidence"]
        assert number == 0 or answers.errno_name(number) in found["evidence"]

    def test_an_unknown_machine_is_unknown(self) -> None:
        def refuse() -> int:
            return bpfsys.syscall_number({})

        assert TRUSTED.attempt(refuse, "asked")["answer"] == "unknown"

    @pytest.mark.parametrize(
        ("log", "answer"),
        [
            ("invalid func unknown#181", "no"),
            ("0: (85) call x#58\nprogram of this type cannot use helper x#58", "no"),
            ("0: R1=ctx(id=0) R10=fp0\n0: (85) call unknown#240\nunknown func bpf_x#240", "no"),
            ("R1 type=ctx expected=map_ptr", "yes"),
            ("0: (85) call bpf_ktime_get_ns#5\n1: (bf) r0 = r2\nR2 !read_ok", "yes"),
            ("helper call is not allowed in probe", "unknown"),
            ("something that a later kernel says", "unknown"),
            ("", "unknown"),
        ],
    )
    def test_helper_answers_need_known_words(self, log: str, answer: str) -> None:
        assert kernelask.helper_answer(bpfsys.Verdict(22, log), TRUSTED)["answer"] == answer

    def test_a_helper_that_the_kernel_forbids_without_words_is_no_absence(self) -> None:
        found = kernelask.helper_answer(bpfsys.Verdict(errno.EPERM, ""), TRUSTED)
        assert (found["answer"], found["reason_code"]) == ("no", "EF_PERMISSION")
        assert kernelask.helper_answer(bpfsys.Verdict(errno.EPERM, ""), STRANGER)["answer"] == "unknown"

    @pytest.mark.parametrize(
        ("who", "probe", "tracepoint"),
        [(LOCKED, ("no", "EF_LOCKDOWN"), ("no", "EF_LOCKDOWN")), (TRUSTED, None, ("yes", None))],
    )
    def test_under_lockdown_no_hook_that_reads_the_kernel_is_asked_for(
        self, tmp_path: Path, who: kernelask.Standing, probe: tuple[str, str] | None, tracepoint: tuple[str, str | None]
    ) -> None:
        """With these files and without lockdown a tracepoint is there; a kprobe is then the kernel's to answer."""
        (tmp_path / "sys/bus/event_source/devices/kprobe").mkdir(parents=True)
        (tmp_path / "sys/bus/event_source/devices/kprobe/type").write_text("6\n")
        (tmp_path / "sys/kernel/tracing/events/sched/sched_switch").mkdir(parents=True)
        (tmp_path / "sys/kernel/tracing/events/sched/sched_switch/id").write_text("1\n")
        asker = hookask.HookAsker(tmp_path, who, hookask.KernelTypes(tmp_path, []))
        found = asker.ask("tracepoint:sched/sched_switch")
        assert (found["answer"], found.get("reason_code")) == tracepoint
        for kind in ("kprobe", "kretprobe") if probe else ():
            found = asker.ask(f"{kind}:vfs_read")
            assert (found["answer"], found["reason_code"]) == probe and "confidentiality" in found["evidence"]

    def test_under_lockdown_the_helpers_that_read_the_kernel_are_not_asked(self) -> None:
        found = kernelask.HelperAsker(LOCKED, "kprobe", []).ask("probe_read_kernel")
        assert (found["answer"], found["reason_code"]) == ("no", "EF_LOCKDOWN")

    @pytest.mark.parametrize(
        ("number", "answer"),
        [(7, "no"), (errno.EOPNOTSUPP, "no"), (errno.EBADMSG, "yes"), (errno.EINVAL, "unknown"), (0, "unknown")],
    )
    def test_signatures_are_judged_by_errno(self, monkeypatch: pytest.MonkeyPatch, number: int, answer: str) -> None:
        """One kernel gives one errno only, so the others are put in its mouth here; the oracle asks for real."""
        monkeypatch.setattr(bpfsys, "signed_load", lambda _type, _signature: number)
        assert kernelask.ask_signed(TRUSTED)["answer"] == answer

    def test_a_stranger_is_not_told_of_signatures(self) -> None:
        assert kernelask.ask_signed(STRANGER)["answer"] == "unknown"


NOTES = (
    struct.pack("=III", 4, 4, 1)
    + b"Xen\0"
    + b"abcd"
    + struct.pack("=III", 6, 3, 2)
    + b"Linux\0\0\0"
    + b"abc\0"
    + struct.pack("=III", 4, 20, 3)
    + b"GNU\0"
    + bytes(range(20))
)
KERNEL = {"machine": "x86_64", "release": "6.1.0-1", "build_id": "aa"}


class TestBuild:
    @pytest.mark.parametrize(
        ("notes", "found"),
        [(NOTES, bytes(range(20)).hex()), (NOTES[:20], None), (b"", None), (b"\xff" * 40, None)],
    )
    def test_the_build_id_is_the_gnu_note(self, tmp_path: Path, notes: bytes, found: str | None) -> None:
        (tmp_path / "sys/kernel").mkdir(parents=True)
        (tmp_path / "sys/kernel/notes").write_bytes(notes)
        assert kernelfacts.read_build_id(tmp_path) == found

    def test_agrees_with_readelf(self) -> None:
        notes = Path("/sys/kernel/notes")
        if not notes.exists():
            pytest.skip("this kernel shows no notes")
        assert kernelfacts.read_build_id(Path("/")) in notes.read_bytes().hex()

    @pytest.mark.parametrize(
        ("entry", "kernel", "answer", "code"),
        [
            ({"machine": "x86_64", "release": "6.1.0-1", "build_id": "aa"}, KERNEL, "yes", None),
            ({"machine": "x86_64", "release": "other", "build_id": "aa"}, KERNEL, "yes", None),
            ({"machine": "x86_64", "release": "6.1.0-1", "build_id": None}, KERNEL, "yes", None),
            ({"machine": "x86_64", "release": "6.1.0-1", "build_id": "bb"}, KERNEL, "no", "EF_BTF_MISMATCH"),
            ({"machine": "x86_64", "release": "6.1.0-1", "build_id": "bb"}, {**KERNEL, "build_id": None}, "yes", None),
            ({"machine": "aarch64", "release": "6.1.0-1", "build_id": "aa"}, KERNEL, "no", None),
            ({"machine": "x86_64", "release": "6.1.0-2", "build_id": "bb"}, KERNEL, "no", None),
            ({"machine": "x86_64", "release": "x", "build_id": None}, {**KERNEL, "build_id": None}, "no", None),
        ],
    )
    def test_minimal_btf_is_matched_by_build_id_then_release(
        self, entry: dict, kernel: dict, answer: str, code: str | None
    ) -> None:
        found = kernelfacts.matching_btf(kernel, [{**entry, "file": "btf/x.btf"}])
        assert (found["answer"], found.get("reason_code")) == (answer, code)

    def test_a_matching_entry_goes_before_a_mismatch(self) -> None:
        wrong = {"machine": "x86_64", "release": "6.1.0-1", "build_id": "bb", "file": "wrong"}
        found = kernelfacts.matching_btf(KERNEL, [wrong, {**wrong, "build_id": "aa", "file": "right"}])
        assert found["answer"] == "yes" and "right" in found["evidence"]

    def test_no_index_is_no(self) -> None:
        assert kernelfacts.matching_btf(KERNEL, None)["answer"] == "no"


class TestRelease:
    def test_no_release_is_null(self, tmp_path: Path) -> None:
        assert kernelfacts.read_release(tmp_path) is None

    def test_what_the_loader_says_of_itself(self, tmp_path: Path) -> None:
        bundle = tmp_path / "var/lib/ebpf-fleet/current/bundle"
        (bundle / "features/runqlat").mkdir(parents=True)
        (bundle / "manifest.json").write_text('{"bundle": {"version": "1.2", "sequence": 3}}')
        (bundle / "features/runqlat/contract.json").write_text('{"data_path": "metrics"}')
        run = tmp_path / "run/ebpf-fleet-loader"
        run.mkdir(parents=True)
        counters = {"produced": 5, "dropped": 0, "sampled_out": 1}
        feature = {"state": "attached", "profile": "full", "variant": "full", "counters": counters}
        status = {"time_unix_ns": 100, "state": "running", "bundle": {"digest": "d"}, "features": {"runqlat": feature}}
        (run / "status.json").write_text(json.dumps(status))
        assert kernelfacts.read_release(tmp_path, now_ns=150) == {
            "version": "1.2",
            "sequence": 3,
            "digest": "d",
            "state": "running",
            "status_age_ns": 50,
            "features": {
                "runqlat": {
                    "state": "attached",
                    "profile": "full",
                    "variant": "full",
                    "data_path": "metrics",
                    "produced": 5,
                    "dropped": 0,
                    "sampled_out": 1,
                }
            },
        }

    def test_a_loader_that_says_nothing_is_null_not_zero(self, tmp_path: Path) -> None:
        bundle = tmp_path / "var/lib/ebpf-fleet/current/bundle"
        bundle.mkdir(parents=True)
        (bundle / "manifest.json").write_text('{"bundle": {"version": "1.2", "sequence": 3}}')
        run = tmp_path / "run/ebpf-fleet-loader"
        run.mkdir(parents=True)
        (run / "status.json").write_text('{"torn": ')
        found = kernelfacts.read_release(tmp_path)
        assert found is not None
        assert (found["state"], found["status_age_ns"], found["digest"]) == (None, None, None)


TEXTS = (
    "attach:tp_btf:sched_switch",
    "attach:tp_btf:no_such_hook",
    "attach:raw_tp:sched_switch",
    "attach:fentry:vfs_unlink",
    "attach:kprobe:vfs_unlink",
    "helper:tracing:ringbuf_reserve",
    "helper:socket_filter:override_return",
    "helper:kprobe:probe_write_user",
)


def next_program_id() -> int:
    """The id that the kernel gives to a program that is loaded now."""
    fd = bpfsys.prog_load(bpfsys.ProgramSpec(type=17))
    try:
        return bpfsys.program_from(bpfsys.object_info(fd)).id
    finally:
        os.close(fd)


@pytest.fixture(scope="module")
def facts() -> dict:
    return capabilities.gather([parse(text) for text in TEXTS])


@as_root
@with_btf
class TestThisKernel:
    def test_what_the_loader_needs_is_there(self, facts: dict) -> None:
        assert facts["btf"]["state"] == "vmlinux"
        for name in ("tracing", "raw_tracepoint", "kprobe"):
            assert facts["program_types"][name]["answer"] == "yes", facts["program_types"][name]
        for name in ("percpu_array", "ringbuf", "task_storage", "array_of_maps", "hash", "lru_hash"):
            assert facts["map_types"][name]["answer"] == "yes", facts["map_types"][name]

    def test_hooks(self, facts: dict) -> None:
        points = facts["attach_points"]
        assert points["tp_btf:sched_switch"]["answer"] == "yes"
        assert points["raw_tp:sched_switch"]["answer"] == "yes"
        assert points["tp_btf:no_such_hook"]["answer"] == "no"

    def test_fentry_and_kprobe_answer_as_the_kernel_does(self, facts: dict) -> None:
        """A symbol in BTF is not enough: this asks by loading and by opening the event."""
        pmu = Path("/sys/bus/event_source/devices/kprobe/type")
        assert (facts["attach_points"]["kprobe:vfs_unlink"]["answer"] == "yes") is pmu.exists()
        fentry = facts["attach_points"]["fentry:vfs_unlink"]
        assert fentry["answer"] == "yes" or fentry.get("reason_code") in ("EF_PERMISSION", "EF_ATTACH_FAILED")

    def test_helpers(self, facts: dict) -> None:
        helpers = facts["helpers"]
        assert helpers["tracing:ringbuf_reserve"]["answer"] == "yes"
        assert helpers["socket_filter:override_return"]["answer"] == "no"

    def test_a_helper_that_makes_the_kernel_warn_is_not_asked(self, facts: dict) -> None:
        assert facts["helpers"]["kprobe:probe_write_user"]["answer"] == "unknown"

    def test_no_descriptor_is_left_open(self) -> None:
        gc.collect()  # what an earlier test forgot is not closed in the middle of this one
        before = set(os.listdir("/proc/self/fd"))
        capabilities.gather([parse(text) for text in TEXTS])
        assert set(os.listdir("/proc/self/fd")) <= before

    def test_memlock_is_put_back(self) -> None:
        before = resource.getrlimit(resource.RLIMIT_MEMLOCK)
        capabilities.gather([])
        assert resource.getrlimit(resource.RLIMIT_MEMLOCK) == before

    def test_a_program_is_found_by_its_name(self) -> None:
        fd = bpfsys.prog_load(bpfsys.ProgramSpec(type=17))
        try:
            assert "probe" in {one.name for one in bpfsys.own_programs("probe")}
        finally:
            os.close(fd)

    def test_the_questions_load_no_program(self) -> None:
        """A program's id is one more than the last one's: none was loaded and freed between."""
        risen = []
        for _attempt in range(5):
            before = next_program_id()
            capabilities.gather([parse("helper:tracing:ringbuf_reserve")])
            risen.append(next_program_id() - before)
            if risen[-1] == 1:
                return
        # Others may load between two of our questions, but not between all of them.
        raise AssertionError(f"program ids rose by {risen} while only questions were asked")

    def test_every_kind_and_link_has_an_answer(self, facts: dict) -> None:
        for table in ("attach_kinds", "bpf_links"):
            for name, answer in facts[table].items():
                assert answer["answer"] in ("yes", "no", "unknown"), name
                assert answer["evidence"], name
        assert facts["attach_kinds"]["tp_btf"]["answer"] == "yes"
        assert facts["bpf_links"]["tracing"]["answer"] == "yes"

    def test_all_helpers_hold_what_the_contracts_ask(self, facts: dict) -> None:
        table = capabilities.gather([], all_helpers=True)["helpers"]
        assert len(table) > 6000
        assert {key: table[key]["answer"] for key in facts["helpers"]} == {
            key: answer["answer"] for key, answer in facts["helpers"].items()
        }
        # Only tracing programs may sleep-copy; only packets have checksums.
        assert table["sched_cls:csum_diff"]["answer"] == "yes"
        assert table["tracing:csum_diff"]["answer"] == "no"

    def test_what_others_loaded_is_listed_with_its_cost(self) -> None:
        array = bpfsys.map_create(2, 4, 8, 16)
        fd = bpfsys.prog_load(bpfsys.ProgramSpec(type=17))
        try:
            found = loaded.read_loaded(stats_on=False)
            info = bpfsys.program_from(bpfsys.object_info(fd))
            mine = next(one for one in found["programs"] if one["id"] == info.id)
            assert (mine["name"], mine["type"], mine["ours"]) == ("probe", "raw_tracepoint", False)
            assert mine["memory_bytes"] >= 4096
            # It never ran: without statistics nobody measured that.
            assert (mine["run_time_ns"], mine["run_cnt"]) == (None, None)
            assert any(one["type"] == "array" and one["max_entries"] == 16 for one in found["maps"])
            measured = loaded.read_loaded(stats_on=True)
            assert next(one for one in measured["programs"] if one["id"] == info.id)["run_cnt"] == 0
        finally:
            os.close(fd)
            os.close(array)

    def test_a_crowd_is_counted_and_not_listed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(loaded, "LISTED", 3)
        fds = [bpfsys.prog_load(bpfsys.ProgramSpec(type=17)) for _ in range(5)]
        try:
            found = loaded.read_loaded(stats_on=False)
            assert len(found["programs"]) == 3
            assert "programs: 3 listed, " in found["evidence"]
            assert "more are not listed" in found["evidence"]
            assert loaded.own_programs(found)["programs"] is not None
        finally:
            for fd in fds:
                os.close(fd)

    def test_a_walk_stops_for_want_of_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(loaded, "BUDGET_NS", -1)
        fd = bpfsys.prog_load(bpfsys.ProgramSpec(type=17))
        try:
            assert "stopped after 0 for want of time" in loaded.read_loaded(stats_on=False)["evidence"]
        finally:
            os.close(fd)

    def test_hidden_btf_is_missing_and_tracing_is_no(self) -> None:
        """An empty tmpfs over the folder is what a kernel without BTF looks like."""
        code = (
            "from ansible_collections.ebpf.fleet.plugins.module_utils.facts import capabilities as c\n"
            "f = c.gather([])\n"
            "print(f['btf']['state'], f['program_types']['tracing']['answer'], f['map_types']['ringbuf']['answer'])"
        )
        hide = 'mount -t tmpfs none /sys/kernel/btf && exec "$@"'
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", hide, "sh", sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.split() == ["missing", "no", "yes"]

    def test_without_root_the_answers_are_unknown_not_no(self) -> None:
        code = (
            "import os; os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
            "from ansible_collections.ebpf.fleet.plugins.module_utils.facts import capabilities as c\n"
            "f = c.gather([])\n"
            "print(f['privileged'], f['program_types']['kprobe']['answer'], f['own_programs']['programs'],"
            "f['loaded']['programs'], f['signed_programs']['answer'], f['attach_kinds']['fentry']['answer'])"
        )
        # The imports come before the change of user, as that user may not read this checkout.
        code = code.replace(
            "import os;", "import ansible_collections.ebpf.fleet.plugins.module_utils.facts.capabilities, os;"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.split() == ["False", "unknown", "None", "None", "unknown", "unknown"]
