// Cutoffs on the probability itself: min-p, epsilon and eta. The same as samplers/reference/cutoffs.py.
#pragma once

#include <algorithm>
#include <cstdint>

#include "fixed_point.h"
#include "kept.h"
#include "top_k.h"
#include "top_p.h"

namespace alea {

// Kept: p >= fraction * (the greatest p), and the first n in order (Nguyen et al. 2024).
inline Mask min_p(const Kept& c, uint64_t fraction, size_t n) {
  const int64_t least = bound(*std::max_element(c.w.begin(), c.w.end()), fraction);
  Mask mask(c.size());
  for (size_t i = 0; i < c.size(); ++i) mask[i] = c.w[i] >= least;
  keep_first(mask, c, n);
  return mask;
}

// Kept: w >= least, and every x >= the n-th greatest.
inline Mask at_least(const Kept& c, int64_t least, size_t n) {
  const float greatest = nth_greatest(c.x, n);
  Mask mask(c.size());
  for (size_t i = 0; i < c.size(); ++i) mask[i] = c.w[i] >= least || c.x[i] >= greatest;
  return mask;
}

// Kept: p >= cutoff (Hewitt, Manning & Liang 2022, sec. 4.2).
inline Mask epsilon(const Kept& c, uint64_t cutoff, size_t n) { return at_least(c, bound(sum(c.w), cutoff), n); }

// Kept: p >= min(cutoff, sqrt(cutoff) e^-H) (Hewitt, Manning & Liang 2022, eq. 4).
inline Mask eta(const Kept& c, uint64_t cutoff, uint64_t root, size_t n) {
  const auto mean = static_cast<double>(mean_surprise(c.d, c.w));
  const int64_t flat = weight(static_cast<float>(-mean * 0x1p-24));
  return at_least(c, std::min(bound(sum(c.w), cutoff), bound(flat, root)), n);
}

}  // namespace alea
