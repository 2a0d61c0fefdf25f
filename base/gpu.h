/* What the host's side of CUDA code shares: checking what CUDA returns. For files *_cuda.c and *_cuda.cu. */
#ifndef LONGHAUL_BASE_GPU_H
#define LONGHAUL_BASE_GPU_H

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

#include "base/error.h"

/* 0 for cudaSuccess; else -1 and *err says "<what>: <CUDA's message>": ERROR_RESOURCE where memory is short, else
 * ERROR_CLUSTER. */
int gpu_check(cudaError_t code, const char *what, struct error *err);

/* The same for the kernels that this thread has launched. */
int gpu_check_launch(const char *what, struct error *err);

/* Of the card in use; 1 where CUDA does not say. */
int gpu_multiprocessors(void);

/* 10 * major + minor of the card in use: 80, 90; 0 where CUDA does not say. */
int gpu_capability(void);

#ifdef __cplusplus
}
#endif

#endif
