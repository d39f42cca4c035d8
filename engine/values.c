/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/values.h"

#include "engine/base/text.h"
#include "queue/recipient.h"

static const struct span NOT_GIVEN = {.at = NULL, .size = 0};

static struct span of_manifest(const struct manifest *manifest, struct span name)
{
    for (uint32_t i = 0; i < manifest->vars_count; i++) {
        if (span_equal(span_of_text(manifest->vars[i].name), name)) {
            return span_of_text(manifest->vars[i].value);
        }
    }
    return NOT_GIVEN;
}

static struct span of_record(const struct scan_recipient *record, struct span name, uint8_t *hint)
{
    if (*hint < record->vars_count && span_equal(record->vars[*hint].name, name)) {
        return record->vars[*hint].value;
    }
    for (uint32_t i = 0; i < record->vars_count; i++) {
        if (span_equal(record->vars[i].name, name)) {
            *hint = (uint8_t)i;
            return record->vars[i].value;
        }
    }
    return NOT_GIVEN;
}

static struct span of_engine(const struct manifest *manifest, const struct scan_recipient *record,
                             struct span to, struct span name)
{
    if (span_equal(name, SPAN("_to"))) {
        return to;
    }
    if (span_equal(name, SPAN("_id"))) {
        return record->id;
    }
    return span_equal(name, SPAN("_batch")) ? span_of_text(manifest->id) : NOT_GIVEN;
}

struct span values_address(struct span to, struct span domain, char room[SMTP_ADDRESS_MAX])
{
    const char *at = text_is_ascii(to) ? NULL : memrchr(to.at, '@', to.size);
    if (at == NULL) {
        return to;
    }
    struct writer writer = writer_of(room, SMTP_ADDRESS_MAX);
    writer_put(&writer, span_of(to.at, (size_t)(at + 1 - to.at)));
    writer_put(&writer, domain);
    return writer_span(&writer);
}

void values_fill(const struct template *template, const struct manifest *manifest,
                 const struct scan_recipient *record, struct span to, uint8_t *hints,
                 struct span *ret_values)
{
    uint32_t count = template_vars_count(template);
    ensure(count <= TEMPLATE_VARS_MAX);
    for (uint32_t i = 0; i < count; i++) {
        struct span name = template_var_name(template, i);
        struct span value = NOT_GIVEN;
        if (name.size > 0 && name.at[0] == '_') {
            value = of_engine(manifest, record, to, name);
        }
        if (value.at == NULL) {
            value = of_record(record, name, &hints[i]);
        }
        ret_values[i] = value.at != NULL ? value : of_manifest(manifest, name);
    }
}

void values_put_missing(struct writer *writer, unsigned adds, const struct manifest *manifest,
                        struct wall_time accepted_at, uint64_t offset, const char *hostname)
{
    if ((adds & RECIPIENT_ADD_DATE) != 0) {
        writer_put(writer, SPAN("Date: "));
        text_put_rfc5322(writer, accepted_at);
        writer_put(writer, SPAN("\r\n"));
    }
    if ((adds & RECIPIENT_ADD_MESSAGE_ID) != 0) {
        writer_put(writer, SPAN("Message-ID: <"));
        writer_put(writer, span_of_text(manifest->id));
        writer_put_byte(writer, '.');
        text_put_hex64(writer, (uint64_t)accepted_at.ns);
        writer_put_byte(writer, '.');
        writer_put_uint(writer, offset);
        writer_put_byte(writer, '@');
        writer_put(writer, span_of_text(hostname));
        writer_put(writer, SPAN(">\r\n"));
    }
}

struct render_input values_input(const struct manifest *manifest, const struct span *values,
                                 uint32_t ordinal)
{
    static const enum template_missing MISSING[] = {
        [MANIFEST_MISSING_REJECT] = TEMPLATE_MISSING_REJECT,
        [MANIFEST_MISSING_EMPTY] = TEMPLATE_MISSING_EMPTY,
        [MANIFEST_MISSING_LITERAL] = TEMPLATE_MISSING_LITERAL,
    };
    return (struct render_input){
        .values = values,
        .ordinal = ordinal,
        .missing = MISSING[manifest->missing],
    };
}
