/* cmocka.h wants these four first */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <ftw.h>
#include <git2.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/walk.h"

static char old_folder[PATH_MAX], folder[64];

/* Every test runs in a fresh folder called "corpus-XXXXXX". */
static int enter_folder(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/corpus-XXXXXX");
    return getcwd(old_folder, sizeof old_folder) && mkdtemp(folder) && chdir(folder) == 0 ? 0 : -1;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

static int leave_folder(void **state)
{
    (void)state;
    return chdir(old_folder) < 0 ? -1 : nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void make(const char *path, const char *content)
{
    char parent[PATH_MAX];
    strcpy(parent, path);
    for (char *slash = strchr(parent, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(parent, 0755);
        *slash = '/';
    }
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(content, file);
    fclose(file);
}

static void make_repository(const char *path)
{
    git_repository *repository;
    git_libgit2_init();
    assert_int_equal(git_repository_init(&repository, path, 0), 0);
    git_repository_free(repository);
    git_libgit2_shutdown();
}

static void track(const char *repository_path, const char *path)
{
    git_repository *repository;
    git_index *index;
    git_libgit2_init();
    assert_int_equal(git_repository_open(&repository, repository_path), 0);
    assert_int_equal(git_repository_index(&index, repository), 0);
    assert_int_equal(git_index_add_bypath(index, path), 0);
    assert_int_equal(git_index_write(index), 0);
    git_index_free(index);
    git_repository_free(repository);
    git_libgit2_shutdown();
}

static struct walk *walk(const char *path, const struct walk_options *options)
{
    struct error err = {ERROR_NONE, ""};
    struct walk *found = walk_paths(&path, 1, options, &err);
    assert_string_equal(err.text, "");
    assert_non_null(found);
    return found;
}

/* The ids of a fate, each followed by a space. */
static const char *ids(const struct walk *found, enum walk_fate fate)
{
    static char text[4096];
    text[0] = '\0';
    for (int64_t i = 0; i < found->count; i++) {
        if (found->entries[i].fate == fate)
            strcat(strcat(text, found->entries[i].id), " ");
    }
    return text;
}

static const char *reason(const struct walk *found, const char *id)
{
    for (int64_t i = 0; i < found->count; i++) {
        if (strcmp(found->entries[i].id, id) == 0)
            return found->entries[i].reason;
    }
    return "no such entry";
}

static const struct walk_options all = {{NULL, 0}, {NULL, 0}, NULL};

static void files_come_sorted_with_ids_from_the_name_given(void **state)
{
    (void)state;
    make("in/b.txt", "b");
    make("in/a/z.md", "zz");
    make("in/B.txt", "B");
    make("in/a.txt", "a");
    const char *const spellings[] = {"in", "in/", "./in//", "in/a/.."};
    for (int i = 0; i < 4; i++) {
        struct walk *found = walk(spellings[i], &all);
        assert_string_equal(ids(found, WALK_READY), "in/B.txt in/a/z.md in/a.txt in/b.txt ");
        assert_int_equal(found->entries[1].bytes, 2);
        assert_int_equal(access(found->entries[1].path, R_OK), 0);
        walk_free(found);
    }
}

static void the_present_folder_is_called_by_its_name(void **state)
{
    (void)state;
    make("x", "x");
    struct walk *found = walk(".", &all);
    char want[80];
    snprintf(want, sizeof want, "%s/x ", folder + strlen("/tmp/"));
    assert_string_equal(ids(found, WALK_READY), want);
    walk_free(found);
}

static void a_file_by_itself_is_called_by_its_name(void **state)
{
    (void)state;
    make("in/.hidden.txt", "x");
    struct walk *found = walk("in/.hidden.txt", &all);
    assert_string_equal(ids(found, WALK_READY), ".hidden.txt ");
    walk_free(found);
}

static void roots_of_one_name_are_told_apart(void **state)
{
    (void)state;
    struct error err;
    make("one/src/a", "1");
    make("two/src/a", "2");
    make("two/b", "3");
    const char *const paths[] = {"two/src", "one/src/", "two/b"};
    struct walk *found = walk_paths(paths, 3, &all, &err);
    assert_non_null(found);
    assert_string_equal(ids(found, WALK_READY), "two/src/a one/src/a b ");
    walk_free(found);
}

static void ids_that_meet_are_numbered(void **state)
{
    (void)state;
    struct error err;
    make("x/a/b.txt", "1");
    make("y/a/b.txt", "2");
    make("z/b.txt", "3");
    const char *const paths[] = {"x/a", "y/a/b.txt", "z/b.txt"};
    struct walk *found = walk_paths(paths, 3, &all, &err);
    assert_non_null(found);
    assert_string_equal(ids(found, WALK_READY), "a/b.txt a/b.txt#2 z/b.txt ");
    walk_free(found);
}

static void what_is_given_twice_is_read_once(void **state)
{
    (void)state;
    struct error err;
    make("in/a/x", "1");
    make("in/y", "2");
    const char *const paths[] = {"in", "in/a", "in/y"};
    struct walk *found = walk_paths(paths, 3, &all, &err);
    assert_non_null(found);
    assert_string_equal(ids(found, WALK_READY), "in/a/x in/y ");
    assert_string_equal(ids(found, WALK_LEFT_OUT), "a/ y ");
    assert_string_equal(reason(found, "y"), "read already as in/y");
    walk_free(found);
}

static void links_are_followed_but_never_in_circles(void **state)
{
    (void)state;
    make("in/a/x", "1");
    make("out/y", "2");
    assert_int_equal(symlink("..", "in/a/up"), 0);
    assert_int_equal(symlink(".", "in/self"), 0);
    assert_int_equal(symlink("../out", "in/other"), 0);
    assert_int_equal(symlink("a/x", "in/zx"), 0);
    assert_int_equal(symlink("nowhere", "in/lost"), 0);
    assert_int_equal(symlink("ring", "in/ring"), 0);
    struct walk *found = walk("in", &all);
    assert_string_equal(ids(found, WALK_READY), "in/a/x in/other/y ");
    assert_string_equal(ids(found, WALK_FAILED), "in/lost in/ring ");
    assert_string_equal(ids(found, WALK_LEFT_OUT), "in/a/up/ in/self/ in/zx ");
    assert_string_equal(reason(found, "in/zx"), "read already as in/a/x");
    walk_free(found);
}

static void hidden_files_and_version_control_are_left_out(void **state)
{
    (void)state;
    make("in/.git/config", "x");
    make("in/.env", "x");
    make("in/CVS/Root", "x");
    make("in/a", "x");
    struct walk *found = walk("in", &all);
    assert_string_equal(ids(found, WALK_READY), "in/a ");
    assert_string_equal(ids(found, WALK_LEFT_OUT), "in/.env in/.git/ in/CVS/ ");
    walk_free(found);
}

static void the_output_folder_is_left_out_under_any_name(void **state)
{
    (void)state;
    make("in/a.txt", "a");
    make("in/out/logs/rank-0000.log", "log");
    make("in/out2/b.txt", "b");
    assert_int_equal(symlink("in/out", "results"), 0);
    assert_int_equal(symlink("out", "in/link"), 0);
    const char *const names[] = {"in/out", "in/out/", "results", "in/out2/../out", "in/link"};
    for (int i = 0; i < 5; i++) {
        const struct walk_options options = {.output = names[i]};
        struct walk *found = walk("in", &options);
        assert_string_equal(ids(found, WALK_READY), "in/a.txt in/out2/b.txt ");
        assert_string_equal(reason(found, "in/out/"), "the output folder");
        assert_string_equal(reason(found, "in/link/"), "the output folder");
        walk_free(found);
    }
    const struct walk_options not_there = {.output = "in/new"};
    struct walk *found = walk("in/out", &not_there);
    assert_string_equal(ids(found, WALK_READY), "out/logs/rank-0000.log ");
    walk_free(found);
}

static void files_in_no_format_for_us_are_skipped_with_the_reason(void **state)
{
    (void)state;
    make("in/a.pdf", "%PDF");
    make("in/b.txt", "");
    make("in/c.txt", "x");
    assert_int_equal(mkfifo("in/d", 0600), 0);
    struct walk *found = walk("in", &all);
    assert_string_equal(ids(found, WALK_READY), "in/c.txt ");
    assert_string_equal(reason(found, "in/a.pdf"),
                        "format not supported (.pdf): turn it into text first, as with pdftotext");
    assert_string_equal(reason(found, "in/b.txt"), "empty");
    assert_string_equal(reason(found, "in/d"), "not a regular file");
    walk_free(found);
}

static void globs_let_in_and_keep_out(void **state)
{
    (void)state;
    make("in/a.c", "x");
    make("in/a.h", "x");
    make("in/test/b.c", "x");
    make("in/test/deep/c.c", "x");
    const char *const c_files[] = {"*.c"}, *const tests[] = {"test/*"}, *const any[] = {"**/*.c"},
                      *const bare[] = {"b.c", "*.h"};
    const struct walk_options only_c = {{c_files, 1}, {NULL, 0}, NULL}, no_tests = {{any, 1}, {tests, 1}, NULL},
                              by_name = {{bare, 2}, {NULL, 0}, NULL};
    struct walk *found = walk("in", &only_c);
    assert_string_equal(ids(found, WALK_READY), "in/a.c in/test/b.c in/test/deep/c.c ");
    assert_string_equal(reason(found, "in/a.h"), "not included");
    walk_free(found);
    found = walk("in", &no_tests);
    assert_string_equal(ids(found, WALK_READY), "in/a.c ");
    assert_string_equal(reason(found, "in/test/b.c"), "excluded");
    walk_free(found);
    found = walk("in", &by_name);
    assert_string_equal(ids(found, WALK_READY), "in/a.h in/test/b.c ");
    walk_free(found);
}

static void git_rules_are_honoured_in_a_work_tree(void **state)
{
    (void)state;
    make_repository("in");
    make("in/.gitignore", "*.log\n/build/\n!keep.log\n");
    make("in/a.c", "x");
    make("in/a.log", "x");
    make("in/keep.log", "x");
    make("in/build/b.c", "x");
    make("in/sub/build/c.c", "x");
    make("in/sub/.gitignore", "c.*\n");
    struct walk *found = walk("in", &all);
    assert_string_equal(ids(found, WALK_READY), "in/a.c in/keep.log ");
    assert_string_equal(reason(found, "in/build/"), "ignored by git");
    assert_string_equal(reason(found, "in/sub/build/c.c"), "ignored by git");
    walk_free(found);
    /* from inside of it too */
    found = walk("in/sub", &all);
    assert_string_equal(ids(found, WALK_READY), "");
    walk_free(found);
}

static void tracked_files_are_never_ignored(void **state)
{
    (void)state;
    make_repository("in");
    make("in/.gitignore", "out/\n");
    make("in/out/tracked", "x");
    make("in/out/not", "x");
    track("in", "out/tracked");
    struct walk *found = walk("in", &all);
    assert_string_equal(ids(found, WALK_READY), "in/out/tracked ");
    walk_free(found);
}

static void a_work_tree_inside_another_has_its_own_rules(void **state)
{
    (void)state;
    make_repository("in");
    make_repository("in/inner");
    make("in/.gitignore", "*.x\n");
    make("in/a.x", "x");
    make("in/inner/a.x", "x");
    make("in/inner/a.y", "x");
    make("in/inner/.gitignore", "*.y\n");
    struct walk *found = walk("in", &all);
    assert_string_equal(ids(found, WALK_READY), "in/inner/a.x ");
    walk_free(found);
}

static void an_ignored_folder_that_is_named_is_read(void **state)
{
    (void)state;
    make_repository("in");
    make("in/.gitignore", "out/\n");
    make("in/out/a", "x");
    struct walk *found = walk("in/out", &all);
    assert_string_equal(ids(found, WALK_READY), "out/a ");
    walk_free(found);
}

static void outside_of_a_work_tree_gitignore_is_just_a_file(void **state)
{
    (void)state;
    make("in/.gitignore", "*\n");
    make("in/a", "x");
    struct walk *found = walk("in", &all);
    assert_string_equal(ids(found, WALK_READY), "in/a ");
    walk_free(found);
}

static void what_cannot_be_opened_is_left_out_by_the_same_rules(void **state)
{
    (void)state;
    static const char *const links[] = {"in/.#a", "in/b.bak", "in/c.log", "in/d.txt"};
    static const char *const bak[] = {"*.bak"}, *const txt[] = {"*.txt"};
    make("in/a.txt", "x");
    make("in/.gitignore", "*.log\n");
    make_repository("in");
    for (size_t i = 0; i < sizeof links / sizeof *links; i++)
        assert_int_equal(symlink("nowhere", links[i]), 0);
    assert_int_equal(mkfifo("in/.pipe", 0600), 0);
    const struct walk_options excluding = {.exclude = {bak, 1}}, including = {.include = {txt, 1}};
    struct walk *found = walk("in", &excluding);
    assert_string_equal(reason(found, "in/.#a"), "hidden");
    assert_string_equal(reason(found, "in/b.bak"), "excluded");
    assert_string_equal(reason(found, "in/c.log"), "ignored by git");
    assert_string_equal(reason(found, "in/.pipe"), "hidden");
    assert_string_equal(ids(found, WALK_FAILED), "in/d.txt ");
    assert_string_equal(ids(found, WALK_SKIPPED), "");
    walk_free(found);
    found = walk("in", &including);
    assert_string_equal(reason(found, "in/b.bak"), "not included");
    assert_string_equal(ids(found, WALK_FAILED), "in/d.txt ");
    walk_free(found);
}

static void odd_names_give_ids_that_are_text(void **state)
{
    (void)state;
    make("in/caf\xe9\n.txt", "x");
    make("in/\xc3\xa9t\xc3\xa9", "x");
    make("in/a\x92.txt", "x");
    make("in/b\xc3\xa9\x80\xe4\xb8", "x");
    struct walk *found = walk("in", &all);
    assert_string_equal(ids(found, WALK_READY),
                        "in/a%92.txt in/b\xc3\xa9%80%E4%B8 in/caf%E9%0A.txt in/\xc3\xa9t\xc3\xa9 ");
    walk_free(found);
}

static void a_missing_path_is_an_error_that_names_it(void **state)
{
    (void)state;
    struct error err;
    const char *const paths[] = {"not-there"};
    assert_null(walk_paths(paths, 1, &all, &err));
    assert_int_equal(err.code, ERROR_IO);
    assert_non_null(strstr(err.text, "not-there"));
}

static void a_folder_that_may_not_be_read_is_recorded(void **state)
{
    (void)state;
    if (geteuid() == 0) {
        print_message("skipped: root may read everything\n");
        skip();
    }
    make("in/shut/a", "x");
    make("in/open", "x");
    chmod("in/shut", 0);
    struct walk *found = walk("in", &all);
    chmod("in/shut", 0755);
    assert_string_equal(ids(found, WALK_READY), "in/open ");
    assert_string_equal(reason(found, "in/shut/"), "Permission denied");
    walk_free(found);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, enter_folder, leave_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_FOLDER(files_come_sorted_with_ids_from_the_name_given),
        IN_FOLDER(the_present_folder_is_called_by_its_name),
        IN_FOLDER(a_file_by_itself_is_called_by_its_name),
        IN_FOLDER(roots_of_one_name_are_told_apart),
        IN_FOLDER(ids_that_meet_are_numbered),
        IN_FOLDER(what_is_given_twice_is_read_once),
        IN_FOLDER(links_are_followed_but_never_in_circles),
        IN_FOLDER(hidden_files_and_version_control_are_left_out),
        IN_FOLDER(the_output_folder_is_left_out_under_any_name),
        IN_FOLDER(files_in_no_format_for_us_are_skipped_with_the_reason),
        IN_FOLDER(globs_let_in_and_keep_out),
        IN_FOLDER(git_rules_are_honoured_in_a_work_tree),
        IN_FOLDER(tracked_files_are_never_ignored),
        IN_FOLDER(a_work_tree_inside_another_has_its_own_rules),
        IN_FOLDER(an_ignored_folder_that_is_named_is_read),
        IN_FOLDER(outside_of_a_work_tree_gitignore_is_just_a_file),
        IN_FOLDER(what_cannot_be_opened_is_left_out_by_the_same_rules),
        IN_FOLDER(odd_names_give_ids_that_are_text),
        IN_FOLDER(a_missing_path_is_an_error_that_names_it),
        IN_FOLDER(a_folder_that_may_not_be_read_is_recorded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
