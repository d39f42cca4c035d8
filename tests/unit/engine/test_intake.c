/* SPDX-License-Identifier: Apache-2.0 */
/* A batch's way through intake, its bounds, and who waits for whom at the end. */
#include "engine/intake.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/text.h"
#include "engine/message/template.h"
#include "engine/steady.h"
#include "tests/unit/engine/intake_broken.h"
#include "tests/unit/engine/intake_rig.h"

static void test_a_batch_comes_and_goes(void)
{
    struct rig *rig = rig_create();
    rig_submit(rig, "one", 20);
    rig_run(rig);
    CU_ASSERT_EQUAL(rig->taken_count, 20);
    CU_ASSERT_EQUAL(rig_marked_count(rig), 0);
    rig_end_rest(rig, 0);
    CU_ASSERT(rig_is_in(rig, "done", "one"));
    CU_ASSERT(intake_is_idle(&rig->intake));
    CU_ASSERT_EQUAL(rig->intake.core->fds_open, 0);
    rig_destroy(rig);
}

static void test_without_a_number_nothing_is_claimed(void)
{
    struct rig *rig = rig_create();
    rig->intake.core->next_number = JOURNAL_BATCH_NUMBER_MAX - INTAKE_CLAIMS_STEP_MAX + 1;
    rig_submit(rig, "one", 20);
    rig_run(rig);
    CU_ASSERT_EQUAL(rig->taken_count, 0);
    CU_ASSERT(rig_is_there(rig, "in/new/one.batch/batch.json"));
    rig->intake.core->next_number--;
    rig_run(rig);
    CU_ASSERT_EQUAL(rig->taken_count, 20);
    rig_end_rest(rig, 0);
    CU_ASSERT(rig_is_in(rig, "done", "one"));
    rig_destroy(rig);
}

/* Bounds. */

enum { RIG_DATE_SIZE = 32 };

/* The Date of the batch's message; "" when it has none. */
static void rig_message_date(const struct batch *batch, char ret_date[RIG_DATE_SIZE])
{
    char memory[8192] = "";
    struct template_problem problem;
    const struct span values[TEMPLATE_VARS_MAX] = {SPAN("")};
    const struct render_input input = {.values = values, .missing = TEMPLATE_MISSING_EMPTY};
    struct render_output output = {.scratch = writer_of(memory, 4096)};
    memset(ret_date, 0, RIG_DATE_SIZE);
    ensure(template_render(batch->template, &input, &output, &problem) == 0);
    struct writer text = writer_of(memory + 4096, 4000);
    for (uint32_t i = 0; i < output.pieces_count; i++) {
        writer_put(&text, output.pieces[i]);
    }
    const char *at = strstr(memory + 4096, "Date: ");
    if (at != NULL) {
        (void)snprintf(ret_date, RIG_DATE_SIZE, "%.31s", at + 6);
    }
}

/* One good record, and one to be rejected. */
static void submit_with_a_reject(struct rig *rig, const char *name)
{
    char path[64];
    rig_submit(rig, name, 2);
    (void)snprintf(path, sizeof(path), "in/new/%s.batch/recipients.ndjson", name);
    rig_file_write(rig, path, "{\"to\":\"a@d.example\"}\n{\"to\":\"nobody\"}\n");
    (void)snprintf(path, sizeof(path), "in/new/%s.batch/batch.json", name);
    rig_file_write(rig, path,
                   "{\"v\":1,\"kind\":\"merge\",\"from\":\"news@sender.example\","
                   "\"max_reject\":\"100%\"}");
}

/* For want of something its rejects cannot be written: it is scanned again once a second, whether
 * or not new ones wait for the disk, too. */
static void test_a_batch_that_is_opened_again_rests(void)
{
    struct rig *rig = rig_create();
    submit_with_a_reject(rig, "one");
    break_disk(rig, DISK_WRITE, -ENOMEM);
    rig_run(rig);
    rig->config->free_space_min = UINT64_MAX;
    rig_submit(rig, "two", 2);
    CU_ASSERT_EQUAL(rig->taken_count, 0);
    CU_ASSERT(broken.streams_opened >= 3);
    CU_ASSERT(broken.streams_opened <= 7);
    broken.streams_opened = 0;
    rig_run(rig);
    CU_ASSERT_EQUAL(rig->taken_count, 0);
    CU_ASSERT(broken.streams_opened >= 3);
    CU_ASSERT(broken.streams_opened <= 7);
    broken.failing = -1;
    rig->config->free_space_min = 0;
    rig_run(rig);
    CU_ASSERT_EQUAL(rig->taken_count, 3);
    rig_end_rest(rig, 0);
    CU_ASSERT(rig_is_in(rig, "done", "one"));
    rig_destroy(rig);
}

/* Written in place, by cp for one: what was read is not all, and nothing of it is accepted. Its id
 * is good for another try. */
static void test_a_batch_that_is_still_written_fails(void)
{
    static const char *const FILES[] = {"recipients.ndjson", "message.eml"};
    for (size_t i = 0; i < COUNT_OF(FILES); i++) {
        struct rig *rig = rig_create();
        char name[64], path[RIG_PATH_SIZE], reason[512];
        (void)snprintf(name, sizeof(name), "active/one.batch/%s", FILES[i]);
        rig_path(rig, name, path);
        rig_submit(rig, "one", 4);
        break_disk(rig, -1, 0);
        broken.growing = path;
        rig_run(rig);
        CHECK_ROW(i, rig->taken_count == 0);
        CHECK_ROW(i, rig_is_in(rig, "failed", "one"));
        rig_file_read(rig, "failed/2027-01-15/one.batch/reason.txt", reason, sizeof(reason));
        CHECK_ROW(i, strstr(reason, FILES[i]) == reason && strstr(reason, "in in/tmp") != NULL);
        broken.growing = NULL;
        rig_submit(rig, "one", 4);
        rig_run(rig);
        CHECK_ROW(i, rig->taken_count == 4);
        rig_end_rest(rig, 0);
        rig_destroy(rig);
    }
}

/* The disk does not say whether it lies in hold/: the journal keeps it in mind. */
static void test_who_may_be_in_hold_is_kept_in_mind(void)
{
    struct rig *rig = rig_create();
    rig_submit(rig, "one", 20);
    rig_run(rig);
    rig_end(rig, 0, JOURNAL_DELIVERED, 0);
    rig_run(rig);
    rig_down(rig, true);
    rig_move(rig, "active/one.batch", "hold/one.batch");
    rig_boot(rig);
    break_disk(rig, DISK_STAT, -EIO);
    broken.fd = rig->intake.core->spool.places[SPOOL_HOLD];
    rig_run(rig);
    rig_down(rig, true);
    rig_move(rig, "hold/one.batch", "active/one.batch");
    rig_boot(rig);
    rig_run(rig);
    CU_ASSERT_EQUAL(rig->taken_count, 19);
    rig_end_rest(rig, 0);
    CU_ASSERT(rig_is_in(rig, "done", "one"));
    rig_destroy(rig);
}

/* The longer a scan in vain took, the longer it rests; those of short ones do not wait for it. */
static void test_who_is_scanned_long_in_vain_rests_long(void)
{
    struct rig *rig = rig_create();
    submit_with_a_reject(rig, "one");
    break_disk(rig, DISK_WRITE, -ENOMEM);
    broken.slow = &rig->clock;
    rig_run(rig);
    uint32_t opened = broken.streams_opened;
    CU_ASSERT(opened >= 1);
    CU_ASSERT(opened <= 2);
    broken.slow = NULL;
    submit_with_a_reject(rig, "two");
    rig_run(rig);
    CU_ASSERT(broken.streams_opened >= opened + 3);
    broken.failing = -1;
    rig_run(rig);
    rig_run(rig);
    CU_ASSERT_EQUAL(rig->taken_count, 2);
    rig_destroy(rig);
}

/* They were durable before it was accepted: behind that nothing waits for them. */
static void test_who_is_accepted_needs_no_rejects(void)
{
    struct rig *rig = rig_create();
    char path[RIG_PATH_SIZE];
    submit_with_a_reject(rig, "one");
    rig_run(rig);
    CU_ASSERT_EQUAL(rig->taken_count, 1);
    rig_down(rig, false);
    rig_path(rig, "active/one.batch/rejects.ndjson", path);
    ensure(unlink(path) == 0);
    ensure(mkdir(path, 0700) == 0);
    rig_boot(rig);
    rig_run(rig);
    CU_ASSERT_EQUAL(rig->taken_count, 1);
    rig_end_rest(rig, 0);
    CU_ASSERT(rig_is_in(rig, "done", "one"));
    rig_destroy(rig);
}

/* A full engine has room for it after six days: its age begins then, and is the same behind a
 * restart. */
static void test_who_waits_for_room_grows_no_older(void)
{
    struct rig *rig = rig_create();
    rig_submit(rig, "first", RIG_RECIPIENTS_MAX - 2);
    rig_run(rig);
    rig_submit(rig, "second", 4);
    rig_run(rig);
    CU_ASSERT_EQUAL(rig->taken_count, RIG_RECIPIENTS_MAX - 2);
    CU_ASSERT(rig_is_there(rig, "active/second.batch"));
    clock_manual_advance(&rig->clock, 6 * 86400 * NS_PER_S);
    for (uint32_t i = 0; i < rig->taken_count; i++) {
        rig_end(rig, i, JOURNAL_DELIVERED, 0);
    }
    rig->taken_count = 0;
    struct wall_time now = clock_wall(&rig->clock.clock);
    rig_run(rig);
    CU_ASSERT_EQUAL_FATAL(rig->taken_count, 4);
    const struct batch *batch = &rig->engine.batches[rig->taken[0]->batch];
    struct wall_time accepted_at = batch->accepted_at;
    CU_ASSERT(accepted_at.ns >= now.ns);
    char dates[2][RIG_DATE_SIZE];
    rig_message_date(batch, dates[0]);
    struct writer want = writer_of(dates[1], RIG_DATE_SIZE);
    text_put_rfc5322(&want, accepted_at);
    CU_ASSERT(memcmp(dates[0], dates[1], writer_size(&want)) == 0);
    rig_down(rig, false);
    clock_manual_advance(&rig->clock, 86400 * NS_PER_S);
    rig_boot(rig);
    rig_run(rig);
    CU_ASSERT_EQUAL_FATAL(rig->taken_count, 4);
    batch = &rig->engine.batches[rig->taken[0]->batch];
    CU_ASSERT_EQUAL(batch->accepted_at.ns, accepted_at.ns);
    rig_message_date(batch, dates[1]);
    CU_ASSERT(memcmp(dates[0], dates[1], RIG_DATE_SIZE) == 0);
    rig_destroy(rig);
}

static void test_descriptors_bound_what_is_claimed(void)
{
    struct rig *rig = rig_create();
    rig_down(rig, false);
    rig->fds_max = 4;
    rig_boot(rig);
    char name[16];
    for (uint32_t i = 0; i < 5; i++) {
        (void)snprintf(name, sizeof(name), "b%u", i);
        rig_submit(rig, name, 3);
    }
    rig_run(rig);
    CU_ASSERT_EQUAL(rig->taken_count, 6);
    CU_ASSERT_EQUAL(rig->intake.core->fds_open, 4);
    uint32_t ended = 0;
    while (ended < rig->taken_count) {
        uint32_t from = ended;
        ended = rig->taken_count;
        rig_end_rest(rig, from);
    }
    CU_ASSERT_EQUAL(rig->taken_count, 15);
    CU_ASSERT(intake_is_idle(&rig->intake));
    CU_ASSERT_EQUAL(rig->intake.core->fds_open, 0);
    rig_destroy(rig);
}

static struct {
    const struct disk_ops *under;
    struct disk_ops ops;
    int64_t open, most;
} counted;

static int64_t counting_run(struct disk *disk, struct disk_op *op)
{
    int64_t result = counted.under->run(disk, op);
    counted.open += op->verb == DISK_OPEN && result >= 0 ? 1 : 0;
    counted.open -= op->verb == DISK_CLOSE ? 1 : 0;
    counted.most = counted.open > counted.most ? counted.open : counted.most;
    return result;
}

/* Groups come and leave, and at no time is more open than may be, but for a few on the way. */
static void test_descriptors_bound_groups(void)
{
    enum { FDS = 32, BATCHES = 40, FEW = 2 };
    struct rig *rig = rig_create();
    rig_down(rig, false);
    rig->fds_max = FDS;
    rig->config->batches_max = 64;
    rig_boot(rig);
    counted.under = rig->intake_disk->ops;
    counted.ops = *counted.under;
    counted.ops.run = counting_run;
    counted.ops.run_all = NULL;
    counted.open = 0;
    counted.most = 0;
    rig->intake_disk->ops = &counted.ops;
    char name[32];
    for (uint32_t i = 0; i < BATCHES; i++) {
        (void)snprintf(name, sizeof(name), "b%u", i);
        rig_submit(rig, name, 1);
    }
    uint32_t ended = 0;
    for (int i = 0; i < 10 && ended < BATCHES; i++) {
        rig_run(rig);
        uint32_t from = ended;
        ended = rig->taken_count;
        rig_end_rest(rig, from);
    }
    CU_ASSERT_EQUAL(ended, BATCHES);
    CU_ASSERT(rig_is_in(rig, "done", "b0"));
    CU_ASSERT(intake_is_idle(&rig->intake));
    CU_ASSERT(counted.most > FDS / 2);
    CU_ASSERT(counted.most <= FDS + FEW);
    rig_destroy(rig);
}

/* A stream of more files than there are descriptors for waits until it is alone. */
static void test_descriptors_bound_streams(void)
{
    struct rig *rig = rig_create();
    rig_down(rig, false);
    rig->fds_max = 8;
    rig_boot(rig);
    rig_submit(rig, "one", 1);
    rig_submit(rig, "many", 1);
    rig_file_write(rig, "in/new/many.batch/batch.json", "{\"v\":1,\"kind\":\"bsmtp\"}");
    for (uint32_t i = 0; i < 20; i++) {
        char path[64];
        (void)snprintf(path, sizeof(path), "in/new/many.batch/messages-%u.bsmtp", i);
        rig_file_write(rig, path,
                       "MAIL FROM:<a@d.example>\nRCPT TO:<b@d.example>\nDATA\nx: y\n\nz\n.\n");
    }
    rig_run(rig);
    bool is_many = rig->taken_count == 20;
    CU_ASSERT(is_many || rig->taken_count == 1);
    rig_end_rest(rig, 0);
    CU_ASSERT(is_many || rig_is_in(rig, "done", "one"));
    CU_ASSERT_EQUAL(rig->taken_count, 21);
    rig_end_rest(rig, is_many ? 20 : 1);
    CU_ASSERT(rig_is_in(rig, "done", "many"));
    CU_ASSERT_EQUAL(rig->intake.core->fds_open, 0);
    rig_destroy(rig);
}

/* No descriptor was free for a moment: that speaks against no batch, least of all an accepted one.
 */
static void test_want_of_descriptors_fails_no_batch(void)
{
    struct rig *rig = rig_create();
    rig_submit(rig, "one", 5);
    rig_run(rig);
    rig_down(rig, true);
    rig_boot(rig);
    struct rlimit limit;
    ensure(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    int next = dup(0);
    ensure(next >= 0);
    ensure(close(next) == 0);
    /* Enough to list active/, too few for the batch's files. */
    const struct rlimit tight = {.rlim_cur = (rlim_t)next + 1, .rlim_max = limit.rlim_max};
    ensure(setrlimit(RLIMIT_NOFILE, &tight) == 0);
    rig_run(rig);
    CU_ASSERT_EQUAL(rig->taken_count, 0);
    ensure(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    rig_run(rig);
    CU_ASSERT_EQUAL(rig->taken_count, 5);
    CU_ASSERT_FALSE(rig_is_there(rig, "hold/one.batch"));
    rig_destroy(rig);
}

/* The end of a batch. */

static void test_a_batch_waits_for_what_it_has_lent(void)
{
    struct rig *rig = rig_create();
    rig_submit(rig, "one", 4);
    rig_run(rig);
    CU_ASSERT_EQUAL(rig->taken_count, 4);
    struct load load = {.reply_to = &rig->worker->loads, .count = 4};
    for (uint32_t i = 0; i < 4; i++) {
        load.recipients[i] = rig->taken[i];
    }
    load.batch = &rig->engine.batches[rig->taken[0]->batch];
    inbox_push_xcore(&rig->intake.loads, &load.node);
    rig_run(rig);
    CU_ASSERT_PTR_EQUAL(inbox_take(&rig->worker->loads), &load.node);
    CU_ASSERT_EQUAL(load.result, 0);
    CU_ASSERT(span_starts(load.records[3], SPAN("{\"to\":\"u3@")));
    rig_end_rest(rig, 0);
    CU_ASSERT(rig_is_there(rig, "active/one.batch"));
    inbox_push_xcore(&rig->intake.blocks, &load.block->node);
    rig_run(rig);
    CU_ASSERT(rig_is_in(rig, "done", "one"));
    CU_ASSERT(intake_is_idle(&rig->intake));
    rig_destroy(rig);
}

static void test_a_batch_waits_for_its_order(void)
{
    struct rig *rig = rig_create();
    rig_submit(rig, "one", 4);
    rig_run(rig);
    rig_file_write(rig, "in/ctl/one.cancel", "");
    rig_run(rig);
    struct inbox_node *node = inbox_take(&rig->worker->orders);
    CU_ASSERT_PTR_NOT_NULL_FATAL(node);
    struct worker_order *order = CONTAINER_OF(node, struct worker_order, node);
    CU_ASSERT(order->is_cancel);
    rig_end_rest(rig, 0);
    CU_ASSERT(rig_is_there(rig, "active/one.batch"));
    inbox_push_xcore(order->reply_to, &order->node);
    rig_run(rig);
    CU_ASSERT(rig_is_in(rig, "done", "one"));
    rig_destroy(rig);
}

static void test_a_batch_that_people_took_away_is_no_burden(void)
{
    struct rig *rig = rig_create();
    rig_submit(rig, "one", 4);
    rig_run(rig);
    rig_move(rig, "active/one.batch", "away.batch");
    rig_end_rest(rig, 0);
    CU_ASSERT(intake_is_idle(&rig->intake));
    rig_destroy(rig);
}

/* A place that people removed is no sign that they took the batch. */
static void test_a_place_that_people_removed_is_made_anew(void)
{
    static const char *const PLACES[] = {"done", "failed", "badmail"};
    for (uint32_t row = 0; row < 2; row++) {
        struct rig *rig = rig_create();
        rig_submit(rig, "one", 4);
        rig_run(rig);
        rig_submit(rig, "two", 4);
        rig_file_write(rig, "in/new/two.batch/batch.json", "{}");
        for (size_t i = 0; i < COUNT_OF(PLACES); i++) {
            char path[RIG_PATH_SIZE];
            rig_path(rig, PLACES[i], path);
            ensure(rmdir(path) == 0);
            ensure(row == 0 || mkdir(path, 0770) == 0); /* and made another one */
        }
        rig_end_rest(rig, 0);
        CHECK_ROW(row, rig_is_in(rig, "done", "one"));
        CHECK_ROW(row, rig_is_in(rig, "failed", "two"));
        CHECK_ROW(row, rig_is_there(rig, "badmail"));
        CHECK_ROW(row, intake_is_idle(&rig->intake));
        rig_destroy(rig);
    }
}

static uint32_t told_count(const struct rig *rig, const char *words)
{
    struct span text = writer_span(&rig->intake.core->words_waiting);
    uint32_t count = 0;
    const char *at;
    while ((at = memmem(text.at, text.size, words, strlen(words))) != NULL) {
        count++;
        text.size -= (size_t)(at + 1 - text.at);
        text.at = at + 1;
    }
    return count;
}

/* What bars a batch's way is told, with its path and what to do, once; others go by; and when it is
 * gone the batch goes, too, and that is told. */
static void test_what_bars_the_way_out_is_told(void)
{
    static const struct {
        const char *path;
        const char *words;
    } ROWS[] = {
        {"active/one.batch/summary.json", "active/one.batch/summary.json: a directory, or"},
        {"active/one.batch/sources.list", NULL}, /* it is no list of ours */
    };
    for (size_t row = 0; row < COUNT_OF(ROWS); row++) {
        struct rig *rig = rig_create();
        char path[RIG_PATH_SIZE];
        rig_submit(rig, "one", 4);
        rig_submit(rig, "two", 4);
        rig_run(rig);
        rig_path(rig, ROWS[row].path, path);
        ensure(mkdir(path, 0770) == 0);
        rig_end_rest(rig, 0);
        rig_run(rig);
        bool is_barred = ROWS[row].words != NULL;
        CHECK_ROW(row, rig_is_in(rig, "done", "two"));
        CHECK_ROW(row, rig_is_there(rig, "active/one.batch") == is_barred);
        CHECK_ROW(row, !is_barred || told_count(rig, ROWS[row].words) == 1);
        CHECK_ROW(row, told_count(rig, "active/two.batch") == 0);
        CHECK_ROW(row, told_count(rig, "tried again each second") == (is_barred ? 1 : 0));
        CHECK_ROW(row, !is_barred || rmdir(path) == 0);
        rig_run(rig);
        CHECK_ROW(row, rig_is_in(rig, "done", "one"));
        CHECK_ROW(row, told_count(rig, "one.batch: has left active/ now") == (is_barred ? 1 : 0));
        CHECK_ROW(row, intake_is_idle(&rig->intake));
        rig_destroy(rig);
    }
}

/* For a moment: nobody need act. */
static void test_a_moment_in_the_way_is_not_told(void)
{
    struct rig *rig = rig_create();
    rig_submit(rig, "one", 4);
    rig_run(rig);
    break_disk(rig, DISK_RENAME, -EIO);
    broken.failures_left = 1;
    rig_end_rest(rig, 0);
    CU_ASSERT_EQUAL(broken.failures_left, 0);
    CU_ASSERT(rig_is_in(rig, "done", "one"));
    CU_ASSERT_EQUAL(writer_size(&rig->intake.core->words_waiting), 0);
    rig_destroy(rig);
}

/* Ids. */

/* The engine was killed when one had been accepted and another one with its id had been claimed.
 */
static struct rig *rig_with_used_id(void)
{
    struct rig *rig = rig_create();
    rig_submit(rig, "one", 4);
    rig_run(rig);
    CU_ASSERT_EQUAL(rig->taken_count, 4);
    rig_down(rig, false);
    rig_submit(rig, "again", 8);
    rig_file_write(rig, "in/new/again.batch/batch.json",
                   "{\"v\":1,\"id\":\"one\",\"kind\":\"merge\","
                   "\"from\":\"news@sender.example\"}");
    rig_move(rig, "in/new/again.batch", "active/again.batch");
    return rig;
}

/* The power failed, and took the ids with it: not the accepted batch is given up. */
static void test_a_recovered_batch_keeps_its_id(void)
{
    struct rig *rig = rig_with_used_id();
    char path[RIG_PATH_SIZE];
    rig_path(rig, "journal/ids-2027-01-15", path);
    ensure(unlink(path) == 0);
    rig_boot(rig);
    rig_run(rig);
    CU_ASSERT_EQUAL(rig->taken_count, 4);
    CU_ASSERT(rig_is_in(rig, "failed", "again"));
    rig_end_rest(rig, 0);
    CU_ASSERT(rig_is_in(rig, "done", "one"));
    CU_ASSERT(intake_is_idle(&rig->intake));
    rig_destroy(rig);
}

static void test_a_batch_that_may_repeat_another_is_told_so(void)
{
    struct rig *rig = rig_with_used_id();
    rig_boot(rig);
    rig_run(rig);
    CU_ASSERT_EQUAL(rig->taken_count, 4);
    char text[2048];
    rig_file_read(rig, "hold/again.batch/reason.txt", text, sizeof(text));
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "repeats another one with the id one, accepted at 2027"));
    rig_destroy(rig);
}

/* A start says which ids it does not know, and goes on. */
static void test_unreadable_ids_are_told(void)
{
    struct rig *rig = rig_create();
    char path[RIG_PATH_SIZE];
    char text[2048];
    struct writer words = writer_of(text, sizeof(text) - 1);
    intake_tell_damage(&rig->intake, &words);
    CU_ASSERT_EQUAL(writer_size(&words), 0);
    rig_down(rig, true);
    rig_path(rig, "journal/ids-2027-01-15", path);
    ensure(symlink("elsewhere", path) == 0);
    rig_boot(rig);
    intake_tell_damage(&rig->intake, &words);
    *words.at = '\0';
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "damage: journal/ids-2027-01-15: cannot be read"));
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "put the file back from a copy"));
    rig_submit(rig, "one", 20);
    rig_run(rig);
    rig_end_rest(rig, 0);
    CU_ASSERT(rig_is_in(rig, "done", "one"));
    rig_destroy(rig);
}

/* pickup/. */

/* A batch made of files is not left in active/ when its move there cannot be made durable. */
static void test_files_are_collected_again_when_a_sync_failed(void)
{
    struct rig *rig = rig_create();
    rig_file_write(rig, "pickup/a.eml",
                   "x-sender: a@sender.example\nx-receiver: b@d.example\nSubject: A\n\nA.\n");
    break_disk(rig, DISK_SYNC, -EIO);
    broken.fd = rig->intake.core->spool.places[SPOOL_ACTIVE];
    broken.failures_left = 1;
    rig_run(rig);
    CU_ASSERT_EQUAL(broken.failures_left, 0);
    CU_ASSERT_EQUAL(stat_read_xcore(&rig->engine.must_stop), 0);
    CU_ASSERT_EQUAL(rig->taken_count, 1);
    rig_end_rest(rig, 0);
    CU_ASSERT(intake_is_idle(&rig->intake));
    CU_ASSERT_FALSE(rig_is_there(rig, "pickup/a.eml"));
    rig_destroy(rig);
}

static void in_tmp_make(struct rig *rig, const char *name, int64_t age_s)
{
    char path[RIG_PATH_SIZE];
    rig_path(rig, name, path);
    ensure(mkdir(path, 0770) == 0);
    time_t at_s = wall_seconds(clock_wall(&rig->clock.clock)) - age_s;
    const struct timespec times[] = {{.tv_sec = at_s}, {.tv_sec = at_s}};
    ensure(utimensat(AT_FDCWD, path, times, 0) == 0);
}

/* An hour behind the start; a clock that is ahead meanwhile changes nothing. */
static void test_what_writers_left_in_tmp_goes_after_a_day(void)
{
    struct rig *rig = rig_create();
    steady_begin(&rig->engine);
    in_tmp_make(rig, "in/tmp/old", SPOOL_TMP_AGE_S + 60);
    in_tmp_make(rig, "in/tmp/young", SPOOL_TMP_AGE_S / 2);
    rig_run(rig);
    CU_ASSERT(rig_is_there(rig, "in/tmp/old"));
    rig->clock.wall.ns += 40 * SPOOL_TMP_AGE_S * NS_PER_S;
    clock_manual_advance(&rig->clock, INTAKE_SWEEP_MS * NS_PER_MS);
    rig_run(rig);
    CU_ASSERT_FALSE(rig_is_there(rig, "in/tmp/old"));
    CU_ASSERT(rig_is_there(rig, "badmail/old.bad"));
    CU_ASSERT(rig_is_there(rig, "in/tmp/young"));
    rig_destroy(rig);
}

SUITE(intake, test_a_batch_comes_and_goes, test_without_a_number_nothing_is_claimed,
      test_a_batch_that_is_opened_again_rests, test_who_is_scanned_long_in_vain_rests_long,
      test_who_is_accepted_needs_no_rejects, test_who_may_be_in_hold_is_kept_in_mind,
      test_a_batch_that_is_still_written_fails, test_who_waits_for_room_grows_no_older,
      test_descriptors_bound_what_is_claimed, test_descriptors_bound_groups,
      test_descriptors_bound_streams, test_want_of_descriptors_fails_no_batch,
      test_a_batch_waits_for_what_it_has_lent, test_a_batch_waits_for_its_order,
      test_a_batch_that_people_took_away_is_no_burden,
      test_a_place_that_people_removed_is_made_anew, test_what_bars_the_way_out_is_told,
      test_a_moment_in_the_way_is_not_told, test_a_recovered_batch_keeps_its_id,
      test_a_batch_that_may_repeat_another_is_told_so, test_unreadable_ids_are_told,
      test_files_are_collected_again_when_a_sync_failed,
      test_what_writers_left_in_tmp_goes_after_a_day)
