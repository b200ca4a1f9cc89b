# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The scope of an order as a person writes it: what goes off, and on which hosts. Pure; the one grammar of it.

    scope = "global" | term *("," term)            each kind of term once, but host= as often as is wanted
    term  = "feature=" NAME | "kernel_family=" FAMILY | "cell=" NAME | "host=" PATTERN | "previous"

A scope of others' programs, which no kill order has, is one of two more terms with cell= and host= alone beside it:

    "unit=" NAME of a systemd unit | "program=" TAG of 16 hex digits

All terms hold together: `feature=runqlat,cell=a` is that feature on the hosts of that cell. Feature and family are
decided on the host, cell and host pattern choose on the controller which hosts get the order at all. A pattern may
hold commas: what follows one and does not begin a term belongs to the pattern. A list has one term in each entry and
takes nothing apart.
"""

from __future__ import annotations

import difflib
import json
import re
import shlex
from typing import NamedTuple, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import orders
from ansible_collections.ebpf.fleet.plugins.module_utils.kill.orders import ScopeError

REMEDY = (
    "write global or previous, or join with commas what is to hold together: feature=NAME,"
    " kernel_family=6.1 (or debian-6.1), cell=NAME, host=PATTERN"
)
STATES = ("engaged", "released", "list")
CONFIRM = "release"
# With both kinds of quotes: what -e gets without those inside would end at the first blank.
RELEASE_ARGUMENTS = f"""-e state=released -e confirm={CONFIRM} -e 'reason="WHY"'"""
TEXT_LIMIT = 4096
REASON_LIMIT = 300
NAME_LIMIT = 200

# Others' programs: what holds processes, and the tag that the kernel gives to a program's instructions.
_UNIT = re.compile(r"[A-Za-z0-9:_.@\\-]{1,230}\.(?:service|scope)", re.ASCII)
_TAG = re.compile(r"[0-9a-f]{16}", re.ASCII)
FOREIGN = {"unit": "the full name of a systemd unit, such as net-agent.service, behind it",
           "program": "a program's tag of 16 hex digits, as inventory.yml and bpftool tell it, behind it"}  # fmt: skip
_BEGINS = re.compile(r"[A-Za-z_][A-Za-z_-]*=")
_ALONE = ("global", "previous")
# What a shell and `-e key=value` both leave as it is.
_PLAIN = re.compile(r"[A-Za-z0-9_.,=*:@%+~-]+")


class Wanted(NamedTuple):
    """An order's scope; empty is not named. Without feature everything goes off; `previous` is the way back instead."""

    previous: bool = False
    feature: str = ""
    family: str = ""
    cell: str = ""
    hosts: tuple[str, ...] = ()
    unit: str = ""
    program: str = ""

    @property
    def foreign(self) -> str:
        """Whose programs of others it is about, as a person writes it; empty of a kill order."""
        return f"unit={self.unit}" if self.unit else f"program={self.program}" if self.program else ""

    @property
    def terms(self) -> list[str]:
        """As a person writes it, a term each, in one order: two that mean the same are equal."""
        named = (("unit", self.unit), ("program", self.program), ("feature", self.feature),
                 ("kernel_family", self.family), ("cell", self.cell))  # fmt: skip
        found = [f"{kind}={name}" for kind, name in named if name] + [f"host={one}" for one in self.hosts]
        return ["previous", *found] if self.previous else found or ["global"]

    @property
    def text(self) -> str:
        """As a person writes it, in one line that can be shown."""
        return printable(",".join(self.terms), TEXT_LIMIT)

    @property
    def chooses_hosts(self) -> bool:
        """Does the controller choose who gets the order?"""
        return bool(self.cell or self.hosts)

    @property
    def atoms(self) -> list[orders.Scope]:
        """The order's file on a host: of a family within a feature's order the host is asked first."""
        if self.feature:
            return [orders.Scope("feature", self.feature)]
        return [orders.Scope("family", self.family)] if self.family else [orders.Scope("global", "")]

    @property
    def only_family(self) -> str:
        """The kernel family to which a host must belong before the order's file is placed there; empty: none."""
        return self.family if self.feature else ""


def read(given: object) -> Wanted:
    """Read a kill order's scope, a text or a list of terms, or raise ScopeError with the remedy."""
    wanted = _read(given)
    if wanted.foreign:
        raise ScopeError(
            f"scope: {wanted.foreign} is of others' programs, which no kill order turns off, so no host was asked."
            f" Write: {takeoff_command(wanted)} --check --diff"
        )
    return wanted


def read_foreign(given: object) -> Wanted:
    """Read the scope of others' programs, or raise ScopeError with the remedy."""
    wanted = _read(given)
    if not wanted.foreign:
        raise ScopeError(
            f"scope: {wanted.text} names no program of others: write unit=NAME or program=TAG. What is of ebpf.fleet is"
            f" turned off with: ansible-playbook ebpf.fleet.rollback {argument(wanted)}"
        )
    if (wanted.unit and wanted.program) or wanted.feature or wanted.family or wanted.previous:
        raise ScopeError(f"scope: {wanted.text}: join unit=NAME or program=TAG with cell= and host= alone")
    return wanted


def _read(given: object) -> Wanted:
    terms = _terms(given)
    wanted = Wanted()
    for term in terms:
        wanted = _with(wanted, term, len(terms) > 1)
    if wanted.previous and (wanted.feature or wanted.family):
        raise ScopeError("scope: previous goes back to a whole release: join it with cell= and host= alone")
    return wanted


def _terms(given: object) -> list[str]:
    if isinstance(given, (list, tuple)):
        if not given or not all(isinstance(one, str) for one in given):
            raise ScopeError(f"scope: the list must have texts, a term each, and one at least; {REMEDY}")
        terms = [str(one) for one in given]
    else:
        terms = _split(str(given))
    if sum(map(len, terms)) > TEXT_LIMIT:
        raise ScopeError(f"scope: has more than {TEXT_LIMIT} letters; name a group of the inventory with host=")
    return terms


def _split(text: str) -> list[str]:
    terms: list[str] = []
    for piece in text.split(","):
        # A blank behind a comma means nothing; elsewhere it is a letter too many.
        word = piece.lstrip() if terms else piece
        begins = _BEGINS.match(word) or word in _ALONE
        if terms and terms[-1].startswith("host=") and word and not begins:
            terms[-1] += f",{piece}"
        else:
            terms.append(word)
    return terms


def _with(wanted: Wanted, term: str, joined: bool) -> Wanted:
    """The scope with one term more."""
    if not term:
        raise ScopeError("scope: there is nothing before, after or between its commas; take a comma out")
    kind, _equals, name = term.partition("=")
    if term in _ALONE:
        return _alone(wanted, term, joined)
    if kind in ("cell", "host"):
        return _chosen(wanted, kind, name)
    if kind in FOREIGN:
        return _of_others(wanted, kind, name)
    found = _on_host(term)
    if (wanted.feature if found.kind == "feature" else wanted.family) != "":
        raise ScopeError(f"scope: {kind}= is given twice; run it once for each {kind.replace('_', ' ')}")
    return wanted._replace(feature=found.name) if found.kind == "feature" else wanted._replace(family=found.name)


def _on_host(term: str) -> orders.Scope:
    try:
        return orders.parse_scope(term)
    except ScopeError as error:
        raise ScopeError(f"scope '{printable(term, 60)}' is not one: {_meant(term)}{REMEDY[1:]}") from error


def _meant(term: str) -> str:
    """The term that was probably meant, as the begin of a sentence."""
    kind, equals, name = (part.strip() for part in term.partition("="))
    word = kind.lower().rstrip("s")
    near = difflib.get_close_matches(word, ("cell", "host", "hostname"), n=1, cutoff=0.7) if equals and name else []
    return f"did you mean {near[0][:4]}={printable(name, 60)}? W" if near else orders.meant(term)


def _alone(wanted: Wanted, term: str, joined: bool) -> Wanted:
    if term == "previous":
        if wanted.previous:
            raise ScopeError("scope: previous is given twice; give it once")
        return wanted._replace(previous=True)
    if joined:
        raise ScopeError(
            "scope: global is everything on every host, so it stands alone: leave it out, as cell=, host= and"
            " kernel_family= without feature= already mean everything there"
        )
    return wanted


def _chosen(wanted: Wanted, kind: str, name: str) -> Wanted:
    if not name.strip() or len(name) > (NAME_LIMIT if kind == "cell" else TEXT_LIMIT):
        what = "a cell, as ebpf_fleet_cell has it" if kind == "cell" else "a pattern of hosts, or a host's exact name"
        raise ScopeError(f"scope: {kind}= needs {what}, behind it")
    if kind == "host":
        return wanted if name in wanted.hosts else wanted._replace(hosts=(*wanted.hosts, name))
    if wanted.cell:
        raise ScopeError("scope: cell= is given twice, and no host is in two cells; run it once for each cell")
    return wanted._replace(cell=name.strip())


def _of_others(wanted: Wanted, kind: str, name: str) -> Wanted:
    if (wanted.unit if kind == "unit" else wanted.program) != "":
        raise ScopeError(f"scope: {kind}= is given twice; run it once for each {kind}")
    good = _UNIT.fullmatch(name) if kind == "unit" else _TAG.fullmatch(name)
    if good is None:
        near = f"{name}.service" if kind == "unit" else name.strip().lower()
        form = _UNIT if kind == "unit" else _TAG
        hint = f"did you mean {kind}={near}? " if form.fullmatch(near) else ""
        raise ScopeError(f"scope: {hint}{kind}= needs {FOREIGN[kind]}; it has '{printable(name, 60)}'")
    return wanted._replace(unit=name) if kind == "unit" else wanted._replace(program=name)


def refusal(scope: object, state: object, confirm: object = "", reason: object = "") -> str:
    """One sentence on an order that cannot be meant, with the nearest that can; empty for one that can."""
    if state not in STATES:
        near = difflib.get_close_matches(str(state).lower(), STATES, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        shown = printable(state, 60)
        return f"state '{shown}' is not one: {hint}Write engaged, released to take an order back, or list."
    if state == "list":
        return ""
    if scope is None or not str(scope).strip():
        return f"Say what to turn off with -e scope=: {REMEDY}."
    try:
        wanted = read(scope)
    except ScopeError as error:
        return f"{error}."
    if state == "released":
        return _release_refusal(wanted, confirm, reason)
    return ""


def _release_refusal(wanted: Wanted, confirm: object, reason: object) -> str:
    if wanted.previous:
        return "scope=previous goes back to the release before; it cannot be released: roll the release out again."
    said, why = str(confirm or "").strip(), cleaned(reason)
    if said == CONFIRM and why:
        return ""
    lacking = [name for name, good in (("confirm", said == CONFIRM), ("reason", bool(why))) if not good]
    wrong = f"confirm '{printable(said, 60)}' is not {CONFIRM}. " if said and said != CONFIRM else ""
    return (
        f"{wrong}Taking an order back turns eBPF on again, so {' and '.join(lacking)} must be given; no host was asked."
        f" Write: {release_command(wanted)}"
    )


def cleaned(reason: object) -> str:
    """A reason as it is kept: printable, on one line, bounded; empty where there is none."""
    return printable(" ".join(str("" if reason is None else reason).split()), REASON_LIMIT)


def argument(wanted: Wanted) -> str:
    """The scope as it is typed behind ansible-playbook, whatever letters a host pattern has."""
    text = ",".join(wanted.terms)
    if _PLAIN.fullmatch(text) and _read(text) == wanted:
        return f"-e scope={text}"
    return f"-e {shlex.quote(json.dumps({'scope': wanted.terms}))}"


def typed(name: str, text: str) -> str:
    """A variable as it is typed behind ansible-playbook; `-e key=value` would take a backslash for an escape."""
    return f"-e {name}={text}" if _PLAIN.fullmatch(text) else f"-e {shlex.quote(json.dumps({name: text}))}"


def release_command(wanted: Wanted | None = None) -> str:
    """What takes an order back, as it is typed."""
    what = "-e scope=SCOPE" if wanted is None else argument(wanted)
    return f"ansible-playbook ebpf.fleet.rollback {what} {RELEASE_ARGUMENTS}"


def takeoff_command(wanted: Wanted) -> str:
    """What asks about others' programs, as it is typed, without its confirmation."""
    return f"ansible-playbook ebpf.fleet.takeoff {argument(wanted)}"


def on_host(scopes: Sequence[object]) -> tuple[list[orders.Scope], str]:
    """(the order's files on a host, each once; the family that a host must be of, or an empty text)."""
    if not scopes:
        raise ScopeError(f"scopes: give a list of at least one; {REMEDY}")
    found = [read(one) for one in scopes]
    if any(one.previous for one in found):
        raise ScopeError("scope: previous is not a kill order; use the filter rollback_script")
    families = {one.only_family for one in found} - {""}
    if families and len(found) > 1:
        raise ScopeError("scopes: a feature within a kernel family is an order of its own; give it alone")
    atoms = list(dict.fromkeys(atom for one in found for atom in one.atoms))
    return atoms, next(iter(families), "")
