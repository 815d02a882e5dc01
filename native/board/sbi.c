/* SPDX-License-Identifier: GPL-2.0-or-later */
/* sbi.c - the firmware: the calls of the RISC-V Supervisor Binary Interface 2.0, for one hart. */
#include "board/within.h"

enum {
	EXTENSION_BASE = 0x10,
	EXTENSION_TIME = 0x54494d45,
	EXTENSION_IPI = 0x735049,
	EXTENSION_RFENCE = 0x52464e43,
	EXTENSION_HSM = 0x48534d,
	EXTENSION_RESET = 0x53525354,
	EXTENSION_CONSOLE = 0x4442434e
};

enum { SUCCESS = 0, NOT_SUPPORTED = -2, INVALID_PARAMETER = -3, ALREADY_AVAILABLE = -6 };

/* A call prints or reads no more, and says so: the hart cannot be held meanwhile. */
#define CONSOLE_MOST 4096
#define SPEC_VERSION (2u << 24)
#define IMPLEMENTATION 0x6c64 /* "ld"; none of the registered ones */

enum { A0 = 10, A1, A2, A3, A4, A5, A6, A7 };

struct answer {
	int64_t error;
	uint64_t value;
};

static bool is_there(uint64_t extension)
{
	switch (extension) {
	case EXTENSION_BASE:
	case EXTENSION_TIME:
	case EXTENSION_IPI:
	case EXTENSION_RFENCE:
	case EXTENSION_HSM:
	case EXTENSION_RESET:
	case EXTENSION_CONSOLE:
		return true;
	}
	return false;
}

static struct answer base(uint64_t function, uint64_t a0)
{
	switch (function) {
	case 0:
		return (struct answer){ SUCCESS, SPEC_VERSION };
	case 1:
		return (struct answer){ SUCCESS, IMPLEMENTATION };
	case 3:
		return (struct answer){ SUCCESS, is_there(a0) };
	case 2: /* versions of the implementation, the vendor, the architecture and the machine */
	case 4:
	case 5:
	case 6:
		return (struct answer){ SUCCESS, 0 };
	}
	return (struct answer){ NOT_SUPPORTED, 0 };
}

/* Whether a mask of harts names the only one; a base of all ones is all harts. */
static bool names_us(uint64_t mask, uint64_t first)
{
	return first == UINT64_MAX || (first == 0 && mask & 1);
}

static struct answer status_of_hart(struct ldfs_board *b, uint64_t function)
{
	switch (function) {
	case 0: /* start */
		return (struct answer){ ldfs_hart_x(b, A0) ? INVALID_PARAMETER : ALREADY_AVAILABLE,
					0 };
	case 2: /* status: started */
		return (struct answer){ ldfs_hart_x(b, A0) ? INVALID_PARAMETER : SUCCESS, 0 };
	}
	return (struct answer){ NOT_SUPPORTED, 0 };
}

static struct answer reset(struct ldfs_board *b, uint64_t type)
{
	if (type > 2)
		return (struct answer){ INVALID_PARAMETER, 0 };
	b->wish = type == 0 ? WISH_OFF : WISH_REBOOT;
	b->machine->uc.emu_stop(b->hart->uc);
	return (struct answer){ SUCCESS, 0 };
}

static struct answer console(struct ldfs_board *b, uint64_t function)
{
	uint64_t size = ldfs_hart_x(b, A0), done = 0;
	uint8_t *at;

	if (function == 2) {
		ldfs_console_put(&b->machine->console, 0, (uint8_t)size);
		return (struct answer){ SUCCESS, 0 };
	}
	if (function > 2)
		return (struct answer){ NOT_SUPPORTED, 0 };
	at = ldfs_ram_at(b, ldfs_hart_x(b, A1), size);
	if (!at)
		return (struct answer){ INVALID_PARAMETER, 0 };
	if (size > CONSOLE_MOST)
		size = CONSOLE_MOST;
	if (function == 0)
		for (; done < size; done++)
			ldfs_console_put(&b->machine->console, 0, at[done]);
	for (int c; function == 1 && done < size && (c = ldfs_serial_take(b)) >= 0; done++) {
		uint8_t byte = (uint8_t)c;

		ldfs_mmu_copy(b, at + done, &byte, 1);
	}
	return (struct answer){ SUCCESS, done };
}

static struct answer call(struct ldfs_board *b)
{
	uint64_t function = ldfs_hart_x(b, A6), a0 = ldfs_hart_x(b, A0);

	switch (ldfs_hart_x(b, A7)) {
	case EXTENSION_BASE:
		return base(function, a0);
	case EXTENSION_TIME:
		if (function)
			break;
		ldfs_clock_set(b, a0);
		return (struct answer){ SUCCESS, 0 };
	case EXTENSION_IPI:
		if (function)
			break;
		if (!names_us(a0, ldfs_hart_x(b, A1)))
			return (struct answer){ INVALID_PARAMETER, 0 };
		ldfs_hart_pending(b, SOFTWARE_PENDING, true);
		return (struct answer){ SUCCESS, 0 };
	case EXTENSION_RFENCE:
		/* 0: fence.i, which translated code does not need (mmu.c); 1, 2: sfence.vma. */
		if (function > 2)
			break;
		if (!names_us(a0, ldfs_hart_x(b, A1)))
			return (struct answer){ INVALID_PARAMETER, 0 };
		if (function)
			b->machine->uc.ctl(b->hart->uc, LDFS_UC_CTL_WRITE_0(LDFS_UC_CTL_TLB_FLUSH));
		return (struct answer){ SUCCESS, 0 };
	case EXTENSION_HSM:
		return status_of_hart(b, function);
	case EXTENSION_RESET:
		return function ? (struct answer){ NOT_SUPPORTED, 0 } : reset(b, a0);
	case EXTENSION_CONSOLE:
		return console(b, function);
	}
	return (struct answer){ NOT_SUPPORTED, 0 };
}

void ldfs_sbi_call(struct ldfs_board *b)
{
	struct answer answer = call(b);

	ldfs_hart_set_x(b, A0, (uint64_t)answer.error);
	ldfs_hart_set_x(b, A1, answer.value);
}
