/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * features.c - what the disk and its driver agree on (virtio 1.2, 2.2 and 3.1.1): the device
 * offers, the driver accepts a part of it, and says FEATURES_OK; a device that cannot work so takes
 * that bit back.
 */
#include "board/within.h"

#define SEGMENT_SIZE_MOST (1u << 1)
#define SEGMENTS_MOST (1u << 2)
#define READ_ONLY (1u << 5)
#define FLUSH (1u << 9)
#define VERSION_1 1u /* bit 32 */

uint32_t ldfs_features_offered(const struct disk *k, uint32_t page)
{
	if (page == 0)
		return SEGMENT_SIZE_MOST | SEGMENTS_MOST | FLUSH | (k->read_only ? READ_ONLY : 0);
	return page == 1 ? VERSION_1 : 0;
}

void ldfs_features_accept(struct disk *k, uint32_t page, uint32_t accepted)
{
	if (k->status & LDFS_FEATURES_OK)
		return;
	if (page < FEATURE_PAGES)
		k->accepted[page] = accepted;
	else
		k->accepted_beyond |= accepted != 0;
}

static bool are_right(const struct disk *k)
{
	for (uint32_t page = 0; page < FEATURE_PAGES; page++)
		if (k->accepted[page] & ~ldfs_features_offered(k, page))
			return false;
	return (k->accepted[1] & VERSION_1) && !k->accepted_beyond;
}

uint32_t ldfs_features_status(const struct disk *k, uint32_t asked)
{
	bool wrong = (asked & LDFS_FEATURES_OK) && !(k->status & LDFS_FEATURES_OK) && !are_right(k);

	return wrong ? asked & ~LDFS_FEATURES_OK : asked;
}
