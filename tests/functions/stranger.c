/* A library that is no function. */
int stranger(void);

int stranger(void) { return 0; }
