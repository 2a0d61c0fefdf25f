#include "model/vocab.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/fnv.h"
#include "base/num.h"
#include "base/utf8.h"

struct entry {
    char *bytes; /* the raw bytes of what stands for text; the name of any other */
    size_t length;
    enum token_kind kind;
};

struct vocab {
    enum vocab_spelling spelling;
    int64_t count;
    struct entry *entries; /* [count] */
    char *bytes;           /* what the entries point into */
    int32_t *slots;        /* [n_slots] ids of normal tokens by the hash of their bytes; -1: empty */
    size_t n_slots;        /* a power of two */
};

/* The byte that a code point of the alphabet stands for, or -1. The printable bytes of Latin-1 stand for
 * themselves; the others, in rising order, are U+0100, U+0101 ... U+0143. */
static int byte_of(uint32_t code)
{
    if ((code >= 0x21 && code <= 0x7e) || (code >= 0xa1 && code <= 0xff && code != 0xad))
        return (int)code;
    if (code >= 0x100 && code <= 0x120)
        return (int)(code - 0x100);
    if (code >= 0x121 && code <= 0x142)
        return (int)(code - 0x121 + 0x7f);
    return code == 0x143 ? 0xad : -1;
}

int64_t vocab_bytes_from_alphabet(struct text text, char *out)
{
    int64_t n = 0;
    if (utf8_valid_prefix(text) < text.length)
        return -1;
    for (size_t at = 0, length; at < text.length; at += length) {
        int byte = byte_of(utf8_decode(text.bytes + at, &length));
        if (byte < 0)
            return -1;
        out[n++] = (char)byte;
    }
    return n;
}

/* Copy text with its U+2581 as spaces; returns the bytes written. */
static size_t copy_spaces(struct text text, char *out)
{
    size_t n = 0;
    for (size_t at = 0; at < text.length; n++) {
        bool space = text.length - at >= 3 && memcmp(text.bytes + at, "\xe2\x96\x81", 3) == 0;
        out[n] = space ? ' ' : text.bytes[at];
        at += space ? 3 : 1;
    }
    return n;
}

/* The byte that a name like "<0x0A>" stands for, or -1. */
static int byte_named(struct text name)
{
    static const char DIGITS[] = "0123456789ABCDEF";
    if (name.length != 6 || memcmp(name.bytes, "<0x", 3) != 0 || name.bytes[5] != '>')
        return -1;
    const char *high = memchr(DIGITS, name.bytes[3], 16), *low = memchr(DIGITS, name.bytes[4], 16);
    return high && low ? (int)((high - DIGITS) << 4 | (low - DIGITS)) : -1;
}

/* The bytes that a token stands for, written to `out` [name.length]: how many, or -1 where the name is not of its
 * spelling. Tokens that stand for none keep their names. */
static int64_t undo_spelling(enum vocab_spelling spelling, enum token_kind kind, struct text name, char *out)
{
    if (kind == TOKEN_NORMAL && spelling == SPELLING_BYTE_LEVEL)
        return vocab_bytes_from_alphabet(name, out);
    if (spelling == SPELLING_SENTENCEPIECE && (kind == TOKEN_NORMAL || kind == TOKEN_USER))
        return (int64_t)copy_spaces(name, out);
    if (spelling == SPELLING_SENTENCEPIECE && kind == TOKEN_BYTE) {
        int byte = byte_named(name);
        *out = (char)byte;
        return byte < 0 ? -1 : 1;
    }
    memcpy(out, name.bytes, name.length);
    return (int64_t)name.length;
}

static bool has_bytes(const struct vocab *vocab, enum token_kind kind)
{
    return kind == TOKEN_NORMAL || kind == TOKEN_USER ||
           (kind == TOKEN_BYTE && vocab->spelling == SPELLING_SENTENCEPIECE);
}

/* The slot where the bytes are, or where they would go. */
static size_t slot_of(const struct vocab *vocab, struct text piece)
{
    size_t mask = vocab->n_slots - 1;
    size_t slot = (size_t)fnv_bytes(FNV_START, piece.bytes, piece.length) & mask;
    for (;; slot = (slot + 1) & mask) {
        int32_t id = vocab->slots[slot];
        if (id < 0)
            return slot;
        const struct entry *entry = &vocab->entries[id];
        if (entry->length == piece.length && memcmp(entry->bytes, piece.bytes, piece.length) == 0)
            return slot;
    }
}

static const struct value *find_array(const struct bundle *bundle, const char *key, enum value_kind kind)
{
    const struct value *value = bundle_value(bundle, key);
    return value && value->kind == kind ? value : NULL;
}

static int allocate(struct vocab *vocab, const struct value *tokens, struct error *err)
{
    size_t total = 1;
    vocab->count = tokens->count;
    vocab->n_slots = 16;
    while (vocab->n_slots < 2 * (size_t)vocab->count)
        vocab->n_slots *= 2;
    for (int64_t i = 0; i < tokens->count; i++)
        if (!size_add(total, tokens->strings[i].length, &total))
            return error_set(err, ERROR_RESOURCE, "the vocabulary is too large");
    vocab->entries = calloc((size_t)vocab->count, sizeof *vocab->entries);
    vocab->bytes = malloc(total);
    vocab->slots = malloc(vocab->n_slots * sizeof *vocab->slots);
    if (!vocab->entries || !vocab->bytes || !vocab->slots)
        return error_set(err, ERROR_RESOURCE, "no memory for a vocabulary of %lld tokens", (long long)vocab->count);
    memset(vocab->slots, 0xff, vocab->n_slots * sizeof *vocab->slots);
    return 0;
}

/* Copy token `id`, spelled `name` in the file, to `at`. */
static int add(struct vocab *vocab, int32_t id, struct text name, char *at, struct error *err)
{
    struct entry *entry = &vocab->entries[id];
    int64_t length = name.length > 0 ? undo_spelling(vocab->spelling, entry->kind, name, at) : 0;
    if (length < 0)
        return error_set(err, ERROR_INPUT, "tokenizer.ggml.tokens[%d] is not %s", id,
                         entry->kind == TOKEN_BYTE ? "the name of a byte" : "in the byte-level alphabet");
    if (length == 0 && (entry->kind == TOKEN_NORMAL || entry->kind == TOKEN_BYTE))
        return error_set(err, ERROR_INPUT, "tokenizer.ggml.tokens[%d] is empty", id);
    entry->bytes = at;
    entry->length = (size_t)length;
    if (entry->kind != TOKEN_NORMAL)
        return 0;
    size_t slot = slot_of(vocab, (struct text){at, entry->length});
    if (vocab->slots[slot] >= 0)
        return error_set(err, ERROR_INPUT, "tokenizer.ggml.tokens[%d] is the same as [%d]", id, vocab->slots[slot]);
    vocab->slots[slot] = id;
    return 0;
}

static int fill(struct vocab *vocab, const struct value *tokens, const struct value *kinds, struct error *err)
{
    char *at = vocab->bytes;
    for (int32_t id = 0; id < vocab->count; id++) {
        int64_t kind = kinds ? kinds->integers[id] : TOKEN_NORMAL;
        if (kind < TOKEN_NORMAL || kind > TOKEN_BYTE)
            return error_set(err, ERROR_INPUT, "tokenizer.ggml.token_type[%d] is %lld, which is unknown", id,
                             (long long)kind);
        vocab->entries[id].kind = (enum token_kind)kind;
        if (add(vocab, id, tokens->strings[id], at, err) < 0)
            return -1;
        at += vocab->entries[id].length;
    }
    return 0;
}

struct vocab *vocab_create(const struct bundle *bundle, enum vocab_spelling spelling, struct error *err)
{
    const struct value *tokens = find_array(bundle, "tokenizer.ggml.tokens", VALUE_STRINGS);
    const struct value *kinds = find_array(bundle, "tokenizer.ggml.token_type", VALUE_INTS);
    if (!tokens || tokens->count < 1 || tokens->count > INT32_MAX / 2) {
        error_set(err, ERROR_INPUT, "%s: tokenizer.ggml.tokens is missing, or not a list of strings", bundle->path);
        return NULL;
    }
    if (kinds ? kinds->count != tokens->count : bundle_value(bundle, "tokenizer.ggml.token_type") != NULL) {
        error_set(err, ERROR_INPUT, "%s: tokenizer.ggml.token_type is not a list of %lld integers", bundle->path,
                  (long long)tokens->count);
        return NULL;
    }
    struct vocab *vocab = calloc(1, sizeof *vocab);
    if (!vocab) {
        error_errno(err, "making a vocabulary");
        return NULL;
    }
    vocab->spelling = spelling;
    if (allocate(vocab, tokens, err) < 0 || fill(vocab, tokens, kinds, err) < 0) {
        error_wrap(err, "%s", bundle->path);
        vocab_free(vocab);
        return NULL;
    }
    return vocab;
}

void vocab_free(struct vocab *vocab)
{
    if (!vocab)
        return;
    free(vocab->entries);
    free(vocab->bytes);
    free(vocab->slots);
    free(vocab);
}

int64_t vocab_size(const struct vocab *vocab)
{
    return vocab->count;
}

enum token_kind vocab_kind(const struct vocab *vocab, int32_t id)
{
    return vocab->entries[id].kind;
}

struct text vocab_piece(const struct vocab *vocab, int32_t id)
{
    const struct entry *entry = &vocab->entries[id];
    return (struct text){entry->bytes, has_bytes(vocab, entry->kind) ? entry->length : 0};
}

int32_t vocab_find(const struct vocab *vocab, struct text piece)
{
    return vocab->slots[slot_of(vocab, piece)];
}

int32_t vocab_find_special(const struct vocab *vocab, const char *name)
{
    for (int32_t id = 0; id < vocab->count; id++) {
        const struct entry *entry = &vocab->entries[id];
        if ((entry->kind == TOKEN_CONTROL || entry->kind == TOKEN_USER) &&
            text_equals((struct text){entry->bytes, entry->length}, name))
            return id;
    }
    return -1;
}

uint64_t vocab_hash(const struct vocab *vocab, uint64_t hash)
{
    for (int64_t id = 0; id < vocab->count; id++) {
        const struct entry *entry = &vocab->entries[id];
        uint64_t head[2] = {(uint64_t)entry->kind, entry->length};
        hash = fnv_bytes(hash, head, sizeof head);
        hash = fnv_bytes(hash, entry->bytes, entry->length);
    }
    return hash;
}
