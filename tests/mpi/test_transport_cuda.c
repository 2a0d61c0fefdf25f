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
    for (int number = 0; number < 6; number++)
        hop(transport, gpu, bytes_of[number / 2], number);
    transport->free(transport);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        mpi_unit_test(messages_between_gpus_arrive_whole),
    };
    if (!device_cuda(0, &err)) {
        fprintf(stderr, "skipped: %s\n", err.text);
        return NO_GPU;
    }
    return mpi_run_tests(tests);
}
