/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/sink_script.h"

#include "tests/harness.h"

static const struct {
    const char *address;
    struct sink_script want;
} ADDRESSES[] = {
    {"rcpt550-17@a.example", {SINK_ACT_REPLY, SINK_VERB_RCPT, 550, 0, 0, 0, 0}},
    {"rcpt550@a.example", {SINK_ACT_REPLY, SINK_VERB_RCPT, 550, 0, 0, 0, 0}},
    {"rcpt451_4.2.1-a@b", {SINK_ACT_REPLY, SINK_VERB_RCPT, 451, 2, 1, 0, 0}},
    {"dot451x2-9@b", {SINK_ACT_REPLY, SINK_VERB_DOT, 451, 0, 0, 2, 0}},
    {"dot451_4.7.1x3@b", {SINK_ACT_REPLY, SINK_VERB_DOT, 451, 7, 1, 3, 0}},
    {"mail421@b", {SINK_ACT_REPLY, SINK_VERB_MAIL, 421, 0, 0, 0, 0}},
    {"data554-x", {SINK_ACT_REPLY, SINK_VERB_DATA, 554, 0, 0, 0, 0}},
    {"drop-dot-1@b", {SINK_ACT_DROP, SINK_VERB_DOT, 0, 0, 0, 0, 0}},
    {"reset-rcpt@b", {SINK_ACT_RESET, SINK_VERB_RCPT, 0, 0, 0, 0, 0}},
    {"mute-data-7@b", {SINK_ACT_MUTE, SINK_VERB_DATA, 0, 0, 0, 0, 0}},
    {"lost250-1@b", {SINK_ACT_LOST, SINK_VERB_DOT, 0, 0, 0, 0, 0}},
    {"slow200-1@b", {SINK_ACT_SLOW, SINK_VERB_RCPT, 0, 0, 0, 0, 200}},
    {"rcpt550a@b", {SINK_ACT_NONE, 0, 0, 0, 0, 0, 0}},
    {"rcpt999-1@b", {SINK_ACT_REPLY, SINK_VERB_RCPT, 999, 0, 0, 0, 0}},
    {"took451x1-1@b", {SINK_ACT_TOOK, SINK_VERB_DOT, 451, 0, 0, 1, 0}},
    {"early250@b", {SINK_ACT_EARLY, SINK_VERB_DATA, 250, 0, 0, 0, 0}},
    {"shut-data-3@b", {SINK_ACT_SHUT, SINK_VERB_DATA, 0, 0, 0, 0, 0}},
    {"twice-dot@b", {SINK_ACT_TWICE, SINK_VERB_DOT, 0, 0, 0, 0, 0}},
    {"skip-rcpt@b", {SINK_ACT_SKIP, SINK_VERB_RCPT, 0, 0, 0, 0, 0}},
    {"junk-dot@b", {SINK_ACT_JUNK, SINK_VERB_DOT, 0, 0, 0, 0, 0}},
    {"endless-rcpt@b", {SINK_ACT_ENDLESS, SINK_VERB_RCPT, 0, 0, 0, 0, 0}},
    {"rcpt99@b", {SINK_ACT_NONE, 0, 0, 0, 0, 0, 0}},
    {"rcpt1000@b", {SINK_ACT_NONE, 0, 0, 0, 0, 0, 0}},
    {"rset250@b", {SINK_ACT_NONE, 0, 0, 0, 0, 0, 0}},
    {"took@b", {SINK_ACT_NONE, 0, 0, 0, 0, 0, 0}},
    {"twice-quit@b", {SINK_ACT_NONE, 0, 0, 0, 0, 0, 0}},
    {"rcpt451_5.2.1@b", {SINK_ACT_NONE, 0, 0, 0, 0, 0, 0}},
    {"rcpt451x@b", {SINK_ACT_NONE, 0, 0, 0, 0, 0, 0}},
    {"rcpt@b", {SINK_ACT_NONE, 0, 0, 0, 0, 0, 0}},
    {"drop-@b", {SINK_ACT_NONE, 0, 0, 0, 0, 0, 0}},
    {"droplet@b", {SINK_ACT_NONE, 0, 0, 0, 0, 0, 0}},
    {"slowly@b", {SINK_ACT_NONE, 0, 0, 0, 0, 0, 0}},
    {"lost251@b", {SINK_ACT_NONE, 0, 0, 0, 0, 0, 0}},
    {"connect421@b", {SINK_ACT_NONE, 0, 0, 0, 0, 0, 0}},
    {"u17@b", {SINK_ACT_NONE, 0, 0, 0, 0, 0, 0}},
    {"", {SINK_ACT_NONE, 0, 0, 0, 0, 0, 0}},
};

static bool script_equal(const struct sink_script *a, const struct sink_script *b)
{
    bool is_equal = a->act == b->act && a->code == b->code && a->subject == b->subject &&
                    a->detail == b->detail && a->times == b->times && a->delay_ms == b->delay_ms;
    return is_equal && (a->act == SINK_ACT_NONE || a->verb == b->verb);
}

static void test_addresses(void)
{
    for (size_t i = 0; i < COUNT_OF(ADDRESSES); i++) {
        struct sink_script got = sink_script_of_address(span_of_text(ADDRESSES[i].address));
        CHECK_ROW(i, script_equal(&got, &ADDRESSES[i].want));
    }
}

static const struct {
    const char *text;
    struct sink_share want;
    bool is_share;
} SHARES[] = {
    {"rcpt=451:2%", {{SINK_ACT_REPLY, SINK_VERB_RCPT, 451, 0, 0, 0, 0}, 20000}, true},
    {"dot=lost:0.01%", {{SINK_ACT_LOST, SINK_VERB_DOT, 0, 0, 0, 0, 0}, 100}, true},
    {"connect=421_4.3.2:100%",
     {{SINK_ACT_REPLY, SINK_VERB_CONNECT, 421, 3, 2, 0, 0}, 1000000},
     true},
    {"data=slow200:0.0001%", {{SINK_ACT_SLOW, SINK_VERB_DATA, 0, 0, 0, 0, 200}, 1}, true},
    {"ehlo=drop:12.5%", {{SINK_ACT_DROP, SINK_VERB_EHLO, 0, 0, 0, 0, 0}, 125000}, true},
    {"dot=took554:1%", {{SINK_ACT_TOOK, SINK_VERB_DOT, 554, 0, 0, 0, 0}, 10000}, true},
    {"data=early552:1%", {{SINK_ACT_EARLY, SINK_VERB_DATA, 552, 0, 0, 0, 0}, 10000}, true},
    {"rset=twice:50%", {{SINK_ACT_TWICE, SINK_VERB_RSET, 0, 0, 0, 0, 0}, 500000}, true},
    {"quit=mute:50%", {{SINK_ACT_MUTE, SINK_VERB_QUIT, 0, 0, 0, 0, 0}, 500000}, true},
    {"rcpt=took451:1%", {{0}, 0}, false},
    {"dot=early250:1%", {{0}, 0}, false},
    {"rcpt=lost:1%", {{0}, 0}, false},
    {"rcpt=451:101%", {{0}, 0}, false},
    {"rcpt=451:100.1%", {{0}, 0}, false},
    {"rcpt=451:2", {{0}, 0}, false},
    {"rcpt=451:2%x", {{0}, 0}, false},
    {"rcpt:451=2%", {{0}, 0}, false},
    {"", {{0}, 0}, false},
};

static void test_shares(void)
{
    for (size_t i = 0; i < COUNT_OF(SHARES); i++) {
        struct sink_share got = {.share_ppm = 77};
        bool is_share = sink_share_parse(span_of_text(SHARES[i].text), &got);
        CHECK_ROW(i, is_share == SHARES[i].is_share);
        if (is_share) {
            CHECK_ROW(i, got.share_ppm == SHARES[i].want.share_ppm);
            CHECK_ROW(i, script_equal(&got.script, &SHARES[i].want.script));
        } else {
            CHECK_ROW(i, got.share_ppm == 77);
        }
    }
}

static void test_reply(void)
{
    char text[64];
    struct writer writer = writer_of(text, sizeof(text));
    struct sink_script script = sink_script_of_address(SPAN("rcpt451_4.2.1-a@b"));
    sink_script_put_reply(&writer, &script);
    CU_ASSERT(span_equal(writer_span(&writer), SPAN("451 4.2.1 Scripted\r\n")));
}

SUITE(sink_script, test_addresses, test_shares, test_reply)
