/* What a program tells callgrind about itself; outside of valgrind nothing happens.
   The names are those of valgrind's manual, "Callgrind specific client requests". */
#include <valgrind/callgrind.h>

/* Have everything from here on translated with counters in it. */
void start(void) {
    CALLGRIND_START_INSTRUMENTATION;
}

void zero(void) {
    CALLGRIND_ZERO_STATS;
}

/* Write what has been counted since then, under a name, and count from zero again. */
void dump(const char *name) {
    CALLGRIND_DUMP_STATS_AT(name);
}
