/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/message/mime.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/harness.h"

static const char TREE[] =
    "From: a@b\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
    "preamble\r\n"
    "--b\r\nContent-Type: TEXT/Plain;\r\n charset=\"ISO-8859-1\"\r\nContent-Transfer-Encoding: "
    "Quoted-Printable\r\n\r\nfirst\r\n"
    "--b\r\n\r\nsecond\r\n\r\n"
    "--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: x\r\nContent-Type: "
    "text/html\r\n\r\nthird\r\n"
    "--b\r\nContent-Type: multipart/alternative; boundary=c\r\n\r\n"
    "--c\r\nContent-Disposition: attachment\r\nContent-Transfer-Encoding: "
    "base64\r\n\r\nZm9v\r\n--c--\r\n\r\n"
    "--b\r\nContent-Type: multipart/signed; boundary=d\r\n\r\n"
    "--d\r\nContent-Type: image/x\r\nContent-Transfer-Encoding: x-odd\r\n\r\nfifth\r\n--d--\r\n"
    "--b--\r\nepilogue\r\n";

static const struct {
    const char *body;
    enum mime_encoding encoding;
    bool is_text, is_html, is_attachment, is_foreign, is_signed;
    const char *charset, *type_field, *encoding_field;
} PARTS[] = {
    {"first", MIME_ENCODING_QP, true, false, false, false, false, "iso-8859-1",
     "Content-Type: TEXT/Plain;\r\n charset=\"ISO-8859-1\"\r\n",
     "Content-Transfer-Encoding: Quoted-Printable\r\n"},
    {"second\r\n", MIME_ENCODING_NONE, true, false, false, false, false, "", "", ""},
    {"third", MIME_ENCODING_NONE, true, true, false, true, false, "", "Content-Type: text/html\r\n",
     ""},
    {"Zm9v", MIME_ENCODING_BASE64, true, false, true, false, false, "", "",
     "Content-Transfer-Encoding: base64\r\n"},
    {"fifth", MIME_ENCODING_OTHER, false, false, false, false, true, "",
     "Content-Type: image/x\r\n", "Content-Transfer-Encoding: x-odd\r\n"},
};

static bool is_at(size_t at, size_t size, const char *want)
{
    return span_equal(span_of(TREE + at, size), span_of_text(want));
}

static void test_tree(void)
{
    const char *reason = NULL;
    struct mime *mime = mime_parse(span_of_text(TREE), &reason);
    CU_ASSERT_PTR_NOT_NULL_FATAL(mime);
    CU_ASSERT_EQUAL_FATAL(mime_parts_count(mime), COUNT_OF(PARTS));
    for (uint32_t i = 0; i < COUNT_OF(PARTS); i++) {
        const struct mime_part *part = mime_part(mime, i);
        CHECK_ROW(i, is_at(part->body_at, part->body_size, PARTS[i].body));
        CHECK_ROW(i, part->encoding == PARTS[i].encoding);
        CHECK_ROW(i, part->is_text == PARTS[i].is_text);
        CHECK_ROW(i, part->is_html == PARTS[i].is_html);
        CHECK_ROW(i, part->is_attachment == PARTS[i].is_attachment);
        CHECK_ROW(i, part->is_foreign == PARTS[i].is_foreign);
        CHECK_ROW(i, part->is_signed == PARTS[i].is_signed);
        CHECK_ROW(i, !part->is_top);
        CHECK_ROW(i, part->is_headed && is_at(part->header_end, 2, "\r\n"));
        CHECK_ROW(i, part->body_at == part->header_end + 2);
        CHECK_ROW(i, strcmp(part->charset, PARTS[i].charset) == 0);
        CHECK_ROW(i, is_at(part->type_field.at, part->type_field.size, PARTS[i].type_field));
        CHECK_ROW(
            i, is_at(part->encoding_field.at, part->encoding_field.size, PARTS[i].encoding_field));
    }
    CHECK_PANICS((void)mime_part(mime, COUNT_OF(PARTS)));
    mime_destroy(mime);
    mime_destroy(NULL);
}

static void test_type_field(void)
{
    static const struct {
        const char *type, *want;
    } ROWS[] = {
        {"", "Content-Type: text/plain; charset=utf-8\r\n"},
        {"Content-Type: text/html\r\n", "Content-Type: text/html; charset=utf-8\r\n"},
        {"Content-Type: text/html; charset=x; a=b\r\n",
         "Content-Type: text/html; charset=utf-8; a=b\r\n"},
        {"Content-Type: nonsense\r\n", "Content-Type: text/plain; charset=utf-8\r\n"},
    };
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        char memory[256];
        struct writer writer = writer_of(memory, sizeof(memory));
        writer_put_format(&writer, "From: a@b\r\n%s\r\nx\r\n", ROWS[i].type);
        const char *reason = NULL;
        struct mime *mime = mime_parse(writer_span(&writer), &reason);
        CU_ASSERT_PTR_NOT_NULL_FATAL(mime);
        CHECK_ROW(i, mime_parts_count(mime) == 1 && mime_part(mime, 0)->is_top);
        size_t size = 0;
        char *field = mime_type_field_utf8(mime, 0, &size);
        CHECK_ROW(i, field != NULL && span_equal(span_of(field, size), span_of_text(ROWS[i].want)));
        free(field);
        mime_destroy(mime);
    }
}

static void test_many_parameters(void)
{
    for (unsigned count = MIME_PARAMS_MAX; count <= MIME_PARAMS_MAX + 1; count++) {
        char text[32 * (MIME_PARAMS_MAX + 8)];
        struct writer writer = writer_of(text, sizeof(text));
        writer_put(&writer, SPAN("Content-Type: text/plain"));
        for (unsigned i = 0; i < count; i++) {
            writer_put(&writer, SPAN(";\r\n p"));
            writer_put_uint(&writer, i);
            writer_put(&writer, SPAN("=x"));
        }
        writer_put(&writer, SPAN("\r\n\r\n"));
        CU_ASSERT_FALSE_FATAL(writer.is_full);
        const char *reason = NULL;
        struct mime *mime = mime_parse(writer_span(&writer), &reason);
        CHECK_ROW(count, (mime != NULL) == (count <= MIME_PARAMS_MAX));
        CHECK_ROW(count, (reason == NULL) == (mime != NULL));
        mime_destroy(mime);
    }
}

static void test_decoded_line(void)
{
    struct span qp = SPAN("a=\r\nb=\r\n=\r\nc\r\nd");
    static const uint64_t WANT[] = {0, 1, 3, 3, 3, 4};
    for (size_t i = 0; i < COUNT_OF(WANT); i++) {
        CHECK_ROW(i, mime_decoded_line(MIME_ENCODING_QP, qp, i) == WANT[i]);
    }
    CU_ASSERT_EQUAL(mime_decoded_line(MIME_ENCODING_BASE64, SPAN("Zm9v\r\nYmFy\r\n"), 2), 0);
    CU_ASSERT_EQUAL(mime_decoded_line(MIME_ENCODING_BASE64, SPAN("Zm9v\r\nYmFy\r\n"), 3), 1);
}

static void test_to_utf8(void)
{
    static const struct {
        const char *charset;
        struct span text;
        const char *want; /* NULL = fails */
    } ROWS[] = {
        {"iso-8859-1", SPAN("\xe4x"), "\xc3\xa4x"},
        {"windows-1252", SPAN("\x80"), "\xe2\x82\xac"},
        {"utf-16le", SPAN("a\0b\0"), "ab"},
        {"iso-2022-jp", SPAN("\x1b$B$\"\x1b(B"), "\xe3\x81\x82"},
        {"utf-16le", SPAN("a\0b"), NULL},
        {"x-none", SPAN("a"), NULL},
    };
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        size_t size = 0;
        char *text = NULL;
        int error = mime_to_utf8(ROWS[i].charset, ROWS[i].text, &text, &size);
        CHECK_ROW(i, error == (ROWS[i].want == NULL ? -EINVAL : 0));
        bool is_both = error == 0 && ROWS[i].want != NULL;
        CHECK_ROW(i, !is_both || span_equal(span_of(text, size), span_of_text(ROWS[i].want)));
        free(text);
    }
}

/* No prefix of a tree leads behind the text. */
static void test_prefixes(void)
{
    for (size_t size = 0; size < sizeof(TREE); size++) {
        const char *reason = NULL;
        struct mime *mime = mime_parse(span_of(TREE, size), &reason);
        CHECK_ROW(size, mime != NULL || reason != NULL);
        for (uint32_t i = 0; mime != NULL && i < mime_parts_count(mime); i++) {
            const struct mime_part *part = mime_part(mime, i);
            CHECK_ROW(size, part->body_at + part->body_size <= size);
            CHECK_ROW(size, part->type_field.at + part->type_field.size <= size);
        }
        mime_destroy(mime);
    }
}

SUITE(mime, test_tree, test_type_field, test_many_parameters, test_decoded_line, test_to_utf8,
      test_prefixes)
