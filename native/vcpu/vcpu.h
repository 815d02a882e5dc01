/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vcpu.h - vCPUs that run guest code with Unicorn, and how they are held. What it offers is in
 * ldfs.h, `ldfs_machine_...`.
 *
 * It runs code and stops it, and refuses to know of arenas and dumps: memory is an address to it.
 *
 * Each vCPU is a thread with a Unicorn instance of its own; all map the same host memory. A locked
 * instruction is therefore not atomic against another vCPU.
 *
 * Stopping Unicorn from another thread is not exact: it runs some guest instructions twice
 * (docs/concurrency.md, Parking, says why). So no thread does. Before each block of guest code
 * Unicorn calls on_block() on the vCPU's own thread, which looks at `attention` and waits there;
 * registers and memory are then those of an instruction boundary. A vCPU also waits before it
 * enters emulation (after a hlt, at start).
 *
 *   attention   written by the threads that pause it: their number, and STOP
 *   inside      written by the vCPU: 1 while guest code may run
 *
 * The vCPU says inside = 1, then looks at attention; the one who pauses raises attention, then
 * looks at inside. Both with sequentially consistent operations, so at least one sees the other:
 * when inside is 0 after attention was raised, no guest code runs until attention is lowered again,
 * and everybody may read this vCPU's registers.
 */
#ifndef LDFS_VCPU_H
#define LDFS_VCPU_H

#include "base/base.h"
#include "vcpu/console.h"
#include "vcpu/unicorn_abi.h"

#define STOP (1u << 31) /* in `attention` */

struct ldfs_vcpu {
	_Alignas(CACHE_LINE) _Atomic uint32_t attention;
	_Alignas(CACHE_LINE) _Atomic uint32_t inside;
	struct ldfs_event left; /* inside became 0, or the thread began or ended */
	struct ldfs_event go;   /* attention was lowered, or STOP set */
	_Atomic uint32_t state; /* enum ldfs_vcpu_state; what it explains is written before it */
	_Atomic uint32_t
		urgent; /* somebody has raised the thread, which lowers itself when it goes on */
	_Atomic uint32_t begun; /* the thread runs with its final signal mask */
	_Atomic uint32_t ended; /* the thread touches nothing any more */

	struct ldfs_machine *machine;
	uint32_t index;
	ldfs_uc *uc;
	pthread_t thread;
	_Atomic pid_t tid; /* before begun */
	bool has_thread;   /* owner */

	uint64_t *code_pages; /* one bit for each page of RAM: code was fetched from it; thread */
	uint64_t pc;          /* where to enter next; thread, and owner before start */
	int32_t exception;    /* -1: none yet; thread */
	ldfs_vcpu_status end; /* FAILED, HALTED: how; written before state */
	ldfs_registers crash; /* FAILED by an exception: its registers, before Unicorn unwinds */
	ldfs_registers snapshot;
};

struct ldfs_machine {
	struct ldfs_uc_api uc;
	uint8_t *ram;
	ldfs_ram_range *ranges;
	uint32_t range_count;
	uint32_t vcpu_count;
	bool started;            /* owner */
	pid_t pid;               /* of the process that made it */
	_Atomic uint32_t paused; /* quiesces that wait for their resume */
	ldfs_quiesce_ops ops;
	pthread_mutex_t snapshot_lock; /* vcpu.snapshot, has_snapshot */
	bool has_snapshot;
	struct ldfs_console console;
	struct ldfs_vcpu vcpus[LDFS_MAX_VCPUS];
};

/* ------------------------------------------------------------------- hold.c */

/* [vCPU] Wait until nothing holds us, then be inside. False: STOP, and not inside. */
bool ldfs_vcpu_enter(struct ldfs_vcpu *v);
/* [vCPU] No guest code from here on; what was written before is seen by a thread that holds us. */
void ldfs_vcpu_leave(struct ldfs_vcpu *v);
/* [vCPU] Sleep until `attention` is another than `seen_attention`, STOP comes, or the deadline. */
void ldfs_vcpu_wait_for_change(struct ldfs_vcpu *v, uint32_t seen_attention, uint64_t deadline_ns);
/* [any thread] Raise and lower `attention`. */
void ldfs_vcpu_hold(struct ldfs_vcpu *v);
void ldfs_vcpu_let_go(struct ldfs_vcpu *v);
/* [any thread] Help a held one that waits for a processor. *turns is 0 for the first. */
void ldfs_vcpu_hurry(struct ldfs_vcpu *v, unsigned *turns);
/* [any thread] The vCPU goes on, or does not come in time. */
void ldfs_vcpu_lower(struct ldfs_vcpu *v);
/* [any thread] Until the vCPU is outside; the caller holds it. False: the deadline. */
bool ldfs_vcpu_wait_outside(struct ldfs_vcpu *v, uint64_t deadline_ns);

/* -------------------------------------------------------------- registers.c */
void ldfs_vcpu_read(const struct ldfs_vcpu *v, ldfs_registers *out);
/* Of a vCPU that is held or does not run: those of the crash count, not what Unicorn left. */
void ldfs_vcpu_read_held(const struct ldfs_vcpu *v, ldfs_registers *out);

/* ---------------------------------------------------------------- emulate.c */

/* Number of the page in the arena, UINT64_MAX where there is no RAM. */
uint64_t ldfs_machine_page(const ldfs_machine *m, uint64_t address);
/* Make its Unicorn instance. Unicorn's uc_err. */
int ldfs_vcpu_open(struct ldfs_vcpu *v);

/* ---------------------------------------------------------------- unicorn.c */

/* Fill in `api` from the library at `path`. -ELIBACC, and `why` in words. */
int ldfs_unicorn_load(const char *path, struct ldfs_uc_api *api, char *why, size_t why_size);

#endif
