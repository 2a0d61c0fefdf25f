/* cmocka.h wants these four first */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "pipeline/haystack.h"

static struct haystack *make(const char *text)
{
    struct error err;
    struct haystack *haystack = haystack_create(text, strlen(text), &err);
    if (!haystack)
        fail_msg("%s", err.text);
    return haystack;
}

static void assert_written(const struct haystack *haystack, int64_t first, int64_t n, const char *wanted)
{
    char *text;
    size_t length;
    FILE *out = open_memstream(&text, &length);
    haystack_write(haystack, first, n, out);
    fclose(out);
    assert_string_equal(text, wanted);
    free(text);
}

static void white_space_becomes_single_spaces(void **state)
{
    (void)state;
    struct haystack *haystack = make("  One\n\ntwo.\tThree  four! ");
    assert_int_equal(haystack->n_words, 4);
    assert_written(haystack, 0, 4, "One two. Three four!");
    haystack_free(haystack);
}

static void the_text_begins_again_behind_its_end(void **state)
{
    (void)state;
    struct haystack *haystack = make("One two. Three.");
    assert_written(haystack, 1, 6, "two. Three. One two. Three. One");
    assert_written(haystack, 5, 2, "Three. One");
    haystack_free(haystack);
}

static void sentences_begin_behind_stops_and_closing_quotes(void **state)
{
    (void)state;
    struct haystack *haystack = make("He said: \"Go.\" She went (home?) again! And 3.5 is one.");
    const int64_t begins[] = {0, 3, 6, 7};
    assert_int_equal(haystack->n_sentences, 4);
    for (int i = 0; i < 4; i++)
        assert_int_equal(haystack->sentences[i], begins[i]);
    haystack_free(haystack);
}

static void a_text_without_stops_is_cut_all_the_same(void **state)
{
    (void)state;
    char text[2 * 200 + 1];
    for (int i = 0; i < 200; i++)
        memcpy(text + 2 * i, "w ", 3);
    struct haystack *haystack = make(text);
    assert_int_equal(haystack->n_sentences, 4);
    assert_int_equal(haystack->sentences[1], 64);
    haystack_free(haystack);
}

static void words_before_a_sentence_follow_the_text_round(void **state)
{
    (void)state;
    struct haystack *haystack = make("One two. Three. Four five six.");
    assert_int_equal(haystack_words_before(haystack, 0, 1, 100), 2);
    assert_int_equal(haystack_words_before(haystack, 1, 2, 100), 4);
    assert_int_equal(haystack_words_before(haystack, 1, 4, 100), 7);
    assert_int_equal(haystack_words_before(haystack, 1, 4, 5), 5);
    assert_int_equal(haystack_sentences(haystack, 0, 3), 2);
    assert_int_equal(haystack_sentences(haystack, 0, 6), 3);
    assert_int_equal(haystack_sentences(haystack, 2, 4), 2);
    haystack_free(haystack);
}

static void a_text_without_words_is_refused(void **state)
{
    (void)state;
    struct error err;
    assert_null(haystack_create(" \n ", 3, &err));
    assert_int_equal(err.code, ERROR_INPUT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(white_space_becomes_single_spaces),
        cmocka_unit_test(the_text_begins_again_behind_its_end),
        cmocka_unit_test(sentences_begin_behind_stops_and_closing_quotes),
        cmocka_unit_test(a_text_without_stops_is_cut_all_the_same),
        cmocka_unit_test(words_before_a_sentence_follow_the_text_round),
        cmocka_unit_test(a_text_without_words_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
