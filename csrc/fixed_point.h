// Probability mass as integers: the weight of a logit, and the comparison of masses with a fraction.
// SPEC.md steps 3 and 4; the same as samplers/reference/fixed_point.py. Compile with -ffp-contract=off.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace alea {

constexpr int64_t kOne = int64_t{1} << 40;  // the weight of the most probable token
constexpr float kLowest = -60.0f;

// d = (x - m) / T, from 0 down to -60.
inline float distance(float x, float m, float inverse_temperature) {
  return std::max((x - m) * inverse_temperature, kLowest);
}

// W(d) = floor(2^40 e^d) to about 2e-7 relative, for d in [-60, 0].
inline int64_t weight(float d) {
  // 1. d = k ln 2 + r, with |r| <= ln 2 / 2
  constexpr float kRound = 0x1.8p+23f;  // adding and subtracting it rounds to an integer
  const float k = (d * 0x1.715476p+0f + kRound) - kRound;
  const float r = (d - k * 0x1.62e400p-1f) - k * 0x1.7f7d1cp-20f;
  // 2. e^r, a polynomial by Horner's rule
  float q = 0x1.0fa834p-7f;
  q = q * r + 0x1.573a54p-5f;
  q = q * r + 0x1.555a6ap-3f;
  q = q * r + 0x1.fffdc6p-2f;
  q = q * r + 0x1.fffff6p-1f;
  q = q * r + 1.0f;
  // 3. 2^40 2^k e^r, cut to an integer
  const auto significand = static_cast<int64_t>(q * 0x1p+24f);
  return (significand << 16) >> std::min<int64_t>(63, -static_cast<int64_t>(k));
}

// High 64 bits of a 128-bit product.
inline uint64_t multiply_high(uint64_t a, uint64_t b) {
  return static_cast<uint64_t>((static_cast<unsigned __int128>(a) * b) >> 64);
}

// fraction * mass rounded up, forgiving one part in 2^20; fraction is ceil(q 2^64), at most 2^64 - 1.
inline int64_t bound(int64_t mass, uint64_t fraction) {
  const auto product = static_cast<unsigned __int128>(static_cast<uint64_t>(mass)) * fraction;
  const auto b = static_cast<int64_t>(product >> 64) + (static_cast<uint64_t>(product) != 0);
  return b - (b >> 20);
}

// D = floor(-d 2^24): nats below the most probable token, as integers of 2^-24.
inline int64_t surprise(float d) { return static_cast<int64_t>(std::floor(static_cast<double>(-d) * 0x1p+24)); }

// The mean of D under w, in nats of 2^-24.
inline int64_t mean_surprise(const std::vector<float>& d, const std::vector<int64_t>& w, int64_t total) {
  int64_t energy = 0;
  for (size_t i = 0; i < d.size(); ++i) energy += (w[i] * surprise(d[i])) >> 24;
  return static_cast<int64_t>((static_cast<__int128>(energy) << 24) / total);
}

}  // namespace alea
