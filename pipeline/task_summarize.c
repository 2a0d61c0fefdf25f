#include "pipeline/task.h"

const struct task task_summarize = {
    .name = "summarize",
    .result = RESULT_SUMMARIZE,
    .job = JOB_GENERATE,
    .prompts =
        {
            [ROLE_WHOLE] = {.before = "Here is a document:\n\n",
                            .after = "\n\nSummarize the document above in one paragraph: what it is, what it says, "
                                     "and what matters most in it."},
            [ROLE_MAP] = {.before = "Here is part {part} of {parts} of a document:\n\n",
                          .after = "\n\nSummarize this part of the document in one paragraph: what it says, and "
                                   "what matters most in it."},
            [ROLE_REDUCE] = {.before = "Here are summaries of consecutive parts of one document:\n\n",
                             .after = "\n\nWrite one summary of the whole document in one paragraph, from the "
                                      "summaries above."},
            [ROLE_REFINE] = {.before = "Here is a summary of the first parts of a document:\n\n",
                             .between = "\n\nHere is its next part, {part} of {parts}:\n\n",
                             .after = "\n\nWrite a new summary in one paragraph that covers the first parts and "
                                      "the next part."},
        },
};
