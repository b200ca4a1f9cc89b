# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare what a host's status says with root's own view of kernel and systemd (the witness). Pure.

A loader that is frozen, replaced or hostile can write any status. It cannot write what the kernel
counts. A disagreement is a failure and says both values; what root could not see holds.

The status is older than the witness of the same snapshot, by up to the loader's interval. So a value
that only grows is held between two readings of the kernel: what was told at the end of the window
must be at least what the kernel counted at its start, and at most what it counted at its end. That
needs no guess of how fast a value grows. A status counts as written after the start of the window
if it is SLACK_NS younger, as a loader takes its time between reading a counter and stamping the file.
"""

from __future__ import annotations

from typing import Any, Callable, Mapping, NamedTuple, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.base import (
    FAIL,
    INCONCLUSIVE,
    PASS,
    Check,
    Json,
    Pair,
    attached_features,
    difference,
    get,
    number,
    programs_of,
    ratio_up,
)

WITNESS_CHECKS = (
    "witness",
    "witness_boot",
    "witness_process",
    "witness_pid",
    "witness_user",
    "witness_exe",
    "witness_release",
    "witness_advance",
    "witness_cpu",
    "witness_memory",
    "witness_programs",
    "witness_runs",
)

SLACK_NS = 2_000_000_000
FUTURE_NS = 1_000_000_000
# /proc/PID/stat cuts user and system time to ticks of 10 ms each; the loader's clock counts ns.
CPU_TOLERANCE_NS = 50_000_000
# The kernel keeps a start in ticks, and the two sides may round to different ones.
START_TOLERANCE_NS = 20_000_000
# Resident memory is kept in batches for each thread and CPU, and falls when the loader trims itself.
MEMORY_TOLERANCE_BYTES = 8 << 20
# Stopped, traced, zombie, dead: none of these runs.
NOT_RUNNING = {"T": "stopped", "t": "stopped by a tracer", "Z": "a zombie", "X": "dead", "x": "dead"}
# Attached only by a link of its own on every kernel; others may hang on a perf event.
NEEDS_LINK = ("tracing", "raw_tracepoint", "raw_tracepoint_writable", "lsm", "struct_ops")


class Finding(NamedTuple):
    """A verdict with both values, still without host and name."""

    verdict: str
    told: Any
    seen: Any
    sentence: str


class Side(NamedTuple):
    """One service of ours: what it told and what root saw of it, at both ends of the window."""

    name: str
    told: tuple[Json, Json]
    seen: tuple[Json, Json]
    times: tuple[int, int]

    @property
    def same_life(self) -> bool:
        """Whether one process was there at both ends."""
        lives = [(number(one, "main", "pid"), number(one, "main", "started_boottime_ns")) for one in self.seen]
        return None not in lives[0] and lives[0] == lives[1]

    @property
    def told_within(self) -> bool:
        """Whether the last account was written well after the start of the window."""
        at = number(self.told[1], "boottime_ns")
        return at is not None and at >= self.times[0] + SLACK_NS


def seen_of(snapshot: Json, name: str) -> Json | None:
    """Root's view of one unit in a snapshot."""
    found = get(snapshot, "witness", name)
    return found if isinstance(found, Mapping) else None


def told_of(snapshot: Json, name: str) -> Json:
    """What a service told of itself in a snapshot; empty where it told nothing."""
    status = get(snapshot, "status") or {}
    collector = get(status, "collector")
    if name == "loader":
        cost = get(status, "loader") if collector is None else get(collector, "loader")
        return {**_identity(status), **(cost or {})} if status else {}
    return {**_identity(collector), **(get(collector, "cost") or {})} if collector else {}


def _identity(told: Any) -> dict[str, Any]:
    return {key: get(told, key) for key in ("pid", "started_boottime_ns", "boot_id", "boottime_ns")}


def sides(pair: Pair) -> list[Side]:
    """The loader, and the collector where it is told of or runs."""
    times = (number(pair.start, "witness", "boottime_ns") or 0, number(pair.end, "witness", "boottime_ns") or 0)
    names = ["loader"]
    if seen_of(pair.end, "collector") is not None or told_of(pair.end, "collector"):
        names.append("collector")
    ends = (pair.start, pair.end)
    return [
        Side(
            name,
            (told_of(ends[0], name), told_of(ends[1], name)),
            (seen_of(ends[0], name) or {}, seen_of(ends[1], name) or {}),
            times,
        )
        for name in names
    ]


def witness_checks(pair: Pair) -> list[Check]:
    """Every comparison of one host; without root's view only the one that says so."""
    missing = what_is_missing(pair)
    if missing is not None:
        return [Check(pair.host, None, "witness", INCONCLUSIVE, None, None, None, f"{pair.host}: {missing}")]
    checks = [_as_check(pair, "witness_boot", judge_boot(pair))]
    checks.append(_as_check(pair, "witness_release", judge_release(pair)))
    for side in sides(pair):
        checks += [_as_check(pair, name, judge(pair, side)) for name, judge in SIDE_CHECKS]
    checks += [_as_check(pair, "witness_runs", judge_runs(pair, one), one) for one in attached_features(pair)]
    return checks


def what_is_missing(pair: Pair) -> str | None:
    """Why there is nothing to compare with, or None."""
    for end, snapshot in (("start", pair.start), ("end", pair.end)):
        if not isinstance(get(snapshot, "witness"), Mapping):
            return f"root's own view was not taken at the {end} of the window; use observation_info of this release"
        if seen_of(snapshot, "loader") is None:
            return f"systemd knew no unit of the loader at the {end} of the window, so nothing speaks for its status"
    return None


def _as_check(pair: Pair, name: str, found: Finding, feature: str | None = None) -> Check:
    about = pair.host if feature is None else f"{pair.host}, {feature}"
    sentence = f"{about}: {found.sentence}"
    return Check(pair.host, feature, name, found.verdict, found.told, found.seen, UNITS.get(name), sentence)


UNITS = {"witness_cpu": "ns", "witness_memory": "bytes", "witness_advance": "ns", "witness_release": "sha256"}


def unseen(what: str, why: Any) -> Finding:
    """Root could not see it."""
    reason = printable(why, 200) if why else "the kernel did not say"
    return Finding(INCONCLUSIVE, None, None, f"{what} could not be seen: {reason}")


def _why(seen: Json, field: str) -> Any:
    return get(seen, "why", field)


# --- which process, of which boot, from which file -------------------------------------------------


def judge_boot(pair: Pair) -> Finding:
    """Is the status of this boot?"""
    seen = [get(one, "witness", "boot_id") for one in (pair.start, pair.end)]
    told = [get(one, "status", "boot_id") for one in (pair.start, pair.end)]
    told += [get(one, "status", "collector", "boot_id") for one in (pair.end,) if get(one, "status", "collector")]
    if None in seen:
        return unseen("the boot", get(pair.end, "witness", "why", "boot_id"))
    if seen[0] != seen[1]:
        return Finding(INCONCLUSIVE, seen[1], seen[0], "the host was booted within the window")
    other = next((one for one in told if one is not None and one != seen[1]), None)
    if other is not None:
        sentence = f"the status is of boot {printable(other, 40)}, the kernel's boot is {printable(seen[1], 40)}"
        return Finding(FAIL, other, seen[1], sentence)
    return Finding(PASS, told[1], seen[1], "the status is of this boot")


def judge_release(pair: Pair) -> Finding:
    """Is the bundle that is told the one that is installed, and the one that was planned?"""
    told, wanted = get(pair.end, "status", "bundle", "digest"), pair.inputs.digest
    seen = get(pair.end, "witness", "installed_digest")
    if seen is None:
        return unseen("the installed release", get(pair.end, "witness", "why", "installed_digest"))
    plan = "" if wanted is None else f", the plan is {wanted[:12]}"
    sentence = f"the status tells bundle {printable(told, 12)}, installed is {printable(seen, 12)}{plan}"
    good = told == seen and wanted in (None, seen)
    return Finding(PASS if good else FAIL, told, seen, sentence)


def judge_process(_pair: Pair, side: Side) -> Finding:
    """Does the unit's main process exist, belong to the unit, and run?"""
    for seen in side.seen:
        if number(seen, "main_pid") == 0:
            return Finding(FAIL, None, 0, f"the unit of the {side.name} has no main process")
        main = get(seen, "main")
        if main is None:
            return unseen(f"the main process of the {side.name}", _why(seen, "main"))
        state = get(main, "state")
        if state in NOT_RUNNING:
            sentence = f"process {main['pid']} of the {side.name} is {NOT_RUNNING[state]} (state {state})"
            return Finding(FAIL, state, "R, S or D", f"{sentence}, so it does not run")
        pids = get(seen, "pids")
        if pids is None:
            return unseen(f"the processes of the {side.name}", _why(seen, "pids"))
        if main["pid"] not in pids:
            return Finding(FAIL, main["pid"], list(pids), f"the unit's cgroup does not hold process {main['pid']}")
    return Finding(PASS, get(side.seen[1], "main", "state"), "R, S or D", f"the {side.name} runs")


def judge_pid(_pair: Pair, side: Side) -> Finding:
    """Is the process that tells the unit's main process?"""
    for told, seen in zip(side.told, side.seen):
        if not told:
            return Finding(INCONCLUSIVE, None, None, f"the {side.name} runs and tells nothing that can be used")
        if not seen:
            return unseen(f"the unit of the {side.name}", "systemd says that it does not run")
        if told["pid"] != number(seen, "main_pid"):
            real = number(seen, "main_pid")
            sentence = f"the {side.name}'s status is of process {told['pid']}, systemd's main process is {real}"
            return Finding(FAIL, told["pid"], real, sentence)
        started, real = number(told, "started_boottime_ns"), number(seen, "main", "started_boottime_ns")
        if started is None or real is None:
            return unseen(f"the start of the {side.name}", _why(seen, "main"))
        if abs(started - real) > START_TOLERANCE_NS:
            sentence = f"the {side.name} says that it started at {started} ns, the kernel says {real} ns"
            return Finding(FAIL, started, real, sentence)
    pids = (side.told[1]["pid"], side.seen[1]["main_pid"])
    return Finding(PASS, *pids, f"the {side.name} that tells is the unit's process")


def judge_user(_pair: Pair, side: Side) -> Finding:
    """Does it run without root's user id?"""
    for seen in side.seen:
        uids = get(seen, "main", "uids")
        if not uids:
            return unseen(f"the user of the {side.name}", _why(seen, "main"))
        if 0 in uids:
            sentence = f"the {side.name} runs with user ids {list(uids)}, one of which is root's"
            return Finding(FAIL, list(uids), "no 0", sentence)
    return Finding(PASS, list(uids), "no 0", f"the {side.name} runs as user {uids[1]}")


def judge_exe(_pair: Pair, side: Side) -> Finding:
    """Does it execute the file that is installed?"""
    installed, name = get(side.seen[1], "main", "exe_is_installed"), get(side.seen[1], "main", "exe")
    if installed is None:
        return unseen(f"what the {side.name} executes", _why(side.seen[1], "main"))
    if installed is False:
        sentence = f"the {side.name} executes {printable(name, 200)}, which is not the file that is installed"
        return Finding(FAIL, name, "the installed file", sentence)
    return Finding(PASS, name, "the installed file", f"the {side.name} executes the installed file")


# --- time and cost ---------------------------------------------------------------------------------


def judge_advance(pair: Pair, side: Side) -> Finding:
    """Does the account go on with the clock, and did the process do anything while it went on?"""
    first, last = (number(told, "boottime_ns") for told in side.told)
    if first is None or last is None:
        return Finding(INCONCLUSIVE, last, None, f"the {side.name} gives no time of its account")
    ahead = next((at for at, now in zip((first, last), side.times) if at > now + FUTURE_NS), None)
    if ahead is not None:
        sentence = f"the account of the {side.name} is of {ahead} ns after boot, the clock said {side.times[1]} ns"
        return Finding(FAIL, ahead, side.times[1], sentence)
    window = side.times[1] - side.times[0]
    if last <= first:
        late = window > pair.limit("status_age_ns")
        sentence = f"the account of the {side.name} did not advance while {window} ns passed"
        return Finding(FAIL if late else INCONCLUSIVE, last - first, window, sentence)
    spent = unit_cpu_ns(side)
    if spent is None:
        return unseen(f"CPU time of the {side.name}", _why(side.seen[1], "cpu_ns"))
    if spent == 0 and side.told_within and get(side.seen[1], "cpu_source") != "processes":
        sentence = f"the account of the {side.name} advanced by {last - first} ns, its unit got 0 ns of CPU"
        return Finding(FAIL, last - first, 0, sentence)
    return Finding(PASS, last - first, window, f"the account of the {side.name} goes on")


def unit_cpu_ns(side: Side) -> int | None:
    """CPU time of the unit within the window by the kernel; None if it is not one count of one life."""
    first: int | None = number(side.seen[0], "cpu_ns")
    last: int | None = number(side.seen[1], "cpu_ns")
    same = get(side.seen[0], "cpu_source") == get(side.seen[1], "cpu_source")
    if first is None or last is None or last < first or not same or not side.same_life:
        return None
    return last - first


def units_millicores(pair: Pair) -> int | None:
    """CPU of loader and collector by the kernel over the window; None where it was not seen whole."""
    found = sides(pair) if what_is_missing(pair) is None else []
    spent = [unit_cpu_ns(side) for side in found]
    window = found[0].times[1] - found[0].times[0] if found else 0
    if None in spent or window <= 0:
        return None
    return _millicores(sum(value for value in spent if value is not None), window)


def _millicores(spent_ns: int, window_ns: int) -> int:
    found: int = ratio_up(spent_ns, window_ns, 1000)
    return found


def main_cpu_ns(side: Side, end: int) -> int | None:
    """CPU time of the main process since its start; the collector's compilers are its children."""
    main = get(side.seen[end], "main")
    own: int | None = number(main, "cpu_ns")
    if own is None or side.name == "loader":
        return own
    children: int = number(main, "children_cpu_ns") or 0
    return own + children


class Growth(NamedTuple):
    """A value that only grows: told at both ends, counted by the kernel at both ends."""

    told: tuple[int | None, int | None]
    seen: tuple[int | None, int | None]
    tolerance: int
    what: str
    unit: str


def judge_growth(side: Side, one: Growth) -> Finding:
    """Does what was told lie between the kernel's counts at both ends of the window?"""
    told, seen = one.told, one.seen
    if told[1] is None:
        return Finding(INCONCLUSIVE, None, seen[1], f"{one.what} was not told")
    if seen[1] is None:
        return unseen(one.what, None)
    for value, counted in zip(told, seen):
        if value is not None and counted is not None and value > counted + one.tolerance:
            sentence = f"{one.what} is told as {value} {one.unit}, the kernel counted {counted} {one.unit}"
            return Finding(FAIL, value, counted, sentence)
    if seen[0] is None:
        return Finding(PASS, told[1], seen[1], f"{one.what}: told {told[1]}, counted {seen[1]} {one.unit}")
    if seen[1] < seen[0] or (told[0] is not None and told[1] < told[0]):
        both = f"told {told[0]}, then {told[1]}; counted {seen[0]}, then {seen[1]} {one.unit}"
        return Finding(INCONCLUSIVE, told[1], seen[1], f"{one.what} went backwards: {both}")
    if not side.told_within:
        remedy = "make the window longer than the loader's interval and 2 s"
        return Finding(INCONCLUSIVE, told[1], seen[1], f"{one.what}: the last account is too old; {remedy}")
    if told[1] + one.tolerance < seen[0]:
        sentence = f"{one.what} is told as {told[1]} {one.unit}, the kernel had counted {seen[0]} {one.unit} before"
        return Finding(FAIL, told[1], seen[0], sentence)
    return Finding(PASS, told[1], seen[1], f"{one.what}: told {told[1]}, counted {seen[0]} to {seen[1]} {one.unit}")


def judge_cpu(_pair: Pair, side: Side) -> Finding:
    """Is the CPU time that is told the one that the kernel counted?"""
    if not side.same_life:
        return Finding(INCONCLUSIVE, None, None, f"the {side.name} was not one process throughout the window")
    told = tuple(number(one, "cpu_ns") for one in side.told)
    seen = (main_cpu_ns(side, 0), main_cpu_ns(side, 1))
    what = f"CPU time of the {side.name} since its start"
    return judge_growth(side, Growth((told[0], told[1]), seen, CPU_TOLERANCE_NS, what, "ns"))


def judge_memory(_pair: Pair, side: Side) -> Finding:
    """Is much less memory told than the kernel saw at both ends? More may have been in use between them."""
    told = number(side.told[1], "rss_bytes")
    seen = [_resident(side, one) for one in side.seen]
    what = f"resident memory of the {side.name}"
    if told is None:
        return Finding(INCONCLUSIVE, None, seen[1], f"{what} was not told")
    known = [one for one in seen if one is not None]
    if len(known) < len(seen):
        return unseen(what, _why(side.seen[1], "rss_bytes"))
    least = min(known)
    if told + told // 2 + MEMORY_TOLERANCE_BYTES < least:
        return Finding(FAIL, told, least, f"{what} is told as {told} bytes, the kernel saw {least} bytes")
    return Finding(PASS, told, least, f"{what}: told {told} bytes, seen {least} bytes")


def _resident(side: Side, seen: Json) -> int | None:
    # The collector's compilers come and go; the loader has no children, so all of its unit counts.
    path = ("rss_bytes",) if side.name == "loader" else ("main", "rss_bytes")
    found: int | None = number(seen, *path)
    return found


# --- programs --------------------------------------------------------------------------------------


def features_of(snapshot: Json, name: str) -> list[str]:
    """Features whose account is that of this service."""
    collected = set(get(snapshot, "status", "collector", "features") or [])
    features = get(snapshot, "status", "features") or {}
    return sorted(one for one in features if (one in collected) == (name == "collector"))


def held_programs(seen: Json) -> dict[int, Json] | None:
    """{id: program} that a unit holds in the kernel; None if it could not be seen."""
    programs = get(seen, "programs")
    return None if programs is None else {one["id"]: one for one in programs}


def judge_programs(pair: Pair, side: Side) -> Finding:
    """Are the programs that are told as attached the ones that the kernel lists, and no others?"""
    held = held_programs(side.seen[1])
    if held is None:
        return unseen(f"the programs of the {side.name}", _why(side.seen[1], "programs"))
    told: dict[int, str] = {}
    for feature in features_of(pair.end, side.name):
        programs = programs_of(pair.end, feature)
        told.update({one["id"]: feature for one in programs if one.get("id") is not None})
        wrong = _attachment_fault(pair, feature, programs, held) if _is_attached(pair, feature) else None
        wrong = wrong or _link_fault(pair, feature, get(side.seen[1], "links") or [])
        if wrong is not None:
            return wrong
    extra = sorted(set(held) - set(told))
    if extra:
        names = ", ".join(f"{one} ({printable(held[one]['name'], 20)})" for one in extra[:5])
        sentence = f"the {side.name} holds programs in the kernel that it does not tell: {names}; it tells {_ids(told)}"
        return Finding(FAIL, sorted(told)[:50], extra[:50], sentence)
    sentence = f"the kernel lists the {len(held)} programs that the {side.name} tells"
    return Finding(PASS, sorted(told)[:50], sorted(held)[:50], sentence)


def _is_attached(pair: Pair, feature: str) -> bool:
    return bool(get(pair.end, "status", "features", feature, "state") == "attached")


def _ids(found: Mapping[int, Any] | Sequence[int]) -> str:
    return ", ".join(map(str, sorted(found)[:10])) or "none"


def _attachment_fault(pair: Pair, feature: str, programs: Sequence[Json], held: Mapping[int, Json]) -> Finding | None:
    """What speaks against a feature that is told as attached."""
    if not programs:
        return Finding(FAIL, [], sorted(held)[:50], f"{feature} is told as attached without any program")
    for one in programs:
        number_, name = one.get("id"), printable(one.get("name"), 40)
        if number_ is None:
            return unseen(f"program {name} of {feature}", "the status gives no id")
        real = held.get(number_)
        if real is None:
            sentence = f"{feature} is told as attached with program {number_} ({name})"
            sentence += f", the kernel lists {_ids(held)} for its unit"
            return Finding(FAIL, number_, sorted(held)[:50], sentence)
        if one.get("tag") not in (None, real.get("tag")):
            tags = (one["tag"], real.get("tag"))
            sentence = f"program {number_} of {feature} is told with tag {printable(tags[0], 20)}, it has {tags[1]}"
            return Finding(FAIL, *tags, sentence)
        if real["type"] in NEEDS_LINK and not real["links"]:
            sentence = f"{feature} is told as attached, its program {number_} ({name}) is loaded without a link"
            return Finding(FAIL, "attached", "no link", sentence)
    return None


def _link_fault(pair: Pair, feature: str, links: Sequence[int]) -> Finding | None:
    """A link that is told and not held."""
    told = [one for one in get(pair.end, "status", "features", feature, "links") or [] if one is not None]
    gone = sorted(set(told) - set(links))
    if not gone:
        return None
    sentence = f"{feature} tells link {gone[0]}, which its unit does not hold; it holds {_ids(links)}"
    return Finding(FAIL, gone[0], sorted(links)[:50], sentence)


# --- runs ------------------------------------------------------------------------------------------


def side_of(pair: Pair, feature: str) -> Side | None:
    """The service whose feature it is."""
    return next((side for side in sides(pair) if feature in features_of(pair.end, side.name)), None)


def run_growth(pair: Pair, side: Side, feature: str, key: str) -> Growth:
    """Sum over the feature's programs of what was told and of what the kernel counted, by id."""
    end = {one.get("id"): one for one in programs_of(pair.end, feature)}
    start = {one.get("id"): one for one in programs_of(pair.start, feature)}
    held = [held_programs(one) or {} for one in side.seen]
    told = (_total(start, end, key), _total(end, end, key))
    # Programs that came within the window have no count at its start.
    seen = (_total(held[0], end, key), _total(held[1], end, key))
    what = {"run_cnt": "runs", "run_time_ns": "run time"}[key]
    return Growth(told, seen, 0, f"{what} of its programs", {"run_cnt": "runs", "run_time_ns": "ns"}[key])


def _total(programs: Mapping[Any, Json], ids: Mapping[Any, Json], key: str) -> int | None:
    values: list[int | None] = [number(programs.get(one), key) for one in ids]
    if not values or None in values:
        return None
    return sum(value for value in values if value is not None)


def judge_runs(pair: Pair, feature: str) -> Finding:
    """Are runs and run time the kernel's, and do events come from programs that ran?"""
    side = side_of(pair, feature)
    if side is None:
        return unseen("the service that runs it", None)
    found = judge_growth(side, run_growth(pair, side, feature, "run_time_ns"))
    runs = run_growth(pair, side, feature, "run_cnt")
    if found.verdict != FAIL:
        found = judge_growth(side, runs)
    if found.verdict != PASS:
        return found
    moved = difference(pair, "features", feature, "counters", "produced") if side.same_life else None
    if moved is not None and moved > 0 and runs.seen[1] == runs.told[0]:
        sentence = f"tells {moved} events within the window, the kernel counted 0 runs of its programs"
        return Finding(FAIL, moved, 0, f"{sentence} ({runs.seen[1]} before and after)")
    return found


def kernel_run_ns(pair: Pair, feature: str) -> int | None:
    """Run time of a feature's programs within the window by the kernel; None where it was not seen."""
    side = side_of(pair, feature) if what_is_missing(pair) is None else None
    if side is None:
        return None
    first, last = run_growth(pair, side, feature, "run_time_ns").seen
    return None if first is None or last is None or last < first else last - first


def kernel_millicores(pair: Pair, spent_ns: int | None) -> int | None:
    """CPU time within the witness's window as millicores."""
    first, last = (number(one, "witness", "boottime_ns") for one in (pair.start, pair.end))
    if spent_ns is None or first is None or last is None or last <= first:
        return None
    return _millicores(spent_ns, last - first)


def larger(told: int | None, seen: int | None) -> int | None:
    """The larger of both for a budget; what was not told stays unmeasured."""
    return told if told is None or seen is None else max(told, seen)


SIDE_CHECKS: tuple[tuple[str, Callable[[Pair, Side], Finding]], ...] = (
    ("witness_process", judge_process),
    ("witness_pid", judge_pid),
    ("witness_user", judge_user),
    ("witness_exe", judge_exe),
    ("witness_advance", judge_advance),
    ("witness_cpu", judge_cpu),
    ("witness_memory", judge_memory),
    ("witness_programs", judge_programs),
)
