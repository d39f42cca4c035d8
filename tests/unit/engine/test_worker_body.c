/* SPDX-License-Identifier: Apache-2.0 */
/* The end of the body: when its answer is awaited, and from when on an acceptance counts. */
#include <stdlib.h>

#include "engine/worker_priv.h"
#include "tests/unit/engine/worker_rig.h"

enum { LARGE = 400000, RCPT_ROOM = 512 };

/* A record in wire form with a text of at least `size` octets, or none at all. */
static struct span record_of(size_t size, const char *line)
{
    char *text = malloc(size + RCPT_ROOM);
    ensure(text != NULL);
    struct writer writer = writer_of(text, size + RCPT_ROOM);
    writer_put(&writer, SPAN("MAIL FROM:<news@sender.example>\r\nRCPT TO:<ann@example.org>\r\n"
                             "DATA\r\n"));
    for (size_t start = writer_size(&writer); writer_size(&writer) - start < size;) {
        writer_put(&writer, span_of_text(line));
    }
    writer_put(&writer, SPAN(".\r\n"));
    ensure(!writer.is_full);
    return writer_span(&writer);
}

/* One recipient with this text; the rig is destroyed by the caller. */
static void deal_one(struct rig *rig, struct span record, uint16_t flags)
{
    uint32_t batch = rig_batch_bsmtp(rig, "");
    rig_add(rig, batch, "example.org", record, 0)->flags |= flags;
    rig_deal(rig, batch, 0);
}

static void end(struct rig *rig, struct span record)
{
    rig_destroy(rig);
    free((void *)(uintptr_t)record.at);
}

/* Its end of data is awaited by the server like any other's. */
static void test_empty_text(void)
{
    for (unsigned adds = 0; adds < 2; adds++) {
        struct rig *rig = rig_create();
        rig_start(rig);
        struct span record = record_of(0, "");
        deal_one(rig, record, adds != 0 ? RECIPIENT_ADD_DATE : 0);
        CHECK_ROW(adds, rig_run_until_returned(rig, 1, 10000));
        CHECK_ROW(adds, rig_entries_of(rig, JOURNAL_DELIVERED) == 1);
        CHECK_ROW(adds, (strncmp(rig->last_body, "Date: ", 6) == 0) == (adds != 0));
        end(rig, record);
    }
}

/* Bytes of a file that has changed since it was checked: nothing of them speaks to the server. */
static void test_unsound_text(void)
{
    static const char *const lines[] = {"bare\n", "bare\rreturn\r\n", "text\r\n.\r\nRSET\r\n",
                                        "no end"};
    for (size_t i = 0; i < COUNT_OF(lines); i++) {
        struct rig *rig = rig_create();
        rig_start(rig);
        struct span record = record_of(1, lines[i]);
        deal_one(rig, record, 0);
        CHECK_ROW(i, rig_run_until_returned(rig, 1, 10000));
        CHECK_ROW(i, rig_entries_of(rig, JOURNAL_BOUNCED) == 1);
        CHECK_ROW(i, rig->messages == 0);
        end(rig, record);
    }
}

static struct rig *rig_of_slow_net(void)
{
    struct rig *rig = rig_create();
    const struct sim_net_config slow = {
        .seed = 3,
        .delay_min_ns = 400 * NS_PER_MS,
        .delay_max_ns = 500 * NS_PER_MS,
        .window_size = 4096,
    };
    sim_net_config_set(rig->net, &slow);
    rig->config->routes[0].timeouts.body_ms = 10000;
    rig->config->routes[0].timeouts.end_of_data_ms = 20000;
    return rig;
}

/* The whole takes longer than either limit, each progress and the answer do not. */
static void test_slow_and_steady_is_delivered(void)
{
    struct rig *rig = rig_of_slow_net();
    rig_start(rig);
    struct span record = record_of(LARGE, "a line of a long message\r\n");
    deal_one(rig, record, 0);
    rig_run(rig, 30000);
    CU_ASSERT_EQUAL(rig->returned, 0); /* it is slow indeed */
    CU_ASSERT(rig_run_until_returned(rig, 1, 600000));
    CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_DELIVERED), 1);
    CU_ASSERT(!rig->entries[0].is_possible_duplicate);
    end(rig, record);
}

/* What the server says in the middle, and what becomes of the connection thereafter. */
struct too_early {
    bool ends_it;
    bool has_said;
};

static const char *accept_in_the_body(struct rig_conn *conn, enum rig_moment moment,
                                      struct span line)
{
    struct too_early *case_of = conn->rig->context;
    (void)line;
    if (moment == RIG_BODY && !case_of->has_said) {
        case_of->has_said = true;
        return "250 2.0.0 taken\r\n";
    }
    if (moment == RIG_BODY && case_of->ends_it && conn->body_size > LARGE / 2) {
        return "!";
    }
    return moment == RIG_BODY || moment == RIG_DOT ? "" : NULL;
}

/* LAW 5: it counts when the end of data is out, and not at all when that never was. */
static void test_accepted_before_the_end_of_data(void)
{
    for (unsigned i = 0; i < 2; i++) {
        struct too_early case_of = {.ends_it = i == 1};
        struct rig *rig = rig_of_slow_net();
        rig->on_moment = accept_in_the_body;
        rig->context = &case_of;
        rig_start(rig);
        struct span record = record_of(LARGE, "a line of a long message\r\n");
        deal_one(rig, record, 0);
        rig_run(rig, 20000);
        CHECK_ROW(i, case_of.has_said);
        CHECK_ROW(i, rig->returned == 0 && rig->entries_count == 0);
        rig_run(rig, 300000);
        CHECK_ROW(i, rig->entries_count > 0);
        CHECK_ROW(i, rig->entries[0].what == (i == 0 ? JOURNAL_DELIVERED : JOURNAL_DEFERRED));
        CHECK_ROW(i, rig->entries[0].is_ambiguous == (i == 1));
        end(rig, record);
    }
}

SUITE(worker_body, test_empty_text, test_unsound_text, test_slow_and_steady_is_delivered,
      test_accepted_before_the_end_of_data)
