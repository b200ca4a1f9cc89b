"""Both verifiers have one grammar: the same verdict and the same reason for every mutant and every case."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.loader.bundles import NAMESPACE, public_key, write
from tests.verifiers.differential import PYTHONS, ask_loader, ask_python, find_python, run, summary
from tests.verifiers.mutants import RULES
from tests.verifiers.world import PRINCIPAL, Origin, make_origin, make_world

CASES = json.loads(Path(__file__).with_name("cases.json").read_text())
COUNT = int(os.environ.get("EBPF_FLEET_MUTANTS", "5"))


@pytest.mark.parametrize("version", PYTHONS)
def test_the_interpreter_takes_part(version: str) -> None:
    if find_python(version) is None:
        pytest.skip(f"python{version} is not on this machine: its verdicts are not compared")


def test_no_mutant_divides_the_verifiers(loader: Path) -> None:
    pythons = {version: path for version in PYTHONS if (path := find_python(version))}
    everything, wrong = run(loader, pythons, COUNT)
    said = summary(everything, wrong, pythons)
    print(json.dumps(said, indent=2))
    assert not wrong, "\n".join(f"{name}: {found}" for name, found in list(wrong.items())[:20])
    assert said["classes"] == len(RULES) >= 30 and said["mutants"] == COUNT * len(RULES) > 200
    assert said["judged_by_both"] > 200
    # A run in which all is refused for one reason, or nothing is accepted, would have compared nothing.
    assert said["codes"]["EF_OK"] > 20 and len(said["codes"]) > 12


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Origin:
    """The good bundle that every case changes a copy of."""
    return make_origin(tmp_path_factory.mktemp("origin"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_the_table_of_cases(loader: Path, tmp_path: Path, origin: Origin, case: dict[str, str]) -> None:
    world = make_world(tmp_path / "world", origin)
    words = {
        "{key}": public_key(world.origin.key),
        "{other}": public_key(world.origin.other),
        "{good}": f'{PRINCIPAL} namespaces="{NAMESPACE}" {public_key(world.origin.key)}',
        "{signature}": world.origin.signature.decode(),
    }
    text = case["text"]
    for word, value in words.items():
        text = text.replace(word, value)
    if case["file"] == "manifest":
        old, new = (part.encode() for part in text.split(" => "))
        assert old in world.origin.manifest
        world.reseal(world.origin.manifest.replace(old, new, 1))
    else:
        place = {
            "allowed_signers": world.signers,
            "revoked_keys": world.revoked,
            "signature": world.root / "manifest.json.sig",
        }
        write(place[case["file"]], text.encode())
    python = find_python("3.11") or find_python("3.13")
    assert python is not None
    answers = [ask_loader(loader, world), *ask_python(python, [world])]
    assert [answer.code for answer in answers] == [case["code"]] * 2, answers
