#include "model/nfc.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/num.h"
#include "base/utf8.h"

static const utf8proc_option_t FORM = (utf8proc_option_t)(UTF8PROC_STABLE | UTF8PROC_COMPOSE);
enum { MOST_PARTS = 8 }; /* a character decomposes into four at most */

/* One normalisation under way: source bytes before `done` are settled. */
struct work {
    struct text source;
    struct nfc_text *out;
    size_t done;
    size_t capacity;         /* of out->owned */
    utf8proc_int32_t *codes; /* scratch: the code points of one cluster */
    size_t code_capacity;
    struct error *err;
};

/* Combining marks newer than Unicode 9, whose tables the `tokenizers` library normalises with: the models saw them
 * left where they were. (tests/reference/tokens.py characters finds them.) */
static const struct {
    uint32_t first, last;
} NEWER[] = {
    {0x07fd, 0x07fd},   {0x0898, 0x089f},   {0x08ca, 0x08d3},   {0x09fe, 0x09fe},   {0x0c3c, 0x0c3c},
    {0x0d3b, 0x0d3c},   {0x0eba, 0x0eba},   {0x1715, 0x1715},   {0x1abf, 0x1ace},   {0x1df6, 0x1dfa},
    {0xa82c, 0xa82c},   {0x10d24, 0x10d27}, {0x10eab, 0x10eac}, {0x10efd, 0x10eff}, {0x10f46, 0x10f50},
    {0x10f82, 0x10f85}, {0x11070, 0x11070}, {0x1133b, 0x1133b}, {0x1145e, 0x1145e}, {0x11839, 0x1183a},
    {0x11930, 0x11930}, {0x1193d, 0x1193e}, {0x11943, 0x11943}, {0x119e0, 0x119e0}, {0x11a34, 0x11a34},
    {0x11a47, 0x11a47}, {0x11a99, 0x11a99}, {0x11d42, 0x11d42}, {0x11d44, 0x11d45}, {0x11d97, 0x11d97},
    {0x11f41, 0x11f42}, {0x16ff0, 0x16ff1}, {0x1e08f, 0x1e08f}, {0x1e130, 0x1e136}, {0x1e2ae, 0x1e2ae},
    {0x1e2ec, 0x1e2ef}, {0x1e4ec, 0x1e4ef},
};
enum { N_NEWER = sizeof NEWER / sizeof NEWER[0] };

static bool is_newer(uint32_t code)
{
    for (int i = 0; i < N_NEWER && NEWER[i].first <= code; i++)
        if (code <= NEWER[i].last)
            return true;
    return false;
}

/* True for a character that may change with the one before it: marks, and the parts of Hangul syllables that
 * follow the first. */
static bool extends(uint32_t code)
{
    if (code < 0x300)
        return false;
    if (code >= 0x1160 && code <= 0x11ff)
        return true;
    utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)code);
    return category == UTF8PROC_CATEGORY_MN || category == UTF8PROC_CATEGORY_MC || category == UTF8PROC_CATEGORY_ME;
}

/* True for a character that may change by itself. */
static bool decomposes(uint32_t code)
{
    if (code < 0x300 || (code >= 0xac00 && code <= 0xd7a3)) /* composed, and in the form */
        return false;
    const utf8proc_property_t *property = utf8proc_get_property((utf8proc_int32_t)code);
    return property->decomp_seqindex != UINT16_MAX && property->decomp_type == 0;
}

/* The place behind the cluster that has `at` in it: a character and all that extend it. */
static size_t cluster_end(struct text text, size_t at)
{
    size_t length;
    for (utf8_decode(text.bytes + at, &length), at += length; at < text.length; at += length)
        if (!extends(utf8_decode(text.bytes + at, &length)))
            break;
    return at;
}

static int compare_keys(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static int class_of(utf8proc_int32_t code)
{
    return is_newer((uint32_t)code) ? 0 : utf8proc_get_property(code)->combining_class;
}

/* Order codes [n], all of a combining class above 0, by class; those of one class stay in order. */
static int order_run(utf8proc_int32_t *codes, size_t n, struct error *err)
{
    bool ordered = true;
    for (size_t i = 1; i < n && ordered; i++)
        ordered = class_of(codes[i - 1]) <= class_of(codes[i]);
    if (ordered)
        return 0;
    uint64_t *keys = n >> 32 ? NULL : malloc(n * sizeof *keys);
    if (!keys)
        return error_set(err, ERROR_RESOURCE, "no memory to normalise %zu combining marks in a row", n);
    for (size_t i = 0; i < n; i++)
        keys[i] = (uint64_t)class_of(codes[i]) << 53 | (uint64_t)i << 21 | (uint64_t)codes[i];
    qsort(keys, n, sizeof *keys, compare_keys);
    for (size_t i = 0; i < n; i++)
        codes[i] = (utf8proc_int32_t)(keys[i] & 0x1fffff);
    free(keys);
    return 0;
}

static int order(utf8proc_int32_t *codes, size_t n, struct error *err)
{
    for (size_t start = 0, end; start < n; start = end) {
        for (end = start; end < n && class_of(codes[end]) > 0;)
            end++;
        if (end - start > 1 && order_run(codes + start, end - start, err) < 0)
            return -1;
        end += end == start;
    }
    return 0;
}

/* work->codes = the composed code points of the cluster; returns how many, or -1. */
static int64_t compose(struct work *work, struct text cluster)
{
    size_t n = 0, length;
    for (size_t at = 0; at < cluster.length; at += length) {
        uint32_t code = utf8_decode(cluster.bytes + at, &length);
        if (n + MOST_PARTS > work->code_capacity) {
            size_t capacity = work->code_capacity * 2 + 64;
            utf8proc_int32_t *codes = realloc(work->codes, capacity * sizeof *codes);
            if (!codes)
                return error_errno(work->err, "normalising a cluster of %zu bytes", cluster.length);
            work->codes = codes;
            work->code_capacity = capacity;
        }
        int boundary = 0;
        utf8proc_ssize_t parts =
            utf8proc_decompose_char((utf8proc_int32_t)code, work->codes + n, MOST_PARTS, FORM, &boundary);
        if (parts < 0 || parts > MOST_PARTS)
            return error_set(work->err, ERROR_INTERNAL, "U+%04X cannot be decomposed", (unsigned)code);
        n += (size_t)parts;
    }
    if (order(work->codes, n, work->err) < 0)
        return -1;
    return utf8proc_normalize_utf32(work->codes, (utf8proc_ssize_t)n, FORM);
}

/* Append bytes to the normal text. */
static int put(struct work *work, const char *bytes, size_t n)
{
    struct nfc_text *out = work->out;
    if (n == 0)
        return 0;
    if (n > work->capacity - out->text.length) {
        size_t capacity = work->capacity + work->capacity / 2 + n + 64;
        char *owned = realloc(out->owned, capacity);
        if (!owned)
            return error_errno(work->err, "normalising %zu bytes", work->source.length);
        out->owned = owned;
        out->text.bytes = owned;
        work->capacity = capacity;
    }
    memcpy(out->owned + out->text.length, bytes, n);
    out->text.length += n;
    return 0;
}

static int put_edit(struct work *work, struct nfc_edit edit)
{
    struct nfc_text *out = work->out;
    if (out->n_edits == out->edit_capacity) {
        int64_t capacity = out->edit_capacity * 2 + 16;
        struct nfc_edit *edits = realloc(out->edits, (size_t)capacity * sizeof *edits);
        if (!edits)
            return error_errno(work->err, "normalising %zu bytes", work->source.length);
        out->edits = edits;
        out->edit_capacity = capacity;
    }
    out->edits[out->n_edits++] = edit;
    return 0;
}

/* Settle the cluster start .. end of the source; a cluster that stays as it is costs nothing more. */
static int settle(struct work *work, size_t start, size_t end)
{
    struct text cluster = {work->source.bytes + start, end - start};
    int64_t n = compose(work, cluster);
    if (n < 0)
        return -1;
    size_t at = 0;
    bool same = true;
    char bytes[4];
    for (int64_t i = 0; i < n && same; i++) {
        size_t length = utf8_encode((uint32_t)work->codes[i], bytes);
        same = length <= cluster.length - at && memcmp(cluster.bytes + at, bytes, length) == 0;
        at += length;
    }
    if (same && at == cluster.length)
        return 0;
    if (put(work, work->source.bytes + work->done, start - work->done) < 0)
        return -1;
    struct nfc_edit edit = {.source_start = (int64_t)start, .source_end = (int64_t)end};
    edit.normal_start = (int64_t)work->out->text.length;
    for (int64_t i = 0; i < n; i++)
        if (put(work, bytes, utf8_encode((uint32_t)work->codes[i], bytes)) < 0)
            return -1;
    edit.normal_end = (int64_t)work->out->text.length;
    work->done = end;
    return put_edit(work, edit);
}

static int normalize(struct work *work)
{
    struct text source = work->source;
    size_t start = 0, length; /* of the cluster under way */
    for (size_t at = 0; at < source.length; at += length) {
        uint32_t code = utf8_decode(source.bytes + at, &length);
        bool extending = extends(code);
        if (!extending)
            start = at;
        if (!extending && !decomposes(code))
            continue;
        size_t end = cluster_end(source, at);
        if (settle(work, start, end) < 0)
            return -1;
        length = end - at;
        start = end;
    }
    if (work->done == 0) {
        work->out->text = source;
        return 0;
    }
    return put(work, source.bytes + work->done, source.length - work->done);
}

int nfc_normalize(struct text text, struct nfc_text *out, struct error *err)
{
    struct work work = {.source = text, .out = out, .err = err};
    *out = (struct nfc_text){0};
    int status = normalize(&work);
    free(work.codes);
    if (status < 0)
        nfc_free(out);
    return status;
}

void nfc_free(struct nfc_text *text)
{
    free(text->owned);
    free(text->edits);
    *text = (struct nfc_text){0};
}

void nfc_map_ends(const struct nfc_text *text, int64_t base, int64_t *ends, int64_t count)
{
    int64_t edit = 0, shift = 0; /* the first edit that does not end before the place; source - normal before it */
    for (int64_t i = 0; i < count; i++) {
        int64_t end = ends[i] - base;
        while (edit < text->n_edits && text->edits[edit].normal_end <= end) {
            shift = text->edits[edit].source_end - text->edits[edit].normal_end;
            edit++;
        }
        if (edit < text->n_edits && end > text->edits[edit].normal_start)
            end = text->edits[edit].source_start - shift;
        ends[i] = base + end + shift;
    }
}
