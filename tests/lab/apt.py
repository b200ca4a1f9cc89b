# SPDX-License-Identifier: GPL-3.0-or-later
"""Debian packages of suites that this machine does not use, without touching its own apt state.

Mirrors, keyrings and proxies are those of the machine: its sources say where Debian is, its
apt.conf (proxies, certificates) and auth.conf stay in force because only Dir::State, Dir::Cache
and the source list are replaced.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import re
import subprocess
import threading
from collections import defaultdict
from pathlib import Path
from typing import Iterable, Iterator
from urllib.parse import quote

from . import paths
from .errors import LabError
from .system import run, write_text

_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_CARRIED_OVER = re.compile(
    r"Acquire::https?::(.*::)?(Proxy|Proxy-Auto-Detect|CaInfo|Verify-Peer|Verify-Host)(::\S*)?$",
    re.IGNORECASE,
)
_SUITES = ("bullseye", "bookworm", "trixie", "forky", "sid", "stable", "testing", "unstable", "oldstable")
_worlds: defaultdict[tuple[str, ...], threading.Lock] = defaultdict(threading.Lock)
_updated: set[tuple[str, ...]] = set()


@dataclasses.dataclass(frozen=True)
class Source:
    """One archive: `suites` as the machine lists them, `signed_by` a path, a key block or empty."""

    uri: str
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str


@dataclasses.dataclass(frozen=True)
class Package:
    """One version of a package as the archive describes it."""

    name: str
    version: str
    depends: tuple[str, ...]


def stanzas(text: str) -> Iterator[dict[str, str]]:
    """The stanzas of a deb822 text: field names in lower case, continuation lines kept."""
    for block in re.split(r"\n[ \t]*\n", text):
        fields: dict[str, str] = {}
        name = ""
        for line in block.splitlines():
            if line.startswith("#"):
                continue
            if line[:1].isspace() and name:
                fields[name] = f"{fields[name]}\n{line.strip()}".lstrip("\n")
            elif ":" in line:
                name, _, value = line.partition(":")
                name = name.strip().lower()
                fields[name] = value.strip()
        if fields:
            yield fields


def deb822_sources(text: str) -> list[Source]:
    """The binary archives that a .sources file enables."""
    found = []
    for fields in stanzas(text):
        enabled = fields.get("enabled", "yes").lower() != "no"
        if not enabled or "deb" not in fields.get("types", "").split():
            continue
        suites, components = fields.get("suites", "").split(), fields.get("components", "").split()
        for uri in fields.get("uris", "").split():
            found.append(Source(uri, tuple(suites), tuple(components), fields.get("signed-by", "")))
    return found


def classic_sources(text: str) -> list[Source]:
    """The binary archives of a one-line-style .list file."""
    found = []
    for line in text.splitlines():
        match = re.match(r"\s*deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)((?:\s+[^\s#]+)*)", line)
        if not match:
            continue
        options = dict(word.split("=", 1) for word in (match[1] or "").split() if "=" in word)
        found.append(Source(match[2], (match[3],), tuple(match[4].split()), options.get("signed-by", "")))
    return found


def machine_sources(folder: Path) -> list[Source]:
    """Every archive in sources.list and sources.list.d below `folder`."""
    found = []
    listed = folder / "sources.list"
    for path in [*([listed] if listed.is_file() else []), *sorted((folder / "sources.list.d").glob("*"))]:
        if path.suffix == ".sources":
            found += deb822_sources(path.read_text())
        elif path.suffix == ".list":
            found += classic_sources(path.read_text())
    return found


def debian_archive(sources: Iterable[Source]) -> Source:
    """The machine's main Debian archive, the one that carries a whole suite."""
    for source in sources:
        if "main" in source.components and any(suite in _SUITES for suite in source.suites):
            return source
    raise LabError(
        "no Debian archive among this machine's apt sources: the lab builds its guests from Debian,"
        " add a 'deb' source with a suite such as bookworm and the component main"
    )


def source_text(archive: Source, suites: Iterable[str]) -> str:
    """A deb822 stanza for other suites of the same archive."""
    signed_by = archive.signed_by or _KEYRING
    lines = signed_by.strip().splitlines()
    key = f" {lines[0]}" if len(lines) == 1 else "".join(f"\n {line}" for line in lines)
    return f"Types: deb\nURIs: {archive.uri}\nSuites: {' '.join(suites)}\nComponents: main\nSigned-By:{key}\n"


@functools.lru_cache(maxsize=None)
def _archive() -> Source:
    return debian_archive(machine_sources(Path("/etc/apt")))


def sources_file(suites: Iterable[str]) -> Path:
    """A .sources file that names the machine's mirror for `suites`."""
    wanted = tuple(suites)
    path = paths.APT / "-".join(wanted) / "sources" / "lab.sources"
    text = source_text(_archive(), wanted)
    if not path.exists() or path.read_text() != text:
        write_text(path, text)
    return path


class Root:
    """An apt world of its own: nothing installed, only the given suites."""

    def __init__(self, suites: Iterable[str]) -> None:
        self.suites = tuple(suites)
        self.folder = paths.APT / "-".join(self.suites)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Hold this world: apt refuses two at a time, and several kernels come from one suite."""
        with _worlds[self.suites]:
            yield

    def options(self) -> list[str]:
        """Options for apt-get and apt-cache that lead to this world."""
        state, cache = self.folder / "state", self.folder / "cache"
        settings = {
            "Dir::Etc::SourceList": "/dev/null",
            "Dir::Etc::SourceParts": self.folder / "sources",
            "Dir::State": state,
            "Dir::State::status": state / "status",
            "Dir::Cache": cache,
            "APT::Architecture": "amd64",
            "APT::Architectures": "amd64",
            "APT::Sandbox::User": "root",
            "APT::Default-Release": "",
            "Acquire::Languages": "none",
            "Acquire::Check-Valid-Until": "false",
            "Acquire::Retries": "3",
        }
        return [f"-o{key}={value}" for key, value in settings.items()]

    def update(self) -> None:
        """Fetch the package lists, once in this process."""
        if self.suites in _updated:
            return
        sources_file(self.suites)
        for part in ("state/lists/partial", "cache/archives/partial"):
            (self.folder / part).mkdir(parents=True, exist_ok=True)
        (self.folder / "state" / "status").touch()
        run(["apt-get", *self.options(), "update", "-q"], f"package lists of {', '.join(self.suites)}")
        _updated.add(self.suites)

    def newest(self, pattern: str) -> Package:
        """The package with the highest version of those whose whole name matches `pattern`."""
        names = run(["apt-cache", *self.options(), "pkgnames"], "package names").split()
        matching = [name for name in names if re.fullmatch(pattern, name)]
        found: Package | None = None
        for package in self._show(matching):
            if found is None or _later(package.version, found.version):
                found = package
        if found is None:
            raise LabError(f"no package of {', '.join(self.suites)} matches {pattern}: correct it in lab.yml")
        return found

    def _show(self, names: list[str]) -> list[Package]:
        if not names:
            return []
        argv = ["apt-cache", *self.options(), "show", "--no-all-versions", *names]
        return [
            Package(fields["package"], fields["version"], dependencies(fields.get("depends", "")))
            for fields in stanzas(run(argv, "package descriptions"))
        ]

    def with_parts(self, package: Package) -> list[str]:
        """The package and those it depends on, in turn, whose name ends as its own does."""
        ending = package.name.split("-", 2)[-1]
        found, queue = [], [package]
        while queue:
            current = queue.pop()
            if current.name in found:
                continue
            found.append(current.name)
            queue += self._show([name for name in current.depends if name.endswith(ending)])
        return sorted(found)

    def download(self, names: Iterable[str], folder: Path) -> list[Path]:
        """Fetch the packages themselves, checked by apt, into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        run(["apt-get", *self.options(), "download", "-q", *names], f"download {' '.join(names)}", cwd=folder)
        return sorted(folder.glob("*.deb"))

    def download_from_pool(self, path: str, digest: str, folder: Path) -> Path:
        """Fetch a package that the index no longer names; apt takes it only with this SHA-256."""
        uri = f"{_archive().uri.rstrip('/')}/{quote(path)}"
        file = folder / path.rpartition("/")[2]
        argv = ["/usr/lib/apt/apt-helper", *self.options(), "download-file", uri, str(file), f"SHA256:{digest}"]
        run(argv, f"download {file.name}, which only the archive's pool still has")
        return file

    def download_closure(self, name: str, release: str) -> list[Path]:
        """Fetch a package with everything it needs, as if nothing were installed."""
        argv = ["apt-get", *self.options(), "install", "-q", "-y", "--download-only"]
        argv += ["--no-install-recommends", "-t", release, name]
        run(argv, f"download {name} and its libraries")
        return sorted((self.folder / "cache" / "archives").glob("*.deb"))

    def clean(self) -> None:
        """Drop downloaded packages; what was made of them is in the cache."""
        run(["apt-get", *self.options(), "clean"], "clean the package cache")


def dependencies(field: str) -> tuple[str, ...]:
    """The names in a Depends field, without versions; the first of each set of alternatives."""
    parts = (part.strip() for part in field.split(","))
    return tuple(re.split(r"[\s(|:]", part, maxsplit=1)[0] for part in parts if part)


def _later(left: str, right: str) -> bool:
    return subprocess.run(["dpkg", "--compare-versions", left, "gt", right], check=False).returncode == 0


def proxy_options() -> list[str]:
    """The machine's own apt settings that mmdebstrap would not take over: proxies, certificates."""
    dump = run(["apt-config", "dump", "--format", "%F %v%n"], "apt configuration")
    pairs = (line.split(" ", 1) for line in dump.splitlines() if " " in line)
    kept = [(key, value) for key, value in pairs if _CARRIED_OVER.match(key) and value.strip()]
    for key, path in (("netrc", "/etc/apt/auth.conf"), ("netrcparts", "/etc/apt/auth.conf.d")):
        if Path(path).exists():
            kept.append((f"Dir::Etc::{key}", path))
    return [f'{key} "{value}"' for key, value in kept]
