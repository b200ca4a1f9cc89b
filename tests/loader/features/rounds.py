# SPDX-License-Identifier: GPL-3.0-or-later
"""The features in rounds: in round i each has its i-th variant only, so that every variant has its turn."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Mapping

from tests.loader.bundles import Trust, make_bundle
from tests.loader.service import FEATURES, contract_of, feature_of, roomy

HERE = Path(__file__).resolve().parent
NAMES = sorted(path.parent.name for path in FEATURES.glob("*/contract.yml"))
ROUNDS = max(len(contract_of(name)["variants"]) for name in NAMES)
FILES = ("driver.py", "workload.py")


def variant_of(name: str, number: int) -> str | None:
    """The feature's variant of that round, None when it has no more."""
    variants = contract_of(name)["variants"]
    return str(variants[number]["name"]) if number < len(variants) else None


def features_of(objects: Path, number: int) -> Mapping[str, Any]:
    """The features of a round as make_bundle() takes them."""
    turns = {name: variant_of(name, number) for name in NAMES}
    chosen = {name: feature_of(objects, name, (variant,)) for name, variant in turns.items() if variant}
    return {name: (roomy(contract), compiled) for name, (contract, compiled) in chosen.items()}


def make_round(folder: Path, number: int, objects: Path, loader: Path, trust: Trust) -> Path:
    """A folder with all that a host needs for a round: bundle, trust, loader, driver and workload."""
    target = folder / f"round{number}"
    make_bundle(target / "bundle", trust.key, features_of(objects, number), loader=loader)
    shutil.copy(trust.signers, target / "signers")
    shutil.copy(loader, target / "ebpf-loader")
    for name in FILES:
        shutil.copy(HERE / name, target / name)
    return target


def command(folder: str) -> str:
    """The shell command that runs a round from its folder on a host."""
    return f"cd {folder} && python3 driver.py ./ebpf-loader $PWD/bundle $PWD/signers $PWD/workload.py"
