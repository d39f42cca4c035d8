/* SPDX-License-Identifier: Apache-2.0 */
/*
 * smtp_session: one SMTP (later also LMTP) client session, sans-I/O: bytes and times in; bytes,
 * events and a deadline out.
 *
 * Owner: one delivery of one worker. It knows no descriptor, no queue, no DNS and no content: of a
 * message it knows the envelope, the size and that the body is sent by the caller when told. No
 * allocation; about 1.2 KB a session (asserted to stay below 2 KB).
 *
 * How to drive it
 *   init, then on_connected when the transport is up (timer for the greeting starts).
 *   on_bytes with what came, in a loop, until it returns false: each true carries one event.
 *   After every call: flush output (smtp_session_output) and set the timer to
 *     smtp_session_deadline. This holds for OVER too: a server that refused us in good order is
 *     told QUIT (A28); flush, then close, the answer need not be awaited.
 *   on_timeout when the deadline has passed, on_closed when the transport ended: in a loop like
 *     on_bytes, for the events.
 *   begin hands it a transaction, only after READY or DONE. The session reads the transaction
 *     until DONE or OVER.
 *   quit asks for an orderly end between transactions.
 *
 * Events
 *   READY      greeting and EHLO/HELO are through: begin may be called. Told once; after a
 *              transaction DONE says the same.
 *   BODY       354 was read and at least one recipient stands: the caller now sends the body in
 *              SMTP form (smtp_body: dot-stuffed, CRLF.CRLF at its end), then calls
 *              smtp_session_body_sent when the last byte was handed to the transport, and
 *              smtp_session_body_taken when the transport has sent it. From the first call on a
 *              lost connection is AMBIGUOUS (LAW 6); an acceptance counts from the second one on,
 *              and waits for it (LAW 5): nobody can accept what is not out yet.
 *   RECIPIENT  the fate of transaction->rcpts[index]: exactly one per recipient and transaction,
 *              before DONE or OVER.
 *   DONE       the transaction is over and the session is READY for another one.
 *   OVER       the session is over (refused, failed, or quit): the caller closes the connection.
 *              All recipients have been told before. Told once; it may come in the place of READY,
 *              BODY or DONE.
 *
 * Unread bytes behind a reply after which nothing is outstanding are never matched with what is
 * sent later (C11): READY, BODY and DONE are held back until on_bytes has seen all it was given.
 * What was said too early is 421 (A14), a refusal in the middle of the body (3.6), or a protocol
 * error.
 *
 * Pipelining (RFC 2920): when offered in the current EHLO, MAIL, all RCPT and DATA go out as one
 * group; otherwise one command at a time. Two cursors: `send` (next command to write) and `await`
 * (oldest command without a reply).
 *
 * Errors are data: struct smtp_result says at which stage, by what (a reply, a lost connection, a
 * timeout, a protocol error, or a decision of our own such as SIZE exceeded), with the server's
 * words. The engine's policy table decides what it means.
 *
 * Sources: RFC 5321, 2920, 1870, 6152, 2034/3463; conformance.md 1.A, 1.C, 1.E and 3 (numbers in
 * the code).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "engine/base/bytes.h"
#include "engine/base/clock.h"
#include "engine/smtp/smtp_capability.h"
#include "engine/smtp/smtp_reply.h"

enum { SMTP_RCPTS_MAX = 256, SMTP_GREETING_NAME_MAX = 255 };

/* Where in its life a transaction or session was when something happened; a session that ends while
 * it is READY has stage EHLO before its first transaction and RSET afterwards. Printed in logs
 * (smtp_stage_name: "CONNECT", "GREETING", "EHLO", "MAIL FROM", "RCPT TO", "DATA", "END OF DATA",
 * "RSET", "QUIT"). */
enum smtp_stage {
    SMTP_STAGE_CONNECT,
    SMTP_STAGE_GREETING,
    SMTP_STAGE_EHLO,
    SMTP_STAGE_MAIL,
    SMTP_STAGE_RCPT,
    SMTP_STAGE_DATA,
    SMTP_STAGE_BODY, /* after 354, before the last byte of the body was handed over */
    SMTP_STAGE_END_OF_DATA,
    SMTP_STAGE_RSET,
    SMTP_STAGE_QUIT,
};
enum { SMTP_STAGES_COUNT = SMTP_STAGE_QUIT + 1 };

enum smtp_cause {
    SMTP_CAUSE_REPLY,    /* `reply` is the server's */
    SMTP_CAUSE_LOST,     /* the connection ended without a reply */
    SMTP_CAUSE_TIMEOUT,  /* RFC 5321 4.5.3.2, or the deadline of a whole reply */
    SMTP_CAUSE_PROTOCOL, /* the server broke the protocol; `reply` holds what it said, if anything
                          */
    SMTP_CAUSE_SIZE,     /* larger than the server's SIZE: nothing was sent (E2) */
    SMTP_CAUSE_8BIT,     /* 8-bit body, no 8BITMIME (E4) */
    SMTP_CAUSE_LOOP,     /* the server greets with our own name (A27) */
};
enum { SMTP_CAUSES_COUNT = SMTP_CAUSE_LOOP + 1 };

struct smtp_result {
    enum smtp_stage stage;
    enum smtp_cause cause;
    bool is_ambiguous;              /* end of data was sent, no usable reply was read (AMBIG) */
    bool is_reused;                 /* the connection has carried another transaction before */
    const struct smtp_reply *reply; /* valid until the next call; code 0 when there was none */
};

enum smtp_event_kind {
    SMTP_EVENT_READY,
    SMTP_EVENT_BODY,
    SMTP_EVENT_RECIPIENT,
    SMTP_EVENT_DONE,
    SMTP_EVENT_OVER,
};

struct smtp_event {
    enum smtp_event_kind kind;
    uint16_t index;            /* of RECIPIENT */
    struct smtp_result result; /* of RECIPIENT and OVER (for a normal end after quit: stage QUIT) */
};

/* Milliseconds; defaults of RFC 5321 4.5.3.2 by smtp_timeouts_default. Each limits the whole reply,
 * not the gap between two bytes (A3). */
struct smtp_timeouts {
    uint32_t greeting_ms;
    uint32_t ehlo_ms;
    uint32_t mail_ms;
    uint32_t rcpt_ms;
    uint32_t data_ms;
    uint32_t body_ms; /* for each progress of sending (smtp_session_body_progress), to its end */
    uint32_t end_of_data_ms;
    uint32_t rset_ms; /* also for the rest of what came too early */
    uint32_t quit_ms;
};
void smtp_timeouts_default(struct smtp_timeouts *timeouts);

/* Borrowed for the life of the session. */
struct smtp_session_config {
    struct span ehlo_name; /* FQDN or address literal (A11) */
    struct smtp_timeouts timeouts;
    uint32_t capabilities_off; /* mask of enum smtp_capability_bit that are ignored when offered */
};

/* One transaction; borrowed from begin until DONE or OVER. Paths are without angle brackets,
 * checked by smtp_command (no CR, LF, NUL, not too long): an address that cannot be written is a
 * bug here, because the scan has rejected it before. */
struct smtp_transaction {
    struct span sender;       /* empty = null return path */
    const struct span *rcpts; /* 1..SMTP_RCPTS_MAX */
    uint16_t rcpts_count;
    bool is_8bit;  /* the body or its headers hold bytes above 127 */
    uint64_t size; /* octets of the message with CRLF, without dot-stuffing (RFC 1870 3) */
};

/*
 *   CONNECTING -> GREETING -> EHLO -> READY -> ENVELOPE -> BODY -> END_OF_DATA -> READY
 *                     |         |      ^ ^ |     |  |                  ^   |
 *                     |         v      | | |     |  +---- lone dot ----+   |
 *                     +-----> HELO ----+ | |     |                         |
 *                                        | |     +------> RSET <-----------+
 *                                        | v               |
 *                                        | QUIT            |
 *                                        +-----------------+
 *
 *   any state -> OVER: 421, lost, timeout, protocol error; refused where nothing is left to try;
 *   QUIT answered.
 *
 * Who performs the transition into a state, and what holds in it:
 *   CONNECTING   smtp_session_init. Nothing may come.
 *   GREETING     smtp_session_on_connected. One reply is awaited, to no command.
 *   EHLO         2xx greeting. One command.
 *   HELO         5xx to EHLO, or a greeting of stars (3.1). One command; no capabilities.
 *   READY        2xx to EHLO, HELO, RSET, or the end of data. Nothing outstanding; no transaction
 *                once READY or DONE was told.
 *   ENVELOPE     smtp_session_begin. Commands: 0 = MAIL, 1..n = RCPT, n + 1 = DATA.
 *   BODY         3xx to DATA, some recipients stand. Nothing outstanding, the caller sends.
 *   END_OF_DATA  smtp_session_body_sent: the reply to the caller's dot is awaited; until
 *                body_taken the limit is that of sending. Or 3xx to DATA
 *                when no recipient stands: one command, the lone dot (C3).
 *   RSET         the transaction came to nothing, all recipients are decided. One command.
 *   QUIT         smtp_session_quit. One command, ended by any answer or none.
 *   OVER         the last. Nothing is awaited; QUIT may wait to be written as a farewell.
 */
enum smtp_state {
    SMTP_STATE_CONNECTING,
    SMTP_STATE_GREETING,
    SMTP_STATE_EHLO,
    SMTP_STATE_HELO,
    SMTP_STATE_READY,
    SMTP_STATE_ENVELOPE, /* MAIL, RCPT, DATA outstanding */
    SMTP_STATE_BODY,     /* 354 was read; the caller sends */
    SMTP_STATE_END_OF_DATA,
    SMTP_STATE_RSET,
    SMTP_STATE_QUIT,
    SMTP_STATE_OVER,
};
enum { SMTP_STATES_COUNT = SMTP_STATE_OVER + 1 };

/* What is to be told behind the recipients of the sweep. */
enum smtp_tell {
    SMTP_TELL_NOTHING,
    SMTP_TELL_READY,
    SMTP_TELL_BODY,
    SMTP_TELL_DONE,
    SMTP_TELL_OVER,
};

/* Fields behind `transactions_count` are the room's own. */
struct smtp_session {
    const struct smtp_session_config *config;
    enum smtp_state state;
    uint32_t
        transactions_count; /* whose MAIL was or will be sent on this connection: 0 = a fresh one */

    const struct smtp_transaction *transaction; /* from begin until DONE or OVER is told */
    struct mono_time deadline;
    struct smtp_capabilities capabilities;
    /* The commands of the state, and the two cursors over them: `sent` and `answered` count from
     * the first. */
    uint16_t commands_count;
    uint16_t sent_count;
    uint16_t answered_count;
    uint16_t undecided_count; /* recipients without a fate; those of the sweep have one */
    /* The recipients from sweep_at up to sweep_end not told yet are told the result, one event a
     * call; then `tell`. */
    uint16_t sweep_at;
    uint16_t sweep_end;
    enum smtp_tell tell;
    enum smtp_stage result_stage;
    enum smtp_cause result_cause;
    bool result_is_ambiguous;
    bool is_mail_refused;
    bool is_body_sent;
    bool is_body_taken;
    bool is_accept_held; /* the end of data was accepted before the body was out */
    bool is_early;       /* the reply that has begun was not asked for */
    bool is_own_name;    /* the server's first line names us (A27) */
    bool is_masked;      /* the greeting is stars: a firewall that breaks ESMTP (3.1) */
    uint64_t told[SMTP_RCPTS_MAX / 64]; /* one bit a recipient; those behind rcpts_count are set */
    struct smtp_reply_parser parser;
};
_Static_assert(sizeof(struct smtp_session) <= 2048, "thousands of sessions a worker");

void smtp_session_init(struct smtp_session *session, const struct smtp_session_config *config,
                       struct mono_time now);
void smtp_session_on_connected(struct smtp_session *session, struct mono_time now);

/* Consumes from the front of `*bytes`. True: one event in *ret_event; call again with what is left.
 * False: all was consumed. */
bool smtp_session_on_bytes(struct smtp_session *session, struct span *bytes, struct mono_time now,
                           struct smtp_event *ret_event);
/* The deadline has passed. In a loop until false. */
bool smtp_session_on_timeout(struct smtp_session *session, struct mono_time now,
                             struct smtp_event *ret_event);
/* The transport ended (or never came up). In a loop until false; the last event is OVER, unless it
 * was told before. */
bool smtp_session_on_closed(struct smtp_session *session, struct mono_time now,
                            struct smtp_event *ret_event);

/* Whether the server can be given it, by its size and whether it is 8-bit; else nothing of it is
 * sent. */
bool smtp_session_may_carry(const struct smtp_session *session,
                            const struct smtp_transaction *transaction);
/* Only in state READY. The events that follow from begin itself (SIZE exceeded ...) come from
 * smtp_session_next, in a loop until false. */
void smtp_session_begin(struct smtp_session *session, const struct smtp_transaction *transaction,
                        struct mono_time now);
bool smtp_session_next(struct smtp_session *session, struct mono_time now,
                       struct smtp_event *ret_event);
/* The transport took more of the body (restarts body_ms, also behind body_sent). */
void smtp_session_body_progress(struct smtp_session *session, struct mono_time now);
/* The last byte of the body, with its final dot, was handed to the transport; only after BODY. */
void smtp_session_body_sent(struct smtp_session *session, struct mono_time now);
/* The transport took the last byte of the body (end_of_data_ms starts); behind body_sent. No-op
 * when the transaction has come out otherwise. The events that follow from it come from
 * smtp_session_next, in a loop until false. */
void smtp_session_body_taken(struct smtp_session *session, struct mono_time now);
/* The server has accepted the end of data and may end the connection, but the acceptance waits for
 * body_taken: a half close of the peer is no news until then. */
bool smtp_session_is_accept_held(const struct smtp_session *session);
/* Only in state READY: QUIT goes out; OVER follows. */
void smtp_session_quit(struct smtp_session *session, struct mono_time now);

/* Moves what is to be sent next into the writer, whole commands only; true when one had no room. A
 * writer with SMTP_COMMAND_SIZE_MAX bytes left always takes one. May be called at any time. */
bool smtp_session_output(struct smtp_session *session, struct writer *writer);
struct mono_time smtp_session_deadline(const struct smtp_session *session);
/* What the server offered in the current EHLO. */
const struct smtp_capabilities *smtp_session_capabilities(const struct smtp_session *session);
const char *smtp_stage_name(enum smtp_stage stage);
const char *smtp_cause_name(enum smtp_cause cause);
const char *smtp_state_name(enum smtp_state state);
/* For people: state, cursors, recipients. */
void smtp_session_to_text(const struct smtp_session *session, struct writer *writer);
/* Verifies what must hold in the present state. */
void smtp_session_check(const struct smtp_session *session);
