// The operations with ALEAISA.
#define ALEA_ISA generic
#define ALEA_LANES 4
#define ALEA_TILE_ROWS 4
#define ALEA_TILE_COLUMNS 4
#define ALEA_WIDEN_BY_TILE 1
#include "attend.h"

namespace alea {
namespace ALEA_NAMESPACE(ALEA_ISA) {

extern const Operations kOperations;
const Operations kOperations{linear, norm, add, rotate, swiglu, attend};

}  // namespace ALEA_NAMESPACE(ALEA_ISA)
}  // namespace alea
