// Top-k (Fan, Lewis & Dauphin 2018): the k greatest logits, and every one that equals the last of them.
// The same as samplers/reference/top_k.py.
#pragma once

#include <algorithm>
#include <functional>
#include <vector>

#include "kept.h"

namespace alea {

// The n-th greatest value, or the least where there are fewer.
inline float nth_greatest(std::vector<float> x, size_t n) {
  const auto at = x.begin() + (std::min(n, x.size()) - 1);
  std::nth_element(x.begin(), at, x.end(), std::greater<float>());
  return *at;
}

// Kept: x >= the max(k, n)-th greatest of x.
inline Mask top_k(const Kept& c, size_t k, size_t n) {
  const float least = nth_greatest(c.x, std::max(k, n));
  Mask mask(c.size());
  for (size_t i = 0; i < c.size(); ++i) mask[i] = c.x[i] >= least;
  return mask;
}

}  // namespace alea
