/* SPDX-License-Identifier: GPL-2.0-or-later */
/* relax.h - what a loop that waits does between two looks. [signal] */
#ifndef LDFS_RELAX_H
#define LDFS_RELAX_H

/*
 * Let the processor know that this thread waits in a loop: the other thread of its core gets more
 * of it, and the loop costs less power. On arm64 most cores do nothing for `yield`; `isb` waits for
 * what is under way, some tens of cycles, as long as `pause` takes on x86-64.
 */
static inline void relax(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("isb" ::: "memory");
#else
	__asm__ volatile("" ::: "memory");
#endif
}

#endif
