#include "simt.h"

#include <boost/context/fiber.hpp>
#include <boost/context/pooled_fixedsize_stack.hpp>
#include <cstdio>
#include <cstdlib>
#include <vector>

namespace simt
{

namespace context = boost::context;

enum { STACK_BYTES = 128 * 1024 };

thread_local struct thread *current;
thread_local struct block *running;

static thread_local const char *kernel_name;

void wrong(const char *what)
{
    fprintf(stderr, "simt: kernel %s: %s", kernel_name ? kernel_name : "(none)", what);
    if (current)
        fprintf(stderr, " (block %u,%u,%u thread %u,%u,%u)", running->index.x, running->index.y, running->index.z,
                current->index.x, current->index.y, current->index.z);
    fprintf(stderr, "\n");
    abort();
}

void give_way()
{
    context::fiber *back = static_cast<context::fiber *>(current->back);
    *back = std::move(*back).resume();
}

/* ---- waiting for each other ---- */

static void open_when_full(barrier *gate, unsigned threads)
{
    if (gate->arrived > threads)
        wrong("more threads at a barrier than it is for");
    if (gate->arrived == threads) {
        gate->arrived = 0;
        gate->generation++;
        running->moves++;
    }
}

void arrive_at(int index, int threads)
{
    barrier *gate = &running->barriers[index];
    gate->arrived++;
    running->moves++;
    open_when_full(gate, (unsigned)threads);
}

void wait_at(int index, int threads)
{
    barrier *gate = &running->barriers[index];
    const unsigned generation = gate->generation;
    gate->arrived++;
    running->moves++;
    for (;;) {
        open_when_full(gate, threads ? (unsigned)threads : (unsigned)running->alive);
        if (gate->generation != generation)
            return;
        give_way();
    }
}

void wait_for_warp()
{
    barrier *gate = &current->of->gate;
    const unsigned generation = gate->generation;
    gate->arrived++;
    running->moves++;
    open_when_full(gate, WARP);
    while (gate->generation == generation)
        give_way();
}

const unsigned char (*tell_warp(const void *bytes, size_t n))[SLOT_BYTES]
{
    if (n > SLOT_BYTES)
        wrong("a lane tells more than a slot holds");
    auto slots = current->of->slots[current->told++ % 2];
    memcpy(slots[current->lane], bytes, n);
    wait_for_warp();
    return slots;
}

/* ---- a block ---- */

struct task {
    struct thread thread;
    context::fiber fiber;
    bool over;
};

static dims place_of(unsigned index, const dims &size)
{
    return {index % size.x, index / size.x % size.y, index / size.x / size.y};
}

/* All threads in turn, until all have ended; a round in which nothing moves is one that would never end. */
static void take_turns(std::vector<task> &tasks)
{
    uint64_t moves = ~(uint64_t)0;
    while (running->alive > 0) {
        if (running->moves == moves)
            wrong("threads wait for others that never come");
        moves = running->moves;
        for (task &t : tasks) {
            if (t.over)
                continue;
            current = &t.thread;
            t.fiber = std::move(t.fiber).resume();
            if (!t.fiber) {
                t.over = true;
                running->alive--;
                running->moves++;
            }
        }
    }
    current = nullptr;
}

static void run_block(const std::function<void()> &body, context::pooled_fixedsize_stack &stacks)
{
    const unsigned threads = running->size.x * running->size.y * running->size.z;
    static thread_local std::vector<warp> warps;
    warps.assign((threads + WARP - 1) / WARP, warp());
    std::vector<task> tasks(threads);
    running->alive = (int)threads;
    running->moves = 0;
    memset(running->barriers, 0, sizeof running->barriers);
    memset(running->shared, 0xff, running->shared_bytes); /* NaN: nothing is there before it is written */
    for (unsigned i = 0; i < threads; i++) {
        tasks[i].thread = {place_of(i, running->size), (int)(i % WARP), &warps[i / WARP], 0, nullptr, {{}}};
        tasks[i].over = false;
        tasks[i].fiber = context::fiber(std::allocator_arg, stacks, [&body](context::fiber &&from) {
            context::fiber back = std::move(from);
            current->back = &back;
            body();
            return back;
        });
    }
    take_turns(tasks);
}

void launch(const char *kernel, dims grid, dims size, size_t shared_bytes, const std::function<void()> &body)
{
    static thread_local context::pooled_fixedsize_stack stacks(STACK_BYTES);
    struct block block = {};
    kernel_name = kernel;
    if ((size.x * size.y * size.z) % WARP != 0)
        wrong("a block that is not made of whole warps");
    block.grid = grid;
    block.size = size;
    block.shared_bytes = shared_bytes;
    block.shared = (unsigned char *)aligned_alloc(1024, (shared_bytes + 1024) / 1024 * 1024);
    running = &block;
    device_opens();
    for (block.index.z = 0; block.index.z < grid.z; block.index.z++)
        for (block.index.y = 0; block.index.y < grid.y; block.index.y++)
            for (block.index.x = 0; block.index.x < grid.x; block.index.x++)
                run_block(body, stacks);
    device_closes();
    free(block.shared);
    running = nullptr;
    kernel_name = nullptr;
}

} // namespace simt
