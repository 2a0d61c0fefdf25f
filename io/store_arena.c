#include "io/store_arena.h"

#include <stdalign.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"

enum { BLOCK_BYTES = 1 << 16, ALIGNMENT = alignof(max_align_t) };

struct store_arena_block {
    struct store_arena_block *next;
    size_t used, size;
    alignas(max_align_t) unsigned char bytes[];
};

void *store_arena_take(struct store_arena *arena, size_t count, size_t size, struct error *err)
{
    size_t bytes, room;
    if (!size_mul(count, size, &bytes) || !size_add(bytes, ALIGNMENT, &room) || room > PTRDIFF_MAX / 2) {
        error_set(err, ERROR_RESOURCE, "out of memory for %zu pieces of %zu bytes", count, size);
        return NULL;
    }
    bytes = bytes ? (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT : ALIGNMENT;
    struct store_arena_block *block = arena->blocks;
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

char *store_arena_text(struct store_arena *arena, const char *bytes, size_t length, struct error *err)
{
    char *copy = store_arena_take(arena, length + 1, 1, err);
    if (copy && length)
        memcpy(copy, bytes, length);
    return copy;
}

char *store_arena_string(struct store_arena *arena, const char *string, struct error *err)
{
    return store_arena_text(arena, string, string ? strlen(string) : 0, err);
}

void store_arena_free(struct store_arena *arena)
{
    while (arena->blocks) {
        struct store_arena_block *next = arena->blocks->next;
        free(arena->blocks);
        arena->blocks = next;
    }
}
