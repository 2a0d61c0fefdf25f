/* The store and files that are damaged, cut short, lost or left behind. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sys/stat.h>

#include "tests/unit/results_store.h"

static void damage(const char *name, long offset)
{
    FILE *file = fopen(path_of(name), "r+");
    assert_non_null(file);
    fseek(file, offset, SEEK_SET);
    int byte = fgetc(file);
    fseek(file, offset, SEEK_SET);
    fputc(byte ^ 1, file);
    fclose(file);
}

static void copy_file(const char *from, const char *to)
{
    char command[4 * SAMPLE_PATH];
    snprintf(command, sizeof command, "cp '%s/%s' '%s/%s'", directory, from, directory, to);
    assert_int_equal(system(command), 0);
}

static void a_flipped_bit_anywhere_in_the_index_is_found(void **state)
{
    (void)state;
    struct error err;
    struct results_run run = sample_run(RESULT_SUMMARIZE);
    fill(&run, (const char *[]){"a"}, 1);
    struct stat file;
    stat(path_of("results.h5"), &file);
    /* The last byte of the seal's line, then every 97th byte of the HDF5 file behind it. */
    for (long at = 100; at < file.st_size; at = at < 512 ? 512 : at + 97) {
        damage("results.h5", at);
        assert_null(results_load(directory, &err));
        assert_int_equal(err.code, ERROR_INPUT);
        damage("results.h5", at);
    }
    results_unload(load());
}

static void a_flipped_bit_anywhere_in_a_part_is_found(void **state)
{
    (void)state;
    struct error err;
    struct results_run run = sample_run(RESULT_SUMMARIZE);
    fill(&run, (const char *[]){"a"}, 1);
    struct stat file;
    stat(path_of("parts/part-000001.h5"), &file);
    for (long at = 0; at < file.st_size; at += 211) {
        damage("parts/part-000001.h5", at);
        struct results_reader *reader = load();
        const struct result_document *document;
        assert_int_equal(results_next(reader, &document, &err), -1);
        assert_null(document);
        assert_int_equal(err.code, ERROR_INPUT);
        assert_non_null(strstr(err.text, "part-000001.h5"));
        results_unload(reader);
        damage("parts/part-000001.h5", at);
    }
    damage("parts/part-000001.h5", 1000);
    assert_null(results_open(directory, &run, &err));
    assert_int_equal(err.code, ERROR_INPUT);
}

static void a_truncated_file_is_found(void **state)
{
    (void)state;
    struct error err;
    struct results_run run = sample_run(RESULT_SUMMARIZE);
    fill(&run, (const char *[]){"a"}, 1);
    for (int size = 1200; size >= 0; size -= 100) {
        assert_int_equal(truncate(path_of("results.h5"), size), 0);
        assert_null(results_load(directory, &err));
        assert_int_equal(err.code, ERROR_INPUT);
    }
}

static void a_directory_without_results_is_an_error_that_names_the_file(void **state)
{
    (void)state;
    struct error err;
    assert_null(results_load(directory, &err));
    assert_non_null(strstr(err.text, "results.h5"));
}

static void documents_of_a_part_that_is_gone_are_done_again(void **state)
{
    (void)state;
    struct results_run run = sample_run(RESULT_SUMMARIZE);
    fill(&run, (const char *[]){"a", "b", "c"}, 3);
    unlink(path_of("parts/part-000002.h5"));
    struct results *results = open_store(&run);
    struct results_entry entry;
    assert_int_equal(results_lost(results), 1);
    assert_true(results_find(results, "a", &entry));
    assert_false(results_find(results, "b", &entry));
    assert_true(results_find(results, "c", &entry));
    add(results, sample_document("b", 2, "again"));
    publish(results);
    results_close(results);
    struct results_reader *reader = load();
    assert_string_equal(next(reader)->id, "c");
    assert_string_equal(next(reader)->text.bytes, "again");
    assert_string_equal(next(reader)->id, "a");
    results_unload(reader);
}

static void what_a_kill_between_part_and_index_left_is_removed(void **state)
{
    (void)state;
    struct results_run run = sample_run(RESULT_SUMMARIZE);
    fill(&run, (const char *[]){"a"}, 1);
    copy_file("parts/part-000001.h5", "parts/part-000002.h5");
    copy_file("parts/part-000001.h5", "parts/part-000002.h5.77.tmp");
    copy_file("results.h5", "results.h5.77.tmp");
    copy_file("results.h5", "notes.tmp");
    struct results_reader *reader = load();
    assert_int_equal(results_count(reader), 1);
    results_unload(reader);
    results_close(open_store(&run));
    assert_true(exists("parts/part-000001.h5"));
    assert_false(exists("parts/part-000002.h5"));
    assert_false(exists("parts/part-000002.h5.77.tmp"));
    assert_false(exists("results.h5.77.tmp"));
    assert_true(exists("notes.tmp"));
}

static void parts_are_not_thrown_away_when_the_index_is_lost(void **state)
{
    (void)state;
    struct error err;
    struct results_run run = sample_run(RESULT_SUMMARIZE);
    fill(&run, (const char *[]){"a", "b"}, 2);
    unlink(path_of("results.h5"));
    assert_null(results_open(directory, &run, &err));
    assert_int_equal(err.code, ERROR_INPUT);
    assert_non_null(strstr(err.text, "part-000002.h5"));
    assert_true(exists("parts/part-000001.h5"));
    assert_true(exists("parts/part-000002.h5"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_directory, remove_directory)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_flipped_bit_anywhere_in_the_index_is_found),
        TEST(a_flipped_bit_anywhere_in_a_part_is_found),
        TEST(a_truncated_file_is_found),
        TEST(a_directory_without_results_is_an_error_that_names_the_file),
        TEST(documents_of_a_part_that_is_gone_are_done_again),
        TEST(what_a_kill_between_part_and_index_left_is_removed),
        TEST(parts_are_not_thrown_away_when_the_index_is_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
