/* cmocka.h wants these four first */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "base/utf8.h"

static void what_is_used_up_is_a_lack_of_resources(void **state)
{
    (void)state;
    static const int used_up[] = {ENOMEM, ENOSPC, EDQUOT};
    for (size_t i = 0; i < sizeof used_up / sizeof *used_up; i++) {
        struct error err = {ERROR_NONE, ""};
        errno = used_up[i];
        assert_int_equal(error_errno(&err, "writing %s", "a.h5"), -1);
        assert_int_equal(err.code, ERROR_RESOURCE);
        assert_memory_equal(err.text, "writing a.h5: ", 14);
    }
}

static void any_other_refusal_is_the_systems(void **state)
{
    (void)state;
    struct error err = {ERROR_NONE, ""};
    errno = EACCES;
    assert_int_equal(error_errno(&err, "opening a.h5"), -1);
    assert_int_equal(err.code, ERROR_IO);
}

/* The head of the message and its tail are there, with the gap between them and nothing more to be had. */
static void assert_shortened(const char *text, size_t size, const char *head, const char *tail)
{
    const size_t length = strlen(text);
    assert_true(length < size && length + 4 >= size - 4);
    assert_memory_equal(text, head, strlen(head));
    assert_string_equal(text + length - strlen(tail), tail);
    assert_non_null(strstr(text, "..."));
    assert_int_equal(utf8_valid_prefix((struct text){text, length}), length);
}

static void a_long_path_leaves_room_for_the_reason(void **state)
{
    (void)state;
    struct error err;
    char path[4096], reason[256];
    for (size_t i = 0; i + 2 < sizeof path; i += 2)
        memcpy(path + i, "\xc3\xa9", 3);
    for (size_t length = 4090; length <= 4094; length += 2) {
        path[length] = '\0';
        errno = EACCES;
        error_errno(&err, "opening %s", path);
        assert_shortened(err.text, sizeof err.text, "opening \xc3\xa9", "\xc3\xa9: Permission denied");
        error_shorten(err.text, reason, sizeof reason);
        assert_shortened(reason, sizeof reason, "opening \xc3\xa9", "\xc3\xa9: Permission denied");
        error_set(&err, ERROR_INPUT, "%s: not a regular file", path);
        assert_shortened(err.text, sizeof err.text, "\xc3\xa9", "\xc3\xa9: not a regular file");
        error_set(&err, ERROR_INPUT, "line 3");
        error_wrap(&err, "%s", path);
        assert_shortened(err.text, sizeof err.text, "\xc3\xa9", "\xc3\xa9: line 3");
    }
}

static void what_fits_is_left_as_it_is(void **state)
{
    (void)state;
    char out[8];
    error_shorten("seven..", out, sizeof out);
    assert_string_equal(out, "seven..");
    error_shorten("of eight", out, sizeof out);
    assert_string_equal(out, "of...ht");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_used_up_is_a_lack_of_resources),
        cmocka_unit_test(any_other_refusal_is_the_systems),
        cmocka_unit_test(a_long_path_leaves_room_for_the_reason),
        cmocka_unit_test(what_fits_is_left_as_it_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
