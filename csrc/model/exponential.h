// e^d as float32, for the softmax of attention and for SwiGLU: the sampler's weight before its floor.
#pragma once

#include <initializer_list>

#include "fused.h"

namespace alea {
namespace ALEA_NAMESPACE(ALEA_ISA) {
namespace {

// e^d, for d <= 0, to about 2e-7 relative; d below -60 counts as -60.
inline Floats exponential(Floats d) {
  const Floats round = fill(0x1.8p+23f);  // adding and subtracting this rounds to an integer
  d = greater(fill(-60.0f), d);           // NaN stays
  // 1. d = j ln 2 + s, with |s| <= ln 2 / 2
  const Floats shifted = fma(d, fill(0x1.715476p+0f), round);
  const Floats j = shifted - round;
  const Floats s = fma(-j, fill(0x1.7f7d1cp-20f), fma(-j, fill(0x1.62e400p-1f), d));
  // 2. e^s, a polynomial by Horner's rule
  Floats e = fill(0x1.0fa834p-7f);
  for (const float c : {0x1.573a54p-5f, 0x1.555a6ap-3f, 0x1.fffdc6p-2f, 0x1.fffff6p-1f, 1.0f}) e = fma(e, s, fill(c));
  // 3. times 2^j, made of j's bits, the last ones of `shifted`
  return e * (Floats)(((Integers)shifted << 23) + 0x3F800000);
}

}  // namespace
}  // namespace ALEA_NAMESPACE(ALEA_ISA)
}  // namespace alea
