/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shows a driver the files of a corpus, each whole, cut short, and with small changes drawn from a
 * fixed seed: the same inputs at each run. fuzz_replay CHANGES DIRECTORY|FILE ...
 */
#include <ftw.h>
#include <stdio.h>
#include <sys/stat.h>

#include "engine/base/random.h"
#include "tests/fuzz/fuzz.h"

enum { FILE_SIZE_MAX = 1 << 20 };

static struct random chance;
static uint32_t changes_count;
static uint32_t files_count;
static uint64_t inputs_count;

static void show(const char *bytes, size_t size)
{
    (void)LLVMFuzzerTestOneInput((const uint8_t *)bytes, size);
    inputs_count++;
}

/* A byte changed, a piece left out, or one doubled; room for twice the size. */
static size_t change(char *bytes, size_t size)
{
    static const char LOVED[] = "\0\r\n.\"\\{}[]<>@: \x80\xff,;=/-09aZ";
    if (size == 0) {
        return 0;
    }
    size_t at = random_below(&chance, (uint32_t)size);
    size_t left = size - at;
    size_t piece = 1 + random_below(&chance, left < 64 ? (uint32_t)left : 64);
    switch (random_below(&chance, 4)) {
    case 0:
        bytes[at] = LOVED[random_below(&chance, sizeof(LOVED) - 1)];
        return size;
    case 1:
        bytes[at] ^= (char)(1u << random_below(&chance, 8));
        return size;
    case 2:
        memmove(bytes + at, bytes + at + piece, left - piece);
        return size - piece;
    default:
        memmove(bytes + at + piece, bytes + at, left);
        return size + piece;
    }
}

static int on_file(const char *path, const struct stat *stat, int kind, struct FTW *walk)
{
    (void)walk;
    if (kind != FTW_F || stat->st_size > FILE_SIZE_MAX) {
        return 0;
    }
    size_t size = (size_t)stat->st_size;
    char *whole = malloc(size + 1);
    char *changed = malloc(2 * size + 256);
    FILE *file = fopen(path, "rb");
    ensure(whole != NULL && changed != NULL && file != NULL);
    ensure(fread(whole, 1, size, file) == size);
    (void)fclose(file);
    show(whole, size);
    for (uint32_t i = 0; i < changes_count; i++) {
        memcpy(changed, whole, size);
        size_t now = i % 8 == 0 ? random_below(&chance, (uint32_t)size + 1) : size;
        for (uint32_t rounds = random_below(&chance, 4); rounds > 0; rounds--) {
            now = change(changed, now);
        }
        show(changed, now);
    }
    free(changed);
    free(whole);
    files_count++;
    return 0;
}

int main(int argc, char **argv)
{
    ensure(argc > 2);
    changes_count = (uint32_t)strtoul(argv[1], NULL, 10);
    random_init_seed(&chance, 1);
    for (int i = 2; i < argc; i++) {
        if (nftw(argv[i], on_file, 16, FTW_PHYS) != 0) {
            (void)fprintf(stderr, "%s: cannot be read\n", argv[i]);
            return 1;
        }
    }
    (void)printf("%u files, %llu inputs\n", files_count, (unsigned long long)inputs_count);
    return files_count == 0;
}
