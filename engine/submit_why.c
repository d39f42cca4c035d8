/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/submit_why.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "engine/base/text.h"
#include "engine/status_ask.h"

static void put_waiting(struct writer *writer, json_t *status)
{
    json_t *health = json_object_get(status, "health");
    if (json_is_true(json_object_get(health, "short_of_space"))) {
        writer_put(writer, SPAN("nothing is claimed: the spool's file system is short of space"));
    } else if (json_is_true(json_object_get(health, "draining"))) {
        writer_put(writer, SPAN("nothing is claimed: the engine is stopping"));
    } else {
        writer_put(writer, SPAN("not claimed yet: the engine is full, or may not move it; its "
                                "standard error says so (journalctl -u ramjet)"));
    }
}

/* The site that most of the mail waits for, and has an error to tell of. */
static void put_active(struct writer *writer, json_t *status)
{
    json_int_t most = -1;
    json_t *found = NULL;
    size_t index;
    json_t *site;
    json_array_foreach(json_object_get(status, "sites"), index, site)
    {
        const char *error = json_string_value(json_object_get(site, "last_error"));
        json_int_t backlog = json_integer_value(json_object_get(site, "backlog"));
        if (error != NULL && error[0] != '\0' && backlog > most) {
            most = backlog;
            found = site;
        }
    }
    if (found != NULL) {
        const char *name = json_string_value(json_object_get(found, "site"));
        writer_put(writer, SPAN("last error of "));
        text_put_escaped(writer, span_of_text(name != NULL ? name : "a site"));
        writer_put(writer, SPAN(": "));
        const char *error = json_string_value(json_object_get(found, "last_error"));
        text_put_escaped(writer, span_of_text(error));
        return;
    }
    const json_t *queue = json_object_get(status, "queue");
    json_int_t asking = json_integer_value(json_object_get(queue, "domain"));
    json_int_t retry = json_integer_value(json_object_get(queue, "retry"));
    if (asking > 0) {
        writer_put_format(writer, "%lld recipients wait for an answer of DNS", (long long)asking);
    } else if (retry > 0) {
        writer_put(writer, SPAN("what is left was put off, and waits for its next attempt: the "
                                "last lines of events.ndjson in the log say why"));
    }
}

void submit_why_find(const char *control_socket, enum submit_state state, char *ret_words,
                     size_t size)
{
    struct writer writer = writer_of(ret_words, size - 1);
    json_t *status = NULL;
    int result = status_ask(control_socket, &status);
    if (result == -EACCES) {
        writer_put_format(&writer, "why is not known: you may not ask %s", control_socket);
    } else if (result != 0) {
        writer_put_format(&writer, "no engine answers on %s: %s", control_socket,
                          strerror(-result));
    } else if (state == SUBMIT_WAITING) {
        put_waiting(&writer, status);
    } else if (state == SUBMIT_ACTIVE) {
        put_active(&writer, status);
    }
    *writer.at = '\0';
    json_decref(status);
}
