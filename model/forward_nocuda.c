#include "model/forward_state.h"

const struct forward_arithmetic *forward_on_cuda(void)
{
    return NULL;
}
