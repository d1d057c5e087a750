// cache.h - where blocks and small objects come from (cache.c).
#ifndef DLUA_CACHE_H
#define DLUA_CACHE_H

#include "backend.h"

// A device's store of free blocks; NULL on failure with the message set.
struct dlua_cache *dlua_cache_new(void);
// The CPU's, which is always there.
struct dlua_cache *dlua_cache_cpu(void);

#endif
