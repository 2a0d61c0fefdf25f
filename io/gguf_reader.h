/* A cursor over the bytes of a GGUF file: numbers, strings and values, none read past the end.
 *
 * Inside of io/gguf.c only. Each read moves the cursor; a failure fills *err with the file, the byte and what was
 * being read, and leaves the cursor where the bad thing begins.
 */
#ifndef LONGHAUL_IO_GGUF_READER_H
#define LONGHAUL_IO_GGUF_READER_H

#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/bundle.h"
#include "base/error.h"

struct gguf_reader {
    const char *path;
    const uint8_t *bytes;
    size_t size;
    size_t at;
    const char *subject; /* the key or tensor being read, for messages; NULL: none yet */
    struct arena *arena; /* where names and arrays go */
    struct error *err;
};

/* Always -1; ERROR_INPUT "path: byte N: [subject: ]message". */
int gguf_reader_fail(struct gguf_reader *reader, const char *format, ...) __attribute__((format(printf, 2, 3)));

int gguf_reader_u32(struct gguf_reader *reader, const char *what, uint32_t *out);
int gguf_reader_u64(struct gguf_reader *reader, const char *what, uint64_t *out);

/* A count of things that take at least `least` bytes each: refused when the rest of the file cannot hold them. */
int gguf_reader_count(struct gguf_reader *reader, const char *what, size_t least, int64_t *out);

/* A name: 1 to 65535 bytes of printable ASCII, copied and terminated. */
int gguf_reader_name(struct gguf_reader *reader, const char *what, const char **out);

/* Key, type and value. */
int gguf_reader_value(struct gguf_reader *reader, struct value *out);

#endif
