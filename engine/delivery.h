/* SPDX-License-Identifier: Apache-2.0 */
/*
 * delivery: one open session: a transport connection, the SMTP machine that speaks on it, and the
 * transaction it is in.
 *
 * Owner: its worker and lane. Born in delivery_open (dispatch has taken the limits), ends when the
 * transport has told CLOSED, never inside its own callback but there; everything it holds (limits,
 * attempts, bufs) is given back before.
 *
 * Stages: CONNECTING -> BUSY (greeting, EHLO) -> IDLE <-> BUSY (transaction) -> ENDING (QUIT sent
 * or connection being closed) -> gone.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "engine/base/list.h"
#include "engine/base/timer.h"
#include "engine/lane.h"
#include "engine/smtp/smtp_body.h"
#include "engine/smtp/smtp_session.h"
#include "engine/worker.h"
#include "net/net.h"

enum {
    DELIVERY_COMMANDS_MAX = 512,
    DELIVERY_RCPTS_INLINE = 4,
    DELIVERY_SENDER_MAX = 256,
    DELIVERY_PIECES_MAX = TEMPLATE_PIECES_MAX,
    DELIVERY_SEGMENTS_MAX = 32, /* of a plan, in one send */
};

/* The recipients of a transaction with more than DELIVERY_RCPTS_INLINE of them. */
struct rcpts_block {
    struct span paths[SMTP_RCPTS_MAX];
    struct attempt *attempts[SMTP_RCPTS_MAX];
};

/* A body that is sent piece by piece because it is large: nothing of it is copied but the values.
 */
struct plan {
    struct span pieces[DELIVERY_PIECES_MAX];
    uint32_t pieces_count;
    struct smtp_body stuffing;
};

enum delivery_stage {
    DELIVERY_CONNECTING,
    DELIVERY_BUSY,
    DELIVERY_IDLE,
    DELIVERY_ENDING,
};
enum { DELIVERY_STAGES_COUNT = DELIVERY_ENDING + 1 };

struct delivery {
    struct list link;     /* in lane->sessions */
    struct list idle;     /* in lane->idle while IDLE ... */
    struct list idle_all; /* ... and in worker->idle */
    struct worker *worker;
    struct lane *lane;
    struct net_conn_id conn;
    enum delivery_stage stage;
    bool is_over;     /* the machine has told OVER */
    bool is_body_due; /* BODY was told and not all of it handed to the transport */
    bool is_fin_due;  /* the peer has half closed behind an acceptance that waits */
    bool is_record;   /* the message is `record_body`, which may be empty */
    bool has_reached; /* got as far as READY once */
    bool is_close_asked;
    bool is_given_up;
    bool is_declined; /* aside: by its host; it makes room for one to another */
    bool is_fresh;    /* counted so by its site: it was opened for a rate, and has had no message */
    uint64_t number;
    uint32_t transactions_count;
    struct mono_time opened;
    struct timer timer;
    struct smtp_session_config smtp_config;
    struct smtp_session smtp;
    struct lane_host host;
    uint8_t addr_size;
    char addr_text[NET_ADDR_TEXT_MAX]; /* of the host, for the log */

    /* What the transport still holds: first `commands_out` bytes of commands, then body. */
    uint32_t commands_out;
    uint64_t body_out;
    char commands[DELIVERY_COMMANDS_MAX];

    /* The transaction. */
    struct smtp_transaction transaction;
    struct span paths_inline[DELIVERY_RCPTS_INLINE];
    struct attempt *attempts_inline[DELIVERY_RCPTS_INLINE];
    struct rcpts_block *rcpts; /* NULL: inline */
    uint16_t refused_count;    /* at RCPT so far, for A15 */
    uint16_t undecided_count;
    char sender[DELIVERY_SENDER_MAX];
    /* Its body: one contiguous buf, or a plan, or a record of a load with a prefix in a buf. */
    char *buf;
    uint8_t buf_class;
    uint32_t buf_size;
    struct plan *plan;
    struct span record_body; /* wire form, without the lone dot */
    struct load *load; /* held while the transport may read of it or of its batch's template */
};

/* Opens a connection of the lane to the host; the caller has taken the limits. 0, or -errno:
 * nothing was opened (the caller gives the limits back). */
int delivery_open(struct lane *lane, const struct lane_host *host, struct mono_time now)
    __attribute__((warn_unused_result));
/* The worker's transport callback. */
void delivery_on_event(void *context, const struct net_event *event);
/*
 * Begins a transaction on an IDLE session. The attempts (1..SMTP_RCPTS_MAX, all of `load`, all with
 * the same bytes) are the delivery's from here on; the message was prepared in the delivery by
 * compose.h. What of it is not a copy stays with the load and its batch, which are held until the
 * transport has let go of it: the answer may come before.
 */
void delivery_begin(struct delivery *delivery, struct load *load, struct attempt *const *attempts,
                    uint32_t count, struct mono_time now);
/* An orderly end of an IDLE session. */
void delivery_quit(struct delivery *delivery, struct mono_time now);
/* Its session ends at once, and its recipients are put off: others wait for what it holds. */
void delivery_give_up(struct delivery *delivery);
/* Gives back what the transaction holds of its body: buf, plan, load. */
void delivery_release_body(struct delivery *delivery);
/* The same, and its block of recipients. */
void delivery_release_message(struct delivery *delivery);
