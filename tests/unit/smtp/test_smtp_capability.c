/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/smtp/smtp_capability.h"

#include "tests/harness.h"

static const struct {
    const char *line;
    uint32_t bits;
    uint64_t size_max;
} ROWS[] = {
    {"PIPELINING", SMTP_CAN_PIPELINE, 0},
    {"pipelining", SMTP_CAN_PIPELINE, 0},
    {" PIPELINING ", SMTP_CAN_PIPELINE, 0},
    {"PIPELININGS", 0, 0},
    {"PIPELIN", 0, 0},
    {"8BITMIME", SMTP_CAN_8BIT, 0},
    {"ENHANCEDSTATUSCODES", SMTP_CAN_ENHANCED, 0},
    {"STARTTLS", SMTP_CAN_STARTTLS, 0},
    {"CHUNKING", SMTP_CAN_CHUNK, 0},
    {"DSN", SMTP_CAN_DSN, 0},
    {"SMTPUTF8 ignored parameters", SMTP_CAN_UTF8 | SMTP_CAN_8BIT, 0}, /* F2 */
    {"SIZE", SMTP_CAN_SIZE, 0},                                        /* E1 */
    {"SIZE ", SMTP_CAN_SIZE, 0},
    {"SIZE 0", SMTP_CAN_SIZE, 0},
    {"SIZE 35882577", SMTP_CAN_SIZE, 35882577},
    {"SIZE  1000", SMTP_CAN_SIZE, 1000},
    {"size\t1000", SMTP_CAN_SIZE, 1000},
    {"SIZE=1000", SMTP_CAN_SIZE, 1000},
    {"SIZE 18446744073709551615", SMTP_CAN_SIZE, UINT64_MAX},
    {"SIZE 99999999999999999999", 0, 0},
    {"SIZE -1", 0, 0},
    {"SIZE abc", 0, 0},
    {"SIZE 10 20", 0, 0},
    {"SIZE 10k", 0, 0},
    {"AUTH=LOGIN PLAIN", 0, 0},
    {"X-UNKNOWN", 0, 0},
    {"", 0, 0},
    {" ", 0, 0},
    {"=", 0, 0},
};

static void test_rows(void)
{
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        struct smtp_capabilities capabilities = {0};
        smtp_capability_take_line(&capabilities, span_of_text(ROWS[i].line));
        CHECK_ROW(i, capabilities.bits == ROWS[i].bits);
        CHECK_ROW(i, capabilities.size_max == ROWS[i].size_max);
    }
}

static void test_lines_add_up_and_the_last_size_counts(void)
{
    struct smtp_capabilities capabilities = {0};
    smtp_capability_take_line(&capabilities, SPAN("SIZE 10"));
    smtp_capability_take_line(&capabilities, SPAN("DSN"));
    smtp_capability_take_line(&capabilities, SPAN("DSN"));
    smtp_capability_take_line(&capabilities, SPAN("SIZE 20"));
    smtp_capability_take_line(&capabilities, SPAN("SIZE x"));
    CU_ASSERT_EQUAL(capabilities.bits, SMTP_CAN_SIZE | SMTP_CAN_DSN);
    CU_ASSERT_EQUAL(capabilities.size_max, 20);
}

SUITE(smtp_capability, test_rows, test_lines_add_up_and_the_last_size_counts)
