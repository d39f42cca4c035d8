/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/submit_show.h"

#include <jansson.h>
#include <stdio.h>

#include "tests/harness.h"

static struct submit_status status_of(enum submit_state state)
{
    struct submit_status status = {
        .state = state,
        .path = "active/spring-07.batch",
        .has_counts = true,
        .records = 1010,
        .accepted = 1000,
        .rejected = 10,
        .pending = 450,
        .delivered = 500,
        .bounced = 40,
        .expired = 7,
        .cancelled = 3,
        .deferred = 12,
        .rate_1m = 123.4,
        .possible_duplicates = 2,
        .eta_s = 75,
    };
    return status;
}

static void test_line(void)
{
    char text[SUBMIT_SHOW_MAX];
    struct writer writer = writer_of(text, sizeof(text));
    struct submit_status status = status_of(SUBMIT_ACTIVE);
    submit_show_put_line(&writer, "spring-07", &status);
    CU_ASSERT(span_equal(writer_span(&writer),
                         SPAN("spring-07: active: 550 of 1000 settled, 500 delivered, 40 bounced, "
                              "7 expired, 3 cancelled, 10 rejected, 12 deferrals, 123/s\n")));
    writer = writer_of(text, sizeof(text));
    status = (struct submit_status){.state = SUBMIT_FAILED, .reason = "line 1:\nbad \x1b[2J"};
    submit_show_put_line(&writer, "b", &status);
    /* A reason may hold foreign bytes: nothing of it reaches the terminal as it is. */
    CU_ASSERT(span_equal(writer_span(&writer), SPAN("b: failed: line 1:\\x0abad \\x1b[2J\n")));
}

/* At every width, with every kind of status: one line that fits, printable. */
static void test_bar_fits_every_terminal(void)
{
    static const char *const IDS[] = {
        "a", "spring-07",
        "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"};
    struct submit_status rows[] = {
        {.state = SUBMIT_WAITING, .eta_s = -1},
        status_of(SUBMIT_ACTIVE),
        status_of(SUBMIT_DONE),
        status_of(SUBMIT_ACTIVE),
        {.state = SUBMIT_ACTIVE, .has_counts = true, .eta_s = -1},
    };
    struct submit_status *big = &rows[3];
    big->accepted = big->delivered = big->bounced = big->expired = UINT64_MAX / 4;
    big->rejected = UINT64_MAX;
    big->eta_s = INT64_MAX;
    big->rate_1m = 1e18;
    for (unsigned columns = 0; columns < 700; columns++) {
        for (size_t i = 0; i < COUNT_OF(rows) * COUNT_OF(IDS); i++) {
            char text[SUBMIT_SHOW_MAX];
            struct writer writer = writer_of(text, sizeof(text));
            submit_show_put_bar(&writer, IDS[i % COUNT_OF(IDS)], &rows[i / COUNT_OF(IDS)], columns);
            size_t most = columns == 0 ? 0 : columns - 1;
            bool fits = writer_size(&writer) <= most;
            for (size_t at = 0; at < writer_size(&writer); at++) {
                fits = fits && text[at] >= ' ' && text[at] <= '~';
            }
            if (!fits) {
                CHECK_ROW(columns, fits);
            }
        }
    }
    CU_PASS("all fit");
}

static void test_bar_fills(void)
{
    char text[SUBMIT_SHOW_MAX];
    size_t before = 0;
    for (uint64_t done = 0; done <= 1000; done += 50) {
        struct writer writer = writer_of(text, sizeof(text));
        struct submit_status status = {
            .state = SUBMIT_ACTIVE, .has_counts = true, .accepted = 1000, .delivered = done};
        submit_show_put_bar(&writer, "id", &status, 100);
        struct span bar = writer_span(&writer);
        size_t full = 0, empty = 0;
        for (size_t i = 0; i < bar.size; i++) {
            full += bar.at[i] == '#';
            empty += bar.at[i] == '-';
        }
        CHECK_ROW(done, full >= before);
        CHECK_ROW(done, full + empty > 40);
        CHECK_ROW(done, (done == 0) == (full == 0));
        CHECK_ROW(done, (done == 1000) == (empty == 0));
        before = full;
    }
}

static void test_json(void)
{
    char text[SUBMIT_SHOW_MAX];
    struct writer writer = writer_of(text, sizeof(text));
    struct submit_status status = status_of(SUBMIT_HELD);
    (void)snprintf(status.reason, sizeof(status.reason), "it \"broke\"\n\xff");
    submit_show_put_json(&writer, "spring-07", &status);
    json_error_t error;
    json_t *root = json_loadb(text, writer_size(&writer), JSON_REJECT_DUPLICATES, &error);
    CU_ASSERT_PTR_NOT_NULL_FATAL(root);
    CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(root, "state")), "held");
    CU_ASSERT_EQUAL(json_integer_value(json_object_get(root, "delivered")), 500);
    CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(root, "reason")),
                           "it \"broke\"\n\xef\xbf\xbd");
    CU_ASSERT_EQUAL(json_integer_value(json_object_get(root, "eta_s")), 75);
    CU_ASSERT_EQUAL(json_integer_value(json_object_get(root, "possible_duplicates")), 2);
    json_decref(root);
    writer = writer_of(text, sizeof(text));
    status.eta_s = -1;
    submit_show_put_json(&writer, "spring-07", &status);
    root = json_loadb(text, writer_size(&writer), JSON_REJECT_DUPLICATES, &error);
    CU_ASSERT(json_is_null(json_object_get(root, "eta_s"))); /* as in progress.json */
    json_decref(root);
}

static void test_ends_and_exits(void)
{
    static const struct {
        struct submit_status status;
        bool is_end;
        int exit;
    } ROWS[] = {
        {{.state = SUBMIT_WAITING}, false, SUBMIT_EXIT_FAILED},
        {{.state = SUBMIT_ACTIVE}, false, SUBMIT_EXIT_FAILED},
        {{.state = SUBMIT_FAILED}, true, SUBMIT_EXIT_FAILED},
        {{.state = SUBMIT_HELD}, true, SUBMIT_EXIT_FAILED},
        {{.state = SUBMIT_DONE, .has_counts = true, .accepted = 3, .delivered = 3},
         true,
         SUBMIT_EXIT_DELIVERED},
        {{.state = SUBMIT_DONE, .has_counts = true, .accepted = 3, .delivered = 2, .bounced = 1},
         true,
         SUBMIT_EXIT_NOT_ALL},
        {{.state = SUBMIT_DONE, .has_counts = true, .accepted = 3, .delivered = 2, .expired = 1},
         true,
         SUBMIT_EXIT_NOT_ALL},
        {{.state = SUBMIT_DONE, .has_counts = true, .accepted = 3, .delivered = 2, .cancelled = 1},
         true,
         SUBMIT_EXIT_NOT_ALL},
        {{.state = SUBMIT_DONE, .has_counts = true, .accepted = 3, .delivered = 3, .rejected = 1},
         true,
         SUBMIT_EXIT_NOT_ALL},
        {{.state = SUBMIT_DONE}, true, SUBMIT_EXIT_NOT_ALL}, /* nothing is known of it */
    };
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        CHECK_ROW(i, submit_show_is_end(ROWS[i].status.state) == ROWS[i].is_end);
        CHECK_ROW(i, submit_show_exit_status(&ROWS[i].status) == ROWS[i].exit);
    }
}

SUITE(submit_show, test_line, test_bar_fits_every_terminal, test_bar_fills, test_json,
      test_ends_and_exits)
