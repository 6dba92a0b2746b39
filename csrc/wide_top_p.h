// Top-p where it keeps much of the row, on flat or tied logits, and nothing else acts: no token is moved.
//
// A sample of the logits says between which two the nucleus ends. Whatever is above both is kept, and only what lies
// between them is looked at one by one. The sample decides nothing: where it errs, the answer is none.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <optional>

#include "draw.h"
#include "fixed_point.h"
#include "row.h"
#include "top_p.h"

namespace alea {

constexpr size_t kWide = 4096;    // logits in a row, below which this does not pay
constexpr size_t kSample = 512;   // logits in the sample
constexpr double kSpread = 0.08;  // of the sample's mass, on either side of the edge: some four standard deviations

// The logits `lowest` and `highest` between which the prefix of a mass of `fraction` ends, by the sample.
struct Edge {
  float lowest, highest;
};

class Sample {
 public:
  explicit Sample(Row row) {
    int32_t ids[kSample];
    for (size_t i = 0; i < kSample; ++i) ids[i] = static_cast<int32_t>(i * (row.n - 1) / (kSample - 1));
    row.passes->gather(row.x, ids, kSample, x_);
  }

  size_t count_from(float least) const {
    return static_cast<size_t>(std::count_if(x_, x_ + kSample, [&](float x) { return x >= least; }));
  }

  Edge edge(Row row, float m, float inverse_temperature, double fraction) {
    std::sort(x_, x_ + kSample, std::greater<float>());
    float d[kSample];
    row.passes->weigh(x_, kSample, m, inverse_temperature, d, w_);
    double total = 0;
    for (const int64_t w : w_) total += static_cast<double>(w);
    return {at(total * (fraction + kSpread)), at(total * (fraction - kSpread))};
  }

 private:
  // The logit at which the running sum passes a mass; all above 0, none above the sample's.
  float at(double mass) const {
    if (mass <= 0) return kGreatest;
    for (size_t i = 0; i < kSample; ++i) {
      mass -= static_cast<double>(w_[i]);
      if (mass < 0) return std::max(kAll, x_[i]);
    }
    return kAll;
  }

  float x_[kSample];
  int64_t w_[kSample];
};

// Within a block, the mass of each token that is kept: above the edge, or in the list.
inline void keep_in_block(const Row& row, size_t begin, size_t size, float above, const Kept& listed, float m,
                          float inverse_temperature, int64_t* w) {
  float x[kBlock], d[kBlock];
  row.passes->widen(row.from(begin), size, x);
  row.passes->weigh(x, size, m, inverse_temperature, d, w);
  for (size_t i = 0; i < size; ++i) {
    const auto id = static_cast<int32_t>(begin + i);
    if (x[i] <= above && !std::binary_search(listed.ids.begin(), listed.ids.end(), id)) w[i] = 0;
  }
}

// The draw from the nucleus, after the row's total mass was found; none where another way is better or needed.
inline std::optional<Draw> draw_from_wide_top_p(Workspace& work, Row row, float m, float inverse_temperature,
                                                 float least, uint64_t p, uint64_t bits) {
  if (row.n < kWide) return {};
  Sample sample(row);
  if (sample.count_from(least) < kSample / 8) return {};
  const int64_t all = work.kept.total, target = std::max<int64_t>(1, bound(all, p));
  const Edge edge = sample.edge(row, m, inverse_temperature, static_cast<double>(target) / static_cast<double>(all));
  // 1. What is above the edge is kept
  const Above above = row.passes->masses_above(row.x, row.n, m, inverse_temperature, work.maxima.data(), edge.highest,
                                               work.masses.data());
  // 2. Of what lies between, the first prefix that reaches the target
  Kept& between = work.kept;
  collect(work, row, m, inverse_temperature, edge.lowest, edge.highest);
  between.sum_up();
  if (target <= above.mass || target > above.mass + between.total) {
    between.total = all;
    return {};
  }
  const Keys keys = keys_of(between.x);
  Mask mask(between.size());
  std::fill(mask.begin(), mask.end(), 0);
  keep_prefix(mask, keys, prefix_reaching(keys, target - above.mass, [&](int32_t i) { return between.w[i]; }));
  between.where(mask);
  // 3. The draw: a block, then a token
  for (size_t i = 0; i < between.size(); ++i) work.masses[static_cast<size_t>(between.ids[i]) / kBlock] += between.w[i];
  const int64_t total = above.mass + between.total;
  int64_t u = scaled(bits, total);
  const size_t begin = kBlock * draw(work.masses.data(), work.masses.size(), u);
  const size_t size = std::min(kBlock, row.n - begin);
  int64_t w[kBlock];
  keep_in_block(row, begin, size, edge.highest, between, m, inverse_temperature, w);
  const size_t i = draw(w, size, u);
  return drawn(static_cast<int32_t>(begin + i), w[i], total, above.count + between.size());
}

}  // namespace alea
