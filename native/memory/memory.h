/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * memory.h - the memory of a machine: one memfd, its views, which parts of it exist, how a view
 * takes another's place, and how its pages are write-protected.
 *
 * It moves and protects mappings, and refuses to know why: no granule, no dump, no fault. `dump`
 * and `owner` of an arena are two pointers that it keeps for other directories.
 *
 * The marks [signal], [any thread] and [owner] are those of ldfs.h; "owner" at a member: only the
 * thread that is the owner at the time reads and writes it. Offsets and lengths are bytes.
 * Functions that return int return 0 or -errno.
 */
#ifndef LDFS_MEMORY_H
#define LDFS_MEMORY_H

#include <unistd.h>

#include "base/base.h"

/* ----------------------------------------------------------------- uffd.c
 * Userfaultfd write protection on views of one arena, for two fault backends: UFFD, and SIGBUS,
 * with which the kernel sends a signal to the thread that stores. Its messages are read by the
 * monitor thread (fault/monitor.c).
 */
struct ldfs_uffd {
	int fd;           /* -1: not opened yet; open until the arena ends or `backend` changes */
	uint32_t backend; /* the enum ldfs_backend that `fd` was made for, or LDFS_UFFD_MARKS */
	int stop;         /* eventfd: tells the monitor to end */
	_Atomic uint64_t self; /* the monitor's pthread_self(); 0: it has not started */
	_Atomic pid_t tid;     /* its thread id */
	pthread_t monitor;
};

/*
 * In the place of a backend: the userfaultfd protects nothing, it marks pages until the first store
 * (changes.c).
 */
#define LDFS_UFFD_MARKS (LDFS_BACKEND_AUTO + 1)

/* [signal] Whether pages are protected by userfaultfd, and not by mprotect. */
static inline bool ldfs_uffd_protects(uint32_t backend)
{
	return backend != LDFS_BACKEND_SIGSEGV;
}

/*
 * [owner] Make the userfaultfd, nonblocking, with the features that an arena needs for that
 * backend, or for LDFS_UFFD_MARKS. `given` is /dev/userfaultfd, opened by a process that is allowed
 * to, or -1; only for UFFD, SIGBUS needs no permission. `huge`: it is for huge pages. 0 or -errno,
 * and u->fd is -1 then. -EACCES: we lack the permission, -ENOSYS: the kernel lacks a feature.
 */
int ldfs_uffd_make(struct ldfs_uffd *u, uint32_t backend, int given, bool huge);
/* Let [start, start + length) of a view be one that can be protected; it protects nothing. */
int ldfs_uffd_register(ldfs_arena *a, uint8_t *start, uint64_t length);
/* [owner] No view is registered with it any more, and nothing is protected by it. */
void ldfs_uffd_unregister(ldfs_arena *a);
/* Write-protect [start, start + length) of a view of the arena, holes too. */
int ldfs_uffd_protect(ldfs_arena *a, uint8_t *start, uint64_t length);
/*
 * [signal] Remove the write protection, of memory that is or was protected; wakes the threads that
 * wait there. -EAGAIN, only when the monitor calls it: a mapping is being moved, and the monitor
 * must read that event first.
 */
int ldfs_uffd_unprotect(ldfs_arena *a, uint8_t *start, uint64_t length);
/*
 * Unregister memory that is no longer protected, so that the program can use its own userfaultfd
 * there.
 */
void ldfs_uffd_forget(ldfs_arena *a, uint8_t *start, uint64_t length);

/* -------------------------------------------------------------- changes.c
 * What may have been stored to since an earlier START, in blocks of 1 << shift bytes: a byte each.
 */
struct ldfs_changes {
	struct ldfs_changes *next;
	uint32_t shift;
	uint8_t *changed;
};

/*
 * [owner] After a swap: read the marks of what was live before it, and note in all a->changes what
 * has none. Before that view is used again, and before a->changes is asked.
 */
void ldfs_changes_look(ldfs_arena *a);
/*
 * [any thread, counted in] Bytes [offset, offset + length) will be stored to by what takes no mark
 * away. The arena tracks.
 */
void ldfs_changes_announce(ldfs_arena *a, uint64_t offset, uint64_t length);

/* ---------------------------------------------------------------- alone.c
 * [owner] From now on nothing can store to the memory but through the live view; all views are
 * mapped already. Asked again: whether that is still so. -EBUSY: something else has it mapped, or
 * its file open; -EPERM: the file cannot be sealed; other errors: that cannot be known.
 */
int ldfs_memory_alone(ldfs_arena *a);

/* ----------------------------------------------------------------- huge.c */
/*
 * [owner] Map the live view by huge pages where its memory consists of huge pages, until `stop` is
 * set. Only when nothing is protected any more.
 */
void ldfs_huge_restore(ldfs_arena *a, const _Atomic uint32_t *stop);
/* Whether the memory has room for a huge page at all. */
bool ldfs_huge_fits(const ldfs_arena *a);

/* ------------------------------------------------------------ afterwards.c */
struct ldfs_afterwards {
	pthread_t thread;
	bool made; /* of the thread that does RELEASE, afterwards of the owner */
	uint32_t backend;
	_Atomic uint32_t stop;
};

/* [owner] Start the thread that makes the views ready for what comes after a dump. */
void ldfs_afterwards_start(ldfs_arena *a, uint32_t backend);
/* [owner] Stop that thread and join it; what it has not done yet stays undone. */
void ldfs_afterwards_stop(ldfs_arena *a);

/* ---------------------------------------------------------------- views.c */
struct ldfs_arena {
	uint64_t size;
	uint64_t page;  /* bytes of its pages: those of the kernel, or of a hugetlbfs */
	uint32_t pages; /* enum ldfs_pages, of memory that we made */
	int memfd;
	uint8_t *live; /* RW between dumps; its address never changes */
	bool adopted;  /* live was mapped before the arena was made, and stays mapped */
	bool huge;     /* the memory is of a hugetlbfs */
	/* Owner. The advice that the program gave for this memory, for ldfs_vma_advise. */
	uint32_t advice;
	uint8_t *observer; /* R, never moved; used for our own reads. NULL: none, huge pages */
	uint8_t *shadow;   /* reserved, or R with its page tables filled (shadow_ready) */
	/* Reserved, or the live mapping of before the last swap (spare_mapped). */
	uint8_t *spare;
	bool shadow_ready; /* owner */
	/* Owner. The enum ldfs_backend that a ready shadow is protected by. */
	uint32_t shadow_backend;
	/* 1: a part of the shadow could not be protected again; it must not be swapped in. */
	_Atomic uint32_t shadow_torn;
	/* 1: userfaultfd protects the shadow, or is about to. Until the swap. */
	_Atomic uint32_t shadow_guarded;
	struct ldfs_uffd uffd;
	struct ldfs_afterwards afterwards;
	bool spare_mapped; /* owner */
	/* 1: the last INIT was of a dump that tracks, so its userfaultfd is there. */
	_Atomic uint32_t tracks;
	_Atomic uint32_t sealed; /* 1: by us, see ldfs_memory_alone; never taken back */
	bool alone;  /* owner: it is sealed, and nothing else had it; never taken back */
	bool unseen; /* owner: the marks of `spare` are those of before the swap, and not read */
	/* Changed by the owner, under the lock; the owner reads it without. */
	struct ldfs_changes *changes;
	pthread_mutex_t changes_lock;
	int fault_seat;             /* index into ldfs_fault_seats */
	pid_t pid;                  /* of the process that made the arena */
	_Atomic(ldfs_dump *) dump;  /* [signal] the dump that faults belong to; NULL: none armed */
	_Atomic(ldfs_dump *) owner; /* the dump that exists, from INIT until it is freed */
};

/*
 * [signal] Whether this process is a forked child of the one that made the arena. Then it must not
 * use an arena or a dump: it has copies of the structs, but not the threads, only a private mapping
 * of the memory (memory/child.c), and the memfd is its parent's.
 */
static inline bool ldfs_arena_foreign(const ldfs_arena *a)
{
	return a->pid != getpid();
}

/*
 * [signal] Whether the memory is of huge pages (hugetlbfs). Then it has its live view alone, which
 * is never moved: the kernel does not let it (MREMAP_DONTUNMAP), or hangs. It is armed in place, by
 * whole pages, and all is read through the memfd: a load from a hole would take a page of a pool
 * that may be empty, and end the process.
 */
static inline bool ldfs_arena_huge(const ldfs_arena *a)
{
	return a->huge;
}

static inline bool ldfs_arena_has(const ldfs_arena *a, uint64_t offset, uint64_t length)
{
	return offset <= a->size && length <= a->size - offset;
}

/*
 * Make an arena of a new memfd, with its views; all holes, but for LDFS_PAGES_2M, which has none.
 * Errors are those of ldfs_arena_create_of.
 */
int ldfs_memory_make(uint64_t size, uint32_t pages, ldfs_arena **out);
/* The same for memory that is mapped at `live`; `memfd` is its file, which is duplicated. */
int ldfs_memory_adopt(uint8_t *live, uint64_t size, int memfd, ldfs_arena **out);
void ldfs_memory_free(ldfs_arena *a);
/* Map the arena's memory at `at`, a range that is reserved for it, with protection `prot`. */
int ldfs_memory_map(const ldfs_arena *a, uint8_t *at, int prot);
/*
 * [owner] Map the live view of huge pages that we made anew, in its place. mprotect has split it,
 * and the kernel never merges such mappings. Nothing is protected now; what fails leaves it as it
 * is.
 */
void ldfs_memory_rejoin(const ldfs_arena *a);

/* ----------------------------------------------------------------- page.c */
/*
 * Bytes of a huge page that the kernel makes of small ones (THP): what one entry of the
 * page tables' next level maps. 2 MiB with pages of 4 KiB, 32 MiB with 16, 512 MiB with 64.
 */
uint64_t ldfs_page_huge(void);

/* ---------------------------------------------------------------- memfd.c */
/* Make the memfd of such pages (enum ldfs_pages); a->size is set. */
int ldfs_memfd_make(ldfs_arena *a, uint32_t pages);
/*
 * With LDFS_PAGES_THP: ask for huge pages in live and observer view, and take one, to see whether
 * the kernel gives any; otherwise nothing. The memory has no data yet, and has none afterwards.
 */
int ldfs_memfd_advise(ldfs_arena *a);

/* ----------------------------------------------------------------- swap.c */

/*
 * [owner] Make the shadow, and fill its page tables. Before the observer's are filled: the advice
 * that is read for it costs time by them.
 */
int ldfs_arena_prepare_shadow(ldfs_arena *a, uint32_t backend);
/*
 * [owner] Fill the observer's page tables, so that neither the handler nor the sweep takes page
 * faults there. Does nothing where there is no observer.
 */
int ldfs_arena_prepare_observer(ldfs_arena *a);
int ldfs_arena_swap(ldfs_arena *a);
/*
 * [any thread] From the swap to the next INIT: protect a part of the mapping that was live before
 * it, which the next dump's shadow will be, so that INIT need not. What fails, INIT does.
 */
void ldfs_arena_close(ldfs_arena *a, uint32_t backend, uint64_t offset, uint64_t length);
int ldfs_arena_protect(ldfs_arena *a, uint32_t backend);
int ldfs_arena_unprotect_all(ldfs_arena *a, uint32_t backend);
/*
 * [owner] After ldfs_arena_unprotect_all, when no dump is armed any more: make the live view as it
 * was before the first dump.
 */
void ldfs_arena_forget(ldfs_arena *a, uint32_t backend);

/* ---------------------------------------------------------------- holes.c
 * [any thread] The next range [*start, *end) of data (not hole) at or after `from`, cut at `limit`.
 * False: there is none, or *error is -errno; else *error is 0. Of huge pages the kernel tells no
 * hole: all counts as data.
 */
bool ldfs_arena_next_data(const ldfs_arena *a, uint64_t from, uint64_t limit, uint64_t *start,
			  uint64_t *end, int *error);

/*
 * [owner] Tell of all data that the observer view has in its page tables, in order; after
 * ldfs_arena_prepare_observer that is all but what came meanwhile. None where there is no observer.
 */
int ldfs_arena_each_data(const ldfs_arena *a,
			 void (*found)(void *ctx, uint64_t start, uint64_t end), void *ctx);

/* ------------------------------------------------------------------ vma.c
 * The advice (madvise) that the program gave for the mapping at `view`, for example to keep it out
 * of core files and children, as a bit set that only vma.c interprets. The kernel walks the pages
 * of each mapping up to that one to answer, and blocks all threads that map memory in the meantime:
 * not for a machine that has filled its memory.
 */
int ldfs_vma_read(const uint8_t *view, uint32_t *advice);
int ldfs_vma_advise(uint8_t *view, uint64_t size, uint32_t advice);
/*
 * Whether all of the mapping at `view` that has page table entries has huge ones. Costs as much as
 * ldfs_vma_read.
 */
bool ldfs_vma_all_huge(const uint8_t *view);

/* ---------------------------------------------------------------- child.c */
/*
 * In a forked child, before anything else runs there: map the memory privately at the live address.
 * False: that failed, or the mapping can only be read.
 */
bool ldfs_child_map(const ldfs_arena *a);

#endif
