/* FNV-1a, 64 bits: the same number for the same bytes on every machine. Not against an adversary. */
#ifndef LONGHAUL_BASE_FNV_H
#define LONGHAUL_BASE_FNV_H

#include <stddef.h>
#include <stdint.h>

#define FNV_START UINT64_C(0xcbf29ce484222325)

/* The hash of what was hashed to `hash` (FNV_START: nothing), followed by n bytes. */
uint64_t fnv_bytes(uint64_t hash, const void *bytes, size_t n);

#endif
