// The operations that multiply whole numbers of 8 bits: a library of its own, for processors that have the instruction.

#include "block_narrow.h"
#include "int8.h"

XCIT_NARROW_OPERATIONS(Int8)
