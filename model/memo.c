#include "model/memo.h"

#include <stdlib.h>
#include <string.h>

enum { MEMO_SLOTS = 1 << 14, MEMO_BYTES = 30, MEMO_IDS = 8 };

struct slot {
    uint8_t length, count; /* length 0: empty */
    char bytes[MEMO_BYTES];
    int32_t ids[MEMO_IDS];
};

struct memo {
    struct slot slots[MEMO_SLOTS];
};

struct memo *memo_create(struct error *err)
{
    struct memo *memo = calloc(1, sizeof *memo);
    if (!memo)
        error_errno(err, "making room for tokenizing");
    return memo;
}

void memo_free(struct memo *memo)
{
    free(memo);
}

static size_t slot_of(struct text piece)
{
    uint64_t hash = piece.length, word;
    size_t i = 0;
    for (; i + 8 <= piece.length; i += 8) {
        memcpy(&word, piece.bytes + i, 8);
        hash = (hash ^ word) * UINT64_C(0x9e3779b97f4a7c15);
        hash ^= hash >> 32;
    }
    word = 0;
    memcpy(&word, piece.bytes + i, piece.length - i);
    hash = (hash ^ word) * UINT64_C(0x9e3779b97f4a7c15);
    return hash >> 50; /* the upper 14 bits: MEMO_SLOTS */
}

int memo_append(const struct memo *memo, const struct vocab *vocab, struct text piece, struct token_list *list,
                bool *found, struct error *err)
{
    *found = false;
    if (piece.length > MEMO_BYTES)
        return 0;
    const struct slot *slot = &memo->slots[slot_of(piece)];
    if (slot->length != piece.length || memcmp(slot->bytes, piece.bytes, piece.length) != 0)
        return 0;
    *found = true;
    int64_t end = list->text_bytes;
    for (int i = 0; i < slot->count; i++) {
        end += (int64_t)vocab_piece(vocab, slot->ids[i]).length;
        if (token_list_append(list, slot->ids[i], end, err) < 0)
            return -1;
    }
    return 0;
}

void memo_keep(struct memo *memo, struct text piece, const struct token_list *list, int64_t first)
{
    int64_t count = list->count - first;
    if (piece.length > MEMO_BYTES || count > MEMO_IDS)
        return;
    struct slot *slot = &memo->slots[slot_of(piece)];
    slot->length = (uint8_t)piece.length;
    slot->count = (uint8_t)count;
    memcpy(slot->bytes, piece.bytes, piece.length);
    memcpy(slot->ids, list->ids + first, (size_t)count * sizeof *slot->ids);
}
