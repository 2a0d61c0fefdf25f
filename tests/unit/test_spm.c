/* cmocka.h wants these four first */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "model/tokenizer.h"
#include "toy_tokenizer.h"

/* ---- a SentencePiece vocabulary made by hand ---- */

#define SPACE "\xe2\x96\x81" /* how pieces spell it */

struct toy_spm {
    struct toy toy;
    double scores[TOY_TOKENS];
};

static int32_t add(struct toy_spm *spm, const char *name, int kind, double score)
{
    int32_t id = toy_add_token(&spm->toy, name, kind);
    spm->scores[id] = score;
    return id;
}

/* <unk>, <s>, </s>, then the 256 bytes from id 3 on. */
static void start(struct toy_spm *spm, int64_t space_prefix)
{
    memset(spm, 0, sizeof *spm);
    spm->toy.bundle.path = "toy.gguf";
    spm->toy.bundle.values = spm->toy.values;
    toy_set_string(&spm->toy, "tokenizer.ggml.model", "llama");
    toy_set_int(&spm->toy, "tokenizer.ggml.add_space_prefix", space_prefix);
    toy_set_int(&spm->toy, "tokenizer.ggml.bos_token_id", 1);
    add(spm, "<unk>", 2, 0);
    add(spm, "<s>", 3, 0);
    add(spm, "</s>", 3, 0);
    for (int byte = 0; byte < 256; byte++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", (unsigned)byte);
        add(spm, name, 6, 0);
    }
}

static void finish(struct toy_spm *spm)
{
    toy_finish(&spm->toy);
    struct value *value = toy_value(&spm->toy, "tokenizer.ggml.scores");
    value->kind = VALUE_FLOATS;
    value->count = spm->toy.n_tokens;
    value->reals = spm->scores;
}

static const struct {
    const char *name;
    double score;
} PIECES[] = {
    {SPACE, -20}, {"a", -21},        {"b", -22},  {"c", -23},      {"d", -24},          {"\xc3\xa9", -25},
    {"bc", -1},   {"ab", -2},        {"abc", -3}, {SPACE "a", -4}, {SPACE "abc", -9},   {"aa", -5},
    {"aaaa", -5}, {"d\xc3\xa9", -6}, {"cd", -6},  {SPACE "d", -7}, {SPACE SPACE, -0.5}, {"c" SPACE "d", 3},
};

static struct tokenizer *make(int64_t space_prefix)
{
    static struct toy_spm spm;
    struct error err;
    start(&spm, space_prefix);
    for (size_t i = 0; i < sizeof PIECES / sizeof PIECES[0]; i++)
        add(&spm, PIECES[i].name, 1, PIECES[i].score);
    add(&spm, "\n", 4, -1000);
    add(&spm, "\n\n\n", 4, -1000);
    add(&spm, "<b>", 4, -1000);
    add(&spm, "<b>" SPACE, 4, -1000);
    add(&spm, "<|im_end|>", 4, -1000);
    finish(&spm);
    struct tokenizer *tokenizer = tokenizer_create(&spm.toy.bundle, &err);
    if (!tokenizer)
        fail_msg("%s", err.text);
    return tokenizer;
}

static void encode(const struct tokenizer *tokenizer, const char *bytes, size_t length, struct token_list *list)
{
    struct error err;
    if (tokenizer_encode(tokenizer, (struct text){bytes, length}, list, &err) < 0)
        fail_msg("%s", err.text);
}

/* The pieces of a text with '|' between them. */
static void check_pieces(int64_t space_prefix, const char *text, const char *expected)
{
    struct tokenizer *tokenizer = make(space_prefix);
    struct token_list list = {0};
    char out[256];
    size_t n = 0;
    encode(tokenizer, text, strlen(text), &list);
    for (int64_t i = 0; i < list.count; i++) {
        struct text piece = tokenizer_piece(tokenizer, list.ids[i]);
        n += (size_t)snprintf(out + n, sizeof out - n, "%s%.*s", i ? "|" : "", (int)piece.length, piece.bytes);
    }
    out[n] = '\0';
    assert_string_equal(out, expected);
    token_list_free(&list);
    tokenizer_free(tokenizer);
}

/* ---- the rules ---- */

static void the_union_of_the_highest_score_is_joined_first(void **state)
{
    (void)state;
    check_pieces(0, "abc", "abc"); /* bc, then abc */
    check_pieces(0, "abd", "ab|d");
    check_pieces(0, "bcd", "bc|d");     /* not b|cd */
    check_pieces(0, "c dab", "c d|ab"); /* a space is no bound */
}

static void of_equal_scores_the_leftmost_is_joined_first(void **state)
{
    (void)state;
    check_pieces(0, "cd\xc3\xa9", "cd|\xc3\xa9");
    check_pieces(0, "aaaaa", "aaaa|a");
    check_pieces(0, "aaaaaaa", "aaaa|aa|a");
}

static void a_character_without_a_piece_becomes_its_bytes(void **state)
{
    (void)state;
    struct tokenizer *tokenizer = make(0);
    struct token_list list = {0};
    encode(tokenizer,
           "a\xe2\x82\xac"
           "b",
           5, &list);
    assert_int_equal(list.count, 5);
    assert_int_equal(list.ids[1], 3 + 0xe2);
    assert_int_equal(list.ids[3], 3 + 0xac);
    assert_int_equal(list.ends[1], 2);
    assert_int_equal(list.ends[4], 5);
    assert_int_equal(list.unknown_bytes, 0);
    token_list_free(&list);
    tokenizer_free(tokenizer);
}

static void user_defined_pieces_are_tokens_wherever_they_stand(void **state)
{
    (void)state;
    check_pieces(0, "a\nb", "a|\n|b");
    check_pieces(0, "\n\n\n\n\n", "\n\n\n|\n|\n"); /* the longest, from the left */
    check_pieces(0, "ab<b> <b>c<b", "ab|<b> |<b>|c|<|b");
}

static void names_of_control_and_byte_tokens_and_marks_of_turns_are_plain_text(void **state)
{
    (void)state;
    check_pieces(0, "<|im_end|>", "<|||i|m|_|e|n|d|||>");
    check_pieces(0, "</s>", "<|/|s|>");
    check_pieces(0, "<0x41>", "<|0|x|4|1|>");
}

static void a_space_goes_in_front_where_the_model_wants_one(void **state)
{
    (void)state;
    check_pieces(0, "a", "a");
    check_pieces(1, "abc", " abc");
    check_pieces(1, "", "");
    check_pieces(1, " a", "  |a");
    check_pieces(1, "\n", " |\n");
}

static void the_space_in_front_stands_for_no_bytes(void **state)
{
    (void)state;
    struct tokenizer *tokenizer = make(1);
    struct token_list list = {0};
    encode(tokenizer, "bc", 2, &list);
    encode(tokenizer, "abc", 3, &list);
    assert_int_equal(list.count, 3);
    assert_int_equal(list.ends[0], 0);
    assert_int_equal(list.ends[1], 2);
    assert_int_equal(list.ends[2], 5);
    assert_int_equal(list.text_bytes, 5);
    assert_int_equal(tokenizer_first_piece(tokenizer, list.ids[0]).length, 0);
    assert_int_equal(tokenizer_first_piece(tokenizer, list.ids[2]).length, 3);
    token_list_free(&list);
    tokenizer_free(tokenizer);
}

static void a_text_that_goes_on_has_no_space_in_front(void **state)
{
    (void)state;
    struct error err;
    struct tokenizer *tokenizer = make(1);
    struct token_list list = {0};
    encode(tokenizer, "abc", 3, &list);
    assert_int_equal(tokenizer_continue(tokenizer, (struct text){"abc", 3}, &list, &err), 0);
    assert_int_equal(list.count, 2);
    assert_int_equal(tokenizer_piece(tokenizer, list.ids[0]).length, 4);
    assert_int_equal(tokenizer_piece(tokenizer, list.ids[1]).length, 3);
    assert_int_equal(list.ends[1], 6);
    token_list_free(&list);
    tokenizer_free(tokenizer);
}

static void bos_comes_first_where_the_file_does_not_say(void **state)
{
    (void)state;
    struct tokenizer *tokenizer = make(0);
    assert_true(tokenizer_add_bos(tokenizer));
    assert_int_equal(tokenizer_bos(tokenizer), 1);
    assert_true(tokenizer_is_end(tokenizer, 2)); /* </s> */
    tokenizer_free(tokenizer);
}

/* ---- any text ---- */

/* Letters and words of the toy, user-defined pieces, bytes at random. */
static size_t random_text(char *text, size_t length)
{
    static const char *const PARTS[] = {"a",   "b",        "c",  "d",   " ",           "  ",
                                        "abc", "\xc3\xa9", "\n", "<b>", "\xe2\x96\x81"};
    size_t n = 0;
    while (n + 3 < length) {
        size_t part = (size_t)rand() % (sizeof PARTS / sizeof PARTS[0] + 1);
        if (part == sizeof PARTS / sizeof PARTS[0]) {
            text[n++] = (char)(rand() % 256);
            continue;
        }
        memcpy(text + n, PARTS[part], strlen(PARTS[part]));
        n += strlen(PARTS[part]);
    }
    return n;
}

static void check_comes_back(const struct tokenizer *tokenizer, const char *text, size_t length)
{
    char back[400];
    size_t n = 0;
    struct token_list list = {0};
    encode(tokenizer, text, length, &list);
    for (int64_t i = 0; i < list.count; i++) {
        struct text piece =
            i == 0 ? tokenizer_first_piece(tokenizer, list.ids[i]) : tokenizer_piece(tokenizer, list.ids[i]);
        memcpy(back + n, piece.bytes, piece.length);
        n += piece.length;
        assert_int_equal(list.ends[i], n);
    }
    assert_int_equal(n, length);
    assert_memory_equal(back, text, length);
    assert_int_equal(list.text_bytes, length);
    struct arena arena = {0};
    struct text spelled;
    struct error err;
    assert_int_equal(tokenizer_spell(tokenizer, list.ids, list.count, &arena, &spelled, &err), 0);
    assert_int_equal(spelled.length, length);
    assert_memory_equal(spelled.bytes, text, length);
    assert_int_equal(spelled.bytes[length], '\0');
    arena_free(&arena);
    token_list_free(&list);
}

static void any_bytes_come_back_from_their_tokens(void **state)
{
    (void)state;
    unsigned seed = (unsigned)time(NULL);
    print_message("seed %u\n", seed);
    srand(seed);
    for (int prefix = 0; prefix < 2; prefix++) {
        struct tokenizer *tokenizer = make(prefix);
        for (int round = 0; round < 2000; round++) {
            char text[300];
            check_comes_back(tokenizer, text, random_text(text, (size_t)(4 + rand() % 296)));
        }
        tokenizer_free(tokenizer);
    }
}

/* The rule, word for word: look at all neighbours, join the best, again. `starts` [count + 1] are the symbols'
 * bounds; the pieces of PIECES only, so for text without user-defined pieces. Returns how many symbols are left. */
static size_t merge_by_definition(const char *text, size_t *starts, size_t count)
{
    for (;;) {
        double best = -INFINITY;
        size_t at = 0;
        for (size_t i = 0; i + 1 < count; i++)
            for (size_t p = 0; p < sizeof PIECES / sizeof PIECES[0]; p++) {
                char piece[16] = "", *end = piece;
                for (const char *c = PIECES[p].name; *c; c += *c == '\xe2' ? 3 : 1)
                    *end++ = *c == '\xe2' ? ' ' : *c;
                size_t length = starts[i + 2] - starts[i];
                if (PIECES[p].score > best && length == strlen(piece) &&
                    memcmp(text + starts[i], piece, length) == 0) {
                    best = PIECES[p].score;
                    at = i;
                }
            }
        if (best == -INFINITY)
            return count;
        memmove(starts + at + 1, starts + at + 2, (count - at - 1) * sizeof *starts);
        count--;
    }
}

static void merges_are_those_of_the_definition(void **state)
{
    (void)state;
    unsigned seed = (unsigned)time(NULL);
    print_message("seed %u\n", seed);
    srand(seed);
    struct tokenizer *tokenizer = make(0);
    for (int round = 0; round < 3000; round++) {
        char text[40];
        size_t starts[41], length = (size_t)(1 + rand() % 40);
        for (size_t i = 0; i < length; i++) {
            text[i] = " abcd"[rand() % 5];
            starts[i] = i;
        }
        starts[length] = length;
        size_t count = merge_by_definition(text, starts, length);
        struct token_list list = {0};
        encode(tokenizer, text, length, &list);
        assert_int_equal(list.count, count);
        for (size_t i = 0; i < count; i++)
            assert_int_equal(list.ends[i], starts[i + 1]);
        token_list_free(&list);
    }
    tokenizer_free(tokenizer);
}

/* Quadratic work would take hours here. */
static void a_stretch_of_megabytes_without_a_cut_is_encoded(void **state)
{
    (void)state;
    enum { LENGTH = 4 << 20 };
    struct tokenizer *tokenizer = make(0);
    struct token_list list = {0};
    char *text = malloc(LENGTH);
    assert_non_null(text);
    memset(text, 'a', LENGTH);
    encode(tokenizer, text, LENGTH, &list);
    assert_int_equal(list.count, LENGTH / 4);
    assert_int_equal(list.ends[list.count - 1], LENGTH);
    token_list_free(&list);
    free(text);
    tokenizer_free(tokenizer);
}

static void an_end_that_is_a_piece_of_text_ends_nothing(void **state)
{
    (void)state;
    static struct toy_spm spm;
    struct error err;
    start(&spm, 0);
    spm.toy.kinds[2] = 4; /* </s>, HTML's */
    const int32_t end = add(&spm, "<end_of_turn>", 4, 0);
    finish(&spm);
    struct tokenizer *tokenizer = tokenizer_create(&spm.toy.bundle, &err);
    assert_non_null(tokenizer);
    assert_false(tokenizer_is_end(tokenizer, 2));
    assert_true(tokenizer_is_end(tokenizer, end));
    tokenizer_free(tokenizer);
}

/* ---- what is refused ---- */

static void check_refused(struct toy_spm *spm, const char *reason)
{
    struct error err;
    assert_null(tokenizer_create(&spm->toy.bundle, &err));
    assert_int_equal(err.code, ERROR_INPUT);
    assert_non_null(strstr(err.text, "toy.gguf"));
    if (!strstr(err.text, reason))
        fail_msg("'%s' does not say '%s'", err.text, reason);
}

static void malformed_vocabularies_are_refused(void **state)
{
    (void)state;
    static struct toy_spm spm;
    start(&spm, 0);
    int32_t a = add(&spm, "a", 1, -1);
    finish(&spm);
    spm.scores[a] = NAN;
    check_refused(&spm, "scores[259] is not a number");
    spm.scores[a] = 0;
    spm.toy.tokens[a] = (struct text){"\xff", 1};
    check_refused(&spm, "tokens[259] is not UTF-8");
    spm.toy.kinds[a] = 4;
    check_refused(&spm, "tokens[259] is not UTF-8");
    spm.toy.kinds[a] = 1;
    spm.toy.tokens[a].length = 0;
    check_refused(&spm, "tokens[259] is empty");
    spm.toy.tokens[7] = (struct text){"<0xZZ>", 6};
    check_refused(&spm, "tokens[7] is not the name of a byte");
    spm.toy.tokens[7].length = 0;
    check_refused(&spm, "tokens[7] is empty");
    spm.toy.tokens[7] = (struct text){"<0x04>", 6};
    spm.toy.tokens[a] = (struct text){"a", 1};
    toy_value(&spm.toy, "tokenizer.ggml.scores")->count--;
    check_refused(&spm, "scores is not a list of 260 numbers");
    toy_value(&spm.toy, "tokenizer.ggml.token_type")->key = "other";
    toy_value(&spm.toy, "tokenizer.ggml.scores")->count++;
    check_refused(&spm, "token_type is missing");
}

static void a_normaliser_is_refused(void **state)
{
    (void)state;
    static struct toy_spm spm;
    start(&spm, 0);
    finish(&spm);
    toy_set_int(&spm.toy, "tokenizer.ggml.remove_extra_whitespaces", 1);
    check_refused(&spm, "remove_extra_whitespaces changes the text");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_union_of_the_highest_score_is_joined_first),
        cmocka_unit_test(of_equal_scores_the_leftmost_is_joined_first),
        cmocka_unit_test(a_character_without_a_piece_becomes_its_bytes),
        cmocka_unit_test(user_defined_pieces_are_tokens_wherever_they_stand),
        cmocka_unit_test(names_of_control_and_byte_tokens_and_marks_of_turns_are_plain_text),
        cmocka_unit_test(a_space_goes_in_front_where_the_model_wants_one),
        cmocka_unit_test(the_space_in_front_stands_for_no_bytes),
        cmocka_unit_test(a_text_that_goes_on_has_no_space_in_front),
        cmocka_unit_test(an_end_that_is_a_piece_of_text_ends_nothing),
        cmocka_unit_test(bos_comes_first_where_the_file_does_not_say),
        cmocka_unit_test(any_bytes_come_back_from_their_tokens),
        cmocka_unit_test(merges_are_those_of_the_definition),
        cmocka_unit_test(a_stretch_of_megabytes_without_a_cut_is_encoded),
        cmocka_unit_test(malformed_vocabularies_are_refused),
        cmocka_unit_test(a_normaliser_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
