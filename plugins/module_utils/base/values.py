# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Values as people give them: numbers, truths and documents that may arrive as text. Pure.

`-e key=value` and templates make text of everything, and YAML makes numbers and truths of words
(`no`, `1.10`). Each reader here takes every form that can mean one thing only, and refuses the
others with a sentence that names the variable, what was given and the remedy.
"""

from __future__ import annotations

import datetime
import json
import math
import re
from typing import Any, Callable, Mapping

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import OneCodeError
from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable

Reader = Callable[[str, Any], Any]

_WHOLE = re.compile(r"[+-]?[0-9]{1,19}", re.ASCII)
_DECIMAL = re.compile(r"[+-]?[0-9]{1,18}(\.[0-9]{1,18})?", re.ASCII)
_TRUE = ("true", "yes", "on", "y", "t", "1")
_FALSE = ("false", "no", "off", "n", "f", "0")
_SHOWN = 100
MOST = (1 << 63) - 1


class RefusedValueError(OneCodeError, ValueError):
    """A value that a variable does not take; the message names variable, value and remedy."""

    code = "EF_ARGUMENT"


def told(value: Any) -> str:
    """What was given, with its kind, as a sentence can say it."""
    kinds = ((bool, "a truth value"), (int, "a number"), (float, "a number"), (str, "text"), (Mapping, "a mapping"),
             (datetime.date, "a date"))  # fmt: skip
    if value is None:
        return "nothing"
    kind = next((name for one, name in kinds if isinstance(value, one)), "a list")
    return f"{printable(repr(plain(value)), _SHOWN)} ({kind})"


def plain(value: Any) -> Any:
    """A copy of plain types: a templating engine's own subclasses are not for JSON, nor for a message."""
    if isinstance(value, Mapping):
        return {plain(key): plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    for kind in (str, float):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value)
    return value


def refuse(name: str, value: Any, remedy: str) -> RefusedValueError:
    """The one form of every refusal here."""
    return RefusedValueError(f"{name}: is {told(value)}; {remedy}")


def whole(least: int = 0, most: int = MOST) -> Reader:
    """A whole number within bounds, also as text."""
    bounds = f"from {least} up" if most == MOST else f"from {least} to {most}"

    def read(name: str, value: Any) -> int:
        found = value
        if isinstance(value, str) and _WHOLE.fullmatch(value.strip()):
            found = int(value)
        if isinstance(found, bool) or not isinstance(found, int) or not least <= found <= most:
            raise refuse(name, value, f"give a whole number {bounds}")
        return int(found)

    return read


def decimal(least: float = 0, most: float = 10**15) -> Reader:
    """A number within bounds, fractions too, also as text."""

    def read(name: str, value: Any) -> float:
        found = value
        if isinstance(value, str) and _DECIMAL.fullmatch(value.strip()):
            found = float(value) if "." in value else int(value)
        good = isinstance(found, (int, float)) and not isinstance(found, bool) and math.isfinite(found)
        if not good or not least <= found <= most:
            raise refuse(name, value, f"give a number from {least:g} to {most:g}")
        return found if isinstance(found, int) else float(found)

    return read


def truth(name: str, value: Any) -> bool:
    """True or false, also as the words and numbers that YAML and Ansible take for them."""
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower() if isinstance(value, (str, int)) else ""
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise refuse(name, value, "give true or false")


def text(name: str, value: Any) -> str:
    """Text as it is. A number or truth may be another text than was written (1.10 is the number 1.1)."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bool):
        raise refuse(name, value, "YAML takes yes, no, on and off for true and false: quote it")
    if isinstance(value, (int, float)):
        raise refuse(name, value, "an unquoted number may not be what was written (1.10 becomes 1.1): quote it")
    raise refuse(name, value, "give text")


def label(name: str, value: Any) -> str:
    """A name of a place. A whole number is taken for its digits, as an inventory in INI form cannot quote it."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(int(value))
    found = text(name, value)
    if not found.strip():
        raise refuse(name, value, "give a name")
    return found


def one_of(*words: str) -> Reader:
    """One of some words; a number stands for its digits."""

    def read(name: str, value: Any) -> str:
        digits = isinstance(value, int) and not isinstance(value, bool)
        found = str(value) if digits or isinstance(value, str) else None
        if found not in words:
            raise refuse(name, value, "give one of " + ", ".join(repr(word) for word in words))
        return str(found)

    return read


def mapping(name: str, value: Any) -> dict[str, Any]:
    """A mapping, also as JSON text; an empty text is an empty one."""
    found = _document(name, value, "{}", "a mapping, or JSON text of one")
    if not isinstance(found, Mapping):
        raise refuse(name, value, "give a mapping, or JSON text of one")
    return dict(plain(found))


def listing(name: str, value: Any) -> list[Any]:
    """A list, also as JSON text; an empty text is an empty one."""
    found = _document(name, value, "[]", "a list, or JSON text of one")
    if not isinstance(found, (list, tuple)):
        raise refuse(name, value, "give a list, or JSON text of one")
    return list(plain(found))


def names(name: str, value: Any) -> list[str]:
    """A list of texts, also as JSON text or as one text with commas."""
    if isinstance(value, str) and not value.strip().startswith("["):
        return [word.strip() for word in value.split(",") if word.strip()]
    return [text(f"{name}[{index}]", one) for index, one in enumerate(listing(name, value))]


def _document(name: str, value: Any, empty: str, wanted: str) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value.strip() or empty)
    except (ValueError, RecursionError) as error:
        raise refuse(name, value, f"give {wanted}") from error


def maybe(read: Reader) -> Reader:
    """As `read`, and None for nothing (null, or an empty text)."""

    def judge(name: str, value: Any) -> Any:
        return None if value is None or value == "" else read(name, value)

    return judge
