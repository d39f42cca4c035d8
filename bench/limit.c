/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ramjet-limit: how many messages a second can go through this machine's TCP to a server at all. It
 * says the same bytes in the same round trips as the engine and knows nothing else
 * (bench/limit_load.h).
 *
 * Prints one line, with --json an object. Status 0; 1 when the dialogue broke or took too long; 2
 * when it could not run.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench/limit_load.h"

enum { PARTS_MAX = 256 };

struct limit_program {
    struct limit_config config;
    struct limit_part parts[PARTS_MAX];
    uint32_t threads_count;
    uint32_t connections_count;
    uint64_t messages_count;
    uint64_t message_size;
    double seconds_max;
    bool is_raw;
    bool is_json;
};

static const char HELP[] =
    "usage: ramjet-limit --to ADDR:PORT [options]\n"
    "  --messages N      messages in all (100000)\n"
    "  --size N          bytes of a message (1024)\n"
    "  --connections N   connections in all (64)\n"
    "  --threads N       threads, each with its own loop (1)\n"
    "  --cores LIST      cores to pin the threads to, like 0,2-3\n"
    "  --seconds N       give up after so long (60)\n"
    "  --raw             over a bare ring instead of the engine's transport\n"
    "  --json            the result as a JSON object\n";

enum option_id {
    OPTION_TO = 1,
    OPTION_MESSAGES,
    OPTION_SIZE,
    OPTION_CONNECTIONS,
    OPTION_THREADS,
    OPTION_CORES,
    OPTION_SECONDS,
    OPTION_RAW,
    OPTION_JSON,
    OPTION_HELP,
};

static const struct option OPTIONS[] = {
    {"to", required_argument, NULL, OPTION_TO},
    {"messages", required_argument, NULL, OPTION_MESSAGES},
    {"size", required_argument, NULL, OPTION_SIZE},
    {"connections", required_argument, NULL, OPTION_CONNECTIONS},
    {"threads", required_argument, NULL, OPTION_THREADS},
    {"cores", required_argument, NULL, OPTION_CORES},
    {"seconds", required_argument, NULL, OPTION_SECONDS},
    {"raw", no_argument, NULL, OPTION_RAW},
    {"json", no_argument, NULL, OPTION_JSON},
    {"help", no_argument, NULL, OPTION_HELP},
    {NULL, 0, NULL, 0},
};

static void option_apply(struct limit_program *program, enum option_id id, const char *text)
{
    switch (id) {
    case OPTION_TO:
        program->config.to = program_addr("--to", text, false);
        return;
    case OPTION_MESSAGES:
        program->messages_count = program_uint("--messages", text, 1, UINT64_MAX);
        return;
    case OPTION_SIZE:
        program->message_size = program_uint("--size", text, LIMIT_MESSAGE_MIN, 1 << 30);
        return;
    case OPTION_CONNECTIONS:
        program->connections_count = (uint32_t)program_uint("--connections", text, 1, 1 << 20);
        return;
    case OPTION_THREADS:
        program->threads_count = (uint32_t)program_uint("--threads", text, 1, PARTS_MAX);
        return;
    case OPTION_CORES:
        program->config.cores = program_cores("--cores", text);
        return;
    case OPTION_SECONDS:
        program->seconds_max = program_real("--seconds", text, 86400);
        return;
    case OPTION_RAW:
        program->is_raw = true;
        return;
    case OPTION_JSON:
        program->is_json = true;
        return;
    case OPTION_HELP:
        (void)fputs(HELP, stdout);
        exit(0);
    }
    program_die("try --help");
}

static void options_read(struct limit_program *program, int argc, char **argv)
{
    int id;
    while ((id = getopt_long(argc, argv, "", OPTIONS, NULL)) != -1) {
        option_apply(program, (enum option_id)id, optarg);
    }
    if (optind < argc) {
        program_die("%s: not an option; try --help", argv[optind]);
    }
    if (program->config.to.family == NET_NONE) {
        program_die("--to is missing; try --help");
    }
    if (program->connections_count < program->threads_count ||
        program->messages_count < program->connections_count) {
        program_die("need --threads <= --connections <= --messages");
    }
}

static void parts_run(struct limit_program *program)
{
    struct limit_config *config = &program->config;
    uint32_t count = program->threads_count;
    ensure(pthread_barrier_init(&config->ready, NULL, count) == 0);
    for (uint32_t i = 0; i < count; i++) {
        struct limit_part *part = &program->parts[i];
        part->config = config;
        part->index = i;
        part->messages_count =
            program->messages_count / count + (i < program->messages_count % count ? 1 : 0);
        void *(*thread_main)(void *) = program->is_raw ? limit_raw_main : limit_net_main;
        if (pthread_create(&part->id, NULL, thread_main, part) != 0) {
            program_die("no thread");
        }
    }
    for (uint32_t i = 0; i < count; i++) {
        ensure(pthread_join(program->parts[i].id, NULL) == 0);
    }
    ensure(pthread_barrier_destroy(&config->ready) == 0);
}

static int result_print(const struct limit_program *program)
{
    struct mono_time started = MONO_NEVER;
    struct mono_time ended = {.ns = 0};
    for (uint32_t i = 0; i < program->threads_count; i++) {
        const struct limit_part *part = &program->parts[i];
        if (part->error) {
            (void)fprintf(stderr, "%s: thread %u: %s\n", program_invocation_short_name, i,
                          part->error);
            return 1;
        }
        started = mono_earlier(started, part->started);
        ended = mono_before(ended, part->ended) ? part->ended : ended;
    }
    double seconds = (double)(ended.ns - started.ns) / 1e9;
    double rate = (double)program->messages_count / seconds;
    const char *transport = program->is_raw ? "raw" : "net";
    if (program->is_json) {
        printf("{\"transport\":\"%s\",\"messages\":%" PRIu64 ",\"size\":%" PRIu64
               ",\"connections\":%u,\"threads\":%u,\"seconds\":%.6f,\"msgs_per_s\":%.1f}\n",
               transport, program->messages_count, program->message_size,
               program->connections_count, program->threads_count, seconds, rate);
    } else {
        printf("%s: %" PRIu64 " messages of %" PRIu64
               " bytes over %u connections in %.3f s: %.0f a "
               "second\n",
               transport, program->messages_count, program->message_size,
               program->connections_count, seconds, rate);
    }
    return 0;
}

int main(int argc, char **argv)
{
    static struct limit_program program = {
        .threads_count = 1,
        .connections_count = 64,
        .messages_count = 100000,
        .message_size = 1024,
        .seconds_max = 60,
    };
    options_read(&program, argc, argv);
    program_raise_files();
    program.config.load = limit_load_render(program.message_size);
    program.config.connections_count = program.connections_count / program.threads_count;
    program.config.deadline =
        mono_add_ns(clock_mono(clock_system()), (int64_t)(program.seconds_max * (double)NS_PER_S));
    parts_run(&program);
    limit_load_deinit(&program.config.load);
    return result_print(&program);
}
