# SPDX-License-Identifier: GPL-3.0-or-later
"""What the guests are made of: keys, userland images, kernels with their initrd and modules.

Each product lies in a folder or file of the cache that is named after the content of its inputs;
what is there is complete and is used as it is. The newest version of a kernel is looked up once
and kept until ``build --refresh`` asks for a newer one.
"""

from __future__ import annotations

import dataclasses
import lzma
import re
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any, Sequence

from . import apt, paths
from .elf import static_program
from .errors import LabError
from .settings import Kernel, Userland
from .system import digest_of, read_json, run, say, scratch_beside, write_json

# What every guest holds: an init, a way in, what Ansible's modules use, and an oracle (bpftool).
PACKAGES = (
    "systemd", "systemd-sysv", "dbus", "openssh-server", "openssh-client", "python3", "iproute2",
    "kmod", "procps", "sudo", "bpftool",
)  # fmt: skip

# What the initrd loads before it can mount the root, where the kernel has it as a module.
INITRD_MODULES = (
    "virtio_pci", "virtio_mmio", "virtio_blk", "virtio_net", "virtio_rng", "overlay", "ext4",
    "crc32c_generic", "squashfs",
)  # fmt: skip

BUSYBOX = Path("/bin/busybox")
_MKSQUASHFS = ("-comp", "zstd", "-Xcompression-level", "6", "-noappend", "-no-progress", "-quiet")
# Debian 11 would otherwise be unpacked with a /bin and /lib of its own, unlike an installed one.
_MERGED_USR = "/usr/share/mmdebstrap/hooks/maybe-merged-usr"
_squashing = threading.Lock()


@dataclasses.dataclass(frozen=True)
class Image:
    """A read-only file system image, the digest of its content and what it was made of."""

    path: Path
    digest: str
    about: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class KernelImage:
    """A kernel ready to boot. `digest` covers the kernel, the initrd and the modules."""

    release: str
    version: str
    vmlinuz: Path
    initrd: Path
    modules: Path
    digest: str


def ensure_keys() -> None:
    """Make the lab's own SSH keys: the guests' host key and the one that logs in to them."""
    paths.KEYS.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in ("host_ed25519", "id_ed25519"):
        if not (paths.KEYS / name).exists():
            argv: list[str | Path] = [
                "ssh-keygen",
                "-q",
                "-t",
                "ed25519",
                "-N",
                "",
                "-C",
                "lab",
                "-f",
                paths.KEYS / name,
            ]
            run(argv, "make an SSH key")


def _squash(tree: Path, image: Path) -> None:
    with _squashing:
        run(["mksquashfs", tree, image, *_MKSQUASHFS], f"pack {image.name}")


def _remove_others(folder: Path, prefix: str, keep: str) -> None:
    """Drop what an earlier version of the inputs left; a running guest keeps its open files."""
    for path in folder.glob(f"{prefix}*"):
        if path.name != keep:
            subprocess.run(["rm", "-rf", "--one-file-system", str(path)], check=True)


def _packages(wanted: Userland) -> tuple[str, ...]:
    """What an image holds beside a minimal Debian, the headers of a kernel of ours among it."""
    if wanted.headers is None:
        return PACKAGES + wanted.packages
    image = _kernel_pin(wanted.headers, False)["package"]
    return (*PACKAGES, *wanted.packages, str(image).replace("linux-image-", "linux-headers-"))


def _userland_key(userland: Userland) -> str:
    guest = [path for path in sorted(paths.IMAGE_FILES.iterdir()) if path.name != "init"]
    keys = [paths.KEYS / "id_ed25519.pub", paths.KEYS / "host_ed25519.pub"]
    packages = " ".join(_packages(userland))
    return digest_of(userland.suite, packages, *guest, *keys, " ".join(_MKSQUASHFS))[:16]


def userland(wanted: Userland) -> Image:
    """The base image of a Debian suite, built when the cache has none."""
    folder = paths.USERLANDS / f"{wanted.name}-{_userland_key(wanted)}"
    if not folder.exists():
        say(f"userland {wanted.name}: building (a minute or two)")
        with scratch_beside(folder) as scratch:
            _build_userland(wanted, scratch)
        _remove_others(paths.USERLANDS, f"{wanted.name}-", folder.name)
        say(f"userland {wanted.name}: built")
    about = read_json(folder / "about.json")
    return Image(folder / "base.squashfs", about["digest"], about)


def in_its_own_mounts(command: Sequence[str | Path]) -> list[str | Path]:
    """The command so that no one else sees what it mounts, and nothing of it stays where it is killed."""
    return ["unshare", "--mount", "--propagation", "private", "--", *command]


def _build_userland(wanted: Userland, folder: Path) -> None:
    tree = folder / "tree"
    hook = f'sh {paths.IMAGE_FILES}/customize.sh "$1" {paths.IMAGE_FILES} {paths.KEYS}'
    options = ['Acquire::Check-Valid-Until "false"', 'Acquire::Retries "3"', *apt.proxy_options()]
    argv = ["mmdebstrap", "--variant=minbase", "--architectures=amd64", f"--hook-dir={_MERGED_USR}"]
    argv += [f"--aptopt={option}" for option in options]
    argv += [f"--dpkgopt=path-exclude=/usr/share/{part}/*" for part in ("man", "locale", "doc")]
    argv += [f"--include={','.join(_packages(wanted))}", f"--customize-hook={hook}"]
    command: list[str | Path] = [*argv, wanted.suite, tree, apt.sources_file([wanted.suite])]
    run(in_its_own_mounts(command), f"userland {wanted.name}")
    query = ["dpkg-query", f"--admindir={tree}/var/lib/dpkg", "-W", "-f", "${Package}=${Version}\n"]
    packages = run(query, "list of packages").split()
    _squash(tree, folder / "base.squashfs")
    run(["rm", "-rf", "--one-file-system", tree], "remove the tree")
    digest = digest_of(folder / "base.squashfs")
    write_json(folder / "about.json", {"suite": wanted.suite, "digest": digest, "packages": packages})


def kernel(wanted: Kernel, refresh: bool = False) -> KernelImage:
    """The kernel that lab.yml describes, fetched and prepared when the cache has none."""
    pin = _kernel_pin(wanted, refresh)
    pool = [digest for _, digest in wanted.pool]
    settings = " ".join((*INITRD_MODULES, *_MKSQUASHFS, *pool))
    key = digest_of(paths.IMAGE_FILES / "init", static_program(BUSYBOX), settings)[:16]
    folder = paths.KERNELS / f"{wanted.name}-{pin['package']}_{pin['version'].replace(':', '%3a')}-{key}"
    if not folder.exists():
        say(f"kernel {wanted.name}: preparing {pin['package']}")
        with scratch_beside(folder) as scratch:
            _build_kernel(wanted, pin, scratch)
        _remove_others(paths.KERNELS, f"{wanted.name}-linux-", folder.name)
        say(f"kernel {wanted.name}: prepared {pin['package']}")
    about = read_json(folder / "about.json")
    files = (folder / "vmlinuz", folder / "initrd", folder / "modules.squashfs")
    return KernelImage(about["release"], pin["version"], *files, about["digest"])


def _kernel_pin(wanted: Kernel, refresh: bool) -> dict[str, Any]:
    path = paths.KERNELS / f"pin.{wanted.name}.json"
    pin: dict[str, Any] | None = read_json(path)
    question = {"suite": wanted.suite, "pattern": wanted.package}
    if pin and not refresh and {key: pin.get(key) for key in question} == question:
        return pin
    root = apt.Root([wanted.suite])
    with root.alone():
        root.update()
        package = root.newest(wanted.package)
        pin = {**question, "package": package.name, "version": package.version, "parts": root.with_parts(package)}
        write_json(path, pin)
    return pin


def _build_kernel(wanted: Kernel, pin: dict[str, Any], folder: Path) -> None:
    tree = folder / "tree"
    root = apt.Root([wanted.suite])
    with root.alone():
        if not root.folder.exists():
            root.update()
        debs = root.download(pin["parts"], folder / "debs")
        debs += [root.download_from_pool(path, digest, folder / "debs") for path, digest in wanted.pool]
    for package in debs:
        run(["dpkg-deb", "-x", package, tree], f"unpack {package.name}")
    modules = next((p for p in (tree / "lib/modules", tree / "usr/lib/modules") if p.is_dir()), None)
    if modules is None:
        raise LabError(f"lab.yml: kernels.{wanted.name}.package: {pin['package']} holds no modules: correct it")
    release = next(modules.iterdir()).name
    boot = tree / "boot" / f"vmlinuz-{release}"
    shutil.copyfile(boot if boot.exists() else modules / release / "vmlinuz", folder / "vmlinuz")
    run(["depmod", "-b", modules.parents[1], release], f"module dependencies of {release}")
    _build_initrd(modules.parents[1], release, folder)
    (modules / release / "vmlinuz").unlink(missing_ok=True)
    _squash(modules / release, folder / "modules.squashfs")
    for scrap in (tree, folder / "debs"):
        run(["rm", "-rf", "--one-file-system", scrap], "remove what was unpacked")
    digest = digest_of(folder / "vmlinuz", folder / "initrd", folder / "modules.squashfs")
    write_json(folder / "about.json", {**pin, "release": release, "digest": digest})


def module_order(listing: str) -> list[str]:
    """The files that ``modprobe --show-depends`` lists, each once, in the order to load them."""
    files = re.findall(r"^insmod (\S+)", listing, re.MULTILINE)
    return list(dict.fromkeys(files))


def _modules_to_load(base: Path, release: str) -> list[Path]:
    listing = ""
    for module in INITRD_MODULES:
        argv = ["modprobe", "-d", str(base), "-S", release, "--show-depends", module]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        listing += done.stdout
    return [Path(name) for name in module_order(listing)]


def _unpacked(module: Path) -> tuple[str, bytes]:
    """A module's plain name and content; the initrd's insmod reads no compressed ones."""
    name = module.name.split(".ko")[0] + ".ko"
    if module.suffix == ".xz":
        return name, lzma.decompress(module.read_bytes())
    if module.suffix == ".zst":
        return name, subprocess.run(["zstd", "-dqc", str(module)], capture_output=True, check=True).stdout
    return name, module.read_bytes()


def _build_initrd(base: Path, release: str, folder: Path) -> None:
    tree = folder / "initrd.tree"
    (tree / "bin").mkdir(parents=True)
    (tree / "modules").mkdir()
    shutil.copy(static_program(BUSYBOX), tree / "bin" / "busybox")
    shutil.copy(paths.IMAGE_FILES / "init", tree / "init")
    (tree / "init").chmod(0o755)
    for number, module in enumerate(_modules_to_load(base, release)):
        name, content = _unpacked(module)
        (tree / "modules" / f"{number:02d}-{name}").write_bytes(content)
    names = "\n".join(str(path.relative_to(tree)) for path in sorted(tree.rglob("*")))
    archive = run_bytes(["cpio", "--quiet", "-o", "-H", "newc", "-R", "0:0"], names.encode(), tree)
    (folder / "initrd").write_bytes(run_bytes(["gzip", "-n", "-6"], archive, tree))
    run(["rm", "-rf", "--one-file-system", tree], "remove the initrd's tree")


def run_bytes(argv: list[str], data: bytes, folder: Path) -> bytes:
    """Feed `data` to a command and return what it writes."""
    done = subprocess.run(argv, input=data, capture_output=True, check=False, cwd=folder)
    if done.returncode:
        raise LabError(f"{argv[0]} ended with status {done.returncode}: {done.stderr.decode()[-500:]}")
    return done.stdout
