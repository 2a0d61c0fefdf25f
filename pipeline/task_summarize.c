#include "pipeline/task.h"

const struct task task_summarize = {
    .job = JOB_GENERATE,
    .prompts =
        {
            [ROLE_WHOLE] = {.before = "Here is a document:\n\n",
                            .after = "\n\nSummarize the document above in up to three sentences."},
            [ROLE_MAP] = {.before = "Here is part {part} of {parts} of a document:\n\n",
                          .after = "\n\nSummarize this part of the document in up to three sentences."},
            [ROLE_REDUCE] = {.before = "Here are summaries of consecutive parts of one document:\n\n",
                             .after = "\n\nSummarize the whole document in up to three sentences."},
            [ROLE_REFINE] = {.before = "Here is a summary of the first parts of a document:\n\n",
                             .between = "\n\nHere is its next part, {part} of {parts}:\n\n",
                             .after = "\n\nSummarize the first parts and the next part together in up to three "
                                      "sentences."},
        },
};
