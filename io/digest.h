/* SHA-256, to say which file or text something came from. */
#ifndef LONGHAUL_IO_DIGEST_H
#define LONGHAUL_IO_DIGEST_H

#include <stddef.h>

#include "base/error.h"

enum { DIGEST_HEX_BYTES = 65 }; /* 64 lower-case hex digits and the terminator */

/* The digest of a whole file; ERROR_IO where it cannot be read. */
int digest_file(const char *path, char hex[DIGEST_HEX_BYTES], struct error *err);

/* The digest of what an open file has from where it stands to its end, read in pieces; *length = how many bytes.
 * The message does not name the file. Errors as of digest_file. */
int digest_descriptor(int fd, char hex[DIGEST_HEX_BYTES], size_t *length, struct error *err);

/* The digest of bytes in memory; ERROR_INTERNAL where libcrypto refuses. */
int digest_bytes(const void *bytes, size_t length, char hex[DIGEST_HEX_BYTES], struct error *err);

#endif
