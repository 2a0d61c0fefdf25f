/* cmocka.h wants these four first */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pipeline/corpus.h"

static const struct corpus_options all = {{NULL, 0}, {NULL, 0}, NULL};

static struct corpus *open_path(const char *path)
{
    struct error err = {ERROR_NONE, ""};
    struct corpus *corpus = corpus_open(&path, 1, &all, &err);
    assert_string_equal(err.text, "");
    assert_non_null(corpus);
    return corpus;
}

static int64_t find(const struct corpus *corpus, const char *id)
{
    for (int64_t i = 0; i < corpus->n_documents; i++) {
        if (strcmp(corpus->documents[i].id, id) == 0)
            return i;
    }
    fail_msg("no document %s", id);
    return -1;
}

static void the_documents_are_listed_in_order_with_totals(void **state)
{
    (void)state;
    static const char *const want[] = {
        "corpus/README.md", "corpus/binary.dat", "corpus/bom.txt",     "corpus/broken.txt",  "corpus/code/sum.c",
        "corpus/empty.txt", "corpus/latin1.txt", "corpus/picture.png", "corpus/utf16le.txt", "corpus/windows.txt"};
    struct corpus *corpus = open_path(TEST_DATA_DIR "/data/corpus");
    int64_t bytes = 0;
    assert_int_equal(corpus->n_documents, sizeof want / sizeof want[0]);
    for (int64_t i = 0; i < corpus->n_documents; i++) {
        assert_string_equal(corpus->documents[i].id, want[i]);
        bytes += corpus->documents[i].fate == WALK_READY ? corpus->documents[i].bytes : 0;
    }
    assert_int_equal(corpus->n_ready, 8);
    assert_int_equal(corpus->ready_bytes, bytes);
    assert_int_equal(corpus->n_left_out, 1);
    assert_string_equal(corpus->left_out[0].id, "corpus/.hidden");
    corpus_free(corpus);
}

static void every_document_is_read_or_says_why_not(void **state)
{
    (void)state;
    static const struct {
        const char *id, *text, *skipped;
        enum encoding encoding;
    } want[] = {
        {"corpus/bom.txt", "With a mark.\r\n", NULL, ENCODING_UTF8},
        {"corpus/broken.txt", "na\u00efve \ufffd \u00e9t\u00e9\n", NULL, ENCODING_UTF8},
        {"corpus/latin1.txt", "Un caf\u00e9 noir, s'il vous pla\u00eet.\n", NULL, ENCODING_LATIN1},
        {"corpus/utf16le.txt", "na\u00efve \u20ac \U0001f600\n", NULL, ENCODING_UTF16_LE},
        {"corpus/windows.txt", "It costs five \u20ac in all.\n", NULL, ENCODING_WINDOWS_1252},
        {"corpus/binary.dat", "", "binary", ENCODING_UTF8},
        {"corpus/empty.txt", "", "empty", ENCODING_UNKNOWN},
        {"corpus/picture.png", "", "format not supported (.png)", ENCODING_UNKNOWN},
    };
    struct corpus *corpus = open_path(TEST_DATA_DIR "/data/corpus");
    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++) {
        struct error err = {ERROR_NONE, ""};
        struct document_text text;
        int64_t index = find(corpus, want[i].id);
        assert_int_equal(corpus_read(corpus, index, &text, &err), 0);
        assert_int_equal(text.length, strlen(want[i].text));
        assert_memory_equal(text.text, want[i].text, text.length);
        assert_int_equal(text.source_bytes, corpus->documents[index].bytes);
        assert_int_equal(text.n_spans > 0 ? text.spans[text.n_spans - 1].end_byte : 0, text.source_bytes);
        if (want[i].skipped) {
            assert_string_equal(text.skipped, want[i].skipped);
        } else {
            assert_null(text.skipped);
            assert_int_equal(text.encoding, want[i].encoding);
            assert_int_equal(strlen(text.sha256), 64);
        }
        document_text_free(&text);
    }
    corpus_free(corpus);
}

static void a_document_that_fails_does_not_fail_the_corpus(void **state)
{
    (void)state;
    char folder[] = "/tmp/longhaul-test-corpus-XXXXXX", path[128], link[128];
    struct error err;
    struct document_text text;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/gone.txt", folder);
    snprintf(link, sizeof link, "%s/lost.txt", folder);
    FILE *file = fopen(path, "w");
    fputs("x", file);
    fclose(file);
    assert_int_equal(symlink("nowhere", link), 0);
    struct corpus *corpus = open_path(folder);
    assert_int_equal(corpus->n_documents, 2);
    assert_int_equal(corpus->n_ready, 1);
    unlink(path);
    assert_int_equal(corpus_read(corpus, 0, &text, &err), -1);
    assert_int_equal(err.code, ERROR_IO);
    assert_non_null(strstr(err.text, path));
    document_text_free(&text);
    assert_int_equal(corpus_read(corpus, 1, &text, &err), -1);
    assert_non_null(strstr(err.text, link));
    document_text_free(&text);
    corpus_free(corpus);
    unlink(link);
    rmdir(folder);
}

static void nothing_to_read_is_an_input_error_that_says_what_was_found(void **state)
{
    (void)state;
    struct error err;
    const char *const paths[] = {TEST_DATA_DIR "/data/corpus/picture.png", TEST_DATA_DIR "/data/corpus/empty.txt"};
    assert_null(corpus_open(paths, 2, &all, &err));
    assert_int_equal(err.code, ERROR_INPUT);
    assert_non_null(strstr(err.text, "data/corpus/picture.png and 1 more: 2 found"));
    assert_non_null(strstr(err.text, "(picture.png: format not supported (.png))"));
}

static void a_missing_path_is_an_error_that_names_it(void **state)
{
    (void)state;
    struct error err;
    const char *const paths[] = {TEST_DATA_DIR "/data/corpus", "/nowhere/at/all"};
    assert_null(corpus_open(paths, 2, &all, &err));
    assert_int_equal(err.code, ERROR_IO);
    assert_non_null(strstr(err.text, "/nowhere/at/all"));
}

static void globs_choose_the_documents(void **state)
{
    (void)state;
    struct error err;
    const char *const path = TEST_DATA_DIR "/data/corpus", *const c_files[] = {"*.c"};
    const struct corpus_options options = {{c_files, 1}, {NULL, 0}, NULL};
    struct corpus *corpus = corpus_open(&path, 1, &options, &err);
    assert_non_null(corpus);
    assert_int_equal(corpus->n_documents, 1);
    assert_string_equal(corpus->documents[0].id, "corpus/code/sum.c");
    corpus_free(corpus);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_documents_are_listed_in_order_with_totals),
        cmocka_unit_test(every_document_is_read_or_says_why_not),
        cmocka_unit_test(a_document_that_fails_does_not_fail_the_corpus),
        cmocka_unit_test(nothing_to_read_is_an_input_error_that_says_what_was_found),
        cmocka_unit_test(a_missing_path_is_an_error_that_names_it),
        cmocka_unit_test(globs_choose_the_documents),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
