// The instruction set that the passes use: the best of this processor, or one that a test selects.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

namespace alea {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kGreatest = std::numeric_limits<float>::max();

constexpr size_t kBlock = 128;  // logits in a block
constexpr size_t kMargin = 16;  // entries after a list of ids that a pass may overwrite

// The results of the pass `maxima`.
struct Extremes {
  float greatest;  // NaN or +inf if a logit is
  bool has_gaps;   // whether a logit is -inf
};

// The tokens above a limit, and the logits on either side of it.
struct Above {
  int64_t mass;
  size_t count;
  float least;  // of their logits; +inf if there are none
  float next;   // the greatest logit that is not above; -inf if all are
};

struct Limits {
  float lowest, highest;
};

// A row split by two limits.
struct Split {
  int64_t total;          // mass of all tokens
  int64_t mass;           // of those above both limits
  size_t above, between;  // tokens
};

// Logits and a bit for each, bit i mod 32 of word i div 32; where it is not set, the logit counts as -inf.
struct Masked {
  const void* x;
  const uint32_t* words;
};

// The passes of passes.h over logits x[n] of one type; `blocks` has one entry per block, and the last block may be
// short.
struct Passes {
  // The greatest logit of each block and of all.
  Extremes (*maxima)(const void* x, size_t n, float* blocks);
  // The mass of each block and of all; `maxima` holds the greatest logit of each.
  int64_t (*masses)(const void* x, size_t n, float m, float inverse_temperature, const float* maxima, int64_t* blocks);
  // Splits the row: the mass of the logits above both limits, per block and in all; the ids, ascending, and logits of
  // those between, limits included. `ids` and `between` need room for n + kMargin.
  Split (*split)(const void* x, size_t n, float m, float inverse_temperature, const float* maxima, Limits limits,
                 int64_t* blocks, int32_t* ids, float* between);
  // The tokens above a limit, of n float32 logits and their masses.
  Above (*above)(const float* x, const int64_t* w, size_t n, float limit);
  // The number of logits above -inf.
  size_t (*count_finite)(const void* x, size_t n);
  // The ids of all x in least .. most, ascending; `ids` needs room for n + kMargin.
  size_t (*collect)(const void* x, size_t n, const float* maxima, float least, float most, int32_t* ids);
  // The logits as float32: all n, or those of the given ids.
  void (*widen)(const void* x, size_t n, float* out);
  void (*gather)(const void* x, const int32_t* ids, size_t count, float* out);
  // d and w of each of n float32 logits.
  void (*weigh)(const float* x, size_t n, float m, float inverse_temperature, float* d, int64_t* w);
  size_t size;  // bytes of a logit

  // Those that take a `Masked` for x, with logits of the same type.
  const Passes* masked() const;
};

enum Type { kFloat32, kFloat16, kBfloat16, kTypes };

inline const Passes* Passes::masked() const { return this + kTypes; }  // the second half of each kPasses

// The instruction sets of this processor, best first: "avx512", "avx2", "generic".
std::vector<std::string> available_isas();

// Selects "auto" or an available one; false for any other name. For tests only: no rows may be drawn meanwhile.
bool use_isa(const std::string& name);

std::string isa_in_use();

const Passes& passes(Type type);

}  // namespace alea
