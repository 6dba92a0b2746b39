// The operations with any processor's instructions: 4 floats at a time (SSE2, NEON).
#define ALEA_ISA generic
#define ALEA_LANES 4
#define ALEA_TILE_ROWS 4
#define ALEA_TILE_VECTORS 4
#define ALEA_WIDEN_IN_TILES 1
#include "table.h"
