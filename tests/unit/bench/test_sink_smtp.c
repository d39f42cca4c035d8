/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/sink_smtp.h"

#include "tests/harness.h"

/* Everything a session told, for comparison. */
struct peer {
    struct sink_policy policy;
    struct random random;
    struct sink_counts counts;
    struct sink_smtp session;
    char out[16384];
    struct writer writer;
    char facts[4096]; /* "<sender" ">recipient" "body" "#size" */
    struct writer facts_writer;
    uint32_t attempts_count;
};

static void fact_mail(void *context, struct span sender)
{
    struct peer *peer = context;
    writer_put_format(&peer->facts_writer, "<%.*s", (int)sender.size, sender.at);
}

static void fact_rcpt(void *context, struct span recipient)
{
    struct peer *peer = context;
    writer_put_format(&peer->facts_writer, ">%.*s", (int)recipient.size, recipient.at);
}

static void fact_body(void *context, struct span piece)
{
    struct peer *peer = context;
    writer_put(&peer->facts_writer, piece);
}

static void fact_message(void *context, uint64_t size)
{
    struct peer *peer = context;
    writer_put_format(&peer->facts_writer, "#%llu", (unsigned long long)size);
}

static uint32_t fact_attempt(void *context, struct span address)
{
    struct peer *peer = context;
    (void)address;
    return peer->attempts_count++;
}

static const struct sink_hooks HOOKS = {
    .on_mail = fact_mail,
    .on_rcpt = fact_rcpt,
    .on_body = fact_body,
    .on_message = fact_message,
    .on_attempt = fact_attempt,
};
static const struct sink_hooks HOOKS_NONE = {.on_mail = NULL};

static void peer_init(struct peer *peer, const struct sink_hooks *hooks)
{
    peer->policy =
        (struct sink_policy){.name = SPAN("sink"), .size_max = 5000, .is_scripted = true};
    random_init_seed(&peer->random, 1);
    peer->counts = (struct sink_counts){.messages = 0};
    peer->writer = writer_of(peer->out, sizeof(peer->out));
    peer->facts_writer = writer_of(peer->facts, sizeof(peer->facts));
    peer->attempts_count = 0;
    sink_smtp_init(&peer->session, &peer->policy, hooks, peer, &peer->random, &peer->counts);
}

static void peer_take(struct peer *peer, struct span in)
{
    size_t taken = sink_smtp_take(&peer->session, in, &peer->writer);
    CU_ASSERT_EQUAL(taken, in.size);
}

/* The peer's words from the greeting on, and what it learnt, compared with what is wanted. */
static bool peer_is_right(const struct peer *peer, const char *words, const char *facts)
{
    bool is_right = span_equal(writer_span(&peer->writer), span_of_text(words)) &&
                    (!facts || span_equal(writer_span(&peer->facts_writer), span_of_text(facts)));
    if (!is_right) {
        printf("\nsaid:\n%.*swanted:\n%s", (int)writer_size(&peer->writer), peer->out, words);
        printf("learnt: %.*s\n", (int)writer_size(&peer->facts_writer), peer->facts);
    }
    return is_right;
}

#define GREETING "220 sink ESMTP ready\r\n"
#define HELLO                                                                                      \
    "250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SIZE 5000\r\n250 ENHANCEDSTATUSCODES\r\n"
#define OK_MAIL "250 2.1.0 Ok\r\n"
#define OK_RCPT "250 2.1.5 Ok\r\n"
#define GO_DATA "354 End with <CR><LF>.<CR><LF>\r\n"
#define OK_DOT "250 2.0.0 Ok\r\n"
#define OK OK_DOT
#define BYE "221 2.0.0 Bye\r\n"
#define LATE "503 5.5.1 Out of order\r\n"

/* Each row is all that one client says; the answers are the same however it is cut. */
static const struct {
    const char *in;
    const char *words; /* behind the greeting */
    const char *facts;
    enum sink_end end;
    struct sink_counts counts;
} ROWS[] = {
    {"EHLO me\r\nMAIL FROM:<a@b> SIZE=10\r\nRCPT TO:<c@d>\r\nDATA\r\nSubject: "
     "x\r\n\r\n..\r\n.\r\nQUIT\r\n",
     HELLO OK_MAIL OK_RCPT GO_DATA OK_DOT BYE,
     "<a@b>c@dSubject: x\r\n\r\n.\r\n#21",
     SINK_END_CLOSE,
     {1, 1, 21, 0, 0}},
    {"HELO me\r\nmail from: <>\r\nrcpt to: <\"a>b\"@d> X=1\r\nrcpt "
     "to:<e@f>\r\ndata\r\n.\r\nRSET\r\nNOOP\r\nNOOP x\r\nVRFY a\r\n",
     "250 sink\r\n" OK_MAIL OK_RCPT OK_RCPT GO_DATA OK_DOT OK OK OK
     "252 2.5.2 Will take mail for it\r\n",
     "<>\"a>b\"@d>e@f#3",
     SINK_END_OPEN,
     {1, 2, 3, 0, 0}},
    {"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nRSET\r\nEHLO me\r\nRCPT TO:<c@d>\r\nDATA\r\n",
     LATE LATE LATE OK HELLO LATE LATE,
     "",
     SINK_END_OPEN,
     {0, 0, 0, 0, 5}},
    {"EHLO me\r\nMAIL FROM:<a@b> SIZE=5001\r\nMAIL FROM:a@b\r\nMAIL FROM:<a@b>\r\nMAIL "
     "FROM:<a@b>\r\nRCPT TO:<>\r\nDATA\r\nFOO\r\n",
     HELLO "552 5.3.4 Too big\r\n501 5.1.7 Bad sender\r\n" OK_MAIL LATE
           "501 5.1.3 Bad recipient\r\n554 5.5.1 No valid recipients\r\n500 5.5.2 What?\r\n",
     "<a@b",
     SINK_END_OPEN,
     {0, 0, 0, 0, 4}},
    {"EHLO me\r\nMAIL FROM:<a@b>\r\nEHLO me\r\nMAIL FROM:<a@b>\r\n",
     HELLO OK_MAIL HELLO OK_MAIL,
     "<a@b<a@b",
     SINK_END_OPEN,
     {0, 0, 0, 0, 0}},
    {"EHLO me\r\nMAIL FROM:<a@b>\r\nRCPT TO:<rcpt451_4.2.1-1@d>\r\nRCPT TO:<rcpt550-1@d>\r\nRCPT "
     "TO:<c@d>\r\nDATA\r\n.\r\n",
     HELLO OK_MAIL "451 4.2.1 Scripted\r\n550 5.0.0 Scripted\r\n" OK_RCPT GO_DATA OK_DOT,
     "<a@b>c@d#3",
     SINK_END_OPEN,
     {1, 1, 3, 2, 0}},
    {"EHLO me\r\nMAIL FROM:<a@b>\r\nRCPT TO:<data554@d>\r\nDATA\r\nMAIL FROM:<a@b>\r\nRCPT "
     "TO:<dot451@d>\r\nRCPT TO:<dot550@d>\r\nDATA\r\nx\r\n.\r\nQUIT\r\n",
     HELLO OK_MAIL OK_RCPT "554 5.0.0 Scripted\r\n" OK_MAIL OK_RCPT OK_RCPT GO_DATA
                           "451 4.0.0 Scripted\r\n" BYE,
     "<a@b>data554@d<a@b>dot451@d>dot550@dx\r\n",
     SINK_END_CLOSE,
     {0, 0, 0, 2, 0}},
    {"EHLO me\r\nMAIL FROM:<mail421-1@b>\r\nRCPT TO:<c@d>\r\n",
     HELLO "421 4.0.0 Scripted\r\n",
     "",
     SINK_END_CLOSE,
     {0, 0, 0, 1, 0}},
    {"EHLO me\r\nMAIL FROM:<a@b>\r\nRCPT TO:<drop-dot-1@d>\r\nDATA\r\nx\r\n.\r\nQUIT\r\n",
     HELLO OK_MAIL OK_RCPT GO_DATA,
     "<a@b>drop-dot-1@dx\r\n",
     SINK_END_CLOSE,
     {0, 0, 0, 1, 0}},
    {"EHLO me\r\nMAIL FROM:<a@b>\r\nRCPT TO:<reset-rcpt@d>\r\nDATA\r\n",
     HELLO OK_MAIL,
     "<a@b",
     SINK_END_RESET,
     {0, 0, 0, 1, 0}},
    {"EHLO me\r\nMAIL FROM:<a@b>\r\nRCPT TO:<mute-data@d>\r\nDATA\r\nQUIT\r\n",
     HELLO OK_MAIL OK_RCPT,
     "<a@b>mute-data@d",
     SINK_END_OPEN,
     {0, 0, 0, 1, 0}},
    {"EHLO me\r\nMAIL FROM:<a@b>\r\nRCPT TO:<lost250@d>\r\nDATA\r\nx\r\n.\r\nQUIT\r\n",
     HELLO OK_MAIL OK_RCPT GO_DATA,
     "<a@b>lost250@dx\r\n#6",
     SINK_END_CLOSE,
     {1, 1, 6, 0, 0}},
    {"EHLO me\r\nMAIL FROM:<a@b>\r\nRCPT TO:<rcpt451x2@d>\r\nRCPT TO:<rcpt451x2@d>\r\nRCPT "
     "TO:<rcpt451x2@d>\r\n",
     HELLO OK_MAIL "451 4.0.0 Scripted\r\n451 4.0.0 Scripted\r\n" OK_RCPT,
     "<a@b>rcpt451x2@d",
     SINK_END_OPEN,
     {0, 0, 0, 2, 0}},
};

static void row_check(size_t row, const struct peer *peer)
{
    char words[2048];
    struct writer writer = writer_of(words, sizeof(words));
    writer_put_format(&writer, GREETING "%s", ROWS[row].words);
    writer_put_byte(&writer, '\0');
    CHECK_ROW(row, peer_is_right(peer, words, ROWS[row].facts));
    CHECK_ROW(row, sink_smtp_end(&peer->session) == ROWS[row].end);
    CHECK_ROW(row, memcmp(&peer->counts, &ROWS[row].counts, sizeof(peer->counts)) == 0);
}

static void test_whole(void)
{
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        struct peer peer;
        peer_init(&peer, &HOOKS);
        sink_smtp_open(&peer.session, &peer.writer);
        peer_take(&peer, span_of_text(ROWS[i].in));
        row_check(i, &peer);
    }
}

static void test_every_split(void)
{
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        size_t size = strlen(ROWS[i].in);
        for (size_t split = 1; split < size; split++) {
            struct peer peer;
            peer_init(&peer, &HOOKS);
            sink_smtp_open(&peer.session, &peer.writer);
            peer_take(&peer, span_of(ROWS[i].in, split));
            peer_take(&peer, span_of(ROWS[i].in + split, size - split));
            row_check(i, &peer);
        }
    }
}

static void test_byte_by_byte(void)
{
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        struct peer peer;
        peer_init(&peer, &HOOKS);
        sink_smtp_open(&peer.session, &peer.writer);
        for (const char *at = ROWS[i].in; *at; at++) {
            peer_take(&peer, span_of(at, 1));
        }
        row_check(i, &peer);
    }
}

/* Without hooks the words are the same. */
static void test_no_hooks(void)
{
    struct peer peer;
    peer_init(&peer, &HOOKS_NONE);
    sink_smtp_open(&peer.session, &peer.writer);
    peer_take(&peer, span_of_text(ROWS[0].in));
    CU_ASSERT(span_equal(writer_span(&peer.writer),
                         SPAN(GREETING HELLO OK_MAIL OK_RCPT GO_DATA OK_DOT BYE)));
    CU_ASSERT_EQUAL(peer.counts.messages, 1);
}

/* A client that pipelines more than the output holds is answered in several groups. */
static void test_output_bound(void)
{
    struct peer peer;
    char in[12000] = "EHLO me\r\nMAIL FROM:<a@b>\r\n";
    size_t size = strlen(in);
    uint32_t sent_count = 0;
    for (; size + 20 < sizeof(in); sent_count++) {
        memcpy(in + size, "RCPT TO:<c@d>\r\n", 15);
        size += 15;
    }
    peer_init(&peer, &HOOKS_NONE);
    sink_smtp_open(&peer.session, &peer.writer);
    size_t taken = 0;
    uint32_t groups_count = 0;
    while (taken < size) {
        peer.writer = writer_of(peer.out, 1000);
        taken += sink_smtp_take(&peer.session, span_of(in + taken, size - taken), &peer.writer);
        CU_ASSERT(writer_size(&peer.writer) > 0);
        groups_count++;
    }
    CU_ASSERT(groups_count > 5);
    CU_ASSERT_EQUAL(peer.session.rcpts_count, sent_count);
}

static void test_long_line(void)
{
    static char in[5000];
    memset(in, 'x', sizeof(in));
    memcpy(in + sizeof(in) - 8, "\r\nNOOP\r\n", 8);
    for (size_t split = 1; split < sizeof(in); split += 7) {
        struct peer peer;
        peer_init(&peer, &HOOKS);
        peer_take(&peer, span_of(in, split));
        peer_take(&peer, span_of(in + split, sizeof(in) - split));
        CU_ASSERT(span_equal(writer_span(&peer.writer),
                             SPAN("500 5.5.2 Line too long\r\n250 2.0.0 Ok\r\n")));
    }
}

static void test_delay(void)
{
    struct peer peer;
    peer_init(&peer, &HOOKS);
    peer_take(
        &peer,
        SPAN("EHLO me\r\nMAIL FROM:<a@b>\r\nRCPT TO:<slow200-1@d>\r\nRCPT TO:<slow90@d>\r\n"));
    CU_ASSERT_EQUAL(peer.session.delay_ms, 200);
    CU_ASSERT_EQUAL(peer.session.rcpts_count, 2);
}

/* Two percent of many, and the same ones for the same seed. */
static void test_share(void)
{
    uint64_t refused[2];
    for (size_t run = 0; run < 2; run++) {
        struct peer peer;
        peer_init(&peer, &HOOKS_NONE);
        CU_ASSERT(sink_share_parse(SPAN("rcpt=451:2%"), &peer.policy.shares[0]));
        peer.policy.shares_count = 1;
        peer_take(&peer, SPAN("EHLO me\r\nMAIL FROM:<a@b>\r\n"));
        for (size_t i = 0; i < 50000; i++) {
            peer.writer = writer_of(peer.out, sizeof(peer.out));
            peer_take(&peer, SPAN("RCPT TO:<c@d>\r\n"));
        }
        refused[run] = peer.counts.refused;
    }
    CU_ASSERT_EQUAL(refused[0], refused[1]);
    CU_ASSERT(refused[0] > 800);
    CU_ASSERT(refused[0] < 1200);
}

static void test_connect_share(void)
{
    struct peer peer;
    peer_init(&peer, &HOOKS_NONE);
    CU_ASSERT(sink_share_parse(SPAN("connect=554:100%"), &peer.policy.shares[0]));
    peer.policy.shares_count = 1;
    sink_smtp_open(&peer.session, &peer.writer);
    CU_ASSERT(span_equal(writer_span(&peer.writer), SPAN("554 5.0.0 Scripted\r\n")));
    CU_ASSERT_EQUAL(sink_smtp_end(&peer.session), SINK_END_CLOSE);
}

static void test_stepwise(void)
{
    struct peer peer;
    peer_init(&peer, &HOOKS_NONE);
    peer.policy.is_stepwise = true;
    peer_take(&peer, SPAN("EHLO me\r\n"));
    CU_ASSERT(span_equal(writer_span(&peer.writer), SPAN("250-sink\r\n250-8BITMIME\r\n250-SIZE 5000"
                                                         "\r\n250 ENHANCEDSTATUSCODES\r\n")));
}

static void test_old(void)
{
    struct peer peer;
    peer_init(&peer, &HOOKS_NONE);
    peer.policy.is_old = true;
    peer_take(&peer, SPAN("EHLO me\r\nHELO me\r\n"));
    CU_ASSERT(
        span_equal(writer_span(&peer.writer), SPAN("502 5.5.1 What is EHLO?\r\n250 sink\r\n")));
}

static void test_open_twice_panics(void)
{
    struct peer peer;
    peer_init(&peer, &HOOKS_NONE);
    peer_take(&peer, SPAN("EHLO me\r\n"));
    CHECK_PANICS(sink_smtp_open(&peer.session, &peer.writer));
}

SUITE(sink_smtp, test_whole, test_every_split, test_byte_by_byte, test_no_hooks, test_output_bound,
      test_long_line, test_delay, test_share, test_connect_share, test_stepwise, test_old,
      test_open_twice_panics)
