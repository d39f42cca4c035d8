/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/text.h"

enum { SECONDS_PER_DAY = 86400, DAYS_0000_TO_1970 = 719468, DAYS_PER_ERA = 146097 };

struct civil {
    int64_t year;
    unsigned month; /* 1..12 */
    unsigned day;   /* 1..31 */
};

/*
 * The size of the well-formed UTF-8 sequence at the start, 0 when there is none. RFC 3629 4:
 *   UTF8-2 = %xC2-DF tail            UTF8-3 = %xE0 %xA0-BF tail / %xE1-EC 2tail
 *   UTF8-4 = %xF0 %x90-BF 2tail /             %xED %x80-9F tail / %xEE-EF 2tail
 *            %xF1-F3 3tail / %xF4 %x80-8F 2tail
 */
static size_t utf8_sequence_size(const unsigned char *at, size_t left)
{
    if (left == 0) {
        return 0;
    }
    unsigned first = at[0];
    if (first < 0x80) {
        return 1;
    }
    size_t size = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
    if (first < 0xc2 || first > 0xf4 || left < size) {
        return 0;
    }
    unsigned second_min = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
    unsigned second_max = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
    if (at[1] < second_min || at[1] > second_max) {
        return 0;
    }
    for (size_t i = 2; i < size; i++) {
        if ((at[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    return size;
}

#define EACH_BYTE(value) (UINT64_C(0x0101010101010101) * (value))

/* Not zero when some byte of the word is below `limit` (<= 0x80). May also tell so of a byte from
 * 0x80 on, which is looked at closely in any case. */
static uint64_t word_has_below(uint64_t word, uint64_t limit)
{
    return (word - EACH_BYTE(limit)) & EACH_BYTE(0x80);
}

/* How many bytes from `index` on stand for themselves in JSON: printable ASCII but quote and
 * backslash. Eight at a time, because every event line comes through here. */
static size_t json_clean_end(struct span value, size_t index)
{
    while (value.size - index >= sizeof(uint64_t)) {
        uint64_t word;
        memcpy(&word, value.at + index, sizeof(word));
        uint64_t odd_bytes = (word & EACH_BYTE(0x80)) | word_has_below(word, 0x20) |
                             word_has_below(word ^ EACH_BYTE('"'), 1) |
                             word_has_below(word ^ EACH_BYTE('\\'), 1);
        if (odd_bytes != 0) {
            break;
        }
        index += sizeof(word);
    }
    while (index < value.size) {
        unsigned char byte = (unsigned char)value.at[index];
        if (byte < 0x20 || byte >= 0x80 || byte == '"' || byte == '\\') {
            break;
        }
        index++;
    }
    return index;
}

/* RFC 8259 7. */
static void json_put_control(struct writer *writer, unsigned char byte)
{
    static const char shorts[] = "btn\0fr"; /* from \b, 0x08, on; \v has no short form */
    static const char digits[] = "0123456789abcdef";
    if (byte == '"' || byte == '\\') {
        char text[] = {'\\', (char)byte};
        writer_put(writer, span_of(text, sizeof(text)));
    } else if (byte >= '\b' && byte <= '\r' && byte != '\v') {
        char text[] = {'\\', shorts[byte - '\b']};
        writer_put(writer, span_of(text, sizeof(text)));
    } else {
        ensure(byte < 0x20);
        char text[] = {'\\', 'u', '0', '0', digits[byte >> 4], digits[byte & 15]};
        writer_put(writer, span_of(text, sizeof(text)));
    }
}

/* Puts the one character at `index` that does not stand for itself; returns its size. */
static size_t json_put_unclean(struct writer *writer, struct span value, size_t index)
{
    const unsigned char *at = (const unsigned char *)value.at + index;
    if (*at < 0x80) {
        json_put_control(writer, *at);
        return 1;
    }
    size_t size = utf8_sequence_size(at, value.size - index);
    if (size == 0) {
        writer_put(writer, SPAN("\xef\xbf\xbd"));
        return 1;
    }
    writer_put(writer, span_of(at, size));
    return size;
}

/* The writer's promise is one put, whole or not at all: what does not fit is taken back. */
static void writer_settle(struct writer *writer, char *start, bool was_full)
{
    ensure(start >= writer->start);
    ensure(start <= writer->at);
    if (writer->is_full) {
        writer->at = start;
    }
    writer->is_full |= was_full;
}

void text_put_json(struct writer *writer, struct span value)
{
    char *start = writer->at;
    bool was_full = writer->is_full;
    writer->is_full = false;

    writer_put_byte(writer, '"');
    size_t index = 0;
    while (index < value.size && !writer->is_full) {
        size_t clean_end = json_clean_end(value, index);
        writer_put(writer, span_of(value.at + index, clean_end - index));
        index = clean_end;
        if (index < value.size) {
            index += json_put_unclean(writer, value, index);
        }
    }
    writer_put_byte(writer, '"');
    writer_settle(writer, start, was_full);
}

void text_put_escaped(struct writer *writer, struct span value)
{
    static const char digits[] = "0123456789abcdef";
    char *start = writer->at;
    bool was_full = writer->is_full;
    writer->is_full = false;

    for (size_t i = 0; i < value.size && !writer->is_full; i++) {
        unsigned char byte = (unsigned char)value.at[i];
        if (byte >= 0x20 && byte < 0x7f && byte != '\\') {
            writer_put_byte(writer, (char)byte);
        } else {
            char text[] = {'\\', 'x', digits[byte >> 4], digits[byte & 15]};
            writer_put(writer, span_of(text, sizeof(text)));
        }
    }
    writer_settle(writer, start, was_full);
}

static int64_t divide_down(int64_t value, int64_t by)
{
    return value / by - (value % by < 0);
}

/* Both ways between days since 1970 and the proleptic Gregorian calendar, by eras of 400 years that
 * start on 1 March (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms"). */
static struct civil civil_of_days(int64_t days)
{
    days += DAYS_0000_TO_1970;
    int64_t era = divide_down(days, DAYS_PER_ERA);
    unsigned day_of_era = (unsigned)(days - era * DAYS_PER_ERA);
    unsigned year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    unsigned day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    unsigned month_from_march = (5 * day_of_year + 2) / 153;
    unsigned month = month_from_march < 10 ? month_from_march + 3 : month_from_march - 9;
    return (struct civil){.year = era * 400 + year_of_era + (month <= 2),
                          .month = month,
                          .day = day_of_year - (153 * month_from_march + 2) / 5 + 1};
}

static int64_t days_of_civil(struct civil civil)
{
    ensure(civil.month >= 1);
    ensure(civil.month <= 12);
    int64_t year = civil.year - (civil.month <= 2);
    int64_t era = divide_down(year, 400);
    unsigned year_of_era = (unsigned)(year - era * 400);
    unsigned month_from_march = civil.month > 2 ? civil.month - 3 : civil.month + 9;
    unsigned day_of_year = (153 * month_from_march + 2) / 5 + civil.day - 1;
    unsigned day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    return era * DAYS_PER_ERA + day_of_era - DAYS_0000_TO_1970;
}

/* Overwrites `count` characters of a template with decimal digits. */
static void digits_set(char *at, unsigned value, size_t count)
{
    for (size_t i = count; i-- > 0; value /= 10) {
        at[i] = (char)('0' + value % 10);
    }
    ensure(value == 0);
}

static void clock_set(char *at, unsigned second_of_day)
{
    ensure(second_of_day < SECONDS_PER_DAY);
    digits_set(at, second_of_day / 3600, 2);
    digits_set(at + 3, second_of_day / 60 % 60, 2);
    digits_set(at + 6, second_of_day % 60, 2);
}

/* Signed 64-bit nanoseconds end in 2262, so the year has four digits and the text a known size. */
void text_put_rfc3339(struct writer *writer, struct wall_time at)
{
    int64_t seconds = divide_down(at.ns, NS_PER_S);
    int64_t days = divide_down(seconds, SECONDS_PER_DAY);
    struct civil civil = civil_of_days(days);

    char text[] = "yyyy-mm-ddThh:mm:ss.000Z";
    digits_set(text, (unsigned)civil.year, 4);
    digits_set(text + 5, civil.month, 2);
    digits_set(text + 8, civil.day, 2);
    clock_set(text + 11, (unsigned)(seconds - days * SECONDS_PER_DAY));
    digits_set(text + 20, (unsigned)((at.ns - seconds * NS_PER_S) / NS_PER_MS), 3);
    writer_put(writer, span_of(text, sizeof(text) - 1));
}

void text_put_rfc5322(struct writer *writer, struct wall_time at)
{
    static const char week_days[] = "ThuFriSatSunMonTueWed"; /* 1 January 1970 was a Thursday */
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    int64_t seconds = divide_down(at.ns, NS_PER_S);
    int64_t days = divide_down(seconds, SECONDS_PER_DAY);
    size_t week_day = (size_t)(days - divide_down(days, 7) * 7);
    struct civil civil = civil_of_days(days);

    char text[] = "www, dd mmm yyyy hh:mm:ss +0000";
    memcpy(text, week_days + 3 * week_day, 3);
    digits_set(text + 5, civil.day, 2);
    memcpy(text + 8, months + 3 * (civil.month - 1), 3);
    digits_set(text + 12, (unsigned)civil.year, 4);
    clock_set(text + 17, (unsigned)(seconds - days * SECONDS_PER_DAY));
    writer_put(writer, span_of(text, sizeof(text) - 1));
}

void text_put_hex64(struct writer *writer, uint64_t value)
{
    static const char digits[] = "0123456789abcdef";
    char text[16];
    for (size_t i = 0; i < sizeof(text); i++) {
        text[i] = digits[value >> (60 - 4 * i) & 15];
    }
    writer_put(writer, span_of(text, sizeof(text)));
}

bool text_is_utf8(struct span value)
{
    const unsigned char *at = (const unsigned char *)value.at;
    size_t index = 0;
    while (index < value.size) {
        size_t size = utf8_sequence_size(at + index, value.size - index);
        if (size == 0) {
            return false;
        }
        index += size;
    }
    return true;
}

bool text_is_ascii(struct span value)
{
    unsigned char bits = 0;
    for (size_t i = 0; i < value.size; i++) {
        bits |= (unsigned char)value.at[i];
    }
    return bits < 0x80;
}

/* Exactly `digits` decimal digits with a value of min..max. */
static bool take_digits(struct cursor *cursor, size_t digits, unsigned min, unsigned max,
                        unsigned *ret_value)
{
    struct span text;
    if (!cursor_take_span(cursor, digits, &text)) {
        return false;
    }
    struct cursor inner = cursor_of(text);
    uint64_t value;
    if (!cursor_take_uint(&inner, max, &value) || cursor_left(&inner) > 0 || value < min) {
        return false;
    }
    *ret_value = (unsigned)value;
    return true;
}

static unsigned month_days(unsigned year, unsigned month)
{
    static const unsigned char days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    ensure(month >= 1);
    ensure(month <= 12);
    return days[month - 1] + (month == 2 && is_leap);
}

/* full-date = 4DIGIT "-" 2DIGIT "-" 2DIGIT. The years are those that always fit 64-bit nanoseconds.
 */
static bool take_date(struct cursor *cursor, int64_t *ret_days)
{
    unsigned year;
    unsigned month;
    unsigned day;
    if (!take_digits(cursor, 4, 1678, 2261, &year) || !cursor_take_byte(cursor, '-') ||
        !take_digits(cursor, 2, 1, 12, &month) || !cursor_take_byte(cursor, '-') ||
        !take_digits(cursor, 2, 1, month_days(year, month), &day)) {
        return false;
    }
    *ret_days = days_of_civil((struct civil){.year = year, .month = month, .day = day});
    return true;
}

/* partial-time = 2DIGIT ":" 2DIGIT ":" 2DIGIT ["." 1*DIGIT]; second 60 is the leap second, which
 * our clock does not have: it becomes the first one of the next minute. Digits behind the ninth are
 * cut. */
static bool take_time(struct cursor *cursor, int64_t *ret_ns)
{
    unsigned hour;
    unsigned minute;
    unsigned second;
    if (!take_digits(cursor, 2, 0, 23, &hour) || !cursor_take_byte(cursor, ':') ||
        !take_digits(cursor, 2, 0, 59, &minute) || !cursor_take_byte(cursor, ':') ||
        !take_digits(cursor, 2, 0, 60, &second)) {
        return false;
    }
    int64_t ns = (int64_t)(hour * 3600 + minute * 60 + second) * NS_PER_S;
    if (cursor_take_byte(cursor, '.')) {
        int64_t unit_ns = NS_PER_S / 10;
        unsigned digit;
        if (!take_digits(cursor, 1, 0, 9, &digit)) {
            return false;
        }
        do {
            ns += digit * unit_ns;
            unit_ns /= 10;
        } while (cursor_peek(cursor) >= '0' && cursor_peek(cursor) <= '9' &&
                 take_digits(cursor, 1, 0, 9, &digit));
    }
    *ret_ns = ns;
    return true;
}

/* time-offset = "Z" / ("+" / "-") 2DIGIT ":" 2DIGIT */
static bool take_offset(struct cursor *cursor, int64_t *ret_seconds)
{
    if (cursor_take_byte(cursor, 'Z') || cursor_take_byte(cursor, 'z')) {
        *ret_seconds = 0;
        return true;
    }
    bool is_west = cursor_take_byte(cursor, '-');
    unsigned hours;
    unsigned minutes;
    if ((!is_west && !cursor_take_byte(cursor, '+')) || !take_digits(cursor, 2, 0, 23, &hours) ||
        !cursor_take_byte(cursor, ':') || !take_digits(cursor, 2, 0, 59, &minutes)) {
        return false;
    }
    int64_t seconds = hours * 3600 + minutes * 60;
    *ret_seconds = is_west ? -seconds : seconds;
    return true;
}

/* RFC 3339 5.6: date-time = full-date "T" full-time. */
bool text_take_rfc3339(struct span text, struct wall_time *ret_at)
{
    struct cursor cursor = cursor_of(text);
    int64_t days;
    int64_t time_ns;
    int64_t offset_seconds;
    if (!take_date(&cursor, &days) ||
        (!cursor_take_byte(&cursor, 'T') && !cursor_take_byte(&cursor, 't')) ||
        !take_time(&cursor, &time_ns) || !take_offset(&cursor, &offset_seconds) ||
        cursor_left(&cursor) > 0) {
        return false;
    }
    ret_at->ns = (days * SECONDS_PER_DAY - offset_seconds) * NS_PER_S + time_ns;
    return true;
}
