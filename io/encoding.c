#include "io/encoding.h"

#include <errno.h>
#include <iconv.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

/* Source bytes that are converted at a time; at most three bytes of UTF-8 come of one source byte (the euro
 * sign of Windows-1252). */
enum { PIECE_BYTES = 1 << 20, WORST_GROWTH = 3 };

struct encoding_row {
    const char *name;  /* as users and iconv know it */
    size_t unit;       /* bytes of the smallest character */
    const char *mark;  /* byte order mark, may hold NULs */
    size_t mark_bytes; /* 0: has none */
};

static const struct encoding_row rows[] = {
    [ENCODING_UTF8] = {"UTF-8", 1, "\xef\xbb\xbf", 3},
    [ENCODING_LATIN1] = {"ISO-8859-1", 1, "", 0},
    [ENCODING_WINDOWS_1252] = {"WINDOWS-1252", 1, "", 0},
    [ENCODING_UTF16_LE] = {"UTF-16LE", 2, "\xff\xfe", 2},
    [ENCODING_UTF16_BE] = {"UTF-16BE", 2, "\xfe\xff", 2},
    [ENCODING_UTF32_LE] = {"UTF-32LE", 4, "\xff\xfe\0\0", 4},
    [ENCODING_UTF32_BE] = {"UTF-32BE", 4, "\0\0\xfe\xff", 4},
    [ENCODING_UNKNOWN] = {"unknown", 1, "", 0},
};

struct encoding_reader {
    enum encoding encoding;
    const char *bytes;
    size_t length, at;
    iconv_t converter; /* (iconv_t)-1 for UTF-8 */
    char *buffer;      /* NULL for UTF-8 */
};

static enum encoding detect_mark(const char *bytes, size_t length, size_t *mark)
{
    enum encoding found = ENCODING_UNKNOWN;
    *mark = 0;
    /* The longest mark that fits is meant: UTF-32LE begins with the mark of UTF-16LE. */
    for (int i = 0; i < ENCODING_UNKNOWN; i++) {
        size_t n = rows[i].mark_bytes;
        if (n > *mark && n <= length && memcmp(bytes, rows[i].mark, n) == 0) {
            found = (enum encoding)i;
            *mark = n;
        }
    }
    return found;
}

/* One of the one-byte encodings, by which bytes beyond ASCII occur and how many. */
static enum encoding detect_one_byte(const unsigned char *s, size_t length)
{
    size_t beyond = 0, controls = 0;
    for (size_t i = 0; i < length; i++) {
        beyond += s[i] >= 0x80;
        controls += s[i] >= 0x80 && s[i] < 0xa0;
    }
    if (beyond > length / 4)
        return ENCODING_UNKNOWN;
    return controls > 0 ? ENCODING_WINDOWS_1252 : ENCODING_LATIN1;
}

enum encoding encoding_detect(const char *bytes, size_t length, size_t *mark)
{
    enum encoding marked = detect_mark(bytes, length, mark);
    if (marked != ENCODING_UNKNOWN)
        return marked;
    if (utf8_valid_prefix((struct text){bytes, length}) == length)
        return ENCODING_UTF8;
    size_t whole = 0, broken = 0;
    for (size_t at = 0; at < length;) {
        const struct utf8_piece piece = utf8_piece(bytes + at, length - at);
        whole += piece.valid && piece.length > 1;
        broken += piece.valid ? 0 : piece.length;
        at += piece.length;
    }
    return whole >= broken ? ENCODING_UTF8 : detect_one_byte((const unsigned char *)bytes, length);
}

struct encoding_reader *encoding_reader_open(enum encoding encoding, const char *bytes, size_t length,
                                             struct error *err)
{
    struct encoding_reader *reader = malloc(sizeof *reader);
    if (!reader) {
        error_errno(err, "reading text in %s", rows[encoding].name);
        return NULL;
    }
    *reader = (struct encoding_reader){encoding, bytes, length, 0, (iconv_t)-1, NULL};
    if (encoding == ENCODING_UTF8)
        return reader;
    reader->converter = iconv_open("UTF-8", rows[encoding].name);
    reader->buffer = malloc((size_t)PIECE_BYTES * WORST_GROWTH);
    if (reader->converter == (iconv_t)-1 || !reader->buffer) {
        error_set(err, ERROR_RESOURCE, "no converter from %s: %s", rows[encoding].name, strerror(errno));
        encoding_reader_close(reader);
        return NULL;
    }
    return reader;
}

void encoding_reader_close(struct encoding_reader *reader)
{
    if (!reader)
        return;
    if (reader->converter != (iconv_t)-1)
        iconv_close(reader->converter);
    free(reader->buffer);
    free(reader);
}

/* The next n bytes are broken. */
static int broken_piece(struct encoding_reader *reader, size_t n, struct encoding_piece *piece)
{
    *piece =
        (struct encoding_piece){UTF8_REPLACEMENT, sizeof UTF8_REPLACEMENT - 1, reader->at, reader->at + n, true};
    reader->at += n;
    return 1;
}

static int utf8_next(struct encoding_reader *reader, struct encoding_piece *piece)
{
    const char *from = reader->bytes + reader->at;
    size_t left = reader->length - reader->at;
    size_t n = utf8_valid_prefix((struct text){from, left});
    if (n > 0) {
        *piece = (struct encoding_piece){from, n, reader->at, reader->at + n, false};
        reader->at += n;
        return 1;
    }
    for (struct utf8_piece next; n < left && !(next = utf8_piece(from + n, left - n)).valid;)
        n += next.length;
    return broken_piece(reader, n, piece);
}

int encoding_reader_next(struct encoding_reader *reader, struct encoding_piece *piece, struct error *err)
{
    if (reader->at == reader->length)
        return 0;
    if (reader->encoding == ENCODING_UTF8)
        return utf8_next(reader, piece);
    /* iconv takes a pointer to non-const, but does not write there. */
    char *in = (char *)(uintptr_t)(reader->bytes + reader->at);
    char *out = reader->buffer;
    size_t left = reader->length - reader->at;
    size_t in_left = left < PIECE_BYTES ? left : PIECE_BYTES;
    size_t out_left = (size_t)PIECE_BYTES * WORST_GROWTH;
    iconv(reader->converter, NULL, NULL, NULL, NULL);
    size_t rc = iconv(reader->converter, &in, &in_left, &out, &out_left);
    size_t used = (size_t)(in - (reader->bytes + reader->at));
    if (used == 0) {
        if (rc == (size_t)-1 && errno == EINVAL) /* the file ends inside a character */
            return broken_piece(reader, left, piece);
        if (rc == (size_t)-1 && errno == EILSEQ)
            return broken_piece(reader, rows[reader->encoding].unit, piece);
        return error_errno(err, "converting from %s", rows[reader->encoding].name);
    }
    *piece = (struct encoding_piece){reader->buffer, (size_t)(out - reader->buffer), reader->at, reader->at + used,
                                     false};
    reader->at += used;
    return 1;
}
