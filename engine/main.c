/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "engine/boot.h"
#include "engine/config.h"
#include "engine/verbs.h"

enum { ERRORS_SIZE = 64 * 1024 };

static int verb_version(int count, char **words);
static int verb_help(int count, char **words);

static const struct {
    const char *name;
    int (*run)(int count, char **words);
    const char *help;
    bool has_help; /* of its own, behind --help */
} VERBS[] = {
    {"run", verb_run, "run [-c FILE]                 the engine, until SIGTERM", false},
    {"submit", verb_submit,
     "submit [-c FILE] ...          write a batch into the spool (submit --help)", true},
    {"status", verb_status, "status [-c FILE] [--json]     what a running engine is doing", false},
    {"check", verb_check,
     "check [-c FILE] [BATCH ...]   is the configuration right, or a batch (check --help)", true},
    {"version", verb_version, "version [--json]              of this program", false},
    {"help", verb_help, "help                          this", false},
};

static int verb_version(int count, char **words)
{
    bool is_json = count == 1 && strcmp(words[0], "--json") == 0;
    if (count > 0 && !is_json) {
        (void)fprintf(stderr, "usage: ramjet version [--json]\n");
        return 2;
    }
    (void)printf(is_json ? "{\"version\":\"%s\"}\n" : "ramjet %s\n", RAMJET_VERSION);
    return 0;
}

static int verb_help(int count, char **words)
{
    (void)count;
    (void)words;
    (void)printf("ramjet: a high-throughput outbound mail engine\n\n");
    for (size_t i = 0; i < COUNT_OF(VERBS); i++) {
        (void)printf("  ramjet %s\n", VERBS[i].help);
    }
    (void)printf("\nThe configuration is FILE, or %s, or all defaults. ramjet check --defaults\n"
                 "prints every key with what it means.\n",
                 VERBS_CONFIG_PATH);
    return 0;
}

struct config *verbs_config_read(const char *path)
{
    char text[ERRORS_SIZE];
    struct writer errors = writer_of(text, sizeof(text));
    if (path == NULL && access(VERBS_CONFIG_PATH, F_OK) == 0) {
        path = VERBS_CONFIG_PATH;
    }
    struct config *config = config_read(path, &errors);
    if (config == NULL) {
        (void)fwrite(errors.start, 1, writer_size(&errors), stderr);
    }
    return config;
}

int verb_run(int count, char **words)
{
    const char *path = NULL;
    if (count == 2 && strcmp(words[0], "-c") == 0) {
        path = words[1];
    } else if (count != 0) {
        (void)fprintf(stderr, "usage: ramjet run [-c FILE]\n");
        return 2;
    }
    struct config *config = verbs_config_read(path);
    if (config == NULL) {
        return 1;
    }
    char text[ERRORS_SIZE];
    struct writer errors = writer_of(text, sizeof(text));
    int status = boot_run(config, &errors);
    struct cursor cursor = cursor_of(writer_span(&errors));
    struct span line;
    while (cursor_take_line(&cursor, &line)) {
        (void)fprintf(stderr, "ramjet: %.*s\n", (int)line.size, line.at);
    }
    config_destroy(config);
    return status;
}

static bool is_help(const char *word)
{
    return strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0;
}

int main(int argc, char **argv)
{
    if (argc < 2 || is_help(argv[1])) {
        (void)verb_help(0, NULL);
        return argc < 2 ? 2 : 0;
    }
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0) {
        return verb_version(argc - 2, argv + 2);
    }
    for (size_t i = 0; i < COUNT_OF(VERBS); i++) {
        if (strcmp(VERBS[i].name, argv[1]) != 0) {
            continue;
        }
        if (argc == 3 && is_help(argv[2]) && !VERBS[i].has_help) {
            (void)printf("usage: ramjet %s\n", VERBS[i].help);
            return 0;
        }
        return VERBS[i].run(argc - 2, argv + 2);
    }
    (void)fprintf(stderr, "ramjet: no verb \"%s\"; see ramjet help\n", argv[1]);
    return 2;
}
