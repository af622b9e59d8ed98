/*
 * "<function>\n<count>\n<rest>" calls the function so many times at once, with the rest as its input,
 * and answers with "<outcome> <length>\n<answer>" for each.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nightcore.h"

#define CALLS_MAX 48

uint32_t nightcore_abi_version(void) { return NIGHTCORE_ABI_VERSION; }

int nightcore_call(void* worker, nightcore_call_context* context, const nightcore_host* host,
                   const uint8_t* input, size_t input_length) {
    const uint8_t *line, *rest, *end = input + input_length;
    uint64_t handles[CALLS_MAX];
    long count, i;
    (void)worker;

    line = input_length ? memchr(input, '\n', input_length) : NULL;
    rest = line ? memchr(line + 1, '\n', (size_t)(end - line - 1)) : NULL;
    if (rest == NULL) return 1;
    count = strtol((const char*)line + 1, NULL, 10);
    if (count < 0 || count > CALLS_MAX) return 1;
    for (i = 0; i < count; i++) {
        if (host->call_prepare(context, (const char*)input, (size_t)(line - input), rest + 1,
                               (size_t)(end - rest - 1), &handles[i]) != NIGHTCORE_OK)
            return 1;
    }
    for (i = 0; i < count; i++) {
        nightcore_answer answer;
        char text[64];
        if (host->call_wait(context, handles[i], &answer) != NIGHTCORE_OK) return 1;
        snprintf(text, sizeof text, "%d %zu\n", answer.outcome, answer.length);
        if (host->output_append(context, (const uint8_t*)text, strlen(text))) return 1;
        if (host->output_append(context, answer.data, answer.length)) return 1;
        host->call_release(context, handles[i]);
    }
    return 0;
}
