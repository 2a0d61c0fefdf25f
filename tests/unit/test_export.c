#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cjson/cJSON.h>
#include <cmocka.h>
#include <math.h>

#include "io/export.h"
#include "tests/unit/results_sample.h"

static char directory[SAMPLE_PATH];

static int make_directory(void **state)
{
    (void)state;
    sample_directory(directory);
    return 0;
}

static int remove_directory(void **state)
{
    (void)state;
    sample_remove(directory);
    return 0;
}

static void store(enum result_task task, const struct result_document *documents, int n)
{
    struct error err;
    struct results_run run = sample_run(task);
    struct results *results = results_open(directory, &run, &err);
    assert_non_null(results);
    for (int i = 0; i < n; i++)
        assert_int_equal(results_add(results, &documents[i], &err), 0);
    assert_int_equal(results_publish(results, &err), 0);
    results_close(results);
}

/* The export as a string to be freed. */
static char *exported(enum export_format format)
{
    struct error err;
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    if (export_write(directory, format, out, &err))
        fail_msg("%s", err.text);
    fclose(out);
    return text;
}

/* The string at a path of names, "" when it is not one. */
static const char *json_string(const cJSON *object, const char *const *path)
{
    for (; *path; path++)
        object = cJSON_GetObjectItemCaseSensitive(object, *path);
    return cJSON_IsString(object) ? object->valuestring : "";
}

static double json_number(const cJSON *object, const char *outer, const char *name)
{
    return cJSON_GetNumberValue(
        cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(object, outer), name));
}

static void a_summary_has_the_shape_of_a_batch_answer(void **state)
{
    (void)state;
    const struct result_chunk chunk = {0, 0, 30, 0, 100, 0};
    const struct result_node node = {
        0, -1, 0, RESULT_FINAL, 0, 40, 5, (const int32_t[]){1, 2, 3, 4, 5}, sample_text("x"), "stop"};
    const struct document_span span = {0, 100, 0, 100, DOCUMENT_USED, ""};
    struct result_document document = sample_document("books/\"one\",\xc3\xa9.txt", 0, "It ends\nwell\xff.");
    document.timings = (struct result_timings){1.5, 0.5, 2, 40, 5};
    document.tokens_forgotten = 7;
    document.n_chunks = document.n_nodes = document.n_spans = 1;
    document.chunks = &chunk;
    document.nodes = &node;
    document.spans = &span;
    store(RESULT_SUMMARIZE, &document, 1);
    char *text = exported(EXPORT_AUTO);
    assert_int_equal(strcspn(text, "\n"), strlen(text) - 1);
    cJSON *line = cJSON_Parse(text);
    assert_non_null(line);
    assert_string_equal(json_string(line, (const char *[]){"id", NULL}), "longhaul-00000001");
    assert_string_equal(json_string(line, (const char *[]){"custom_id", NULL}), document.id);
    assert_true(cJSON_IsNull(cJSON_GetObjectItem(line, "error")));
    const cJSON *body = cJSON_GetObjectItem(cJSON_GetObjectItem(line, "response"), "body");
    const cJSON *choice = cJSON_GetArrayItem(cJSON_GetObjectItem(body, "choices"), 0);
    assert_string_equal(json_string(choice, (const char *[]){"message", "content", NULL}),
                        "It ends\nwell\xef\xbf\xbd.");
    assert_string_equal(json_string(choice, (const char *[]){"finish_reason", NULL}), "stop");
    assert_true(json_number(body, "usage", "prompt_tokens") == 40);
    assert_true(json_number(body, "usage", "total_tokens") == 45);
    assert_true(cJSON_GetNumberValue(cJSON_GetObjectItem(body, "created")) == 1769860800);
    const cJSON *own = cJSON_GetObjectItem(line, "longhaul");
    assert_string_equal(json_string(own, (const char *[]){"status", NULL}), "ok");
    assert_true(json_number(own, "tokens", "used") == 30);
    assert_true(json_number(own, "tokens", "forgotten") == 7);
    assert_string_equal(
        json_string(cJSON_GetArrayItem(cJSON_GetObjectItem(own, "nodes"), 0), (const char *[]){"kind", NULL}),
        "final");
    assert_string_equal(
        json_string(cJSON_GetArrayItem(cJSON_GetObjectItem(own, "ledger"), 0), (const char *[]){"use", NULL}),
        "used");
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(own, "chunks")), 1);
    cJSON_Delete(line);
    free(text);
}

static void a_failed_document_is_an_error_without_a_response(void **state)
{
    (void)state;
    struct result_document document = sample_document("bad", 0, "");
    document.status = RESULT_FAILED;
    document.reason = "not a text";
    store(RESULT_SUMMARIZE, &document, 1);
    char *text = exported(EXPORT_JSONL);
    cJSON *line = cJSON_Parse(text);
    assert_true(cJSON_IsNull(cJSON_GetObjectItem(line, "response")));
    assert_string_equal(json_string(line, (const char *[]){"error", "code", NULL}), "failed");
    assert_string_equal(json_string(line, (const char *[]){"error", "message", NULL}), "not a text");
    cJSON_Delete(line);
    free(text);
}

static void markdown_has_a_section_for_each_document(void **state)
{
    (void)state;
    static const int32_t tokens[] = {504, 3};
    struct result_document documents[] = {sample_document("b", 1, "Second."),
                                          sample_document("a\n# x", 0, "First.")};
    documents[0].status = RESULT_PARTIAL;
    documents[0].reason = "3 tokens dropped";
    documents[0].tokens_dropped = 3;
    documents[0].tokens_forgotten = 2;
    documents[0].path = "\xc3\xa9/\xe2\x82.txt";
    documents[0].finish_reason = "length";
    documents[0].tokens = tokens;
    documents[0].n_tokens = 2;
    store(RESULT_SUMMARIZE, documents, 2);
    char *text = exported(EXPORT_MD);
    assert_string_equal(
        text, "# Summaries\n\n"
              "## a # x\n\n- source: a # x\n- tokens: 30 in, 30 used, 0 dropped\n- status: ok\n"
              "- strategy: whole, 0 chunks, 0 generated texts\n- model: /models/tiny.gguf\n\n"
              "First.\n\n"
              "## b\n\n- source: \xc3\xa9/\xef\xbf\xbd.txt\n- tokens: 30 in, 30 used, 3 dropped, 2 forgotten\n"
              "- status: partial: 3 tokens dropped\n- answer: cut off at 2 tokens (--max-new)\n"
              "- strategy: whole, 0 chunks, 0 generated texts\n- model: /models/tiny.gguf\n\n"
              "Second.\n\n");
    free(text);
}

static void a_score_is_one_csv_line_a_token(void **state)
{
    (void)state;
    const int64_t position[] = {1, 2};
    const int32_t token[] = {504, 3}, top1[] = {504, 11};
    const float logprob[] = {-0.1f, -12.345678f};
    struct result_document documents[] = {sample_document("plain", 1, ""), sample_document("a,\"b\"", 0, "")};
    for (int i = 0; i < 2; i++)
        documents[i].score = (struct result_score){2, position, token, logprob, top1, 12.4, 500, 0, NULL};
    store(RESULT_SCORE, documents, 2);
    char *text = exported(EXPORT_AUTO);
    assert_string_equal(text, "doc,position,token,logprob,top1\n"
                              "\"a,\"\"b\"\"\",1,504,-0.100000001,504\n"
                              "\"a,\"\"b\"\"\",2,3,-12.3456783,11\n"
                              "plain,1,504,-0.100000001,504\n"
                              "plain,2,3,-12.3456783,11\n");
    free(text);
}

/* Two tokens in two buckets. */
static struct result_document scored_document(void)
{
    static const int64_t position[] = {1, 1024};
    static const int32_t token[] = {504, 3};
    static const float logprob[] = {-1, -3};
    static const struct result_bucket buckets[] = {{0, 1024, 1, 1, 2.5}, {1024, 1025, 1, 3, 20.25}};
    struct result_document document = sample_document("a", 0, "");
    document.score = (struct result_score){2, position, token, logprob, token, 4, 7.5, 2, buckets};
    return document;
}

static void a_score_in_markdown_has_a_row_for_each_bucket(void **state)
{
    (void)state;
    const struct result_document document = scored_document();
    store(RESULT_SCORE, &document, 1);
    char *text = exported(EXPORT_MD);
    assert_string_equal(text, "# Scores\n\n"
                              "## a\n\n- source: a\n- tokens: 30 in, 30 used, 0 dropped\n- status: ok\n"
                              "- strategy: whole, 0 chunks\n- model: /models/tiny.gguf\n\n"
                              "Perplexity 7.5 over 2 tokens.\n\n"
                              "| positions | tokens | perplexity |\n|---|---|---|\n"
                              "| 0 - 1023 | 1 | 2.5 |\n| 1024 - 1024 | 1 | 20.25 |\n\n");
    free(text);
}

static void a_score_in_jsonl_has_its_buckets_and_no_response(void **state)
{
    (void)state;
    const struct result_document document = scored_document();
    store(RESULT_SCORE, &document, 1);
    char *text = exported(EXPORT_JSONL);
    cJSON *line = cJSON_Parse(text);
    assert_true(cJSON_IsNull(cJSON_GetObjectItem(line, "response")));
    assert_true(cJSON_IsNull(cJSON_GetObjectItem(line, "error")));
    const cJSON *score = cJSON_GetObjectItem(cJSON_GetObjectItem(line, "longhaul"), "score");
    assert_true(cJSON_GetNumberValue(cJSON_GetObjectItem(score, "perplexity")) == 7.5);
    const cJSON *buckets = cJSON_GetObjectItem(score, "buckets");
    assert_int_equal(cJSON_GetArraySize(buckets), 2);
    assert_true(cJSON_GetNumberValue(cJSON_GetObjectItem(cJSON_GetArrayItem(buckets, 1), "first_position")) ==
                1024);
    cJSON_Delete(line);
    free(text);
}

static void a_receipt_is_told_in_both_forms(void **state)
{
    (void)state;
    struct result_document document = sample_document("a", 0, "x");
    document.receipt = (struct result_receipt){.policy = "sinks:window=64",
                                               .reference = "full",
                                               .tokens = 900,
                                               .predictions = 64,
                                               .mean_loss = 0.25,
                                               .worst_loss = 2.5,
                                               .worst_loss_position = 17,
                                               .perplexity = 3,
                                               .reference_perplexity = 2,
                                               .probes = 64,
                                               .mean_kl = 0.125,
                                               .worst_kl = 1.5,
                                               .worst_kl_position = 30,
                                               .bytes = 100,
                                               .reference_bytes = 400,
                                               .ratio = 4};
    store(RESULT_SUMMARIZE, &document, 1);
    char *text = exported(EXPORT_MD);
    assert_non_null(strstr(text,
                           "\n- receipt: sinks:window=64 against full, on 900 tokens: loss 0.25 nats a token "
                           "(mean of 64; worst 2.5 at position 17), KL 0.125 nats (mean of 64 probes; worst 1.5 "
                           "at position 30), memory 100 bytes in place of 400 (ratio 4.00)\n\n"));
    free(text);
    text = exported(EXPORT_JSONL);
    cJSON *line = cJSON_Parse(text);
    const cJSON *receipt = cJSON_GetObjectItem(cJSON_GetObjectItem(line, "longhaul"), "receipt");
    assert_string_equal(json_string(receipt, (const char *[]){"reference", NULL}), "full");
    assert_true(cJSON_GetNumberValue(cJSON_GetObjectItem(receipt, "worst_loss_position")) == 17);
    assert_true(cJSON_GetNumberValue(cJSON_GetObjectItem(receipt, "mean_kl")) == 0.125);
    cJSON_Delete(line);
    free(text);
}

static void a_receipt_of_nothing_has_no_numbers(void **state)
{
    (void)state;
    struct result_document document = sample_document("a", 0, "x");
    document.receipt = (struct result_receipt){.policy = "sinks:window=9000",
                                               .reference = "full",
                                               .tokens = 900,
                                               .mean_loss = NAN,
                                               .worst_loss = NAN,
                                               .perplexity = NAN,
                                               .reference_perplexity = NAN,
                                               .mean_kl = NAN,
                                               .worst_kl = NAN,
                                               .ratio = NAN};
    store(RESULT_SUMMARIZE, &document, 1);
    char *text = exported(EXPORT_MD);
    assert_non_null(strstr(text,
                           "\n- receipt: sinks:window=9000 against full: nothing had left the memory after 900 "
                           "tokens, so nothing was measured\n\n"));
    free(text);
    text = exported(EXPORT_JSONL);
    cJSON *line = cJSON_Parse(text);
    const cJSON *receipt = cJSON_GetObjectItem(cJSON_GetObjectItem(line, "longhaul"), "receipt");
    assert_true(cJSON_IsNull(cJSON_GetObjectItem(receipt, "mean_loss")));
    assert_true(cJSON_IsNull(cJSON_GetObjectItem(receipt, "ratio")));
    assert_true(cJSON_GetNumberValue(cJSON_GetObjectItem(receipt, "probes")) == 0);
    cJSON_Delete(line);
    free(text);
}

static void a_format_that_does_not_fit_the_task_is_a_usage_error(void **state)
{
    (void)state;
    struct error err;
    struct result_document document = sample_document("a", 0, "x");
    store(RESULT_SUMMARIZE, &document, 1);
    FILE *out = fopen("/dev/null", "w");
    assert_int_equal(export_write(directory, EXPORT_CSV, out, &err), -1);
    assert_int_equal(err.code, ERROR_USAGE);
    assert_non_null(strstr(err.text, "csv is for the results of score"));
    fclose(out);
}

static void a_full_disk_is_an_error(void **state)
{
    (void)state;
    struct error err;
    struct result_document document = sample_document("a", 0, "x");
    store(RESULT_SUMMARIZE, &document, 1);
    FILE *out = fopen("/dev/full", "w");
    if (!out)
        skip();
    assert_int_equal(export_write(directory, EXPORT_JSONL, out, &err), -1);
    assert_int_equal(err.code, ERROR_RESOURCE);
    fclose(out);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_directory, remove_directory)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_summary_has_the_shape_of_a_batch_answer),
        TEST(a_failed_document_is_an_error_without_a_response),
        TEST(markdown_has_a_section_for_each_document),
        TEST(a_score_is_one_csv_line_a_token),
        TEST(a_score_in_markdown_has_a_row_for_each_bucket),
        TEST(a_score_in_jsonl_has_its_buckets_and_no_response),
        TEST(a_receipt_is_told_in_both_forms),
        TEST(a_receipt_of_nothing_has_no_numbers),
        TEST(a_format_that_does_not_fit_the_task_is_a_usage_error),
        TEST(a_full_disk_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
