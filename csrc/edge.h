// The edge of a prefix in order, by halving: where its mass reaches a target, in a list of tokens.
// Needs no keys, no sorting, and one step for equal logits, however many.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "isa.h"
#include "order.h"
#include "row.h"

namespace alea {

// Tokens in id order.
struct Tokens {
  const int32_t* ids;
  const float* x;
  const int64_t* w;
  size_t size;
};

// The last token of a prefix, which holds every greater logit and, of the equal ones, the ids up to this; what it
// holds.
struct Edge {
  float x;
  int32_t id;
  int64_t mass;
  size_t count;

  bool holds(float logit, int32_t i) const { return logit > x || (logit == x && i <= id); }
};

// A logit, and what is above it.
struct Level {
  float x;
  Above above;
};

// The greatest logit that the prefix of this mass reaches, 1 <= target <= the mass of all; every logit is within the
// limits. Halves the keys between two logits of the list.
inline Level level_reaching(const Passes& passes, const Tokens& tokens, Limits limits, int64_t target) {
  Level level{limits.highest, {}};
  float low = limits.lowest;  // down to which the mass reaches the target
  while (low < level.x) {
    const uint32_t first = key_of(level.x), last = key_of(low);
    const Above above = passes.above(tokens.x, tokens.w, tokens.size, logit_of(first + (last - first + 1) / 2));
    if (above.mass < target) {
      level = {above.next, above};
    } else {
      low = above.least;
    }
  }
  return level;
}

// The edge of the shortest prefix whose mass reaches the target. Equal logits have equal masses, so those that still
// fit are counted, not added.
inline Edge edge_reaching(const Passes& passes, const Tokens& tokens, Limits limits, int64_t target) {
  const auto [x, above] = level_reaching(passes, tokens, limits, target);
  const float* const end = tokens.x + tokens.size;
  const float* tie = std::find(tokens.x, end, x);
  const int64_t mass = std::max<int64_t>(1, tokens.w[tie - tokens.x]);
  auto ties = (target - above.mass + mass - 1) / mass;
  Edge edge{x, 0, above.mass + ties * mass, above.count + static_cast<size_t>(ties)};
  for (std::ptrdiff_t count; end - tie > std::ptrdiff_t{kBlock}; tie += kBlock, ties -= count) {
    count = std::count(tie, tie + kBlock, x);
    if (count >= ties) break;
  }
  while (tie + 1 < end && (*tie != x || --ties > 0)) ++tie;
  edge.id = tokens.ids[tie - tokens.x];
  return edge;
}

// The mass of the tokens that the prefix holds, of those from `begin` to `end`.
inline int64_t held_mass(const Passes& passes, const Tokens& tokens, size_t begin, size_t end, const Edge& edge) {
  const auto mass = [&](size_t first, size_t last, float limit) {
    return passes.above(tokens.x + first, tokens.w + first, last - first, limit).mass;
  };
  const int32_t* const ids = tokens.ids;
  const auto middle = static_cast<size_t>(std::upper_bound(ids + begin, ids + end, edge.id) - ids);
  return mass(begin, middle, std::nextafter(edge.x, -kInfinity)) + mass(middle, end, edge.x);
}

}  // namespace alea
