/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * reference.h - for tests: the arena as it is at the snapshot instant, copied beside the dump,
 * which is then compared with it.
 *
 * It is no part of the public interface, because the machine stands still as long as the copy
 * takes.
 */
#ifndef LDFS_REFERENCE_H
#define LDFS_REFERENCE_H

#include "ldfs.h"

/* cffi: begin */

/*
 * [owner] Before START: have it copy the arena to `fd` during the pause, without holes. `fd` is
 * duplicated, and the duplicate closed with the dump. 0, or -errno: it could not be duplicated.
 */
int ldfs_dump_set_reference(ldfs_dump *d, int fd);

/* cffi: end */

#endif
