/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "tests/sim/sim_net_priv.h"

#define BIT(state) (1u << (state))

static const uint8_t ALLOWED[] = {
    [SIM_CONNECTING] = BIT(SIM_OPEN) | BIT(SIM_CLOSING),
    [SIM_OPEN] = BIT(SIM_FLUSHING) | BIT(SIM_CLOSING),
    [SIM_FLUSHING] = BIT(SIM_CLOSING),
    [SIM_CLOSING] = 0,
};
static_assert(COUNT_OF(ALLOWED) == SIM_STATES_COUNT, "every state has its row");

static void end_enter(struct sim_end *end, enum sim_state state)
{
    ensure((ALLOWED[end->state] & BIT(state)) != 0);
    end->state = state;
}

static struct sim_end *end_take(struct sim_loop *loop, enum sim_state state, void *user)
{
    struct sim_end *end = slab_take(&loop->ends);
    if (end == NULL) {
        return NULL;
    }
    memset(end, 0, offsetof(struct sim_end, queued));
    end->self = (struct sim_ref){.loop = loop->index, .handle = slab_handle(&loop->ends, end)};
    end->state = state;
    end->user = user;
    end->fate = sim_fate_draw(loop->net);
    return end;
}

void sim_end_drop(struct sim_net *net, struct sim_end *end)
{
    sim_flow_drop_held(end);
    slab_give(&net->loops[end->self.loop]->ends, end);
}

void sim_tell(const struct sim_loop *loop, const struct sim_end *end, struct net_event event)
{
    event.conn.value = handle_to_u64(end->self.handle);
    event.user = end->user;
    loop->config.on_event(loop->config.context, &event);
}

void sim_end_close(struct sim_net *net, struct sim_end *end, enum net_error error)
{
    if (end->state == SIM_CLOSING) {
        return;
    }
    end_enter(end, SIM_CLOSING);
    end->error = error;
    sim_flow_drop_held(end);
    sim_post(net,
             (struct sim_event){.kind = SIM_CLOSED, .due_ns = sim_now_ns(net), .to = end->self});
}

void sim_end_reset_peer(struct sim_net *net, struct sim_end *end, enum net_error error)
{
    if (end->peer.handle.generation == 0 || end->is_silent) {
        return;
    }
    int64_t due_ns = sim_now_ns(net) + sim_delay_ns(net);
    end->out_due_ns = due_ns > end->out_due_ns ? due_ns : end->out_due_ns;
    sim_post(net, (struct sim_event){
                      .kind = SIM_RST, .due_ns = end->out_due_ns, .error = error, .to = end->peer});
}

void sim_end_break(struct sim_net *net, struct sim_end *end)
{
    sim_end_reset_peer(net, end, NET_RESET);
    end->is_silent = true;
    sim_end_close(net, end, net->fail_error);
}

static void connect_fail(struct sim_net *net, const struct sim_end *end, enum net_error error,
                         int64_t delay_ns)
{
    sim_post(net, (struct sim_event){.kind = SIM_FAILED,
                                     .due_ns = sim_now_ns(net) + delay_ns,
                                     .error = error,
                                     .to = end->self});
}

static void connect_start(struct sim_net *net, struct sim_end *end,
                          const struct net_addr *destination)
{
    enum sim_net_rule rule = sim_rule_of(net, destination);
    int64_t there_ns = sim_delay_ns(net);
    int64_t back_ns = sim_delay_ns(net);
    uint32_t listener = 0;
    const struct sim_loop *server = sim_listener_find(net, destination, &listener);
    net->counts.connects++;
    if (rule == SIM_UNREACHABLE) {
        connect_fail(net, end, NET_UNREACHABLE, there_ns);
    } else if (rule == SIM_SILENT) {
        return;
    } else if (sim_chance(net, net->config.lose_chance)) {
        net->counts.lost++;
    } else if (sim_chance(net, net->config.refuse_chance)) {
        net->counts.refused++;
        connect_fail(net, end, NET_REFUSED, there_ns + back_ns);
    } else if (rule == SIM_REFUSING || server == NULL) {
        connect_fail(net, end, NET_REFUSED, there_ns + back_ns);
    } else {
        end->out_due_ns = sim_now_ns(net) + there_ns;
        sim_post(net, (struct sim_event){.kind = SIM_SYN,
                                         .due_ns = end->out_due_ns,
                                         .to = {.loop = server->index},
                                         .from = end->self,
                                         .listener = listener});
    }
}

int sim_connect(struct net_loop *loop, const struct net_addr *source,
                const struct net_addr *destination, uint32_t timeout_ms, void *user,
                struct net_conn_id *ret_conn)
{
    struct sim_loop *sim = sim_loop_of(loop);
    struct sim_net *net = sim->net;
    ensure(destination->family == NET_IP4 || destination->family == NET_IP6);
    struct sim_end *end = end_take(sim, SIM_CONNECTING, user);
    if (end == NULL) {
        return -ENOBUFS;
    }
    ret_conn->value = handle_to_u64(end->self.handle);
    bool is_foreign = source->family != NET_NONE && (source->family != destination->family ||
                                                     sim_rule_of(net, source) == SIM_FOREIGN);
    if (is_foreign || sim_op_fails(sim)) {
        connect_fail(net, end, is_foreign ? NET_NO_SOURCE : net->fail_error, 0);
        return 0;
    }
    connect_start(net, end, destination);
    sim_post(net, (struct sim_event){.kind = SIM_TIMEOUT,
                                     .due_ns = sim_now_ns(net) + timeout_ms * NS_PER_MS,
                                     .to = end->self});
    return 0;
}

void sim_conn_on_syn(struct sim_loop *loop, const struct sim_event *event)
{
    struct sim_net *net = loop->net;
    struct sim_end *client = sim_end_at(net, event->from);
    if (client == NULL || client->state != SIM_CONNECTING) {
        return;
    }
    struct sim_end *end = end_take(loop, SIM_OPEN, loop->listeners[event->listener].user);
    if (end == NULL) {
        connect_fail(net, client, NET_REFUSED, sim_delay_ns(net));
        return;
    }
    end->peer = client->self;
    client->peer = end->self;
    end->out_due_ns = sim_now_ns(net) + sim_delay_ns(net);
    sim_post(net, (struct sim_event){.kind = SIM_CONNECTED,
                                     .due_ns = end->out_due_ns,
                                     .to = client->self,
                                     .from = end->self});
    sim_tell(loop, end, (struct net_event){.kind = NET_ACCEPTED});
}

void sim_conn_on_nobody(struct sim_net *net, const struct sim_event *event)
{
    bool is_answered = event->kind == SIM_PIECE || event->kind == SIM_CONNECTED;
    struct sim_end *sender = is_answered ? sim_end_at(net, event->from) : NULL;
    if (event->kind == SIM_SYN) {
        struct sim_end *client = sim_end_at(net, event->from);
        if (client != NULL && client->state == SIM_CONNECTING) {
            connect_fail(net, client, NET_REFUSED, sim_delay_ns(net));
        }
    } else if (sender != NULL) {
        int64_t due_ns = sim_now_ns(net) + sim_delay_ns(net);
        sim_post(net,
                 (struct sim_event){
                     .kind = SIM_RST, .due_ns = due_ns, .error = NET_RESET, .to = sender->self});
    }
}

static void on_connected(struct sim_loop *loop, struct sim_end *end)
{
    if (end->state == SIM_CONNECTING) {
        end_enter(end, SIM_OPEN);
        sim_flow_pump(loop->net, end);
        sim_tell(loop, end, (struct net_event){.kind = NET_CONNECTED});
    }
}

static void on_connect_ended(struct sim_net *net, struct sim_end *end, enum net_error error)
{
    if (end->state == SIM_CONNECTING) {
        sim_end_reset_peer(net, end, NET_RESET);
        sim_end_close(net, end, error);
    }
}

static void on_closed(struct sim_loop *loop, struct sim_end *end)
{
    ensure(end->state == SIM_CLOSING);
    struct sim_end last = {.self = end->self, .user = end->user};
    enum net_error error = end->error;
    sim_end_drop(loop->net, end);
    sim_tell(loop, &last, (struct net_event){.kind = NET_CLOSED, .error = error});
}

void sim_conn_on_event(struct sim_loop *loop, struct sim_end *end, const struct sim_event *event)
{
    switch (event->kind) {
    case SIM_SYN:
        break;
    case SIM_CONNECTED:
        on_connected(loop, end);
        return;
    case SIM_FAILED:
        on_connect_ended(loop->net, end, event->error);
        return;
    case SIM_TIMEOUT:
        on_connect_ended(loop->net, end, NET_TIMEOUT);
        return;
    case SIM_PIECE:
        sim_flow_on_piece(loop, end, event->piece);
        return;
    case SIM_FIN:
        sim_flow_on_fin(loop, end);
        return;
    case SIM_RST:
        sim_end_close(loop->net, end, event->error);
        return;
    case SIM_DONE:
        sim_flow_on_done(loop, end, event->piece);
        return;
    case SIM_RESUMED:
        sim_flow_on_resumed(loop, end);
        return;
    case SIM_CLOSED:
        on_closed(loop, end);
        return;
    }
    ensure(false);
}

int sim_close(struct net_loop *loop, struct net_conn_id id, bool is_abort)
{
    struct sim_loop *sim = sim_loop_of(loop);
    struct sim_net *net = sim->net;
    struct sim_end *end = slab_at_handle(&sim->ends, handle_of_u64(id.value));
    if (end == NULL) {
        return -ESTALE;
    }
    if (end->state == SIM_CLOSING) {
        return 0;
    }
    if (!is_abort && end->state == SIM_OPEN && sim_op_fails(sim)) {
        sim_end_break(net, end);
    } else if (is_abort || end->state == SIM_CONNECTING) {
        sim_end_reset_peer(net, end, NET_RESET);
        sim_end_close(net, end, is_abort ? NET_ABORTED : NET_OK);
    } else if (end->state == SIM_OPEN) {
        end_enter(end, SIM_FLUSHING);
        end->is_fin_wanted = true;
        sim_flow_drop_held(end);
        sim_flow_pump(net, end);
    }
    return 0;
}
