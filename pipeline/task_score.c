#include "pipeline/task.h"

const struct task task_score = {
    .name = "score",
    .result = RESULT_SCORE,
    .job = JOB_SCORE,
};
