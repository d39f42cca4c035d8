/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/verbs.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/config.h"
#include "engine/submit_show.h"
#include "engine/submit_wait.h"
#include "engine/values.h"
#include "queue/mailbox_list.h"
#include "queue/submit.h"

enum {
    VARS_MAX = TEMPLATE_VARS_MAX,
    STREAM_CHUNK = 256 * 1024,
    TEXT_MAX = 50 * 1024 * 1024,
    HEADER_MAX = 256 * 1024,
};

static const char HELP[] =
    "usage: ramjet submit [-c FILE | --spool DIR] [--wait [--timeout 5m]] [--json] WHAT\n"
    "\n"
    "WHAT is one of\n"
    "  NAME.batch                        a directory with batch.json and its files\n"
    "  --message FILE --recipients FILE  a template and NAME.ndjson or NAME.csv, with\n"
    "      [--from ADDRESS]              envelope sender, default: the message's From\n"
    "      [--id ID] [--set NAME=VALUE]  name of the batch; variables for all recipients\n"
    "      [--max-reject 1%]             more bad lines (a number or a share): nothing is sent\n"
    "      [--missing reject]            variables without value: reject, empty, literal\n"
    "  --from A --to A [--to B] --subject TEXT --text TEXT|- [--id ID]\n"
    "                                    one mail; - reads the text from standard input\n"
    "  -                                 the single-file form on standard input\n"
    "\n"
    "When it returns, the batch is on stable storage in the spool. --wait stays until the engine\n"
    "has settled every recipient, and shows how it goes.\n"
    "\n"
    "exit status: 0 all delivered (without --wait: in the spool), 1 not submitted, 2 wrong words,\n"
    "3 the batch could not run, 4 some recipients did not get it, 5 --timeout was up first\n";

struct words {
    const char *config_path;
    const char *spool;
    const char *what; /* NAME.batch or - */
    const char *message;
    const char *recipients;
    const char *from;
    const char *id;
    const char *subject;
    const char *text;
    const char *timeout;
    const char *max_reject;
    const char *missing;
    const char *to[SUBMIT_RCPTS_MAX];
    size_t to_count;
    struct manifest_var vars[VARS_MAX];
    size_t vars_count;
    bool is_waiting;
    bool is_json;
    uint64_t timeout_ms;
};

static const struct {
    const char *word;
    size_t offset;
} TEXT_WORDS[] = {
    {"-c", offsetof(struct words, config_path)},
    {"--spool", offsetof(struct words, spool)},
    {"--message", offsetof(struct words, message)},
    {"--recipients", offsetof(struct words, recipients)},
    {"--from", offsetof(struct words, from)},
    {"--id", offsetof(struct words, id)},
    {"--subject", offsetof(struct words, subject)},
    {"--text", offsetof(struct words, text)},
    {"--timeout", offsetof(struct words, timeout)},
    {"--max-reject", offsetof(struct words, max_reject)},
    {"--missing", offsetof(struct words, missing)},
};

static int refuse(const char *what, const char *detail)
{
    (void)fprintf(stderr, "ramjet submit: %s%s; see ramjet submit --help\n", what, detail);
    return SUBMIT_EXIT_USAGE;
}

/* NAME=VALUE, split in place: the words of a process are its own. */
static int take_var(struct words *words, char *text)
{
    char *equal = strchr(text, '=');
    if (equal == NULL || equal == text) {
        return refuse("--set wants NAME=VALUE, not ", text);
    }
    if (words->vars_count == VARS_MAX) {
        return refuse("too many --set", "");
    }
    *equal = '\0';
    words->vars[words->vars_count++] = (struct manifest_var){.name = text, .value = equal + 1};
    return 0;
}

static int take_value(struct words *words, const char *word, char *value)
{
    if (strcmp(word, "--to") == 0) {
        if (words->to_count == COUNT_OF(words->to)) {
            return refuse("too many --to", "");
        }
        words->to[words->to_count++] = value;
        return 0;
    }
    if (strcmp(word, "--set") == 0) {
        return take_var(words, value);
    }
    for (size_t i = 0; i < COUNT_OF(TEXT_WORDS); i++) {
        if (strcmp(word, TEXT_WORDS[i].word) == 0) {
            const char **field = (const char **)(void *)((char *)words + TEXT_WORDS[i].offset);
            if (*field != NULL) {
                return refuse("given twice: ", word);
            }
            *field = value;
        }
    }
    return 0;
}

static bool take_duration(const char *text, uint64_t *ret_ms)
{
    static const struct {
        const char *unit;
        uint64_t ms;
    } UNITS[] = {{"ms", 1}, {"s", 1000}, {"", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}};
    struct cursor cursor = cursor_of(span_of_text(text));
    uint64_t value;
    if (!cursor_take_uint(&cursor, 1000000000, &value) || value == 0) {
        return false;
    }
    struct span rest = span_of(cursor.at, cursor_left(&cursor));
    for (size_t i = 0; i < COUNT_OF(UNITS); i++) {
        if (span_equal(rest, span_of_text(UNITS[i].unit))) {
            *ret_ms = value * UNITS[i].ms;
            return true;
        }
    }
    return false;
}

static bool is_option(const char *word)
{
    bool is_known = strcmp(word, "--to") == 0 || strcmp(word, "--set") == 0;
    for (size_t i = 0; i < COUNT_OF(TEXT_WORDS); i++) {
        is_known = is_known || strcmp(word, TEXT_WORDS[i].word) == 0;
    }
    return is_known;
}

static int take_words(struct words *words, int count, char **list)
{
    for (int i = 0; i < count; i++) {
        char *word = list[i];
        if (strcmp(word, "--wait") == 0) {
            words->is_waiting = true;
        } else if (strcmp(word, "--json") == 0) {
            words->is_json = true;
        } else if (word[0] == '-' && word[1] != '\0') {
            if (!is_option(word)) {
                return refuse("no such option: ", word);
            }
            if (i + 1 == count) {
                return refuse("nothing behind ", word);
            }
            int status = take_value(words, word, list[++i]);
            if (status != 0) {
                return status;
            }
        } else if (words->what != NULL) {
            return refuse("one batch at a time: ", word);
        } else {
            words->what = word;
        }
    }
    return 0;
}

/* Which of the four forms it is; what belongs to another one is a mistake, not ignored. */
static int check_words(struct words *words)
{
    bool is_files = words->message != NULL || words->recipients != NULL;
    bool is_mail = words->to_count > 0 || words->subject != NULL || words->text != NULL;
    if (words->timeout != NULL && !take_duration(words->timeout, &words->timeout_ms)) {
        return refuse("--timeout wants a time such as 30s or 5m, not ", words->timeout);
    }
    if (words->timeout != NULL && !words->is_waiting) {
        return refuse("--timeout is of use with --wait only", "");
    }
    if (words->spool != NULL && words->config_path != NULL) {
        return refuse("-c and --spool exclude each other", "");
    }
    if ((words->what != NULL) + is_files + is_mail != 1) {
        return refuse("say what to submit, in one of the forms", "");
    }
    if (words->what != NULL &&
        (words->from != NULL || words->id != NULL || words->vars_count > 0)) {
        return refuse("--from, --id and --set stand in batch.json here", "");
    }
    if (is_files && (words->message == NULL || words->recipients == NULL)) {
        return refuse("--message and --recipients go together", "");
    }
    if (is_mail && (words->to_count == 0 || words->subject == NULL || words->text == NULL ||
                    words->from == NULL)) {
        return refuse("one mail needs --from, --to, --subject and --text", "");
    }
    if (is_mail && words->vars_count > 0) {
        return refuse("--set is for templates", "");
    }
    if (!is_files && (words->max_reject != NULL || words->missing != NULL)) {
        return refuse("--max-reject and --missing go with --message; else batch.json has them", "");
    }
    return 0;
}

/* The forms. */

static int fail(const struct spool_problem *problem)
{
    (void)fprintf(stderr, "ramjet: not submitted: %s\n", problem->text);
    return SUBMIT_EXIT_NOT_DONE;
}

/* Up to `room` bytes; -1 when it cannot be read. */
static ssize_t read_some(int fd, char *bytes, size_t room)
{
    size_t size = 0;
    while (size < room) {
        ssize_t got = read(fd, bytes + size, room - size);
        if (got == 0) {
            break;
        }
        if (got < 0 && errno != EINTR) {
            return -1;
        }
        size += got > 0 ? (size_t)got : 0;
    }
    return (ssize_t)size;
}

/* The body of the header's From field with its folded lines; empty when there is none. */
static struct span find_from(struct span message)
{
    struct cursor cursor = cursor_of(message);
    struct span line;
    while (cursor_take_line(&cursor, &line) && line.size > 0) {
        if (!span_starts_nocase(line, SPAN("From:"))) {
            continue;
        }
        struct span body = span_of(line.at + 5, line.size - 5);
        while ((cursor_peek(&cursor) == ' ' || cursor_peek(&cursor) == '\t') &&
               cursor_take_line(&cursor, &line)) {
            body.size = (size_t)(line.at + line.size - body.at);
        }
        return body;
    }
    return SPAN_NONE;
}

/* The envelope sender when none is given: the one address of From. */
static bool take_from(const char *path, struct writer *ret_from)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    char *bytes = fd < 0 ? NULL : malloc(HEADER_MAX);
    ssize_t size = bytes == NULL ? -1 : read_some(fd, bytes, HEADER_MAX);
    if (fd >= 0) {
        (void)close(fd);
    }
    bool is_taken = false;
    if (size > 0) {
        struct cursor cursor = cursor_of(find_from(span_of(bytes, (size_t)size)));
        is_taken =
            mailbox_list_take(&cursor, ret_from) == MAILBOX_TAKEN && writer_size(ret_from) > 0;
    }
    free(bytes);
    return is_taken;
}

static int do_files(struct submit *submit, const struct words *words, struct submit_id *ret_id)
{
    char from[MANIFEST_FROM_MAX + 1];
    struct writer writer = writer_of(from, sizeof(from) - 1);
    if (words->from == NULL && access(words->message, R_OK) != 0) {
        (void)fprintf(stderr, "ramjet: not submitted: %s: %s\n", words->message, strerror(errno));
        return SUBMIT_EXIT_NOT_DONE;
    }
    if (words->from == NULL && !take_from(words->message, &writer)) {
        (void)fprintf(stderr,
                      "ramjet: not submitted: %s: no From with an address can be read in "
                      "it; give --from\n",
                      words->message);
        return SUBMIT_EXIT_NOT_DONE;
    }
    *writer.at = '\0';
    const struct submit_files files = {
        .id = words->id,
        .from = words->from != NULL ? words->from : from,
        .message_path = words->message,
        .recipients_path = words->recipients,
        .vars = words->vars,
        .vars_count = words->vars_count,
        .max_reject = words->max_reject,
        .missing = words->missing,
    };
    struct spool_problem problem;
    return submit_files(submit, &files, ret_id, &problem) == 0 ? 0 : fail(&problem);
}

static int do_mail(struct submit *submit, const struct words *words, struct submit_id *ret_id)
{
    char *text = NULL;
    struct span body = span_of_text(words->text);
    if (strcmp(words->text, "-") == 0) {
        text = malloc(TEXT_MAX);
        ssize_t size = text == NULL ? -1 : read_some(STDIN_FILENO, text, TEXT_MAX);
        if (size < 0 || size == TEXT_MAX) {
            free(text);
            (void)fprintf(stderr, "ramjet: not submitted: standard input: %s\n",
                          size < 0 ? strerror(errno) : "longer than a message may be");
            return SUBMIT_EXIT_NOT_DONE;
        }
        body = span_of(text, (size_t)size);
    }
    const struct submit_mail mail = {
        .id = words->id,
        .from = words->from,
        .to = words->to,
        .to_count = words->to_count,
        .subject = words->subject,
        .text = body,
    };
    struct spool_problem problem;
    int result = submit_mail(submit, &mail, ret_id, &problem);
    free(text);
    return result == 0 ? 0 : fail(&problem);
}

static int do_stream(struct submit *submit, struct submit_id *ret_id)
{
    struct spool_problem problem = {.text = "out of memory"};
    struct submit_stream stream;
    char *bytes = malloc(STREAM_CHUNK);
    if (bytes == NULL || submit_stream_begin(submit, &stream, &problem) != 0) {
        free(bytes);
        return fail(&problem);
    }
    int result = 0;
    ssize_t size = STREAM_CHUNK;
    while (result == 0 && size == STREAM_CHUNK) {
        size = read_some(STDIN_FILENO, bytes, STREAM_CHUNK);
        if (size < 0) {
            (void)snprintf(problem.text, sizeof(problem.text), "standard input: %s",
                           strerror(errno));
            result = -EIO;
        } else {
            result = submit_stream_feed(&stream, span_of(bytes, (size_t)size), &problem);
        }
    }
    free(bytes);
    if (result != 0) {
        submit_stream_abandon(&stream);
    } else {
        result = submit_stream_end(&stream, ret_id, &problem);
    }
    return result == 0 ? 0 : fail(&problem);
}

static int do_form(struct submit *submit, const struct words *words, struct submit_id *ret_id)
{
    if (words->message != NULL) {
        return do_files(submit, words, ret_id);
    }
    if (words->what == NULL) {
        return do_mail(submit, words, ret_id);
    }
    if (strcmp(words->what, "-") == 0) {
        return do_stream(submit, ret_id);
    }
    struct spool_problem problem;
    return submit_directory(submit, words->what, ret_id, &problem) == 0 ? 0 : fail(&problem);
}

/* The batch is in the spool: says so, or waits for its end. */
static int tell(struct submit *submit, const struct words *words, const char *root,
                const char *control_socket, const struct submit_id *id)
{
    if (words->is_waiting) {
        const struct submit_wait wait = {
            .root = root,
            .id = id->text,
            .control_socket = control_socket,
            .timeout_ms = words->timeout_ms,
            .is_json = words->is_json,
        };
        return submit_wait_run(submit, &wait);
    }
    char text[SUBMIT_SHOW_MAX];
    struct writer writer = writer_of(text, sizeof(text));
    struct submit_status status = {.state = SUBMIT_WAITING};
    (void)snprintf(status.path, sizeof(status.path), "in/new/%s.batch", id->text);
    if (words->is_json) {
        submit_show_put_json(&writer, id->text, &status);
    } else {
        writer_put_format(&writer, "%s: submitted\n", id->text);
    }
    (void)fwrite(writer.start, 1, writer_size(&writer), stdout);
    return SUBMIT_EXIT_DELIVERED;
}

static int submit_into(const char *root, const char *control_socket, const struct words *words)
{
    int error = 0;
    struct disk *disk = disk_plain_create(NULL, &error);
    struct random random;
    struct submit submit;
    struct spool_problem problem;
    struct submit_id id;
    if (disk == NULL) {
        (void)fprintf(stderr, "ramjet: %s\n", strerror(-error));
        return SUBMIT_EXIT_NOT_DONE;
    }
    /* The engine takes the batch by its group, whatever the writer's files are like otherwise. */
    (void)umask(0007);
    random_init_system(&random);
    int status;
    if (submit_open(&submit, disk, clock_system(), &random, root, &problem) != 0) {
        status = fail(&problem);
    } else {
        status = do_form(&submit, words, &id);
        status = status == 0 ? tell(&submit, words, root, control_socket, &id) : status;
        submit_close(&submit);
    }
    disk_destroy(disk);
    return status;
}

int verb_submit(int count, char **list)
{
    static struct words words; /* too big for a stack that knows no bounds; one a process */
    if (count > 0 && (strcmp(list[0], "--help") == 0 || strcmp(list[0], "-h") == 0)) {
        (void)fputs(HELP, stdout);
        return SUBMIT_EXIT_DELIVERED;
    }
    int status = take_words(&words, count, list);
    status = status == 0 ? check_words(&words) : status;
    if (status != 0) {
        return status;
    }
    if (words.spool != NULL) {
        char control_socket[SPOOL_PATH_MAX];
        (void)snprintf(control_socket, sizeof(control_socket), "%s/control.sock", words.spool);
        return submit_into(words.spool, control_socket, &words);
    }
    struct config *config = verbs_config_read(words.config_path);
    if (config == NULL) {
        return SUBMIT_EXIT_NOT_DONE;
    }
    status = submit_into(config->spool, config->control_socket, &words);
    config_destroy(config);
    return status;
}
