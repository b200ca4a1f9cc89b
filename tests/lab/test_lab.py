# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's own logic: what it reads, what it writes, what it takes for alive.

Machines are not started here; test_live.py looks at those that run.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Iterator

import pytest
import yaml

from tests.lab import apt, guest, images, inventory, paths, processor, qemu, settings, ssh, system
from tests.lab.errors import LabError

DEB822 = """\
# a comment
Types: deb deb-src
URIs: http://mirror.example/debian http://second.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/one.gpg

Types: deb
URIs: http://mirror.example/security
Suites: bookworm-security
Components: main
Enabled: no

Types: deb-src
URIs: http://mirror.example/sources
Suites: bookworm
Components: main
"""


FLEET = ["k510", "k61a", "k61b", "k612", "k73"]


def lab_document() -> Any:
    return yaml.safe_load(paths.SETTINGS.read_text())


def kernel_image(**changes: Any) -> images.KernelImage:
    made = images.KernelImage("6.1.0-1", "6.1.1-1", Path("/k/vmlinuz"), Path("/k/initrd"), Path("/k/mod"), "kd")
    return dataclasses.replace(made, **changes)


def machine(**changes: Any) -> qemu.Machine:
    host = settings.load(paths.SETTINGS).hosts["k61a"]
    base = images.Image(Path("/b/base"), "bd", {"suite": "bookworm"})
    return dataclasses.replace(qemu.Machine(host, kernel_image(), base, "tcg", 2_600_000), **changes)


class TestAptSources:
    def test_deb822_gives_every_enabled_binary_archive(self) -> None:
        found = apt.deb822_sources(DEB822)
        assert [source.uri for source in found] == ["http://mirror.example/debian", "http://second.example/debian"]
        assert found[0].suites == ("bookworm", "bookworm-updates")
        assert found[0].components == ("main", "contrib")
        assert found[0].signed_by == "/usr/share/keyrings/one.gpg"

    def test_an_inline_key_survives_to_the_new_stanza(self) -> None:
        key = "Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQINBF\n -----END PGP PUBLIC KEY BLOCK-----\n"
        text = f"Types: deb\nURIs: http://m.example/debian\nSuites: sid\nComponents: main\n{key}"
        (source,) = apt.deb822_sources(text)
        (again,) = apt.deb822_sources(apt.source_text(source, ["bookworm"]))
        assert again.signed_by == source.signed_by
        assert "mQINBF" in again.signed_by
        assert again.suites == ("bookworm",)

    def test_classic_lines_with_and_without_options(self) -> None:
        text = (
            "# deb http://off.example/debian bookworm main\n"
            "deb [arch=amd64 signed-by=/k.gpg] http://m.example/debian bookworm main contrib # note\n"
            "deb-src http://m.example/debian bookworm main\n"
            "deb http://flat.example/ ./\n"
        )
        first, flat = apt.classic_sources(text)
        assert (first.uri, first.suites, first.components) == (
            "http://m.example/debian",
            ("bookworm",),
            ("main", "contrib"),
        )
        assert first.signed_by == "/k.gpg"
        assert flat.components == ()

    def test_the_archive_is_neither_security_nor_a_vendor(self) -> None:
        sources = apt.classic_sources(
            "deb http://vendor.example/apt vendor-bookworm main\n"
            "deb http://m.example/security bookworm-security main\n"
            "deb http://m.example/debian bookworm main\n"
        )
        assert apt.debian_archive(sources).uri == "http://m.example/debian"

    def test_without_an_archive_the_remedy_is_named(self) -> None:
        with pytest.raises(LabError, match="add a 'deb' source"):
            apt.debian_archive(apt.classic_sources("deb http://vendor.example/apt any main\n"))

    def test_both_kinds_of_files_are_read(self, tmp_path: Path) -> None:
        (tmp_path / "sources.list.d").mkdir()
        (tmp_path / "sources.list").write_text("deb http://one.example/debian sid main\n")
        (tmp_path / "sources.list.d" / "two.sources").write_text(DEB822)
        (tmp_path / "sources.list.d" / "old.list.save").write_text("deb http://no.example/debian sid main\n")
        uris = [source.uri for source in apt.machine_sources(tmp_path)]
        assert uris[0] == "http://one.example/debian"
        assert "http://no.example/debian" not in uris
        assert len(uris) == 3

    def test_dependencies_lose_versions_and_alternatives(self) -> None:
        field = "linux-binary-7.3 (= 7.3.4-1), kmod, initramfs-tools (>= 0.120) | dracut, libc6:any"
        assert apt.dependencies(field) == ("linux-binary-7.3", "kmod", "initramfs-tools", "libc6")
        assert apt.dependencies("") == ()

    @pytest.mark.parametrize(
        ("line", "kept"),
        [
            ("Acquire::http::Proxy", True),
            ("Acquire::https::mirror.example::CaInfo", True),
            ("Acquire::http::Pipeline-Depth", False),
            ("APT::Install-Recommends", False),
        ],
    )
    def test_proxies_and_certificates_are_carried_over(self, line: str, kept: bool) -> None:
        assert bool(apt._CARRIED_OVER.match(line)) is kept


class TestSettings:
    def test_the_file_describes_a_mixed_fleet(self) -> None:
        hosts = settings.load(paths.SETTINGS).hosts
        assert len({host.kernel.name for host in hosts.values()}) >= 4
        assert len({host.userland.suite for host in hosts.values()}) >= 3
        assert len({host.region for host in hosts.values()}) >= 2
        assert len({host.port for host in hosts.values()}) == len(hosts)

    @pytest.mark.parametrize(
        ("path", "value", "says"),
        [
            (("version",), 2, "version is 2"),
            (("hosts", "k510", "kernel"), "2.6", "hosts.k510.kernel is '2.6', which is not defined"),
            (("hosts", "k510", "port"), 80, "hosts.k510.port is 80: give a number from 1024"),
            (("hosts", "k510", "port"), "22", "hosts.k510.port is '22': give a int"),
            (("hosts", "k510", "port"), True, "hosts.k510.port is True"),
            (("kernels", "6.1", "package"), "linux-[", "kernels.6.1.package is no regular expression"),
            (("hosts", "Bad_Name"), {}, "hosts.Bad_Name"),
            (("hosts", "k616", "groups"), "matrix", "hosts.k616.groups is 'matrix': give a list"),
            (("hosts", "k616", "groups"), ["Matrix"], "hosts.k616.groups holds 'Matrix'"),
            (("hosts", "k61n", "hide_btf"), "yes", "hosts.k61n.hide_btf is 'yes': give true or false"),
            (("hosts", "k618", "arguments"), "a;b", "hosts.k618.arguments is 'a;b': give plain words"),
            (("hosts", "k618", "arguments"), 7, "hosts.k618.arguments is 7: give a str"),
            (("userlands", "bcc", "headers"), "2.6", "userlands.bcc.headers is '2.6', which is not defined"),
            (("userlands", "bcc", "headers"), "6.12", "userlands.bcc.headers is of trixie, the userland of bookworm"),
            (("kernels", "7.0", "pool"), {"pool/x.deb": "00"}, "kernels.7.0.pool: give 'pool/"),
            (("kernels", "7.0", "pool"), {"../x.deb": "0" * 64}, "kernels.7.0.pool: give 'pool/"),
        ],
    )
    def test_a_wrong_field_is_named(self, path: tuple[str, ...], value: object, says: str) -> None:
        document = copy.deepcopy(lab_document())
        inner = document
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
        with pytest.raises(LabError, match=re.escape(says)):
            settings.parse(document)

    def test_a_missing_field_is_named(self) -> None:
        document = lab_document()
        del document["hosts"]["k73"]["cell"]
        with pytest.raises(LabError, match="hosts.k73 has no field 'cell'"):
            settings.parse(document)

    def test_select_keeps_the_order_and_knows_its_hosts(self) -> None:
        loaded = settings.load(paths.SETTINGS)
        assert [host.name for host in loaded.select(["k73", "k510"])] == ["k510", "k73"]
        assert [host.name for host in loaded.select([])] == FLEET
        with pytest.raises(LabError, match="no such host: nosuch"):
            loaded.select(["nosuch"])


class TestMatrixHosts:
    HOSTS = settings.load(paths.SETTINGS)

    def test_the_matrix_has_eight_kernels_and_two_that_hide_their_btf(self) -> None:
        matrix = self.HOSTS.group(settings.MATRIX)
        assert len({host.kernel.name for host in matrix}) >= 8
        hidden = [host for host in matrix if host.hide_btf]
        assert len(hidden) >= 2
        seen = {host.kernel.name for host in matrix if not host.hide_btf}
        assert {host.kernel.name for host in hidden} <= seen

    def test_groups_keep_the_fleet_apart(self) -> None:
        assert [host.name for host in self.HOSTS.group(settings.FLEET)] == FLEET
        assert not {"k61n", "k616", "k61bcc"} & {host.name for host in self.HOSTS.select([])}

    def test_a_host_of_the_matrix_is_not_in_the_fleets_inventory(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(paths, "INVENTORY", tmp_path / "hosts.yml")
        monkeypatch.setattr(paths, "KNOWN_HOSTS", tmp_path / "known_hosts")
        monkeypatch.setattr(paths, "KEYS", tmp_path)
        (tmp_path / "host_ed25519.pub").write_text("ssh-ed25519 AAAA lab\n")
        monkeypatch.setattr(inventory, "running_ports", lambda hosts: {host.name: host.port for host in hosts})
        inventory.write(self.HOSTS.hosts.values())
        listed = yaml.safe_load(paths.INVENTORY.read_text())["all"]["hosts"]
        assert list(listed) == FLEET
        assert f":{self.HOSTS.hosts['k616'].port} " in paths.KNOWN_HOSTS.read_text()

    def test_words_of_a_host_reach_its_kernel(self) -> None:
        hidden = qemu.kernel_arguments(machine(host=self.HOSTS.hosts["k61n"])).split()
        assert "lab.hide=btf" in hidden
        with_lsm = qemu.kernel_arguments(machine(host=self.HOSTS.hosts["k618"])).split()
        assert "lsm=landlock,lockdown,yama,integrity,bpf" in with_lsm
        assert "lab.hide=btf" not in with_lsm

    def test_an_image_has_the_headers_of_the_very_kernel(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(paths, "KERNELS", tmp_path)
        userland = self.HOSTS.hosts["k61bcc"].userland
        kernel = userland.headers
        assert kernel is not None
        pin = {"suite": kernel.suite, "pattern": kernel.package, "package": "linux-image-6.1.0-99-cloud-amd64"}
        system.write_json(tmp_path / "pin.6.1.json", {**pin, "version": "6.1.999-1", "parts": []})
        assert "linux-headers-6.1.0-99-cloud-amd64" in images._packages(userland)
        plain = self.HOSTS.hosts["k61a"].userland
        assert not any("headers" in package for package in images._packages(plain))

    def test_what_is_dropped_is_of_the_same_kernel_only(self, tmp_path: Path) -> None:
        for name in ("6.12-linux-image-a", "6.12-linux-image-b", "6.12-rt-linux-image-a"):
            (tmp_path / name).mkdir()
        images._remove_others(tmp_path, "6.12-linux-", "6.12-linux-image-b")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["6.12-linux-image-b", "6.12-rt-linux-image-a"]

    def test_one_suite_is_asked_by_one_at_a_time(self) -> None:
        inside, most = 0, 0

        def ask() -> None:
            nonlocal inside, most
            with apt.Root(["trixie-backports"]).alone():
                inside += 1
                most = max(most, inside)
                time.sleep(0.05)
                inside -= 1

        workers = [threading.Thread(target=ask) for _ in range(3)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert most == 1


class TestKernelPatterns:
    NAMES = (
        "linux-image-6.1.0-47-cloud-amd64",
        "linux-image-6.1.0-47-cloud-amd64-unsigned",
        "linux-image-6.1.0-47-amd64",
        "linux-image-6.12.117+deb13-cloud-amd64",
        "linux-image-6.1.0-47-rt-amd64",
        "linux-image-6.12.117+deb13-rt-amd64",
        "linux-image-6.16.12+deb13-cloud-amd64",
        "linux-image-6.16.12+deb13-rt-amd64",
        "linux-image-6.18.15+deb13-cloud-amd64",
        "linux-image-7.0.13+deb13-cloud-amd64",
        "linux-image-7.2.12+deb13-cloud-amd64",
        "linux-image-7.3.4+deb13-cloud-amd64",
        "linux-image-cloud-amd64",
        "linux-image-5.10.0-32-cloud-amd64",
    )

    def test_each_pattern_takes_its_series_and_flavour_only(self) -> None:
        document = lab_document()
        taken = {
            name: [n for n in self.NAMES if re.fullmatch(raw["package"], n)]
            for name, raw in document["kernels"].items()
        }
        assert taken == {
            "5.10": ["linux-image-5.10.0-32-cloud-amd64"],
            "6.1": ["linux-image-6.1.0-47-cloud-amd64"],
            "6.12": ["linux-image-6.12.117+deb13-cloud-amd64"],
            "6.12-rt": ["linux-image-6.12.117+deb13-rt-amd64"],
            "6.16": ["linux-image-6.16.12+deb13-cloud-amd64"],
            "6.18": ["linux-image-6.18.15+deb13-cloud-amd64"],
            "7.0": ["linux-image-7.0.13+deb13-cloud-amd64"],
            "7.2": ["linux-image-7.2.12+deb13-cloud-amd64"],
            "7.x": [
                "linux-image-7.0.13+deb13-cloud-amd64",
                "linux-image-7.2.12+deb13-cloud-amd64",
                "linux-image-7.3.4+deb13-cloud-amd64",
            ],
        }


class TestCommandLine:
    def test_only_ssh_is_forwarded_and_only_on_loopback(self) -> None:
        argv = qemu.arguments(machine(), 22000)
        netdev = argv[argv.index("-netdev") + 1]
        assert netdev == "user,id=n0,restrict=on,hostfwd=tcp:127.0.0.1:22000-:22"

    def test_a_plain_machine_has_no_writable_disk(self) -> None:
        blockdevs = [word for word in qemu.arguments(machine(), 1) if word.startswith("driver=file")]
        assert len(blockdevs) == 2
        assert all(word.endswith("read-only=on") for word in blockdevs)
        assert "lab.upper=tmpfs" in qemu.kernel_arguments(machine())

    def test_a_persistent_machine_writes_to_its_state_disk(self) -> None:
        made = machine(state_disk=Path("/s/disk"))
        assert "driver=file,node-name=state,filename=/s/disk,read-only=off" in qemu.arguments(made, 1)
        assert "lab.upper=disk" in qemu.kernel_arguments(made)

    def test_the_guest_is_told_its_counter_rate(self) -> None:
        assert "tsc_early_khz=2600000 " in qemu.kernel_arguments(machine())

    def test_machine_ids_are_fixed_and_differ(self) -> None:
        hosts = settings.load(paths.SETTINGS).hosts.values()
        lines = [qemu.kernel_arguments(machine(host=host)) for host in hosts]
        ids = {match[1] for line in lines if (match := re.search(r"machine_id=([0-9a-f]{32})\b", line))}
        assert len(ids) == len(hosts)


class TestSnapshotKey:
    def key(self, **changes: object) -> str:
        return qemu.snapshot_key("10.0.2", machine(**changes), "2600000 kHz")

    def test_places_and_a_remeasured_rate_do_not_count(self) -> None:
        moved = kernel_image(vmlinuz=Path("/else/vmlinuz"))
        assert self.key(kernel=moved, counter_khz=2_600_001) == self.key()

    @pytest.mark.parametrize(
        "changes",
        [
            {"kernel": kernel_image(digest="other")},
            {"base": images.Image(Path("/b/base"), "other", {})},
            {"accelerator": "kvm"},
            {"host": dataclasses.replace(machine().host, memory_mib=768)},
            {"host": dataclasses.replace(machine().host, name="other")},
            {"host": dataclasses.replace(machine().host, hide_btf=True)},
            {"host": dataclasses.replace(machine().host, arguments="lsm=bpf")},
        ],
    )
    def test_content_counts(self, changes: dict[str, object]) -> None:
        assert self.key(**changes) != self.key()

    def test_emulator_and_processor_count(self) -> None:
        keys = {
            qemu.snapshot_key("10.0.2", machine(), "a"),
            qemu.snapshot_key("10.0.3", machine(), "a"),
            qemu.snapshot_key("10.0.2", machine(), "b"),
        }
        assert len(keys) == 3


class TestModules:
    def test_each_module_once_in_order(self) -> None:
        listing = (
            "insmod /m/virtio.ko \ninsmod /m/virtio_pci.ko \nbuiltin ext4\n"
            "insmod /m/virtio.ko \ninsmod /m/virtio_blk.ko.xz \n"
        )
        assert images.module_order(listing) == ["/m/virtio.ko", "/m/virtio_pci.ko", "/m/virtio_blk.ko.xz"]

    @pytest.mark.parametrize("tool", ["xz", "zstd"])
    def test_compressed_modules_are_unpacked(self, tmp_path: Path, tool: str) -> None:
        plain = tmp_path / "m.ko"
        plain.write_bytes(b"\x7fELF" + os.urandom(64))
        subprocess.run([tool, "-q", "-k", str(plain)], check=True)
        packed = next(path for path in tmp_path.iterdir() if path != plain)
        assert images._unpacked(packed) == ("m.ko", plain.read_bytes())


class TestInventory:
    def document(self) -> Any:
        hosts = settings.load(paths.SETTINGS).hosts.values()
        return inventory.document({"k510": 1111, "k73": 2222}, hosts)

    def test_only_what_runs_is_listed(self) -> None:
        assert set(self.document()["all"]["hosts"]) == {"k510", "k73"}

    def test_hosts_have_their_place(self) -> None:
        assert self.document()["all"]["hosts"]["k73"] == {
            "ansible_host": "127.0.0.1",
            "ansible_port": 2222,
            "ebpf_fleet_cell": "us-a",
            "ebpf_fleet_region": "us",
        }
        assert self.document()["all"]["children"]["cell_eu_a"]["hosts"] == {"k510": None}

    def test_host_keys_are_checked(self) -> None:
        arguments = self.document()["all"]["vars"]["ansible_ssh_common_args"]
        assert "StrictHostKeyChecking=yes" in arguments
        assert f"UserKnownHostsFile={paths.KNOWN_HOSTS}" in arguments


class TestProcesses:
    def record_of(self, pid: int, ticks: int | None = None) -> guest.Record:
        started = guest._start_ticks(pid) if ticks is None else ticks
        return guest.Record("x", pid, started or 0, guest._machine_boot(), 1, "k", "u", "tcg", False, "booted")

    def test_a_running_process_is_alive_and_an_ended_one_is_not(self) -> None:
        with subprocess.Popen(["sleep", "60"]) as process:
            found = self.record_of(process.pid)
            assert found.alive()
            process.kill()
        assert not found.alive()

    def test_another_process_with_the_number_is_not_ours(self) -> None:
        assert not self.record_of(os.getpid(), ticks=1).alive()

    def test_a_record_of_another_boot_is_stale(self) -> None:
        assert not dataclasses.replace(self.record_of(os.getpid()), machine_boot="before").alive()

    def test_stop_leaves_a_strangers_process_alone(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(paths, "RUN", tmp_path)
        with subprocess.Popen(["sleep", "60"]) as process:
            stale = self.record_of(process.pid, ticks=1)
            system.write_json(tmp_path / "x" / "record.json", dataclasses.asdict(stale))
            assert guest.stop("x") is False
            assert process.poll() is None
            process.kill()

    @pytest.mark.parametrize("text", ["", "{", "[]", '{"name": "x"}'])
    def test_a_damaged_record_means_down(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
        monkeypatch.setattr(paths, "RUN", tmp_path)
        (tmp_path / "x").mkdir()
        (tmp_path / "x" / "record.json").write_text(text)
        assert guest.state("x") == "down"
        with pytest.raises(LabError, match="start it with 'up x'"):
            guest.require("x")

    def test_a_taken_port_is_passed_over(self) -> None:
        with socket.socket() as holder:
            holder.bind(("127.0.0.1", 0))
            holder.listen()
            taken = holder.getsockname()[1]
            assert guest.free_port(taken) != taken

    def test_a_silent_port_does_not_greet(self) -> None:
        with socket.socket() as holder:
            holder.bind(("127.0.0.1", 0))
            assert not ssh.greets(holder.getsockname()[1])

    def test_the_counter_rate_is_plausible_and_steady(self) -> None:
        first = processor.counter_khz()
        processor.counter_khz.cache_clear()
        assert 500_000 < first < 8_000_000
        assert processor.counter_khz() == pytest.approx(first, rel=0.005)


class TestSystem:
    def test_digest_keeps_parts_apart(self) -> None:
        assert system.digest_of("ab", "c") != system.digest_of("a", "bc")

    def test_a_failed_build_leaves_nothing(self, tmp_path: Path) -> None:
        def build() -> None:
            with system.scratch_beside(tmp_path / "final") as scratch:
                (scratch / "half").touch()
                raise LabError("broken")

        with pytest.raises(LabError, match="broken"):
            build()
        assert list(tmp_path.iterdir()) == []

    def test_a_failed_command_is_named_with_its_words(self) -> None:
        with pytest.raises(LabError, match=r"make it: sh ended with status 3:\nwhy"):
            system.run(["sh", "-c", "echo why >&2; exit 3"], "make it")

    def test_a_missing_command_is_named(self) -> None:
        with pytest.raises(LabError, match="no-such-command is not installed"):
            system.run(["no-such-command"], "try")

    def test_a_reader_never_sees_half_a_file(self, tmp_path: Path) -> None:
        path = tmp_path / "file.json"
        system.write_json(path, {"a": 1})
        system.write_json(path, {"a": 2})
        assert system.read_json(path) == {"a": 2}
        assert [entry.name for entry in tmp_path.iterdir()] == ["file.json"]

    def test_the_lock_admits_one_at_a_time(self, tmp_path: Path) -> None:
        order: list[str] = []

        def second() -> None:
            with system.exclusive(tmp_path / "lock"):
                order.append("second")

        with system.exclusive(tmp_path / "lock"):
            waiter = threading.Thread(target=second)
            waiter.start()
            time.sleep(0.2)
            order.append("first")
        waiter.join(10)
        assert order == ["first", "second"]


class TestEmulator:
    @pytest.fixture()
    def running(self, tmp_path: Path) -> Iterator[Path]:
        wanted = settings.load(paths.SETTINGS).emulator
        key = system.digest_of(wanted.package, *wanted.suites)[:16]
        if not (paths.QEMU / key / "about.json").exists():
            pytest.skip("the emulator is not in the cache: run python3 -m tests.lab build")
        program = qemu.program(wanted)
        deep = tmp_path / ("deep" * 30)
        deep.mkdir()
        argv = [*program.command(), "-M", "none", "-nodefaults", "-display", "none"]
        argv += ["-qmp", "unix:monitor,server=on,wait=off"]
        process = subprocess.Popen(argv, cwd=deep, env=program.environment())
        yield deep
        process.kill()
        process.wait()

    def test_the_monitor_works_in_a_folder_with_a_long_name(self, running: Path) -> None:
        qemu.wait_until("monitor", 10, (running / "monitor").exists)
        with qemu.Monitor(running) as monitor:
            assert monitor.command("query-status")["status"] == "running"
            with qemu.stopped(monitor):
                assert monitor.command("query-status")["status"] == "paused"
            assert monitor.command("query-status")["status"] == "running"
            with pytest.raises(LabError, match="no-such-command"):
                monitor.command("no-such-command")

    def test_a_machine_whose_record_was_lost_is_ended_and_nothing_else(
        self, running: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        qemu.wait_until("monitor", 10, (running / "monitor").exists)
        monkeypatch.setattr(paths, "RUN", running.parent)
        with subprocess.Popen(["sleep", "60"], cwd=running) as stranger:
            guest._end_strays(running.name)
            with pytest.raises(LabError):
                qemu.wait_until("monitor", 1, lambda: self.answers(running))
            assert stranger.poll() is None
            stranger.kill()

    @staticmethod
    def answers(folder: Path) -> bool:
        try:
            with qemu.Monitor(folder, seconds=1):
                return True
        except OSError:
            return False


def test_wrong_usage_exits_with_2_and_an_unknown_host_with_1() -> None:
    command = [sys.executable, "-m", "tests.lab"]
    usage = subprocess.run([*command, "fly"], cwd=paths.REPOSITORY, capture_output=True, text=True)
    unknown = subprocess.run([*command, "status", "nosuch"], cwd=paths.REPOSITORY, capture_output=True, text=True)
    assert usage.returncode == 2
    assert (unknown.returncode, "no such host: nosuch" in unknown.stderr) == (1, True)


def test_status_as_json_knows_every_host() -> None:
    command = [sys.executable, "-m", "tests.lab", "status", "--json", "--all"]
    done = subprocess.run(command, cwd=paths.REPOSITORY, capture_output=True, text=True, check=True)
    rows = json.loads(done.stdout)["hosts"]
    assert [row["name"] for row in rows] == list(settings.load(paths.SETTINGS).hosts)
    fleet = subprocess.run(command[:-1], cwd=paths.REPOSITORY, capture_output=True, text=True, check=True)
    assert [row["name"] for row in json.loads(fleet.stdout)["hosts"]] == FLEET
    assert all((row["pid"] is None) == (row["state"] == "down") for row in rows)
