/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vcpu.h - vCPUs that run guest code with Unicorn, and how they are held. The public functions
 * are in ldfs.h, `ldfs_machine_...`.
 *
 * It runs code and stops it, and refuses to know arenas and dumps: memory is an address to it. What
 * differs from machine to machine is a struct ldfs_vcpu_kind: flat.c has the flat x86-64 one.
 *
 * Each vCPU is a thread with a Unicorn instance of its own; all map the same host memory. A locked
 * instruction is therefore not atomic against another vCPU.
 *
 * Stopping Unicorn from another thread is not exact: it runs some guest instructions twice
 * (docs/concurrency.md, Parking, says why). So no thread does that. Instead Unicorn calls
 * on_block() on the vCPU's own thread before each block of guest code. on_block() looks at
 * `attention` and waits there; registers and memory are then those of an instruction boundary. A
 * vCPU also waits before it enters emulation (after a hlt, and at its start).
 *
 *   attention   written by the threads that pause the vCPU: their number; the bit STOP; the bit
 *               WORK, by threads that have something for the vCPU's own thread to do
 *   inside      written by the vCPU: 1 while guest code may run
 *
 * The vCPU sets inside to 1, then reads attention; a pausing thread raises attention, then reads
 * inside. Both use sequentially consistent operations, so at least one sees what the other wrote.
 * When inside is 0 after attention was raised, no guest code runs until attention is lowered again,
 * and any thread may read the registers of this vCPU.
 *
 * [vCPU]: on the thread of that vCPU only. The other marks are those of ldfs.h.
 */
#ifndef LDFS_VCPU_H
#define LDFS_VCPU_H

#include "base/base.h"
#include "vcpu/console.h"
#include "vcpu/unicorn_abi.h"

#define STOP (1u << 31) /* a bit of `attention`: end the thread */
#define WORK (1u << 30) /* a bit of `attention`: kind->attend has something to do */
#define HOLDS(attention) ((attention) & ~(STOP | WORK))

struct ldfs_vcpu;

/* What a vCPU does after Unicorn has returned. */
enum ldfs_vcpu_next {
	LDFS_NEXT_AGAIN, /* run on at v->pc */
	LDFS_NEXT_IDLE,  /* kind->idle, then run on */
	LDFS_NEXT_HALT,  /* never again */
	LDFS_NEXT_FAIL   /* the guest has crashed */
};

/* What one kind of machine is beyond running and being held. `attend` may be NULL. */
struct ldfs_vcpu_kind {
	int arch, mode;      /* of uc_open */
	int pc;              /* Unicorn's number of the program counter */
	uint32_t code_bytes; /* of the buffer for translated code */
	/* [owner] Add the hooks of this kind to v->uc. 0, or an error number of Unicorn (uc_err).
	 */
	int (*hook)(struct ldfs_vcpu *v);
	/* [vCPU] Inside, after WORK was set. */
	void (*attend)(struct ldfs_vcpu *v);
	/* [vCPU] Inside; Unicorn has returned `error` (uc_err), v->pc is where. Not called for
	 * STOP. */
	enum ldfs_vcpu_next (*returned)(struct ldfs_vcpu *v, int error);
	/* [vCPU] Outside: sleep until there is something to do, or `attention` has STOP or WORK. */
	void (*idle)(struct ldfs_vcpu *v);
	/* [any thread] The registers of a vCPU that is held, or by its own thread. */
	void (*read)(const struct ldfs_vcpu *v, ldfs_any_registers *out);
};

struct ldfs_vcpu {
	_Alignas(CACHE_LINE) _Atomic uint32_t attention;
	_Alignas(CACHE_LINE) _Atomic uint32_t inside;
	struct ldfs_event left; /* notified when inside became 0, or the thread began or ended */
	struct ldfs_event go;   /* notified when attention was lowered, or STOP set */
	_Atomic uint32_t state; /* enum ldfs_vcpu_state; `end` and `crash` are written before it */
	/* 1: a pausing thread has raised this thread's priority, until the vCPU goes on. */
	_Atomic uint32_t urgent;
	_Atomic uint32_t begun; /* the thread runs with its final signal mask */
	_Atomic uint32_t ended; /* the thread no longer touches this struct */

	struct ldfs_machine *machine;
	uint32_t index;
	ldfs_uc *uc;
	pthread_t thread;
	_Atomic pid_t tid; /* thread id; written before begun */
	bool has_thread;   /* owner */

	/* One bit for each page of RAM: code was fetched from it. Only the thread uses it. */
	uint64_t *code_pages;
	/* Where to enter the guest next. Used by the thread, and by the owner before the start. */
	uint64_t pc;
	int32_t exception;    /* number of the exception, -1: none yet; thread */
	ldfs_vcpu_status end; /* how it FAILED or HALTED; written before state */
	/* FAILED by an exception: the registers of the guest, read before Unicorn unwinds. */
	ldfs_any_registers crash;
	ldfs_any_registers snapshot;
};

struct ldfs_machine {
	struct ldfs_uc_api uc;
	const struct ldfs_vcpu_kind *kind;
	void *owner; /* the kind's own */
	uint8_t *ram;
	ldfs_ram_range *ranges;
	uint32_t range_count;
	uint32_t vcpu_count;
	bool started;            /* owner */
	pid_t pid;               /* of the process that made the machine */
	_Atomic uint32_t paused; /* quiesce calls without their resume yet */
	ldfs_quiesce_ops ops;
	pthread_mutex_t snapshot_lock; /* protects vcpu.snapshot and has_snapshot */
	bool has_snapshot;
	struct ldfs_console console;
	struct ldfs_vcpu vcpus[LDFS_MAX_VCPUS];
};

/* ------------------------------------------------------------------- hold.c */

/* [vCPU] Wait until no thread holds this vCPU, then be inside. False: STOP, and outside. */
bool ldfs_vcpu_enter(struct ldfs_vcpu *v);
/*
 * [vCPU] No guest code runs from here on; a thread that holds this vCPU sees all that it wrote
 * before.
 */
void ldfs_vcpu_leave(struct ldfs_vcpu *v);
/*
 * [vCPU] Sleep until `attention` is no longer `seen_attention` (STOP changes it too), or until
 * `deadline_ns` (CLOCK_MONOTONIC).
 */
void ldfs_vcpu_wait_for_change(struct ldfs_vcpu *v, uint32_t seen_attention, uint64_t deadline_ns);
/* [any thread] Have kind->attend called soon, on the vCPU's thread. */
void ldfs_vcpu_set_work(struct ldfs_vcpu *v);
/* [vCPU] Inside: call kind->attend if WORK is set. */
void ldfs_vcpu_attend(struct ldfs_vcpu *v);
/* [any thread] Raise and lower `attention`. Calls nest. */
void ldfs_vcpu_hold(struct ldfs_vcpu *v);
void ldfs_vcpu_let_go(struct ldfs_vcpu *v);
/*
 * [any thread] Help a vCPU to park that waits for a processor. *turns counts the time spent for all
 * vCPUs; 0 before the first.
 */
void ldfs_vcpu_hurry(struct ldfs_vcpu *v, unsigned *turns);
/* [any thread] End the raised priority: the vCPU goes on, or did not park in time. */
void ldfs_vcpu_lower(struct ldfs_vcpu *v);
/* [any thread] Wait until the vCPU, which the caller holds, is outside. False: the deadline. */
bool ldfs_vcpu_wait_outside(struct ldfs_vcpu *v, uint64_t deadline_ns);

/* -------------------------------------------------------------- registers.c */
/* The registers of a vCPU that is held or does not run; after a crash, those of the crash. */
void ldfs_vcpu_read_held(const struct ldfs_vcpu *v, ldfs_any_registers *out);

/* ---------------------------------------------------------------- emulate.c */

/* The page number in the arena of a guest address, UINT64_MAX where there is no RAM. */
uint64_t ldfs_machine_page(const ldfs_machine *m, uint64_t address);
/* [owner] Make the vCPU's Unicorn instance. 0, or an error number of Unicorn (uc_err). */
int ldfs_vcpu_open(struct ldfs_vcpu *v);

/* ------------------------------------------------------------------- flat.c */
extern const struct ldfs_vcpu_kind ldfs_vcpu_flat;

/* ---------------------------------------------------------------- machine.c */

/*
 * [owner] As ldfs_machine_create, of any kind; `owner` is kept in the machine before kind->hook is
 * called.
 */
int ldfs_machine_make(const struct ldfs_vcpu_kind *kind, void *owner, const char *library,
		      void *ram, const ldfs_ram_range *ranges, uint32_t range_count, uint32_t vcpus,
		      ldfs_machine **out, char *why, size_t why_size);

/* ---------------------------------------------------------------- unicorn.c */

/*
 * [owner] Fill in `api` from the library at `path`. -ELIBACC: not possible, and `why`, at most
 * `why_size` bytes with its NUL, says why.
 */
int ldfs_unicorn_load(const char *path, struct ldfs_uc_api *api, char *why, size_t why_size);

#endif
