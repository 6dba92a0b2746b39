// Vectors of ALEA_LANES floats (a GCC and Clang extension), for the instruction set that a file is compiled for.
//
// This file calls no function of the standard library but memcpy: the linker might keep a copy that was compiled here
// for AVX-512, and use it everywhere.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define ALEA_CONCAT(a, b) a##b
#define ALEA_NAMESPACE(isa) ALEA_CONCAT(passes_, isa)
#if defined(__AVX512F__) || defined(__FMA__) || defined(__aarch64__)
#define ALEA_HAS_FMA
#endif

namespace alea {
namespace ALEA_NAMESPACE(ALEA_ISA) {
namespace {

constexpr size_t kLanes = ALEA_LANES;
using Floats [[gnu::vector_size(4 * kLanes)]] = float;
using Integers [[gnu::vector_size(4 * kLanes)]] = int32_t;
using Halves [[gnu::vector_size(2 * kLanes)]] = uint16_t;

inline size_t least(size_t a, size_t b) { return a < b ? a : b; }

inline Floats fill(float value) { return value - Floats{}; }  // x - 0 is x, also for -0, so it costs no subtraction
inline Integers fill(int32_t value) { return Integers{} + value; }

// a > b ? a : b as one instruction; compilers do not recognise it in the comparison.
inline Floats greater(Floats a, Floats b) {
#if defined(__AVX512F__)
  return (Floats)_mm512_maskz_max_ps(0xFFFF, (__m512)a, (__m512)b);
#elif defined(__AVX2__)
  return (Floats)_mm256_max_ps((__m256)a, (__m256)b);
#elif defined(__SSE2__)
  return (Floats)_mm_max_ps((__m128)a, (__m128)b);
#else
  return a > b ? a : b;
#endif
}

#if defined(ALEA_HAS_FMA)
// a b + c, rounded once.
inline Floats fused(Floats a, Floats b, Floats c) {
#if defined(__AVX512F__)
  return (Floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
  return (Floats)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
  return (Floats)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#endif
}
#endif

}  // namespace
}  // namespace ALEA_NAMESPACE(ALEA_ISA)
}  // namespace alea
