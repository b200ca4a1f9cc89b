/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_CONTRACT_H
#define EF_CONTRACT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "base/budgets.h"
#include "base/refusal.h"
#include "bundle/bundle.h"
#include "bundle/signal.h"

/* Strings are the contract's. */
struct ef_signal {
	enum ef_signal_kind kind;
	const char *name;
	const char *help;
	const char *map;
	enum ef_scale scale;  /* histogram */
	const char *event;    /* events: a struct in the object's BTF */
	const char *perf_map; /* events: the map of variants without `map`; NULL: none has one */
	const char *key;      /* counters: a struct in the object's BTF; NULL: map is an array */
	uint32_t sample_every;
	enum ef_backpressure_kind backpressure;
	const json_t *aggregate_by; /* events: names of fields; NULL: not given */
	bool fair;		    /* events: no user and control group takes the others' room */
};

struct ef_contract_variant {
	const char *name;
	json_t *programs;  /* array of strings, in order of attaching; borrowed */
	json_t *requires_; /* array of strings; borrowed */
	bool full;	   /* what a host reaches with it: full, else reduced */
};

/* The part of a contract that the loader acts on. */
struct ef_contract {
	json_t *doc; /* owns every string and array below */
	const char *feature;
	int expires; /* YYYYMMDD, the first day on which it does not run; 0: never */
	uint32_t sample_every;
	int64_t cost_order; /* under pressure the highest goes first */
	struct ef_amounts budget;
	bool third_party; /* names are free, ef_config is not needed */
	bool counted;	  /* its objects hold ef_counters */
	bool observe;	  /* policy data path: LSM programs only look on */
	size_t n_signals;
	struct ef_signal *signals;
	size_t n_variants;
	struct ef_contract_variant *variants;
};

/*
 * Read a feature's contract and hold it against the bundle: same name, same
 * variants in the same order. 0: *contract is owned by the caller. -1: *why is
 * EF_CONTRACT_MALFORMED and *contract is empty.
 */
int ef_contract_read(const struct ef_feature *feature, struct ef_contract *contract,
		     struct ef_refusal *why);

void ef_contract_free(struct ef_contract *contract);

/* The signal of that kind, or NULL; a feature has at most one of each. */
const struct ef_signal *ef_contract_signal(const struct ef_contract *contract,
					   enum ef_signal_kind kind);

/* Its variants, in order of preference. */
const struct ef_contract_variant *ef_contract_variant_at(const struct ef_contract *contract,
							 size_t i);

const json_t *ef_contract_variant_programs(const struct ef_contract_variant *variant); /* strings */
const char *ef_contract_variant_name(const struct ef_contract_variant *variant);
bool ef_contract_variant_is_full(const struct ef_contract_variant *variant);

/* "full" or "reduced": what a host reaches with that variant; "disabled" for NULL. */
const char *ef_contract_profile(const struct ef_contract_variant *variant);

/* Has it expired, by this machine's UTC date? */
bool ef_contract_expired(const struct ef_contract *contract);
bool ef_contract_expired_at(const struct ef_contract *contract, time_t now);

#endif
