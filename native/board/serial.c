/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * serial.c - the serial line (16550A), which sends into the machine's console and receives what was
 * typed, and the real-time clock (goldfish), which is CLOCK_REALTIME.
 */
#include <errno.h>
#include <time.h>

#include "board/within.h"

enum { DATA, IER, IIR, LCR, MCR, LSR, MSR, SCRATCH };
enum { IER_RECEIVE = 1, IER_SEND = 2 };
enum { IIR_NONE = 1, IIR_SEND = 2, IIR_RECEIVE = 4, IIR_FIFOS = 0xc0 };
#define LCR_DIVISOR 0x80
#define MCR_LOOP 0x10
#define LSR_RECEIVED 1u
#define LSR_MAY_SEND 0x60u
#define MSR_CONNECTED 0xb0u /* carrier, ready, clear to send */

static bool waits(struct uart *u)
{
	bool some;

	pthread_mutex_lock(&u->lock);
	some = u->put != u->taken;
	pthread_mutex_unlock(&u->lock);
	return some;
}

int ldfs_serial_take(struct ldfs_board *b)
{
	struct uart *u = &b->uart;
	int c = -1;

	pthread_mutex_lock(&u->lock);
	if (u->put != u->taken)
		c = u->typed[u->taken++ % LDFS_BOARD_TYPED];
	pthread_mutex_unlock(&u->lock);
	return c;
}

int ldfs_board_type(ldfs_board *b, const uint8_t *bytes, uint64_t size)
{
	struct uart *u = &b->uart;
	bool room;

	pthread_mutex_lock(&u->lock);
	room = size <= LDFS_BOARD_TYPED - (u->put - u->taken);
	for (uint64_t i = 0; room && i < size; i++)
		u->typed[u->put++ % LDFS_BOARD_TYPED] = bytes[i];
	pthread_mutex_unlock(&u->lock);
	ldfs_vcpu_set_work(b->hart);
	return room ? 0 : -EAGAIN;
}

static uint8_t cause(struct uart *u)
{
	if (u->ier & IER_RECEIVE && waits(u))
		return IIR_RECEIVE;
	if (u->ier & IER_SEND && u->sent)
		return IIR_SEND;
	return IIR_NONE;
}

void ldfs_serial_attend(struct ldfs_board *b)
{
	ldfs_plic_line(b, LDFS_BOARD_UART_IRQ, cause(&b->uart) != IIR_NONE);
}

uint64_t ldfs_serial_read(ldfs_uc *uc, uint64_t offset, unsigned int size, void *user)
{
	struct ldfs_board *b = user;
	struct uart *u = &b->uart;
	uint64_t value = 0;
	int c;

	(void)uc;
	(void)size;
	switch (offset) {
	case DATA:
		if (u->lcr & LCR_DIVISOR)
			return u->dll;
		c = ldfs_serial_take(b);
		value = c < 0 ? 0 : (uint8_t)c;
		break;
	case IER:
		return u->lcr & LCR_DIVISOR ? u->dlm : u->ier;
	case IIR:
		value = cause(u);
		if (value == IIR_SEND)
			u->sent = false;
		value |= IIR_FIFOS;
		break;
	case LCR:
		return u->lcr;
	case MCR:
		return u->mcr;
	case LSR:
		return LSR_MAY_SEND | (waits(u) ? LSR_RECEIVED : 0);
	case MSR:
		if (!(u->mcr & MCR_LOOP))
			return MSR_CONNECTED;
		/* What is sent comes back: RTS, DTR, OUT1 and OUT2 as CTS, DSR, RI and DCD. */
		return (u->mcr & 2u) << 3 | (u->mcr & 1u) << 5 | (u->mcr & 0xcu) << 4;
	case SCRATCH:
		return u->scratch;
	}
	ldfs_serial_attend(b);
	return value;
}

void ldfs_serial_write(ldfs_uc *uc, uint64_t offset, unsigned int size, uint64_t value, void *user)
{
	struct ldfs_board *b = user;
	struct uart *u = &b->uart;
	uint8_t byte = (uint8_t)value;

	(void)uc;
	(void)size;
	switch (offset) {
	case DATA:
		if (u->lcr & LCR_DIVISOR) {
			u->dll = byte;
		} else {
			ldfs_console_put(&b->machine->console, 0, byte);
			u->sent = true;
		}
		break;
	case IER:
		if (u->lcr & LCR_DIVISOR) {
			u->dlm = byte;
		} else {
			u->sent |= !(u->ier & IER_SEND) && byte & IER_SEND;
			u->ier = byte & 0xf;
		}
		break;
	case LCR:
		u->lcr = byte;
		break;
	case MCR:
		u->mcr = byte & 0x1f;
		break;
	case SCRATCH:
		u->scratch = byte;
		break;
	}
	ldfs_serial_attend(b);
}

/* ---------------------------------------------------------- the real-time clock */

enum { TIME_LOW = 0, TIME_HIGH = 4 };

uint64_t ldfs_rtc_read(ldfs_uc *uc, uint64_t offset, unsigned int size, void *user)
{
	struct ldfs_board *b = user;
	struct timespec now;
	uint64_t ns;

	(void)uc;
	(void)size;
	if (offset == TIME_HIGH)
		return b->rtc.high;
	if (offset != TIME_LOW)
		return 0;
	clock_gettime(CLOCK_REALTIME, &now);
	ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
	b->rtc.high = (uint32_t)(ns >> 32);
	return (uint32_t)ns;
}

/* The host's clock is not the guest's to set; it has no alarm. */
void ldfs_rtc_write(ldfs_uc *uc, uint64_t offset, unsigned int size, uint64_t value, void *user)
{
	(void)uc;
	(void)offset;
	(void)size;
	(void)value;
	(void)user;
}
