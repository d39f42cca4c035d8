/* SPDX-License-Identifier: Apache-2.0 */
/* The bodies of a message: what stays byte for byte, how values stand in each encoding, what a
 * value may force. */
#include "engine/message/template.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/harness.h"
#include "tests/unit/message/fixture.h"

#define HEAD FIXTURE_HEAD "MIME-Version: 1.0\n"
#define MIXED HEAD "Content-Type: multipart/mixed; boundary=b\n\n"
#define PLAIN "Content-Type: text/plain\n"
#define HTML "Content-Type: text/html\n"
#define UTF8 "Content-Type: text/plain; charset=utf-8\n"
#define QP "Content-Transfer-Encoding: quoted-printable\n"
#define BASE64 "Content-Transfer-Encoding: base64\n"
#define BIT7 "Content-Transfer-Encoding: 7bit\n"
#define BIT8 "Content-Transfer-Encoding: 8bit\n"
#define ANN                                                                                        \
    {                                                                                              \
        {                                                                                          \
            "name", "Ann"                                                                          \
        }                                                                                          \
    }
#define JOERG                                                                                      \
    {                                                                                              \
        {                                                                                          \
            "name", "J\xc3\xb6rg"                                                                  \
        }                                                                                          \
    }
#define X10 "xxxxxxxxxx"
#define X50 X10 X10 X10 X10 X10
#define X200 X50 X50 X50 X50
#define X950 X200 X200 X200 X200 X50 X50 X50

static const struct {
    const char *eml;
    struct fixture_var vars[FIXTURE_VARS_MAX];
    unsigned flags;
    const char *want;
} ROWS[] = {
    /* Plain text. */
    {FIXTURE_HEAD "\nHello {{name}}!\n", ANN, 0, FIXTURE_HEAD "\nHello Ann!\n"},
    {FIXTURE_HEAD "\nHello {{name}}", ANN, 0, FIXTURE_HEAD "\nHello Ann\n"},
    {FIXTURE_HEAD "\n{{name}}{{name}}\n{{name}}", ANN, 0, FIXTURE_HEAD "\nAnnAnn\nAnn\n"},
    {FIXTURE_HEAD "\n{{name}}\n", {{"name", "a & <b>"}}, 0, FIXTURE_HEAD "\na & <b>\n"},
    {FIXTURE_HEAD "\n{{{{name}}\n", ANN, 0, FIXTURE_HEAD "\n{{name}}\n"},
    {FIXTURE_HEAD "\n{{{{{{name}}}}\n", ANN, 0, FIXTURE_HEAD "\n{{Ann}}\n"},
    {FIXTURE_HEAD "\n{{name|}}.\n", {{0}}, 0, FIXTURE_HEAD "\n.\n"},
    {FIXTURE_HEAD "\n{{_vid}}-{{name}}\n", ANN, 0, FIXTURE_HEAD "\n7-Ann\n"},
    {FIXTURE_HEAD "\n{{name}}\n", {{0}}, FIXTURE_EMPTY, FIXTURE_HEAD "\n\n"},
    {FIXTURE_HEAD "\n{{{ name }}}\n", {{0}}, FIXTURE_LITERAL, FIXTURE_HEAD "\n{{{ name }}}\n"},
    {FIXTURE_HEAD "\n{{name|x}}\n", {{0}}, FIXTURE_LITERAL, FIXTURE_HEAD "\nx\n"},
    {FIXTURE_HEAD "\n{{name}}.\n",
     {{"name", "a\nb\r\nc\rd\n"}},
     0,
     FIXTURE_HEAD "\na\nb\nc\nd\n.\n"},
    {FIXTURE_HEAD "\n{{name}}.\n", {{"name", "\r\r\n\n"}}, 0, FIXTURE_HEAD "\n\n\n\n.\n"},
    {FIXTURE_HEAD "\n{{name}}\n", {{"name", ".\n..\n"}}, 0, FIXTURE_HEAD "\n.\n..\n\n"},

    /* HTML. */
    {HEAD HTML "\n<p a='{{name}}'>{{name}}\n",
     {{"name", "<b> \"x\" & 'y'"}},
     0,
     HEAD HTML "\n<p a='&lt;b&gt; &quot;x&quot; &amp; &#39;y&#39;'>&lt;b&gt; &quot;x&quot; &amp; "
               "&#39;y&#39;\n"},
    {HEAD HTML "\n{{{name}}} {{&name}}\n", {{"name", "<b>"}}, 0, HEAD HTML "\n<b> <b>\n"},
    {HEAD HTML "\n{{name|<i>you</i> &amp;}}\n", {{0}}, 0, HEAD HTML "\n<i>you</i> &amp;\n"},
    {HEAD "Content-Type: Text/HTML; charset=utf-8\n\n{{name}}\n",
     {{"name", "a\n<"}},
     0,
     HEAD "Content-Type: Text/HTML; charset=utf-8\n\na\n&lt;\n"},

    /* Values that a 7bit part cannot carry. */
    {FIXTURE_HEAD "\nHi {{name}} =\n", JOERG, 0,
     FIXTURE_HEAD "MIME-Version: 1.0\n" UTF8 QP "\nHi J=C3=B6rg =3D\n"},
    {HEAD "Content-Type: text/plain; charset=us-ascii\n" BIT7 "\nHi {{name}}\n", JOERG, 0,
     HEAD UTF8 QP "\nHi J=C3=B6rg\n"},
    {HEAD BIT7 "Content-Type: text/plain; charset=\"UTF-8\"\n\nHi {{name}}\n", JOERG, 0,
     HEAD QP "Content-Type: text/plain; charset=\"UTF-8\"\n\nHi J=C3=B6rg\n"},
    {HEAD "Content-Type: text/plain;\n format=flowed; charset=iso-8859-1\n\n{{name}}\n", JOERG, 0,
     HEAD "Content-Type: text/plain; format=flowed; charset=utf-8\n" QP "\nJ=C3=B6rg\n"},
    {HEAD "Content-Type: text/plain;\n format=flowed; charset=iso-8859-1\n\n{{name}}\n", ANN, 0,
     HEAD "Content-Type: text/plain;\n format=flowed; charset=iso-8859-1\n\nAnn\n"},

    {HEAD "Content-Type: text/plain; name=\"\xc3\xa4\"\n\n{{name}}\n", ANN, FIXTURE_7BIT,
     HEAD "Content-Type: text/plain; name*=iso-8859-1''%E4; charset=utf-8\n\nAnn\n"},

    /* 8bit parts. */
    {HEAD UTF8 BIT8 "\n\xc3\xa4 {{name}}\n", JOERG, 0, HEAD UTF8 BIT8 "\n\xc3\xa4 J\xc3\xb6rg\n"},
    {HEAD PLAIN BIT8 "\nx {{name}}\n", JOERG, 0, HEAD UTF8 BIT8 "\nx J\xc3\xb6rg\n"},
    {FIXTURE_HEAD "\n\xc3\xa4 {{name}}\n", ANN, 0,
     FIXTURE_HEAD "MIME-Version: 1.0\n" UTF8 BIT8 "\n\xc3\xa4 Ann\n"},
    {HEAD UTF8 "Content-Transfer-Encoding: binary\n\n\xc3\xa4 {{name}}\n", ANN, 0,
     HEAD UTF8 BIT8 "\n\xc3\xa4 Ann\n"},
    {HEAD UTF8 BIT8 "\n\xc3\xa4 {{name}}\n", JOERG, FIXTURE_7BIT,
     HEAD UTF8 QP "\n=C3=A4 J=C3=B6rg\n"},
    {HEAD UTF8 BIT8 "\na {{name}}\n", JOERG, FIXTURE_7BIT, HEAD UTF8 QP "\na J=C3=B6rg\n"},
    {HEAD UTF8 BIT8 "\na {{name}}\n", ANN, FIXTURE_7BIT, HEAD UTF8 BIT8 "\na Ann\n"},
    {HEAD "Content-Type: text/plain; charset=iso-8859-1\n" BIT8 "\n\xe4 {{name}}\n", JOERG, 0,
     HEAD UTF8 QP "\n=C3=A4 J=C3=B6rg\n"},

    /* Nothing to fill in: the bytes stay, whatever they are. */
    {FIXTURE_HEAD "\n\xe4\n", {{0}}, 0, FIXTURE_HEAD "\n\xe4\n"},
    {FIXTURE_HEAD "\n\xe4\n", {{0}}, FIXTURE_7BIT, FIXTURE_HEAD "MIME-Version: 1.0\n" QP "\n=E4\n"},
    {HEAD "Content-Type: image/x\n" BIT8 "\n\xff\xfe \n",
     {{0}},
     FIXTURE_7BIT,
     HEAD "Content-Type: image/x\n" QP "\n=FF=FE=20\n"},
    {HEAD PLAIN QP "\na  \n=e4= \nb=XY\n", {{0}}, 0, HEAD PLAIN QP "\na  \n=e4= \nb=XY\n"},
    {HEAD PLAIN BASE64 "\nQU\n  FB\n", {{0}}, 0, HEAD PLAIN BASE64 "\nQU\n  FB\n"},

    /* Quoted-printable. */
    {HEAD UTF8 QP "\nHello =7B{na=\nme}} =3D\n", ANN, 0, HEAD UTF8 QP "\nHello Ann =3D\n"},
    {HEAD UTF8 QP "\nHello {{name}}\n",
     {{"name", "=\xc3\xa4 "}},
     0,
     HEAD UTF8 QP "\nHello =3D=C3=A4 =\n\n"},
    {HEAD UTF8 QP "\nHello {{name}}\n", {{"name", ""}}, 0, HEAD UTF8 QP "\nHello =\n\n"},
    {HEAD UTF8 QP "\nHello {{name}}\n",
     {{"name", "\nx \ny"}},
     0,
     HEAD UTF8 QP "\nHello =\n\nx =\n\ny\n"},
    {HEAD UTF8 QP "\nHello {{name}}=\n", ANN, 0, HEAD UTF8 QP "\nHello Ann=\n"},
    {HEAD "Content-Type: text/html; charset=utf-8\n" QP "\n{{name}}{{{name}}}\n",
     {{"name", "<=>"}},
     0,
     HEAD "Content-Type: text/html; charset=utf-8\n" QP "\n&lt;=3D&gt;<=3D>\n"},
    {HEAD UTF8 QP "\n" X50 "12345{{name}}" X10 X10 "1\n",
     {{"name", ""}},
     0,
     HEAD UTF8 QP "\n" X50 "12345" X10 X10 "1\n"},
    {HEAD UTF8 QP "\n" X50 X10 "{{name}}" X10 "\n",
     {{"name", "abcdef"}},
     0,
     HEAD UTF8 QP "\n" X50 X10 "abcdef" X10 "\n"},
    {HEAD UTF8 QP "\n" X50 X10 "{{name}}" X10 "\n",
     {{"name", "abcdefg"}},
     0,
     HEAD UTF8 QP "\n" X50 X10 "abcdefg=\n" X10 "\n"},
    {HEAD UTF8 QP "\n" X50 X10 "{{name}}\n",
     {{"name", X10 X10}},
     0,
     HEAD UTF8 QP "\n" X50 X10 X10 "xxxxx=\nxxxxx\n"},
    {HEAD PLAIN QP "\n{{name}}\n", ANN, 0, HEAD UTF8 QP "\nAnn\n"},
    {HEAD "Content-Type: text/plain; charset=windows-1252\n" QP "\n=80 {{name}}\n", ANN, 0,
     HEAD UTF8 QP "\n=E2=82=AC Ann\n"},

    /* What another charset makes of a line end need not be one. */
    {HEAD "Content-Type: text/plain; charset=ibm037\n\n\xc0\xc0\x95\x81\x94\x85\xd0\xd0\n", ANN,
     FIXTURE_CRLF, HEAD UTF8 QP "\nAnn=0D=C2=8E=\n"},

    /* Base64. */
    {HEAD UTF8 BASE64 "\nSGVsbG8ge3tuYW1lfX0hCg==\n", ANN, 0,
     HEAD UTF8 BASE64 "\nSGVsbG8gQW5uIQo=\n"},
    {HEAD UTF8 BASE64 "\nSGVsbG8ge3tuYW1lfX0hCg==\n", JOERG, 0,
     HEAD UTF8 BASE64 "\nSGVsbG8gSsO2cmchCg==\n"},
    {HEAD UTF8 BASE64 "\nSGVs\nbG8ge3\ntuYW1lfX0hCg==", ANN, 0,
     HEAD UTF8 BASE64 "\nSGVsbG8gQW5uIQo=\n"},
    {HEAD "Content-Type: text/plain; charset=utf-16le\n" BASE64 "\newB7AG4AYQBtAGUAfQB9AA==\n",
     JOERG, 0, HEAD UTF8 BASE64 "\nSsO2cmc=\n"},

    /* Lines over 998 octets: 48 more fit, 49 do not. */
    {FIXTURE_HEAD "\n" X950 "{{name}}\n",
     {{"name", X10 X10 X10 X10 "12345678"}},
     0,
     FIXTURE_HEAD "\n" X950 X10 X10 X10 X10 "12345678\n"},
    {FIXTURE_HEAD "\n{{name}}\n" X10 "\n", {{"name", X950 X50 "\n"}}, 0, NULL},
    {FIXTURE_HEAD "\n{{name}}" X10 "\n", {{"name", X950 X10 X10 X10 X10}}, 0, NULL},
    {FIXTURE_HEAD "\n" X950 "{{name}}\n", {{"name", X10 X10 X10 X10 "123456789"}}, 0, NULL},
    {HEAD HTML "\n" X950 "{{name}}\n", {{"name", "<<<<<<<<<<<<<"}}, 0, NULL},

    /* Multiparts. */
    {MIXED "pre {{amble}}\n--b\n\n{{name}}\n--b\n" HTML "\n{{name}}\n--b--\nepi {{logue}}\n",
     {{"name", "<"}},
     0,
     MIXED "pre {{amble}}\n--b\n\n<\n--b\n" HTML "\n&lt;\n--b--\nepi {{logue}}\n"},
    {MIXED "--b\n\n{{name}}\n--b\n" HTML "\n{{name}}\n--b--\n", JOERG, 0,
     MIXED "--b\n" UTF8 QP "\nJ=C3=B6rg\n--b\nContent-Type: text/html; charset=utf-8\n" QP
           "\nJ=C3=B6rg\n--b--\n"},
    {MIXED "--b\n" UTF8 BIT8 "\n\xc3\xa4\n--b\nX: \xc3\xa4\n\nx\n--b--\n",
     {{0}},
     0,
     MIXED "--b\n" UTF8 BIT8 "\n\xc3\xa4\n--b\nX: \xc3\xa4\n\nx\n--b--\n"},
    {MIXED "--b\n" PLAIN "Content-Disposition: attachment; filename={{x}}.txt\n\n{{name}}\n--b--\n",
     {{0}},
     0,
     MIXED "--b\n" PLAIN
           "Content-Disposition: attachment; filename={{x}}.txt\n\n{{name}}\n--b--\n"},
    {MIXED "--b\nContent-Type: application/x\n\n{{ {{{ {{#\n--b\n\n{{name}}\n--b--\n", ANN, 0,
     MIXED "--b\nContent-Type: application/x\n\n{{ {{{ {{#\n--b\n\nAnn\n--b--\n"},
    {MIXED "--b\nContent-Type: message/rfc822\n\nSubject: {{x}}\n\n{{y}}\n--b\n\n{{name}}\n--b--\n",
     ANN, 0,
     MIXED "--b\nContent-Type: message/rfc822\n\nSubject: {{x}}\n\n{{y}}\n--b\n\nAnn\n--b--\n"},
    {MIXED "--b\nContent-Type: message/rfc822\n\nX: y\n" UTF8 BIT8 "\n\xc3\xa4\n--b--\n",
     {{0}},
     FIXTURE_7BIT,
     MIXED "--b\nContent-Type: message/rfc822\n\nX: y\n" UTF8 QP "\n=C3=A4\n--b--\n"},
    {HEAD "Content-Type: multipart/signed; boundary=b; protocol=\"x/y\"; "
          "micalg=z\n\n--b\n\n{{name}}\n--b\nContent-Type: x/y\n\nx\n--b--\n",
     {{0}},
     0,
     HEAD "Content-Type: multipart/signed; boundary=b; protocol=\"x/y\"; "
          "micalg=z\n\n--b\n\n{{name}}\n--b\nContent-Type: x/y\n\nx\n--b--\n"},
    {MIXED
     "--b\nContent-Type: multipart/alternative; boundary=\"c d\"\n\n--c d\n\n{{name}}\n--c d\n" HTML
     "\n{{name}}\n--c d--\n\n--b\nContent-Type: image/x\n" BASE64 "\ne3tuYW1lfX0=\n--b--\n",
     {{"name", "&"}},
     0,
     MIXED "--b\nContent-Type: multipart/alternative; boundary=\"c d\"\n\n--c d\n\n&\n--c d\n" HTML
           "\n&amp;\n--c d--\n\n--b\nContent-Type: image/x\n" BASE64 "\ne3tuYW1lfX0=\n--b--\n"},
    {MIXED "--b\n" UTF8 BASE64 "\ne3tuYW1lfX0=\n--b\n" UTF8 BASE64 "\ne3tuYW1lfX0=\n\n--b--\n", ANN,
     0, MIXED "--b\n" UTF8 BASE64 "\nQW5u\n--b\n" UTF8 BASE64 "\nQW5u\n\n--b--\n"},
    {MIXED "--b\n" UTF8 QP "\nx {{name}}\n--b--\n",
     {{"name", ""}},
     0,
     MIXED "--b\n" UTF8 QP "\nx =\n\n--b--\n"},

    /* Broken structures. */
    {MIXED "--b\n\n{{name}}\n", ANN, 0, MIXED "--b\n\nAnn\n"},
    {MIXED "--b\n\n{{name}}", ANN, 0, MIXED "--b\n\nAnn\n"},
    {MIXED "--b\n--b--\n", {{0}}, 0, MIXED "--b\n--b--\n"},
    {MIXED "no parts\n", {{0}}, 0, MIXED "no parts\n"},
    {MIXED, {{0}}, 0, MIXED},
    {HEAD "Content-Type: multipart/mixed\n\n--b\n\nx\n",
     {{0}},
     0,
     HEAD "Content-Type: multipart/mixed\n\n--b\n\nx\n"},
    {HEAD "Content-Type: \xe2\x82\xac\n\n{{name}}\n", ANN, 0, HEAD UTF8 "\nAnn\n"},
    {HEAD PLAIN "Content-Transfer-Encoding: x-odd\n\n{{name}}\n",
     {{0}},
     0,
     HEAD PLAIN "Content-Transfer-Encoding: x-odd\n\n{{name}}\n"},

    /* No value makes a delimiter; a single dash is none. */
    {MIXED "--b\n\n{{name}}\n--b--\n",
     {{"name", "x\n--b\nEvil: y\n\nz"}},
     0,
     MIXED "--b\n" UTF8 QP "\nx\n=2D-b\nEvil: y\n\nz\n--b--\n"},
    {MIXED "--b\n\n{{name}}\n--b--\n",
     {{"name", "--b--"}},
     0,
     MIXED "--b\n" UTF8 QP "\n=2D-b--\n--b--\n"},
    {MIXED "--b\n\n-{{name}}\n--b--\n",
     {{"name", "-b--"}},
     0,
     MIXED "--b\n" UTF8 QP "\n=2D-b--\n--b--\n"},
    {MIXED "--b\n\n{{name}}--b\n--b--\n",
     {{"name", ""}},
     0,
     MIXED "--b\n" UTF8 QP "\n=2D-b\n--b--\n"},
    {MIXED "--b\n\n{{name}}--b\n--b--\n",
     {{"name", "x\n"}},
     0,
     MIXED "--b\n" UTF8 QP "\nx\n=2D-b\n--b--\n"},
    {MIXED "--b\n\n{{name}}-b\n--b--\n",
     {{"name", "x\n-"}},
     0,
     MIXED "--b\n" UTF8 QP "\nx\n=2D-b\n--b--\n"},
    {MIXED "--b\n\n{{name}}{{name}}-b\n--b--\n",
     {{"name", "-"}},
     0,
     MIXED "--b\n" UTF8 QP "\n=2D--b\n--b--\n"},
    {MIXED "--b\n\n{{name}}{{e}}-b\n--b--\n",
     {{"name", "-"}, {"e", ""}},
     0,
     MIXED "--b\n" UTF8 QP "\n=2D-b\n--b--\n"},
    {MIXED "--b\n\n{{name}}\n--b--\n",
     {{"name", "-5\n- x\n-"}},
     0,
     MIXED "--b\n\n-5\n- x\n-\n--b--\n"},
    {MIXED "--b\n\nab{{name}}\n--b--\n", {{"name", "--b"}}, 0, MIXED "--b\n\nab--b\n--b--\n"},
    {MIXED "--b\n" UTF8 QP "\n{{name}}{{name}}--b\n--b--\n",
     {{"name", "-"}},
     0,
     MIXED "--b\n" UTF8 QP "\n=2D-=2D-b\n--b--\n"},
    {MIXED "--b\n" UTF8 QP "\n{{name}}--b\n--b--\n",
     {{"name", ""}},
     0,
     MIXED "--b\n" UTF8 QP "\n=2D-b\n--b--\n"},
    {FIXTURE_HEAD "\n{{name}}\n", {{"name", "--b"}}, 0, FIXTURE_HEAD "\n--b\n"},
    {"\xef\xbb\xbf" FIXTURE_HEAD "\n{{name}}\n", ANN, 0, FIXTURE_HEAD "\nAnn\n"},
};

/* The message went as quoted-printable, and so has no long line. */
static bool is_narrow_qp(const char *eml, const struct fixture_var *vars)
{
    struct template_problem problem;
    struct template *template = fixture_compile(span_of_text(eml), 0, &problem);
    CU_ASSERT_PTR_NOT_NULL_FATAL(template);
    struct fixture_output output = fixture_render(template, vars, 0);
    CU_ASSERT_EQUAL_FATAL(output.error, 0);
    bool is_narrow = strstr(output.text, "\n" QP) != NULL;
    size_t column = 0;
    for (size_t i = 0; i < output.size; i++) {
        column = output.text[i] == '\n' ? 0 : column + 1;
        is_narrow &= column <= 76;
    }
    fixture_output_deinit(&output);
    template_destroy(template);
    return is_narrow;
}

static void test_rows(void)
{
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        if (ROWS[i].want == NULL) {
            CHECK_ROW(i, is_narrow_qp(ROWS[i].eml, ROWS[i].vars));
            continue;
        }
        CHECK_ROW(i, fixture_row(ROWS[i].eml, ROWS[i].vars, ROWS[i].flags, ROWS[i].want));
        CHECK_ROW(
            i, fixture_row(ROWS[i].eml, ROWS[i].vars, ROWS[i].flags | FIXTURE_CRLF, ROWS[i].want));
    }
}

static const struct {
    struct span eml;
    struct fixture_var vars[FIXTURE_VARS_MAX];
    unsigned flags;
    const char *want;
    uint64_t line;
} FAILURES[] = {
    {SPAN(FIXTURE_HEAD "\na\nb\rc\n"), {{0}}, 0, "a lone CR", 6},
    {SPAN(FIXTURE_HEAD "\na\nb\r\nc\n"), {{0}}, 0, "a CRLF in a file with LF", 6},
    {SPAN("From: a@b\r\n\r\na\nb"), {{0}}, 0, "a lone LF in a file with CRLF", 3},
    {SPAN("From: a@b\r\n\r\na\r\r\nb"), {{0}}, 0, "a lone CR", 3},
    {SPAN("From: a@b\r\n\r\na\r"), {{0}}, 0, "a lone CR", 3},
    {SPAN("From: a@b\r"), {{0}}, 0, "a lone CR", 1},
    {SPAN("\xff\xfe"
          "F\0r\0o\0m\0"),
     {{0}},
     0,
     "write the file in UTF-8",
     1},
    {SPAN("\xfe\xff\0F\0r\0o\0m"), {{0}}, 0, "write the file in UTF-8", 1},
    {SPAN("\xef\xbb\xbf\xef\xbb\xbf" FIXTURE_HEAD "\n"), {{0}}, 0, "neither a header field", 1},
    {SPAN("\xef\xbb\xbf"), {{0}}, 0, "no From", 0},
    {SPAN(FIXTURE_HEAD "\na\n\0\n"), {{0}}, 0, "a NUL", 6},
    {SPAN(FIXTURE_HEAD "\n" X950 X50 "\n"), {{0}}, 0, "longer than 998", 5},
    {SPAN(FIXTURE_HEAD "X: " X950 X50 "\n"), {{0}}, 0, "longer than 998", 4},
    {SPAN(FIXTURE_HEAD "\nx\n{{name\n}}"), {{0}}, 0, "not closed on its line", 6},
    {SPAN(FIXTURE_HEAD "\nx\n{{#if x}}\n"), {{0}}, 0, "not supported", 6},
    {SPAN(FIXTURE_HEAD "\nx\ny {{a b}}\n"), {{0}}, 0, "a placeholder's name", 6},
    {SPAN(HEAD UTF8 QP "\nx=\ny=\nz {{=\nna me}}\n"), {{0}}, 0, "a placeholder's name", 10},
    {SPAN(HEAD UTF8 BASE64 "\nYWFhCmFhYQph\ne3tuYSBtZX19\n"), {{0}}, 0, "a placeholder's name", 9},
    {SPAN(MIXED "--b\n\nx\n--b\n" UTF8 "\nx\n{{x\n--b--\n"),
     {{0}},
     0,
     "not closed on its line",
     14},
    {SPAN(MIXED "--c\n\n{{name}}\n--c--\n"), ANN, 0, "multipart but has no parts", 0},
    {SPAN(FIXTURE_HEAD "\n\xe4 {{name}}\n"), ANN, 0, "neither ASCII nor UTF-8", 5},
    {SPAN(HEAD "Content-Type: text/plain; charset=x-none\n\n{{name}}\n"), ANN, 0,
     "charset \"x-none\"", 7},
    {SPAN(FIXTURE_HEAD "\n{{name}}\n"), {{0}}, 0, "\"name\" is not given and has no default", 0},
    {SPAN(FIXTURE_HEAD "\n{{name|x}}{{name}}\n"),
     {{0}},
     0,
     "\"name\" is not given and has no default",
     0},
    {SPAN(FIXTURE_HEAD "\n{{name}} {{b}}\n"), {{"name", "\xff"}}, 0, "\"name\" is not UTF-8", 0},
    {SPAN(FIXTURE_HEAD "\n{{b}} {{name}}\n"), {{"name", "\xff"}}, 0, "\"b\" is not given", 0},
    {SPAN(MIXED "--b\n\nx\n--b\nX: \xc3\xa4\n\nx\n--b--\n"),
     {{0}},
     FIXTURE_7BIT,
     "cannot be encoded",
     0},
    {SPAN(FIXTURE_HEAD "To: \xc3\xa4@b\n\n"), {{0}}, FIXTURE_7BIT, "cannot be encoded", 4},
};

static void test_failures(void)
{
    for (size_t i = 0; i < COUNT_OF(FAILURES); i++) {
        struct template_problem problem = {0};
        struct template *template = fixture_compile(FAILURES[i].eml, 0, &problem);
        if (template != NULL) {
            struct fixture_output output =
                fixture_render(template, FAILURES[i].vars, FAILURES[i].flags);
            CHECK_ROW(i, output.error == -EINVAL);
            problem = output.problem;
            fixture_output_deinit(&output);
        }
        CHECK_ROW(i, strstr(problem.text, FAILURES[i].want) != NULL);
        CHECK_ROW(i, problem.line == FAILURES[i].line);
        template_destroy(template);
    }
}

#define BAD_NAME                                                                                   \
    "a placeholder's name holds more than letters, digits, \"_\", \".\" and \"-\"; a literal "     \
    "\"{{\" is written \"{{{{\""
#define NOT_CLOSED "a \"{{\" is not closed on its line; a literal \"{{\" is written \"{{{{\""

/* All that is wrong is told at once, each with its line. */
static void test_all_failures(void)
{
    static const struct {
        struct span eml;
        const char *want;
    } ALL[] = {
        {SPAN("From: a@b.example\nFrom: c@d.example\nSubject: {{na me}}\nTo: {{x\n"
              "Content-Description: {{x}}\n\nfine\n{{#if x}} {{a b}}\n{{name}}\n{{x\n"),
         "m:2: a second From field\n"
         "m:3: " BAD_NAME "\n"
         "m:4: " NOT_CLOSED "\n"
         "m:5: a placeholder cannot stand in Content-Description\n"
         "m:8: conditions, loops, comments and partials are not supported\n"
         "m:8: " BAD_NAME "\n"
         "m:10: " NOT_CLOSED},
        {SPAN("Subject: x\n\n{{name}}\n{{y z}}\n"), "m: there is no From field\nm:4: " BAD_NAME},
        {SPAN("From: a@b\nno field\n  \nnor this\n\n{{y z}}\n"),
         "m:2: neither a header field nor the blank line behind the header\n"
         "m:3: a header line of blanks only\n"
         "m:4: neither a header field nor the blank line behind the header"},
        {SPAN("From: a@b\n\na\rb\nc\r\nd\0\n{{y z}}\n"),
         "m:3: a lone CR\nm:4: a CRLF in a file with LF line ends\nm:5: a NUL"},
    };
    for (size_t i = 0; i < COUNT_OF(ALL); i++) {
        char words[8192];
        struct writer writer = writer_of(words, sizeof(words) - 1);
        struct template_problems all;
        struct template_problem first;
        const struct template_options options = {.batch_id = SPAN("b"), .problems = &all};
        CU_ASSERT_PTR_NULL_FATAL(template_compile(ALL[i].eml, &options, &first));
        template_problems_put(&all, "m", &writer);
        *writer.at = '\0';
        CHECK_ROW(i, strcmp(words, ALL[i].want) == 0);
        CHECK_ROW(i, strcmp(first.text, all.rows[0].text) == 0);
    }
}

/* No more than so many, and no bound is told for each that is beyond it. */
static void test_very_many_failures(void)
{
    char memory[8192];
    for (int i = 0; i < 2; i++) {
        struct writer eml = writer_of(memory, sizeof(memory));
        writer_put(&eml, SPAN("From: a@b\n\n"));
        for (int j = 0; j < 200; j++) {
            writer_put_format(&eml, i == 0 ? "{{a b%d}}\n" : "{{v%d}}\n", j);
        }
        ensure(!eml.is_full);
        char words[8192];
        struct writer writer = writer_of(words, sizeof(words) - 1);
        struct template_problems all;
        struct template_problem first;
        const struct template_options options = {.batch_id = SPAN("b"), .problems = &all};
        CU_ASSERT_PTR_NULL_FATAL(template_compile(writer_span(&eml), &options, &first));
        template_problems_put(&all, "m", &writer);
        *writer.at = '\0';
        CHECK_ROW((size_t)i, all.count == (i == 0 ? TEMPLATE_PROBLEMS_MAX : 1));
        CHECK_ROW((size_t)i, (strstr(words, "\nm: there may be more") != NULL) == (i == 0));
        CHECK_ROW((size_t)i, all.rows[all.count - 1].line == (i == 0 ? 22 : 131));
    }
}

/* A NUL in a value is refused everywhere. */
static void test_nul(void)
{
    struct template_problem problem;
    struct template *template = fixture_compile(SPAN(FIXTURE_HEAD "\n{{name}}\n"), 0, &problem);
    CU_ASSERT_PTR_NOT_NULL_FATAL(template);
    struct span values[1] = {SPAN("a\0b")};
    struct render_input input = fixture_input(values, 0);
    CU_ASSERT_EQUAL(template_check(template, &input, &problem), -EINVAL);
    CU_ASSERT_STRING_EQUAL(problem.text, "\"name\" holds a NUL");
    template_destroy(template);
}

/* A batch is compiled when it is claimed, and dated when it is accepted: wherever the field was put
 * together with its neighbours. */
static void test_another_date(void)
{
    static const struct {
        const char *eml, *dates; /* the file's own, and how often each day is told */
    } DATED[] = {
        {"From: <a@b.example>\n\nHello {{name}}.\n", "02"},
        {"From: <a@b.example>\nContent-Type: text/plain; charset=utf-8\n\nH\xc3\xa4llo.\n", "02"},
        {"From: <a@b.example>\nSubject: {{name}}\n\nHello.\n", "02"},
        {"From: <a@b.example>\nMessage-ID: <x@y>\n\nH\xc3\xa4llo {{name}}.\n", "02"},
        {"From: <a@b.example>\n\nDate: Tue, 01 Dec 2026 08:00:00 +0000\n", "12"},
        {"From: <a@b.example>\nSubject: x\n Date: Tue, 01 Dec 2026 08:00:00 +0000\n\nHello.\n",
         "12"},
        {"From: <a@b.example>\nDate: Tue, 01 Dec 2026 08:00:00 +0000\n\nHello.\n", "1"},
    };
    char *memory = malloc(65536);
    CU_ASSERT_FATAL(memory != NULL);
    for (size_t i = 0; i < 2 * COUNT_OF(DATED); i++) {
        struct template_problem problem;
        struct template *template = fixture_compile(span_of_text(DATED[i / 2].eml), 0, &problem);
        CU_ASSERT_FATAL(template != NULL);
        struct wall_time day_after = {.ns = INT64_C(1796198400) * NS_PER_S};
        template_set_date(template, day_after);
        struct span values[1] = {SPAN("Ann")};
        struct render_input input = fixture_input(values, i % 2 == 0 ? 0 : FIXTURE_7BIT);
        struct render_output output = {.scratch = writer_of(memory, 32768)};
        CU_ASSERT_EQUAL_FATAL(template_render(template, &input, &output, &problem), 0);
        struct writer text = writer_of(memory + 32768, 32767);
        for (uint32_t j = 0; j < output.pieces_count; j++) {
            writer_put(&text, output.pieces[j]);
        }
        *text.at = '\0';
        const char *first = strstr(memory + 32768, "Date: Tue, 01 Dec 2026 08:00:00 +0000\r\n");
        const char *second = strstr(memory + 32768, "Date: Wed, 02 Dec 2026 08:00:00 +0000\r\n");
        bool has_own_id = strstr(DATED[i / 2].eml, "Message-ID") != NULL;
        CHECK_ROW(i, strstr(memory + 32768, ".18ed125908d10000") == NULL);
        CHECK_ROW(i, (strstr(memory + 32768, ".18ed60ed9a200000") == NULL) == has_own_id);
        CHECK_ROW(i, (first != NULL) == (strchr(DATED[i / 2].dates, '1') != NULL));
        CHECK_ROW(i, (second != NULL) == (strchr(DATED[i / 2].dates, '2') != NULL));
        template_destroy(template);
    }
    free(memory);
}

SUITE(template, test_rows, test_failures, test_all_failures, test_very_many_failures, test_nul,
      test_another_date)
