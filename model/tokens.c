#include "model/tokens.h"

#include <stdlib.h>
#include <string.h>

#include "base/num.h"

void token_list_free(struct token_list *list)
{
    free(list->ids);
    free(list->ends);
    *list = (struct token_list){0};
}

int token_list_reserve(struct token_list *list, int64_t more, struct error *err)
{
    int64_t need;
    size_t bytes;
    if (__builtin_add_overflow(list->count, more, &need) || need > INT64_MAX / 2)
        return error_set(err, ERROR_RESOURCE, "cannot hold %lld more tokens", (long long)more);
    if (need <= list->capacity)
        return 0;
    int64_t capacity = i64_max(need, list->capacity + list->capacity / 2 + 64);
    if (!size_mul((size_t)capacity, sizeof *list->ends, &bytes))
        return error_set(err, ERROR_RESOURCE, "cannot hold %lld tokens", (long long)capacity);
    int32_t *ids = realloc(list->ids, (size_t)capacity * sizeof *ids);
    if (ids)
        list->ids = ids;
    int64_t *ends = realloc(list->ends, bytes);
    if (ends)
        list->ends = ends;
    if (!ids || !ends)
        return error_set(err, ERROR_RESOURCE, "no memory for a list of %lld tokens", (long long)capacity);
    list->capacity = capacity;
    return 0;
}

int token_list_append(struct token_list *list, int32_t id, int64_t end, struct error *err)
{
    if (list->count == list->capacity && token_list_reserve(list, 1, err) < 0)
        return -1;
    list->ids[list->count] = id;
    list->ends[list->count] = end;
    list->count++;
    return 0;
}

int token_list_join(struct token_list *list, const struct token_list *from, struct error *err)
{
    if (token_list_reserve(list, from->count, err) < 0)
        return -1;
    if (from->count > 0)
        memcpy(list->ids + list->count, from->ids, (size_t)from->count * sizeof *from->ids);
    for (int64_t i = 0; i < from->count; i++)
        list->ends[list->count + i] = list->text_bytes + from->ends[i];
    list->count += from->count;
    list->text_bytes += from->text_bytes;
    list->unknown_bytes += from->unknown_bytes;
    return 0;
}
