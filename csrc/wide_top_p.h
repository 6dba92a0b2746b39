// Top-p where it keeps much of the row, on flat or tied logits, and nothing else acts: no token is moved.
//
// A sample of the logits says between which two the nucleus ends. Whatever is above both is kept, and only what lies
// between them is looked at one by one. The sample decides nothing: where it errs, the answer is none.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>

#include "draw.h"
#include "fixed_point.h"
#include "row.h"
#include "top_p.h"

namespace alea {

constexpr size_t kWide = 8192;       // logits in a row, below which this does not pay
constexpr size_t kProbes = 16;       // blocks in the sample
constexpr double kDeviations = 4.0;  // of the sample's estimate, on either side of the edge

// The logits between which the prefix ends.
struct Edge {
  float lowest, highest;
};

// Blocks of a row, each drawn as often as it has mass: so the sample sees what the row's mass is made of, however few
// tokens hold it. Every block counts as one; a token within it by its share.
class Sample {
 public:
  Sample(const Workspace& work, Row row, float m, float inverse_temperature) : keys_(kProbes * kBlock) {
    int64_t passed = 0;
    size_t number = 0;
    for (size_t probe = 0; probe < kProbes; ++probe) {
      const auto place = static_cast<int64_t>((static_cast<double>(probe) + 0.5) / kProbes * work.kept.total);
      while (number + 1 < row.blocks() && passed + work.masses[number] <= place) passed += work.masses[number++];
      const Block block(row, number, m, inverse_temperature);
      const double scale = kShare / static_cast<double>(std::max<int64_t>(1, work.masses[number]));
      for (size_t i = 0; i < kBlock; ++i) {
        const bool there = i < block.size;
        keys_[probe * kBlock + i] = there ? key_of(block.x[i]) : ~uint32_t{0};
        shares_[probe * kBlock + i] = there ? static_cast<int64_t>(static_cast<double>(block.w[i]) * scale) : 0;
      }
    }
  }

  // Around the edge of a prefix that holds a fraction of all mass, as wide as the blocks differ.
  Edge edge(double fraction) const {
    const double spread = kDeviations * deviation(at(fraction)) + 1e-3;
    return {logit_of(at(fraction + spread)), fraction > spread ? logit_of(at(fraction - spread)) : kGreatest};
  }

 private:
  static constexpr double kShare = 0x1p+30;  // of a block

  // The key at which the running sum of shares reaches a fraction of all; the last of all beyond them.
  uint32_t at(double fraction) const {
    if (fraction >= 1) return key_of(kLowestFinite);
    const auto target = static_cast<int64_t>(fraction * kShare * kProbes);
    return prefix_reaching(keys_, std::max<int64_t>(1, target), [&](int32_t i) { return shares_[i]; }).key;
  }

  // The standard error of the share that comes before a key.
  double deviation(uint32_t key) const {
    double sum = 0, squares = 0;
    for (size_t probe = 0; probe < kProbes; ++probe) {
      int64_t share = 0;
      for (size_t i = probe * kBlock; i < (probe + 1) * kBlock; ++i) share += keys_[i] <= key ? shares_[i] : 0;
      const double part = static_cast<double>(share) / kShare;
      sum += part;
      squares += part * part;
    }
    const double mean = sum / kProbes;
    return std::sqrt(std::max(0.0, squares / kProbes - mean * mean) / (kProbes - 1));
  }

  Keys keys_;
  int64_t shares_[kProbes * kBlock];
};

// Whether most tokens may reach `least`, by a few of them: then it does not pay to move them.
inline bool is_wide(Row row, float least) {
  if (row.n < kWide) return false;
  constexpr size_t kFewOfThem = 128;
  int32_t ids[kFewOfThem];
  float x[kFewOfThem];
  for (size_t i = 0; i < kFewOfThem; ++i) ids[i] = static_cast<int32_t>(i * (row.n - 1) / (kFewOfThem - 1));
  row.passes->gather(row.x, ids, kFewOfThem, x);
  return std::count_if(x, x + kFewOfThem, [&](float logit) { return logit >= least; }) > int{kFewOfThem} / 2;
}

// The tokens between the limits, and which of them are kept.
struct Between {
  const Kept& tokens;
  Mask mask;

  bool keeps(int32_t id) const {
    const int32_t* const place = std::lower_bound(tokens.ids.begin(), tokens.ids.end(), id);
    return place != tokens.ids.end() && *place == id && mask[static_cast<size_t>(place - tokens.ids.begin())];
  }
};

// What is kept of all: the tokens above the limits, and those between that the mask keeps; the blocks' masses with it.
inline Above with_between(Above kept, const Between& between, Buffer<int64_t>& masses) {
  const Kept& tokens = between.tokens;
  for (size_t i = 0; i < tokens.size();) {
    const size_t block = static_cast<size_t>(tokens.ids[i]) / kBlock;
    int64_t mass = 0;
    for (; i < tokens.size() && static_cast<size_t>(tokens.ids[i]) / kBlock == block; ++i) {
      mass += between.mask[i] ? tokens.w[i] : 0;
      kept.count += static_cast<size_t>(between.mask[i]);
    }
    masses[block] += mass;
    kept.mass += mass;
  }
  return kept;
}

// Takes its mass from each token of a block that is not kept: neither above the edge nor between the limits.
inline void keep_in_block(Block& block, float above, const Between& between) {
  for (size_t i = 0; i < block.size; ++i) {
    if (block.x[i] <= above && !between.keeps(static_cast<int32_t>(block.begin + i))) block.w[i] = 0;
  }
}

// The draw from the nucleus, after the row's total mass was found; none where the sample erred.
inline std::optional<Draw> draw_from_wide_top_p(Workspace& work, Row row, float m, float inverse_temperature,
                                                uint64_t p, uint64_t bits) {
  const int64_t all = work.kept.total, target = std::max<int64_t>(1, bound(all, p));
  const Sample sample(work, row, m, inverse_temperature);
  const Edge edge = sample.edge(static_cast<double>(target) / static_cast<double>(all));
  // 1. What is above the edge is kept
  const Above above = row.passes->masses_above(row.x, row.n, m, inverse_temperature, work.maxima.data(), edge.highest,
                                               work.masses.data());
  // 2. Of what lies between, the first prefix that reaches the target
  Kept& tokens = work.kept;
  collect(work, row, m, inverse_temperature, edge.lowest, edge.highest);
  tokens.sum_up();
  const bool is_between = above.mass < target && target <= above.mass + tokens.total;
  tokens.total = all;
  if (!is_between) return {};
  const Keys keys = keys_of(tokens.x);
  Between between{tokens, Mask(keys.size())};
  std::fill(between.mask.begin(), between.mask.end(), 0);
  keep_prefix(between.mask, keys, prefix_reaching(keys, target - above.mass, [&](int32_t i) { return tokens.w[i]; }));
  // 3. The draw: a block, then a token
  const Above kept = with_between(above, between, work.masses);
  int64_t u = scaled(bits, kept.mass);
  Block block(row, draw(work.masses.data(), work.masses.size(), u), m, inverse_temperature);
  keep_in_block(block, edge.highest, between);
  const size_t i = draw(block.w, block.size, u);
  return drawn(static_cast<int32_t>(block.begin + i), block.w[i], kept.mass, kept.count);
}

}  // namespace alea
