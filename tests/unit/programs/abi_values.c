/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The values of the expressions in values.h, which the test writes: VALUE(expression) a line. */
#include <stddef.h>
#include <stdio.h>

#include "livedump_ioctl.h"

#define VALUE(expression) printf("%llu\n", (unsigned long long)(expression));

int main(void)
{
#include "values.h"
	return 0;
}
