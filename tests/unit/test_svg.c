/* cmocka.h wants these four first */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "pipeline/svg.h"

/* The figure of one map of two rows and two columns, until the next one. */
static const char *draw(const char *title, const double values[4])
{
    static const char *const rows[] = {"r0", "r1"}, *const columns[] = {"c0", "c1"};
    const struct svg_map map = {title, "row", "column", 2, 2, rows, columns, values};
    const struct svg_figure figure = {"heading", "note", &map, 1, 1};
    static char text[8192];
    FILE *out = fmemopen(text, sizeof text, "w");
    svg_write(&figure, out);
    fclose(out);
    return text;
}

static int count_of(const char *text, const char *part)
{
    int count = 0;
    for (const char *at = strstr(text, part); at; at = strstr(at + 1, part))
        count++;
    return count;
}

static void each_cell_has_its_number_and_colour(void **state)
{
    (void)state;
    const char *text = draw("title", (const double[]){0, 0.25, 0.5, 1});
    const char *const wanted[] = {">0<", ">25<", ">50<", ">100<", "fill=\"#00224e\"", "fill=\"#fee838\""};
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        assert_non_null(strstr(text, wanted[i]));
}

static void a_cell_without_a_value_stays_empty(void **state)
{
    (void)state;
    const char *text = draw("title", (const double[]){NAN, 0.25, NAN, 1});
    assert_int_equal(count_of(text, "class=\"none\""), 2);
    assert_null(strstr(text, "nan"));
}

static void texts_are_escaped(void **state)
{
    (void)state;
    const char *text = draw("a < b & \x01 c > d", (const double[]){0, 0, 0, 0});
    assert_non_null(strstr(text, "a &lt; b &amp;  c &gt; d"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_cell_has_its_number_and_colour),
        cmocka_unit_test(a_cell_without_a_value_stays_empty),
        cmocka_unit_test(texts_are_escaped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
