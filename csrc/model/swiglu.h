// SwiGLU of one row.
#pragma once

#include "exponential.h"

namespace alea {
namespace ALEA_NAMESPACE(ALEA_ISA) {
namespace {

inline void swiglu(const float* gate, const float* up, size_t size, float* y) {
  for (size_t i = 0; i < size; i += kLanes) {
    const Floats g = load(gate + i, size - i), one = fill(1.0f);
    // 1. z = e^-|g|, which never overflows
    const Floats z = exponential((Floats)((Integers)g | INT32_MIN));
    // 2. 1 / (1 + e^-g)
    const Floats sigmoid = (g >= 0 ? one : z) / (one + z);
    store(y + i, g * sigmoid * load(up + i, size - i), size - i);
  }
}

}  // namespace
}  // namespace ALEA_NAMESPACE(ALEA_ISA)
}  // namespace alea
