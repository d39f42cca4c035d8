/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/vector.h"

#include "tests/harness.h"

/* Each byte in each place of a text of blanks, at each alignment. */
static void each_byte(void (*on_bytes)(const char *at, size_t place, char byte))
{
    for (unsigned value = 0; value < 256; value++) {
        for (size_t place = 0; place < VECTOR_SIZE; place++) {
            char text[2 * VECTOR_SIZE];
            const char *at = text + (value + place) % VECTOR_SIZE;
            memset(text, ' ', sizeof(text));
            text[(size_t)(at - text) + place] = (char)value;
            on_bytes(at, place, (char)value);
        }
    }
}

static void check_load(const char *at, size_t place, char byte)
{
    vector bytes = vector_at(at);
    for (size_t i = 0; i < VECTOR_SIZE; i++) {
        CHECK_ROW(place, bytes[i] == (i == place ? (int8_t)byte : ' '));
        CHECK_ROW(place, vector_of(byte)[i] == (int8_t)byte);
    }
}

static void test_bytes_are_loaded_in_their_order(void)
{
    each_byte(check_load);
}

static void check_any(const char *at, size_t place, char byte)
{
    vector bytes = vector_at(at);
    CHECK_ROW(place, vector_any(bytes ^ vector_of(' ')) == (byte != ' '));
    CHECK_ROW(place, vector_any(bytes == vector_of('.')) == (byte == '.'));
    CHECK_ROW(place, vector_any_8bit(bytes) == ((unsigned char)byte > 127));
}

static void test_any_sees_each_place(void)
{
    each_byte(check_any);
}

static void check_unprintable(const char *at, size_t place, char byte)
{
    unsigned char value = (unsigned char)byte;
    for (int least = ' '; least <= ' ' + 1; least++) {
        vector found = vector_unprintable(vector_at(at), (char)least);
        for (size_t i = 0; i < VECTOR_SIZE; i++) {
            bool is_found = i == place ? value < least || value > '~' : least > ' ';
            CHECK_ROW(value, found[i] == (is_found ? -1 : 0));
        }
    }
}

static void test_unprintable_is_what_no_path_may_hold(void)
{
    each_byte(check_unprintable);
}

SUITE(vector, test_bytes_are_loaded_in_their_order, test_any_sees_each_place,
      test_unprintable_is_what_no_path_may_hold)
