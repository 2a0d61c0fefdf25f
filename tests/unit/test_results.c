/* What is written to a store comes back, whatever it is and whoever reads it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "tests/unit/results_store.h"

/* ---- what is written comes back ---- */

static const int32_t tokens[] = {5, 0, 128000}, map_tokens[] = {7};
static const struct result_chunk chunks[] = {{0, 0, 1024, 0, 4000, 0}, {1, 512, 1500, 2000, 6001, 512}};
static const struct document_span spans[] = {
    {0, 3, 0, 0, DOCUMENT_SKIPPED, "byte order mark"},
    {3, 6000, 0, 5997, DOCUMENT_USED, ""},
    {6000, 6001, 5997, 6000, DOCUMENT_DROPPED, "invalid UTF-8"},
};
static const struct result_node nodes[] = {
    {0, 2, 0, RESULT_MAP, 0, 1100, 1, map_tokens, {"part one", 8}, "stop"},
    {1, 2, 0, RESULT_MAP, 1, 1090, 0, NULL, {"", 0}, "length"},
    {2, -1, 1, RESULT_FINAL, -1, 60, 3, tokens, {"zusammen: \xe2\x82\xac \"q\"", 17}, "stop"},
};

/* A document that has something in every field but the score. */
static struct result_document rich_document(void)
{
    struct result_document document = sample_document("books/a, \"b\"/\xc3\xa9.txt", 3, "zusammen");
    document.status = RESULT_PARTIAL;
    document.reason = "one byte dropped";
    document.tokens_in = (int64_t)1 << 40;
    document.tokens_forgotten = 12345;
    document.n_tokens = 3;
    document.tokens = tokens;
    document.n_chunks = 2;
    document.chunks = chunks;
    document.n_nodes = 3;
    document.nodes = nodes;
    document.n_spans = 3;
    document.spans = spans;
    document.timings = (struct result_timings){1.5, 0.25, 2.0, 2250, 4};
    return document;
}

static void every_field_of_a_document_comes_back(void **state)
{
    (void)state;
    struct result_document written = rich_document();
    struct results_run run = sample_run(RESULT_SUMMARIZE);
    struct results *results = open_store(&run);
    add(results, written);
    publish(results);
    results_close(results);

    struct results_reader *reader = load();
    const struct result_document *read = next(reader);
    assert_string_equal(read->id, written.id);
    assert_string_equal(read->path, written.path);
    assert_string_equal(read->sha256, "abcd");
    assert_int_equal(read->order, 3);
    assert_int_equal(read->bytes, 100);
    assert_int_equal(read->chars, 90);
    assert_true(read->tokens_in == (int64_t)1 << 40);
    assert_int_equal(read->tokens_forgotten, 12345);
    assert_int_equal(read->status, RESULT_PARTIAL);
    assert_string_equal(read->reason, "one byte dropped");
    assert_string_equal(read->strategy, "whole");
    assert_string_equal(read->finish_reason, "stop");
    assert_string_equal(read->text.bytes, "zusammen");
    assert_int_equal(read->n_tokens, 3);
    assert_memory_equal(read->tokens, tokens, sizeof tokens);
    assert_int_equal(read->n_chunks, 2);
    assert_memory_equal(read->chunks, chunks, sizeof chunks);
    assert_memory_equal(&read->timings, &written.timings, sizeof written.timings);
    assert_int_equal(read->number, 1);
    assert_int_equal(read->run, 1);
    assert_int_equal(read->score.count, 0);
    assert_int_equal(read->n_nodes, 3);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(read->nodes[i].id, nodes[i].id);
        assert_int_equal(read->nodes[i].parent, nodes[i].parent);
        assert_int_equal(read->nodes[i].level, nodes[i].level);
        assert_int_equal(read->nodes[i].kind, nodes[i].kind);
        assert_int_equal(read->nodes[i].chunk, nodes[i].chunk);
        assert_int_equal(read->nodes[i].prompt_tokens, nodes[i].prompt_tokens);
        assert_string_equal(read->nodes[i].text.bytes, nodes[i].text.bytes);
        assert_string_equal(read->nodes[i].finish_reason, nodes[i].finish_reason);
        assert_int_equal(read->nodes[i].n_tokens, nodes[i].n_tokens);
        if (nodes[i].n_tokens)
            assert_memory_equal(read->nodes[i].tokens, nodes[i].tokens, 4 * (size_t)nodes[i].n_tokens);
    }
    assert_int_equal(read->n_spans, 3);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(read->spans[i].first_byte, spans[i].first_byte);
        assert_int_equal(read->spans[i].end_byte, spans[i].end_byte);
        assert_int_equal(read->spans[i].first_text, spans[i].first_text);
        assert_int_equal(read->spans[i].end_text, spans[i].end_text);
        assert_int_equal(read->spans[i].use, spans[i].use);
        assert_string_equal(read->spans[i].reason, spans[i].reason);
    }
    assert_null(next(reader));
    assert_null(next(reader));
    results_unload(reader);
}

static void every_field_of_a_run_comes_back(void **state)
{
    (void)state;
    struct results_run run = sample_run(RESULT_SUMMARIZE);
    fill(&run, (const char *[]){"a"}, 1);
    struct results_reader *reader = load();
    const struct results_run *read = results_run_of(reader, 1);
    assert_non_null(read);
    assert_null(results_run_of(reader, 0));
    assert_null(results_run_of(reader, 2));
    assert_int_equal(read->task, run.task);
    assert_string_equal(read->version, run.version);
    assert_string_equal(read->model_path, run.model_path);
    assert_string_equal(read->model_sha256, run.model_sha256);
    assert_string_equal(read->tokenizer_hash, run.tokenizer_hash);
    assert_string_equal(read->architecture, run.architecture);
    assert_string_equal(read->options, run.options);
    assert_string_equal(read->config_hash, run.config_hash);
    assert_string_equal(read->hosts, run.hosts);
    assert_string_equal(read->dtype, run.dtype);
    assert_string_equal(read->started, run.started);
    assert_int_equal(read->ranks, 4);
    assert_int_equal(read->ring_size, 2);
    results_unload(reader);
}

static void text_that_is_not_utf8_comes_back_to_the_byte(void **state)
{
    (void)state;
    static const char raw[] = "caf\xc3 \xff\0 \xed\xa0\x80 end\\x41";
    struct text text = {raw, sizeof raw - 1};
    struct result_node node = {.id = 0, .parent = -1, .kind = RESULT_FINAL, .chunk = 0, .text = text};
    struct result_document document = sample_document("d\xff\\x/\\", 0, "");
    document.text = text;
    document.n_nodes = 1;
    document.nodes = &node;
    struct results_run run = sample_run(RESULT_SUMMARIZE);
    struct results *results = open_store(&run);
    add(results, document);
    publish(results);
    results_close(results);
    struct results_reader *reader = load();
    const struct result_document *read = next(reader);
    assert_string_equal(read->id, "d\xff\\x/\\");
    assert_int_equal(read->text.length, text.length);
    assert_memory_equal(read->text.bytes, raw, text.length);
    assert_int_equal(read->nodes[0].text.length, text.length);
    assert_memory_equal(read->nodes[0].text.bytes, raw, text.length);
    results_unload(reader);
}

static void a_score_of_many_tokens_comes_back(void **state)
{
    (void)state;
    enum { N = 200000 };
    int64_t *position = malloc(N * sizeof *position);
    int32_t *token = malloc(N * sizeof *token), *top1 = malloc(N * sizeof *top1);
    float *logprob = malloc(N * sizeof *logprob);
    for (int i = 0; i < N; i++) {
        position[i] = i + 1;
        token[i] = i * 7 % 49152;
        top1[i] = i % 49152;
        logprob[i] = -(float)(i % 1000) / 37.0f;
    }
    logprob[5] = -INFINITY;
    const struct result_bucket bucket = {0, N + 1, N, 12.5, 1.25};
    struct result_document document = sample_document("long", 0, "");
    document.score = (struct result_score){N, position, token, logprob, top1, 12.5, 1.25, 1, &bucket};
    struct results_run run = sample_run(RESULT_SCORE);
    struct results *results = open_store(&run);
    add(results, document);
    publish(results);
    results_close(results);
    struct results_reader *reader = load();
    assert_int_equal(results_task(reader), RESULT_SCORE);
    const struct result_score *read = &next(reader)->score;
    assert_int_equal(read->count, N);
    assert_memory_equal(read->position, position, N * sizeof *position);
    assert_memory_equal(read->token, token, N * sizeof *token);
    assert_memory_equal(read->logprob, logprob, N * sizeof *logprob);
    assert_memory_equal(read->top1, top1, N * sizeof *top1);
    assert_true(read->nll_sum == 12.5 && read->perplexity == 1.25);
    assert_int_equal(read->n_buckets, 1);
    assert_memory_equal(read->buckets, &bucket, sizeof bucket);
    results_unload(reader);
    free(position);
    free(token);
    free(top1);
    free(logprob);
}

static void documents_come_in_the_order_of_the_corpus(void **state)
{
    (void)state;
    struct results_run run = sample_run(RESULT_SUMMARIZE);
    fill(&run, (const char *[]){"third", "second", "first"}, 3);
    struct results_reader *reader = load();
    assert_int_equal(results_count(reader), 3);
    assert_string_equal(next(reader)->id, "first");
    assert_string_equal(next(reader)->id, "second");
    assert_string_equal(next(reader)->id, "third");
    assert_null(next(reader));
    results_unload(reader);
}

/* ---- going on ---- */

/* Two that are published are told their new places; one that is not there has none. */
static void places_follow_the_corpus(void **state)
{
    (void)state;
    struct results_run run = sample_run(RESULT_SUMMARIZE);
    fill(&run, (const char *[]){"b", "a"}, 2);
    struct results *results = open_store(&run);
    results_place(results, "a", 2);
    results_place(results, "b", 1);
    results_place(results, "elsewhere", 0);
    add(results, sample_document("new", 0, "an answer"));
    publish(results);
    results_close(results);
    struct results_reader *reader = load();
    static const char *const ids[] = {"new", "b", "a"};
    for (int i = 0; i < 3; i++) {
        const struct result_document *document = next(reader);
        assert_string_equal(document->id, ids[i]);
        assert_int_equal(document->order, i);
    }
    assert_null(next(reader));
    results_unload(reader);
}

static void a_second_run_finds_what_the_first_published(void **state)
{
    (void)state;
    struct results_run run = sample_run(RESULT_SUMMARIZE);
    struct results *results = open_store(&run);
    assert_null(results_before(results));
    results_close(results);
    fill(&run, (const char *[]){"a", "b"}, 2);
    results = open_store(&run);
    struct results_entry entry;
    assert_string_equal(results_before(results)->config_hash, "c0ffee");
    assert_int_equal(results_lost(results), 0);
    assert_true(results_find(results, "a", &entry));
    assert_int_equal(entry.status, RESULT_OK);
    assert_int_equal(entry.attempts, 1);
    assert_string_equal(entry.sha256, "abcd");
    assert_false(results_find(results, "c", &entry));
    results_close(results);
}

static void what_was_not_published_is_not_there(void **state)
{
    (void)state;
    struct results_run run = sample_run(RESULT_SUMMARIZE);
    struct results *results = open_store(&run);
    struct results_entry entry;
    add(results, sample_document("a", 0, "x"));
    assert_false(results_find(results, "a", &entry));
    results_close(results);
    assert_false(exists("results.h5"));
    results = open_store(&run);
    publish(results);
    assert_false(exists("results.h5"));
    results_close(results);
}

static void the_later_version_of_a_document_wins_and_keeps_its_number(void **state)
{
    (void)state;
    struct results_run run = sample_run(RESULT_SUMMARIZE);
    struct results *results = open_store(&run);
    struct result_document failed = sample_document("a", 0, "");
    failed.status = RESULT_FAILED;
    failed.reason = "no memory";
    add(results, failed);
    add(results, sample_document("b", 1, "b"));
    publish(results);
    results_close(results);
    run.started = "2026-02-01T00:00:00Z";
    results = open_store(&run);
    add(results, sample_document("c", 2, "c"));
    struct result_document again = sample_document("a", 0, "now");
    again.attempts = 2;
    add(results, again);
    publish(results);
    results_close(results);
    struct results_reader *reader = load();
    assert_int_equal(results_count(reader), 3);
    const struct result_document *read = next(reader);
    assert_string_equal(read->text.bytes, "now");
    assert_int_equal(read->status, RESULT_OK);
    assert_int_equal(read->attempts, 2);
    assert_int_equal(read->number, 1);
    assert_int_equal(read->run, 2);
    assert_string_equal(results_run_of(reader, 2)->started, "2026-02-01T00:00:00Z");
    assert_int_equal(next(reader)->run, 1);
    assert_int_equal(next(reader)->number, 3);
    results_unload(reader);
}

static void a_document_added_twice_in_a_batch_is_refused_and_the_batch_stands(void **state)
{
    (void)state;
    struct error err;
    struct results_run run = sample_run(RESULT_SUMMARIZE);
    struct results *results = open_store(&run);
    struct result_document document = sample_document("a", 0, "x");
    add(results, document);
    assert_int_equal(results_add(results, &document, &err), -1);
    assert_int_equal(err.code, ERROR_INTERNAL);
    publish(results);
    results_close(results);
    struct results_reader *reader = load();
    assert_int_equal(results_count(reader), 1);
    results_unload(reader);
}

static void a_directory_in_use_is_refused(void **state)
{
    (void)state;
    struct error err;
    struct results_run run = sample_run(RESULT_SUMMARIZE);
    struct results *results = open_store(&run);
    assert_null(results_open(directory, &run, &err));
    assert_int_equal(err.code, ERROR_USAGE);
    results_close(results);
}

static void results_of_another_task_are_refused(void **state)
{
    (void)state;
    struct error err;
    struct results_run run = sample_run(RESULT_SUMMARIZE);
    fill(&run, (const char *[]){"a"}, 1);
    run.task = RESULT_SCORE;
    assert_null(results_open(directory, &run, &err));
    assert_int_equal(err.code, ERROR_USAGE);
    assert_non_null(strstr(err.text, "summarize"));
}

static void options_that_are_not_json_are_refused(void **state)
{
    (void)state;
    struct error err;
    struct results_run run = sample_run(RESULT_SUMMARIZE);
    run.options = "{";
    assert_null(results_open(directory, &run, &err));
    assert_int_equal(err.code, ERROR_INTERNAL);
}

static void thousands_of_documents_are_found_again(void **state)
{
    (void)state;
    enum { N = 3000 };
    struct results_run run = sample_run(RESULT_SUMMARIZE);
    struct results *results = open_store(&run);
    char id[32];
    for (int i = 0; i < N; i++) {
        snprintf(id, sizeof id, "doc-%d", i);
        add(results, sample_document(id, i, "text"));
    }
    publish(results);
    results_close(results);
    results = open_store(&run);
    struct results_entry entry;
    for (int i = 0; i < N; i++) {
        snprintf(id, sizeof id, "doc-%d", i);
        assert_true(results_find(results, id, &entry));
    }
    results_close(results);
}

/* ---- other readers ---- */

static void store_for_others(void)
{
    struct results_run run = sample_run(RESULT_SUMMARIZE);
    struct results *results = open_store(&run);
    add(results, rich_document());
    publish(results);
    struct result_document document = sample_document("raw\xff", 4, "caf\xc3 \xff");
    static int64_t position[2000];
    static int32_t token[2000], top1[2000];
    static float logprob[2000];
    const struct result_bucket bucket = {0, 2001, 2000, 0, 1};
    document.score = (struct result_score){2000, position, token, logprob, top1, 0, 1, 1, &bucket};
    add(results, document);
    publish(results);
    results_close(results);
}

static void h5py_finds_what_the_format_promises(void **state)
{
    (void)state;
    store_for_others();
    char command[8 * SAMPLE_PATH];
    snprintf(command, sizeof command,
             "set -- '%s/reference/results.py' --quiet '%s'; python3 \"$@\"; code=$?; "
             "[ $code -ne 77 ] || /usr/bin/python3 \"$@\"",
             TEST_DATA_DIR, directory);
    int status = WEXITSTATUS(system(command));
    if (status == 77 || status == 127) {
        print_message("skipped: no python3 with h5py here\n");
        skip();
    }
    assert_int_equal(status, 0);
}

static void h5dump_follows_the_index_into_the_parts(void **state)
{
    (void)state;
    store_for_others();
    if (system("command -v h5dump >/dev/null") != 0) {
        print_message("skipped: no h5dump here\n");
        skip();
    }
    char command[4 * SAMPLE_PATH];
    snprintf(command, sizeof command, "h5dump -d /documents/00000001/nodes '%s/results.h5' | grep -q 'part one'",
             directory);
    assert_int_equal(system(command), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_directory, remove_directory)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(every_field_of_a_document_comes_back),
        TEST(every_field_of_a_run_comes_back),
        TEST(text_that_is_not_utf8_comes_back_to_the_byte),
        TEST(a_score_of_many_tokens_comes_back),
        TEST(documents_come_in_the_order_of_the_corpus),
        TEST(places_follow_the_corpus),
        TEST(a_second_run_finds_what_the_first_published),
        TEST(what_was_not_published_is_not_there),
        TEST(the_later_version_of_a_document_wins_and_keeps_its_number),
        TEST(a_document_added_twice_in_a_batch_is_refused_and_the_batch_stands),
        TEST(a_directory_in_use_is_refused),
        TEST(results_of_another_task_are_refused),
        TEST(options_that_are_not_json_are_refused),
        TEST(thousands_of_documents_are_found_again),
        TEST(h5py_finds_what_the_format_promises),
        TEST(h5dump_follows_the_index_into_the_parts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
