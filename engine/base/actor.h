/* SPDX-License-Identifier: Apache-2.0 */
/*
 * actor: what boot.c and the simulator drive (DESIGN 2).
 *
 * `step` takes what is in the inboxes, does a bounded amount of work, hands results to other
 * inboxes and says when it wants to be called again: a time not after `now` means "at once, there
 * is more", MONO_NEVER means "when my waker is signalled". It never blocks, never sleeps, and reads
 * clock and random only through the seams. Only engine/boot.c knows threads.
 *
 * `wait` is called by the actor's thread in boot.c between steps, never in the simulator: it sleeps
 * until something the actor's own descriptors tell, its waker, or the deadline. Before it, boot.c
 * calls waker_sleep and takes the thread offline for RCU.
 */
#pragma once

#include "engine/base/clock.h"
#include "engine/base/inbox.h"

struct actor {
    const char *name;
    struct mono_time (*step)(struct actor *actor, struct mono_time now);
    void (*wait)(struct actor *actor, struct mono_time now, struct mono_time deadline);
    struct waker waker;
};
