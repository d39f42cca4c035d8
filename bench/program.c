/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/program.h"

#include <errno.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

void program_die(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    (void)fprintf(stderr, "%s: ", program_invocation_short_name);
    (void)vfprintf(stderr, format, list);
    (void)fprintf(stderr, "\n");
    va_end(list);
    exit(2);
}

uint64_t program_uint(const char *option, const char *text, uint64_t lowest, uint64_t highest)
{
    struct cursor cursor = cursor_of(span_of_text(text));
    uint64_t value;
    if (!cursor_take_uint(&cursor, highest, &value) || cursor_left(&cursor) > 0 || value < lowest) {
        program_die("%s: %s is not a number from %llu to %llu", option, text,
                    (unsigned long long)lowest, (unsigned long long)highest);
    }
    return value;
}

double program_real(const char *option, const char *text, double highest)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end != '\0' || !(value >= 0 && value <= highest)) {
        program_die("%s: %s is not a number from 0 to %g", option, text, highest);
    }
    return value;
}

struct net_addr program_addr(const char *option, const char *text, bool may_choose)
{
    struct net_addr addr;
    if (!net_addr_parse(span_of_text(text), &addr)) {
        program_die("%s: %s is not an address like 127.0.0.1:2525", option, text);
    }
    if (addr.port == 0 && !may_choose) {
        program_die("%s: %s has no port", option, text);
    }
    return addr;
}

static void cores_add(struct program_cores *cores, const char *option, uint64_t first,
                      uint64_t last)
{
    for (uint64_t id = first; id <= last; id++) {
        if (cores->count == PROGRAM_CORES_MAX) {
            program_die("%s: more than %d cores", option, PROGRAM_CORES_MAX);
        }
        cores->ids[cores->count++] = (uint16_t)id;
    }
}

struct program_cores program_cores(const char *option, const char *text)
{
    struct program_cores cores = {.count = 0};
    struct cursor cursor = cursor_of(span_of_text(text));
    do {
        uint64_t first, last;
        bool is_right = cursor_take_uint(&cursor, CPU_SETSIZE - 1, &first);
        last = first;
        if (is_right && cursor_take_byte(&cursor, '-')) {
            is_right = cursor_take_uint(&cursor, CPU_SETSIZE - 1, &last) && first <= last;
        }
        if (!is_right) {
            program_die("%s: %s is not a list of cores like 0,2,4-7", option, text);
        }
        cores_add(&cores, option, first, last);
    } while (cursor_take_byte(&cursor, ','));
    if (cursor_left(&cursor) > 0) {
        program_die("%s: %s is not a list of cores like 0,2,4-7", option, text);
    }
    return cores;
}

void program_pin(const struct program_cores *cores, uint32_t index)
{
    if (cores->count == 0) {
        return;
    }
    cpu_set_t set;
    uint16_t id = cores->ids[index % cores->count];
    CPU_ZERO(&set);
    CPU_SET(id, &set);
    if (sched_setaffinity(0, sizeof(set), &set) != 0) {
        program_die("core %u cannot be used here: %s", id, strerror(errno));
    }
}

void program_raise_files(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit); /* fewer files then show as refused connections */
    }
}
