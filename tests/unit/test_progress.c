/* cmocka.h wants these four first */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/progress_display.h"

static void open_four(bool live, int64_t prefill, int64_t decode)
{
    open_display(live, &(struct progress_totals){.documents = 4, .tokens = {prefill, decode}});
}

static void update(double seconds, enum progress_phase phase, int64_t prefill, int64_t decode)
{
    display.now += seconds;
    const struct progress_state state = {
        .phase = phase, .document = "books/moby.txt", .tokens_done = {prefill, decode}};
    progress_update(display.progress, &state);
}

static int count(const char *text, const char *what)
{
    int n = 0;
    for (text = strstr(text, what); text; text = strstr(text + 1, what))
        n++;
    return n;
}

static void a_plain_line_says_all_there_is_to_know(void **state)
{
    (void)state;
    open_four(false, 1200000, 0);
    update(0, PROGRESS_PREFILL, 0, 0);
    written();
    update(50, PROGRESS_PREFILL, 45200, 0);
    assert_string_equal(written(),
                        "prefill  document 1/4  tokens 45.2k/1.20M  904/s  21m17s left  books/moby.txt\n");
}

static void plain_lines_come_at_most_every_ten_seconds(void **state)
{
    (void)state;
    open_four(false, 100000, 0);
    for (int i = 0; i < 1000; i++)
        update(0.1, PROGRESS_PREFILL, i, 0);
    assert_in_range(count(written(), "\n"), 10, 11);
}

static void the_live_line_is_rewritten_at_most_five_times_a_second(void **state)
{
    (void)state;
    open_four(true, 100000, 0);
    for (int i = 0; i < 1000; i++)
        update(0.01, PROGRESS_PREFILL, i, 0);
    const char *text = written();
    assert_in_range(count(text, "\r"), 45, 51);
    assert_int_equal(count(text, "\n"), 0);
}

static void time_left_adds_what_each_phase_will_take(void **state)
{
    (void)state;
    open_four(false, 10000, 1000);
    update(0, PROGRESS_PREFILL, 0, 0);
    update(10, PROGRESS_PREFILL, 5000, 0); /* 500 a second */
    written();
    update(10, PROGRESS_DECODE, 5000, 100); /* 10 a second */
    /* 5000 / 500 + 900 / 10 */
    assert_string_equal(written(), "decode   document 1/4  tokens 100/1.00k  10/s  1m40s left  books/moby.txt\n");
}

static void time_left_counts_late_tokens_that_take_longer_for_more(void **state)
{
    (void)state;
    const struct progress_totals totals = {1, {1000, 0}, 3000};
    const struct progress_state begun = {PROGRESS_PREFILL, "moby.txt", 0, {0, 0}, 0};
    const struct progress_state half_read = {PROGRESS_PREFILL, "moby.txt", 0, {500, 0}, 750};
    open_display(false, &totals);
    progress_update(display.progress, &begun);
    written();
    display.now += 10; /* for 500 + 750; 500 + 2250 are left */
    progress_update(display.progress, &half_read);
    assert_string_equal(written(), "prefill  document 1/1  tokens 500/1.00k  50/s  22s left  moby.txt\n");
}

static void a_phase_not_yet_measured_makes_it_a_lower_bound(void **state)
{
    (void)state;
    open_four(false, 10000, 1000);
    update(0, PROGRESS_PREFILL, 0, 0);
    assert_null(strstr(written(), "left"));
    update(10, PROGRESS_PREFILL, 5000, 0);
    assert_non_null(strstr(written(), " >10s left"));
}

static void waiting_counts_as_part_of_the_work_it_ends_with(void **state)
{
    (void)state;
    open_four(false, 2000, 0);
    update(0, PROGRESS_PREFILL, 0, 0);
    for (int i = 0; i < 9; i++)
        update(1, PROGRESS_PREFILL, 0, 0);
    written();
    update(1, PROGRESS_PREFILL, 1000, 0);
    assert_non_null(strstr(written(), " 100/s "));
}

static void what_an_earlier_run_did_is_no_part_of_the_rate(void **state)
{
    (void)state;
    open_four(false, 2000000, 0);
    update(0, PROGRESS_PREFILL, 1000000, 0);
    update(10, PROGRESS_PREFILL, 1000500, 0);
    assert_non_null(strstr(written(), " 50/s "));
}

static void phases_that_run_at_once_share_the_time(void **state)
{
    (void)state;
    open_four(false, 100000, 10000);
    update(0, PROGRESS_PREFILL, 0, 0);
    /* 1000 and 10 a second when alone, each half of the time */
    update(10, PROGRESS_PREFILL, 10000, 0);
    update(10, PROGRESS_DECODE, 10000, 100);
    for (int i = 1; i <= 5; i++)
        update(10, PROGRESS_PREFILL, 10000 + 5000 * i, 100 + 50 * i);
    assert_non_null(strstr(written(), "  1.00k/s  "));
}

static void a_note_stays_one_line_whatever_a_name_holds(void **state)
{
    (void)state;
    open_four(false, 1000, 0);
    progress_note(display.progress, "results: %s", "a\nb\033[2J\x7f\xc3\xa9");
    assert_string_equal(written(), "results: a?b?[2J?\xc3\xa9\n");
    progress_document_done(display.progress, "a.txt", "failed: opening a\nb: Permission denied");
    assert_string_equal(written(), "document 1/4  failed: opening a?b: Permission denied  a.txt\n");
}

static void notes_stand_above_the_live_line(void **state)
{
    (void)state;
    open_four(true, 1000, 0);
    update(0, PROGRESS_PREFILL, 0, 0);
    written();
    progress_note(display.progress, "%s failed", "a.txt");
    const char *text = written();
    assert_memory_equal(text, "\r\033[Ka.txt failed\n\rprefill", 25);
}

static void a_finished_document_is_a_plain_line(void **state)
{
    (void)state;
    open_four(false, 1000, 0);
    progress_document_done(display.progress, "a.txt", "ok");
    progress_document_done(display.progress, "b.txt", "failed");
    assert_string_equal(written(), "document 1/4  ok  a.txt\ndocument 2/4  failed  b.txt\n");
}

static void what_is_more_than_ok_stays_above_the_live_line(void **state)
{
    (void)state;
    open_four(true, 1000, 0);
    update(0, PROGRESS_PREFILL, 0, 0);
    written();
    progress_document_done(display.progress, "a.txt", "ok");
    assert_string_equal(written(), "");
    progress_document_done(display.progress, "b.pdf", "skipped: no text");
    assert_memory_equal(written(), "\r\033[Kdocument 2/4  skipped: no text  b.pdf\n\rprefill", 50);
}

static void a_live_line_never_wraps_nor_cuts_a_character(void **state)
{
    (void)state;
    struct error err;
    const struct progress_totals totals = {.documents = 1, .tokens = {10, 0}};
    open_four(true, 10, 0);
    for (int columns = 1; columns < 100; columns++) {
        const struct progress_options options = {true, columns, test_clock, &display.now, NULL};
        struct progress *narrow = progress_create(display.out, &options, &totals, &err);
        const struct progress_state now = {
            .document = "\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9"};
        written();
        progress_update(narrow, &now);
        const char *text = written();
        int characters = 0;
        size_t length = strlen(text) - strlen("\033[K");
        for (size_t i = 1; i < length; i++)
            characters += ((unsigned char)text[i] & 0xc0) != 0x80;
        assert_true(characters < columns || columns == 1);
        assert_true((unsigned char)text[length - 1] != 0xc3);
        progress_free(narrow);
    }
}

#define ON_DISPLAY(test) cmocka_unit_test_teardown(test, close_display)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_DISPLAY(a_plain_line_says_all_there_is_to_know),
        ON_DISPLAY(plain_lines_come_at_most_every_ten_seconds),
        ON_DISPLAY(the_live_line_is_rewritten_at_most_five_times_a_second),
        ON_DISPLAY(time_left_adds_what_each_phase_will_take),
        ON_DISPLAY(time_left_counts_late_tokens_that_take_longer_for_more),
        ON_DISPLAY(a_phase_not_yet_measured_makes_it_a_lower_bound),
        ON_DISPLAY(waiting_counts_as_part_of_the_work_it_ends_with),
        ON_DISPLAY(what_an_earlier_run_did_is_no_part_of_the_rate),
        ON_DISPLAY(phases_that_run_at_once_share_the_time),
        ON_DISPLAY(a_note_stays_one_line_whatever_a_name_holds),
        ON_DISPLAY(notes_stand_above_the_live_line),
        ON_DISPLAY(a_finished_document_is_a_plain_line),
        ON_DISPLAY(what_is_more_than_ok_stays_above_the_live_line),
        ON_DISPLAY(a_live_line_never_wraps_nor_cuts_a_character),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
