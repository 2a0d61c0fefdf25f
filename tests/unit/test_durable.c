#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "io/durable.h"
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

static const char *inside(const char *name)
{
    static char path[2 * SAMPLE_PATH];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    return path;
}

static int entries(void)
{
    int n = 0;
    DIR *open = opendir(directory);
    for (struct dirent *entry; (entry = readdir(open));)
        n += entry->d_name[0] != '.';
    closedir(open);
    return n;
}

static void assert_holds(const char *path, const char *expected)
{
    struct error err;
    struct durable_bytes got;
    assert_int_equal(durable_read(path, &got, &err), 0);
    assert_int_equal(got.size, strlen(expected));
    assert_memory_equal(got.bytes, expected, got.size);
    free(got.bytes);
}

static void a_published_file_replaces_the_one_before(void **state)
{
    (void)state;
    struct error err;
    assert_int_equal(durable_write(inside("a"), "one", 3, &err), 0);
    assert_int_equal(durable_write(inside("a"), "second", 6, &err), 0);
    assert_holds(inside("a"), "second");
    assert_int_equal(entries(), 1);
}

static void a_file_of_no_bytes_can_be_published(void **state)
{
    (void)state;
    struct error err;
    assert_int_equal(durable_write(inside("empty"), NULL, 0, &err), 0);
    assert_holds(inside("empty"), "");
}

static void an_abandoned_file_leaves_the_one_before_and_no_temporary(void **state)
{
    (void)state;
    struct error err;
    assert_int_equal(durable_write(inside("a"), "one", 3, &err), 0);
    struct durable *file = durable_create(inside("a"), &err);
    assert_non_null(file);
    fputs("half of", durable_stream(file));
    durable_abandon(file);
    durable_abandon(NULL);
    assert_holds(inside("a"), "one");
    assert_int_equal(entries(), 1);
}

static void a_write_that_stops_short_is_an_error_and_leaves_the_one_before(void **state)
{
    (void)state;
    struct error err;
    static char large[1 << 20];
    assert_int_equal(durable_write(inside("a"), "one", 3, &err), 0);
    struct rlimit before, small = {.rlim_cur = 65536};
    getrlimit(RLIMIT_FSIZE, &before);
    small.rlim_max = before.rlim_max;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    int status = durable_write(inside("a"), large, sizeof large, &err);
    setrlimit(RLIMIT_FSIZE, &before);
    assert_int_equal(status, -1);
    assert_int_equal(err.code, ERROR_IO);
    assert_non_null(strstr(err.text, "File too large"));
    assert_holds(inside("a"), "one");
    assert_int_equal(entries(), 1);
}

static void a_write_that_failed_unseen_is_found_when_publishing(void **state)
{
    (void)state;
    struct error err;
    struct rlimit before, small = {.rlim_cur = 65536};
    getrlimit(RLIMIT_FSIZE, &before);
    small.rlim_max = before.rlim_max;
    signal(SIGXFSZ, SIG_IGN);
    struct durable *file = durable_create(inside("a"), &err);
    assert_non_null(file);
    setrlimit(RLIMIT_FSIZE, &small);
    for (int i = 0; i < 100000; i++)
        fputc('x', durable_stream(file));
    setrlimit(RLIMIT_FSIZE, &before);
    assert_int_equal(durable_publish(file, &err), -1);
    assert_int_equal(entries(), 0);
}

static void a_missing_directory_is_an_error_that_names_the_file(void **state)
{
    (void)state;
    struct error err;
    assert_int_equal(durable_write(inside("no/such"), "x", 1, &err), -1);
    assert_int_equal(err.code, ERROR_IO);
    assert_non_null(strstr(err.text, "no/such"));
}

static void directories_are_made_all_the_way_down_and_twice(void **state)
{
    (void)state;
    struct error err;
    assert_int_equal(durable_make_directories(inside("x/y//z/"), &err), 0);
    assert_int_equal(durable_make_directories(inside("x/y/z"), &err), 0);
    assert_int_equal(durable_write(inside("x/y/z/file"), "1", 1, &err), 0);
}

static void a_file_in_the_way_of_a_directory_is_an_error(void **state)
{
    (void)state;
    struct error err;
    assert_int_equal(durable_write(inside("file"), "1", 1, &err), 0);
    assert_int_equal(durable_make_directories(inside("file/below"), &err), -1);
    assert_non_null(strstr(err.text, "Not a directory"));
}

static void a_directory_that_is_locked_cannot_be_locked_again(void **state)
{
    (void)state;
    struct error err;
    struct durable_lock *first = durable_lock_take(directory, &err);
    assert_non_null(first);
    assert_null(durable_lock_take(directory, &err));
    assert_int_equal(err.code, ERROR_USAGE);
    char holder[64];
    snprintf(holder, sizeof holder, "process %ld on ", (long)getpid());
    assert_non_null(strstr(err.text, holder));
    durable_lock_release(first);
    first = durable_lock_take(directory, &err);
    assert_non_null(first);
    durable_lock_release(first);
}

static void a_lock_ends_with_its_process(void **state)
{
    (void)state;
    struct error err;
    int ready[2];
    assert_int_equal(pipe(ready), 0);
    pid_t child = fork();
    if (child == 0) {
        char ok = durable_lock_take(directory, &err) ? 'y' : 'n';
        if (write(ready[1], &ok, 1) != 1)
            _exit(1);
        pause();
    }
    char ok = 'n';
    assert_int_equal(read(ready[0], &ok, 1), 1);
    assert_int_equal(ok, 'y');
    assert_null(durable_lock_take(directory, &err));
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    struct durable_lock *lock = durable_lock_take(directory, &err);
    assert_non_null(lock);
    durable_lock_release(lock);
    close(ready[0]);
    close(ready[1]);
}

static void removing_what_is_not_there_is_no_error(void **state)
{
    (void)state;
    struct error err;
    assert_int_equal(durable_write(inside("a"), "one", 3, &err), 0);
    assert_int_equal(durable_remove(inside("a"), &err), 0);
    assert_int_equal(durable_remove(inside("a"), &err), 0);
    assert_int_equal(entries(), 0);
}

static void a_directory_is_not_read_as_a_file(void **state)
{
    (void)state;
    struct error err;
    struct durable_bytes got;
    assert_int_equal(durable_read(directory, &got, &err), -1);
    assert_int_equal(err.code, ERROR_INPUT);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_directory, remove_directory)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_published_file_replaces_the_one_before),
        TEST(a_file_of_no_bytes_can_be_published),
        TEST(an_abandoned_file_leaves_the_one_before_and_no_temporary),
        TEST(a_write_that_stops_short_is_an_error_and_leaves_the_one_before),
        TEST(a_write_that_failed_unseen_is_found_when_publishing),
        TEST(a_missing_directory_is_an_error_that_names_the_file),
        TEST(directories_are_made_all_the_way_down_and_twice),
        TEST(a_file_in_the_way_of_a_directory_is_an_error),
        TEST(a_directory_that_is_locked_cannot_be_locked_again),
        TEST(a_lock_ends_with_its_process),
        TEST(removing_what_is_not_there_is_no_error),
        TEST(a_directory_is_not_read_as_a_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
