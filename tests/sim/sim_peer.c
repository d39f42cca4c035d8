/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/sim_peer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "engine/base/list.h"
#include "engine/smtp/smtp_session.h"

enum {
    SCRATCH_SIZE = 2 * SINK_SMTP_REPLY_MAX,
    ENDLESS_PIECE = 4096,
    FIN_GROUPS_MAX = 8,
    RCPTS_MAX = SMTP_RCPTS_MAX,
    HEAD_SIZE = 1024, /* of a message: where its token stands */
    ADDRESS_SIZE = 96,
    PORT = 25,
};

/* One connection. Replies gather in `out` and are sent when their delay is over. `put_size` and
 * `sent_size` count the bytes of all of them. */
struct session {
    struct list link; /* in peers->sessions */
    struct sim_peers *peers;
    struct sim_peer *host;
    uint32_t host_index;
    struct net_conn_id conn;
    uint64_t number;
    struct sink_smtp smtp;
    bool is_closing;
    bool has_greeted;
    struct mono_time hold_until;
    struct sim_text out;
    size_t out_sent;
    uint64_t put_size;
    uint64_t sent_size;
    uint64_t go_at;         /* end of the last reply to DATA */
    uint64_t endless_size;  /* said so far of a reply without an end */
    uint32_t fin_in;        /* groups of replies until it stops speaking; 0: it does not */
    bool is_dumb;           /* it has */
    bool has_promised;      /* in this transaction */
    struct sink_policy own; /* of a moody host */
    int64_t opened_ns;
    /* The message that is coming in. */
    XXH3_state_t *hash;
    uint64_t content_size;
    size_t head_size;
    uint32_t rcpts_count;
    int64_t asked_ns;
    size_t transaction; /* its row */
    /* Not cleared at the start. */
    char head[HEAD_SIZE];
    char sender[ADDRESS_SIZE];
    char rcpts[RCPTS_MAX][ADDRESS_SIZE];
};

/* How often an address came with a script "xN". */
struct attempts {
    uint64_t hash; /* 0: free */
    uint32_t count;
};

struct sim_peers {
    struct net_loop *loop;
    const struct clock *clock;
    struct random random;
    struct sink_counts counts;
    struct list sessions;
    uint64_t sessions_next;
    uint32_t hosts_count;
    struct sim_peer hosts[SIM_PEERS_MAX];
    struct sim_mail *log;
    size_t log_count;
    size_t log_room;
    struct sim_transaction *transactions;
    size_t transactions_count;
    size_t transactions_room;
    struct attempts *attempts;
    size_t attempts_count;
    size_t attempts_room;
    uint64_t wrongs;
    const char *wrong_words;
};

static void wrong(struct sim_peers *peers, const char *words)
{
    peers->wrongs++;
    peers->wrong_words = words;
}

/* What the core tells. */

static void copy_address(char *to, struct span address)
{
    size_t size = address.size < ADDRESS_SIZE ? address.size : ADDRESS_SIZE - 1;
    memcpy(to, address.at, size);
    to[size] = '\0';
}

static void on_mail(void *context, struct span sender)
{
    struct session *session = context;
    copy_address(session->sender, sender);
    session->rcpts_count = 0;
    session->has_promised = false;
    session->asked_ns = sim_net_asked_ns(session->peers->loop);
    session->content_size = 0;
    session->head_size = 0;
    (void)XXH3_64bits_reset(session->hash);
}

static uint64_t number_of(struct span text)
{
    struct cursor cursor = cursor_of(text);
    uint64_t number;
    return cursor_take_uint(&cursor, UINT64_MAX - 1, &number) ? number : SIM_PEER_NONE;
}

static uint64_t number_of_address(const char *address)
{
    const char *at = strrchr(address, '@');
    const char *dash = at;
    while (dash != NULL && dash > address && *dash != '-') {
        dash--;
    }
    return dash == NULL || *dash != '-' ? SIM_PEER_NONE
                                        : number_of(span_of(dash + 1, (size_t)(at - dash - 1)));
}

static size_t transaction_add(struct session *session, struct span recipient)
{
    struct sim_peers *peers = session->peers;
    if (peers->transactions_count == peers->transactions_room) {
        peers->transactions_room =
            peers->transactions_room == 0 ? 256 : peers->transactions_room * 2;
        peers->transactions =
            realloc(peers->transactions, peers->transactions_room * sizeof(*peers->transactions));
        ensure(peers->transactions != NULL);
    }
    struct sim_transaction *row = &peers->transactions[peers->transactions_count];
    *row = (struct sim_transaction){.opened_ns = session->opened_ns,
                                    .asked_ns = session->asked_ns,
                                    .heard_ns = clock_mono(peers->clock).ns,
                                    .host = session->host_index};
    const char *at = memrchr(recipient.at, '@', recipient.size);
    if (at != NULL) {
        size_t size = (size_t)(recipient.at + recipient.size - at - 1);
        ensure(size < sizeof(row->domain));
        memcpy(row->domain, at + 1, size);
    }
    return peers->transactions_count++;
}

static void on_rcpt(void *context, struct span recipient)
{
    struct session *session = context;
    ensure(session->rcpts_count < RCPTS_MAX);
    if (session->rcpts_count == 0) {
        session->transaction = transaction_add(session, recipient);
    }
    struct sim_transaction *row = &session->peers->transactions[session->transaction];
    copy_address(session->rcpts[session->rcpts_count++], recipient);
    row->number = row->rcpts_count++ == 0 ? number_of_address(session->rcpts[0]) : row->number;
}

static void on_body(void *context, struct span piece)
{
    struct session *session = context;
    (void)XXH3_64bits_update(session->hash, piece.at, piece.size);
    session->content_size += piece.size;
    size_t left = HEAD_SIZE - session->head_size;
    size_t taken = piece.size < left ? piece.size : left;
    memcpy(session->head + session->head_size, piece.at, taken);
    session->head_size += taken;
}

static uint64_t token_of(const struct session *session)
{
    static const char NAME[] = "X-Token: ";
    const char *at = memmem(session->head, session->head_size, NAME, sizeof(NAME) - 1);
    if (at == NULL) {
        return SIM_PEER_NONE;
    }
    at += sizeof(NAME) - 1;
    return number_of(span_of(at, (size_t)(session->head + session->head_size - at)));
}

static struct sim_mail *log_add(struct sim_peers *peers)
{
    if (peers->log_count == peers->log_room) {
        peers->log_room = peers->log_room == 0 ? 256 : peers->log_room * 2;
        peers->log = realloc(peers->log, peers->log_room * sizeof(*peers->log));
        ensure(peers->log != NULL);
    }
    return &peers->log[peers->log_count++];
}

/* A row a recipient. */
static void log_transaction(struct session *session, bool is_promise)
{
    struct sim_peers *peers = session->peers;
    for (uint32_t i = 0; i < session->rcpts_count; i++) {
        struct sim_mail *mail = log_add(peers);
        *mail = (struct sim_mail){
            .number = number_of_address(session->rcpts[i]),
            .token = is_promise ? SIM_PEER_NONE : token_of(session),
            .hash = is_promise ? 0 : XXH3_64bits_digest(session->hash),
            .size = session->content_size,
            .session = session->number,
            .at_ns = clock_mono(peers->clock).ns,
            .host = session->host_index,
            .said = session->is_dumb ? 0 : session->smtp.said,
            .is_promise = is_promise,
        };
        memcpy(mail->sender, session->sender, ADDRESS_SIZE);
        memcpy(mail->recipient, session->rcpts[i], ADDRESS_SIZE);
    }
}

static void on_message(void *context, uint64_t size)
{
    struct session *session = context;
    (void)size;
    session->host->mails_count++;
    log_transaction(session, false);
}

static void attempts_grow(struct sim_peers *peers)
{
    struct attempts *old = peers->attempts;
    size_t old_room = peers->attempts_room;
    peers->attempts_room = old_room == 0 ? 256 : old_room * 2;
    peers->attempts = calloc(peers->attempts_room, sizeof(*peers->attempts));
    ensure(peers->attempts != NULL);
    for (size_t i = 0; i < old_room; i++) {
        size_t at = old[i].hash & (peers->attempts_room - 1);
        while (old[i].hash != 0 && peers->attempts[at].hash != 0) {
            at = (at + 1) & (peers->attempts_room - 1);
        }
        if (old[i].hash != 0) {
            peers->attempts[at] = old[i];
        }
    }
    free(old);
}

static uint32_t on_attempt(void *context, struct span address)
{
    struct sim_peers *peers = ((struct session *)context)->peers;
    if (2 * (peers->attempts_count + 1) > peers->attempts_room) {
        attempts_grow(peers);
    }
    uint64_t hash = XXH3_64bits(address.at, address.size) | 1;
    size_t at = hash & (peers->attempts_room - 1);
    while (peers->attempts[at].hash != 0 && peers->attempts[at].hash != hash) {
        at = (at + 1) & (peers->attempts_room - 1);
    }
    peers->attempts_count += peers->attempts[at].hash == 0 ? 1 : 0;
    peers->attempts[at].hash = hash;
    return peers->attempts[at].count++;
}

static const struct sink_hooks HOOKS = {
    .on_mail = on_mail,
    .on_rcpt = on_rcpt,
    .on_body = on_body,
    .on_message = on_message,
    .on_attempt = on_attempt,
};

/* Sending. */

static void put_reply(struct session *session, struct span reply)
{
    if (session->is_dumb || reply.size == 0) {
        return;
    }
    size_t before = session->out.size;
    sim_speech_put(&session->out, session->host->speech, &session->peers->random, reply);
    session->put_size += session->out.size - before;
}

/* What a reply without an end goes on with. */
static bool put_endless(struct session *session)
{
    static const char LINE[] = " and so on\r\n250-And so on and so on and so on and so on";
    bool is_wanted = session->smtp.is_endless && !session->is_dumb &&
                     session->endless_size < session->host->endless_size;
    for (size_t size = 0; is_wanted && size < ENDLESS_PIECE; size += sizeof(LINE) - 1) {
        sim_text_put(&session->out, span_of(LINE, sizeof(LINE) - 1));
        session->put_size += sizeof(LINE) - 1;
        session->endless_size += sizeof(LINE) - 1;
    }
    return is_wanted;
}

static bool send_some(struct session *session, bool *ret_is_drip)
{
    struct sim_peer *host = session->host;
    size_t left = session->out.size - session->out_sent;
    *ret_is_drip = host->drip_ms > 0 && host->drips_left > 0;
    if (*ret_is_drip) {
        host->drips_left--;
        left = 1;
    }
    struct net_segment segment = {
        .at = session->out.at + session->out_sent,
        .size = (uint32_t)(left < NET_COPY_MAX ? left : NET_COPY_MAX),
        .is_copied = true,
    };
    if (net_send(session->peers->loop, session->conn, &segment, 1, 0) != 0) {
        return false;
    }
    session->out_sent += segment.size;
    session->sent_size += segment.size;
    return true;
}

/* A group of replies is out: it may have been the last. */
static void group_end(struct session *session)
{
    session->has_greeted |= session->out.size > 0;
    if (session->out.size > 0 && session->fin_in > 0 && --session->fin_in == 0 &&
        !session->is_closing) {
        session->is_dumb = net_send(session->peers->loop, session->conn, NULL, 0, NET_FIN) == 0;
    }
    session->out_sent = session->out.size = 0;
}

static void flush(struct session *session, struct mono_time now)
{
    do {
        if (mono_before(now, session->hold_until)) {
            return;
        }
        while (session->out_sent < session->out.size) {
            bool is_drip;
            if (!send_some(session, &is_drip)) {
                return;
            }
            if (is_drip && session->out_sent < session->out.size) {
                session->hold_until = mono_add_ms(now, session->host->drip_ms);
                return;
            }
        }
        group_end(session);
    } while (put_endless(session));
    enum sink_end end = sink_smtp_end(&session->smtp);
    if (end != SINK_END_OPEN && !session->is_closing) {
        session->is_closing = true;
        (void)net_close(session->peers->loop, session->conn, end == SINK_END_RESET);
    }
}

static void hold(struct session *session, struct mono_time now)
{
    const struct sim_peer *host = session->host;
    uint32_t delay_ms = session->smtp.delay_ms;
    session->smtp.delay_ms = 0;
    if (host->delay_max_ms > 0) {
        ensure(host->delay_min_ms <= host->delay_max_ms);
        uint32_t spread_ms = host->delay_max_ms - host->delay_min_ms;
        delay_ms += host->delay_min_ms + random_below(&session->peers->random, spread_ms + 1);
    }
    if (delay_ms > 0) {
        struct mono_time until = mono_add_ms(now, delay_ms);
        session->hold_until = mono_before(session->hold_until, until) ? until : session->hold_until;
    }
}

/* Receiving: line by line outside of a message, so that a client that does not wait is seen. */

static struct span next_part(const struct session *session, struct span in)
{
    const char *lf = memchr(in.at, '\n', in.size);
    bool is_line = session->smtp.state != SINK_SMTP_BODY && lf != NULL;
    return is_line ? span_of(in.at, (size_t)(lf - in.at) + 1) : in;
}

static void check_turn(struct session *session, enum sink_smtp_state before, size_t left)
{
    enum sink_smtp_state state = session->smtp.state;
    if (left == 0 || state >= SINK_SMTP_MUTE || session->host->may_shift) {
        return;
    }
    if (before == SINK_SMTP_START) {
        wrong(session->peers, "commands behind EHLO before its reply");
    } else if (before != SINK_SMTP_BODY && state == SINK_SMTP_BODY) {
        wrong(session->peers, "content behind DATA before its reply");
    } else if (before != SINK_SMTP_BODY && session->smtp.policy->is_stepwise) {
        wrong(session->peers, "commands at once without PIPELINING");
    }
}

/* Feeds the core with one part; its reply is put into words. */
static size_t take_part(struct session *session, struct span part)
{
    char scratch[SCRATCH_SIZE];
    struct writer out = writer_of(scratch, sizeof(scratch));
    enum sink_smtp_state before = session->smtp.state;
    size_t taken = sink_smtp_take(&session->smtp, part, &out);
    struct span reply = writer_span(&out);
    if (before != SINK_SMTP_BODY && session->smtp.state == SINK_SMTP_BODY) {
        size_t go_size = span_find(reply, '\n');
        go_size += go_size < reply.size ? 1 : 0; /* else it is left out, or has no end */
        put_reply(session, span_of(reply.at, go_size));
        session->go_at = session->put_size;
        reply = span_of(reply.at + go_size, reply.size - go_size);
        if (session->smtp.is_early && session->smtp.said < 300 && !session->has_promised) {
            session->has_promised = true;
            log_transaction(session, true);
        }
    }
    put_reply(session, reply);
    return taken;
}

static void on_rx(struct session *session, struct span in, struct mono_time now)
{
    bool is_strict = !session->host->may_shift;
    if (is_strict && !session->has_greeted) {
        wrong(session->peers, "bytes before the greeting");
    } else if (is_strict && session->smtp.state == SINK_SMTP_BODY &&
               session->sent_size < session->go_at) {
        wrong(session->peers, "content before the reply to DATA");
    }
    while (in.size > 0 && sink_smtp_end(&session->smtp) == SINK_END_OPEN) {
        struct span part = next_part(session, in);
        enum sink_smtp_state before = session->smtp.state;
        size_t taken = take_part(session, part);
        in = span_of(in.at + taken, in.size - taken);
        check_turn(session, before, in.size);
    }
    hold(session, now);
    flush(session, now);
}

/* What this session is offered. */
static const struct sink_policy *policy_draw(struct session *session)
{
    const struct sim_peer *host = session->host;
    struct random *random = &session->peers->random;
    if (!host->is_moody) {
        return &host->policy;
    }
    session->own = host->policy;
    session->own.is_stepwise = random_below(random, 2) == 0;
    session->own.is_old = random_below(random, 4) == 0;
    if (host->size_low > 0 && random_below(random, 2) == 0) {
        session->own.size_max = host->size_low;
    }
    return &session->own;
}

static void on_accepted(struct sim_peers *peers, const struct net_event *event,
                        struct mono_time now)
{
    struct session *session = malloc(sizeof(*session));
    ensure(session != NULL);
    memset(session, 0, offsetof(struct session, head));
    session->peers = peers;
    session->host = event->user;
    session->host_index = (uint32_t)(session->host - peers->hosts);
    session->conn = event->conn;
    session->number = peers->sessions_next++;
    session->opened_ns = now.ns;
    session->hash = XXH3_createState();
    list_init(&session->link);
    list_add_last(&peers->sessions, &session->link);
    ensure(net_set_user(peers->loop, event->conn, session) == 0);
    struct sim_peer *host = session->host;
    host->connects_count++;
    host->sessions_count++;
    if (host->sessions_count > host->sessions_peak) {
        host->sessions_peak = host->sessions_count;
    }
    if (host->fins_of_256 > 0 && random_below(&peers->random, 256) < host->fins_of_256) {
        session->fin_in = 1 + random_below(&peers->random, FIN_GROUPS_MAX);
    }
    sink_smtp_init(&session->smtp, policy_draw(session), &HOOKS, session, &peers->random,
                   &peers->counts);
    char scratch[SCRATCH_SIZE];
    struct writer out = writer_of(scratch, sizeof(scratch));
    sink_smtp_open(&session->smtp, &out);
    put_reply(session, writer_span(&out));
    hold(session, now);
    flush(session, now);
}

static void on_closed(struct session *session)
{
    session->host->sessions_count--;
    list_remove(&session->link);
    (void)XXH3_freeState(session->hash);
    free(session->out.at);
    free(session);
}

static void on_event(void *context, const struct net_event *event)
{
    struct sim_peers *peers = context;
    struct mono_time now = clock_mono(peers->clock);
    struct session *session = event->user;
    switch (event->kind) {
    case NET_ACCEPTED:
        on_accepted(peers, event, now);
        return;
    case NET_RX:
        on_rx(session, event->rx, now);
        return;
    case NET_TXDONE:
        flush(session, now);
        return;
    case NET_PEER_FIN:
        session->is_closing = true;
        (void)net_close(peers->loop, session->conn, false);
        return;
    case NET_CLOSED:
        on_closed(session);
        return;
    case NET_CONNECTED:
        break;
    }
    ensure(false);
}

void sim_peers_step(struct sim_peers *peers, struct mono_time now)
{
    (void)net_run_once(peers->loop, now);
    for (struct list *link = peers->sessions.next; link != &peers->sessions; link = link->next) {
        struct session *session = CONTAINER_OF(link, struct session, link);
        if (session->hold_until.ns > 0 && !mono_before(now, session->hold_until)) {
            session->hold_until.ns = 0;
            flush(session, now);
        }
    }
}

struct mono_time sim_peers_next(struct sim_peers *peers)
{
    struct mono_time next = sim_net_loop_next(peers->loop);
    for (struct list *link = peers->sessions.next; link != &peers->sessions; link = link->next) {
        const struct session *session = CONTAINER_OF(link, struct session, link);
        if (session->hold_until.ns > 0) {
            next = mono_earlier(next, session->hold_until);
        }
    }
    return next;
}

/* Life. */

struct sim_peers *sim_peers_create(struct sim_net *net, const struct clock *clock, uint64_t seed)
{
    struct sim_peers *peers = calloc(1, sizeof(*peers));
    ensure(peers != NULL);
    const struct net_config config = {
        .conns_max = SIM_PEER_SESSIONS_MAX,
        .clock = clock,
        .on_event = on_event,
        .context = peers,
    };
    peers->clock = clock;
    peers->loop = sim_net_loop_create(net, &config);
    list_init(&peers->sessions);
    random_init_seed(&peers->random, seed);
    return peers;
}

void sim_peers_destroy(struct sim_peers *peers)
{
    if (peers == NULL) {
        return;
    }
    net_loop_destroy(peers->loop);
    while (!list_is_empty(&peers->sessions)) {
        on_closed(CONTAINER_OF(peers->sessions.next, struct session, link));
    }
    free(peers->attempts);
    free(peers->transactions);
    free(peers->log);
    free(peers);
}

uint32_t sim_peers_add(struct sim_peers *peers, const char *addr)
{
    ensure(peers->hosts_count < SIM_PEERS_MAX);
    struct sim_peer *host = &peers->hosts[peers->hosts_count];
    ensure(net_addr_parse(span_of_text(addr), &host->addr));
    host->addr.port = PORT;
    (void)snprintf(host->name, sizeof(host->name), "mx%u.sim.example", peers->hosts_count);
    host->policy = (struct sink_policy){
        .name = span_of_text(host->name), .size_max = 1 << 24, .is_scripted = true};
    struct net_addr bound;
    ensure(net_listen(peers->loop, &host->addr, 0, host, &bound) == 0);
    return peers->hosts_count++;
}

struct sim_peer *sim_peers_at(struct sim_peers *peers, uint32_t index)
{
    ensure(index < peers->hosts_count);
    return &peers->hosts[index];
}

void sim_peers_share(struct sim_peers *peers, uint32_t index, const char *text)
{
    struct sink_policy *policy = &sim_peers_at(peers, index)->policy;
    ensure(policy->shares_count < SINK_SHARES_MAX);
    ensure(sink_share_parse(span_of_text(text), &policy->shares[policy->shares_count]));
    policy->shares_count++;
}

const struct sim_mail *sim_peers_log(const struct sim_peers *peers, size_t *ret_count)
{
    *ret_count = peers->log_count;
    return peers->log;
}

const struct sim_transaction *sim_peers_transactions(const struct sim_peers *peers,
                                                     size_t *ret_count)
{
    *ret_count = peers->transactions_count;
    return peers->transactions;
}

uint64_t sim_peers_wrongs(const struct sim_peers *peers, const char **ret_words)
{
    *ret_words = peers->wrong_words == NULL ? "" : peers->wrong_words;
    return peers->wrongs;
}
