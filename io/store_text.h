/* Bytes that may be anything, made fit for files that must be UTF-8 without NULs.
 *
 * Two rules. Texts lose a little: each piece that is no character (base/utf8.h) becomes one U+FFFD, and so does a
 * NUL. Names (ids, paths) lose nothing: each such byte, and each backslash, becomes "\xNN", and store_name_decode
 * gives the bytes back.
 */
#ifndef LONGHAUL_IO_STORE_TEXT_H
#define LONGHAUL_IO_STORE_TEXT_H

#include <stddef.h>

#include "base/arena.h"
#include "base/error.h"

/* The terminated clean text. *replaced = how many U+FFFD were put in. NULL: ERROR_RESOURCE. */
char *store_text_clean(struct arena *arena, const char *bytes, size_t length, size_t *replaced, struct error *err);

/* "" for NULL. */
char *store_name_encode(struct arena *arena, const char *name, struct error *err);
char *store_name_decode(struct arena *arena, const char *encoded, struct error *err);

#endif
