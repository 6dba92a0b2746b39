// Top-p, nucleus sampling (Holtzman et al. 2020, eq. 2-3): the fewest tokens that hold mass p.
// The same as samplers/reference/top_p.py.
#pragma once

#include <algorithm>
#include <vector>

#include "fixed_point.h"
#include "kept.h"
#include "order.h"

namespace alea {

// x descending, then id ascending.
struct ByLogit {
  const std::vector<float>& x;
  bool operator()(int32_t a, int32_t b) const { return x[a] > x[b] || (x[a] == x[b] && a < b); }
};

// Kept: the shortest prefix in order whose mass reaches p, at least n tokens; ties at the edge are cut by id.
inline Mask top_p(const Kept& c, uint64_t p, size_t n) {
  Order order = indices(c.size());
  const ByLogit before{c.x};
  // 1. and 2. the first prefix that reaches the target
  const int64_t target = std::max<int64_t>(1, bound(sum(c.w), p));
  size_t size = prefix_reaching(order, c.w, target, before);
  // 3. as a set
  if (size < n) bring_forward(order, size = std::min(n, c.size()), before);
  Mask mask(c.size());
  for (size_t i = 0; i < size; ++i) mask[order[i]] = 1;
  return mask;
}

// Adds the first n in order to a mask.
inline void keep_first(Mask& mask, const Kept& c, size_t n) {
  Order order = indices(c.size());
  bring_forward(order, n, ByLogit{c.x});
  for (size_t i = 0; i < std::min(n, c.size()); ++i) mask[order[i]] = 1;
}

}  // namespace alea
