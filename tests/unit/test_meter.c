/* What the meter makes of jobs: counts and the time left, as the display shows them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "pipeline/meter.h"
#include "tests/unit/progress_display.h"

enum { GROUPS = 2 };

static struct meter *meter;

static void open_meter(const struct progress_totals *totals)
{
    struct error err;
    open_display(false, totals);
    assert_non_null(meter = meter_create(display.progress, GROUPS, totals, 0, &err));
}

static int close_meter(void **state)
{
    meter_free(meter);
    return close_display(state);
}

/* `seconds` later a job is so far; the line that is shown then. */
static const char *shown(double seconds, int64_t id, int64_t prefilled, int64_t generated)
{
    written();
    display.now += seconds;
    meter_progress(meter, &(struct job_progress){id, prefilled, generated});
    return written();
}

static void late_tokens_of_a_long_text_count_for_more(void **state)
{
    (void)state;
    const struct progress_totals totals = {.documents = 1, .tokens = {1000, 0}, .extra = 3000};
    open_meter(&totals);
    meter_begin(meter,
                &(struct meter_job){.id = 7, .reads = 1000, .extra = 3000, .foreseen = true, .document = "a.txt"});
    /* 500 + 3000/4 of 1000 + 3000 */
    assert_string_equal(shown(10, 7, 500, 0), "prefill  document 1/1  tokens 500/1.00k  50/s  22s left  a.txt\n");
    /* 800 + 3000 * 16/25 */
    assert_non_null(strstr(shown(10, 7, 800, 0), "  9s left"));
}

static void what_was_not_foreseen_adds_to_the_totals(void **state)
{
    (void)state;
    const struct progress_totals totals = {.documents = 1, .tokens = {1000, 0}};
    open_meter(&totals);
    meter_begin(meter, &(struct meter_job){.id = 1, .reads = 1000, .foreseen = true, .document = "a.txt"});
    meter_begin(meter, &(struct meter_job){.id = 2, .reads = 500, .extra = 100, .document = "a.txt"});
    shown(10, 1, 1000, 0);
    assert_non_null(strstr(shown(10, 2, 250, 0), "tokens 1.25k/1.50k"));
}

static void an_answer_that_ends_early_shortens_the_rest(void **state)
{
    (void)state;
    const struct progress_totals totals = {.documents = 1, .tokens = {100, 400}};
    open_meter(&totals);
    meter_begin(meter,
                &(struct meter_job){.id = 1, .reads = 100, .writes = 300, .foreseen = true, .document = "a.txt"});
    shown(10, 1, 100, 0);
    assert_non_null(strstr(shown(10, 1, 100, 50), "tokens 50/400"));
    display.now += 10;
    meter_end(meter, 1, 60);
    meter_begin(meter, &(struct meter_job){.id = 2, .reads = 0, .writes = 100, .foreseen = true, .document = "b"});
    assert_non_null(strstr(shown(10, 2, 0, 20), "tokens 80/160"));
}

#define ON_METER(test) cmocka_unit_test_teardown(test, close_meter)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_METER(late_tokens_of_a_long_text_count_for_more),
        ON_METER(what_was_not_foreseen_adds_to_the_totals),
        ON_METER(an_answer_that_ends_early_shortens_the_rest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
