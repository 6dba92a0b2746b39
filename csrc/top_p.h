// Top-p, nucleus sampling (Holtzman et al. 2020, eq. 2-3): the fewest tokens that hold mass p.
// The same as samplers/reference/top_p.py.
#pragma once

#include <algorithm>

#include "fixed_point.h"
#include "kept.h"
#include "order.h"

namespace alea {

// Kept: the shortest prefix in order whose mass reaches p, at least n tokens; ties at the edge are cut by id.
inline Mask top_p(const Kept& c, uint64_t p, size_t n) {
  const Keys keys = keys_of(c.x);
  // 1. and 2. the first prefix that reaches the target
  const int64_t target = std::max<int64_t>(1, bound(c.total, p));
  Prefix prefix = prefix_reaching(keys, target, [&](int32_t i) { return c.w[i]; });
  // 3. as a set
  if (n > 1) prefix = std::max(prefix, first(keys, n));
  Mask mask(c.size());
  keep_prefix(mask, keys, prefix);
  return mask;
}

// Adds the first n in order to a mask.
inline void keep_first(Mask& mask, const Kept& c, size_t n) {
  const Keys keys = keys_of(c.x);
  keep_prefix(mask, keys, first(keys, n));
}

}  // namespace alea
