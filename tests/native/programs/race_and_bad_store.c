/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Two threads that race, and a store beyond what was allocated. */
#include <pthread.h>
#include <stdlib.h>

static int n;

static void *add(void *p)
{
	for (int i = 0; i < 1000; i++)
		n++;
	return p;
}

int main(void)
{
	pthread_t t;
	volatile char *p = malloc(3);

	pthread_create(&t, NULL, add, NULL);
	add(NULL);
	pthread_join(t, NULL);
	p[n ? 3 : 0] = 1;
	return 0;
}
