/* cmocka.h wants these four first */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "pipeline/hosts.h"

static void assert_joined(const char (*names)[HOST_NAME], int n, const char *expected)
{
    char *joined = hosts_join(names, n);
    assert_non_null(joined);
    assert_string_equal(joined, expected);
    free(joined);
}

static void each_host_is_named_once_however_ranks_are_placed(void **state)
{
    (void)state;
    assert_joined((const char[][HOST_NAME]){"a", "a", "b", "b"}, 4, "a,b");
    assert_joined((const char[][HOST_NAME]){"b", "a", "b", "a", "ab"}, 5, "b,a,ab");
    assert_joined((const char[][HOST_NAME]){"alone"}, 1, "alone");
}

static void the_longest_names_have_room(void **state)
{
    (void)state;
    char names[2][HOST_NAME], expected[2 * HOST_NAME];
    memset(names, 'x', sizeof names);
    names[0][HOST_NAME - 1] = names[1][HOST_NAME - 1] = '\0';
    names[1][0] = 'y';
    strcpy(expected, names[0]);
    strcat(expected, ",");
    strcat(expected, names[1]);
    assert_joined((const char(*)[HOST_NAME])names, 2, expected);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_host_is_named_once_however_ranks_are_placed),
        cmocka_unit_test(the_longest_names_have_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
