/* A growing heap of 64-bit keys, the smallest first: the candidates of a tokenizer's merges, ordered by rank and
 * then by place. Start with a zeroed struct; heap_free. */
#ifndef LONGHAUL_MODEL_HEAP_H
#define LONGHAUL_MODEL_HEAP_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct heap {
    uint64_t *keys; /* [count] */
    size_t count, capacity;
};

/* One key more. ERROR_RESOURCE. */
int heap_push(struct heap *heap, uint64_t key, struct error *err);

/* One key more, not yet in its place: cheaper where many come before the first heap_pop. heap_order puts all into
 * their places. ERROR_RESOURCE. */
int heap_append(struct heap *heap, uint64_t key, struct error *err);
void heap_order(struct heap *heap);

/* Take out the smallest key of a heap that is not empty. */
uint64_t heap_pop(struct heap *heap);

void heap_free(struct heap *heap);

#endif
