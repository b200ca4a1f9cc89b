# SPDX-License-Identifier: GPL-3.0-or-later
"""`verify` under ASan, UBSan and LSan: no byte is read that is not there, and none stays allocated."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, Callable

import pytest

from tests.loader.bundles import Bundle, Trust, make_bundle, public_key
from tests.loader.drivers import build
from tests.loader.service import contract_of

pytestmark = pytest.mark.apart

NEEDED = ("base/*.c", "bundle/*.c", "cmd/verify.c", "kernel/kernel.c", "kernel/bpfnames.c", "kernel/requirement.c")


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("verify"), "verify", NEEDED)


@pytest.fixture
def bundle(tmp_path: Path, signing_key: Path) -> Bundle:
    """Of two features, whose objects are only bytes."""
    features = {}
    for name in ("runqlat", "exec_events"):
        contract = contract_of(name)
        features[name] = (contract, {each["name"]: name.encode() for each in contract["variants"]})
    return make_bundle(tmp_path / "bundle", signing_key, features)


def verify(driver: Path, bundle: Bundle, trust: Trust) -> tuple[int, dict[str, Any]]:
    command = [str(driver), "verify", str(bundle.root), *trust.arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode in (0, 48), done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return done.returncode >> 4, document


def test_a_good_bundle(driver: Path, bundle: Bundle, trust: Trust) -> None:
    code, told = verify(driver, bundle, trust)
    assert (code, told["ok"], told["digest"]) == (0, True, bundle.digest)
    assert told["features"] == ["exec_events", "runqlat"]


def cut_manifest(bundle: Bundle) -> None:
    bundle.manifest_path.write_bytes(bundle.manifest_path.read_bytes()[:-9])


def change_object(bundle: Bundle) -> None:
    (bundle.root / "features/runqlat/full.bpf.o").write_bytes(b"other")


def add_file(bundle: Bundle) -> None:
    (bundle.root / "features/runqlat/more").write_bytes(b"")


def with_manifest(**changes: Any) -> Callable[[Bundle], None]:
    def change(bundle: Bundle) -> None:
        bundle.write_manifest({**bundle.manifest, **changes})

    return change


@pytest.mark.parametrize(
    "spoil",
    [cut_manifest, change_object, add_file, with_manifest(schema="x"), with_manifest(features={"A": 1}),
     with_manifest(files={}), with_manifest(loader={"version": "1", "files": {"x86_64": "none"}}),
     with_manifest(bundle={"name": "x"}), lambda bundle: bundle.write_manifest(b"{"),
     lambda bundle: bundle.signature_path.write_bytes(b"-----BEGIN SSH SIGNATURE-----\nAAAA\n"),
     lambda bundle: bundle.signature_path.unlink()],
)  # fmt: skip
def test_a_bundle_that_is_refused(driver: Path, bundle: Bundle, trust: Trust, spoil: Callable[[Bundle], None]) -> None:
    spoil(bundle)
    code, told = verify(driver, bundle, trust)
    assert (code, told["ok"]) == (3, False) and told["reason_code"].startswith("EF_")


@pytest.mark.parametrize(
    "lines", ["", "x\n", "a@b ssh-ed25519 AAAA\n", 'a@b namespaces="x ssh-ed25519 AAAA\n', "\x01\n"]
)
def test_trust_files_that_trust_nobody(driver: Path, bundle: Bundle, trust: Trust, lines: str) -> None:
    trust.signers.write_text(lines, encoding="utf-8")
    assert verify(driver, bundle, trust)[0] == 3


@pytest.mark.parametrize(
    ("sign", "code"), [("\x01", 3), ("\x02", 3), ("\x1f", 3), ("\x7f", 3), ("\t", 0), (" ", 0), ("~", 0), ("\x80", 0)]
)
def test_a_signer_whose_comment_holds_a_control_character_is_left_out(
    driver: Path, bundle: Bundle, trust: Trust, sign: str, code: int
) -> None:
    signers = trust.signers.read_text(encoding="utf-8").rstrip("\n")
    trust.signers.write_bytes(f"{signers} one{sign}two\n".encode("latin-1"))
    assert verify(driver, bundle, trust)[0] == code


@pytest.mark.parametrize(
    ("sign", "code"), [("\x01", 3), ("\x02", 3), ("\x1f", 3), ("\x7f", 3), ("\t", 0), (" ", 0), ("~", 0), ("\x80", 0)]
)
@pytest.mark.parametrize("line", ["key", "comment"])
def test_a_control_character_in_the_revoked_keys_refuses_the_whole_file(
    driver: Path, bundle: Bundle, trust: Trust, other_key: Path, sign: str, code: int, line: str
) -> None:
    """A line that is left out there would trust a key that somebody meant to revoke."""
    begin = public_key(other_key) if line == "key" else "# revoked"
    trust.revoked.write_bytes(f"{begin} one{sign}two\n".encode("latin-1"))
    found, told = verify(driver, bundle, trust)
    assert found == code
    assert not code or told["reason_code"] == "EF_TRUST_MALFORMED"
