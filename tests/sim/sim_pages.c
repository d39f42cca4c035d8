/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/sim_pages.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "engine/base/ensure.h"
#include "tests/sim/sim_memory.h"

void *__real_mmap64(void *at, size_t size, int access, int flags, int fd, long offset);
int __real_munmap(void *at, size_t size);
void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *at, size_t size);
void __real_free(void *at);
void *__wrap_mmap64(void *at, size_t size, int access, int flags, int fd, long offset);
int __wrap_munmap(void *at, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *at, size_t size);
void __wrap_free(void *at);
char *__wrap_strdup(const char *text);

enum { PAGE = 4096, HEAD = 64 };
enum { SMALL_FIRST = 32, SMALL_CLASSES = 13, SMALL_HEAD = 16 };

#define SMALL_RANGE (UINT64_C(1) << 32)

/* In front of what malloc and calloc have given. */
struct head {
    size_t size;
    bool is_engine;
};
_Static_assert(sizeof(struct head) <= SMALL_HEAD, "in front of small pieces, too");

/* Small pieces of the engine: powers of two, each kind with a list of those that came back. */
static struct {
    char *range;
    size_t used;
    void *free[SMALL_CLASSES];
} small;
_Static_assert((size_t)SMALL_FIRST << (SMALL_CLASSES - 1) >= SIM_PAGES_SIZE + SMALL_HEAD,
               "up to the large ones");

static struct {
    char *range; /* NULL: not asked for yet */
    bool is_refused;
    size_t used;
    size_t out_count;
} pages;

size_t sim_pages_used(void)
{
    return pages.used;
}

static bool is_ours(const void *at)
{
    uintptr_t address = (uintptr_t)at;
    uintptr_t range = (uintptr_t)pages.range;
    return pages.range != NULL && address >= range && address - range < SIM_PAGES_RANGE;
}

/* Whole pages, zero; NULL: none are left. */
static char *take(size_t size)
{
    if (pages.range == NULL && !pages.is_refused) {
        void *range = __real_mmap64(NULL, SIM_PAGES_RANGE, PROT_READ | PROT_WRITE,
                                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        pages.is_refused = range == MAP_FAILED;
        pages.range = pages.is_refused ? NULL : range;
    }
    size = (size + PAGE - 1) & ~(size_t)(PAGE - 1);
    if (pages.range == NULL || size > SIM_PAGES_RANGE - pages.used) {
        return NULL;
    }
    char *at = pages.range + pages.used;
    pages.used += size;
    pages.out_count++;
    return at;
}

static void give(void)
{
    ensure(pages.out_count > 0);
    if (--pages.out_count == 0) {
        ensure(madvise(pages.range, pages.used, MADV_DONTNEED) == 0);
        pages.used = 0;
    }
}

static bool is_small(const void *at)
{
    uintptr_t address = (uintptr_t)at;
    uintptr_t range = (uintptr_t)small.range;
    return small.range != NULL && address >= range && address - range < SMALL_RANGE;
}

static unsigned class_of(size_t size)
{
    unsigned class = 0;
    while ((size_t)SMALL_FIRST << class < size + SMALL_HEAD) {
        class ++;
    }
    ensure(class < SMALL_CLASSES);
    return class;
}

static void *small_take(size_t size)
{
    unsigned class = class_of(size);
    char *at = small.free[class];
    if (small.range == NULL) {
        void *range = __real_mmap64(NULL, SMALL_RANGE, PROT_READ | PROT_WRITE,
                                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        ensure(range != MAP_FAILED);
        small.range = range;
        sim_memory.is_summed = true;
    }
    if (at != NULL) {
        memcpy(&small.free[class], at, sizeof(void *));
    } else {
        at = small.range + small.used;
        small.used += (size_t)SMALL_FIRST << class;
        ensure(small.used <= SMALL_RANGE);
    }
    ((struct head *)(void *)at)->size = size;
    sim_memory_took(size);
    return at + SMALL_HEAD;
}

static void small_give(void *piece)
{
    char *at = (char *)piece - SMALL_HEAD;
    size_t size = ((const struct head *)(const void *)at)->size;
    unsigned class = class_of(size);
    ensure(sim_memory.heap_size >= size);
    sim_memory.heap_size -= size;
    memcpy(at, &small.free[class], sizeof(void *));
    small.free[class] = at;
}

void *__wrap_mmap64(void *at, size_t size, int access, int flags, int fd, long offset)
{
    bool is_plain = at == NULL && fd < 0 && (flags & MAP_ANONYMOUS) != 0 &&
                    (flags & MAP_SHARED) == 0 && access == (PROT_READ | PROT_WRITE);
    char *taken = is_plain ? take(size) : NULL;
    sim_memory.mapped_size += sim_memory.is_engine ? size : 0;
    return taken != NULL ? taken : __real_mmap64(at, size, access, flags, fd, offset);
}

int __wrap_munmap(void *at, size_t size)
{
    sim_memory.mapped_size -= sim_memory.is_engine ? size : 0;
    if (!is_ours(at)) {
        return __real_munmap(at, size);
    }
    give();
    return 0;
}

static void *allocate_large(size_t size)
{
    char *taken = take(size + HEAD);
    if (taken == NULL) {
        return NULL;
    }
    bool is_engine = sim_memory.is_engine;
    *(struct head *)(void *)taken = (struct head){.size = size, .is_engine = is_engine};
    sim_memory_took(is_engine ? size : 0);
    return taken + HEAD;
}

/* NULL: a small piece of the world's, or there is no room. */
static void *allocate(size_t size, bool is_zero)
{
    if (size >= SIM_PAGES_SIZE) {
        return allocate_large(size);
    }
    void *at = sim_memory.is_engine ? small_take(size) : NULL;
    if (at != NULL && is_zero) {
        memset(at, 0, size);
    }
    return at;
}

void *__wrap_malloc(size_t size)
{
    void *at = allocate(size, false);
    return at != NULL ? at : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    size_t bytes;
    void *at = __builtin_mul_overflow(count, size, &bytes) ? NULL : allocate(bytes, true);
    return at != NULL ? at : __real_calloc(count, size);
}

void *__wrap_realloc(void *at, size_t size)
{
    if (at == NULL) {
        return __wrap_malloc(size);
    }
    if (!is_ours(at) && !is_small(at)) {
        return __real_realloc(at, size);
    }
    const char *head = (const char *)at - (is_small(at) ? SMALL_HEAD : HEAD);
    size_t before = ((const struct head *)(const void *)head)->size;
    void *moved = __wrap_malloc(size);
    if (moved != NULL) {
        memcpy(moved, at, before < size ? before : size);
        __wrap_free(at);
    }
    return moved;
}

char *__wrap_strdup(const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = __wrap_malloc(size);
    return copy == NULL ? NULL : memcpy(copy, text, size);
}

void __wrap_free(void *at)
{
    if (at == NULL) {
        return;
    }
    if (is_small(at)) {
        small_give(at);
    } else if (is_ours(at)) {
        const struct head *head = (const struct head *)(const void *)((const char *)at - HEAD);
        sim_memory.heap_size -= head->is_engine ? head->size : 0;
        give();
    } else {
        __real_free(at);
    }
}
