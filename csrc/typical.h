// Locally typical sampling (Meister, Pimentel, Wiher & Cotterell 2023, eq. 9-10).
// The same as samplers/reference/typical.py.
#pragma once

#include <cstdlib>
#include <vector>

#include "fixed_point.h"
#include "kept.h"
#include "order.h"

namespace alea {

// Kept: the tokens whose surprise is nearest the entropy, up to mass p and all ties; at least n.
inline Mask typical(const Kept& c, uint64_t p, size_t n) {
  // 1. how far from typical
  const int64_t mean = mean_surprise(c.d, c.w);
  std::vector<int64_t> a(c.size());
  for (size_t i = 0; i < c.size(); ++i) a[i] = std::llabs(surprise(c.d[i]) - mean);
  const auto before = [&a](int32_t i, int32_t j) { return a[i] < a[j] || (a[i] == a[j] && i < j); };
  // 2. the least distance within which the mass reaches the target
  Order order = indices(c.size());
  const int64_t target = std::max<int64_t>(1, bound(sum(c.w), p));
  const int64_t furthest = a[order[prefix_reaching(order, c.w, target, before) - 1]];
  // 3. as a set
  Mask mask(c.size());
  for (size_t i = 0; i < c.size(); ++i) mask[i] = a[i] <= furthest;
  bring_forward(order, n, before);
  for (size_t i = 0; i < std::min(n, c.size()); ++i) mask[order[i]] = 1;
  return mask;
}

}  // namespace alea
