/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ramjet-sink: takes mail over SMTP as fast as it comes and throws it away; counts it, records it
 * and misbehaves on request (bench/sink_script.h).
 *
 * The first line on standard output is "listening on ADDRESS:PORT". It ends by SIGTERM or SIGINT,
 * or when --count messages were accepted, with its totals; SIGUSR1 prints them meanwhile. Status 0;
 * 2 when it could not run.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "bench/program.h"
#include "bench/sink_thread.h"

enum { THREADS_MAX = 256, COUNT_POLL_MS = 2 };

struct sink_program {
    struct sink_config config;
    struct net_addr listen;
    uint32_t threads_count;
    uint64_t count; /* 0: until told to stop */
    bool is_json;
    bool is_quiet;
    struct sink_thread *threads[THREADS_MAX];
};

static const char HELP[] =
    "usage: ramjet-sink [options]\n"
    "  --listen ADDR:PORT  where to listen (127.0.0.1:0; port 0: one is chosen and printed)\n"
    "  --threads N         threads, each with its own listener and loop (1)\n"
    "  --cores LIST        cores to pin the threads to, like 0,2-3\n"
    "  --connections N     connections a thread (16384)\n"
    "  --latency-ms N      hold back each group of replies\n"
    "  --share RULE        misbehave by share: rcpt=451:2% dot=lost:0.1% connect=421:5% "
    "(repeatable)\n"
    "  --no-script         addresses like rcpt550-x@ mean nothing\n"
    "  --no-pipelining     do not offer PIPELINING\n"
    "  --size-max N        largest message, told by SIZE (0: no limit)\n"
    "  --seed N            of the shares (1)\n"
    "  --record FILE       one line of JSON a message, written before its 250\n"
    "  --record-sync       ... and on stable storage\n"
    "  --count N           end when N messages were accepted\n"
    "  --no-parse          a fixed dialogue without parsing, for bench/limit only\n"
    "  --json              totals as one JSON object\n"
    "  --quiet             no totals\n";

enum option_id {
    OPTION_LISTEN = 1,
    OPTION_THREADS,
    OPTION_CORES,
    OPTION_CONNECTIONS,
    OPTION_LATENCY,
    OPTION_SHARE,
    OPTION_NO_SCRIPT,
    OPTION_NO_PIPELINING,
    OPTION_SIZE_MAX,
    OPTION_SEED,
    OPTION_RECORD,
    OPTION_RECORD_SYNC,
    OPTION_COUNT,
    OPTION_NO_PARSE,
    OPTION_JSON,
    OPTION_QUIET,
    OPTION_HELP,
};

static const struct option OPTIONS[] = {
    {"listen", required_argument, NULL, OPTION_LISTEN},
    {"threads", required_argument, NULL, OPTION_THREADS},
    {"cores", required_argument, NULL, OPTION_CORES},
    {"connections", required_argument, NULL, OPTION_CONNECTIONS},
    {"latency-ms", required_argument, NULL, OPTION_LATENCY},
    {"share", required_argument, NULL, OPTION_SHARE},
    {"no-script", no_argument, NULL, OPTION_NO_SCRIPT},
    {"no-pipelining", no_argument, NULL, OPTION_NO_PIPELINING},
    {"size-max", required_argument, NULL, OPTION_SIZE_MAX},
    {"seed", required_argument, NULL, OPTION_SEED},
    {"record", required_argument, NULL, OPTION_RECORD},
    {"record-sync", no_argument, NULL, OPTION_RECORD_SYNC},
    {"count", required_argument, NULL, OPTION_COUNT},
    {"no-parse", no_argument, NULL, OPTION_NO_PARSE},
    {"json", no_argument, NULL, OPTION_JSON},
    {"quiet", no_argument, NULL, OPTION_QUIET},
    {"help", no_argument, NULL, OPTION_HELP},
    {NULL, 0, NULL, 0},
};

static void share_add(struct sink_policy *policy, const char *text)
{
    if (policy->shares_count == SINK_SHARES_MAX) {
        program_die("--share: more than %d rules", SINK_SHARES_MAX);
    }
    if (!sink_share_parse(span_of_text(text), &policy->shares[policy->shares_count])) {
        program_die("--share: %s is not a rule like rcpt=451:2%%", text);
    }
    policy->shares_count++;
}

static int record_open(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (fd < 0) {
        program_die("--record: %s: %s", path, strerror(errno));
    }
    return fd;
}

static void option_apply(struct sink_program *program, enum option_id id, const char *text)
{
    struct sink_config *config = &program->config;
    switch (id) {
    case OPTION_LISTEN:
        program->listen = program_addr("--listen", text, true);
        return;
    case OPTION_THREADS:
        program->threads_count = (uint32_t)program_uint("--threads", text, 1, THREADS_MAX);
        return;
    case OPTION_CORES:
        config->cores = program_cores("--cores", text);
        return;
    case OPTION_CONNECTIONS:
        config->conns_max = (uint32_t)program_uint("--connections", text, 1, 1 << 20);
        return;
    case OPTION_LATENCY:
        config->latency_ms = (uint32_t)program_uint("--latency-ms", text, 0, 3600 * 1000);
        return;
    case OPTION_SHARE:
        share_add(&config->policy, text);
        return;
    case OPTION_NO_SCRIPT:
        config->policy.is_scripted = false;
        return;
    case OPTION_NO_PIPELINING:
        config->policy.is_stepwise = true;
        return;
    case OPTION_SIZE_MAX:
        config->policy.size_max = program_uint("--size-max", text, 0, UINT64_MAX);
        return;
    case OPTION_SEED:
        config->seed = program_uint("--seed", text, 0, UINT64_MAX);
        return;
    case OPTION_RECORD:
        config->record_fd = record_open(text);
        return;
    case OPTION_RECORD_SYNC:
        config->is_record_sync = true;
        return;
    case OPTION_COUNT:
        program->count = program_uint("--count", text, 1, UINT64_MAX);
        return;
    case OPTION_NO_PARSE:
        config->is_blind = true;
        return;
    case OPTION_JSON:
        program->is_json = true;
        return;
    case OPTION_QUIET:
        program->is_quiet = true;
        return;
    case OPTION_HELP:
        (void)fputs(HELP, stdout);
        exit(0);
    }
    program_die("try --help");
}

static void options_read(struct sink_program *program, int argc, char **argv)
{
    int id;
    while ((id = getopt_long(argc, argv, "", OPTIONS, NULL)) != -1) {
        option_apply(program, (enum option_id)id, optarg);
    }
    if (optind < argc) {
        program_die("%s: not an option; try --help", argv[optind]);
    }
    if (program->config.is_blind && program->config.record_fd >= 0) {
        program_die("--no-parse records nothing");
    }
}

struct totals {
    uint64_t messages, recipients, bytes, refused, bad, connections, open, open_peak, overruns;
    uint64_t first_ns, last_ns;
};

static struct totals totals_sum(const struct sink_program *program)
{
    struct totals sum = {.first_ns = UINT64_MAX};
    for (uint32_t i = 0; i < program->threads_count; i++) {
        const struct sink_totals *totals = sink_thread_totals(program->threads[i]);
        uint64_t first_ns = stat_read_xcore(&totals->first_ns);
        uint64_t last_ns = stat_read_xcore(&totals->last_ns);
        sum.messages += stat_read_xcore(&totals->messages);
        sum.recipients += stat_read_xcore(&totals->recipients);
        sum.bytes += stat_read_xcore(&totals->bytes);
        sum.refused += stat_read_xcore(&totals->refused);
        sum.bad += stat_read_xcore(&totals->bad);
        sum.connections += stat_read_xcore(&totals->connections);
        sum.open += stat_read_xcore(&totals->open);
        sum.open_peak += stat_read_xcore(&totals->open_peak);
        sum.overruns += stat_read_xcore(&totals->overruns);
        sum.first_ns = first_ns > 0 && first_ns < sum.first_ns ? first_ns : sum.first_ns;
        sum.last_ns = last_ns > sum.last_ns ? last_ns : sum.last_ns;
    }
    return sum;
}

static void totals_print(const struct sink_program *program)
{
    struct totals sum = totals_sum(program);
    double seconds = sum.last_ns > sum.first_ns ? (double)(sum.last_ns - sum.first_ns) / 1e9 : 0;
    double rate = seconds > 0 ? (double)sum.messages / seconds : 0;
    if (program->is_quiet) {
        return;
    }
    char text[1024];
    struct writer writer = writer_of(text, sizeof(text));
    writer_put_format(
        &writer,
        program->is_json ? "{\"messages\":%" PRIu64 ",\"recipients\":%" PRIu64 ",\"bytes\":%" PRIu64
                           ",\"connections\":%" PRIu64 ",\"open_peak\":%" PRIu64
                           ",\"open\":%" PRIu64 ",\"refused\":%" PRIu64 ",\"bad_commands\":%" PRIu64
                           ",\"overruns\":%" PRIu64 ",\"seconds\":%.6f,\"msgs_per_s\":%.1f}\n"
                         : "%" PRIu64 " messages (%" PRIu64 " recipients, %" PRIu64
                           " bytes), %" PRIu64 " connections (%" PRIu64 " at once, %" PRIu64
                           " open), %" PRIu64 " refused, %" PRIu64 " bad commands, %" PRIu64
                           " overruns, %.3f s: %.0f messages a second\n",
        sum.messages, sum.recipients, sum.bytes, sum.connections, sum.open_peak, sum.open,
        sum.refused, sum.bad, sum.overruns, seconds, rate);
    (void)fwrite(text, 1, writer_size(&writer), stdout);
    (void)fflush(stdout);
}

static void threads_start(struct sink_program *program)
{
    struct net_addr addr = program->listen;
    for (uint32_t i = 0; i < program->threads_count; i++) {
        int result = sink_thread_create(&program->config, i, &addr, &program->threads[i]);
        result = result == 0 ? sink_thread_start(program->threads[i], &addr) : result;
        if (result != 0) {
            program_die("thread %u cannot listen: %s", i, strerror(-result));
        }
    }
    char text[NET_ADDR_TEXT_MAX];
    struct writer writer = writer_of(text, sizeof(text));
    net_addr_put_port(&writer, &addr);
    printf("listening on %.*s\n", (int)writer_size(&writer), text);
    (void)fflush(stdout);
}

/* Until a signal to end, or the count. */
static void run(struct sink_program *program, int signal_fd)
{
    struct pollfd wanted = {.fd = signal_fd, .events = POLLIN};
    int wait_ms = program->count > 0 ? COUNT_POLL_MS : -1;
    for (;;) {
        struct signalfd_siginfo info;
        if (poll(&wanted, 1, wait_ms) > 0 && read(signal_fd, &info, sizeof(info)) > 0) {
            if (info.ssi_signo != SIGUSR1) {
                return;
            }
            totals_print(program);
        }
        if (program->count > 0 && totals_sum(program).messages >= program->count) {
            return;
        }
    }
}

int main(int argc, char **argv)
{
    static struct sink_program program = {
        .config = {.policy = {.is_scripted = true}, .record_fd = -1, .conns_max = 16384, .seed = 1},
        .threads_count = 1,
    };
    program.config.policy.name = SPAN("sink.ramjet.invalid");
    program.listen = program_addr("--listen", "127.0.0.1:0", true);
    options_read(&program, argc, argv);
    program.config.attempts = sink_attempts_create();
    if (!program.config.attempts) {
        program_die("no memory");
    }
    program_raise_files();

    sigset_t signals;
    (void)sigemptyset(&signals);
    (void)sigaddset(&signals, SIGTERM);
    (void)sigaddset(&signals, SIGINT);
    (void)sigaddset(&signals, SIGUSR1);
    (void)pthread_sigmask(SIG_BLOCK, &signals, NULL);
    int signal_fd = signalfd(-1, &signals, SFD_CLOEXEC);
    ensure(signal_fd >= 0);
    threads_start(&program);
    run(&program, signal_fd);

    for (uint32_t i = 0; i < program.threads_count; i++) {
        sink_thread_stop_xcore(program.threads[i]);
    }
    totals_print(&program);
    for (uint32_t i = 0; i < program.threads_count; i++) {
        sink_thread_destroy(program.threads[i]);
    }
    sink_attempts_destroy(program.config.attempts);
    return 0;
}
