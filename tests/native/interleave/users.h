/* SPDX-License-Identifier: GPL-2.0-or-later */
/* users.h - the actors that use the memory and the dump: vCPUs, readers and other threads. */
#ifndef INTERLEAVE_USERS_H
#define INTERLEAVE_USERS_H

#include "cases.h"

void users_make(void);
void users_wait(void); /* of the owner: until all have ended */
uint64_t users_state(uint64_t hash);

#endif
