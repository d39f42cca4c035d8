/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/record_check.h"

#include <errno.h>
#include <idn2.h>
#include <stdio.h>

#include "engine/base/text.h"
#include "engine/smtp/smtp.h"
#include "engine/smtp/smtp_address.h"
#include "engine/values.h"
#include "queue/recipient.h"

static int refuse(struct record_reject *reject, const char *reason, const char *remedy)
{
    (void)snprintf(reject->reason, sizeof(reject->reason), "%s", reason);
    reject->remedy = remedy;
    return -EINVAL;
}

/* F3: the domain as A-labels, under which it is looked up and written. */
static int to_ascii(const struct smtp_address *address, struct record_domain *ret_domain,
                    struct record_reject *ret_reject)
{
    static const char REMEDY[] = "write a legal domain name";
    char domain[DOMAIN_NAME_MAX + 1];
    char *ascii = NULL;
    if (address->domain.size > DOMAIN_NAME_MAX) {
        return refuse(ret_reject, smtp_address_reason_text(SMTP_ADDRESS_DOMAIN_TOO_LONG), REMEDY);
    }
    memcpy(domain, address->domain.at, address->domain.size);
    domain[address->domain.size] = '\0';
    int result = idn2_lookup_u8((const uint8_t *)domain, (uint8_t **)&ascii,
                                IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL);
    if (result != IDN2_OK) {
        return refuse(ret_reject, idn2_strerror(result), REMEDY);
    }
    struct span name = span_of_text(ascii);
    enum smtp_address_reason reason = smtp_address_check_domain(name);
    if (reason == SMTP_ADDRESS_OK && address->local.size + 1 + name.size > SMTP_ADDRESS_MAX) {
        reason = SMTP_ADDRESS_TOO_LONG; /* A24, and it is this form that goes over the wire */
    }
    if (reason == SMTP_ADDRESS_OK) {
        memcpy(ret_domain->ascii, ascii, name.size + 1);
        ret_domain->name = span_of(ret_domain->ascii, name.size);
    }
    idn2_free(ascii);
    return reason == SMTP_ADDRESS_OK ? 0
                                     : refuse(ret_reject, smtp_address_reason_text(reason), REMEDY);
}

int record_check_address(struct span text, struct record_domain *ret_domain,
                         struct record_reject *ret_reject)
{
    struct smtp_address address;
    enum smtp_address_reason reason = smtp_address_parse(text, &address);
    if (reason == SMTP_ADDRESS_OK) {
        ret_domain->name = address.domain;
        return 0;
    }
    if (reason == SMTP_ADDRESS_DOMAIN_UTF8) {
        return to_ascii(&address, ret_domain, ret_reject);
    }
    return refuse(ret_reject, smtp_address_reason_text(reason),
                  "write a plain mailbox such as ann@example.org");
}

/* The sender as it will be written; empty is the null path. */
static int check_rendered_sender(const struct template *sender, const struct render_input *input,
                                 struct record_reject *ret_reject)
{
    char text[MANIFEST_FROM_MAX];
    struct writer writer = writer_of(text, sizeof(text));
    struct template_problem problem = {.line = 0};
    struct smtp_address address;
    int result = template_render_line(sender, input, &writer, &problem);
    if (result == -EINVAL) {
        return refuse(ret_reject, problem.text, "mend \"from\" in batch.json, or the variable");
    }
    enum smtp_address_reason reason = SMTP_ADDRESS_TOO_LONG;
    if (result == 0) {
        reason = writer_size(&writer) == 0 ? SMTP_ADDRESS_OK
                                           : smtp_address_parse(writer_span(&writer), &address);
    }
    if (reason == SMTP_ADDRESS_OK) {
        return 0;
    }
    (void)snprintf(ret_reject->reason, sizeof(ret_reject->reason), "the sender: %s",
                   smtp_address_reason_text(reason));
    ret_reject->remedy = "\"from\" in batch.json must become a legal mailbox, or nothing";
    return -EINVAL;
}

int record_check_sender(const struct template *sender, struct record_reject *ret_reject)
{
    if (template_vars_count(sender) > 0) {
        return 0;
    }
    struct span no_value = SPAN_NONE;
    const struct render_input input = {.values = &no_value, .ordinal = UINT32_MAX};
    return check_rendered_sender(sender, &input, ret_reject);
}

int record_check_values(const struct template *sender, const struct template *template,
                        const struct manifest *manifest, const struct scan_recipient *record,
                        uint32_t ordinal, uint8_t *hints, struct record_reject *ret_reject)
{
    static const char REMEDY[] =
        "give the variable, a default ({{name|text}}), or \"missing\": \"empty\"";
    const struct template *const templates[] = {sender, template};
    char room[SMTP_ADDRESS_MAX];
    struct span to = span_trim(record->to);
    if (!text_is_ascii(to)) {
        struct record_domain domain;
        if (record_check_address(to, &domain, ret_reject) != 0) {
            return -EINVAL;
        }
        to = values_address(to, domain.name, room);
    }
    for (size_t i = 0; i < COUNT_OF(templates); i++) {
        struct span values[TEMPLATE_VARS_MAX];
        struct template_problem problem = {.line = 0};
        if (template_vars_count(templates[i]) == 0) {
            continue;
        }
        values_fill(templates[i], manifest, record, to, hints, values);
        struct render_input input = values_input(manifest, values, ordinal);
        int result = template_check(templates[i], &input, &problem);
        if (result != 0) {
            (void)refuse(ret_reject, problem.text, result == -ENOMEM ? "try again" : REMEDY);
            return result;
        }
        if (i == 0 && check_rendered_sender(sender, &input, ret_reject) != 0) {
            return -EINVAL;
        }
    }
    return 0;
}

int record_check_message(const struct scan_message *message, struct record_reject *ret_reject)
{
    struct smtp_address address;
    if (message->sender.size == 0) {
        return 0;
    }
    enum smtp_address_reason reason = smtp_address_parse(message->sender, &address);
    return reason == SMTP_ADDRESS_OK
               ? 0
               : refuse(ret_reject, smtp_address_reason_text(reason),
                        "the sender in MAIL FROM must be a legal mailbox or <>");
}

/* Whether the header holds the field; `name` with its colon. */
static bool has_field(struct span text, struct span name)
{
    struct cursor cursor = cursor_of(text);
    struct span line;
    while (cursor_take_line(&cursor, &line) && line.size > 0) {
        if (span_starts_nocase(line, name)) {
            return true;
        }
    }
    return false;
}

uint16_t record_message_flags(const struct scan_message *message)
{
    uint16_t flags = message->is_8bit ? RECIPIENT_8BIT : 0;
    flags |= has_field(message->body, SPAN("Date:")) ? 0 : RECIPIENT_ADD_DATE;
    flags |= has_field(message->body, SPAN("Message-ID:")) ? 0 : RECIPIENT_ADD_MESSAGE_ID;
    return flags;
}

bool record_is_named_before(const struct scan_message *message, uint32_t index)
{
    ensure(index < message->rcpts_count);
    for (uint32_t i = 0; i < index; i++) {
        if (span_equal(message->rcpts[i], message->rcpts[index])) {
            return true;
        }
    }
    return false;
}

int record_check_batch(const struct manifest *manifest, uint64_t recipients_count,
                       uint64_t rejected_count, const char *rejects, struct writer *ret_words)
{
    uint64_t all = recipients_count + rejected_count;
    if (manifest->count != 0 && manifest->count != all) {
        writer_put_format(ret_words, "batch.json: count says %llu, the file has %llu recipients",
                          (unsigned long long)manifest->count, (unsigned long long)all);
        return -EINVAL;
    }
    if (!manifest_allows_rejects(manifest, rejected_count, all)) {
        writer_put_format(ret_words,
                          "%llu of %llu recipients were rejected, more than max_reject allows: "
                          "mend what %s tells, or raise max_reject (in batch.json, or "
                          "ramjet submit --max-reject)",
                          (unsigned long long)rejected_count, (unsigned long long)all, rejects);
        return -EINVAL;
    }
    if (recipients_count == 0) {
        writer_put_format(ret_words, "no recipient in it%s%s",
                          rejected_count > 0 ? ": all were rejected, see " : "",
                          rejected_count > 0 ? rejects : "");
        return -EINVAL;
    }
    return 0;
}
