// The operations with AVX2 and FMA: 8 floats at a time. Compiled with -mavx2 -mfma on x86-64, empty elsewhere.
#if defined(__x86_64__)
#define ALEA_ISA avx2
#define ALEA_LANES 8
#define ALEA_TILE_ROWS 6
#define ALEA_TILE_VECTORS 2
#define ALEA_WIDEN_IN_TILES 1
#include "table.h"
#endif
