// Forward passes of small Llamas of odd sizes on every instruction set, whose bits must agree; to be run under the
// address and undefined-behaviour sanitizers. Every array lies in memory of exactly its size, so that a read beyond is
// seen.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "../../csrc/model/forward.h"
#include "../../csrc/model/packing.h"

namespace {

std::mt19937_64 rng(7);

size_t between(size_t least, size_t most) { return least + rng() % (most - least + 1); }
float number() { return static_cast<float>(std::normal_distribution<double>(0, 0.3)(rng)); }

// Memory of exactly its size, kept to the end of the program's round.
class Memory {
 public:
  template <typename T>
  T* take(size_t count) {
    blocks_.emplace_back(std::malloc(count * sizeof(T)), std::free);
    return static_cast<T*>(blocks_.back().get());
  }
  const float* floats(size_t count) {
    auto* const numbers = take<float>(count);
    for (size_t i = 0; i < count; ++i) numbers[i] = number();
    return numbers;
  }

 private:
  std::vector<std::unique_ptr<void, void (*)(void*)>> blocks_;
};

alea::Matrix matrix(Memory& memory, size_t outputs, size_t inputs, bool has_bias) {
  alea::Matrix w;
  w.outputs = outputs;
  w.inputs = inputs;
  w.type = static_cast<alea::Type>(rng() % alea::kTypes);
  if (has_bias) w.bias = memory.floats(outputs);
  const size_t size = alea::panel_size(outputs, inputs);
  if (w.type == alea::kFloat32) {
    auto* const panels = memory.take<float>(size);
    alea::pack(w, memory.floats(outputs * inputs), panels);
    w.panels = panels;
  } else {
    auto* const halves = memory.take<uint16_t>(outputs * inputs);
    for (size_t i = 0; i < outputs * inputs; ++i)
      halves[i] = static_cast<uint16_t>(0x2000 + rng() % 0x1C00);  // 0.01 to 2
    auto* const panels = memory.take<uint16_t>(size);
    alea::pack(w, halves, panels);
    w.panels = panels;
  }
  return w;
}

void round_of_passes() {
  Memory memory;
  alea::Llama a{};
  a.size = between(1, 150);
  a.shared_heads = between(1, 3);
  a.heads = a.shared_heads * between(1, 4);
  a.head_size = 2 * between(1, 70);
  a.inner = between(1, 200);
  a.eps = 1e-5f;
  for (size_t i = 0; i < a.head_size / 2; ++i) a.frequencies.push_back(1.0f / static_cast<float>(1 + i));
  const bool has_bias = rng() % 2;
  const size_t vocabulary = between(1, 100);
  const alea::Matrix head = matrix(memory, vocabulary, a.size, false);
  a.is_tied = rng() % 2;
  a.embedding = head;
  if (!a.is_tied) {
    a.embedding.type = alea::kFloat32;
    a.embedding.panels = memory.floats(vocabulary * a.size);
  }
  a.norm = memory.floats(a.size);
  for (size_t layer = 0; layer < 2; ++layer) {
    a.layers.push_back({matrix(memory, (a.heads + 2 * a.shared_heads) * a.head_size, a.size, has_bias),
                        matrix(memory, a.size, a.heads * a.head_size, has_bias),
                        matrix(memory, 2 * a.inner, a.size, has_bias), matrix(memory, a.size, a.inner, has_bias),
                        memory.floats(a.size), memory.floats(a.size)});
  }
  const size_t sequences = between(1, 3), width = 4;
  alea::Cache cache{{}, width};
  for (size_t i = 0; i < sequences * width; ++i) {
    cache.blocks.push_back(memory.take<float>(a.block_size()));
    std::fill_n(cache.blocks.back(), a.block_size(), std::numeric_limits<float>::quiet_NaN());
  }
  std::vector<alea::Token> tokens;
  for (size_t s = 0; s < sequences; ++s) {
    const size_t length = between(1, width * alea::kSlots);
    for (size_t p = 0; p < length; ++p) tokens.push_back({static_cast<int64_t>(rng() % vocabulary), s, p});
  }
  std::vector<std::vector<float>> found;
  for (const std::string& isa : alea::available_operations()) {
    alea::use_operations(isa);
    std::vector<float> hidden(tokens.size() * a.size), logits(tokens.size() * vocabulary);
    alea::forward(a, cache, tokens.data(), tokens.size(), hidden.data(), 1 + rng() % 3, [] {});
    alea::linear(head, hidden.data(), tokens.size(), logits.data(), 1 + rng() % 3);
    for (const float x : logits) {
      if (!std::isfinite(x)) std::abort();
    }
    found.push_back(logits);
  }
  for (const auto& logits : found) {
    if (std::memcmp(logits.data(), found[0].data(), logits.size() * sizeof(float)) != 0) std::abort();
  }
}

}  // namespace

int main(int, char** arguments) {
  const int rounds = std::atoi(arguments[1]);
  for (int i = 0; i < rounds; ++i) round_of_passes();
  std::printf("%d rounds\n", rounds);
}
