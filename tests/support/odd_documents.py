# SPDX-License-Identifier: GPL-3.0-or-later
"""Odd control files, and whether they are still the document that they were made of: one table for every reader."""

from __future__ import annotations

import json
from typing import Callable, NamedTuple

Make = Callable[[bytes], bytes]


class Odd(NamedTuple):
    """What was done to a good document, which is an object with a text `holder` or a whole number `sample_every`."""

    name: str
    make: Make
    readable: bool


def _indented(data: bytes, newline: str = "\n") -> bytes:
    return json.dumps(json.loads(data), indent=1).replace("\n", newline).encode()


def _twice(data: bytes) -> bytes:
    return data.replace(b"{", b'{"schema":"other",', 1)


def _same_twice(data: bytes) -> bytes:
    schema = json.loads(data)["schema"].encode()
    return data.replace(b"{", b'{"schema":"' + schema + b'",', 1)


def _more(data: bytes, value: bytes) -> bytes:
    """One more key with this value."""
    return data.replace(b"{", b'{"more":' + value + b",", 1)


def _escaped(data: bytes) -> bytes:
    return data.replace(b'"schema"', b'"\\u0073chema"', 1)


COMMON = [
    Odd("as it is", lambda data: data, True),
    Odd("no final newline", lambda data: data.rstrip(b"\n"), True),
    Odd("three final newlines", lambda data: data + b"\n\n", True),
    Odd("blanks around", lambda data: b" \n\t" + data + b" \r\n", True),
    Odd("many lines", _indented, True),
    Odd("CRLF", lambda data: _indented(data, "\r\n"), True),
    Odd("CR", lambda data: _indented(data, "\r"), True),
    Odd("an escaped key", _escaped, True),
    Odd("empty", lambda _data: b"", False),
    Odd("a newline", lambda _data: b"\n", False),
    Odd("a zero byte", lambda _data: b"\0", False),
    Odd("a zero byte behind", lambda data: data + b"\0", False),
    Odd("a byte order mark", lambda data: b"\xef\xbb\xbf" + data, False),
    Odd("UTF-16", lambda data: data.decode().encode("utf-16"), False),
    Odd("a comment", lambda data: b"# ours\n" + data, False),
    Odd("a comment of C", lambda data: b"/* ours */" + data, False),
    Odd("half of it", lambda data: data[: len(data) // 2], False),
    Odd("a byte is missing", lambda data: data.rstrip(b"\n")[:-1], False),
    Odd("twice", lambda data: data + data, False),
    Odd("a word behind", lambda data: data + b"x", False),
    Odd("a comma too many", lambda data: data.rstrip(b"\n")[:-1] + b",}", False),
    Odd("single quotes", lambda data: data.replace(b'"', b"'"), False),
    Odd("a key twice, the last is right", _twice, False),
    Odd("a key twice, both are right", _same_twice, False),
    Odd("one key more", lambda data: _more(data, b"1"), False),
    Odd("NaN", lambda data: _more(data, b"NaN"), False),
    Odd("Infinity", lambda data: _more(data, b"-Infinity"), False),
    Odd("a number of 70 bits", lambda data: _more(data, b"1" + b"0" * 21), False),
    Odd("U+0000", lambda data: _more(data, b'"\\u0000"'), False),
    Odd("half of a surrogate pair", lambda data: _more(data, b'"\\ud800"'), False),
    Odd("no UTF-8", lambda data: _more(data, b'"\xff"'), False),
    Odd("within a list", lambda data: b"[" + data.rstrip(b"\n") + b"]", False),
    Odd("nested deep", lambda data: _more(data, b"[" * 3000 + b"]" * 3000), False),
]


def _value(key: bytes, old: bytes, new: bytes) -> Make:
    def make(data: bytes) -> bytes:
        assert b'"%s":%s' % (key, old) in data, (key, data)
        return data.replace(b'"%s":%s' % (key, old), b'"%s":%s' % (key, new), 1)

    return make


# Of desired.json with `"sample_every":7`, "enabled":true and "bundle_digest":null.
DESIRED = [
    *COMMON,
    Odd("sampling as text", _value(b"sample_every", b"7", b'"7"'), False),
    Odd("sampling as a real", _value(b"sample_every", b"7", b"7.0"), False),
    Odd("sampling with an exponent", _value(b"sample_every", b"7", b"7e0"), False),
    Odd("sampling that is true", _value(b"sample_every", b"7", b"true"), False),
    Odd("sampling of nothing", _value(b"sample_every", b"7", b"0"), False),
    Odd("sampling below nothing", _value(b"sample_every", b"7", b"-7"), False),
    Odd("sampling of 33 bits", _value(b"sample_every", b"7", b"4294967296"), False),
    Odd("sampling with a zero before", _value(b"sample_every", b"7", b"07"), False),
    Odd("sampling with a sign", _value(b"sample_every", b"7", b"+7"), False),
    Odd("sampling of 64 bits and more", _value(b"sample_every", b"7", b"18446744073709551623"), False),
    Odd("enabled as a number", _value(b"enabled", b"true", b"1"), False),
    Odd("enabled as text", _value(b"enabled", b"true", b'"true"'), False),
    Odd("enabled in capitals", _value(b"enabled", b"true", b"True"), False),
    Odd("a digest that is a number", _value(b"bundle_digest", b"null", b"7"), False),
    Odd("a fallback that is not one", _value(b"bundle_digest", b"null", b'null,"fallbacks":["perl"]'), False),
    Odd("fallbacks that are not a list", _value(b"bundle_digest", b"null", b'null,"fallbacks":"bcc"'), False),
    Odd("a fallback", _value(b"bundle_digest", b"null", b'null,"fallbacks":["bcc"]'), True),
]
# Of lease.json with `"holder":"me"`.
LEASE = [
    *COMMON,
    Odd("no holder's name", _value(b"holder", b'"me"', b'""'), False),
    Odd("a holder of 128 bytes", _value(b"holder", b'"me"', b'"%s"' % (b"x" * 128)), True),
    Odd("a holder of 129 bytes", _value(b"holder", b'"me"', b'"%s"' % (b"x" * 129)), False),
    Odd("a holder of 65 letters and 130 bytes", _value(b"holder", b'"me"', b'"%s"' % (b"\xc3\xa9" * 65)), False),
    Odd("a holder that is a number", _value(b"holder", b'"me"', b"7"), False),
    Odd("4 KiB of blanks behind", lambda data: data + b" " * 4096, False),
]

_LOWERED = b'{"at_unix":1,"digest":"%s","from":9,"to":7}' % (b"b" * 64)
# Of mark.json with `"sequence":7`, "seen_unix":5, "below":[] and "lowered":null.
MARK = [
    *COMMON,
    Odd("a way back", _value(b"below", b"[]", b'["%s"]' % (b"c" * 64)), True),
    Odd("a way back that is not a digest", _value(b"below", b"[]", b'["c"]'), False),
    Odd("nine ways back", _value(b"below", b"[]", b"[%s]" % b",".join([b'"%s"' % (b"c" * 64)] * 9)), False),
    Odd("a way back that is not a list", _value(b"below", b"[]", b"{}"), False),
    Odd("no sequence", _value(b"sequence", b"7", b"0"), False),
    Odd("a sequence that is a text", _value(b"sequence", b"7", b'"7"'), False),
    Odd("a sequence that is true", _value(b"sequence", b"7", b"true"), False),
    Odd("a sequence that is a real", _value(b"sequence", b"7", b"7.0"), False),
    Odd("the highest sequence", _value(b"sequence", b"7", b"9223372036854775807"), True),
    Odd("a sequence beyond", _value(b"sequence", b"7", b"9223372036854775808"), False),
    Odd("seen before 1970", _value(b"seen_unix", b"5", b"-1"), False),
    Odd("seen as a real", _value(b"seen_unix", b"5", b"5.5"), False),
    Odd("lowered", _value(b"lowered", b"null", _LOWERED), True),
    Odd("lowered by a text", _value(b"lowered", b"null", b'"yes"'), False),
    Odd("lowered by nothing", _value(b"lowered", b"null", b"{}"), False),
    Odd("lowered from a text", _value(b"lowered", b"null", _LOWERED.replace(b":9", b':"9"')), False),
    Odd("lowered to less than nothing", _value(b"lowered", b"null", _LOWERED.replace(b":7", b":-7")), False),
    Odd("lowered with one key more", _value(b"lowered", b"null", _LOWERED.replace(b"{", b'{"who":1,')), False),
    Odd("4 KiB of blanks behind", lambda data: data + b" " * 4096, False),
]
