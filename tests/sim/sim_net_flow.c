/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <xxhash.h>

#include "tests/sim/sim_net_priv.h"

static uint64_t fault_at(struct sim_net *net, uint32_t chance)
{
    return sim_chance(net, chance) ? random_below(&net->random, net->config.fault_at_max)
                                   : UINT64_MAX;
}

struct sim_fate sim_fate_draw(struct sim_net *net)
{
    return (struct sim_fate){
        .reset_at = fault_at(net, net->config.reset_chance),
        .cut_at = fault_at(net, net->config.cut_chance),
        .stall_at = fault_at(net, net->config.stall_chance),
        .vanish_at = fault_at(net, net->config.vanish_chance),
    };
}

/* Events to the peer keep their order whatever their delays. */
static void post_to_peer(struct sim_net *net, struct sim_end *end, enum sim_event_kind kind,
                         struct sim_piece *piece)
{
    int64_t due_ns = sim_now_ns(net) + sim_delay_ns(net);
    end->out_due_ns = due_ns > end->out_due_ns ? due_ns : end->out_due_ns;
    sim_post(net, (struct sim_event){.kind = kind,
                                     .due_ns = end->out_due_ns,
                                     .to = end->peer,
                                     .from = end->self,
                                     .piece = piece});
}

static void post_end(struct sim_net *net, const struct sim_end *end, enum net_error error,
                     int64_t delay_ns)
{
    sim_post(net, (struct sim_event){.kind = SIM_RST,
                                     .due_ns = sim_now_ns(net) + delay_ns,
                                     .error = error,
                                     .to = end->self});
}

static void vanish(struct sim_net *net, struct sim_end *end)
{
    struct sim_end *peer = sim_end_at(net, end->peer);
    net->counts.vanished++;
    end->is_silent = true;
    if (peer != NULL) {
        peer->is_silent = true;
    }
}

/* It is never acknowledged: the sender hears of it late. */
static void give_up_later(struct sim_net *net, struct sim_end *end)
{
    if (!end->is_giving_up) {
        end->is_giving_up = true;
        post_end(net, end, NET_TIMEOUT, net->config.give_up_ms * NS_PER_MS);
    }
}

/* Goes nowhere. */
static void lose(struct sim_net *net, struct sim_end *end, struct sim_piece *piece)
{
    free(piece);
    give_up_later(net, end);
}

/* What strikes at this byte. False when nothing more can be sent. */
static bool fate_strikes(struct sim_net *net, struct sim_end *end)
{
    struct sim_fate *fate = &end->fate;
    if (end->sent_size >= fate->stall_at) {
        net->counts.stalls++;
        fate->stall_at = UINT64_MAX;
        int64_t stall_ms = (int64_t)random_below(&net->random, net->config.stall_max_ms);
        int64_t until_ns = sim_now_ns(net) + stall_ms * NS_PER_MS;
        end->out_due_ns = until_ns > end->out_due_ns ? until_ns : end->out_due_ns;
    }
    if (end->sent_size >= fate->vanish_at && !end->is_silent) {
        vanish(net, end);
    }
    if (end->sent_size >= fate->reset_at) {
        net->counts.resets++;
        sim_end_reset_peer(net, end, NET_RESET);
        post_end(net, end, NET_RESET, sim_delay_ns(net));
    } else if (end->sent_size >= fate->cut_at) {
        net->counts.cuts++;
        post_to_peer(net, end, SIM_FIN, NULL);
        post_end(net, end, NET_RESET, 2 * sim_delay_ns(net));
    } else {
        return true;
    }
    end->is_silent = true;
    fate->reset_at = UINT64_MAX;
    fate->cut_at = UINT64_MAX;
    return false;
}

static uint64_t fate_next(const struct sim_end *end)
{
    const uint64_t all[] = {end->fate.reset_at, end->fate.cut_at, end->fate.stall_at,
                            end->is_silent ? UINT64_MAX : end->fate.vanish_at};
    uint64_t next = UINT64_MAX;
    for (size_t i = 0; i < COUNT_OF(all); i++) {
        next = all[i] < next ? all[i] : next;
    }
    return next;
}

static struct sim_piece *piece_make(const struct sim_queued *queued, const char *at, uint32_t size,
                                    int64_t asked_ns)
{
    struct sim_piece *piece = sim_world_realloc(NULL, sizeof(*piece) + size);
    piece->next = NULL;
    piece->size = size;
    piece->asked_ns = asked_ns;
    piece->lent = queued->is_copied ? NULL : at;
    piece->sum = XXH3_64bits(at, size);
    memcpy(piece->bytes, at, size);
    return piece;
}

/* The next piece: of one segment, of random size, not beyond the window nor the next fault. */
static struct sim_piece *piece_next(struct sim_net *net, struct sim_end *end)
{
    uint32_t index = (end->queued_first + end->sent_count) % NET_SEND_SEGMENTS_MAX;
    const struct sim_queued *queued = &end->queued[index];
    const char *at = queued->is_copied ? queued->copy : queued->at;
    uint64_t size = 1 + random_below(&net->random, net->config.piece_max);
    uint64_t limits[] = {
        queued->size - end->sent_offset,
        net->config.window_size - end->unread_size,
        fate_next(end) - end->sent_size,
    };
    for (size_t i = 0; i < COUNT_OF(limits); i++) {
        size = size < limits[i] ? size : limits[i];
    }
    ensure(size > 0);
    int64_t now_ns = sim_now_ns(net);
    int64_t asked_ns = end->done_told_ns == now_ns ? -1 : now_ns;
    struct sim_piece *piece = piece_make(queued, at + end->sent_offset, (uint32_t)size, asked_ns);
    end->sent_offset += (uint32_t)size;
    if (end->sent_offset == queued->size) {
        end->sent_count++;
        end->sent_offset = 0;
    }
    return piece;
}

/* A segment counts as queued until its last byte is told TXDONE. */
static void done_consume(struct sim_end *end, uint32_t size)
{
    end->done_offset += size;
    while (end->queued_count > 0 && end->done_offset >= end->queued[end->queued_first].size) {
        end->done_offset -= end->queued[end->queued_first].size;
        end->queued_first = (end->queued_first + 1) % NET_SEND_SEGMENTS_MAX;
        end->queued_count--;
        ensure(end->sent_count > 0);
        end->sent_count--;
    }
    ensure(end->queued_count > 0 || end->done_offset == 0);
}

static void pump_fin(struct sim_net *net, struct sim_end *end)
{
    if (end->is_fin_wanted && !end->is_fin_sent && end->sent_count == end->queued_count) {
        end->is_fin_sent = true;
        if (!end->is_silent) {
            post_to_peer(net, end, SIM_FIN, NULL);
        }
    }
    if (end->state == SIM_FLUSHING && end->queued_count == 0) {
        ensure(end->undone_size == 0);
        sim_end_close(net, end, NET_OK);
    }
}

void sim_flow_pump(struct sim_net *net, struct sim_end *end)
{
    if (end->state != SIM_OPEN && end->state != SIM_FLUSHING) {
        return;
    }
    while (end->sent_count < end->queued_count && end->unread_size < net->config.window_size) {
        if (end->sent_size >= fate_next(end) && !fate_strikes(net, end)) {
            return;
        }
        struct sim_piece *piece = piece_next(net, end);
        end->sent_size += piece->size;
        end->unread_size += piece->size;
        end->undone_size += piece->size;
        if (end->is_silent) {
            lose(net, end, piece);
        } else {
            post_to_peer(net, end, SIM_PIECE, piece);
        }
    }
    pump_fin(net, end);
}

int sim_send(struct net_loop *loop, struct net_conn_id id, const struct net_segment *segments,
             size_t segments_count, unsigned flags)
{
    struct sim_loop *sim = sim_loop_of(loop);
    struct sim_end *end = slab_at_handle(&sim->ends, handle_of_u64(id.value));
    if (end == NULL || end->state > SIM_OPEN) {
        return -ESTALE;
    }
    ensure(segments_count <= NET_SEND_SEGMENTS_MAX);
    ensure(!end->is_fin_wanted);
    if (sim_op_fails(sim)) {
        sim_end_break(sim->net, end);
        return 0;
    }
    if (end->queued_count + segments_count > NET_SEND_SEGMENTS_MAX) {
        return -EAGAIN;
    }
    for (size_t i = 0; i < segments_count; i++) {
        const struct net_segment *segment = &segments[i];
        if (segment->size == 0) {
            continue;
        }
        uint32_t at = (end->queued_first + end->queued_count++) % NET_SEND_SEGMENTS_MAX;
        struct sim_queued *queued = &end->queued[at];
        queued->at = segment->at;
        queued->size = segment->size;
        queued->is_copied = segment->is_copied;
        if (segment->is_copied) {
            ensure(segment->size <= NET_COPY_MAX);
            memcpy(queued->copy, segment->at, segment->size);
        }
    }
    end->is_fin_wanted = (flags & NET_FIN) != 0;
    sim_flow_pump(sim->net, end);
    return 0;
}

static void tell_piece(struct sim_loop *loop, struct sim_end *end, const struct sim_piece *piece)
{
    loop->net->counts.bytes += piece->size;
    loop->asked_ns = piece->asked_ns;
    sim_tell(loop, end,
             (struct net_event){.kind = NET_RX, .rx = span_of(piece->bytes, piece->size)});
}

static void tell_fin(struct sim_loop *loop, struct sim_end *end)
{
    end->is_fin_held = false;
    sim_tell(loop, end, (struct net_event){.kind = NET_PEER_FIN});
}

/* The peer may send as much more. */
static void give_credit(struct sim_net *net, const struct sim_end *end, uint32_t size)
{
    struct sim_end *peer = sim_end_at(net, end->peer);
    if (peer != NULL) {
        ensure(peer->unread_size >= size);
        peer->unread_size -= size;
        sim_flow_pump(net, peer);
    }
}

/* What arrived is acknowledged, read or not. */
static void post_done(struct sim_net *net, const struct sim_end *end, const struct sim_piece *piece)
{
    struct sim_end *peer = sim_end_at(net, end->peer);
    if (peer == NULL) {
        return;
    }
    if (end->is_silent) {
        give_up_later(net, peer);
        return;
    }
    struct sim_piece *note = sim_world_realloc(NULL, sizeof(*note));
    *note = (struct sim_piece){.lent = piece->lent, .sum = piece->sum, .size = piece->size};
    int64_t due_ns = sim_now_ns(net) + sim_delay_ns(net);
    peer->done_due_ns = due_ns > peer->done_due_ns ? due_ns : peer->done_due_ns;
    sim_post(net,
             (struct sim_event){
                 .kind = SIM_DONE, .due_ns = peer->done_due_ns, .to = end->peer, .piece = note});
}

static bool must_hold(const struct sim_end *end)
{
    return end->is_rx_stopped || end->held_first != NULL;
}

void sim_flow_on_piece(struct sim_loop *loop, struct sim_end *end, struct sim_piece *piece)
{
    struct sim_net *net = loop->net;
    if (end->state == SIM_CLOSING) {
        sim_end_reset_peer(net, end, NET_RESET);
        free(piece);
        return;
    }
    if (end->state == SIM_OPEN && sim_op_fails(loop)) {
        sim_end_break(net, end);
        free(piece);
        return;
    }
    post_done(net, end, piece);
    if (end->state == SIM_OPEN && must_hold(end)) {
        if (end->held_first == NULL) {
            end->held_first = piece;
        } else {
            end->held_last->next = piece;
        }
        end->held_last = piece;
        return;
    }
    if (end->state == SIM_OPEN) {
        tell_piece(loop, end, piece);
    }
    give_credit(net, end, piece->size);
    free(piece);
}

void sim_flow_on_fin(struct sim_loop *loop, struct sim_end *end)
{
    if (end->state != SIM_OPEN) {
        return;
    }
    if (must_hold(end)) {
        end->is_fin_held = true;
    } else {
        tell_fin(loop, end);
    }
}

void sim_flow_on_done(struct sim_loop *loop, struct sim_end *end, struct sim_piece *piece)
{
    bool is_told = end->state == SIM_OPEN || end->state == SIM_FLUSHING;
    uint32_t size = piece->size;
    if (is_told && piece->lent != NULL) {
        /* Lent memory was changed before its TXDONE. */
        ensure(XXH3_64bits(piece->lent, size) == piece->sum);
    }
    free(piece);
    if (!is_told) {
        return;
    }
    ensure(end->undone_size >= size);
    end->undone_size -= size;
    end->done_told_ns = sim_now_ns(loop->net);
    done_consume(end, size);
    sim_tell(loop, end, (struct net_event){.kind = NET_TXDONE, .txdone_size = size});
    sim_flow_pump(loop->net, end);
}

void sim_flow_on_resumed(struct sim_loop *loop, struct sim_end *end)
{
    end->is_resuming = false;
    while (end->held_first != NULL && !end->is_rx_stopped && end->state == SIM_OPEN) {
        struct sim_piece *piece = end->held_first;
        end->held_first = piece->next; /* first: a close within the event frees what is held */
        tell_piece(loop, end, piece);
        give_credit(loop->net, end, piece->size);
        free(piece);
    }
    if (end->is_fin_held && !must_hold(end) && end->state == SIM_OPEN) {
        tell_fin(loop, end);
    }
}

int sim_rx_stop(struct net_loop *loop, struct net_conn_id id, bool is_stopped)
{
    struct sim_loop *sim = sim_loop_of(loop);
    struct sim_end *end = slab_at_handle(&sim->ends, handle_of_u64(id.value));
    if (end == NULL || end->state > SIM_OPEN) {
        return -ESTALE;
    }
    end->is_rx_stopped = is_stopped;
    if (!is_stopped && !end->is_resuming && (end->held_first != NULL || end->is_fin_held)) {
        end->is_resuming = true;
        sim_post(sim->net, (struct sim_event){.kind = SIM_RESUMED,
                                              .due_ns = sim_now_ns(sim->net),
                                              .to = end->self});
    }
    return 0;
}

void sim_flow_drop_held(struct sim_end *end)
{
    while (end->held_first != NULL) {
        struct sim_piece *piece = end->held_first;
        end->held_first = piece->next;
        free(piece);
    }
}
