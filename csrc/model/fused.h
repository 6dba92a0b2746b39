// The fused multiply-add of vectors, and their loads and stores.
#pragma once

#include "../lanes.h"

namespace alea {
namespace ALEA_NAMESPACE(ALEA_ISA) {
namespace {

// a b + c, rounded once.
inline Floats fma(Floats a, Floats b, Floats c) {
#if defined(ALEA_HAS_FMA)
  return fused(a, b, c);
#else
  for (size_t lane = 0; lane < kLanes; ++lane) c[lane] = __builtin_fmaf(a[lane], b[lane], c[lane]);
  return c;
#endif
}

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

// x = x + y
inline void add(float* x, const float* y, size_t size) {
  for (size_t i = 0; i < size; i += kLanes) store(x + i, load(x + i, size - i) + load(y + i, size - i), size - i);
}

}  // namespace
}  // namespace ALEA_NAMESPACE(ALEA_ISA)
}  // namespace alea
