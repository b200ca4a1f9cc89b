# SPDX-License-Identifier: GPL-3.0-or-later
"""Mutants of bundles, signatures and trust files, by rule: each class is a function that yields them for ever.

A mutant is a name, a change of a world, and the reason code that the grammar (docs/trust-formats.md)
asks for; None where only the two verifiers' agreement, and ssh-keygen's, is asked.
"""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
import json
import os
import random
import struct
import tarfile
from pathlib import Path
from typing import Any, Callable, Iterator, NamedTuple

from tests.loader.bundles import MANIFEST, NAMESPACE, SIGNATURE, canonical, public_key, write
from tests.verifiers.world import CONTRACT, OBJECT, PRINCIPAL, World, armored


class Mutant(NamedTuple):
    """One change; `expected` is "EF_OK", a reason code, or None."""

    name: str
    change: Callable[[World], object]
    expected: str | None = None


Rule = Callable[[random.Random], Iterator[Mutant]]
RULES: dict[str, Rule] = {}
MALFORMED, SCHEMA, BAD_SIG, TRUST = (
    "EF_MANIFEST_MALFORMED",
    "EF_MANIFEST_SCHEMA",
    "EF_SIG_MALFORMED",
    "EF_TRUST_MALFORMED",
)
UNSEEN = ["\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\x7f", "\x00", "\ufeff", "\t", " "]


def rule(function: Rule) -> Rule:
    RULES[function.__name__] = function
    return function


def flipped(rng: random.Random, data: bytes) -> bytes:
    """A byte changed, put in, taken out, doubled, or a piece moved."""
    at = rng.randrange(len(data))
    kind = rng.randrange(6)
    if kind == 0:
        return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]
    if kind == 1:
        return data[:at] + bytes([rng.randrange(256)]) + data[at:]
    if kind == 2:
        return data[:at] + data[at + 1 :]
    if kind == 3:
        return data[: at + 1] + data[at:]
    if kind == 4:
        end = min(len(data), at + rng.randrange(1, 40))
        return data[:at] + data[end:] + data[at:end]
    return data[:at] + rng.choice([b"\n", b"\r\n", b"\0", b"\xff", b"\xc2\x85", b"\t", b" ", b'"', b"\\"]) + data[at:]


def of(rng: random.Random, choices: list[Any]) -> Iterator[Any]:
    """The choices in turn, for ever, each round in another order."""
    while True:
        own = list(choices)
        rng.shuffle(own)
        yield from own


def reseal(change: Callable[[dict[str, Any]], object]) -> Callable[[World], None]:
    """A change of the manifest's document, signed."""

    def act(world: World) -> None:
        doc = world.doc
        change(doc)
        world.reseal(doc)

    return act


def swap(old: bytes, new: bytes) -> Callable[[World], None]:
    """Other bytes in the manifest, signed."""

    def act(world: World) -> None:
        assert old in world.origin.manifest
        world.reseal(world.origin.manifest.replace(old, new, 1))

    return act


# --- the manifest's text


@rule
def json_byte(rng: random.Random) -> Iterator[Mutant]:
    for number in itertools.count():
        own = rng.random()
        yield Mutant(
            str(number), lambda world, own=own: world.reseal(flipped(random.Random(own), world.origin.manifest))
        )


@rule
def json_cut(rng: random.Random) -> Iterator[Mutant]:
    for number in itertools.count():
        part = rng.random()
        yield Mutant(
            str(number),
            lambda world, part=part: world.reseal(world.origin.manifest[: int(part * len(world.origin.manifest))]),
            MALFORMED,
        )


@rule
def json_space(rng: random.Random) -> Iterator[Mutant]:
    for number in itertools.count():
        mark, blank, nth = (
            rng.choice([b":", b",", b"{", b"}", b"["]),
            rng.choice([b" ", b"\n", b"\t", b"\r"]),
            rng.randrange(4),
        )

        def change(world: World, mark: bytes = mark, blank: bytes = blank, nth: int = nth) -> None:
            parts = world.origin.manifest.split(b'"' + mark if mark in b":," else mark)
            seam = b'"' + mark if mark in b":," else mark
            nth = nth % max(len(parts) - 1, 1)
            world.reseal(seam.join(parts[: nth + 1]) + seam + blank + seam.join(parts[nth + 1 :]))

        yield Mutant(f"{number} {mark!r} {blank!r}", change, MALFORMED)


@rule
def json_duplicate_key(rng: random.Random) -> Iterator[Mutant]:
    for key in of(
        rng, ["sequence", "name", "version", "created", "schema", "commit", "mode", "size", "sha256", "object"]
    ):
        same = rng.random() < 0.5

        def change(world: World, key: str = key, same: bool = same) -> None:
            head, mark, tail = world.origin.manifest.partition(f'"{key}":'.encode())
            value = tail[: min(at for at in (tail.find(b","), tail.find(b"}")) if at >= 0)]
            world.reseal(head + mark + (value if same else b"1") + b"," + mark + tail)

        yield Mutant(f"{key} {same}", change, MALFORMED)


@rule
def json_order(rng: random.Random) -> Iterator[Mutant]:
    for number in itertools.count():
        own = rng.random()

        def change(world: World, own: float = own) -> None:
            generator = random.Random(own)

            def shuffle(value: Any) -> Any:
                if not isinstance(value, dict):
                    return value
                keys = list(value)
                generator.shuffle(keys)
                return {key: shuffle(value[key]) for key in keys}

            text = json.dumps(shuffle(world.doc), separators=(",", ":"))
            world.reseal(text.encode() + b"\n")

        yield Mutant(str(number), change, MALFORMED)


@rule
def json_end(rng: random.Random) -> Iterator[Mutant]:
    ends = [
        b"",
        b"\n\n",
        b"\r\n",
        b" \n",
        b"\n ",
        b"\0",
        b"\n\0",
        b"\n{}",
        b",\n",
        b"}\n",
        b"\xef\xbb\xbf\n",
        b"\n//\n",
    ]
    for end in of(rng, ends):
        yield Mutant(repr(end), lambda world, end=end: world.reseal(world.origin.manifest[:-1] + end), MALFORMED)


NUMBERS = [
    "7.0",
    "7e0",
    "7E0",
    "07",
    "+7",
    "-0",
    "0x7",
    "7.",
    ".7",
    "1_0",
    "Infinity",
    "-Infinity",
    "NaN",
    "٧",
    "7n",
    "0b1",
    "00",
    "9223372036854775808",
    "18446744073709551616",
    "9" * 100,
    "9" * 5000,
    "-9223372036854775809",
    "1e400",
    "- 7",
    "--7",
]


@rule
def number_form(rng: random.Random) -> Iterator[Mutant]:
    for number in of(rng, NUMBERS):
        place = rng.choice([b'"sequence":7', b'"known_disabled":[]'])
        new = place.replace(b"7", number.encode()) if b"7" in place else b'"known_disabled":[' + number.encode() + b"]"
        yield Mutant(f"{number[:30]} {place[:11]!r}", swap(place, new), MALFORMED)


@rule
def number_range(rng: random.Random) -> Iterator[Mutant]:
    for number in itertools.count():
        power = rng.choice([31, 32, 53, 62, 63, 64, 65, 128])
        value = rng.choice([-1, 1]) * 2**power + rng.choice([-1, 0, 1])
        fits = -(2**63) <= value < 2**63
        yield Mutant(
            f"{number} {value}",
            reseal(lambda doc, value=value: doc["compatibility"].update(summary=[value])),
            "EF_OK" if fits else MALFORMED,
        )


@rule
def number_sequence(rng: random.Random) -> Iterator[Mutant]:
    values = [0, -1, 1, 2**63 - 1, True, False, None, "7", [7], {}, -(2**63), 2**62]
    for value in of(rng, values):
        good = isinstance(value, int) and value is not True and value > 0
        yield Mutant(
            repr(value),
            reseal(lambda doc, value=value: doc["bundle"].update(sequence=value)),
            "EF_OK" if good else SCHEMA,
        )


def odd_text(rng: random.Random) -> str:
    pools = [
        "é",
        "\u2028",
        "\U0001f41d",
        "\x7f",
        "\\",
        '"',
        "\n",
        "\x01",
        "\ud800",
        "\udc00",
        "\0",
        "\uffff",
        "\ufeff",
        "\u202e",
        "a",
        "/",
        "\ud83d\udc1d",
    ]
    return "".join(rng.choice(pools) for _ in range(rng.randrange(1, 5)))


def is_readable(text: str) -> bool:
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return "\0" not in text and "\ufffd" not in whole


@rule
def unicode_value(rng: random.Random) -> Iterator[Mutant]:
    for number in itertools.count():
        text = odd_text(rng)
        yield Mutant(
            f"{number} {text!a}",
            reseal(lambda doc, text=text: doc["provenance"].update(commit=text)),
            "EF_OK" if is_readable(text) and "\ud83d\udc1d" not in text else None if is_readable(text) else MALFORMED,
        )


@rule
def unicode_key(rng: random.Random) -> Iterator[Mutant]:
    for number in itertools.count():
        text = odd_text(rng)
        yield Mutant(
            f"{number} {text!a}", reseal(lambda doc, text=text: doc["compatibility"].update({text: 1, text + "b": 2}))
        )


@rule
def unicode_escape(rng: random.Random) -> Iterator[Mutant]:
    forms = [
        "\\u0074est",
        "\\u00E9",
        "é",
        "\\/",
        "\\x41",
        "\\u12",
        "\\ud800",
        "\\udc00\\ud800",
        "\\ud800\\u0041",
        "\\u0000",
        "\\U0001F41D",
        "\\u00e9\\u000a",
        "\\n\\u007F",
        "\x7f",
        "\t",
        "\\a",
        "\\'",
        "\\ud83d\\udc1D",
    ]
    for form in of(rng, forms):
        yield Mutant(form.encode("unicode_escape").decode(), swap(b'"test"', b'"' + form.encode() + b'"'), MALFORMED)


@rule
def nesting(rng: random.Random) -> Iterator[Mutant]:
    depths = [1, 2, 27, 28, 29, 30, 31, 32, 33, 64, 500, 2047, 2049, 5000, 100000, 250000]
    for depth in of(rng, depths):
        opening, closing = rng.choice([(b"[", b"]"), (b'{"a":', b"}")])
        inner = b"[]" if opening == b"[" else b"{}"
        body = opening * (depth - 1) + inner + closing * (depth - 1)
        if rng.random() < 0.2:
            body = body[:-1]
        whole = body.endswith(closing) and body.count(closing) == depth
        expected = "EF_OK" if whole and depth + 2 <= 32 else MALFORMED
        yield Mutant(f"{depth} {opening!r} {whole}", swap(b'"commit":"test"', b'"commit":' + body), expected)


# --- the manifest's content


def nodes(doc: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of everything in a document."""
    inner = doc.items() if isinstance(doc, dict) else enumerate(doc) if isinstance(doc, list) else ()
    return [path, *(place for key, value in inner for place in nodes(value, (*path, key)))]


def change_node(doc: Any, own: random.Random, act: Callable[[Any, Any], None]) -> None:
    place = own.choice([path for path in nodes(doc) if path and path[0] not in ("provenance", "compatibility")])
    for key in place[:-1]:
        doc = doc[key]
    act(doc, place[-1])


def node_rule(name: str, act: Callable[[random.Random], Callable[[Any, Any], None]], expected: str | None) -> None:
    def mutants(rng: random.Random) -> Iterator[Mutant]:
        for number in itertools.count():
            own = rng.random()

            def change(doc: dict[str, Any], own: float = own) -> None:
                generator = random.Random(own)
                change_node(doc, generator, act(generator))

            yield Mutant(str(number), reseal(change), expected)

    RULES[name] = mutants


def delete(_rng: random.Random) -> Callable[[Any, Any], None]:
    def act(parent: Any, key: Any) -> None:
        del parent[key]

    return act


def retype(rng: random.Random) -> Callable[[Any, Any], None]:
    value = rng.choice([None, True, 0, -1, 2**63 - 1, "", "x", [], {}, [None], {"a": 1}, "../x", "0644"])

    def act(parent: Any, key: Any) -> None:
        parent[key] = value

    return act


def respell(rng: random.Random) -> Callable[[Any, Any], None]:
    letter, at = rng.choice(["A", "_", "-", ".", "/", " ", "\n", "é", "0", "~", "٣", "\u212a"]), rng.random()

    def act(parent: Any, key: Any) -> None:
        if isinstance(parent[key], str):
            here = int(at * (len(parent[key]) + 1))
            parent[key] = parent[key][:here] + letter + parent[key][here:]
        elif isinstance(parent, dict):
            here = int(at * (len(key) + 1))
            parent[key[:here] + letter + key[here:]] = parent.pop(key)

    return act


def add_key(rng: random.Random) -> Callable[[Any, Any], None]:
    key = rng.choice(["extra", "", "Schema", "schema ", "é", "mode2", "sha256\n"])

    def act(parent: Any, _key: Any) -> None:
        if isinstance(parent, dict):
            parent[key] = rng.choice([1, "x", {}, None])
        else:
            parent.append({})

    return act


node_rule("schema_missing", delete, None)
node_rule("schema_type", retype, None)
node_rule("schema_spelling", respell, None)
node_rule("schema_extra", add_key, None)


@rule
def path_named(rng: random.Random) -> Iterator[Mutant]:
    names = [
        "../x",
        "/x",
        "a/../b",
        "a//b",
        "./a",
        "a/.",
        "a/",
        "",
        ".",
        "..",
        "a b",
        "é",
        "a" * 255,
        "a" * 256,
        "a\\b",
        "a\n",
        "manifest.json",
        "manifest.json.sig",
        "manifest.json/x",
        "a/b" * 60,
        "/".join("d" * 128),
        "/".join("d" * 129),
        "-",
        "...",
        "a\u212a",
        "a\x7f",
        "features/runqlat",
        f"{OBJECT}/x",
        "features/runqlat/full.bpf.o.x",
        "loader",
        "C:x",
        "a;b",
        "~a",
        "a*",
    ]
    for name in of(rng, names):
        entry = {"sha256": "a" * 64, "size": 1, "mode": rng.choice(["0644", "0755"])}
        yield Mutant(
            f"{name[:40]!a} {len(name)}", reseal(lambda doc, name=name, entry=entry: doc["files"].update({name: entry}))
        )


@rule
def path_there(rng: random.Random) -> Iterator[Mutant]:
    """The file is there too, so that a name that is good is a good bundle."""
    names = [
        "a",
        "A-z_0.9/x",
        "a" * 255,
        "/".join("d" * 128),
        "loader/x/contract.json",
        "...",
        "-x",
        "a/.b",
        "a/..b",
        "z" * 100 + "/" + "y" * 100,
    ]
    for name in of(rng, names):
        data = bytes(rng.randrange(256) for _ in range(rng.randrange(100)))
        yield Mutant(
            f"{name[:40]} {len(name)}", lambda world, name=name, data=data: add_file(world, name, data), "EF_OK"
        )


def add_file(world: World, name: str, data: bytes, mode: int = 0o644) -> None:
    write(world.root / name, data, mode)
    doc = world.doc
    doc["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "mode": f"{mode:04o}"}
    world.reseal(doc)


@rule
def mode_named(rng: random.Random) -> Iterator[Mutant]:
    for mode in of(
        rng,
        ["0777", "644", "00644", "0o644", "0644 ", "4755", "", "0600", "٠644", 420, None, ["0644"], "0644\n", "0555"],
    ):
        path = rng.choice([OBJECT, CONTRACT])
        yield Mutant(
            f"{mode!r} {path}", reseal(lambda doc, mode=mode, path=path: doc["files"][path].update(mode=mode)), SCHEMA
        )


@rule
def size_named(rng: random.Random) -> Iterator[Mutant]:
    sizes = [-1, 0, 1, 2**62, (8 << 20), (8 << 20) + 1, (64 << 10) + 1, "10", None, True, 1023, 1025, [1]]
    for size in of(rng, sizes):
        path = rng.choice([OBJECT, CONTRACT])
        yield Mutant(f"{size!r} {path}", reseal(lambda doc, size=size, path=path: doc["files"][path].update(size=size)))


@rule
def digest_named(rng: random.Random) -> Iterator[Mutant]:
    for digest in of(rng, ["A" * 64, "a" * 63, "a" * 65, "", "g" * 64, "٣" * 64, 5, None, "a" * 63 + "\n", "ａ" * 64]):
        yield Mutant(
            repr(digest)[:20], reseal(lambda doc, digest=digest: doc["files"][OBJECT].update(sha256=digest)), SCHEMA
        )


@rule
def date_created(rng: random.Random) -> Iterator[Mutant]:
    for number in itertools.count():
        year, month, day = (
            rng.choice([0, 1, 1900, 1969, 1970, 2024, 2026, 2100, 9999]),
            rng.randrange(14),
            rng.randrange(33),
        )
        hour, minute, second = rng.choice([0, 23, 24]), rng.choice([0, 59, 60]), rng.choice([0, 59, 60, 61])
        text = f"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"
        if rng.random() < 0.3:
            text = rng.choice(
                [
                    text[:-1],
                    text + "\n",
                    text.replace("T", " "),
                    text.lower(),
                    text.replace("0", "٠"),
                    text[:-1] + "+",
                    "1" + text,
                    " " + text[1:],
                ]
            )
        yield Mutant(f"{number} {text!a}", reseal(lambda doc, text=text: doc["bundle"].update(created=text)))


# --- the signature


@rule
def unsigned_byte(rng: random.Random) -> Iterator[Mutant]:
    for number in itertools.count():
        own = rng.random()

        def change(world: World, own: float = own) -> None:
            data = flipped(random.Random(own), world.origin.manifest)
            write(world.root / MANIFEST, data if data != world.origin.manifest else data + b" ")

        yield Mutant(str(number), change, "EF_SIG_BAD")


@rule
def armor_form(rng: random.Random) -> Iterator[Mutant]:
    begin, end = b"-----BEGIN SSH SIGNATURE-----", b"-----END SSH SIGNATURE-----"
    changes: list[tuple[str, Callable[[bytes], bytes], str | None]] = [
        ("newline behind", lambda data: data + b"\n", BAD_SIG),
        ("no newline", lambda data: data[:-1], BAD_SIG),
        ("CRLF", lambda data: data.replace(b"\n", b"\r\n"), BAD_SIG),
        ("CRLF at the end", lambda data: data[:-1] + b"\r\n", BAD_SIG),
        ("blank before", lambda data: b" " + data, BAD_SIG),
        ("newline before", lambda data: b"\n" + data, BAD_SIG),
        ("blank in the base64", lambda data: data[:60] + b" " + data[60:], BAD_SIG),
        ("tab in the base64", lambda data: data[:60] + b"\t" + data[60:], BAD_SIG),
        ("high bit in the base64", lambda data: data[:60] + bytes([data[60] | 0x80]) + data[61:], BAD_SIG),
        ("high letters", lambda data: data[:60] + "Ａ".encode() + data[60:], BAD_SIG),
        ("NUL in the base64", lambda data: data[:60] + b"\0" + data[60:], BAD_SIG),
        ("NUL behind", lambda data: data + b"\0", BAD_SIG),
        ("text behind", lambda data: data + b"x\n", BAD_SIG),
        ("twice", lambda data: data + data, BAD_SIG),
        ("comment", lambda data: data.replace(begin, begin + b"\nComment: x"), BAD_SIG),
        ("other begin", lambda data: data.replace(b"BEGIN", b"Begin"), BAD_SIG),
        ("begin of PGP", lambda data: data.replace(b"SSH", b"PGP"), BAD_SIG),
        ("no end", lambda data: data.replace(end + b"\n", b""), BAD_SIG),
        ("only lines", lambda data: begin + b"\n" + end + b"\n", BAD_SIG),
        ("empty body", lambda data: begin + b"\n\n" + end + b"\n", BAD_SIG),
        ("empty", lambda data: b"", "EF_SIG_MISSING"),
        ("a newline", lambda data: b"\n", BAD_SIG),
        (
            "padding",
            lambda data: data.replace(b"=", b"==", 1) if b"=" in data else data.replace(b"\n-----END", b"=\n-----END"),
            BAD_SIG,
        ),
        ("more padding", lambda data: data.replace(b"\n-----END", b"====\n-----END"), BAD_SIG),
        ("url alphabet", lambda data: data[:60] + b"-_" + data[62:], BAD_SIG),
        (
            "one long line",
            lambda data: begin + b"\n" + b"".join(data.splitlines()[1:-1]) + b"\n" + end + b"\n",
            "EF_OK",
        ),
        (
            "short lines",
            lambda data: (
                begin
                + b"\n"
                + b"\n".join(bytes([byte]) for byte in b"".join(data.splitlines()[1:-1]))
                + b"\n"
                + end
                + b"\n"
            ),
            "EF_OK",
        ),
        ("empty lines", lambda data: data.replace(b"\n", b"\n\n", 2).replace(b"\n\n", b"\n", 1), None),
        ("16 KiB of newlines", lambda data: data.replace(b"\n-----END", b"\n" * 16384 + b"-----END"), BAD_SIG),
        ("1 MiB", lambda data: data + b"A" * (1 << 20), BAD_SIG),
    ]
    for name, change, expected in of(rng, changes):
        yield Mutant(name, lambda world, change=change: world.signature(change(world.origin.signature)), expected)


@rule
def armor_byte(rng: random.Random) -> Iterator[Mutant]:
    for number in itertools.count():
        own = rng.random()
        yield Mutant(
            str(number), lambda world, own=own: world.signature(flipped(random.Random(own), world.origin.signature))
        )


@rule
def blob_byte(rng: random.Random) -> Iterator[Mutant]:
    for number in itertools.count():
        own = rng.random()
        yield Mutant(
            str(number), lambda world, own=own: world.set_blob(flipped(random.Random(own), bytes(world.blob())))
        )


HEADS = [b"SSHSIG\0\0\0\0", b"SSHSIG\0\0\0\2", b"SSHSIH\0\0\0\1", b"SSHSIG\1\0\0\1", b"sshsig\0\0\0\1"]


def wire(*fields: bytes) -> bytes:
    return b"".join(struct.pack(">I", len(field)) + field for field in fields)


def fields_of(blob: bytes) -> list[bytes]:
    found, rest = [], blob[10:]
    while rest:
        length = struct.unpack(">I", rest[:4])[0]
        found.append(rest[4 : 4 + length])
        rest = rest[4 + length :]
    return found


@rule
def blob_field(rng: random.Random) -> Iterator[Mutant]:
    """Key, namespace, reserved, hash and signature of the blob, each with odd content, length or number."""
    odd = [
        b"",
        b"\0",
        b"x" * 300,
        b"ssh-ed25519",
        wire(b"ssh-ed25519", b"\0" * 32),
        wire(b"ssh-ed25519", b"\1" * 31),
        wire(b"ssh-rsa", b"x"),
        wire(b"ssh-ed25519", b"\0" * 64),
        wire(b"ssh-ed25519\0", b"\0" * 32),
        NAMESPACE.encode() + b"\0",
        b"SHA512",
        b"sha512\0",
        b"\xff" * 40,
    ]
    for number in itertools.count():
        index, content, twist = rng.randrange(5), rng.choice(odd), rng.randrange(5)

        def change(world: World, index: int = index, content: bytes = content, twist: int = twist) -> None:
            head, fields = bytes(world.blob()[:10]), fields_of(bytes(world.blob()))
            if twist < 2:
                fields[index] = content
            elif twist == 2:
                fields.insert(index, content)
            elif twist == 3:
                fields[index] += content or b"\0"
            else:
                head = HEADS[index]
            world.set_blob(head + wire(*fields))

        yield Mutant(f"{number} field {index} twist {twist}", change)


ORDER = 2**252 + 27742317777372353535851937790883648493
PRIME = 2**255 - 19


@rule
def signature_number(rng: random.Random) -> Iterator[Mutant]:
    """Other forms of the same numbers, and the points that sign anything."""
    small = [
        0,
        1,
        PRIME - 1,
        PRIME,
        PRIME + 1,
        2**255 - 1,
        2**255,
        0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
    ]
    for number in itertools.count():
        kind, point, times = rng.randrange(4), rng.choice(small) | rng.choice([0, 2**255]), rng.choice([1, 1, 2, 3, 7])

        def change(world: World, kind: int = kind, point: int = point, times: int = times) -> None:
            head, fields = bytes(world.blob()[:10]), fields_of(bytes(world.blob()))
            body = bytearray(fields[4][-64:])
            scalar = int.from_bytes(body[32:], "little")
            raw = (point % 2**256).to_bytes(32, "little")
            if kind == 0:
                body[32:] = ((scalar + times * ORDER) % 2**256).to_bytes(32, "little")
            if kind in (1, 3):
                body[:32] = raw
            if kind in (2, 3):
                fields[0] = wire(b"ssh-ed25519", raw)
            if kind == 3:
                body[32:] = bytes(32)
            fields[4] = wire(b"ssh-ed25519", bytes(body))
            world.set_blob(head + wire(*fields))
            if kind >= 2:  # trusted or not, such a key signs nothing
                write(world.signers, f"{PRINCIPAL} ssh-ed25519 {base64.b64encode(fields[0]).decode()}\n".encode())

        yield Mutant(f"{number} kind {kind}", change, "EF_SIG_BAD")


@rule
def signature_namespace(rng: random.Random) -> Iterator[Mutant]:
    names = [
        "git",
        "file",
        NAMESPACE + "2",
        NAMESPACE[:-1],
        NAMESPACE.upper(),
        "x" * 200,
        " " + NAMESPACE,
        NAMESPACE + " ",
        "é",
        "*",
        NAMESPACE + "\n",
    ]
    for name in of(rng, names):
        yield Mutant(
            repr(name),
            lambda world, name=name: world.signature(armored(world.origin.manifest, world.origin.key, name)),
            "EF_SIG_NAMESPACE",
        )


@rule
def signature_key(rng: random.Random) -> Iterator[Mutant]:
    for kind, hash_name in of(rng, list(itertools.product(["other", "rsa", "ecdsa", "release"], ["sha256", "sha512"]))):
        allowed = rng.random() < 0.5

        def change(world: World, kind: str = kind, hash_name: str = hash_name, allowed: bool = allowed) -> None:
            key = world.origin.key.with_name(kind)
            world.signature(armored(world.origin.manifest, key, digest=hash_name))
            if allowed:
                with world.signers.open("a") as stream:
                    stream.write(f"{kind} {public_key(key)}\n")

        good = kind == "release" or (kind == "other" and allowed)
        yield Mutant(
            f"{kind} {hash_name} {allowed}",
            change,
            "EF_OK" if good else "EF_SIG_UNKNOWN_SIGNER" if kind == "other" else BAD_SIG,
        )


# --- allowed_signers


def signers(line: str, before: bool = False) -> Callable[[World], None]:
    """These lines for the key ({key}) and another ({other}), alone or before the good line."""

    def act(world: World) -> None:
        text = line.replace("{key}", world.public).replace("{other}", public_key(world.origin.other))
        good = f"{PRINCIPAL} {world.public}\n" if before else ""
        write(world.signers, (text + "\n").encode("utf-8", "surrogateescape") + good.encode())

    return act


OPTIONS = [
    'namespaces="ebpf-fleet-release"',
    'namespaces="ebpf-*,git"',
    'namespaces="!git,*"',
    'namespaces="*,!ebpf-*"',
    'namespaces=""',
    'namespaces="git"',
    "namespaces=git",
    'namespaces="a',
    'NAMESPACES="*"',
    'valid-after="20200101"',
    'valid-after="29990101Z"',
    'valid-before="29990101"',
    'valid-before="20200101Z"',
    'valid-before=""',
    'valid-before="soon"',
    "valid-before=20990101",
    "cert-authority",
    "verify-required",
    'surprise="x"',
    'namespaces="ebpf-fleet-release" ',
    'namespaces="ebpf\\-*"',
    'namespaces="?bpf-fleet-releas?"',
    'namespaces=" ebpf-*"',
    ",",
    "",
    "x",
    "no-pty",
]


@rule
def signer_options(rng: random.Random) -> Iterator[Mutant]:
    for number in itertools.count():
        options = ",".join(rng.choice(OPTIONS) for _ in range(rng.choice([1, 1, 1, 2, 3])))
        before = rng.random() < 0.3
        yield Mutant(
            f"{number} {options} {before}", signers(f"me@x {options} {{key}}", before), "EF_OK" if before else None
        )


@rule
def signer_order(rng: random.Random) -> Iterator[Mutant]:
    """Several lines of one key: whichever allows, allows; else the reason does not depend on the order."""
    choices = [
        'a namespaces="git" {key}',
        'b valid-before="20200101Z" {key}',
        "c {other}",
        'd valid-after="29990101Z",namespaces="*" {key}',
        "e cert-authority {key}",
        "* {key}",
        "odd",
    ]
    for number in itertools.count():
        lines = rng.sample(choices, rng.randrange(1, 6))
        yield Mutant(f"{number} {len(lines)}", signers("\n".join(lines)))


@rule
def signer_principals(rng: random.Random) -> Iterator[Mutant]:
    names = [
        "*",
        "a*",
        "?",
        "!a",
        "a,!b",
        "a,b",
        "a,,b",
        ",a",
        "a,",
        '"a b"',
        '"a"',
        '""',
        '"a',
        'a"b',
        "a\\b",
        "é",
        "a\x7f",
        "a\tb",
        "a\x01",
        "#a",
        '"#a"',
        "a@b",
        "\ufeffa",
        "-",
        "'a'",
        "a b",
        "\udcff",
        "a=b",
        '"a","b"',
    ]
    for name in of(rng, names):
        before = rng.random() < 0.3
        yield Mutant(f"{name!a} {before}", signers(f"{name} {{key}}", before), "EF_OK" if before else None)


@rule
def signer_date(rng: random.Random) -> Iterator[Mutant]:
    for number in itertools.count():
        year, month, day = (
            rng.choice([0, 1, 1900, 1969, 1970, 2000, 2024, 2100, 2999, 9999]),
            rng.randrange(14),
            rng.choice([0, 1, 28, 29, 30, 31, 32]),
        )
        text = f"{year:04}{month:02}{day:02}"
        if rng.random() < 0.6:
            text += f"{rng.choice([0, 2, 23, 24]):02}{rng.choice([0, 30, 59, 60]):02}"
            text += rng.choice(["", "00", "59", "60", "61"])
        text += rng.choice(["", "Z", "Z", "z", "X", " "] if rng.random() < 0.5 else ["", "Z"])
        if rng.random() < 0.1:
            text = rng.choice([text.replace("0", "٠"), "+" + text, text + "0", "-" + text[1:], " " + text, "1" * 40])
        option = rng.choice(["valid-after", "valid-before"])
        yield Mutant(f"{number} {option} {text!a}", signers(f'me@x {option}="{text}" {{key}}'))


@rule
def signer_local_time(rng: random.Random) -> Iterator[Mutant]:
    """Hours that a change of clocks leaves out or has twice, in the zone that the test sets."""
    for number in itertools.count():
        day = rng.choice(["20260329", "20261025", "20250330", "20380119", "19700101", "29990331"])
        clock = rng.choice(["0130", "0159", "0200", "0230", "023059", "0300", "0000", "0100"])
        option = rng.choice(["valid-after", "valid-before"])
        yield Mutant(f"{number} {option} {day}{clock}", signers(f'me@x {option}="{day}{clock}" {{key}}'))


@rule
def signer_key(rng: random.Random) -> Iterator[Mutant]:
    blob = base64.b64encode(wire(b"ssh-ed25519", bytes(range(32)))).decode()
    keys = [
        "ssh-ed25519 AAAA",
        "ssh-ed25519 %%%%",
        "ssh-ed25519",
        f"ssh-rsa {blob}",
        f"ssh-ed25519 {blob[:-1]}",
        f"ssh-ed25519 {blob}=",
        f"SSH-ED25519 {blob}",
        f"ssh-ed25519  {blob}",
        f"ssh-ed25519\t{blob} comment",
        "ssh-ed25519-cert-v01@openssh.com "
        + base64.b64encode(wire(b"ssh-ed25519-cert-v01@openssh.com", b"x")).decode(),
        "ssh-mldsa44@openssh.com " + base64.b64encode(wire(b"ssh-mldsa44@openssh.com", b"x" * 99)).decode(),
        blob,
        "sk-ssh-ed25519@openssh.com " + blob,
        f"ssh-ed25519 {blob} AAAA",
        "ssh-ed25519 " + base64.b64encode(wire(b"ssh-ed25519", bytes(range(32)), b"x")).decode(),
        "ssh-ed25519 A\xc3\xa9AA",
        "ssh-ed25519 ﾅAAA",
        "ssh-ed25519 " + blob[:40] + "\udc85" + blob[40:],
    ]
    for key in of(rng, keys):
        before = rng.random() < 0.7
        yield Mutant(f"{key[:30]!a} {before}", signers(f"odd@x {key}", before), "EF_OK" if before else None)


@rule
def signer_line_end(rng: random.Random) -> Iterator[Mutant]:
    for number in itertools.count():
        odd, place, before = rng.choice(UNSEEN), rng.randrange(6), rng.random() < 0.5
        line = [
            "{odd}me@x {key}",
            "me@x{odd}{key}",
            "me@x {key}{odd}",
            "me@x {key} comment{odd}other {key}",
            "{odd}# comment\nme@x {key}",
            "# comment{odd}me@x {key}",
        ][place]
        yield Mutant(f"{number} {odd!a} {place} {before}", signers(line.replace("{odd}", odd), before))


@rule
def signer_byte(rng: random.Random) -> Iterator[Mutant]:
    for number in itertools.count():
        own = rng.random()
        yield Mutant(
            str(number),
            lambda world, own=own: write(world.signers, flipped(random.Random(own), world.signers.read_bytes())),
        )


# --- revoked_keys


def revoked(text: str) -> Callable[[World], None]:
    def act(world: World) -> None:
        whole = text.replace("{key}", world.public).replace("{other}", public_key(world.origin.other))
        write(world.revoked, whole.replace("{blob}", world.public.split()[1]).encode("utf-8", "surrogateescape"))

    return act


@rule
def revoked_line(rng: random.Random) -> Iterator[Mutant]:
    future = "ssh-new " + base64.b64encode(wire(b"ssh-new", b"x")).decode()
    certificate = (
        "ssh-ed25519-cert-v01@openssh.com " + base64.b64encode(wire(b"ssh-ed25519-cert-v01@openssh.com", b"x")).decode()
    )
    gone = "EF_SIG_REVOKED"
    lines = [
        ("{key}\n", gone),
        ("{other}\n", "EF_OK"),
        ("{key}", gone),
        ("  {key} lost\n", gone),
        ("{other} {key}\n", TRUST),
        ("{key} {other}\n", TRUST),
        ("{other} x {key}\n", TRUST),
        ("{blob}\n", TRUST),
        ("{blob} {other}\n", TRUST),
        ("no-pty {key}\n", gone),
        ('command="a b" {key}\n', gone),
        ('command="a b {key}\n', TRUST),
        ("SHA256:abc\n", TRUST),
        ("hash: SHA256:a\n", TRUST),
        ("key\n", TRUST),
        (future + "\n", "EF_OK"),
        (certificate + "\n", TRUST),
        (future + "\n{key}\n", gone),
        ("# {key}\n", "EF_OK"),
        ("#{key}\n{key}\n", gone),
        ("", "EF_OK"),
        ("\n\n", "EF_OK"),
        ("ssh-ed25519 AAAA\n", TRUST),
        ("ssh-rsa {blob}\n", TRUST),
        ("me@x {key}\n", gone),
        ("a b {key}\n", TRUST),
        ("{key} é\n", gone),
        ("\ufeff{key}\n", gone),
        ("\ufeff# c\n{key}\n", gone),
        ("# c\n\ufeff{key}\n", None),
        ("cert-authority {other}\n", "EF_OK"),
    ]
    for text, expected in of(rng, lines):
        yield Mutant(f"{text[:40]!a}", revoked(text), expected)


@rule
def revoked_line_end(rng: random.Random) -> Iterator[Mutant]:
    for number in itertools.count():
        odd, place = rng.choice(UNSEEN), rng.randrange(6)
        text = [
            "# a{odd}{key}{odd}",
            "{other}{odd}{key}\n",
            "{key}{odd}\n",
            "{odd}{key}\n",
            "# c{odd}\n{key}\n",
            "{other} c{odd}{key}{odd}\n",
        ][place]
        yield Mutant(f"{number} {odd!a} {place}", revoked(text.replace("{odd}", odd)))


@rule
def revoked_byte(rng: random.Random) -> Iterator[Mutant]:
    for number in itertools.count():
        own, key = rng.random(), rng.choice(["{key} lost\n", "# c\n{other} x\n"])

        def change(world: World, own: float = own, key: str = key) -> None:
            revoked(key)(world)
            write(world.revoked, flipped(random.Random(own), world.revoked.read_bytes()))

        yield Mutant(str(number), change)


# --- the trust files themselves


@rule
def trust_file(rng: random.Random) -> Iterator[Mutant]:
    def replace(name: str, act: Callable[[Any], object]) -> Callable[[World], None]:
        def change(world: World) -> None:
            path = getattr(world, name)
            path.rename(path.with_name("aside"))
            act(path)

        return change

    kinds: list[tuple[str, Callable[[Any], object], str]] = [
        ("missing", lambda path: None, "EF_TRUST_MISSING"),
        ("symlink", lambda path: path.symlink_to("aside"), TRUST),
        ("dangling", lambda path: path.symlink_to("nowhere"), TRUST),
        ("fifo", lambda path: os.mkfifo(path), TRUST),
        ("folder", lambda path: path.mkdir(), TRUST),
        ("giant", lambda path: (path.write_bytes(b"#\n"), os.truncate(path, 1 << 30), path.chmod(0o644)), TRUST),
        ("a byte too large", lambda path: (path.write_bytes(b"#" * ((1 << 20) + 1)), path.chmod(0o644)), TRUST),
        ("krl", lambda path: (path.write_bytes(b"SSHKRL\n\0x"), path.chmod(0o644)), TRUST),
        ("NUL", lambda path: (path.write_bytes(b"#\0\n"), path.chmod(0o644)), TRUST),
        ("UTF-16", lambda path: (path.write_bytes("# x\n".encode("utf-16")), path.chmod(0o644)), TRUST),
    ]
    modes = [
        (mode, expected)
        for mode, expected in [
            (0o664, TRUST),
            (0o646, TRUST),
            (0o600, "EF_OK"),
            (0o444, "EF_OK"),
            (0o4644, "EF_OK"),
            (0o755, "EF_OK"),
            (0o666, TRUST),
        ]
    ]
    mutants = [
        Mutant(f"{name} {kind}", replace(name, act), expected)
        for name in ("signers", "revoked")
        for kind, act, expected in kinds
    ]
    for mode, expected in modes:
        for name in ("signers", "revoked"):
            mutants.append(
                Mutant(
                    f"{name} {mode:o}", lambda world, name=name, mode=mode: getattr(world, name).chmod(mode), expected
                )
            )
    folders = [(0o777, TRUST), (0o1777, "EF_OK"), (0o775, TRUST), (0o700, "EF_OK"), (0o757, TRUST)]
    mutants += [
        Mutant(f"folder {mode:o}", lambda world, mode=mode: world.signers.parent.chmod(mode), expected)
        for mode, expected in folders
    ]
    mutants += [
        Mutant(f"{name} of another", lambda world, name=name: os.chown(getattr(world, name), 65534, 65534), TRUST)
        for name in ("signers", "revoked")
    ]
    yield from of(rng, mutants)


# --- the folder


def put(path: Path, kind: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    acts: dict[str, Callable[[], object]] = {
        "file": lambda: path.write_bytes(b"x"),
        "folder": path.mkdir,
        "link": lambda: path.symlink_to("manifest.json"),
        "fifo": lambda: os.mkfifo(path),
    }
    acts[kind]()


@rule
def folder_extra(rng: random.Random) -> Iterator[Mutant]:
    for number in itertools.count():
        names = rng.sample(
            [
                "extra",
                ".hidden",
                "features/x",
                "features/runqlat/x",
                "loader/x/y",
                "\x1b[31m",
                "\udcff",
                "manifest.json.bak",
                "a\nb",
                "z/" * 40 + "z",
                "n" * 255,
            ],
            2,
        )
        kinds = [rng.choice(["file", "folder", "link", "fifo"]) for _name in names]

        def change(world: World, names: list[str] = names, kinds: list[str] = kinds) -> None:
            for name, kind in zip(names, kinds):
                put(world.root / name, kind)

        yield Mutant(f"{number} {names!a} {kinds}", change)


PLACES = [MANIFEST, SIGNATURE, OBJECT, CONTRACT, "features/runqlat/reduced.bpf.o"]


@rule
def folder_kind(rng: random.Random) -> Iterator[Mutant]:
    kinds = ["gone", "link", "fifo", "folder", "dangling", "loop", "absolute link", "device"]
    for path, kind in of(rng, list(itertools.product([*PLACES, "features", "features/runqlat", "loader"], kinds))):

        def change(world: World, path: str = path, kind: str = kind) -> None:
            place = world.root / path
            place.rename(world.folder / "aside")
            act: dict[str, Callable[[], object]] = {
                "gone": lambda: None,
                "link": lambda: place.symlink_to(os.path.relpath(world.folder / "aside", place.parent)),
                "fifo": lambda: os.mkfifo(place),
                "folder": place.mkdir,
                "dangling": lambda: place.symlink_to("nowhere"),
                "loop": lambda: place.symlink_to(place.name),
                "absolute link": lambda: place.symlink_to(world.folder / "aside"),
                "device": lambda: os.mknod(place, 0o020644, os.makedev(1, 3)),
            }
            act[kind]()

        yield Mutant(f"{path} {kind}", change)


@rule
def folder_mode(rng: random.Random) -> Iterator[Mutant]:
    for path, mode in of(
        rng,
        list(
            itertools.product(
                PLACES, [0o644, 0o755, 0o600, 0o664, 0o646, 0o4644, 0o2755, 0o1644, 0o444, 0o700, 0o777, 0o711]
            )
        ),
    ):
        good = not mode & ~0o755 if path in PLACES[:2] else mode == 0o644
        yield Mutant(
            f"{path} {mode:o}",
            lambda world, path=path, mode=mode: (world.root / path).chmod(mode),
            "EF_OK" if good else "EF_FILE_TYPE",
        )


@rule
def folder_content(rng: random.Random) -> Iterator[Mutant]:
    for number in itertools.count():
        path, own = rng.choice(PLACES[2:]), rng.random()

        def change(world: World, path: str = path, own: float = own) -> None:
            place = world.root / path
            data = place.read_bytes()
            new = flipped(random.Random(own), data)
            write(place, new if new != data else new + b"x")

        yield Mutant(f"{number} {path}", change)


@rule
def head_size(rng: random.Random) -> Iterator[Mutant]:
    for path, size in of(
        rng, list(itertools.product(PLACES[:2], [0, 1, (16 << 10), (16 << 10) + 1, (1 << 20), (1 << 20) + 1, 1 << 40]))
    ):
        yield Mutant(f"{path} {size}", lambda world, path=path, size=size: os.truncate(world.root / path, size))


@rule
def two_faults(rng: random.Random) -> Iterator[Mutant]:
    """Of two faults in different layers both must name the same one."""
    layers = [
        "signer_options",
        "signer_line_end",
        "revoked_line",
        "armor_form",
        "signature_key",
        "number_form",
        "mode_named",
        "folder_mode",
        "folder_kind",
        "folder_extra",
        "trust_file",
    ]
    for number in itertools.count():
        first, second = (next(RULES[name](rng)) for name in rng.sample(layers, 2))

        def change(world: World, first: Mutant = first, second: Mutant = second) -> None:
            for mutant in (first, second):
                try:
                    mutant.change(world)
                except OSError:
                    continue  # the first has taken away what the second changes

        yield Mutant(f"{number} {first.name}; {second.name}", change)


# --- a tar, which only the Python verifier reads


def pack(
    world: World, act: Callable[[tarfile.TarFile, tarfile.TarInfo, bytes], object], form: int = tarfile.GNU_FORMAT
) -> None:
    """The bundle as a tar; `act` adds each member."""
    with tarfile.open(world.tar, "w", format=form) as tar:
        for path in sorted(str(path.relative_to(world.root)) for path in world.root.rglob("*") if path.is_file()):
            data = (world.root / path).read_bytes()
            info = tarfile.TarInfo(path)
            info.size, info.mode = len(data), (world.root / path).stat().st_mode & 0o7777
            act(tar, info, data)


def plain(tar: tarfile.TarFile, info: tarfile.TarInfo, data: bytes) -> None:
    tar.addfile(info, io.BytesIO(data))


def at_object(
    act: Callable[[tarfile.TarFile, tarfile.TarInfo, bytes], object], form: int = tarfile.GNU_FORMAT
) -> Callable[[World], None]:
    """`act` adds the object, the others are added as they are."""

    def change(world: World) -> None:
        pack(world, lambda tar, info, data: (act if info.name == OBJECT else plain)(tar, info, data), form)

    return change


TYPE = "EF_FILE_TYPE"


@rule
def tar_kind(rng: random.Random) -> Iterator[Mutant]:
    kinds = [
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.DIRTYPE,
        tarfile.CHRTYPE,
        tarfile.BLKTYPE,
        tarfile.FIFOTYPE,
        tarfile.CONTTYPE,
        tarfile.GNUTYPE_SPARSE,
        b"V",
        b"N",
        b"K",
        b"g",
        b"Z",
    ]
    for kind in of(rng, kinds):
        extra = rng.random() < 0.5

        def act(
            tar: tarfile.TarFile, info: tarfile.TarInfo, data: bytes, kind: bytes = kind, extra: bool = extra
        ) -> None:
            info.type, info.linkname = kind, MANIFEST
            if kind not in (tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE):
                info.size = 0
            header = info.tobuf(tarfile.GNU_FORMAT)
            tar.fileobj.write(header + (data + bytes(-len(data) % 512) if info.size else b""))
            if extra:
                info.type, info.size = tarfile.REGTYPE, len(data)
                plain(tar, info, data)

        yield Mutant(f"{kind!r} {extra}", at_object(act), TYPE)


@rule
def tar_pax(rng: random.Random) -> Iterator[Mutant]:
    good = [{"mtime": "1.5"}, {"comment": "x"}, {"path": OBJECT}, {"uid": "0", "gid": "0"}, {"uname": "é"}]
    bad = [
        {"size": "5"},
        {"size": "-1"},
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": OBJECT, "GNU.sparse.realsize": "99"},
        {"GNU.sparse.map": "0,5"},
        {"GNU.sparse.size": "-5"},
        {"linkpath": "/etc/passwd"},
        {"path": "../x"},
        {"path": "/x"},
        {"path": "a" * 300},
        {"comment": "x" * 20000},
        {"hdrcharset": "BINARY"},
        {"SCHILY.xattr.security.x": "y"},
        {"path": ""},
    ]
    for headers in of(rng, good + bad):

        def act(tar: tarfile.TarFile, info: tarfile.TarInfo, data: bytes, headers: dict[str, str] = headers) -> None:
            info.pax_headers = headers
            if "path" in headers or "linkpath" in headers or "size" in headers:
                records = b"".join(record(key, value) for key, value in headers.items())
                extended = tarfile.TarInfo("PaxHeader")
                extended.type, extended.size = tarfile.XHDTYPE, len(records)
                tar.fileobj.write(extended.tobuf(tarfile.USTAR_FORMAT) + records + bytes(-len(records) % 512))
                tar.fileobj.write(info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % 512))
            else:
                tar.addfile(info, io.BytesIO(data))

        yield Mutant(repr(headers)[:60], at_object(act, tarfile.PAX_FORMAT), "EF_OK" if headers in good else TYPE)


def record(key: str, value: str) -> bytes:
    body = f" {key}={value}\n".encode()
    length = len(body) + 1
    while len(str(length)) + len(body) != length:
        length += 1
    return str(length).encode() + body


@rule
def tar_name(rng: random.Random) -> Iterator[Mutant]:
    for name in of(
        rng,
        [
            "../x",
            "/x",
            "a/../b",
            "./a",
            "a b",
            "é",
            "a" * 256,
            "x" * 5000,
            "a/" * 400 + "a",
            "\x1b[0m",
            "a\\b",
            "",
            "features//x",
            "a" * 60000,
        ],
    ):

        def act(tar: tarfile.TarFile, info: tarfile.TarInfo, data: bytes, name: str = name) -> None:
            plain(tar, info, data)
            info.name = name
            plain(tar, info, data)

        yield Mutant(f"{name[:20]!a} {len(name)}", at_object(act), TYPE)


@rule
def tar_double(rng: random.Random) -> Iterator[Mutant]:
    for path in of(rng, PLACES):
        same = rng.random() < 0.5

        def change(world: World, path: str = path, same: bool = same) -> None:
            def act(tar: tarfile.TarFile, info: tarfile.TarInfo, data: bytes) -> None:
                plain(tar, info, data)
                if info.name == path:
                    plain(tar, info, data if same else data[::-1])

            pack(world, act)

        yield Mutant(f"{path} {same}", change, "EF_FILE_EXTRA")


@rule
def tar_number(rng: random.Random) -> Iterator[Mutant]:
    """Sizes, modes and checksums of a header in odd forms, its checksum set right."""
    fields = [
        b"-0000000005\0",
        b"77777777777\0",
        b"\x80" + b"\0" * 10 + b"\5",
        b"\xff" * 12,
        b"9" * 12,
        b" " * 12,
        b"\0" * 12,
        b"0x000000010\0",
        "٣".encode() + b"\0" * 10,
        b"+0000000005\0",
        b"1 2" + b"\0" * 9,
    ]
    for number in itertools.count():
        start, width, field = *rng.choice([(124, 12), (100, 8), (148, 8)]), rng.choice(fields)

        def act(
            tar: tarfile.TarFile,
            info: tarfile.TarInfo,
            data: bytes,
            start: int = start,
            width: int = width,
            field: bytes = field,
        ) -> None:
            header = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
            header[start : start + width] = field[:width]
            if start != 148:
                header[148:156] = b" " * 8
                header[148:156] = b"%06o\0 " % sum(header)
            tar.fileobj.write(bytes(header) + data + bytes(-len(data) % 512))

        yield Mutant(f"{number} {start} {field[:6]!r}", at_object(act))


@rule
def tar_byte(rng: random.Random) -> Iterator[Mutant]:
    for number in itertools.count():
        own = rng.random()

        def change(world: World, own: float = own) -> None:
            pack(world, plain)
            data = world.tar.read_bytes()
            generator = random.Random(own)
            at = generator.randrange(len(data))
            changed = data[:at] + bytes([data[at] ^ (1 << generator.randrange(8))]) + data[at + 1 :]
            world.tar.write_bytes(
                changed if generator.random() < 0.7 else data[:at] + generator.choice([b"", b"x" * 700, data[:2000]])
            )

        yield Mutant(str(number), change)


@rule
def tar_missing(rng: random.Random) -> Iterator[Mutant]:
    codes = {MANIFEST: "EF_MANIFEST_MISSING", SIGNATURE: "EF_SIG_MISSING"}
    for path in of(rng, PLACES):

        def change(world: World, path: str = path) -> None:
            pack(world, lambda tar, info, data: None if info.name == path else plain(tar, info, data))

        yield Mutant(path, change, codes.get(path, "EF_FILE_MISSING"))


@rule
def tar_mode(rng: random.Random) -> Iterator[Mutant]:
    for path, mode in of(rng, list(itertools.product(PLACES, [0o644, 0o755, 0o664, 0o4755, 0o600, 0]))):
        good = not mode & ~0o755 if path in PLACES[:2] else mode == 0o644

        def change(world: World, path: str = path, mode: int = mode) -> None:
            def act(tar: tarfile.TarFile, info: tarfile.TarInfo, data: bytes) -> None:
                info.mode = mode if info.name == path else info.mode
                plain(tar, info, data)

            pack(world, act)

        yield Mutant(f"{path} {mode:o}", change, "EF_OK" if good else TYPE)


def chosen(count: int, seed: int) -> list[tuple[str, Mutant]]:
    """`count` mutants of each class, always the same for a seed."""
    return [
        (name, mutant)
        for name, make in RULES.items()
        for mutant in itertools.islice(make(random.Random(f"{seed} {name}")), count)
    ]


__all__ = ["RULES", "Mutant", "canonical", "chosen"]
