/* SPDX-License-Identifier: GPL-2.0-or-later */
/* world.c - see world.h; the functions that hooks.h names. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/futex.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <ucontext.h>
#include <unistd.h>

#include "schedule.h"
#include "world.h"

#define PAGE LDFS_PAGE_SIZE
#define HALF (PAGE / 2)
#define TICK_NS 60000000u /* longer than between two flushes of the table */
#define SECOND 1000000000u
#define FREED_MOST 64
#define SLOW_STEPS 40 /* a handler is through with a fault meanwhile */
#define LOCKS_MOST 4
#define PAGE_FAULT_WRITE 2

ldfs_arena *world_arena;
ldfs_dump *world_dump;
bool world_stop;
uint32_t world_in_store;

static struct world_config c;
static uint8_t memory[GRANULES_MOST][PAGE], instant[GRANULES_MOST][PAGE];
static uint8_t protection[GRANULES_MOST]; /* 1: read-only */
static uint8_t *target;                   /* the bytes on it */
static int target_fd = -1, table_fd = -1;
static bool present[GRANULES_MOST]; /* no hole */
static uint32_t finals[GRANULES_MOST];
static bool instant_taken, synced, io_failed, io_back, stolen;
static uint64_t clock_ns;
static void *freed[FREED_MOST];
static size_t freed_length[FREED_MOST];
static unsigned freed_count;
static const void *locks[LOCKS_MOST];
static uint8_t enomem_met[ACTORS_MOST]; /* in the fault that the actor is in */
static bool in_fault[ACTORS_MOST];

/* ---------------------------------------------------------------- what holds */

static uint32_t phase_now(void)
{
	return world_dump ? atomic_load(&world_dump->phase) : 0;
}

static bool promised(void)
{
	uint32_t p = phase_now();

	return p == LDFS_PHASE_ARMED || p == LDFS_PHASE_SWEEPING || p == LDFS_PHASE_DRAINED;
}

static uint8_t state_of(uint32_t g)
{
	return atomic_load(&world_dump->state[g]);
}

static const uint8_t *slot_bytes_of(uint32_t g)
{
	return ldfs_slot_bytes(&world_dump->ring, atomic_load(&world_dump->slot_of[g]));
}

static uint64_t word_at(const void *bytes)
{
	uint64_t word;

	memcpy(&word, bytes, sizeof(word));
	return word;
}

static bool is_zero(const uint8_t *page)
{
	static const uint8_t zeros[PAGE];

	return !memcmp(page, zeros, PAGE);
}

static bool on_target(uint32_t g)
{
	return !memcmp(target + (uint64_t)g * PAGE, instant[g], PAGE);
}

static bool safe(uint32_t g)
{
	switch (state_of(g)) {
	case LDFS_G_LOST:
		return true;
	case LDFS_G_IN_SLOT:
	case LDFS_G_STOLEN:
		return !memcmp(slot_bytes_of(g), instant[g], PAGE);
	case LDFS_G_SAVED:
		return on_target(g);
	case LDFS_G_HOLE:
		return is_zero(instant[g]);
	}
	return false;
}

bool world_may_lose(void)
{
	return (c.fail && c.slots < c.granules) || io_failed || c.stolen ||
	       (world_dump && !c.guarded && atomic_load(&world_dump->gave_up));
}

static bool step_exists(uint8_t from, uint8_t to)
{
	static const uint16_t next[] = {
		[LDFS_G_ARMED] = 1 << LDFS_G_CLAIMED | 1 << LDFS_G_SWEEPING | 1 << LDFS_G_LOST,
		[LDFS_G_CLAIMED] = 1 << LDFS_G_IN_SLOT | 1 << LDFS_G_LOST,
		[LDFS_G_IN_SLOT] = 1 << LDFS_G_SAVED | 1 << LDFS_G_LOST,
		[LDFS_G_SWEEPING] = 1 << LDFS_G_STEALING | 1 << LDFS_G_SAVED | 1 << LDFS_G_HOLE |
				    1 << LDFS_G_LOST,
		[LDFS_G_STEALING] = 1 << LDFS_G_STOLEN | 1 << LDFS_G_CLAIMED | 1 << LDFS_G_LOST,
		[LDFS_G_STOLEN] = 1 << LDFS_G_IN_SLOT,
	};

	return from < LDFS_G_SAVED && next[from] & 1 << to;
}

static void check_state_step(uint32_t g, uint8_t from, uint8_t to)
{
	if (!step_exists(from, to))
		violated("granule %u: no step leads from %u to %u", g, from, to);
	if (to >= LDFS_G_SAVED && finals[g]++)
		violated("granule %u: in a final state twice", g);
	if (to == LDFS_G_LOST && !world_may_lose())
		violated("granule %u: lost without a cause", g);
	if (!promised())
		return;
	if ((to == LDFS_G_IN_SLOT || to == LDFS_G_STOLEN) && !safe(g))
		violated("granule %u: published, but its slot has other bytes than those of the "
			 "instant",
			 g);
	if (to == LDFS_G_SAVED && !on_target(g))
		violated("granule %u: saved, but the target has other bytes than those of the "
			 "instant",
			 g);
	if (to == LDFS_G_SAVED && world_dump->checksum[g] != ldfs_checksum(instant[g], PAGE))
		violated("granule %u: saved, but the checksum is of other bytes", g);
	if (to == LDFS_G_HOLE && !is_zero(instant[g]))
		violated("granule %u: called a hole, but it had data", g);
}

static void check_drained(uint32_t before)
{
	if (before == LDFS_PHASE_RELEASED)
		violated("sealed after RELEASE");
	for (uint32_t g = 0; g < c.granules; g++) {
		if (state_of(g) < LDFS_G_SAVED)
			violated("granule %u: state %u in a dump that is drained", g, state_of(g));
		if (!safe(g))
			violated("granule %u: other bytes than those of the instant at the drain",
				 g);
		if (protection[g])
			violated("granule %u: still read-only at the drain", g);
	}
	if (!synced)
		violated("sealed, but data written since the last sync");
}

/* Marks on the target must be right whenever they are written. */
static void check_marks(const ldfs_table_block *block)
{
	for (uint32_t g = 0; g < block->count; g++) {
		const ldfs_table_entry *e = &block->entries[g];

		if (e->state == LDFS_G_SAVED && !on_target(g))
			violated("granule %u: marked as saved, with other bytes on the target", g);
		if (e->state == LDFS_G_SAVED && e->checksum != ldfs_checksum(instant[g], PAGE))
			violated("granule %u: marked with a checksum of other bytes", g);
		if (e->state == LDFS_G_HOLE && !is_zero(instant[g]))
			violated("granule %u: marked as a hole, but it had data", g);
	}
}

void world_check_read(uint32_t g, const uint8_t *got)
{
	if (memcmp(got, instant[g], PAGE))
		violated("granule %u: a reader got other bytes than those of the instant", g);
}

void world_check_stores(uint32_t g, uint32_t stores)
{
	uint64_t first = c.hole & 1u << g ? 0 : 0x0101010101010101u * (g + 1);
	uint64_t word = c.hole & 1u << g ? 0 : (first & ~0xffull) | 16 * (g + 1);
	uint64_t sum = 0;

	for (uint32_t at = 0; at < PAGE; at += HALF)
		sum += word_at(memory[g] + at) - word;
	if (sum != stores)
		violated("granule %u: %lu stores instead of %u", g, sum, stores);
}

static void check_not_freed(const volatile void *at)
{
	for (unsigned i = 0; i < freed_count; i++)
		if ((uintptr_t)at - (uintptr_t)freed[i] < freed_length[i])
			violated("memory of a freed dump is touched");
}

/* --------------------------------------------------------------------- hooks */

void hook_step(const volatile void *at, const char *what, const char *function, int line)
{
	if (!scheduled())
		return;
	turn(what, function, line);
	check_not_freed(at);
	/* The writer begins anew: it knows nothing but its batch. */
	if (!strcmp(function, "ldfs_ring_take_filled"))
		actor_forgets(1);
}

/* Pointers differ from run to run, and never decide more than whether they are NULL. */
void hook_read(uint64_t value)
{
	actor_saw(value >> 40 && value >> 47 == 0 ? 1 : value);
}

void hook_wrote(void)
{
	actor_wrote();
}

void hook_compared(const volatile void *at, uint64_t before, uint64_t after, bool good)
{
	ldfs_dump *d = world_dump;

	if (!scheduled())
		return;
	hook_read(before);
	actor_saw(good);
	if (!good)
		return;
	actor_wrote();
	if (!d)
		return;
	if ((uintptr_t)at - (uintptr_t)d->state < d->granules)
		check_state_step((uint32_t)((uintptr_t)at - (uintptr_t)d->state), (uint8_t)before,
				 (uint8_t)after);
	if (at == (void *)&d->phase && after == LDFS_PHASE_DRAINED)
		check_drained((uint32_t)before);
}

#define STEP(what) hook_step(NULL, what, __func__, __LINE__)

/* ---------------------------------------------------------------- protection */

static bool is_live(const void *start)
{
	return world_arena && (uintptr_t)start - (uintptr_t)world_arena->live < world_arena->size;
}

static uint32_t mappings_with(uint32_t first, uint32_t last)
{
	uint32_t count = 1;

	for (uint32_t g = 1; g < c.granules; g++) {
		bool here = protection[g] && (g < first || g > last);
		bool before = protection[g - 1] && (g - 1 < first || g - 1 > last);

		count += here != before;
	}
	return count;
}

static int open_range(uint32_t first, uint32_t last)
{
	if (c.mappings && mappings_with(first, last) > c.mappings) {
		if (in_fault[actor_now()] && ++enomem_met[actor_now()] > 1)
			violated("widening once was not enough");
		errno = ENOMEM;
		return -1;
	}
	for (uint32_t g = first; g <= last; g++) {
		if (protection[g] && promised() && !safe(g))
			violated("granule %u: made writable in state %u", g, state_of(g));
		protection[g] = 0;
	}
	return 0;
}

/* What it is now, as a reader of the memfd sees it: reading a hole through a view would fill it. */
static void look_at_memory(uint32_t g)
{
	if (present[g])
		memcpy(memory[g], world_arena->live + (uint64_t)g * PAGE, PAGE);
	else
		memset(memory[g], 0, PAGE);
}

/* What the dump is to show. Discards are no stores of the machine: up to here they come before it.
 */
static void take_instant(void)
{
	for (uint32_t g = 0; g < c.granules; g++) {
		look_at_memory(g);
		memcpy(instant[g], memory[g], PAGE);
	}
	instant_taken = true;
}

int hook_mprotect(void *start, size_t length, int prot)
{
	uint32_t first, last;
	int rc = 0;

	if (!is_live(start))
		return mprotect(start, length, prot);
	STEP("mprotect");
	first = (uint32_t)((uint8_t *)start - world_arena->live) / PAGE;
	last = first + (uint32_t)(length / PAGE) - 1;
	if (prot & PROT_WRITE) {
		rc = open_range(first, last);
	} else if (c.start_fails) {
		c.start_fails = false;
		protection[first] = 1;
		errno = ENOMEM;
		rc = -1;
	} else {
		take_instant();
		memset(protection + first, 1, last - first + 1);
	}
	actor_wrote();
	actor_saw((uint64_t)rc);
	return rc;
}

static void fault(uint32_t g, unsigned half)
{
	siginfo_t info = { .si_signo = SIGSEGV,
			   .si_code = SEGV_ACCERR,
			   .si_addr = world_arena->live + (uint64_t)g * PAGE + half * HALF };
	ucontext_t context = { 0 };

	context.uc_mcontext.gregs[REG_ERR] = PAGE_FAULT_WRITE;
	in_fault[actor_now()] = true;
	enomem_met[actor_now()] = 0;
	ldfs_fault_handler(0, SIGSEGV, &info, &context);
	in_fault[actor_now()] = false;
}

void world_store(uint32_t g, unsigned half)
{
	world_in_store++;
	for (;;) {
		STEP("store");
		if (world_stop && !c.unstopped) {
			world_in_store--; /* parked */
			actor_wrote();
			while (world_stop)
				turn_spin();
			world_in_store++;
			continue;
		}
		if (!protection[g])
			break;
		fault(g, half);
		if (protection[g])
			turn_spin();
	}
	if (promised() && !safe(g))
		violated("granule %u: a store before its bytes are safe", g);
	present[g] = true;
	++*(uint64_t *)(world_arena->live + (uint64_t)g * PAGE + half * HALF);
	look_at_memory(g);
	world_in_store--;
	actor_wrote();
}

/* ----------------------------------------------------------------------- I/O */

static bool reads_arena(const uint8_t *from)
{
	return world_arena &&
	       (uintptr_t)from - (uintptr_t)world_arena->observer < world_arena->size;
}

static bool is_slot(const uint8_t *at)
{
	return world_dump && (uintptr_t)at - (uintptr_t)world_dump->ring.bytes <
				     (uint64_t)world_dump->ring.reserved * PAGE;
}

void *hook_memcpy(void *to, const void *from, size_t length)
{
	if (!scheduled() || !(reads_arena(from) || is_slot(from)))
		return memcpy(to, from, length);
	for (size_t at = 0; at < length; at += HALF) {
		STEP("memcpy");
		memcpy((uint8_t *)to + at, (const uint8_t *)from + at, HALF);
		actor_saw(word_at((const uint8_t *)from + at));
		actor_wrote();
	}
	return to;
}

static ssize_t read_arena(uint8_t *to, size_t length, off_t from)
{
	if (c.errors & 2 && is_slot(to) && turn_choose(2, "pread of a handler fails")) {
		io_failed = true;
		errno = EIO;
		return -1;
	}
	for (size_t at = 0; at < length; at += HALF) {
		STEP("pread of memory");
		look_at_memory((uint32_t)((size_t)from + at) / PAGE);
		memcpy(to + at, memory[((size_t)from + at) / PAGE] + ((size_t)from + at) % PAGE,
		       HALF);
		actor_saw(word_at(to + at));
		actor_wrote();
	}
	return (ssize_t)length;
}

static ssize_t read_target(uint8_t *to, size_t length, off_t from)
{
	for (size_t at = 0; at < length; at += HALF) {
		STEP("pread of the target");
		memcpy(to + at, target + from + at, HALF);
		actor_saw(word_at(to + at));
	}
	return (ssize_t)length;
}

static long io_error(void)
{
	int which;

	if (c.hangs && !io_back)
		turn_wait(&io_back, false);
	if (c.hangs) {
		io_failed = true;
		errno = EIO;
		return -1;
	}
	which = c.errors & 1 ? turn_choose(3, "I/O: good, EIO, ENOSPC") : 0;
	if (!which)
		return 0;
	io_failed = true;
	errno = which == 1 ? EIO : ENOSPC;
	return -1;
}

void io_comes_back(void)
{
	io_back = true;
	turn_wake(&io_back, ACTORS_MOST);
}

/* The kernel reads at one moment and has written at a later one. */
static ssize_t write_target(const uint8_t *from, size_t length, off_t to)
{
	uint8_t piece[HALF], before[GRANULES_MOST * PAGE];

	STEP("pwrite begins");
	memcpy(before, from, length);
	synced = false;
	if (io_error())
		return -1;
	for (size_t at = 0; at < length; at += HALF) {
		STEP("pwrite reads");
		memcpy(piece, from + at, HALF);
		actor_saw(word_at(piece));
		STEP("pwrite writes");
		memcpy(target + to + at, piece, HALF);
		actor_wrote();
	}
	for (int i = 0; i < (c.guarded ? SLOW_STEPS : 1); i++)
		STEP("pwrite ends");
	synced = false;
	if (c.guarded && memcmp(before, from, length)) {
		errno = EILSEQ; /* what Linux makes of BLK_STS_PROTECTION */
		return -1;
	}
	return (ssize_t)length;
}

ssize_t hook_pwrite(int fd, const void *bytes, size_t length, off_t at)
{
	if (!world_dump || !scheduled())
		return pwrite(fd, bytes, length, at);
	if (fd == world_dump->target.fd)
		return write_target(bytes, length, at);
	STEP("pwrite of the table");
	check_marks(bytes);
	return (ssize_t)length;
}

ssize_t hook_pwritev(int fd, const struct iovec *iov, int count, off_t at)
{
	ssize_t sum = 0;

	for (int i = 0; i < count; i++) {
		ssize_t n = hook_pwrite(fd, iov[i].iov_base, iov[i].iov_len, at + sum);

		if (n < 0)
			return sum ? sum : n;
		sum += n;
	}
	return sum;
}

int hook_fallocate(int fd, int mode, off_t at, off_t length)
{
	if (!scheduled())
		return fallocate(fd, mode, at, length);
	STEP("fallocate of the target");
	synced = false;
	memset(target + at, 0, (size_t)length);
	actor_wrote();
	return 0;
}

int hook_fdatasync(int fd)
{
	STEP("fdatasync");
	if (world_dump && fd == world_dump->target.fd)
		synced = true;
	actor_wrote();
	return 0;
}

off_t hook_lseek(int fd, off_t at, int whence)
{
	off_t found;

	STEP("lseek");
	found = lseek(fd, at, whence);
	actor_saw((uint64_t)found);
	return found;
}

/* A punch is a store of zeros. */
static long punch(long at, long length)
{
	STEP("punch");
	for (uint32_t g = (uint32_t)(at / PAGE); g < (uint32_t)((at + length) / PAGE); g++)
		if (promised() && !safe(g))
			violated("granule %u: punched before its bytes are safe", g);
	if (fallocate(world_arena->memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, length))
		violated("cannot punch");
	for (uint32_t g = (uint32_t)(at / PAGE); g < (uint32_t)((at + length) / PAGE); g++) {
		present[g] = false;
		look_at_memory(g);
	}
	actor_wrote();
	return 0;
}

/* ------------------------------------------------------------ time, sleeping */

static long futex_wait(const uint32_t *word, uint32_t value, const struct timespec *deadline)
{
	hook_step(word, "futex wait", "syscall", 0);
	actor_saw(*word != value);
	if (*word != value) {
		errno = EAGAIN;
		return -1;
	}
	if (turn_wait(word, deadline && (c.waits_end || c.deadlines)))
		return 0;
	clock_ns += SECOND;
	errno = ETIMEDOUT;
	return -1;
}

/* Of a handler that found no dump: then the store must succeed. */
static int populate(const uint8_t *page)
{
	uint32_t g = (uint32_t)(page - world_arena->live) / PAGE;

	STEP("populate");
	if (protection[g])
		violated("granule %u: armed, and without a dump", g);
	return 0;
}

long hook_syscall(long number, ...)
{
	va_list args;
	long a[6];

	va_start(args, number);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(args, long);
	va_end(args);
	if (!scheduled())
		return syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
	switch (number) {
	case SYS_futex:
		if ((a[1] & FUTEX_CMD_MASK) == FUTEX_WAIT_BITSET)
			return futex_wait((uint32_t *)a[0], (uint32_t)a[2],
					  (struct timespec *)a[3]);
		hook_step((void *)a[0], "futex wake", "syscall", 0);
		actor_wrote();
		return turn_wake((void *)a[0], (int)a[2]);
	case SYS_pread64:
		return a[0] == world_arena->memfd
			       ? read_arena((uint8_t *)a[1], (size_t)a[2], a[3])
			       : read_target((uint8_t *)a[1], (size_t)a[2], a[3]);
	case SYS_fallocate:
		return punch(a[2], a[3]);
	case SYS_rt_sigprocmask: /* no signals here: all are blocked already */
		if (a[2])
			memset((void *)a[2], 0xff, 8);
		return 0;
	case SYS_nanosleep:
		turn_spin();
		return 0;
	case SYS_madvise:
		return populate((uint8_t *)a[0]);
	}
	violated("system call %ld", number);
}

int hook_clock_gettime(clockid_t clock, struct timespec *now)
{
	(void)clock;
	if (scheduled() && c.table)
		clock_ns += TICK_NS;
	now->tv_sec = (time_t)(clock_ns / SECOND);
	now->tv_nsec = (long)(clock_ns % SECOND);
	return 0;
}

int hook_usleep(useconds_t us)
{
	(void)us;
	if (turn_sleep())
		clock_ns += SECOND;
	return 0;
}

int hook_spin(void)
{
	turn_spin();
	return 0;
}

/* -------------------------------------------------------------- threads, locks */

int hook_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*main)(void *),
			void *arg)
{
	(void)attr;
	*thread = (pthread_t)actor_make("thread", main, arg);
	actor_wrote();
	return 0;
}

int hook_pthread_setname(pthread_t thread, const char *name)
{
	actor_name((int)thread, name + 5); /* without "ldfs-" */
	return 0;
}

int hook_pthread_join(pthread_t thread, void **result)
{
	(void)result;
	turn_until_ended((int)thread);
	return 0;
}

static const void **lock_of(const void *m)
{
	for (int i = 0; i < LOCKS_MOST; i++)
		if (locks[i] == m)
			return &locks[i];
	return NULL;
}

int hook_mutex_trylock(pthread_mutex_t *m)
{
	const void **free_one;

	hook_step(m, "lock", "pthread_mutex", 0);
	actor_saw(lock_of(m) != NULL);
	if (lock_of(m))
		return EBUSY;
	free_one = lock_of(NULL);
	if (!free_one)
		violated("too many locks");
	*free_one = m;
	actor_wrote();
	return 0;
}

int hook_mutex_lock(pthread_mutex_t *m)
{
	while (hook_mutex_trylock(m))
		turn_spin();
	return 0;
}

int hook_mutex_unlock(pthread_mutex_t *m)
{
	*lock_of(m) = NULL;
	actor_wrote();
	return 0;
}

static void other_handler(int signo)
{
	(void)signo;
}

int hook_sigaction(int signo, const struct sigaction *act, struct sigaction *before)
{
	(void)signo, (void)act;
	if (before && (stolen || (c.stolen && instant_taken)))
		*before = (struct sigaction){ .sa_handler = other_handler };
	else if (before)
		*before = (struct sigaction){ .sa_sigaction = ldfs_fault_entries[0],
					      .sa_flags = SA_SIGINFO | SA_ONSTACK };
	return 0;
}

/* The pool of a dump: the system calls for it would take most of a run's time. */
static uint8_t pools[2][GRANULES_MOST * PAGE];
static bool pool_taken[2];

static int pool_of(const void *at)
{
	for (int i = 0; i < 2; i++)
		if ((uintptr_t)at - (uintptr_t)pools[i] < sizeof(pools[i]))
			return i;
	return -1;
}

void *hook_mmap(void *at, size_t length, int prot, int flags, int fd, off_t offset)
{
	int i = pool_taken[0];

	if (!world_arena || fd >= 0 || length > sizeof(pools[0]) || pool_taken[i])
		return mmap(at, length, prot, flags, fd, offset);
	memset(pools[i], 0, sizeof(pools[i]));
	pool_taken[i] = true;
	return pools[i];
}

int hook_munmap(void *at, size_t length)
{
	if (pool_of(at) < 0)
		return munmap(at, length);
	pool_taken[pool_of(at)] = false;
	return 0;
}

int ldfs_headroom(uint64_t bytes)
{
	(void)bytes;
	return true;
}

int hook_madvise(void *at, size_t length, int advice)
{
	return world_arena ? 0 : madvise(at, length, advice);
}

/* What was freed stays as it is to the end of the run, so that whoever touches it is found. */
void hook_free(void *p)
{
	if (!scheduled() || !p) {
		free(p);
		return;
	}
	if (p == world_dump)
		world_dump = NULL;
	if (freed_count == FREED_MOST)
		violated("too much freed");
	freed[freed_count] = p;
	freed_length[freed_count++] = malloc_usable_size(p);
}

/* --------------------------------------------------------------- begin, end */

static void make_arena(void)
{
	if (world_arena && world_arena->size == (uint64_t)c.granules * PAGE)
		return;
	if (world_arena)
		ldfs_arena_destroy(world_arena);
	if (ldfs_arena_create((uint64_t)c.granules * PAGE, &world_arena))
		violated("no arena");
	if (target_fd < 0) {
		target_fd = memfd_create("target", 0);
		table_fd = memfd_create("table", 0);
		if (ftruncate(target_fd, GRANULES_MOST * PAGE))
			violated("no target");
		target = mmap(NULL, GRANULES_MOST * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED,
			      target_fd, 0);
	}
}

/* Each half of each granule begins with another word. */
static void fill_arena(void)
{
	for (uint32_t g = 0; g < c.granules; g++) {
		uint8_t *page = world_arena->live + (uint64_t)g * PAGE;

		present[g] = !(c.hole & 1u << g);
		if (!present[g]) {
			if (fallocate(world_arena->memfd,
				      FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)g * PAGE,
				      PAGE))
				violated("cannot punch");
			continue;
		}
		memset(page, (int)g + 1, PAGE);
		page[0] = page[HALF] = (uint8_t)(16 * (g + 1));
	}
}

/* Once in a process: from then on another handler is left where it is. */
static void use_up_entries(void)
{
	stolen = true;
	while (ldfs_fault_retake() >= 0)
		;
	stolen = false;
	ldfs_fault_verify(); /* the first run begins as all others do: entry 0 was seen */
}

void world_begin(const struct world_config *config)
{
	c = *config;
	make_arena();
	fill_arena();
	memset(target, 0xee, GRANULES_MOST * PAGE);
	memset(protection, 0, sizeof(protection));
	memset(finals, 0, sizeof(finals));
	memset(locks, 0, sizeof(locks));
	memset(in_fault, 0, sizeof(in_fault));
	memset(enomem_met, 0, sizeof(enomem_met));
	for (uint32_t g = 0; g < c.granules; g++)
		look_at_memory(g);
	instant_taken = synced = io_failed = io_back = world_stop = false;
	world_in_store = 0;
	clock_ns = SECOND;
	turn_deadlines((int)c.deadlines);
	if (c.stolen)
		use_up_entries();
}

void world_dump_init(void)
{
	ldfs_extent all = { 0, (uint64_t)c.granules * PAGE, 0 };
	ldfs_dump_config config = {
		.granule_size = PAGE,
		.pool_size = (uint64_t)c.slots * PAGE,
		.spill_limit = (uint64_t)c.spill * PAGE,
		.policy = c.spill  ? LDFS_POLICY_SPILL
			  : c.fail ? LDFS_POLICY_FAIL
				   : LDFS_POLICY_BLOCK,
		.stall_deadline_ns = 100ull * SECOND,
		.arming = LDFS_ARM_MPROTECT,
		.uffd_fd = -1,
		.target_fd = c.no_target ? -1 : target_fd,
		.extents = &all,
		.extent_count = 1,
		.table_fd = c.table ? table_fd : -1,
		.reference_fd = -1,
	};
	int rc = ldfs_dump_init(world_arena, &config, &world_dump);

	if (rc)
		violated("INIT: %d", rc);
	if (c.islands)
		world_dump->islands_most = c.islands;
	else
		world_dump->islands_most = INT64_MAX;
	memset(finals, 0, sizeof(finals));
}

void world_dump_start(void)
{
	int rc = ldfs_dump_start(world_dump, NULL, SECOND);

	if (rc)
		violated("START: %d", rc);
}

void world_end(void)
{
	if (world_dump)
		violated("the dump was not freed");
	for (uint32_t g = 0; g < c.granules; g++)
		if (protection[g])
			violated("granule %u: read-only after the end", g);
	while (freed_count)
		free(freed[--freed_count]);
}

/* --------------------------------------------------------------------- state */

static uint64_t mix_event(uint64_t h, const struct ldfs_event *e)
{
	return mix(mix(h, atomic_load(&e->seq)), atomic_load(&e->waiters));
}

static uint64_t mix_ring(uint64_t h, const struct ldfs_ring *r)
{
	h = mix(h, atomic_load(&r->free));
	h = mix(h, (uint64_t)atomic_load(&r->filled) << 32 | atomic_load(&r->in_use));
	h = mix(h, (uint64_t)atomic_load(&r->made) << 32 | atomic_load(&r->limit));
	for (uint32_t i = 0; i < r->reserved; i++) {
		h = mix(h, (uint64_t)atomic_load(&r->slots[i].next) << 32 | r->slots[i].granule);
		h = mix(h, word_at(ldfs_slot_bytes(r, i)));
		h = mix(h, word_at(ldfs_slot_bytes(r, i) + HALF));
	}
	h = mix_event(h, &r->freed);
	h = mix_event(h, &r->arrived);
	return mix_event(h, &r->low);
}

static uint64_t mix_granule(uint64_t h, const ldfs_dump *d, uint32_t g)
{
	h = mix(h, (uint64_t)atomic_load(&d->state[g]) << 32 | (uint64_t)d->writable[g] << 24 |
			   (uint64_t)d->full[g] << 16 | d->how[g]);
	h = mix(h, d->slot_of[g]);
	return mix(h, d->checksum[g]);
}

static uint64_t mix_dump(uint64_t h, const ldfs_dump *d)
{
	for (uint32_t g = 0; g < c.granules; g++)
		h = mix_granule(h, d, g);
	h = mix_ring(h, &d->ring);
	h = mix_event(h, &d->progress);
	h = mix(h, d->phase | (uint64_t)d->gave_up << 8 | (uint64_t)d->abandoned << 9 |
			   (uint64_t)d->readers << 16 | (uint64_t)d->threads_running << 24 |
			   (uint64_t)d->release_begun << 32 | (uint64_t)d->release_done << 33 |
			   (uint64_t)d->not_durable << 34 | (uint64_t)d->eio_count << 40);
	h = mix(h, d->remaining);
	h = mix(h, (uint64_t)d->islands);
	h = mix(h, d->table.dirty[0] | (uint64_t)d->table.next_flush_ns << 1);
	for (uint32_t i = 0; i < d->writer_batch.count; i++)
		h = mix(h, d->writer_batch.slots[i] + 1);
	return mix(h, d->writer_batch.count);
}

uint64_t world_state(void)
{
	const struct ldfs_fault_slot *f = &ldfs_fault_slots[world_arena->fault_slot];
	uint64_t h = 0;

	for (uint32_t g = 0; g < c.granules; g++) {
		h = mix(h, word_at(memory[g]));
		h = mix(h, word_at(memory[g] + HALF));
		h = mix(h, word_at(target + (uint64_t)g * PAGE));
		h = mix(h, word_at(target + (uint64_t)g * PAGE + HALF));
		h = mix(h, (uint64_t)protection[g] << 8 | finals[g]);
		h = mix(h, instant_taken ? word_at(instant[g]) + word_at(instant[g] + HALF) : 0);
	}
	h = mix(h, synced | (uint64_t)io_failed << 1 | (uint64_t)io_back << 2 |
			   (uint64_t)world_stop << 3 | (uint64_t)c.start_fails << 4 |
			   (uint64_t)(locks[0] != NULL) << 5 | (uint64_t)world_in_store << 8 |
			   (uint64_t)freed_count << 24);
	for (int i = 0; i < ACTORS_MOST; i++)
		h = mix(h, enomem_met[i]);
	h = mix(h, clock_ns);
	h = mix(h, (uint64_t)f->handlers << 32 | f->callers);
	h = mix(h, (world_arena->dump != NULL) | (uint64_t)(world_arena->owner != NULL) << 1);
	return world_dump ? mix_dump(h, world_dump) : h;
}
