/*
 * Answers with the name of its host, a space and its input, after a pause. Interface v1. Environment:
 *   HOST        the name
 *   SERVICE_US  the pause, in microseconds
 *   LEDGER      a file to which each call appends a line before it pauses: the same as the answer
 */
#define _DEFAULT_SOURCE
#include <fcntl.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "v1.h"

#define LINE_MAX 256

static const char* host = "";
static long pause_us;
static int ledger = -1;

int faas_init(void) {
    const char* value = getenv("HOST");
    if (value != NULL) host = value;
    value = getenv("SERVICE_US");
    if (value != NULL) pause_us = atol(value);
    value = getenv("LEDGER");
    if (value == NULL) return 0;
    ledger = open(value, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    return ledger < 0;
}

int faas_func_call(void* worker_handle, const char* input, size_t input_length) {
    const worker* self = worker_handle;
    struct timespec pause = {pause_us / 1000000, pause_us % 1000000 * 1000};
    size_t name_length = strlen(host), length = name_length + 1 + input_length;
    char line[LINE_MAX + 1];

    if (length > LINE_MAX) return 1;
    memcpy(line, host, name_length);
    line[name_length] = ' ';
    memcpy(line + name_length + 1, input, input_length);
    line[length] = '\n';
    /* One write of a file that is only appended to: lines of several containers do not mix. */
    if (ledger >= 0 && write(ledger, line, length + 1) != (ssize_t)(length + 1)) return 1;
    if (pause_us > 0) nanosleep(&pause, NULL);
    self->append_output(self->context, line, length);
    return 0;
}
