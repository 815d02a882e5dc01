/* SPDX-License-Identifier: GPL-2.0-or-later */
/* users.c - see users.h. */
#include <errno.h>
#include <string.h>

#include "holds.h"
#include "picks.h"
#include "users.h"

static uint32_t users_ended, users;
static bool slot_held[GRANULES_MOST];

static void user_ended(void)
{
	users_ended++;
	actor_wrote();
}

static void *vcpu(void *arg)
{
	uint32_t i = (uint32_t)(uintptr_t)arg;

	for (uint32_t n = 0; n < test->stores; n++) {
		world_store(pick(i, n), (i + n) % 2);
		actor_forgets(n + 1);
	}
	user_ended();
	return NULL;
}

static void *reader(void *arg)
{
	uint8_t got[LDFS_PAGE_SIZE];
	int rc;

	(void)arg;
	for (uint32_t g = 0; g < test->world.granules; g++) {
		rc = ldfs_dump_read(world_dump, (uint64_t)g * LDFS_PAGE_SIZE, got, sizeof(got));
		if (rc == 0)
			world_check_read(g, got);
		else if (rc == -ENODATA ? test->owner != RELEASES : rc != -EIO || !world_may_lose())
			violated("granule %u: a reader got %d", g, rc);
		actor_forgets(g + 1);
	}
	user_ended();
	return NULL;
}

/* Takes, holds and gives back slots as two handlers one after the other would. */
static void *slot_user(void *arg)
{
	struct ldfs_ring *r = &world_dump->ring;
	uint32_t slots[2];

	(void)arg;
	for (int i = 0; i < 2; i++) {
		slots[i] = ldfs_ring_take(r);
		if (slots[i] == NO_SLOT)
			continue;
		if (slot_held[slots[i]])
			violated("slot %u is taken twice", slots[i]);
		slot_held[slots[i]] = true;
	}
	for (int i = 0; i < 2; i++) {
		if (slots[i] == NO_SLOT)
			continue;
		slot_held[slots[i]] = false;
		ldfs_ring_give(r, slots[i]);
	}
	user_ended();
	return NULL;
}

/* A thread that quiesce does not stop. */
static void *caller(void *arg)
{
	(void)arg;
	ldfs_arena_writable(world_arena, 0, LDFS_PAGE_SIZE);
	user_ended();
	return NULL;
}

static void *discarder(void *arg)
{
	(void)arg;
	ldfs_arena_discard(world_arena, 0, LDFS_PAGE_SIZE);
	user_ended();
	return NULL;
}

/* Beside a START that is at work. */
static void *releaser(void *arg)
{
	(void)arg;
	hold_release();
	ldfs_dump_release(world_dump);
	user_ended();
	return NULL;
}

static void *client(void *arg)
{
	hold_client(arg);
	user_ended();
	return NULL;
}

/* ---------------------------------------------------------------- all of them */

void users_make(void)
{
	static const char *const vcpu_names[] = { "vcpu0", "vcpu1", "vcpu2" };

	users_ended = 0;
	users = test->vcpus + test->readers + test->callers + test->discards + test->releasers +
		(test->owner == HELD);
	memset(slot_held, 0, sizeof(slot_held));
	for (uint32_t i = 0; i < test->releasers; i++)
		actor_make("releaser", releaser, NULL);
	if (test->owner == HELD)
		actor_make("client", client, NULL);
	for (uint32_t i = 0; i < test->vcpus; i++)
		actor_make(vcpu_names[i], test->owner == RING ? slot_user : vcpu,
			   (void *)(uintptr_t)i);
	for (uint32_t i = 0; i < test->readers; i++)
		actor_make("reader", reader, NULL);
	for (uint32_t i = 0; i < test->callers; i++)
		actor_make("caller", caller, NULL);
	for (uint32_t i = 0; i < test->discards; i++)
		actor_make("discarder", discarder, NULL);
}

void users_wait(void)
{
	while (users_ended < users)
		turn_spin();
}

uint64_t users_state(uint64_t h)
{
	h = mix(h, users_ended);
	for (uint32_t i = 0; i < GRANULES_MOST; i++)
		h = mix(h, slot_held[i]);
	return h;
}
