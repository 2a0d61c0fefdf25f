/* What goes round a ring of GPUs arrives whole: by NCCL where each rank has a GPU of its own, also a single rank
 * that sends to itself; else through the host's memory. */
#include "tests/mpi/hop.h"

#include "attention/transport_nccl.h"

enum { NO_GPU = 77 };

static void messages_between_gpus_arrive_whole(void **state)
{
    (void)state;
    static const size_t bytes_of[][4] = {
        {100000, 3, 4097, 65536}, {0, 5, 0, 0}, {1 << 20, 1 << 20, 1 << 20, 1 << 20}};
    const struct device *gpu = device_cuda(world.rank, &err);
    assert_non_null(gpu);
    struct transport *transport = transport_create(&world, gpu, 1 << 20, &err);
    assert_non_null(transport);
    if (world.rank == 0)
        print_message("%d ranks: %s\n", world.size, transport->name);
    if (gpu->count() >= world.size)
        assert_string_equal(transport->name, "nccl");
    for (int number = 0; number < 6; number++)
        hop(transport, gpu, bytes_of[number / 2], number);
    transport->free(transport);
}

/* A rank that never comes to the next hop: the one behind it waits for so many seconds, and not for ever. */
static void a_silent_rank(const struct device *gpu, char *memory)
{
    struct transport *transport = transport_nccl_create_patient(&world, 1.0, &err);
    assert_non_null(transport);
    const struct transport_hop way = {memory, 1, memory + 1, 1};
    move(gpu, memory, "", 1, DEVICE_FROM_HOST);
    if (world.rank > 0) {
        int status = transport->start(transport, &way, &err);
        if (status == 0)
            status = transport->finish(transport, &err);
        assert_int_equal(status, world.rank == 1 ? -1 : 0);
    }
    if (world.rank == 1) {
        assert_int_equal(err.code, ERROR_CLUSTER);
        assert_non_null(strstr(err.text, "a rank of the ring has not come in 1 seconds"));
    }
    MPI_Barrier(MPI_COMM_WORLD); /* a rank that has left is not silent */
    transport->free(transport);
}

/* NCCL on rank 0 says that a peer is gone; rank 0 leaves the ring, and the others find it gone. */
static void a_broken_ring(const struct device *gpu, char *memory)
{
    struct transport *transport = transport_create(&world, gpu, 1, &err);
    assert_non_null(transport);
    if (world.rank == 0)
        setenv("SIMT_NCCL_ERROR", "0", 1);
    const struct transport_hop way = {memory, 1, memory + 1, 1};
    int status = 0;
    for (int i = 0; i < 3 && status == 0; i++) /* what rank 0 sent before may still arrive */
        if ((status = transport->start(transport, &way, &err)) == 0)
            status = transport->finish(transport, &err);
    assert_int_equal(status, -1);
    assert_int_equal(err.code, ERROR_CLUSTER);
    assert_non_null(strstr(err.text, "a rank of the ring: remote process exited"));
    transport->free(transport);
}

/* None of the ranks hangs. Only the emulation fails at will. */
static void a_ring_that_fails_ends_with_a_message(void **state)
{
    (void)state;
    const struct device *gpu = device_cuda(world.rank, &err);
    assert_non_null(gpu);
    if (strcmp(gpu->model, "simt") != 0 || gpu->count() < world.size)
        skip();
    char *memory = gpu->alloc(2, "a byte each way", &err);
    assert_non_null(memory);
    if (world.size > 1)
        a_silent_rank(gpu, memory);
    a_broken_ring(gpu, memory);
    gpu->free(memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        mpi_unit_test(messages_between_gpus_arrive_whole),
        mpi_unit_test(a_ring_that_fails_ends_with_a_message),
    };
    if (!device_cuda(0, &err)) {
        fprintf(stderr, "skipped: %s\n", err.text);
        return NO_GPU;
    }
    return mpi_run_tests(tests);
}
