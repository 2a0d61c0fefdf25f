#include "model/spm.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/fnv.h"
#include "base/utf8.h"
#include "model/heap.h"
#include "model/memo.h"
#include "model/spm_split.h"

struct spm {
    const struct vocab *vocab;
    struct spm_split *split;
    int32_t *ranks;        /* [vocab size] of normal pieces: 0 for the highest score, the same for the same score */
    size_t longest;        /* bytes of the longest normal piece */
    int32_t byte_ids[256]; /* the token of each single byte, or -1 */
    bool space_prefix;
};

/* One symbol of a stretch: a node of a doubly linked list, found at the index of its first byte. */
struct symbol {
    int32_t prev, next; /* -1: none */
    int32_t id;         /* -1: the character has no piece */
    int32_t joined;     /* what it makes with the next; -1: nothing, or it was joined to the one before */
};

/* What one call of spm_encode works with. */
struct work {
    const struct spm *spm;
    struct token_list *list;
    struct memo *memo;
    struct heap heap; /* rank << 32 | index of the left symbol */
    struct symbol *symbols;
    size_t symbol_capacity;
};

/* ---- creation ---- */

struct scored {
    double score;
    int32_t id;
};

static int compare_scored(const void *left, const void *right)
{
    const struct scored *a = left, *b = right;
    return a->score > b->score ? -1 : a->score < b->score;
}

/* The normal pieces and their scores; *count = how many. The caller frees them. */
static struct scored *list_scores(const struct vocab *vocab, const double *scores, int64_t *count,
                                  struct error *err)
{
    struct scored *scored = malloc((size_t)vocab_size(vocab) * sizeof *scored);
    *count = 0;
    if (!scored) {
        error_errno(err, "ordering %lld pieces", (long long)vocab_size(vocab));
        return NULL;
    }
    for (int32_t id = 0; id < vocab_size(vocab); id++) {
        if (vocab_kind(vocab, id) != TOKEN_NORMAL)
            continue;
        if (isnan(scores[id])) {
            error_set(err, ERROR_INPUT, "tokenizer.ggml.scores[%d] is not a number", id);
            free(scored);
            return NULL;
        }
        scored[(*count)++] = (struct scored){scores[id], id};
    }
    return scored;
}

static int rank_pieces(struct spm *spm, const double *scores, struct error *err)
{
    int64_t count;
    struct scored *scored = list_scores(spm->vocab, scores, &count, err);
    if (!scored)
        return -1;
    qsort(scored, (size_t)count, sizeof *scored, compare_scored);
    spm->ranks = calloc((size_t)vocab_size(spm->vocab), sizeof *spm->ranks);
    for (int64_t i = 0, rank = 0; spm->ranks && i < count; i++) {
        rank += i > 0 && scored[i].score < scored[i - 1].score;
        spm->ranks[scored[i].id] = (int32_t)rank;
    }
    free(scored);
    return spm->ranks ? 0 : error_errno(err, "ordering %lld pieces", (long long)count);
}

/* A text that would have to be changed before it is encoded is beyond us, and must not go through unchanged. */
static int check_normaliser(const struct bundle *bundle, struct error *err)
{
    int64_t remove_spaces;
    if (bundle_int(bundle, "tokenizer.ggml.remove_extra_whitespaces", 0, &remove_spaces, err) < 0)
        return -1;
    const struct value *map = bundle_value(bundle, "tokenizer.ggml.precompiled_charsmap");
    if (remove_spaces || (map && map->count > 0))
        return error_set(err, ERROR_INPUT, "%s changes the text, which is not known here; only the identity is",
                         remove_spaces ? "tokenizer.ggml.remove_extra_whitespaces"
                                       : "tokenizer.ggml.precompiled_charsmap");
    return 0;
}

static void find_bytes(struct spm *spm)
{
    memset(spm->byte_ids, 0xff, sizeof spm->byte_ids);
    for (int32_t id = 0; id < vocab_size(spm->vocab); id++) {
        struct text piece = vocab_piece(spm->vocab, id);
        if (vocab_kind(spm->vocab, id) == TOKEN_BYTE)
            spm->byte_ids[(unsigned char)piece.bytes[0]] = id;
        else if (vocab_kind(spm->vocab, id) == TOKEN_NORMAL && piece.length > spm->longest)
            spm->longest = piece.length;
    }
}

static int fill(struct spm *spm, const struct bundle *bundle, struct error *err)
{
    int64_t prefix;
    const struct value *scores = bundle_value(bundle, "tokenizer.ggml.scores");
    if (!scores || scores->kind != VALUE_FLOATS || scores->count != vocab_size(spm->vocab))
        return error_set(err, ERROR_INPUT, "tokenizer.ggml.scores is not a list of %lld numbers",
                         (long long)vocab_size(spm->vocab));
    if (!bundle_value(bundle, "tokenizer.ggml.token_type"))
        return error_set(err, ERROR_INPUT, "tokenizer.ggml.token_type is missing");
    if (check_normaliser(bundle, err) < 0 ||
        bundle_int(bundle, "tokenizer.ggml.add_space_prefix", 1, &prefix, err) < 0)
        return -1;
    find_bytes(spm);
    spm->space_prefix = prefix && (vocab_find(spm->vocab, (struct text){" ", 1}) >= 0 || spm->byte_ids[' '] >= 0);
    if (rank_pieces(spm, scores->reals, err) < 0 || !(spm->split = spm_split_create(spm->vocab, err)))
        return -1;
    return 0;
}

struct spm *spm_create(const struct bundle *bundle, const struct vocab *vocab, struct error *err)
{
    struct spm *spm = calloc(1, sizeof *spm);
    if (!spm) {
        error_errno(err, "making a tokenizer");
        return NULL;
    }
    spm->vocab = vocab;
    if (fill(spm, bundle, err) < 0) {
        error_wrap(err, "%s", bundle->path);
        spm_free(spm);
        return NULL;
    }
    return spm;
}

void spm_free(struct spm *spm)
{
    if (!spm)
        return;
    spm_split_free(spm->split);
    free(spm->ranks);
    free(spm);
}

bool spm_space_prefix(const struct spm *spm)
{
    return spm->space_prefix;
}

uint64_t spm_hash(const struct spm *spm, uint64_t hash)
{
    uint64_t prefix = spm->space_prefix;
    hash = fnv_bytes(hash, &prefix, sizeof prefix);
    return fnv_bytes(hash, spm->ranks, (size_t)vocab_size(spm->vocab) * sizeof *spm->ranks);
}

/* ---- merging ---- */

static int32_t find_piece(const struct spm *spm, const char *bytes, int32_t length)
{
    return (size_t)length > spm->longest ? -1 : vocab_find(spm->vocab, (struct text){bytes, (size_t)length});
}

/* Link the characters of a stretch of valid UTF-8. */
static void link_symbols(const struct spm *spm, struct symbol *symbols, struct text stretch)
{
    int32_t last = -1, length = (int32_t)stretch.length;
    size_t bytes;
    for (int32_t at = 0; at < length; at += (int32_t)bytes) {
        utf8_decode(stretch.bytes + at, &bytes);
        int32_t next = at + (int32_t)bytes;
        int32_t id = find_piece(spm, stretch.bytes + at, (int32_t)bytes);
        symbols[at] = (struct symbol){last, next < length ? next : -1, id, -1};
        last = at;
    }
}

/* See what the symbol at `left` makes with the next one; when that is a piece, *candidate is its key. */
static bool look(struct work *work, struct text stretch, int32_t left, uint64_t *candidate)
{
    struct symbol *symbols = work->symbols;
    int32_t right = symbols[left].next, id = -1;
    if (right >= 0) {
        int32_t end = symbols[right].next < 0 ? (int32_t)stretch.length : symbols[right].next;
        id = find_piece(work->spm, stretch.bytes + left, end - left);
    }
    symbols[left].joined = id;
    if (id < 0)
        return false;
    *candidate = (uint64_t)(uint32_t)work->spm->ranks[id] << 32 | (uint32_t)left;
    return true;
}

/* Join the symbol at `left` with the next one; the pairs on both sides become candidates. */
static int join(struct work *work, struct text stretch, int32_t left, struct error *err)
{
    struct symbol *symbols = work->symbols;
    int32_t right = symbols[left].next, next = symbols[right].next, prev = symbols[left].prev;
    uint64_t candidate;
    symbols[left].id = symbols[left].joined;
    symbols[left].next = next;
    symbols[right].joined = -1;
    if (next >= 0)
        symbols[next].prev = left;
    if (look(work, stretch, left, &candidate) && heap_push(&work->heap, candidate, err) < 0)
        return -1;
    return prev >= 0 && look(work, stretch, prev, &candidate) ? heap_push(&work->heap, candidate, err) : 0;
}

static int merge(struct work *work, struct text stretch, struct error *err)
{
    struct symbol *symbols = work->symbols;
    uint64_t candidate;
    work->heap.count = 0;
    for (int32_t at = 0; at >= 0; at = symbols[at].next)
        if (look(work, stretch, at, &candidate) && heap_append(&work->heap, candidate, err) < 0)
            return -1;
    heap_order(&work->heap);
    while (work->heap.count > 0) {
        uint64_t top = heap_pop(&work->heap);
        int32_t left = (int32_t)(uint32_t)top, joined = symbols[left].joined;
        /* A candidate is stale when its symbols have changed since: then the rank is another. */
        if (joined >= 0 && work->spm->ranks[joined] == (int32_t)(top >> 32) && join(work, stretch, left, err) < 0)
            return -1;
    }
    return 0;
}

/* ---- writing tokens ---- */

/* The tokens of single bytes, the first at list->text_bytes + `at`. */
static int append_bytes(const struct work *work, struct text bytes, int64_t at, struct error *err)
{
    for (size_t i = 0; i < bytes.length; i++) {
        int32_t id = work->spm->byte_ids[(unsigned char)bytes.bytes[i]];
        work->list->unknown_bytes += id < 0;
        if (id >= 0 && token_list_append(work->list, id, work->list->text_bytes + at + (int64_t)i + 1, err) < 0)
            return -1;
    }
    return 0;
}

static int append_symbols(const struct work *work, struct text stretch, struct error *err)
{
    const struct symbol *symbols = work->symbols;
    for (int32_t at = 0; at >= 0; at = symbols[at].next) {
        int32_t end = symbols[at].next < 0 ? (int32_t)stretch.length : symbols[at].next;
        struct text bytes = {stretch.bytes + at, (size_t)(end - at)};
        if (symbols[at].id < 0
                ? append_bytes(work, bytes, at, err) < 0
                : token_list_append(work->list, symbols[at].id, work->list->text_bytes + end, err) < 0)
            return -1;
    }
    return 0;
}

static int encode_new(struct work *work, struct text stretch, struct error *err)
{
    if (stretch.length > INT32_MAX)
        return error_set(err, ERROR_INPUT, "an unbroken piece of %zu bytes is too long to tokenize",
                         stretch.length);
    if (stretch.length > work->symbol_capacity) {
        size_t capacity = stretch.length + 256;
        free(work->symbols);
        work->symbol_capacity = 0;
        work->symbols = malloc(capacity * sizeof *work->symbols);
        if (!work->symbols)
            return error_errno(err, "merging a piece of %zu bytes", stretch.length);
        work->symbol_capacity = capacity;
    }
    link_symbols(work->spm, work->symbols, stretch);
    return merge(work, stretch, err) < 0 ? -1 : append_symbols(work, stretch, err);
}

/* A stretch in which nothing is user-defined. */
static int encode_stretch(struct work *work, struct text stretch, struct error *err)
{
    bool found;
    struct token_list *list = work->list;
    if (memo_append(work->memo, work->spm->vocab, stretch, list, &found, err) < 0)
        return -1;
    if (found)
        return 0;
    int64_t first = list->count, unknown = list->unknown_bytes;
    if (encode_new(work, stretch, err) < 0)
        return -1;
    if (list->unknown_bytes == unknown)
        memo_keep(work->memo, stretch, list, first);
    return 0;
}

static int encode_valid(struct work *work, struct text text, struct error *err)
{
    struct token_list *list = work->list;
    for (size_t start = 0; start < text.length;) {
        struct spm_stretch next = spm_split_next(work->spm->split, text, start);
        struct text stretch = {text.bytes + start, next.end - start};
        int64_t end = list->text_bytes + (int64_t)stretch.length;
        if (next.user >= 0 ? token_list_append(list, next.user, end, err) < 0
                           : encode_stretch(work, stretch, err) < 0)
            return -1;
        list->text_bytes = end;
        start = next.end;
    }
    return 0;
}

static int encode_text(struct work *work, struct text text, struct error *err)
{
    while (text.length > 0) {
        size_t valid = utf8_valid_prefix(text);
        if (encode_valid(work, (struct text){text.bytes, valid}, err) < 0)
            return -1;
        text = (struct text){text.bytes + valid, text.length - valid};
        if (text.length == 0)
            break;
        if (append_bytes(work, (struct text){text.bytes, 1}, 0, err) < 0)
            return -1;
        work->list->text_bytes++;
        text = (struct text){text.bytes + 1, text.length - 1};
    }
    return 0;
}

/* The text with a space in front, which stands for none of its bytes. */
static int encode_prefixed(struct work *work, struct text text, struct error *err)
{
    struct token_list *list = work->list;
    int64_t first = list->count, base = list->text_bytes;
    char *prefixed = malloc(text.length + 1);
    if (!prefixed)
        return error_errno(err, "tokenizing %zu bytes", text.length);
    prefixed[0] = ' ';
    memcpy(prefixed + 1, text.bytes, text.length);
    int status = encode_text(work, (struct text){prefixed, text.length + 1}, err);
    free(prefixed);
    for (int64_t i = first; i < list->count; i++)
        list->ends[i] -= list->ends[i] > base;
    list->text_bytes--;
    return status;
}

typedef int encoder(struct work *work, struct text text, struct error *err);

static int encode_by(const struct spm *spm, encoder *encode, struct text text, struct token_list *list,
                     struct error *err)
{
    struct work work = {.spm = spm, .list = list};
    if (text.length == 0)
        return 0;
    if (!(work.memo = memo_create(err)))
        return -1;
    int status = encode(&work, text, err);
    memo_free(work.memo);
    heap_free(&work.heap);
    free(work.symbols);
    return status;
}

int spm_encode(const struct spm *spm, struct text text, struct token_list *list, struct error *err)
{
    return encode_by(spm, spm->space_prefix ? encode_prefixed : encode_text, text, list, err);
}

int spm_continue(const struct spm *spm, struct text text, struct token_list *list, struct error *err)
{
    return encode_by(spm, encode_text, text, list, err);
}
