/* Texts and names of any bytes in the store. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "io/store_text.h"

static void cleaning_replaces_each_piece_that_is_no_character(void **state)
{
    (void)state;
    static const struct {
        const char *raw;
        size_t length;
        const char *clean;
    } cases[] = {
        {"plain \xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", 15, "plain \xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"},
        {"a\0b", 3,
         "a\xef\xbf\xbd"
         "b"},
        {"\xc0\xaf", 2, "\xef\xbf\xbd\xef\xbf\xbd"},                                 /* overlong */
        {"\xed\xa0\x80", 3, "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},                 /* surrogate */
        {"\xf4\x90\x80\x80", 4, "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"}, /* past U+10FFFF */
        {"\xe2\x82", 2, "\xef\xbf\xbd"},                                             /* cut short */
        {"\xf0\x9f\x98z", 4, "\xef\xbf\xbdz"},
        {"", 0, ""},
    };
    struct error err;
    struct arena arena = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t replaced;
        assert_string_equal(store_text_clean(&arena, cases[i].raw, cases[i].length, &replaced, &err),
                            cases[i].clean);
    }
    arena_free(&arena);
}

static void names_of_any_bytes_are_kept_apart_and_come_back(void **state)
{
    (void)state;
    static const char *const names[] = {"a/b.txt", "\xff", "\\xff", "\\", "\\x", "\xc3", "\xc3\xa9", "", "a\nb"};
    struct error err;
    struct arena arena = {0};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *encoded = store_name_encode(&arena, names[i], &err);
        assert_string_equal(store_name_decode(&arena, encoded, &err), names[i]);
        for (size_t j = 0; j < i; j++)
            assert_string_not_equal(encoded, store_name_encode(&arena, names[j], &err));
    }
    assert_string_equal(store_name_encode(&arena, "a\\\xff", &err), "a\\x5c\\xff");
    assert_string_equal(store_name_decode(&arena, "\\x4", &err), "\\x4");
    arena_free(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cleaning_replaces_each_piece_that_is_no_character),
        cmocka_unit_test(names_of_any_bytes_are_kept_apart_and_come_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
