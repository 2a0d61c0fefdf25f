#include "tests/mpi/mpi_test.h"

#include <string.h>

static void a_failing_call_says_what_was_done_and_mpis_reason(void **state)
{
    (void)state;
    int value = 0;
    int code = MPI_Send(&value, 1, MPI_INT, world.size, 0, world.mpi); /* there is no such rank */
    assert_int_equal(comm_check(code, "sending to nobody", &err), -1);
    assert_int_equal(err.code, ERROR_CLUSTER);
    assert_memory_equal(err.text, "sending to nobody: MPI_ERR_RANK", 31);
}

static void a_group_is_ordered_by_rank(void **state)
{
    (void)state;
    struct comm group;
    assert_int_equal(comm_split(&world, world.rank % 2, &group, &err), 0);
    assert_int_equal(group.size, (world.size + 1 - world.rank % 2) / 2);
    assert_int_equal(group.rank, world.rank / 2);
    assert_int_equal(comm_barrier(&group, &err), 0);
    comm_free(&group);
}

static void a_broadcast_comes_from_any_root(void **state)
{
    (void)state;
    unsigned char data[1000];
    for (int root = 0; root < world.size; root++) {
        memset(data, world.rank == root ? root + 1 : 0, sizeof data);
        assert_int_equal(comm_broadcast(&world, data, sizeof data, root, &err), 0);
        for (size_t i = 0; i < sizeof data; i++)
            assert_int_equal(data[i], root + 1);
    }
    assert_int_equal(comm_broadcast(&world, NULL, 0, 0, &err), 0);
}

static void uneven_and_empty_parts_are_shared(void **state)
{
    (void)state;
    float data[64];
    int64_t parts[9] = {0};
    for (int r = 0; r < world.size; r++)
        parts[r + 1] = parts[r] + (r == 1 ? 0 : 3 + r);
    for (int i = 0; i < 64; i++)
        data[i] = i >= parts[world.rank] && i < parts[world.rank + 1] ? (float)i : -1.0f;
    assert_int_equal(comm_share_parts(&world, data, parts, &err), 0);
    for (int64_t i = 0; i < 64; i++)
        assert_true(data[i] == (i < parts[world.size] ? (float)i : -1.0f));
}

static void the_largest_value_reaches_all(void **state)
{
    (void)state;
    int64_t out = 0;
    assert_int_equal(comm_max(&world, ((int64_t)1 << 40) + world.rank, &out, &err), 0);
    assert_true(out == ((int64_t)1 << 40) + world.size - 1);
}

static void counts_are_added_up_each_by_itself(void **state)
{
    (void)state;
    int32_t counts[3] = {1, world.rank, 0};
    assert_int_equal(comm_sum_counts(&world, counts, 3, &err), 0);
    assert_int_equal(counts[0], world.size);
    assert_int_equal(counts[1], world.size * (world.size - 1) / 2);
    assert_int_equal(counts[2], 0);
}

static void different_texts_are_counted(void **state)
{
    (void)state;
    char text[300];
    int64_t out = 0;
    snprintf(text, sizeof text, "GPU %d", world.rank / 2);
    assert_int_equal(comm_distinct(&world, text, &out, &err), 0);
    assert_int_equal(out, (world.size + 1) / 2);
    assert_int_equal(comm_distinct(&world, "", &out, &err), 0);
    assert_int_equal(out, 1);
    memset(text, 'x', sizeof text - 1);
    snprintf(text + 254, sizeof text - 254, "%d", world.rank);
    assert_int_equal(comm_distinct(&world, text, &out, &err), 0);
    assert_int_equal(out, world.size);
    memset(text, 'x', sizeof text - 1); /* what is behind 255 bytes does not count */
    snprintf(text + 290, sizeof text - 290, "%d", world.rank);
    assert_int_equal(comm_distinct(&world, text, &out, &err), 0);
    assert_int_equal(out, 1);
}

static void shared_memory_is_zeroed_aligned_and_seen_by_all(void **state)
{
    (void)state;
    struct comm node;
    struct shared_memory memory;
    assert_int_equal(comm_node(&world, &node, &err), 0);
    assert_int_equal(node.size, world.size); /* the tests run on one machine */
    const size_t per_rank = 100000, n = per_rank * (size_t)node.size;
    assert_int_equal(shared_memory_create(&node, n, &memory, &err), 0);
    assert_int_equal((uintptr_t)memory.data % 64, 0);
    unsigned char *bytes = memory.data;
    for (size_t i = 0; i < n; i++)
        assert_int_equal(bytes[i], 0);
    assert_int_equal(comm_barrier(&node, &err), 0);
    memset(bytes + per_rank * (size_t)node.rank, node.rank + 1, per_rank);
    assert_int_equal(shared_memory_sync(&node, &memory, &err), 0);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(bytes[i], i / per_rank + 1);
    assert_int_equal(comm_barrier(&node, &err), 0);
    shared_memory_free(&memory);
    comm_free(&node);
}

static void impossible_shared_memory_is_an_error(void **state)
{
    (void)state;
    struct shared_memory memory;
    assert_int_equal(shared_memory_create(&world, SIZE_MAX - 3, &memory, &err), -1);
    assert_int_equal(err.code, ERROR_RESOURCE);
    shared_memory_free(&memory);
}

static void all_ranks_fail_as_the_lowest_that_failed(void **state)
{
    (void)state;
    struct error own = {0};
    assert_int_equal(comm_agree(&world, 0, &own), 0);
    const int first = world.size / 2; /* it and those behind it fail, each in its own words */
    const int status = world.rank < first ? 0 : error_set(&own, ERROR_IO, "rank %d", world.rank);
    char expected[32];
    snprintf(expected, sizeof expected, "rank %d", first);
    assert_int_equal(comm_agree(&world, status, &own), -1);
    assert_int_equal(own.code, ERROR_IO);
    assert_string_equal(own.text, expected);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        mpi_unit_test(all_ranks_fail_as_the_lowest_that_failed),
        mpi_unit_test(a_failing_call_says_what_was_done_and_mpis_reason),
        mpi_unit_test(a_group_is_ordered_by_rank),
        mpi_unit_test(a_broadcast_comes_from_any_root),
        mpi_unit_test(uneven_and_empty_parts_are_shared),
        mpi_unit_test(the_largest_value_reaches_all),
        mpi_unit_test(counts_are_added_up_each_by_itself),
        mpi_unit_test(different_texts_are_counted),
        mpi_unit_test(shared_memory_is_zeroed_aligned_and_seen_by_all),
        mpi_unit_test(impossible_shared_memory_is_an_error),
    };
    return mpi_run_tests(tests);
}
