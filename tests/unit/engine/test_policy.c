/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/policy.h"

#include "tests/harness.h"

enum { NONE = 0, BEHIND = 1, AMBIGUOUS = 2, REUSED = 4 };

static struct smtp_reply reply_of(uint16_t code, uint8_t class, uint16_t subject, uint16_t detail)
{
    struct smtp_reply reply = {.code = code,
                               .enhanced = {.class = class, .subject = subject, .detail = detail}};
    static const char TEXT[] = "the server's words";
    memcpy(reply.text, TEXT, sizeof(TEXT) - 1);
    reply.text_size = sizeof(TEXT) - 1;
    return reply;
}

struct row {
    enum smtp_stage stage;
    enum smtp_cause cause;
    unsigned flags;
    struct smtp_reply reply; /* code and enhanced code only */
    enum policy_action action;
    enum policy_reason reason;
};

#define REPLY(code, a, b, c)                                                                       \
    {                                                                                              \
        code, {a, b, c}, 0,                                                                        \
        {                                                                                          \
            0                                                                                      \
        }                                                                                          \
    }
#define NO_REPLY REPLY(0, 0, 0, 0)

static const struct row ROWS[] = {
    /* A12: the answer to the end of data. */
    {SMTP_STAGE_END_OF_DATA, SMTP_CAUSE_REPLY, NONE, REPLY(250, 0, 0, 0), POLICY_DELIVERED,
     REASON_DELIVERED},
    {SMTP_STAGE_END_OF_DATA, SMTP_CAUSE_REPLY, NONE, REPLY(250, 2, 0, 0), POLICY_DELIVERED,
     REASON_DELIVERED},
    {SMTP_STAGE_END_OF_DATA, SMTP_CAUSE_REPLY, NONE, REPLY(299, 0, 0, 0), POLICY_DELIVERED,
     REASON_DELIVERED},
    {SMTP_STAGE_END_OF_DATA, SMTP_CAUSE_REPLY, NONE, REPLY(451, 4, 3, 0), POLICY_DEFER, TEMP_REPLY},
    {SMTP_STAGE_END_OF_DATA, SMTP_CAUSE_REPLY, NONE, REPLY(554, 5, 7, 1), POLICY_BOUNCE,
     PERM_REPLY},
    /* A14, 3.7: 421 behind the dot is an answer, not an accident. */
    {SMTP_STAGE_END_OF_DATA, SMTP_CAUSE_REPLY, NONE, REPLY(421, 4, 3, 2), POLICY_DEFER, TEMP_REPLY},
    /* A14, 3.11: a connection that has carried other mail ends before this one was looked at. */
    {SMTP_STAGE_MAIL, SMTP_CAUSE_REPLY, REUSED, REPLY(421, 0, 0, 0), POLICY_AGAIN, TEMP_USED_UP},
    {SMTP_STAGE_MAIL, SMTP_CAUSE_REPLY, REUSED, REPLY(421, 4, 3, 2), POLICY_AGAIN, TEMP_USED_UP},
    {SMTP_STAGE_MAIL, SMTP_CAUSE_REPLY, REUSED, REPLY(421, 4, 7, 0), POLICY_DEFER, TEMP_REPLY},
    {SMTP_STAGE_MAIL, SMTP_CAUSE_REPLY, REUSED, REPLY(451, 4, 3, 2), POLICY_DEFER, TEMP_REPLY},
    {SMTP_STAGE_MAIL, SMTP_CAUSE_LOST, REUSED, NO_REPLY, POLICY_AGAIN, TEMP_USED_UP},
    {SMTP_STAGE_MAIL, SMTP_CAUSE_LOST, NONE, NO_REPLY, POLICY_DEFER, TEMP_CONNECTION_LOST},
    {SMTP_STAGE_MAIL, SMTP_CAUSE_TIMEOUT, REUSED, NO_REPLY, POLICY_DEFER, TEMP_TIMEOUT},
    {SMTP_STAGE_RCPT, SMTP_CAUSE_REPLY, REUSED, REPLY(421, 0, 0, 0), POLICY_DEFER, TEMP_REPLY},
    {SMTP_STAGE_RCPT, SMTP_CAUSE_LOST, REUSED, NO_REPLY, POLICY_DEFER, TEMP_CONNECTION_LOST},
    {SMTP_STAGE_BODY, SMTP_CAUSE_LOST, REUSED, NO_REPLY, POLICY_DEFER, TEMP_CONNECTION_LOST},
    /* A15: 552 behind the dot is no "too many". */
    {SMTP_STAGE_END_OF_DATA, SMTP_CAUSE_REPLY, BEHIND, REPLY(552, 5, 5, 3), POLICY_BOUNCE,
     PERM_REPLY},
    /* A5: the first digit. */
    {SMTP_STAGE_RCPT, SMTP_CAUSE_REPLY, NONE, REPLY(499, 0, 0, 0), POLICY_DEFER, TEMP_REPLY},
    {SMTP_STAGE_RCPT, SMTP_CAUSE_REPLY, NONE, REPLY(500, 0, 0, 0), POLICY_BOUNCE, PERM_REPLY},
    {SMTP_STAGE_RCPT, SMTP_CAUSE_REPLY, NONE, REPLY(599, 0, 0, 0), POLICY_BOUNCE, PERM_REPLY},
    {SMTP_STAGE_RCPT, SMTP_CAUSE_REPLY, NONE, REPLY(550, 5, 1, 1), POLICY_BOUNCE, PERM_REPLY},
    {SMTP_STAGE_RCPT, SMTP_CAUSE_REPLY, NONE, REPLY(450, 4, 2, 1), POLICY_DEFER, TEMP_REPLY},
    /* A30 */
    {SMTP_STAGE_RCPT, SMTP_CAUSE_REPLY, NONE, REPLY(551, 5, 1, 6), POLICY_BOUNCE, PERM_REPLY},
    /* A18, C5: MAIL's answer is this message's, and its class decides. */
    {SMTP_STAGE_MAIL, SMTP_CAUSE_REPLY, NONE, REPLY(550, 5, 7, 1), POLICY_BOUNCE, PERM_REPLY},
    {SMTP_STAGE_MAIL, SMTP_CAUSE_REPLY, NONE, REPLY(451, 4, 7, 1), POLICY_DEFER, TEMP_REPLY},
    {SMTP_STAGE_MAIL, SMTP_CAUSE_REPLY, NONE, REPLY(421, 0, 0, 0), POLICY_DEFER, TEMP_REPLY},
    {SMTP_STAGE_MAIL, SMTP_CAUSE_REPLY, NONE, REPLY(552, 5, 3, 4), POLICY_BOUNCE, PERM_REPLY},
    {SMTP_STAGE_MAIL, SMTP_CAUSE_REPLY, NONE, REPLY(452, 4, 3, 1), POLICY_DEFER, TEMP_REPLY},
    /* C7 */
    {SMTP_STAGE_DATA, SMTP_CAUSE_REPLY, NONE, REPLY(451, 0, 0, 0), POLICY_DEFER, TEMP_REPLY},
    {SMTP_STAGE_DATA, SMTP_CAUSE_REPLY, NONE, REPLY(554, 5, 5, 1), POLICY_BOUNCE, PERM_REPLY},
    /* A17: 503 to DATA means too many recipients, not a bad one. */
    {SMTP_STAGE_DATA, SMTP_CAUSE_REPLY, NONE, REPLY(503, 0, 0, 0), POLICY_DEFER, TEMP_REPLY},
    {SMTP_STAGE_DATA, SMTP_CAUSE_REPLY, BEHIND, REPLY(503, 5, 5, 1), POLICY_DEFER, TEMP_REPLY},
    /* 3.6: refused in the middle of the body. */
    {SMTP_STAGE_BODY, SMTP_CAUSE_REPLY, NONE, REPLY(552, 5, 3, 4), POLICY_BOUNCE, PERM_REPLY},
    {SMTP_STAGE_BODY, SMTP_CAUSE_REPLY, NONE, REPLY(451, 0, 0, 0), POLICY_DEFER, TEMP_REPLY},
    /* A15 */
    {SMTP_STAGE_RCPT, SMTP_CAUSE_REPLY, BEHIND, REPLY(552, 5, 5, 3), POLICY_AGAIN,
     TEMP_TOO_MANY_RCPTS},
    {SMTP_STAGE_RCPT, SMTP_CAUSE_REPLY, BEHIND, REPLY(552, 0, 0, 0), POLICY_AGAIN,
     TEMP_TOO_MANY_RCPTS},
    {SMTP_STAGE_RCPT, SMTP_CAUSE_REPLY, NONE, REPLY(552, 5, 5, 3), POLICY_BOUNCE, PERM_REPLY},
    {SMTP_STAGE_RCPT, SMTP_CAUSE_REPLY, NONE, REPLY(552, 0, 0, 0), POLICY_BOUNCE, PERM_REPLY},
    {SMTP_STAGE_RCPT, SMTP_CAUSE_REPLY, BEHIND, REPLY(552, 5, 2, 2), POLICY_BOUNCE, PERM_REPLY},
    {SMTP_STAGE_RCPT, SMTP_CAUSE_REPLY, BEHIND, REPLY(552, 5, 3, 4), POLICY_BOUNCE, PERM_REPLY},
    /* A16 */
    {SMTP_STAGE_RCPT, SMTP_CAUSE_REPLY, BEHIND, REPLY(452, 4, 5, 3), POLICY_AGAIN,
     TEMP_TOO_MANY_RCPTS},
    {SMTP_STAGE_RCPT, SMTP_CAUSE_REPLY, BEHIND, REPLY(452, 0, 0, 0), POLICY_AGAIN,
     TEMP_TOO_MANY_RCPTS},
    {SMTP_STAGE_RCPT, SMTP_CAUSE_REPLY, BEHIND, REPLY(452, 4, 0, 0), POLICY_AGAIN,
     TEMP_TOO_MANY_RCPTS},
    {SMTP_STAGE_RCPT, SMTP_CAUSE_REPLY, BEHIND, REPLY(452, 4, 2, 2), POLICY_DEFER, TEMP_REPLY},
    {SMTP_STAGE_RCPT, SMTP_CAUSE_REPLY, BEHIND, REPLY(452, 4, 1, 1), POLICY_DEFER, TEMP_REPLY},
    {SMTP_STAGE_RCPT, SMTP_CAUSE_REPLY, BEHIND, REPLY(452, 4, 5, 1), POLICY_DEFER, TEMP_REPLY},
    {SMTP_STAGE_RCPT, SMTP_CAUSE_REPLY, BEHIND, REPLY(452, 4, 2, 3), POLICY_DEFER, TEMP_REPLY},
    {SMTP_STAGE_RCPT, SMTP_CAUSE_REPLY, BEHIND, REPLY(452, 4, 3, 0), POLICY_DEFER, TEMP_REPLY},
    {SMTP_STAGE_RCPT, SMTP_CAUSE_REPLY, BEHIND, REPLY(452, 4, 0, 4), POLICY_DEFER, TEMP_REPLY},
    {SMTP_STAGE_RCPT, SMTP_CAUSE_REPLY, NONE, REPLY(452, 4, 5, 3), POLICY_DEFER, TEMP_REPLY},
    {SMTP_STAGE_RCPT, SMTP_CAUSE_REPLY, NONE, REPLY(452, 0, 0, 0), POLICY_DEFER, TEMP_REPLY},
    {SMTP_STAGE_RCPT, SMTP_CAUSE_REPLY, BEHIND, REPLY(450, 4, 5, 3), POLICY_DEFER, TEMP_REPLY},
    /* A29: a refusal of the session says nothing of the recipient; N2: nor does 521 of one host. */
    {SMTP_STAGE_GREETING, SMTP_CAUSE_REPLY, NONE, REPLY(554, 0, 0, 0), POLICY_DEFER, TEMP_GREETING},
    {SMTP_STAGE_GREETING, SMTP_CAUSE_REPLY, NONE, REPLY(521, 5, 3, 2), POLICY_DEFER, TEMP_GREETING},
    {SMTP_STAGE_GREETING, SMTP_CAUSE_REPLY, NONE, REPLY(421, 0, 0, 0), POLICY_DEFER, TEMP_GREETING},
    {SMTP_STAGE_GREETING, SMTP_CAUSE_REPLY, NONE, REPLY(451, 0, 0, 0), POLICY_DEFER, TEMP_GREETING},
    {SMTP_STAGE_EHLO, SMTP_CAUSE_REPLY, NONE, REPLY(550, 0, 0, 0), POLICY_DEFER, TEMP_GREETING},
    {SMTP_STAGE_EHLO, SMTP_CAUSE_REPLY, NONE, REPLY(421, 0, 0, 0), POLICY_DEFER, TEMP_GREETING},
    /* N2: 556 = the domain takes no mail; wherever a recipient hears it. */
    {SMTP_STAGE_RCPT, SMTP_CAUSE_REPLY, NONE, REPLY(556, 5, 1, 10), POLICY_BOUNCE, PERM_REPLY},
    {SMTP_STAGE_MAIL, SMTP_CAUSE_REPLY, NONE, REPLY(556, 5, 1, 10), POLICY_BOUNCE, PERM_REPLY},
    {SMTP_STAGE_RCPT, SMTP_CAUSE_REPLY, NONE, REPLY(521, 5, 3, 2), POLICY_BOUNCE, PERM_REPLY},
    /* A13 */
    {SMTP_STAGE_RCPT, SMTP_CAUSE_LOST, NONE, NO_REPLY, POLICY_DEFER, TEMP_CONNECTION_LOST},
    {SMTP_STAGE_BODY, SMTP_CAUSE_LOST, NONE, NO_REPLY, POLICY_DEFER, TEMP_CONNECTION_LOST},
    {SMTP_STAGE_END_OF_DATA, SMTP_CAUSE_LOST, AMBIGUOUS, NO_REPLY, POLICY_DEFER, TEMP_AMBIGUOUS},
    /* A2 */
    {SMTP_STAGE_DATA, SMTP_CAUSE_TIMEOUT, NONE, NO_REPLY, POLICY_DEFER, TEMP_TIMEOUT},
    {SMTP_STAGE_END_OF_DATA, SMTP_CAUSE_TIMEOUT, AMBIGUOUS, NO_REPLY, POLICY_DEFER, TEMP_AMBIGUOUS},
    /* A6, A7: what breaks the protocol is never a delivery, whatever code it shows. */
    {SMTP_STAGE_RCPT, SMTP_CAUSE_PROTOCOL, NONE, REPLY(250, 0, 0, 0), POLICY_DEFER, TEMP_PROTOCOL},
    {SMTP_STAGE_RCPT, SMTP_CAUSE_PROTOCOL, NONE, REPLY(550, 0, 0, 0), POLICY_DEFER, TEMP_PROTOCOL},
    {SMTP_STAGE_END_OF_DATA, SMTP_CAUSE_PROTOCOL, AMBIGUOUS, REPLY(250, 0, 0, 0), POLICY_DEFER,
     TEMP_AMBIGUOUS},
    /* E2, E4, A27 */
    {SMTP_STAGE_MAIL, SMTP_CAUSE_SIZE, NONE, NO_REPLY, POLICY_BOUNCE, PERM_SIZE},
    {SMTP_STAGE_MAIL, SMTP_CAUSE_8BIT, NONE, NO_REPLY, POLICY_BOUNCE, PERM_8BIT},
    {SMTP_STAGE_GREETING, SMTP_CAUSE_LOOP, NONE, NO_REPLY, POLICY_DEFER, TEMP_LOOP},
};

static void test_each_row(void)
{
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        const struct row *row = &ROWS[i];
        struct smtp_reply reply = reply_of(row->reply.code, row->reply.enhanced.class,
                                           row->reply.enhanced.subject, row->reply.enhanced.detail);
        struct smtp_result result = {.stage = row->stage,
                                     .cause = row->cause,
                                     .is_ambiguous = (row->flags & AMBIGUOUS) != 0,
                                     .is_reused = (row->flags & REUSED) != 0,
                                     .reply = &reply};
        struct policy_verdict verdict = policy_of_result(&result, (row->flags & BEHIND) != 0);
        CHECK_ROW(i, verdict.action == row->action);
        CHECK_ROW(i, verdict.reason == row->reason);
    }
}

/* LAW 5, over everything that a session can tell. */
static void test_delivered_only_by_2xx_to_the_end_of_data(void)
{
    static const struct smtp_enhanced CODES[] = {{0, 0, 0}, {2, 0, 0}, {4, 5, 3}, {5, 5, 3}};
    for (unsigned stage = 0; stage < SMTP_STAGES_COUNT; stage++) {
        for (unsigned cause = 0; cause < SMTP_CAUSES_COUNT; cause++) {
            for (unsigned code = 0; code < 600; code = code == 0 ? 200 : code + 1) {
                for (unsigned bits = 0; bits < 4 * COUNT_OF(CODES); bits++) {
                    struct smtp_reply reply = reply_of((uint16_t)code, 0, 0, 0);
                    reply.enhanced = CODES[bits / 4];
                    struct smtp_result result = {.stage = (enum smtp_stage)stage,
                                                 .cause = (enum smtp_cause)cause,
                                                 .is_ambiguous = (bits & 1) != 0,
                                                 .reply = &reply};
                    bool is_delivered =
                        policy_of_result(&result, (bits & 2) != 0).action == POLICY_DELIVERED;
                    bool is_wanted = stage == SMTP_STAGE_END_OF_DATA && code / 100 == 2 &&
                                     cause == SMTP_CAUSE_REPLY;
                    if (is_delivered != is_wanted) {
                        CHECK_ROW(stage * 10000 + cause * 1000 + code, is_delivered == is_wanted);
                    }
                }
            }
        }
    }
    CU_PASS("no row differed");
}

/* Only a recipient behind an accepted one may go again at once, or a message behind another one on
 * its connection: else one server could make a loop. */
static void test_again_needs_progress(void)
{
    for (unsigned stage = 0; stage < SMTP_STAGES_COUNT; stage++) {
        for (unsigned code = 200; code < 600; code++) {
            struct smtp_reply reply = reply_of((uint16_t)code, 0, 0, 0);
            struct smtp_result result = {
                .stage = (enum smtp_stage)stage, .cause = SMTP_CAUSE_REPLY, .reply = &reply};
            CHECK_ROW(code, policy_of_result(&result, false).action != POLICY_AGAIN);
            bool is_again = policy_of_result(&result, true).action == POLICY_AGAIN;
            CHECK_ROW(code, is_again == (stage == SMTP_STAGE_RCPT && (code == 452 || code == 552)));
            result.is_reused = true;
            is_again = policy_of_result(&result, false).action == POLICY_AGAIN;
            CHECK_ROW(code, is_again == (stage == SMTP_STAGE_MAIL && code == 421));
        }
    }
}

/* 3.4: what large providers say when they slow a sender down, block him, or know no such mailbox.
 * The code decides, an enhanced code where the code alone may mean two things; the words never. */
static const struct {
    const char *words;
    enum smtp_stage stage;
    bool is_behind_accepted;
    enum policy_action action;
} SAYINGS[] = {
    {"421-4.7.0 Our system has detected an unusual rate of unsolicited mail\r\n"
     "421-4.7.0 originating from your IP address.\r\n421 4.7.0 gsmtp\r\n",
     SMTP_STAGE_END_OF_DATA, false, POLICY_DEFER},
    {"421 4.7.28 unusual rate\r\n", SMTP_STAGE_MAIL, false, POLICY_DEFER},
    {"450 4.2.1 The user is receiving mail too quickly\r\n", SMTP_STAGE_RCPT, false, POLICY_DEFER},
    {"452 4.2.2 The recipient's inbox is over quota\r\n", SMTP_STAGE_RCPT, true, POLICY_DEFER},
    {"550-5.7.26 This mail has been blocked because the sender is\r\n"
     "550 5.7.26 unauthenticated.\r\n",
     SMTP_STAGE_END_OF_DATA, false, POLICY_BOUNCE},
    {"421 4.7.0 [TSS04] Messages temporarily deferred\r\n", SMTP_STAGE_MAIL, false, POLICY_DEFER},
    {"421 4.7.1 [TS03] All messages permanently deferred\r\n", SMTP_STAGE_GREETING, false,
     POLICY_DEFER},
    {"553 5.7.1 [BL21] Connections not accepted\r\n", SMTP_STAGE_GREETING, false, POLICY_DEFER},
    {"554 5.7.9 Message not accepted for policy reasons [DMARC]\r\n", SMTP_STAGE_END_OF_DATA, false,
     POLICY_BOUNCE},
    {"421 RP-001 The mail server IP has exceeded the rate limit\r\n", SMTP_STAGE_GREETING, false,
     POLICY_DEFER},
    {"451 4.7.500 Server busy. Please try again later from [192.0.2.1]\r\n", SMTP_STAGE_MAIL, false,
     POLICY_DEFER},
    {"550 5.7.1 Unfortunately, part of their network is on our block list (S3150)\r\n",
     SMTP_STAGE_MAIL, false, POLICY_BOUNCE},
    {"550 5.4.1 Recipient address rejected: Access denied\r\n", SMTP_STAGE_RCPT, false,
     POLICY_BOUNCE},
    {"452 4.5.3 Too many recipients\r\n", SMTP_STAGE_RCPT, true, POLICY_AGAIN},
    {"421 Trop de connexions, veuillez verifier votre configuration. OFR005_104\r\n",
     SMTP_STAGE_GREETING, false, POLICY_DEFER},
    {"451 DT:SPM mx1, please try again later\r\n", SMTP_STAGE_END_OF_DATA, false, POLICY_DEFER},
    {"451 Internal resource temporarily unavailable\r\n", SMTP_STAGE_RCPT, false, POLICY_DEFER},
    {"451 4.7.1 Greylisting in action, please come back later\r\n", SMTP_STAGE_RCPT, true,
     POLICY_DEFER},
    {"450 4.2.0 Greylisted, try again in 300 seconds\r\n", SMTP_STAGE_RCPT, false, POLICY_DEFER},
};

static void test_3_4_what_large_providers_say(void)
{
    for (size_t i = 0; i < COUNT_OF(SAYINGS); i++) {
        struct smtp_reply_parser parser;
        smtp_reply_init(&parser);
        struct span words = span_of_text(SAYINGS[i].words);
        enum smtp_reply_step step = SMTP_REPLY_LINE;
        while (step == SMTP_REPLY_LINE) {
            step = smtp_reply_take(&parser, &words);
        }
        CHECK_ROW(i, step == SMTP_REPLY_DONE);
        struct smtp_result result = {
            .stage = SAYINGS[i].stage, .cause = SMTP_CAUSE_REPLY, .reply = &parser.reply};
        struct policy_verdict verdict = policy_of_result(&result, SAYINGS[i].is_behind_accepted);
        CHECK_ROW(i, verdict.action == SAYINGS[i].action);
        CHECK_ROW(i, verdict.response.content.size > 0);
    }
}

static void test_response_is_the_servers_or_ours(void)
{
    struct smtp_reply reply = reply_of(553, 5, 7, 26);
    struct smtp_result result = {
        .stage = SMTP_STAGE_RCPT, .cause = SMTP_CAUSE_REPLY, .reply = &reply};
    struct policy_verdict verdict = policy_of_result(&result, false);
    CU_ASSERT_EQUAL(verdict.response.code, 553);
    CU_ASSERT_EQUAL(verdict.response.enhanced.detail, 26);
    CU_ASSERT_STRING_EQUAL(verdict.response.command, "RCPT TO");
    CU_ASSERT(span_equal(verdict.response.content, SPAN("the server's words")));
    reply = (struct smtp_reply){.code = 0};
    result.cause = SMTP_CAUSE_TIMEOUT;
    verdict = policy_of_result(&result, false);
    CU_ASSERT_EQUAL(verdict.response.code, 451);
    CU_ASSERT(span_equal(verdict.response.content, SPAN("timeout")));
    result.reply = NULL;
    verdict = policy_of_result(&result, false);
    CU_ASSERT_EQUAL(verdict.response.code, 451);
}

/* The code of the standard words agrees with what is done (A5, G6). */
static void test_reasons(void)
{
    for (unsigned i = 0; i < POLICY_REASONS_COUNT; i++) {
        struct policy_verdict verdict = policy_of_reason((enum policy_reason)i);
        unsigned class = verdict.response.code / 100;
        CHECK_ROW(i, policy_reason_name((enum policy_reason)i)[0] != '\0');
        CHECK_ROW(i, verdict.reason == (enum policy_reason)i);
        CHECK_ROW(i, verdict.response.enhanced.class == class);
        CHECK_ROW(i, verdict.response.content.size > 0);
        CHECK_ROW(i, (verdict.action == POLICY_DELIVERED) == (class == 2));
        CHECK_ROW(i, (verdict.action == POLICY_BOUNCE) == (class == 5));
        for (unsigned other = 0; other < i; other++) {
            CHECK_ROW(i, strcmp(policy_reason_name((enum policy_reason)i),
                                policy_reason_name((enum policy_reason)other)) != 0);
        }
    }
    CHECK_PANICS((void)policy_reason_name((enum policy_reason)POLICY_REASONS_COUNT));
}

static void test_mx(void)
{
    static const struct {
        enum mx_outcome outcome;
        enum policy_action action;
        enum policy_reason reason;
        uint16_t subject, detail;
    } MX[] = {
        {MX_TEMPORARY, POLICY_DEFER, TEMP_DNS, 4, 3},        /* B2 */
        {MX_NO_DOMAIN, POLICY_BOUNCE, PERM_NO_DOMAIN, 1, 2}, /* B2 */
        {MX_NULL, POLICY_BOUNCE, PERM_NULL_MX, 1, 10},       /* B7 */
        {MX_NO_HOST, POLICY_DEFER, TEMP_NO_HOST, 4, 4},      /* B3 */
        {MX_NO_ADDRESS, POLICY_BOUNCE, PERM_NO_ADDRESS, 1, 2},
        {MX_LOOP, POLICY_BOUNCE, PERM_DNS_LOOP, 4, 6},     /* B1, B6 */
        {MX_BAD_NAME, POLICY_BOUNCE, PERM_BAD_NAME, 1, 2}, /* B10 */
    };
    CU_ASSERT_EQUAL(COUNT_OF(MX), MX_OUTCOMES_COUNT - 1);
    for (size_t i = 0; i < COUNT_OF(MX); i++) {
        struct policy_verdict verdict = policy_of_mx(MX[i].outcome);
        CHECK_ROW(i, verdict.action == MX[i].action);
        CHECK_ROW(i, verdict.reason == MX[i].reason);
        CHECK_ROW(i, verdict.response.enhanced.subject == MX[i].subject);
        CHECK_ROW(i, verdict.response.enhanced.detail == MX[i].detail);
    }
    CU_ASSERT_EQUAL(policy_of_mx(MX_NULL).response.code, 556);
    CHECK_PANICS((void)policy_of_mx(MX_OK));
}

static void test_connect_errors_are_temporary(void)
{
    for (unsigned i = 0; i < NET_ERRORS_COUNT; i++) {
        struct policy_verdict verdict = policy_of_connect((enum net_error)i);
        CHECK_ROW(i, verdict.action == POLICY_DEFER);
        CHECK_ROW(i, verdict.reason == TEMP_NO_CONNECT);
        CHECK_ROW(i, verdict.response.content.size > 0);
        CHECK_ROW(i, strcmp(verdict.response.command, "CONNECT") == 0);
    }
    struct span words = policy_of_connect(NET_REFUSED).response.content;
    CU_ASSERT(span_equal(words, SPAN("connection refused")));
    CHECK_PANICS((void)policy_of_connect((enum net_error)NET_ERRORS_COUNT));
}

/* A29: what ends before MAIL is the host's; behind it, an accident of one connection. */
static void test_host_is_bad_before_the_first_transaction(void)
{
    for (unsigned stage = 0; stage < SMTP_STAGES_COUNT; stage++) {
        struct smtp_result result = {.stage = (enum smtp_stage)stage, .cause = SMTP_CAUSE_LOST};
        CHECK_ROW(stage, policy_is_host_bad(&result) == (stage <= SMTP_STAGE_EHLO));
    }
}

/* N2: 521 in the greeting is the only word that a host accepts no mail at all. */
static void test_only_521_in_the_greeting_means_no_mail(void)
{
    static const struct {
        enum smtp_stage stage;
        struct smtp_reply reply;
        enum policy_reason reason;
        uint16_t subject, detail;
    } HOSTS[] = {
        {SMTP_STAGE_GREETING, REPLY(521, 5, 3, 2), PERM_NO_MAIL, 3, 2},
        {SMTP_STAGE_GREETING, REPLY(521, 0, 0, 0), PERM_NO_MAIL, 3, 2},
        {SMTP_STAGE_GREETING, REPLY(521, 5, 3, 0), PERM_NO_MAIL, 3, 0},
        {SMTP_STAGE_GREETING, REPLY(521, 5, 7, 1), TEMP_GREETING, 7, 1},
        {SMTP_STAGE_GREETING, REPLY(554, 5, 3, 2), TEMP_GREETING, 3, 2},
        {SMTP_STAGE_EHLO, REPLY(521, 5, 3, 2), TEMP_GREETING, 3, 2},
    };
    for (size_t i = 0; i < COUNT_OF(HOSTS); i++) {
        struct smtp_result result = {
            .stage = HOSTS[i].stage, .cause = SMTP_CAUSE_REPLY, .reply = &HOSTS[i].reply};
        struct policy_verdict verdict = policy_of_host(&result);
        CHECK_ROW(i, verdict.reason == HOSTS[i].reason);
        CHECK_ROW(i, (verdict.action == POLICY_BOUNCE) == (verdict.reason == PERM_NO_MAIL));
        CHECK_ROW(i, verdict.response.enhanced.subject == HOSTS[i].subject);
        CHECK_ROW(i, verdict.response.enhanced.detail == HOSTS[i].detail);
    }
    struct smtp_result lost = {.stage = SMTP_STAGE_GREETING, .cause = SMTP_CAUSE_LOST};
    CU_ASSERT_EQUAL(policy_of_host(&lost).reason, TEMP_CONNECTION_LOST);
    lost.stage = SMTP_STAGE_RCPT;
    CHECK_PANICS((void)policy_of_host(&lost));
}

SUITE(policy, test_each_row, test_delivered_only_by_2xx_to_the_end_of_data,
      test_again_needs_progress, test_3_4_what_large_providers_say,
      test_response_is_the_servers_or_ours, test_reasons, test_mx,
      test_connect_errors_are_temporary, test_host_is_bad_before_the_first_transaction,
      test_only_521_in_the_greeting_means_no_mail)
