/*
 * "<microseconds>\n<rest>" takes so much CPU time, and is answered with "<core> <request id>\n<rest>",
 * unless nobody waits any more: then it fails. "die" ends the container.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "nightcore.h"

uint32_t nightcore_abi_version(void) { return NIGHTCORE_ABI_VERSION; }

static long cpu_time_us(void) {
    struct timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return time.tv_sec * 1000000L + time.tv_nsec / 1000;
}

int nightcore_call(void* worker, nightcore_call_context* context, const nightcore_host* host,
                   const uint8_t* input, size_t input_length) {
    const uint8_t* end = input_length ? memchr(input, '\n', input_length) : NULL;
    long start = cpu_time_us(), us;
    const char* id;
    size_t id_length, rest;
    char text[128];
    (void)worker;

    if (input_length == 3 && memcmp(input, "die", 3) == 0) abort();
    if (end == NULL) return 1;
    us = strtol((const char*)input, NULL, 10);
    while (cpu_time_us() - start < us) {
        if (host->is_cancelled(context))
            return host->fail(context, NIGHTCORE_DEADLINE_EXCEEDED, "nobody waits any more", 21);
    }
    if (host->get(context, NIGHTCORE_REQUEST_ID, &id, &id_length) != NIGHTCORE_OK) return 1;
    snprintf(text, sizeof text, "%d %.*s\n", sched_getcpu(), (int)id_length, id);
    if (host->output_append(context, (const uint8_t*)text, strlen(text)) != NIGHTCORE_OK) return 1;
    rest = (size_t)(end + 1 - input);
    return host->output_append(context, input + rest, input_length - rest);
}
