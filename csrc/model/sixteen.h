// Sums in sixteen lanes: lane i has the numbers whose index is i mod 16.
#pragma once

#include "fused.h"

namespace alea {
namespace ALEA_NAMESPACE(ALEA_ISA) {
namespace {

// Sixteen running sums, lane i for the numbers with an index of i mod 16.
struct Sixteen {
  static constexpr size_t kVectors = 16 / kLanes;
  Floats of[kVectors] = {};

  // Folds lane i with i + 8, then 4, 2, 1.
  float folded() const {
    float sums[16];
    std::memcpy(sums, of, sizeof sums);
    for (size_t half = 8; half > 0; half /= 2) {
      for (size_t i = 0; i < half; ++i) sums[i] += sums[i + half];
    }
    return sums[0];
  }
};

}  // namespace
}  // namespace ALEA_NAMESPACE(ALEA_ISA)
}  // namespace alea
