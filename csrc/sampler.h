// From a row of logits to a token: the steps of SPEC.md in their order. The same as samplers/reference/sampler.py.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "cutoffs.h"
#include "draw.h"
#include "fixed_point.h"
#include "kept.h"
#include "philox.h"
#include "top_k.h"
#include "top_p.h"
#include "typical.h"

namespace alea {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// One row's parameters. Fractions are ceil(q 2^64); each switch says whether its filter acts.
struct Params {
  float temperature, inverse_temperature;  // 1 and 0 for T = 0
  float repetition, presence, frequency;
  int64_t top_k, min_tokens_to_keep;
  uint64_t top_p, min_p, typical_p, epsilon, eta, root_eta;
  bool use_top_p, use_min_p, use_typical_p, use_epsilon, use_eta;
};

struct Draw {
  int64_t token = -1, weight = 0, total = 0;
  int32_t kept = 0;
  float logprob = std::numeric_limits<float>::quiet_NaN();
  float entropy = std::numeric_limits<float>::quiet_NaN();
};

// The greatest logit, NaN where the row has one.
inline float maximum(const float* x, size_t vocabulary) {
  float m = -kInfinity;
  for (size_t i = 0; i < vocabulary; ++i) {
    if (std::isnan(x[i])) return x[i];
    m = std::max(m, x[i]);
  }
  return m;
}

// Steps 2 and 3: every token above -inf with its mass; at T = 0 the first maximum alone.
inline void weigh(Kept& kept, const std::vector<float>& x, float m, float inverse_temperature) {
  kept.resize(x.size());
  size_t count = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    if (inverse_temperature == 0 ? x[i] != m || count > 0 : x[i] == -kInfinity) continue;
    kept.ids[count] = static_cast<int32_t>(i);
    kept.x[count] = x[i];
    kept.d[count] = distance(x[i], m, inverse_temperature);
    kept.w[count] = weight(kept.d[count]);
    ++count;
  }
  kept.resize(count);
}

// Step 4: the filters that are switched on, in their order.
inline void filter(Kept& kept, const Params& p) {
  const auto n = static_cast<size_t>(p.min_tokens_to_keep);
  if (p.top_k > 0) kept.where(top_k(kept, static_cast<size_t>(p.top_k), n));
  if (p.use_top_p) kept.where(top_p(kept, p.top_p, n));
  if (p.use_min_p) kept.where(min_p(kept, p.min_p, n));
  if (p.use_typical_p) kept.where(typical(kept, p.typical_p, n));
  if (p.use_epsilon) kept.where(epsilon(kept, p.epsilon, n));
  if (p.use_eta) kept.where(eta(kept, p.eta, p.root_eta, n));
}

// Steps 1 to 4: the final distribution; false for an invalid row.
inline bool keep(Kept& kept, const std::vector<float>& x, const Params& p) {
  const float m = maximum(x.data(), x.size());
  if (!std::isfinite(m)) return false;
  weigh(kept, x, m, p.inverse_temperature);
  if (p.inverse_temperature > 0) filter(kept, p);
  return true;
}

inline float entropy(const Kept& kept, int64_t total) {
  double energy = 0;
  for (size_t i = 0; i < kept.size(); ++i) energy += static_cast<double>(kept.w[i]) * kept.d[i];
  return static_cast<float>(std::log(static_cast<double>(total) / kOne) - energy / static_cast<double>(total));
}

// Steps 1 to 6 for one row with 64 random bits.
inline Draw sample_row(Kept& kept, const std::vector<float>& x, const Params& p, uint64_t bits) {
  Draw result;
  if (!keep(kept, x, p)) return result;
  result.total = sum(kept.w);
  const size_t chosen = draw(kept.w, result.total, bits);
  result.token = kept.ids[chosen];
  result.weight = kept.w[chosen];
  result.kept = static_cast<int32_t>(kept.size());
  result.logprob = static_cast<float>(std::log(static_cast<double>(result.weight) / static_cast<double>(result.total)));
  result.entropy = entropy(kept, result.total);
  return result;
}

// ln of the token's probability under softmax of the untouched logits (step 6); NaN where they are invalid.
inline float model_logprob(const float* x, size_t vocabulary, int64_t token) {
  const float m = maximum(x, vocabulary);
  if (!std::isfinite(m)) return std::numeric_limits<float>::quiet_NaN();
  int64_t total = 0;
  for (size_t i = 0; i < vocabulary; ++i) {
    if (x[i] > -kInfinity) total += weight(distance(x[i], m, 1.0f));
  }
  return static_cast<float>(static_cast<double>(x[token]) - m - std::log(static_cast<double>(total) / kOne));
}

}  // namespace alea
