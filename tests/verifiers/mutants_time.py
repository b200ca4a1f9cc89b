# SPDX-License-Identifier: GPL-3.0-or-later
"""Mutants of what a clock and a contract have to do with a verdict: keys' times against `created`, variants' order."""

from __future__ import annotations

import hashlib
import itertools
import random
from typing import Any, Iterator

from tests.loader.bundles import canonical, write
from tests.verifiers.mutants import Mutant, rule
from tests.verifiers.world import CONTRACT, World

PAST, FUTURE = "2001-02-03T04:05:06Z", "2999-01-01T00:00:00Z"
LINES = [
    "a {key}",
    'b namespaces="git" {key}',
    'c valid-before="29980101Z" {key}',
    'd valid-after="20200101Z" {key}',
    'e valid-before="20200101Z" {key}',
    'f valid-after="29970101Z",valid-before="29980101Z" {key}',
    'g namespaces="*",valid-before="29990101Z" {key}',
    "odd",
]
NAMES = ["full", "reduced", "perf", "Full"]


@rule
def clock_against_created(rng: random.Random) -> Iterator[Mutant]:
    """Lines with and without times, under a clock that can be right and under one that cannot."""
    for number in itertools.count():
        lines, created = rng.sample(LINES, rng.randrange(1, 5)), rng.choice([PAST, FUTURE, FUTURE])
        broken = rng.random() < 0.15

        def change(world: World, lines: list[str] = lines, created: str = created, broken: bool = broken) -> None:
            doc = world.doc
            doc["bundle"]["created"] = created
            if broken:
                del doc["bundle"]["version"]
            world.reseal(doc)
            write(world.signers, "".join(line.replace("{key}", world.public) + "\n" for line in lines).encode())

        yield Mutant(f"{number} {created[:4]} {broken} {' '.join(line[0] for line in lines)}", change)


@rule
def variants_of_contract(rng: random.Random) -> Iterator[Mutant]:
    """A signed contract whose variants are others than the manifest's, in all forms of a list."""
    for number in itertools.count():
        entries: list[Any] = [{"name": name} for name in rng.choices(NAMES, k=rng.randrange(4))]
        if rng.random() < 0.3:
            entries.insert(0, rng.choice([None, 7, "full", {}, {"name": None}, {"Name": "full"}, ["full"]]))
        value = rng.choice(
            [entries, entries, entries, [{"name": "full"}, {"name": "reduced"}], {"0": entries}, None, 1]
        )
        data = canonical({"feature": "runqlat", "variants": value})
        data = rng.choice([data] * 4 + [data + b"\n", data.replace(b":", b": "), b"\xef\xbb\xbf" + data, data[:-2]])

        def change(world: World, data: bytes = data) -> None:
            doc = world.doc
            write(world.root / CONTRACT, data)
            doc["files"][CONTRACT].update(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
            world.reseal(doc)

        yield Mutant(f"{number} {data[:60]!a}", change)
