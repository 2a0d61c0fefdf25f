/* Memory that is freed all at once: what a file gave, as long as its reader keeps it.
 *
 * A zeroed struct is an empty arena. Pieces are aligned for any type and never move.
 */
#ifndef LONGHAUL_BASE_ARENA_H
#define LONGHAUL_BASE_ARENA_H

#include <stddef.h>

#include "base/error.h"

struct arena {
    struct arena_block *blocks;
};

/* Zeroed memory for count * size bytes (also for 0), or NULL with ERROR_RESOURCE. */
void *arena_take(struct arena *arena, size_t count, size_t size, struct error *err);

/* The bytes with a NUL behind them. */
char *arena_text(struct arena *arena, const char *bytes, size_t length, struct error *err);

/* A terminated string, "" for NULL. */
char *arena_string(struct arena *arena, const char *string, struct error *err);

/* Frees all pieces; the arena is empty again. */
void arena_free(struct arena *arena);

#endif
