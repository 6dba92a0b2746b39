// Step 0, what changes logits before any filter: bias, the allowed mask, and the penalties on what was said.
// The same as samplers/reference/penalties.py.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <unordered_map>
#include <vector>

namespace alea {

struct Penalties {
  float repetition, presence, frequency;
};

// The ids of a history that stand in the vocabulary, and how often each occurs in its generated part.
inline std::unordered_map<int64_t, int64_t> count(const std::vector<int64_t>& history, int64_t start, int64_t vocabulary) {
  std::unordered_map<int64_t, int64_t> generated;
  for (size_t i = 0; i < history.size(); ++i) {
    if (history[i] < 0 || history[i] >= vocabulary) continue;
    generated[history[i]] += static_cast<int64_t>(i) >= start;
  }
  return generated;
}

inline void penalise(std::vector<float>& x, const std::vector<int64_t>& history, int64_t start, const Penalties& p) {
  for (const auto& [id, generated] : count(history, start, static_cast<int64_t>(x.size()))) {
    float& logit = x[id];
    logit = logit < 0 ? logit * p.repetition : logit / p.repetition;
    if (generated == 0) continue;
    logit = logit - static_cast<float>(static_cast<double>(generated) * p.frequency);
    logit = logit - p.presence;
  }
}

inline void forbid(std::vector<float>& x, const bool* allowed) {
  for (size_t i = 0; i < x.size(); ++i) {
    if (!allowed[i]) x[i] = -std::numeric_limits<float>::infinity();
  }
}

}  // namespace alea
