/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/report.h"

#include "engine/base/text.h"

/* More than all keys and numbers of a line together: what foreign words must leave free, so that a
 * line always ends well. */
enum { RESERVE_SIZE = 704 };

static const char *const TYPES[] = {
    [OUTCOME_DELIVERED] = "Delivery",    [OUTCOME_DEFERRED] = "TransientFailure",
    [OUTCOME_BOUNCED] = "Bounce",        [OUTCOME_EXPIRED] = "Expiration",
    [OUTCOME_CANCELLED] = "AdminBounce",
};
_Static_assert(COUNT_OF(TYPES) == OUTCOME_CLASSES_COUNT, "a type for each class");

/* A value that would not fit is clipped; escaping makes at most six bytes of one. */
static void put_key_text(struct writer *writer, struct span key, struct span value)
{
    writer_put(writer, key);
    /* Word by word, not `= *writer`: a wide load of words that were stored just now waits for the
     * stores; that was 3 % of a worker. */
    size_t left = (size_t)(writer->end - writer->at);
    struct writer room = writer_of(writer->at, left > RESERVE_SIZE ? left - RESERVE_SIZE : 0);
    text_put_json(&room, value);
    if (room.is_full) {
        size_t size = left > RESERVE_SIZE + 2 ? (left - RESERVE_SIZE - 2) / 6 : 0;
        text_put_json(writer, span_of(value.at, size < value.size ? size : value.size));
        return;
    }
    writer->at = room.at;
}

static void put_response(struct writer *writer, const struct policy_response *response)
{
    writer_put(writer, SPAN(",\"response\":{\"code\":"));
    writer_put_uint(writer, response->code);
    if (response->enhanced.class != 0) {
        writer_put(writer, SPAN(",\"enhanced_code\":{\"class\":"));
        writer_put_uint(writer, response->enhanced.class);
        writer_put(writer, SPAN(",\"subject\":"));
        writer_put_uint(writer, response->enhanced.subject);
        writer_put(writer, SPAN(",\"detail\":"));
        writer_put_uint(writer, response->enhanced.detail);
        writer_put_byte(writer, '}');
    }
    put_key_text(writer, SPAN(",\"command\":"), span_of_text(response->command));
    put_key_text(writer, SPAN(",\"content\":"), response->content);
    writer_put_byte(writer, '}');
}

static void put_place(struct writer *writer, const struct outcome_place *place)
{
    if (place->peer_addr.size > 0) {
        put_key_text(writer, SPAN(",\"peer_address\":{\"name\":"), place->peer_name);
        put_key_text(writer, SPAN(",\"addr\":"), place->peer_addr);
        writer_put_byte(writer, '}');
        writer_put(writer, SPAN(",\"session_id\":\""));
        text_put_hex64(writer, place->session);
        writer_put_byte(writer, '"');
    }
    put_key_text(writer, SPAN(",\"egress_source\":"), place->source_name);
    if (place->source.family != NET_NONE) {
        char text[NET_ADDR_TEXT_MAX];
        struct writer address = writer_of(text, sizeof(text));
        net_addr_put(&address, &place->source);
        put_key_text(writer, SPAN(",\"source_address\":{\"address\":"), writer_span(&address));
        writer_put_byte(writer, '}');
    }
}

/* <batch number>-<ordinal>: unique in the life of a spool, a string because JSON readers lose
 * digits. */
static void put_id(struct writer *writer, const struct attempt *attempt)
{
    writer_put(writer, SPAN(",\"id\":\""));
    writer_put_uint(writer, attempt->batch->number);
    writer_put_byte(writer, '-');
    writer_put_uint(writer, attempt->recipient->ordinal);
    writer_put_byte(writer, '"');
}

/* RFC 3339 with milliseconds; date and second are made once a second. */
static void put_time(struct writer *writer, struct report_cache *cache, struct wall_time at)
{
    int64_t second = at.ns / NS_PER_S;
    if (second != cache->second) {
        char whole[40];
        struct writer text = writer_of(whole, sizeof(whole));
        text_put_rfc3339(&text, at);
        memcpy(cache->second_text, whole, sizeof(cache->second_text));
        cache->second = second;
    }
    uint32_t ms = (uint32_t)(at.ns / NS_PER_MS % 1000);
    const char tail[] = {'.', (char)('0' + ms / 100), (char)('0' + ms / 10 % 10),
                         (char)('0' + ms % 10), 'Z'};
    writer_put(writer, span_of(cache->second_text, 19));
    writer_put(writer, span_of(tail, sizeof(tail)));
}

static void put_created(struct writer *writer, struct report_cache *cache,
                        const struct batch *batch)
{
    if (cache->batch != batch || cache->batch_number != batch->number) {
        struct writer text = writer_of(cache->created_text, sizeof(cache->created_text));
        text_put_rfc3339(&text, batch->accepted_at);
        cache->created_size = (uint8_t)writer_size(&text);
        cache->batch = batch;
        cache->batch_number = batch->number;
    }
    writer_put(writer, span_of(cache->created_text, cache->created_size));
}

static void put_labels(struct writer *writer, const struct manifest *manifest)
{
    if (manifest->tenant != NULL) {
        put_key_text(writer, SPAN(",\"tenant\":"), span_of_text(manifest->tenant));
    }
    if (manifest->campaign != NULL) {
        put_key_text(writer, SPAN(",\"campaign\":"), span_of_text(manifest->campaign));
    }
}

void report_put_line(struct writer *writer, const struct engine *engine, struct report_cache *cache,
                     const struct attempt *attempt, const struct outcome *outcome,
                     uint32_t attempts_count, bool is_possible_duplicate, struct wall_time at)
{
    const struct outcome_place *place = &outcome->place;
    put_key_text(writer, SPAN("{\"type\":"), span_of_text(TYPES[outcome->class]));
    put_id(writer, attempt);
    put_key_text(writer, SPAN(",\"batch\":"), span_of_text(attempt->batch->manifest->id));
    writer_put(writer, SPAN(",\"line\":"));
    writer_put_uint(writer, (uint64_t)attempt->recipient->ordinal + 1);
    if (attempt->id_size > 0) {
        put_key_text(writer, SPAN(",\"recipient_id\":"), span_of(attempt->id, attempt->id_size));
    }
    if (place->sender.at != NULL) { /* else none was made: an empty one is the null path */
        put_key_text(writer, SPAN(",\"sender\":"), place->sender);
    }
    put_key_text(writer, SPAN(",\"recipient\":"), span_of(attempt->address, attempt->address_size));
    put_key_text(writer, SPAN(",\"queue\":"),
                 domain_name_xcore(engine->domains, attempt->recipient->domain));
    put_key_text(writer, SPAN(",\"site\":"), place->site);
    writer_put(writer, SPAN(",\"size\":"));
    writer_put_uint(writer, place->size);
    writer_put(writer, SPAN(",\"num_attempts\":"));
    writer_put_uint(writer, attempts_count);
    writer_put(writer, SPAN(",\"event_time\":\""));
    put_time(writer, cache, at);
    writer_put(writer, SPAN("\",\"created_time\":\""));
    put_created(writer, cache, attempt->batch);
    put_key_text(writer, SPAN("\",\"reason\":"), span_of_text(policy_reason_name(outcome->reason)));
    if (is_possible_duplicate || outcome->is_ambiguous) {
        writer_put(writer, SPAN(",\"possible_duplicate\":true"));
    }
    put_labels(writer, attempt->batch->manifest);
    put_response(writer, &outcome->response);
    put_place(writer, place);
    put_key_text(writer, SPAN(",\"nodeid\":"), span_of_text(engine->config->hostname));
    writer_put(writer, SPAN("}\n"));
    ensure(!writer->is_full);
}
