/* Character encodings: which one a file is in, and its bytes as UTF-8 with a note of where they stood.
 *
 * encoding_detect names the encoding, encoding_reader_open .. _next .. _close hand out the text piece by piece.
 * A piece is either text or a place where the bytes mean nothing in the encoding. Line ends stay as they are.
 */
#ifndef LONGHAUL_IO_ENCODING_H
#define LONGHAUL_IO_ENCODING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum encoding {
    ENCODING_UTF8,
    ENCODING_LATIN1,
    ENCODING_WINDOWS_1252,
    ENCODING_UTF16_LE,
    ENCODING_UTF16_BE,
    ENCODING_UTF32_LE,
    ENCODING_UTF32_BE,
    ENCODING_UNKNOWN
};

/* The encoding of bytes [length], and in *mark the length of the byte order mark they begin with, 0 if none.
 * With a mark: what the mark says. Without: UTF-8, also with broken places as long as these are no more than the
 * whole characters beyond ASCII; else Latin-1, or Windows-1252 when bytes 0x80..0x9f occur; but where more than a
 * quarter of the bytes is beyond ASCII it is another encoding, and ENCODING_UNKNOWN. */
enum encoding encoding_detect(const char *bytes, size_t length, size_t *mark);

struct encoding_piece {
    const char *text;            /* UTF-8; borrowed until the next call, for UTF-8 from the bytes themselves */
    size_t length;               /* bytes of text */
    size_t first_byte, end_byte; /* of the source */
    bool broken;                 /* the bytes mean nothing: the text is U+FFFD */
};

struct encoding_reader;

/* A reader of bytes [length] (borrowed; without byte order mark); `encoding` is not ENCODING_UNKNOWN.
 * ERROR_RESOURCE, also when the system's iconv lacks the encoding. */
struct encoding_reader *encoding_reader_open(enum encoding encoding, const char *bytes, size_t length,
                                             struct error *err);

/* 1 and the next piece, 0 at the end, -1 on failure. Pieces follow one another without a gap. */
int encoding_reader_next(struct encoding_reader *reader, struct encoding_piece *piece, struct error *err);

void encoding_reader_close(struct encoding_reader *reader);

#endif
