/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/submit_show.h"

#include "engine/base/text.h"

enum { BAR_ID_MAX = 24, BAR_MIN = 4 };

static const char *const STATE_NAMES[] = {
    [SUBMIT_UNKNOWN] = "unknown", [SUBMIT_WAITING] = "waiting", [SUBMIT_ACTIVE] = "active",
    [SUBMIT_HELD] = "held",       [SUBMIT_DONE] = "done",       [SUBMIT_FAILED] = "failed",
};
_Static_assert(COUNT_OF(STATE_NAMES) == SUBMIT_FAILED + 1, "a name for each state");

const char *submit_show_state_name(enum submit_state state)
{
    ensure((unsigned)state < COUNT_OF(STATE_NAMES));
    return STATE_NAMES[state];
}

bool submit_show_is_end(enum submit_state state)
{
    return state == SUBMIT_DONE || state == SUBMIT_FAILED || state == SUBMIT_HELD;
}

static uint64_t settled(const struct submit_status *status)
{
    return status->delivered + status->bounced + status->expired + status->cancelled;
}

int submit_show_exit_status(const struct submit_status *status)
{
    if (status->state != SUBMIT_DONE) {
        return SUBMIT_EXIT_FAILED;
    }
    bool is_all = status->has_counts && status->rejected == 0 &&
                  status->delivered == status->accepted && settled(status) == status->accepted;
    return is_all ? SUBMIT_EXIT_DELIVERED : SUBMIT_EXIT_NOT_ALL;
}

static void put_count(struct writer *writer, uint64_t count, const char *what)
{
    writer_put(writer, SPAN(", "));
    writer_put_uint(writer, count);
    writer_put_byte(writer, ' ');
    writer_put(writer, span_of_text(what));
}

void submit_show_put_line(struct writer *writer, const char *id, const struct submit_status *status)
{
    writer_put_format(writer, "%s: %s", id, submit_show_state_name(status->state));
    if (status->has_counts) {
        writer_put_format(writer, ": %llu of %llu settled", (unsigned long long)settled(status),
                          (unsigned long long)status->accepted);
        put_count(writer, status->delivered, "delivered");
        put_count(writer, status->bounced, "bounced");
        put_count(writer, status->expired, "expired");
        put_count(writer, status->cancelled, "cancelled");
        put_count(writer, status->rejected, "rejected");
        if (status->state == SUBMIT_ACTIVE) {
            put_count(writer, status->deferred, "deferrals");
            writer_put_format(writer, ", %.0f/s", status->rate_1m);
        }
    }
    if (status->reason[0] != '\0') {
        writer_put(writer, SPAN(": "));
        text_put_escaped(writer, span_of_text(status->reason));
    }
    writer_put_byte(writer, '\n');
}

static void put_eta(struct writer *writer, int64_t eta_s)
{
    if (eta_s < 0) {
        return;
    }
    if (eta_s < 60) {
        writer_put_format(writer, ", %llds left", (long long)eta_s);
    } else if (eta_s < 3600) {
        writer_put_format(writer, ", %lldm%02llds left", (long long)(eta_s / 60),
                          (long long)(eta_s % 60));
    } else {
        writer_put_format(writer, ", %lldh%02lldm left", (long long)(eta_s / 3600),
                          (long long)(eta_s / 60 % 60));
    }
}

/* What stands behind the bar. */
static void put_bar_tail(struct writer *writer, const struct submit_status *status)
{
    if (!status->has_counts) {
        writer_put_format(writer, " %s", submit_show_state_name(status->state));
        return;
    }
    writer_put_format(writer, " %llu/%llu", (unsigned long long)settled(status),
                      (unsigned long long)status->accepted);
    writer_put_format(writer, " %.0f/s", status->rate_1m);
    put_eta(writer, status->eta_s);
    if (status->bounced + status->expired > 0) {
        put_count(writer, status->bounced + status->expired, "bounced");
    }
    if (status->rejected > 0) {
        put_count(writer, status->rejected, "rejected");
    }
    if (submit_show_is_end(status->state)) {
        writer_put_format(writer, ", %s", submit_show_state_name(status->state));
    }
}

void submit_show_put_bar(struct writer *writer, const char *id, const struct submit_status *status,
                         unsigned columns)
{
    char head_text[64];
    char tail_text[256];
    struct writer head = writer_of(head_text, sizeof(head_text));
    struct writer tail = writer_of(tail_text, sizeof(tail_text));
    uint64_t done = settled(status);
    uint64_t share = 0; /* in thousandths */
    if (status->has_counts && status->accepted > 0) {
        share = done >= status->accepted
                    ? 1000
                    : (uint64_t)((double)done * 1000 / (double)status->accepted);
    }
    columns = columns < SUBMIT_SHOW_COLUMNS_MAX ? columns : SUBMIT_SHOW_COLUMNS_MAX;
    size_t room = columns > 0 ? columns - 1 : 0;
    writer_put_format(&head, "%.*s %3llu%% ", BAR_ID_MAX, id, (unsigned long long)(share / 10));
    put_bar_tail(&tail, status);
    size_t around = writer_size(&head) + writer_size(&tail) + 2;
    char text[SUBMIT_SHOW_COLUMNS_MAX + sizeof(head_text) + sizeof(tail_text)];
    struct writer line = writer_of(text, sizeof(text));
    writer_put(&line, writer_span(&head));
    if (around + BAR_MIN <= room) {
        size_t bar = room - around;
        size_t full = bar * share / 1000;
        writer_put_byte(&line, '[');
        for (size_t i = 0; i < bar; i++) {
            writer_put_byte(&line, i < full ? '#' : '-');
        }
        writer_put_byte(&line, ']');
    }
    writer_put(&line, writer_span(&tail));
    ensure(!line.is_full);
    size_t size = writer_size(&line) < room ? writer_size(&line) : room;
    writer_put(writer, span_of(text, size));
}

static void put_member(struct writer *writer, const char *name, uint64_t value)
{
    writer_put_format(writer, ",\"%s\":%llu", name, (unsigned long long)value);
}

void submit_show_put_json(struct writer *writer, const char *id, const struct submit_status *status)
{
    writer_put_format(writer, "{\"id\":\"%s\",\"state\":\"%s\",\"path\":", id,
                      submit_show_state_name(status->state));
    text_put_json(writer, span_of_text(status->path));
    if (status->has_counts) {
        put_member(writer, "total", status->records);
        put_member(writer, "accepted", status->accepted);
        put_member(writer, "rejected", status->rejected);
        put_member(writer, "pending", status->pending);
        put_member(writer, "in_flight", status->in_flight);
        put_member(writer, "deferred", status->deferred);
        put_member(writer, "delivered", status->delivered);
        put_member(writer, "bounced", status->bounced);
        put_member(writer, "expired", status->expired);
        put_member(writer, "cancelled", status->cancelled);
        put_member(writer, "possible_duplicates", status->possible_duplicates);
        writer_put_format(writer, ",\"rate_1m\":%.1f,\"eta_s\":", status->rate_1m);
        if (status->eta_s < 0) {
            writer_put(writer, SPAN("null"));
        } else {
            writer_put_uint(writer, (uint64_t)status->eta_s);
        }
    }
    if (status->reason[0] != '\0') {
        writer_put(writer, SPAN(",\"reason\":"));
        text_put_json(writer, span_of_text(status->reason));
    }
    writer_put(writer, SPAN("}\n"));
}
