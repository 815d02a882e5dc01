/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * afterwards.c - what is done to the views after a dump, while the machine runs at full speed: what
 * was live before the swap is protected for the next INIT, where the sweep has not done that, and
 * the live view is mapped by huge pages again (huge.c).
 *
 * RELEASE starts a thread that does this, and no other thread waits for it; the next INIT and the
 * end of the arena stop it. It changes no granule and no byte of memory; what it cannot do stays as
 * it is, and INIT does the rest.
 */
#include "memory/memory.h"

/* Bytes protected while mmap_lock is held once: page faults of the machine may wait so long. */
#define PIECE (2ULL << 20)

static void *main_of(void *arena)
{
	ldfs_arena *a = arena;

	for (uint64_t at = 0; at < a->size && !load_seq(&a->afterwards.stop); at += PIECE)
		ldfs_arena_close(a, a->afterwards.backend, at,
				 a->size - at < PIECE ? a->size - at : PIECE);
	ldfs_huge_restore(a, &a->afterwards.stop);
	return NULL;
}

void ldfs_afterwards_start(ldfs_arena *a, uint32_t backend)
{
	if (ldfs_arena_huge(a) && !ldfs_uffd_protects(backend))
		ldfs_memory_rejoin(a);
	if (ldfs_arena_huge(a) || (!a->spare_mapped && !ldfs_huge_fits(a)))
		return;
	store_seq(&a->afterwards.stop, 0);
	a->afterwards.backend = backend;
	/* If no thread can be made, INIT does the one, and khugepaged the other some time. */
	a->afterwards.made = ldfs_thread_start(&a->afterwards.thread, main_of, a, "ldfs-after") ==
			     0;
}

void ldfs_afterwards_stop(ldfs_arena *a)
{
	if (!a->afterwards.made)
		return;
	store_seq(&a->afterwards.stop, 1);
	pthread_join(a->afterwards.thread, NULL);
	a->afterwards.made = false;
}
