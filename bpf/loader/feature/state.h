/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_STATE_H
#define EF_STATE_H

enum ef_state {
	EF_STATE_OFF,
	EF_STATE_ATTACHED,
	EF_STATE_KILLED,
	EF_STATE_DISABLED,
	EF_STATE_SHED, /* by a budget */
	EF_N_STATES,
};

/* "off", "attached", "killed", "disabled", "shed". */
const char *ef_state_name(enum ef_state state);

#endif
