/* SPDX-License-Identifier: GPL-2.0 */
#ifndef EF_GATE_H
#define EF_GATE_H

/*
 * The handover from one loader to the next: both have their programs at the same hooks, and
 * one instant of CLOCK_MONOTONIC decides which of them counts an event. The old one counts
 * until then, the new one from then on.
 *
 * Both programs run for the same event, one behind the other, on one CPU, and must judge it
 * by one reading of the clock: the first of them leaves its reading in ef_moment, which both
 * loaders' objects share, and the second takes it from there. Which one is first depends on
 * the kind of hook.
 *
 * Where one event interrupts another between the two programs, the outer one is judged by two
 * readings. It matters only when the instant lies between these, some microseconds apart.
 */

enum ef_gate {
	EF_GATE_OPEN,	/* counts: no handover */
	EF_GATE_CLOSED, /* counts nothing: attached beside another loader, the instant is not known
			 */
	EF_GATE_FROM,	/* counts from gate_ns on */
	EF_GATE_UNTIL,	/* counts until gate_ns */
};

#define EF_GATE_FRESH_NS 1000000 /* the second program runs within this of the first */

struct ef_moment {
	__u64 at_ns; /* CLOCK_MONOTONIC */
	__u64 by;    /* ef_gate_id() of the program that read the clock; 0: the reading was taken */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct ef_moment);
} ef_moment SEC(".maps");

/* Of one handover's two programs; a reading that an earlier handover left belongs to neither. */
static __always_inline __u64 ef_gate_id(__u64 gate_ns, __u32 gate) {
	return gate_ns << 2 | gate;
}

/* The time by which an event is judged: the other program's reading, where it was first. */
static __always_inline __u64 ef_gate_time(__u64 gate_ns, __u32 gate) {
	__u64 other = ef_gate_id(gate_ns, EF_GATE_FROM + EF_GATE_UNTIL - gate);
	__u64 now = bpf_ktime_get_ns();
	__u32 zero = 0;
	struct ef_moment *moment = bpf_map_lookup_elem(&ef_moment, &zero);

	if (!moment)
		return now;
	if (moment->by == other && now - moment->at_ns < EF_GATE_FRESH_NS) {
		moment->by = 0;
		return moment->at_ns;
	}
	moment->at_ns = now;
	moment->by = ef_gate_id(gate_ns, gate);
	return now;
}

/*
 * Is the event that is at hand this program's to count? Asked once for each event. Handovers are
 * rare: the compiler lays their part out behind what every event runs through.
 */
static __always_inline bool ef_is_open(const struct ef_config *config) {
	__u32 gate = config ? config->gate : EF_GATE_OPEN;

	if (__builtin_expect(gate == EF_GATE_OPEN, 1))
		return 1;
	if (gate == EF_GATE_CLOSED)
		return 0;
	return (ef_gate_time(config->gate_ns, gate) >= config->gate_ns) == (gate == EF_GATE_FROM);
}

#endif
