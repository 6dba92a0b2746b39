// The draw: inverse transform sampling with integers. The same as samplers/reference/draw.py.
#pragma once

#include <cstddef>
#include <cstdint>

#include "fixed_point.h"

namespace alea {

// u = bits * total / 2^64, in 0 .. total - 1.
inline int64_t scaled(uint64_t bits, int64_t total) {
  return static_cast<int64_t>(multiply_high(bits, static_cast<uint64_t>(total)));
}

// The first index whose running sum of w exceeds u; u becomes what is left of it within that index.
inline size_t draw(const int64_t* w, size_t size, int64_t& u) {
  size_t i = 0;
  while (i + 1 < size && u >= w[i]) u -= w[i++];
  return i;
}

}  // namespace alea
