/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ramjet-wheel: how many deferrals a second the retry wheel takes in and gives out, and whether it
 * does so in the right second.
 *
 * Every thread pushes its share of the recipients, due at seconds drawn over the span; then the
 * seconds go by, as fast as all threads have emptied them. No engine, no clock: the wheel alone, in
 * memory as large as the engine's.
 *
 * Prints one line, with --json an object. Status 0; 1 when a recipient was lost or given out in a
 * wrong second; 2 when it could not run.
 */
#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench/program.h"
#include "engine/base/clock.h"
#include "engine/base/list.h"
#include "engine/base/random.h"
#include "queue/retry.h"

enum { THREADS_MAX = 64, START_S = 1000000000 };

struct wheel_part {
    pthread_t thread;
    struct wheel_program *program;
    uint32_t index;
    uint64_t taken_count;
    uint64_t wrong_count; /* given out in another second than the one they were due in */
    int64_t push_ns;      /* spent, waiting for the others left out */
    int64_t take_ns;
};

struct wheel_program {
    struct retry_wheel *wheel;
    struct recipient *recipients;
    uint64_t recipients_count;
    uint32_t span_s;
    uint32_t threads_count;
    bool is_json;
    struct program_cores cores;
    pthread_barrier_t barrier;
    struct wheel_part parts[THREADS_MAX];
};

static const char HELP[] = "usage: ramjet-wheel [options]\n"
                           "  --recipients N  (10000000)\n"
                           "  --span N        seconds over which they are due (7200)\n"
                           "  --threads N     (1)\n"
                           "  --cores LIST    cores to pin the threads to, like 0,2-3\n"
                           "  --json          the result as a JSON object\n";

static int64_t now_ns(void)
{
    return clock_mono(clock_system()).ns;
}

static void push_share(struct wheel_part *part)
{
    struct wheel_program *program = part->program;
    struct random random;
    random_init_seed(&random, part->index);
    uint64_t first = program->recipients_count * part->index / program->threads_count;
    uint64_t last = program->recipients_count * (part->index + 1) / program->threads_count;
    int64_t start = now_ns();
    for (uint64_t i = first; i < last; i++) {
        struct recipient *recipient = &program->recipients[i];
        recipient->due_s = START_S + 1 + random_below(&random, program->span_s);
        retry_push_xcore(program->wheel, recipient);
    }
    part->push_ns = now_ns() - start;
}

/* One second; what comes before its time goes back, as a worker does it. */
static void take_due(struct wheel_part *part, uint32_t now_s)
{
    struct retry_wheel *wheel = part->program->wheel;
    struct inbox_chain chain;
    inbox_chain_init(&chain);
    int64_t start = now_ns();
    while (retry_take_xcore(wheel, now_s, &chain)) {
        struct inbox_node *node;
        while ((node = inbox_chain_take(&chain)) != NULL) {
            struct recipient *recipient = CONTAINER_OF(node, struct recipient, node);
            if (recipient->due_s > now_s) {
                retry_push_xcore(wheel, recipient);
                continue;
            }
            part->taken_count++;
            part->wrong_count += now_s - recipient->due_s > 1;
        }
    }
    part->take_ns += now_ns() - start;
}

static void *part_run(void *argument)
{
    struct wheel_part *part = argument;
    struct wheel_program *program = part->program;
    program_pin(&program->cores, part->index);
    (void)pthread_barrier_wait(&program->barrier);
    push_share(part);
    /* Two seconds more: what met the moving hand is given out a second late. */
    for (uint32_t second = 1; second <= program->span_s + 2; second++) {
        (void)pthread_barrier_wait(&program->barrier);
        take_due(part, START_S + second);
    }
    return NULL;
}

static void options_read(struct wheel_program *program, int argc, char **argv)
{
    enum option_id { RECIPIENTS = 1, SPAN_S, THREADS, CORES, JSON, HELP_WANTED };
    static const struct option OPTIONS[] = {
        {"recipients", required_argument, NULL, RECIPIENTS},
        {"span", required_argument, NULL, SPAN_S},
        {"threads", required_argument, NULL, THREADS},
        {"cores", required_argument, NULL, CORES},
        {"json", no_argument, NULL, JSON},
        {"help", no_argument, NULL, HELP_WANTED},
        {NULL, 0, NULL, 0},
    };
    int id;
    while ((id = getopt_long(argc, argv, "", OPTIONS, NULL)) != -1) {
        switch (id) {
        case RECIPIENTS:
            program->recipients_count = program_uint("--recipients", optarg, 1, 1u << 30);
            break;
        case SPAN_S:
            program->span_s = (uint32_t)program_uint("--span", optarg, 1, 1 << 20);
            break;
        case THREADS:
            program->threads_count = (uint32_t)program_uint("--threads", optarg, 1, THREADS_MAX);
            break;
        case CORES:
            program->cores = program_cores("--cores", optarg);
            break;
        case JSON:
            program->is_json = true;
            break;
        case HELP_WANTED:
            (void)fputs(HELP, stdout);
            exit(0);
        default:
            program_die("try --help");
        }
    }
}

static int report(const struct wheel_program *program)
{
    uint64_t taken = 0;
    uint64_t wrong = 0;
    int64_t ns = 0;
    int64_t push_ns = 0;
    for (uint32_t i = 0; i < program->threads_count; i++) {
        taken += program->parts[i].taken_count;
        wrong += program->parts[i].wrong_count;
        push_ns += program->parts[i].push_ns;
        ns += program->parts[i].push_ns + program->parts[i].take_ns;
    }
    uint64_t lost = program->recipients_count - taken;
    double rate = (double)taken * 1e9 / (double)ns;
    (void)printf(program->is_json
                     ? "{\"recipients\":%" PRIu64 ",\"per_core_per_s\":%.0f,\"push_share\":%.2f,"
                       "\"lost\":%" PRIu64 ",\"wrong_second\":%" PRIu64 "}\n"
                     : "%" PRIu64 " in and out, %.0f a second a core (pushing: %.2f of the time), "
                       "%" PRIu64 " lost, %" PRIu64 " in a wrong second\n",
                 program->recipients_count, rate, (double)push_ns / (double)ns, lost, wrong);
    return lost > 0 || wrong > 0;
}

int main(int argc, char **argv)
{
    static struct wheel_program program = {
        .recipients_count = 10000000, .span_s = 7200, .threads_count = 1};
    options_read(&program, argc, argv);
    program.recipients = calloc(program.recipients_count, sizeof(*program.recipients));
    program.wheel = retry_wheel_create(START_S);
    if (program.recipients == NULL || program.wheel == NULL ||
        pthread_barrier_init(&program.barrier, NULL, program.threads_count) != 0) {
        program_die("no memory");
    }
    /* Touched before the clock runs: what is measured is the wheel, not the kernel's zeroing. */
    for (uint64_t i = 0; i < program.recipients_count; i++) {
        program.recipients[i].ordinal = (uint32_t)i;
    }
    for (uint32_t i = 0; i < program.threads_count; i++) {
        program.parts[i] = (struct wheel_part){.program = &program, .index = i};
        if (pthread_create(&program.parts[i].thread, NULL, part_run, &program.parts[i]) != 0) {
            program_die("no thread");
        }
    }
    for (uint32_t i = 0; i < program.threads_count; i++) {
        (void)pthread_join(program.parts[i].thread, NULL);
    }
    int status = report(&program);
    retry_wheel_destroy(program.wheel, status != 0);
    free(program.recipients);
    return status;
}
