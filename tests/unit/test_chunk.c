/* cmocka.h wants these four first */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/num.h"
#include "pipeline/chunk.h"

/* A text whose every byte is a token. */
static struct chunk_text tokens_of_bytes(const char *bytes, int64_t length)
{
    int64_t *ends = malloc((size_t)(length + 1) * sizeof *ends);
    for (int64_t i = 0; i < length; i++)
        ends[i] = i + 1;
    return (struct chunk_text){bytes, length, ends};
}

static void free_tokens(struct chunk_text *text)
{
    free((int64_t *)(uintptr_t)text->ends);
}

static struct chunk_list cut(const struct chunk_text *text, int64_t max, int64_t overlap)
{
    struct error err = {ERROR_NONE, ""};
    struct chunk_list list;
    const struct chunk_limits limits = {max, overlap};
    assert_int_equal(chunk_cut(text, &limits, &list, &err), 0);
    return list;
}

/* What a list of chunks promises for any text and any limits. */
static void assert_chunks_are_sound(const struct chunk_list *list, const struct chunk_text *text, int64_t max,
                                    int64_t overlap)
{
    int64_t first = -1, end = 0;
    for (int64_t i = 0; i < list->count; i++) {
        const struct chunk *chunk = &list->items[i];
        assert_true(chunk->first_token > first && chunk->end_token > end);
        assert_true(chunk->end_token - chunk->first_token <= max);
        assert_int_equal(chunk->overlap, i == 0 ? 0 : end - chunk->first_token);
        assert_true(i == 0 || chunk->overlap >= overlap);
        assert_int_equal(chunk->first_byte, chunk->first_token ? text->ends[chunk->first_token - 1] : 0);
        assert_int_equal(chunk->end_byte, text->ends[chunk->end_token - 1]);
        first = chunk->first_token;
        end = chunk->end_token;
    }
    assert_int_equal(list->count > 0 ? list->items[0].first_token : 0, 0);
    assert_int_equal(end, text->n_tokens);
}

/* True when a character begins at the byte, or the text ends there. */
static bool is_character(const struct chunk_text *text, int64_t byte)
{
    return byte == text->ends[text->n_tokens - 1] || ((unsigned char)text->bytes[byte] & 0xc0) != 0x80;
}

static void a_text_that_fits_is_one_chunk(void **state)
{
    (void)state;
    struct chunk_text text = tokens_of_bytes("hello world", 11);
    struct chunk_list list = cut(&text, 11, 5);
    assert_int_equal(list.count, 1);
    assert_chunks_are_sound(&list, &text, 11, 5);
    chunk_list_free(&list);
    free_tokens(&text);
}

/* The limit of a policy that bounds no text: nothing may be looked for as far away. */
static void a_limit_beyond_any_text_takes_no_time(void **state)
{
    (void)state;
    struct chunk_text text = tokens_of_bytes("hello world", 11);
    struct chunk_list list = cut(&text, INT64_C(1) << 40, 512);
    assert_int_equal(list.count, 1);
    assert_chunks_are_sound(&list, &text, INT64_C(1) << 40, 512);
    chunk_list_free(&list);
    free_tokens(&text);
}

static void no_tokens_give_no_chunks(void **state)
{
    (void)state;
    struct chunk_text text = tokens_of_bytes("", 0);
    struct chunk_list list = cut(&text, 8, 2);
    assert_int_equal(list.count, 0);
    chunk_list_free(&list);
    free_tokens(&text);
}

static void text_without_borders_is_cut_evenly_into_as_few_as_can_be(void **state)
{
    (void)state;
    const int64_t n = 10001, max = 1000, overlap = 100;
    char *bytes = malloc((size_t)n);
    memset(bytes, 'x', (size_t)n);
    struct chunk_text text = tokens_of_bytes(bytes, n);
    struct chunk_list list = cut(&text, max, overlap);
    assert_chunks_are_sound(&list, &text, max, overlap);
    assert_int_equal(list.count, 1 + i64_ceil_div(n - max, max - overlap));
    for (int64_t i = 0; i < list.count; i++) {
        int64_t length = list.items[i].end_token - list.items[i].first_token;
        assert_in_range(length, 900, 1000);
        assert_true(i == 0 || list.items[i].overlap == overlap);
    }
    chunk_list_free(&list);
    free_tokens(&text);
    free(bytes);
}

/* The text of 200 bytes 'x' with `mark` in the middle, cut at 150: the byte behind which it is cut, and the one
 * at which the second chunk begins. */
static void cut_around(const char *mark, int64_t at, int64_t *end, int64_t *first)
{
    char bytes[201];
    memset(bytes, 'x', 200);
    bytes[200] = '\0';
    memcpy(bytes + at, mark, strlen(mark));
    struct chunk_text text = tokens_of_bytes(bytes, 200);
    struct chunk_list list = cut(&text, 150, 20);
    assert_chunks_are_sound(&list, &text, 150, 20);
    assert_int_equal(list.count, 2);
    *end = list.items[0].end_token;
    *first = list.items[1].first_token;
    chunk_list_free(&list);
    free_tokens(&text);
}

static void a_cut_falls_on_the_best_border_nearby(void **state)
{
    (void)state;
    /* Two even chunks of 110: the cut is aimed at 110 and may lie 32 to either side. */
    const struct {
        const char *mark;
        int64_t at, cut;
    } cases[] = {
        {"", 0, 110},      {"\n", 99, 100},       {". ", 99, 101}, /* behind the space is nearer than before it */
        {"\n\n", 99, 101}, {"\r\n\r\n", 99, 103}, {"\n  ", 99, 102},
        {".\" ", 99, 102}, {"\u3002", 99, 102},   {"\u3002\u300d", 99, 105},
        {"3.14", 99, 110}, {".", 99, 110},        {"\n", 60, 110},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int64_t end, first;
        cut_around(cases[i].mark, cases[i].at, &end, &first);
        if (end != cases[i].cut)
            print_message("case %zu\n", i);
        assert_int_equal(end, cases[i].cut);
    }
}

static void better_borders_win_over_nearer_ones(void **state)
{
    (void)state;
    int64_t end, first;
    cut_around("\n\nxx\nxx. xx", 99, &end, &first);
    assert_int_equal(end, 101);
    cut_around("\nxxxx. xx", 99, &end, &first);
    assert_int_equal(end, 100);
}

static void a_chunk_begins_at_a_border_too(void **state)
{
    (void)state;
    int64_t end, first;
    /* Cut at 110; 20 tokens before that is 90, the line begins at 80. */
    cut_around("\n", 79, &end, &first);
    assert_int_equal(end, 80); /* within reach of the cut itself */
    cut_around("\n", 72, &end, &first);
    assert_int_equal(end, 110);
    assert_int_equal(first, 73);
}

static void characters_of_several_tokens_are_kept_whole(void **state)
{
    (void)state;
    char bytes[4 * 500 + 1] = "";
    for (int i = 0; i < 500; i++)
        strcat(bytes, "\xf0\x9f\x98\x80");
    struct chunk_text text = tokens_of_bytes(bytes, 2000);
    for (int64_t max = 24; max < 300; max++) {
        struct chunk_list list = cut(&text, max, max / 5);
        assert_chunks_are_sound(&list, &text, max, max / 5);
        for (int64_t i = 0; i < list.count; i++) {
            assert_true(is_character(&text, list.items[i].first_byte));
            assert_true(is_character(&text, list.items[i].end_byte));
        }
        chunk_list_free(&list);
    }
    free_tokens(&text);
}

static void limits_without_progress_are_refused(void **state)
{
    (void)state;
    struct error err;
    struct chunk_list list;
    struct chunk_text text = tokens_of_bytes("abcdef", 6);
    const struct chunk_limits bad[] = {{0, 0}, {4, 2}, {4, 9}, {4, -1}, {-5, 0}, {INT64_MIN, 0}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(chunk_cut(&text, &bad[i], &list, &err), -1);
        assert_int_equal(err.code, ERROR_USAGE);
    }
    free_tokens(&text);
}

static void the_smallest_limits_still_cover_everything(void **state)
{
    (void)state;
    struct chunk_text text = tokens_of_bytes("a. b\n\nc. d", 10);
    for (int64_t max = 1; max < 12; max++) {
        for (int64_t overlap = 0; 2 * overlap < max; overlap++) {
            struct chunk_list list = cut(&text, max, overlap);
            assert_chunks_are_sound(&list, &text, max, overlap);
            chunk_list_free(&list);
        }
    }
    free_tokens(&text);
}

/* Random text of words, marks, lines and wide characters; tokens of 0 to 6 bytes. */
static struct chunk_text random_text(char **bytes, int64_t n_tokens)
{
    static const char *const parts[] = {
        "word", " word", ".", ". ", "\n", "\n\n", "\xe4\xb8\xad", "\u3002", "\"", " ", "\xf0\x9f\x98\x80"};
    size_t size = (size_t)n_tokens * 6 + 16, length = 0;
    char *text = malloc(size);
    while (length + 8 < size) {
        const char *part = parts[rand() % 11];
        memcpy(text + length, part, strlen(part));
        length += strlen(part);
    }
    int64_t *ends = malloc((size_t)(n_tokens + 1) * sizeof *ends);
    int64_t at = 0;
    for (int64_t i = 0; i < n_tokens; i++) {
        at = i64_min(at + rand() % 7, (int64_t)length);
        ends[i] = at;
    }
    *bytes = text;
    return (struct chunk_text){text, n_tokens, ends};
}

static void any_text_is_covered_within_the_limits(void **state)
{
    (void)state;
    unsigned int seed = 77001;
    print_message("seed %u\n", seed);
    srand(seed);
    for (int round = 0; round < 2000; round++) {
        char *bytes;
        int64_t n = rand() % 3000, max = 1 + rand() % (round % 3 ? 40 : 1500), overlap = rand() % ((max + 1) / 2);
        struct chunk_text text = random_text(&bytes, n);
        struct chunk_list list = cut(&text, max, overlap);
        assert_chunks_are_sound(&list, &text, max, overlap);
        chunk_list_free(&list);
        free_tokens(&text);
        free(bytes);
    }
}

static void the_last_chunk_is_no_stub(void **state)
{
    (void)state;
    unsigned int seed = 77002;
    print_message("seed %u\n", seed);
    srand(seed);
    for (int round = 0; round < 300; round++) {
        char *bytes;
        int64_t max = 200 + rand() % 800, overlap = rand() % (max / 4), n = max + 1 + rand() % 9000;
        struct chunk_text text = random_text(&bytes, n);
        struct chunk_list list = cut(&text, max, overlap);
        struct chunk last = list.items[list.count - 1];
        assert_true(3 * (last.end_token - last.first_token) >= max);
        chunk_list_free(&list);
        free_tokens(&text);
        free(bytes);
    }
}

static void a_megabyte_of_spaces_takes_no_time(void **state)
{
    (void)state;
    const int64_t n = 1 << 20;
    char *bytes = malloc((size_t)n);
    memset(bytes, ' ', (size_t)n);
    struct chunk_text text = tokens_of_bytes(bytes, n);
    clock_t start = clock();
    struct chunk_list list = cut(&text, 8192, 512);
    assert_true(clock() - start < 10 * CLOCKS_PER_SEC);
    assert_chunks_are_sound(&list, &text, 8192, 512);
    chunk_list_free(&list);
    free_tokens(&text);
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_text_that_fits_is_one_chunk),
        cmocka_unit_test(a_limit_beyond_any_text_takes_no_time),
        cmocka_unit_test(no_tokens_give_no_chunks),
        cmocka_unit_test(text_without_borders_is_cut_evenly_into_as_few_as_can_be),
        cmocka_unit_test(a_cut_falls_on_the_best_border_nearby),
        cmocka_unit_test(better_borders_win_over_nearer_ones),
        cmocka_unit_test(a_chunk_begins_at_a_border_too),
        cmocka_unit_test(characters_of_several_tokens_are_kept_whole),
        cmocka_unit_test(limits_without_progress_are_refused),
        cmocka_unit_test(the_smallest_limits_still_cover_everything),
        cmocka_unit_test(any_text_is_covered_within_the_limits),
        cmocka_unit_test(the_last_chunk_is_no_stub),
        cmocka_unit_test(a_megabyte_of_spaces_takes_no_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
