// The operations with ALEAISA.
#define ALEA_ISA avx2
#define ALEA_LANES 8
#define ALEA_TILE_ROWS 6
#define ALEA_TILE_COLUMNS 2
#define ALEA_WIDEN_BY_TILE 1
#include "attend.h"

namespace alea {
namespace ALEA_NAMESPACE(ALEA_ISA) {

extern const Operations kOperations;
const Operations kOperations{linear, norm, add, rotate, swiglu, attend};

}  // namespace ALEA_NAMESPACE(ALEA_ISA)
}  // namespace alea
