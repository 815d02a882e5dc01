/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * pool_parts.c - the pool by itself: several keepers, and a process whose memory is locked. Prints
 * what is wrong, then "right" when nothing was.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "state/state.h"

#define SLOTS 6u
#define CHECK(what)                                                       \
	do {                                                              \
		if (!(what)) {                                            \
			printf("line %d: not so: %s\n", __LINE__, #what); \
			fflush(stdout);                                   \
			_exit(1);                                         \
		}                                                         \
	} while (0)

/* ------------------------------------------------------------------- keepers */

/* What a keeper finds is the end is not the end of what another one is making. */
static void check_two_keepers(void)
{
	struct ldfs_ring r = { 0 };
	uint32_t mine, others, count;

	CHECK(ldfs_ring_init(&r, ldfs_page_size(), 1, SLOTS) == 0);
	CHECK(ldfs_ring_can_grow(&r));
	store_seq(&r.ahead, SLOTS);
	CHECK((others = ldfs_pool_plan(&r, 2, &count)) && count == 2);
	CHECK((mine = ldfs_pool_plan(&r, 3, &count)) && count == 3);
	CHECK(ldfs_pool_growing(&r) == 2 + 3);
	CHECK(ldfs_pool_grow(&r, mine, 3, false) == -ENOMEM);
	CHECK(!ldfs_pool_settle(&r) && load_seq(&r.limit) == SLOTS);
	CHECK(ldfs_ring_can_grow(&r)); /* a thread that finds no slot waits */
	CHECK(ldfs_pool_grow(&r, others, 2, true) == 0);
	CHECK(ldfs_pool_settle(&r) && load_seq(&r.limit) == 1 + 2);
	CHECK(!ldfs_ring_can_grow(&r) && load_seq(&r.made) == 1 + 2);
	ldfs_ring_destroy(&r);
}

/* ------------------------------------------------------------- locked memory */

#define LOCKED_MOST 1024
#define LOCKED_SLOT 65536u

static uint64_t resident(void)
{
	FILE *statm = fopen("/proc/self/statm", "re");
	unsigned long pages = 0;

	CHECK(statm && fscanf(statm, "%*u %lu", &pages) == 1);
	fclose(statm);
	return pages * ldfs_page_size();
}

static void use_locked_pool(bool may_lock_all)
{
	uint64_t before = resident();
	struct ldfs_ring r = { 0 };
	uint32_t slot;

	CHECK(ldfs_ring_init(&r, LOCKED_SLOT, 2, LOCKED_MOST) == 0);
	CHECK(r.reserved == (may_lock_all ? LOCKED_MOST : 2) && r.grows == may_lock_all);
	CHECK(resident() - before < LOCKED_MOST / 2 * LOCKED_SLOT);
	slot = ldfs_ring_take(&r);
	ldfs_slot_bytes(&r, slot)[0] = 1;
	ldfs_ring_give(&r, slot);
	CHECK(ldfs_pool_shrink(&r, 2) == 2);
	CHECK(ldfs_slot_bytes(&r, slot)[0] == 0); /* really given back */
	ldfs_ring_destroy(&r);
}

static void in_child(bool may_lock_all)
{
	struct rlimit little = { 8u << 20, 8u << 20 };
	int status;
	pid_t child = fork();

	CHECK(child >= 0);
	if (child == 0) {
		if (!may_lock_all)
			CHECK(!setrlimit(RLIMIT_MEMLOCK, &little) &&
			      (geteuid() || !setresuid(65534, 65534, 65534)));
		CHECK(mlockall(MCL_FUTURE) == 0);
		use_locked_pool(may_lock_all);
		_exit(0);
	}
	CHECK(waitpid(child, &status, 0) == child && status == 0);
}

/* A program that has all of its memory locked, as QEMU with mem-lock=on. */
static void check_locked_memory(void)
{
	in_child(false);
	if (geteuid() == 0)
		in_child(true);
}

/* As systemd-nspawn refuses it. */
static void refuse_munlock(uint32_t error)
{
	struct sock_filter steps[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_munlock, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog filter = { sizeof(steps) / sizeof(*steps), steps };

	CHECK(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	CHECK(!prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter));
	CHECK(munlock(NULL, 0) == -1 && errno == (int)error);
}

/* It matters only to a process whose memory is locked: that has no pool rather than a full one. */
static void check_without_munlock(uint32_t error)
{
	int status;
	pid_t child = fork();

	CHECK(child >= 0);
	if (child == 0) {
		struct ldfs_ring r = { 0 };
		uint64_t before;

		refuse_munlock(error);
		use_locked_pool(true);
		CHECK(mlockall(MCL_FUTURE) == 0);
		before = resident();
		CHECK(ldfs_ring_init(&r, LOCKED_SLOT, 2, 64) == -ENOMEM);
		CHECK(resident() - before < 32 * LOCKED_SLOT);
		_exit(0);
	}
	CHECK(waitpid(child, &status, 0) == child && status == 0);
}

int main(void)
{
	check_two_keepers();
	check_locked_memory();
	check_without_munlock(EPERM);
	check_without_munlock(ENOSYS);
	puts("right");
	return 0;
}
