// expect-status: 203
// All eight bits of an exit status arrive.
#include <stdlib.h>

int main(void) {
    exit(203);
}
