# SPDX-License-Identifier: GPL-3.0-or-later
"""Both verifiers have one grammar: the same verdict and the same reason for every mutant and every case."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from tests.loader.bundles import NAMESPACE, canonical, public_key, write
from tests.verifiers.differential import PYTHONS, ask_loader, ask_python, find_python, run, summary
from tests.verifiers.mutants import RULES
from tests.verifiers.world import CONTRACT, PRINCIPAL, Origin, World, make_origin, make_world

pytestmark = pytest.mark.apart

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


# One rule each, said by both


def asked(loader: Path, world: World) -> list[str]:
    """The loader's code and that of every Python that is here."""
    pythons = [path for version in PYTHONS if (path := find_python(version))]
    return [ask_loader(loader, world).code, *(ask_python(path, [world])[0].code for path in pythons)]


GROUP_ORDER = 2**252 + 27742317777372353535851937790883648493


@pytest.mark.parametrize("times", [1, 2, 7, 15])
def test_another_form_of_the_signatures_number_is_refused(
    loader: Path, tmp_path: Path, origin: Origin, times: int
) -> None:
    """S + L verifies by the equation as S does: whoever does not hold S < L takes a second signature for one."""
    world = make_world(tmp_path / "world", origin)
    blob = world.blob()
    number = int.from_bytes(blob[-32:], "little")
    assert number < GROUP_ORDER and asked(loader, world)[0] == "EF_OK"
    blob[-32:] = (number + times * GROUP_ORDER).to_bytes(32, "little")
    world.set_blob(bytes(blob))
    codes = asked(loader, world)
    assert codes == ["EF_SIG_BAD"] * len(codes)


def with_contract(world: World, contract: object) -> None:
    """Put this contract (a document, or bytes as they stand) in the bundle, and seal it."""
    doc, data = world.doc, contract if isinstance(contract, bytes) else canonical(contract)
    write(world.root / CONTRACT, data)
    doc["files"][CONTRACT].update(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
    world.reseal(doc)


def named(*names: str) -> dict[str, object]:
    return {"feature": "runqlat", "variants": [{"name": name} for name in names]}


CONTRACTS: dict[str, tuple[object, str]] = {
    "the manifest's order": (named("full", "reduced"), "EF_OK"),
    "another order": (named("reduced", "full"), "EF_CONTRACT_MALFORMED"),
    "one less": (named("full"), "EF_CONTRACT_MALFORMED"),
    "one more": (named("full", "reduced", "perf"), "EF_CONTRACT_MALFORMED"),
    "one twice": (named("full", "full"), "EF_CONTRACT_MALFORMED"),
    "another name": (named("full", "Reduced"), "EF_CONTRACT_MALFORMED"),
    "none": (named(), "EF_CONTRACT_MALFORMED"),
    "an object": ({"variants": {"full": {}, "reduced": {}}}, "EF_CONTRACT_MALFORMED"),
    "null": ({"variants": None}, "EF_CONTRACT_MALFORMED"),
    "names alone": ({"variants": ["full", "reduced"]}, "EF_CONTRACT_MALFORMED"),
    "a number for a name": ({"variants": [{"name": 1}, {"name": "reduced"}]}, "EF_CONTRACT_MALFORMED"),
    "not said": ({"feature": "runqlat"}, "EF_OK"),
    "no object": ([named("reduced", "full")], "EF_OK"),
    "not canonical": (b'{"variants": []}\n', "EF_OK"),
    "not JSON": (b"variants: []\n", "EF_OK"),
}


@pytest.mark.parametrize("what", CONTRACTS)
def test_the_order_of_variants_is_the_manifests(loader: Path, tmp_path: Path, origin: Origin, what: str) -> None:
    world = make_world(tmp_path / "world", origin)
    contract, code = CONTRACTS[what]
    with_contract(world, contract)
    codes = asked(loader, world)
    assert codes == [code] * len(codes)


BEFORE, AFTER = 'valid-before="29980101Z"', 'valid-after="20200101Z"'
CLOCKS = {
    "no limit": ("", "EF_OK"),
    "a namespace": (f'namespaces="{NAMESPACE}"', "EF_OK"),
    "an end that is to come": (BEFORE, "EF_CLOCK_UNKNOWN"),
    "an end that is over": ('valid-before="20200101Z"', "EF_CLOCK_UNKNOWN"),
    "a beginning that was": (AFTER, "EF_CLOCK_UNKNOWN"),
    "a beginning that is to come": ('valid-after="29970101Z"', "EF_CLOCK_UNKNOWN"),
    "both": (f"{AFTER},{BEFORE}", "EF_CLOCK_UNKNOWN"),
    "another namespace with an end": (f'namespaces="git",{BEFORE}', "EF_SIG_NAMESPACE"),
}


@pytest.mark.parametrize("what", CLOCKS)
def test_a_clock_before_the_release_was_made_decides_nothing(
    loader: Path, tmp_path: Path, origin: Origin, what: str
) -> None:
    world = make_world(tmp_path / "world", origin)
    doc = world.doc
    doc["bundle"]["created"] = "2999-01-01T00:00:00Z"
    world.reseal(doc)
    options, code = CLOCKS[what]
    write(world.signers, f"me@x {options} {public_key(origin.key)}\n".encode())
    codes = asked(loader, world)
    assert codes == [code] * len(codes)


def test_a_line_without_a_limit_allows_beside_one_that_has(loader: Path, tmp_path: Path, origin: Origin) -> None:
    world = make_world(tmp_path / "world", origin)
    doc = world.doc
    doc["bundle"]["created"] = "2999-01-01T00:00:00Z"
    world.reseal(doc)
    key = public_key(origin.key)
    write(world.signers, f"a@x {BEFORE} {key}\nb@x {key}\n".encode())
    python = find_python("3.11") or find_python("3.13")
    assert python is not None
    answers = [ask_loader(loader, world), *ask_python(python, [world])]
    assert [(answer.code, answer.detail) for answer in answers] == [("EF_OK", "b@x")] * 2


def test_an_end_that_is_over_stays_so_where_the_clock_is_right(loader: Path, tmp_path: Path, origin: Origin) -> None:
    """And where the manifest is not one at all, the signer's fault is named, which is the first."""
    world = make_world(tmp_path / "world", origin)
    write(world.signers, f'me@x valid-before="20200101Z" {public_key(origin.key)}\n'.encode())
    codes = asked(loader, world)
    world.reseal(b"{}\n")
    codes += asked(loader, world)
    assert codes == ["EF_SIG_EXPIRED"] * len(codes)
