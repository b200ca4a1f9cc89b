# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The way back to the previous release, and the census of who confirmed an order.

Pure functions: one renders the POSIX sh script that a host runs over ``raw``,
the others judge what came back. An answer that cannot be read is never a yes.
"""

from __future__ import annotations

import json
import re
from typing import Any, Mapping

from ansible_collections.ebpf.fleet.plugins.module_utils import killscript

MARK = "ebpf-fleet-rollback: "

_DIGEST = re.compile(r"^[0-9a-f]{64}$")

# rename(2) of the link `previous` onto `current` needs no block and no inode:
# it works on a full disk. The desired state lies in the release's folder and
# comes back with it.
_PARTS = ("rollback_head.sh", "unit.sh", "rollback.sh")


def render_rollback(
    from_digest: str | None = None,
    unit: str = "ebpf-fleet-loader.service",
    wait_seconds: int = 30,
    lock_seconds: int = 90,
    stop_seconds: int = 12,
    root: str = "",
) -> str:
    """Return the script that makes the previous release current again.

    With ``from_digest`` (64 hex digits) a host on which another release is
    active is left as it is, and a host without a previous release ends with
    nothing running: what a failed rollout wants. A release run that still
    works on the host is awaited for ``lock_seconds``; a loader that does not end
    within ``stop_seconds`` is killed with its cgroup. ``root`` is a prefix for
    tests. Raises ``ValueError`` on anything that could not be a digest or path.
    """
    if from_digest and not _DIGEST.match(from_digest):
        raise ValueError(f"from_digest '{from_digest}' is not 64 hex digits")
    if not re.match(r"^[A-Za-z0-9@._-]+$", unit):
        raise ValueError(f"unit '{unit}' is not a unit's name")
    if not re.match(r"^[A-Za-z0-9/._-]*$", root):
        raise ValueError(f"root '{root}' holds characters that a path here may not")
    values = {
        "@ROOT@": root,
        "@UNIT@": unit,
        "@UNITS@": f"{unit} {killscript.COLLECTOR_UNIT}",
        "@USER@": killscript.USER,
        "@FROM@": '"%s"' % (from_digest or ""),
        "@WAIT@": str(int(wait_seconds)),
        "@LOCK_WAIT@": str(int(lock_seconds)),
        "@STOP@": str(int(stop_seconds)),
        "@MARK@": MARK,
    }
    script = "".join(map(killscript.part, _PARTS))
    for key, value in values.items():
        script = script.replace(key, value)
    return script


def parse_answer(answer: Mapping[str, Any], marks: list[str]) -> dict[str, Any]:
    """Return what a host answered over ``raw`` as ``{"ok": bool, "detail": str, …}``.

    Unreachable, cut short, garbled or silent all give ``ok`` false.
    """
    if answer.get("unreachable"):
        return {"ok": False, "detail": "unreachable: {}".format(answer.get("msg", "no answer"))}
    if answer.get("skipped"):
        return {"ok": False, "detail": "was not asked, as check mode asks nothing; run it without --check"}
    for line in reversed(str(answer.get("stdout", "")).splitlines()):
        for mark in marks:
            if line.startswith(mark):
                return _exit_agrees(_parse_document(line[len(mark) :]), answer.get("rc", 0))
    detail = (str(answer.get("stderr", "")) or str(answer.get("msg", ""))).strip()
    return {"ok": False, "detail": "no answer that can be read (rc {}): {}".format(answer.get("rc"), detail[-300:])}


def _exit_agrees(document: dict[str, Any], rc: Any) -> dict[str, Any]:
    if document["ok"] and rc != 0:
        return {**document, "ok": False, "detail": "exit status {} in spite of: {}".format(rc, document.get("detail"))}
    return document


def _parse_document(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except ValueError:
        return {"ok": False, "detail": f"garbled answer: {text[:200]}"}
    if not isinstance(document, dict) or document.get("ok") is not True:
        detail = document.get("detail", "") if isinstance(document, dict) else text[:200]
        base = document if isinstance(document, dict) else {}
        return {**base, "ok": False, "detail": detail or "the host did not confirm"}
    return document


def census(answers: Mapping[str, Mapping[str, Any]], marks: list[str]) -> dict[str, Any]:
    """Return who confirmed an order and who did not.

    ``answers`` maps every host that was addressed to its ``raw`` result.
    The result has ``hosts`` (each host's parsed answer), ``confirmed`` and
    ``missing`` (names, sorted), ``slowest_ms`` (null when nobody confirmed)
    and a ``sentence``. No host at all counts as nobody confirmed.
    """
    hosts = {name: parse_answer(answer, marks) for name, answer in answers.items()}
    confirmed = sorted(name for name, host in hosts.items() if host["ok"])
    missing = sorted(set(hosts) - set(confirmed))
    times = [hosts[name]["host_ms"] for name in confirmed if isinstance(hosts[name].get("host_ms"), int)]
    return {
        "hosts": hosts,
        "confirmed": confirmed,
        "missing": missing,
        "slowest_ms": max(times) if times else None,
        "sentence": _sentence(hosts, confirmed, missing, times),
    }


def _sentence(
    hosts: Mapping[str, Mapping[str, Any]], confirmed: list[str], missing: list[str], times: list[int]
) -> str:
    if not hosts:
        return "No host was addressed: check the inventory and the pattern."
    slowest = "; the slowest took %d ms on the host" % max(times) if times else ""
    if not missing:
        return "All %d hosts confirmed%s." % (len(confirmed), slowest)
    named = "; ".join("{} ({})".format(name, hosts[name]["detail"]) for name in missing)
    return "%d of %d hosts confirmed. NOT confirmed: %s. Run this playbook again until all have." % (
        len(confirmed),
        len(hosts),
        named,
    )
