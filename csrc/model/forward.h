// A forward pass: tokens of any sequences through all layers, up to the last norm. What comes out for a token depends
// on the tokens before it in its sequence and on nothing else, because every sum has one order (operations.h). The same
// as model/llama.py, and bit for bit model/reference/.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "operations.h"

namespace alea {

struct Layer {
  Matrix qkv, out, gate_up, down;
  const float *input_norm, *post_attention_norm;  // [E]
};

struct Llama {
  size_t size, heads, shared_heads, head_size, inner;  // E, H, H_kv, D, I
  float eps;
  std::vector<float> frequencies;  // [D / 2], radians a position
  Matrix embedding;                // by panels where it is also the last layer, else by rows
  bool is_tied;
  std::vector<Layer> layers;
  const float* norm;  // [E]

  size_t block_size() const;  // numbers that all layers' heads keep in a block of the cache
};

// Where the sequences' keys and values lie: blocks of 16 positions, in slabs of 2^shift blocks.
struct Cache {
  std::vector<float*> slabs;
  size_t shift;
  const int32_t* table;  // [sequences][width], the blocks of each sequence in order
  size_t width;

  float* block(size_t sequence, size_t number, size_t block_size) const {
    const auto i = static_cast<size_t>(table[sequence * width + number]);
    return slabs[i >> shift] + (i & ((size_t{1} << shift) - 1)) * block_size;
  }
};

struct Token {
  int64_t id;
  size_t sequence, position;
};

// Writes keys and values of the tokens into the cache, and the stream after the last norm, [count][E]. A sequence's
// tokens stand in the order of their positions.
void forward(const Llama& llama, const Cache& cache, const Token* tokens, size_t count, float* out, size_t threads);

// y [rows][outputs] = x w + bias
void linear(const Matrix& w, const float* x, size_t rows, float* y, size_t threads);

std::vector<std::string> available_operations();
bool use_operations(const std::string& name);
std::string operations_in_use();

}  // namespace alea
