/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * monitor.pml - native/fault/monitor.c: one monitor, which runs the fault path for all vCPUs that stored, and the owner's
 * side of it. The kernel's is in kernel.pml.
 */

bit closing;                /* the arena ends */
bit monitor_ended;

/* ------------------------------------------------------------------ monitor */

inline page_fault(g)
{
#ifndef BUG_MONITOR_UNCOUNTED
	inside++;
#endif
	if
	:: !linked -> make_writable(g, g, won)
	:: linked ->
		d_step { assert(!freed); s = phase };
		if
#ifdef BUG_MONITOR_WAITS_FOR_START
		:: s == PHASE_READY -> phase != PHASE_READY
#else
		:: s == PHASE_READY
#endif
		:: else -> save_and_make_writable(g)
		fi
	fi;
#ifdef BUG_MONITOR_SPINS
	!moving;
#endif
	d_step {
		s = 0;
		won = 0;
#ifndef BUG_MONITOR_UNCOUNTED
		inside--
#endif
	};
	d_step {
#ifndef BUG_NO_WAKE_AFTER
		wake_stores(g);         /* also when nothing could be done yet */
#endif
		g = 0
	}
}

#if NV == 1
#define UNREAD unread[0]
#else
#define UNREAD (unread[0] || unread[1])
#endif

proctype monitor(byte me)
{
	HANDLER_LOCALS
	byte message[NV];
	do
	:: atomic {
			UNREAD || event ->
			w = 0;
			do
			:: w < NV ->
				if
				:: unread[w] -> message[w] = at[w]; unread[w] = 0
				:: else
				fi;
				w++
			:: else -> break
			od;
			w = 0;
			event = 0
		};
		do
		:: atomic { message[0] != 0 -> g = message[0] - 1; message[0] = 0 };
			page_fault(g);
#ifdef BUG_BATCH_DROPPED
			message[NV - 1] = 0
#endif
		:: atomic { message[0] == 0 && message[NV - 1] != 0 -> g = message[NV - 1] - 1; message[NV - 1] = 0 };
			page_fault(g)
		:: message[0] == 0 && message[NV - 1] == 0 -> break
		od
#ifdef BUG_MONITOR_ENDS
		;
		if
		:: phase == PHASE_RELEASED -> break
		:: else
		fi
#endif
	:: atomic { closing -> break }
	od;
	monitor_ended = 1
}

/* -------------------------------------------------------------------- owner */

/* START. mremap has put the protected pages in place, and returns when the monitor has read its event. */
inline swap()
{
	atomic {
		take_instant();
		arm();
		registered = 1;
		moving = 1;
		event = 1
	};
	!event;
	moving = 0
}

/* RELEASE may come meanwhile, and find nothing to do. */
inline start_swapped()
{
	stop = 1;
	running == 0;
	linked = 1;
	inside == 0;
	swap();
	if
	:: atomic { phase == PHASE_READY -> phase = PHASE_ARMED }
	:: phase == PHASE_RELEASED -> disarm()
	fi;
	stop = 0
}

/* START that RELEASE overtook may have linked the dump once more: a thread that saw it then is waited for. */
inline free_dump()
{
	inside == 0;
	freed = 1
}

/* The end of the arena, which has no dump any more: the monitor ends, then the kernel wakes each vCPU that sleeps. */
inline close()
{
	nobody_sleeps();
	closing = 1;
	monitor_ended
}
