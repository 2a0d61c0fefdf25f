#include "model/heap.h"

#include <stdlib.h>

static void sink(uint64_t *keys, size_t count, size_t at)
{
    uint64_t key = keys[at];
    for (size_t child; (child = 2 * at + 1) < count; at = child) {
        if (child + 1 < count && keys[child + 1] < keys[child])
            child++;
        if (keys[child] >= key)
            break;
        keys[at] = keys[child];
    }
    keys[at] = key;
}

int heap_append(struct heap *heap, uint64_t key, struct error *err)
{
    if (heap->count == heap->capacity) {
        size_t capacity = heap->capacity + heap->capacity / 2 + 64;
        uint64_t *keys = realloc(heap->keys, capacity * sizeof *keys);
        if (!keys)
            return error_errno(err, "merging a piece: %zu candidates", capacity);
        heap->keys = keys;
        heap->capacity = capacity;
    }
    heap->keys[heap->count++] = key;
    return 0;
}

void heap_order(struct heap *heap)
{
    for (size_t i = heap->count / 2; i-- > 0;)
        sink(heap->keys, heap->count, i);
}

int heap_push(struct heap *heap, uint64_t key, struct error *err)
{
    if (heap_append(heap, key, err) < 0)
        return -1;
    size_t at = heap->count - 1;
    for (size_t parent; at > 0 && heap->keys[parent = (at - 1) / 2] > key; at = parent)
        heap->keys[at] = heap->keys[parent];
    heap->keys[at] = key;
    return 0;
}

uint64_t heap_pop(struct heap *heap)
{
    uint64_t top = heap->keys[0];
    heap->keys[0] = heap->keys[--heap->count];
    if (heap->count > 0)
        sink(heap->keys, heap->count, 0);
    return top;
}

void heap_free(struct heap *heap)
{
    free(heap->keys);
    *heap = (struct heap){0};
}
