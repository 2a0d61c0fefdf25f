/* cmocka.h wants these four first */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "pipeline/needle_tasks.h"
#include "pipeline/needle_words.h"
#include "toy_tokenizer.h"

/* A tokenizer whose tokens are bytes and which has no chat format: a prompt's tokens are the bytes of its system
 * text, its text and its lead. */
struct fixture {
    struct tokenizer *tokenizer;
    struct haystack *text;
    struct needle_material *material;
};

static const char story[] =
    "It was late. The old man rowed home, and nobody saw him. \"Where is he?\" they asked. "
    "The lake lay still that night. Rain fell. In the morning there was a boat on the sand.";

static int set_up(void **state)
{
    static struct toy toy;
    static struct fixture fixture;
    struct error err;
    toy_start(&toy, "gpt-2");
    toy_finish(&toy);
    fixture.tokenizer = tokenizer_create(&toy.bundle, &err);
    fixture.text = haystack_create(story, strlen(story), &err);
    fixture.material = needle_material_create(fixture.tokenizer, fixture.text, 7, &err);
    *state = &fixture;
    return fixture.material ? 0 : -1;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    needle_material_free(fixture->material);
    haystack_free(fixture->text);
    tokenizer_free(fixture->tokenizer);
    return 0;
}

static struct needle_trial make(void **state, enum needle_task task, int64_t depth)
{
    const struct fixture *fixture = *state;
    const struct needle_cell cell = {task, 8000, depth, 0};
    struct needle_trial trial;
    struct error err;
    if (needle_trial_make(fixture->material, &cell, &trial, &err) != 0)
        fail_msg("%s: %s", needle_task_name(task), err.text);
    return trial;
}

/* The occurrences of a word between two characters that are not of words. */
static int count_of(const char *text, const char *word)
{
    int count = 0;
    const size_t length = strlen(word);
    for (const char *at = strstr(text, word); at; at = strstr(at + 1, word))
        count += (at == text || strchr(" \n", at[-1])) && strchr(" \n", at[length]);
    return count;
}

static void prompts_are_as_long_as_asked_within_a_line(void **state)
{
    for (int task = 0; task < NEEDLE_TASKS; task++) {
        struct needle_trial trial = make(state, (enum needle_task)task, 50);
        const int64_t room = 8000 - needle_task_max_new((enum needle_task)task);
        assert_true(trial.n_tokens <= room);
        assert_true(trial.n_tokens > room - 160); /* bytes: a line of UUIDs, or a word of cwe three times */
        assert_true(trial.n_tokens >= (int64_t)(strlen(trial.text) + strlen(trial.lead)));
        needle_trial_free(&trial);
    }
}

static void what_is_expected_is_in_the_prompt(void **state)
{
    const int wanted[NEEDLE_TASKS] = {3, 1, 1, 1, 1, 1, 1, 1, 4, 4, 5, 10, 3};
    for (int task = 0; task < NEEDLE_TASKS; task++) {
        struct needle_trial trial = make(state, (enum needle_task)task, 50);
        assert_int_equal(trial.n_expected, wanted[task]);
        for (int i = 0; i < trial.n_expected; i++)
            assert_non_null(strstr(trial.text, trial.expected[i]));
        needle_trial_free(&trial);
    }
}

/* Where the needle stands among the bytes of the prompt, per cent. */
static double share_before(const struct needle_trial *trial)
{
    const char *at = strstr(trial->text, trial->expected[0]);
    return 100.0 * (double)(at - trial->text) / (double)strlen(trial->text);
}

static void a_needle_stands_at_its_depth(void **state)
{
    for (int task = 0; task < NEEDLE_TASKS; task++)
        for (int64_t depth = 0; depth <= 100 && needle_task_has_depth((enum needle_task)task); depth += 25) {
            struct needle_trial trial = make(state, (enum needle_task)task, depth);
            assert_true(share_before(&trial) > (double)depth - 5 && share_before(&trial) < (double)depth + 5);
            needle_trial_free(&trial);
        }
}

static void a_cell_has_the_same_prompt_every_time(void **state)
{
    for (int task = 0; task < NEEDLE_TASKS; task++) {
        struct needle_trial one = make(state, (enum needle_task)task, 25);
        struct needle_trial other = make(state, (enum needle_task)task, 25);
        assert_string_equal(one.text, other.text);
        needle_trial_free(&one);
        needle_trial_free(&other);
    }
}

static void another_trial_hides_something_else(void **state)
{
    const struct fixture *fixture = *state;
    struct needle_trial one = make(state, NEEDLE_PASSKEY, 25), other;
    const struct needle_cell cell = {NEEDLE_PASSKEY, 8000, 25, 1};
    struct error err;
    assert_int_equal(needle_trial_make(fixture->material, &cell, &other, &err), 0);
    assert_string_not_equal(one.expected[0], other.expected[0]);
    needle_trial_free(&one);
    needle_trial_free(&other);
}

/* ---- as RULER has them ---- */

enum { NEEDLES = 1000 };

/* "One of the special magic KIND for KEY is: VALUE." */
struct magic {
    char kind[16], key[NEEDLE_EXPECTED_BYTES], value[NEEDLE_EXPECTED_BYTES];
};

/* The needles of a prompt, in order; returns how many. */
static int find_needles(const struct needle_trial *trial, struct magic *needles)
{
    int n = 0;
    for (const char *at = trial->text; (at = strstr(at, "One of the special magic ")); at++) {
        struct magic *m = &needles[n++];
        assert_true(n <= NEEDLES);
        assert_int_equal(
            sscanf(at, "One of the special magic %15s for %63s is: %63[^.].", m->kind, m->key, m->value), 3);
    }
    return n;
}

/* The key of the needle with that value, which is there once. */
static const char *key_of(const struct magic *needles, int n, const char *value)
{
    const char *key = NULL;
    for (int i = 0; i < n; i++)
        if (strcmp(needles[i].value, value) == 0) {
            assert_null(key);
            key = needles[i].key;
        }
    assert_non_null(key);
    return key;
}

static int count_key(const struct magic *needles, int n, const char *key)
{
    int count = 0;
    for (int i = 0; i < n; i++)
        count += strcmp(needles[i].key, key) == 0;
    return count;
}

/* 8-4-4-4-12 digits in hexadecimal, version 4. */
static bool is_uuid(const char *text)
{
    static const char form[] = "xxxxxxxx-xxxx-4xxx-xxxx-xxxxxxxxxxxx";
    for (size_t i = 0; i < sizeof form; i++)
        if (form[i] == 'x' ? !text[i] || !strchr("0123456789abcdef", text[i]) : text[i] != form[i])
            return false;
    return strchr("89ab", text[19]) != NULL;
}

static bool is_number(const char *text)
{
    return strlen(text) == 7 && strspn(text, "0123456789") == 7 && text[0] != '0';
}

static bool is_pair_of_words(const char *text)
{
    const char *rest = text + strspn(text, "abcdefghijklmnopqrstuvwxyz");
    return rest > text && *rest == '-' && rest[1] && !rest[1 + strspn(rest + 1, "abcdefghijklmnopqrstuvwxyz")];
}

/* What a task of needles hides, and what of it is asked for. */
static const struct hides {
    enum needle_task task;
    int needles; /* 0: as many as fit */
    int keys;    /* that are asked for */
    bool uuids, uuid_keys;
} hidden[] = {{NEEDLE_NIAH_SINGLE_1, 1, 1, false, false},   {NEEDLE_NIAH_SINGLE_2, 1, 1, false, false},
              {NEEDLE_NIAH_SINGLE_3, 1, 1, true, false},    {NEEDLE_NIAH_MULTIKEY_1, 4, 1, false, false},
              {NEEDLE_NIAH_MULTIKEY_2, 0, 1, false, false}, {NEEDLE_NIAH_MULTIKEY_3, 0, 1, true, true},
              {NEEDLE_NIAH_MULTIVALUE, 4, 1, false, false}, {NEEDLE_NIAH_MULTIQUERY, 4, 4, false, false}};

/* The question and the beginning of the answer name each key that is asked for. */
static void check_asked(const struct hides *h, const struct needle_trial *trial, const struct magic *needles, int n)
{
    const char *question = strstr(trial->text, "\nWhat ");
    const char *asked[NEEDLE_EXPECTED];
    int keys = 0;
    assert_non_null(question);
    for (int i = 0; i < trial->n_expected; i++) {
        const char *key = key_of(needles, n, trial->expected[i]);
        assert_non_null(strstr(question, key));
        assert_non_null(strstr(trial->lead, key));
        assert_int_equal(count_key(needles, n, key), trial->n_expected / h->keys);
        if (keys == 0 || strcmp(asked[keys - 1], key) != 0)
            asked[keys++] = key;
    }
    assert_int_equal(keys, h->keys);
}

static void needles_are_as_many_and_of_the_kinds_that_their_task_has(void **state)
{
    static struct magic needles[NEEDLES];
    for (size_t t = 0; t < sizeof hidden / sizeof *hidden; t++) {
        const struct hides *h = &hidden[t];
        struct needle_trial trial = make(state, h->task, 50);
        const int n = find_needles(&trial, needles);
        if (h->needles > 0)
            assert_int_equal(n, h->needles);
        else
            assert_true(n > 40); /* lines of 8000 bytes, and nothing else */
        for (int i = 0; i < n; i++) {
            assert_string_equal(needles[i].kind, h->uuids ? "uuids" : "numbers");
            assert_true(h->uuids ? is_uuid(needles[i].value) : is_number(needles[i].value));
            assert_true(h->uuid_keys ? is_uuid(needles[i].key) : is_pair_of_words(needles[i].key));
        }
        check_asked(h, &trial, needles, n);
        needle_trial_free(&trial);
    }
}

/* Keys that are not asked for are others, so that what is asked has one answer. */
static void a_haystack_of_needles_is_nothing_else(void **state)
{
    const enum needle_task tasks[] = {NEEDLE_NIAH_MULTIKEY_2, NEEDLE_NIAH_MULTIKEY_3};
    static struct magic needles[NEEDLES];
    for (int t = 0; t < 2; t++) {
        struct needle_trial trial = make(state, tasks[t], 50);
        const int n = find_needles(&trial, needles);
        int lines = 0;
        for (const char *at = trial.text; (at = strchr(at, '\n')); at++)
            lines++;
        assert_int_equal(n, lines - 1); /* but for the one above; the question ends in none */
        needle_trial_free(&trial);
    }
}

static void a_chain_of_variables_ends_at_one_value(void **state)
{
    struct needle_trial trial = make(state, NEEDLE_VT, 0);
    const char *text = strstr(strstr(trial.text, "Question:"), "Memorize"); /* behind the worked example */
    assert_non_null(text);
    const char *at = strstr(text, "VAR ");
    char line[128], name[16];
    int value, variables = 0;
    assert_int_equal(sscanf(at, "VAR %15s = %d\n", name, &value), 2);
    assert_true(value >= 10000 && value <= 99999);
    assert_string_equal(name, trial.expected[0]);
    for (int i = 1; i < trial.n_expected; i++) { /* one hop behind the other */
        snprintf(line, sizeof line, "\nVAR %s = VAR %s \n", trial.expected[i], trial.expected[i - 1]);
        assert_true(strlen(trial.expected[i]) == 5);
        assert_non_null(at = strstr(at, line));
    }
    for (at = text; (at = strstr(at, "\nVAR ")); at++)
        variables++;
    assert_int_equal(variables, 5);
    snprintf(line, sizeof line, "\nQuestion: Find all variables that are assigned the value %d in the text above.",
             value);
    assert_non_null(strstr(text, line));
    needle_trial_free(&trial);
}

static void common_words_are_the_most_frequent(void **state)
{
    struct needle_trial trial = make(state, NEEDLE_CWE, 0);
    const char *list = strstr(strstr(trial.text, "Question:"), "Below is"); /* behind the worked example */
    assert_non_null(list);
    for (int i = 0; i < trial.n_expected; i++)
        assert_int_equal(count_of(list, trial.expected[i]), 30);
    const char *last = strstr(list, "\nQuestion");
    char other[64];
    for (const char *at = strstr(list, "\n1. ") + 2; at && at < last; at = strstr(at, ". ")) {
        at += 2;
        snprintf(other, sizeof other, "%.*s", (int)strcspn(at, " \n"), at);
        const int count = count_of(list, other);
        assert_true(count == 30 || count == 3);
    }
    needle_trial_free(&trial);
}

/* words [WORDS_MOST] = the different words of the list behind the worked example; returns their number. */
enum { WORDS_MOST = 20000, WORD = 64 };

static int compare(const void *a, const void *b)
{
    return strcmp(a, b);
}

static int different_words(const struct needle_trial *trial, char (*words)[WORD])
{
    const char *list = strstr(strstr(trial->text, "Question:"), "Below is");
    const char *last = strstr(list, "\nQuestion");
    int n = 0, different = 0;
    for (const char *at = strstr(list, "\n1. ") + 2; at && at < last; at = strstr(at, ". ")) {
        at += 2;
        assert_true(n < WORDS_MOST);
        snprintf(words[n++], WORD, "%.*s", (int)strcspn(at, " \n"), at);
    }
    qsort(words, (size_t)n, sizeof *words, compare);
    for (int i = 0; i < n; i++)
        if (different == 0 || strcmp(words[different - 1], words[i]) != 0)
            memmove(words[different++], words[i], sizeof *words);
    return different;
}

static void no_common_word_is_a_part_of_another_word(void **state)
{
    const struct fixture *fixture = *state;
    char(*words)[WORD] = malloc(WORDS_MOST * sizeof *words);
    assert_non_null(words);
    /* brief, all single words but a few, and pairs */
    const int64_t lengths[] = {4000, 50000, 100000};
    for (int l = 0; l < 3; l++) {
        const struct needle_cell cell = {NEEDLE_CWE, lengths[l], 0, 0};
        struct needle_trial trial;
        struct error err;
        assert_int_equal(needle_trial_make(fixture->material, &cell, &trial, &err), 0);
        const int n = different_words(&trial, words);
        for (int i = 0; i < n; i++) {
            assert_int_equal(strchr(words[i], '-') != NULL, l == 2);
            for (int j = 0; j < trial.n_expected; j++)
                assert_true(strcmp(words[i], trial.expected[j]) == 0 || !strstr(words[i], trial.expected[j]));
        }
        needle_trial_free(&trial);
    }
    free(words);
}

static void no_built_in_word_is_a_part_of_another(void **state)
{
    (void)state;
    enum { N = NEEDLE_ADJECTIVES + NEEDLE_NOUNS };
    const char *words[N];
    memcpy(words, needle_adjectives, sizeof needle_adjectives);
    memcpy(words + NEEDLE_ADJECTIVES, needle_nouns, sizeof needle_nouns);
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++)
            if (i != j && strstr(words[i], words[j]))
                fail_msg("%s is in %s", words[j], words[i]);
}

static void a_list_has_words_for_any_length(void **state)
{
    const struct fixture *fixture = *state;
    struct error err;
    int64_t least;
    for (int64_t length = 4096; length <= 400000; length += length / 32) {
        const struct needle_cell cell = {NEEDLE_CWE, length, 0, 0};
        if (needle_trial_check(fixture->material, &cell, &least, &err) != 0)
            assert_non_null(strstr(err.text, "tokens at least")); /* the worked example */
    }
    assert_true(least < 400000);
    const struct needle_cell endless = {NEEDLE_CWE, 1 << 26, 0, 0};
    assert_int_equal(needle_trial_check(fixture->material, &endless, &least, &err), -1);
    assert_int_equal(err.code, ERROR_USAGE);
}

static void a_check_refuses_what_cannot_be_made(void **state)
{
    const struct fixture *fixture = *state;
    struct error err;
    int refused = 0, made = 0;
    for (int task = 0; task < NEEDLE_TASKS; task++) {
        struct needle_cell cell = {(enum needle_task)task, 8000, 50, 0};
        int64_t least;
        assert_int_equal(needle_trial_check(fixture->material, &cell, &least, &err), 0);
        const int64_t around = least;
        for (cell.length = around - 40; cell.length <= around + 40; cell.length += 5) {
            struct needle_trial trial;
            const int status = needle_trial_make(fixture->material, &cell, &trial, &err);
            assert_int_equal(needle_trial_check(fixture->material, &cell, &least, &err), status);
            *(status == 0 ? &made : &refused) += 1;
            if (status == 0)
                needle_trial_free(&trial);
        }
    }
    assert_true(refused > 50 && made > 50);
}

static void coded_words_come_in_falling_numbers(void **state)
{
    struct needle_trial trial = make(state, NEEDLE_FWE, 0);
    int counts[3];
    for (int i = 0; i < 3; i++)
        counts[i] = count_of(trial.text, trial.expected[i]);
    assert_true(counts[0] > counts[1] && counts[1] > counts[2] && counts[2] > 10);
    needle_trial_free(&trial);
}

static void the_score_is_the_share_that_is_found(void **state)
{
    (void)state;
    const struct needle_trial trial = {.n_expected = 3, .expected = {"sandwich", "Dolores Park", "sunny day"}};
    assert_true(fabs(needle_score(&trial, "Eat a SANDWICH in dolores park.") - 2.0 / 3) < 1e-12);
    assert_true(needle_score(&trial, "") == 0);
    assert_true(needle_score(&trial, "sunny day sandwich dolores park") == 1);
}

static void a_length_too_short_is_refused(void **state)
{
    const struct fixture *fixture = *state;
    const struct needle_cell cell = {NEEDLE_NIAH_SINGLE_1, 200, 50, 0};
    struct needle_trial trial;
    struct error err;
    assert_int_equal(needle_trial_make(fixture->material, &cell, &trial, &err), -1);
    assert_int_equal(err.code, ERROR_USAGE);
}

static void a_task_in_a_text_needs_one(void **state)
{
    const struct fixture *fixture = *state;
    struct error err;
    struct needle_material *bare = needle_material_create(fixture->tokenizer, NULL, 7, &err);
    const struct needle_cell cell = {NEEDLE_NIAH, 8000, 50, 0};
    struct needle_trial trial;
    assert_int_equal(needle_trial_make(bare, &cell, &trial, &err), -1);
    assert_int_equal(err.code, ERROR_USAGE);
    needle_material_free(bare);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prompts_are_as_long_as_asked_within_a_line),
        cmocka_unit_test(what_is_expected_is_in_the_prompt),
        cmocka_unit_test(a_needle_stands_at_its_depth),
        cmocka_unit_test(a_cell_has_the_same_prompt_every_time),
        cmocka_unit_test(another_trial_hides_something_else),
        cmocka_unit_test(needles_are_as_many_and_of_the_kinds_that_their_task_has),
        cmocka_unit_test(a_haystack_of_needles_is_nothing_else),
        cmocka_unit_test(a_chain_of_variables_ends_at_one_value),
        cmocka_unit_test(common_words_are_the_most_frequent),
        cmocka_unit_test(no_common_word_is_a_part_of_another_word),
        cmocka_unit_test(no_built_in_word_is_a_part_of_another),
        cmocka_unit_test(a_list_has_words_for_any_length),
        cmocka_unit_test(a_check_refuses_what_cannot_be_made),
        cmocka_unit_test(coded_words_come_in_falling_numbers),
        cmocka_unit_test(the_score_is_the_share_that_is_found),
        cmocka_unit_test(a_length_too_short_is_refused),
        cmocka_unit_test(a_task_in_a_text_needs_one),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
