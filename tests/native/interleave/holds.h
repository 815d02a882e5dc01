/* SPDX-License-Identifier: GPL-2.0-or-later */
/* holds.h - a START in three steps: the owner is the holder, a client asks, RELEASE comes or not.
 */
#ifndef INTERLEAVE_HOLDS_H
#define INTERLEAVE_HOLDS_H

#include "cases.h"

void hold_begin(void);
void hold_end(void);
void hold_start(const ldfs_quiesce_ops *ops); /* of the owner, which is the holder */
void hold_lets_go(void);                      /* within the resume of that START */
void hold_clock_passed(void);
void *hold_client(void *arg); /* an actor: ARM, then GO */
void hold_release(void);      /* as the RELEASE of Python, before the core's */
uint64_t hold_state(uint64_t hash);

#endif
