/* SPDX-License-Identifier: Apache-2.0 */
/*
 * backoff: when to try a deferred recipient again.
 *
 * Pure functions of the schedule, the attempts made so far and one random number; they keep no
 * state, read no clock, cannot fail and may be called from any actor.
 *
 * The delay before attempt n+1 doubles with n from `first_s` up to `ceiling_s`, then is spread
 * evenly over [delay * (1 - jitter), delay], so that recipients that were deferred together do not
 * come back together. A schedule that would pass `expire_s` is cut there: the last attempt falls on
 * the expiry itself, never behind it (RFC 5321 4.5.4.1 wants 4-5 days in all; the configuration
 * decides).
 *
 * After an ambiguous end (end of data sent, no answer read: the other side may well have the mail,
 * LAW 6) chance may not shorten the delay: a server that is slow to answer gets its full time.
 *
 * Bounds: 0 < first_s <= ceiling_s <= expire_s, 0 <= jitter_percent <= 50. config.c checks what
 * people write; here a breach is a bug.
 */
#pragma once

#include <stdint.h>

struct backoff_schedule {
    uint32_t first_s;        /* delay after the first failed attempt */
    uint32_t ceiling_s;      /* no delay is longer than this */
    uint32_t expire_s;       /* age at which a recipient expires */
    uint32_t jitter_percent; /* share of the delay that chance may take away */
};

/* When the configuration says nothing: 15 min, 30 min, 1 h, 2 h, 4 h, 4 h ... for 5 days. */
#define BACKOFF_SCHEDULE_DEFAULT                                                                   \
    ((struct backoff_schedule){.first_s = 15 * 60,                                                 \
                               .ceiling_s = 4 * 60 * 60,                                           \
                               .expire_s = 5 * 24 * 60 * 60,                                       \
                               .jitter_percent = 20})

/*
 * Seconds from now until the next attempt; 0 when the recipient has reached its expiry and must be
 * settled as expired.
 *
 * attempts_count   attempts made so far, at least 1
 * age_s            seconds since the recipient was accepted
 * random           uniform over all 32-bit values
 */
uint32_t backoff_delay_s(const struct backoff_schedule *schedule, uint32_t attempts_count,
                         uint32_t age_s, uint32_t random);
/* The same after an ambiguous end: never shorter than backoff_delay_s says for any chance. */
uint32_t backoff_delay_ambiguous_s(const struct backoff_schedule *schedule, uint32_t attempts_count,
                                   uint32_t age_s);
