/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/feed_text.h"

#include <stdio.h>
#include <stdlib.h>

#include "tests/harness.h"

enum { OUT_SIZE = 1 << 20 };

static struct feed_config config_of(uint64_t size, uint32_t vars_count)
{
    return (struct feed_config){
        .seed = 7,
        .recipients_count = 3,
        .domains_count = 100,
        .vars_count = vars_count,
        .message_size = size,
        .zipf = 1,
        .suffix = SPAN("bench.example"),
        .local = SPAN_NONE,
        .batch = SPAN("b1"),
    };
}

static bool has_text(struct span whole, const char *text)
{
    return memmem(whole.at, whole.size, text, strlen(text)) != NULL;
}

/* The template with every place replaced by its value is as long as asked for; the address in To is
 * not counted. */
static void test_template_size(void)
{
    char *out = malloc(OUT_SIZE);
    for (uint64_t size = FEED_MESSAGE_MIN; size < FEED_MESSAGE_MIN + 200; size++) {
        uint32_t vars_count = (uint32_t)(size % (FEED_VARS_MAX + 1));
        struct feed_config config = config_of(size, vars_count);
        struct feed *feed = feed_create(&config);
        struct writer writer = writer_of(out, OUT_SIZE);
        feed_put_template(feed, &writer);
        struct span rest = writer_span(&writer);
        uint64_t rendered_size = rest.size;
        for (uint32_t places = 0; places < vars_count + 1; places++) {
            const char *place = memmem(rest.at, rest.size, "{{", 2);
            CU_ASSERT_PTR_NOT_NULL_FATAL(place);
            const char *end = memmem(place, rest.size - (size_t)(place - rest.at), "}}", 2);
            rendered_size -= places == 0 ? 0 : (uint64_t)(end + 2 - place) - FEED_VALUE_SIZE;
            rest = span_of(end, rest.size - (size_t)(end - rest.at));
        }
        CU_ASSERT_EQUAL(rendered_size, size);
        CU_ASSERT(memcmp(rest.at + rest.size - 2, "\r\n", 2) == 0);
        feed_destroy(feed);
    }
    free(out);
}

static void test_bsmtp_size(void)
{
    char *out = malloc(OUT_SIZE);
    for (uint64_t size = FEED_MESSAGE_MIN; size < FEED_MESSAGE_MIN + 200; size++) {
        struct feed_config config = config_of(size, 2);
        struct feed *feed = feed_create(&config);
        struct writer writer = writer_of(out, OUT_SIZE);
        feed_put_bsmtp(feed, 1, &writer);
        struct span bytes = writer_span(&writer);
        const char *data = memmem(bytes.at, bytes.size, "DATA\r\n", 6);
        CU_ASSERT_EQUAL(bytes.size - (size_t)(data + 6 - bytes.at), size + 3);
        CU_ASSERT(memcmp(bytes.at + bytes.size - 5, "\r\n.\r\n", 5) == 0);
        CU_ASSERT(has_text(bytes, "RCPT TO:<u00000001@d0"));
        feed_destroy(feed);
    }
    free(out);
}

static void test_same_seed_same_bytes(void)
{
    char lines[3][FEED_RECIPIENT_MAX];
    size_t sizes[3];
    for (size_t i = 0; i < 3; i++) {
        struct feed_config config = config_of(1024, 2);
        config.seed = i < 2 ? 7 : 8;
        struct feed *feed = feed_create(&config);
        struct writer writer = writer_of(lines[i], sizeof(lines[i]));
        feed_put_recipient(feed, 1, &writer);
        sizes[i] = writer_size(&writer);
        feed_destroy(feed);
    }
    CU_ASSERT(span_equal(span_of(lines[0], sizes[0]), span_of(lines[1], sizes[1])));
    CU_ASSERT(!span_equal(span_of(lines[0], sizes[0]), span_of(lines[2], sizes[2])));
}

/* With 1/n the first of a hundred domains has about 19 of 100 recipients. */
static void test_zipf(void)
{
    enum { DRAWS = 20000 };
    struct feed_config config = config_of(1024, 0);
    struct feed *feed = feed_create(&config);
    uint32_t hits = 0;
    for (uint64_t i = 1; i <= DRAWS; i++) {
        char line[FEED_RECIPIENT_MAX];
        struct writer writer = writer_of(line, sizeof(line));
        feed_put_recipient(feed, i, &writer);
        hits += has_text(writer_span(&writer), "@d0001.") ? 1 : 0;
    }
    CU_ASSERT(hits > DRAWS * 18 / 100);
    CU_ASSERT(hits < DRAWS * 21 / 100);
    feed_destroy(feed);
}

static void test_spread(void)
{
    struct feed_config config = config_of(1024, 0);
    config.is_spread = true;
    struct feed *feed = feed_create(&config);
    for (uint64_t i = 1; i <= 250; i++) {
        char line[FEED_RECIPIENT_MAX], domain[32];
        struct writer writer = writer_of(line, sizeof(line));
        feed_put_recipient(feed, i, &writer);
        (void)snprintf(domain, sizeof(domain), "@d%04u.", (unsigned)((i - 1) % 100 + 1));
        CU_ASSERT(has_text(writer_span(&writer), domain));
    }
    feed_destroy(feed);
}

/* The same bytes for all: nothing in them is replaced. */
static void test_same_template(void)
{
    char out[4096];
    struct feed_config config = config_of(1024, 2);
    config.is_same = true;
    struct feed *feed = feed_create(&config);
    struct writer writer = writer_of(out, sizeof(out));
    feed_put_template(feed, &writer);
    CU_ASSERT(!has_text(writer_span(&writer), "{{"));
    CU_ASSERT_EQUAL(writer_size(&writer), 1024);
    feed_destroy(feed);
}

SUITE(feed_text, test_template_size, test_bsmtp_size, test_same_seed_same_bytes, test_zipf,
      test_spread, test_same_template)
