/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/message/mime.h"

#include <ctype.h>
#include <errno.h>
#include <gmime/gmime.h>
#include <pthread.h>
#include <stdlib.h>

struct mime_leaf {
    struct mime_part part;
    GMimeObject *object;
};

struct mime {
    struct span text;
    GMimeMessage *message;
    struct mime_leaf *leaves;
    uint32_t leaves_count;
    const char *reason; /* why the walk stopped, or NULL */
};

/* What a walk down the tree hands to the parts below. */
struct place {
    unsigned depth;
    bool is_top;
    bool is_foreign;
    bool is_signed;
};

static void walk(struct mime *mime, GMimeObject *object, struct place place);

static void library_init(void)
{
    g_mime_init();
}

static void library_init_once(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    ensure(pthread_once(&once, library_init) == 0);
}

static char *copy_of(const void *at, size_t size)
{
    char *copy = malloc(size + 1);
    if (copy != NULL) {
        memcpy(copy, at, size);
        copy[size] = '\0';
    }
    return copy;
}

/* GMime allocates an object for each part: a bound on what can become one. */
static bool has_too_many_delimiters(struct span text)
{
    struct cursor cursor = cursor_of(text);
    struct span line;
    size_t count = 0;
    while (cursor_take_line(&cursor, &line)) {
        count += span_starts(line, SPAN("--"));
    }
    return count > MIME_DELIMITERS_MAX;
}

static struct mime_field field_find(const struct mime *mime, GMimeObject *object, const char *name)
{
    struct mime_field none = {0};
    GMimeHeaderList *headers = g_mime_object_get_header_list(object);
    GMimeHeader *header = headers ? g_mime_header_list_get_header(headers, name) : NULL;
    if (header == NULL) {
        return none;
    }
    int64_t offset = g_mime_header_get_offset(header);
    if (offset < 0 || (uint64_t)offset >= mime->text.size) {
        return none;
    }
    struct mime_field field = {.at = (size_t)offset};
    struct span rest = span_of(mime->text.at + field.at, mime->text.size - field.at);
    if (!span_starts_nocase(rest, span_of_text(name))) {
        return none;
    }
    do {
        size_t line = span_find(span_of(rest.at + field.size, rest.size - field.size), '\n') + 1;
        if (field.size + line > rest.size) {
            return none;
        }
        field.size += line;
    } while (field.size < rest.size && (rest.at[field.size] == ' ' || rest.at[field.size] == '\t'));
    return field;
}

static enum mime_encoding encoding_of(const struct mime *mime, GMimeObject *object,
                                      struct mime_field field)
{
    if (field.size == 0) {
        return g_mime_object_get_header(object, "Content-Transfer-Encoding") == NULL
                   ? MIME_ENCODING_NONE
                   : MIME_ENCODING_OTHER;
    }
    struct span value = span_of(mime->text.at + field.at, field.size);
    size_t colon = span_find(value, ':');
    ensure(colon < value.size);
    value = span_trim(span_of(value.at + colon + 1, value.size - colon - 3));
    static const struct {
        const char *name;
        enum mime_encoding encoding;
    } NAMES[] = {
        {"7bit", MIME_ENCODING_7BIT},     {"8bit", MIME_ENCODING_8BIT},
        {"binary", MIME_ENCODING_BINARY}, {"quoted-printable", MIME_ENCODING_QP},
        {"base64", MIME_ENCODING_BASE64},
    };
    for (size_t i = 0; i < COUNT_OF(NAMES); i++) {
        if (span_equal_nocase(value, span_of_text(NAMES[i].name))) {
            return NAMES[i].encoding;
        }
    }
    return MIME_ENCODING_OTHER;
}

/* RFC 2045 5.2: no type, or one that is none, is text/plain. */
static bool type_is_named(GMimeObject *object)
{
    const char *value = g_mime_object_get_header(object, "Content-Type");
    return value != NULL && strchr(value, '/') != NULL;
}

static void type_read(struct mime *mime, GMimeObject *object, struct mime_part *part)
{
    GMimeContentType *type = g_mime_object_get_content_type(object);
    if (type == NULL) {
        return;
    }
    /* GMime looks through all of them for each that is set (mime_type_field_utf8). */
    if (g_mime_param_list_length(g_mime_content_type_get_parameters(type)) > MIME_PARAMS_MAX) {
        mime->reason = "a Content-Type has too many parameters";
        return;
    }
    part->is_text = g_mime_content_type_is_type(type, "text", "*") || !type_is_named(object);
    part->is_html = g_mime_content_type_is_type(type, "text", "html");
    const char *charset = g_mime_content_type_get_parameter(type, "charset");
    for (size_t i = 0; charset != NULL && charset[i] != '\0' && i < MIME_CHARSET_MAX; i++) {
        part->charset[i] = (char)tolower((unsigned char)charset[i]);
    }
    GMimeContentDisposition *disposition = g_mime_object_get_content_disposition(object);
    part->is_attachment =
        disposition != NULL && g_mime_content_disposition_is_attachment(disposition);
}

static void walk_leaf(struct mime *mime, GMimePart *object, struct place place)
{
    GMimeDataWrapper *content = g_mime_part_get_content(object);
    GMimeStream *stream = content ? g_mime_data_wrapper_get_stream(content) : NULL;
    if (stream == NULL || stream->bound_start < 0 || stream->bound_end < stream->bound_start ||
        (uint64_t)stream->bound_end > mime->text.size) {
        return;
    }
    if (mime->leaves_count == MIME_PARTS_MAX) {
        mime->reason = "the message has too many parts";
        return;
    }
    struct mime_leaf *leaf = &mime->leaves[mime->leaves_count++];
    *leaf = (struct mime_leaf){.object = GMIME_OBJECT(object)};
    struct mime_part *part = &leaf->part;
    part->is_top = place.is_top;
    part->is_foreign = place.is_foreign;
    part->is_signed = place.is_signed;
    part->type_field = field_find(mime, leaf->object, "Content-Type");
    part->encoding_field = field_find(mime, leaf->object, "Content-Transfer-Encoding");
    part->encoding = encoding_of(mime, leaf->object, part->encoding_field);
    part->body_at = (size_t)stream->bound_start;
    part->body_size = (size_t)(stream->bound_end - stream->bound_start);
    const char *body = mime->text.at + part->body_at;
    part->is_headed = part->body_at >= 3 && memcmp(body - 3, "\n\r\n", 3) == 0;
    part->header_end = part->is_headed ? part->body_at - 2 : part->body_at;
    type_read(mime, leaf->object, part);
}

static void walk_multipart(struct mime *mime, GMimeMultipart *multipart, struct place place)
{
    place.is_top = false;
    place.is_signed |=
        GMIME_IS_MULTIPART_SIGNED(multipart) || GMIME_IS_MULTIPART_ENCRYPTED(multipart);
    int count = g_mime_multipart_get_count(multipart);
    for (int i = 0; i < count && mime->reason == NULL; i++) {
        walk(mime, g_mime_multipart_get_part(multipart, i), place);
    }
}

static void walk(struct mime *mime, GMimeObject *object, struct place place)
{
    if (object == NULL) {
        return;
    }
    place.depth++;
    if (place.depth > MIME_DEPTH_MAX) {
        mime->reason = "the parts are nested too deep";
        return;
    }
    if (GMIME_IS_MULTIPART(object)) {
        walk_multipart(mime, GMIME_MULTIPART(object), place);
    } else if (GMIME_IS_MESSAGE_PART(object)) {
        GMimeMessage *inner = g_mime_message_part_get_message(GMIME_MESSAGE_PART(object));
        place.is_top = false;
        place.is_foreign = true;
        walk(mime, inner ? g_mime_message_get_mime_part(inner) : NULL, place);
    } else if (GMIME_IS_PART(object)) {
        walk_leaf(mime, GMIME_PART(object), place);
    }
}

static GMimeMessage *message_parse(struct span text)
{
    GMimeStream *stream = g_mime_stream_mem_new_with_buffer(text.at, text.size);
    GMimeParser *parser = g_mime_parser_new_with_stream(stream);
    g_object_unref(stream);
    g_mime_parser_set_format(parser, GMIME_FORMAT_MESSAGE);
    /* The parts' streams then keep their place in the text. */
    g_mime_parser_set_persist_stream(parser, TRUE);
    GMimeMessage *message = g_mime_parser_construct_message(parser, NULL);
    g_object_unref(parser);
    return message;
}

struct mime *mime_parse(struct span text, const char **ret_reason)
{
    library_init_once();
    if (has_too_many_delimiters(text)) {
        *ret_reason = "too many lines start with \"--\"";
        return NULL;
    }
    struct mime *mime = calloc(1, sizeof(*mime));
    struct mime_leaf *leaves = calloc(MIME_PARTS_MAX, sizeof(*leaves));
    if (mime == NULL || leaves == NULL) {
        free(mime);
        free(leaves);
        *ret_reason = NULL;
        return NULL;
    }
    mime->text = text;
    mime->leaves = leaves;
    mime->message = message_parse(text);
    if (mime->message == NULL) {
        mime->reason = "this is not a message";
    } else {
        walk(mime, g_mime_message_get_mime_part(mime->message), (struct place){.is_top = true});
    }
    size_t end = 0;
    for (uint32_t i = 0; i < mime->leaves_count && mime->reason == NULL; i++) {
        const struct mime_part *part = &mime->leaves[i].part;
        if (part->header_end < end) {
            mime->reason = "the parts overlap";
        }
        end = part->body_at + part->body_size;
    }
    if (mime->reason != NULL) {
        *ret_reason = mime->reason;
        mime_destroy(mime);
        return NULL;
    }
    return mime;
}

void mime_destroy(struct mime *mime)
{
    if (mime == NULL) {
        return;
    }
    if (mime->message != NULL) {
        g_object_unref(mime->message);
    }
    free(mime->leaves);
    free(mime);
}

uint32_t mime_parts_count(const struct mime *mime)
{
    return mime->leaves_count;
}

const struct mime_part *mime_part(const struct mime *mime, uint32_t index)
{
    ensure(index < mime->leaves_count);
    return &mime->leaves[index].part;
}

/* GMime's folded text, which ends in LF, as a field in wire form. */
static char *type_field_wire(struct span value, size_t *ret_size)
{
    size_t size_max = 2 * value.size + 32;
    char *field = malloc(size_max);
    if (field == NULL) {
        return NULL;
    }
    struct writer writer = writer_of(field, size_max);
    writer_put(&writer, SPAN("Content-Type: "));
    while (value.size > 0 && value.at[value.size - 1] == '\n') {
        value.size--;
    }
    value = span_trim(value);
    for (size_t i = 0; i < value.size; i++) {
        writer_put(&writer, value.at[i] == '\n' ? SPAN("\r\n") : span_of(value.at + i, 1));
    }
    writer_put(&writer, SPAN("\r\n"));
    ensure(!writer.is_full);
    *ret_size = writer_size(&writer);
    return field;
}

static GMimeContentType *type_copy(GMimeObject *object)
{
    GMimeContentType *own = g_mime_object_get_content_type(object);
    if (own == NULL || !type_is_named(object)) {
        return g_mime_content_type_new("text", "plain");
    }
    GMimeContentType *copy = g_mime_content_type_new(g_mime_content_type_get_media_type(own),
                                                     g_mime_content_type_get_media_subtype(own));
    GMimeParamList *params = g_mime_content_type_get_parameters(own);
    for (int i = 0; i < g_mime_param_list_length(params); i++) {
        GMimeParam *param = g_mime_param_list_get_parameter_at(params, i);
        g_mime_content_type_set_parameter(copy, g_mime_param_get_name(param),
                                          g_mime_param_get_value(param));
    }
    return copy;
}

char *mime_type_field_utf8(const struct mime *mime, uint32_t index, size_t *ret_size)
{
    ensure(index < mime->leaves_count);
    GMimeContentType *type = type_copy(mime->leaves[index].object);
    g_mime_content_type_set_parameter(type, "charset", "utf-8");
    char *encoded = g_mime_content_type_encode(type, NULL);
    g_object_unref(type);
    char *field = type_field_wire(span_of_text(encoded), ret_size);
    g_free(encoded);
    return field;
}

static void decoder_init(GMimeEncoding *decoder, enum mime_encoding encoding)
{
    ensure(encoding == MIME_ENCODING_QP || encoding == MIME_ENCODING_BASE64);
    g_mime_encoding_init_decode(decoder, encoding == MIME_ENCODING_QP
                                             ? GMIME_CONTENT_ENCODING_QUOTEDPRINTABLE
                                             : GMIME_CONTENT_ENCODING_BASE64);
}

char *mime_decode_body(enum mime_encoding encoding, struct span body, size_t *ret_size)
{
    GMimeEncoding decoder;
    decoder_init(&decoder, encoding);
    char *text = malloc(g_mime_encoding_outlen(&decoder, body.size) + 1);
    if (text != NULL) {
        *ret_size = g_mime_encoding_flush(&decoder, body.at, body.size, text);
    }
    return text;
}

uint64_t mime_decoded_line(enum mime_encoding encoding, struct span body, size_t offset)
{
    GMimeEncoding decoder;
    decoder_init(&decoder, encoding);
    struct cursor cursor = cursor_of(body);
    struct span line;
    uint64_t lines = 0;
    size_t decoded = 0;
    char text[1024];
    while (cursor_take_line(&cursor, &line)) {
        /* Lines were checked to be at most 998 octets; with their CRLF they fit. */
        decoded += g_mime_encoding_step(&decoder, line.at, (size_t)(cursor.at - line.at), text);
        if (decoded > offset) {
            break;
        }
        lines++;
    }
    return lines;
}

int mime_to_utf8(const char *charset, struct span text, char **ret_utf8, size_t *ret_size)
{
    library_init_once();
    iconv_t converter = g_mime_iconv_open("utf-8", charset);
    if (converter == (iconv_t)-1) {
        return -EINVAL;
    }
    size_t size_max = 4 * text.size + 16;
    char *utf8 = malloc(size_max + 1);
    int error = utf8 == NULL ? -ENOMEM : 0;
    if (utf8 != NULL) {
        char *in = (char *)text.at;
        char *out = utf8;
        size_t in_left = text.size;
        size_t out_left = size_max;
        if (iconv(converter, &in, &in_left, &out, &out_left) == (size_t)-1 ||
            iconv(converter, NULL, NULL, &out, &out_left) == (size_t)-1 || in_left > 0) {
            free(utf8);
            error = -EINVAL;
        } else {
            *ret_utf8 = utf8;
            *ret_size = size_max - out_left;
        }
    }
    g_mime_iconv_close(converter);
    return error;
}

static char *decode(struct span text, char *(*decoder)(GMimeParserOptions *, const char *))
{
    library_init_once();
    char *copy = copy_of(text.at, text.size);
    if (copy == NULL) {
        return NULL;
    }
    char *decoded = decoder(NULL, copy);
    free(copy);
    char *result = copy_of(decoded, strlen(decoded));
    g_free(decoded);
    return result;
}

char *mime_decode_header(struct span text)
{
    return decode(text, g_mime_utils_header_decode_text);
}

char *mime_decode_phrase(struct span text)
{
    return decode(text, g_mime_utils_header_decode_phrase);
}
