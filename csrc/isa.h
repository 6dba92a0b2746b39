// Which instructions the passes use: the best that this processor has, or those that were asked for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace alea {

constexpr size_t kBlock = 128;  // logits in a block
constexpr size_t kMargin = 16;  // entries behind a list of ids that a pass may write over

// What a pass over all logits finds.
struct Extremes {
  float greatest;  // NaN where a logit is NaN or +inf
  bool has_gaps;   // whether a logit is -inf
};

struct Above {
  int64_t mass;
  size_t count;
};

// The passes of passes.h over logits x[n] of one type; one entry of `blocks` for each started block.
struct Passes {
  // The greatest logit of each block, and of all.
  Extremes (*maxima)(const void* x, size_t n, float* blocks);
  // The mass of each block, and of all; `maxima` holds the greatest logit of each.
  int64_t (*masses)(const void* x, size_t n, float m, float inverse_temperature, const float* maxima, int64_t* blocks);
  // The mass of the logits above a limit, of each block and of all, and their number.
  Above (*masses_above)(const void* x, size_t n, float m, float inverse_temperature, const float* maxima, float limit,
                        int64_t* blocks);
  // How many logits are above -inf.
  size_t (*count_finite)(const void* x, size_t n);
  // The ids of all x in least .. most, in order. Room for n + kMargin ids.
  size_t (*collect)(const void* x, size_t n, const float* maxima, float least, float most, int32_t* ids);
  // The logits as float32: n from x on, or those that ids name.
  void (*widen)(const void* x, size_t n, float* out);
  void (*gather)(const void* x, const int32_t* ids, size_t count, float* out);
  // d and w of each of n float32 logits.
  void (*weigh)(const float* x, size_t n, float m, float inverse_temperature, float* d, int64_t* w);
  size_t size;  // bytes of a logit
};

enum Type { kFloat32, kFloat16, kBfloat16, kTypes };

// Names of what runs here, best first: "avx512", "avx2", "generic".
std::vector<std::string> available_isas();

// "auto" or one of the available; false for any other. Not to be called while rows are drawn: it is for tests.
bool use_isa(const std::string& name);

std::string isa_in_use();

const Passes& passes(Type type);

}  // namespace alea
