#include "model/marks.h"

#include <string.h>

static const char *const MARKS[] = {
    "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
    "[INST]",       "[/INST]",    "<start_of_turn>",     "<end_of_turn>",
};

const char *mark_at(struct text words)
{
    for (size_t i = 0; i < sizeof MARKS / sizeof MARKS[0]; i++) {
        const size_t length = strlen(MARKS[i]);
        if (length <= words.length && memcmp(words.bytes, MARKS[i], length) == 0)
            return MARKS[i];
    }
    return NULL;
}
