"""Which kernel boots next, as the files of a host say it."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils import bootchoice

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


@pytest.mark.parametrize(("default", "words"), [("9", "no entry"), ("Memory test", "boots no Linux image")])
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
