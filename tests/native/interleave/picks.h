/* SPDX-License-Identifier: GPL-2.0-or-later */
/* picks.h - which granule each store of each vCPU goes to: one digit a store. */
#ifndef INTERLEAVE_PICKS_H
#define INTERLEAVE_PICKS_H

#include "cases.h"

extern char picks[PICKS_MOST + 1];

/* NULL: the first of all. False: it does not fit the case. */
bool picks_begin(const char *only);
/* The next of all, of those that differ only in which vCPU is which but one. False: no more. */
bool picks_next(void);
uint32_t pick(uint32_t vcpu, uint32_t store);

#endif
