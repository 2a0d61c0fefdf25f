/* cmocka.h wants these four first */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "io/encoding.h"

/* A literal that may hold NULs, and its length. */
#define BYTES(literal) literal, sizeof(literal) - 1

static enum encoding detect(const char *bytes, size_t length, size_t want_mark)
{
    size_t mark;
    enum encoding encoding = encoding_detect(bytes, length, &mark);
    assert_int_equal(mark, want_mark);
    return encoding;
}

/* All text of bytes [length] in `encoding`, terminated; *broken = the bytes that mean nothing. */
static char *convert(enum encoding encoding, const char *bytes, size_t length, size_t *broken)
{
    struct error err;
    struct encoding_piece piece;
    struct encoding_reader *reader = encoding_reader_open(encoding, bytes, length, &err);
    assert_non_null(reader);
    char *text = malloc(3 * length + 1);
    size_t at = 0, source = 0;
    int rc;
    *broken = 0;
    while ((rc = encoding_reader_next(reader, &piece, &err)) == 1) {
        assert_int_equal(piece.first_byte, source);
        assert_true(piece.end_byte > source);
        source = piece.end_byte;
        *broken += piece.broken ? piece.end_byte - piece.first_byte : 0;
        memcpy(text + at, piece.text, piece.length);
        at += piece.length;
    }
    assert_int_equal(rc, 0);
    assert_int_equal(source, length);
    text[at] = '\0';
    encoding_reader_close(reader);
    return text;
}

static void assert_converts(enum encoding encoding, const char *bytes, size_t length, const char *want,
                            size_t want_broken)
{
    size_t broken;
    char *text = convert(encoding, bytes, length, &broken);
    assert_string_equal(text, want);
    assert_int_equal(broken, want_broken);
    free(text);
}

static void byte_order_marks_name_the_encoding(void **state)
{
    (void)state;
    assert_int_equal(detect(BYTES("\xef\xbb\xbfhi"), 3), ENCODING_UTF8);
    assert_int_equal(detect(BYTES("\xff\xfeh\0"), 2), ENCODING_UTF16_LE);
    assert_int_equal(detect(BYTES("\xfe\xff\0h"), 2), ENCODING_UTF16_BE);
    assert_int_equal(detect(BYTES("\xff\xfe\0\0h\0\0\0"), 4), ENCODING_UTF32_LE);
    assert_int_equal(detect(BYTES("\0\0\xfe\xff\0\0\0h"), 4), ENCODING_UTF32_BE);
}

static void without_a_mark_valid_text_is_utf8(void **state)
{
    (void)state;
    assert_int_equal(detect(BYTES(""), 0), ENCODING_UTF8);
    assert_int_equal(detect(BYTES("plain ascii"), 0), ENCODING_UTF8);
    assert_int_equal(detect(BYTES("na\xc3\xafve"), 0), ENCODING_UTF8);
    assert_int_equal(detect(BYTES("\xe4\xb8\xad\xe6\x96\x87"), 0), ENCODING_UTF8);
}

static void a_broken_place_among_real_characters_is_still_utf8(void **state)
{
    (void)state;
    assert_int_equal(detect(BYTES("\xe4\xb8\xad\xff\xe6\x96\x87"), 0), ENCODING_UTF8);
}

static void lone_bytes_beyond_ascii_are_latin1_or_windows_1252(void **state)
{
    (void)state;
    assert_int_equal(detect(BYTES("un caf\xe9 noir"), 0), ENCODING_LATIN1);
    assert_int_equal(detect(BYTES("\x93quoted\x94 text"), 0), ENCODING_WINDOWS_1252);
}

static void text_mostly_beyond_ascii_is_not_taken_for_latin1(void **state)
{
    (void)state;
    /* GBK */
    assert_int_equal(detect(BYTES("\xd6\xd0\xce\xc4\xb2\xe2\xca\xd4"), 0), ENCODING_UNKNOWN);
}

static void overlong_surrogate_and_too_large_forms_are_not_utf8(void **state)
{
    (void)state;
    const char *const bad[] = {"\xc0\x80", "\xc1\xbf",         "\xe0\x9f\xbf", "\xed\xa0\x80", "\xf0\x8f\xbf\xbf",
                               "\x80",     "\xf4\x90\x80\x80", "\xf5",         "\xe4\xb8",     "\xff"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(utf8_valid_prefix((struct text){bad[i], strlen(bad[i])}), 0);
    const char *const good[] = {"\xc2\x80",     "\xdf\xbf",     "\xe0\xa0\x80",     "\xed\x9f\xbf",
                                "\xee\x80\x80", "\xef\xbf\xbf", "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        assert_int_equal(utf8_valid_prefix((struct text){good[i], strlen(good[i])}), strlen(good[i]));
}

static void validation_stops_at_the_first_bad_byte_wherever_it_is(void **state)
{
    (void)state;
    char text[64];
    for (size_t i = 0; i < sizeof text; i++) {
        memset(text, 'a', sizeof text);
        text[i] = '\xff';
        assert_int_equal(utf8_valid_prefix((struct text){text, sizeof text}), i);
    }
}

static void every_encoding_becomes_utf8(void **state)
{
    (void)state;
    const char *want = "a\xc3\xa9\xe2\x82\xac";
    assert_converts(ENCODING_UTF8, BYTES("a\xc3\xa9\xe2\x82\xac"), want, 0);
    assert_converts(ENCODING_WINDOWS_1252, BYTES("a\xe9\x80"), want, 0);
    assert_converts(ENCODING_LATIN1, BYTES("a\xe9"), "a\xc3\xa9", 0);
    assert_converts(ENCODING_UTF16_LE, BYTES("a\0\xe9\0\xac\x20"), want, 0);
    assert_converts(ENCODING_UTF16_BE, BYTES("\0a\0\xe9\x20\xac"), want, 0);
    assert_converts(ENCODING_UTF32_LE, BYTES("a\0\0\0\xe9\0\0\0\xac\x20\0\0"), want, 0);
    assert_converts(ENCODING_UTF32_BE, BYTES("\0\0\0a\0\0\0\xe9\0\0\x20\xac"), want, 0);
}

static void line_ends_stay_as_they_are(void **state)
{
    (void)state;
    assert_converts(ENCODING_UTF8, BYTES("a\r\nb\nc\r"), "a\r\nb\nc\r", 0);
    assert_converts(ENCODING_UTF16_LE, BYTES("a\0\r\0\n\0"), "a\r\n", 0);
}

static void broken_places_become_replacement_characters(void **state)
{
    (void)state;
    assert_converts(ENCODING_UTF8,
                    BYTES("a\xff\xfe"
                          "b"),
                    "a\xef\xbf\xbd"
                    "b",
                    2);
    assert_converts(ENCODING_UTF8, BYTES("a\xe4\xb8"), "a\xef\xbf\xbd", 2);
    assert_converts(ENCODING_WINDOWS_1252,
                    BYTES("a\x81"
                          "b"),
                    "a\xef\xbf\xbd"
                    "b",
                    1);
    /* a low surrogate alone, a high one without its partner, half a unit */
    assert_converts(ENCODING_UTF16_LE,
                    BYTES("a\0\0\xdc"
                          "b\0"),
                    "a\xef\xbf\xbd"
                    "b",
                    2);
    assert_converts(ENCODING_UTF16_LE,
                    BYTES("\0\xd8"
                          "b\0"),
                    "\xef\xbf\xbd"
                    "b",
                    2);
    assert_converts(ENCODING_UTF16_LE, BYTES("a\0b"), "a\xef\xbf\xbd", 1);
}

static void a_surrogate_pair_across_the_conversion_pieces_is_kept_whole(void **state)
{
    (void)state;
    /* One unit, then pairs: the border of every piece of 2^n bytes falls inside a pair. */
    size_t pairs = 600 * 1000, length = 2 + 4 * pairs, broken;
    char *bytes = malloc(length);
    memcpy(bytes, "a\0", 2);
    for (size_t i = 0; i < pairs; i++)
        memcpy(bytes + 2 + 4 * i, "\x3d\xd8\x00\xde", 4); /* U+1F600 */
    char *text = convert(ENCODING_UTF16_LE, bytes, length, &broken);
    assert_int_equal(broken, 0);
    assert_int_equal(strlen(text), 1 + 4 * pairs);
    assert_int_equal(utf8_characters((struct text){text, strlen(text)}), 1 + pairs);
    free(text);
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(byte_order_marks_name_the_encoding),
        cmocka_unit_test(without_a_mark_valid_text_is_utf8),
        cmocka_unit_test(a_broken_place_among_real_characters_is_still_utf8),
        cmocka_unit_test(lone_bytes_beyond_ascii_are_latin1_or_windows_1252),
        cmocka_unit_test(text_mostly_beyond_ascii_is_not_taken_for_latin1),
        cmocka_unit_test(overlong_surrogate_and_too_large_forms_are_not_utf8),
        cmocka_unit_test(validation_stops_at_the_first_bad_byte_wherever_it_is),
        cmocka_unit_test(every_encoding_becomes_utf8),
        cmocka_unit_test(line_ends_stay_as_they_are),
        cmocka_unit_test(broken_places_become_replacement_characters),
        cmocka_unit_test(a_surrogate_pair_across_the_conversion_pieces_is_kept_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
