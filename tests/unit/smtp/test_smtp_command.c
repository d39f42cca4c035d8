/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/smtp/smtp_command.h"

#include <errno.h>

#include "engine/base/random.h"
#include "tests/harness.h"

static bool is_written(const struct writer *writer, const char *text)
{
    return !writer->is_full && span_equal(writer_span(writer), span_of_text(text));
}

static void test_wire_text(void)
{
    char room[SMTP_COMMAND_SIZE_MAX];
    struct writer writer = writer_of(room, sizeof(room));
    CU_ASSERT_EQUAL(smtp_command_greeting(&writer, SMTP_VERB_EHLO, SPAN("[IPv6:::1]")), 0);
    CU_ASSERT(is_written(&writer, "EHLO [IPv6:::1]\r\n")); /* A11 */
    writer = writer_of(room, sizeof(room));
    CU_ASSERT_EQUAL(smtp_command_greeting(&writer, SMTP_VERB_HELO, SPAN("a.test")), 0);
    CU_ASSERT(is_written(&writer, "HELO a.test\r\n"));
    writer = writer_of(room, sizeof(room));
    struct smtp_mail_parameters parameters = {.size = 5};
    CU_ASSERT_EQUAL(smtp_command_mail(&writer, SPAN_NONE, &parameters), 0);
    CU_ASSERT(is_written(&writer, "MAIL FROM:<>\r\n")); /* A20, A25 */
    writer = writer_of(room, sizeof(room));
    parameters = (struct smtp_mail_parameters){.has_size = true, .is_8bit = true, .size = 0};
    CU_ASSERT_EQUAL(smtp_command_mail(&writer, SPAN("a@b"), &parameters), 0);
    CU_ASSERT(is_written(&writer, "MAIL FROM:<a@b> SIZE=0 BODY=8BITMIME\r\n"));
    writer = writer_of(room, sizeof(room));
    CU_ASSERT_EQUAL(smtp_command_rcpt(&writer, SPAN("a@b")), 0);
    CU_ASSERT_EQUAL(smtp_command_plain(&writer, SMTP_VERB_DATA), 0);
    CU_ASSERT_EQUAL(smtp_command_plain(&writer, SMTP_VERB_DOT), 0);
    CU_ASSERT_EQUAL(smtp_command_plain(&writer, SMTP_VERB_RSET), 0);
    CU_ASSERT_EQUAL(smtp_command_plain(&writer, SMTP_VERB_QUIT), 0);
    CU_ASSERT(is_written(&writer, "RCPT TO:<a@b>\r\nDATA\r\n.\r\nRSET\r\nQUIT\r\n"));
}

static const struct {
    const char *path;
    size_t size;
    int want;
} PATHS[] = {
#define PATH(text) text, sizeof(text) - 1
    {PATH("a@b.test"), 0},
    /* A35: byte for byte */
    {PATH("\"a b\"@x"), 0},
    {PATH("\"a.b\"@x"), 0},
    {PATH("\"\"@x"), 0},
    {PATH("\"a\\\"b\"@x"), 0},
    {PATH("\"a\\\\\"@x"), 0},
    {PATH("\"<>\"@x"), 0},
    {PATH("u@[IPv6:::1]"), 0},
    /* A22: what could end the line or the path */
    {PATH("a\rb@x"), -EINVAL},
    {PATH("a\nb@x"), -EINVAL},
    {PATH("a\0b@x"), -EINVAL},
    {PATH("a@x\r\nDATA"), -EINVAL},
    {PATH("\"a\rb\"@x"), -EINVAL},
    {PATH("\"a\\\rb\"@x"), -EINVAL},
    {PATH("\"a\\\nb\"@x"), -EINVAL},
    {PATH("\"a\\\0b\"@x"), -EINVAL},
    {PATH("a\x7f@x"), -EINVAL},
    {PATH("\xc3\xa4@x"), -EINVAL},
    {PATH("a@x> SIZE=1"), -EINVAL},
    {PATH("a b@x"), -EINVAL},
    {PATH("<a@x"), -EINVAL},
    {PATH("a\\ b@x"), -EINVAL},
    {PATH("\"a@x"), -EINVAL},
    {PATH("\"a\\"), -EINVAL},
    {PATH("\"\\\"@x"), -EINVAL},
};

static void test_A22_A35_paths(void)
{
    for (size_t i = 0; i < COUNT_OF(PATHS); i++) {
        char room[SMTP_COMMAND_SIZE_MAX];
        struct writer writer = writer_of(room, sizeof(room));
        struct span path = span_of(PATHS[i].path, PATHS[i].size);
        struct smtp_mail_parameters parameters = {0};
        CHECK_ROW(i, smtp_command_check_path(path) == PATHS[i].want);
        CHECK_ROW(i, smtp_command_rcpt(&writer, path) == PATHS[i].want);
        CHECK_ROW(i, writer_size(&writer) == (PATHS[i].want == 0 ? path.size + 12 : 0));
        writer = writer_of(room, sizeof(room));
        CHECK_ROW(i, smtp_command_mail(&writer, path, &parameters) == PATHS[i].want);
        CHECK_ROW(i, writer_size(&writer) == (PATHS[i].want == 0 ? path.size + 14 : 0));
    }
}

static void test_A24_lengths(void)
{
    char room[2 * SMTP_COMMAND_SIZE_MAX];
    char path[SMTP_ADDRESS_MAX + 2];
    memset(path, 'a', sizeof(path));
    struct writer writer = writer_of(room, sizeof(room));
    CU_ASSERT_EQUAL(smtp_command_rcpt(&writer, span_of(path, SMTP_ADDRESS_MAX)), 0);
    CU_ASSERT_EQUAL(smtp_command_rcpt(&writer, span_of(path, SMTP_ADDRESS_MAX + 1)), -EMSGSIZE);
    CU_ASSERT_EQUAL(smtp_command_greeting(&writer, SMTP_VERB_EHLO, span_of(path, 255)), 0);
    CU_ASSERT_EQUAL(smtp_command_greeting(&writer, SMTP_VERB_EHLO, span_of(path, 256)), -EMSGSIZE);
    CU_ASSERT_EQUAL(smtp_command_greeting(&writer, SMTP_VERB_EHLO, SPAN_NONE), -EINVAL);
    CU_ASSERT_EQUAL(smtp_command_greeting(&writer, SMTP_VERB_EHLO, SPAN("a b")), -EINVAL);
    CU_ASSERT_EQUAL(smtp_command_rcpt(&writer, SPAN_NONE), -EINVAL);
}

/* Whole or not at all: with too little room the writer stays as it is, and is not marked full. */
static void test_no_room(void)
{
    char room[SMTP_COMMAND_SIZE_MAX];
    struct smtp_mail_parameters parameters = {
        .has_size = true, .is_8bit = true, .size = UINT64_MAX};
    for (size_t size = 0; size < sizeof(room); size++) {
        struct writer writer = writer_of(room, size);
        if (smtp_command_mail(&writer, SPAN("s@from.test"), &parameters) == -ENOBUFS) {
            CU_ASSERT_EQUAL(writer_size(&writer), 0);
        }
        CU_ASSERT(!writer.is_full);
        writer = writer_of(room, size);
        int error = smtp_command_rcpt(&writer, SPAN("r@to.test"));
        CU_ASSERT_EQUAL(error, size < 21 ? -ENOBUFS : 0);
        writer = writer_of(room, size);
        CU_ASSERT_EQUAL(smtp_command_plain(&writer, SMTP_VERB_RSET), size < 6 ? -ENOBUFS : 0);
        writer = writer_of(room, size);
        error = smtp_command_greeting(&writer, SMTP_VERB_EHLO, SPAN("out.test"));
        CU_ASSERT_EQUAL(error, size < 15 ? -ENOBUFS : 0);
        CU_ASSERT(!writer.is_full);
    }
    char path[SMTP_ADDRESS_MAX];
    memset(path, 'a', sizeof(path));
    struct writer writer = writer_of(room, sizeof(room));
    CU_ASSERT_EQUAL(smtp_command_mail(&writer, span_of(path, sizeof(path)), &parameters), 0);
    CU_ASSERT_EQUAL(writer_size(&writer), SMTP_COMMAND_SIZE_MAX);
}

/* Each byte at that place of a path of plain ones. */
static bool is_each_byte_judged(char *path, size_t size, size_t at)
{
    for (unsigned byte = 0; byte < 256; byte++) {
        path[at] = (char)byte;
        bool is_plain =
            byte > ' ' && byte < 127 && byte != '"' && byte != '\\' && byte != '<' && byte != '>';
        if (smtp_command_check_path(span_of(path, size)) != (is_plain ? 0 : -EINVAL)) {
            return false;
        }
    }
    path[at] = 'a';
    return true;
}

/* A22: at each place of paths of many lengths, which are looked at in blocks. */
static void test_A22_each_byte_at_each_place(void)
{
    char path[SMTP_ADDRESS_MAX];
    for (size_t size = 1; size <= sizeof(path); size += size < 70 ? 1 : 61) {
        memset(path, 'a', sizeof(path));
        size_t at = 0;
        while (at < size && is_each_byte_judged(path, size, at)) {
            at++;
        }
        CHECK_ROW(size, at == size);
    }
}

/* A22: whatever is accepted of random bytes is one line, with nothing but printable ASCII in it. */
static void test_A22_random_paths(void)
{
    static const char ALPHABET[] = "ab.@\"\\<> \r\n\0\x7f\xe4[]";
    struct random random;
    random_init_seed(&random, 22);
    unsigned accepted = 0;
    for (unsigned round = 0; round < 100000; round++) {
        char path[12];
        size_t size = 1 + random_below(&random, sizeof(path));
        uint32_t alphabet_size = random_below(&random, 4) == 0 ? sizeof(ALPHABET) - 1 : 9;
        for (size_t i = 0; i < size; i++) {
            path[i] = ALPHABET[random_below(&random, alphabet_size)];
        }
        char room[SMTP_COMMAND_SIZE_MAX];
        struct writer writer = writer_of(room, sizeof(room));
        if (smtp_command_rcpt(&writer, span_of(path, size)) != 0) {
            continue;
        }
        accepted++;
        struct span line = writer_span(&writer);
        CU_ASSERT(line.size == size + 12 && memcmp(line.at + line.size - 3, ">\r\n", 3) == 0);
        for (size_t i = 0; i < line.size - 2; i++) {
            CU_ASSERT(line.at[i] >= ' ' && line.at[i] <= '~');
        }
    }
    CU_ASSERT(accepted > 1000);
}

SUITE(smtp_command, test_wire_text, test_A22_A35_paths, test_A24_lengths, test_no_room,
      test_A22_each_byte_at_each_place, test_A22_random_paths)
