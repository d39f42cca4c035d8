/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ramjet-feed: makes one batch by seed (bench/feed_text.h) and puts it into a spool the way a
 * submitter should: written in in/tmp, synced, renamed into in/new. Prints the path it has then.
 *
 * Status 0; 2 with one line when it could not.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench/feed_text.h"
#include "bench/program.h"

enum { BUFFER_SIZE = 4 * 1024 * 1024, PATH_SIZE = 4096, MANIFEST_SIZE = 4096 };

struct feed_program {
    struct feed_config config;
    const char *out;
    bool is_bsmtp;
    bool is_staged;
    bool is_unsynced;
};

static const char HELP[] =
    "usage: ramjet-feed --out SPOOL [options]\n"
    "  --kind merge|bsmtp  one template with recipients, or whole messages (merge)\n"
    "  --recipients N      (100000)\n"
    "  --domains N         (1000)\n"
    "  --zipf S            domain n has a share in proportion to 1/n^S; 0: all alike (1)\n"
    "  --spread            the domains in turn instead of by chance\n"
    "  --same              a message without the recipient's name: many share a transaction\n"
    "  --size N            bytes of a message (1024)\n"
    "  --vars N            variables a recipient (2)\n"
    "  --suffix DOMAIN     what domains end in (bench.example)\n"
    "  --local TEXT        what local parts begin with, e.g. dot451-\n"
    "  --seed N            (1)\n"
    "  --batch ID          (feed-SEED)\n"
    "  --stage             leave it in in/tmp as ID.batch\n"
    "  --no-sync           do not wait for stable storage\n";

enum option_id {
    OPTION_OUT = 1,
    OPTION_KIND,
    OPTION_RECIPIENTS,
    OPTION_DOMAINS,
    OPTION_ZIPF,
    OPTION_SPREAD,
    OPTION_SAME,
    OPTION_SIZE,
    OPTION_VARS,
    OPTION_SUFFIX,
    OPTION_LOCAL,
    OPTION_SEED,
    OPTION_BATCH,
    OPTION_STAGE,
    OPTION_NO_SYNC,
    OPTION_HELP,
};

static const struct option OPTIONS[] = {
    {"out", required_argument, NULL, OPTION_OUT},
    {"kind", required_argument, NULL, OPTION_KIND},
    {"recipients", required_argument, NULL, OPTION_RECIPIENTS},
    {"domains", required_argument, NULL, OPTION_DOMAINS},
    {"zipf", required_argument, NULL, OPTION_ZIPF},
    {"spread", no_argument, NULL, OPTION_SPREAD},
    {"same", no_argument, NULL, OPTION_SAME},
    {"size", required_argument, NULL, OPTION_SIZE},
    {"vars", required_argument, NULL, OPTION_VARS},
    {"suffix", required_argument, NULL, OPTION_SUFFIX},
    {"local", required_argument, NULL, OPTION_LOCAL},
    {"seed", required_argument, NULL, OPTION_SEED},
    {"batch", required_argument, NULL, OPTION_BATCH},
    {"stage", no_argument, NULL, OPTION_STAGE},
    {"no-sync", no_argument, NULL, OPTION_NO_SYNC},
    {"help", no_argument, NULL, OPTION_HELP},
    {NULL, 0, NULL, 0},
};

/* At most `size_max` bytes of characters that need no care in addresses and file names. */
static struct span word(const char *option, const char *text, size_t size_max)
{
    static const char KIND[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    size_t size = strlen(text);
    if (size > size_max || strspn(text, KIND) != size) {
        program_die("%s: %s is not at most %zu letters, digits, dots, dashes and underscores",
                    option, text, size_max);
    }
    return span_of(text, size);
}

static bool is_bsmtp(const char *text)
{
    if (strcmp(text, "merge") != 0 && strcmp(text, "bsmtp") != 0) {
        program_die("--kind: %s is neither merge nor bsmtp", text);
    }
    return strcmp(text, "bsmtp") == 0;
}

static void option_apply(struct feed_program *program, enum option_id id, const char *text)
{
    struct feed_config *config = &program->config;
    switch (id) {
    case OPTION_OUT:
        program->out = text;
        return;
    case OPTION_KIND:
        program->is_bsmtp = is_bsmtp(text);
        return;
    case OPTION_RECIPIENTS:
        config->recipients_count = program_uint("--recipients", text, 1, 99999999);
        return;
    case OPTION_DOMAINS:
        config->domains_count = (uint32_t)program_uint("--domains", text, 1, FEED_DOMAINS_MAX);
        return;
    case OPTION_ZIPF:
        config->zipf = program_real("--zipf", text, 10);
        return;
    case OPTION_SPREAD:
        config->is_spread = true;
        return;
    case OPTION_SAME:
        config->is_same = true;
        return;
    case OPTION_SIZE:
        config->message_size = program_uint("--size", text, FEED_MESSAGE_MIN, 1 << 30);
        return;
    case OPTION_VARS:
        config->vars_count = (uint32_t)program_uint("--vars", text, 0, FEED_VARS_MAX);
        return;
    case OPTION_SUFFIX:
        config->suffix = word("--suffix", text, 200);
        return;
    case OPTION_LOCAL:
        config->local = word("--local", text, 40);
        return;
    case OPTION_SEED:
        config->seed = program_uint("--seed", text, 0, UINT64_MAX);
        return;
    case OPTION_BATCH:
        config->batch = word("--batch", text, 100);
        return;
    case OPTION_STAGE:
        program->is_staged = true;
        return;
    case OPTION_NO_SYNC:
        program->is_unsynced = true;
        return;
    case OPTION_HELP:
        (void)fputs(HELP, stdout);
        exit(0);
    }
    program_die("try --help");
}

/* A file of the batch, written through one large buffer. */
struct output {
    const struct feed_program *program;
    const char *name;
    int fd;
    struct writer writer;
    char *bytes;
};

static void output_open(struct output *output, const struct feed_program *program, int dir_fd,
                        const char *name, size_t size)
{
    output->program = program;
    output->name = name;
    output->fd = openat(dir_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    output->bytes = malloc(size);
    if (output->fd < 0 || !output->bytes) {
        program_die("%s: %s", name, strerror(errno));
    }
    output->writer = writer_of(output->bytes, size);
}

static void output_flush(struct output *output)
{
    struct span bytes = writer_span(&output->writer);
    ensure(!output->writer.is_full);
    while (bytes.size > 0) {
        ssize_t size = write(output->fd, bytes.at, bytes.size);
        if (size <= 0) {
            program_die("%s: %s", output->name, strerror(errno));
        }
        bytes.at += size;
        bytes.size -= (size_t)size;
    }
    output->writer.at = output->writer.start;
}

/* Makes room for `size` bytes. */
static void output_reserve(struct output *output, size_t size)
{
    if ((size_t)(output->writer.end - output->writer.at) < size) {
        output_flush(output);
    }
}

static void output_close(struct output *output)
{
    output_flush(output);
    bool is_synced = output->program->is_unsynced || fsync(output->fd) == 0;
    if (!is_synced || close(output->fd) != 0) {
        program_die("%s: %s", output->name, strerror(errno));
    }
    free(output->bytes);
}

static void recipients_write(const struct feed_program *program, struct feed *feed, int dir_fd)
{
    struct output output;
    output_open(&output, program, dir_fd, "recipients.ndjson", BUFFER_SIZE);
    for (uint64_t i = 1; i <= program->config.recipients_count; i++) {
        output_reserve(&output, FEED_RECIPIENT_MAX);
        feed_put_recipient(feed, i, &output.writer);
    }
    output_close(&output);
}

static void messages_write(const struct feed_program *program, struct feed *feed, int dir_fd)
{
    struct output output;
    size_t one_size = program->config.message_size + 2048;
    output_open(&output, program, dir_fd, "messages-0001.bsmtp", one_size + BUFFER_SIZE);
    for (uint64_t i = 1; i <= program->config.recipients_count; i++) {
        output_reserve(&output, one_size);
        feed_put_bsmtp(feed, i, &output.writer);
    }
    output_close(&output);
}

static void batch_write(const struct feed_program *program, int dir_fd)
{
    struct feed *feed = feed_create(&program->config);
    struct output output;
    output_open(&output, program, dir_fd, "batch.json", MANIFEST_SIZE);
    feed_put_manifest(feed, program->is_bsmtp, &output.writer);
    output_close(&output);
    if (program->is_bsmtp) {
        messages_write(program, feed, dir_fd);
    } else {
        output_open(&output, program, dir_fd, "message.eml", program->config.message_size + 4096);
        feed_put_template(feed, &output.writer);
        output_close(&output);
        recipients_write(program, feed, dir_fd);
    }
    if (!program->is_unsynced && fsync(dir_fd) != 0) {
        program_die("the batch cannot be synced: %s", strerror(errno));
    }
    feed_destroy(feed);
}

/* Makes the directory if it is not there and opens it. */
static int dir_open(int at_fd, const char *path)
{
    int fd = mkdirat(at_fd, path, 0755) == 0 || errno == EEXIST
                 ? openat(at_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
                 : -1;
    if (fd < 0) {
        program_die("%s: %s", path, strerror(errno));
    }
    return fd;
}

int main(int argc, char **argv)
{
    struct feed_program program = {
        .config = {.seed = 1,
                   .recipients_count = 100000,
                   .domains_count = 1000,
                   .vars_count = 2,
                   .message_size = 1024,
                   .zipf = 1,
                   .suffix = SPAN("bench.example"),
                   .local = SPAN_NONE,
                   .batch = SPAN_NONE},
    };
    int id;
    while ((id = getopt_long(argc, argv, "", OPTIONS, NULL)) != -1) {
        option_apply(&program, (enum option_id)id, optarg);
    }
    if (optind < argc || !program.out) {
        program_die("%s; try --help", program.out ? argv[optind] : "--out is missing");
    }
    char name[128], path[PATH_SIZE];
    if (program.config.batch.size == 0) {
        int size =
            snprintf(name, sizeof(name), "feed-%llu", (unsigned long long)program.config.seed);
        program.config.batch = span_of(name, (size_t)size);
    }
    (void)snprintf(path, sizeof(path), "%.*s.batch", (int)program.config.batch.size,
                   program.config.batch.at);
    int spool_fd = dir_open(AT_FDCWD, program.out);
    int in_fd = dir_open(spool_fd, "in");
    int tmp_fd = dir_open(in_fd, "tmp");
    int new_fd = dir_open(in_fd, "new");
    batch_write(&program, dir_open(tmp_fd, path));
    if (!program.is_staged && (renameat(tmp_fd, path, new_fd, path) != 0 || fsync(new_fd) != 0)) {
        program_die("%s cannot be submitted: %s", path, strerror(errno));
    }
    printf("%s/in/%s/%s\n", program.out, program.is_staged ? "tmp" : "new", path);
    return 0;
}
