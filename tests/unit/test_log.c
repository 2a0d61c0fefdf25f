/* cmocka.h wants these four first */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"

static char path[] = "/tmp/longhaul-test-log-XXXXXX";

static int make_file(void **state)
{
    (void)state;
    strcpy(path + strlen(path) - 6, "XXXXXX");
    int fd = mkstemp(path);
    return fd < 0 ? -1 : close(fd);
}

static int remove_file(void **state)
{
    (void)state;
    log_close();
    return unlink(path);
}

static size_t read_file(char *out, size_t size)
{
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    size_t n = fread(out, 1, size - 1, file);
    out[n] = '\0';
    fclose(file);
    return n;
}

static void a_line_has_time_rank_level_and_text(void **state)
{
    (void)state;
    struct error err;
    char text[4096];
    regex_t pattern;
    assert_int_equal(log_open(path, 3, LOG_LEVEL_INFO, &err), 0);
    log_info("segment %d of %s", 7, "a.txt");
    read_file(text, sizeof text);
    assert_int_equal(regcomp(&pattern,
                             "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{3}Z rank 3 info: "
                             "segment 7 of a\\.txt\n$",
                             REG_EXTENDED | REG_NOSUB),
                     0);
    assert_int_equal(regexec(&pattern, text, 0, NULL, 0), 0);
    regfree(&pattern);
}

static void lines_above_the_level_are_left_out(void **state)
{
    (void)state;
    struct error err;
    char text[4096];
    assert_int_equal(log_open(path, 0, LOG_LEVEL_WARN, &err), 0);
    log_info("not this");
    log_debug("nor this");
    assert_int_equal(read_file(text, sizeof text), 0);
    log_error("but this");
    assert_true(read_file(text, sizeof text) > 0);
}

static void opening_again_appends(void **state)
{
    (void)state;
    struct error err;
    char text[4096];
    for (int i = 0; i < 2; i++) {
        assert_int_equal(log_open(path, 0, LOG_LEVEL_INFO, &err), 0);
        log_info("run %d", i);
        log_close();
    }
    read_file(text, sizeof text);
    assert_non_null(strstr(text, "run 0\n"));
    assert_non_null(strstr(text, "run 1\n"));
}

static void a_message_stays_one_line_however_long_or_odd(void **state)
{
    (void)state;
    struct error err;
    static char text[8192], message[5000];
    memset(message, 'x', sizeof message - 1);
    message[1] = '\n';
    message[2] = '\033';
    assert_int_equal(log_open(path, 0, LOG_LEVEL_INFO, &err), 0);
    log_info("%s", message);
    size_t n = read_file(text, sizeof text);
    assert_ptr_equal(strchr(text, '\n'), text + n - 1);
    assert_non_null(strstr(text, "x??xx"));
    assert_string_equal(text + n - 5, "x...\n");
}

static void errno_survives_a_line(void **state)
{
    (void)state;
    struct error err;
    assert_int_equal(log_open(path, 0, LOG_LEVEL_INFO, &err), 0);
    errno = ENOSPC;
    log_info("hello");
    assert_int_equal(errno, ENOSPC);
}

static void before_the_log_is_open_warnings_go_to_stderr(void **state)
{
    (void)state;
    char text[4096];
    int keep = dup(STDERR_FILENO);
    int file = open(path, O_WRONLY | O_TRUNC);
    dup2(file, STDERR_FILENO);
    log_info("quiet");
    log_warn("loud");
    dup2(keep, STDERR_FILENO);
    close(file);
    close(keep);
    read_file(text, sizeof text);
    assert_non_null(strstr(text, "warn: loud\n"));
    assert_null(strstr(text, "quiet"));
}

static void a_log_in_a_missing_folder_is_an_error_that_names_it(void **state)
{
    (void)state;
    struct error err;
    assert_int_equal(log_open("/nowhere/at/all.log", 0, LOG_LEVEL_INFO, &err), -1);
    assert_int_equal(err.code, ERROR_IO);
    assert_non_null(strstr(err.text, "/nowhere/at/all.log"));
}

static void level_names_are_understood_and_others_refused(void **state)
{
    (void)state;
    struct error err;
    enum log_level level;
    assert_int_equal(log_level_parse("debug", &level, &err), 0);
    assert_int_equal(level, LOG_LEVEL_DEBUG);
    assert_int_equal(log_level_parse("loud", &level, &err), -1);
    assert_int_equal(err.code, ERROR_USAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_line_has_time_rank_level_and_text, make_file, remove_file),
        cmocka_unit_test_setup_teardown(lines_above_the_level_are_left_out, make_file, remove_file),
        cmocka_unit_test_setup_teardown(opening_again_appends, make_file, remove_file),
        cmocka_unit_test_setup_teardown(a_message_stays_one_line_however_long_or_odd, make_file, remove_file),
        cmocka_unit_test_setup_teardown(errno_survives_a_line, make_file, remove_file),
        cmocka_unit_test_setup_teardown(before_the_log_is_open_warnings_go_to_stderr, make_file, remove_file),
        cmocka_unit_test(a_log_in_a_missing_folder_is_an_error_that_names_it),
        cmocka_unit_test(level_names_are_understood_and_others_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
