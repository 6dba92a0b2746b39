// The operations with any processor's instructions: 4 floats at a time (SSE2, NEON).
#define ALEA_ISA generic
#define ALEA_LANES 4
#define ALEA_TILE_ROWS 4
#define ALEA_TILE_COLUMNS 4
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
