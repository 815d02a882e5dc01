/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * memory.h - the memory of a machine: one memfd, its views, which parts of it exist, how a view
 * takes another's place, and how its pages are write-protected.
 *
 * It moves and protects mappings, and refuses to know why: no granule, no dump, no fault. `dump`
 * and `owner` of an arena are two words that it keeps for others.
 */
#ifndef LDFS_MEMORY_H
#define LDFS_MEMORY_H

#include <unistd.h>

#include "base/base.h"

/* ----------------------------------------------------------------- uffd.c
 * Userfaultfd write protection on views of one arena: the second fault backend. Its messages are
 * read by the monitor of fault/.
 */
struct ldfs_uffd {
	int fd;                /* -1: not opened yet; from then on as long as the arena */
	int stop;              /* eventfd: the monitor ends */
	_Atomic uint64_t self; /* the monitor's pthread_self(); 0: it has not begun */
	_Atomic pid_t tid;     /* and its thread id */
	pthread_t monitor;
};

/* Make the userfaultfd, nonblocking, with the features that an arena needs. `given`: the device,
 * opened by a process that may, or -1. 0 or -errno, and u->fd is -1 then. */
int ldfs_uffd_make(struct ldfs_uffd *u, int given);
/* Write-protect [start, start + length) of a view of the arena, holes too. */
int ldfs_uffd_protect(ldfs_arena *a, uint8_t *start, uint64_t length);
/*
 * [signal] The opposite, for memory that was protected at any time; wakes all that wait there.
 * -EAGAIN, on the monitor only: a mapping is being moved, and the event is its own to read first.
 */
int ldfs_uffd_unprotect(ldfs_arena *a, uint8_t *start, uint64_t length);
/* The program may use userfaultfd there for itself; of what is not protected any more. */
void ldfs_uffd_forget(ldfs_arena *a, uint8_t *start, uint64_t length);

/* ----------------------------------------------------------------- huge.c */
struct ldfs_huge {
	pthread_t thread;
	bool made; /* the thread that does RELEASE, then the owner */
	_Atomic uint32_t stop;
};

/* Begin to map the live view by huge pages where its memory lies in such. When nothing is protected
 * any more. */
void ldfs_huge_restore(ldfs_arena *a);
/* [owner] Have it end, as far as it has come. */
void ldfs_huge_stop(ldfs_arena *a);

/* ---------------------------------------------------------------- views.c */
struct ldfs_arena {
	uint64_t size;
	int memfd;
	uint8_t *live;   /* RW between dumps; its address never changes */
	bool adopted;    /* live was there before the arena, and stays */
	uint32_t advice; /* owner; what the memory's owner has told the kernel, for ldfs_vma_advise
			  */
	uint8_t *observer; /* R, never moved; our own reads */
	uint8_t *shadow;   /* reserved, or R with its page tables filled (shadow_ready) */
	uint8_t *spare; /* reserved, or the live mapping of before the last swap (spare_mapped) */
	bool shadow_ready;       /* owner */
	uint32_t shadow_backend; /* owner; enum ldfs_backend that a ready shadow is protected by */
	_Atomic uint32_t shadow_torn; /* 1: a part of it could not be protected again */
	_Atomic uint32_t
		shadow_guarded; /* 1: userfaultfd protects it, or is about to; until the swap */
	struct ldfs_uffd uffd;
	struct ldfs_huge huge;
	bool spare_mapped;          /* owner */
	int fault_slot;             /* index into ldfs_fault_slots */
	pid_t pid;                  /* of the process that made it */
	_Atomic(ldfs_dump *) dump;  /* [signal] what faults belong to; NULL: none armed */
	_Atomic(ldfs_dump *) owner; /* the dump that exists, from INIT until it is freed */
};

/*
 * A forked child has a copy of the structs, but not the threads, a view of its own of the memory
 * (fault/child.c), and the memfd is its parent's: it may do nothing with an arena or a dump.
 * [signal]
 */
static inline bool ldfs_arena_foreign(const ldfs_arena *a)
{
	return a->pid != getpid();
}

static inline bool ldfs_arena_has(const ldfs_arena *a, uint64_t offset, uint64_t length)
{
	return offset <= a->size && length <= a->size - offset;
}

/* An arena of a new memfd, all holes, with its views. -EINVAL: size. */
int ldfs_memory_make(uint64_t size, ldfs_arena **out);
/* The same of memory that is mapped at `live` already. */
int ldfs_memory_adopt(uint8_t *live, uint64_t size, int memfd, ldfs_arena **out);
void ldfs_memory_free(ldfs_arena *a);
/* The arena's memory once more, at `at`, which is reserved for it. */
int ldfs_memory_map(const ldfs_arena *a, uint8_t *at, int prot);

/* ----------------------------------------------------------------- swap.c */

/* Fill the observer's page tables, so that neither handler nor sweep takes page faults there. */
int ldfs_arena_prepare_observer(ldfs_arena *a);
int ldfs_arena_prepare_shadow(ldfs_arena *a, uint32_t backend);
int ldfs_arena_swap(ldfs_arena *a);
int ldfs_arena_protect(ldfs_arena *a, uint32_t backend);
int ldfs_arena_unprotect_all(ldfs_arena *a, uint32_t backend);
/* After that, when no dump is armed any more: the live view is as before the first dump. */
void ldfs_arena_forget(ldfs_arena *a, uint32_t backend);

/* ---------------------------------------------------------------- holes.c
 * The next piece [*start, *end) of data at or after `from`, clipped to `limit`; false: none.
 * -errno through *error.
 */
bool ldfs_arena_next_data(const ldfs_arena *a, uint64_t from, uint64_t limit, uint64_t *start,
			  uint64_t *end, int *error);

/* ------------------------------------------------------------------ vma.c
 * Advice that the owner of the mapping at `view` gave (no core file, no child), as bits of vma.c's
 * own. To find it the kernel walks the pages of each mapping up to that one, and keeps out all that
 * map meanwhile: not for a machine that has filled its memory.
 */
int ldfs_vma_read(const uint8_t *view, uint32_t *advice);
int ldfs_vma_advise(uint8_t *view, uint64_t size, uint32_t advice);
/* Whether all that is mapped of the mapping at `view` is so by huge pages. Walks as the above. */
bool ldfs_vma_all_huge(const uint8_t *view);

/* ---------------------------------------------------------------- child.c */
/*
 * In a forked child, before anything else runs there: a private view of the memory at the live
 * address. False: it has none, or can only read it.
 */
bool ldfs_child_map(const ldfs_arena *a);

#endif
