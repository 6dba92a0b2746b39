// Top-p on long rows (V >= 8192) where it acts alone and most tokens reach the threshold: flat or tied logits. There,
// moving tokens into a list costs more than the two extra passes over the row that this path makes. Elsewhere the list
// is faster, because few tokens reach the threshold.
//
// A sample of the logits gives an upper and a lower limit for the edge of the nucleus. Tokens above both are kept, and
// only those between them are listed. The sample cannot change the result: if the edge is not between its limits, this
// path returns nothing and the row takes the usual one.
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

constexpr size_t kMinLogits = 8192;  // a shorter row gains nothing
constexpr size_t kProbes = 16;       // blocks in the sample
constexpr double kDeviations = 4.0;  // standard errors of the sample, on either side of the edge

// The limits of the logit at which the prefix ends.
struct Edge {
  float lowest, highest;
};

// Blocks of a row, drawn in proportion to their mass, so the sample represents the mass even if few tokens hold it. All
// drawn blocks have the same weight; within a block, a token counts by its share of the block's mass.
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
        const bool in_row = i < block.size;
        keys_[probe * kBlock + i] = in_row ? key_of(block.x[i]) : ~uint32_t{0};
        shares_[probe * kBlock + i] = in_row ? static_cast<int64_t>(static_cast<double>(block.w[i]) * scale) : 0;
      }
    }
  }

  // Limits around the edge of the prefix that holds this fraction of all mass; wider if the blocks differ more.
  Edge edge(double fraction) const {
    const double spread = kDeviations * deviation(at(fraction)) + 1e-3;
    return {logit_of(at(fraction + spread)), fraction > spread ? logit_of(at(fraction - spread)) : kGreatest};
  }

 private:
  static constexpr double kShare = 0x1p+30;  // of a block

  // The key at which the running sum of shares reaches this fraction of all; the last key of all if it is 1 or more.
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

// Whether most tokens reach `least`, judged by 128 of them.
inline bool is_wide(Row row, float least) {
  if (row.n < kMinLogits) return false;
  constexpr size_t kChecked = 128;
  int32_t ids[kChecked];
  float x[kChecked];
  for (size_t i = 0; i < kChecked; ++i) ids[i] = static_cast<int32_t>(i * (row.n - 1) / (kChecked - 1));
  row.passes->gather(row.x, ids, kChecked, x);
  return std::count_if(x, x + kChecked, [&](float logit) { return logit >= least; }) > int{kChecked} / 2;
}

// The tokens between the limits, and the mask of the kept ones.
struct Between {
  const Kept& tokens;
  Mask mask;

  bool keeps(int32_t id) const {
    const int32_t* const place = std::lower_bound(tokens.ids.begin(), tokens.ids.end(), id);
    return place != tokens.ids.end() && *place == id && mask[static_cast<size_t>(place - tokens.ids.begin())];
  }
};

// Adds the kept tokens between the limits to those above, and their mass to the masses of the blocks.
inline Above add_between(Above kept, const Between& between, Buffer<int64_t>& masses) {
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

// Sets the mass of each cut token of a block to 0: those neither above the limits nor kept between them.
inline void keep_in_block(Block& block, float highest, const Between& between) {
  for (size_t i = 0; i < block.size; ++i) {
    if (block.x[i] <= highest && !between.keeps(static_cast<int32_t>(block.begin + i))) block.w[i] = 0;
  }
}

// The draw from the nucleus of a row with known total mass; nothing if the edge is not between the limits.
inline std::optional<Draw> draw_from_wide_top_p(Workspace& work, Row row, float m, float inverse_temperature,
                                                uint64_t p, uint64_t bits) {
  const int64_t all = work.kept.total, target = std::max<int64_t>(1, bound(all, p));
  const Sample sample(work, row, m, inverse_temperature);
  const Edge edge = sample.edge(static_cast<double>(target) / static_cast<double>(all));
  // 1. The tokens above the limits are kept
  const Above above = row.passes->masses_above(row.x, row.n, m, inverse_temperature, work.maxima.data(), edge.highest,
                                               work.masses.data());
  // 2. Of the tokens between the limits, the first prefix that reaches the target is kept
  Kept& tokens = work.kept;
  collect(work, row, m, inverse_temperature, edge.lowest, edge.highest);
  tokens.sum_up();
  const bool has_edge = above.mass < target && target <= above.mass + tokens.total;
  tokens.total = all;
  if (!has_edge) return {};
  const Keys keys = keys_of(tokens.x);
  Between between{tokens, Mask(keys.size())};
  std::fill(between.mask.begin(), between.mask.end(), 0);
  keep_prefix(between.mask, keys, prefix_reaching(keys, target - above.mass, [&](int32_t i) { return tokens.w[i]; }));
  // 3. The draw: a block, then a token
  const Above kept = add_between(above, between, work.masses);
  int64_t u = scaled(bits, kept.mass);
  Block block(row, draw(work.masses.data(), work.masses.size(), u), m, inverse_temperature);
  keep_in_block(block, edge.highest, between);
  const size_t i = draw(block.w, block.size, u);
  return drawn(static_cast<int32_t>(block.begin + i), block.w[i], kept.mass, kept.count);
}

}  // namespace alea
