/* cmocka.h wants these four first */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "io/gguf.h"
#include "model/tokenizer.h"
#include "toy_tokenizer.h"

/* ---- a tokenizer made by hand ---- */

static struct tokenizer *make(const char *pre)
{
    static struct toy toy;
    struct error err;
    toy_start(&toy, pre);
    toy_add_merge(&toy, "h e");
    toy_add_merge(&toy, "l l");
    toy_add_merge(&toy, "\xc4\xa0 he");       /* "Ġ he" */
    toy_add_merge(&toy, "\xc3\x83 \xc2\xa9"); /* the two bytes of é */
    toy_add_token(&toy, "<|im_end|>", 3);
    toy_add_token(&toy, "<tool_call>", 4);
    toy_finish(&toy);
    toy_set_int(&toy, "tokenizer.ggml.eos_token_id", 0);
    struct tokenizer *tokenizer = tokenizer_create(&toy.bundle, &err);
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
static void check_pieces(const char *pre, const char *text, const char *expected)
{
    struct tokenizer *tokenizer = make(pre);
    struct token_list list = {0};
    char out[256];
    size_t n = 0;
    encode(tokenizer, text, strlen(text), &list);
    for (int64_t i = 0; i < list.count; i++) {
        struct text piece = tokenizer_piece(tokenizer, list.ids[i]);
        n += (size_t)snprintf(out + n, sizeof out - n, "%s%.*s", i ? "|" : "", (int)piece.length, piece.bytes);
    }
    assert_string_equal(out, expected);
    token_list_free(&list);
    tokenizer_free(tokenizer);
}

static void merges_join_bytes_but_never_across_pieces(void **state)
{
    (void)state;
    check_pieces("gpt-2", "hell he", "he|ll| he");
    check_pieces("gpt-2", "h e", "h| |e");
}

static void names_of_special_tokens_in_a_text_are_plain_text(void **state)
{
    (void)state;
    check_pieces("gpt-2", "<|im_end|>", "<|||i|m|_|e|n|d|||>");
}

static void bytes_that_are_not_utf8_become_the_tokens_of_single_bytes(void **state)
{
    (void)state;
    static const char text[] = "he\xff\xc0\x80\xed\xa0\x80he\xe2\x82\0";
    struct tokenizer *tokenizer = make("qwen2");
    struct token_list list = {0};
    encode(tokenizer, text, sizeof text - 1, &list);
    assert_int_equal(list.count, sizeof text - 1 - 2); /* but for "he", twice */
    assert_int_equal(list.ids[1], 0xff);
    for (int64_t i = 0; i < list.count; i++) {
        int64_t start = i ? list.ends[i - 1] : 0;
        struct text piece = tokenizer_piece(tokenizer, list.ids[i]);
        assert_int_equal(list.ends[i] - start, piece.length);
        assert_memory_equal(piece.bytes, text + start, piece.length);
    }
    token_list_free(&list);
    tokenizer_free(tokenizer);
}

static void any_bytes_come_back_from_their_tokens(void **state)
{
    (void)state;
    unsigned seed = (unsigned)time(NULL);
    print_message("seed %u\n", seed);
    srand(seed);
    struct tokenizer *tokenizer = make("smollm");
    for (int round = 0; round < 200; round++) {
        char text[300], back[300];
        size_t length = (size_t)(rand() % 300), n = 0;
        for (size_t i = 0; i < length; i++)
            text[i] = (char)(rand() % 2 ? rand() % 256 : "he ll\n0"[rand() % 7]);
        struct token_list list = {0};
        encode(tokenizer, text, length, &list);
        for (int64_t i = 0; i < list.count; i++) {
            struct text piece = tokenizer_piece(tokenizer, list.ids[i]);
            memcpy(back + n, piece.bytes, piece.length);
            n += piece.length;
            assert_int_equal(list.ends[i], n);
        }
        assert_int_equal(n, length);
        assert_memory_equal(back, text, length);
        token_list_free(&list);
    }
    tokenizer_free(tokenizer);
}

static void ends_count_the_bytes_before_normalisation(void **state)
{
    (void)state;
    struct tokenizer *tokenizer = make("qwen2");
    struct token_list list = {0};
    encode(tokenizer, "xe\xcc\x81y", 5, &list); /* e and a combining acute become é */
    assert_int_equal(list.count, 3);
    assert_int_equal(list.ends[0], 1);
    assert_int_equal(list.ends[1], 4);
    assert_int_equal(list.ends[2], 5);
    encode(tokenizer, "he", 2, &list); /* goes on counting */
    assert_int_equal(list.ends[3], 7);
    assert_int_equal(list.text_bytes, 7);
    token_list_free(&list);
    tokenizer_free(tokenizer);
}

static void special_tokens_are_found_by_name_and_have_no_bytes(void **state)
{
    (void)state;
    struct tokenizer *tokenizer = make("gpt-2");
    int32_t end = tokenizer_special(tokenizer, "<|im_end|>");
    assert_int_equal(end, 260);
    assert_int_equal(tokenizer_piece(tokenizer, end).length, 0);
    assert_int_equal(tokenizer_special(tokenizer, "he"), -1);
    assert_true(tokenizer_is_end(tokenizer, end));
    assert_true(tokenizer_is_end(tokenizer, 0)); /* eos_token_id */
    assert_false(tokenizer_is_end(tokenizer, 1));
    assert_false(tokenizer_is_end(tokenizer, 261));
    assert_int_equal(tokenizer_bos(tokenizer), -1);
    assert_int_equal(tokenizer_piece(tokenizer, 261).length, strlen("<tool_call>"));
    assert_int_equal(tokenizer_piece(tokenizer, 5000).length, 0);
    tokenizer_free(tokenizer);
}

static void the_hash_tells_pre_tokenizers_apart(void **state)
{
    (void)state;
    struct tokenizer *a = make("gpt-2"), *b = make("gpt-2"), *c = make("smollm");
    assert_true(tokenizer_hash(a) == tokenizer_hash(b));
    assert_true(tokenizer_hash(a) != tokenizer_hash(c));
    tokenizer_free(a);
    tokenizer_free(b);
    tokenizer_free(c);
}

/* ---- what is refused ---- */

static void check_refused(struct toy *toy, const char *reason)
{
    struct error err;
    assert_null(tokenizer_create(&toy->bundle, &err));
    assert_int_equal(err.code, ERROR_INPUT);
    assert_non_null(strstr(err.text, "toy.gguf"));
    if (!strstr(err.text, reason))
        fail_msg("'%s' does not say '%s'", err.text, reason);
}

static void other_kinds_of_tokenizer_are_refused_by_name(void **state)
{
    (void)state;
    struct toy toy;
    toy_start(&toy, "smollm");
    toy_finish(&toy);
    toy_set_string(&toy, "tokenizer.ggml.model", "t5");
    check_refused(&toy, "of kind 't5'; known are gpt2");
    toy_set_string(&toy, "tokenizer.ggml.model", "gpt2");
    toy_set_string(&toy, "tokenizer.ggml.pre", "tekken");
    check_refused(&toy, "'tekken', which is unknown; known are gpt-2, llama-bpe, qwen2, smollm");
}

static void malformed_vocabularies_are_refused(void **state)
{
    (void)state;
    struct toy toy;
    toy_start(&toy, "smollm");
    toy_finish(&toy);
    toy.tokens[7] = toy.tokens[9];
    check_refused(&toy, "tokens[9] is the same as [7]");
    toy.tokens[7] = (struct text){" x", 2};
    check_refused(&toy, "tokens[7] is not in the byte-level alphabet");
    toy.tokens[7] = (struct text){"", 0};
    check_refused(&toy, "tokens[7] is empty");
    toy.kinds[7] = 77;
    check_refused(&toy, "token_type[7] is 77");
    toy_value(&toy, "tokenizer.ggml.token_type")->count--;
    check_refused(&toy, "token_type is not a list of 256");
    toy_value(&toy, "tokenizer.ggml.tokens")->kind = VALUE_STRING;
    check_refused(&toy, "tokens is missing");
}

static void malformed_merges_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *merge, *reason;
    } cases[] = {
        {"ab", "merges[1] is not two pieces"}, {" b", "merges[1] is not two pieces"},
        {"a ", "merges[1] is not two pieces"}, {"a b", "merges[1] is the same as [0]"},
        {"a zz", "part that is not in"},       {"a c", "result that is not in"},
        {"a b c", "not in the byte-level"},    {"", "merges[1] is not two pieces"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct toy toy;
        toy_start(&toy, "smollm");
        toy_add_merge(&toy, "a b");
        toy.merges[toy.n_merges++] = (struct text){cases[i].merge, strlen(cases[i].merge)};
        toy_finish(&toy);
        check_refused(&toy, cases[i].reason);
    }
    struct toy toy;
    toy_start(&toy, "smollm");
    toy_finish(&toy);
    toy_value(&toy, "tokenizer.ggml.merges")->kind = VALUE_INTS;
    check_refused(&toy, "merges is missing");
}

static void special_ids_out_of_range_are_refused(void **state)
{
    (void)state;
    struct toy toy;
    toy_start(&toy, "smollm");
    toy_finish(&toy);
    toy_set_int(&toy, "tokenizer.ggml.eos_token_id", 256);
    check_refused(&toy, "eos_token_id is 256");
    toy_set_int(&toy, "tokenizer.ggml.eos_token_id", -1);
    check_refused(&toy, "eos_token_id is -1");
}

/* ---- real models ---- */

/* Fill `path` with where the model is; false when it is not there. */
static bool find_model(const char *name, const char *variable, char *path, size_t size)
{
    const char *given = variable ? getenv(variable) : NULL;
    snprintf(path, size, "%s%s", given ? given : TEST_DATA_DIR "/../models/", given ? "" : name);
    if (access(path, R_OK) == 0)
        return true;
    print_message("skipped: no %s\n", path);
    return false;
}

/* One line of a file of vectors: ids, a tab, the text in hexadecimal. */
static void check_vector(const struct tokenizer *tokenizer, char *line)
{
    char *hex = strchr(line, '\t'), *next = line;
    assert_non_null(hex);
    *hex++ = '\0';
    size_t length = strspn(hex, "0123456789abcdef") / 2;
    char *text = malloc(length + 1);
    assert_non_null(text);
    for (size_t i = 0; i < length; i++) {
        unsigned byte;
        assert_int_equal(sscanf(hex + 2 * i, "%2x", &byte), 1);
        text[i] = (char)byte;
    }
    struct token_list list = {0};
    encode(tokenizer, text, length, &list);
    for (int64_t i = 0; i < list.count; i++)
        assert_int_equal(list.ids[i], strtol(next, &next, 10));
    assert_int_equal(strspn(next, " "), strlen(next)); /* none is left */
    if (list.count > 0)
        assert_int_equal(list.ends[list.count - 1], length);
    token_list_free(&list);
    free(text);
}

/* The tokenizer of a model; skips the test when it is not there. */
static struct tokenizer *open_model(const char *model, const char *variable)
{
    char path[1024];
    struct error err;
    if (!find_model(model, variable, path, sizeof path))
        skip();
    struct gguf *gguf = gguf_open(path, &err);
    assert_non_null(gguf);
    struct tokenizer *tokenizer = tokenizer_create(gguf_bundle(gguf), &err);
    assert_non_null(tokenizer);
    gguf_free(gguf);
    return tokenizer;
}

static void check_vectors(const char *model, const char *variable, const char *vectors)
{
    char *line = NULL;
    size_t size = 0;
    struct tokenizer *tokenizer = open_model(model, variable);
    FILE *file = fopen(vectors, "r");
    assert_non_null(file);
    while (getline(&line, &size, file) > 0)
        check_vector(tokenizer, line);
    free(line);
    fclose(file);
    tokenizer_free(tokenizer);
}

static void smollm2_gives_the_ids_of_its_own_tokenizer(void **state)
{
    (void)state;
    check_vectors("SmolLM2-135M-Instruct.Q4_1.gguf", "LONGHAUL_TEST_MODEL",
                  TEST_DATA_DIR "/data/tokens/smollm.txt");
}

static void qwen2_gives_the_ids_of_its_own_tokenizer(void **state)
{
    (void)state;
    check_vectors("qwen2.5-coder-0.5b-instruct-q4_k_m.gguf", NULL, TEST_DATA_DIR "/data/tokens/qwen2.txt");
}

static void gemma3_gives_the_ids_of_sentencepiece(void **state)
{
    (void)state;
    check_vectors("gemma-3-270m-q4_k_m.gguf", NULL, TEST_DATA_DIR "/data/tokens/gemma3.txt");
}

static void gemma3_gives_back_any_bytes(void **state)
{
    (void)state;
    enum { LENGTH = 1 << 20 };
    static char text[LENGTH];
    unsigned seed = (unsigned)time(NULL);
    struct tokenizer *tokenizer = open_model("gemma-3-270m-q4_k_m.gguf", NULL);
    print_message("seed %u\n", seed);
    srand(seed);
    for (size_t i = 0; i < LENGTH; i++) /* half of it bytes of any kind, half of it a row of letters and spaces */
        text[i] = (char)(i / 4096 % 2 ? rand() % 256 : "etaoin  \n<\xe2\x96\x81"[rand() % 13]);
    struct token_list list = {0};
    encode(tokenizer, text, LENGTH, &list);
    int64_t at = 0;
    for (int64_t i = 0; i < list.count; i++) {
        struct text piece = tokenizer_piece(tokenizer, list.ids[i]);
        assert_int_equal(list.ends[i] - at, piece.length);
        assert_memory_equal(piece.bytes, text + at, piece.length);
        at = list.ends[i];
    }
    assert_int_equal(at, LENGTH);
    assert_int_equal(list.unknown_bytes, 0);
    token_list_free(&list);
    tokenizer_free(tokenizer);
}

/* ---- threads ---- */

static void *encode_many(void *context)
{
    const struct tokenizer *tokenizer = context;
    for (int i = 0; i < 100; i++) {
        struct token_list list = {0};
        encode(tokenizer, "hell he 12\xff", 11, &list);
        if (list.count != 7)
            return context;
        token_list_free(&list);
    }
    return NULL;
}

static void threads_share_one_tokenizer(void **state)
{
    (void)state;
    struct tokenizer *tokenizer = make("smollm");
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, encode_many, tokenizer), 0);
    for (int i = 0; i < 4; i++) {
        void *failed;
        pthread_join(threads[i], &failed);
        assert_null(failed);
    }
    tokenizer_free(tokenizer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merges_join_bytes_but_never_across_pieces),
        cmocka_unit_test(names_of_special_tokens_in_a_text_are_plain_text),
        cmocka_unit_test(bytes_that_are_not_utf8_become_the_tokens_of_single_bytes),
        cmocka_unit_test(any_bytes_come_back_from_their_tokens),
        cmocka_unit_test(ends_count_the_bytes_before_normalisation),
        cmocka_unit_test(special_tokens_are_found_by_name_and_have_no_bytes),
        cmocka_unit_test(the_hash_tells_pre_tokenizers_apart),
        cmocka_unit_test(other_kinds_of_tokenizer_are_refused_by_name),
        cmocka_unit_test(malformed_vocabularies_are_refused),
        cmocka_unit_test(malformed_merges_are_refused),
        cmocka_unit_test(special_ids_out_of_range_are_refused),
        cmocka_unit_test(smollm2_gives_the_ids_of_its_own_tokenizer),
        cmocka_unit_test(qwen2_gives_the_ids_of_its_own_tokenizer),
        cmocka_unit_test(gemma3_gives_the_ids_of_sentencepiece),
        cmocka_unit_test(gemma3_gives_back_any_bytes),
        cmocka_unit_test(threads_share_one_tokenizer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
