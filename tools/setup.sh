#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Brings a fresh Debian 12 machine to where everything here can be built and
# tested: Debian packages, and a virtual environment in .cache/venv. A second
# run finds all of it there and does nothing.
set -eu
cd "$(dirname "$0")/.."

say() { printf 'setup: %s\n' "$*" >&2; }

packages="$(sed -e 's/#.*//' tools/packages.txt | tr '\n' ' ')"
want="$(cat tools/packages.txt requirements.txt tools/setup.sh | sha256sum | cut -d' ' -f1)"
stamp=.cache/setup.stamp
missing=""
for package in $packages; do
	dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
if [ -z "$missing" ] && [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$want" ] && .cache/venv/bin/ansible --version >/dev/null 2>&1; then
	exit 0
fi

[ "$(id -u)" = 0 ] || { say "run this as root or with sudo: packages are missing or new"; exit 1; }
command -v apt-get >/dev/null || { say "no apt-get here: this set-up knows Debian 12 and its kin"; exit 1; }

if [ -n "$missing" ]; then
	say "installing Debian packages:$missing"
	apt-get update -qq
	# shellcheck disable=SC2086  # a list of words on purpose
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >.cache-setup.log 2>&1 || {
		tail -n 20 .cache-setup.log >&2
		say "apt-get install failed; the whole output is in .cache-setup.log"
		exit 1
	}
	rm -f .cache-setup.log
fi

mkdir -p .cache
say "installing the controller's Python packages into .cache/venv"
[ -x .cache/venv/bin/python ] || python3 -m venv .cache/venv
.cache/venv/bin/python -m pip install --quiet --requirement requirements.txt 2>.cache/pip.log || {
	tail -n 20 .cache/pip.log >&2
	say "pip failed; the whole output is in .cache/pip.log"
	exit 1
}
printf '%s\n' "$want" >"$stamp"
say "done"
