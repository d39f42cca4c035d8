/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/sim_net.h"

#include <errno.h>
#include <stdlib.h>

#include "tests/sim/sim_net_priv.h"

enum {
    EVENTS_BUDGET = 1024, /* told in one run_once */
    CHANCE_WHOLE = 65536,
    PORT_FIRST = 10000,
    PIECE_MAX = 16384,
    WINDOW_SIZE = 262144,
    FAULT_AT_MAX = 65536,
    STALL_MAX_MS = 60000,
    GIVE_UP_MS = 900000,
};

int64_t sim_now_ns(const struct sim_net *net)
{
    return clock_mono(net->clock).ns;
}

int64_t sim_delay_ns(struct sim_net *net)
{
    int64_t spread_ns = net->config.delay_max_ns - net->config.delay_min_ns;
    return net->config.delay_min_ns +
           (int64_t)(random_u64(&net->random) % (uint64_t)(spread_ns + 1));
}

bool sim_chance(struct sim_net *net, uint32_t chance)
{
    return chance > 0 && random_below(&net->random, CHANCE_WHOLE) < chance;
}

bool sim_op_fails(const struct sim_loop *loop)
{
    struct sim_net *net = loop->net;
    if (loop->config.waker == NULL || net->fail_left == 0 || --net->fail_left > 0) {
        return false;
    }
    net->fail_left = net->is_fail_sticky ? 1 : 0;
    net->failures_count++;
    return true;
}

void sim_net_fail_at(struct sim_net *net, uint64_t n, enum net_error error, bool is_sticky)
{
    net->fail_left = n;
    net->fail_error = error;
    net->is_fail_sticky = is_sticky;
}

uint64_t sim_net_failures_count(const struct sim_net *net)
{
    return net->failures_count;
}

struct sim_end *sim_end_at(const struct sim_net *net, struct sim_ref ref)
{
    const struct sim_loop *loop = net->loops[ref.loop];
    return loop == NULL ? NULL : slab_at_handle(&loop->ends, ref.handle);
}

static bool is_earlier(const struct sim_event *a, const struct sim_event *b)
{
    return a->due_ns != b->due_ns ? a->due_ns < b->due_ns : a->sequence < b->sequence;
}

static void events_room(struct sim_loop *loop)
{
    if (loop->events_count == loop->events_room) {
        loop->events_room = loop->events_room == 0 ? 64 : loop->events_room * 2;
        loop->events = sim_world_realloc(loop->events, loop->events_room * sizeof(*loop->events));
    }
}

void sim_post(struct sim_net *net, struct sim_event event)
{
    struct sim_loop *loop = net->loops[event.to.loop];
    if (loop == NULL) {
        sim_conn_on_nobody(net, &event);
        free(event.piece);
        return;
    }
    ensure(event.due_ns >= sim_now_ns(net));
    event.sequence = net->sequence++;
    events_room(loop);
    size_t at = loop->events_count++;
    while (at > 0 && is_earlier(&event, &loop->events[(at - 1) / 2])) {
        loop->events[at] = loop->events[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    loop->events[at] = event;
}

static struct sim_event event_take(struct sim_loop *loop)
{
    struct sim_event first = loop->events[0];
    struct sim_event last = loop->events[--loop->events_count];
    size_t at = 0;
    for (;;) {
        size_t child = 2 * at + 1;
        if (child + 1 < loop->events_count &&
            is_earlier(&loop->events[child + 1], &loop->events[child])) {
            child++;
        }
        if (child >= loop->events_count || !is_earlier(&loop->events[child], &last)) {
            break;
        }
        loop->events[at] = loop->events[child];
        at = child;
    }
    loop->events[at] = last;
    return first;
}

/* Nobody shall travel in time to a timeout of a connect that is over, or to what an end that is
 * gone will not hear. */
static bool is_void(const struct sim_net *net, const struct sim_event *event)
{
    bool is_answered =
        event->kind == SIM_SYN || event->kind == SIM_PIECE || event->kind == SIM_CONNECTED;
    if (is_answered) {
        return false;
    }
    const struct sim_end *end = sim_end_at(net, event->to);
    return end == NULL || (event->kind == SIM_TIMEOUT && end->state != SIM_CONNECTING);
}

static void drop_void(struct sim_loop *loop)
{
    while (loop->events_count > 0 && is_void(loop->net, &loop->events[0])) {
        struct sim_event event = event_take(loop);
        free(event.piece);
    }
}

static bool rule_matches(const struct sim_rule *rule, const struct net_addr *addr)
{
    struct net_addr plain = *addr;
    if (rule->addr.port == 0) {
        plain.port = 0;
    }
    return net_addr_equal(&rule->addr, &plain);
}

enum sim_net_rule sim_rule_of(const struct sim_net *net, const struct net_addr *addr)
{
    for (uint32_t i = net->rules_count; i > 0; i--) {
        if (rule_matches(&net->rules[i - 1], addr)) {
            return net->rules[i - 1].rule;
        }
    }
    return SIM_NORMAL;
}

void sim_net_rule_set(struct sim_net *net, const struct net_addr *addr, enum sim_net_rule rule)
{
    for (uint32_t i = 0; i < net->rules_count; i++) {
        if (net_addr_equal(&net->rules[i].addr, addr)) {
            net->rules[i].rule = rule;
            return;
        }
    }
    ensure(net->rules_count < SIM_RULES_MAX);
    net->rules[net->rules_count++] = (struct sim_rule){.addr = *addr, .rule = rule};
}

static bool listens_at(const struct sim_listener *listener, const struct net_addr *addr)
{
    static const uint8_t UNSPECIFIED[16];
    if (listener->addr.port != addr->port || listener->addr.family != addr->family) {
        return false;
    }
    return memcmp(listener->addr.bytes, UNSPECIFIED, sizeof(UNSPECIFIED)) == 0 ||
           memcmp(listener->addr.bytes, addr->bytes, sizeof(addr->bytes)) == 0;
}

struct sim_loop *sim_listener_find(const struct sim_net *net, const struct net_addr *addr,
                                   uint32_t *ret_listener)
{
    for (uint32_t i = 0; i < net->loops_count; i++) {
        struct sim_loop *loop = net->loops[i];
        for (uint32_t j = 0; loop != NULL && j < loop->listeners_count; j++) {
            if (listens_at(&loop->listeners[j], addr)) {
                *ret_listener = j;
                return loop;
            }
        }
    }
    return NULL;
}

static int sim_listen(struct net_loop *loop, const struct net_addr *local, uint32_t backlog,
                      void *user, struct net_addr *ret_bound)
{
    (void)backlog;
    struct sim_loop *sim = sim_loop_of(loop);
    uint32_t other;
    struct net_addr bound = *local;
    if (bound.port == 0) {
        bound.port = sim->net->port_next++;
    }
    if (sim->listeners_count == SIM_LISTENERS_MAX) {
        return -ENOBUFS;
    }
    if (sim_rule_of(sim->net, local) == SIM_FOREIGN) {
        return -EADDRNOTAVAIL;
    }
    if (sim_listener_find(sim->net, &bound, &other) != NULL) {
        return -EADDRINUSE;
    }
    sim->listeners[sim->listeners_count++] = (struct sim_listener){.addr = bound, .user = user};
    *ret_bound = bound;
    return 0;
}

static int sim_set_user(struct net_loop *loop, struct net_conn_id id, void *user)
{
    struct sim_end *end = slab_at_handle(&sim_loop_of(loop)->ends, handle_of_u64(id.value));
    if (end == NULL) {
        return -ESTALE;
    }
    end->user = user;
    return 0;
}

static void tell(struct sim_loop *loop, struct sim_event *event)
{
    if (event->kind == SIM_SYN) {
        sim_conn_on_syn(loop, event);
        return;
    }
    struct sim_end *end = sim_end_at(loop->net, event->to);
    if (end == NULL) {
        sim_conn_on_nobody(loop->net, event);
        free(event->piece);
        return;
    }
    sim_conn_on_event(loop, end, event);
}

static struct mono_time sim_run_once(struct net_loop *loop, struct mono_time now)
{
    struct sim_loop *sim = sim_loop_of(loop);
    now.ns -= sim->ahead_ns;
    ensure(now.ns <= sim_now_ns(sim->net));
    for (int told = 0; told < EVENTS_BUDGET && sim->events_count > 0; told++) {
        if (sim->events[0].due_ns > now.ns) {
            break;
        }
        struct sim_event event = event_take(sim);
        tell(sim, &event);
    }
    return mono_add_ns(sim_net_loop_next(loop), sim->ahead_ns);
}

void sim_net_loop_shift(struct net_loop *loop, int64_t ahead_ns)
{
    sim_loop_of(loop)->ahead_ns = ahead_ns;
}

static void sim_loop_destroy(struct net_loop *loop)
{
    struct sim_loop *sim = sim_loop_of(loop);
    struct sim_net *net = sim->net;
    for (uint32_t i = 0; i < sim->ends.fresh; i++) {
        struct handle handle = {.index = i, .generation = sim->ends.generations[i]};
        struct sim_end *end = slab_at_handle(&sim->ends, handle);
        if (end != NULL) {
            sim_end_reset_peer(net, end, NET_RESET);
            sim_end_drop(net, end);
        }
    }
    net->loops[sim->index] = NULL;
    for (size_t i = 0; i < sim->events_count; i++) {
        sim_conn_on_nobody(net, &sim->events[i]);
        free(sim->events[i].piece);
    }
    free(sim->events);
    bool was_engine = sim_memory_enter(false);
    slab_deinit(&sim->ends);
    (void)sim_memory_enter(was_engine);
    free(sim);
}

static const struct net_ops OPS = {
    .connect = sim_connect,
    .listen = sim_listen,
    .send = sim_send,
    .rx_stop = sim_rx_stop,
    .close = sim_close,
    .set_user = sim_set_user,
    .run_once = sim_run_once,
    .destroy = sim_loop_destroy,
};

struct net_loop *sim_net_loop_create(struct sim_net *net, const struct net_config *config)
{
    ensure(net->loops_count < SIM_LOOPS_MAX);
    struct sim_loop *loop = sim_world_alloc(sizeof(*loop));
    loop->loop.ops = &OPS;
    loop->net = net;
    loop->index = net->loops_count++;
    loop->config = *config;
    bool was_engine = sim_memory_enter(false);
    ensure(slab_init(&loop->ends, "simulated ends", sizeof(struct sim_end), config->conns_max) ==
           0);
    (void)sim_memory_enter(was_engine);
    net->loops[loop->index] = loop;
    return &loop->loop;
}

static uint32_t or_default(uint32_t value, uint32_t otherwise)
{
    return value > 0 ? value : otherwise;
}

void sim_net_config_set(struct sim_net *net, const struct sim_net_config *config)
{
    ensure(config->delay_min_ns >= 0);
    ensure(config->delay_max_ns >= config->delay_min_ns);
    net->config = *config;
    net->config.piece_max = or_default(config->piece_max, PIECE_MAX);
    net->config.window_size = or_default(config->window_size, WINDOW_SIZE);
    net->config.fault_at_max = or_default(config->fault_at_max, FAULT_AT_MAX);
    net->config.stall_max_ms = or_default(config->stall_max_ms, STALL_MAX_MS);
    net->config.give_up_ms = or_default(config->give_up_ms, GIVE_UP_MS);
}

struct sim_net *sim_net_create(const struct sim_net_config *config, const struct clock *clock)
{
    struct sim_net *net = sim_world_alloc(sizeof(*net));
    net->clock = clock;
    net->port_next = PORT_FIRST;
    random_init_seed(&net->random, config->seed);
    sim_net_config_set(net, config);
    return net;
}

void sim_net_destroy(struct sim_net *net)
{
    for (uint32_t i = 0; net != NULL && i < net->loops_count; i++) {
        ensure(net->loops[i] == NULL);
    }
    free(net);
}

struct mono_time sim_net_loop_next(struct net_loop *loop)
{
    struct sim_loop *sim = sim_loop_of(loop);
    drop_void(sim);
    return sim->events_count > 0 ? (struct mono_time){.ns = sim->events[0].due_ns} : MONO_NEVER;
}

struct mono_time sim_net_next(struct sim_net *net)
{
    struct mono_time next = MONO_NEVER;
    for (uint32_t i = 0; i < net->loops_count; i++) {
        if (net->loops[i] != NULL) {
            next = mono_earlier(next, sim_net_loop_next(&net->loops[i]->loop));
        }
    }
    return next;
}

int64_t sim_net_asked_ns(const struct net_loop *loop)
{
    return ((const struct sim_loop *)loop)->asked_ns;
}

struct sim_net_counts sim_net_counts_of(const struct sim_net *net)
{
    return net->counts;
}
