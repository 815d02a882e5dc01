/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * dump_host HOST TARGET: a dump by the ioctls of a host's mount. HOST is its `livedump` file.
 *
 *   cc -I$(python3 -c 'import livedumpfs; print(livedumpfs.get_include())') dump_host.c -o
 * dump_host
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include "livedump_ioctl.h"

int main(int argc, char **argv)
{
	static struct livedump_init init = {
		.version = LIVEDUMP_ABI_VERSION,
		.flags = LIVEDUMP_INIT_RELEASE_ON_CLOSE, /* also when this program is killed */
		.format = LIVEDUMP_FORMAT_KDUMP,
	};
	static struct livedump_status status;
	int host = argc == 3 ? open(argv[1], O_RDONLY) : -1;

	if (host < 0) {
		fprintf(stderr, "usage: dump_host HOST TARGET\n");
		return 2;
	}
	strncpy(init.path, argv[2], sizeof(init.path) - 1);
	if (ioctl(host, LIVEDUMP_IOC_INIT_TYPED, &init) || /* the target is ready */
	    ioctl(host, LIVEDUMP_IOC_START) ||             /* the instant; the machine runs on */
	    ioctl(host, LIVEDUMP_IOC_SWEEP) ||             /* all is written and sealed */
	    ioctl(host, LIVEDUMP_IOC_STATUS, &status)) {
		perror("dump_host"); /* control/error in the mount has the sentence behind it */
		return 1;
	}
	printf("stopped for %.0f us, %llu of %llu granules saved by page faults, %s\n",
	       (double)status.pause_ns / 1000, status.by_fault, status.granules,
	       status.verdict == LIVEDUMP_VERDICT_CONSISTENT ? "consistent" : "not consistent");
	return ioctl(host, LIVEDUMP_IOC_RELEASE) ? 1 : 0;
}
