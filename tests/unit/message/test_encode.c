/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/message/encode.h"

#include <errno.h>
#include <stdlib.h>

#include "engine/base/random.h"
#include "engine/message/mime.h"
#include "engine/message/value.h"
#include "tests/harness.h"

#define X10 "xxxxxxxxxx"
#define X70 X10 X10 X10 X10 X10 X10 X10
#define AE "\xc3\xa4"
#define AE10 AE AE AE AE AE AE AE AE AE AE

static struct span qp_of(char *memory, size_t size, struct span text)
{
    struct writer writer = writer_of(memory, size);
    struct encode_qp state = {0};
    encode_qp_put(&state, &writer, text);
    encode_qp_end(&state, &writer);
    CU_ASSERT(!writer.is_full);
    return writer_span(&writer);
}

static void test_qp_rows(void)
{
    static const struct {
        struct span text, want;
    } ROWS[] = {
        {SPAN(""), SPAN("")},
        {SPAN("Hello = you"), SPAN("Hello =3D you")},
        {SPAN("a\r\nb"), SPAN("a\r\nb")},
        {SPAN("a\rb\nc"), SPAN("a=0Db=0Ac")},
        {SPAN("a \r\n\t\r\nb"), SPAN("a=20\r\n=09\r\nb")},
        {SPAN("a "), SPAN("a =\r\n")},
        {SPAN(AE "\0\x7f"), SPAN("=C3=A4=00=7F")},
        {SPAN("-a\r\n--b\r\na-- \r\nc-d"), SPAN("=2Da\r\n=2D-b\r\na=2D-=20\r\nc=2Dd")},
        {SPAN(X70 "12345"), SPAN(X70 "12345")},
        {SPAN(X70 "123456"), SPAN(X70 "12345=\r\n6")},
        {SPAN(X70 "123="), SPAN(X70 "123=\r\n=3D")},
        {SPAN(X70 "12="), SPAN(X70 "12=3D")},
        {SPAN(X70 "12345\r\n"), SPAN(X70 "12345\r\n")},
        {SPAN(X70 "12345-"), SPAN(X70 "12345=\r\n=2D")},
    };
    char memory[256];
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        CHECK_ROW(i, span_equal(qp_of(memory, sizeof(memory), ROWS[i].text), ROWS[i].want));
    }
}

/* A blank in front of a line break that comes later must survive transport. */
static void test_qp_join(void)
{
    char memory[128];
    struct writer writer = writer_of(memory, sizeof(memory));
    struct encode_qp state = {0};
    encode_qp_join(&state, &writer,
                   (struct encode_qp_piece){.head = 6, .tail = 6, .is_blank = true});
    writer_put(&writer, SPAN("Hello "));
    encode_qp_put(&state, &writer, SPAN("\r\nx"));
    encode_qp_put(&state, &writer, SPAN(" "));
    encode_qp_join(&state, &writer,
                   (struct encode_qp_piece){.head = 0, .tail = 1, .has_break = true});
    writer_put(&writer, SPAN("\r\ny"));
    encode_qp_end(&state, &writer);
    CU_ASSERT(span_equal(writer_span(&writer), SPAN("Hello =\r\n\r\nx =\r\n\r\ny")));
}

static struct span random_text(struct random *random, char *memory, size_t size_max)
{
    static const char *const PIECES[] = {"\r\n", "\r", "\n",   " ", "\t",   "-", "--",
                                         "=",    "a",  "word", AE,  "\xff", "."};
    struct writer writer = writer_of(memory, size_max);
    uint32_t count = random_below(random, 60);
    for (uint32_t i = 0; i < count; i++) {
        writer_put(&writer, span_of_text(PIECES[random_below(random, COUNT_OF(PIECES))]));
    }
    return writer_span(&writer);
}

static void check_qp_lines(size_t row, struct span encoded)
{
    size_t column = 0;
    for (size_t i = 0; i < encoded.size; i++) {
        if (encoded.at[i] == '\n') {
            CHECK_ROW(row, i > 0 && encoded.at[i - 1] == '\r');
            CHECK_ROW(row, i < 2 || (encoded.at[i - 2] != ' ' && encoded.at[i - 2] != '\t'));
            column = 0;
        } else {
            column += encoded.at[i] != '\r';
            CHECK_ROW(row, column <= ENCODE_WIDTH);
            CHECK_ROW(row, column > 2 || encoded.at[i] != '-');
        }
    }
}

/* Any text, cut anywhere: the lines keep to the rules, and GMime reads back what went in. */
static void test_qp_returns(void)
{
    struct random random;
    random_init_seed(&random, 1);
    char text_memory[512];
    char memory[4096];
    for (size_t row = 0; row < 3000; row++) {
        struct span text = random_text(&random, text_memory, sizeof(text_memory));
        struct writer writer = writer_of(memory, sizeof(memory));
        struct encode_qp state = {0};
        size_t at = 0;
        while (at < text.size) {
            size_t step = 1 + random_below(&random, 20);
            size_t end = at + step < text.size ? at + step : text.size;
            /* A CRLF stays in one piece, as the callers promise. */
            end += end < text.size && text.at[end - 1] == '\r' && text.at[end] == '\n';
            encode_qp_put(&state, &writer, span_of(text.at + at, end - at));
            at = end;
        }
        encode_qp_end(&state, &writer);
        CHECK_ROW(row, !writer.is_full);
        check_qp_lines(row, writer_span(&writer));
        size_t size = 0;
        char *decoded = mime_decode_body(MIME_ENCODING_QP, writer_span(&writer), &size);
        CHECK_ROW(row, decoded != NULL && span_equal(span_of(decoded, size), text));
        free(decoded);
    }
}

static void test_base64(void)
{
    static const struct {
        struct span text, want;
    } ROWS[] = {
        {SPAN(""), SPAN("")},
        {SPAN("f"), SPAN("Zg==")},
        {SPAN("fo"), SPAN("Zm8=")},
        {SPAN("foo"), SPAN("Zm9v")},
        {SPAN("foobar"), SPAN("Zm9vYmFy")},
        {SPAN("\xff\xfe\xfd"), SPAN("//79")},
        {SPAN("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"),
         SPAN("eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4\r\neA="
              "=")},
    };
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        for (size_t split = 0; split <= ROWS[i].text.size; split++) {
            char memory[256];
            struct writer writer = writer_of(memory, sizeof(memory));
            struct encode_base64 state = {0};
            struct span text = ROWS[i].text;
            encode_base64_put(&state, &writer, span_of(text.at, split));
            encode_base64_put(&state, &writer, span_of(text.at + split, text.size - split));
            encode_base64_end(&state, &writer);
            CHECK_ROW(i, span_equal(writer_span(&writer), ROWS[i].want));
        }
    }
}

static void test_header_rows(void)
{
    static const struct {
        size_t column;
        bool may_encode;
        struct span text, want;
    } ROWS[] = {
        {9, true, SPAN(""), SPAN("")},
        {9, true, SPAN("Hello you"), SPAN("Hello you")},
        {9, true, SPAN("Hello J\xc3\xb6rg, there"), SPAN("Hello =?UTF-8?B?SsO2cmcs?= there")},
        {9, true, SPAN("J\xc3\xb6rg  Z\xc3\xb6 x"), SPAN("=?UTF-8?B?SsO2cmcgIFrDtg==?= x")},
        {9, true, SPAN("a \xc3\xa4hnlicher b"), SPAN("a =?UTF-8?Q?=C3=A4hnlicher?= b")},
        {9, true, SPAN("=?utf-8?q?x?="), SPAN("=?UTF-8?B?PT91dGYtOD9xP3g/PQ==?=")},
        {9, true, SPAN("a\x01 b"), SPAN("=?UTF-8?Q?a=01?= b")},
        {9, true, SPAN("a\nBcc: x"), SPAN("=?UTF-8?B?YQpCY2M6?= x")},
        {9, false, SPAN("=?utf-8?q?x?= y"), SPAN("=?utf-8?q?x?= y")},
        {9, true, SPAN(X10 X10 X10 X10 X10 X10 "x " X10),
         SPAN(X10 X10 X10 X10 X10 X10 "x\r\n " X10)},
        {9, true, SPAN(X70 " " X10 " b"), SPAN(X70 "\r\n " X10 " b")},
        {9, true, SPAN(" " X70), SPAN("\r\n " X70)},
        {9, true, SPAN(X10 "     " X70), SPAN(X10 "\r\n     " X70)},
        {60, true, SPAN("x " AE), SPAN("x\r\n =?UTF-8?B?w6Q=?=")},
        {9, true, SPAN(AE10 AE10 AE10 AE10),
         SPAN("=?UTF-8?B?w6TDpMOkw6TDpMOkw6TDpMOkw6TDpMOkw6TDpMOkw6TDpMOk?=\r\n "
              "=?UTF-8?B?w6TDpMOkw6TDpMOkw6TDpMOkw6TDpMOkw6TDpMOkw6TDpMOkw6TDpMOkw6Q=?=")},
    };
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        char memory[1024];
        struct writer writer = writer_of(memory, sizeof(memory));
        int error = encode_header(&writer, ROWS[i].column, ROWS[i].text, ROWS[i].may_encode);
        CHECK_ROW(i, error == 0);
        CHECK_ROW(i, span_equal(writer_span(&writer), ROWS[i].want));
    }
}

static void test_header_too_long(void)
{
    char text[1200];
    char memory[8192];
    memset(text, 'x', sizeof(text));
    struct writer writer = writer_of(memory, sizeof(memory));
    CU_ASSERT_EQUAL(encode_header(&writer, 9, span_of(text, 989), false), 0);
    CU_ASSERT_EQUAL(encode_header(&writer, 9, span_of(text, 990), false), -EINVAL);
    CU_ASSERT_EQUAL(encode_header(&writer, 9, span_of(text, sizeof(text)), true), 0);
    memset(text, ' ', sizeof(text));
    CU_ASSERT_EQUAL(encode_header(&writer, 9, span_of(text, sizeof(text)), true), -EINVAL);
}

static bool lines_are_narrow(struct span text, size_t column)
{
    for (size_t i = 0; i < text.size; i++) {
        column = text.at[i] == '\n' ? 0 : column + (text.at[i] != '\r');
        if (column > ENCODE_WIDTH || (text.at[i] & 0x80) != 0) {
            return false;
        }
    }
    return true;
}

/* Any UTF-8 text: lines within the width, ASCII only, no break without a blank behind it, and a
 * reader gets the text back. */
static void test_header_returns(void)
{
    static const char *const WORDS[] = {"a",
                                        "word",
                                        "\xc3\xbc"
                                        "ber",
                                        "\xe2\x82\xac",
                                        "\xf0\x9f\x98\x80",
                                        "=?utf-8?q?x?=",
                                        "\"q\"",
                                        AE10 AE10,
                                        "a,b",
                                        "?="};
    struct random random;
    random_init_seed(&random, 2);
    for (size_t row = 0; row < 3000; row++) {
        char text_memory[1024];
        char memory[8192];
        struct writer text = writer_of(text_memory, sizeof(text_memory));
        uint32_t count = 1 + random_below(&random, 16);
        for (uint32_t i = 0; i < count; i++) {
            writer_put(&text, i > 0 ? SPAN(" ") : SPAN_NONE);
            writer_put(&text, span_of_text(WORDS[random_below(&random, COUNT_OF(WORDS))]));
        }
        struct writer writer = writer_of(memory, sizeof(memory));
        CHECK_ROW(row, encode_header(&writer, 9, writer_span(&text), true) == 0);
        CHECK_ROW(row, lines_are_narrow(writer_span(&writer), 9));
        struct writer unfolded = writer_of(memory, sizeof(memory));
        for (char *at = memory; at < writer.at; at++) {
            if (*at == '\r') {
                CHECK_ROW(row, at[1] == '\n' && at[2] == ' ');
            } else if (*at != '\n') {
                writer_put_byte(&unfolded, *at);
            }
        }
        char *decoded = mime_decode_header(writer_span(&unfolded));
        CHECK_ROW(row, decoded != NULL && span_equal(span_of_text(decoded), writer_span(&text)));
        free(decoded);
    }
}

static void test_phrase_rows(void)
{
    static const struct {
        struct span text, want;
    } ROWS[] = {
        {SPAN(""), SPAN("")},
        {SPAN("  "), SPAN("")},
        {SPAN("Ann Lee"), SPAN("Ann Lee")},
        {SPAN(" Ann "), SPAN("Ann")},
        {SPAN("Dr. Lee"), SPAN("\"Dr. Lee\"")},
        {SPAN("Lee, Ann"), SPAN("\"Lee, Ann\"")},
        {SPAN("a  b"), SPAN("\"a  b\"")},
        {SPAN("\"x\" \\y"), SPAN("\"\\\"x\\\" \\\\y\"")},
        {SPAN("x <evil@y>,"), SPAN("\"x <evil@y>,\"")},
        {SPAN("J\xc3\xb6rg"), SPAN("=?UTF-8?B?SsO2cmc=?=")},
        {SPAN("=?utf-8?q?x?="), SPAN("=?UTF-8?B?PT91dGYtOD9xP3g/PQ==?=")},
        {SPAN("a\x01"), SPAN("=?UTF-8?Q?a=01?=")},
        {SPAN(AE10 AE10), SPAN("=?UTF-8?B?w6TDpMOkw6TDpMOkw6TDpMOkw6TDpMOkw6TDpMOkw6TDpMOk?= "
                               "=?UTF-8?B?w6TDpA==?=")},
    };
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        char memory[512];
        struct writer writer = writer_of(memory, sizeof(memory));
        encode_phrase(&writer, ROWS[i].text);
        CHECK_ROW(i, span_equal(writer_span(&writer), ROWS[i].want));
        bool is_same = span_equal(ROWS[i].text, ROWS[i].want);
        CHECK_ROW(i, is_same == encode_phrase_is_atoms(ROWS[i].text, value_classes(ROWS[i].text)));
    }
}

/* Whatever the room, nothing is written behind it, and too little is always told. */
static void test_small_writers(void)
{
    struct span text = SPAN("J\xc3\xb6rg, \"the\" word - " AE10 AE10 AE10 " and more of it");
    char memory[512];
    struct writer writer = writer_of(memory, sizeof(memory));
    CU_ASSERT_EQUAL(encode_header(&writer, 9, text, true), 0);
    size_t size = writer_size(&writer);
    for (size_t room = 0; room < size; room++) {
        memory[room] = '#';
        writer = writer_of(memory, room);
        CU_ASSERT_EQUAL(encode_header(&writer, 9, text, true), 0);
        CHECK_ROW(room, writer.is_full && memory[room] == '#');
    }
}

SUITE(encode, test_qp_rows, test_qp_join, test_qp_returns, test_base64, test_header_rows,
      test_header_too_long, test_header_returns, test_phrase_rows, test_small_writers)
