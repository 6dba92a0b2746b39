// One row of parameters, as samplers/params.py packs it (ROW). A fraction q is ceil(q 2^64), at most 2^64 - 1.
#pragma once

#include <cstdint>

namespace alea {

struct Params {
  float temperature, inverse_temperature;  // 1 and 0 for T = 0
  float repetition, presence, frequency, padding;
  int64_t min_tokens_to_keep;
  int64_t top_k;
  uint64_t top_p, min_p, typical_p, epsilon_cutoff, eta_cutoff, sqrt_eta_cutoff;

  static constexpr uint64_t kAllMass = ~uint64_t{0};

  // Whether each filter is on, in their order.
  bool use_top_k() const { return top_k > 0; }
  bool use_top_p() const { return top_p != kAllMass; }
  bool use_min_p() const { return min_p != 0; }
  bool use_typical_p() const { return typical_p != kAllMass; }
  bool use_epsilon_cutoff() const { return epsilon_cutoff != 0; }
  bool use_eta_cutoff() const { return eta_cutoff != 0; }

  bool is_greedy() const { return inverse_temperature == 0; }
  bool cuts_by_mass() const { return use_min_p() || use_typical_p() || use_epsilon_cutoff() || use_eta_cutoff(); }

  // Whether a fast path serves the row.
  bool keeps_all() const { return !is_greedy() && !use_top_k() && !use_top_p() && !cuts_by_mass(); }
  bool only_top_p() const {
    return !is_greedy() && !use_top_k() && use_top_p() && !cuts_by_mass() && min_tokens_to_keep == 1;
  }
};

}  // namespace alea
