#include "model/bpe.h"

#include <stdlib.h>
#include <string.h>

#include "base/fnv.h"
#include "base/num.h"
#include "model/heap.h"
#include "model/memo.h"

enum { SHORT_PIECE = 48 }; /* up to here scanning all neighbours beats a heap */

/* A pair of neighbours and what it becomes. An empty slot has left < 0. */
struct merge {
    int32_t left, right;
    int32_t rank; /* its place in the file */
    int32_t id;   /* the token that the two become */
};

struct bpe {
    const struct vocab *vocab;
    struct merge *slots; /* [n_slots] by the hash of (left, right) */
    size_t n_slots;      /* a power of two */
    int64_t n_merges;
    int32_t byte_ids[256]; /* the token of each single byte, or -1 */
    bool whole_pieces;
};

/* One symbol of a long piece: a node of a doubly linked list, found at the index of its first byte. */
struct symbol {
    int32_t id;         /* -1: the byte has no token, or was joined to the symbol before */
    int32_t prev, next; /* -1: none */
};

struct bpe_work {
    struct memo *memo;
    struct heap heap; /* rank << 32 | index of the left symbol */
    struct symbol *symbols;
    size_t symbol_capacity;
};

static size_t pair_hash(int32_t left, int32_t right)
{
    uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    key = (key ^ key >> 32) * UINT64_C(0x9e3779b97f4a7c15);
    return (size_t)(key ^ key >> 29);
}

/* The slot of the pair, or the empty one where it would go. */
static struct merge *find_slot(const struct bpe *bpe, int32_t left, int32_t right)
{
    size_t mask = bpe->n_slots - 1;
    for (size_t i = pair_hash(left, right) & mask;; i = (i + 1) & mask) {
        struct merge *slot = &bpe->slots[i];
        if (slot->left < 0 || (slot->left == left && slot->right == right))
            return slot;
    }
}

static const struct merge *find_merge(const struct bpe *bpe, int32_t left, int32_t right)
{
    const struct merge *slot = find_slot(bpe, left, right);
    return slot->left < 0 ? NULL : slot;
}

/* ---- creation ---- */

/* Take "left right" apart; `buffer` has room for the bytes of both. */
static int add_merge(struct bpe *bpe, struct text line, int32_t rank, char *buffer, struct error *err)
{
    const char *space = line.length > 2 ? memchr(line.bytes + 1, ' ', line.length - 2) : NULL;
    if (!space)
        return error_set(err, ERROR_INPUT, "tokenizer.ggml.merges[%d] is not two pieces with a space between",
                         rank);
    size_t at = (size_t)(space - line.bytes);
    int64_t left = vocab_bytes_from_alphabet((struct text){line.bytes, at}, buffer);
    int64_t right =
        left < 0 ? -1 : vocab_bytes_from_alphabet((struct text){space + 1, line.length - at - 1}, buffer + left);
    if (left <= 0 || right <= 0)
        return error_set(err, ERROR_INPUT, "tokenizer.ggml.merges[%d] is not in the byte-level alphabet", rank);
    struct merge merge = {.rank = rank};
    merge.left = vocab_find(bpe->vocab, (struct text){buffer, (size_t)left});
    merge.right = vocab_find(bpe->vocab, (struct text){buffer + left, (size_t)right});
    merge.id = vocab_find(bpe->vocab, (struct text){buffer, (size_t)(left + right)});
    if (merge.left < 0 || merge.right < 0 || merge.id < 0)
        return error_set(err, ERROR_INPUT, "tokenizer.ggml.merges[%d] has a %s that is not in the vocabulary", rank,
                         merge.left < 0 || merge.right < 0 ? "part" : "result");
    struct merge *slot = find_slot(bpe, merge.left, merge.right);
    if (slot->left >= 0)
        return error_set(err, ERROR_INPUT, "tokenizer.ggml.merges[%d] is the same as [%d]", rank, slot->rank);
    *slot = merge;
    return 0;
}

static int add_merges(struct bpe *bpe, const struct value *merges, struct error *err)
{
    size_t longest = 0;
    int status = 0;
    for (int64_t i = 0; i < merges->count; i++)
        longest = merges->strings[i].length > longest ? merges->strings[i].length : longest;
    char *buffer = malloc(longest + 1);
    if (!buffer)
        return error_errno(err, "reading %lld merges", (long long)merges->count);
    for (int32_t i = 0; i < merges->count && status == 0; i++)
        status = add_merge(bpe, merges->strings[i], i, buffer, err);
    free(buffer);
    return status;
}

static int fill(struct bpe *bpe, const struct bundle *bundle, struct error *err)
{
    const struct value *merges = bundle_value(bundle, "tokenizer.ggml.merges");
    if (!merges || merges->kind != VALUE_STRINGS || merges->count > INT32_MAX / 2)
        return error_set(err, ERROR_INPUT, "tokenizer.ggml.merges is missing, or not a list of strings");
    bpe->n_merges = merges->count;
    bpe->n_slots = 16;
    while (bpe->n_slots < 2 * (size_t)merges->count)
        bpe->n_slots *= 2;
    bpe->slots = malloc(bpe->n_slots * sizeof *bpe->slots);
    if (!bpe->slots)
        return error_errno(err, "making a table of %lld merges", (long long)merges->count);
    memset(bpe->slots, 0xff, bpe->n_slots * sizeof *bpe->slots);
    for (int byte = 0; byte < 256; byte++) {
        char c = (char)byte;
        bpe->byte_ids[byte] = vocab_find(bpe->vocab, (struct text){&c, 1});
    }
    return add_merges(bpe, merges, err);
}

struct bpe *bpe_create(const struct bundle *bundle, const struct vocab *vocab, bool whole_pieces, struct error *err)
{
    struct bpe *bpe = calloc(1, sizeof *bpe);
    if (!bpe) {
        error_errno(err, "making a tokenizer");
        return NULL;
    }
    bpe->vocab = vocab;
    bpe->whole_pieces = whole_pieces;
    if (fill(bpe, bundle, err) < 0) {
        error_wrap(err, "%s", bundle->path);
        bpe_free(bpe);
        return NULL;
    }
    return bpe;
}

void bpe_free(struct bpe *bpe)
{
    if (!bpe)
        return;
    free(bpe->slots);
    free(bpe);
}

uint64_t bpe_hash(const struct bpe *bpe, uint64_t hash)
{
    uint64_t sum = 0; /* the order of the slots does not matter: each merge carries its rank */
    for (size_t i = 0; i < bpe->n_slots; i++)
        if (bpe->slots[i].left >= 0)
            sum += fnv_bytes(FNV_START, &bpe->slots[i], sizeof bpe->slots[i]);
    return fnv_bytes(hash, &sum, sizeof sum);
}

struct bpe_work *bpe_work_create(struct error *err)
{
    struct bpe_work *work = calloc(1, sizeof *work);
    if (!work) {
        error_errno(err, "making room for tokenizing");
        return NULL;
    }
    if (!(work->memo = memo_create(err))) {
        bpe_work_free(work);
        return NULL;
    }
    return work;
}

void bpe_work_free(struct bpe_work *work)
{
    if (!work)
        return;
    memo_free(work->memo);
    heap_free(&work->heap);
    free(work->symbols);
    free(work);
}

/* ---- short pieces: scan the ranks ---- */

static int32_t rank_of(const struct bpe *bpe, int32_t left, int32_t right)
{
    const struct merge *merge = find_merge(bpe, left, right);
    return merge ? merge->rank : INT32_MAX;
}

/* One place of the lowest rank, or -1. */
static int lowest(const int32_t *ranks, int count)
{
    int best = -1;
    int32_t rank = INT32_MAX;
    for (int i = 0; i + 1 < count; i++)
        if (ranks[i] < rank) {
            rank = ranks[i];
            best = i;
        }
    return best;
}

/* ids [count], starts [count]: the symbols of a short piece and where they begin; merged in place. Returns how
 * many are left. */
static int merge_short(const struct bpe *bpe, int32_t *ids, int32_t *starts, int count)
{
    int32_t ranks[SHORT_PIECE]; /* of (i, i + 1) */
    int at;
    for (int i = 0; i + 1 < count; i++)
        ranks[i] = rank_of(bpe, ids[i], ids[i + 1]);
    while ((at = lowest(ranks, count)) >= 0) {
        ids[at] = find_merge(bpe, ids[at], ids[at + 1])->id;
        for (int i = at + 1; i + 1 < count; i++) {
            ids[i] = ids[i + 1];
            starts[i] = starts[i + 1];
            ranks[i] = ranks[i + 1];
        }
        count--;
        if (at > 0)
            ranks[at - 1] = rank_of(bpe, ids[at - 1], ids[at]);
        if (at + 1 < count)
            ranks[at] = rank_of(bpe, ids[at], ids[at + 1]);
    }
    return count;
}

static int encode_short(const struct bpe *bpe, struct text piece, struct token_list *list, struct error *err)
{
    int32_t ids[SHORT_PIECE], starts[SHORT_PIECE];
    int count = 0;
    for (size_t i = 0; i < piece.length; i++) {
        int32_t id = bpe->byte_ids[(unsigned char)piece.bytes[i]];
        list->unknown_bytes += id < 0;
        if (id < 0)
            continue;
        ids[count] = id;
        starts[count++] = (int32_t)i;
    }
    count = merge_short(bpe, ids, starts, count);
    for (int i = 0; i < count; i++) {
        int64_t end = i + 1 < count ? starts[i + 1] : (int64_t)piece.length;
        if (token_list_append(list, ids[i], list->text_bytes + end, err) < 0)
            return -1;
    }
    return 0;
}

/* ---- long pieces: a heap of candidates over a linked list ---- */

/* What the symbols at `left` and behind it become, or NULL. */
static const struct merge *merge_at(const struct bpe *bpe, const struct symbol *symbols, int32_t left)
{
    int32_t right = symbols[left].next;
    return right < 0 ? NULL : find_merge(bpe, symbols[left].id, symbols[right].id);
}

static uint64_t candidate(const struct merge *merge, int32_t left)
{
    return (uint64_t)(uint32_t)merge->rank << 32 | (uint32_t)left;
}

/* Link the symbols of all bytes that have a token. Returns the index of the first, -1 when there is none. */
static int32_t link_symbols(const struct bpe *bpe, struct symbol *symbols, struct text piece,
                            int64_t *unknown_bytes)
{
    int32_t first = -1, last = -1;
    for (int32_t i = 0; i < (int32_t)piece.length; i++) {
        symbols[i] = (struct symbol){bpe->byte_ids[(unsigned char)piece.bytes[i]], last, -1};
        if (symbols[i].id < 0) {
            ++*unknown_bytes;
            continue;
        }
        if (last >= 0)
            symbols[last].next = i;
        else
            first = i;
        last = i;
    }
    return first;
}

/* Every pair that can be joined now becomes a candidate. */
static int heap_fill(const struct bpe *bpe, struct bpe_work *work, int32_t first, struct error *err)
{
    work->heap.count = 0;
    for (int32_t i = first; i >= 0; i = work->symbols[i].next) {
        const struct merge *merge = merge_at(bpe, work->symbols, i);
        if (merge && heap_append(&work->heap, candidate(merge, i), err) < 0)
            return -1;
    }
    heap_order(&work->heap);
    return 0;
}

/* Join the symbol at `left` with the next one; the pairs on both sides become candidates. */
static int join(const struct bpe *bpe, struct bpe_work *work, int32_t left, int32_t id, struct error *err)
{
    struct symbol *symbols = work->symbols;
    int32_t right = symbols[left].next, next = symbols[right].next, prev = symbols[left].prev;
    symbols[left].id = id;
    symbols[left].next = next;
    symbols[right].id = -1;
    if (next >= 0)
        symbols[next].prev = left;
    const struct merge *merge = merge_at(bpe, symbols, left);
    if (merge && heap_push(&work->heap, candidate(merge, left), err) < 0)
        return -1;
    merge = prev >= 0 ? merge_at(bpe, symbols, prev) : NULL;
    return merge ? heap_push(&work->heap, candidate(merge, prev), err) : 0;
}

static int encode_long(const struct bpe *bpe, struct bpe_work *work, struct text piece, struct token_list *list,
                       struct error *err)
{
    if (piece.length > work->symbol_capacity) {
        free(work->symbols);
        work->symbol_capacity = 0;
        work->symbols = malloc(piece.length * sizeof *work->symbols);
        if (!work->symbols)
            return error_errno(err, "merging a piece of %zu bytes", piece.length);
        work->symbol_capacity = piece.length;
    }
    struct symbol *symbols = work->symbols;
    int32_t first = link_symbols(bpe, symbols, piece, &list->unknown_bytes);
    if (heap_fill(bpe, work, first, err) < 0)
        return -1;
    while (work->heap.count > 0) {
        uint64_t top = heap_pop(&work->heap);
        int32_t left = (int32_t)(uint32_t)top;
        /* A candidate is stale when its symbols have changed since: then the rank is another. */
        const struct merge *merge = symbols[left].id < 0 ? NULL : merge_at(bpe, symbols, left);
        if (merge && merge->rank == (int32_t)(top >> 32) && join(bpe, work, left, merge->id, err) < 0)
            return -1;
    }
    for (int32_t i = first; i >= 0; i = symbols[i].next) {
        int64_t end = symbols[i].next < 0 ? (int64_t)piece.length : symbols[i].next;
        if (token_list_append(list, symbols[i].id, list->text_bytes + end, err) < 0)
            return -1;
    }
    return 0;
}

/* ---- all pieces: remembered, short or long ---- */

static int encode_new(const struct bpe *bpe, struct bpe_work *work, struct text piece, struct token_list *list,
                      struct error *err)
{
    int32_t whole = bpe->whole_pieces ? vocab_find(bpe->vocab, piece) : -1;
    if (whole >= 0)
        return token_list_append(list, whole, list->text_bytes + (int64_t)piece.length, err);
    if (piece.length <= SHORT_PIECE)
        return encode_short(bpe, piece, list, err);
    return encode_long(bpe, work, piece, list, err);
}

int bpe_encode(const struct bpe *bpe, struct bpe_work *work, struct text piece, struct token_list *list,
               struct error *err)
{
    if (piece.length == 0)
        return 0;
    if (piece.length > INT32_MAX)
        return error_set(err, ERROR_INPUT, "an unbroken piece of %zu bytes is too long to tokenize", piece.length);
    bool found;
    if (memo_append(work->memo, bpe->vocab, piece, list, &found, err) < 0)
        return -1;
    if (!found) {
        int64_t first = list->count, unknown = list->unknown_bytes;
        if (encode_new(bpe, work, piece, list, err) < 0)
            return -1;
        if (list->unknown_bytes == unknown)
            memo_keep(work->memo, piece, list, first);
    }
    list->text_bytes += (int64_t)piece.length;
    return 0;
}
