# SPDX-License-Identifier: GPL-3.0-or-later
"""Real bundles, real keys and a host's tree in a folder, for the tests of the release."""

from __future__ import annotations

import atexit
import functools
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from ansible_collections.ebpf.fleet.plugins.module_utils.bundle import contracts, writer
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle import files as bd
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.collector_files import collector_files
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.request import BuildRequest
from ansible_collections.ebpf.fleet.plugins.module_utils.release.desired import resolve_features

REPO = Path(__file__).resolve().parents[2]
NAMESPACE = "ebpf-fleet-release"
PRINCIPAL = "release@example.org"
CREATED = "2026-11-23T18:00:00Z"
LOADER_FILE = f"loader/{platform.machine()}/ebpf-loader"
FILES = (
    *(f"features/{name}/{file}" for name in ("exec_events", "runqlat") for file in (
        "bcc.c", "contract.json", "full.bpf.o", "reduced.bpf.o")),
    "features/exec_events/perf.bpf.o",
    *sorted(collector_files(REPO)),
    LOADER_FILE,
    "manifest.json",
    "manifest.json.sig",
)  # fmt: skip
# Those in which there is a byte to change; a package of the collector may have an empty __init__.py.
FILLED = tuple(path for path in FILES if collector_files(REPO).get(path) != b"")

# Runs the real module with the arguments of standard input. With KILL_AT=n the
# process gets SIGKILL just before its n-th act on a path below KILL_ROOT.
DRIVER = """
import importlib, os, signal, sys
from ansible.module_utils import basic
basic._ANSIBLE_ARGS = sys.stdin.buffer.read()
basic._ANSIBLE_PROFILE = "legacy"
module = importlib.import_module("ansible_collections.ebpf.fleet.plugins.modules." + sys.argv[1])
at, root, acts, me = int(os.environ.get("KILL_AT", "0")), os.environ.get("KILL_ROOT"), [0], os.getpid()
ACTS = ("open", "os.mkdir", "os.rename", "os.symlink", "os.remove", "os.rmdir", "os.chmod", "subprocess.Popen")
def hook(event, arguments):
    if event not in ACTS or os.getpid() != me or not any(root in str(item) for item in arguments):
        return
    acts[0] += 1
    if acts[0] == at:
        os.kill(os.getpid(), signal.SIGKILL)
if root:
    sys.addaudithook(hook)
try:
    module.main()
finally:
    print("acts: %d" % acts[0], file=sys.stderr)
"""


def environment(**extra: str) -> dict[str, str]:
    """The environment of a controller that runs from this checkout."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    variables = {
        "PATH": path,
        "PYTHONPATH": str(REPO / "collections"),
        "ANSIBLE_CONFIG": str(REPO / "ansible.cfg"),
        "ANSIBLE_NOCOLOR": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return {**os.environ, **variables, **extra}


def run_module(
    name: str, arguments: dict[str, Any], check: bool = False, python: str = sys.executable, **extra: str
) -> tuple[dict[str, Any] | None, subprocess.CompletedProcess[str]]:
    """Run a module's main(); the result is None if the process was killed."""
    options = {"_ansible_check_mode": check, "_ansible_diff": True}
    done = subprocess.run(
        [python, "-c", DRIVER, name],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": {**arguments, **options}}),
        capture_output=True,
        text=True,
        check=False,
        env=environment(**extra),
        timeout=300,
    )
    return (json.loads(done.stdout) if done.stdout.strip() else None), done


def run_ansible(
    module: str, arguments: dict[str, Any], check: bool = False, python: str = sys.executable
) -> dict[str, Any]:
    """Run one task by ansible-playbook on this machine; returns its result."""
    with tempfile.TemporaryDirectory(prefix="ebpf-fleet-play-") as folder:
        answer = Path(folder, "answer.json")
        task = {f"ebpf.fleet.{module}": arguments, "register": "result", "ignore_errors": True}
        keep = {
            "ansible.builtin.copy": {"content": "{{ result | to_json }}", "dest": str(answer), "mode": "0600"},
            "check_mode": False,
            "diff": False,
        }
        play = {"hosts": "all", "connection": "local", "gather_facts": False, "tasks": [task, keep]}
        Path(folder, "play.yml").write_text(json.dumps([play]))
        command = ["ansible-playbook", "-i", "localhost,", "-e", f"ansible_python_interpreter={python}", "--diff"]
        done = subprocess.run(
            [*command, *(["--check"] if check else []), str(Path(folder, "play.yml"))],
            capture_output=True,
            text=True,
            check=False,
            env=environment(),
            cwd=REPO,
            timeout=300,
        )
        assert answer.exists(), done.stdout + done.stderr
        return dict(json.loads(answer.read_text()))


@functools.lru_cache(maxsize=None)
def keys_folder() -> Path:
    """Where this run's keys lie; gone when it ends."""
    folder = tempfile.mkdtemp(prefix="ebpf-fleet-keys-")
    atexit.register(shutil.rmtree, folder)
    return Path(folder)


def make_key(name: str = "release", kind: str = "ed25519") -> Path:
    """A key pair without a passphrase, made once for each name; the private key's path."""
    key = keys_folder() / f"{name}-{kind}"
    if key.exists():
        return key
    command = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", name, "-f", str(key)]
    subprocess.run(command, check=True, capture_output=True)
    return key


def public_key(key: Path) -> str:
    """TYPE and BASE64 of a key pair."""
    return " ".join(Path(f"{key}.pub").read_text().split()[:2])


def order(version: str, sequence: int, key: Path, **changes: Any) -> BuildRequest:
    """What the tests build: the repository's own features."""
    standard = BuildRequest(
        name="ebpf-fleet",
        version=version,
        sequence=sequence,
        created=CREATED,
        features=contracts.find_features([REPO / "bpf/features"], ["exec_events", "runqlat"]),
        source=REPO / "bpf",
        build_dir=REPO / "build",
        loaders={},
        signing_key=key,
        compatibility={"summary": [], "known_disabled": []},
    )
    return standard._replace(**changes)


@functools.lru_cache(maxsize=None)
def make_bundle(version: str = "1.0.0", sequence: int = 1, key_name: str = "release") -> bd.Bundle:
    """A real signed bundle, built once for each set of arguments."""
    built = writer.build(order(version, sequence, make_key(key_name)))
    return as_bundle(built.members)


def as_bundle(members: dict[str, bd.Member]) -> bd.Bundle:
    """Read members back as any consumer does."""
    with tempfile.NamedTemporaryFile(suffix=".tar") as file:
        file.write(bd.tar_bytes(members, bd.epoch_of(CREATED)))
        file.flush()
        return bd.load_bundle(file.name)


def sign_again(data: bytes, key: Path, namespace: str = NAMESPACE) -> bytes:
    """A signature of these bytes."""
    command = ["ssh-keygen", "-Y", "sign", "-n", namespace, "-f", str(key)]
    return subprocess.run(command, input=data, check=True, capture_output=True).stdout


class FolderHost:
    """A host whose root is a folder; ``template`` is another one to begin as."""

    def __init__(self, root: Path, template: FolderHost | None = None) -> None:
        self.root = root
        self.trust = root / "etc/ebpf-fleet/trust"
        self.base = root / "var/lib/ebpf-fleet"
        if template is not None:
            self._copy(template)
            return
        self.trust.mkdir(parents=True)
        self.allow(make_key())

    def _copy(self, template: FolderHost) -> None:
        subprocess.run(["cp", "-a", str(template.root), str(self.root)], check=True)
        link = self.root / "etc/ebpf-fleet/desired.json"
        link.unlink()
        link.symlink_to(self.base / "current/desired.json")

    def allow(self, key: Path, options: str = f'namespaces="{NAMESPACE}"') -> None:
        """Trust this key and no other."""
        path = self.trust / "allowed_signers"
        path.write_text(" ".join(f"{PRINCIPAL} {options} {public_key(key)}".split()) + "\n")
        path.chmod(0o644)

    def arguments(self, **changes: Any) -> dict[str, Any]:
        return {"root": str(self.root), "service": "", **changes}

    def deploy(self, bundle: bd.Bundle, check: bool = False, **changes: Any) -> dict[str, Any]:
        """What the action plugin does, without ansible: ask, and send if the host lacks the bundle."""
        features = resolve_features(changes.pop("features", None), bundle.contracts)
        return self.deploy_raw(bundle.members, features, check, **changes)

    def deploy_raw(
        self, members: dict[str, bd.Member], features: dict[str, Any], check: bool = False, **changes: Any
    ) -> dict[str, Any]:
        """Send these members as they are, good or not, past the controller's own checks."""
        asked = self.questions(members, features, **changes)
        result, done = run_module("release", asked, check)
        assert result is not None, done.stderr
        if not result.get("needs_archive"):
            return result
        with tempfile.NamedTemporaryFile(suffix=".tar") as file:
            file.write(bd.tar_bytes(members, bd.epoch_of(CREATED)))
            file.flush()
            result, done = run_module("release", {**asked, "archive": file.name}, check)
        assert result is not None, done.stderr
        return result

    def questions(self, members: dict[str, bd.Member], features: dict[str, Any], **changes: Any) -> dict[str, Any]:
        """The arguments of the module's first execution."""

        def text(path: str) -> str:
            return members[path].data.decode("utf-8", "replace") if path in members else ""

        return self.arguments(
            manifest=text("manifest.json"), signature=text("manifest.json.sig"), features=features, **changes
        )

    def module(self, check: bool = False, **changes: Any) -> dict[str, Any]:
        result, done = run_module("release", self.arguments(**changes), check)
        assert result is not None, done.stderr
        return result

    def current(self) -> str | None:
        link = self.base / "current"
        return Path(os.readlink(link)).name if link.is_symlink() else None

    def previous(self) -> str | None:
        link = self.base / "previous"
        return Path(os.readlink(link)).name if link.is_symlink() else None

    def releases(self) -> list[str]:
        folder = self.base / "releases"
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []

    def listing(self, times: bool = False) -> list[tuple[Any, ...]]:
        """Everything below the root; with ``times`` also when it was last changed."""
        return [self._entry(path, times) for path in sorted(self.root.rglob("*")) if path.name != ".lock"]

    def _entry(self, path: Path, times: bool) -> tuple[Any, ...]:
        info = path.lstat()
        shown: Any = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        return (str(path), info.st_mode, shown, *((info.st_mtime_ns, info.st_ctime_ns) if times else ()))

    def loader_verifies(self) -> bool:
        """Whether the current release's own loader accepts its bundle."""
        release = self.base / "current"
        command = [str(release / "ebpf-loader"), "verify", str(release / "bundle"), "--self"]
        command += ["--trust", str(self.trust / "allowed_signers")]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
