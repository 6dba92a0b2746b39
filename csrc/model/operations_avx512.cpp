// The operations with AVX-512: 16 floats at a time. Compiled with -mavx512* on x86-64, empty elsewhere.
#if defined(__x86_64__)
#define ALEA_ISA avx512
#define ALEA_LANES 16
#define ALEA_TILE_ROWS 6
#define ALEA_TILE_COLUMNS 4
#define ALEA_WIDEN_BY_TILE 12
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
