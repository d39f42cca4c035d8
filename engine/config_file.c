/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/config_priv.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define BYTE_ORDER_MARK "\xEF\xBB\xBF"

enum { FILE_SIZE_MAX = 64 * 1024 * 1024, PATH_SIZE = 8192 };

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int is_conf(const struct dirent *entry)
{
    struct span name = span_of_text(entry->d_name);
    struct span end = SPAN(".conf");
    return name.at[0] != '.' && name.size > end.size &&
           span_equal(span_of(name.at + name.size - end.size, end.size), end);
}

/* 0 or -errno. The library would end the process when it cannot read what it has opened, so it is
 * given memory. */
static int read_whole(int fd, char **ret_text, size_t *ret_size)
{
    struct stat found;
    if (fstat(fd, &found) != 0) {
        return -errno;
    }
    if (!S_ISREG(found.st_mode)) {
        return -EINVAL;
    }
    if (found.st_size > FILE_SIZE_MAX) {
        return -EFBIG;
    }
    char *text = malloc((size_t)found.st_size + 1);
    size_t size = 0;
    ssize_t got = text == NULL ? -1 : 1;
    while (got > 0 && size < (size_t)found.st_size) {
        got = read(fd, text + size, (size_t)found.st_size - size);
        size += got > 0 ? (size_t)got : 0;
    }
    if (got < 0) {
        int error = text == NULL ? ENOMEM : errno;
        free(text);
        return -error;
    }
    *ret_text = text;
    *ret_size = size;
    return 0;
}

static void parse_text(cfg_t *cfg, struct config_lint *lint, const char *path, char *text,
                       size_t size)
{
    size_t nul = span_find(span_of(text, size), '\0');
    if (nul < size) {
        config_error(path, 0, "holds a NUL byte: not a text file");
        return;
    }
    if (size == 0) {
        return;
    }
    if (span_starts(span_of(text, size), SPAN(BYTE_ORDER_MARK))) {
        memset(text, ' ', sizeof(BYTE_ORDER_MARK) - 1); /* editors leave it; it says nothing */
    }
    config_lint_file(lint, path, text, size);
    FILE *file = fmemopen(text, size, "r");
    if (file == NULL) {
        config_error(path, 0, "cannot be read: %s", strerror(errno));
        return;
    }
    free(cfg->filename); /* as cfg_parse does */
    cfg->filename = strdup(path);
    (void)cfg_parse_fp(cfg, file); /* tells its errors itself */
    (void)fclose(file);
}

static void parse_file(cfg_t *cfg, struct config_lint *lint, const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    char *text = NULL;
    size_t size = 0;
    config_error_set_file(path);
    int result = fd < 0 ? -errno : read_whole(fd, &text, &size);
    if (result == 0) {
        parse_text(cfg, lint, path, text, size);
    } else {
        config_error(path, 0, "cannot be read: %s",
                     result == -EINVAL ? "not a regular file" : strerror(-result));
    }
    free(text);
    if (fd >= 0) {
        (void)close(fd);
    }
}

/* libconfuse's include() takes one file only. */
void config_parse_all(cfg_t *cfg, struct config_lint *lint, const char *path)
{
    parse_file(cfg, lint, path);
    const char *slash = strrchr(path, '/');
    size_t directory_size = slash == NULL ? 0 : (size_t)(slash - path) + 1;
    char directory[PATH_SIZE];
    (void)snprintf(directory, sizeof(directory), "%.*sconf.d", (int)directory_size, path);
    struct dirent **names = NULL;
    int count = scandir(directory, &names, is_conf, by_name);
    for (int i = 0; i < count; i++) {
        char file[PATH_SIZE + 256];
        (void)snprintf(file, sizeof(file), "%s/%s", directory, names[i]->d_name);
        parse_file(cfg, lint, file);
        free(names[i]);
    }
    free(names);
    config_error_set_file(path); /* of what is found wrong from here on */
}
