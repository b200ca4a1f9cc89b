/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "run/handover.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "base/log.h"
#include "base/util.h"
#include "run/handover_parts.h"
#include "run/meet.h"
#include "run/wake.h"

struct ef_live *ef_handover_find(struct ef_service *service, const char *name) {
	for (size_t i = 0; name && i < service->n; i++)
		if (!strcmp(ef_live_name(&service->lives[i]), name))
			return &service->lives[i];
	return NULL;
}

bool ef_handover_names(const json_t *names, const char *name) {
	json_t *one;
	size_t i;

	json_array_foreach (names, i, one)
		if (json_string_value(one) && !strcmp(json_string_value(one), name))
			return true;
	return false;
}

void ef_handover_set_gate(struct ef_live *live, enum ef_gate gate, int64_t at_ns) {
	int err = ef_live_set_gate(live, gate, at_ns);

	if (err)
		ef_err("feature %s: its gate cannot be set: %s", ef_live_name(live),
		       strerror(-err));
}

void ef_handover_end(struct ef_service *service) {
	struct ef_handover *handover = &service->handover;

	if (handover->fd > 0)
		close(handover->fd);
	if (handover->timer_fd > 0)
		close(handover->timer_fd);
	json_decref(handover->attached);
	*handover = (struct ef_handover){.parent_fd = handover->parent_fd};
}

bool ef_handover_is_silent(const struct ef_service *service) {
	enum ef_handover_phase phase = service->handover.phase;

	return phase == EF_HANDOVER_ATTACHING || phase == EF_HANDOVER_READY ||
	       phase == EF_HANDOVER_COUNTING;
}

bool ef_handover_holds_rings(const struct ef_service *service) {
	return ef_handover_is_silent(service) && !service->handover.rings_read;
}

bool ef_handover_must_wait(const struct ef_service *service, const struct ef_live *live) {
	return ef_handover_is_silent(service) && live->contract.third_party;
}

bool ef_handover_send(struct ef_service *service, json_t *message) {
	int err = ef_meet_send(service->handover.fd, message, NULL, 0);

	json_decref(message);
	if (err)
		ef_err("handover: the other loader cannot be told: %s", strerror(-err));
	return !err;
}

void ef_handover_add_gap(struct ef_live *live, int64_t ns) {
	if (ns > 0 && live->asked.wanted)
		live->counted.unobserved.ns[EF_GAP_HANDOVER] += (uint64_t)ns;
}

void ef_handover_event(struct ef_service *service) {
	_cleanup_json_ json_t *message = NULL;
	bool gone = false;

	if (service->handover.phase == EF_HANDOVER_NONE)
		return;
	if (service->handover.timer_fd > 0)
		ef_wake_clear(service->handover.timer_fd);
	message = ef_meet_receive(service->handover.fd, &gone);
	if (ef_handover_is_silent(service))
		ef_handover_hear_as_next(service, message, gone);
	else
		ef_handover_hear_as_running(service, message, gone);
}
