# shellcheck shell=sh disable=SC2034,SC2154,SC2317  # a part of a script: names and calls are in the others
# What is in memory comes first, what may hang on a disk last: what came before the link is cut is kept.
is_root=false
if [ "$(id -u)" = 0 ]; then is_root=true; fi
state=$root/run/ebpf-fleet-loader
logs=$root/var/log/ebpf-fleet
more=$((most + 1))
begin
file host.txt head 10 show_host
file unit.txt head 10 show_unit
file status.json head 5 read_file "$state/status.json" "$more" head
file listed.txt head 5 read_file "$state/programs" "$more" head
file metrics.prom head 5 read_file "$state/metrics.prom" "$more" head
file programs.txt head 10 show_held prog
file maps.txt head 10 show_held map
file bpf.jsonl head 10 list_with_python
file capability.txt head 10 show_capability
keep="[^a-z]bpf|verifier|ebpf|kprobe|ftrace|BTF"
file kernel.txt tail 10 show_kernel_log
keep=
file disks.txt head 5 show_disks
file audit.jsonl tail 5 read_rotated "$logs/audit.jsonl" $((most * 4))
file journal.txt tail 15 show_journal
journal=$content
file verifier.txt tail 15 show_refusals
file check.json head 30 run_check
finish
