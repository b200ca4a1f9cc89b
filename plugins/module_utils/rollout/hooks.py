# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hooks of the ledger: commands and addresses that get its entries, as a person gave them. Pure."""

from __future__ import annotations

from typing import Any, Mapping, NamedTuple
from urllib.parse import urlsplit

from ansible_collections.ebpf.fleet.plugins.module_utils.base import values
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import did_you_mean
from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable
from ansible_collections.ebpf.fleet.plugins.module_utils.base.values import RefusedValueError, decimal, listing
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import ledger

DEFAULT_SECONDS = 10
# Less, for all hooks of a step together, than what a lease leaves beyond a batch's own waiting.
MOST_SECONDS = 30


class Hook(NamedTuple):
    """One hook: a command's words or an address, the kinds of entries that it gets, and its time in seconds."""

    command: tuple[str, ...]
    url: str
    on: tuple[str, ...]
    timeout: float

    @property
    def name(self) -> str:
        """What it is called where it failed: never more of an address than its host and path, which may hold a key."""
        if self.command:
            return printable(self.command[0], 100)
        parts = urlsplit(self.url)
        return printable(f"{parts.scheme}://{parts.hostname}", 100)

    def wants(self, kind: str, action: str = "") -> bool:
        """Whether it gets an entry of that kind; a failed hook is told to none, as that would never end."""
        return kind != ledger.HOOK_FAILED and bool({kind, action} & set(self.on))


def read(name: str, value: Any) -> list[Hook]:
    """The hooks of the variable's list; RefusedValueError says which one cannot be meant, and why."""
    return [_hook(f"{name}[{index}]", one) for index, one in enumerate(listing(name, value))]


def checked(name: str, value: Any) -> list[Any]:
    """The list as it was given, once every hook of it can be meant."""
    found = listing(name, value)
    read(name, found)
    return found


def _hook(name: str, value: Any) -> Hook:
    if not isinstance(value, Mapping):
        raise values.refuse(name, value, "give a mapping with command or url, and on")
    # YAML makes the truth value of the key `on` where it is not quoted.
    value = {"on" if key is True else key: one for key, one in value.items()}
    unknown = [key for key in value if key not in ("command", "url", "on", "timeout")]
    if unknown:
        hint = did_you_mean(unknown[0], ("command", "url", "on", "timeout"))
        raise RefusedValueError(f"{name}: {printable(unknown[0], 100)} is not known; {hint}")
    command, url = value.get("command"), value.get("url")
    if (command is None) == (url is None):
        raise RefusedValueError(f"{name}: give either command or url")
    seconds = decimal(0.1, MOST_SECONDS)(f"{name}.timeout", value.get("timeout", DEFAULT_SECONDS))
    words = () if command is None else _command(f"{name}.command", command)
    return Hook(words, "" if url is None else _url(f"{name}.url", url), _kinds(f"{name}.on", value), seconds)


def _command(name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not value or not all(isinstance(one, str) and one for one in value):
        raise values.refuse(name, value, "give a list of texts, the program first: no shell reads it")
    return tuple(str(one) for one in value)


def _url(name: str, value: Any) -> str:
    text = values.text(name, value)
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    if not good:
        raise RefusedValueError(f"{name}: is not an http or https address; correct it")
    return str(text)


def _kinds(name: str, value: Mapping[str, Any]) -> tuple[str, ...]:
    if "on" not in value:
        return ledger.TOLD
    kinds = values.names(name, value["on"])
    for one in kinds:
        if one not in ledger.TOLD:
            raise RefusedValueError(
                f"{name}: {printable(one, 100)} is not a kind of entry; {did_you_mean(one, ledger.TOLD)}"
            )
    if not kinds:
        raise RefusedValueError(f"{name}: is empty; leave it out for every kind")
    return tuple(kinds)
