#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Every linter, each named as it runs; ends with failure if any found something.
set -u
cd "$(dirname "$0")/.." || exit 1
PATH="$PWD/.cache/venv/bin:$PATH"
bad=0
run() {
	printf 'lint: %s\n' "$1" >&2
	shift
	"$@" || bad=1
}
run "ruff" ruff check .
run "ruff format" ruff format --check --quiet .
# The parts of the scripts of kill and forensics are sent to hosts as they are; those have no room for it.
git ls-files -z '*.py' '*.c' '*.h' '*.sh' '.ci/run' ':!plugins/module_utils/kill/parts' \
	':!plugins/module_utils/incident/parts' |
	xargs -0 sh -c 'printf "lint: licence headers\n" >&2; grep -L -m 1 "SPDX-License-Identifier: GPL-" "$@" | { ! grep .; }' sh || bad=1
# By its name as a collection, so that types are known across modules.
run "mypy on the BCC collector" env MYPYPATH=collections mypy --namespace-packages -p ansible_collections.ebpf.fleet.collectors.fleet_bcc
run "mypy on module_utils" env MYPYPATH=collections mypy --namespace-packages -p ansible_collections.ebpf.fleet.plugins.module_utils
run "mypy on the event source" env MYPYPATH=collections mypy --namespace-packages extensions/eda/plugins/event_source/*.py
run "yamllint" yamllint --strict .
# The setting is for our playbooks' runs; the linter itself renders templates that it has not marked as trusted.
run "ansible-lint" env -u _ANSIBLE_TEMPLAR_UNTRUSTED_TEMPLATE_BEHAVIOR ansible-lint --profile production --offline -q
git ls-files -z '*.sh' '.ci/run' | xargs -0 sh -c 'printf "lint: shellcheck\n" >&2; exec shellcheck "$@"' sh || bad=1
git ls-files -z 'bpf/*.c' 'bpf/*.h' 'tests/*.bpf.c' |
	xargs -0 sh -c 'printf "lint: clang-format\n" >&2; exec clang-format-14 --style=file:bpf/.clang-format --dry-run -Werror "$@"' sh || bad=1
run "C warnings as errors" make -s --no-print-directory -C bpf BUILD="$PWD/build/lint"
exit "$bad"
