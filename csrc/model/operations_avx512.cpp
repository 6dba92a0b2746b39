// The operations with ALEAISA.
#define ALEA_ISA avx512
#define ALEA_LANES 16
#define ALEA_TILE_ROWS 6
#define ALEA_TILE_COLUMNS 4
#define ALEA_WIDEN_BY_TILE 12
#include "attend.h"

namespace alea {
namespace ALEA_NAMESPACE(ALEA_ISA) {

extern const Operations kOperations;
const Operations kOperations{linear, norm, add, rotate, swiglu, attend};

}  // namespace ALEA_NAMESPACE(ALEA_ISA)
}  // namespace alea
