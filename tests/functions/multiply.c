/*
 * "fork" makes processes that make processes until there may be no more, and answers with why; they stay.
 * "die" ends the container, anything else is answered with "alive". Interface v1.
 */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "v1.h"

int faas_init(void) { return 0; }

static const char* multiply(void) {
    for (;;) {
        pid_t pid = fork();
        if (pid < 0) return errno == EAGAIN ? "EAGAIN" : strerror(errno);
        while (pid == 0) {
            if (fork() < 0) pause();
        }
    }
}

int faas_func_call(void* worker_handle, const char* input, size_t input_length) {
    const worker* self = worker_handle;
    const char* answer = "alive";
    if (input_length == 3 && memcmp(input, "die", 3) == 0) abort();
    if (input_length == 4 && memcmp(input, "fork", 4) == 0) answer = multiply();
    self->append_output(self->context, answer, strlen(answer));
    return 0;
}
