/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/worker_priv.h"

#include <errno.h>
#include <stdlib.h>

#include "dns/resolver.h"
#include "engine/compose.h"
#include "engine/delivery.h"
#include "engine/load.h"
#include "queue/journal.h"

static int init_slabs(struct worker *worker)
{
    static const char *const BUFS[COMPOSE_BUF_CLASSES] = {"bufs 2K", "bufs 16K", "bufs 128K",
                                                          "bufs 2M", "bufs whole"};
    const struct config *config = worker->engine->config;
    uint32_t sessions = worker->sessions_max;
    uint32_t lanes = config->sites_max < 1u << 20 ? config->sites_max : 1u << 20;
    const struct {
        struct slab *slab;
        const char *name;
        size_t size;
        uint32_t count;
    } rows[] = {
        {&worker->lanes, "lanes", sizeof(struct lane), lanes + 1},
        {&worker->deliveries, "deliveries", sizeof(struct delivery), sessions},
        {&worker->attempts, "attempts", sizeof(struct attempt), WORKER_ATTEMPTS_MAX},
        {&worker->entries_free, "entries", sizeof(struct journal_entry),
         WORKER_ATTEMPTS_MAX + WORKER_UNWRITTEN_MAX},
        {&worker->loads_free, "loads", sizeof(struct load), WORKER_LOADS_MAX},
        {&worker->queries, "queries", sizeof(struct mx_query), WORKER_QUERIES_MAX},
        {&worker->rcpts_blocks, "rcpts", sizeof(struct rcpts_block), sessions},
        {&worker->plans, "plans", sizeof(struct plan), sessions},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        int result =
            slab_init(rows[i].slab, rows[i].name, (rows[i].size + 7) & ~(size_t)7, rows[i].count);
        if (result != 0) {
            return result;
        }
    }
    for (uint32_t i = 0; i < COMPOSE_BUF_CLASSES; i++) {
        uint32_t count = i < 2 ? sessions : i == 2 ? (sessions / 4) + 16 : (sessions / 64) + 16;
        if (i == COMPOSE_BUF_CLASSES - 1) {
            count = WORKER_BUFS_WHOLE;
        }
        int result = slab_init(&worker->bufs[i], BUFS[i], compose_buf_size(config, i), count);
        if (result != 0) {
            return result;
        }
    }
    return ready_pool_init(&worker->ready_pool, config->recipients_max);
}

static int init_tables(struct worker *worker)
{
    uint32_t lanes = 1;
    while (lanes < worker->lanes.count_max && lanes < 1u << 20) {
        lanes *= 2;
    }
    worker->lanes_mask = lanes - 1;
    worker->lanes_by_key = calloc(lanes, sizeof(struct lane *));
    worker->domains = calloc(worker->engine->config->domains_max, sizeof(struct worker_domain));
    worker->record = calloc(1, sizeof(*worker->record));
    worker->scratch = malloc(COMPOSE_SCRATCH_SIZE);
    worker->parser = scan_parser_create();
    bool is_complete = worker->lanes_by_key != NULL && worker->domains != NULL &&
                       worker->record != NULL && worker->scratch != NULL && worker->parser != NULL;
    return is_complete ? 0 : -ENOMEM;
}

int worker_tables_init(struct worker *worker)
{
    int result = init_slabs(worker);
    return result == 0 ? init_tables(worker) : result;
}

void worker_tables_deinit(struct worker *worker)
{
    struct slab *const slabs[] = {
        &worker->lanes,   &worker->deliveries,   &worker->attempts, &worker->entries_free,
        &worker->queries, &worker->rcpts_blocks, &worker->plans,    &worker->loads_free,
        &worker->bufs[0], &worker->bufs[1],      &worker->bufs[2],  &worker->bufs[3],
        &worker->bufs[4],
    };
    for (size_t i = 0; i < COUNT_OF(slabs); i++) {
        slab_abandon(slabs[i]); /* recipients may be anywhere: the journal knows them */
    }
    ready_pool_abandon(&worker->ready_pool);
    scan_parser_destroy(worker->parser);
    free(worker->scratch);
    free(worker->record);
    free(worker->domains);
    free(worker->lanes_by_key);
}
