/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <bpf/libbpf.h>
#include <linux/bpf.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/log.h"
#include "base/util.h"
#include "cmd/commands.h"
#include "kernel/bpflog.h"
#include "kernel/kernel.h"
#include "kernel/privilege.h"
#include "kernel/require.h"

static const char *const answers[] = {"no", "yes", "unknown"};

static json_t *answer_json(enum ef_answer answer, int err) {
	return json_pack("{s:s, s:i, s:s?}", "answer", answers[answer], "errno", err, "errno_name",
			 err ? strerrorname_np(err) : NULL);
}

static json_t *prog_types_json(void) {
	json_t *types = json_object();

	for (int type = 1; libbpf_bpf_prog_type_str(type); type++) {
		int err;
		enum ef_answer answer = ef_probe_prog_type(type, &err);

		json_object_set_new(types, libbpf_bpf_prog_type_str(type),
				    answer_json(answer, err));
	}
	return types;
}

static json_t *map_types_json(void) {
	json_t *types = json_object();

	for (int type = 1; libbpf_bpf_map_type_str(type); type++) {
		int err;
		enum ef_answer answer = ef_probe_map_type(type, &err);

		json_object_set_new(types, libbpf_bpf_map_type_str(type), answer_json(answer, err));
	}
	return types;
}

/* The helpers that our features call, where libbpf can ask for them. */
static json_t *helpers_json(void) {
	static const struct {
		const char *name;
		int id;
	} helpers[] = {
	    {"ktime_get_ns", BPF_FUNC_ktime_get_ns},
	    {"get_prandom_u32", BPF_FUNC_get_prandom_u32},
	    {"probe_read_kernel", BPF_FUNC_probe_read_kernel},
	    {"probe_read_kernel_str", BPF_FUNC_probe_read_kernel_str},
	    {"ringbuf_reserve", BPF_FUNC_ringbuf_reserve},
	    {"ringbuf_query", BPF_FUNC_ringbuf_query},
	};
	json_t *answer = json_object();

	for (size_t i = 0; i < EF_ARRAY_SIZE(helpers); i++) {
		int err;
		enum ef_answer told =
		    ef_probe_helper(BPF_PROG_TYPE_RAW_TRACEPOINT, helpers[i].id, &err);

		json_object_set_new(answer, helpers[i].name, answer_json(told, err));
	}
	return json_pack("{s:o}", "raw_tracepoint", answer);
}

static json_t *stats_json(void) {
	_cleanup_close_ int fd = ef_privilege_stats();

	if (fd >= 0)
		return answer_json(EF_ANSWER_YES, 0);
	return answer_json(EF_ANSWER_UNKNOWN, -fd);
}

int cmd_probe(int argc, char **argv) {
	_cleanup_json_ json_t *answer = NULL;
	struct ef_kernel kernel;

	if (argc != 1) {
		ef_err("usage: ebpf-loader %s", argv[0]);
		return EF_EXIT_USAGE;
	}
	ef_bpflog_start();
	ef_kernel_read(&kernel);
	answer =
	    json_pack("{s:s, s:o, s:o, s:o, s:o, s:o}", "schema", "ebpf.fleet/probe/v1", "kernel",
		      ef_kernel_json(&kernel), "program_types", prog_types_json(), "map_types",
		      map_types_json(), "helpers", helpers_json(), "stats", stats_json());
	ef_kernel_clear(&kernel);
	return ef_json_print(stdout, answer) ? EF_EXIT_FAILED : EF_EXIT_OK;
}
