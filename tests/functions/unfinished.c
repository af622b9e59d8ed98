/* Interface v1 without its most important part, `faas_func_call`. */
#include "nightcore.h"

int faas_init(void) { return 0; }

int faas_create_func_worker(void* caller_context, invoke_fn invoke, append_output_fn append_output,
                            void** worker_handle) {
    (void)caller_context, (void)invoke, (void)append_output, (void)worker_handle;
    return 0;
}

int faas_destroy_func_worker(void* worker_handle) {
    (void)worker_handle;
    return 0;
}
