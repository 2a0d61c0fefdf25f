/* cmocka.h wants these four first */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>

#include "base/error.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_used_up_is_a_lack_of_resources),
        cmocka_unit_test(any_other_refusal_is_the_systems),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
