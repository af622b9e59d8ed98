/*
 * "wait" sleeps until the container dies, "die" ends it, anything else is answered with "alive".
 * Interface v1.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "v1.h"

int faas_init(void) { return 0; }

int faas_func_call(void* worker_handle, const char* input, size_t input_length) {
    const worker* self = worker_handle;
    if (input_length == 4 && memcmp(input, "wait", 4) == 0) {
        for (;;) pause();
    }
    if (input_length == 3 && memcmp(input, "die", 3) == 0) abort();
    self->append_output(self->context, "alive", 5);
    return 0;
}
