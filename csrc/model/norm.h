// RMSNorm of one row.
#pragma once

#include "sixteen.h"

namespace alea {
namespace ALEA_NAMESPACE(ALEA_ISA) {
namespace {

inline void norm(const float* x, const float* w, size_t size, float eps, float* y) {
  // 1. The sum of the squares.
  Sixteen sums;
  for (size_t i = 0; i < size; i += 16) {
    for (size_t v = 0; v < Sixteen::kVectors && i + v * kLanes < size; ++v) {
      const Floats lanes = load(x + i + v * kLanes, size - i - v * kLanes);
      sums.of[v] = fma(lanes, lanes, sums.of[v]);
    }
  }
  // 2. The factor.
  const float r = 1.0f / __builtin_sqrtf(sums.folded() / static_cast<float>(size) + eps);
  // 3. The product with it, then with the weights.
  for (size_t i = 0; i < size; i += kLanes) {
    store(y + i, load(x + i, size - i) * fill(r) * load(w + i, size - i), size - i);
  }
}

}  // namespace
}  // namespace ALEA_NAMESPACE(ALEA_ISA)
}  // namespace alea
