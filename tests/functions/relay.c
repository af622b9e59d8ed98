/*
 * Calls the function that the first line of the input names, with the rest as its input, and passes
 * its answer on. A failure is passed on as an answer too: "outcome <number>: <message>".
 */
#include <stdio.h>
#include <string.h>

#include "nightcore.h"

uint32_t nightcore_abi_version(void) { return NIGHTCORE_ABI_VERSION; }

int nightcore_call(void* worker, nightcore_call_context* context, const nightcore_host* host,
                   const uint8_t* input, size_t input_length) {
    const uint8_t* end = input_length ? memchr(input, '\n', input_length) : NULL;
    size_t name_length = end ? (size_t)(end - input) : input_length;
    size_t rest = end ? name_length + 1 : name_length;
    nightcore_answer answer;
    uint64_t handle;
    char text[32];
    (void)worker;

    if (host->call_start(context, (const char*)input, name_length, input + rest,
                         input_length - rest, &handle) != NIGHTCORE_OK)
        return 1;
    if (host->call_wait(context, handle, &answer) != NIGHTCORE_OK) return 1;
    if (answer.outcome != NIGHTCORE_OK) {
        snprintf(text, sizeof text, "outcome %d: ", answer.outcome);
        if (host->output_append(context, (const uint8_t*)text, strlen(text))) return 1;
    }
    return host->output_append(context, answer.data, answer.length);
}
