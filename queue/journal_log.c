/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>

#include "engine/base/ensure.h"
#include "queue/journal_priv.h"

/*
 * Lines are appended at an offset of our own, and a write that fails does not move it: the next
 * lines are written over what there is of the lost ones, so the file always is whole lines but for
 * its end.
 */
static const char NAME[] = "events.ndjson";

enum { LOG_LOOK_MS = 1000 };
enum { NAME_SIZE = 64, NAMES_OF_ONE_SECOND_MAX = 100, LOG_TAIL_SIZE = 1 << 20 };

static void log_close(struct journal_core *core)
{
    if (core->log.fd >= 0) {
        disk_close(core->disk, core->log.fd);
        core->log.fd = -1;
    }
}

/* Of the end of the log, what no line is: a line that was cut short, and bytes that were never
 * written (a file may be longer than what reached it when the power failed: NULs), with all that is
 * behind them. */
static size_t log_torn_size(struct span tail)
{
    size_t end = span_find(tail, '\0');
    const char *last = end == 0 ? NULL : memrchr(tail.at, '\n', end);
    return last == NULL ? tail.size : (size_t)(tail.at + tail.size - last - 1);
}

/* It becomes a line that says so: every line is an object, and the file does not become shorter
 * under those who follow it. */
static int log_put_torn(struct journal_core *core, size_t torn)
{
    static const char BEFORE[] = "{\"type\":\"Torn\"";
    enum { BEFORE_SIZE = sizeof(BEFORE) - 1, AROUND_SIZE = BEFORE_SIZE + 2 };
    struct journal_log *log = &core->log;
    char *line = malloc(torn + AROUND_SIZE);
    if (line == NULL) {
        return -ENOMEM;
    }
    struct writer writer = writer_of(line, torn + AROUND_SIZE);
    writer_put(&writer, span_of(BEFORE, BEFORE_SIZE));
    while (writer_size(&writer) + 2 < torn) {
        writer_put_byte(&writer, ' ');
    }
    writer_put(&writer, SPAN("}\n"));
    ensure(!writer.is_full);
    int64_t result =
        disk_write(core->disk, log->fd, line, writer_size(&writer), log->offset - torn);
    log->offset += writer_size(&writer) - torn;
    free(line);
    return result < 0 ? (int)result : 0;
}

static int log_end_line(struct journal_core *core)
{
    struct journal_log *log = &core->log;
    uint64_t size = log->offset < LOG_TAIL_SIZE ? log->offset : LOG_TAIL_SIZE;
    if (size == 0) {
        return 0;
    }
    char *tail = malloc(LOG_TAIL_SIZE);
    if (tail == NULL) {
        return -ENOMEM;
    }
    int64_t got = disk_read(core->disk, log->fd, tail, (size_t)size, log->offset - size);
    size_t torn = got > 0 ? log_torn_size(span_of(tail, (size_t)got)) : 0;
    free(tail);
    if (got < 0) {
        return (int)got;
    }
    return torn == 0 ? 0 : log_put_torn(core, torn);
}

static int log_open(struct journal_core *core)
{
    struct journal_log *log = &core->log;
    struct disk_stat stat;
    int fd = disk_open(core->disk, log->dir, NAME, DISK_READWRITE | DISK_CREATE);
    if (fd < 0) {
        return fd;
    }
    log->fd = fd;
    int error = disk_stat_fd(core->disk, fd, &stat);
    if (error == 0 && stat.kind != DISK_KIND_FILE) {
        error = -EINVAL;
    }
    if (error == 0) {
        log->offset = stat.size;
        error = log_end_line(core);
    }
    if (error != 0) {
        log_close(core);
    }
    return error;
}

int journal_log_init(struct journal_core *core, const struct journal_config *config)
{
    core->log.size_max = config->log_size_max;
    if (config->log_directory == NULL) {
        return 0;
    }
    core->log.directory = config->log_directory;
    core->log.dir =
        disk_open(core->disk, DISK_ROOT, config->log_directory, DISK_READONLY | DISK_DIRECTORY);
    return core->log.dir < 0 ? core->log.dir : log_open(core);
}

void journal_log_line(struct journal *journal, struct span line)
{
    struct journal_log *log = &journal->core->log;
    ensure(!log->io.is_busy);
    if (log->fd < 0) {
        return;
    }
    if (disk_write(journal->core->disk, log->fd, line.at, line.size, log->offset) < 0) {
        stat_add(&journal->stats.log_failures, 1);
        return;
    }
    stat_add(&journal->stats.log_lines, 1);
    log->offset += line.size;
}

void journal_log_deinit(struct journal_core *core)
{
    log_close(core);
    if (core->log.dir >= 0) {
        disk_close(core->disk, core->log.dir);
    }
}

/* events-<seconds>.ndjson, or events-<seconds>-<n>.ndjson when that second had one already. */
static void log_rotate(struct journal_core *core)
{
    struct journal_log *log = &core->log;
    uint32_t second = wall_seconds(clock_wall(core->clock));
    for (unsigned i = 0; i < NAMES_OF_ONE_SECOND_MAX; i++) {
        char name[NAME_SIZE];
        struct disk_stat stat;
        struct writer writer = writer_of(name, sizeof(name));
        writer_put(&writer, SPAN("events-"));
        writer_put_uint(&writer, second);
        if (i > 0) {
            writer_put_byte(&writer, '-');
            writer_put_uint(&writer, i);
        }
        writer_put(&writer, SPAN(".ndjson"));
        writer_put_byte(&writer, '\0');
        ensure(!writer.is_full);
        if (disk_stat_at(core->disk, log->dir, name, &stat) != 0) {
            if (disk_rename(core->disk, log->dir, NAME, log->dir, name) == 0) {
                log_close(core);
            }
            break;
        }
    }
    if (log->fd >= 0) {
        stat_add(&core->journal->stats.log_failures, 1); /* it grows on under its name */
    }
}

static bool log_is_same(struct journal_core *core, int fd, int other_fd)
{
    struct disk_stat stat;
    struct disk_stat other;
    return disk_stat_fd(core->disk, fd, &stat) != 0 ||
           disk_stat_fd(core->disk, other_fd, &other) != 0 || stat.inode == other.inode;
}

/* Its directory by its name: made anew when it is gone. Without it the file cannot be opened, which
 * is counted. */
static void log_directory_look(struct journal_core *core)
{
    struct journal_log *log = &core->log;
    int dir = disk_open(core->disk, DISK_ROOT, log->directory, DISK_READONLY | DISK_DIRECTORY);
    if (dir == -ENOENT && disk_mkdir(core->disk, DISK_ROOT, log->directory) == 0) {
        dir = disk_open(core->disk, DISK_ROOT, log->directory, DISK_READONLY | DISK_DIRECTORY);
    }
    if (dir < 0) {
        return;
    }
    if (log_is_same(core, dir, log->dir)) {
        disk_close(core->disk, dir);
        return;
    }
    disk_close(core->disk, log->dir);
    log->dir = dir;
}

/* People may take the file, or its directory, away while it is written: into a file without a name
 * lines would go unseen for ever. One that was moved is whole; of one that was removed those of the
 * last second, and all before, are gone. */
static void log_look(struct journal_core *core)
{
    struct journal_log *log = &core->log;
    if (mono_before(core->now, log->look_at)) {
        return;
    }
    log->look_at = mono_add_ms(core->now, LOG_LOOK_MS);
    log_directory_look(core);
    struct disk_stat ours;
    struct disk_stat named;
    if (log->fd < 0 || disk_stat_fd(core->disk, log->fd, &ours) != 0) {
        return;
    }
    int result = disk_stat_at(core->disk, log->dir, NAME, &named);
    if (result == 0 ? named.inode == ours.inode : result != -ENOENT) {
        return;
    }
    if (ours.links_count == 0) {
        stat_add(&core->journal->stats.log_removals, 1);
    }
    log_close(core);
}

bool journal_log_write(struct journal_core *core, struct journal_group *group)
{
    struct journal_log *log = &core->log;
    ensure(!log->io.is_busy);
    if (log->dir < 0 || group->log_size == 0) {
        return false;
    }
    log_look(core);
    uint64_t asked = stat_read_xcore(&core->journal->rotations_asked);
    bool is_due = log->offset + group->log_size > log->size_max || asked != log->rotations_seen;
    if (log->fd >= 0 && log->offset > 0 && is_due) {
        log_rotate(core);
    }
    log->rotations_seen = asked;
    if (log->fd < 0 && log_open(core) != 0) {
        stat_add(&core->journal->stats.log_failures, 1);
        return false;
    }
    stat_add(&core->journal->stats.log_lines, group->log_lines);
    log->io.op = (struct disk_op){.verb = DISK_WRITE,
                                  .fd = log->fd,
                                  .at = group->log,
                                  .size = group->log_size,
                                  .offset = log->offset};
    journal_submit(core, &log->io, JOURNAL_IO_LOG);
    return true;
}

void journal_log_on_io(struct journal_core *core, const struct journal_io *io)
{
    if (io->op.result < 0) {
        stat_add(&core->journal->stats.log_failures, 1);
    } else {
        core->log.offset += io->op.size;
    }
}
