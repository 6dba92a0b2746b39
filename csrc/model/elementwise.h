// Operations on one row at a time: norm, add, rotate, swiglu.
#pragma once

#include "exponential.h"
#include "operations.h"

namespace alea {
namespace ALEA_NAMESPACE(ALEA_ISA) {
namespace {

inline Floats load(const float* x) {
  Floats lanes;
  std::memcpy(&lanes, x, sizeof lanes);
  return lanes;
}

inline void store(float* y, Floats lanes) { std::memcpy(y, &lanes, sizeof lanes); }

// The first `count` lanes, the others 0.
inline Floats load(const float* x, size_t count) {
  if (count >= kLanes) return load(x);
  Floats lanes{};
  std::memcpy(&lanes, x, count * sizeof(float));
  return lanes;
}

inline void store(float* y, Floats lanes, size_t count) {
  std::memcpy(y, &lanes, least(count, kLanes) * sizeof(float));
}

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

inline void add(float* x, const float* y, size_t size) {
  for (size_t i = 0; i < size; i += kLanes) store(x + i, load(x + i, size - i) + load(y + i, size - i), size - i);
}

inline void rotate(float* x, const float* cos, const float* sin, size_t half) {
  for (size_t i = 0; i < half; i += kLanes) {
    const size_t count = half - i;
    const Floats a = load(x + i, count), b = load(x + half + i, count), c = load(cos + i, count),
                 s = load(sin + i, count);
    store(x + i, a * c - b * s, count);
    store(x + half + i, b * c + a * s, count);
  }
}

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
