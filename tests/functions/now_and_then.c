/*
 * Answers with its input, which is short work; but where that begins with "again\n" it calls itself
 * with the rest, waits, and passes the answer on.
 */
#include <string.h>

#include "nightcore.h"

uint32_t nightcore_abi_version(void) { return NIGHTCORE_ABI_VERSION; }

int nightcore_call(void* worker, nightcore_call_context* context, const nightcore_host* host,
                   const uint8_t* input, size_t input_length) {
    static const char again[] = "again\n";
    const size_t size = sizeof again - 1;
    nightcore_answer answer;
    uint64_t handle;
    (void)worker;

    if (input_length < size || memcmp(input, again, size) != 0)
        return host->output_append(context, input, input_length);
    if (host->call_prepare(context, "now_and_then", 12, input + size, input_length - size, &handle))
        return 1;
    if (host->call_wait(context, handle, &answer) || answer.outcome != NIGHTCORE_OK) return 1;
    return host->output_append(context, answer.data, answer.length);
}
