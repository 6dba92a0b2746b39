// The draw: inverse transform sampling with integers. The same as samplers/reference/draw.py.
#pragma once

#include <cstdint>
#include <vector>

#include "fixed_point.h"

namespace alea {

// The first index whose running sum of w exceeds u = bits * total / 2^64.
inline size_t draw(const std::vector<int64_t>& w, int64_t total, uint64_t bits) {
  const auto u = static_cast<int64_t>(multiply_high(bits, static_cast<uint64_t>(total)));
  int64_t running = 0;
  size_t i = 0;
  while (i + 1 < w.size() && (running += w[i]) <= u) ++i;
  return i;
}

}  // namespace alea
