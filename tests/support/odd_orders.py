# SPDX-License-Identifier: GPL-3.0-or-later
"""Files in a folder of orders, and whether `runqlat` is off by them: one table for every reader."""

from __future__ import annotations

# FAMILY and DISTRO stand for the host's own families, such as 6.1 and debian-6.1.
ORDERS: dict[str, bool] = {
    "global": True,
    "feature.runqlat": True,
    "family.FAMILY": True,
    "family.DISTRO": True,
    "Global": False,
    "global.": False,
    "global ": False,
    "global~": False,
    "global.swp": False,
    ".global": False,
    "#global#": False,
    "globl": False,
    "feature": False,
    "feature.": False,
    "feature.exec_events": False,
    "feature.RUNQLAT": False,
    "feature.runqlat ": False,
    "feature.runqlat.tmp": False,
    "feature.runqla": False,
    ".feature.runqlat": False,
    "feature=runqlat": False,
    "features.runqlat": False,
    "family.": False,
    "family.9.99": False,
    "family.FAMILY.1": False,
    "family.0FAMILY": False,
    "family.FAMILY ": False,
    "family.debian": False,
    "ünï": False,
    "a\nb": False,
    "x" * 255: False,
}

# What a family is called, and whether a file `family.…` of that name is an order at all. One that is not concerns no
# host and is told as a typo; one that is may be another host's.
FAMILIES: dict[str, bool] = {
    "6.1": True,
    "9.99": True,
    "debian-6.1": True,
    "amazon-linux-6.1": True,
    "06.01": True,
    "": False,
    "6": False,
    "6.": False,
    ".1": False,
    "-6.1": False,
    "6.1.0": False,
    "6.1-": False,
    "6.x": False,
    "6.+1": False,
    "6.-1": False,
    "+6.1": False,
    "6. 1": False,
    " 6.1": False,
    "6.1 ": False,
    "6,1": False,
    "debian": False,
    "debian-": False,
    "debian6.1": False,
    "debian- 6.1": False,
    "debian--6.1": False,
    "-debian-6.1": False,
    "debian 12-6.1": False,
    "d\u00e9bian-6.1": False,
    "opensuse_leap.15-6.4": True,
}


def named(name: str, family: str, distro_family: str) -> str:
    """The file's name on a host of these families."""
    return name.replace("FAMILY", family).replace("DISTRO", distro_family)
