// Top-p on long rows (V >= 8192) where it acts alone and many tokens may be kept: flat, tied or normal logits. There,
// listing the tokens costs more than a sample of them. Elsewhere the list is faster, because it is short.
//
// The sample gives an upper and a lower limit for the edge of the nucleus, before the row is weighed. While it is, the
// tokens above both limits are summed up, and only those between them are listed. The sample cannot change the result:
// if the edge is not between its limits, this path returns nothing and the row takes the usual one.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <optional>

#include "draw.h"
#include "fixed_point.h"
#include "order.h"
#include "params.h"
#include "row.h"

namespace alea {

constexpr size_t kMinLogits = 8192;  // a shorter row gains nothing
constexpr size_t kProbes = 16;       // blocks in the sample
constexpr double kDeviations = 3.0;  // standard errors of the sample, on either side of the edge

// Blocks of a row, drawn in proportion to the weight of their greatest logit, so the sample represents the mass even if
// few tokens hold it. Within a block, a token counts by its weight relative to the greatest.
class Sample {
 public:
  // `weights` of the greatest logit of each block, and their sum.
  Sample(Row row, const float* maxima, const Buffer<int64_t>& weights, int64_t sum, float inverse_temperature) {
    int64_t passed = 0;
    size_t number = 0;
    for (size_t probe = 0; probe < kProbes; ++probe) {
      const auto place = static_cast<int64_t>((static_cast<double>(probe) + 0.5) / kProbes * static_cast<double>(sum));
      while (number + 1 < row.blocks() && passed + weights[number] <= place) passed += weights[number++];
      const Block block(row, number, maxima[number], inverse_temperature);
      for (size_t i = 0; i < kBlock; ++i) {
        x_[probe * kBlock + i] = i < block.size ? block.x[i] : -kInfinity;
        shares_[probe * kBlock + i] = i < block.size ? block.w[i] : 0;
      }
    }
    const Above all = tokens().above(-kInfinity);
    mass_ = all.mass;
    within_ = {all.least, tokens().above(kGreatest).next};
  }

  // Limits around the edge of the prefix that holds this fraction of all mass; wider if the blocks differ more.
  Limits limits(double fraction) const {
    const double spread = kDeviations * deviation(at(fraction)) + 1e-3;
    return {fraction + spread < 1 ? at(fraction + spread) : kLowestFinite,
            fraction > spread ? at(fraction - spread) : kGreatest};
  }

 private:
  // The tokens of some blocks, by default of all.
  Tokens tokens(size_t first = 0, size_t blocks = kProbes) const {
    return {nullptr, x_ + first * kBlock, shares_ + first * kBlock, blocks * kBlock};
  }

  // The logit at which this fraction of the mass is reached.
  float at(double fraction) const {
    const auto target = std::max<int64_t>(1, static_cast<int64_t>(fraction * static_cast<double>(mass_)));
    return level_reaching(tokens(), within_, target, kMass).x;
  }

  // The standard error of the fraction that reaches a logit: a quotient of two sums over the probes.
  double deviation(float x) const {
    const float below = std::nextafter(x, -kInfinity);
    const double fraction = static_cast<double>(tokens().above(below).mass) / static_cast<double>(mass_);
    double squares = 0;
    for (size_t probe = 0; probe < kProbes; ++probe) {
      const auto mass = [&](float limit) { return static_cast<double>(tokens(probe, 1).above(limit).mass); };
      const double excess = mass(below) - fraction * mass(-kInfinity);
      squares += excess * excess;
    }
    return std::sqrt(squares * kProbes / (kProbes - 1)) / static_cast<double>(mass_);
  }

  float x_[kProbes * kBlock];
  int64_t shares_[kProbes * kBlock];
  int64_t mass_;   // sum of the shares
  Limits within_;  // of the logits
};

// The weights of the greatest logit of each block; returns their sum, which is at most the mass of all tokens.
inline int64_t weigh_maxima(Workspace& work, Row row, float m, float inverse_temperature) {
  const size_t blocks = row.blocks();
  work.coarse.resize(blocks);
  work.masses.resize(blocks);
  row.passes->weigh(work.maxima.data(), blocks, m, inverse_temperature, work.coarse.data(), work.masses.data());
  return std::accumulate(work.masses.begin(), work.masses.end(), int64_t{0});
}

// Whether more than one token in 16 reaches `least`, judged by 128 of them.
inline bool is_wide(Row row, float least) {
  constexpr size_t kChecked = 128;
  int32_t ids[kChecked];
  float x[kChecked];
  for (size_t i = 0; i < kChecked; ++i) ids[i] = static_cast<int32_t>(i * (row.n - 1) / (kChecked - 1));
  row.passes->gather(row.x, ids, kChecked, x);
  return std::count_if(x, x + kChecked, [&](float logit) { return logit >= least; }) > int{kChecked} / 16;
}

// Limits around the edge of the nucleus; nothing if the row is not wide.
inline std::optional<Limits> limits_of_edge(Workspace& work, Row row, float m, const Params& p) {
  if (row.n < kMinLogits) return {};
  const int64_t sum = weigh_maxima(work, row, m, p.inverse_temperature);
  const float least = top_p_threshold(sum, row.n, m, p);
  if (!is_wide(row, least)) return {};
  const Sample sample(row, work.maxima.data(), work.masses, sum, p.inverse_temperature);
  const Limits limits = sample.limits(static_cast<double>(p.top_p) * 0x1p-64);
  return Limits{std::max(limits.lowest, least), limits.highest};
}

// The nucleus of a wide row: the tokens above the limits, whose mass the blocks hold, and of those between them the
// tokens up to the edge.
struct Nucleus {
  Tokens between;
  Edge edge;
  int64_t mass;
  size_t count;
};

// Nothing if the edge is not between the limits.
inline std::optional<Nucleus> nucleus_of(Workspace& work, Row row, float m, const Params& p, Limits limits) {
  Kept& kept = work.kept;
  kept.resize(row.n + kMargin);
  const Split split = row.passes->split(row.x, row.n, m, p.inverse_temperature, work.maxima.data(), limits,
                                        work.masses.data(), kept.ids.data(), kept.x.data());
  row.passes->weigh(kept.x.data(), split.between, m, p.inverse_temperature, kept.d.data(), kept.w.data());
  const Tokens between{kept.ids.data(), kept.x.data(), kept.w.data(), split.between};
  const int64_t missing = std::max<int64_t>(1, bound(split.total, p.top_p)) - split.mass;
  if (missing < 1 || missing > between.above(-kInfinity).mass) return {};
  const Edge edge = edge_reaching(between, limits, missing, kMass);
  return Nucleus{between, edge, split.mass + edge.mass, split.above + edge.count};
}

// Some blocks, and the tokens between the limits that lie in them.
struct Chunk {
  size_t first, last;  // blocks
  size_t begin, end;   // tokens
};

// The chunk of the nucleus that u falls into; u becomes the rest of u within it.
inline Chunk chunk_of(const Workspace& work, Row row, const Nucleus& nucleus, int64_t& u) {
  constexpr size_t kChunk = 32;  // blocks
  const int32_t *const ids = nucleus.between.ids, *const ids_end = ids + nucleus.between.size;
  Chunk chunk{0, 0, 0, 0};
  while (true) {
    chunk = {chunk.last, std::min(chunk.last + kChunk, row.blocks()), chunk.end, 0};
    chunk.end = static_cast<size_t>(
        std::lower_bound(ids + chunk.begin, ids_end, static_cast<int32_t>(chunk.last * kBlock)) - ids);
    const int64_t mass = std::accumulate(work.masses.data() + chunk.first, work.masses.data() + chunk.last,
                                         held_mass(nucleus.between, chunk.begin, chunk.end, nucleus.edge));
    if (u < mass || chunk.last == row.blocks()) return chunk;
    u -= mass;
  }
}

// The draw from the nucleus: a chunk of blocks, a block, then a token.
inline Draw draw_from(Workspace& work, Row row, float m, float inverse_temperature, const Nucleus& nucleus,
                      uint64_t bits) {
  int64_t u = scaled(bits, nucleus.mass);
  const Tokens& between = nucleus.between;
  const Chunk chunk = chunk_of(work, row, nucleus, u);
  for (size_t i = chunk.begin; i < chunk.end; ++i) {
    const bool holds = nucleus.edge.holds(between.x[i], between.ids[i]);
    work.masses[static_cast<size_t>(between.ids[i]) / kBlock] += holds ? between.w[i] : 0;
  }
  const size_t number = chunk.first + draw(work.masses.data() + chunk.first, chunk.last - chunk.first, u);
  Block block(row, number, m, inverse_temperature);
  for (size_t i = 0; i < block.size; ++i) {
    if (!nucleus.edge.holds(block.x[i], static_cast<int32_t>(block.begin + i))) block.w[i] = 0;
  }
  const size_t i = draw(block.w, block.size, u);
  return drawn(static_cast<int32_t>(block.begin + i), block.w[i], nucleus.mass, nucleus.count);
}

// The draw; nothing if the usual path must take the row.
inline std::optional<Draw> draw_from_wide_top_p(Workspace& work, Row row, float m, const Params& p, uint64_t bits) {
  const auto limits = limits_of_edge(work, row, m, p);
  if (!limits) return {};
  const auto nucleus = nucleus_of(work, row, m, p, *limits);
  if (!nucleus) return {};
  return draw_from(work, row, m, p.inverse_temperature, *nucleus, bits);
}

}  // namespace alea
