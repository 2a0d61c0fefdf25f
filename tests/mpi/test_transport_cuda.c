/* What goes round a ring of GPUs arrives whole: by NCCL where each rank has a GPU of its own, also a single rank
 * that sends to itself; else through the host's memory. */
#include "tests/mpi/hop.h"

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

/* NCCL on rank 0 says that a peer is gone, which only the emulation does at will; rank 0 leaves the ring, and the
 * others find it gone. None of them hangs. */
static void a_ring_that_breaks_ends_with_a_message(void **state)
{
    (void)state;
    static char bytes[2];
    const struct device *gpu = device_cuda(world.rank, &err);
    assert_non_null(gpu);
    if (strcmp(gpu->model, "simt") != 0 || gpu->count() < world.size)
        skip();
    struct transport *transport = transport_create(&world, gpu, 1, &err);
    assert_non_null(transport);
    if (world.rank == 0)
        setenv("SIMT_NCCL_ERROR", "next", 1);
    char *memory = gpu->alloc(2, "a byte each way", &err);
    move(gpu, memory, bytes, 2, DEVICE_FROM_HOST);
    const struct transport_hop way = {memory, 1, memory + 1, 1};
    int status = 0;
    for (int i = 0; i < 3 && status == 0; i++) /* what rank 0 sent before may still arrive */
        if ((status = transport->start(transport, &way, &err)) == 0)
            status = transport->finish(transport, &err);
    assert_int_equal(status, -1);
    assert_int_equal(err.code, ERROR_CLUSTER);
    assert_non_null(strstr(err.text, "a rank of the ring: remote process exited"));
    transport->free(transport);
    gpu->free(memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        mpi_unit_test(messages_between_gpus_arrive_whole),
        mpi_unit_test(a_ring_that_breaks_ends_with_a_message),
    };
    if (!device_cuda(0, &err)) {
        fprintf(stderr, "skipped: %s\n", err.text);
        return NO_GPU;
    }
    return mpi_run_tests(tests);
}
