// All operations, compiled for one instruction set. A file that includes this defines first:
// ALEA_ISA, its name; ALEA_LANES, floats in a vector; ALEA_TILE_ROWS and ALEA_TILE_VECTORS, the rows and the vectors of
// outputs whose sums fit into its registers; ALEA_WIDEN_IN_TILES, the most rows for which every tile widens 16-bit
// weights itself, instead of all at once before.
#include "attend.h"
#include "linear.h"
#include "norm.h"
#include "operations.h"
#include "rotate.h"
#include "swiglu.h"

namespace alea {
namespace ALEA_NAMESPACE(ALEA_ISA) {

extern const Operations kOperations;
const Operations kOperations{linear, norm, add, rotate, swiglu, attend};

}  // namespace ALEA_NAMESPACE(ALEA_ISA)
}  // namespace alea
