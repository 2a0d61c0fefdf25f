/* GGUF: weights and their metadata in one file (versions 2 and 3, little-endian).
 *
 * gguf_open maps the file read-only and checks all of it that is not weights: every count, length, type, name,
 * shape and offset, so that nothing a caller reaches through the bundle lies outside the file. The pages are
 * shared with every other process that maps the same file. Names are copied and terminated; strings and tensor
 * data point into the mapping. The bundle and all it holds live until gguf_free.
 *
 * A file that must not be changed while it is open: one that is cut short underneath ends the process (SIGBUS).
 * The values of weights are not looked at here; a NaN is found where they are packed.
 */
#ifndef LONGHAUL_IO_GGUF_H
#define LONGHAUL_IO_GGUF_H

#include "base/bundle.h"
#include "base/error.h"

struct gguf;

/* NULL with ERROR_INPUT and "path: byte N: [key or tensor: ]reason" for a file that is not sound, of an unknown
 * version or with an unsupported tensor type; with ERROR_IO where the system refuses it. */
struct gguf *gguf_open(const char *path, struct error *err);
void gguf_free(struct gguf *gguf);

/* Borrowed; `path` in it is a copy of the one given to gguf_open. */
const struct bundle *gguf_bundle(const struct gguf *gguf);

#endif
