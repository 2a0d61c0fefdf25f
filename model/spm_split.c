#include "model/spm_split.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "model/marks.h"

struct user_piece {
    struct text bytes;
    int32_t id;
};

/* A set of pairs of code points; open addressing, at most half full. */
struct pair_set {
    uint64_t *slots; /* [n_slots] 0: empty */
    size_t n_slots;  /* a power of two, or 0 */
    size_t count;
};

struct spm_split {
    struct user_piece *users; /* [n_users] in the order of their bytes */
    size_t n_users;
    size_t first_user[257]; /* by the first byte: users [first_user[b], first_user[b + 1]) */
    struct pair_set pairs;  /* neighbours in normal pieces */
};

/* ---- pairs of neighbours ---- */

static uint64_t pair_key(uint32_t left, uint32_t right)
{
    return ((uint64_t)left << 32 | right) + 1;
}

static uint64_t *pair_slot(const struct pair_set *set, uint64_t key)
{
    size_t mask = set->n_slots - 1;
    uint64_t hash = key * UINT64_C(0x9e3779b97f4a7c15);
    for (size_t i = (size_t)(hash >> 32) & mask;; i = (i + 1) & mask)
        if (set->slots[i] == 0 || set->slots[i] == key)
            return &set->slots[i];
}

static int pair_grow(struct pair_set *set, struct error *err)
{
    struct pair_set grown = {.n_slots = set->n_slots ? 2 * set->n_slots : 1024, .count = set->count};
    grown.slots = calloc(grown.n_slots, sizeof *grown.slots);
    if (!grown.slots)
        return error_errno(err, "making a table of %zu neighbours", set->count);
    for (size_t i = 0; i < set->n_slots; i++)
        if (set->slots[i])
            *pair_slot(&grown, set->slots[i]) = set->slots[i];
    free(set->slots);
    *set = grown;
    return 0;
}

static int pair_add(struct pair_set *set, uint32_t left, uint32_t right, struct error *err)
{
    if (2 * set->count >= set->n_slots && pair_grow(set, err) < 0)
        return -1;
    uint64_t *slot = pair_slot(set, pair_key(left, right));
    set->count += *slot == 0;
    *slot = pair_key(left, right);
    return 0;
}

static bool pair_has(const struct pair_set *set, uint32_t left, uint32_t right)
{
    return set->count > 0 && *pair_slot(set, pair_key(left, right)) != 0;
}

static int add_pairs(struct pair_set *set, struct text piece, struct error *err)
{
    size_t length;
    uint32_t left = utf8_decode(piece.bytes, &length);
    for (size_t at = length; at < piece.length; at += length) {
        uint32_t right = utf8_decode(piece.bytes + at, &length);
        if (pair_add(set, left, right, err) < 0)
            return -1;
        left = right;
    }
    return 0;
}

static int collect_pairs(struct spm_split *split, const struct vocab *vocab, struct error *err)
{
    for (int32_t id = 0; id < vocab_size(vocab); id++) {
        if (vocab_kind(vocab, id) != TOKEN_NORMAL)
            continue;
        struct text piece = vocab_piece(vocab, id);
        if (utf8_valid_prefix(piece) < piece.length)
            return error_set(err, ERROR_INPUT, "tokenizer.ggml.tokens[%d] is not UTF-8", id);
        if (add_pairs(&split->pairs, piece, err) < 0)
            return -1;
    }
    return 0;
}

/* ---- user-defined pieces ---- */

static int compare_users(const void *left, const void *right)
{
    const struct user_piece *a = left, *b = right;
    size_t common = a->bytes.length < b->bytes.length ? a->bytes.length : b->bytes.length;
    int order = memcmp(a->bytes.bytes, b->bytes.bytes, common);
    if (order != 0)
        return order;
    if (a->bytes.length != b->bytes.length)
        return a->bytes.length < b->bytes.length ? -1 : 1;
    return a->id < b->id ? -1 : 1;
}

static unsigned char byte_at(const struct user_piece *user, size_t at)
{
    return (unsigned char)user->bytes.bytes[at];
}

/* A piece that text becomes wherever it has these bytes. */
static bool is_user(const struct vocab *vocab, int32_t id)
{
    const struct text piece = vocab_piece(vocab, id);
    if (vocab_kind(vocab, id) != TOKEN_USER || piece.length == 0)
        return false;
    const char *mark = mark_at(piece);
    return !mark || strlen(mark) != piece.length;
}

static int collect_users(struct spm_split *split, const struct vocab *vocab, struct error *err)
{
    size_t count = 0;
    for (int32_t id = 0; id < vocab_size(vocab); id++)
        count += is_user(vocab, id);
    split->users = malloc((count + 1) * sizeof *split->users);
    if (!split->users)
        return error_errno(err, "listing %zu user-defined pieces", count);
    for (int32_t id = 0; id < vocab_size(vocab); id++) {
        const struct text piece = vocab_piece(vocab, id);
        if (!is_user(vocab, id))
            continue;
        if (utf8_valid_prefix(piece) < piece.length)
            return error_set(err, ERROR_INPUT, "tokenizer.ggml.tokens[%d] is not UTF-8", id);
        split->users[split->n_users++] = (struct user_piece){piece, id};
    }
    qsort(split->users, split->n_users, sizeof *split->users, compare_users);
    for (size_t byte = 0, i = 0; byte < 257; byte++) {
        while (i < split->n_users && byte_at(&split->users[i], 0) < byte)
            i++;
        split->first_user[byte] = i;
    }
    return 0;
}

/* Of users [low, high), which share their first `at` bytes and are longer than that: the first whose next byte is
 * not below `byte`. */
static size_t first_not_below(const struct spm_split *split, size_t low, size_t high, size_t at, unsigned byte)
{
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (byte_at(&split->users[middle], at) < byte)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The longest user-defined piece at the start of the bytes, or NULL. */
static const struct user_piece *user_at(const struct spm_split *split, struct text bytes)
{
    const struct user_piece *best = NULL;
    unsigned char byte = (unsigned char)bytes.bytes[0];
    size_t low = split->first_user[byte], high = split->first_user[byte + 1];
    for (size_t at = 1; low < high; at++) {
        /* Those that end here come first, as they are beginnings of the others. */
        if (split->users[low].bytes.length == at)
            best = &split->users[low];
        while (low < high && split->users[low].bytes.length == at)
            low++;
        if (at == bytes.length)
            break;
        byte = (unsigned char)bytes.bytes[at];
        low = first_not_below(split, low, high, at, byte);
        high = first_not_below(split, low, high, at, byte + 1u);
    }
    return best;
}

/* ---- both ---- */

struct spm_split *spm_split_create(const struct vocab *vocab, struct error *err)
{
    struct spm_split *split = calloc(1, sizeof *split);
    if (!split) {
        error_errno(err, "making a tokenizer");
        return NULL;
    }
    if (collect_users(split, vocab, err) < 0 || collect_pairs(split, vocab, err) < 0) {
        spm_split_free(split);
        return NULL;
    }
    return split;
}

void spm_split_free(struct spm_split *split)
{
    if (!split)
        return;
    free(split->users);
    free(split->pairs.slots);
    free(split);
}

struct spm_stretch spm_split_next(const struct spm_split *split, struct text text, size_t start)
{
    const struct user_piece *user = user_at(split, (struct text){text.bytes + start, text.length - start});
    if (user)
        return (struct spm_stretch){start + user->bytes.length, user->id};
    size_t length, at = start;
    uint32_t left = utf8_decode(text.bytes + at, &length);
    for (at += length; at < text.length; at += length) {
        uint32_t right = utf8_decode(text.bytes + at, &length);
        if (!pair_has(&split->pairs, left, right) ||
            user_at(split, (struct text){text.bytes + at, text.length - at}))
            break;
        left = right;
    }
    return (struct spm_stretch){at, -1};
}
