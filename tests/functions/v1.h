/*
 * The worker of a function of interface v1 that answers and makes no calls. `faas_init` and
 * `faas_func_call` are the function's.
 */
#include <stdlib.h>

#include "nightcore.h"

/* Whether no worker can be made; a function with another answer defines it before. */
#ifndef REFUSES_WORKERS
#define REFUSES_WORKERS 0
#endif

typedef struct {
    void* context;
    append_output_fn append_output;
} worker;

int faas_create_func_worker(void* caller_context, invoke_fn invoke, append_output_fn append_output,
                            void** worker_handle) {
    worker* made = malloc(sizeof *made);
    (void)invoke;
    if (made == NULL || REFUSES_WORKERS) return 1;
    made->context = caller_context;
    made->append_output = append_output;
    *worker_handle = made;
    return 0;
}

int faas_destroy_func_worker(void* worker_handle) {
    free(worker_handle);
    return 0;
}
