/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/engine/worker_rig.h"

#include <stdlib.h>
#include <urcu/urcu-qsbr.h>

#include "dns/mx_cache_writer.h"
#include "dns/mx_site.h"
#include "engine/load.h"
#include "engine/steady.h"

const char RIG_LETTER[] = "From: News <news@sender.example>\nTo: {{_to}}\nSubject: News\n\n"
                          "Hello.\n";

static const struct sim_net_config CALM = {
    .seed = 1,
    .delay_min_ns = 100 * NS_PER_US,
    .delay_max_ns = 2 * NS_PER_MS,
};

/* The server. */

void rig_say(struct rig_conn *conn, const char *text)
{
    size_t size = strlen(text);
    for (size_t at = 0; at < size; at += NET_COPY_MAX) {
        size_t left = size - at;
        const struct net_segment segment = {
            .at = text + at,
            .size = (uint32_t)(left < NET_COPY_MAX ? left : NET_COPY_MAX),
            .is_copied = true,
        };
        (void)net_send(conn->rig->server, conn->conn, &segment, 1, 0);
    }
}

static const char *usual_answer(enum rig_moment moment)
{
    switch (moment) {
    case RIG_GREETING:
        return "220 sink.example ESMTP\r\n";
    case RIG_EHLO:
        return "250-sink.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE\r\n";
    case RIG_DATA:
        return "354 go on\r\n";
    case RIG_QUIT:
        return "221 bye\r\n";
    case RIG_BODY:
        return "";
    case RIG_OTHER:
        return "500 what?\r\n";
    case RIG_MAIL:
    case RIG_RCPT:
    case RIG_DOT:
    case RIG_RSET:
        break;
    }
    return "250 2.0.0 fine\r\n";
}

static void count_message(struct rig_conn *conn)
{
    struct rig *rig = conn->rig;
    rig->messages++;
    rig->other_messages += conn->is_other;
    rig->rcpts += conn->rcpts;
    conn->messages++;
    size_t size = conn->kept_size < RIG_BODY_KEPT ? conn->kept_size : RIG_BODY_KEPT - 1;
    memcpy(rig->last_body, conn->kept, size);
    rig->last_body[size] = '\0';
}

static void on_moment(struct rig_conn *conn, enum rig_moment moment, struct span line)
{
    const char *answer = NULL;
    if (conn->rig->on_moment != NULL) {
        answer = conn->rig->on_moment(conn, moment, line);
    }
    answer = answer == NULL ? usual_answer(moment) : answer;
    if (answer[0] == '!') {
        (void)net_close(conn->rig->server, conn->conn, true);
        return;
    }
    rig_say(conn, answer);
    bool is_good = answer[0] == '2';
    if (moment == RIG_RCPT && is_good) {
        conn->rcpts++;
    } else if (moment == RIG_DATA && answer[0] == '3') {
        conn->is_data = true;
        conn->body_size = 0;
        conn->kept_size = 0;
    } else if (moment == RIG_DOT) {
        conn->is_data = false;
        if (is_good) {
            count_message(conn);
        }
        conn->rcpts = 0;
    } else if (moment == RIG_MAIL || moment == RIG_RSET) {
        conn->rcpts = 0;
    } else if (moment == RIG_QUIT) {
        conn->is_closing = true;
        (void)net_close(conn->rig->server, conn->conn, false);
    }
}

static void on_line(struct rig_conn *conn)
{
    struct span line = span_of(conn->line, conn->line_size);
    conn->line_size = 0;
    if (conn->is_data) {
        size_t room = RIG_BODY_KEPT - conn->kept_size;
        size_t size = line.size < room ? line.size : room;
        memcpy(conn->kept + conn->kept_size, line.at, size);
        conn->kept_size += size;
        conn->body_size += line.size;
        on_moment(conn, span_equal(line, SPAN(".\r\n")) ? RIG_DOT : RIG_BODY, line);
        return;
    }
    static const struct {
        const char *verb;
        enum rig_moment moment;
    } VERBS[] = {
        {"EHLO", RIG_EHLO}, {"HELO", RIG_EHLO}, {"MAIL", RIG_MAIL}, {"RCPT", RIG_RCPT},
        {"DATA", RIG_DATA}, {"RSET", RIG_RSET}, {"QUIT", RIG_QUIT},
    };
    enum rig_moment moment = RIG_OTHER;
    for (size_t i = 0; i < COUNT_OF(VERBS); i++) {
        if (span_starts_nocase(line, span_of_text(VERBS[i].verb))) {
            moment = VERBS[i].moment;
        }
    }
    on_moment(conn, moment, line);
}

static void on_server_rx(struct rig_conn *conn, struct span bytes)
{
    for (size_t i = 0; i < bytes.size && !conn->is_closing; i++) {
        /* A line of a body may be longer than what is kept of it. */
        if (conn->line_size < RIG_LINE_MAX) {
            conn->line[conn->line_size++] = bytes.at[i];
        }
        if (bytes.at[i] == '\n') {
            conn->line[conn->line_size - 1] = '\n';
            on_line(conn);
        }
    }
}

static void on_server_event(void *context, const struct net_event *event)
{
    struct rig *rig = context;
    struct rig_conn *conn = event->user;
    switch (event->kind) {
    case NET_ACCEPTED:
        conn = calloc(1, sizeof(*conn));
        ensure(conn != NULL);
        *conn = (struct rig_conn){
            .rig = rig, .conn = event->conn, .is_other = event->user == &rig->other_addr};
        list_init(&conn->link);
        list_add_last(&rig->conns, &conn->link);
        ensure(net_set_user(rig->server, event->conn, conn) == 0);
        rig->conns_count++;
        rig->conns_peak = rig->conns_count > rig->conns_peak ? rig->conns_count : rig->conns_peak;
        on_moment(conn, RIG_GREETING, SPAN_NONE);
        return;
    case NET_RX:
        on_server_rx(conn, event->rx);
        return;
    case NET_PEER_FIN:
        (void)net_close(rig->server, event->conn, false);
        return;
    case NET_CLOSED:
        rig->conns_count--;
        list_remove(&conn->link);
        free(conn);
        return;
    case NET_CONNECTED:
    case NET_TXDONE:
        return;
    }
}

/* The stubs. */

static void fill_load(struct rig *rig, struct load *load)
{
    size_t size = 0;
    for (uint32_t i = 0; i < load->count; i++) {
        size += load->recipients[i]->record_size;
    }
    struct load_block *block = malloc(sizeof(*block) + size);
    ensure(block != NULL);
    block->size = size;
    list_init(&block->link);
    list_add_last(&rig->blocks, &block->link);
    char *at = block->bytes;
    for (uint32_t i = 0; i < load->count; i++) {
        const struct recipient *recipient = load->recipients[i];
        ensure(load->batch == &rig->batches[recipient->batch]);
        ensure(!rig->settled[recipient->batch][recipient->ordinal]);
        struct span stream = rig->streams[recipient->batch];
        memcpy(at, stream.at + recipient->record_offset, recipient->record_size);
        load->records[i] = span_of(at, recipient->record_size);
        at += recipient->record_size;
    }
    load->block = block;
    load->result = rig->load_result;
    rig->blocks_out++;
    rig->loads_asked++;
    inbox_push_xcore(load->reply_to, &load->node);
}

static void intake_stub(struct rig *rig)
{
    struct inbox_node *node;
    while (!rig->is_intake_held && (node = inbox_take(&rig->intake.loads)) != NULL) {
        fill_load(rig, CONTAINER_OF(node, struct load, node));
    }
    while ((node = inbox_take(&rig->intake.blocks)) != NULL) {
        struct load_block *block = CONTAINER_OF(node, struct load_block, node);
        list_remove(&block->link);
        memset(block->bytes, 0xdd, block->size);
        free(block);
        ensure(rig->blocks_out > 0);
        rig->blocks_out--;
    }
    while ((node = inbox_take(&rig->intake.recipients)) != NULL) {
        struct recipient *recipient = CONTAINER_OF(node, struct recipient, node);
        ensure(rig->settled[recipient->batch][recipient->ordinal] == 1);
        rig->settled[recipient->batch][recipient->ordinal] = 2;
        rig->returned++;
        domain_drop(rig->engine.domains, recipient->domain);
        memset(recipient, 0xdd, sizeof(*recipient));
    }
}

/* Whatever was asked comes back: what the cache holds is the test's. */
static void resolver_stub(struct rig *rig)
{
    struct inbox_node *node;
    while (!rig->is_resolver_held && (node = inbox_take(&rig->resolver.queries)) != NULL) {
        struct mx_query *query = CONTAINER_OF(node, struct mx_query, node);
        rig->queries_count++;
        inbox_push_xcore(query->reply_to, &query->node);
    }
}

static void journal_stub(struct rig *rig)
{
    struct inbox_node *node;
    while (!rig->is_journal_held && (node = inbox_take(&rig->journal.entries)) != NULL) {
        struct journal_entry *entry = CONTAINER_OF(node, struct journal_entry, node);
        uint8_t *settled = &rig->settled[entry->batch->index][entry->ordinal];
        ensure(*settled == 0); /* LAW 2 */
        *settled = entry->what != JOURNAL_DEFERRED;
        if (rig->entries_count == rig->entries_room) {
            rig->entries_room = rig->entries_room == 0 ? 64 : 2 * rig->entries_room;
            rig->entries = realloc(rig->entries, rig->entries_room * sizeof(*rig->entries));
            ensure(rig->entries != NULL);
        }
        struct rig_entry *kept = &rig->entries[rig->entries_count++];
        *kept = (struct rig_entry){
            .batch = entry->batch->index,
            .ordinal = entry->ordinal,
            .what = entry->what,
            .is_ambiguous = entry->is_ambiguous,
            .is_possible_duplicate = entry->is_possible_duplicate,
            .code = entry->code,
            .due_s = entry->due_s,
        };
        if (rig->entries_count <= RIG_LINES_MAX) {
            kept->line = strndup(entry->line, entry->line_size);
        }
        inbox_push_xcore(entry->reply_to, &entry->node);
    }
}

/* Life. */

static struct net_loop *make_net(void *context, const struct net_config *config, int *ret_error)
{
    (void)ret_error;
    return sim_net_loop_create(context, config);
}

static void init_stubs(struct rig *rig)
{
    ensure(waker_init(&rig->waker, false) == 0);
    struct inbox *const inboxes[] = {
        &rig->intake.accepts, &rig->intake.settled,    &rig->intake.ends,     &rig->intake.loads,
        &rig->intake.blocks,  &rig->intake.recipients, &rig->journal.accepts, &rig->journal.entries,
        &rig->journal.ends,   &rig->resolver.queries,
    };
    for (size_t i = 0; i < COUNT_OF(inboxes); i++) {
        inbox_init(inboxes[i], &rig->waker);
    }
    for (size_t i = 0; i < RIG_BATCHES_MAX; i++) {
        inbox_chain_init(&rig->waiting[i]);
    }
}

static void init_server(struct rig *rig)
{
    const struct net_config server = {
        .conns_max = RIG_CONNS_MAX,
        .clock = &rig->clock.clock,
        .on_event = on_server_event,
        .context = rig,
    };
    rig->net = sim_net_create(&CALM, &rig->clock.clock);
    rig->server = sim_net_loop_create(rig->net, &server);
    const struct net_addr local = {.family = NET_IP4, .port = 25, .bytes = {192, 0, 2, 1}};
    ensure(net_listen(rig->server, &local, RIG_CONNS_MAX, NULL, &rig->server_addr) == 0);
    const struct net_addr other = {.family = NET_IP4, .port = 25, .bytes = {192, 0, 2, 66}};
    ensure(net_listen(rig->server, &other, RIG_CONNS_MAX, &rig->other_addr, &rig->other_addr) == 0);
}

struct rig *rig_create(void)
{
    static bool is_registered;
    if (!is_registered) {
        urcu_qsbr_register_thread();
        is_registered = true;
    }
    struct rig *rig = aligned_alloc(64, (sizeof(*rig) + 63) & ~(size_t)63);
    ensure(rig != NULL);
    memset(rig, 0, sizeof(*rig));
    rig->recipients = calloc(RIG_RECIPIENTS_MAX, sizeof(struct recipient));
    ensure(rig->recipients != NULL);
    clock_manual_init(&rig->clock, (struct mono_time){.ns = 1000 * NS_PER_S},
                      (struct wall_time){.ns = 1800000000 * NS_PER_S});
    list_init(&rig->conns);
    list_init(&rig->blocks);
    init_stubs(rig);
    init_server(rig);
    char text[1024];
    struct writer errors = writer_of(text, sizeof(text));
    rig->config = config_read(NULL, &errors);
    ensure(rig->config != NULL);
    rig->config->workers_count = 1;
    rig->config->sessions_max = 16;
    rig->config->domains_max = 1024;
    rig->config->recipients_max = RIG_RECIPIENTS_MAX;
    rig->config->sites_max = 64;
    rig->config->batches_max = RIG_BATCHES_MAX;
    rig->config->routes[0].hosts[0] = (struct config_host){.addr = rig->server_addr, .port = 25};
    rig->config->routes[0].hosts_count = 1;
    return rig;
}

void rig_start(struct rig *rig)
{
    int error = 0;
    struct engine *engine = &rig->engine;
    const struct config *config = rig->config;
    engine->config = config;
    engine->clock = &rig->clock.clock;
    steady_begin(engine);
    engine->secret = 1;
    engine->batches = rig->batches;
    engine->domains = domain_table_create(config->domains_max, 1, &error);
    engine->sites = site_table_create(config->sites_max, &error);
    engine->retry = retry_wheel_create(wall_seconds(clock_wall(engine->clock)));
    engine->mx_cache = rig->mx_cache = mx_cache_create(config->domains_max, 0, 1, &error);
    engine->source_limits = calloc(config->sources_count, sizeof(struct limit));
    ensure(engine->domains != NULL && engine->sites != NULL && engine->retry != NULL &&
           rig->mx_cache != NULL && engine->source_limits != NULL);
    for (uint32_t i = 0; i < config->sources_count; i++) {
        limit_init(&engine->source_limits[i], config->sources[i].connections_max);
    }
    engine->workers = rig->workers;
    engine->workers_count = config->workers_count;
    engine->intake = &rig->intake;
    engine->journal = &rig->journal;
    engine->resolver = &rig->resolver;
    for (uint32_t i = 0; i < config->workers_count; i++) {
        rig->workers[i] = aligned_alloc(64, (sizeof(struct worker) + 63) & ~(size_t)63);
        const struct worker_config worker = {
            .engine = engine,
            .index = i,
            .seed = i + 1,
            .net_create = make_net,
            .net_context = rig->net,
        };
        ensure(rig->workers[i] != NULL);
        ensure(worker_init(rig->workers[i], &worker, false) == 0);
    }
}

void rig_destroy(struct rig *rig)
{
    for (uint32_t i = 0; i < rig->engine.workers_count; i++) {
        worker_deinit(rig->workers[i]);
        free(rig->workers[i]);
    }
    net_loop_destroy(rig->server);
    sim_net_destroy(rig->net);
    mx_cache_destroy(rig->mx_cache);
    retry_wheel_destroy(rig->engine.retry, true);
    site_table_destroy(rig->engine.sites);
    domain_table_destroy(rig->engine.domains);
    free(rig->engine.source_limits);
    for (uint32_t i = 0; i < rig->batches_count; i++) {
        template_destroy((struct template *)(uintptr_t)rig->batches[i].template);
        template_destroy((struct template *)(uintptr_t)rig->batches[i].sender);
        manifest_destroy(rig->batches[i].manifest);
        free((void *)(uintptr_t)rig->streams[i].at);
        free(rig->settled[i]);
    }
    waker_deinit(&rig->waker);
    config_destroy(rig->config);
    struct list *link;
    while ((link = list_take_first(&rig->conns)) != NULL) {
        free(CONTAINER_OF(link, struct rig_conn, link));
    }
    while ((link = list_take_first(&rig->blocks)) != NULL) {
        free(CONTAINER_OF(link, struct load_block, link));
    }
    for (uint32_t i = 0; i < rig->entries_count && i < RIG_LINES_MAX; i++) {
        free(rig->entries[i].line);
    }
    free(rig->recipients);
    free(rig->entries);
    free(rig);
}

/* Batches. */

static uint32_t batch_make(struct rig *rig, const char *kind, const char *json)
{
    ensure(rig->batches_count < RIG_BATCHES_MAX);
    uint32_t index = rig->batches_count++;
    struct batch *batch = &rig->batches[index];
    char text[2048];
    struct writer content = writer_of(text, sizeof(text));
    char errors_text[1024];
    struct writer errors = writer_of(errors_text, sizeof(errors_text));
    writer_put_format(&content, "{\"v\":1,\"id\":\"b%u\",%s%s}", index, kind, json);
    batch->index = index;
    batch->number = index + 1;
    batch->state = BATCH_ACTIVE;
    batch->manifest = manifest_parse(writer_span(&content), SPAN("b"), &errors);
    ensure(batch->manifest != NULL);
    batch->accepted_at = clock_wall(&rig->clock.clock);
    batch->start_s = wall_seconds(batch->accepted_at);
    rig->settled[index] = calloc(RIG_RECIPIENTS_MAX, 1);
    ensure(rig->settled[index] != NULL);
    return index;
}

uint32_t rig_batch_merge(struct rig *rig, const char *eml, const char *json)
{
    uint32_t index = batch_make(rig, "\"kind\":\"merge\",\"from\":\"news@sender.example\"", json);
    struct batch *batch = &rig->batches[index];
    struct template_problem problem = {.line = 0};
    const struct template_options options = {.batch_id = span_of_text(batch->manifest->id),
                                             .date = batch->accepted_at};
    batch->sender = template_compile_line(span_of_text(batch->manifest->from), &problem);
    batch->template = template_compile(span_of_text(eml), &options, &problem);
    ensure(batch->sender != NULL && batch->template != NULL);
    return index;
}

uint32_t rig_batch_bsmtp(struct rig *rig, const char *json)
{
    return batch_make(rig, "\"kind\":\"bsmtp\"", json);
}

struct recipient *rig_add(struct rig *rig, uint32_t batch, const char *domain, struct span record,
                          uint16_t rcpt_index)
{
    ensure(rig->recipients_count < RIG_RECIPIENTS_MAX);
    struct recipient *recipient = &rig->recipients[rig->recipients_count++];
    struct span *stream = &rig->streams[batch];
    uint64_t offset = stream->size;
    if (rcpt_index == 0) {
        char *grown = (char *)(uintptr_t)stream->at;
        if (rig->rooms[batch] < stream->size + record.size) {
            rig->rooms[batch] = 2 * (stream->size + record.size);
            grown = realloc(grown, rig->rooms[batch]);
            ensure(grown != NULL);
        }
        memcpy(grown + stream->size, record.at, record.size);
        *stream = span_of(grown, stream->size + record.size);
    } else {
        offset -= record.size;
    }
    uint32_t ordinal = (uint32_t)rig->batches[batch].recipients_count++;
    rig->batches[batch].records_count++;
    *recipient = (struct recipient){
        .batch = batch,
        .ordinal = ordinal,
        .record_offset = offset & ((UINT64_C(1) << RECIPIENT_OFFSET_BITS) - 1),
        .record_size = record.size & ((1u << RECIPIENT_SIZE_BITS) - 1),
        .domain = domain_intern(rig->engine.domains, span_of_text(domain)),
        .rcpt_index = rcpt_index,
    };
    ensure(recipient->domain != DOMAIN_NONE);
    inbox_chain_add(&rig->waiting[batch], &recipient->node);
    return recipient;
}

void rig_add_many(struct rig *rig, uint32_t batch, const char *domain, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        char text[320];
        struct writer record = writer_of(text, sizeof(text));
        writer_put_format(&record, "{\"to\":\"u%u@%s\"}\n", i, domain);
        (void)rig_add(rig, batch, domain, writer_span(&record), 0);
    }
}

void rig_send_some(struct rig *rig, uint32_t count)
{
    uint32_t batch =
        rig_batch_merge(rig, "From: News <news@sender.example>\nSubject: News\n\nHello.\n", "");
    rig_add_many(rig, batch, "example.org", count);
    rig_deal(rig, batch, 0);
}

void rig_deal(struct rig *rig, uint32_t batch, uint32_t worker)
{
    inbox_push_chain_xcore(&rig->workers[worker]->recipients, &rig->waiting[batch]);
}

void rig_mx_put(struct rig *rig, const char *domain, enum mx_outcome outcome, const char *host,
                const struct net_addr *addr, int64_t ttl_ms)
{
    struct mono_time now = clock_mono(&rig->clock.clock);
    struct mx_result result = {.outcome = outcome};
    if (outcome == MX_OK) {
        struct mx_site_host site_host = {.name = span_of_text(host)};
        mx_site_build(&site_host, 1, &result.site);
        result.hosts_count = 1;
        result.hosts[0] = (struct mx_host){.addr = *addr, .name_size = (uint8_t)strlen(host)};
        result.names_size = (uint16_t)strlen(host);
        memcpy(result.names, host, strlen(host));
    }
    ensure(mx_cache_put(rig->mx_cache, MX_KIND_MAIL, span_of_text(domain), &result, now,
                        mono_add_ms(now, ttl_ms)) == 0);
}

void rig_order(struct rig *rig, uint32_t batch, uint64_t orders)
{
    struct inbox back;
    inbox_init(&back, &rig->waker);
    stat_set(&rig->batches[batch].orders, orders);
    struct worker_order order = {
        .reply_to = &back,
        .batch = &rig->batches[batch],
        .is_cancel = orders == BATCH_CANCELLED,
    };
    inbox_push_xcore(&rig->workers[rig->engine.workers_count - 1]->orders, &order.node);
    for (uint32_t i = 0; i < 1000; i++) {
        rig_run(rig, 1);
        if (inbox_take(&back) == &order.node) {
            return;
        }
    }
    ensure(false);
}

/* Time. */

/* One round; true when somebody wants to be called again at once. */
static bool round_once(struct rig *rig, struct mono_time *ret_next)
{
    struct mono_time now = clock_mono(&rig->clock.clock);
    struct mono_time next = MONO_NEVER;
    bool is_more = false;
    for (uint32_t i = 0; i < rig->engine.workers_count; i++) {
        struct actor *actor = &rig->workers[i]->actor;
        waker_awake(&actor->waker);
        next = mono_earlier(next, actor->step(actor, now));
        worker_check(rig->workers[i]);
    }
    if (!mono_before(now, rig->reclaim_at)) {
        rig->reclaim_at = mono_add_ms(now, 1000);
        site_table_reclaim(rig->engine.sites, rig->config->sites_max, now);
    }
    (void)net_run_once(rig->server, now);
    intake_stub(rig);
    resolver_stub(rig);
    journal_stub(rig);
    for (uint32_t i = 0; i < rig->engine.workers_count; i++) {
        is_more |= waker_is_signalled(&rig->workers[i]->actor.waker);
        is_more |= !waker_sleep(&rig->workers[i]->actor.waker);
    }
    urcu_qsbr_quiescent_state();
    next = mono_earlier(next, sim_net_next(rig->net));
    *ret_next = next;
    return is_more || !mono_before(now, next);
}

void rig_settle(struct rig *rig)
{
    struct mono_time next;
    uint32_t spins = 0;
    while (round_once(rig, &next)) {
        ensure(++spins < RIG_SPINS_MAX); /* busy while time stands still */
    }
}

static bool run(struct rig *rig, int64_t ms, uint64_t returned, bool (*is_true)(struct rig *rig))
{
    struct mono_time end = mono_add_ms(clock_mono(&rig->clock.clock), ms);
    uint32_t spins = 0;
    for (;;) {
        struct mono_time next;
        bool is_more = round_once(rig, &next);
        if (rig->returned >= returned || (is_true != NULL && !is_true(rig))) {
            return true;
        }
        struct mono_time now = clock_mono(&rig->clock.clock);
        if (is_more) {
            ensure(++spins < RIG_SPINS_MAX);
            continue;
        }
        spins = 0;
        next = mono_earlier(next, end);
        if (!mono_before(now, end)) {
            return false;
        }
        clock_manual_advance(&rig->clock, next.ns > now.ns ? next.ns - now.ns : 1);
    }
}

void rig_run(struct rig *rig, int64_t ms)
{
    (void)run(rig, ms, UINT64_MAX, NULL);
}

bool rig_run_until_returned(struct rig *rig, uint64_t count, int64_t ms)
{
    return run(rig, ms, count, NULL);
}

bool rig_run_while(struct rig *rig, bool (*is_true)(struct rig *rig), int64_t ms)
{
    return run(rig, ms, UINT64_MAX, is_true);
}

uint32_t rig_entries_of(const struct rig *rig, uint8_t what)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < rig->entries_count; i++) {
        count += rig->entries[i].what == what;
    }
    return count;
}

uint64_t rig_place(const struct rig *rig, enum worker_place place)
{
    uint64_t count = 0;
    for (uint32_t i = 0; i < rig->engine.workers_count; i++) {
        count += stat_read_xcore(&rig->workers[i]->stats.places[place]);
    }
    return count;
}

uint64_t rig_sessions(const struct rig *rig)
{
    uint64_t count = 0;
    for (uint32_t i = 0; i < rig->engine.workers_count; i++) {
        count += stat_read_xcore(&rig->workers[i]->stats.sessions);
    }
    return count;
}

void rig_check_quiet(struct rig *rig)
{
    CU_ASSERT_EQUAL(rig_sessions(rig), 0);
    CU_ASSERT_EQUAL(rig->blocks_out, 0);
    for (unsigned place = 0; place < WORKER_PLACES_COUNT; place++) {
        CHECK_ROW(place, rig_place(rig, place) == 0);
    }
    for (uint32_t i = 0; i < rig->engine.workers_count; i++) {
        const struct worker *worker = rig->workers[i];
        CHECK_ROW(i, worker->attempts.count_out == 0);
        CHECK_ROW(i, worker->entries_free.count_out == 0);
        CHECK_ROW(i, worker->loads_free.count_out == 0);
        CHECK_ROW(i, worker->deliveries.count_out == 0);
        CHECK_ROW(i, worker->plans.count_out == 0);
        CHECK_ROW(i, worker->rcpts_blocks.count_out == 0);
        for (size_t class = 0; class < COMPOSE_BUF_CLASSES; class ++) {
            CHECK_ROW(class, worker->bufs[class].count_out == 0);
        }
    }
}
