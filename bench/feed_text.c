/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/feed_text.h"

#include <math.h>
#include <stdlib.h>

#include "bench/program.h"

/* Text lines of 72 bytes with their CRLF. */
enum { LINE_SIZE = 72, WEIGHT_SCALE = 1000000000, DOMAIN_DIGITS = 4, NUMBER_DIGITS = 8 };

static const char *const VAR_NAMES[] = {"name", "code"};

struct feed *feed_create(const struct feed_config *config)
{
    struct feed *feed = malloc(sizeof(*feed));
    uint64_t *sums = calloc(config->domains_count, sizeof(*sums));
    char *filler = malloc(config->message_size + LINE_SIZE);
    if (!feed || !sums || !filler) {
        program_die("no memory");
    }
    ensure(config->domains_count >= 1 && config->domains_count <= FEED_DOMAINS_MAX);
    ensure(config->vars_count <= FEED_VARS_MAX);
    ensure(config->message_size >= FEED_MESSAGE_MIN);
    *feed = (struct feed){.config = *config, .sums = sums, .filler = filler};
    random_init_seed(&feed->random, config->seed);
    uint64_t sum = 0;
    for (uint32_t i = 0; i < config->domains_count; i++) {
        sum += 1 + (uint64_t)(WEIGHT_SCALE / pow(i + 1, config->zipf));
        sums[i] = sum;
    }
    for (uint64_t i = 0; i < config->message_size + LINE_SIZE; i++) {
        filler[i] = "newsletters say much in few words and few things in many words; "[i & 63];
    }
    return feed;
}

void feed_destroy(struct feed *feed)
{
    if (feed) {
        free(feed->sums);
        free(feed->filler);
        free(feed);
    }
}

static uint32_t domain_draw(struct feed *feed, uint64_t number)
{
    if (feed->config.is_spread) {
        return (uint32_t)((number - 1) % feed->config.domains_count);
    }
    uint64_t all = feed->sums[feed->config.domains_count - 1];
    uint64_t draw = (uint64_t)(((unsigned __int128)random_u64(&feed->random) * all) >> 64);
    uint32_t low = 0;
    uint32_t high = feed->config.domains_count - 1;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (draw < feed->sums[middle]) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return low;
}

static void put_address(struct feed *feed, uint64_t number, struct writer *writer)
{
    writer_put(writer, feed->config.local);
    writer_put_byte(writer, 'u');
    writer_put_uint_padded(writer, number, NUMBER_DIGITS);
    writer_put(writer, SPAN("@d"));
    writer_put_uint_padded(writer, domain_draw(feed, number) + 1, DOMAIN_DIGITS);
    writer_put_byte(writer, '.');
    writer_put(writer, feed->config.suffix);
}

static void put_var_name(uint32_t index, struct writer *writer)
{
    if (index < COUNT_OF(VAR_NAMES)) {
        writer_put(writer, span_of_text(VAR_NAMES[index]));
    } else {
        writer_put_byte(writer, 'v');
        writer_put_uint(writer, index + 1);
    }
}

static void put_value(struct feed *feed, struct writer *writer)
{
    static const char SYLLABLES[] = "AnBeCoDuElFiGoHaIlJuKaLeMiNoOrPa";
    uint64_t bits = random_u64(&feed->random);
    for (uint32_t i = 0; i < FEED_VALUE_SIZE / 2; i++) {
        writer_put(writer, span_of(SYLLABLES + (bits & 15) * 2, 2));
        bits >>= 4;
    }
}

void feed_put_recipient(struct feed *feed, uint64_t number, struct writer *writer)
{
    writer_put(writer, SPAN("{\"to\":\""));
    put_address(feed, number, writer);
    writer_put_byte(writer, '"');
    for (uint32_t i = 0; i < feed->config.vars_count; i++) {
        writer_put(writer, i == 0 ? SPAN(",\"vars\":{\"") : SPAN(",\""));
        put_var_name(i, writer);
        writer_put(writer, SPAN("\":\""));
        put_value(feed, writer);
        writer_put_byte(writer, '"');
    }
    writer_put(writer, feed->config.vars_count > 0 ? SPAN("}}\n") : SPAN("}\n"));
}

/* Lines of text, `size` bytes in all with their CRLF. */
static void put_filler(struct feed *feed, uint64_t size, struct writer *writer)
{
    while (size > 0) {
        uint64_t line_size = size < LINE_SIZE + 3 ? size : LINE_SIZE;
        ensure(line_size >= 2);
        writer_put(writer, span_of(feed->filler, line_size - 2));
        writer_put(writer, SPAN("\r\n"));
        size -= line_size;
    }
}

static void put_header(struct feed *feed, struct writer *writer)
{
    writer_put(writer, SPAN("From: News <news@"));
    writer_put(writer, feed->config.suffix);
    writer_put(writer, SPAN(">\r\n"));
}

void feed_put_template(struct feed *feed, struct writer *writer)
{
    size_t start = writer_size(writer);
    size_t values_size = 0; /* what the values add to the text of their places */
    put_header(feed, writer);
    writer_put(writer,
               feed->config.is_same ? SPAN("To: readers:;\r\n") : SPAN("To: <{{_to}}>\r\n"));
    writer_put(writer, SPAN("Subject: News of the week\r\n\r\n"));
    uint32_t places_count = feed->config.is_same ? 0 : feed->config.vars_count;
    for (uint32_t i = 0; i < places_count; i++) {
        size_t place_start = writer_size(writer);
        writer_put(writer, SPAN("{{"));
        put_var_name(i, writer);
        writer_put(writer, SPAN("}}"));
        values_size += writer_size(writer) - place_start;
        writer_put(writer, SPAN("\r\n"));
    }
    uint64_t size =
        writer_size(writer) - start - values_size + (uint64_t)places_count * FEED_VALUE_SIZE;
    put_filler(feed, feed->config.message_size - size, writer);
}

void feed_put_bsmtp(struct feed *feed, uint64_t number, struct writer *writer)
{
    writer_put(writer, SPAN("MAIL FROM:<bounce@"));
    writer_put(writer, feed->config.suffix);
    writer_put(writer, SPAN(">\r\nRCPT TO:<"));
    put_address(feed, number, writer);
    writer_put(writer, SPAN(">\r\nDATA\r\n"));
    size_t start = writer_size(writer);
    put_header(feed, writer);
    writer_put(writer, SPAN("Date: Tue, 01 Dec 2026 08:00:00 +0000\r\nMessage-ID: <"));
    writer_put_uint_padded(writer, number, NUMBER_DIGITS);
    writer_put_byte(writer, '.');
    writer_put(writer, feed->config.batch);
    writer_put_byte(writer, '@');
    writer_put(writer, feed->config.suffix);
    writer_put(writer, SPAN(">\r\nSubject: News of the week\r\n\r\n"));
    for (uint32_t i = 0; i < feed->config.vars_count; i++) {
        put_value(feed, writer);
        writer_put(writer, SPAN("\r\n"));
    }
    put_filler(feed, feed->config.message_size - (writer_size(writer) - start), writer);
    writer_put(writer, SPAN(".\r\n"));
}

void feed_put_manifest(struct feed *feed, bool is_bsmtp, struct writer *writer)
{
    const struct feed_config *config = &feed->config;
    writer_put_format(writer, "{\"v\":1,\"id\":\"%.*s\",\"kind\":\"%s\",", (int)config->batch.size,
                      config->batch.at, is_bsmtp ? "bsmtp" : "merge");
    if (!is_bsmtp) {
        writer_put_format(writer,
                          "\"from\":\"bounce@%.*s\",\"message\":\"message.eml\","
                          "\"recipients\":\"recipients.ndjson\",",
                          (int)config->suffix.size, config->suffix.at);
    }
    writer_put_format(writer, "\"count\":%llu}\n", (unsigned long long)config->recipients_count);
}
