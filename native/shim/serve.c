/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * shim.c - the C core inside another process (QEMU), by LD_PRELOAD: serves the host's requests.
 *
 * The process must never pay for it: when the host goes, for whatever reason, the dump is released and the
 * memory is as free as before, and a machine that the host held, or had not let run yet, runs. The shim waits
 * on its sockets and does nothing else until it is asked.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <linux/magic.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "base/base.h"
#include "shim/memory.h"
#include "shim/shim.h"

#define FIRST_WORDS "{\"execute\": \"qmp_capabilities\"}\n{\"execute\": \"cont\"}\n"
#define VERSION "QEMU emulator version" /* it prints that */
#define WAIT_MOST_NS 100000000u
#define RETRY_US 10000

/* dump is freed under the write lock, and used under the read lock: for long, where a target hangs. */
static pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER;
static ldfs_arena *arena;
static ldfs_dump *dump;
static uint64_t number; /* of the dump, or of the last one */
static ldfs_stream *stream; /* of the dump: its target is a pipe */
static _Atomic uint32_t gone; /* 1: the host has; no INIT any more */

struct message {
	ldfs_shim_request head;
	uint8_t payload[LDFS_SHIM_PAYLOAD];
	int fds[LDFS_SHIM_FDS]; /* -1: none */
	size_t count;
};

struct answer {
	ldfs_shim_reply head;
	uint8_t payload[LDFS_SHIM_PAYLOAD];
};

struct connection {
	int fd;
	bool first;
	struct message in;
	struct answer out;
};

/* --------------------------------------------------------------- messages */

static void take_fds(struct message *m, struct msghdr *h)
{
	struct cmsghdr *c = CMSG_FIRSTHDR(h);

	for (int i = 0; i < LDFS_SHIM_FDS; i++)
		m->fds[i] = -1;
	m->count = 0;
	if (!c || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
		return;
	m->count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
	memcpy(m->fds, CMSG_DATA(c), m->count * sizeof(int));
}

static void close_fds(struct message *m)
{
	for (int i = 0; i < LDFS_SHIM_FDS; i++)
		if (m->fds[i] >= 0)
			close(m->fds[i]);
}

/* False: the host has gone. */
static bool receive(int fd, struct message *m)
{
	char control[CMSG_SPACE(sizeof(int) * LDFS_SHIM_FDS)];
	struct iovec parts[] = { { &m->head, sizeof(m->head) }, { m->payload, sizeof(m->payload) } };
	struct msghdr h = { .msg_iov = parts, .msg_iovlen = 2,
			    .msg_control = control, .msg_controllen = sizeof(control) };
	ssize_t n;

	do {
		n = recvmsg(fd, &h, MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	if (n <= 0)
		return false;
	take_fds(m, &h);
	if ((size_t)n < sizeof(m->head) || (size_t)n != sizeof(m->head) + m->head.size)
		m->head = (ldfs_shim_request){ 0 }; /* answered with -EINVAL */
	return true;
}

static bool answer(int fd, struct answer *a)
{
	struct iovec parts[] = { { &a->head, sizeof(a->head) }, { a->payload, a->head.size } };
	struct msghdr h = { .msg_iov = parts, .msg_iovlen = 2 };
	ssize_t n;

	do {
		n = sendmsg(fd, &h, MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	return n > 0;
}

/* --------------------------------------------------------------- requests */

/* Huge pages and files on a disk cannot be write-protected page by page. */
static int do_adopt(const struct message *m)
{
	struct statfs s;
	int rc;

	if (arena)
		return -EEXIST;
	if (fstatfs(m->fds[0], &s))
		return -errno;
	if (s.f_type != TMPFS_MAGIC)
		return -EMEDIUMTYPE;
	rc = ldfs_arena_adopt((void *)(uintptr_t)m->head.arg[0], m->head.arg[1], m->fds[0], &arena);
	if (!rc)
		shim_memory_watch(arena);
	return rc;
}

static int next_fd(const struct message *m, uint64_t bit, int *used)
{
	return m->head.arg[0] & bit && *used < LDFS_SHIM_FDS ? m->fds[(*used)++] : -1;
}

static void close_stream(void)
{
	ldfs_stream_close(stream);
	stream = NULL;
}

static int do_init(struct message *m, struct answer *out)
{
	ldfs_dump_config config;
	int used = 0, rc = 0;

	if (!arena || m->head.size < sizeof(config))
		return -EINVAL;
	memcpy(&config, m->payload, sizeof(config));
	if (config.extent_count > (m->head.size - sizeof(config)) / sizeof(ldfs_extent))
		return -EINVAL;
	/* The kernel drops descriptors for which the process has no number left. */
	if (m->count != (size_t)__builtin_popcountll(m->head.arg[0] & 15))
		return -EMFILE;
	config.extents = (const ldfs_extent *)(m->payload + sizeof(config));
	config.target_fd = next_fd(m, 1, &used);
	config.table_fd = next_fd(m, 2, &used);
	config.uffd_fd = next_fd(m, 4, &used);
	config.reference_fd = next_fd(m, 8, &used);
	if (dump || load_seq(&gone))
		return dump ? -EBUSY : -ECANCELED;
	if (m->head.arg[0] & 16)
		rc = ldfs_stream_open(config.target_fd, 1, &stream);
	config.stream = stream;
	if (!rc)
		rc = ldfs_dump_init(arena, &config, &dump);
	if (rc)
		close_stream();
	else
		out->head.dump = ++number;
	return rc;
}

/* That dump, which may have gone and been followed by another. */
static ldfs_dump *numbered(uint64_t which)
{
	return which == number ? dump : NULL;
}

static int do_free(uint64_t which)
{
	int rc = numbered(which) ? ldfs_dump_free(dump) : 0;

	if (!rc && numbered(which)) {
		dump = NULL;
		close_stream();
	}
	return rc;
}

static int do_record(const struct message *m)
{
	if (!stream)
		return -EINVAL;
	return m->head.size ? ldfs_stream_write(stream, m->payload, m->head.size, m->head.arg[0])
			    : ldfs_stream_end(stream);
}

static int do_read(const ldfs_shim_request *r, struct answer *out)
{
	int rc = r->arg[1] > LDFS_SHIM_PAYLOAD ? -EINVAL
					       : ldfs_dump_read(dump, r->arg[0], out->payload, r->arg[1]);

	out->head.size = rc ? 0 : (uint32_t)r->arg[1];
	return rc;
}

static int do_states(const ldfs_shim_request *r, struct answer *out)
{
	int rc = r->arg[1] > LDFS_SHIM_PAYLOAD || r->arg[0] > UINT32_MAX
			 ? -EINVAL
			 : ldfs_dump_states(dump, (uint32_t)r->arg[0], (uint32_t)r->arg[1], out->payload);

	out->head.size = rc ? 0 : (uint32_t)r->arg[1];
	return rc;
}

static int do_counters(struct answer *out)
{
	ldfs_counters counters;

	ldfs_dump_counters(dump, &counters);
	memcpy(out->payload, &counters, sizeof(counters));
	out->head.size = sizeof(counters);
	return 0;
}

/*
 * What the host would have said: a machine that it holds must go on without it, also when the host is only stopped.
 * Under a lock of their own: they never wait for a target. Before the first of them, `monitor` is where to say
 * that the machine may run at all.
 */
static pthread_mutex_t words_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t words_changed = PTHREAD_COND_INITIALIZER;
static struct {
	uint8_t text[LDFS_SHIM_WORDS];
	size_t length;
	int fd;
	uint64_t until; /* CLOCK_MONOTONIC, ns; 0: until the host has gone */
	bool watched;   /* a thread looks at `until` */
	bool late;      /* they were said while the host lives: the machine runs, and no instant is one */
	struct sockaddr_un monitor; /* no path: none */
} last_words = { .fd = -1 };

static bool said_too_late(void)
{
	bool late;

	pthread_mutex_lock(&words_lock);
	late = last_words.late;
	pthread_mutex_unlock(&words_lock);
	return late;
}

/* Words that are said while memory is being armed let the machine write in the middle of it: looked at before, and
 * after. Said after that they do no harm, for the instant is behind us. */
static int do_start(void)
{
	int rc = said_too_late() ? -ETIMEDOUT : ldfs_dump_start(dump, NULL, 0);

	if (!rc && said_too_late()) {
		ldfs_dump_release(dump);
		rc = -ETIMEDOUT;
	}
	return rc;
}

/* What needs a dump; the read lock is held. */
static int serve_dump(const struct message *m, struct answer *out)
{
	const ldfs_shim_request *r = &m->head;

	switch (r->op) {
	case LDFS_SHIM_RECORD:
		return do_record(m);
	case LDFS_SHIM_START:
		return do_start();
	case LDFS_SHIM_SWEEP:
		return ldfs_dump_sweep(dump);
	case LDFS_SHIM_WAIT:
		return ldfs_dump_wait(dump, r->arg[0] < WAIT_MOST_NS ? r->arg[0] : WAIT_MOST_NS);
	case LDFS_SHIM_RELEASE:
		return ldfs_dump_release(dump);
	case LDFS_SHIM_COUNTERS:
		return do_counters(out);
	case LDFS_SHIM_STATES:
		return do_states(r, out);
	case LDFS_SHIM_READ:
		return do_read(r, out);
	}
	return -EINVAL;
}

static int with_dump(const struct message *m, struct answer *out)
{
	int rc;

	pthread_rwlock_rdlock(&lock);
	rc = numbered(m->head.dump) ? serve_dump(m, out) : -ENODATA;
	pthread_rwlock_unlock(&lock);
	return rc;
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Under words_lock. The fd stays open, see listen_for_ever. */
static void say(void)
{
	if (last_words.length)
		send(last_words.fd, last_words.text, last_words.length, MSG_NOSIGNAL | MSG_DONTWAIT);
	last_words.until = 0;
}

/*
 * The host still has the connection, and reads the answer. It may have stood still before it stopped the machine:
 * the words then change nothing, and are kept for its end. Said again and again, they would undo whatever somebody
 * else does to the machine meanwhile.
 */
static void *words_main(void *unused)
{
	pthread_mutex_lock(&words_lock);
	for (;;) {
		uint64_t until = last_words.until;
		struct timespec t = { (time_t)(until / 1000000000u), (long)(until % 1000000000u) };

		if (!until) {
			pthread_cond_wait(&words_changed, &words_lock);
		} else if (now_ns() < until) {
			pthread_cond_clockwait(&words_changed, &words_lock, CLOCK_MONOTONIC, &t);
		} else {
			last_words.late = true; /* before they are said: see do_start */
			say();
		}
	}
	return unused;
}

static int start_thread(void *(*run)(void *), void *arg);

/* Under words_lock. Takes the fd over when it answers 0. */
static int set_last_words(struct message *m)
{
	int rc = 0;

	if (m->head.arg[0] && !last_words.watched)
		rc = start_thread(words_main, NULL);
	if (rc)
		return rc;
	last_words.watched |= m->head.arg[0] != 0;
	if (last_words.fd >= 0)
		close(last_words.fd);
	memcpy(last_words.text, m->payload, m->head.size);
	last_words.length = m->head.size;
	last_words.fd = m->head.size ? m->fds[0] : -1;
	last_words.until = m->head.size && m->head.arg[0] ? now_ns() + m->head.arg[0] : 0;
	last_words.late = false;
	last_words.monitor.sun_path[0] = 0;
	if (m->head.size)
		m->fds[0] = -1;
	pthread_cond_signal(&words_changed);
	return 0;
}

static int keep_last_words(struct message *m)
{
	int rc;

	if (m->head.size > sizeof(last_words.text) || (m->head.size && m->fds[0] < 0))
		return -EINVAL;
	pthread_mutex_lock(&words_lock);
	rc = set_last_words(m);
	pthread_mutex_unlock(&words_lock);
	return rc;
}

/* The fd that they went to, which is then the caller's; -1: there were none. */
static int say_last_words(void)
{
	int fd;

	pthread_mutex_lock(&words_lock);
	say();
	fd = last_words.fd;
	last_words.length = 0;
	last_words.fd = -1;
	pthread_mutex_unlock(&words_lock);
	return fd;
}

/* It stays open, for QEMU drops what it has not read when it sees a hang-up; and QEMU keeps what it says
 * until somebody reads it. */
static void listen_for_ever(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	char text[512];
	ssize_t n = 1;

	while (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR))) {
		poll(&p, 1, -1);
		n = recv(fd, text, sizeof(text), MSG_DONTWAIT);
	}
	close(fd);
}

static int alone(struct message *m, struct answer *out)
{
	int rc;

	pthread_rwlock_wrlock(&lock);
	if (m->head.op == LDFS_SHIM_ADOPT)
		rc = do_adopt(m);
	else
		rc = m->head.op == LDFS_SHIM_INIT ? do_init(m, out) : do_free(m->head.dump);
	pthread_rwlock_unlock(&lock);
	return rc;
}

static int serve_connection(int fd, bool first);

static int serve(struct message *m, struct answer *out)
{
	int rc;

	switch (m->head.op) {
	case LDFS_SHIM_HELLO:
		return m->head.arg[0] == LDFS_SHIM_VERSION ? 0 : -EPROTO;
	case LDFS_SHIM_CONNECT:
		rc = m->fds[0] < 0 ? -EBADF : serve_connection(m->fds[0], false);
		if (!rc)
			m->fds[0] = -1;
		return rc;
	case LDFS_SHIM_ADOPT:
	case LDFS_SHIM_INIT:
	case LDFS_SHIM_FREE:
		return alone(m, out);
	case LDFS_SHIM_LAST_WORDS:
		return keep_last_words(m);
	}
	return with_dump(m, out);
}

/* ----------------------------------------------------------------- threads */

/* Nothing of it stays protected, whatever it takes. */
static void end_dump(uint64_t which)
{
	int rc = -EBUSY;

	while (rc) {
		pthread_rwlock_rdlock(&lock);
		rc = numbered(which) ? ldfs_dump_release(dump) : 0;
		pthread_rwlock_unlock(&lock);
		if (rc)
			usleep(RETRY_US);
		pthread_rwlock_wrlock(&lock);
		rc = do_free(which);
		pthread_rwlock_unlock(&lock);
	}
}

static uint64_t latest(void)
{
	uint64_t which;

	pthread_rwlock_rdlock(&lock);
	which = number;
	pthread_rwlock_unlock(&lock);
	return which;
}

/* The host went before it let the machine run. Whoever listens for it may not do so yet. -1: nobody will. */
static int say_first_words(void)
{
	struct sockaddr_un monitor;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	pthread_mutex_lock(&words_lock);
	monitor = last_words.monitor;
	pthread_mutex_unlock(&words_lock);
	while (fd >= 0 && (!monitor.sun_path[0] ||
			   connect(fd, (struct sockaddr *)&monitor, sizeof(monitor)))) {
		if (monitor.sun_path[0] && (errno == ENOENT || errno == ECONNREFUSED || errno == EINTR)) {
			usleep(RETRY_US);
			continue;
		}
		close(fd);
		fd = -1;
	}
	if (fd >= 0)
		send(fd, FIRST_WORDS, sizeof(FIRST_WORDS) - 1, MSG_NOSIGNAL);
	return fd;
}

/* The host has gone. */
static void give_up(void)
{
	int fd = say_last_words();

	store_seq(&gone, 1); /* an INIT that does not see it has the lock, and is the latest then */
	end_dump(latest());
	if (fd < 0)
		fd = say_first_words();
	if (fd >= 0)
		listen_for_ever(fd);
}

/* The host has waited for the answer for too long, and believes that there is no such dump. */
static void take_back(const ldfs_shim_request *asked, const ldfs_shim_reply *answered)
{
	if (asked->op == LDFS_SHIM_INIT)
		end_dump(answered->dump);
	else if (asked->op == LDFS_SHIM_START)
		end_dump(asked->dump);
}

static void *connection_main(void *arg)
{
	struct connection *c = arg;

	while (receive(c->fd, &c->in)) {
		c->out.head = (ldfs_shim_reply){ 0 };
		c->out.head.rc = serve(&c->in, &c->out);
		close_fds(&c->in);
		if (answer(c->fd, &c->out))
			continue;
		if (!c->out.head.rc)
			take_back(&c->in.head, &c->out.head);
		break;
	}
	close(c->fd);
	if (c->first)
		give_up();
	ldfs_buffer_free(c, sizeof(*c));
	return NULL;
}

/* All signals stay with the process's own threads; but SIGSEGV must never be blocked. */
static int start_thread(void *(*run)(void *), void *arg)
{
	sigset_t ours, before;
	pthread_t thread;
	int rc;

	sigfillset(&ours);
	sigdelset(&ours, SIGSEGV);
	sigdelset(&ours, SIGBUS);
	sigdelset(&ours, SIGFPE);
	sigdelset(&ours, SIGILL);
	pthread_sigmask(SIG_SETMASK, &ours, &before);
	rc = pthread_create(&thread, NULL, run, arg);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (!rc) {
		pthread_setname_np(thread, "ldfs-shim");
		pthread_detach(thread);
	}
	return -rc;
}

/* Owns fd when it answers 0. */
static int serve_connection(int fd, bool first)
{
	struct connection *c = ldfs_buffer_make(sizeof(*c)); /* the guest's bytes pass through it */
	int rc;

	if (!c)
		return -ENOMEM;
	c->fd = fd;
	c->first = first;
	rc = start_thread(connection_main, c);
	if (rc)
		ldfs_buffer_free(c, sizeof(*c));
	return rc;
}

/* ------------------------------------------------------------------ begin */

/* In what nobody writes to of the program itself, which comes first. */
static int look_for_version(struct dl_phdr_info *program, size_t size, void *found)
{
	(void)size;
	for (int i = 0; i < program->dlpi_phnum; i++) {
		const ElfW(Phdr) *p = &program->dlpi_phdr[i];

		if (p->p_type == PT_LOAD && (p->p_flags & (PF_R | PF_W)) == PF_R &&
		    memmem((const void *)(program->dlpi_addr + p->p_vaddr), p->p_filesz, VERSION, strlen(VERSION)))
			*(bool *)found = true;
	}
	return 1;
}

/* Not what is only called so, and starts one: NixOS's wrappers are programs, not scripts. */
static bool says_that_it_is_qemu(void)
{
	bool found = false;

	dl_iterate_phdr(look_for_version, &found);
	return found;
}

/*
 * Whether this is the process that is to be dumped. A shell, env, taskset or numactl on the way to it, a wrapper that
 * is called as QEMU, and what one asks of another QEMU (--version), have the same environment, and leave it as it is.
 */
static bool is_machine(int argc, char **argv)
{
	const char *word = getenv(LDFS_SHIM_WORD), *program = getenv(LDFS_SHIM_PROGRAM);
	char path[4096];
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);
	const char *name;
	bool told = false;

	for (int i = 1; word && i < argc; i++)
		told |= !strcmp(argv[i], word);
	if (!told || n <= 0)
		return false;
	path[n] = 0;
	name = strrchr(path, '/');
	name = name ? name + 1 : path;
	if (program && *program && !strcmp(name, program))
		return true; /* the host has looked into it */
	return (strstr(name, "qemu-system") || strstr(name, "qemu-kvm") || !strcmp(name, "kvm")) &&
	       says_that_it_is_qemu();
}

static bool take_path(struct sockaddr_un *to, const char *variable)
{
	const char *path = getenv(variable);

	to->sun_family = AF_UNIX;
	if (!path || strlen(path) >= sizeof(to->sun_path))
		return false;
	strcpy(to->sun_path, path);
	return true;
}

static void *alone_main(void *unused)
{
	give_up();
	return unused;
}

/*
 * Children of this process are not QEMU: none of the variables is for them. A child that kept the connection
 * would keep us from seeing that the host, or the host that QEMU, has gone.
 */
__attribute__((constructor)) static void begin(int argc, char **argv)
{
	struct sockaddr_un host;
	int fd;

	if (!take_path(&host, LDFS_SHIM_SOCKET) || !is_machine(argc, argv))
		return;
	take_path(&last_words.monitor, LDFS_SHIM_MONITOR);
	unsetenv(LDFS_SHIM_SOCKET);
	unsetenv(LDFS_SHIM_WORD);
	unsetenv(LDFS_SHIM_PROGRAM);
	unsetenv(LDFS_SHIM_MONITOR);
	unsetenv("LD_PRELOAD");
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd >= 0 && (connect(fd, (struct sockaddr *)&host, sizeof(host)) || serve_connection(fd, true))) {
		close(fd);
		fd = -1;
	}
	if (fd < 0)
		start_thread(alone_main, NULL); /* the host has gone already */
}
