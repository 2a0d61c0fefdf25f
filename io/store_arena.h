/* Memory that is freed all at once: what a results file gave, as long as its reader keeps it.
 *
 * A zeroed struct is an empty arena. Pieces are aligned for any type and never move.
 */
#ifndef LONGHAUL_IO_STORE_ARENA_H
#define LONGHAUL_IO_STORE_ARENA_H

#include <stddef.h>

#include "base/error.h"

struct store_arena {
    struct store_arena_block *blocks;
};

/* Zeroed memory for count * size bytes (never NULL for 0), or NULL with ERROR_RESOURCE. */
void *store_arena_take(struct store_arena *arena, size_t count, size_t size, struct error *err);

/* The bytes with a NUL behind them. */
char *store_arena_text(struct store_arena *arena, const char *bytes, size_t length, struct error *err);

/* A terminated string, "" for NULL. */
char *store_arena_string(struct store_arena *arena, const char *string, struct error *err);

/* Frees all pieces; the arena is empty again. */
void store_arena_free(struct store_arena *arena);

#endif
