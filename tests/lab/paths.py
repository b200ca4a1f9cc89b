# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the lab keeps things. Everything but the inventory is under ``.cache/lab``."""

from __future__ import annotations

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = Path(__file__).resolve().parent
IMAGE_FILES = PACKAGE / "image_files"
SETTINGS = PACKAGE / "lab.yml"
CACHE = REPOSITORY / ".cache" / "lab"
INVENTORY = REPOSITORY / "inventories" / "lab" / "hosts.yml"

APT = CACHE / "apt"
QEMU = CACHE / "qemu"
USERLANDS = CACHE / "userlands"
KERNELS = CACHE / "kernels"
KEYS = CACHE / "keys"
SNAPSHOTS = CACHE / "snapshots"
RUN = CACHE / "run"
STATE_DISKS = CACHE / "state"
LOCK = CACHE / "lock"
KNOWN_HOSTS = CACHE / "known_hosts"
