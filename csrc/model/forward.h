// A forward pass: tokens of any sequences through all layers, up to the last norm. What comes out for a token depends
// on the tokens before it in its sequence and on nothing else, because every sum has one order (operations.h). The same
// as model/llama.py, and bit for bit model/reference/.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
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

  size_t head_block_size() const;  // numbers that one head of one layer keeps in a block of the cache
  size_t block_size() const;       // and all heads of all layers
};

// Where the sequences' keys and values lie: blocks of 16 positions.
struct Cache {
  std::vector<float*> blocks;  // [sequences][width], those of each sequence in order; null where it has none
  size_t width;

  float* block(size_t sequence, size_t number) const { return blocks[sequence * width + number]; }
};

struct Token {
  int64_t id;
  size_t sequence, position;
};

// Writes keys and values of the tokens into the cache, and the stream after the last norm, [count][E]. A sequence's
// tokens stand in the order of their positions. pause() is called now and then, and may throw to end the pass.
void forward(const Llama& llama, const Cache& cache, const Token* tokens, size_t count, float* out, size_t threads,
             const std::function<void()>& pause);

// y [rows][outputs] = x w + bias
void linear(const Matrix& w, const float* x, size_t rows, float* y, size_t threads);

std::vector<std::string> available_operations();
bool use_operations(const std::string& name);
std::string operations_in_use();

}  // namespace alea
