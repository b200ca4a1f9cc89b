/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "feature/state.h"

const char *ef_state_name(enum ef_state state) {
	static const char *const names[EF_N_STATES] = {
	    [EF_STATE_OFF] = "off",	  [EF_STATE_ATTACHED] = "attached",
	    [EF_STATE_KILLED] = "killed", [EF_STATE_DISABLED] = "disabled",
	    [EF_STATE_SHED] = "shed",
	};

	return names[state];
}
