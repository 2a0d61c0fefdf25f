#include "pipeline/chunk.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "pipeline/closers.h"

/* How good a place between two tokens is for a cut; the larger the better. */
enum border { BORDER_NONE, BORDER_CHARACTER, BORDER_SENTENCE, BORDER_LINE, BORDER_BLANK_LINE };

/* How far back a border is looked into: a gigabyte of spaces must not be read once a token. */
enum { LOOK_BACK_BYTES = 256 };

struct cutter {
    const struct chunk_text *text;
    struct chunk_limits limits;
    int64_t slack; /* tokens that a border may lie from where it was aimed */
};

/* The byte where token `token` begins. */
static int64_t token_byte(const struct chunk_text *text, int64_t token)
{
    return token > 0 ? text->ends[token - 1] : 0;
}

/* Step back over the given ASCII bytes. */
static int64_t back_over(const char *bytes, int64_t at, const char *these)
{
    while (at > 0 && bytes[at - 1] != '\0' && strchr(these, bytes[at - 1]))
        at--;
    return at;
}

/* True when bytes [0, at) end in `tail`. */
static bool ends_in(const char *bytes, int64_t at, const char *tail)
{
    int64_t n = (int64_t)strlen(tail);
    return at >= n && memcmp(bytes + at - n, tail, (size_t)n) == 0;
}

/* A full stop says that a sentence ends only where a space follows; a wide one always does. */
static bool ends_sentence(const char *bytes, int64_t at, bool space_follows)
{
    static const char *const wide[] = {"\u3002", "\uff01", "\uff1f", "\u2026"};
    int64_t spoken = back_over(bytes, at, " \t");
    int64_t mark = (int64_t)closers_before(bytes, (size_t)spoken);
    if (mark > 0 && strchr(".!?", bytes[mark - 1]) && bytes[mark - 1] != '\0')
        return space_follows || spoken < at;
    for (size_t i = 0; i < sizeof wide / sizeof wide[0]; i++) {
        if (ends_in(bytes, mark, wide[i]))
            return true;
    }
    return false;
}

/* What lies between token - 1 and token; 0 < token < n_tokens. */
static enum border border_at(const struct chunk_text *text, int64_t token)
{
    const int64_t here = token_byte(text, token);
    if (here == 0 || here == text->ends[text->n_tokens - 1])
        return BORDER_CHARACTER;
    const char next = text->bytes[here];
    if (((unsigned char)next & 0xc0u) == 0x80u)
        return BORDER_NONE;
    const int64_t at = i64_min(here, LOOK_BACK_BYTES);
    const char *bytes = text->bytes + here - at;
    /* Of a run of line ends only the last is a border, so that all of them stay with what they end. The spaces
     * that the next line begins with may be in one token with its predecessor's end. */
    const int64_t line = back_over(bytes, at, " \t");
    if (line > 0 && bytes[line - 1] == '\n' && next != '\n' && next != '\r') {
        const int64_t before = back_over(bytes, line - 1, " \t\r");
        return before > 0 && bytes[before - 1] == '\n' ? BORDER_BLANK_LINE : BORDER_LINE;
    }
    const bool space_follows = next == ' ' || next == '\t' || next == '\n' || next == '\r';
    return ends_sentence(bytes, at, space_follows) ? BORDER_SENTENCE : BORDER_CHARACTER;
}

/* The best border of tokens [low, high], of equals the one nearest to `aim`, of equally near the later. */
static int64_t best_border(const struct chunk_text *text, int64_t low, int64_t high, int64_t aim)
{
    int64_t best = aim;
    enum border best_kind = BORDER_NONE;
    const int64_t reach = i64_max(aim - low, high - aim);
    for (int64_t distance = 0; distance <= reach && best_kind < BORDER_BLANK_LINE; distance++) {
        const int64_t candidates[] = {aim + distance, aim - distance};
        for (int i = 0; i < 2; i++) {
            if (candidates[i] < low || candidates[i] > high)
                continue;
            const enum border kind = border_at(text, candidates[i]);
            if (kind > best_kind) {
                best_kind = kind;
                best = candidates[i];
            }
        }
    }
    return best;
}

/* Where the chunk that begins at `first` ends. */
static int64_t find_end(const struct cutter *cutter, int64_t first)
{
    const int64_t max = cutter->limits.max_tokens, overlap = cutter->limits.overlap;
    const int64_t left = cutter->text->n_tokens - first;
    if (left <= max)
        return first + left;
    /* As few chunks as will do for what is left, and all of one length. */
    const int64_t chunks = 1 + i64_ceil_div(left - max, max - overlap);
    const int64_t length = i64_ceil_div(left + (chunks - 1) * overlap, chunks);
    return best_border(cutter->text, first + length - cutter->slack, first + i64_min(max, length + cutter->slack),
                       first + length);
}

/* Where the chunk after [.., end) begins. */
static int64_t find_first(const struct cutter *cutter, int64_t end)
{
    const int64_t aim = end - cutter->limits.overlap;
    return best_border(cutter->text, aim - cutter->slack, aim, aim);
}

static int append(struct chunk_list *list, int64_t *capacity, struct chunk chunk, struct error *err)
{
    if (list->count == *capacity) {
        int64_t more = 2 * *capacity + 8;
        struct chunk *grown = realloc(list->items, (size_t)more * sizeof *grown);
        if (!grown)
            return error_errno(err, "a list of %lld chunks", (long long)more);
        list->items = grown;
        *capacity = more;
    }
    list->items[list->count++] = chunk;
    return 0;
}

int chunk_cut(const struct chunk_text *text, const struct chunk_limits *limits, struct chunk_list *out,
              struct error *err)
{
    const int64_t max = limits->max_tokens, overlap = limits->overlap;
    *out = (struct chunk_list){0, NULL};
    if (max < 1 || overlap < 0 || overlap > (max - 1) / 2)
        return error_set(err, ERROR_USAGE, "an overlap of %lld tokens is not less than half a chunk of %lld",
                         (long long)overlap, (long long)max);
    /* With the slack under a quarter of what a chunk adds, an end less slack, overlap and slack again is still
     * behind the beginning, and the next end behind this one: every chunk gets on. */
    const int64_t wanted = i64_max(64, max / 10);
    const struct cutter cutter = {text, *limits, i64_min(wanted, (max - overlap) / 4)};
    int64_t capacity = 0, end = 0;
    while (end < text->n_tokens) { /* behind the last chunk there is no beginning to look for */
        const int64_t before = end, first = end > 0 ? find_first(&cutter, end) : 0;
        end = find_end(&cutter, first);
        const struct chunk chunk = {first, end, token_byte(text, first), token_byte(text, end), before - first};
        if (append(out, &capacity, chunk, err) < 0) {
            chunk_list_free(out);
            return -1;
        }
    }
    return 0;
}

void chunk_list_free(struct chunk_list *list)
{
    free(list->items);
    *list = (struct chunk_list){0, NULL};
}
