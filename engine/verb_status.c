/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/verbs.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/config.h"
#include "engine/status_ask.h"

enum { DAY_S = 86400 };

static long long number(json_t *object, const char *key)
{
    return (long long)json_integer_value(json_object_get(object, key));
}

static double real(json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

static void print_row(const char *name, json_t *totals, json_t *second, json_t *minute)
{
    (void)printf("  %-10s %14lld %12.0f %12.0f\n", name, number(totals, name), real(second, name),
                 real(minute, name));
}

static void print_head(json_t *status)
{
    long long up_s = number(status, "uptime_s");
    (void)printf("%s   %lld workers, %lld connections, up ",
                 json_string_value(json_object_get(status, "node")), number(status, "workers"),
                 number(status, "sessions"));
    if (up_s >= DAY_S) {
        (void)printf("%lld d ", up_s / DAY_S);
    }
    (void)printf("%02lld:%02lld:%02lld\n\n", up_s % DAY_S / 3600, up_s % 3600 / 60, up_s % 60);
}

/* Those that were set aside for people. */
static void print_batches(json_t *status)
{
    json_t *totals = json_object_get(status, "totals");
    (void)printf("  batches: %lld under way, %lld done", number(status, "batches"),
                 number(totals, "batches_done"));
    if (number(totals, "batches_failed") > 0) {
        (void)printf(", %lld failed, %lld of them in hold/: reason.txt beside each says why",
                     number(totals, "batches_failed"), number(totals, "batches_held"));
    }
    (void)printf("\n");
}

static void print_sites(json_t *sites)
{
    size_t index;
    json_t *site;
    if (json_array_size(sites) > 0) {
        (void)printf("\n  %-40s %9s %6s %10s %9s %8s  %s\n", "site", "backlog", "conns",
                     "delivered", "deferred", "bounced", "last error");
    }
    json_array_foreach(sites, index, site)
    {
        (void)printf("  %-40.40s %9lld %6lld %10lld %9lld %8lld  ",
                     json_string_value(json_object_get(site, "site")), number(site, "backlog"),
                     number(site, "sessions"), number(site, "delivered"), number(site, "deferred"),
                     number(site, "bounced"));
        if (number(site, "suspended_ms") > 0) {
            (void)printf("(rests %lld s) ", (number(site, "suspended_ms") + 999) / 1000);
        }
        (void)printf("%s\n", json_string_value(json_object_get(site, "last_error")));
    }
}

static void print_text(json_t *status)
{
    json_t *totals = json_object_get(status, "totals");
    json_t *second = json_object_get(status, "rate_1s");
    json_t *minute = json_object_get(status, "rate_1m");
    json_t *queue = json_object_get(status, "queue");
    json_t *health = json_object_get(status, "health");
    print_head(status);
    (void)printf("  %-10s %14s %12s %12s\n", "", "total", "/s now", "/s 1 min");
    static const char *const ROWS[] = {"accepted", "delivered", "deferred", "bounced"};
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        print_row(ROWS[i], totals, second, minute);
    }
    (void)printf("  %-10s %14lld\n  %-10s %14lld\n  %-10s %14lld\n", "expired",
                 number(totals, "expired"), "cancelled", number(totals, "cancelled"), "rejected",
                 number(totals, "rejected"));
    print_batches(status);
    (void)printf("\n  waiting: %lld for DNS, %lld ready, %lld loading, %lld in flight, "
                 "%lld for the journal, %lld to be retried\n",
                 number(queue, "domain"), number(queue, "ready"), number(queue, "loading"),
                 number(queue, "flight"), number(queue, "journal"), number(queue, "retry"));
    if (json_is_true(json_object_get(health, "short_of_space"))) {
        (void)printf("  NOTHING IS CLAIMED: the spool's file system is short of space\n");
    }
    if (number(health, "results_waiting") > 0) {
        (void)printf("  RESULTS CANNOT BE WRITTEN of %lld batches, which wait in active/: is the "
                     "disk full?\n",
                     number(health, "results_waiting"));
    }
    if (number(health, "results_held") > 0) {
        (void)printf("  NOTHING MORE IS SENT of %lld of them: too many lines wait\n",
                     number(health, "results_held"));
    }
    if (number(health, "results_unread") > 0) {
        (void)printf("  RESULTS CANNOT BE READ of %lld batches, which wait: standard error, or the "
                     "system's journal, names a file and what to do\n",
                     number(health, "results_unread"));
    }
    if (json_is_true(json_object_get(health, "draining"))) {
        (void)printf("  stopping: waiting for messages whose end was sent\n");
    }
    print_sites(json_object_get(status, "sites"));
}

int verb_status(int count, char **words)
{
    const char *path = NULL;
    bool is_json = false;
    for (int i = 0; i < count; i++) {
        if (strcmp(words[i], "--json") == 0) {
            is_json = true;
        } else if (strcmp(words[i], "-c") == 0 && i + 1 < count) {
            path = words[++i];
        } else {
            (void)fprintf(stderr, "usage: ramjet status [-c FILE] [--json]\n");
            return 2;
        }
    }
    struct config *config = verbs_config_read(path);
    if (config == NULL) {
        return 1;
    }
    json_t *status = NULL;
    int result = status_ask(config->control_socket, &status);
    if (status == NULL) {
        (void)fprintf(stderr,
                      "ramjet: no engine answers on %s%s%s; does one run with this configuration "
                      "(-c FILE), and may you read its socket?\n",
                      config->control_socket, result != 0 ? ": " : "",
                      result != 0 ? strerror(-result) : "");
    } else if (is_json) {
        (void)json_dumpf(status, stdout, JSON_INDENT(2));
        (void)printf("\n");
    } else {
        print_text(status);
    }
    bool is_well = status != NULL;
    json_decref(status);
    config_destroy(config);
    return is_well ? 0 : 1;
}
