# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host says of itself in files: settings, build, security modules, our release. Asks nothing of bpf(2).

Every reader takes the root that stands before the paths; what cannot be read is None.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import time
import zlib
from pathlib import Path
from typing import Any, Mapping, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base.answers import Answer, answered
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel import bpfsys
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel.hostfiles import (
    build_id_of,
    kernel_family,
    read_int,
    read_os_release,
    read_text,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.kill.orders import orders_in

_SYSCTLS = {
    "jit": "net/core/bpf_jit_enable",
    "jit_harden": "net/core/bpf_jit_harden",
    "unprivileged_bpf_disabled": "kernel/unprivileged_bpf_disabled",
    "bpf_stats_enabled": "kernel/bpf_stats_enabled",
    "kptr_restrict": "kernel/kptr_restrict",
    "perf_event_paranoid": "kernel/perf_event_paranoid",
}
_CONFIG_OPTIONS = (
    "CONFIG_BPF_SYSCALL",
    "CONFIG_BPF_JIT",
    "CONFIG_BPF_JIT_ALWAYS_ON",
    "CONFIG_BPF_LSM",
    "CONFIG_BPF_EVENTS",
    "CONFIG_BPF_KPROBE_OVERRIDE",
    "CONFIG_CGROUP_BPF",
    "CONFIG_DEBUG_INFO_BTF",
    "CONFIG_DEBUG_INFO_BTF_MODULES",
    "CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS",
    "CONFIG_FPROBE",
    "CONFIG_FTRACE",
    "CONFIG_FUNCTION_TRACER",
    "CONFIG_KPROBES",
    "CONFIG_KPROBE_EVENTS",
    "CONFIG_NET_CLS_BPF",
    "CONFIG_NET_SCH_INGRESS",
    "CONFIG_PREEMPT_RT",
    "CONFIG_SCHEDSTATS",
    "CONFIG_SECURITY_LOCKDOWN_LSM",
    "CONFIG_UPROBE_EVENTS",
)
# Ids of lsm_list_modules(2): LSM_ID_* of linux/lsm.h.
LSM_NAMES = {
    100: "capability",
    101: "selinux",
    102: "smack",
    103: "tomoyo",
    104: "apparmor",
    105: "yama",
    106: "loadpin",
    107: "safesetid",
    108: "lockdown",
    109: "bpf",
    110: "landlock",
    111: "ima",
    112: "evm",
    113: "ipe",
}
KILL_FOLDERS = ("etc/ebpf-fleet/kill.d", "run/ebpf-fleet/kill.d")
ORDERS_LIMIT = 1000
_CAPABILITIES = {"SYS_ADMIN": 21, "PERFMON": 38, "BPF": 39}


def read_host(root: Path) -> dict[str, Any]:
    """All facts that are read from files."""
    release = platform.release()
    distro = read_os_release(root)
    facts: dict[str, Any] = {
        "kernel": _read_kernel(root, release, distro["id"]),
        "distro": distro,
        "python": platform.python_version(),
        "systemd": read_systemd(root),
        "lockdown": read_lockdown(root),
        "lsms": read_lsms(root) or list_lsms(),
        "cgroup": read_cgroup(root),
        "config": read_config(root, release),
        "bcc": read_bcc(root, release),
        "release": read_release(root),
        "kill_orders": read_kill_orders(root),
    }
    facts.update({name: read_int(root / "proc/sys" / place) for name, place in _SYSCTLS.items()})
    return facts


def _read_kernel(root: Path, release: str, distro: str | None) -> dict[str, str | None]:
    family = kernel_family(release)
    return {
        "release": release,
        "family": family,
        "distro_family": None if family is None or distro is None else f"{distro}-{family}",
        "machine": platform.machine(),
        "build_id": read_build_id(root),
    }


def read_build_id(root: Path) -> str | None:
    """The kernel's GNU build id in hex, out of the ELF notes in sys/kernel/notes."""
    try:
        notes = (root / "sys/kernel/notes").read_bytes()
    except OSError:
        return None
    return build_id_of(notes)


def has_privilege(root: Path = Path("/")) -> bool:
    """Has this process the capabilities that the questions need (SYS_ADMIN, or BPF and PERFMON)?"""
    text = read_text(root / "proc/self/status") or ""
    lines = [line.split()[1] for line in text.splitlines() if line.startswith("CapEff:")]
    if not lines:
        return os.geteuid() == 0
    held = {name for name, bit in _CAPABILITIES.items() if int(lines[0], 16) >> bit & 1}
    return "SYS_ADMIN" in held or {"BPF", "PERFMON"} <= held


def read_btf_modules(root: Path) -> list[str] | None:
    """Names of the modules that have BTF of their own, or None without sys/kernel/btf."""
    try:
        return sorted(name for name in os.listdir(root / "sys/kernel/btf") if name != "vmlinux")
    except OSError:
        return None


def read_lsms(root: Path) -> list[str] | None:
    """The active LSMs in order, or None where securityfs cannot be read."""
    text = read_text(root / "sys/kernel/security/lsm")
    return None if text is None else text.strip().split(",")


def list_lsms() -> list[str] | None:
    """The active LSMs as the kernel lists them (6.8 on), where securityfs is not mounted."""
    try:
        return [LSM_NAMES.get(number, f"lsm_{number}") for number in bpfsys.active_lsms()]
    except (OSError, bpfsys.UnsupportedMachineError):
        return None


def read_lockdown(root: Path) -> dict[str, str | None]:
    """{"mode": none | integrity | confidentiality, or None where not known, "evidence"}."""
    text = read_text(root / "sys/kernel/security/lockdown")
    if text is None or "[" not in text:
        return {"mode": None, "evidence": "sys/kernel/security/lockdown cannot be read"}
    mode = text.partition("[")[2].partition("]")[0]
    return {"mode": mode, "evidence": f"sys/kernel/security/lockdown: {text.strip()}"}


def read_config(root: Path, release: str) -> dict[str, Any] | None:
    """Build options of the running kernel, an option that is not set as "n"; None if not readable."""
    for place in CONFIG_PLACES:
        text = read_config_text(root / place.format(release))
        if text is not None:
            return {"source": place.format(release), "options": {name: _option(text, name) for name in _CONFIG_OPTIONS}}
    return None


# The kernel's own copy; then where distributions put it (Debian and its kin; Fedora and image-based systems).
CONFIG_PLACES = ("proc/config.gz", "boot/config-{}", "lib/modules/{}/config", "usr/lib/modules/{}/config")
_LARGEST_CONFIG = 4 << 20  # bytes; a distribution's has some 300 KB


def read_config_text(path: Path) -> str | None:
    """A kernel configuration, plain or gzip; None where it cannot be read whole, or does not read like one.

    Of a part of one, every option behind the cut would seem to be off.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(_LARGEST_CONFIG + 1)
        if raw[:2] == b"\x1f\x8b":
            inflater = zlib.decompressobj(16 + zlib.MAX_WBITS)
            raw = inflater.decompress(raw, _LARGEST_CONFIG) if len(raw) <= _LARGEST_CONFIG else b""
            raw = raw if inflater.eof else b""
    except (OSError, zlib.error):
        return None
    text = raw.decode("utf-8", "replace") if len(raw) <= _LARGEST_CONFIG else ""
    return text if text.startswith("CONFIG_") or "\nCONFIG_" in text else None


def _option(text: str, name: str) -> str:
    start = 0 if text.startswith(name + "=") else text.find(f"\n{name}=") + 1
    if not text.startswith(name + "=", start):
        return "n"
    return text[start + len(name) + 1 :].partition("\n")[0]


def read_cgroup(root: Path) -> str | None:
    """v2, hybrid or v1; None where no cgroup file system is mounted at its usual place."""
    base = root / "sys/fs/cgroup"
    if (base / "cgroup.controllers").exists():
        return "v2"
    if (base / "unified/cgroup.controllers").exists():
        return "hybrid"
    return "v1" if (base / "cpu").exists() or (base / "memory").exists() else None


def read_systemd(root: Path) -> dict[str, Answer]:
    """Is systemd installed, and is it process 1?"""
    installed = next((p for p in ("usr/bin/systemctl", "bin/systemctl") if (root / p).exists()), None)
    booted = (root / "run/systemd/system").is_dir()
    return {
        "installed": answered("yes" if installed else "no", installed or "no systemctl in usr/bin or bin"),
        "pid1": answered("yes" if booted else "no", "run/systemd/system is " + ("there" if booted else "not there")),
    }


def read_memlock() -> dict[str, int | bool | None]:
    """The soft limit of this session in bytes; null when unlimited."""
    soft, _hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    unlimited = soft == resource.RLIM_INFINITY
    return {"soft_bytes": None if unlimited else soft, "unlimited": unlimited}


def read_bcc(root: Path, release: str) -> Answer:
    """Could a BCC collector compile here: Debian's python3-bpfcc and the running kernel's headers?"""
    if not (root / "usr/lib/python3/dist-packages/bcc/__init__.py").exists():
        return answered("no", "usr/lib/python3/dist-packages/bcc is not there; install python3-bpfcc")
    headers = root / "lib/modules" / release / "build"
    if not headers.exists() and not (root / "sys/kernel/kheaders.tar.xz").exists():
        return answered("no", f"{headers} is not there; install the headers of kernel {release}")
    return answered("yes", f"python3-bpfcc and {headers} are there")


def read_release(root: Path, now_ns: int | None = None) -> dict[str, Any] | None:
    """The installed release and what its loader says of itself; None where no release is installed."""
    current = root / "var/lib/ebpf-fleet/current"
    manifest = _read_json(current / "bundle/manifest.json")
    if manifest is None:
        return None
    status = _read_json(root / "run/ebpf-fleet-loader/status.json") or {}
    bundle = manifest.get("bundle") or {}
    written = status.get("time_unix_ns")
    return {
        "version": bundle.get("version"),
        "sequence": bundle.get("sequence"),
        "digest": (status.get("bundle") or {}).get("digest"),
        "state": status.get("state"),
        "status_age_ns": (time.time_ns() if now_ns is None else now_ns) - written if written else None,
        "features": _release_features(current / "bundle", status.get("features") or {}),
    }


def read_kill_orders(root: Path) -> list[str] | None:
    """Names of the kill orders that stand; None where a folder cannot be read, which the loader takes for one."""
    try:
        return sorted({name for place in KILL_FOLDERS for name in orders_in(root / place)})[:ORDERS_LIMIT]
    except OSError:
        return None


def _release_features(bundle: Path, features: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _release_feature(bundle, name, one) for name, one in features.items()}


def _release_feature(bundle: Path, name: str, status: Mapping[str, Any]) -> dict[str, Any]:
    contract = _read_json(bundle / "features" / name / "contract.json") or {}
    counters = status.get("counters") or {}
    return {
        "state": status.get("state"),
        "profile": status.get("profile"),
        "variant": status.get("variant"),
        "data_path": contract.get("data_path"),
        "produced": counters.get("produced"),
        "dropped": counters.get("dropped"),
        "sampled_out": counters.get("sampled_out"),
    }


def _read_json(path: Path) -> dict[str, Any] | None:
    text = read_text(path)
    try:
        found = json.loads(text) if text else None
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def matching_btf(kernel: Mapping[str, Any], index: Sequence[Mapping[str, Any]] | None) -> Answer:
    """Does a bundle's minimal BTF belong to this kernel? `kernel` has machine, release and build_id.

    The rules are those of btf/index.json in docs/formats/btf-index.md: the build id decides, the
    release only where one of the two build ids is not known.
    """
    if index is None:
        return answered("no", "no btf_index was given")
    mine = [one for one in index if one.get("machine") == kernel["machine"]]
    build_id = kernel.get("build_id")
    by_id = [one for one in mine if build_id and one.get("build_id") == build_id]
    by_release = [one for one in mine if one.get("release") == kernel["release"]]
    loose = [one for one in by_release if not one.get("build_id") or not build_id]
    if by_id or loose:
        return answered("yes", "{} of the bundle's btf/index.json".format((by_id or loose)[0].get("file")))
    if by_release:
        evidence = "btf/index.json has release {} with build id {}, this kernel has {}".format(
            kernel["release"], by_release[0].get("build_id"), build_id
        )
        return answered("no", evidence, "EF_BTF_MISMATCH")
    return answered("no", "btf/index.json has no entry for {} {}".format(kernel["machine"], kernel["release"]))
