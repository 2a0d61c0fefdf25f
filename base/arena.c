#include "base/arena.h"

#include <stdalign.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"

enum { BLOCK_BYTES = 1 << 16, ALIGNMENT = alignof(max_align_t) };

struct arena_block {
    struct arena_block *next;
    size_t used, size;
    alignas(max_align_t) unsigned char bytes[];
};

void *arena_take(struct arena *arena, size_t count, size_t size, struct error *err)
{
    size_t bytes, room;
    if (!size_mul(count, size, &bytes) || !size_add(bytes, ALIGNMENT, &room) || room > PTRDIFF_MAX / 2) {
        error_set(err, ERROR_RESOURCE, "out of memory for %zu pieces of %zu bytes", count, size);
        return NULL;
    }
    bytes = bytes ? (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT : ALIGNMENT;
    struct arena_block *block = arena->blocks;
    if (!block || block->size - block->used < bytes) {
        size_t capacity = bytes > BLOCK_BYTES ? bytes : BLOCK_BYTES;
        block = calloc(1, sizeof *block + capacity);
        if (!block) {
            error_set(err, ERROR_RESOURCE, "out of memory for %zu bytes", bytes);
            return NULL;
        }
        block->size = capacity;
        block->next = arena->blocks;
        arena->blocks = block;
    }
    void *piece = block->bytes + block->used;
    block->used += bytes;
    return piece;
}

char *arena_text(struct arena *arena, const char *bytes, size_t length, struct error *err)
{
    char *copy = arena_take(arena, length + 1, 1, err);
    if (copy && length)
        memcpy(copy, bytes, length);
    return copy;
}

char *arena_string(struct arena *arena, const char *string, struct error *err)
{
    return arena_text(arena, string, string ? strlen(string) : 0, err);
}

void arena_free(struct arena *arena)
{
    while (arena->blocks) {
        struct arena_block *next = arena->blocks->next;
        free(arena->blocks);
        arena->blocks = next;
    }
}
