/* cmocka.h wants these four first */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "model/bpe.h"
#include "toy_tokenizer.h"

/* A tokenizer over a few letters, with merges of any two tokens made so far: long ones, and ranks that do not rise
 * with length. Bytes above 'z' have no token. */
struct fixture {
    struct toy toy;
    struct vocab *vocab;
    struct bpe *bpe;
    struct bpe_work *work;
    struct error err;
};

enum { LETTERS = 4, RANDOM_MERGES = 60 };

static void add_random_merges(struct toy *toy)
{
    while (toy->n_merges < RANDOM_MERGES) {
        int64_t n_made = toy->n_tokens - 256;
        char pair[TOY_NAME], parts[2][TOY_NAME];
        for (int i = 0; i < 2; i++) {
            int64_t pick = rand() % (LETTERS + n_made);
            if (pick < LETTERS)
                snprintf(parts[i], TOY_NAME, "%c", (char)('a' + pick));
            else
                snprintf(parts[i], TOY_NAME, "%s", toy->token_names[256 + pick - LETTERS]);
        }
        if (strlen(parts[0]) + strlen(parts[1]) > 12)
            continue;
        snprintf(pair, sizeof pair, "%.20s %.20s", parts[0], parts[1]);
        bool known = false;
        for (int64_t i = 0; i < toy->n_merges && !known; i++)
            known = strcmp(toy->merge_names[i], pair) == 0;
        if (!known)
            toy_add_merge(toy, pair);
    }
}

/* Let ranks fall as well as rise: a pair may come before the pairs that make its parts. */
static void shuffle_merges(struct toy *toy)
{
    for (int64_t i = toy->n_merges - 1; i > 0; i--) {
        int64_t j = rand() % (i + 1);
        struct text merge = toy->merges[i];
        toy->merges[i] = toy->merges[j];
        toy->merges[j] = merge;
    }
}

static void make(struct fixture *f)
{
    toy_start(&f->toy, "gpt-2");
    f->toy.kinds['~'] = 5; /* a byte without a token */
    add_random_merges(&f->toy);
    shuffle_merges(&f->toy);
    toy_finish(&f->toy);
    assert_non_null(f->vocab = vocab_create(&f->toy.bundle, SPELLING_BYTE_LEVEL, &f->err));
    assert_non_null(f->bpe = bpe_create(&f->toy.bundle, f->vocab, false, &f->err));
    assert_non_null(f->work = bpe_work_create(&f->err));
}

static void drop(struct fixture *f)
{
    bpe_work_free(f->work);
    bpe_free(f->bpe);
    vocab_free(f->vocab);
}

/* The rank of joining two tokens, by looking through the list; n_merges when they cannot be joined. */
static int64_t rank_of(const struct toy *toy, int32_t left, int32_t right)
{
    char pair[2 * TOY_NAME + 2];
    snprintf(pair, sizeof pair, "%s %s", toy->token_names[left], toy->token_names[right]);
    int64_t rank = 0;
    while (rank < toy->n_merges && !text_equals(toy->merges[rank], pair))
        rank++;
    return rank;
}

static int32_t joined(const struct toy *toy, int32_t left, int32_t right)
{
    char result[2 * TOY_NAME];
    snprintf(result, sizeof result, "%s%s", toy->token_names[left], toy->token_names[right]);
    for (int32_t id = 0; id < toy->n_tokens; id++)
        if (text_equals(toy->tokens[id], result))
            return id;
    fail();
    return -1;
}

/* As the definition says, in O(n^2): join the leftmost pair of the lowest rank until none is left. */
static int64_t encode_plainly(const struct toy *toy, struct text piece, int32_t *ids)
{
    int64_t n = 0;
    for (size_t i = 0; i < piece.length; i++)
        if (piece.bytes[i] != '~')
            ids[n++] = (unsigned char)piece.bytes[i];
    for (;;) {
        int64_t best = -1, best_rank = toy->n_merges;
        for (int64_t i = 0; i + 1 < n; i++) {
            int64_t rank = rank_of(toy, ids[i], ids[i + 1]);
            if (rank < best_rank) {
                best = i;
                best_rank = rank;
            }
        }
        if (best < 0)
            return n;
        ids[best] = joined(toy, ids[best], ids[best + 1]);
        memmove(ids + best + 1, ids + best + 2, (size_t)(n - best - 2) * sizeof *ids);
        n--;
    }
}

static void check_piece(struct fixture *f, struct text piece)
{
    int32_t expected[512];
    struct token_list list = {0};
    int64_t n = encode_plainly(&f->toy, piece, expected);
    assert_int_equal(bpe_encode(f->bpe, f->work, piece, &list, &f->err), 0);
    assert_int_equal(list.count, n);
    if (n > 0)
        assert_memory_equal(list.ids, expected, (size_t)n * sizeof *expected);
    assert_int_equal(list.text_bytes, piece.length);
    token_list_free(&list);
}

static void merging_equals_the_plain_definition(void **state)
{
    (void)state;
    unsigned seed = (unsigned)time(NULL);
    print_message("seed %u\n", seed);
    srand(seed);
    for (int round = 0; round < 20; round++) {
        struct fixture f;
        make(&f);
        for (int i = 0; i < 60; i++) {
            char bytes[200];
            size_t length = (size_t)(rand() % (i % 2 ? 40 : 200));
            for (size_t k = 0; k < length; k++)
                bytes[k] = (char)(rand() % 20 ? 'a' + rand() % LETTERS : '~');
            check_piece(&f, (struct text){bytes, length});
            check_piece(&f, (struct text){bytes, length}); /* the second time from memory */
        }
        drop(&f);
    }
}

static void ten_megabytes_of_one_character_are_merged(void **state)
{
    (void)state;
    enum { BYTES = 10 << 20 };
    struct toy toy;
    struct error err;
    toy_start(&toy, "gpt-2");
    toy_add_merge(&toy, "a a");
    toy_add_merge(&toy, "aa aa");
    toy_finish(&toy);
    struct vocab *vocab = vocab_create(&toy.bundle, SPELLING_BYTE_LEVEL, &err);
    struct bpe *bpe = bpe_create(&toy.bundle, vocab, false, &err);
    struct bpe_work *work = bpe_work_create(&err);
    struct token_list list = {0};
    char *bytes = malloc(BYTES);
    assert_non_null(bytes);
    memset(bytes, 'a', BYTES);
    assert_int_equal(bpe_encode(bpe, work, (struct text){bytes, BYTES}, &list, &err), 0);
    assert_int_equal(list.count, BYTES / 4);
    assert_int_equal(list.ids[list.count - 1], 257);
    assert_int_equal(list.ends[list.count - 1], BYTES);
    free(bytes);
    token_list_free(&list);
    bpe_work_free(work);
    bpe_free(bpe);
    vocab_free(vocab);
}

static void a_whole_piece_is_taken_when_the_rule_says_so(void **state)
{
    (void)state;
    struct toy toy;
    struct error err;
    toy_start(&toy, "llama-bpe");
    toy_add_merge(&toy, "a b");
    int32_t whole = toy_add_token(&toy, "xyz", 1); /* no merge leads there */
    toy_finish(&toy);
    struct vocab *vocab = vocab_create(&toy.bundle, SPELLING_BYTE_LEVEL, &err);
    for (int rule = 0; rule < 2; rule++) {
        struct bpe *bpe = bpe_create(&toy.bundle, vocab, rule == 1, &err);
        struct bpe_work *work = bpe_work_create(&err);
        struct token_list list = {0};
        assert_int_equal(bpe_encode(bpe, work, (struct text){"xyz", 3}, &list, &err), 0);
        assert_int_equal(list.count, rule == 1 ? 1 : 3);
        assert_int_equal(list.ids[0], rule == 1 ? whole : 'x');
        token_list_free(&list);
        bpe_work_free(work);
        bpe_free(bpe);
    }
    vocab_free(vocab);
}

static void bytes_without_a_token_are_left_out_and_counted(void **state)
{
    (void)state;
    struct fixture f;
    srand(1);
    make(&f);
    struct token_list list = {0};
    assert_int_equal(bpe_encode(f.bpe, f.work, (struct text){"~x~y~", 5}, &list, &f.err), 0);
    assert_int_equal(list.count, 2);
    assert_int_equal(list.unknown_bytes, 3);
    assert_int_equal(list.ends[0], 3);
    assert_int_equal(list.ends[1], 5);
    token_list_free(&list);
    drop(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merging_equals_the_plain_definition),
        cmocka_unit_test(ten_megabytes_of_one_character_are_merged),
        cmocka_unit_test(a_whole_piece_is_taken_when_the_rule_says_so),
        cmocka_unit_test(bytes_without_a_token_are_left_out_and_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
