/* SPDX-License-Identifier: GPL-2.0-or-later */
/* picks.c - see picks.h. */
#include <string.h>

#include "picks.h"

char picks[PICKS_MOST + 1];

bool picks_begin(const char *only)
{
	uint32_t all = test->vcpus * test->stores;

	if (only && strlen(only) != all)
		return false;
	memset(picks, '0', all);
	if (only)
		memcpy(picks, only, all);
	return true;
}

uint32_t pick(uint32_t vcpu, uint32_t store)
{
	return (uint32_t)(picks[vcpu * test->stores + store] - '0');
}

/* vCPUs that store once are alike, so theirs never fall. */
bool picks_next(void)
{
	uint32_t all = test->vcpus * test->stores;
	char most = (char)('0' + test->world.granules - 1);

	for (uint32_t i = all; i-- > 0;) {
		if (picks[i] == most)
			continue;
		picks[i]++;
		memset(picks + i + 1, test->stores == 1 ? picks[i] : '0', all - i - 1);
		return true;
	}
	return false;
}
