/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hosts of a world, and what recipients bring along. For each way to be odd it is written down
 * here what it may do to a recipient: the ledger is worked out from these tables alone.
 */
#include <stdio.h>

#include "tests/sim/sim_swarm_priv.h"

/* Of a message: what a template, the engine's own fields and the last line add to the body. */
enum { MESSAGE_MORE = 1000 };

/* By share, for whoever comes. A delay alone is never an end of its own: with each of them mail
 * may expire. */
struct habit {
    const char *share;
    unsigned may; /* beside SIM_EXPIRED */
};

/* Servers that refuse, in good order, or vanish. */
static const struct habit HARSH[] = {
    {"connect=421:20%", 0},
    {"connect=554:30%", 0},
    {"connect=521:30%", SIM_BOUNCED}, /* all hosts may have said so (N2) */
    {"connect=drop:20%", 0},
    {"ehlo=drop:10%", 0},
    {"ehlo=421:10%", 0},
    {"ehlo=502:50%", 0},
    {"ehlo=554:20%", 0},
    {"mail=451:10%", 0},
    {"mail=421:5%", 0},
    {"mail=554:5%", SIM_BOUNCED},
    {"mail=reset:5%", 0},
    {"rcpt=451:10%", 0},
    {"rcpt=452:20%", 0},
    {"rcpt=552:5%", SIM_BOUNCED}, /* as the first of a transaction */
    {"rcpt=550:5%", SIM_BOUNCED},
    {"rcpt=421:3%", 0},
    {"data=451:10%", 0},
    {"data=503:10%", 0},
    {"data=554:5%", SIM_BOUNCED},
    {"data=421:5%", 0},
    {"data=mute:2%", 0},
    {"dot=451:10%", 0},
    {"dot=421:10%", 0},
    {"dot=554:5%", SIM_BOUNCED},
    {"dot=lost:5%", 0},
    {"dot=reset:5%", 0},
    {"dot=mute:2%", 0},
    {"dot=took451:10%", 0},
    {"dot=took421:5%", 0},
    {"dot=took554:5%", SIM_BOUNCED},
    {"data=early452:10%", 0},
    {"data=early552:5%", SIM_BOUNCED},
    {"rset=503:50%", 0},
    {"rset=drop:50%", 0},
};

/* Servers that break the protocol: one of these a host, for two lies may look like a truth. An
 * early 250 is one together with the script of a recipient: where the message was sent by then, it
 * is the answer to it, and what the script says is a reply too many. It stands here four times:
 * only where no way fails and nothing dies can it be told that nobody had the message. */
static const struct {
    struct habit habit;
    bool may_shift;
} LIES[] = {
    {{"connect=354:20%", 0}, false},     {{"connect=junk:20%", 0}, false},
    {{"connect=endless:10%", 0}, false}, {{"connect=mute:5%", 0}, false},
    {{"connect=shut:20%", 0}, false},    {{"connect=twice:20%", 0}, true},
    {{"ehlo=354:10%", 0}, false},        {{"ehlo=junk:10%", 0}, false},
    {{"ehlo=endless:10%", 0}, false},    {{"ehlo=twice:20%", 0}, true},
    {{"ehlo=skip:5%", 0}, true},         {{"mail=220:10%", 0}, false},
    {{"mail=354:10%", 0}, false},        {{"mail=999:10%", 0}, false},
    {{"mail=twice:10%", 0}, true},       {{"mail=skip:5%", 0}, true},
    {{"rcpt=221:5%", 0}, false},         {{"rcpt=354:5%", 0}, false},
    {{"rcpt=150:5%", 0}, false},         {{"rcpt=junk:5%", 0}, false},
    {{"rcpt=endless:5%", 0}, false},     {{"rcpt=shut:10%", 0}, false},
    {{"rcpt=twice:10%", 0}, true},       {{"rcpt=skip:5%", 0}, true},
    {{"data=250:10%", 0}, false},        {{"data=220:10%", 0}, false},
    {{"data=junk:10%", 0}, false},       {{"data=early250:5%", SIM_DELIVERED}, true},
    {{"data=shut:20%", 0}, false},       {{"data=early250:20%", SIM_DELIVERED}, true},
    {{"data=endless:10%", 0}, false},    {{"data=early250:50%", SIM_DELIVERED}, true},
    {{"data=skip:5%", 0}, true},         {{"data=early250:100%", SIM_DELIVERED}, true},
    {{"data=twice:20%", 0}, true},       {{"dot=220:10%", 0}, false},
    {{"dot=221:10%", 0}, false},         {{"dot=354:10%", 0}, false},
    {{"dot=999:10%", 0}, false},         {{"dot=junk:10%", 0}, false},
    {{"dot=shut:30%", 0}, false},        {{"dot=endless:10%", 0}, false},
    {{"dot=twice:20%", 0}, true},        {{"dot=skip:5%", 0}, true},
    {{"rset=354:50%", 0}, false},        {{"rset=twice:50%", 0}, true},
};

/* What nobody may be kept from his mail by. */
static const char *const WHIMS[] = {
    "rcpt=251:50%", "rcpt=252:50%",     "quit=mute:50%", "quit=drop:50%",
    "quit=999:50%", "quit=endless:50%", "rset=251:50%",
};

/* What a recipient brings: its own ends where all else works, and what it may do to others in the
 * same transaction. None of them is ever delivered where SIM_DELIVERED is not among its own. */
static const struct {
    const char *word;
    unsigned own;
    unsigned others;
} SCRIPTS[] = {
    {"rcpt550", SIM_BOUNCED, 0},
    {"rcpt451x1", SIM_DELIVERED, 0},
    {"rcpt451x3", SIM_DELIVERED, 0},
    {"rcpt452x1", SIM_DELIVERED, 0},
    {"rcpt421", SIM_EXPIRED, SIM_EXPIRED},
    {"rcpt999", SIM_EXPIRED, SIM_EXPIRED},
    {"rcpt251", SIM_DELIVERED, 0},
    {"data451x1", SIM_DELIVERED, SIM_EXPIRED},
    {"data554", SIM_BOUNCED, SIM_BOUNCED},
    {"data250", SIM_EXPIRED, SIM_EXPIRED},
    {"dot451x2", SIM_DELIVERED, SIM_EXPIRED},
    {"dot554", SIM_BOUNCED, SIM_BOUNCED},
    {"dot354", SIM_EXPIRED, SIM_EXPIRED},
    {"took451x1", SIM_DELIVERED, SIM_EXPIRED},
    {"took554", SIM_BOUNCED, SIM_BOUNCED},
    {"early552", SIM_BOUNCED, SIM_BOUNCED},
    {"slow700", SIM_DELIVERED, 0},
    {"lost250", SIM_EXPIRED, SIM_EXPIRED},
    {"shut-data", SIM_EXPIRED, SIM_EXPIRED},
    {"drop-rcpt", SIM_EXPIRED, SIM_EXPIRED},
    {"reset-dot", SIM_EXPIRED, SIM_EXPIRED},
    {"mute-data", SIM_EXPIRED, SIM_EXPIRED},
};
static const char REFUSED_ALONE[] = "rcpt550";

static void draw_vices(struct swarm *swarm, uint32_t index)
{
    struct sim_peers *peers = swarm->sim->peers;
    struct swarm_host *host = &swarm->hosts[index];
    struct sim_peer *peer = sim_peers_at(peers, index);
    bool is_refusing = false;
    for (uint32_t shares = below(swarm, 4); shares > 0; shares--) {
        const struct habit *habit = &HARSH[below(swarm, COUNT_OF(HARSH))];
        sim_peers_share(peers, index, habit->share);
        host->may |= habit->may;
        is_refusing |= strstr(habit->share, "=5") != NULL;
    }
    if (one_in(swarm, 2)) {
        uint32_t lie = below(swarm, COUNT_OF(LIES));
        sim_peers_share(peers, index, LIES[lie].habit.share);
        host->may |= LIES[lie].habit.may;
        host->may_shift = peer->may_shift = LIES[lie].may_shift;
        /* A 503 to DATA may be heard as one to RCPT. */
        host->may |= host->may_shift && is_refusing ? SIM_BOUNCED : 0;
    }
    peer->fins_of_256 = one_in(swarm, 8) ? skewed(swarm, 1, 256) : 0;
    if (one_in(swarm, 12)) { /* a tarpit */
        peer->delay_min_ms = between(swarm, 5, 60) * 1000;
        peer->delay_max_ms = peer->delay_min_ms + 60000;
    }
}

/* Bytes that go one by one, or by the thousand in tiny pieces, cost more steps than they teach. */
static void draw_speech(struct swarm *swarm, struct sim_peer *peer)
{
    bool are_pieces_large =
        swarm->settings.net.piece_max == 0 || swarm->settings.net.piece_max > 500;
    peer->endless_size = are_pieces_large ? 80 * 1024 : 1000;
    peer->speech = (enum sim_speech)below(swarm, SIM_SPEECHES_COUNT);
    if (peer->speech == SIM_SPEECH_LONG && !are_pieces_large) {
        peer->speech = SIM_SPEECH_LINES;
    }
    if (one_in(swarm, 4)) {
        peer->drip_ms = skewed(swarm, 1, 500);
        peer->drips_left = between(swarm, 50, 400);
    }
}

void swarm_draw_hosts(struct swarm *swarm)
{
    struct sim_engine *sim = swarm->sim;
    swarm->hosts_count = between(swarm, 1, SWARM_HOSTS_MAX);
    swarm->are_hosts_harsh = !swarm->is_calm && one_in(swarm, 3);
    for (uint32_t i = 0; i < swarm->hosts_count; i++) {
        char text[64];
        char addr[32];
        (void)snprintf(addr, sizeof(addr), "20.0.0.%u", i + 1);
        uint32_t index = sim_peers_add(sim->peers, addr);
        struct sim_peer *peer = sim_peers_at(sim->peers, index);
        (void)snprintf(text, sizeof(text), "h%u.mail.example", i);
        sim_dns_add(sim->dns, text, DNS_A, between(swarm, 0, 600), addr);
        swarm->reach[i] = 1u << i;
        peer->delay_max_ms = one_in(swarm, 3) ? skewed(swarm, 1, 3000) : 0;
        peer->policy.is_stepwise = one_in(swarm, 4);
        peer->policy.is_old = one_in(swarm, 6);
        peer->is_moody = one_in(swarm, 6);
        if (one_in(swarm, 3)) {
            draw_speech(swarm, peer);
        }
        if (one_in(swarm, 4)) {
            sim_peers_share(sim->peers, index, WHIMS[below(swarm, COUNT_OF(WHIMS))]);
        }
        if (peer->is_moody && one_in(swarm, 3)) {
            swarm->hosts[i].size_low = peer->size_low = skewed(swarm, 500, 20000);
        }
        if (swarm->are_hosts_harsh) {
            draw_vices(swarm, i);
        }
    }
}

void swarm_draw_scripts(struct swarm *swarm, struct swarm_batch *batch)
{
    batch->scripts_of_256 = one_in(swarm, 2) ? skewed(swarm, 1, 64) : 0;
    batch->scripts_count = between(swarm, 1, SWARM_SCRIPTS_MAX);
    for (uint32_t i = 0; i < batch->scripts_count; i++) {
        batch->scripts[i] = below(swarm, COUNT_OF(SCRIPTS));
    }
}

/* What others in the same transaction may bring about, at such a host. */
static unsigned ends_by_others(const struct swarm_batch *batch, bool may_shift)
{
    unsigned ends = 0;
    for (uint32_t i = 0; i < batch->scripts_count && batch->scripts_of_256 > 0; i++) {
        const char *word = SCRIPTS[batch->scripts[i]].word;
        ends |= SCRIPTS[batch->scripts[i]].others;
        ends |= may_shift && strcmp(word, REFUSED_ALONE) == 0 ? SIM_BOUNCED : 0;
    }
    return ends;
}

/* What the hosts of a domain may bring about, beside deliveries. */
static unsigned ends_by_hosts(const struct swarm *swarm, uint32_t hosts)
{
    const struct swarm_batch *batch = swarm->making;
    bool may_shift = false;
    unsigned ends = swarm->are_hosts_harsh ? SIM_EXPIRED : 0;
    for (uint32_t i = 0; i < swarm->hosts_count; i++) {
        const struct swarm_host *host = &swarm->hosts[i];
        if ((hosts & 1u << i) == 0) {
            continue;
        }
        bool is_too_large =
            host->size_low > 0 && batch->plan.body_size + MESSAGE_MORE > host->size_low;
        ends |= host->may | (is_too_large ? SIM_BOUNCED : 0);
        may_shift |= host->may_shift;
    }
    return ends | ends_by_others(batch, may_shift);
}

void swarm_choose(void *context, uint32_t index, struct sim_choice *ret_choice)
{
    struct swarm *swarm = context;
    const struct swarm_batch *batch = swarm->making;
    (void)index;
    const struct swarm_domain *domain = &swarm->domains[below(swarm, swarm->domains_count)];
    unsigned ends = domain->ends;
    ret_choice->domain = domain->name;
    bool has_script = batch->scripts_of_256 > below(swarm, 256);
    if (has_script) {
        uint32_t script = batch->scripts[below(swarm, batch->scripts_count)];
        ret_choice->script = SCRIPTS[script].word;
        if ((ends & SIM_DELIVERED) != 0) {
            ends = (ends & ~(unsigned)SIM_DELIVERED) | SCRIPTS[script].own;
        }
    }
    uint32_t hosts = swarm_hosts_of(swarm, domain);
    if (hosts != 0) {
        ends |= ends_by_hosts(swarm, hosts);
    }
    if (!swarm->is_calm || swarm->has_disk_faults || swarm->is_cramped) {
        ends |= SIM_EXPIRED;
    }
    ret_choice->ends = ends | (batch->is_cancelled ? SIM_CANCELLED : 0);
    ret_choice->is_bad = one_in(swarm, 40);
}
