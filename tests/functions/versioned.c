/*
 * Answers with the VERSION of its environment, after as many microseconds as the input says. Cannot be
 * used with the version "broken", whose workers are not made.
 */
#define _POSIX_C_SOURCE 199309L
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char* version(void) {
    const char* text = getenv("VERSION");
    return text == NULL ? "none" : text;
}

#define REFUSES_WORKERS (strcmp(version(), "broken") == 0)
#include "v1.h"

int faas_init(void) { return 0; }

int faas_func_call(void* worker_handle, const char* input, size_t input_length) {
    const worker* self = worker_handle;
    char text[16] = {0};
    struct timespec time;
    long us;

    memcpy(text, input, input_length < sizeof text ? input_length : sizeof text - 1);
    us = strtol(text, NULL, 10);
    time.tv_sec = us / 1000000;
    time.tv_nsec = us % 1000000 * 1000;
    nanosleep(&time, NULL);
    self->append_output(self->context, version(), strlen(version()));
    return 0;
}
