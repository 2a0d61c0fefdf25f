#include "io/document.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/num.h"
#include "base/utf8.h"
#include "io/digest.h"
#include "io/document_format.h"

enum {
    BINARY_PROBE_BYTES = 8192, /* text has no NUL in so many first bytes */
    READ_BYTES = 1 << 30,      /* asked of one read(2); Linux gives no more than 2 GiB */
    MAX_SPANS = 1000 * 1000    /* a file damaged in more places is not text */
};

struct document {
    char *path;
    char *bytes; /* the file; NULL where why_not */
    size_t length;
    char sha256[DIGEST_HEX_BYTES];
    enum encoding encoding;
    const char *why_not; /* NULL, or why it is not read */
    const struct document_format *format;
    void *reader; /* of the format; NULL where why_not */
};

const char *document_use_name(enum document_use use)
{
    static const char *const names[] = {"used", "skipped", "dropped"};
    return names[use];
}

/* The file behind fd into *bytes, to its end whatever size it had when it was opened. */
static int read_all(int fd, size_t expected, struct document *document, struct error *err)
{
    size_t capacity = 0;
    for (;;) {
        if (document->length == capacity) {
            /* One byte more than the file, so that its end is met without growing. */
            capacity = capacity == 0 ? expected + 1 : capacity + capacity / 2 + 1;
            char *grown = realloc(document->bytes, capacity);
            if (!grown)
                return error_errno(err, "%s: %zu bytes", document->path, capacity);
            document->bytes = grown;
        }
        size_t room = capacity - document->length;
        ssize_t n = read(fd, document->bytes + document->length, room < READ_BYTES ? room : READ_BYTES);
        if (n < 0 && errno != EINTR)
            return error_errno(err, "reading %s", document->path);
        if (n == 0)
            return 0;
        document->length += n > 0 ? (size_t)n : 0;
    }
}

static const char *find_why_not(const char *first, size_t length)
{
    size_t mark;
    encoding_detect(first, length, &mark);
    if (length == mark)
        return "empty";
    /* UTF-16 and UTF-32 have NULs, and are known by their mark. */
    return mark == 0 && memchr(first, 0, length) ? "binary" : NULL;
}

/* Looks at the first bytes, and leaves the file where it stands. */
static int probe(int fd, struct document *document, struct error *err)
{
    char first[BINARY_PROBE_BYTES];
    size_t length = 0;
    ssize_t n;
    while (length < sizeof first && (n = pread(fd, first + length, sizeof first - length, (off_t)length)) != 0) {
        if (n < 0 && errno != EINTR)
            return error_errno(err, "reading %s", document->path);
        length += n > 0 ? (size_t)n : 0;
    }
    document->why_not = find_why_not(first, length);
    return 0;
}

/* The file and its digest. What has no text is not held in memory, however large it is. */
static int take_in(int fd, size_t expected, struct document *document, struct error *err)
{
    if (probe(fd, document, err) < 0)
        return -1;
    if (!document->why_not)
        return read_all(fd, expected, document, err) < 0
                   ? -1
                   : digest_bytes(document->bytes, document->length, document->sha256, err);
    return digest_descriptor(fd, document->sha256, &document->length, err) == 0
               ? 0
               : error_wrap(err, "%s", document->path);
}

static int read_file(struct document *document, struct error *err)
{
    struct stat st;
    /* O_NONBLOCK: a FIFO must not hold us up before we see that it is one. */
    int fd = open(document->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return error_errno(err, "opening %s", document->path);
    int rc = -1;
    if (fstat(fd, &st) < 0)
        error_errno(err, "looking at %s", document->path);
    else if (!S_ISREG(st.st_mode))
        error_set(err, ERROR_INPUT, "%s: not a regular file", document->path);
    else
        rc = take_in(fd, (size_t)st.st_size, document, err);
    close(fd);
    return rc;
}

static void document_close(struct document *document)
{
    if (!document)
        return;
    if (document->reader)
        document->format->close(document->reader);
    free(document->bytes);
    free(document->path);
    free(document);
}

/* NULL on failure. */
static struct document *document_open(const char *path, struct error *err)
{
    struct document *document = calloc(1, sizeof *document);
    if (!document || !(document->path = strdup(path))) {
        error_errno(err, "opening %s", path);
        goto fail;
    }
    if (read_file(document, err) < 0)
        goto fail;
    if (document->why_not)
        return document;
    document->format = &document_format_text;
    const struct document_source source = {document->path, document->bytes, document->length};
    document->reader = document->format->open(&source, &document->encoding, err);
    if (!document->reader)
        goto fail;
    return document;
fail:
    document_close(document);
    return NULL;
}

/* Text that is being gathered. As long as there is one piece and it lies in the file's own bytes it is not
 * copied: for most files the bytes are the text. */
struct gathering {
    const struct document *document;
    struct document_text *out;
    char *buffer;
    size_t capacity;
    int64_t spans_capacity;
};

static int gather_text(struct gathering *to, const struct document_piece *piece, struct error *err)
{
    const struct document *document = to->document;
    struct document_text *out = to->out;
    uintptr_t file = (uintptr_t)document->bytes, text = (uintptr_t)piece->text;
    if (piece->length == 0)
        return 0;
    if (out->length == 0 && text >= file && text < file + document->length) {
        out->text = piece->text;
        out->length = piece->length;
        return 0;
    }
    size_t need;
    if (!size_add(out->length, piece->length, &need))
        return error_set(err, ERROR_RESOURCE, "%s: too large", document->path);
    if (need > to->capacity) {
        size_t capacity = need + need / 2 > document->length ? need + need / 2 : document->length;
        char *grown = realloc(to->buffer, capacity);
        if (!grown)
            return error_errno(err, "%s: %zu bytes of text", document->path, capacity);
        if (!to->buffer && out->length > 0)
            memcpy(grown, out->text, out->length);
        to->buffer = grown;
        to->capacity = capacity;
    }
    memcpy(to->buffer + out->length, piece->text, piece->length);
    out->text = to->buffer;
    out->length = need;
    return 0;
}

static int gather_span(struct gathering *to, const struct document_piece *piece, struct error *err)
{
    struct document_text *out = to->out;
    struct document_span *last = out->n_spans > 0 ? &out->spans[out->n_spans - 1] : NULL;
    int64_t first_text = last ? last->end_text : 0, end_text = (int64_t)out->length;
    if (last && last->use != DOCUMENT_USED && last->use == piece->use && last->reason == piece->reason) {
        last->end_byte = piece->end_byte;
        last->end_text = end_text;
        return 0;
    }
    if (out->n_spans == MAX_SPANS)
        return error_set(err, ERROR_INPUT, "%s: not text, damaged in more than %d places", to->document->path,
                         MAX_SPANS);
    if (out->n_spans == to->spans_capacity) {
        int64_t capacity = 2 * to->spans_capacity + 4;
        struct document_span *grown = realloc(out->spans, (size_t)capacity * sizeof *grown);
        if (!grown)
            return error_errno(err, "the ledger of %s", to->document->path);
        out->spans = grown;
        to->spans_capacity = capacity;
    }
    out->spans[out->n_spans++] =
        (struct document_span){piece->first_byte, piece->end_byte, first_text, end_text, piece->use, piece->reason};
    return 0;
}

static int gather(struct gathering *to, struct document *document, struct error *err)
{
    struct document_piece piece;
    int rc;
    if (document->why_not) {
        piece = (struct document_piece){"", 0, 0, (int64_t)document->length, DOCUMENT_SKIPPED, document->why_not};
        return document->length > 0 ? gather_span(to, &piece, err) : 0;
    }
    while ((rc = document->format->next(document->reader, &piece, err)) == 1) {
        if (gather_text(to, &piece, err) < 0 || gather_span(to, &piece, err) < 0)
            return -1;
    }
    return rc;
}

int document_read(const char *path, struct document_text *out, struct error *err)
{
    *out = (struct document_text){.text = "", .encoding = ENCODING_UNKNOWN};
    struct document *document = document_open(path, err);
    if (!document)
        return -1;
    struct gathering to = {.document = document, .out = out};
    memcpy(out->sha256, document->sha256, sizeof out->sha256);
    int rc = gather(&to, document, err);
    out->encoding = document->encoding;
    out->skipped = document->why_not;
    out->source_bytes = (int64_t)document->length;
    out->chars = utf8_characters((struct text){out->text, out->length});
    out->owned = to.buffer;
    if (!to.buffer) { /* the text, if any, lies in the file's bytes */
        out->owned = document->bytes;
        document->bytes = NULL;
    }
    document_close(document);
    return rc;
}

void document_text_release(struct document_text *text)
{
    free(text->owned);
    text->owned = NULL;
    text->text = "";
    text->length = 0;
}

void document_text_free(struct document_text *text)
{
    free(text->owned);
    free(text->spans);
    *text = (struct document_text){.text = ""};
}

int document_require_text(const struct document_text *text, const char *path, struct error *err)
{
    if (!text->skipped || text->source_bytes == 0)
        return 0;
    return error_set(err, ERROR_INPUT, "%s: not read: %s", path, text->skipped);
}

/* Formats that hold text which is not the bytes of the file, or none. */
static const char *const unsupported[] = {
    "7z",   "a",   "bmp",  "bz2",         "class", "doc",     "docx", "dll",  "dvi", "dylib", "eot",
    "epub", "exe", "flac", "gguf",        "gif",   "gz",      "h5",   "hdf5", "ico", "iso",   "jar",
    "jpeg", "jpg", "lz4",  "mkv",         "mobi",  "mov",     "mp3",  "mp4",  "npy", "npz",   "o",
    "odp",  "ods", "odt",  "ogg",         "otf",   "parquet", "pdf",  "png",  "ppt", "pptx",  "pt",
    "pyc",  "rar", "rtf",  "safetensors", "so",    "sqlite",  "tar",  "tgz",  "tif", "tiff",  "ttf",
    "wasm", "wav", "webm", "webp",        "woff",  "woff2",   "xls",  "xlsx", "xz",  "zip",   "zst",
};

const char *document_unsupported(const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *dot = strrchr(slash ? slash : path, '.');
    if (!dot)
        return NULL;
    for (size_t i = 0; i < sizeof unsupported / sizeof unsupported[0]; i++) {
        if (strcasecmp(dot + 1, unsupported[i]) == 0)
            return unsupported[i];
    }
    return NULL;
}
