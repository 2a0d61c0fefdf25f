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

#include "base/free_memory.h"

static const size_t MIB = (size_t)1 << 20;

/* A machine as its files show it, in a folder of its own. */
struct machine {
    char folder[64], meminfo[128], cgroup[128];
};

static void put(const struct machine *m, const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", m->folder, name);
    for (char *slash = path + strlen(m->folder) + 1; (slash = strchr(slash, '/')); slash++) {
        *slash = '\0';
        mkdir(path, 0777);
        *slash = '/';
    }
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    fclose(file);
}

/* One with 4096 MiB to give, of which 1024 are free and the rest caches files. */
static struct machine machine_make(const char *groups)
{
    struct machine m = {.folder = "/tmp/test_free_memory.XXXXXX"};
    assert_non_null(mkdtemp(m.folder));
    snprintf(m.meminfo, sizeof m.meminfo, "%s/meminfo", m.folder);
    snprintf(m.cgroup, sizeof m.cgroup, "%s/cgroup", m.folder);
    put(&m, "meminfo", "MemTotal:        8388608 kB\nMemFree:         1048576 kB\nMemAvailable:    4194304 kB\n");
    put(&m, "cgroup", groups);
    return m;
}

static size_t room_of(const struct machine *m)
{
    return free_memory_of(&(struct free_memory_source){m->meminfo, m->cgroup, m->folder});
}

static void machine_remove(const struct machine *m)
{
    char command[128];
    snprintf(command, sizeof command, "rm -r %s", m->folder);
    assert_int_equal(system(command), 0);
}

static void memory_that_caches_files_is_free(void **state)
{
    (void)state;
    struct machine m = machine_make("0::/user\n");
    assert_int_equal(room_of(&m), 4096 * MIB);
    put(&m, "user/memory.max", "max\n");
    put(&m, "user/memory.current", "1073741824\n");
    assert_int_equal(room_of(&m), 4096 * MIB);
    machine_remove(&m);
}

static void a_control_group_allows_less_than_there_is(void **state)
{
    (void)state;
    struct machine m = machine_make("0::/job/step\n");
    put(&m, "job/step/memory.max", "1073741824\n");
    put(&m, "job/step/memory.current", "943718400\n"); /* 900 MiB, of which 600 cache files */
    put(&m, "job/step/memory.stat",
        "anon 314572800\nfile 700000000\ninactive_file_not 5\nactive_file 104857600\ninactive_file 524288000\n");
    assert_int_equal(room_of(&m), (1024 - 300) * MIB);
    put(&m, "job/step/memory.current", "2147483648\n"); /* more than is allowed: it has just been lowered */
    assert_int_equal(room_of(&m), 0);
    machine_remove(&m);
}

static void the_tightest_of_nested_groups_counts(void **state)
{
    (void)state;
    struct machine m = machine_make("1:name=systemd:/elsewhere\n0::/job/step/task\n");
    put(&m, "job/step/memory.max", "max\n");
    put(&m, "job/memory.max", "536870912\n");
    put(&m, "job/memory.current", "104857600\n");
    put(&m, "memory.max", "1073741824\n"); /* as in a container, whose own group is the root that it sees */
    assert_int_equal(room_of(&m), (512 - 100) * MIB);
    put(&m, "job/memory.max", "max\n");
    assert_int_equal(room_of(&m), 1024 * MIB);
    machine_remove(&m);
}

static void the_first_version_of_control_groups_is_understood(void **state)
{
    (void)state;
    struct machine m = machine_make("9:cpu,cpuacct:/other\n4:memory:/slurm/job\n0::/\n");
    put(&m, "memory/slurm/job/memory.limit_in_bytes", "1073741824\n");
    put(&m, "memory/slurm/job/memory.usage_in_bytes", "419430400\n");
    put(&m, "memory/slurm/job/memory.stat",
        "inactive_file 1\nactive_file 1\ntotal_inactive_file 104857600\ntotal_active_file 104857600\n");
    put(&m, "memory/memory.limit_in_bytes", "9223372036854771712\n"); /* none */
    assert_int_equal(room_of(&m), (1024 - 200) * MIB);
    machine_remove(&m);
}

static void a_machine_that_says_nothing_has_no_limit(void **state)
{
    (void)state;
    assert_true(free_memory_of(&(struct free_memory_source){"/none", "/none", "/none"}) == SIZE_MAX);
}

static void this_machine_has_some(void **state)
{
    (void)state;
    print_message("%zu MiB\n", free_memory() / MIB);
    assert_true(free_memory() > 0 && free_memory() < SIZE_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_that_caches_files_is_free),
        cmocka_unit_test(a_control_group_allows_less_than_there_is),
        cmocka_unit_test(the_tightest_of_nested_groups_counts),
        cmocka_unit_test(the_first_version_of_control_groups_is_understood),
        cmocka_unit_test(a_machine_that_says_nothing_has_no_limit),
        cmocka_unit_test(this_machine_has_some),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
