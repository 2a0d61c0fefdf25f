/* The store under kills, full disks and directories that cannot be written to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "tests/unit/results_store.h"

static const char *answer_of(int i)
{
    static char answer[4096];
    for (size_t at = 0; at < sizeof answer - 1; at++)
        answer[at] = (char)('a' + (at * 31 + (size_t)i * 7) % 26);
    answer[sizeof answer - 1] = '\0';
    return answer;
}

static int publish_one(struct results *results, int i, struct error *err)
{
    char id[32];
    snprintf(id, sizeof id, "doc-%05d", i);
    struct result_document document = sample_document(id, i, answer_of(i));
    return results_add(results, &document, err) || results_publish(results, err) ? -1 : 0;
}

/* The child of a kill: goes on where the directory stands, telling each document that it has published. */
static void write_until_killed(int tell)
{
    struct error err;
    struct results_run run = sample_run(RESULT_SUMMARIZE);
    struct results *results = results_open(directory, &run, &err);
    if (!results)
        _exit(1);
    struct results_entry entry;
    char id[32];
    for (int i = 0;; i++) {
        snprintf(id, sizeof id, "doc-%05d", i);
        if (results_find(results, id, &entry))
            continue;
        if (publish_one(results, i, &err) || write(tell, &i, sizeof i) != sizeof i)
            _exit(1);
    }
}

/* Run that child and kill it `microseconds` after it has published `head_start` documents; the number of documents
 * it said were published, or -1. */
static int run_and_kill(int head_start, long microseconds)
{
    int told[2], last, published = 0;
    if (pipe(told) != 0)
        return -1;
    pid_t child = fork();
    if (child == 0)
        write_until_killed(told[1]);
    close(told[1]);
    while (head_start-- > 0 && read(told[0], &last, sizeof last) == sizeof last)
        published = last + 1;
    nanosleep(&(struct timespec){0, microseconds * 1000}, NULL);
    kill(child, SIGKILL);
    int status;
    waitpid(child, &status, 0);
    while (read(told[0], &last, sizeof last) == sizeof last)
        published = last + 1;
    close(told[0]);
    return WIFSIGNALED(status) ? published : -1;
}

/* Every document that is listed is whole; returns how many there are. */
static int check_all_whole(void)
{
    struct error err;
    char index[2 * SAMPLE_PATH];
    snprintf(index, sizeof index, "%s/results.h5", directory);
    if (access(index, F_OK) != 0)
        return 0;
    struct results_reader *reader = results_load(directory, &err);
    if (!reader)
        fail_msg("%s", err.text);
    const struct result_document *document;
    int n = 0;
    while (results_next(reader, &document, &err) == 0 && document) {
        assert_int_equal(document->order, n);
        assert_string_equal(document->text.bytes, answer_of(n));
        n++;
    }
    assert_int_equal(n, results_count(reader));
    results_unload(reader);
    return n;
}

static int files_in(const char *folder, const char *ending)
{
    char path[2 * SAMPLE_PATH];
    snprintf(path, sizeof path, "%s/%s", directory, folder);
    DIR *open = opendir(path);
    if (!open)
        return 0;
    int n = 0;
    for (struct dirent *entry; (entry = readdir(open));) {
        size_t length = strlen(entry->d_name), tail = strlen(ending);
        n += length > tail && strcmp(entry->d_name + length - tail, ending) == 0;
    }
    closedir(open);
    return n;
}

static void a_writer_killed_at_any_instant_loses_nothing_that_it_published(void **state)
{
    (void)state;
    unsigned seed = (unsigned)time(NULL);
    print_message("seed %u\n", seed);
    srand(seed);
    int most = 0;
    for (int round = 0; round < 40; round++) {
        int published = run_and_kill(round % 3, rand() % 30000);
        assert_true(published >= 0);
        int listed = check_all_whole();
        most = published > most ? published : most;
        /* One more may be listed than the child had time to tell. */
        assert_true(listed >= most);
        most = listed;
    }
    struct error err;
    struct results_run run = sample_run(RESULT_SUMMARIZE);
    struct results *results = results_open(directory, &run, &err);
    assert_non_null(results);
    assert_int_equal(results_lost(results), 0);
    results_close(results);
    print_message("%d documents published over 40 kills\n", most);
    assert_int_equal(files_in("parts", ".h5"), most);
    assert_int_equal(files_in("parts", ".tmp") + files_in(".", ".tmp"), 0);
}

static void a_write_cut_short_leaves_the_earlier_results_and_can_be_tried_again(void **state)
{
    (void)state;
    struct error err;
    struct results_run run = sample_run(RESULT_SUMMARIZE);
    struct results *results = results_open(directory, &run, &err);
    assert_non_null(results);
    assert_int_equal(publish_one(results, 0, &err), 0);
    struct rlimit before, small = {.rlim_cur = 4096};
    getrlimit(RLIMIT_FSIZE, &before);
    small.rlim_max = before.rlim_max;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    int status = publish_one(results, 1, &err);
    setrlimit(RLIMIT_FSIZE, &before);
    assert_int_equal(status, -1);
    assert_int_equal(err.code, ERROR_IO);
    assert_int_equal(check_all_whole(), 1);
    assert_int_equal(files_in("parts", ".tmp") + files_in(".", ".tmp"), 0);
    assert_int_equal(publish_one(results, 2, &err), 0); /* with 1, which was still waiting */
    results_close(results);
    assert_int_equal(check_all_whole(), 3);
}

static void a_part_without_room_for_its_index_is_listed_by_the_next_try(void **state)
{
    (void)state;
    struct error err;
    struct results_run run = sample_run(RESULT_SUMMARIZE);
    struct results *results = results_open(directory, &run, &err);
    assert_non_null(results);
    assert_int_equal(publish_one(results, 0, &err), 0);
    char index[2 * SAMPLE_PATH], aside[2 * SAMPLE_PATH + 8];
    snprintf(index, sizeof index, "%s/results.h5", directory);
    snprintf(aside, sizeof aside, "%s.aside", index);
    /* A directory in its place: the rename of the index fails, after the part has been published. */
    assert_int_equal(rename(index, aside), 0);
    assert_int_equal(mkdir(index, 0777), 0);
    assert_int_equal(publish_one(results, 1, &err), -1);
    assert_int_equal(err.code, ERROR_IO);
    assert_int_equal(rmdir(index), 0);
    assert_int_equal(rename(aside, index), 0);
    assert_int_equal(check_all_whole(), 1);
    assert_int_equal(files_in("parts", ".h5"), 2);
    assert_int_equal(publish_one(results, 2, &err), 0);
    results_close(results);
    assert_int_equal(check_all_whole(), 3);
    assert_int_equal(files_in("parts", ".h5"), 2);
}

/* Runs `check` in a child that sees a tmpfs of the given options in place of the directory: 77 where mounting is
 * not permitted, else what `check` returned. */
static int on_a_mount(const char *options, int (*check)(void))
{
    pid_t child = fork();
    if (child == 0) {
        if ((unshare(CLONE_NEWNS) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) ||
            mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
            mount("none", directory, "tmpfs", 0, options) != 0)
            _exit(77);
        _exit(check());
    }
    int status;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* Publishes until the disk is full; each failure below has its own number. */
static int fill_the_disk(void)
{
    struct error err;
    struct results_run run = sample_run(RESULT_SUMMARIZE);
    struct results *results = results_open(directory, &run, &err);
    if (!results)
        return 1;
    int n = 0;
    while (n < 1000 && publish_one(results, n, &err) == 0)
        n++;
    if (n == 0 || n == 1000)
        return 2;
    if (err.code != ERROR_RESOURCE || !strstr(err.text, "No space left on device") || strchr(err.text, '\n'))
        return 3;
    results_close(results);
    if (files_in("parts", ".tmp") + files_in(".", ".tmp") != 0)
        return 4;
    struct results_reader *reader = results_load(directory, &err);
    if (!reader || results_count(reader) != n)
        return 5;
    const struct result_document *document;
    for (int i = 0; i < n; i++)
        if (results_next(reader, &document, &err) || strcmp(document->text.bytes, answer_of(i)) != 0)
            return 6;
    return 0;
}

static int refuse_read_only(void)
{
    struct error err;
    struct results_run run = sample_run(RESULT_SUMMARIZE);
    struct results *results = results_open(directory, &run, &err);
    if (!results || publish_one(results, 0, &err))
        return 1;
    results_close(results);
    if (mount("none", directory, NULL, MS_REMOUNT | MS_RDONLY, NULL) != 0)
        return 77;
    if (results_open(directory, &run, &err) || err.code != ERROR_IO || !strstr(err.text, "Read-only file system"))
        return 2;
    struct results_reader *reader = results_load(directory, &err);
    return reader && results_count(reader) == 1 ? 0 : 3;
}

static void a_full_disk_is_one_clear_line_and_loses_nothing(void **state)
{
    (void)state;
    int status = on_a_mount("size=256k", fill_the_disk);
    if (status == 77) {
        print_message("skipped: mounting a tmpfs is not permitted here\n");
        skip();
    }
    assert_int_equal(status, 0);
}

static void a_read_only_directory_is_refused_for_writing_and_can_be_read(void **state)
{
    (void)state;
    int status = on_a_mount("size=1m", refuse_read_only);
    if (status == 77) {
        print_message("skipped: mounting a tmpfs is not permitted here\n");
        skip();
    }
    assert_int_equal(status, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_directory, remove_directory)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_writer_killed_at_any_instant_loses_nothing_that_it_published),
        TEST(a_write_cut_short_leaves_the_earlier_results_and_can_be_tried_again),
        TEST(a_part_without_room_for_its_index_is_listed_by_the_next_try),
        TEST(a_full_disk_is_one_clear_line_and_loses_nothing),
        TEST(a_read_only_directory_is_refused_for_writing_and_can_be_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
