# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which kernel a host boots next: what kexec, the boot loader's files and the usual links say.

Reads files only. Where they do not agree or do not say, the answer is None and why.
"""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import Mapping, NamedTuple, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.kernel.bootentries import (
    Entry,
    Wishes,
    parse_entry,
    parse_fields,
    select,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel.hostfiles import read_text

_RELEASE = re.compile(r"[0-9]+\.[0-9]+[A-Za-z0-9.+~_-]*")
IMAGE_PREFIXES = ("vmlinuz-", "vmlinux-", "Image-", "kernel-")


class Choice(NamedTuple):
    """The kernel that boots next (None where it is not clear), how that was found, and its command line."""

    release: str | None
    chosen_by: str
    command_line: str | None = None


def installed(root: Path) -> list[str]:
    """Releases with an image or with modules on this host, oldest first."""
    found = {_release_of(path.name) for path in _listed(root / "boot")}
    for folder in (root / "lib/modules", root / "usr/lib/modules"):
        found |= {path.name for path in _listed(folder) if (path / "vmlinuz").is_file()}
    return sorted((name for name in found if name and _RELEASE.fullmatch(name)), key=release_order)


def _release_of(name: str) -> str | None:
    return next((name[len(prefix) :] for prefix in IMAGE_PREFIXES if name.startswith(prefix)), None)


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def release_order(release: str) -> list[tuple[int, int, str]]:
    """A key that sorts releases as package managers do: 6.1.9 before 6.1.10, ~ before anything."""
    parts = re.findall(r"[0-9]+|[A-Za-z]+|~", release)
    return [(1, int(part), "") if part.isdigit() else (-1 if part == "~" else 0, 0, part) for part in parts]


def choose(root: Path, want: str) -> Choice:
    """The kernel that boots next. `auto` asks kexec, the boot loader, and the usual links, in this order."""
    if want != "auto":
        return _named(root, want)
    for ask in (_by_kexec, _by_loader_entries, _by_grub, _by_link):
        choice = ask(root)
        if choice is not None:
            return choice
    return _only_one(root)


def _named(root: Path, want: str) -> Choice:
    if want in installed(root):
        return Choice(want, "named by the operator")
    there = ", ".join(installed(root)) or "none"
    return Choice(None, f"the operator named {want}, which is not installed; installed are: {there}")


def _by_kexec(root: Path) -> Choice | None:
    loaded = read_text(root / "sys/kernel/kexec_loaded")
    if loaded is None or loaded.strip() != "1":
        return None
    return Choice(None, "a kernel is loaded for kexec, and the host does not say which")


# Where the boot partition (XBOOTLDR) and the EFI system partition are mounted.
_PARTITIONS = ("boot", "efi", "boot/efi")
_LOADER_GUID = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"


def _by_loader_entries(root: Path) -> Choice | None:
    """Boot Loader Specification entries, as Fedora's grub and systemd-boot read them."""
    entries = _loader_entries(root)
    if not entries:
        return None
    loader = _loader_info(root)
    grub = _grub_environment(root)
    if not loader.lower().startswith("systemd-boot") and (grub.get("next_entry") or grub.get("saved_entry")):
        return _by_grub_environment(grub, entries)
    counts = any(entry.tries is not None for entry in entries)  # as only systemd-boot does
    if loader.lower().startswith("systemd-boot") or counts or _loader_conf(root) is not None:
        return _agreed(root, loader, _by_systemd_boot(root, entries))
    newest = max(entries, key=lambda entry: release_order(_release_of_entry(entry.fields) or ""))
    return _entry_choice(newest.fields, f"loader entry {_stem(newest)}, the newest")


def _stem(entry: Entry) -> str:
    identity: str = entry.identity
    return identity[: -len(".conf")]


def _by_grub_environment(grub: Mapping[str, str], entries: Sequence[Entry]) -> Choice:
    by_name = {_stem(entry): entry for entry in entries}
    for how in ("next_entry", "saved_entry"):
        name = grub.get(how)
        if name and name in by_name:
            return _entry_choice(by_name[name].fields, f"{how} of grubenv names loader entry {name}")
    named = grub.get("next_entry") or grub.get("saved_entry")
    return Choice(None, f"grubenv names {named!r}, which is not a loader entry")


def _by_systemd_boot(root: Path, entries: Sequence[Entry]) -> Choice:
    """The entry that systemd-boot starts; unknown where something that it reads cannot be read here."""
    images = [path for part in _PARTITIONS for path in _listed(root / part / "EFI/Linux") if path.suffix == ".efi"]
    if images:
        return Choice(None, f"{images[0]} is a unified kernel image, and which release it holds was not read")
    variables = root / "sys/firmware/efi/efivars"
    if (root / "sys/firmware/efi").is_dir() and not _listed(variables):
        return Choice(None, f"{variables} cannot be read, and a variable there may name another loader entry")
    conf = _loader_conf(root) or {}
    names = ("LoaderEntryOneShot", "LoaderEntryDefault", "LoaderEntryLastBooted")
    oneshot, default, last = (_efi_variable(root, name) for name in names)
    entry, how = select(entries, Wishes(oneshot, default, conf.get("default"), last))
    return Choice(None, how) if entry is None else _entry_choice(entry.fields, how)


def _agreed(root: Path, loader: str, choice: Choice) -> Choice:
    """With nothing that says which of two boot loaders starts, both must choose the same."""
    grub = None if loader else _by_grub(root)
    if grub is None or grub.release == choice.release:
        return choice
    return Choice(
        None,
        f"systemd-boot would start {choice.release} ({choice.chosen_by}), grub {grub.release} ({grub.chosen_by}), "
        "and nothing here says which of them the host boots with",
    )


def _loader_entries(root: Path) -> list[Entry]:
    """The Linux entries of this machine's architecture whose kernel is there, of every partition, each name once."""
    found: dict[str, Entry] = {}
    for part in _PARTITIONS:
        paths = [path for path in _listed(root / part / "loader/entries") if path.suffix == ".conf"]
        entries = [parse_entry(path.name, read_text(path) or "") for path in paths]
        entries = [entry for entry in entries if _release_of_entry(entry.fields) and _of_this_machine(entry)]
        there = [entry for entry in entries if (root / part / entry.fields["linux"].lstrip("/")).exists()]
        # systemd-boot leaves out an entry without its kernel; where no kernel is to be seen, nothing is known of that.
        for entry in there or entries:
            found.setdefault(entry.identity, entry)
    return list(found.values())


# The names of UAPI.1 for what uname calls the machine.
_ARCHITECTURES = {"x86_64": "x64", "aarch64": "aa64", "riscv64": "riscv64", "loongarch64": "loongarch64"}


def _of_this_machine(entry: Entry) -> bool:
    named = entry.fields.get("architecture")
    return named is None or named.lower() in (_ARCHITECTURES.get(platform.machine()), platform.machine().lower())


def _loader_conf(root: Path) -> dict[str, str] | None:
    for part in _PARTITIONS:
        text = read_text(root / part / "loader/loader.conf")
        if text is not None:
            return parse_fields(text)
    return None


def _loader_info(root: Path) -> str:
    """Which boot loader started the host, by its own word; empty where it does not say."""
    return _efi_variable(root, "LoaderInfo") or ""


def _efi_variable(root: Path, name: str) -> str | None:
    """A variable of the boot loader: four bytes of attributes, then UTF-16 with a closing zero."""
    try:
        raw = (root / f"sys/firmware/efi/efivars/{name}-{_LOADER_GUID}").read_bytes()
    except OSError:
        return None
    return raw[4:].decode("utf-16-le", "replace").rstrip("\0") or None


def _release_of_entry(fields: Mapping[str, str]) -> str | None:
    named = _release_of(fields.get("linux", "").rpartition("/")[2])
    release = fields.get("version") or named
    return release if release and "linux" in fields and _RELEASE.fullmatch(release) else named


def _entry_choice(fields: Mapping[str, str], how: str) -> Choice:
    options = fields.get("options")
    # An option that grub fills in when it boots cannot be read here.
    return Choice(_release_of_entry(fields), how, None if options is None or "$" in options else options)


def _grub_environment(root: Path) -> dict[str, str]:
    for place in ("boot/grub/grubenv", "boot/grub2/grubenv"):
        text = read_text(root / place)
        if text is not None:
            pairs = (line.partition("=") for line in text.splitlines() if not line.startswith("#"))
            return {key: value for key, sign, value in pairs if sign and value}
    return {}


class MenuEntry(NamedTuple):
    """One menu entry of grub.cfg: index path as in `1>0`, title path, id path, release and command line."""

    path: str
    title: str
    identity: str
    release: str | None
    command_line: str | None


_MENU = re.compile(r"\s*(menuentry|submenu)\s+(?:'([^']*)'|\"([^\"]*)\")(.*)\{\s*$")
_LINUX = re.compile(r"\s*linux(?:16|efi)?\s+(\S+)\s*(.*)$")
_IDENTITY = re.compile(r"\$menuentry_id_option\s+'([^']*)'|--id[ =]'?([^' ]+)")


class _Menu:
    """Reads a grub.cfg line by line; knows in which menu it stands."""

    def __init__(self) -> None:
        self.entries: list[MenuEntry] = []
        self._counts = [0]
        self._inside: list[tuple[str, str, str]] = []

    def read(self, line: str) -> None:
        """Take the next line; what is neither menu nor Linux image is passed over."""
        menu = _MENU.match(line)
        if menu:
            self._open(menu.group(1), menu.group(2) or menu.group(3) or "", menu.group(4))
        elif self._inside and line.strip() == "}":
            self._close()
        elif self._inside and self._inside[-1][0] == "menuentry":
            self._boot(line)

    def _open(self, kind: str, title: str, options: str) -> None:
        identity = _IDENTITY.search(options)
        named = (identity.group(1) or identity.group(2)) if identity else title
        self._inside.append((kind, title, named))
        if kind == "submenu":
            self._counts.append(0)
            return
        path = ">".join(str(count) for count in self._counts)
        titles, identities = (">".join(one[at] for one in self._inside) for at in (1, 2))
        self.entries.append(MenuEntry(path, titles, identities, None, None))

    def _close(self) -> None:
        if self._inside.pop()[0] == "submenu":
            self._counts.pop()
        self._counts[-1] += 1

    def _boot(self, line: str) -> None:
        linux = _LINUX.match(line)
        if linux:
            release = _release_of(linux.group(1).rpartition("/")[2])
            self.entries[-1] = self.entries[-1]._replace(release=release, command_line=linux.group(2))


def grub_entries(text: str) -> list[MenuEntry]:
    """The menu entries of a grub.cfg, those in submenus too, in order."""
    menu = _Menu()
    for line in text.splitlines():
        menu.read(line)
    return menu.entries


def _by_grub(root: Path) -> Choice | None:
    text = read_text(root / "boot/grub/grub.cfg") or read_text(root / "boot/grub2/grub.cfg") or ""
    entries = grub_entries(text)
    if not any(entry.release for entry in entries):
        return None
    wanted, how = _grub_default(root, text)
    for entry in entries:
        if wanted in (entry.path, entry.title, entry.identity):
            return _grub_choice(entry, f"{how} {wanted!r}")
    for entry in entries:
        if any(name.startswith(wanted + ">") for name in (entry.path, entry.title, entry.identity)):
            return _grub_choice(entry, f"{how} {wanted!r}, the first of that submenu")
    return Choice(None, f"{how} {wanted!r}, which is not an entry of grub.cfg")


def _grub_choice(entry: MenuEntry, how: str) -> Choice:
    if entry.release is None:
        return Choice(None, f"{how}: entry {entry.title!r} boots no Linux image with a release in its name")
    return Choice(entry.release, f"{how}: entry {entry.title!r}", entry.command_line)


def _grub_default(root: Path, text: str) -> tuple[str, str]:
    """What grub.cfg boots: (entry, how it is named). A saved entry is grubenv's."""
    saved = _grub_environment(root)
    if saved.get("next_entry"):
        return saved["next_entry"], "next_entry of grubenv"
    found = re.findall(r'^\s*set default="([^"]*)"', text, re.MULTILINE)
    last = found[-1] if found else "0"
    if "$" in last:
        return (saved["saved_entry"], "saved_entry of grubenv") if saved.get("saved_entry") else ("0", "grub's default")
    return last or "0", "grub's default"


def _by_link(root: Path) -> Choice | None:
    for link in (root / "vmlinuz", root / "boot/vmlinuz"):
        if link.is_symlink():
            release = _release_of(os.readlink(link).rpartition("/")[2])
            if release:
                return Choice(release, f"{link} points to it")
    return None


def _only_one(root: Path) -> Choice:
    there = installed(root)
    if len(there) == 1:
        return Choice(there[0], "the only kernel that is installed; no boot loader's choice was found")
    if not there:
        return Choice(None, "no kernel image was found in boot or lib/modules")
    return Choice(None, "no boot loader's choice was found, and installed are: " + ", ".join(there))
