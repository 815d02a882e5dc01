/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * atomic.h - short names for atomic operations that carry their memory order, so that a reader sees
 * the order at every use.
 *
 * There are no stand-alone fences: ThreadSanitizer does not understand them, and every pairing in
 * this project can be expressed with ordered operations. `seq` (sequentially consistent) is used
 * where two threads each write one word and then read the word of the other (count itself in and
 * look at the phase; push a slot and check for waiters). Acquire and release are used everywhere
 * else.
 */
#ifndef LDFS_ATOMIC_H
#define LDFS_ATOMIC_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define load_relaxed(p) atomic_load_explicit((p), memory_order_relaxed)
#define load_acquire(p) atomic_load_explicit((p), memory_order_acquire)
#define load_seq(p) atomic_load_explicit((p), memory_order_seq_cst)
#define store_relaxed(p, v) atomic_store_explicit((p), (v), memory_order_relaxed)
#define store_release(p, v) atomic_store_explicit((p), (v), memory_order_release)
#define store_seq(p, v) atomic_store_explicit((p), (v), memory_order_seq_cst)
#define add_relaxed(p, v) atomic_fetch_add_explicit((p), (v), memory_order_relaxed)
#define add_seq(p, v) atomic_fetch_add_explicit((p), (v), memory_order_seq_cst)
#define sub_seq(p, v) atomic_fetch_sub_explicit((p), (v), memory_order_seq_cst)
/*
 * A load that no earlier operation can be reordered behind: a read-modify-write that changes
 * nothing.
 */
#define look_seq(p) atomic_fetch_or_explicit((p), 0, memory_order_seq_cst)
#define exchange_seq(p, v) atomic_exchange_explicit((p), (v), memory_order_seq_cst)
#define cas_seq(p, old, new)                                                             \
	atomic_compare_exchange_strong_explicit((p), (old), (new), memory_order_seq_cst, \
						memory_order_seq_cst)

/* Raise *p to v if v is larger. Used to record peak values. */
static inline void raise_u64(_Atomic uint64_t *p, uint64_t v)
{
	uint64_t seen = load_relaxed(p);

	while (seen < v && !atomic_compare_exchange_weak_explicit(p, &seen, v, memory_order_relaxed,
								  memory_order_relaxed))
		;
}

#endif
