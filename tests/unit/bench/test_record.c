/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/record.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/harness.h"

static struct record_draft draft;

static int file_open(void)
{
    char path[] = "/tmp/test_record_XXXXXX";
    int fd = mkstemp(path);
    ensure(fd >= 0);
    ensure(unlink(path) == 0);
    return fd;
}

/* SHA-256 of "abc": FIPS 180-2, appendix B.1. */
#define SHA_ABC "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

static void test_lines(void)
{
    int fd = file_open();
    struct record_book book;
    CU_ASSERT_EQUAL_FATAL(record_book_init(&book, fd, true), 0);
    record_draft_init(&draft);
    for (int i = 0; i < 2; i++) { /* the second message starts anew */
        record_draft_mail(&draft, SPAN("a@b"));
        record_draft_rcpt(&draft, SPAN("\"q\"@d"));
        record_draft_rcpt(&draft, SPAN("e@f"));
        record_draft_body(&draft, SPAN("a"));
        record_draft_body(&draft, SPAN("bc"));
        CU_ASSERT(record_book_add(&book, &draft, 6, (struct mono_time){.ns = 42}));
    }
    CU_ASSERT(!record_book_is_empty(&book));
    CU_ASSERT_EQUAL(record_book_write(&book), 0);
    CU_ASSERT(record_book_is_empty(&book));
    const struct span line = SPAN("{\"at_ns\":42,\"from\":\"a@b\",\"to\":[\"\\\"q\\\"@d\",\"e@f\"],"
                                  "\"size\":6,\"sha256\":\"" SHA_ABC "\"}\n");
    char text[1024];
    ssize_t size = pread(fd, text, sizeof(text), 0);
    CU_ASSERT_EQUAL_FATAL((size_t)size, 2 * line.size);
    CU_ASSERT(span_equal(span_of(text, line.size), line));
    CU_ASSERT(span_equal(span_of(text + line.size, line.size), line));
    record_draft_deinit(&draft);
    record_book_deinit(&book);
    (void)close(fd);
}

/* An envelope too long for the draft is cut, says so, and is still a line of JSON. */
static void test_cut(void)
{
    int fd = file_open();
    struct record_book book;
    CU_ASSERT_EQUAL_FATAL(record_book_init(&book, fd, false), 0);
    record_draft_init(&draft);
    record_draft_mail(&draft, SPAN(""));
    for (uint32_t i = 0; i < RECORD_ENVELOPE_MAX / 8; i++) {
        record_draft_rcpt(&draft, SPAN("someone@d.example"));
    }
    CU_ASSERT(record_book_add(&book, &draft, 3, (struct mono_time){.ns = 1}));
    struct span line = writer_span(&book.writer);
    CU_ASSERT(line.size > RECORD_ENVELOPE_MAX - 100);
    CU_ASSERT(memmem(line.at, line.size, "someone@d.example\"],\"size\":3,\"cut\":true,", 40) !=
              NULL);
    record_draft_deinit(&draft);
    record_book_deinit(&book);
    (void)close(fd);
}

static void test_full(void)
{
    struct record_book book;
    CU_ASSERT_EQUAL_FATAL(record_book_init(&book, -1, false), 0);
    record_draft_init(&draft);
    bool is_added = true;
    for (uint32_t i = 0; i < RECORD_BOOK_MAX / 64 && is_added; i++) {
        record_draft_mail(&draft, SPAN("a@b"));
        is_added = record_book_add(&book, &draft, 3, (struct mono_time){.ns = 1});
    }
    CU_ASSERT(!is_added);
    CU_ASSERT_EQUAL(record_book_write(&book), -EBADF);
    record_draft_deinit(&draft);
    record_book_deinit(&book);
}

SUITE(record, test_lines, test_cut, test_full)
