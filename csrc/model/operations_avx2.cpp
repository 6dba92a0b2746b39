// The operations with AVX2 and FMA: 8 floats at a time. Compiled with -mavx2 -mfma on x86-64, empty elsewhere.
#if defined(__x86_64__)
#define ALEA_ISA avx2
#define ALEA_LANES 8
#define ALEA_TILE_ROWS 6
#define ALEA_TILE_COLUMNS 2
#define ALEA_WIDEN_BY_TILE 1
#include "attend.h"
#include "linear.h"
#include "norm.h"
#include "rotate.h"
#include "swiglu.h"

namespace alea {
namespace ALEA_NAMESPACE(ALEA_ISA) {

extern const Operations kOperations;
const Operations kOperations{linear, norm, add, rotate, swiglu, attend};

}  // namespace ALEA_NAMESPACE(ALEA_ISA)
}  // namespace alea
#endif
