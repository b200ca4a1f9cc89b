# SPDX-License-Identifier: GPL-3.0-or-later
"""Which kernel boots next, as the files of a host say it."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel import bootchoice, bootentries

# As grub-mkconfig writes it on Debian, shortened.
GRUB = """
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
   set next_entry=
else
   set default="%s"
fi
function load_video {
  insmod all_video
}
menuentry 'Debian GNU/Linux' --class debian $menuentry_id_option 'gnulinux-simple-1' {
  if [ x$feature = xy ]; then
    search --no-floppy
  fi
  linux  /boot/vmlinuz-6.12.117-amd64 root=UUID=1 ro quiet lsm=landlock,bpf
  initrd  /boot/initrd.img-6.12.117-amd64
}
submenu 'Advanced options' $menuentry_id_option 'gnulinux-advanced-1' {
  menuentry 'with Linux 6.12.117-amd64' --class os $menuentry_id_option 'gnulinux-6.12-advanced' {
    linux  /boot/vmlinuz-6.12.117-amd64 root=UUID=1 ro
  }
  menuentry 'with Linux 6.1.0-50-amd64' --class os $menuentry_id_option 'gnulinux-6.1-advanced' {
    linux  /boot/vmlinuz-6.1.0-50-amd64 root=UUID=1 ro
  }
}
menuentry "Memory test" {
  linux16  /boot/memtest86+x64.bin
}
"""


def host(root: Path, *images: str, **files: str) -> Path:
    """A host's root with images in boot, and the files whose `__` stand for slashes."""
    (root / "boot").mkdir(parents=True, exist_ok=True)
    for release in images:
        (root / f"boot/vmlinuz-{release}").write_bytes(b"")
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("default", "release"),
    [
        ("0", "6.12.117-amd64"),
        ("1>1", "6.1.0-50-amd64"),
        ("1", "6.12.117-amd64"),
        ("Advanced options>with Linux 6.1.0-50-amd64", "6.1.0-50-amd64"),
        ("gnulinux-advanced-1>gnulinux-6.1-advanced", "6.1.0-50-amd64"),
    ],
)
def test_the_default_of_grub_is_followed_into_submenus(tmp_path: Path, default: str, release: str) -> None:
    choice = bootchoice.choose(host(tmp_path, boot__grub__grub_dot_cfg=GRUB % default), "auto")
    assert choice.release == release
    assert "grub's default" in choice.chosen_by and default in choice.chosen_by


def test_the_command_line_of_the_entry_is_kept(tmp_path: Path) -> None:
    choice = bootchoice.choose(host(tmp_path, boot__grub__grub_dot_cfg=GRUB % "0"), "auto")
    assert choice.command_line is not None and choice.command_line.endswith("lsm=landlock,bpf")


def test_an_entry_for_the_next_boot_alone_goes_before_the_default(tmp_path: Path) -> None:
    once = "# GRUB Environment Block\nnext_entry=1>1\nsaved_entry=0\n####"
    root = host(tmp_path, boot__grub__grub_dot_cfg=GRUB % "${saved_entry}", boot__grub__grubenv=once)
    choice = bootchoice.choose(root, "auto")
    assert (choice.release, choice.chosen_by.partition(" of")[0]) == ("6.1.0-50-amd64", "next_entry")


def test_a_saved_entry_is_read_from_grubs_environment(tmp_path: Path) -> None:
    saved = "saved_entry=gnulinux-advanced-1>gnulinux-6.1-advanced\n"
    root = host(tmp_path, boot__grub__grub_dot_cfg=GRUB % "${saved_entry}", boot__grub__grubenv=saved)
    assert bootchoice.choose(root, "auto").release == "6.1.0-50-amd64"


@pytest.mark.parametrize(("default", "words"), [("9", "not an entry"), ("Memory test", "boots no Linux image")])
def test_an_entry_that_boots_no_kernel_we_know_is_unknown(tmp_path: Path, default: str, words: str) -> None:
    choice = bootchoice.choose(host(tmp_path, "6.1.0-50-amd64", boot__grub__grub_dot_cfg=GRUB % default), "auto")
    assert choice.release is None
    assert words in choice.chosen_by


def entry(release: str) -> str:
    return f"title Fedora\nversion {release}\nlinux /vmlinuz-{release}\noptions root=/dev/sda1 lsm=bpf\n"


def test_loader_entries_are_chosen_by_grubenv_and_else_the_newest(tmp_path: Path) -> None:
    older, newer = "6.9.5-200.fc40.x86_64", "6.10.3-200.fc40.x86_64"
    root = host(tmp_path)
    for release in (older, newer):
        path = root / f"boot/loader/entries/machine-{release}.conf"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(entry(release))
    assert bootchoice.choose(root, "auto").release == newer
    host(root, boot__grub2__grubenv=f"saved_entry=machine-{older}\n")
    choice = bootchoice.choose(root, "auto")
    assert (choice.release, choice.command_line) == (older, "root=/dev/sda1 lsm=bpf")
    host(root, boot__grub2__grubenv="saved_entry=gone\n")
    assert bootchoice.choose(root, "auto").release is None


def test_without_a_boot_loader_the_usual_link_is_followed(tmp_path: Path) -> None:
    root = host(tmp_path, "6.1.0-50-amd64", "6.12.117-amd64")
    (root / "vmlinuz").symlink_to("boot/vmlinuz-6.12.117-amd64")
    assert bootchoice.choose(root, "auto").release == "6.12.117-amd64"


def test_two_kernels_and_nothing_that_chooses_is_unknown_and_names_both(tmp_path: Path) -> None:
    choice = bootchoice.choose(host(tmp_path, "6.1.10-amd64", "6.1.9-amd64"), "auto")
    assert choice.release is None
    assert "6.1.9-amd64, 6.1.10-amd64" in choice.chosen_by


def test_the_only_kernel_is_the_next_one_and_none_is_unknown(tmp_path: Path) -> None:
    assert bootchoice.choose(host(tmp_path / "a", "6.1.9-amd64"), "auto").release == "6.1.9-amd64"
    nothing = bootchoice.choose(host(tmp_path / "b"), "auto")
    assert nothing.release is None and "no kernel image" in nothing.chosen_by


def test_a_kernel_loaded_for_kexec_makes_it_unknown(tmp_path: Path) -> None:
    root = host(tmp_path, "6.1.9-amd64", sys__kernel__kexec_loaded="1\n")
    choice = bootchoice.choose(root, "auto")
    assert choice.release is None and "kexec" in choice.chosen_by


def test_a_named_release_must_be_installed(tmp_path: Path) -> None:
    root = host(tmp_path, "6.1.9-amd64")
    assert bootchoice.choose(root, "6.1.9-amd64").release == "6.1.9-amd64"
    missing = bootchoice.choose(root, "../../etc/passwd")
    assert missing.release is None and "installed are: 6.1.9-amd64" in missing.chosen_by


def test_images_beside_the_modules_count_as_installed(tmp_path: Path) -> None:
    folder = tmp_path / "usr/lib/modules/6.10.3-200.fc40.x86_64"
    folder.mkdir(parents=True)
    (folder / "vmlinuz").write_bytes(b"")
    assert bootchoice.installed(tmp_path) == ["6.10.3-200.fc40.x86_64"]


def boot_entries(root: Path, conf: str | None, *entries: str, partition: str = "boot", **fields: str) -> Path:
    """systemd-boot's files: entries named NAME[+COUNTER], of kernel VERSION where the name ends with one."""
    folder = root / partition / "loader/entries"
    folder.mkdir(parents=True, exist_ok=True)
    more = "".join(f"{key.replace('_', '-')}\t{value}\n" for key, value in fields.items())
    for name in entries:
        version = name.partition("+")[0].rpartition("-")[2] + ".0-1-amd64"
        (folder / f"{name}.conf").write_text(f"title\tDebian\nversion\t{version}\nlinux\t/vmlinuz-{version}\n{more}")
    if conf is not None:
        (root / partition / "loader/loader.conf").write_text(conf)
    return root


def efi_variable(root: Path, name: str, value: str) -> None:
    folder = root / "sys/firmware/efi/efivars"
    folder.mkdir(parents=True, exist_ok=True)
    raw = b"\x06\0\0\0" + value.encode("utf-16-le") + b"\0\0"
    (folder / f"{name}-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f").write_bytes(raw)


class TestSystemdBoot:
    def test_the_files_of_the_field(self, tmp_path: Path) -> None:
        """Tabs, counters, and a pinned entry: what no tries are left of is passed over."""
        root = boot_entries(tmp_path, "timeout\t3\ndefault\tdebian-6.1*\n", "debian-6.1+3", "debian-6.12+0-3")
        choice = bootchoice.choose(root, "auto")
        assert choice.release == "6.1.0-1-amd64"
        named = "default of loader.conf debian-6.1* names loader entry debian-6.1.conf (3 tries left)"
        assert named in choice.chosen_by

    @pytest.mark.parametrize(
        ("conf", "entries", "release"),
        [
            ("", ("debian-6.1", "debian-6.12"), "6.12"),
            ("", ("debian-6.9", "debian-6.10"), "6.10"),
            ("", ("debian-6.1", "debian-6.12+0"), "6.1"),
            ("", ("debian-6.1+0-3", "debian-6.12+0-3"), "6.12"),
            ("", ("debian-6.1+3", "debian-6.12+1-2"), "6.12"),
            ("default debian-6.1.conf", ("debian-6.1+3", "debian-6.12"), "6.1"),
            ("default\tDEBIAN-6.1.CONF\n", ("debian-6.1", "debian-6.12"), "6.1"),
            ("#default debian-6.1*\n", ("debian-6.1", "debian-6.12"), "6.12"),
            ("default gone*\n", ("debian-6.1", "debian-6.12"), "6.12"),
            ("\ufeffdefault \t debian-6.1.conf  \n", ("debian-6.1", "debian-6.12"), "6.1"),
        ],
    )
    def test_order_and_default(self, tmp_path: Path, conf: str, entries: tuple[str, ...], release: str) -> None:
        assert bootchoice.choose(boot_entries(tmp_path, conf, *entries), "auto").release == f"{release}.0-1-amd64"

    def test_a_sort_key_goes_before_none_and_among_them_the_newest_version(self, tmp_path: Path) -> None:
        boot_entries(tmp_path, "", "zz-6.12")
        boot_entries(tmp_path, "", "b-6.1", "a-6.9", sort_key="debian", machine_id="1")
        assert bootchoice.choose(tmp_path, "auto").release == "6.9.0-1-amd64"

    def test_options_that_repeat_are_one_line(self, tmp_path: Path) -> None:
        root = boot_entries(tmp_path, "", "debian-6.1")
        path = root / "boot/loader/entries/debian-6.1.conf"
        path.write_text(path.read_text() + "options\troot=/dev/sda1\noptions lsm=bpf\n")
        assert bootchoice.choose(root, "auto").command_line == "root=/dev/sda1 lsm=bpf"

    def test_another_architecture_and_a_missing_kernel_are_left_out(self, tmp_path: Path) -> None:
        boot_entries(tmp_path, "", "debian-6.12", architecture="ia32")
        boot_entries(tmp_path, "", "debian-6.1", "debian-6.9")
        assert bootchoice.choose(tmp_path, "auto").release == "6.9.0-1-amd64"
        (tmp_path / "boot/vmlinuz-6.1.0-1-amd64").touch()
        assert bootchoice.choose(tmp_path, "auto").release == "6.1.0-1-amd64"

    @pytest.mark.parametrize("partition", ["efi", "boot/efi"])
    def test_the_system_partition_too(self, tmp_path: Path, partition: str) -> None:
        boot_entries(tmp_path, "default debian-6.1.conf\n", "debian-6.1", "debian-6.12", partition=partition)
        assert bootchoice.choose(tmp_path, "auto").release == "6.1.0-1-amd64"

    def test_variables_go_before_the_file_and_one_boot_before_all(self, tmp_path: Path) -> None:
        root = boot_entries(tmp_path, "default debian-6.1.conf\n", "debian-6.1", "debian-6.9", "debian-6.12")
        efi_variable(root, "LoaderInfo", "systemd-boot 252.39-1~deb12u1")
        assert bootchoice.choose(root, "auto").release == "6.1.0-1-amd64"
        efi_variable(root, "LoaderEntryDefault", "debian-6.9.conf")
        assert bootchoice.choose(root, "auto").release == "6.9.0-1-amd64"
        efi_variable(root, "LoaderEntryOneShot", "debian-6.12.conf")
        assert bootchoice.choose(root, "auto").release == "6.12.0-1-amd64"

    def test_saved_is_the_last_one_booted_or_unknown(self, tmp_path: Path) -> None:
        root = boot_entries(tmp_path, "default @saved\n", "debian-6.1", "debian-6.12")
        assert bootchoice.choose(root, "auto").release is None
        efi_variable(root, "LoaderEntryLastBooted", "debian-6.1.conf")
        assert bootchoice.choose(root, "auto").release == "6.1.0-1-amd64"

    @pytest.mark.parametrize(
        ("files", "words"),
        [
            ({"boot__EFI__Linux__debian_dot_efi": ""}, "unified kernel image"),
            ({"sys__firmware__efi__fw_platform_size": "64"}, "efivars cannot be read"),
            ({"boot__grub__grub_dot_cfg": GRUB % "1>1"}, "nothing here says which"),
        ],
    )
    def test_what_is_not_certain_is_unknown(self, tmp_path: Path, files: dict[str, str], words: str) -> None:
        root = host(boot_entries(tmp_path, "", "debian-6.12"), **files)
        choice = bootchoice.choose(root, "auto")
        assert choice.release is None
        assert words in choice.chosen_by

    def test_a_boot_loader_that_tells_its_name_ends_the_doubt(self, tmp_path: Path) -> None:
        root = host(boot_entries(tmp_path, "", "debian-6.12"), boot__grub__grub_dot_cfg=GRUB % "1>1")
        efi_variable(root, "LoaderInfo", "systemd-boot 255")
        assert bootchoice.choose(root, "auto").release == "6.12.0-1-amd64"

    def test_only_spent_entries_of_a_pattern_are_still_started(self, tmp_path: Path) -> None:
        root = boot_entries(tmp_path, "default debian-6.12*\n", "debian-6.1", "debian-6.12+0-3")
        choice = bootchoice.choose(root, "auto")
        assert (choice.release, "no tries left" in choice.chosen_by) == ("6.12.0-1-amd64", True)


def test_versions_are_compared_as_the_specification_lists_them() -> None:
    """The ordered list of UAPI.10."""
    listed = [
        "122.1", "123~rc1-1", "123", "123-a", "123-a.1", "123-1", "123-1.1", "123^post1", "123.a-1", "123.1-1",
        "123a-1", "124-1",
    ]  # fmt: skip
    for earlier, later in zip(listed, listed[1:]):
        assert bootentries.compare_versions(earlier, later) < 0, (earlier, later)
        assert bootentries.compare_versions(later, earlier) > 0
    assert bootentries.compare_versions("6.1_0", "6.10") == 0
