/* SPDX-License-Identifier: GPL-2.0-or-later */
/* within.h - what the files of serving/ use of each other. */
#ifndef LDFS_SERVING_WITHIN_H
#define LDFS_SERVING_WITHIN_H

#include "base/atomic.h"
#include "serving/serving.h"

/* The dump, which is not freed until ldfs_gate_leave; NULL: the gate is closed. */
ldfs_dump *ldfs_gate_enter(ldfs_gate *gate);
void ldfs_gate_leave(ldfs_gate *gate);

#endif
