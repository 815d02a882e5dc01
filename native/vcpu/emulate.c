/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vcpu_unicorn.c - vCPUs that run guest code with Unicorn, and how they are held.
 *
 * Each vCPU is a thread with a Unicorn instance of its own; all map the same host memory. A locked
 * instruction is therefore not atomic against another vCPU.
 *
 * Stopping Unicorn from another thread is not exact: it runs some guest instructions twice
 * (docs/concurrency.md, Parking, says why). So nobody does. Before each block of guest code Unicorn calls on_block() on the vCPU's own thread,
 * which looks at `attention` and waits there; registers and memory are then those of an
 * instruction boundary. A vCPU also waits before it enters emulation (after a hlt, at start).
 *
 *   attention   written by those who want something: number of pauses, and STOP
 *   inside      written by the vCPU: 1 while guest code may run
 *
 * The vCPU says inside = 1, then looks at attention; the one who pauses raises attention, then looks
 * at inside. Both with sequentially consistent operations, so at least one sees the other: when
 * inside is 0 after attention was raised, no guest code runs until attention is lowered again, and
 * everybody may read this vCPU's registers.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vcpu/console.h"
#include "base/base.h"
#include "vcpu/unicorn_abi.h"

#define STOP (1u << 31)

#define HURRY_TURNS 500u /* of a pause each: some ten microseconds, for all vCPUs together */

/* The timer that ends a hlt. */
#define TICK_NS 1000000u

/* Unicorn stops where this address would be fetched; no guest can have code there. */
#define NOWHERE UINT64_C(0x8000000000000000)

/* Translated code of one vCPU; Unicorn's own default reserves 1 GiB each. */
#define CODE_BUFFER (UINT32_C(64) << 20)

#define HLT_OPCODE 0xf4
#define EFLAGS_IF (1u << 9)

#define PORT_DEBUG 0xe9      /* the emulators' debug console */
#define PORT_COM1 0x3f8      /* transmit register of the first serial line */
#define PORT_COM1_LSR 0x3fd  /* its line status */
#define LSR_MAY_SEND 0x60

struct vcpu {
	_Alignas(CACHE_LINE) _Atomic uint32_t attention;
	_Alignas(CACHE_LINE) _Atomic uint32_t inside;
	struct ldfs_event left; /* inside became 0, or the thread began or ended */
	struct ldfs_event go;   /* attention was lowered, or STOP set */
	_Atomic uint32_t state; /* enum ldfs_vcpu_state; what it explains is written before it */
	_Atomic uint32_t urgent; /* somebody has raised the thread, which lowers itself when it goes on */
	_Atomic uint32_t begun; /* the thread runs with its final signal mask */
	_Atomic uint32_t ended; /* the thread touches nothing any more */

	struct ldfs_machine *machine;
	uint32_t index;
	ldfs_uc *uc;
	pthread_t thread;
	_Atomic pid_t tid; /* before begun */
	bool has_thread; /* owner */

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
	bool started; /* owner */
	pid_t pid;    /* of the process that made it */
	_Atomic uint32_t paused; /* quiesces that wait for their resume */
	ldfs_quiesce_ops ops;
	pthread_mutex_t snapshot_lock; /* vcpu.snapshot, has_snapshot */
	bool has_snapshot;
	struct ldfs_console console;
	struct vcpu vcpus[LDFS_MAX_VCPUS];
};

/* ---------------------------------------------------------------- registers */

/* In the order of ldfs_registers; 0 where the guest has no such register. */
static const int register_ids[] = {
	LDFS_UC_X86_REG_R15, LDFS_UC_X86_REG_R14, LDFS_UC_X86_REG_R13, LDFS_UC_X86_REG_R12,
	LDFS_UC_X86_REG_RBP, LDFS_UC_X86_REG_RBX, LDFS_UC_X86_REG_R11, LDFS_UC_X86_REG_R10,
	LDFS_UC_X86_REG_R9, LDFS_UC_X86_REG_R8, LDFS_UC_X86_REG_RAX, LDFS_UC_X86_REG_RCX,
	LDFS_UC_X86_REG_RDX, LDFS_UC_X86_REG_RSI, LDFS_UC_X86_REG_RDI, 0,
	LDFS_UC_X86_REG_RIP, LDFS_UC_X86_REG_CS, LDFS_UC_X86_REG_EFLAGS, LDFS_UC_X86_REG_RSP,
	LDFS_UC_X86_REG_SS, LDFS_UC_X86_REG_FS_BASE, LDFS_UC_X86_REG_GS_BASE, LDFS_UC_X86_REG_DS,
	LDFS_UC_X86_REG_ES, LDFS_UC_X86_REG_FS, LDFS_UC_X86_REG_GS,
};
#define REGISTERS (sizeof(register_ids) / sizeof(register_ids[0]))
_Static_assert(sizeof(ldfs_registers) == REGISTERS * sizeof(uint64_t), "one id for each register");

/* orig_rax says which system call was interrupted: none. */
#define NO_SYSTEM_CALL UINT64_MAX

static void read_registers(const struct vcpu *v, ldfs_registers *out)
{
	uint64_t values[REGISTERS] = {0}; /* Unicorn writes only as many bytes as a register has */

	for (size_t i = 0; i < REGISTERS; i++)
		if (register_ids[i])
			v->machine->uc.reg_read(v->uc, register_ids[i], &values[i]);
	memcpy(out, values, sizeof(*out));
	out->orig_rax = NO_SYSTEM_CALL;
}

/* Of a vCPU that is held or does not run: those of the crash count, not what Unicorn left. */
static void held_registers(const struct vcpu *v, ldfs_registers *out)
{
	if (load_acquire(&v->state) == LDFS_VCPU_FAILED)
		*out = v->crash;
	else
		read_registers(v, out);
}

/* Segments stay as Unicorn's 64-bit mode made them. */
static bool may_write(int id)
{
	return id == LDFS_UC_X86_REG_EFLAGS || id == LDFS_UC_X86_REG_RIP ||
	       (id >= LDFS_UC_X86_REG_RAX && id <= LDFS_UC_X86_REG_RSP) ||
	       (id >= LDFS_UC_X86_REG_R8 && id <= LDFS_UC_X86_REG_R15);
}

int ldfs_machine_set_registers(ldfs_machine *m, uint32_t vcpu, const ldfs_registers *registers)
{
	uint64_t values[REGISTERS];

	if (vcpu >= m->vcpu_count)
		return -EINVAL;
	if (m->started)
		return -EBUSY;
	memcpy(values, registers, sizeof(values));
	for (size_t i = 0; i < REGISTERS; i++)
		if (may_write(register_ids[i]))
			m->uc.reg_write(m->vcpus[vcpu].uc, register_ids[i], &values[i]);
	m->vcpus[vcpu].pc = registers->rip;
	return 0;
}

/* ---------------------------------------------------------------- holding a vCPU */

/* [vCPU] No guest code from here on; what was written before is seen by who holds us. */
static void leave(struct vcpu *v)
{
	store_seq(&v->inside, 0);
	ldfs_event_notify(&v->left);
}

/* [vCPU] Sleep until `attention` is `wanted` by nobody any more, STOP comes, or the deadline. */
static void wait_for_change(struct vcpu *v, uint32_t seen_attention, uint64_t deadline_ns)
{
	uint32_t seen = ldfs_event_prepare(&v->go);

	if (load_seq(&v->attention) != seen_attention)
		ldfs_event_cancel(&v->go);
	else
		ldfs_event_wait(&v->go, seen, deadline_ns);
}

/* [any thread] The vCPU goes on, or does not come in time. */
static void lower(struct vcpu *v)
{
	if (exchange_seq(&v->urgent, 0))
		ldfs_urgent_lower(load_relaxed(&v->tid));
}

/* [vCPU] Wait until nobody holds us, then be inside. False: STOP, and not inside. */
static bool enter(struct vcpu *v)
{
	for (;;) {
		uint32_t attention = load_seq(&v->attention);

		if (attention & STOP)
			return false;
		if (attention) {
			wait_for_change(v, attention, UINT64_MAX);
			continue;
		}
		if (load_relaxed(&v->urgent))
			lower(v);
		store_seq(&v->inside, 1);
		if (load_seq(&v->attention) == 0)
			return true;
		leave(v);
	}
}

/* [any thread] Until the vCPU is outside; the caller has raised `attention`. */
static bool wait_outside(struct vcpu *v, uint64_t deadline_ns)
{
	while (load_seq(&v->inside)) {
		uint32_t seen = ldfs_event_prepare(&v->left);

		if (!load_seq(&v->inside)) {
			ldfs_event_cancel(&v->left);
			return true;
		}
		if (!ldfs_event_wait(&v->left, seen, deadline_ns))
			return !load_seq(&v->inside);
	}
	return true;
}

/*
 * [any thread] `attention` is raised: a vCPU that runs is out within microseconds. One that is not may be waiting for a processor. It
 * cannot go on, and so lower itself, before it is let go.
 */
static void hurry(struct vcpu *v, unsigned *turns)
{
	while (*turns < HURRY_TURNS && load_seq(&v->inside)) {
		__builtin_ia32_pause();
		++*turns;
	}
	if (load_seq(&v->inside) && ldfs_urgent_raise(load_relaxed(&v->tid)))
		store_seq(&v->urgent, 1);
}

static void hold(struct vcpu *v)
{
	add_seq(&v->attention, 1);
}

static void let_go(struct vcpu *v)
{
	sub_seq(&v->attention, 1);
	ldfs_event_notify(&v->go);
}

/* ---------------------------------------------------------------- inside emulation */

/* [vCPU] Unicorn, before each block of guest code. The one place where a running vCPU is held. */
static void on_block(ldfs_uc *uc, uint64_t address, uint32_t size, void *user)
{
	struct vcpu *v = user;

	(void)address;
	(void)size;
	if (__builtin_expect(load_relaxed(&v->attention) == 0, 1))
		return;
	leave(v);
	if (!enter(v))
		v->machine->uc.emu_stop(uc); /* from here it is exact: the block does not run */
}

/* Number of the page in the arena, UINT64_MAX where there is no RAM. */
static uint64_t page_number(const ldfs_machine *m, uint64_t address)
{
	for (uint32_t i = 0; i < m->range_count; i++) {
		const ldfs_ram_range *r = &m->ranges[i];

		if (address >= r->start && address - r->start < r->size)
			return (r->ram_offset + (address - r->start)) / LDFS_PAGE_SIZE;
	}
	return UINT64_MAX;
}

/*
 * [vCPU] Unicorn asks which accesses its cached translation of a page may serve.
 *
 * Reads and writes together: its own answer is the one kind that was asked for, so that a page
 * which is read and written in turn is looked up each time. A page that code was ever fetched from
 * always counts as one of code: only then does Unicorn look at every write to it for code that it
 * has translated. By its own answer it forgets to, once the page was looked up for data again.
 * What was answered before the first fetch may be cached still, for another ring: it is flushed.
 */
static bool on_tlb_fill(ldfs_uc *uc, uint64_t address, int type, struct ldfs_uc_tlb_entry *result,
			void *user)
{
	struct vcpu *v = user;
	uint64_t page = page_number(v->machine, address);
	bool code = type == LDFS_UC_MEM_FETCH;

	if (page != UINT64_MAX) {
		uint64_t *word = &v->code_pages[page / 64], bit = UINT64_C(1) << page % 64;

		if (code && !(*word & bit)) {
			*word |= bit;
			v->machine->uc.ctl(uc, LDFS_UC_CTL_WRITE_0(LDFS_UC_CTL_TLB_FLUSH));
		}
		code = *word & bit;
	}
	result->paddr = address;
	result->perms = code ? LDFS_UC_PROT_ALL : LDFS_UC_PROT_READ | LDFS_UC_PROT_WRITE;
	return true;
}

static void on_out(ldfs_uc *uc, uint32_t port, int size, uint32_t value, void *user)
{
	struct vcpu *v = user;

	(void)uc;
	(void)size;
	if (port == PORT_DEBUG || port == PORT_COM1)
		ldfs_console_put(&v->machine->console, v->index, (uint8_t)value);
}

static uint32_t on_in(ldfs_uc *uc, uint32_t port, int size, void *user)
{
	(void)uc;
	(void)user;
	if (port == PORT_DEBUG)
		return PORT_DEBUG; /* how a guest finds out that this console is there */
	if (port == PORT_COM1_LSR)
		return LSR_MAY_SEND;
	return size >= 4 ? UINT32_MAX : (UINT32_C(1) << 8 * size) - 1;
}

/* An exception. The guest's own handlers cannot be entered from here: it ends the guest. */
static void on_exception(ldfs_uc *uc, uint32_t number, void *user)
{
	struct vcpu *v = user;

	if (v->exception < 0) {
		v->exception = (int32_t)number;
		read_registers(v, &v->crash);
	}
	v->machine->uc.emu_stop(uc);
}

static bool on_bad_access(ldfs_uc *uc, int type, uint64_t address, int size, int64_t value,
			  void *user)
{
	struct vcpu *v = user;

	(void)uc;
	(void)size;
	(void)value;
	v->end.access = (uint32_t)type;
	v->end.address = address;
	return false;
}

/* ---------------------------------------------------------------- the vCPU's thread */

/* Emulation ended without an error: was it a hlt? Unicorn leaves rip behind it. */
static bool is_behind_hlt(const struct vcpu *v)
{
	uint64_t page = page_number(v->machine, v->pc - 1);

	return page != UINT64_MAX &&
	       v->machine->ram[page * LDFS_PAGE_SIZE + (v->pc - 1) % LDFS_PAGE_SIZE] == HLT_OPCODE;
}

static void fail(struct vcpu *v, int error)
{
	if (v->exception < 0)
		read_registers(v, &v->crash);
	v->end.error = v->exception < 0 ? error : 0;
	v->end.exception = v->exception;
	v->end.pc = v->crash.rip;
	store_seq(&v->state, LDFS_VCPU_FAILED);
}

/* Run guest code until it halts (true), crashes or is stopped (false). Enters and leaves. */
static bool run(struct vcpu *v)
{
	const struct ldfs_uc_api *uc = &v->machine->uc;
	bool halted = false;
	int error;

	if (!enter(v))
		return false;
	store_release(&v->state, LDFS_VCPU_RUNNING);
	error = uc->emu_start(v->uc, v->pc, NOWHERE, 0, 0);
	v->pc = 0;
	uc->reg_read(v->uc, LDFS_UC_X86_REG_RIP, &v->pc);
	if (error || v->exception >= 0)
		fail(v, error);
	else if (!(load_seq(&v->attention) & STOP)) {
		halted = is_behind_hlt(v);
		if (!halted)
			fail(v, LDFS_UC_ERR_OK);
	}
	if (halted) {
		uint64_t eflags = 0;

		uc->reg_read(v->uc, LDFS_UC_X86_REG_EFLAGS, &eflags);
		v->end.pc = v->pc;
		store_release(&v->state, eflags & EFLAGS_IF ? LDFS_VCPU_IDLE : LDFS_VCPU_HALTED);
	}
	leave(v);
	return halted;
}

/* Until the next tick, or STOP. A pause does not prolong it: enter() waits for its end. */
static void idle(struct vcpu *v)
{
	uint64_t tick = (ldfs_now_ns() / TICK_NS + 1) * TICK_NS;

	while (ldfs_now_ns() < tick) {
		uint32_t attention = load_seq(&v->attention);

		if (attention & STOP)
			return;
		wait_for_change(v, attention, tick);
	}
}

static void *vcpu_main(void *arg)
{
	struct vcpu *v = arg;

	store_relaxed(&v->tid, gettid());
	store_seq(&v->begun, 1);
	ldfs_event_notify(&v->left);
	while (run(v) && load_relaxed(&v->state) == LDFS_VCPU_IDLE)
		idle(v);
	if (load_relaxed(&v->state) < LDFS_VCPU_HALTED)
		store_release(&v->state, LDFS_VCPU_ENDED);
	store_seq(&v->ended, 1);
	ldfs_event_notify(&v->left);
	return NULL;
}

/* [owner] Until *flag, which the thread sets before it notifies `left`. False: deadline. */
static bool wait_flag(struct vcpu *v, _Atomic uint32_t *flag, uint64_t deadline_ns)
{
	while (!load_seq(flag)) {
		uint32_t seen = ldfs_event_prepare(&v->left);

		if (load_seq(flag)) {
			ldfs_event_cancel(&v->left);
			return true;
		}
		if (!ldfs_event_wait(&v->left, seen, deadline_ns))
			return load_seq(flag);
	}
	return true;
}

int ldfs_machine_start(ldfs_machine *m)
{
	if (m->started)
		return -EBUSY;
	m->started = true;
	for (uint32_t i = 0; i < m->vcpu_count; i++) {
		struct vcpu *v = &m->vcpus[i];
		char name[16];
		int rc;

		snprintf(name, sizeof(name), "ldfs-vcpu%u", i % LDFS_MAX_VCPUS);
		store_release(&v->state, LDFS_VCPU_RUNNING);
		rc = ldfs_thread_start(&v->thread, vcpu_main, v, name);
		if (rc) {
			store_release(&v->state, LDFS_VCPU_NEW);
			return rc; /* stop() ends those that run */
		}
		v->has_thread = true;
		/* A new thread blocks every signal at first, and START refuses that. */
		wait_flag(v, &v->begun, UINT64_MAX);
	}
	return 0;
}

int ldfs_machine_stop(ldfs_machine *m, uint64_t deadline_ns)
{
	int rc = 0;

	if (m->pid != getpid())
		return 0; /* a forked child: its threads are its parent's */
	for (uint32_t i = 0; i < m->vcpu_count; i++) {
		atomic_fetch_or(&m->vcpus[i].attention, STOP);
		ldfs_event_notify(&m->vcpus[i].go);
	}
	for (uint32_t i = 0; i < m->vcpu_count; i++) {
		struct vcpu *v = &m->vcpus[i];

		if (!v->has_thread)
			continue;
		if (!wait_flag(v, &v->ended, deadline_ns)) {
			rc = -ETIMEDOUT;
			continue;
		}
		pthread_join(v->thread, NULL);
		v->has_thread = false;
	}
	return rc;
}

/* ---------------------------------------------------------------- the machine as a whole */

int ldfs_machine_quiesce(ldfs_machine *m, uint64_t deadline_ns)
{
	unsigned turns = 0;

	/* All are asked before the first is waited for: they park side by side. */
	for (uint32_t i = 0; i < m->vcpu_count; i++)
		hold(&m->vcpus[i]);
	for (uint32_t i = 0; i < m->vcpu_count; i++)
		hurry(&m->vcpus[i], &turns);
	for (uint32_t i = 0; i < m->vcpu_count; i++) {
		if (wait_outside(&m->vcpus[i], deadline_ns))
			continue;
		for (uint32_t j = 0; j < m->vcpu_count; j++) {
			lower(&m->vcpus[j]);
			let_go(&m->vcpus[j]);
		}
		return -ETIMEDOUT;
	}
	add_seq(&m->paused, 1);
	return 0;
}

int ldfs_machine_resume(ldfs_machine *m)
{
	uint32_t paused = load_seq(&m->paused);

	do {
		if (paused == 0)
			return -EINVAL;
	} while (!cas_seq(&m->paused, &paused, paused - 1));
	for (uint32_t i = 0; i < m->vcpu_count; i++)
		let_go(&m->vcpus[i]);
	return 0;
}

static int op_quiesce(void *ctx, uint64_t deadline_ns)
{
	return ldfs_machine_quiesce(ctx, deadline_ns);
}

static void op_capture(void *ctx)
{
	ldfs_machine *m = ctx;

	pthread_mutex_lock(&m->snapshot_lock);
	for (uint32_t i = 0; i < m->vcpu_count; i++)
		held_registers(&m->vcpus[i], &m->vcpus[i].snapshot);
	m->has_snapshot = true;
	pthread_mutex_unlock(&m->snapshot_lock);
}

static void op_resume(void *ctx)
{
	ldfs_machine_resume(ctx);
}

ldfs_quiesce_ops *ldfs_machine_ops(ldfs_machine *m)
{
	return &m->ops;
}

int ldfs_machine_registers(ldfs_machine *m, uint32_t vcpu, ldfs_registers *out,
			   uint64_t deadline_ns)
{
	unsigned turns = 0;
	int rc = 0;

	if (vcpu >= m->vcpu_count)
		return -EINVAL;
	hold(&m->vcpus[vcpu]);
	hurry(&m->vcpus[vcpu], &turns);
	if (wait_outside(&m->vcpus[vcpu], deadline_ns)) {
		held_registers(&m->vcpus[vcpu], out);
	} else {
		lower(&m->vcpus[vcpu]);
		rc = -ETIMEDOUT;
	}
	let_go(&m->vcpus[vcpu]);
	return rc;
}

int ldfs_machine_snapshot(ldfs_machine *m, uint32_t vcpu, ldfs_registers *out)
{
	int rc = -ENODATA;

	if (vcpu >= m->vcpu_count)
		return -EINVAL;
	pthread_mutex_lock(&m->snapshot_lock);
	if (m->has_snapshot) {
		*out = m->vcpus[vcpu].snapshot;
		rc = 0;
	}
	pthread_mutex_unlock(&m->snapshot_lock);
	return rc;
}

uint64_t ldfs_machine_console(ldfs_machine *m, uint8_t *buf, uint64_t size)
{
	return ldfs_console_read(&m->console, buf, size);
}

int ldfs_machine_status(ldfs_machine *m, uint32_t vcpu, ldfs_vcpu_status *out)
{
	struct vcpu *v = &m->vcpus[vcpu];
	uint32_t state;

	if (vcpu >= m->vcpu_count)
		return -EINVAL;
	memset(out, 0, sizeof(*out));
	out->exception = -1;
	state = load_acquire(&v->state);
	if (state == LDFS_VCPU_HALTED || state == LDFS_VCPU_FAILED)
		*out = v->end;
	out->state = state;
	out->parked = (load_seq(&v->attention) & ~STOP) && !load_seq(&v->inside);
	return 0;
}

const char *ldfs_machine_error_text(const ldfs_machine *m, int error)
{
	return m->uc.strerror(error);
}

/* ---------------------------------------------------------------- making one */

/*
 * The library stays loaded for the life of the process: it registers things of its own that
 * dlclose would leave behind.
 */
static int load_unicorn(const char *path, struct ldfs_uc_api *api, char *why, size_t why_size)
{
	static const struct {
		const char *name;
		size_t offset;
	} functions[] = {
		{"uc_version", offsetof(struct ldfs_uc_api, version)},
		{"uc_open", offsetof(struct ldfs_uc_api, open)},
		{"uc_close", offsetof(struct ldfs_uc_api, close)},
		{"uc_ctl", offsetof(struct ldfs_uc_api, ctl)},
		{"uc_mem_map_ptr", offsetof(struct ldfs_uc_api, mem_map_ptr)},
		{"uc_hook_add", offsetof(struct ldfs_uc_api, hook_add)},
		{"uc_reg_write", offsetof(struct ldfs_uc_api, reg_write)},
		{"uc_reg_read", offsetof(struct ldfs_uc_api, reg_read)},
		{"uc_emu_start", offsetof(struct ldfs_uc_api, emu_start)},
		{"uc_emu_stop", offsetof(struct ldfs_uc_api, emu_stop)},
		{"uc_strerror", offsetof(struct ldfs_uc_api, strerror)},
	};
	void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	unsigned int major = 0, minor = 0;

	if (!library) {
		snprintf(why, why_size, "%s", dlerror());
		return -ELIBACC;
	}
	for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++) {
		void *function = dlsym(library, functions[i].name);

		if (!function) {
			snprintf(why, why_size, "%s has no %s", path, functions[i].name);
			dlclose(library);
			return -ELIBACC;
		}
		memcpy((char *)api + functions[i].offset, &function, sizeof(function));
	}
	api->version(&major, &minor);
	if (major != LDFS_UC_API_MAJOR) {
		snprintf(why, why_size, "%s is Unicorn %u.%u, not 2", path, major, minor);
		return -ELIBACC;
	}
	return 0;
}

/*
 * Wherever there is no RAM, and nowhere else: Unicorn takes each store to a page that such a hook
 * covers for one that must be looked at, and a guest then runs at a tenth of its speed.
 */
static int hook_bad_accesses(struct vcpu *v)
{
	const ldfs_machine *m = v->machine;
	uint64_t begin = 0;
	size_t hook;
	int error = LDFS_UC_ERR_OK;

	for (uint32_t i = 0; i < m->range_count && !error; i++) {
		uint64_t end = m->ranges[i].start; /* begin > end would mean everywhere */

		if (begin < end)
			error = m->uc.hook_add(v->uc, &hook, LDFS_UC_HOOK_MEM_UNMAPPED,
					       on_bad_access, v, begin, end - 1);
		begin = end + m->ranges[i].size;
	}
	if (!error && begin) /* 0: RAM up to the very end */
		error = m->uc.hook_add(v->uc, &hook, LDFS_UC_HOOK_MEM_UNMAPPED, on_bad_access, v,
				       begin, UINT64_MAX);
	return error;
}

static int add_hooks(struct vcpu *v)
{
	const struct ldfs_uc_api *uc = &v->machine->uc;
	size_t hook;
	int error;

	/* begin > end: everywhere. */
	error = uc->hook_add(v->uc, &hook, LDFS_UC_HOOK_BLOCK, on_block, v, 1, 0);
	if (!error)
		error = uc->hook_add(v->uc, &hook, LDFS_UC_HOOK_INTR, on_exception, v, 1, 0);
	if (!error)
		error = uc->hook_add(v->uc, &hook, LDFS_UC_HOOK_INSN, on_out, v, 1, 0,
				     LDFS_UC_X86_INS_OUT);
	if (!error)
		error = uc->hook_add(v->uc, &hook, LDFS_UC_HOOK_INSN, on_in, v, 1, 0,
				     LDFS_UC_X86_INS_IN);
	if (!error)
		error = uc->hook_add(v->uc, &hook, LDFS_UC_HOOK_TLB_FILL, on_tlb_fill, v, 1, 0);
	return error ? error : hook_bad_accesses(v);
}

/* One Unicorn instance: flat long mode, guest address = physical address, no page tables. */
static int open_vcpu(struct vcpu *v)
{
	const ldfs_machine *m = v->machine;
	const struct ldfs_uc_api *uc = &m->uc;
	int error = uc->open(LDFS_UC_ARCH_X86, LDFS_UC_MODE_64, &v->uc);

	if (!error)
		error = uc->ctl(v->uc, LDFS_UC_CTL_WRITE_1(LDFS_UC_CTL_TCG_BUFFER_SIZE), CODE_BUFFER);
	if (!error)
		error = uc->ctl(v->uc, LDFS_UC_CTL_WRITE_1(LDFS_UC_CTL_TLB_TYPE), LDFS_UC_TLB_VIRTUAL);
	for (uint32_t i = 0; i < m->range_count && !error; i++)
		error = uc->mem_map_ptr(v->uc, m->ranges[i].start, m->ranges[i].size,
					LDFS_UC_PROT_ALL, m->ram + m->ranges[i].ram_offset);
	return error ? error : add_hooks(v);
}

static bool ranges_valid(const ldfs_ram_range *ranges, uint32_t count)
{
	const uint64_t in_page = LDFS_PAGE_SIZE - 1;

	for (uint32_t i = 0; i < count; i++) {
		const ldfs_ram_range *r = &ranges[i];

		if (r->size == 0 || ((r->start | r->size | r->ram_offset) & in_page) ||
		    r->start + r->size < r->start)
			return false;
		if (i && r->start < ranges[i - 1].start + ranges[i - 1].size)
			return false;
	}
	return count > 0;
}

/* [owner] Pages of the arena that the ranges reach to. */
static uint64_t page_count(const ldfs_machine *m)
{
	uint64_t end = 0;

	for (uint32_t i = 0; i < m->range_count; i++)
		if (end < m->ranges[i].ram_offset + m->ranges[i].size)
			end = m->ranges[i].ram_offset + m->ranges[i].size;
	return end / LDFS_PAGE_SIZE;
}

static int init_vcpu(ldfs_machine *m, uint32_t index)
{
	struct vcpu *v = &m->vcpus[index];

	v->machine = m;
	v->index = index;
	v->exception = -1;
	v->end.exception = -1;
	v->code_pages = calloc(page_count(m) / 64 + 1, sizeof(*v->code_pages));
	return v->code_pages ? 0 : -ENOMEM;
}

static int build(ldfs_machine *m, const char *library, char *why, size_t why_size)
{
	int rc = load_unicorn(library, &m->uc, why, why_size);

	for (uint32_t i = 0; i < m->vcpu_count && !rc; i++) {
		int error;

		rc = init_vcpu(m, i);
		if (rc)
			break;
		error = open_vcpu(&m->vcpus[i]);
		if (error) {
			snprintf(why, why_size, "%s", m->uc.strerror(error));
			rc = error == LDFS_UC_ERR_NOMEM ? -ENOMEM : -EIO;
		}
	}
	return rc;
}

int ldfs_machine_create(const char *library, void *ram, const ldfs_ram_range *ranges,
			uint32_t range_count, uint32_t vcpus, ldfs_machine **out, char *why,
			size_t why_size)
{
	ldfs_machine *m;
	int rc;

	snprintf(why, why_size, "%s", "");
	if (vcpus < 1 || vcpus > LDFS_MAX_VCPUS || !ranges_valid(ranges, range_count))
		return -EINVAL;
	/* The vCPUs' words have cache lines of their own. */
	m = aligned_alloc(CACHE_LINE, sizeof(*m));
	if (!m)
		return -ENOMEM;
	memset(m, 0, sizeof(*m));
	m->ram = ram;
	m->pid = getpid();
	m->vcpu_count = vcpus;
	m->range_count = range_count;
	m->ops = (ldfs_quiesce_ops){op_quiesce, op_capture, op_resume, m, 1};
	pthread_mutex_init(&m->snapshot_lock, NULL);
	ldfs_console_open(&m->console);
	m->ranges = calloc(range_count, sizeof(*ranges));
	if (!m->ranges) {
		ldfs_machine_destroy(m);
		return -ENOMEM;
	}
	memcpy(m->ranges, ranges, range_count * sizeof(*ranges));
	rc = build(m, library, why, why_size);
	if (rc) {
		ldfs_machine_destroy(m);
		return rc;
	}
	*out = m;
	return 0;
}

int ldfs_machine_destroy(ldfs_machine *m)
{
	if (m->pid != getpid())
		return 0;
	for (uint32_t i = 0; i < m->vcpu_count; i++)
		if (m->vcpus[i].has_thread)
			return -EBUSY;
	for (uint32_t i = 0; i < m->vcpu_count; i++) {
		if (m->vcpus[i].uc)
			m->uc.close(m->vcpus[i].uc);
		free(m->vcpus[i].code_pages);
	}
	ldfs_console_close(&m->console);
	pthread_mutex_destroy(&m->snapshot_lock);
	free(m->ranges);
	free(m);
	return 0;
}
