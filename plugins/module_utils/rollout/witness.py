# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Root's own view of a unit of ours: from the kernel and systemd, without believing the unit.

Everything is bounded in count and time, nothing follows a link that the unit's user could lay,
and nothing is read that waits for a lock of the unit's processes (cmdline, environ, maps).
What could not be found out is None, and `why` says the reason by the field's name.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import struct
import time
from pathlib import Path
from typing import Any, Iterator, NamedTuple

from ansible_collections.ebpf.fleet.plugins.module_utils.base.answers import errno_name
from ansible_collections.ebpf.fleet.plugins.module_utils.base.bounded import BoundedReadError, read_bytes
from ansible_collections.ebpf.fleet.plugins.module_utils.base.bounded import read_text as read_bounded
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import OneCodeError
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel import bpfsys, loaded

# A unit of ours may have 8 tasks and 1024 descriptors (TasksMax, LimitNOFILE); these are far above.
PIDS_LIMIT = 64
FOLDERS_LIMIT = 64
DESCRIPTORS_LIMIT = 20_000
PROGRAMS_LIMIT = 1_024
BUDGET_NS = 2_000_000_000
KERNEL_FILE_LIMIT = 64 << 10
MANIFEST_LIMIT = 16 << 20

HIERARCHIES = ("", "unified", "systemd")

_FDINFO_NUMBER = re.compile(r"^(prog_id|link_id):\s*([0-9]+)$", re.MULTILINE)
_UIDS = re.compile(r"^Uid:\s+([0-9]+)\s+([0-9]+)\s+([0-9]+)\s+([0-9]+)$", re.MULTILINE)


class Unit(NamedTuple):
    """One unit as systemd tells of it; `cgroup` is its path below the hierarchies, `folder` a test's own."""

    name: str
    main_pid: int | None
    cgroup: str | None
    exe: Path
    folder: Path | None = None
    pids: tuple[int, ...] | None = None


class UnseenError(OneCodeError):
    """Something could not be found out; the message is the reason."""

    code = "EF_UNKNOWN"


class Holdings(NamedTuple):
    """Program ids that processes hold by descriptor: {id: ids of links that hold it}, and the lone links."""

    programs: dict[int, set[int]]
    links: set[int]


def read_kernel(path: Path) -> str:
    """A small file of the kernel's; raises UnseenError where it is not to be had."""
    try:
        text: str | None = read_bounded(path, KERNEL_FILE_LIMIT)
    except BoundedReadError as error:
        raise UnseenError(str(error)) from error
    if text is None:
        raise UnseenError(f"{path}: is not there")
    return text


# --- processes -------------------------------------------------------------------------------------


def parse_stat(text: str, ticks_per_second: int, page_bytes: int) -> dict[str, Any] | None:
    """State, CPU time, start and resident memory out of /proc/PID/stat; None if it is not one.

    `cpu_ns` is the process's own, `children_cpu_ns` that of children which it has waited for; both in
    steps of a tick. The name, which the process chooses, ends at the last parenthesis.
    """
    fields = text.rpartition(")")[2].split()
    if len(fields) < 22 or not all(re.fullmatch(r"-?[0-9]+", word) for word in fields[1:22]):
        return None
    tick = 1_000_000_000 // ticks_per_second
    return {
        "state": fields[0],
        "cpu_ns": (int(fields[11]) + int(fields[12])) * tick,
        "children_cpu_ns": (int(fields[13]) + int(fields[14])) * tick,
        "started_boottime_ns": int(fields[19]) * tick,
        "rss_bytes": max(0, int(fields[21])) * page_bytes,
    }


def read_process(proc: Path, pid: int) -> dict[str, Any]:
    """What the kernel says of one process; raises UnseenError if it is gone."""
    found = parse_stat(read_kernel(proc / str(pid) / "stat"), os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE"))
    if found is None:
        raise UnseenError(f"{proc}/{pid}/stat: is not in the form of proc(5)")
    return {"pid": pid, **found}


def read_main(proc: Path, unit: Unit) -> dict[str, Any]:
    """The unit's main process: as `read_process`, with its user ids and what it executes."""
    if not unit.main_pid:
        raise UnseenError(f"{unit.name} has no main process")
    main = read_process(proc, unit.main_pid)
    uids = _UIDS.search(read_kernel(proc / str(unit.main_pid) / "status"))
    main["uids"] = None if uids is None else [int(word) for word in uids.groups()]
    main["exe"], main["exe_is_installed"] = read_exe(proc / str(unit.main_pid) / "exe", unit.exe)
    return main


def read_exe(link: Path, installed: Path) -> tuple[str | None, bool | None]:
    """(what the process executes, whether it is the very file that is installed); None: unknown."""
    try:
        name, running = os.readlink(link), os.stat(link)
    except OSError:
        return None, None
    try:
        wanted = os.stat(installed)
    except OSError:
        return name, None
    return name, (running.st_dev, running.st_ino) == (wanted.st_dev, wanted.st_ino)


# --- the unit's cgroup -----------------------------------------------------------------------------


def cgroup_folder(root: Path, unit: Unit) -> Path:
    """The folder that lists the unit's processes: of cgroup 2, of the hybrid layout or of systemd's own."""
    if unit.folder is not None:
        return unit.folder
    if not unit.cgroup or unit.cgroup == "/" or ".." in unit.cgroup.split("/"):
        raise UnseenError(f"{unit.name}: systemd names no cgroup")
    for hierarchy in HIERARCHIES:
        folder = root / "sys/fs/cgroup" / hierarchy / unit.cgroup.lstrip("/")
        if (folder / "cgroup.procs").exists():
            return folder
    raise UnseenError(f"{unit.name}: there is no cgroup {unit.cgroup}")


def cgroup_pids(folder: Path) -> list[int]:
    """Processes of a cgroup and of those below it; raises UnseenError beyond PIDS_LIMIT."""
    pids: list[int] = []
    for number, (place, _folders, _files) in enumerate(os.walk(folder)):
        if number >= FOLDERS_LIMIT:
            raise UnseenError(f"{folder}: more than {FOLDERS_LIMIT} cgroups")
        pids += [int(word) for word in read_kernel(Path(place) / "cgroup.procs").split() if word.isdigit()]
        if len(pids) > PIDS_LIMIT:
            raise UnseenError(f"{folder}: more than {PIDS_LIMIT} processes")
    return sorted(pids)


def unit_pids(root: Path, unit: Unit) -> list[int]:
    """Processes of the unit; systemd names no cgroup for one that does not run."""
    if unit.pids is not None:
        return sorted(unit.pids)
    if unit.folder is None and not unit.cgroup and not unit.main_pid:
        return []
    return cgroup_pids(cgroup_folder(root, unit))


def controller_files(root: Path, unit: Unit, controllers: tuple[str, ...], name: str) -> Iterator[Path]:
    """Where a version 1 controller keeps a file of the unit's."""
    for controller in controllers if unit.cgroup and unit.folder is None else ():
        yield root / "sys/fs/cgroup" / controller / str(unit.cgroup).lstrip("/") / name


def read_cpu(root: Path, unit: Unit, pids: list[int]) -> tuple[int, str]:
    """(CPU time of the unit in ns, where from): its cgroup's, else the sum of its processes."""
    with contextlib.suppress(UnseenError):
        usage = re.search(r"^usage_usec ([0-9]+)$", read_kernel(cgroup_folder(root, unit) / "cpu.stat"), re.MULTILINE)
        if usage is not None:
            return int(usage.group(1)) * 1000, "cgroup"
    for path in controller_files(root, unit, ("cpu,cpuacct", "cpuacct"), "cpuacct.usage"):
        number = _number(path)
        if number is not None:
            return number, "cpuacct"
    processes = [read_process(root / "proc", pid) for pid in pids]
    return sum(one["cpu_ns"] + one["children_cpu_ns"] for one in processes), "processes"


def read_memory(root: Path, unit: Unit) -> int:
    """Memory that the kernel charges to the unit's cgroup: page cache and maps are in it."""
    paths = list(controller_files(root, unit, ("memory",), "memory.usage_in_bytes"))
    with contextlib.suppress(UnseenError):
        paths.insert(0, cgroup_folder(root, unit) / "memory.current")
    for path in paths:
        number = _number(path)
        if number is not None:
            return number
    raise UnseenError("no memory controller counts this unit")


def _number(path: Path) -> int | None:
    try:
        text = read_kernel(path).strip()
    except UnseenError:
        return None
    return int(text) if text.isdigit() else None


# --- programs --------------------------------------------------------------------------------------


def holdings(proc: Path, pids: list[int]) -> Holdings:
    """Programs and links that the processes hold, by the descriptors of all their threads.

    A thread may have a table of descriptors of its own. Raises UnseenError when there is too much to read.
    """
    found = Holdings({}, set())
    end, seen = time.monotonic_ns() + BUDGET_NS, 0
    for pid in pids:
        for task in _entries(proc / str(pid) / "task"):
            for name in _entries(task / "fd"):
                seen += 1
                if seen > DESCRIPTORS_LIMIT or time.monotonic_ns() > end:
                    raise UnseenError(f"stopped after {seen - 1} descriptors: too many to read")
                _hold(found, task, name.name)
    return found


def _entries(folder: Path) -> Iterator[Path]:
    """What is in a folder of /proc; nothing where the process has just gone."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                yield Path(entry.path)
    except (FileNotFoundError, ProcessLookupError):
        return
    except OSError as error:
        raise UnseenError(f"{folder}: {error.strerror}") from error


def _hold(found: Holdings, task: Path, number: str) -> None:
    """Note the program and the link of one descriptor. A descriptor that has just been closed holds nothing."""
    try:
        if not os.readlink(task / "fd" / number).startswith("anon_inode:bpf"):
            return
        text = read_bounded(task / "fdinfo" / number, KERNEL_FILE_LIMIT)
    except (FileNotFoundError, ProcessLookupError):
        return
    except (OSError, BoundedReadError) as error:
        raise UnseenError(f"{task}/fd/{number}: {error}") from error
    numbers = dict(_FDINFO_NUMBER.findall(text or ""))
    link = int(numbers["link_id"]) if "link_id" in numbers else None
    if link is not None:
        found.links.add(link)
    if "prog_id" in numbers:
        found.programs.setdefault(int(numbers["prog_id"]), set()).update(() if link is None else (link,))


def describe_program(number: int, links: set[int]) -> dict[str, Any] | None:
    """Name, tag, type, runs and run time of a program by the kernel; None if it has just gone."""
    try:
        fd = bpfsys.bpf(bpfsys.PROG_GET_FD_BY_ID, struct.pack("=I", number))
    except OSError as error:
        if error.errno == errno.ENOENT:
            return None
        raise UnseenError(f"program {number}: {errno_name(error.errno)} from BPF_PROG_GET_FD_BY_ID") from error
    try:
        info = bpfsys.object_info(fd)
    finally:
        os.close(fd)
    run_time_ns, run_cnt = loaded.run_statistics(info)
    one = bpfsys.program_from(info)
    return {
        "id": one.id,
        "name": one.name,
        "tag": one.tag,
        "type": loaded.program_type_name(one.type),
        "links": sorted(links),
        "run_cnt": run_cnt,
        "run_time_ns": run_time_ns,
    }


def read_programs(proc: Path, pids: list[int]) -> dict[str, Any]:
    """{"programs", "links"} that the unit holds, as the kernel tells them.

    A process that ended meanwhile seems to hold nothing; that is not a measurement.
    """
    held = holdings(proc, pids)
    for pid in pids:
        if read_process(proc, pid)["state"] in "ZXx":
            raise UnseenError(f"process {pid} has ended, and holds nothing any more")
    if len(held.programs) > PROGRAMS_LIMIT:
        raise UnseenError(f"holds {len(held.programs)} programs, more than the {PROGRAMS_LIMIT} that are read")
    try:
        described = [describe_program(number, held.programs[number]) for number in sorted(held.programs)]
    except bpfsys.UnsupportedMachineError as error:
        raise UnseenError(str(error)) from error
    return {"programs": [one for one in described if one is not None], "links": sorted(held.links)}


# --- all of it -------------------------------------------------------------------------------------


def _ask(why: dict[str, str], field: str, ask: Any, *arguments: Any) -> Any:
    """The answer, or None with the reason kept."""
    try:
        return ask(*arguments)
    except UnseenError as error:
        why[field] = str(error)
    except OSError as error:
        why[field] = f"{error.strerror}"
    return None


def read_unit_witness(root: Path, unit: Unit) -> dict[str, Any]:
    """One UNIT of docs/formats/observation.md."""
    why: dict[str, str] = {}
    proc = root / "proc"
    pids = _ask(why, "pids", unit_pids, root, unit)
    # CPU time first: what follows only reads, and what the unit does meanwhile belongs to the next window.
    cpu = _ask(why, "cpu_ns", read_cpu, root, unit, pids or []) if pids is not None else None
    main = _ask(why, "main", read_main, proc, unit)
    held = _ask(why, "programs", read_programs, proc, pids) if pids is not None else None
    memory = _ask(why, "memory_bytes", read_memory, root, unit)
    rss = _ask(why, "rss_bytes", _resident, proc, pids) if pids is not None else None
    return {
        "unit": unit.name,
        "main_pid": unit.main_pid,
        "pids": pids,
        "main": main,
        "cpu_ns": None if cpu is None else cpu[0],
        "cpu_source": None if cpu is None else cpu[1],
        "rss_bytes": rss,
        "memory_bytes": memory,
        "programs": None if held is None else held["programs"],
        "links": None if held is None else held["links"],
        "why": why,
    }


def _resident(proc: Path, pids: list[int]) -> int:
    return sum(read_process(proc, pid)["rss_bytes"] for pid in pids)


def installed_digest(root: Path) -> str:
    """SHA-256 of the manifest of the release that is installed as current."""
    path = root / "var/lib/ebpf-fleet/current/bundle/manifest.json"
    try:
        data = read_bytes(path, MANIFEST_LIMIT)
    except BoundedReadError as error:
        raise UnseenError(str(error)) from error
    if data is None:
        raise UnseenError(f"{path}: is not there")
    return hashlib.sha256(data).hexdigest()


def read_witness(root: Path, loader: Unit | None, collector: Unit | None, now_ns: int) -> dict[str, Any]:
    """One WITNESS of docs/formats/observation.md; a unit that systemd does not know is None."""
    why: dict[str, str] = {}
    return {
        "boottime_ns": now_ns,
        "boot_id": _ask(why, "boot_id", _boot_id, root),
        "installed_digest": _ask(why, "installed_digest", installed_digest, root),
        "loader": None if loader is None else read_unit_witness(root, loader),
        "collector": None if collector is None else read_unit_witness(root, collector),
        "why": why,
    }


def _boot_id(root: Path) -> str:
    return read_kernel(root / "proc/sys/kernel/random/boot_id").strip()
