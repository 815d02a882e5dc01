/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * kernel.pml - what the kernel does with a store to a page that userfaultfd protects. Whether a message is
 * read is part of it; in which order they are is not.
 */

byte at[NV];                /* granule + 1 in whose store this vCPU sleeps; 0: it does not */
bit unread[NV];             /* its message was not read yet */
bit registered = 1;         /* the live view is */
bit moving;                 /* a mapping is being moved: protecting and unprotecting give EAGAIN */
bit event;                  /* UFFD_EVENT_REMAP, not read yet: the thread that moved the mapping waits for that */
hidden byte w;              /* only used within one atomic step */

/* A vCPU that sleeps in a store to granule g goes on, and its message is gone if that was not read. */
inline wake_stores(g)
{
	w = 0;
	do
	:: w < NV ->
		if
		:: at[w] == g + 1 -> at[w] = 0; unread[w] = 0
		:: else
		fi;
		w++
	:: else -> break
	od;
	w = 0
}

/* The page is looked at once more before the sleep. */
inline sleep_in_store(g)
{
	atomic {
		if
		:: !writable[g] -> at[me] = g + 1; unread[me] = 1
		:: else
		fi
	};
	at[me] == 0
}

inline nobody_sleeps()
{
	d_step {
		w = 0;
		do
		:: w < NV -> assert(at[w] == 0); w++
		:: else -> break
		od;
		w = 0
	}
}

/* UFFDIO_WRITEPROTECT; ENOENT of what is not registered. */
inline unprotect(g)
{
	if
	:: registered ->
		writable[g] = 1;
#ifndef BUG_RELEASE_NO_WAKE
		wake_stores(g)
#endif
	:: else
	fi
}

/* UFFDIO_UNREGISTER: takes the protection, wakes no vCPU. */
inline forget()
{
	d_step {
		registered = 0;
		i = 0;
		do
		:: i < NG -> writable[i] = 1; i++
		:: else -> break
		od;
		i = 0
	}
}
