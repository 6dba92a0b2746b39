// Which instructions the passes use: the best that this processor has, or those that were asked for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace alea {

constexpr size_t kBlock = 128;  // logits in a block

// The passes of passes.h. Logits x[n]; one entry of `blocks` for each started block.
struct Passes {
  // The greatest logit of each block, and of all; NaN where a logit is NaN or +inf.
  float (*maxima)(const float* x, size_t n, float* blocks);
  // The mass of each block, and of all.
  int64_t (*masses)(const float* x, size_t n, float m, float inverse_temperature, int64_t* blocks);
  // d and w of each logit.
  void (*weigh)(const float* x, size_t n, float m, float inverse_temperature, float* d, int64_t* w);
  // How many logits are above -inf.
  size_t (*count_finite)(const float* x, size_t n);
  // The ids of all x >= least, in order; `blocks` holds the maxima. Room for n ids.
  size_t (*collect)(const float* x, size_t n, const float* blocks, float least, int32_t* ids);
};

// Names of what runs here, best first: "avx512", "avx2", "generic".
std::vector<std::string> available_isas();

// "auto" or one of the available; false for any other. Not to be called while rows are drawn: it is for tests.
bool use_isa(const std::string& name);

std::string isa_in_use();

const Passes& passes();

}  // namespace alea
