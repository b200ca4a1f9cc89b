# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""desired.json: what the operator wants of BCC."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from ansible_collections.ebpf.fleet.collectors.fleet_bcc.basics import ENGINE, Reason
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.files import MAX_JSON_BYTES, read_regular
from ansible_collections.ebpf.fleet.plugins.module_utils.base import strictjson
from ansible_collections.ebpf.fleet.plugins.module_utils.contract.rules import NAME as FEATURE_NAME
from ansible_collections.ebpf.fleet.plugins.module_utils.contract.rules import U32_MAX

# As release/desired.py has them, which needs more than a host is sent; tests/unit/test_bcc_agrees.py holds both equal.
SCHEMA = "ebpf.fleet/desired/v1"
KEYS = ("schema", "bundle_digest", "features", "fallbacks")


class Desired(NamedTuple):
    """desired.json: the features' entries, and whether BCC is opted into. `error` says why it is not known."""

    features: dict[str, dict[str, Any]]
    bcc: bool
    error: Reason | None


def is_count(value: Any) -> bool:
    """Whether it is an integer from 1 to U32_MAX."""
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= U32_MAX


def check_desired(doc: Any, digest: str) -> Desired:
    """The document as a wish; raises ValueError with field and remedy."""
    if not isinstance(doc, dict) or doc.get("schema") != SCHEMA:
        raise ValueError(f"field 'schema': must be {SCHEMA}")
    for key in doc:
        if key not in KEYS:
            raise ValueError(f"field {key!r}: is not known here")
    if doc.get("bundle_digest", "") not in (None, digest):
        raise ValueError("field 'bundle_digest': is of another bundle than the one that runs")
    fallbacks, features = doc.get("fallbacks", []), doc.get("features")
    if not isinstance(fallbacks, list) or any(each != ENGINE for each in fallbacks):
        raise ValueError("field 'fallbacks': must be a list of fallbacks, and 'bcc' is the only one")
    if not isinstance(features, dict):
        raise ValueError("field 'features': must be an object")
    for name, entry in features.items():
        if not FEATURE_NAME.match(name) or not isinstance(entry, dict) or not isinstance(entry.get("enabled"), bool):
            raise ValueError(f"field {name!r}: must be a feature with 'enabled' true or false")
        if set(entry) - {"enabled", "sample_every"} or not is_count(entry.get("sample_every", 1)):
            raise ValueError(f"field {name!r}: has 'enabled' and 'sample_every', an integer from 1 to {U32_MAX}")
    return Desired(features, ENGINE in fallbacks, None)


def read_desired(path: Path, digest: str) -> Desired:
    """The desired state, or an error in its place."""
    try:
        return check_desired(strictjson.parse(read_regular(path, MAX_JSON_BYTES, follow=True)), digest)
    except FileNotFoundError:
        return Desired({}, False, Reason("EF_NO_DESIRED", f"there is no {path}"))
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        return Desired({}, False, Reason("EF_DESIRED_MALFORMED", f"{path}: {why}; deploy the release again"))
