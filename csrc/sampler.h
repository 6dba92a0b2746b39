// From a row of logits to a token: the steps of docs/definition.md in order.
// The same as samplers/reference/sampler.py.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>

#include "buffer.h"
#include "cutoffs.h"
#include "draw.h"
#include "fixed_point.h"
#include "isa.h"
#include "kept.h"
#include "params.h"
#include "philox.h"
#include "row.h"
#include "threads.h"
#include "top_k.h"
#include "top_p.h"
#include "typical.h"
#include "wide_top_p.h"

namespace alea {

// Step 2: at T = 0 only the first maximum.
inline void keep_maximum(Workspace& work, Row row, float m) {
  collect(work, row, m, 0.0f, m, m);
  if (work.kept.size() > 0) work.kept.resize(1);  // 0 only if another thread wrote the row meanwhile
  work.kept.sum_up();
}

// The n-th greatest maximum of groups of tokens, which at least n tokens reach. The groups are blocks, or single tokens
// if there are fewer than n blocks. Groups are joined in pairs while at least 2 n remain, which leaves fewer
// maxima to select from and lets few more tokens pass.
inline float nth_greatest_maximum(Workspace& work, Row row, size_t n) {
  Buffer<float>& maxima = work.coarse;
  if (n <= row.blocks()) {
    maxima.resize(row.blocks());
    std::copy(work.maxima.begin(), work.maxima.end(), maxima.begin());
  } else {
    maxima.resize(row.n);
    row.passes->widen(row.x, row.n, maxima.data());
  }
  while (maxima.size() / 2 >= 2 * n) {
    const size_t half = maxima.size() / 2;  // an odd last group is left out
    for (size_t i = 0; i < half; ++i) maxima[i] = std::max(maxima[i], maxima[half + i]);
    maxima.resize(half);
  }
  std::nth_element(maxima.begin(), maxima.begin() + (n - 1), maxima.end(), std::greater<float>());
  return maxima[n - 1];
}

// A logit that every token reaches that the first filter can keep; the others need not be read one by one.
inline float threshold(Workspace& work, Row row, float m, const Params& p) {
  const int64_t total = work.kept.total;
  if (p.use_top_k()) {
    const auto k = static_cast<size_t>(std::max(p.top_k, p.min_tokens_to_keep));
    return k > row.n ? kLowestFinite : std::max(kLowestFinite, nth_greatest_maximum(work, row, k));
  }
  if (p.use_top_p()) {
    return top_p_threshold(total, row.n, m, p);
  }
  if (p.use_min_p()) return logit_below(bound(kOne, p.min_p), m, p.temperature);
  if (p.use_epsilon_cutoff() && !p.use_typical_p())
    return logit_below(bound(total, p.epsilon_cutoff), m, p.temperature);
  return kLowestFinite;
}

// Step 3: the mass of all tokens, if the first filter needs it.
inline void weigh_all(Workspace& work, Row row, float m, const Params& p) {
  work.kept.total = p.use_top_k() || p.is_greedy() ? 0 : total_mass(work, row, m, p.inverse_temperature);
}

// Step 3: the tokens that the first filter may keep, with their mass.
inline void weigh(Workspace& work, Row row, float m, const Params& p) {
  Kept& kept = work.kept;
  collect(work, row, m, p.inverse_temperature, threshold(work, row, m, p));
  if (kept.size() < static_cast<size_t>(p.min_tokens_to_keep))
    collect(work, row, m, p.inverse_temperature, kLowestFinite);
  if (p.use_top_k()) kept.sum_up();
}

// Step 4: the filters that are switched on, in order.
inline void filter(Kept& kept, const Params& p) {
  const auto n = static_cast<size_t>(p.min_tokens_to_keep);
  const auto stage = [&kept](bool on, auto mask) {
    if (on && kept.has_mass()) kept.where(mask());
  };
  stage(p.use_top_k(), [&] { return top_k(kept, static_cast<size_t>(p.top_k), n); });
  stage(p.use_top_p(), [&] { return top_p(kept, p.top_p, n); });
  stage(p.use_min_p(), [&] { return min_p(kept, p.min_p, n); });
  stage(p.use_typical_p(), [&] { return typical(kept, p.typical_p, n); });
  stage(p.use_epsilon_cutoff(), [&] { return epsilon(kept, p.epsilon_cutoff, n); });
  stage(p.use_eta_cutoff(), [&] { return eta(kept, p.eta_cutoff, p.sqrt_eta_cutoff, n); });
}

// Steps 2 to 4 for a row with maximum m and known total mass: the final distribution. False if another thread writes
// the row meanwhile.
inline bool keep_weighed(Workspace& work, Row row, float m, const Params& p) {
  if (p.is_greedy()) {
    keep_maximum(work, row, m);
  } else {
    weigh(work, row, m, p);
    filter(work.kept, p);
  }
  return work.kept.has_mass();
}

// Steps 1 to 4; false for an invalid row.
inline bool keep(Workspace& work, Row row, const Params& p) {
  const float m = extremes(work, row).greatest;
  if (!std::isfinite(m)) return false;
  weigh_all(work, row, m, p);
  return keep_weighed(work, row, m, p);
}

inline float entropy(const Kept& kept) {
  double energy = 0;
  for (size_t i = 0; i < kept.size(); ++i) energy += static_cast<double>(kept.w[i]) * kept.d[i];
  const auto total = static_cast<double>(kept.total);
  return static_cast<float>(std::log(total / kOne) - energy / total);
}

// Step 5 without filters: the block that u falls into, then the token, without a list of all tokens.
inline Draw draw_from_all(Workspace& work, Row row, Extremes of_row, const Params& p, uint64_t bits) {
  int64_t u = scaled(bits, work.kept.total);
  const size_t number = draw(work.masses.data(), work.masses.size(), u);
  const Block block(row, number, of_row.greatest, p.inverse_temperature);
  const size_t i = draw(block.w, block.size, u);
  const size_t kept = of_row.has_gaps ? row.passes->count_finite(row.x, row.n) : row.n;
  return drawn(static_cast<int32_t>(block.begin + i), block.w[i], work.kept.total, kept);
}

// Steps 1 to 6 for one row with 64 random bits; entropy only with details.
inline Draw sample_row(Workspace& work, Row row, const Params& p, uint64_t bits, bool details) {
  const Extremes of_row = extremes(work, row);
  const float m = of_row.greatest;
  if (!std::isfinite(m)) return {};
  if (!details && p.only_top_p()) {
    const auto draw = draw_from_wide_top_p(work, row, m, p, bits);
    if (draw) return *draw;
  }
  weigh_all(work, row, m, p);
  if (!details && p.keeps_all()) return draw_from_all(work, row, of_row, p, bits);
  if (!keep_weighed(work, row, m, p)) return {};
  const Kept& kept = work.kept;
  int64_t u = scaled(bits, kept.total);
  const size_t i = draw(kept.w.data(), kept.size(), u);
  Draw result = drawn(kept.ids[i], kept.w[i], kept.total, kept.size());
  if (details) result.entropy = entropy(kept);
  return result;
}

// ln of the token's probability under softmax of the untouched logits (step 6); NaN if they are invalid.
inline float model_logprob(Workspace& work, Row row, int64_t token) {
  const float m = extremes(work, row).greatest;
  if (!std::isfinite(m)) return std::numeric_limits<float>::quiet_NaN();
  const auto total = static_cast<double>(total_mass(work, row, m, 1.0f));
  const auto id = static_cast<int32_t>(token);
  float x;
  row.passes->gather(row.x, &id, 1, &x);
  return static_cast<float>(static_cast<double>(x) - m - std::log(total / kOne));
}

constexpr size_t kWorthAThread = size_t{1} << 18;  // logits; fewer take less time than waking a thread

// Calls visit(row, workspace) once per row on up to `threads` threads; a single row stays on the calling thread.
template <typename Visit>
void for_rows(size_t rows, size_t vocabulary, size_t threads, Visit visit) {
  threads = std::min(threads, 1 + rows * vocabulary / kWorthAThread);
  for_parts(rows, threads, [&](size_t row) {
    thread_local Workspace workspace;  // kept from call to call
    visit(row, workspace);
  });
}

}  // namespace alea
