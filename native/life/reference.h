/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * reference.h - for tests: the arena as it is at the snapshot instant, copied beside the dump,
 * which is then compared with it.
 *
 * It is no part of the public interface, and refuses to be one: the machine stands as long as the
 * copy takes.
 */
#ifndef LDFS_REFERENCE_H
#define LDFS_REFERENCE_H

#include "ldfs.h"

/* cffi: begin */

/*
 * [owner] Before START: the arena is copied to `fd` inside the pause, holes left out. It is
 * duplicated, and closed with the dump. -errno: it could not be.
 */
int ldfs_dump_set_reference(ldfs_dump *d, int fd);

/* cffi: end */

#endif
