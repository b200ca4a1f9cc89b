# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An application's own latency, p95 and p99: where it comes from, and what of an answer can be used. Pure.

Strict on purpose: a value that is missing, of another shape or unit, empty or stale is an error with its name. Silence
would leave the one number out for which the gate was asked.
"""

from __future__ import annotations

import math
from typing import Any, Mapping, NamedTuple

from ansible_collections.ebpf.fleet.plugins.module_utils.base import values
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import did_you_mean

PERCENTILES = ("p95", "p99")
# Units by what a field's name ends in, in ns.
UNITS = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}
# More than an hour, or less than a nanosecond, is another unit than its name says.
MOST_NS = 3_600 * UNITS["s"]

PROMETHEUS, HTTP, FILE, COMMAND = "prometheus", "http", "file", "command"
SOURCES = (PROMETHEUS, HTTP, FILE, COMMAND)
HOST, CONTROLLER = "host", "controller"
DEFAULT_TIMEOUT_SECONDS = 5
DEFAULT_MAX_AGE_SECONDS = 60

# {source: (the fields that it needs, those that it may have)}; all may have COMMON.
_FIELDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    PROMETHEUS: (("url", "queries", "unit"), ("token_file", "ca_file")),
    HTTP: (("url",), ("token_file", "ca_file", "from")),
    FILE: (("path",), ()),
    COMMAND: (("argv",), ()),
}
_COMMON = ("source", "timeout", "max_age")
_NUMBER = values.decimal(0, 10**18)
_SECONDS = values.decimal(0.1, 60)
_AGE = values.decimal(1, 86_400)


class Source(NamedTuple):
    """Where one host's latency comes from, checked; `asked_from` is the host itself or the controller.

    `timeout` bounds one question, in seconds; `max_age` is the most seconds that an answer may be old.
    """

    source: str
    asked_from: str
    timeout: float
    max_age: float
    url: str = ""
    queries: Mapping[str, str] = {}
    unit: str = "ns"
    path: str = ""
    argv: tuple[str, ...] = ()
    token_file: str = ""
    ca_file: str = ""


Reading = Mapping[str, int]


def read_source(name: str, value: Any) -> Source | None:
    """The source that a variable describes, None for an empty one. Raises RefusedValueError with the field."""
    given = values.mapping(name, value)
    if not given:
        return None
    source = given.get("source")
    if source not in SOURCES:
        raise values.refuse(f"{name}.source", source, f"give one of {', '.join(SOURCES)}")
    needed, allowed = _FIELDS[source]
    known = (*_COMMON, *needed, *allowed)
    for field in given:
        if field not in known:
            near = did_you_mean(field, known)
            raise values.RefusedValueError(f"{name}.{field}: is not a field of the source {source}; {near}")
    for field in needed:
        if field not in given:
            raise values.RefusedValueError(f"{name}.{field}: is missing; the source {source} needs it")
    return Source(
        source=source,
        asked_from=_asked_from(name, source, given),
        timeout=_SECONDS(f"{name}.timeout", given.get("timeout", DEFAULT_TIMEOUT_SECONDS)),
        max_age=_AGE(f"{name}.max_age", given.get("max_age", DEFAULT_MAX_AGE_SECONDS)),
        url=_url(f"{name}.url", given["url"]) if "url" in given else "",
        queries=_queries(f"{name}.queries", given["queries"]) if "queries" in given else {},
        unit=values.one_of(*UNITS)(f"{name}.unit", given["unit"]) if "unit" in given else "ns",
        path=_absolute(f"{name}.path", given["path"]) if "path" in given else "",
        argv=_argv(f"{name}.argv", given["argv"]) if "argv" in given else (),
        token_file=_absolute(f"{name}.token_file", given["token_file"]) if "token_file" in given else "",
        ca_file=_absolute(f"{name}.ca_file", given["ca_file"]) if "ca_file" in given else "",
    )


def _asked_from(name: str, source: str, given: Mapping[str, Any]) -> str:
    if source == PROMETHEUS:
        return CONTROLLER
    return str(values.one_of(HOST, CONTROLLER)(f"{name}.from", given.get("from", HOST)))


def _url(name: str, value: Any) -> str:
    found = values.text(name, value).strip()
    if not found.startswith(("http://", "https://")) or any(letter.isspace() for letter in found):
        raise values.refuse(name, value, "give a URL that begins with http:// or https://")
    return found.rstrip("/")


def _absolute(name: str, value: Any) -> str:
    found = values.text(name, value)
    if not found.startswith("/") or "\0" in found:
        raise values.refuse(name, value, "give an absolute path")
    return found


def _queries(name: str, value: Any) -> dict[str, str]:
    found = values.mapping(name, value)
    if set(found) != set(PERCENTILES):
        raise values.refuse(name, value, "give one PromQL expression for p95 and one for p99")
    return {one: values.text(f"{name}.{one}", found[one]) for one in PERCENTILES}


def _argv(name: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str) and not value.strip().startswith("["):
        raise values.refuse(name, value, "give a list, the program first: no shell reads it")
    words = tuple(values.text(f"{name}[{at}]", one) for at, one in enumerate(values.listing(name, value)))
    if not words or not words[0].startswith("/") or any("\0" in word for word in words):
        raise values.refuse(name, value, "give a list whose first word is the absolute path of a program")
    return words


# --- answers -----------------------------------------------------------------------------------------


def read_document(document: Any, now_unix_s: float | None = None, max_age_s: float | None = None) -> Reading:
    """{"p95_ns", "p99_ns"} in whole ns, fractions rounded up, of an application's own JSON document.

    Each percentile stands in one field, whose name ends in its unit: `p95_ms`. `requests`, the number that it is made
    of, and `time_unix_s`, when it was made, may be there; with `now_unix_s` the latter must be at most `max_age_s` ago.
    Other fields are the application's own. Raises RefusedValueError, which names the field.
    """
    if not isinstance(document, Mapping):
        raise values.refuse("the document", document, 'give {"p95_ns": 1000, "p99_ns": 2000}')
    requests = document.get("requests")
    if requests is not None and _NUMBER("requests", requests) <= 0:
        raise values.refuse("requests", requests, "nothing was measured: there must have been at least one")
    _refuse_stale(document.get("time_unix_s"), now_unix_s, max_age_s)
    return _ordered({one: _field(document, one) for one in PERCENTILES})


def _field(document: Mapping[str, Any], percentile: str) -> int:
    names = [name for name in document if str(name).split("_", 1)[0] == percentile]
    known = [f"{percentile}_{unit}" for unit in UNITS]
    if len(names) != 1 or names[0] not in known:
        told = ", ".join(sorted(map(str, names))) or "not there"
        raise values.RefusedValueError(f"{percentile}: is {told}; give one of {', '.join(known)}, a number")
    return in_ns(names[0], document[names[0]], UNITS[names[0].rsplit("_", 1)[1]])


def in_ns(name: str, value: Any, unit_ns: int) -> int:
    """A number of a unit in whole ns, rounded up; refused by name where it cannot be a latency."""
    found: float = _NUMBER(name, value) * unit_ns
    if not 1 <= found <= MOST_NS:
        raise values.refuse(name, value, "as a latency that is less than 1 ns or more than an hour: is the unit right?")
    return math.ceil(found)


def _refuse_stale(written: Any, now: float | None, most: float | None) -> None:
    if written is None or now is None or most is None:
        return
    refuse_age("time_unix_s", now - _NUMBER("time_unix_s", written), most)


def refuse_age(what: str, age_s: float, most_s: float) -> None:
    """Refuse what is older than may be, and what comes from as far in the future."""
    if abs(age_s) > most_s:
        when = f"{age_s:.0f} s old" if age_s > 0 else f"{-age_s:.0f} s in the future"
        raise values.RefusedValueError(f"{what}: is {when}, at most {most_s:g} s are allowed; is it still written?")


def _ordered(found: Reading) -> Reading:
    if found["p95"] > found["p99"]:
        raise values.RefusedValueError(
            f"p95 is {found['p95']} ns, more than p99, {found['p99']} ns; are they exchanged?"
        )
    return {f"{one}_ns": found[one] for one in PERCENTILES}


def read_samples(answers: Mapping[str, Any], unit: str) -> Reading:
    """As `read_document`, of Prometheus' answers to an instant query for each percentile.

    Each must be one sample, a scalar or a vector of one series, and a finite number.
    """
    found = {}
    for percentile in PERCENTILES:
        name = f"the query for {percentile}"
        text = _sample(name, answers[percentile])
        try:
            number = float(text)
        except ValueError as error:
            raise values.refuse(name, text, "its sample must be a number") from error
        if not math.isfinite(number):
            raise values.RefusedValueError(f"{name}: gave {text}; was there a request within its range?")
        found[percentile] = in_ns(name, number, UNITS[unit])
    return _ordered(found)


def _sample(name: str, answer: Any) -> str:
    data = answer.get("data") if isinstance(answer, Mapping) else None
    if not isinstance(data, Mapping) or answer.get("status") != "success":
        said = answer.get("error") if isinstance(answer, Mapping) else None
        raise values.RefusedValueError(f"{name}: Prometheus refused it ({str(said)[:200]}); correct the query")
    result = data.get("result")
    if data.get("resultType") == "vector" and isinstance(result, list):
        if len(result) != 1:
            remedy = "is there such a series, and is it fresh?" if not result else "aggregate them to one"
            raise values.RefusedValueError(f"{name}: gave {len(result)} samples; {remedy}")
        result = result[0].get("value") if isinstance(result[0], Mapping) else None
    elif data.get("resultType") != "scalar":
        kind = values.told(data.get("resultType"))
        raise values.RefusedValueError(f"{name}: gave {kind}; ask for a vector of one series, or a scalar")
    if not isinstance(result, list) or len(result) != 2 or not isinstance(result[1], str):
        raise values.RefusedValueError(f"{name}: gave no sample with a value; is this a Prometheus?")
    return result[1]
