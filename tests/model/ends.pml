/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How a dump that is never released must end. */

/* Waits in vain when a vCPU hangs or the drain never ends: then spin says "invalid end state". */
inline all_ends()
{
	vcpus_ended == NV && sweep_ended && free_slots == ALL_SLOTS;
	d_step {
		assert(sealed && remaining == 0);
		assert(filled == 0 && inside == 0);
		i = 0;
		do
		:: i < NG ->
			assert(writable[i] && SAFE(i) && FINAL(state[i]));
			assert(state[i] != LOST || policy == FAIL || io_failed);
			i++
		:: else -> break
		od
	}
}
