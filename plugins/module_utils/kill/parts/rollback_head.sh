# shellcheck shell=sh disable=SC2034,SC2154,SC2317  # a part of a script: names and calls are in the others
set -u
LC_ALL=C
export LC_ALL
root=@ROOT@
unit=@UNIT@
units="@UNITS@"
user=@USER@
