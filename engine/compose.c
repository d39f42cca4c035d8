/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/compose.h"

#include <errno.h>

#include "engine/message/template.h"
#include "engine/smtp/smtp_address.h"
#include "engine/values.h"
#include "queue/scan.h"
#include "queue/scan_envelope.h"

uint32_t compose_buf_size(const struct config *config, uint32_t class)
{
    static const uint32_t SIZES[COMPOSE_BUF_CLASSES] = {
        2 * 1024, 16 * 1024 + 512, 128 * 1024, 2 * 1024 * 1024, 4 * 1024 * 1024,
    };
    ensure(class < COMPOSE_BUF_CLASSES);
    uint64_t whole = config->message_size_max + COMPOSE_SCRATCH_SIZE;
    bool is_larger = class == COMPOSE_BUF_CLASSES - 1 && whole > SIZES[class];
    return is_larger ? (uint32_t)whole : SIZES[class];
}

/* SMTP form of a message that is copied: at most so many pieces; beyond that it is sent in pieces
 * like a large one. */
enum { WIRE_PIECES_MAX = 128 };

static struct span problem_put(struct writer *problem, const char *words)
{
    writer_put(problem, span_of_text(words));
    return writer_span(problem);
}

/* The record of a merge recipient, parsed; what the parser found last is kept. */
static const struct scan_recipient *record_parse(struct worker *worker, const struct load *load,
                                                 uint32_t index, struct writer *ret_problem)
{
    if (worker->parsed_load == load && worker->parsed_index == index) {
        return worker->record;
    }
    struct scan_problem problem;
    worker->parsed_load = NULL;
    if (scan_record_recipient(worker->parser, load->batch->manifest->format, load->batch->columns,
                              load->records[index], worker->record, &problem) != 0) {
        (void)problem_put(ret_problem, problem.text);
        return NULL;
    }
    worker->parsed_load = load;
    worker->parsed_index = index;
    return worker->record;
}

/* As written when it is ASCII (A35); a domain in another script goes out as the A-label under which
 * it was counted (F3). */
static bool address_put(struct worker *worker, struct span to, const struct recipient *recipient,
                        struct attempt *attempt)
{
    struct writer writer = writer_of(attempt->address, sizeof(attempt->address));
    struct smtp_address address;
    enum smtp_address_reason reason = smtp_address_parse(to, &address);
    if (reason == SMTP_ADDRESS_OK) {
        writer_put(&writer, to);
    } else if (reason == SMTP_ADDRESS_DOMAIN_UTF8) {
        writer_put(&writer, address.local);
        writer_put_byte(&writer, '@');
        writer_put(&writer, domain_name_xcore(worker->engine->domains, recipient->domain));
    } else {
        return false;
    }
    attempt->address_size = (uint16_t)writer_size(&writer);
    return !writer.is_full;
}

enum compose_result compose_attempt(struct worker *worker, const struct load *load, uint32_t index,
                                    struct attempt *attempt, struct writer *ret_problem)
{
    const struct recipient *recipient = attempt->recipient;
    struct span to;
    struct span id = SPAN_NONE;
    if (load->batch->manifest->kind == MANIFEST_BSMTP) {
        struct scan_envelope envelope;
        struct scan_problem problem;
        if (scan_record_envelope(load->records[index], &envelope, &problem) != 0) {
            (void)problem_put(ret_problem, problem.text);
            return COMPOSE_BAD;
        }
        to = scan_envelope_rcpt(&envelope, recipient->rcpt_index);
    } else {
        const struct scan_recipient *record = record_parse(worker, load, index, ret_problem);
        if (record == NULL) {
            return COMPOSE_BAD;
        }
        to = span_trim(record->to);
        id = record->id;
    }
    if (!address_put(worker, to, recipient, attempt)) {
        (void)problem_put(ret_problem, "the address is not legal any more: the file has changed");
        return COMPOSE_BAD;
    }
    attempt->id_size = (uint8_t)(id.size < ATTEMPT_ID_MAX ? id.size : ATTEMPT_ID_MAX);
    memcpy(attempt->id, id.at, attempt->id_size);
    return COMPOSE_OK;
}

bool compose_is_same(const struct load *load, uint32_t a, uint32_t b)
{
    if (load->batch->manifest->kind == MANIFEST_BSMTP) {
        return load->recipients[a]->record_offset == load->recipients[b]->record_offset;
    }
    return template_is_constant(load->batch->template) && template_is_constant(load->batch->sender);
}

/* A buf that holds `size` bytes. */
static bool buf_take(struct delivery *delivery, uint64_t size)
{
    ensure(delivery->buf == NULL);
    for (uint8_t class = 0; class < COMPOSE_BUF_CLASSES; class ++) {
        if (size <= delivery->worker->bufs[class].slot_size) {
            delivery->buf = slab_take(&delivery->worker->bufs[class]);
            delivery->buf_class = class;
            delivery->buf_size = 0;
            delivery->worker->lacking = WANT_BUF + class;
            return delivery->buf != NULL;
        }
    }
    ensure(false);
    return false;
}

/* A small message: stuffed, terminated and copied into one buf. False: it has too many dots for
 * that. */
static enum compose_result copy_wire(struct delivery *delivery, const struct render_output *output,
                                     bool *ret_is_copied)
{
    struct smtp_body body = {0};
    struct span wire[WIRE_PIECES_MAX];
    size_t count =
        smtp_body_stuff(&body, output->pieces, output->pieces_count, wire, WIRE_PIECES_MAX);
    *ret_is_copied = body.is_done;
    if (!body.is_done) {
        return COMPOSE_OK;
    }
    uint64_t size = 0;
    for (size_t i = 0; i < count; i++) {
        size += wire[i].size;
    }
    if (!buf_take(delivery, size)) {
        return COMPOSE_WAIT;
    }
    char *at = delivery->buf;
    for (size_t i = 0; i < count; i++) {
        memcpy(at, wire[i].at, wire[i].size);
        at += wire[i].size;
    }
    delivery->buf_size = (uint32_t)size;
    return COMPOSE_OK;
}

/* A large message: rendered again with a buf as scratch memory that lives as long as the pieces. */
static enum compose_result plan_wire(struct delivery *delivery, const struct load *load,
                                     uint32_t index, const struct render_input *input,
                                     struct template_problem *problem)
{
    struct plan *plan = slab_take(&delivery->worker->plans);
    if (plan == NULL) {
        delivery->worker->lacking = WANT_PLAN;
        return COMPOSE_WAIT;
    }
    delivery->plan = plan;
    memset(&plan->stuffing, 0, sizeof(plan->stuffing));
    for (uint8_t class = 1; class < COMPOSE_BUF_CLASSES; class ++) {
        size_t size = delivery->worker->bufs[class].slot_size;
        if (!buf_take(delivery, size)) {
            break;
        }
        struct render_output output = {.scratch = writer_of(delivery->buf, size)};
        int result = template_render(load->batch->template, input, &output, problem);
        if (result == 0) {
            if (class == COMPOSE_BUF_CLASSES - 1) {
                worker_whole_hold(delivery->worker, delivery, output.size,
                                  load->recipients[index]->attempts_count);
            }
            plan->pieces_count = output.pieces_count;
            memcpy(plan->pieces, output.pieces, output.pieces_count * sizeof(plan->pieces[0]));
            delivery->transaction.size = output.size;
            delivery->transaction.is_8bit = output.is_8bit;
            return COMPOSE_OK;
        }
        /* No sign of room: it is what this call took, and the sign would bring it here again. */
        slab_give(&delivery->worker->bufs[delivery->buf_class], delivery->buf);
        delivery->buf = NULL;
        if (result != -ENOSPC || class == COMPOSE_BUF_CLASSES - 1) {
            delivery_release_message(delivery);
            return COMPOSE_BAD;
        }
    }
    slab_give(&delivery->worker->plans, plan);
    delivery->plan = NULL;
    return COMPOSE_WAIT;
}

static enum compose_result compose_merge(struct delivery *delivery, const struct load *load,
                                         uint32_t index, struct writer *ret_problem)
{
    struct worker *worker = delivery->worker;
    const struct batch *batch = load->batch;
    if (record_parse(worker, load, index, ret_problem) == NULL) {
        return COMPOSE_BAD;
    }
    struct span values[TEMPLATE_VARS_MAX];
    struct render_input input =
        values_input(batch->manifest, values, load->recipients[index]->ordinal);
    input.is_7bit = (smtp_session_capabilities(&delivery->smtp)->bits & SMTP_CAN_8BIT) == 0;
    struct template_problem problem = {.line = 0};
    char room[SMTP_ADDRESS_MAX];
    uint32_t domain = load->recipients[index]->domain;
    struct span to = values_address(span_trim(worker->record->to),
                                    domain_name_xcore(worker->engine->domains, domain), room);
    values_fill(batch->sender, batch->manifest, worker->record, to, worker->var_hints, values);
    struct writer sender = writer_of(delivery->sender, sizeof(delivery->sender));
    if (template_render_line(batch->sender, &input, &sender, &problem) != 0) {
        (void)problem_put(ret_problem, problem.text);
        return COMPOSE_BAD;
    }
    delivery->transaction.sender = writer_span(&sender);
    struct smtp_address address;
    if (delivery->transaction.sender.size > 0 &&
        smtp_address_parse(delivery->transaction.sender, &address) != SMTP_ADDRESS_OK) {
        (void)problem_put(ret_problem, "the sender made for this recipient is not a legal address");
        return COMPOSE_BAD;
    }
    values_fill(batch->template, batch->manifest, worker->record, to, worker->var_hints, values);
    struct render_output output = {.scratch = writer_of(worker->scratch, COMPOSE_SCRATCH_SIZE)};
    int result = template_render(batch->template, &input, &output, &problem);
    if (result == 0 && output.is_utf8) { /* F1: SMTPUTF8 is not spoken */
        (void)problem_put(ret_problem, "its header holds text that is not ASCII where it cannot be "
                                       "encoded, such as an address: that needs SMTPUTF8, which "
                                       "this engine does not speak");
        return COMPOSE_BAD;
    }
    enum compose_result composed = COMPOSE_OK;
    bool is_copied = false;
    if (result == 0 && output.size <= COMPOSE_COPY_MAX) {
        delivery->transaction.size = output.size;
        delivery->transaction.is_8bit = output.is_8bit;
        composed = copy_wire(delivery, &output, &is_copied);
    }
    if ((result == 0 || result == -ENOSPC) && composed == COMPOSE_OK && !is_copied) {
        composed = plan_wire(delivery, load, index, &input, &problem);
    } else if (result != 0) {
        composed = COMPOSE_BAD;
    }
    if (composed == COMPOSE_BAD) {
        (void)problem_put(
            ret_problem, problem.text[0] != '\0' ? problem.text
                         : input.is_7bit ? "the message is over the size limit once its 8-bit text "
                                           "is encoded for a server without 8BITMIME"
                                         : "the message is too large with this recipient's values");
    }
    return composed == COMPOSE_BAD && input.is_7bit ? COMPOSE_DECLINED : composed;
}

/* BSMTP: the file's own bytes are the wire's; only fields that are missing go before them. */
static enum compose_result compose_bsmtp(struct delivery *delivery, const struct load *load,
                                         uint32_t index, struct writer *ret_problem)
{
    const struct recipient *recipient = load->recipients[index];
    struct scan_envelope envelope;
    struct scan_problem problem;
    if (scan_record_envelope(load->records[index], &envelope, &problem) != 0) {
        (void)problem_put(ret_problem, problem.text);
        return COMPOSE_BAD;
    }
    if (envelope.sender.size > sizeof(delivery->sender)) {
        (void)problem_put(ret_problem, "the sender is too long: the file has changed");
        return COMPOSE_BAD;
    }
    struct smtp_address address;
    if (!scan_envelope_body_is_sound(&envelope) ||
        (envelope.sender.size > 0 &&
         smtp_address_parse(envelope.sender, &address) != SMTP_ADDRESS_OK)) {
        (void)problem_put(ret_problem, "the sender or the text is not legal any more: the file has "
                                       "changed");
        return COMPOSE_BAD;
    }
    memcpy(delivery->sender, envelope.sender.at, envelope.sender.size);
    delivery->transaction.sender = span_of(delivery->sender, envelope.sender.size);
    delivery->record_body = envelope.body;
    delivery->is_record = true;
    delivery->transaction.is_8bit = (recipient->flags & RECIPIENT_8BIT) != 0;
    delivery->transaction.size = envelope.body.size;
    unsigned adds = recipient->flags & (RECIPIENT_ADD_DATE | RECIPIENT_ADD_MESSAGE_ID);
    if (adds == 0) {
        return COMPOSE_OK;
    }
    if (!buf_take(delivery, 512)) {
        return COMPOSE_WAIT;
    }
    struct writer prefix = writer_of(delivery->buf, 512);
    values_put_missing(&prefix, adds, load->batch->manifest, load->batch->accepted_at,
                       recipient->record_offset, delivery->worker->engine->config->hostname);
    ensure(!prefix.is_full);
    delivery->buf_size = (uint32_t)writer_size(&prefix);
    delivery->transaction.size += delivery->buf_size;
    return COMPOSE_OK;
}

enum compose_result compose_message(struct delivery *delivery, const struct load *load,
                                    uint32_t index, struct writer *ret_problem)
{
    ensure(delivery->stage == DELIVERY_IDLE);
    ensure(delivery->buf == NULL);
    ensure(delivery->plan == NULL);
    delivery->record_body = SPAN_NONE;
    delivery->is_record = false;
    if (load->batch->manifest->kind == MANIFEST_BSMTP) {
        return compose_bsmtp(delivery, load, index, ret_problem);
    }
    return compose_merge(delivery, load, index, ret_problem);
}
