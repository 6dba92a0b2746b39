// Cosines and sines of rotary angles, from float64 operations that are each rounded once: no library's last bit counts.
// The argument reduction in three parts and the polynomials are those of fdlibm (Sun Microsystems 1993).
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

namespace alea {

constexpr size_t kMostPositions = size_t{1} << 19;  // the reduction is exact for angles below it

struct Turn {
  float cos, sin;
};

// For angles from 0 up to kMostPositions.
inline Turn turn(float angle) {
  // 1. angle = n pi/2 + r, with |r| <= pi/4
  const double x = angle;
  constexpr double kRound = 0x1.8p+52;  // adding and subtracting this rounds to an integer
  const double shifted = x * 0x1.45f306dc9c883p-1 + kRound, n = shifted - kRound;
  const double r = ((x - n * 0x1.921fb544p+0) - n * 0x1.0b4611a6p-34) - n * 0x1.3198a2e037073p-69;
  // 2. The polynomials of r.
  const double z = r * r;
  double s = 0x1.5d93a5acfd57cp-33;
  for (const double c : {-0x1.ae5e68a2b9cebp-26, 0x1.71de357b1fe7dp-19, -0x1.a01a019c161d5p-13, 0x1.111111110f8a6p-7,
                         -0x1.5555555555549p-3}) {
    s = s * z + c;
  }
  double c = -0x1.8fae9be8838d4p-37;
  for (const double d : {0x1.1ee9ebdb4b1c4p-29, -0x1.27e4f809c52adp-22, 0x1.a01a019cb1590p-16, -0x1.6c16c16c15177p-10,
                         0x1.555555555554cp-5, -0.5}) {
    c = c * z + d;
  }
  const auto sine = static_cast<float>(r + (r * z) * s), cosine = static_cast<float>(1.0 + z * c);
  // 3. n mod 4 quarter turns.
  switch (static_cast<int64_t>(n) & 3) {
    case 0:
      return {cosine, sine};
    case 1:
      return {-sine, cosine};
    case 2:
      return {-cosine, -sine};
    default:
      return {sine, -cosine};
  }
}

}  // namespace alea
