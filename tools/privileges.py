# SPDX-License-Identifier: GPL-3.0-or-later
"""What the loader may do, written down: `make privileges` writes docs/privileges.md.

Nothing here is told twice: capabilities are read from bpf/loader/kernel/privilege.c, system calls from
bpf/loader/kernel/seccomp.c, needs from bpf/features/*/contract.yml, the sandbox from the unit's template, and the score
from systemd-analyze, which weighs the rendered unit. Without systemd-analyze the score stays what the page says.
The words around them are tools/privileges.md.j2.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Iterable, Sequence

import jinja2
import yaml
from ansible_collections.ebpf.fleet.plugins.module_utils.contract.requirements import parse
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel.bpfnames import KERNEL_READERS

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/privileges.md"
TEMPLATE = ROOT / "tools/privileges.md.j2"
LOADER = ROOT / "bpf/loader/kernel"
FEATURES = ROOT / "bpf/features"
ROLE = ROOT / "roles/prepare"
UNIT = "ebpf-fleet-loader.service"
PULL_UNIT = "ebpf-fleet-pull.service"
FAMILIES = ("5.10", "6.1", "6.12", "6.16+, 7.x")
_STRING = r'"((?:[^"\\]|\\.)*)"'
_NOT_SANDBOX = re.compile(
    r"Type|User|Group|Exec\w+|Restart\w*|Timeout\w+|WatchdogSec|\w+Directory(Mode)?|OOMScoreAdjust", re.A
)
_SCORE = re.compile(r"Exposure, by systemd (\S+): \*\*(\S+)\*\*")


class SourceError(Exception):
    """A source does not read as expected; the message names it."""


def table_text(source: str, name: str) -> str:
    """The initializer of the array `name` in a C source."""
    match = re.search(rf"\b{name}\[\] = \{{\n(.*?)\n\}};", source, re.S)
    if not match:
        raise SourceError(f"no table {name}[] is found; correct tools/privileges.py with the source")
    return match[1]


def joined(literals: str) -> str:
    """The text of adjacent string literals."""
    return "".join(re.findall(_STRING, literals))


def program_types(source: str) -> dict[str, list[str]]:
    """privilege.c: the capabilities of each program type."""
    rows = re.findall(r'\{"(\w+)", ([^}]*)\}', table_text(source, "types"))
    return {name: re.findall(r"BIT\((\w+)\)", needs) for name, needs in rows}


def allowed_calls(source: str) -> list[tuple[str, list[str]]]:
    """seccomp.c: groups of calls that are allowed whatever their arguments, with the reason."""
    rows = re.findall(rf"\{{((?:\s*{_STRING})+),((?:\s*{_STRING})+)\}}", table_text(source, "allowed"))
    return [(joined(row[0]), joined(row[2]).split()) for row in rows]


def restricted_calls(source: str) -> list[tuple[str, str, str]]:
    """seccomp.c: (call, condition, reason) of those that are allowed for one use."""
    found = []
    for row in re.findall(r"\{(\".*?)\}", table_text(source, "restricted"), re.S):
        why, call, arg, mask, value = (part.strip() for part in " ".join(row.split()).rsplit(",", 4))
        number = ("first", "second", "third")[int(arg)]
        masked = "" if mask == "AN_INT" else f" & ({mask})" if "|" in mask else f" & {mask}"
        found.append((joined(call), f"{number} argument{masked} = {value}", joined(why)))
    return found


def marks(requires: Sequence[str], family: str) -> str:
    """What a variant asks for beyond capabilities on a kernel family."""
    words = [parse(word) for word in requires]
    kinds = [word.attach for word in words if word.attach]
    reads = any(word.kind == "helper" and word.target in KERNEL_READERS for word in words)
    asked = {
        "B": "btf:vmlinux" in requires,
        "P": any(kind.perf_event for kind in kinds) or "map_type:perf_event_array" in requires,
        "L": reads or any(kind.lockdown for kind in kinds),
        "S": any(kind.program_type == "lsm" for kind in kinds),
        "M": family == "5.10",
    }
    return " ".join(mark for mark, needed in asked.items() if needed) or "–"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def names(words: Iterable[str]) -> str:
    return " ".join(f"`{word}`" for word in words)


def contracts() -> list[dict[str, Any]]:
    return [yaml.safe_load(path.read_text()) for path in sorted(FEATURES.glob("*/contract.yml"))]


def variants_table(documents: Iterable[dict[str, Any]]) -> str:
    rows = []
    for document in documents:
        for variant in document["variants"]:
            requires = variant["requires"]
            kinds = sorted({word.attach.name for word in map(parse, requires) if word.attach})
            cells = [marks(requires, family) for family in FAMILIES]
            rows.append([f"{document['feature']} {variant['name']}", " ".join(kinds), *cells])
    return table(["variant", "hook", *FAMILIES], rows)


def types_table(types: dict[str, list[str]], documents: Sequence[dict[str, Any]]) -> str:
    rows = []
    for name, needs in types.items():
        users = [
            f"{document['feature']} {variant['name']}"
            for document in documents
            for variant in document["variants"]
            if f"prog_type:{name}" in variant["requires"]
        ]
        rows.append([f"`{name}`", names(needs), ", ".join(users) or "no feature yet"])
    return table(["program type", "needs", "who uses it"], rows)


def template(text: str) -> jinja2.Template:
    """A template in which a name that is not given is an error."""
    environment = jinja2.Environment(keep_trailing_newline=True, undefined=jinja2.StrictUndefined, autoescape=False)
    return environment.from_string(text)


def render_unit(name: str = UNIT) -> str:
    """A unit as the role writes it with its defaults."""
    values = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
    text = (ROLE / f"templates/{name}.j2").read_text()
    return template(text).render(**values)


def settings(unit: str) -> list[tuple[str, str]]:
    """The settings of [Service], in order."""
    service = unit.partition("[Service]\n")[2].partition("\n[Install]")[0]
    pairs = [line.partition("=") for line in service.splitlines() if line and not line.startswith("#")]
    return [(key, value) for key, _sign, value in pairs]


def unit_table(unit: str) -> str:
    rows = [(f"`{key}=`", f"`{value}`") for key, value in settings(unit) if not _NOT_SANDBOX.fullmatch(key)]
    return table(["setting", "value"], rows)


def members(name: str) -> set[str]:
    """One of systemd's sets of system calls, with the sets in it."""
    command = ["systemd-analyze", "syscall-filter", "--no-pager", name]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: set[str] = set()
    for word in re.findall(r"^\s+(@?[a-z0-9_-]+)\s*$", said, re.M):
        found |= members(word) if word.startswith("@") else {word}
    return found


def unit_calls() -> set[str] | None:
    """Every system call that the rendered unit lets through, on any architecture; None without systemd-analyze."""
    try:
        allowed = members("@default")
        for key, value in settings(render_unit()):
            if key == "SystemCallFilter":
                words = value.lstrip("~").split()
                named = set().union(*(members(word) if word.startswith("@") else {word} for word in words))
                allowed = allowed - named if value.startswith("~") else allowed | named
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None
    return allowed


def measure() -> tuple[str, str] | None:
    """systemd's version and the exposure that it gives the rendered unit; None without systemd-analyze."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / UNIT
        path.write_text(render_unit())
        command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(path)]
        try:
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            version = subprocess.run([command[0], "--version"], check=True, capture_output=True, text=True).stdout
        except (FileNotFoundError, subprocess.CalledProcessError):
            return None  # not there, or before 250, which cannot weigh a file
    match = re.search(r"Overall exposure level for \S+: (\S+)", said)
    return (version.split()[1], match[1]) if match else None


def documented(page: str) -> tuple[str, str] | None:
    """systemd's version and the exposure that the page gives."""
    match = _SCORE.search(page)
    return (match[1], match[2]) if match else None


def unit_value(unit: str, key: str) -> str:
    return dict(settings(unit))[key]


def render(score: tuple[str, str]) -> str:
    """The whole page."""
    types = program_types((LOADER / "privilege.c").read_text())
    source = (LOADER / "seccomp.c").read_text()
    documents, unit = contracts(), render_unit()
    return template(TEMPLATE.read_text()).render(
        ambient=names(unit_value(unit, "AmbientCapabilities").split()),
        kept=names(sorted({need for needs in types.values() for need in needs})),
        types=types_table(types, documents),
        variants=variants_table(documents),
        allowed=table(["for", "calls"], [(why, names(calls)) for why, calls in allowed_calls(source)]),
        restricted=table(
            ["call", "where", "for"],
            [(f"`{call}`", f"`{where}`", why) for call, where, why in restricted_calls(source)],
        ),
        unit=unit_table(unit),
        pull_unit=unit_table(render_unit(PULL_UNIT)),
        version=score[0],
        exposure=score[1],
    )


def main() -> int:
    score = measure() or (documented(PAGE.read_text()) if PAGE.exists() else None)
    if not score:
        print("privileges: systemd-analyze (250 or later) is not here and the page has no score yet", file=sys.stderr)
        return 1
    PAGE.write_text(render(score))
    print(f"privileges: {PAGE.relative_to(ROOT)}: exposure {score[1]} by systemd {score[0]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
