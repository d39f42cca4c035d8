/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/sink_blind.h"

#include "tests/harness.h"

static const char *const READS[] = {
    "HELO me\r\n",           "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n",
    "text\r\n.\r\n",         "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n",
    "text\r\nDATA\r\n.\r\n", "QUIT\r\n",
};
#define GROUP "250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n354 End with <CR><LF>.<CR><LF>\r\n250 2.0.0 Ok\r\n"
#define WORDS "250 sink\r\n" GROUP GROUP "221 2.0.0 Bye\r\n"

/* Each of the client's writes cut into reads of `size` bytes. */
static void dialogue(size_t size)
{
    struct sink_blind blind;
    struct sink_counts counts = {.messages = 0};
    char out[1024];
    struct writer writer = writer_of(out, sizeof(out));
    sink_blind_init(&blind);
    for (size_t i = 0; i < COUNT_OF(READS); i++) {
        size_t read_size = strlen(READS[i]);
        for (size_t at = 0; at < read_size; at += size) {
            size_t left = read_size - at;
            sink_blind_take(&blind, span_of(READS[i] + at, left < size ? left : size), &counts,
                            &writer);
        }
    }
    CU_ASSERT(span_equal(writer_span(&writer), SPAN(WORDS)));
    CU_ASSERT_EQUAL(counts.messages, 2);
    CU_ASSERT_EQUAL(counts.bytes, 9 + 15);
    CU_ASSERT(blind.is_over);
}

static void test_dialogue(void)
{
    for (size_t size = 1; size < 64; size++) {
        dialogue(size);
    }
}

SUITE(sink_blind, test_dialogue)
