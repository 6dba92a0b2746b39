// The layers of a forward pass, spread over threads. It calls the operations compiled for this processor.
#include "forward.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "../buffer.h"
#include "../processor.h"
#include "../rounding.h"
#include "../threads.h"
#include "angles.h"
#include "packing.h"

namespace alea {

namespace passes_generic {
extern const Operations kOperations;
}
namespace passes_avx2 {
extern const Operations kOperations;
}
namespace passes_avx512 {
extern const Operations kOperations;
}

namespace {

#if defined(__x86_64__)
ByIsa<Operations> isas(&passes_avx512::kOperations, &passes_avx2::kOperations, &passes_generic::kOperations);
#else
ByIsa<Operations> isas(nullptr, nullptr, &passes_generic::kOperations);
#endif

constexpr size_t kChunk = 192;                     // tokens that go through a layer together
constexpr size_t kQueries = 16;                    // positions of a sequence that attend together
constexpr size_t kRowsOfPart = 96;                 // rows that a thread multiplies with a panel
constexpr size_t kWorthAThread = size_t{1} << 20;  // multiplications of one row; fewer end before a thread wakes

// Threads that are worth waking. Many rows share the reading of a matrix, which is most of the work for one row.
size_t worth(size_t threads, size_t numbers, size_t rows) {
  const size_t work = numbers + numbers * rows / 12;
  return std::min(threads, 1 + work / kWorthAThread);
}

void product(const Matrix& w, const float* x, size_t x_stride, size_t rows, float* y, size_t y_stride, size_t threads) {
  const Operations& operations = *isas.get();
  const size_t panels = w.panel_count(), pieces = (rows + kRowsOfPart - 1) / kRowsOfPart;
  for_parts(panels * pieces, worth(threads, w.outputs * w.inputs, rows), [&](size_t part) {
    const size_t piece = part % pieces, begin = rows * piece / pieces, end = rows * (piece + 1) / pieces;
    operations.linear(w, part / pieces, x + begin * x_stride, x_stride, end - begin, y + begin * y_stride, y_stride);
  });
}

// The rows of a chunk, [count][...] each; every row begins at a multiple of 64 bytes.
struct Rows {
  Buffer<float> memory;
  float* begin = nullptr;
  size_t stride = 0;

  void resize(size_t count, size_t size) {
    stride = round_up(size, kPanel) + 16;  // rows a multiple of 4096 bytes apart would displace each other in the cache
    memory.resize(count * stride + 16);
    begin = memory.data();
    while (reinterpret_cast<uintptr_t>(begin) % 64) ++begin;
  }
  float* row(size_t m) const { return begin + m * stride; }
};

struct Workspace {
  Rows stream, normed, added, qkv, mixed, gate_up, inner, cos, sin;

  void resize(const Llama& a, size_t count) {
    for (Rows* rows : {&stream, &normed, &added}) rows->resize(count, a.size);
    qkv.resize(count, (a.heads + 2 * a.shared_heads) * a.head_size);
    mixed.resize(count, a.heads * a.head_size);
    gate_up.resize(count, 2 * a.inner);
    inner.resize(count, a.inner);
    for (Rows* rows : {&cos, &sin}) rows->resize(count, a.head_size / 2);
  }
};

// Tokens of one sequence at successive positions, which attend together.
struct Run {
  size_t begin, end;
};

std::vector<Run> runs_of(const Token* tokens, size_t count) {
  std::vector<Run> runs;
  for (size_t i = 0, begin = 0; i < count; ++i) {
    const bool goes_on = i + 1 < count && i + 1 - begin < kQueries && tokens[i + 1].sequence == tokens[i].sequence &&
                         tokens[i + 1].position == tokens[i].position + 1;
    if (goes_on) continue;
    runs.push_back({begin, i + 1});
    begin = i + 1;
  }
  return runs;
}

// One chunk of tokens through the layers.
class Pass {
 public:
  Pass(const Llama& llama, const Cache& cache, const Token* tokens, size_t count, Workspace& work, size_t threads)
      : a_(llama),
        cache_(cache),
        tokens_(tokens),
        count_(count),
        work_(work),
        threads_(threads),
        runs_(runs_of(tokens, count)) {
    work.resize(llama, count);
  }

  void run(float* out, const std::function<void()>& pause) {
    for (size_t i = 0; i < count_; ++i) {
      embed(i);
      angles(i);
    }
    for (size_t l = 0; l < a_.layers.size(); ++l) {
      if (count_ > kQueries) pause();
      attention(a_.layers[l], l);
      mlp(a_.layers[l]);
    }
    for (size_t i = 0; i < count_; ++i) {
      operations_.norm(work_.stream.row(i), a_.norm, a_.size, a_.eps, out + i * a_.size);
    }
  }

 private:
  void embed(size_t i) {
    const auto id = static_cast<size_t>(tokens_[i].id);
    float* const to = work_.stream.row(i);
    for (size_t k = 0; k < a_.size; ++k) {
      to[k] =
          widened(a_.embedding.panels, a_.embedding.type, a_.is_tied ? a_.embedding.place(id, k) : id * a_.size + k);
    }
  }

  void angles(size_t i) {
    const auto position = static_cast<float>(tokens_[i].position);
    for (size_t d = 0; d < a_.head_size / 2; ++d) {
      const Turn t = turn(position * a_.frequencies[d]);
      work_.cos.row(i)[d] = t.cos;
      work_.sin.row(i)[d] = t.sin;
    }
  }

  void attention(const Layer& layer, size_t number) {
    norm(layer.input_norm);
    multiply(layer.qkv, work_.normed, work_.qkv);
    for (size_t i = 0; i < count_; ++i) {
      for (size_t h = 0; h < a_.heads + a_.shared_heads; ++h) {
        operations_.rotate(work_.qkv.row(i) + h * a_.head_size, work_.cos.row(i), work_.sin.row(i), a_.head_size / 2);
      }
      for (size_t h = 0; h < a_.shared_heads; ++h) remember(i, number, h);
    }
    size_t slots = 0;
    for (const Run& run : runs_) slots += (run.end - run.begin) * (tokens_[run.end - 1].position + 1);
    const size_t numbers = slots * a_.heads * a_.head_size;
    for_parts(runs_.size() * a_.shared_heads, worth(threads_, numbers, 1),
              [&](size_t part) { attend(runs_[part / a_.shared_heads], number, part % a_.shared_heads); });
    multiply(layer.out, work_.mixed, work_.added);
    add();
  }

  void mlp(const Layer& layer) {
    norm(layer.post_attention_norm);
    multiply(layer.gate_up, work_.normed, work_.gate_up);
    for (size_t i = 0; i < count_; ++i) {
      const float* const gate = work_.gate_up.row(i);
      operations_.swiglu(gate, gate + a_.inner, a_.inner, work_.inner.row(i));
    }
    multiply(layer.down, work_.inner, work_.added);
    add();
  }

  void norm(const float* weights) {
    for (size_t i = 0; i < count_; ++i) {
      operations_.norm(work_.stream.row(i), weights, a_.size, a_.eps, work_.normed.row(i));
    }
  }

  void multiply(const Matrix& w, const Rows& x, const Rows& y) {
    product(w, x.begin, x.stride, count_, y.begin, y.stride, threads_);
  }

  void add() {
    for (size_t i = 0; i < count_; ++i) operations_.add(work_.stream.row(i), work_.added.row(i), a_.size);
  }

  // Where a head of a layer begins in a block.
  size_t head_offset(size_t layer, size_t head) const {
    return (layer * a_.shared_heads + head) * a_.head_block_size();
  }

  // Writes a token's key and value of one head into the cache.
  void remember(size_t i, size_t layer, size_t head) {
    const size_t position = tokens_[i].position, slot = position % kSlots, stride = round_up(a_.head_size, 16);
    float* const keys = cache_.block(tokens_[i].sequence, position / kSlots) + head_offset(layer, head);
    float* const value = keys + a_.head_size * kSlots + slot * stride;
    const float* const key = work_.qkv.row(i) + (a_.heads + head) * a_.head_size;
    for (size_t d = 0; d < a_.head_size; ++d) keys[d * kSlots + slot] = key[d];
    std::memcpy(value, key + a_.shared_heads * a_.head_size, a_.head_size * sizeof(float));
    std::fill(value + a_.head_size, value + stride, 0.0f);
  }

  // The query heads that share a key-value head, for one run.
  void attend(const Run& run, size_t layer, size_t head) {
    thread_local Buffer<float> query, result, scores;
    thread_local Buffer<const float*> blocks;
    thread_local Buffer<size_t> last;
    const size_t size = a_.head_size, stride = round_up(size, 16), group = a_.heads / a_.shared_heads;
    const size_t rows = (run.end - run.begin) * group, position = tokens_[run.end - 1].position;
    query.resize(rows * size);
    result.resize(rows * stride);
    last.resize(rows);
    scores.resize(std::min(rows, kMostTileRows) * (position + kSlots));
    blocks.resize(position / kSlots + 1);
    for (size_t b = 0; b < blocks.size(); ++b) {
      blocks[b] = cache_.block(tokens_[run.begin].sequence, b) + head_offset(layer, head);
    }
    for (size_t m = 0; m < rows; ++m) {
      const size_t i = run.begin + m / group;
      last[m] = tokens_[i].position;
      std::memcpy(&query[m * size], work_.qkv.row(i) + (head * group + m % group) * size, size * sizeof(float));
    }
    operations_.attend({blocks.data(), size}, query.data(), last.data(), rows, result.data(), scores.data());
    for (size_t m = 0; m < rows; ++m) {
      float* const to = work_.mixed.row(run.begin + m / group) + (head * group + m % group) * size;
      std::memcpy(to, &result[m * stride], size * sizeof(float));
    }
  }

  const Llama& a_;
  const Cache& cache_;
  const Token* tokens_;
  size_t count_;
  Workspace& work_;
  size_t threads_;
  std::vector<Run> runs_;
  const Operations& operations_ = *isas.get();
};

}  // namespace

size_t Llama::head_block_size() const { return kSlots * (head_size + round_up(head_size, 16)); }

size_t Llama::block_size() const { return layers.size() * shared_heads * head_block_size(); }

void forward(const Llama& llama, const Cache& cache, const Token* tokens, size_t count, float* out, size_t threads,
             const std::function<void()>& pause) {
  thread_local Workspace work;  // kept from call to call
  const DefaultRounding rounding;
  for (size_t begin = 0; begin < count; begin += kChunk) {
    const size_t size = std::min(kChunk, count - begin);
    Pass(llama, cache, tokens + begin, size, work, threads).run(out + begin * llama.size, pause);
  }
}

void linear(const Matrix& w, const float* x, size_t rows, float* y, size_t threads) {
  const DefaultRounding rounding;
  if (w.outputs % kPanel == 0) return product(w, x, w.inputs, rows, y, w.outputs, threads);
  thread_local Rows padded;  // a panel is written as a whole
  for (size_t begin = 0; begin < rows; begin += kChunk) {
    const size_t count = std::min(kChunk, rows - begin);
    padded.resize(count, w.outputs);
    product(w, x + begin * w.inputs, w.inputs, count, padded.begin, padded.stride, threads);
    for (size_t m = 0; m < count; ++m) {
      std::memcpy(y + (begin + m) * w.outputs, padded.row(m), w.outputs * sizeof(float));
    }
  }
}

std::vector<std::string> available_operations() { return isas.names(); }
bool use_operations(const std::string& name) { return isas.use(name); }
std::string operations_in_use() { return isas.name(); }

}  // namespace alea
