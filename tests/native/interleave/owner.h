/* SPDX-License-Identifier: GPL-2.0-or-later */
/* owner.h - the actor that owns the dump: START, SWEEP, RELEASE, as the case says. */
#ifndef INTERLEAVE_OWNER_H
#define INTERLEAVE_OWNER_H

void *owner(void *arg);

#endif
