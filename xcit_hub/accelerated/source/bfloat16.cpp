// The operations that multiply bfloat16 numbers: a library of its own, for processors that have the instruction.

#include "bfloat16.h"
#include "block_narrow.h"

XCIT_NARROW_OPERATIONS(Bfloat16)
