/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim_engine: a whole engine, every actor as it is, in one thread and on virtual time, in a
 * simulated world: disk, network, name servers, mail servers.
 *
 * The world lives as long as the struct; the engine in it is booted, crashes, is stopped and is
 * booted again on what the disk kept. A seeded scheduler steps the actors: of those whose waker is
 * signalled, whose deadline has come or for whom the world has something, one by chance; now and
 * then one that has no reason. When nobody is ready time moves on to the next event. Intake and
 * control look at the world once a second for no reason of the scheduler's: when nothing else is to
 * be done they are called up to `lazy_max_ns` late, so that days of waiting cost little.
 *
 * Checked on the way: worker_check after every step, LAW 3 in sum when nobody is ready, the limits
 * of sources and sites, that no actor keeps itself busy for ever; and where allocations are summed
 * (sim_memory.h) that an engine holds no more than it may, idle or not, and leaves nothing behind.
 * A breach is told on standard error and aborts (sim_violation).
 *
 * How to use it: create; change `config`, `routes`, add peers and zones; boot; write batches
 * (sim_book.h); run; destroy.
 */
#pragma once

#include "dns/resolver.h"
#include "engine/control.h"
#include "engine/damage.h"
#include "engine/engine.h"
#include "engine/intake.h"
#include "engine/worker.h"
#include "queue/journal.h"
#include "queue/journal_replay.h"
#include "tests/sim/sim_disk.h"
#include "tests/sim/sim_dns.h"
#include "tests/sim/sim_net.h"
#include "tests/sim/sim_peer.h"

enum { SIM_WORKERS_MAX = 4, SIM_ROUTES_MAX = 8, SIM_SOURCES_MAX = 4 };
enum { SIM_ACTORS_MAX = SIM_WORKERS_MAX + 4, SIM_DEATHS_MAX = 64 };
enum { SIM_BOOTS_MAX = 256, SIM_WALLS_MAX = 32, SIM_ACCEPTED_MAX = 64 };

/* The clock that an engine sees: its monotonic time begins anew with each life, as behind a reboot.
 */
struct sim_own_clock {
    struct clock clock; /* first: a pointer to this is a pointer to the whole */
    const struct clock_manual *world;
    int64_t ahead_ns;
};

/* From then on the wall clock was so much ahead of the world's time. */
struct sim_wall {
    int64_t from_ns;
    int64_t ahead_ns;
};

struct sim_engine_config {
    uint64_t seed;
    struct sim_net_config net;
    struct sim_dns_config dns;
    int64_t disk_delay_max_ns;
    int64_t step_max_ns; /* virtual time that a step takes at most; 0: none */
    int64_t lazy_max_ns;
    const struct config *defaults; /* what `config` begins with; NULL: read for this one */
    bool is_traced;
};

/* An actor and when it is to be called. */
struct sim_actor {
    struct actor *actor;
    struct mono_time deadline;
    struct net_loop *net; /* a worker's */
    struct disk *disk;    /* intake's, the journal's */
    bool is_lazy;
};

struct sim_engine {
    struct sim_engine_config settings;
    struct clock_manual clock;
    struct sim_own_clock own_clock;
    struct sim_wall walls[SIM_WALLS_MAX];
    uint32_t walls_count;
    struct random random;
    struct sim_disk *disk;
    struct disk *view; /* the world's own, for submitters and checkers */
    struct sim_net *net;
    struct sim_dns *dns;
    struct sim_peers *peers;

    /* Of the next boot. */
    struct config config;
    struct config_source sources[SIM_SOURCES_MAX];
    struct config_route routes[SIM_ROUTES_MAX];
    struct config *owned_defaults;

    /* One life. */
    bool is_up;
    bool is_marked;  /* the last life ended in order, and has left word of it */
    int exit_status; /* of the last life that ended by itself */
    struct engine engine;
    struct disk *intake_disk;
    struct disk *journal_disk;
    struct journal_known known;
    struct journal journal;
    struct resolver resolver;
    struct intake intake;
    struct control control;
    struct worker *workers;
    struct worker *workers_by_index[SIM_WORKERS_MAX];
    uint32_t workers_made;
    struct sim_actor actors[SIM_ACTORS_MAX];
    uint32_t actors_count;
    char errors[1024];             /* of the boot */
    char damage[DAMAGE_TEXT_SIZE]; /* what the last start said of it */
    /* Directories of batches that were so at the last end. */
    char accepted[SIM_ACCEPTED_MAX][MANIFEST_ID_MAX + 32];
    uint32_t accepted_count;
    struct {
        uint64_t before; /* the boot: heap ... */
        uint64_t mapped_before;
        uint64_t made; /* behind it: heap */
    } memory;

    uint64_t steps;
    uint64_t boots;
    int64_t boots_ns[SIM_BOOTS_MAX];
    struct wall_time boots_at[SIM_BOOTS_MAX]; /* the same by the wall clock */
    uint64_t crashes;
    bool is_power_loss_due;            /* what sim_engine_crash_at asked for */
    uint64_t failures;                 /* lives that ended by themselves, in disorder */
    int64_t deaths_ns[SIM_DEATHS_MAX]; /* when lives ended with mail on its way, all in all */
    uint32_t deaths_count;
    uint64_t checkpoints;      /* of lives that have ended */
    uint64_t steps_at_advance; /* value of `steps` when time last moved */
    int64_t advanced_ns;
};

struct sim_engine *sim_engine_create(const struct sim_engine_config *config);
void sim_engine_destroy(struct sim_engine *sim); /* NULL-safe */
/* One more route before "*", with the defaults of "*"; to be changed before the boot. */
struct config_route *sim_engine_route(struct sim_engine *sim, char *pattern);
/* 0, or -errno with the reasons in sim->errors and nothing left running; -EINTR: it crashed. */
int sim_engine_boot(struct sim_engine *sim) __attribute__((warn_unused_result));
/* The engine is gone in the middle of whatever it did: by power loss, or killed. */
void sim_engine_crash(struct sim_engine *sim, bool is_power_loss);
/* The same behind the engine's n-th operation of the disk from now, be it in a start. The engine is
 * down when `is_up` is false. */
void sim_engine_crash_at(struct sim_engine *sim, uint64_t n, bool is_power_loss);
/* Somebody sets the wall clock, forward or back. */
void sim_engine_set_wall(struct sim_engine *sim, int64_t by_ns);
/* When the wall clock said so: the i-th time, counted from 0. False: not so often, or never. */
bool sim_engine_wall_was(const struct sim_engine *sim, struct wall_time at, uint32_t i,
                         int64_t *ret_ns);
/* As SIGTERM. The engine is down when `is_up` is false. */
void sim_engine_stop(struct sim_engine *sim);
/* One step of an actor or of time, not beyond `limit`; false: nothing is left to do before it. */
bool sim_engine_turn(struct sim_engine *sim, struct mono_time limit);
/* Runs for `ns` of virtual time. */
void sim_engine_run(struct sim_engine *sim, int64_t ns);
/* Runs until `is_done` is true, at most `ns`; returns whether it is. Asked when nobody is ready. */
bool sim_engine_run_until(struct sim_engine *sim, bool (*is_done)(struct sim_engine *sim),
                          int64_t ns);
/* Nothing in the spool but what is done, nothing on its way, all sessions closed, all lanes gone:
 * every slab is empty but for what an engine always has out. */
bool sim_engine_is_idle(struct sim_engine *sim);
/* Nothing in the spool to be delivered. */
bool sim_engine_is_done(struct sim_engine *sim);
/* Recipients that are accepted and not settled, as the engine counts them. */
uint64_t sim_engine_live(const struct sim_engine *sim);
/* Sessions open to the site of this name, over all workers. */
uint32_t sim_engine_sessions(const struct sim_engine *sim, const char *site);
__attribute__((format(printf, 2, 3))) void sim_trace(const struct sim_engine *sim,
                                                     const char *format, ...);
__attribute__((format(printf, 2, 3))) _Noreturn void sim_violation(const struct sim_engine *sim,
                                                                   const char *format, ...);
