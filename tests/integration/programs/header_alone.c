/* SPDX-License-Identifier: GPL-2.0-or-later */
/* C and C++ of each standard: the header needs nothing else. */
#include "livedump_ioctl.h"

int main(void)
{
	struct livedump_status status = { 0 };

	return status.failure.operation == LIVEDUMP_OPERATION_SYNC;
}
