// The turn of a head's channels by their rotary angles.
#pragma once

#include "fused.h"

namespace alea {
namespace ALEA_NAMESPACE(ALEA_ISA) {
namespace {

inline void rotate(float* x, const float* cos, const float* sin, size_t half) {
  for (size_t i = 0; i < half; i += kLanes) {
    const size_t count = half - i;
    const Floats a = load(x + i, count), b = load(x + half + i, count), c = load(cos + i, count),
                 s = load(sin + i, count);
    store(x + i, a * c - b * s, count);
    store(x + half + i, b * c + a * s, count);
  }
}

}  // namespace
}  // namespace ALEA_NAMESPACE(ALEA_ISA)
}  // namespace alea
