// notes.c - a ring of pinned places with an event each. A sender overtakes the ring only when the
// host runs DLUA_NOTES values ahead, and then waits for the oldest.
#include "notes.h"

#include <string.h>

static char *place_of(const dlua_notes *n, uint64_t ticket) {
  return n->memory + ticket % DLUA_NOTES * DLUA_NOTE_BYTES;
}

dlua_status dlua_note_send(dlua_notes *n, cudaStream_t work, const void *src, size_t bytes,
                           uint64_t *ticket) {
  void *memory = NULL;
  if (!n->memory) {
    CUDA_TRY(cudaHostAlloc, &memory, DLUA_NOTES * DLUA_NOTE_BYTES, cudaHostAllocDefault);
    n->memory = memory;
  }
  uint64_t next = n->sent + 1;
  cudaEvent_t *arrived = &n->arrived[next % DLUA_NOTES];
  if (*arrived)
    CUDA_TRY(cudaEventSynchronize, *arrived);
  else
    CUDA_TRY(cudaEventCreateWithFlags, arrived, cudaEventDisableTiming);
  CUDA_TRY(cudaMemcpyAsync, place_of(n, next), src, bytes, cudaMemcpyDeviceToHost, work);
  CUDA_TRY(cudaEventRecord, *arrived, work);
  *ticket = n->sent = next;
  return DLUA_OK;
}

// What an answer about an event means; "not yet" counts as CUDA's last error, too.
static dlua_status asked(cudaError_t answer, bool *arrived) {
  *arrived = dlua_cuda_quiet(answer);
  return answer == cudaErrorNotReady ? DLUA_OK : dlua_cuda_check("cudaEventQuery", answer);
}

dlua_status dlua_note_receive(dlua_notes *n, uint64_t ticket, void *dst, size_t bytes,
                              bool *arrived) {
  if (ticket == 0 || ticket > n->sent || ticket + DLUA_NOTES <= n->sent) {
    return dlua_fail(DLUA_BAD_STATE, "receive: this value was sent too long ago");
  }
  cudaEvent_t event = n->arrived[ticket % DLUA_NOTES];
  DLUA_TRY(DLUA_TRIED_AGAIN(asked(dlua_cuda_calls_table.cudaEventQuery(event), arrived)));
  if (*arrived) memcpy(dst, place_of(n, ticket), bytes);
  return DLUA_OK;
}
