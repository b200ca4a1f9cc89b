# SPDX-License-Identifier: GPL-3.0-or-later
"""Both verifiers, and ssh-keygen, over many mutants: `make differential`.

Nothing may be accepted that is not what was signed, the two must agree in verdict and reason, and no
input may end in a traceback or a sanitizer's report. EBPF_FLEET_LOADER names another loader (the one
with ASan), EBPF_FLEET_MUTANTS how many of each class (40), EBPF_FLEET_SEED another seed.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Iterable, NamedTuple

from tests.loader.bundles import MANIFEST, NAMESPACE, SIGNATURE
from tests.verifiers import mutants_time
from tests.verifiers.mutants import RULES, Mutant, chosen
from tests.verifiers.world import World, make_origin, make_world

ROOT = Path(__file__).resolve().parents[2]
ASK = Path(__file__).with_name("ask.py")
SEED = 11
# Two clock changes a year, so that a local time may be one that never was.
ZONE = "CET-1CEST,M3.5.0,M10.5.0/3"
PYTHONS = ("3.8", "3.11", "3.13")
# Asked too by `make differential`, where they are here.
MORE_PYTHONS = ("3.9", "3.10", "3.12")
LONG_NAME = 200


class Verdict(NamedTuple):
    """A reason code ("EF_OK" of what is accepted) and what was said beside it."""

    code: str
    detail: str


class Judged(NamedTuple):
    """A mutant, its world, and what each verifier said; `loader` is None where there is only a tar."""

    rule: str
    mutant: Mutant
    world: World
    loader: Verdict | None
    pythons: dict[str, Verdict]


def environment() -> dict[str, str]:
    return {**os.environ, "TZ": ZONE, "PYTHONPATH": str(ROOT / "collections"), "PYTHONDONTWRITEBYTECODE": "1"}


def find_python(version: str) -> str | None:
    """An interpreter of that version: ours, one of pyenv's, or one on the PATH."""
    if sys.version_info[:2] == tuple(map(int, version.split("."))):
        return sys.executable
    root = Path(os.environ.get("PYENV_ROOT", str(Path.home() / ".pyenv")))
    found = sorted(root.glob(f"versions/{version}.*/bin/python"))
    return str(found[-1]) if found else shutil.which(f"python{version}")


def ask_loader(loader: Path, world: World) -> Verdict:
    """`ebpf-loader verify` on the folder."""
    command = [str(loader), "verify", str(world.root), "--trust", str(world.signers), "--revoked", str(world.revoked)]
    done = subprocess.run(command, check=False, capture_output=True, env=environment(), timeout=120)
    if done.returncode not in (0, 3):
        return Verdict("CRASH", f"exit {done.returncode}: {done.stderr[-2000:]!r}")
    answer = json.loads(done.stdout)
    return Verdict("EF_OK", answer["signer"]) if answer["ok"] else Verdict(answer["reason_code"], answer["reason"])


def ask_python(interpreter: str, worlds: list[World]) -> list[Verdict]:
    """The Python verifier's verdicts, in one process for all."""
    asked = [
        [str(world.tar if world.tar.exists() else world.root), str(world.signers), str(world.revoked)]
        for world in worlds
    ]
    done = subprocess.run(
        [interpreter, str(ASK)], input=json.dumps(asked), check=True, capture_output=True, text=True, env=environment()
    )
    return [Verdict(*answer) for answer in json.loads(done.stdout)]


def judge(loader: Path, pythons: dict[str, str], worlds: list[tuple[str, Mutant, World]]) -> list[Judged]:
    """Every verifier's verdict on each world."""
    with ThreadPoolExecutor(2) as pool:
        from_loader = list(pool.map(lambda one: None if one[2].tar.exists() else ask_loader(loader, one[2]), worlds))
    only = [world for _rule, _mutant, world in worlds]
    from_python = {version: ask_python(path, only) for version, path in pythons.items()}
    return [
        Judged(rule, mutant, world, from_loader[at], {version: found[at] for version, found in from_python.items()})
        for at, (rule, mutant, world) in enumerate(worlds)
    ]


# What must not be


def faults(judged: Judged, loader: Path) -> list[str]:
    """Everything that is wrong with the verdicts on one mutant."""
    found = [
        f"{name}: {verdict.code} {verdict.detail}"
        for name, verdict in verdicts(judged)
        if not verdict.code.startswith("EF_")
    ]
    codes = {verdict.code for _name, verdict in verdicts(judged)}
    if len(codes) > 1:
        found.append(
            "disagree: "
            + ", ".join(f"{name} {verdict.code} ({verdict.detail[:120]})" for name, verdict in verdicts(judged))
        )
    if judged.mutant.expected is not None and codes != {judged.mutant.expected}:
        found.append(
            f"the grammar says {judged.mutant.expected}, not {sorted(codes)}: {verdicts(judged)[0][1].detail[:200]}"
        )
    if "EF_OK" in codes:
        found += accepted_faults(judged, loader)
    return found


def verdicts(judged: Judged) -> list[tuple[str, Verdict]]:
    own = [("loader", judged.loader)] if judged.loader is not None else []
    return [*own, *((f"python {version}", verdict) for version, verdict in judged.pythons.items())]


def accepted_faults(judged: Judged, loader: Path) -> list[str]:
    """What was accepted must be what was signed, in the eyes of code that shares nothing with the verifiers."""
    world = judged.world
    found = []
    if len({verdict.detail for _name, verdict in verdicts(judged)}) > 1:
        found.append("accepted with different signers")
    if world.tar.exists():
        unpack(world)
        if ask_loader(loader, world).code != "EF_OK":
            found.append("the tar is accepted, its files in a folder are not")
    if not holds_what_is_named(world):
        found.append("accepted, but the files are not the manifest's")
    if not openssh_agrees(world):
        found.append("accepted, but ssh-keygen refuses the signature")
    return found


def unpack(world: World) -> None:
    """The tar's regular members in place of the folder, by Python's own tarfile."""
    shutil.rmtree(world.root)
    with tarfile.open(world.tar) as tar:
        for member in tar.getmembers():
            path = world.root / member.name
            path.parent.mkdir(parents=True, exist_ok=True)
            file = tar.extractfile(member)
            assert file is not None
            path.write_bytes(file.read())
            path.chmod(member.mode)


def holds_what_is_named(world: World) -> bool:
    doc = json.loads((world.root / MANIFEST).read_bytes())
    there = {}
    for path in world.root.rglob("*"):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            return False
        name = str(path.relative_to(world.root))
        if path.is_file() and name not in (MANIFEST, SIGNATURE):
            data = path.read_bytes()
            mode = f"{path.stat().st_mode & 0o7777:04o}"
            there[name] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "mode": mode}
    return bool(there == doc["files"])


def openssh_agrees(world: World) -> bool:
    """The signature alone, by whichever of the two keys: trust is judged by `expected` and by agreement."""
    for key in (world.origin.key, world.origin.other):
        line = world.folder / "one_line"
        line.write_text(f"x {key.with_suffix('.pub').read_text()}")
        command = [
            "ssh-keygen",
            "-Y",
            "verify",
            "-f",
            str(line),
            "-I",
            "x",
            "-n",
            NAMESPACE,
            "-s",
            str(world.root / SIGNATURE),
        ]
        with (world.root / MANIFEST).open("rb") as manifest:
            if subprocess.run(command, check=False, stdin=manifest, capture_output=True).returncode == 0:
                return True
    return False


# The run


def batches(mutants: list[tuple[str, Mutant]], size: int) -> Iterable[list[tuple[str, Mutant]]]:
    for at in range(0, len(mutants), size):
        yield mutants[at : at + size]


def run(
    loader: Path, pythons: dict[str, str], count: int, seed: int = SEED
) -> tuple[list[Judged], dict[str, list[str]]]:
    """Judge `count` mutants of each class; returns them all, and what is wrong by mutant."""
    everything: list[Judged] = []
    wrong: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory(prefix="verifiers-") as temporary:
        Path(temporary).chmod(0o755)
        origin = make_origin(Path(temporary) / "origin")
        for number, batch in enumerate(batches(chosen(count, seed), 200)):
            folder = Path(temporary) / str(number)
            folder.mkdir()
            worlds = []
            for at, (rule, mutant) in enumerate(batch):
                world = make_world(folder / str(at), origin)
                mutant.change(world)
                worlds.append((rule, mutant, world))
            for judged in judge(loader, pythons, worlds):
                everything.append(judged)
                found = faults(judged, loader)
                if found:
                    wrong[f"{judged.rule}: {judged.mutant.name[:LONG_NAME]!a}"] = found
            shutil.rmtree(folder)
    return everything, wrong


def summary(everything: list[Judged], wrong: dict[str, list[str]], pythons: dict[str, str]) -> dict[str, Any]:
    codes = collections.Counter(next(iter(judged.pythons.values())).code for judged in everything)
    return {
        "mutants": len(everything),
        "classes": len({judged.rule for judged in everything}),
        "judged_by_both": sum(judged.loader is not None for judged in everything),
        "pythons": sorted(pythons),
        "codes": dict(sorted(codes.items())),
        "faults": len(wrong),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("loader", type=Path)
    parser.add_argument("--count", type=int, default=int(os.environ.get("EBPF_FLEET_MUTANTS", "40")))
    parser.add_argument("--seed", type=int, default=int(os.environ.get("EBPF_FLEET_SEED", str(SEED))))
    options = parser.parse_args()
    versions = (*PYTHONS, *MORE_PYTHONS)
    pythons = {version: path for version in versions if (path := find_python(version))}
    for version in versions:
        if version not in pythons:
            print(f"python{version} is not on this machine: its verdicts are not compared")
    everything, wrong = run(options.loader, pythons, options.count, options.seed)
    for name, found in wrong.items():
        print(name, *found, sep="\n    ")
    print(json.dumps(summary(everything, wrong, pythons), indent=2))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())


__all__ = ["PYTHONS", "RULES", "find_python", "mutants_time", "run", "summary"]
