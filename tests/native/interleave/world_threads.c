/* SPDX-License-Identifier: GPL-2.0-or-later */
/* world_threads.c - the core's threads, which are actors, and its locks. */
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "world_parts.h"

#define LOCKS_MOST 4

static const void *locks[LOCKS_MOST]; /* those that are held */

void locks_begin(void)
{
	memset(locks, 0, sizeof(locks));
}

uint64_t locks_state(uint64_t h)
{
	return mix(h, locks[0] != NULL);
}

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
	actor_name((int)thread, name + strlen("ldfs-"));
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
