/* SPDX-License-Identifier: GPL-3.0-or-later */
/* clang-format off */
/*
 * How a feature and the host are measured and held to their budgets, without a kernel and without a loader:
 *   exceeded USED LIMITS     the budget's name, or "-"; six numbers by comma each
 *   calm AMOUNT LIMIT
 *   amounts OF_HOST          {"name": {"measured", "limit"}} of 1..6 beside -1
 *   fall STEP...             down1..3, up, bad, badnow, ok, good, calm, forget: step, depth, thinning, patience and
 *                            verdict after each
 *   choose CANDIDATE...      ATTACHED,THIN,REDUCE,COST,ORDER,THINNING,REDUCED each: whom it falls on and the step
 *   reason OF_HOST BUDGET STEP
 *   feature READING...       TIME,PRODUCED,SAMPLED,DROPPED,DELIVERED,RUN,MEMORY,ENTRIES,MAX,EVICTS,CONSUMER each, -1:
 *                            not known; its use after each. "none": no programs
 *   host READING...          TIME,CPU,ATTACHING,RSS,MEMORY,RUN,EVENTS each
 *   missing NAME EVERY       a feature that nobody shipped
 *   gap WANTED LINKED STATE CODE     why it sees nothing; "-": no code
 *   unobserved GAP:NOW:CUT...        notes, then the document
 *   taken DOCUMENT                   what was taken of it
 *   since SAME SEEN_BOOT SEEN_WALL BOOT WALL CLOCK
 */
/* clang-format on */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/util.h"
#include "feature/degrade.h"
#include "feature/measure.h"
#include "feature/snapshot.h"

#include "driver.h"

static int read_numbers(const char *text, int64_t *numbers, int most) {
	int n = 0;

	for (; *text && n < most; n++) {
		char *end;

		numbers[n] = strtoll(text, &end, 10);
		text = *end ? end + 1 : end;
	}
	return n;
}

static void do_exceeded(int n, char **word) {
	struct ef_amounts used, limits;
	enum ef_budget found;

	(void)n;
	read_numbers(word[0], used.of, EF_N_BUDGETS);
	read_numbers(word[1], limits.of, EF_N_BUDGETS);
	found = ef_budget_exceeded(&used, &limits);
	puts(found == EF_N_BUDGETS ? "-" : ef_budget_name(found));
}

static void do_calm(int n, char **word) {
	struct ef_amounts used = {.of = {0}}, limits = {.of = {0}};

	(void)n;
	used.of[EF_BUDGET_CPU] = strtoll(word[0], NULL, 10);
	limits.of[EF_BUDGET_CPU] = strtoll(word[1], NULL, 10);
	printf("%d\n", ef_budget_calm(&used, &limits, EF_BUDGET_CPU));
}

static void do_amounts(int n, char **word) {
	static const struct ef_amounts used = {.of = {1, 2, 3, 4, 5, 6}};
	static const struct ef_amounts limits = {.of = {-1, -1, -1, -1, -1, -1}};
	_cleanup_json_ json_t *doc = ef_budget_json(&used, &limits, word[0][0] == '1');

	(void)n;
	json_dumpf(doc, stdout, 0);
	putchar('\n');
}

static void do_fall(int n, char **word) {
	struct ef_fall fall = {.taken = {{1}}, .measured = 5};
	unsigned bad = 0;

	for (int i = 0; i < n; i++) {
		int found = -1;

		if (!strncmp(word[i], "down", 4))
			ef_fall_down(&fall, (enum ef_step)atoi(word[i] + 4));
		else if (!strcmp(word[i], "up"))
			ef_fall_up(&fall);
		else if (!strcmp(word[i], "forget"))
			ef_fall_forget(&fall);
		else if (!strncmp(word[i], "bad", 3))
			found = ef_fall_bad(&bad, true, word[i][3] == 'n');
		else if (!strcmp(word[i], "ok"))
			found = ef_fall_bad(&bad, false, true);
		else
			found = ef_fall_good(&fall, !strcmp(word[i], "calm"));
		printf("%s %s %u %u %u", word[i], ef_step_name(ef_fall_step(&fall)),
		       ef_fall_depth(&fall), fall.thinning, fall.patience);
		printf(found < 0 ? "\n" : " %d\n", found);
	}
	printf("%" PRIu64 " %" PRId64 "\n", fall.taken[0][0], fall.measured);
}

static void do_choose(int n, char **word) {
	struct ef_fall falls[8] = {0};
	struct ef_candidate all[8] = {0}, *chosen;
	enum ef_step step;

	for (int i = 0; i < n && i < 8; i++) {
		int64_t of[7] = {0};

		read_numbers(word[i], of, 7);
		falls[i].thinning = (unsigned)of[5];
		falls[i].reduced = of[6];
		all[i] = (struct ef_candidate){&falls[i], of[0], of[1], of[2], of[3], of[4]};
	}
	chosen = ef_degrade_choose(all, (size_t)n, &step);
	printf("%d", chosen ? (int)(chosen - all) : -1);
	puts(chosen ? ef_step_name(step) : "");
}

static void do_reason(int n, char **word) {
	struct ef_fall fall = {.of_host = word[0][0] == '1',
			       .budget = (enum ef_budget)atoi(word[1]),
			       .measured = 7,
			       .limit = 5};
	struct ef_reason why;

	(void)n;
	ef_fall_down(&fall, (enum ef_step)atoi(word[2]));
	ef_fall_reason(&fall, &why);
	printf("%s %s\n", ef_reason_code(&why), ef_reason_text(&why));
}

static struct ef_count counted(int64_t n) {
	return n < 0 ? (struct ef_count){0} : (struct ef_count){true, (uint64_t)n};
}

static void print_use(const struct ef_account *account) {
	for (int i = 0; i < EF_N_BUDGETS; i++)
		printf("%" PRId64 " ", account->used.of[i]);
	printf("%" PRId64 " %" PRId64 "\n", account->cpu_delta_ns, account->events_delta);
}

/* Of two programs each has half of the time, of two maps the second all of the rest. */
static void do_feature(int n, char **word) {
	struct ef_account account;

	memset(&account, 0, sizeof(account));
	for (int i = 0; i < n; i++) {
		struct ef_program_seen programs[2] = {0};
		struct ef_map_seen maps[2] = {
		    {.entries = 1, .max_entries = 1000, .memory_bytes = 8}, {0}};
		struct ef_feature_snapshot feature = {
		    .programs = programs, .maps = maps, .n_programs = 2, .n_maps = 2};
		int64_t of[11] = {0};

		read_numbers(word[i], of, 11);
		if (!strcmp(word[i], "none"))
			feature.n_programs = 0;
		feature.produced = counted(of[1]);
		feature.sampled_out = counted(of[2]);
		feature.dropped = counted(of[3]);
		feature.delivered = counted(of[4]);
		programs[0].run_time_ns = of[5] < 0 ? 5 : of[5] / 2;
		programs[1].run_time_ns = of[5] < 0 ? -1 : of[5] - of[5] / 2;
		maps[1] = (struct ef_map_seen){.memory_bytes = of[6],
					       .entries = of[7],
					       .max_entries = (uint32_t)of[8],
					       .evicts = of[9]};
		ef_budget_feature(&account, &feature, of[10], of[0]);
		print_use(&account);
	}
}

static void do_host(int n, char **word) {
	struct ef_account account;

	memset(&account, 0, sizeof(account));
	for (int i = 0; i < n; i++) {
		struct ef_own_use own;
		int64_t of[7] = {0};

		read_numbers(word[i], of, 7);
		own = (struct ef_own_use){of[1], of[2], of[3], of[4]};
		ef_budget_host(&account, &own, of[5], of[6], of[0]);
		print_use(&account);
	}
}

static void do_missing(int n, char **word) {
	struct ef_feature_snapshot one;

	(void)n;
	memset(&one, 0xa5, sizeof(one));
	ef_feature_snapshot_missing(word[0], (uint32_t)strtoul(word[1], NULL, 10), &one);
	printf("%s %d %d %d %s %s %" PRIu32 " %" PRId64, one.name, one.shipped, one.wanted,
	       one.state, one.profile, one.variant ? one.variant : "-", one.sample_every, one.rate);
	printf(" %d%d%d%d%d", one.produced.known, one.delivered.known, one.dropped.known,
	       one.sampled_out.known, one.in_flight.known);
	printf(" %" PRIu64 " %zu %zu %s %s\n", one.produced.n, one.n_programs, one.n_maps,
	       ef_reason_code(&one.reason), ef_reason_text(&one.reason));
	ef_feature_snapshot_free(&one);
}

static void do_gap(int n, char **word) {
	(void)n;
	puts(ef_gap_name(ef_gap_of(atoi(word[0]), atoi(word[1]), (enum ef_state)atoi(word[2]),
				   strcmp(word[3], "-") ? word[3] : NULL)));
}

static void print_unobserved(const struct ef_unobserved *unobserved) {
	_cleanup_json_ json_t *doc = ef_unobserved_json(unobserved);
	_cleanup_free_ char *text = json_dumps(doc, 0);

	puts(text);
}

static void do_unobserved(int n, char **word) {
	struct ef_unobserved unobserved = {0};

	for (int i = 0; i < n; i++) {
		enum ef_gap gap = EF_GAP_NONE;
		int64_t of[2];

		read_numbers(strchr(word[i], ':') + 1, of, 2);
		*strchr(word[i], ':') = 0;
		while (strcmp(ef_gap_name(gap), word[i]))
			gap++;
		ef_unobserved_note(&unobserved, gap, of[1], of[0]);
	}
	print_unobserved(&unobserved);
}

static void do_taken(int n, char **word) {
	_cleanup_json_ json_t *doc = json_loads(word[0], 0, NULL);
	struct ef_unobserved unobserved;

	(void)n;
	memset(&unobserved, 0xa5, sizeof(unobserved));
	ef_unobserved_take(&unobserved, doc);
	print_unobserved(&unobserved);
}

static void do_since(int n, char **word) {
	const struct ef_last_seen seen = {atoi(word[0]), atoll(word[1]), atoll(word[2])};

	(void)n;
	printf("%" PRId64 "\n", ef_gap_since(&seen, atoll(word[3]), atoll(word[4]), atoi(word[5])));
}

static const struct command commands[] = {
    {"gap", 4, do_gap}, {"unobserved", 0, do_unobserved}, {"taken", 1, do_taken}, {"since", 6, do_since},

    {"exceeded", 2, do_exceeded}, {"calm", 2, do_calm},	    {"amounts", 1, do_amounts},
    {"fall", 0, do_fall},	  {"choose", 0, do_choose}, {"reason", 3, do_reason},
    {"feature", 1, do_feature},	  {"host", 1, do_host},	    {"missing", 2, do_missing},
};

int main(int argc, char **argv) {
	return run_command(commands, EF_ARRAY_SIZE(commands), argc, argv);
}
