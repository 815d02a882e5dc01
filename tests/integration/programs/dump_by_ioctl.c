/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A dump to argv[2] by the device argv[1], with the header alone. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include "livedump_ioctl.h"
int main(int argc, char **argv)
{
	static struct livedump_init init = { .version = LIVEDUMP_ABI_VERSION };
	static struct livedump_status status;
	int fd = open(argv[1], O_RDONLY);
	strncpy(init.path, argv[2], sizeof(init.path) - 1);
	if (argc != 3 || ioctl(fd, LIVEDUMP_IOC_INIT_TYPED, &init) ||
	    ioctl(fd, LIVEDUMP_IOC_START) || ioctl(fd, LIVEDUMP_IOC_SWEEP) ||
	    ioctl(fd, LIVEDUMP_IOC_STATUS, &status)) {
		perror("ioctl");
		return 1;
	}
	printf("%u %u %s\n", status.state, status.verdict, status.target);
	return ioctl(fd, LIVEDUMP_IOC_RELEASE) ? 1 : 0;
}
