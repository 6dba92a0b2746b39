// The operations with AVX-512: 16 floats at a time. Compiled with -mavx512* on x86-64, empty elsewhere.
#if defined(__x86_64__)
#define ALEA_ISA avx512
#define ALEA_LANES 16
#define ALEA_TILE_ROWS 6
#define ALEA_TILE_VECTORS 4
#define ALEA_WIDEN_IN_TILES 12
#include "table.h"
#endif
