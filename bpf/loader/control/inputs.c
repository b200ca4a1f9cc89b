/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "control/inputs.h"

#include <stdlib.h>

struct ef_moment ef_inputs_moment(const struct ef_inputs *inputs) {
	return ef_moment_at(inputs->wall_s, inputs->floor_s);
}

void ef_inputs_free(struct ef_inputs *inputs) {
	ef_orders_free(&inputs->orders);
	ef_desired_free(&inputs->desired);
	ef_policy_free(&inputs->policy);
	free(inputs->desired_path);
	free(inputs->lease_path);
	free(inputs->policy_path);
}
