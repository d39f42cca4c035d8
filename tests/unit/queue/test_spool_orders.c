/* SPDX-License-Identifier: Apache-2.0 */
/* Orders of people: files in in/ctl/, and what of them is kept in a batch. */
#include "queue/spool.h"

#include "tests/unit/queue/spool_begin.h"

static void test_orders(void)
{
    begin();
    static struct spool_orders orders;
    put_text("in/ctl/spring-07.pause", "");
    put_text("in/ctl/a.b.c.cancel", "ignored text");
    put_text("in/ctl/.spring-07.resume", "");
    put_text("in/ctl/spring-07.priority=8", "");
    put_text("in/ctl/spring-07", "");
    put_text("in/ctl/new\nline.pause", "");
    ensure(symlink("/etc/passwd", at("in/ctl/x.pause")) == 0);
    make_directory("in/ctl/y.pause");
    CU_ASSERT_EQUAL(spool_list_orders(&spool, wall_s(NOW), NULL, &orders), 0);
    CU_ASSERT_EQUAL_FATAL(orders.count, 2);
    CU_ASSERT_EQUAL(orders.unknown_count, 5);
    CU_ASSERT_PTR_NOT_NULL(strstr(orders.unknown.text, "not an order: create an empty file"));
    CU_ASSERT_EQUAL(names_count("in/ctl"), 3);
    CU_ASSERT_EQUAL(names_count("badmail"), 10);
    for (uint32_t i = 0; i < orders.count; i++) {
        bool is_pause = orders.orders[i].verb == SPOOL_PAUSE;
        CU_ASSERT_STRING_EQUAL(orders.orders[i].id, is_pause ? "spring-07" : "a.b.c");
        CU_ASSERT(is_pause || orders.orders[i].verb == SPOOL_CANCEL);
        CU_ASSERT_EQUAL(spool_order_remove(&spool, &orders.orders[i]), 0);
        CU_ASSERT_EQUAL(spool_order_remove(&spool, &orders.orders[i]), 0);
    }
    CU_ASSERT_EQUAL(names_count("in/ctl"), 1);
    end();
}

static enum spool_order_fate fate_by_letter(void *context, const char *id)
{
    (*(uint32_t *)context)++;
    return id[0] == 'z'   ? SPOOL_ORDER_TAKE
           : id[0] == 'l' ? SPOOL_ORDER_LEAVE
           : id[0] == 'e' ? SPOOL_ORDER_ENDED
                          : SPOOL_ORDER_NOBODY;
}

/* Orders that stay, and orders for nobody, hide none of the others. */
static void test_orders_that_stay_hide_none(void)
{
    begin();
    static struct spool_orders orders;
    uint32_t asked = 0;
    const struct spool_order_judge judge = {.fate = fate_by_letter, .context = &asked};
    for (uint32_t i = 0; i < 100; i++) {
        static const char *const STEMS[] = {"left", "ended", "nobody"};
        for (size_t j = 0; j < COUNT_OF(STEMS); j++) {
            char name[64];
            (void)snprintf(name, sizeof(name), "in/ctl/%s-%u.cancel", STEMS[j], (unsigned)i);
            put_text(name, "");
        }
    }
    put_text("in/ctl/z-1.cancel", "");
    put_text("in/ctl/z-1.pause", "");
    CU_ASSERT_EQUAL(spool_list_orders(&spool, wall_s(NOW), &judge, &orders), 0);
    CU_ASSERT_EQUAL(asked, 302);
    CU_ASSERT_EQUAL_FATAL(orders.count, 2);
    CU_ASSERT_EQUAL(orders.orders[0].verb, SPOOL_PAUSE);
    CU_ASSERT_EQUAL(orders.unknown_count, SPOOL_ORDERS_MAX);
    CU_ASSERT_PTR_NOT_NULL(strstr(orders.unknown.text, "no batch of this id is here"));
    CU_ASSERT_PTR_NOT_NULL(strstr(orders.unknown.text, "the case of letters counts"));
    CU_ASSERT_EQUAL(names_count("in/ctl"), 302 - 2 * SPOOL_ORDERS_MAX);
    CU_ASSERT_EQUAL(names_count("badmail"), 2 * SPOOL_ORDERS_MAX);
    CU_ASSERT_EQUAL(spool_list_orders(&spool, wall_s(NOW), &judge, &orders), 0);
    CU_ASSERT_EQUAL(names_count("in/ctl"), 102);
    CU_ASSERT_EQUAL(names_count("badmail"), 200);
    end();
}

/* By hand both may be made in any order: an order waits a little for its batch. */
static void test_an_order_may_be_ahead_of_its_batch(void)
{
    begin();
    static struct spool_orders orders;
    uint32_t asked = 0;
    const struct spool_order_judge judge = {.fate = fate_by_letter, .context = &asked};
    static const int64_t TIMES_S[] = {NOW, NOW - SPOOL_ORDER_WAIT_S + 1, NOW - SPOOL_ORDER_WAIT_S,
                                      NOW + 1}; /* the last: the clock was set */
    for (size_t i = 0; i < COUNT_OF(TIMES_S); i++) {
        char name[64];
        (void)snprintf(name, sizeof(name), "in/ctl/nobody-%zu.cancel", i);
        put_text(name, "");
        struct timespec times[2] = {{.tv_sec = TIMES_S[i]}, {.tv_sec = TIMES_S[i]}};
        ensure(utimensat(AT_FDCWD, at(name), times, 0) == 0);
    }
    CU_ASSERT_EQUAL(spool_list_orders(&spool, wall_s(NOW), &judge, &orders), 0);
    CU_ASSERT_EQUAL(orders.count, 0);
    CU_ASSERT_EQUAL(orders.unknown_count, 2);
    CU_ASSERT(exists("in/ctl/nobody-0.cancel"));
    CU_ASSERT(exists("in/ctl/nobody-1.cancel"));
    CU_ASSERT_EQUAL(names_count("in/ctl"), 2);
    int64_t later_s = NOW + SPOOL_ORDER_WAIT_S;
    CU_ASSERT_EQUAL(spool_list_orders(&spool, wall_s(later_s), &judge, &orders), 0);
    CU_ASSERT_EQUAL(orders.unknown_count, 2);
    CU_ASSERT_EQUAL(names_count("in/ctl"), 0);
    end();
}

/* Orders that cannot be obeyed stay in the list's way only until its next page. */
static void test_orders_are_listed_in_pages(void)
{
    begin();
    static struct spool_orders orders;
    uint32_t seen[200] = {0};
    for (uint32_t i = 0; i < 200; i++) {
        char name[64];
        (void)snprintf(name, sizeof(name), "in/ctl/b%03u.resume", (unsigned)i);
        put_text(name, "");
    }
    for (uint32_t call = 0; call < 8; call++) {
        CU_ASSERT_EQUAL(spool_list_orders(&spool, wall_s(NOW), NULL, &orders), 0);
        CHECK_ROW(call,
                  orders.count == (call % 4 == 3 ? 200 % SPOOL_ORDERS_MAX : SPOOL_ORDERS_MAX));
        for (uint32_t i = 0; i < orders.count; i++) {
            seen[strtoul(orders.orders[i].id + 1, NULL, 10)]++;
        }
    }
    for (uint32_t i = 0; i < 200; i++) {
        CHECK_ROW(i, seen[i] == 2);
    }
    end();
}

static void test_orders_are_kept(void)
{
    begin();
    enum spool_verb verb;
    make_directory("active/a.batch");
    int batch_fd = spool_batch_open(&spool, "a.batch");
    static const enum spool_verb verbs[] = {SPOOL_RESUME, SPOOL_PAUSE, SPOOL_CANCEL, SPOOL_PAUSE,
                                            SPOOL_RESUME};
    for (size_t i = 0; i < COUNT_OF(verbs); i++) {
        CU_ASSERT_EQUAL(spool_order_keep(&spool, batch_fd, verbs[i]), 0);
        CU_ASSERT_EQUAL(spool_order_kept(&spool, batch_fd, &verb), 0);
        CHECK_ROW(i, verb == verbs[i]);
    }
    /* That people wanted it tried at once is kept beside what they want of it else, for good. */
    CU_ASSERT_EQUAL(spool_order_keep(&spool, batch_fd, SPOOL_CANCEL), 0);
    CU_ASSERT_EQUAL(spool_order_was_retried(&spool, batch_fd), 0);
    CU_ASSERT_EQUAL(spool_order_keep(&spool, batch_fd, SPOOL_RETRY), 0);
    CU_ASSERT_EQUAL(spool_order_was_retried(&spool, batch_fd), 1);
    CU_ASSERT_EQUAL(spool_order_kept(&spool, batch_fd, &verb), 0);
    CU_ASSERT_EQUAL(verb, SPOOL_CANCEL);
    CU_ASSERT_EQUAL(spool_order_keep(&spool, batch_fd, SPOOL_RESUME), 0);
    CU_ASSERT_EQUAL(spool_order_was_retried(&spool, batch_fd), 1);
    put_text("active/a.batch/order", "retry");
    CU_ASSERT_EQUAL(spool_order_kept(&spool, batch_fd, &verb), 0);
    CU_ASSERT_EQUAL(verb, SPOOL_PAUSE);
    put_text("active/a.batch/order", "dance");
    CU_ASSERT_EQUAL(spool_order_kept(&spool, batch_fd, &verb), 0);
    CU_ASSERT_EQUAL(verb, SPOOL_PAUSE); /* rather not sent than sent */
    disk_close(&check.disk, batch_fd);
    end();
}

SUITE(spool_orders, test_orders, test_orders_that_stay_hide_none,
      test_an_order_may_be_ahead_of_its_batch, test_orders_are_listed_in_pages,
      test_orders_are_kept)
