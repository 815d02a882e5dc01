/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * gate.c - letting readers in to a dump, and knowing when the last one has left.
 *
 * A reader counts itself in and then looks whether the gate is closed; the thread that closes it
 * does the reverse. So either the reader finds it closed, or that thread finds the reader.
 */
#include <errno.h>
#include <stdlib.h>

#include "serving/within.h"

struct ldfs_gate {
	ldfs_dump *dump;
	_Atomic uint32_t readers, closed;
};

ldfs_gate *ldfs_gate_new(ldfs_dump *d)
{
	ldfs_gate *gate = calloc(1, sizeof(*gate));

	if (gate)
		gate->dump = d;
	return gate;
}

ldfs_dump *ldfs_gate_enter(ldfs_gate *gate)
{
	add_seq(&gate->readers, 1);
	if (!load_seq(&gate->closed))
		return gate->dump;
	ldfs_gate_leave(gate);
	return NULL;
}

void ldfs_gate_leave(ldfs_gate *gate)
{
	sub_seq(&gate->readers, 1);
}

int ldfs_gate_close(ldfs_gate *gate)
{
	store_seq(&gate->closed, 1);
	return load_seq(&gate->readers) ? -EBUSY : 0;
}

void ldfs_gate_free(ldfs_gate *gate)
{
	free(gate);
}
