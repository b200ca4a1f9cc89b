# SPDX-License-Identifier: GPL-3.0-or-later
"""Image-based systems: we need nothing that they cannot write to, /usr or all but /etc, /var and /run."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.support.sysfleet import SysFleet, status
from tests.support.syshost import SysHost

# What is mounted read-only, by the command that does it, and a file that then cannot be made.
READ_ONLY = {
    "usr": ("mount --bind /usr /usr && mount -o remount,bind,ro /usr", "/usr/lib/systemd/system/x"),
    "all but etc and var": (
        # Busy as long as a service that is still starting has a file open to write.
        "for place in /etc /var; do mount --bind $place $place; done; "
        "for _ in $(seq 50); do mount -o remount,bind,ro / 2>/dev/null && exit 0; sleep 0.2; done; exit 1",
        "/opt/x",
    ),
    "usr and var-lib of its own": (
        "mount -t tmpfs -o mode=0755 tmpfs /var/lib && mount --bind /usr /usr && mount -o remount,bind,ro /usr",
        "/usr/lib/tmpfiles.d/x",
    ),
}
OURS = (
    "/etc/systemd/system/ebpf-fleet-loader.service",
    "/etc/sysusers.d/ebpf-fleet.conf",
    "/etc/tmpfiles.d/ebpf-fleet.conf",
)


@pytest.fixture(params=sorted(READ_ONLY))
def image_based(request: pytest.FixtureRequest, can_boot: None) -> Iterator[SysHost]:
    """A host whose image cannot be written to."""
    command, refused = READ_ONLY[request.param]
    with SysHost.boot() as host:
        host.must(command)
        assert "Read-only file system" in host.run(f"touch {refused}").stderr
        yield host


@pytest.mark.sample(1)
def test_prepare_and_deploy_write_only_where_the_host_can(
    image_based: SysHost, tmp_path_factory: pytest.TempPathFactory
) -> None:
    fleet = SysFleet(tmp_path_factory.mktemp("fleet"), [image_based])
    release = fleet.release("1.0.0", 1, ("runqlat",))
    # This checkout may lie there: only what a deployment adds is its own.
    of_the_image = "find /usr /opt /srv -name '*ebpf-fleet*' 2>/dev/null | sort"
    before = image_based.must(of_the_image)
    fleet.deploy(release)
    found = status(image_based)
    assert (found["state"], found["bundle"]["digest"]) == ("running", release.digest)
    assert found["features"]["runqlat"]["state"] == "attached"
    for path in OURS:
        image_based.must(f"test -s {path}")
    assert image_based.must(of_the_image) == before
    assert image_based.must("id -u ebpf-fleet").strip() not in ("", "0")
    assert image_based.must("systemctl is-enabled ebpf-fleet-loader.service").strip() == "enabled"
    # And once more: it is as it shall be, and nothing is tried again.
    played = fleet.try_deploy(release)
    assert played.rc == 0 and "changed=0" in played.text, played.text
    # After a restart, as after a boot, it comes back by what was written.
    image_based.must("systemctl restart ebpf-fleet-loader.service")
    assert image_based.must("systemctl is-active ebpf-fleet-loader.service").strip() == "active"


def test_a_host_where_etc_cannot_be_written_is_told_by_the_file(
    can_boot: None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with SysHost.boot() as host:
        host.must("mount --bind /etc /etc && mount -o remount,bind,ro /etc")
        fleet = SysFleet(tmp_path_factory.mktemp("fleet"), [host])
        played = fleet.try_deploy(fleet.release("1.0.0", 1, ("runqlat",)))
        assert played.rc != 0
        assert "cannot write /etc/" in played.text and os.strerror(30) in played.text, played.text
